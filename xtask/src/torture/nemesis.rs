//! The nemesis: injects faults into the broker and everything around it. The seed decides the faults and their times before the run begins.

use std::time::{Duration, Instant};

use faulty_disk::Fault as DiskFault;

use super::broker::Broker;
use super::databases::Database;
use super::options::Options;
use super::proxy::{Mode, Proxy};
use super::random::Random;
use super::reverse_proxies::ReverseProxy;
use super::scripts::Scripts;

/// A fault. The number of a variant is a duration in milliseconds, except in `Clock`. The history files contain the names of the variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL to the broker, and a restart after the duration.
    Kill(u64),
    /// SIGTERM to the broker, and a restart after it has ended.
    Term,
    /// SIGSTOP to the broker, and SIGCONT after the duration.
    Freeze(u64),
    /// SIGSTOP to the broker, SIGKILL after the duration, and a restart. The broker never reads the bytes that clients have written meanwhile.
    FreezeAndKill(u64),
    /// SIGKILL to the broker, loss of some unsynced writes, and a restart after the duration.
    PowerCut(u64),
    /// Writes to the broker's disk fail for the duration.
    DiskFails(DiskFailure, u64),
    /// The wall clock steps by this number of seconds.
    Clock(i64),
    /// The faulty proxy resets all connections.
    Cut,
    /// The faulty proxy passes nothing for the duration.
    Stall(u64),
    /// The faulty proxy discards the bytes that the broker sends, for the duration.
    Forget(u64),
    /// nginx is killed and restarted.
    Nginx,
    /// HAProxy is killed and restarted.
    Haproxy,
    /// The database server is killed, and restarted after the duration.
    DatabaseKill(u64),
    /// The database server is frozen for the duration.
    DatabaseFreeze(u64),
    /// The PHP scripts are killed and restarted.
    ScriptsKill,
    /// The PHP scripts are frozen for the duration.
    ScriptsFreeze(u64),
}

/// How the broker's disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFailure {
    /// ENOSPC.
    Full,
    /// EIO.
    Broken,
    /// Writes succeed, and `fsync` returns EIO.
    Unsynced,
}

impl DiskFailure {
    fn fault(self) -> DiskFault {
        match self {
            Self::Full => DiskFault::Everything(libc::ENOSPC),
            Self::Broken => DiskFault::Everything(libc::EIO),
            Self::Unsynced => DiskFault::Sync(libc::EIO),
        }
    }
}

/// The processes into which faults are injected.
pub struct Targets {
    pub broker: Broker,
    pub proxy: Proxy,
    pub nginx: Option<ReverseProxy>,
    /// HAProxy in HTTP mode.
    pub haproxy: Option<ReverseProxy>,
    /// HAProxy in TCP mode.
    pub haproxy_tcp: Option<ReverseProxy>,
    pub database: Option<Database>,
    pub scripts: Scripts,
}

/// Returns the faults of a run, each with its time since the start.
pub fn plan(options: &Options) -> Vec<(Duration, Fault)> {
    let mut random = Random::new(options.seed, "nemesis");
    let mut list = Vec::new();
    let mut at = random.millis(1_500, 3_000);
    while at < options.length {
        let fault = choose(&mut random, options);
        list.push((at, fault));
        at += random.millis(600, 3_000);
    }
    list
}

fn choose(random: &mut Random, options: &Options) -> Fault {
    // A fault is possible if the run has all of the parts.
    let weight = |parts: &[&str], weight: u64| if parts.iter().all(|part| options.has(part)) { weight } else { 0 };
    let short = random.between(50, 400);
    let long = random.between(500, 5_000);
    let failure = random.pick(&[DiskFailure::Full, DiskFailure::Broken, DiskFailure::Unsynced]);
    let step = random.pick(&[-7_200, -3_600, -90, -5, 5, 90, 3_600, 7_200]);
    random.weighted(&[
        (weight(&["kill"], 20), Fault::Kill(short)),
        (weight(&["term"], 14), Fault::Term),
        (weight(&["freeze"], 5), Fault::Freeze(short * 4)),
        (weight(&["kill", "freeze"], 5), Fault::FreezeAndKill(short * 2)),
        (weight(&["clock"], 14), Fault::Clock(step)),
        (weight(&["kill", "disk"], 12), Fault::PowerCut(short)),
        (weight(&["disk"], 8), Fault::DiskFails(failure, long / 2)),
        (weight(&["proxies"], 8), Fault::Cut),
        (weight(&["proxies"], 6), Fault::Stall(long)),
        (weight(&["proxies"], 10), Fault::Forget(long)),
        (weight(&["proxies", "nginx"], 4), Fault::Nginx),
        (weight(&["proxies", "haproxy"], 4), Fault::Haproxy),
        (weight(&["database"], 14), Fault::DatabaseKill(long)),
        (weight(&["database"], 6), Fault::DatabaseFreeze(long)),
        (weight(&["scripts"], 8), Fault::ScriptsKill),
        (weight(&["scripts"], 5), Fault::ScriptsFreeze(long)),
        (1, Fault::Cut),
    ])
}

