//! One run from the first process to the verdict.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::broker::Broker;
use super::checker;
use super::clients::{Client, Shared, Stage};
use super::clock::FakeClock;
use super::databases::{self, Database};
use super::disk::BrokerDisk;
use super::fronts::{self, Front};
use super::nemesis::{self, Powers, Victims};
use super::options::{Options, Store};
use super::plan::{self, Channel, Manner, Receiver, Route, Sender};
use super::process;
use super::proxy::Proxy;
use super::random::Random;
use super::receivers::Receiving;
use super::record::{Event, Kind, Recorder};
use super::scripts::Scripts;
use super::senders::Sending;

/// How long senders may take to bring what they have begun to its end.
const SETTLING: Duration = Duration::from_secs(30);
/// Nothing that is held back or delayed is so for longer.
const HELD: Duration = Duration::from_secs(9);
/// When nothing has come for so long, nothing more comes.
const QUIET: Duration = Duration::from_secs(3);
/// How long the patient receivers may take in all.
const DRAINING: Duration = Duration::from_secs(120);

/// Runs and checks.
///
/// # Errors
/// A promise was broken, or the run could not be made; the text says which.
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
            eprintln!("torture: every promise was kept ({:.1} s)", begun.elapsed().as_secs_f64());
            Ok(())
        }
        Err(text) => Err(format!("{text}\nthe histories are in {}", directory.display())),
    }
}

/// Checks the histories in a directory.
///
/// # Errors
/// What was broken, or what cannot be read.
pub fn check(directory: &Path) -> Result<(), String> {
    let history = checker::History::read(directory)?;
    eprintln!("torture: {}", history.summary());
    let found = checker::violations(&history);
    if found.is_empty() { Ok(()) } else { Err(checker::report(&history, &found)) }
}

/// Builds the program as the tests do.
fn build() -> Result<PathBuf, String> {
    crate::run(crate::cargo().args(["build", "--package", "wsmb", "--bin", "wsmb"]))
        .map_err(|failure| failure.to_string())?;
    let path = crate::target_directory().join("debug/wsmb");
    std::fs::canonicalize(&path).map_err(|error| format!("{}: {error}", path.display()))
}

/// What a run consists of once everything has been started.
struct Cast {
    victims: Victims,
    shared: Shared,
    channels: Vec<Channel>,
    senders: Vec<Sender>,
    receivers: Vec<Receiver>,
}

fn torture(options: &Options, program: &Path, directory: &Path) -> Result<(), String> {
    let cast = assemble(options, program, directory)?;
    let powers = powers(options);
    let deeds = nemesis::plan(options.seed, options.length, powers);
    let drains = drains(options.has("failures"));
    let client =
        |name: &str| Client::new(&cast.shared, directory, name).map_err(|error| format!("{name}.jsonl: {error}"));
    let sending: Vec<_> =
        cast.senders.iter().map(|plan| Ok((client(&plan.name)?, plan))).collect::<Result<_, String>>()?;
    let receiving: Vec<_> =
        cast.receivers.iter().map(|plan| Ok((client(&plan.name)?, plan))).collect::<Result<_, String>>()?;
    let taking: Vec<_> = drains.iter().map(|plan| Ok((client(&plan.name)?, plan))).collect::<Result<_, String>>()?;
    let result = std::thread::scope(|scope| {
        let seed = options.seed;
        let begin = |(client, plan)| scope.spawn(move || Sending::new(client, plan, seed).run());
        let senders: Vec<_> = sending.iter().map(|(client, plan)| begin((client, *plan))).collect();
        let receive = |(client, plan), last| scope.spawn(move || Receiving::new(client, plan, seed).run(last));
        let receivers: Vec<_> =
            receiving.iter().map(|(client, plan)| receive((client, *plan), Stage::Settling)).collect();
        let acted = nemesis::act(&cast.victims, &deeds);
        if acted.is_err() {
            cast.shared.set(Stage::Over);
            return acted;
        }
        settle(&cast, &senders);
        for receiver in receivers {
            let _ = receiver.join();
        }
        for (client, plan) in &taking {
            receive((client, *plan), Stage::Draining);
        }
        drain(&cast);
        cast.shared.set(Stage::Over);
        Ok(())
    });
    finish(&cast, directory, result)
}

