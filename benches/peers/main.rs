//! Other brokers under the same load: `wsmb bench`, spoken in MQTT 3.1.1 or NATS over WebSocket. The engine, the messages, the windows, the checks and
//! the report are the same; only the protocol is another. None of it is in the program that is shipped.
//!
//! ```sh
//! cargo bench --bench peers -- mqtt p2p --url ws://127.0.0.1:9001/mqtt
//! cargo bench --bench peers -- nats confirmed --url ws://127.0.0.1:9222/ --json
//! ```
//!
//! # What a fair server is
//!
//! Each as its makers deliver it, except where that would lose messages, measure something else, or leave the machine. `PORT` and `DIRECTORY` are for
//! whoever starts it to choose; a directory of its own, which is removed afterwards.
//!
//! ## Mosquitto 2.0
//!
//! ```text
//! user root
//! listener 0 DIRECTORY/mosquitto.sock
//! listener PORT 127.0.0.1
//! protocol websockets
//! socket_domain ipv4
//! allow_anonymous true
//! set_tcp_nodelay true
//! max_queued_messages 0
//! max_inflight_messages 0
//! persistence true
//! persistence_location DIRECTORY/
//! autosave_interval 1
//! ```
//!
//! * `user`: only where it is started as root, whose privileges it would drop otherwise, and with them the directory.
//! * The first listener is not used: 2.0 does not start with WebSocket listeners alone. `socket_domain` makes it listen on the loopback only,
//!   which it does not do for WebSocket without.
//! * `max_queued_messages 0`, `max_inflight_messages 0`: no limit. By default 20 messages of QoS 1 may be on their way to a receiver and 1,000 wait
//!   for it; what comes then is dropped in silence, and a window of 4,096 would measure how fast it drops.
//! * `set_tcp_nodelay`: this broker and NATS have it by default.
//! * Persistence matters for `confirmed` only. A PUBACK means that the server has the message in memory. It writes everything that waits to a file, and
//!   synchronises that, once in `autosave_interval` seconds; a crash loses what came since. So its answer promises less than this broker's, which has the message on
//!   the disk or at a receiver.
//!
//! ## nats-server 2.9
//!
//! ```text
//! listen: "127.0.0.1:OTHER_PORT"
//! websocket { listen: "127.0.0.1:PORT", no_tls: true }
//! jetstream { store_dir: "DIRECTORY" }
//! ```
//!
//! * The first address is not used, but cannot be left out. `max_pending`, 64 MiB for each connection, is far above every window: nobody is
//!   called slow. Compression of frames is off unless it is asked for.
//! * For everything but `confirmed` leave out `jetstream`: that is plain NATS.
//! * In `confirmed` a stream with a file is a work queue: it answers when it has written the message to the file (one `pwrite` each), and removes the
//!   message when the consumer has acknowledged it. Written is not synchronised, and 2.9 knows no setting for it (`sync_interval` came with
//!   2.10): a power cut loses what was answered for, a crash of the process alone does not.
//! * The stream stays when the measurement has ended; its name begins with that of the run.

mod mqtt;
mod nats;
mod packets;

use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use wsmb_client::Url;
use wsmb_load::{Error, Options, Report, Target, Workload};

/// Measure another broker as `wsmb bench` measures this one
#[derive(Debug, Parser)]
#[command(name = "peers")]
struct Arguments {
    /// What it speaks
    protocol: Protocol,

    #[command(subcommand)]
    workload: Workload,

    /// Where it listens
    #[arg(long, global = true, default_value = "ws://127.0.0.1:9001/")]
    url: String,

    #[command(flatten)]
    options: Options,

    /// What `cargo bench` adds by itself
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    /// MQTT 3.1.1, as Mosquitto, RabbitMQ and rumqttd speak it
    Mqtt,
    /// NATS
    Nats,
}

fn main() -> ExitCode {
    // Whoever runs all benchmarks, or only wants to see that they build, has no server for this one.
    if std::env::args().skip(1).all(|argument| argument == "--bench") {
        println!("usage: cargo bench --bench peers -- <mqtt|nats> <WORKLOAD> --url URL; more with --help");
        return ExitCode::SUCCESS;
    }
    let arguments = Arguments::parse();
    match measure(&arguments) {
        Ok(report) => {
            println!("{}", if arguments.options.json { report.to_json() } else { report.to_string() });
            if report.is_sound() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::from(if matches!(error, Error::Misuse(_)) { 2 } else { 1 })
        }
    }
}

fn measure(arguments: &Arguments) -> Result<Report, Error> {
    let Arguments { protocol, workload, url, options, .. } = arguments;
    let url = Url::parse(url).map_err(|error| Error::Misuse(format!("{url}: {error}")))?;
    if matches!(workload, Workload::Backlog { .. }) {
        // A topic of MQTT keeps nothing before somebody has subscribed to it.
        return Err(Error::Misuse(
            "a backlog that nobody has asked for yet is measured with this broker only".to_owned(),
        ));
    }
    let target = Target::new(url, None)?;
    match protocol {
        Protocol::Mqtt => wsmb_load::run(&mqtt::Mqtt, &target, workload, options, &mut |_| {}),
        Protocol::Nats => wsmb_load::run(&nats::Nats, &target, workload, options, &mut |_| {}),
    }
}
