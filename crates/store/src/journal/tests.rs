//! A journal in front of a test database that can be made to fail. The tests are in the submodules, by subject.

mod model;
mod moving;
mod offline;
mod outages;
mod pages;

use std::sync::{Arc, Mutex};

use super::*;
use crate::{MemoryStore, Restamp};
use wsmb_core::message::{Message, Payload};

/// A database that can be made to fail, and that outlives its journal.
#[derive(Clone, Debug)]
struct Database(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rows: MemoryStore,
    /// The error of every call.
    failure: Option<StoreError>,
    /// Commits are carried out, but their answers are lost.
    mute: bool,
    /// Ids that the database cannot hold.
    unfit: Vec<MessageId>,
    commits: Vec<Group>,
    clean: bool,
    /// The numbers of purges and of counts.
    purges: u32,
    counts: u32,
}

fn away() -> StoreError {
    StoreError::Unreachable { place: "the test's database".to_owned(), detail: "asked to be".to_owned() }
}

impl Database {
    fn new() -> Self {
        let rows = MemoryStore::new(1 << 30);
        let state = State {
            rows,
            failure: None,
            mute: false,
            unfit: Vec::new(),
            commits: Vec::new(),
            clean: false,
            purges: 0,
            counts: 0,
        };
        Self(Arc::new(Mutex::new(state)))
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.0.lock().expect("no test panics under the lock"))
    }

    fn fail(&self, failure: Option<StoreError>) {
        self.with(|state| state.failure = failure);
    }

    fn ids(&self, name: &str) -> Vec<u64> {
        self.with(|state| ids(&mut state.rows, name))
    }

    fn call<T>(&self, work: impl FnOnce(&mut MemoryStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        self.with(|state| state.failure.clone().map_or_else(|| work(&mut state.rows), Err))
    }

    fn opener(&self) -> Opener {
        let database = self.clone();
        Box::new(move || database.call(|_| Ok(())).map(|()| Box::new(database.clone()) as Box<dyn Background>))
    }
}

impl MessageStore for Database {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        let unfit: Vec<MessageId> = self.with(|state| {
            let ids = group.appends.iter().map(|message| message.id);
            ids.filter(|id| state.unfit.contains(id)).collect()
        });
        if !unfit.is_empty() {
            let place = "the test's database".to_owned();
            return Err(StoreError::Unfit { place, ids: unfit, reason: "are too large".to_owned() });
        }
        self.call(|rows| rows.commit(group))?;
        self.with(|state| {
            state.commits.push(group.clone());
            if state.mute { Err(away()) } else { Ok(()) }
        })
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.call(|rows| rows.load(channel, after, limit, max_bytes))
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.call(|rows| rows.scan(after, limit, max_bytes))
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        self.call(|rows| rows.mark(name))
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        self.with(|state| state.purges += 1);
        self.call(|rows| rows.purge(channel, up_to, limit))
    }

    fn summary(&mut self, since: Timestamp) -> Result<Summary, StoreError> {
        self.with(|state| state.counts += 1);
        self.call(|rows| rows.summary(since))
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.call(|_| Ok(()))?;
        self.with(|state| state.clean = true);
        Ok(())
    }
}

impl Background for Database {
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        self.call(|rows| rows.sweep(now, limit, spare))
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.call(|rows| rows.restamp(restamp))?;
        self.with(|state| if state.mute { Err(away()) } else { Ok(()) })
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.call(|rows| rows.clamp_future_rows(now, up_to))
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.call(Background::check)
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.call(Background::maintain)
    }
}

/// A directory for a journal, and a database.
struct Rig {
    directory: tempfile::TempDir,
    database: Database,
}

impl Rig {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory"), database: Database::new() }
    }

    fn settings(&self) -> JournalSettings {
        JournalSettings { path: self.directory.path().join("journal.db"), bytes: 4 << 20 }
    }

    fn try_open(&self, name: &str) -> Result<JournaledStore, StoreError> {
        let prefix = Prefix::parse("mq_").expect("a valid prefix");
        JournaledStore::open(&self.settings(), &prefix, name, self.database.opener())
    }

    fn open(&self) -> JournaledStore {
        self.try_open("db://test").expect("opens")
    }
}

impl JournaledStore {
    /// Sends the database thread its work, without waiting for time to pass.
    fn dispatch_now(&mut self) {
        self.move_at = Some(Instant::now());
        self.write_retry_at = None;
        if let Some(away) = &mut self.outage {
            away.retry_at = Instant::now();
        }
        self.drain().and_then(|()| self.dispatch()).expect("the journal works");
    }

    /// Moves rows until the database has all of them, or cannot be used.
    fn flush_all(&mut self) {
        loop {
            self.dispatch_now();
            while self.database_thread.under_way() > 0 {
                self.wait(Duration::from_secs(10)).expect("the journal works");
            }
            if self.move_at.is_none() || self.outage.is_some() {
                return;
            }
        }
    }
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

fn message(id: u64, name: &str) -> Message {
    Message {
        id: MessageId(id),
        channel: channel(name),
        payload: Payload::text(id.to_string()),
        created: Timestamp(id * 1_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn append(store: &mut dyn MessageStore, ids: std::ops::RangeInclusive<u64>) {
    let appends = ids.map(|id| message(id, "sms")).collect();
    store.commit(&Group { appends, ..Group::default() }).expect("commits");
}

fn remove(store: &mut dyn MessageStore, ids: &[u64]) {
    let removals = ids.iter().copied().map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
}

fn ids(store: &mut dyn MessageStore, name: &str) -> Vec<u64> {
    all(store, name).iter().map(|message| message.id.0).collect()
}

/// All messages of a channel, read in small pages.
fn all(store: &mut dyn MessageStore, name: &str) -> Vec<Message> {
    let (mut found, mut after) = (Vec::new(), MessageId(0));
    loop {
        let page = store.load(&channel(name), after, 3, 1 << 20).expect("loads");
        assert!(page.complete || !page.messages.is_empty(), "an empty page that is not the last");
        assert!(page.messages.len() <= 3);
        after = page.messages.last().map_or(after, |message| message.id);
        found.extend(page.messages);
        if page.complete {
            return found;
        }
    }
}
