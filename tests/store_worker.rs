//! The store's thread, with a store that fails on command.

use std::sync::mpsc::{Receiver, channel as pipe};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{
    self, Background, Group, MemoryStore, MessageStore, Page, Restamp, StoreError, StoreSettings, StoreWorker, Summary,
    Swept,
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

#[test]
fn requests_during_a_commit_are_the_next_group() {
    let fixture = Fixture::new();
    fixture.hold(1);
    fixture.append([2, 3]);
    fixture.append([4]);
    fixture.remove(&[3]);
    assert!(fixture.worker.queued_bytes() > 0);
    fixture.release();
    assert_eq!(fixture.next(), stored(&[1]));
    assert_eq!(fixture.next(), stored(&[2, 4]), "one group without the removed message");
    assert_eq!(fixture.page(), [1, 2, 4]);
    assert_eq!(fixture.control.with(|script| script.groups.len()), 2);
    assert_eq!(fixture.worker.queued_bytes(), 0);
}

#[test]
fn a_failed_group_is_reported_once_and_its_removals_are_repeated() {
    let fixture = Fixture::new();
    fixture.append([1, 2]);
    assert_eq!(fixture.next(), stored(&[1, 2]));
    fixture.fail(unavailable());
    fixture.remove(&[1]);
    fixture.worker.deliveries(&[(MessageId(2), 7)]);
    fixture.append([3]);
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[3]), StoreFailure::Unavailable));
    assert!(!fixture.worker.healthy());
    assert_eq!(fixture.page(), [2], "a row with a pending removal must not be loaded");
    fixture.end_failure();
    fixture.control.until(|script| script.groups.iter().any(|group| group.removals == numbers(&[1])));
    fixture.append([4]);
    assert_eq!(fixture.next(), stored(&[4]), "a failed append must not be repeated");
    assert!(fixture.worker.healthy());
    fixture.worker.stop().expect("stops");
    fixture.control.with(|script| {
        assert!(script.groups.iter().any(|group| group.deliveries == [(MessageId(2), 7)]));
        assert!(script.clean);
    });
}

#[test]
fn a_row_that_was_written_though_its_commit_failed_is_removed_with_its_message() {
    let fixture = Fixture::new();
    fixture.control.with(|script| script.writes_before_failure = true);
    fixture.fail(StoreError::Unreachable { place: "there".to_owned(), detail: "its answer was lost".to_owned() });
    fixture.append([1, 2]);
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[1, 2]), StoreFailure::Unavailable));
    fixture.end_failure();
    // The retry waits behind another commit; meanwhile one of its messages is confirmed.
    fixture.hold(3);
    fixture.append([1, 2]);
    fixture.remove(&[1]);
    fixture.release();
    assert_eq!(fixture.next(), stored(&[3]));
    assert_eq!(fixture.next(), stored(&[2]));
    assert_eq!(fixture.page(), [2, 3], "a settled message must not be loaded");
    fixture.worker.stop().expect("stops");
    fixture.control.with(|script| {
        let removed: Vec<MessageId> = script.groups.iter().flat_map(|group| group.removals.clone()).collect();
        assert_eq!(removed, numbers(&[1]), "the row of the settled message must be removed");
    });
}

#[test]
fn a_full_store_still_removes_rows() {
    let fixture = Fixture::new();
    fixture.append([1]);
    assert_eq!(fixture.next(), stored(&[1]));
    fixture.control.with(|script| script.held = true);
    fixture.remove(&[9]);
    fixture.control.until(|script| script.waiting);
    fixture.remove(&[1]);
    fixture.append([2]);
    fixture.control.with(|script| {
        script.failure = Some(StoreError::Full { place: "here".to_owned() });
        script.only_appends = true;
    });
    fixture.release();
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[2]), StoreFailure::Unavailable));
    let groups = fixture.control.with(|script| script.groups.clone());
    assert_eq!(groups.last().map(|group| group.removals.clone()), Some(numbers(&[1])), "removals are applied at once");
}

