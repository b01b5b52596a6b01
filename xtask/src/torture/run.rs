//! One run: starts the processes and clients, injects faults, drains the channels, checks the histories.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::checker;
use super::clients::{Shared, Stage};
use super::clock::FakeClock;
use super::databases::{self, Database};
use super::disk::BrokerDisk;
use super::nemesis::{self, Targets};
use super::options::{Options, Store};
use super::plan::{self, Channel, Receiver, ReceiverKind, Route, Sender};
use super::proxy::Proxy;
use super::random::Random;
use super::receivers::ReceiverRun;
use super::record::{Event, Kind, Recorder};
use super::reverse_proxies::{self, ReverseProxy};
use super::scripts::Scripts;
use super::senders::SenderRun;
use crate::process;

/// How long senders may take to get answers to their pending publications.
const SENDER_TIMEOUT: Duration = Duration::from_secs(30);
/// An upper bound for every delay, `retry_after` and timeout after which a message is delivered.
const LONGEST_DELAY: Duration = Duration::from_secs(9);
/// The channels are empty when no message has been received for this long.
const IDLE_TIME: Duration = Duration::from_secs(3);
/// How long draining may take.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(120);

/// Runs the broker and the clients, and checks the histories.
///
/// # Errors
/// A promise was broken, or the run failed.
pub fn run(options: &Options) -> Result<(), String> {
    let program = match &options.broker {
        Some(path) => std::fs::canonicalize(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => build()?,
    };
    let directory = std::env::temp_dir().join(format!("wsmb-torture-{}-{}", options.seed, std::process::id()));
    std::fs::create_dir_all(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    eprintln!("torture: seed {}, {:.1} s, {}", options.seed, options.length.as_secs_f64(), directory.display());
    let begun = Instant::now();
    let result = torture(options, &program, &directory).and_then(|()| check(&directory));
    match result {
        Ok(()) => {
            if !options.keep {
                let _ = std::fs::remove_dir_all(&directory);
            }
            eprintln!("torture: no violations ({:.1} s)", begun.elapsed().as_secs_f64());
            Ok(())
        }
        Err(text) => Err(format!("{text}\nthe histories are in {}", directory.display())),
    }
}

/// Checks the histories in a directory.
///
/// # Errors
/// A promise was broken, or a file cannot be read.
pub fn check(directory: &Path) -> Result<(), String> {
    let history = checker::History::read(directory)?;
    eprintln!("torture: {}", history.summary());
    let found = checker::violations(&history);
    if found.is_empty() { Ok(()) } else { Err(checker::report(&history, &found)) }
}

/// Builds the broker and returns its path.
fn build() -> Result<PathBuf, String> {
    crate::run(crate::cargo().args(["build", "--package", "wsmb", "--bin", "wsmb"]))
        .map_err(|failure| failure.to_string())?;
    let path = crate::target_directory().join("debug/wsmb");
    std::fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// The running processes of a run, and the plan of its clients.
struct Setup {
    targets: Targets,
    shared: Shared,
    channels: Vec<Channel>,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
}

fn torture(options: &Options, program: &Path, directory: &Path) -> Result<(), String> {
    let setup = set_up(options, program, directory)?;
    let faults = nemesis::plan(options);
    let drains = drain_receivers(options.has("failures"));
    let (shared, seed) = (&setup.shared, options.seed);
    let result = std::thread::scope(|scope| {
        let send =
            |plan| SenderRun::new(shared, directory, plan, seed).map(|mut sender| scope.spawn(move || sender.run()));
        let receive = |plan, last| {
            let receiver = ReceiverRun::new(shared, directory, plan, seed);
            receiver.map(|mut receiver| scope.spawn(move || receiver.run(last)))
        };
        let stages = || -> Result<(), String> {
            let senders = setup.senders.iter().map(send).collect::<Result<Vec<_>, _>>()?;
            let receivers = setup.receivers.iter().map(|plan| receive(plan, Stage::Settling));
            let receivers = receivers.collect::<Result<Vec<_>, _>>()?;
            nemesis::run(&setup.targets, &faults)?;
            wait_for_senders(&setup, &senders);
            for receiver in receivers {
                let _ = receiver.join();
            }
            drains.iter().try_for_each(|plan| receive(plan, Stage::Draining).map(drop))?;
            drain(&setup);
            Ok(())
        };
        let result = stages();
        shared.set(Stage::Over);
        result
    });
    finish(&setup, directory, result)
}

/// Starts the broker, the proxies, the database server and the scripts, and plans the clients.
fn set_up(options: &Options, program: &Path, directory: &Path) -> Result<Setup, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut random = Random::new(options.seed, "cast");
    let (address, behind) = (process::free_address(), process::free_address());
    let database = match options.store {
        Store::Sqlite => None,
        Store::MariaDb => Some(Database::new(databases::Kind::MariaDb)?),
        Store::Postgres => Some(Database::new(databases::Kind::Postgres)?),
    };
    let store = database.as_ref().map_or_else(|| format!("sqlite:{}/data/wsmb.db", directory.display()), Database::url);
    let channels = plan::channels(options.has("failures"));
    let mut configuration = plan::configuration(&mut random, &channels, address.port(), behind.port(), &store);
    if database.is_some() {
        configuration = configuration
            .replace("[store]\n", &format!("[store]\njournal = \"{}/data/journal.db\"\n", directory.display()));
    }
    std::fs::write(directory.join("wsmb.toml"), configuration).map_err(text)?;
    let listed = serde_json::to_string(&channels).map_err(|error| error.to_string())?;
    std::fs::write(directory.join("channels.json"), listed).map_err(text)?;
    let clock = if options.has("clock") { Some(FakeClock::new(directory)?) } else { None };
    let disk = if options.has("disk") { Some(BrokerDisk::new(directory, options.seed)?) } else { None };
    let broker = Broker::new(program, directory, address, clock, disk)?;
    broker.start()?;
    let proxy = Proxy::start(address).map_err(text)?;
    let reverse_proxy = |kind, name: &str, target| {
        let wanted = options.has("proxies") && options.has(name);
        if wanted { ReverseProxy::start(kind, directory, target).map(Some) } else { Ok(None) }
    };
    let nginx = reverse_proxy(reverse_proxies::Kind::Nginx, "nginx", address)?;
    let haproxy = reverse_proxy(reverse_proxies::Kind::Haproxy, "haproxy", address)?;
    let haproxy_tcp = reverse_proxy(reverse_proxies::Kind::HaproxyTcp, "haproxy", behind)?;
    let mut addresses: BTreeMap<&'static str, SocketAddr> = BTreeMap::from([(Route::Direct.name(), address)]);
    let mut routes = vec![Route::Direct];
    let proxied = [
        (Route::FaultyProxy, options.has("proxies").then(|| proxy.address())),
        (Route::Nginx, nginx.as_ref().map(ReverseProxy::address)),
        (Route::Haproxy, haproxy.as_ref().map(ReverseProxy::address)),
        (Route::HaproxyTcp, haproxy_tcp.as_ref().map(ReverseProxy::address)),
    ];
    for (route, address) in proxied {
        if let Some(address) = address {
            addresses.insert(route.name(), address);
            routes.push(route);
        }
    }
    let behind_nginx = nginx.as_ref().map_or(address, ReverseProxy::address);
    let of_scripts = if options.has("scripts") { vec![address, behind_nginx] } else { Vec::new() };
    let scripts = Scripts::start(directory, of_scripts)?;
    let senders = plan::senders(&mut random, &routes, options.has("failures"));
    let receivers = plan::receivers(&mut random, &routes, options.has("failures"));
    let targets = Targets { broker, proxy, nginx, haproxy, haproxy_tcp, database, scripts };
    Ok(Setup {
        targets,
        channels,
        shared: Shared::new(addresses, options.has("orderly"), options.has("failures")),
        senders,
        receivers,
    })
}

/// Returns one calm receiver for each kept channel. Where the checker looks for marks of redelivered messages, the receiver is manual.
fn drain_receivers(failures: bool) -> Vec<Receiver> {
    let kept = plan::channels(failures).into_iter().filter(|channel| channel.keep);
    kept.map(|channel| {
        let is_manual = ["hand", "tries", "dead", "dead-late"].contains(&channel.name.as_str());
        Receiver {
            name: format!("drain-{}", channel.name),
            channel: channel.name,
            kind: if is_manual { ReceiverKind::Manual } else { ReceiverKind::Modern },
            route: Route::Direct,
            named: false,
            away: 0,
            calm: true,
        }
    })
    .collect()
}

/// Waits for the senders, and tells the receivers to disconnect.
fn wait_for_senders(setup: &Setup, senders: &[std::thread::ScopedJoinHandle<'_, ()>]) {
    setup.shared.set(Stage::Settling);
    setup.targets.scripts.end();
    let begun = Instant::now();
    while senders.iter().any(|sender| !sender.is_finished()) && begun.elapsed() < SENDER_TIMEOUT {
        std::thread::sleep(Duration::from_millis(50));
    }
    setup.targets.broker.note("settled", &format!("{:.1}", begun.elapsed().as_secs_f64()));
    setup.shared.set(Stage::Draining);
}

/// Waits until the drain receivers have received all messages.
fn drain(setup: &Setup) {
    let begun = Instant::now();
    while begun.elapsed() < LONGEST_DELAY || setup.shared.idle_time() < IDLE_TIME {
        if begun.elapsed() > DRAIN_TIMEOUT {
            setup.targets.broker.note_wrong(&format!("messages are still delivered after {DRAIN_TIMEOUT:?}"));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the broker, and records the messages that still wait in its store.
fn finish(setup: &Setup, directory: &Path, result: Result<(), String>) -> Result<(), String> {
    if let Some(database) = &setup.targets.database {
        let _ = std::fs::copy(database.log(), directory.join("database.log"));
    }
    result?;
    setup.targets.broker.check_running();
    setup.targets.broker.stop()?;
    let kept: Vec<String> =
        setup.channels.iter().filter(|channel| channel.keep).map(|channel| channel.name.clone()).collect();
    let recorder = Recorder::create(directory, "waiting").map_err(|error| error.to_string())?;
    for (channel, line) in setup.targets.broker.waiting(&kept)? {
        recorder.note(&Event::now(Kind::Note).in_channel(&channel).what("waiting").how(line));
    }
    let log = std::fs::read_to_string(directory.join("broker.log")).unwrap_or_default();
    for line in log.lines().filter(|line| line.contains("panicked")) {
        setup.targets.broker.note_wrong(line);
    }
    Ok(())
}