/// Injects each fault at its time.
///
/// # Errors
/// The broker has ended by itself, or a process cannot be restarted.
pub fn run(targets: &Targets, plan: &[(Duration, Fault)]) -> Result<(), String> {
    let begun = Instant::now();
    for (at, fault) in plan {
        std::thread::sleep(at.saturating_sub(begun.elapsed()));
        if !targets.broker.check_running() {
            return Err("the broker has ended by itself".to_owned());
        }
        targets.broker.note("deed", &format!("{fault:?}"));
        targets.inject(*fault)?;
    }
    Ok(())
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

impl Targets {
    fn inject(&self, fault: Fault) -> Result<(), String> {
        match fault {
            Fault::Kill(millis) => {
                self.broker.kill();
                pause(millis);
                self.broker.start()
            }
            Fault::PowerCut(millis) => {
                self.broker.cut_power()?;
                pause(millis);
                self.broker.start()
            }
            Fault::DiskFails(failure, millis) => {
                self.broker.set_disk_fault(failure.fault())?;
                pause(millis);
                self.broker.set_disk_fault(DiskFault::None)
            }
            Fault::Term => self.broker.stop().and_then(|()| self.broker.start()),
            Fault::Freeze(millis) => {
                self.freeze(millis);
                self.broker.signal(libc::SIGCONT);
                self.broker.note("unfrozen", "");
                Ok(())
            }
            Fault::FreezeAndKill(millis) => {
                self.freeze(millis);
                self.broker.kill();
                self.broker.note("unfrozen", "");
                self.broker.start()
            }
            Fault::Clock(seconds) => {
                let offset = self.broker.clock().map_or(Ok(0), |clock| clock.step(seconds))?;
                self.broker.note("clock", &offset.to_string());
                Ok(())
            }
            Fault::Cut => {
                self.broker.note("proxy", "cut");
                self.proxy.cut();
                Ok(())
            }
            Fault::Stall(millis) => self.fail_proxy(Mode::Stall, "stall", millis),
            Fault::Forget(millis) => self.fail_proxy(Mode::Discard, "forget", millis),
            Fault::Nginx => self.restart(self.nginx.as_ref(), "nginx"),
            Fault::Haproxy => {
                self.restart(self.haproxy.as_ref(), "haproxy")?;
                self.restart(self.haproxy_tcp.as_ref(), "haproxy-tcp")
            }
            Fault::DatabaseKill(millis) => self.fail_database(millis, true),
            Fault::DatabaseFreeze(millis) => self.fail_database(millis, false),
            Fault::ScriptsKill => {
                self.broker.note("scripts", "kill");
                self.scripts.restart();
                Ok(())
            }
            Fault::ScriptsFreeze(millis) => {
                self.scripts.freeze(true);
                pause(millis);
                self.scripts.freeze(false);
                Ok(())
            }
        }
    }

    fn freeze(&self, millis: u64) {
        self.broker.note("frozen", "");
        self.broker.signal(libc::SIGSTOP);
        pause(millis);
    }

    fn fail_proxy(&self, mode: Mode, name: &str, millis: u64) -> Result<(), String> {
        self.broker.note("proxy", name);
        self.proxy.set(mode);
        pause(millis);
        self.proxy.set(Mode::Pass);
        self.broker.note("proxy", "pass");
        Ok(())
    }

    fn restart(&self, proxy: Option<&ReverseProxy>, name: &str) -> Result<(), String> {
        self.broker.note(name, "restart");
        proxy.map_or(Ok(()), ReverseProxy::restart)
    }

    fn fail_database(&self, millis: u64, kill: bool) -> Result<(), String> {
        let Some(database) = &self.database else { return Ok(()) };
        self.broker.note("database-down", if kill { "kill" } else { "freeze" });
        if kill {
            database.kill();
        } else {
            database.freeze(true);
        }
        pause(millis);
        let back = if kill {
            database.start()
        } else {
            database.freeze(false);
            Ok(())
        };
        self.broker.note("database-up", "");
        back
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Fault, plan};
    use crate::torture::options::{Options, Store};

    fn options(seed: u64, seconds: u64) -> Options {
        Options { seed, length: Duration::from_secs(seconds), store: Store::MariaDb, ..Options::default() }
    }

    #[test]
    fn a_seed_repeats_the_plan_and_another_changes_it() {
        assert_eq!(plan(&options(5, 60)), plan(&options(5, 60)));
        assert_ne!(plan(&options(5, 60)), plan(&options(6, 60)));
    }

    #[test]
    fn a_disabled_fault_is_never_planned() {
        let without = ["clock", "database"].map(str::to_owned).to_vec();
        let faults = plan(&Options { without, ..options(1, 3_600) });
        let database = |fault: &Fault| matches!(fault, Fault::DatabaseKill(_) | Fault::DatabaseFreeze(_));
        assert!(plan(&options(1, 3_600)).iter().any(|(_, fault)| database(fault)));
        let sqlite = plan(&Options { store: Store::Sqlite, ..options(1, 3_600) });
        assert!(!sqlite.iter().any(|(_, fault)| database(fault)), "SQLite has no server");
        assert!(!faults.iter().any(|(_, fault)| database(fault) || matches!(fault, Fault::Clock(_))));
        assert!(faults.iter().any(|(_, fault)| matches!(fault, Fault::Kill(_))), "a long run has every enabled fault");
    }
}