#[test]
fn a_purge_removes_written_and_queued_messages() {
    let fixture = Fixture::new();
    fixture.append([1, 2]);
    assert_eq!(fixture.next(), stored(&[1, 2]));
    fixture.hold(3);
    fixture.append([4, 5]);
    fixture.worker.purge(&channel(), MessageId(4));
    fixture.release();
    assert_eq!(fixture.next(), stored(&[3]));
    assert_eq!(fixture.next(), stored(&[5]));
    assert_eq!(fixture.page(), [5]);
    fixture.control.until(|script| script.purged == [MessageId(4)]);
}

#[test]
fn a_failed_purge_is_repeated_and_hides_its_rows() {
    let fixture = Fixture::new();
    fixture.append([1, 2]);
    assert_eq!(fixture.next(), stored(&[1, 2]));
    fixture.fail(unavailable());
    fixture.worker.purge(&channel(), MessageId(1));
    assert_eq!(fixture.page(), [2]);
    assert!(fixture.control.with(|script| script.purged.is_empty()));
    fixture.end_failure();
    fixture.control.until(|script| script.purged == [MessageId(1)]);
    assert_eq!(fixture.page(), [2]);
}

#[test]
fn a_check_tests_the_store_and_ends_an_outage() {
    let fixture = Fixture::new();
    let ask = || {
        let (sender, answer) = pipe();
        fixture.worker.check(move |good| {
            let _ = sender.send(good);
        });
        answer.recv_timeout(PATIENCE).expect("an answer")
    };
    assert!(ask());
    fixture.fail(unavailable());
    fixture.append([1]);
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[1]), StoreFailure::Unavailable));
    assert!(!ask());
    fixture.end_failure();
    let end = std::time::Instant::now() + PATIENCE;
    while !ask() {
        assert!(std::time::Instant::now() < end, "the store does not recover");
        std::thread::yield_now();
    }
    assert!(fixture.worker.healthy());
}

#[test]
fn a_sweep_is_always_answered() {
    let fixture = Fixture::new();
    fixture.worker.append(vec![Message { expires: Some(Timestamp(5)), ..message(1) }]);
    assert_eq!(fixture.next(), stored(&[1]));
    fixture.worker.sweep(Timestamp(4), Spare::default());
    assert_eq!(fixture.next(), StoreEvent::Swept { gone: vec![], spared: vec![], more: false });
    fixture.worker.sweep(Timestamp(5), Spare::default());
    assert_eq!(
        fixture.next(),
        StoreEvent::Swept { gone: vec![(MessageId(1), channel())], spared: vec![], more: false }
    );
}

#[test]
fn stop_writes_all_requests_and_drop_writes_none() {
    let fixture = Fixture::new();
    fixture.hold(1);
    let many = wsmb_core::limits::STORE_GROUP as u64 + 10;
    fixture.append(2..=many);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| fixture.worker.stop());
        fixture.release();
        stopping.join().expect("no panic").expect("stops");
    });
    fixture.worker.stop().expect("a second stop succeeds");
    let written: usize = fixture.control.with(|script| script.groups.iter().map(|group| group.appends.len()).sum());
    assert_eq!(written as u64, many);
    assert!(fixture.control.with(|script| script.clean));

    let fixture = Fixture::new();
    let control = fixture.control.clone();
    fixture.append([1]);
    assert_eq!(fixture.next(), stored(&[1]));
    drop(fixture);
    assert!(!control.with(|script| script.clean));
}

#[test]
fn stop_in_an_outage_reports_the_error() {
    let fixture = Fixture::new();
    fixture.fail(unavailable());
    fixture.append([1]);
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[1]), StoreFailure::Unavailable));
    fixture.remove(&[9]);
    assert_eq!(fixture.worker.stop(), Err(unavailable()));
    assert!(!fixture.control.with(|script| script.clean));
}

#[tokio::test]
async fn readers_wait_for_space_in_the_queue_and_are_woken() {
    let fixture = Fixture::new();
    fixture.worker.wait_for_room().await;
    fixture.hold(1);
    let large =
        |id| Message { payload: Payload::text("x".repeat(wsmb_store::limits::STORE_QUEUE_LOW / 2)), ..message(id) };
    fixture.worker.append(vec![large(2), large(3), large(4)]);
    assert!(fixture.worker.queued_bytes() > wsmb_store::limits::STORE_QUEUE_LOW);
    let room = fixture.worker.wait_for_room();
    fixture.release();
    tokio::time::timeout(PATIENCE, room).await.expect("woken");
    assert!(fixture.worker.queued_bytes() <= wsmb_store::limits::STORE_QUEUE_LOW);
}