/// Starts everything that is no client.
fn assemble(options: &Options, program: &Path, directory: &Path) -> Result<Cast, String> {
    let text = |error: std::io::Error| error.to_string();
    let mut random = Random::new(options.seed, "cast");
    let place = || process::free_port().local_addr().map_err(text);
    let (address, behind) = (place()?, place()?);
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
    let front = |kind, name: &str, target| {
        let wanted = options.has("proxies") && options.has(name);
        if wanted { Front::start(kind, directory, target).map(Some) } else { Ok(None) }
    };
    let nginx = front(fronts::Kind::Nginx, "nginx", address)?;
    let haproxy = front(fronts::Kind::Haproxy, "haproxy", address)?;
    let haproxy_tcp = front(fronts::Kind::HaproxyTcp, "haproxy", behind)?;
    let mut places: BTreeMap<&'static str, SocketAddr> = BTreeMap::from([(Route::Direct.name(), address)]);
    let mut routes = vec![Route::Direct];
    let proxied = [
        (Route::Liar, options.has("proxies").then(|| proxy.address())),
        (Route::Nginx, nginx.as_ref().map(Front::address)),
        (Route::Haproxy, haproxy.as_ref().map(Front::address)),
        (Route::HaproxyTcp, haproxy_tcp.as_ref().map(Front::address)),
    ];
    for (route, place) in proxied {
        if let Some(place) = place {
            places.insert(route.name(), place);
            routes.push(route);
        }
    }
    let scripts = if options.has("scripts") {
        let behind = nginx.as_ref().map_or(address, Front::address);
        Scripts::start(directory, vec![address, behind])?
    } else {
        Scripts::none()
    };
    let senders = plan::senders(&mut random, &routes, options.has("failures"));
    let receivers = plan::receivers(&mut random, &routes, options.has("failures"));
    let victims = Victims { broker, proxy, nginx, haproxy, haproxy_tcp, database, scripts };
    Ok(Cast {
        victims,
        channels,
        shared: Shared::new(places, options.has("orderly"), options.has("failures")),
        senders,
        receivers,
    })
}

fn powers(options: &Options) -> Powers {
    Powers {
        kill: options.has("kill"),
        term: options.has("term"),
        freeze: options.has("freeze"),
        clock: options.has("clock"),
        disk: options.has("disk"),
        proxies: options.has("proxies"),
        nginx: options.has("proxies") && options.has("nginx"),
        haproxy: options.has("proxies") && options.has("haproxy"),
        database: options.store != Store::Sqlite && options.has("database"),
        scripts: options.has("scripts"),
    }
}

/// Patient receivers, one for each kept channel. By hand where marks are promised.
fn drains(failures: bool) -> Vec<Receiver> {
    let kept = plan::channels(failures).into_iter().filter(|channel| channel.keep);
    kept.map(|channel| {
        let by_hand = ["hand", "tries", "dead", "dead-late"].contains(&channel.name.as_str());
        Receiver {
            name: format!("drain-{}", channel.name),
            channel: channel.name,
            manner: if by_hand { Manner::Manual } else { Manner::Modern },
            route: Route::Direct,
            named: false,
            away: 0,
            calm: true,
        }
    })
    .collect()
}

/// The nemesis is done: senders bring what they have begun to its end, receivers go.
fn settle(cast: &Cast, senders: &[std::thread::ScopedJoinHandle<'_, ()>]) {
    cast.shared.set(Stage::Settling);
    cast.victims.scripts.end();
    let begun = Instant::now();
    while senders.iter().any(|sender| !sender.is_finished()) && begun.elapsed() < SETTLING {
        std::thread::sleep(Duration::from_millis(50));
    }
    cast.victims.broker.note("settled", &format!("{:.1}", begun.elapsed().as_secs_f64()));
    cast.shared.set(Stage::Draining);
}

/// Waits until nothing comes any more.
fn drain(cast: &Cast) {
    let begun = Instant::now();
    while begun.elapsed() < HELD || cast.shared.quiet() < QUIET {
        if begun.elapsed() > DRAINING {
            cast.victims.broker.wrong(&format!("messages still come {DRAINING:?} after the end of everything"));
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Stops the broker, and notes what still waits in its store.
fn finish(cast: &Cast, directory: &Path, result: Result<(), String>) -> Result<(), String> {
    if let Some(database) = &cast.victims.database {
        let _ = std::fs::copy(database.log(), directory.join("database.log"));
    }
    result?;
    cast.victims.broker.look();
    cast.victims.broker.stop()?;
    let kept: Vec<String> =
        cast.channels.iter().filter(|channel| channel.keep).map(|channel| channel.name.clone()).collect();
    let recorder = Recorder::create(directory, "waiting").map_err(|error| error.to_string())?;
    for (channel, line) in cast.victims.broker.waiting(&kept)? {
        recorder.note(&Event::now(Kind::Note).in_channel(&channel).what("waiting").how(line));
    }
    let log = std::fs::read_to_string(directory.join("broker.log")).unwrap_or_default();
    for line in log.lines().filter(|line| line.contains("panicked")) {
        cast.victims.broker.wrong(line);
    }
    Ok(())
}
