//! A broker, its database server, and the network between them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::broker::{Broker, Setup};
use crate::history::History;
use crate::load::{Load, PATIENCE, Plan, Receiver};
use crate::servers::{Database, Kind, Proxy, Server};

/// Whether the broker has a journal in front of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    With,
    Without,
}

/// The parts that can fail, and the history of the load.
pub struct Testbed {
    pub server: Server,
    pub proxy: Proxy,
    pub database: Database,
    pub broker: Broker,
    pub journal: Journal,
    pub history: History,
    loads: u64,
}

/// The channels of the load: one with a receiver, one without, and one whose messages expire after 2 s.
const PLANS: [(&str, Option<u64>); 3] = [("live", None), ("kept", None), ("otp", Some(2))];

/// Longer than a pause between two deliveries of a backlog.
const IDLE: Duration = Duration::from_millis(1_000);

impl Testbed {
    /// A testbed with a database on a server of its own.
    #[track_caller]
    pub fn new(kind: Kind, journal: Journal) -> Self {
        let server = Server::start(kind);
        let database = server.database();
        Self::on(server, database, journal)
    }

    /// A testbed with this database.
    #[track_caller]
    pub fn on(server: Server, database: Database, journal: Journal) -> Self {
        Self::with(server, database, journal, Setup::default())
    }

    /// A testbed with this database and further configuration.
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

    /// Starts a sender on every channel.
    #[track_caller]
    pub fn load(&mut self, padding: usize) -> Load {
        let plans = PLANS.map(|(channel, ttl)| Plan { channel, ttl, padding });
        let load = Load::start(&self.broker, self.loads, &plans);
        self.loads += PLANS.len() as u64;
        load
    }

    /// Starts the receiver of the first channel.
    #[track_caller]
    pub fn receiver(&self) -> Receiver {
        Receiver::start(&self.broker, PLANS[0].0)
    }

    /// Stops a load and adds its publications to the history.
    #[track_caller]
    pub fn record(&mut self, load: Load) {
        self.history.publications.extend(load.finish());
    }

    /// Stops a receiver when no more messages come, and adds its deliveries to the history.
    #[track_caller]
    pub fn record_received(&mut self, receiver: Receiver) {
        receiver.wait_until_idle(IDLE);
        self.history.deliveries.extend(receiver.finish());
    }

    /// The number of rows of a channel in the database.
    fn rows(&self, channel: &str) -> usize {
        let query = format!("SELECT COUNT(*) FROM mq_data WHERE channel = '{channel}'");
        self.server.sql_in(Some(&self.database), &query).trim().parse().expect("a number")
    }

    #[track_caller]
    fn wait_for_rows(&self, channel: &str, wanted: impl Fn(usize) -> bool) {
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

    /// The end of every test: waits until the backlog is in the database, receives it, waits until its rows are removed, and checks all promises.
    #[track_caller]
    pub fn check(self) {
        if self.journal == Journal::With {
            self.history.check_none_refused();
        }
        self.check_with_refusals();
    }

    /// Like [`Self::check`], if senders may have been refused.
    #[track_caller]
    pub fn check_with_refusals(mut self) {
        let kept = self.history.accepted("kept");
        self.wait_for_rows("kept", |rows| rows >= kept);
        let receivers = PLANS.map(|(channel, _)| Receiver::start(&self.broker, channel));
        for receiver in &receivers {
            receiver.wait_until_idle(IDLE);
        }
        for receiver in receivers {
            self.history.deliveries.extend(receiver.finish());
        }
        self.broker.assert_alive();
        self.history.check();
        for (channel, _) in PLANS {
            // Without a journal, a message may be stored though it was refused, because the server's answer was lost. The next start delivers it.
            let left = if self.journal == Journal::With { 0 } else { self.history.refused(channel) };
            self.wait_for_rows(channel, |rows| rows <= left);
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