#[test]
fn a_crash_of_the_process_loses_nothing_that_was_reported() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("sqlite:{}", directory.path().join("wsmb.db").display());
    let settings = StoreSettings { url, ..StoreSettings::default() };
    let (sender, outcomes) = pipe();
    let report = move |outcome| {
        let _ = sender.send(outcome);
    };
    let worker = StoreWorker::start(wsmb_store::open(&settings).expect("opens"), report).expect("a thread");
    worker.append((1..=5_000).map(message).collect());
    let Ok(StoreEvent::Stored(reported)) = outcomes.recv_timeout(PATIENCE) else { panic!("not stored") };
    drop(worker);
    let mut store = wsmb_store::open(&settings).expect("opens again");
    let summary = store.summary(Timestamp(0)).expect("summary");
    assert!(!summary.clean);
    let page = store.load(&channel(), MessageId(0), 10_000, usize::MAX).expect("loads");
    let there: std::collections::HashSet<_> = page.messages.iter().map(|message| message.id).collect();
    assert!(!reported.is_empty() && reported.iter().all(|id| there.contains(id)));
}

#[test]
fn a_row_survives_a_failed_replacement() {
    let fixture = Fixture::new();
    fixture.append([1]);
    assert_eq!(fixture.next(), stored(&[1]));
    fixture.fail(unavailable());
    fixture.worker.replace(message(2), vec![MessageId(1)]);
    assert_eq!(fixture.next(), StoreEvent::StoreFailed(numbers(&[2]), StoreFailure::Unavailable));
    fixture.end_failure();
    assert_eq!(fixture.page(), [1]);
    fixture.worker.replace(message(2), vec![MessageId(1)]);
    assert_eq!(fixture.next(), stored(&[2]));
    assert_eq!(fixture.page(), [2]);
}

#[test]
fn a_count_that_arrives_during_the_write_of_its_row_is_in_the_next_page() {
    let fixture = Fixture::new();
    fixture.control.with(|script| script.held = true);
    fixture.append([1]);
    fixture.control.until(|script| script.waiting);
    fixture.worker.deliveries(&[(MessageId(1), 1)]);
    fixture.worker.load(channel(), MessageId(0), 10, PAGE);
    fixture.release();
    assert_eq!(fixture.next(), stored(&[1]));
    let StoreEvent::Loaded { messages, .. } = fixture.next() else { panic!("a page follows") };
    assert_eq!(messages.iter().map(|message| message.deliveries).collect::<Vec<_>>(), [1]);
}

/// A message that expires a minute after its acceptance.
fn timed(id: u64, created: u64) -> Message {
    Message { created: Timestamp(created), expires: Some(Timestamp(created + 60_000)), ..message(id) }
}

#[test]
fn a_step_of_the_wall_clock_does_not_change_the_times_of_loaded_messages() {
    let fixture = Fixture::new();
    let mut expected = Vec::new();
    for (number, by) in (1..).zip([0, 3_600_000, -7_200_000]) {
        if by != 0 {
            fixture.worker.restamp(Restamp { token: number, after: MessageId(0), all: by < 0, by });
        }
        if by > 0 {
            assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
        }
        fixture.worker.append(vec![timed(number, 100_000_000 + number)]);
        assert_eq!(fixture.next(), stored(&[number]));
        expected.push(timed(number, 100_000_000 + number));
    }
    fixture.worker.load(channel(), MessageId(0), 100, PAGE);
    assert_eq!(fixture.next(), StoreEvent::Loaded { channel: channel(), messages: expected, complete: true });
    let written = fixture.control.with(|script| script.groups.last().map(|group| group.appends[0].created));
    assert_eq!(written, Some(Timestamp(100_000_003 - 3_600_000)), "the store must contain the time of the wall clock");
    fixture.worker.sweep(Timestamp(100_060_002), Spare::default());
    let gone = |ids: &[u64]| ids.iter().map(|id| (MessageId(*id), channel())).collect();
    assert_eq!(fixture.next(), StoreEvent::Swept { gone: gone(&[1, 2]), spared: vec![], more: false });
}

