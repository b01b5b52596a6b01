//! The nemesis: what it does to everybody, and when, is decided by the seed before the run begins.

use std::time::{Duration, Instant};

use faulty_disk::Fault;

use super::broker::Broker;
use super::databases::Database;
use super::fronts::Front;
use super::proxy::{Mode, Proxy};
use super::random::Random;
use super::scripts::Scripts;

/// One deed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    /// `kill -9`, and started again after so many milliseconds.
    Kill(u64),
    /// SIGTERM, and started again at once.
    Term,
    /// SIGSTOP, and SIGCONT after so many milliseconds.
    Freeze(u64),
    /// SIGSTOP, and killed after so many milliseconds: what clients have written meanwhile is never read.
    FreezeAndKill(u64),
    /// The power goes: killed, and what was not synced is lost by chance; started again after so many milliseconds.
    PowerCut(u64),
    /// Nothing can be written to the broker's disk for so many milliseconds, which fails in this way.
    DiskFails(Failing, u64),
    /// The wall clock steps by so many seconds.
    Clock(i64),
    /// Our proxy cuts all connections.
    Cut,
    /// Our proxy lets nothing through for so many milliseconds.
    Stall(u64),
    /// Our proxy throws away what the broker sends, for so many milliseconds.
    Forget(u64),
    /// nginx is killed with all connections and started again.
    Nginx,
    /// HAProxy is killed with all connections and started again.
    Haproxy,
    /// The database server is killed, and started again after so many milliseconds.
    DatabaseKill(u64),
    /// The database server is frozen for so many milliseconds.
    DatabaseFreeze(u64),
    /// The scripts in other languages are killed, and started again.
    ScriptsKill,
    /// The scripts in other languages are frozen for so many milliseconds.
    ScriptsFreeze(u64),
}

/// How a disk fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failing {
    /// It is full.
    Full,
    /// It is broken.
    Broken,
    /// It takes what is written, and refuses to sync.
    Unsynced,
}

impl Failing {
    fn fault(self) -> Fault {
        match self {
            Self::Full => Fault::Everything(libc::ENOSPC),
            Self::Broken => Fault::Everything(libc::EIO),
            Self::Unsynced => Fault::Sync(libc::EIO),
        }
    }
}

/// What the nemesis may lay its hands on.
pub struct Victims {
    /// The broker.
    pub broker: Broker,
    /// Our proxy.
    pub proxy: Proxy,
    /// nginx.
    pub nginx: Option<Front>,
    /// HAProxy in HTTP mode.
    pub haproxy: Option<Front>,
    /// HAProxy in TCP mode.
    pub haproxy_tcp: Option<Front>,
    /// The store's server.
    pub database: Option<Database>,
    /// Clients in other languages.
    pub scripts: Scripts,
}

/// Which kinds of deeds a run knows.
#[derive(Clone, Copy, Debug)]
pub struct Powers {
    /// The broker is killed.
    pub kill: bool,
    /// The broker is stopped in an orderly way.
    pub term: bool,
    /// The broker is frozen.
    pub freeze: bool,
    /// The wall clock steps.
    pub clock: bool,
    /// The broker's disk fails, and the power goes.
    pub disk: bool,
    /// Our proxy and real ones misbehave.
    pub proxies: bool,
    /// There is an nginx.
    pub nginx: bool,
    /// There is a HAProxy.
    pub haproxy: bool,
    /// There is a database server to hurt.
    pub database: bool,
    /// There are scripts to hurt.
    pub scripts: bool,
}

/// What is done at which time of a run of this length.
pub fn plan(seed: u64, length: Duration, powers: Powers) -> Vec<(Duration, Deed)> {
    let mut random = Random::new(seed, "nemesis");
    let mut list = Vec::new();
    let mut at = random.millis(1_500, 3_000);
    while at < length {
        let deed = choose(&mut random, powers);
        list.push((at, deed));
        at += random.millis(600, 3_000);
    }
    list
}

fn choose(random: &mut Random, powers: Powers) -> Deed {
    let weight = |has: bool, weight: u64| if has { weight } else { 0 };
    let short = random.between(50, 400);
    let long = random.between(500, 5_000);
    let failing = random.pick(&[Failing::Full, Failing::Broken, Failing::Unsynced]);
    let step = random.pick(&[-7_200, -3_600, -90, -5, 5, 90, 3_600, 7_200]);
    random.weighted(&[
        (weight(powers.kill, 20), Deed::Kill(short)),
        (weight(powers.term, 14), Deed::Term),
        (weight(powers.freeze, 5), Deed::Freeze(short * 4)),
        (weight(powers.kill && powers.freeze, 5), Deed::FreezeAndKill(short * 2)),
        (weight(powers.clock, 14), Deed::Clock(step)),
        (weight(powers.kill && powers.disk, 12), Deed::PowerCut(short)),
        (weight(powers.disk, 8), Deed::DiskFails(failing, long / 2)),
        (weight(powers.proxies, 8), Deed::Cut),
        (weight(powers.proxies, 6), Deed::Stall(long)),
        (weight(powers.proxies, 10), Deed::Forget(long)),
        (weight(powers.nginx, 4), Deed::Nginx),
        (weight(powers.haproxy, 4), Deed::Haproxy),
        (weight(powers.database, 14), Deed::DatabaseKill(long)),
        (weight(powers.database, 6), Deed::DatabaseFreeze(long)),
        (weight(powers.scripts, 8), Deed::ScriptsKill),
        (weight(powers.scripts, 5), Deed::ScriptsFreeze(long)),
        (1, Deed::Cut),
    ])
}

