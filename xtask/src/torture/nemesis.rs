//! The nemesis: injects faults into the broker and everything around it. The seed decides the faults and their times before the run begins.

use std::time::{Duration, Instant};

use faulty_disk::Fault as DiskFault;

use super::broker::Broker;
use super::databases::Database;
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

/// The kinds of faults that a run may have.
#[derive(Clone, Copy, Debug)]
pub struct Capabilities {
    pub kill: bool,
    pub term: bool,
    pub freeze: bool,
    pub clock: bool,
    /// Disk failures and power cuts.
    pub disk: bool,
    /// Faults of the faulty proxy.
    pub proxies: bool,
    pub nginx: bool,
    pub haproxy: bool,
    pub database: bool,
    pub scripts: bool,
}

/// Returns the faults of a run of this length, each with its time since the start.
pub fn plan(seed: u64, length: Duration, capabilities: Capabilities) -> Vec<(Duration, Fault)> {
    let mut random = Random::new(seed, "nemesis");
    let mut list = Vec::new();
    let mut at = random.millis(1_500, 3_000);
    while at < length {
        let fault = choose(&mut random, capabilities);
        list.push((at, fault));
        at += random.millis(600, 3_000);
    }
    list
}

fn choose(random: &mut Random, capabilities: Capabilities) -> Fault {
    let weight = |has: bool, weight: u64| if has { weight } else { 0 };
    let short = random.between(50, 400);
    let long = random.between(500, 5_000);
    let failure = random.pick(&[DiskFailure::Full, DiskFailure::Broken, DiskFailure::Unsynced]);
    let step = random.pick(&[-7_200, -3_600, -90, -5, 5, 90, 3_600, 7_200]);
    random.weighted(&[
        (weight(capabilities.kill, 20), Fault::Kill(short)),
        (weight(capabilities.term, 14), Fault::Term),
        (weight(capabilities.freeze, 5), Fault::Freeze(short * 4)),
        (weight(capabilities.kill && capabilities.freeze, 5), Fault::FreezeAndKill(short * 2)),
        (weight(capabilities.clock, 14), Fault::Clock(step)),
        (weight(capabilities.kill && capabilities.disk, 12), Fault::PowerCut(short)),
        (weight(capabilities.disk, 8), Fault::DiskFails(failure, long / 2)),
        (weight(capabilities.proxies, 8), Fault::Cut),
        (weight(capabilities.proxies, 6), Fault::Stall(long)),
        (weight(capabilities.proxies, 10), Fault::Forget(long)),
        (weight(capabilities.nginx, 4), Fault::Nginx),
        (weight(capabilities.haproxy, 4), Fault::Haproxy),
        (weight(capabilities.database, 14), Fault::DatabaseKill(long)),
        (weight(capabilities.database, 6), Fault::DatabaseFreeze(long)),
        (weight(capabilities.scripts, 8), Fault::ScriptsKill),
        (weight(capabilities.scripts, 5), Fault::ScriptsFreeze(long)),
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
        pause(at.saturating_sub(begun.elapsed()));
        if !targets.broker.check_running() {
            return Err("the broker has ended by itself".to_owned());
        }
        targets.broker.note("deed", &format!("{fault:?}"));
        targets.inject(*fault)?;
    }
    Ok(())
}

fn pause(time: Duration) {
    std::thread::sleep(time);
}

impl Targets {
    fn inject(&self, fault: Fault) -> Result<(), String> {
        let wait = |millis: u64| pause(Duration::from_millis(millis));
        match fault {
            Fault::Kill(millis) => {
                self.broker.kill();
                wait(millis);
                self.broker.start()
            }
            Fault::PowerCut(millis) => {
                self.broker.cut_power()?;
                wait(millis);
                self.broker.start()
            }
            Fault::DiskFails(failure, millis) => {
                self.broker.set_disk_fault(failure.fault())?;
                wait(millis);
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
                wait(millis);
                self.scripts.freeze(false);
                Ok(())
            }
        }
    }

    fn freeze(&self, millis: u64) {
        self.broker.note("frozen", "");
        self.broker.signal(libc::SIGSTOP);
        pause(Duration::from_millis(millis));
    }

    fn fail_proxy(&self, mode: Mode, name: &str, millis: u64) -> Result<(), String> {
        self.broker.note("proxy", name);
        self.proxy.set(mode);
        pause(Duration::from_millis(millis));
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
        pause(Duration::from_millis(millis));
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

    use super::{Capabilities, Fault, plan};

    const ALL: Capabilities = Capabilities {
        kill: true,
        term: true,
        freeze: true,
        clock: true,
        disk: true,
        proxies: true,
        nginx: true,
        haproxy: true,
        database: true,
        scripts: true,
    };

    #[test]
    fn a_seed_repeats_the_plan_and_another_changes_it() {
        let length = Duration::from_secs(60);
        assert_eq!(plan(5, length, ALL), plan(5, length, ALL));
        assert_ne!(plan(5, length, ALL), plan(6, length, ALL));
    }

    #[test]
    fn a_disabled_fault_is_never_planned() {
        let off = Capabilities { clock: false, database: false, ..ALL };
        let faults = plan(1, Duration::from_secs(3_600), off);
        let is_off =
            |fault: &Fault| matches!(fault, Fault::Clock(_) | Fault::DatabaseKill(_) | Fault::DatabaseFreeze(_));
        assert!(!faults.iter().any(|(_, fault)| is_off(fault)));
        assert!(faults.iter().any(|(_, fault)| matches!(fault, Fault::Kill(_))), "a long run has every enabled fault");
    }
}