#[test]
fn a_failed_restamp_is_repeated_and_loaded_times_are_correct_meanwhile() {
    let fixture = Fixture::new();
    fixture.worker.append(vec![timed(1, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[1]));
    fixture.fail(unavailable());
    fixture.worker.restamp(Restamp { token: 1, after: MessageId(0), all: false, by: 3_600_000 });
    assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
    let page = || {
        fixture.worker.load(channel(), MessageId(0), 100, PAGE);
        fixture.next()
    };
    let expected = StoreEvent::Loaded { channel: channel(), messages: vec![timed(1, 100_000_000)], complete: true };
    assert_eq!(page(), expected);
    fixture.end_failure();
    fixture.worker.append(vec![timed(2, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[2]));
    let StoreEvent::Loaded { messages, .. } = page() else { panic!("not a page") };
    assert_eq!(messages, [timed(1, 100_000_000), timed(2, 100_000_000)]);
    fixture.worker.stop().expect("stops");
}

#[test]
fn the_time_is_written_with_groups_and_by_itself() {
    let fixture = Fixture::new();
    let written_times = || -> Vec<u64> {
        fixture
            .control
            .with(|script| script.groups.iter().flat_map(|group| group.marks.iter().map(|mark| mark.1)).collect())
    };
    for (id, created) in [(1, 5_000), (2, 5_999), (3, 6_000)] {
        fixture.worker.append(vec![timed(id, created)]);
        assert_eq!(fixture.next(), stored(&[id]));
    }
    assert_eq!(written_times(), [5_000, 6_000], "the time must be written once a second");
    fixture.worker.note_time(Timestamp(66_000));
    fixture.worker.stop().expect("stops");
    assert_eq!(written_times(), [5_000, 6_000, 66_000]);
}

#[test]
fn expired_messages_do_not_fill_a_memory_store() {
    let (sender, outcomes) = pipe();
    let report = move |outcome| {
        let _ = sender.send(outcome);
    };
    let space_for_three = 3 * (wsmb_store::limits::STORE_ROW_BYTES + 1);
    let worker = StoreWorker::start(Box::new(MemoryStore::new(space_for_three)), report).expect("a thread");
    let next = || outcomes.recv_timeout(PATIENCE).expect("an outcome");
    // The store learns from the first sweep which channels are spared.
    worker.sweep(Timestamp(0), Spare::default());
    assert_eq!(next(), StoreEvent::Swept { gone: vec![], spared: vec![], more: false });
    worker.append(vec![timed(1, 0), timed(2, 0), timed(3, 50_000)]);
    assert_eq!(next(), stored(&[1, 2, 3]));
    worker.append(vec![timed(4, 59_999)]);
    assert_eq!(next(), StoreEvent::StoreFailed(numbers(&[4]), StoreFailure::Full));
    worker.append(vec![timed(5, 60_000)]);
    let gone = [1, 2].map(|id| (MessageId(id), channel())).to_vec();
    assert_eq!(next(), StoreEvent::Swept { gone, spared: vec![], more: true });
    assert_eq!(next(), stored(&[5]));
}

#[test]
fn rows_of_an_earlier_run_are_restamped_at_once_in_an_outage_too() {
    let fixture = Fixture::new();
    fixture.worker.append(vec![timed(1, 100_000_000), timed(2, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[1, 2]));
    fixture.fail(unavailable());
    // An earlier run has stored the first row.
    fixture.worker.restamp(Restamp { token: 1, after: MessageId(1), all: false, by: 50_000 });
    assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_secs(50)));
    for healed in [false, true] {
        if healed {
            fixture.end_failure();
            fixture.worker.append(vec![timed(3, 100_000_000)]);
            assert_eq!(fixture.next(), stored(&[3]));
        }
        fixture.worker.load(channel(), MessageId(0), 100, PAGE);
        let StoreEvent::Loaded { messages, .. } = fixture.next() else { panic!("not a page") };
        let times: Vec<u64> = messages.iter().map(|message| message.created.0).collect();
        assert_eq!(times[..2], [100_000_000 - 50_000, 100_000_000], "healed: {healed}");
    }
}
