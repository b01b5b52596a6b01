//! The store's thread, with a store that fails on command.

mod clock;
mod groups;
mod removal;
mod stop;

use std::sync::mpsc::{Receiver, channel as pipe};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wsmb_core::broker::StoreEvent;
use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{
    self, Background, Group, MemoryStore, MessageStore, Page, Restamp, StoreError, StoreWorker, Summary, Swept,
};

const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of a page, as the broker asks for them.
const PAGE: usize = 1 << 20;

/// The behaviour of the store that a test sets, and the calls that the store has got.
#[derive(Default)]
struct Script {
    /// The error of each write.
    failure: Option<StoreError>,
    /// Only groups with appends fail.
    only_appends: bool,
    /// A failing commit is written nevertheless.
    writes_before_failure: bool,
    /// Writes wait until this is reset.
    held: bool,
    /// Whether a write waits.
    waiting: bool,
    /// All committed groups.
    groups: Vec<Group>,
    purged: Vec<MessageId>,
    clean: bool,
}

#[derive(Clone, Default)]
struct Control(Arc<(Mutex<Script>, Condvar)>);

impl Control {
    fn with<T>(&self, change: impl FnOnce(&mut Script) -> T) -> T {
        let result = change(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
        result
    }

    /// Waits until `wanted` returns true.
    fn until(&self, wanted: impl Fn(&Script) -> bool) {
        let script = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (script, timeout) = self
            .0
            .1
            .wait_timeout_while(script, PATIENCE, |script| !wanted(script))
            .unwrap_or_else(PoisonError::into_inner);
        drop(script);
        assert!(!timeout.timed_out(), "timeout");
    }
}

struct Scripted {
    inner: MemoryStore,
    control: Control,
}

impl Scripted {
    fn may_write(&self, appends: bool) -> Result<(), StoreError> {
        self.control.with(|script| script.waiting = script.held);
        self.control.until(|script| !script.held);
        self.control.with(|script| {
            script.waiting = false;
            let fails = appends || !script.only_appends;
            script.failure.clone().filter(|_| fails).map_or(Ok(()), Err)
        })
    }
}

impl MessageStore for Scripted {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        if let Err(failure) = self.may_write(!group.appends.is_empty()) {
            if self.control.with(|script| script.writes_before_failure) {
                self.inner.commit(group)?;
            }
            return Err(failure);
        }
        self.inner.commit(group)?;
        self.control.with(|script| script.groups.push(group.clone()));
        Ok(())
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        self.inner.load(channel, after, limit, max_bytes)
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.inner.scan(after, limit, max_bytes)
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        self.inner.mark(name)
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        self.may_write(false)?;
        self.control.with(|script| script.purged.push(up_to));
        self.inner.purge(channel, up_to, limit)
    }

    fn summary(&mut self, since: Timestamp) -> Result<Summary, StoreError> {
        self.inner.summary(since)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.may_write(false)?;
        self.control.with(|script| script.clean = true);
        Ok(())
    }
}

impl Background for Scripted {
    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        self.inner.sweep(now, limit, spare)
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.may_write(false)?;
        self.inner.restamp(restamp)
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.inner.clamp_future_rows(now, up_to)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.may_write(true)
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.inner.maintain()
    }
}

struct Fixture {
    worker: StoreWorker,
    control: Control,
    outcomes: Receiver<StoreEvent>,
}

impl Fixture {
    fn new() -> Self {
        let control = Control::default();
        let store =
            Scripted { inner: MemoryStore::new(wsmb_store::limits::MEMORY_STORE_BYTES), control: control.clone() };
        let (sender, outcomes) = pipe();
        let report = move |outcome| {
            let _ = sender.send(outcome);
        };
        Self { worker: StoreWorker::start(Box::new(store), report).expect("a thread"), control, outcomes }
    }

    fn append(&self, ids: impl IntoIterator<Item = u64>) {
        self.worker.append(ids.into_iter().map(message).collect());
    }

    fn remove(&self, ids: &[u64]) {
        self.worker.remove(&numbers(ids));
    }

    fn next(&self) -> StoreEvent {
        self.outcomes.recv_timeout(PATIENCE).expect("an outcome")
    }

    fn fail(&self, failure: StoreError) {
        self.control.with(|script| script.failure = Some(failure));
    }

    fn end_failure(&self) {
        self.control.with(|script| script.failure = None);
    }

    /// Appends a message, and returns when the thread waits in its commit.
    fn hold(&self, id: u64) {
        self.control.with(|script| script.held = true);
        self.append([id]);
        self.control.until(|script| script.waiting);
    }

    fn release(&self) {
        self.control.with(|script| script.held = false);
    }

    fn page(&self) -> Vec<u64> {
        self.worker.load(channel(), MessageId(0), 100, PAGE);
        match self.next() {
            StoreEvent::Loaded { messages, complete: true, .. } => {
                messages.iter().map(|message| message.id.0).collect()
            }
            other => panic!("not a whole page: {other:?}"),
        }
    }
}

fn unavailable() -> StoreError {
    StoreError::Busy { place: "here".to_owned() }
}

fn channel() -> ChannelName {
    ChannelName::parse("sms").expect("a valid name")
}

fn numbers(ids: &[u64]) -> Vec<MessageId> {
    ids.iter().copied().map(MessageId).collect()
}

fn stored(ids: &[u64]) -> StoreEvent {
    StoreEvent::Stored(numbers(ids))
}

fn message(id: u64) -> Message {
    Message {
        id: MessageId(id),
        channel: channel(),
        payload: Payload::text("1"),
        created: Timestamp(0),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

/// A message that expires a minute after its acceptance.
fn timed(id: u64, created: u64) -> Message {
    Message { created: Timestamp(created), expires: Some(Timestamp(created + 60_000)), ..message(id) }
}
