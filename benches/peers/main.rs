//! The workloads of `wsmb bench` for other brokers, with MQTT 3.1.1 or NATS over WebSocket. The load engine, the messages, the windows, the checks and
//! the report are the same; only the protocol differs. This code is not part of the shipped program.
//!
//! ```sh
//! cargo bench --bench peers -- mqtt p2p --url ws://127.0.0.1:9001/mqtt
//! cargo bench --bench peers -- nats confirmed --url ws://127.0.0.1:9222/ --json
//! ```
//!
//! # Configuration of the servers
//!
//! Each server has its default configuration, except where the default would lose messages, distort the measurement, or listen on the network. `PORT`
//! is any free port; `DIRECTORY` is a temporary directory.
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
//! * `user`: only needed if the server is started as root. Otherwise it would drop its privileges and lose access to the directory.
//! * The first listener is not used; 2.0 does not start with WebSocket listeners only. Without `socket_domain`, a WebSocket listener does
//!   not listen on the loopback only.
//! * `max_queued_messages 0`, `max_inflight_messages 0`: no limit. By default 20 messages of QoS 1 may be in flight to a receiver and 1,000 may be
//!   queued; further messages are dropped silently, so that a window of 4,096 would measure the dropping.
//! * `set_tcp_nodelay`: on by default in this broker and in NATS.
//! * Persistence matters for `confirmed` only. A PUBACK means that the server has the message in memory. The server writes all queued messages to a
//!   file and syncs the file every `autosave_interval` seconds; a crash loses later messages. Its answer promises less than that of this broker, which
//!   answers when the message is on the disk or confirmed by a receiver.
//!
//! ## nats-server 2.9
//!
//! ```text
//! listen: "127.0.0.1:OTHER_PORT"
//! websocket { listen: "127.0.0.1:PORT", no_tls: true }
//! jetstream { store_dir: "DIRECTORY" }
//! ```
//!
//! * The first address is not used, but cannot be omitted. The default `max_pending`, 64 MiB per connection, is larger than every window, so no client
//!   is a slow consumer. Frame compression is off by default.
//! * Omit `jetstream` for all workloads except `confirmed`.
//! * In `confirmed`, a stream with file storage is a work queue. The server answers when it has written the message to the file (one `pwrite` per
//!   message), and removes the message when the consumer has acknowledged it. The file is not synced, and 2.9 has no setting for this
//!   (`sync_interval` came with 2.10): a power cut loses answered messages, a crash of the process does not.
//! * The stream is not deleted after the measurement; its name begins with that of the run.

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
    /// The broker's protocol
    protocol: Protocol,

    #[command(subcommand)]
    workload: Workload,

    /// The broker's URL
    #[arg(long, global = true, default_value = "ws://127.0.0.1:9001/")]
    url: String,

    #[command(flatten)]
    options: Options,

    /// Added by `cargo bench`
    #[arg(long, global = true, hide = true)]
    bench: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Protocol {
    /// MQTT 3.1.1, for Mosquitto, RabbitMQ or rumqttd
    Mqtt,
    /// NATS
    Nats,
}

fn main() -> ExitCode {
    // `cargo bench` and `cargo test --benches` start the program without arguments. This must not fail.
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
        // MQTT stores no messages of a topic without a subscription.
        return Err(Error::Misuse("the workload backlog works with wsmb only".to_owned()));
    }
    let target = Target::new(url, None, None)?;
    match protocol {
        Protocol::Mqtt => wsmb_load::run(&mqtt::Mqtt, &target, workload, options, &mut |_| {}),
        Protocol::Nats => wsmb_load::run(&nats::Nats, &target, workload, options, &mut |_| {}),
    }
}