/// Does everything in its time.
///
/// # Errors
/// Something that was ended does not come back.
pub fn act(victims: &Victims, plan: &[(Duration, Deed)]) -> Result<(), String> {
    let begun = Instant::now();
    for (at, deed) in plan {
        pause(at.saturating_sub(begun.elapsed()));
        if !victims.broker.look() {
            return Err("the broker has ended by itself".to_owned());
        }
        victims.broker.note("deed", &format!("{deed:?}"));
        victims.perform(*deed)?;
    }
    Ok(())
}

fn pause(time: Duration) {
    std::thread::sleep(time);
}

impl Victims {
    fn perform(&self, deed: Deed) -> Result<(), String> {
        let wait = |millis: u64| pause(Duration::from_millis(millis));
        match deed {
            Deed::Kill(millis) => {
                self.broker.kill();
                wait(millis);
                self.broker.start()
            }
            Deed::PowerCut(millis) => {
                self.broker.cut_power()?;
                wait(millis);
                self.broker.start()
            }
            Deed::DiskFails(failing, millis) => {
                self.broker.fail_disk(failing.fault())?;
                wait(millis);
                self.broker.fail_disk(Fault::None)
            }
            Deed::Term => self.broker.stop().and_then(|()| self.broker.start()),
            Deed::Freeze(millis) => {
                self.freeze(millis);
                self.broker.signal(libc::SIGCONT);
                self.broker.note("unfrozen", "");
                Ok(())
            }
            Deed::FreezeAndKill(millis) => {
                self.freeze(millis);
                self.broker.kill();
                self.broker.note("unfrozen", "");
                self.broker.start()
            }
            Deed::Clock(seconds) => {
                let offset = self.broker.clock().map_or(Ok(0), |clock| clock.step(seconds))?;
                self.broker.note("clock", &offset.to_string());
                Ok(())
            }
            Deed::Cut => {
                self.broker.note("proxy", "cut");
                self.proxy.cut();
                Ok(())
            }
            Deed::Stall(millis) => self.misbehave(Mode::Stall, "stall", millis),
            Deed::Forget(millis) => self.misbehave(Mode::Forget, "forget", millis),
            Deed::Nginx => self.restart(self.nginx.as_ref(), "nginx"),
            Deed::Haproxy => {
                self.restart(self.haproxy.as_ref(), "haproxy")?;
                self.restart(self.haproxy_tcp.as_ref(), "haproxy-tcp")
            }
            Deed::DatabaseKill(millis) => self.hurt_database(millis, true),
            Deed::DatabaseFreeze(millis) => self.hurt_database(millis, false),
            Deed::ScriptsKill => {
                self.broker.note("scripts", "kill");
                self.scripts.kill();
                Ok(())
            }
            Deed::ScriptsFreeze(millis) => {
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

    fn misbehave(&self, mode: Mode, name: &str, millis: u64) -> Result<(), String> {
        self.broker.note("proxy", name);
        self.proxy.set(mode);
        pause(Duration::from_millis(millis));
        self.proxy.set(Mode::Pass);
        self.broker.note("proxy", "pass");
        Ok(())
    }

    fn restart(&self, front: Option<&Front>, name: &str) -> Result<(), String> {
        self.broker.note(name, "restart");
        front.map_or(Ok(()), Front::restart)
    }

    fn hurt_database(&self, millis: u64, kill: bool) -> Result<(), String> {
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

    use super::{Deed, Powers, plan};

    const ALL: Powers = Powers {
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
    fn powers_that_are_off_are_never_used() {
        let off = Powers { clock: false, database: false, ..ALL };
        let deeds = plan(1, Duration::from_secs(3_600), off);
        let is_off = |deed: &Deed| matches!(deed, Deed::Clock(_) | Deed::DatabaseKill(_) | Deed::DatabaseFreeze(_));
        assert!(!deeds.iter().any(|(_, deed)| is_off(deed)));
        assert!(deeds.iter().any(|(_, deed)| matches!(deed, Deed::Kill(_))), "a long run has every kind that is on");
    }
}
