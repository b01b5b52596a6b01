//! A broker, its database, and the network between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup};
use crate::history::History;
use crate::load::{Load, PATIENCE, Plan, Receiver};
use crate::servers::{Database, Kind, Proxy, Server};

/// Whether a journal stands in front of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    With,
    Without,
}

/// What can be made to fail, and what is under load.
pub struct Arena {
    pub server: Server,
    pub proxy: Proxy,
    pub database: Database,
    pub broker: Broker,
    pub journal: Journal,
    pub history: History,
    loads: u64,
}

/// One sender to a receiver that is there, one to nobody, and one whose messages soon expire.
const PLANS: [(&str, Option<u64>); 3] = [("live", None), ("kept", None), ("otp", Some(2))];

/// Longer than any pause between two deliveries of a backlog that is there.
const QUIET: Duration = Duration::from_millis(1_000);

impl Arena {
    /// A database on a server of its own.
    #[track_caller]
    pub fn new(kind: Kind, journal: Journal) -> Self {
        let server = Server::start(kind);
        let database = server.database();
        Self::on(server, database, journal)
    }

    /// A broker on this database.
    #[track_caller]
    pub fn on(server: Server, database: Database, journal: Journal) -> Self {
        Self::with(server, database, journal, Setup::default())
    }

    /// The same with further configuration.
    #[track_caller]
    pub fn with(server: Server, database: Database, journal: Journal, setup: Setup) -> Self {
        let proxy = Proxy::start(server.address());
        let url = database.url_with_password().replace(&database.address.to_string(), &proxy.address().to_string());
        let mut setup = setup.url(&url);
        if journal == Journal::Without {
            setup = setup.store("journal = \"\"");
        }
        let broker = setup.start();
        Self { server, proxy, database, broker, journal, history: History::default(), loads: 0 }
    }

    /// Senders on every channel.
    #[track_caller]
    pub fn load(&mut self, padding: usize) -> Load {
        let plans = PLANS.map(|(channel, ttl)| Plan { channel, ttl, padding });
        let load = Load::start(&self.broker, self.loads, &plans);
        self.loads += PLANS.len() as u64;
        load
    }

    /// The receiver that is there.
    #[track_caller]
    pub fn receiver(&self) -> Receiver {
        Receiver::start(&self.broker, PLANS[0].0)
    }

    /// Takes down what a load did.
    #[track_caller]
    pub fn note(&mut self, load: Load) {
        self.history.publications.extend(load.finish());
    }

    /// Takes down what a receiver got, when nothing more comes.
    #[track_caller]
    pub fn note_received(&mut self, receiver: Receiver) {
        receiver.quiet(QUIET);
        self.history.deliveries.extend(receiver.finish());
    }

    /// Rows of a channel in the database.
    fn rows(&self, channel: &str) -> usize {
        let query = format!("SELECT COUNT(*) FROM mq_data WHERE channel = '{channel}'");
        self.server.sql_in(Some(&self.database), &query).trim().parse().expect("a number")
    }

    #[track_caller]
    fn until_rows(&self, channel: &str, wanted: impl Fn(usize) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows(channel);
            if wanted(rows) {
                return;
            }
            let log = self.broker.log();
            assert!(Instant::now() < deadline, "{rows} rows of {channel} are in the database\n{}", log.tail());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The end of every case: the backlog comes to the database by itself, is delivered, and leaves it; and no promise is broken.
    #[track_caller]
    pub fn check(self) {
        if self.journal == Journal::With {
            self.history.check_none_refused();
        }
        self.check_with_refusals();
    }

    /// The same where senders had to be refused.
    #[track_caller]
    pub fn check_with_refusals(mut self) {
        let kept = self.history.accepted("kept");
        self.until_rows("kept", |rows| rows >= kept);
        let receivers = PLANS.map(|(channel, _)| Receiver::start(&self.broker, channel));
        for receiver in &receivers {
            receiver.quiet(QUIET);
        }
        for receiver in receivers {
            self.history.deliveries.extend(receiver.finish());
        }
        self.broker.assert_alive();
        self.history.check();
        for (channel, _) in PLANS {
            // Without a journal, a message may have been refused because the server's answer was lost, and be there; the next start delivers it.
            let left = if self.journal == Journal::With { 0 } else { self.history.refused(channel) };
            self.until_rows(channel, |rows| rows <= left);
        }
        assert!(self.history.accepted("kept") > 0 && self.history.accepted("live") > 0, "there was no load");
    }

    /// Kills the broker and starts it again on the same directory.
    #[track_caller]
    pub fn kill_broker(&mut self) {
        self.broker.kill();
        let (setup, dir, port) = (self.broker.setup(), self.broker.shared_dir(), self.broker.address().port());
        self.broker = Broker::start_in(setup, Arc::clone(&dir), port).unwrap_or_else(|failure| panic!("{failure}"));
    }
}
