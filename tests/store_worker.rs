//! The store's thread, with a store that fails when it is told to.

use std::sync::mpsc::{Receiver, channel as pipe};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{
    self, Background, Group, MemoryStore, MessageStore, Page, Restamp, StoreError, StoreSettings,
    StoreWorker, Summary, Swept,
};

const PATIENCE: Duration = Duration::from_secs(20);

/// What the test decides and sees of the store.
#[derive(Default)]
struct Script {
    /// What writing ends in.
    failure: Option<StoreError>,
    /// Only groups with appends fail.
    only_appends: bool,
    /// What it says has failed, it has written.
    lies: bool,
    /// Commits wait.
    held: bool,
    /// A commit is waiting.
    waiting: bool,
    /// Every group that was committed.
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

    /// Waits until the script is as wanted.
    fn until(&self, wanted: impl Fn(&Script) -> bool) {
        let script = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (script, timeout) = self
            .0
            .1
            .wait_timeout_while(script, PATIENCE, |script| !wanted(script))
            .unwrap_or_else(PoisonError::into_inner);
        drop(script);
        assert!(!timeout.timed_out(), "it never came to that");
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
            if self.control.with(|script| script.lies) {
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

struct Rig {
    worker: StoreWorker,
    control: Control,
    outcomes: Receiver<StoreEvent>,
}

impl Rig {
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

    fn heal(&self) {
        self.control.with(|script| script.failure = None);
    }

    /// Has the thread stand in a commit of the message with this id.
    fn hold(&self, id: u64) {
        self.control.with(|script| script.held = true);
        self.append([id]);
        self.control.until(|script| script.waiting);
    }

    fn release(&self) {
        self.control.with(|script| script.held = false);
    }

    fn page(&self) -> Vec<u64> {
        self.worker.load(channel(), MessageId(0), 100);
        match self.next() {
            StoreEvent::Loaded { messages, complete: true, .. } => messages.iter().map(|message| message.id.0).collect(),
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
fn what_queues_while_a_commit_runs_is_the_next_group() {
    let rig = Rig::new();
    rig.hold(1);
    rig.append([2, 3]);
    rig.append([4]);
    rig.remove(&[3]);
    assert!(rig.worker.queued_bytes() > 0);
    rig.release();
    assert_eq!(rig.next(), stored(&[1]));
    assert_eq!(rig.next(), stored(&[2, 4]), "one group, and what was removed is never written");
    assert_eq!(rig.page(), [1, 2, 4]);
    assert_eq!(rig.control.with(|script| script.groups.len()), 2);
    assert_eq!(rig.worker.queued_bytes(), 0);
}

#[test]
fn a_failed_group_is_reported_once_and_its_debts_are_paid_later() {
    let rig = Rig::new();
    rig.append([1, 2]);
    assert_eq!(rig.next(), stored(&[1, 2]));
    rig.fail(unavailable());
    rig.remove(&[1]);
    rig.worker.deliveries(&[(MessageId(2), 7)]);
    rig.append([3]);
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[3]), StoreFailure::Unavailable));
    assert!(!rig.worker.healthy());
    assert_eq!(rig.page(), [2], "a row that is owed a removal is not shown");
    rig.heal();
    rig.control.until(|script| script.groups.iter().any(|group| group.removals == numbers(&[1])));
    rig.append([4]);
    assert_eq!(rig.next(), stored(&[4]), "the failed one is not tried again");
    assert!(rig.worker.healthy());
    rig.worker.stop().expect("stops");
    rig.control.with(|script| {
        assert!(script.groups.iter().any(|group| group.deliveries == [(MessageId(2), 7)]));
        assert!(script.clean);
    });
}

#[test]
fn what_was_written_and_called_failed_goes_when_its_message_is_settled() {
    let rig = Rig::new();
    rig.control.with(|script| script.lies = true);
    rig.fail(StoreError::Unreachable { place: "there".to_owned(), detail: "its answer was lost".to_owned() });
    rig.append([1, 2]);
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[1, 2]), StoreFailure::Unavailable));
    rig.heal();
    // While another commit runs, the retry waits; then its message is confirmed.
    rig.hold(3);
    rig.append([1, 2]);
    rig.remove(&[1]);
    rig.release();
    assert_eq!(rig.next(), stored(&[3]));
    assert_eq!(rig.next(), stored(&[2]));
    assert_eq!(rig.page(), [2, 3], "nothing that is settled is shown");
    rig.worker.stop().expect("stops");
    rig.control.with(|script| {
        let removed: Vec<MessageId> = script.groups.iter().flat_map(|group| group.removals.clone()).collect();
        assert_eq!(removed, numbers(&[1]), "it would be delivered after the next start");
    });
}

#[test]
fn a_full_store_still_lets_go() {
    let rig = Rig::new();
    rig.append([1]);
    assert_eq!(rig.next(), stored(&[1]));
    rig.control.with(|script| script.held = true);
    rig.remove(&[9]);
    rig.control.until(|script| script.waiting);
    rig.remove(&[1]);
    rig.append([2]);
    rig.control.with(|script| {
        script.failure = Some(StoreError::Full { place: "here".to_owned() });
        script.only_appends = true;
    });
    rig.release();
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[2]), StoreFailure::Unavailable));
    let groups = rig.control.with(|script| script.groups.clone());
    assert_eq!(groups.last().map(|group| group.removals.clone()), Some(numbers(&[1])), "room is made at once");
}

#[test]
fn a_purge_takes_what_is_written_and_what_is_not() {
    let rig = Rig::new();
    rig.append([1, 2]);
    assert_eq!(rig.next(), stored(&[1, 2]));
    rig.hold(3);
    rig.append([4, 5]);
    rig.worker.purge(&channel(), MessageId(4));
    rig.release();
    assert_eq!(rig.next(), stored(&[3]));
    assert_eq!(rig.next(), stored(&[5]));
    assert_eq!(rig.page(), [5]);
    rig.control.until(|script| script.purged == [MessageId(4)]);
}

#[test]
fn a_purge_that_fails_is_kept_and_hides_its_rows() {
    let rig = Rig::new();
    rig.append([1, 2]);
    assert_eq!(rig.next(), stored(&[1, 2]));
    rig.fail(unavailable());
    rig.worker.purge(&channel(), MessageId(1));
    assert_eq!(rig.page(), [2]);
    assert!(rig.control.with(|script| script.purged.is_empty()));
    rig.heal();
    rig.control.until(|script| script.purged == [MessageId(1)]);
    assert_eq!(rig.page(), [2]);
}

#[test]
fn a_check_tells_the_truth_and_heals() {
    let rig = Rig::new();
    let ask = || {
        let (sender, answer) = pipe();
        rig.worker.check(move |good| {
            let _ = sender.send(good);
        });
        answer.recv_timeout(PATIENCE).expect("an answer")
    };
    assert!(ask());
    rig.fail(unavailable());
    rig.append([1]);
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[1]), StoreFailure::Unavailable));
    assert!(!ask());
    rig.heal();
    let end = std::time::Instant::now() + PATIENCE;
    while !ask() {
        assert!(std::time::Instant::now() < end, "it never healed by itself");
        std::thread::yield_now();
    }
    assert!(rig.worker.healthy());
}

#[test]
fn a_sweep_is_always_answered() {
    let rig = Rig::new();
    rig.worker.append(vec![Message { expires: Some(Timestamp(5)), ..message(1) }]);
    assert_eq!(rig.next(), stored(&[1]));
    rig.worker.sweep(Timestamp(4), Spare::default());
    assert_eq!(rig.next(), StoreEvent::Swept { gone: vec![], spared: vec![], more: false });
    rig.worker.sweep(Timestamp(5), Spare::default());
    assert_eq!(rig.next(), StoreEvent::Swept { gone: vec![(MessageId(1), channel())], spared: vec![], more: false });
}

#[test]
fn stopping_writes_everything_and_dropping_nothing_more() {
    let rig = Rig::new();
    rig.hold(1);
    let many = wsmb_core::limits::STORE_GROUP as u64 + 10;
    rig.append(2..=many);
    std::thread::scope(|scope| {
        let stopping = scope.spawn(|| rig.worker.stop());
        rig.release();
        stopping.join().expect("no panic").expect("stops");
    });
    rig.worker.stop().expect("a second time is no matter");
    let written: usize = rig.control.with(|script| script.groups.iter().map(|group| group.appends.len()).sum());
    assert_eq!(written as u64, many);
    assert!(rig.control.with(|script| script.clean));

    let rig = Rig::new();
    let control = rig.control.clone();
    rig.append([1]);
    assert_eq!(rig.next(), stored(&[1]));
    drop(rig);
    assert!(!control.with(|script| script.clean));
}

#[test]
fn stopping_in_an_outage_reports_what_is_lost() {
    let rig = Rig::new();
    rig.fail(unavailable());
    rig.append([1]);
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[1]), StoreFailure::Unavailable));
    rig.remove(&[9]);
    assert_eq!(rig.worker.stop(), Err(unavailable()));
    assert!(!rig.control.with(|script| script.clean));
}

#[tokio::test]
async fn readers_wait_for_room_and_are_woken() {
    let rig = Rig::new();
    rig.worker.wait_for_room().await;
    rig.hold(1);
    let large =
        |id| Message { payload: Payload::text("x".repeat(wsmb_store::limits::STORE_QUEUE_LOW / 2)), ..message(id) };
    rig.worker.append(vec![large(2), large(3), large(4)]);
    assert!(rig.worker.queued_bytes() > wsmb_store::limits::STORE_QUEUE_LOW);
    let room = rig.worker.wait_for_room();
    rig.release();
    tokio::time::timeout(PATIENCE, room).await.expect("woken");
    assert!(rig.worker.queued_bytes() <= wsmb_store::limits::STORE_QUEUE_LOW);
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
fn a_row_outlives_a_failed_attempt_to_replace_it() {
    let rig = Rig::new();
    rig.append([1]);
    assert_eq!(rig.next(), stored(&[1]));
    rig.fail(unavailable());
    rig.worker.replace(message(2), vec![MessageId(1)]);
    assert_eq!(rig.next(), StoreEvent::StoreFailed(numbers(&[2]), StoreFailure::Unavailable));
    rig.heal();
    assert_eq!(rig.page(), [1]);
    rig.worker.replace(message(2), vec![MessageId(1)]);
    assert_eq!(rig.next(), stored(&[2]));
    assert_eq!(rig.page(), [2]);
}

#[test]
fn a_count_that_comes_while_its_row_is_being_written_is_in_the_page_that_follows() {
    let rig = Rig::new();
    rig.control.with(|script| script.held = true);
    rig.append([1]);
    rig.control.until(|script| script.waiting);
    rig.worker.deliveries(&[(MessageId(1), 1)]);
    rig.worker.load(channel(), MessageId(0), 10);
    rig.release();
    assert_eq!(rig.next(), stored(&[1]));
    let StoreEvent::Loaded { messages, .. } = rig.next() else { panic!("a page follows") };
    assert_eq!(messages.iter().map(|message| message.deliveries).collect::<Vec<_>>(), [1]);
}

/// A message that expires a minute after its acceptance.
fn timed(id: u64, created: u64) -> Message {
    Message { created: Timestamp(created), expires: Some(Timestamp(created + 60_000)), ..message(id) }
}

#[test]
fn a_step_of_the_clock_changes_nothing_for_those_who_ask() {
    let rig = Rig::new();
    let mut expected = Vec::new();
    for (number, by) in (1..).zip([0, 3_600_000, -7_200_000]) {
        if by != 0 {
            rig.worker.restamp(Restamp { token: number, after: MessageId(0), all: by < 0, by });
        }
        if by > 0 {
            assert_eq!(rig.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
        }
        rig.worker.append(vec![timed(number, 100_000_000 + number)]);
        assert_eq!(rig.next(), stored(&[number]));
        expected.push(timed(number, 100_000_000 + number));
    }
    rig.worker.load(channel(), MessageId(0), 100);
    assert_eq!(rig.next(), StoreEvent::Loaded { channel: channel(), messages: expected, complete: true });
    let written = rig.control.with(|script| script.groups.last().map(|group| group.appends[0].created));
    assert_eq!(written, Some(Timestamp(100_000_003 - 3_600_000)), "the store holds the wall clock's time");
    rig.worker.sweep(Timestamp(100_060_002), Spare::default());
    let gone = |ids: &[u64]| ids.iter().map(|id| (MessageId(*id), channel())).collect();
    assert_eq!(rig.next(), StoreEvent::Swept { gone: gone(&[1, 2]), spared: vec![], more: false });
}

#[test]
fn a_correction_that_fails_is_tried_again_before_anything_is_read_wrongly() {
    let rig = Rig::new();
    rig.worker.append(vec![timed(1, 100_000_000)]);
    assert_eq!(rig.next(), stored(&[1]));
    rig.fail(unavailable());
    rig.worker.restamp(Restamp { token: 1, after: MessageId(0), all: false, by: 3_600_000 });
    assert_eq!(rig.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
    let page = || {
        rig.worker.load(channel(), MessageId(0), 100);
        rig.next()
    };
    let expected = StoreEvent::Loaded { channel: channel(), messages: vec![timed(1, 100_000_000)], complete: true };
    assert_eq!(page(), expected);
    rig.heal();
    rig.worker.append(vec![timed(2, 100_000_000)]);
    assert_eq!(rig.next(), stored(&[2]));
    let StoreEvent::Loaded { messages, .. } = page() else { panic!("a page was asked for") };
    assert_eq!(messages, [timed(1, 100_000_000), timed(2, 100_000_000)]);
    rig.worker.stop().expect("all is written");
}

#[test]
fn the_time_is_noted_with_what_is_written_and_by_itself() {
    let rig = Rig::new();
    let noted = || -> Vec<u64> {
        rig.control
            .with(|script| script.groups.iter().flat_map(|group| group.marks.iter().map(|mark| mark.1)).collect())
    };
    for (id, created) in [(1, 5_000), (2, 5_999), (3, 6_000)] {
        rig.worker.append(vec![timed(id, created)]);
        assert_eq!(rig.next(), stored(&[id]));
    }
    assert_eq!(noted(), [5_000, 6_000], "once a second");
    rig.worker.note_time(Timestamp(66_000));
    rig.worker.stop().expect("all is written");
    assert_eq!(noted(), [5_000, 6_000, 66_000]);
}

#[test]
fn what_has_expired_takes_no_room_from_new_messages() {
    let (sender, outcomes) = pipe();
    let report = move |outcome| {
        let _ = sender.send(outcome);
    };
    let room_for_three = 3 * (wsmb_store::limits::STORE_ROW_BYTES + 1);
    let worker = StoreWorker::start(Box::new(MemoryStore::new(room_for_three)), report).expect("a thread");
    let next = || outcomes.recv_timeout(PATIENCE).expect("an outcome");
    // Before the first sweep nobody has said which channels are spared.
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
fn rows_of_an_earlier_run_are_reckoned_anew_at_once_though_the_store_cannot_be_written() {
    let rig = Rig::new();
    rig.worker.append(vec![timed(1, 100_000_000), timed(2, 100_000_000)]);
    assert_eq!(rig.next(), stored(&[1, 2]));
    rig.fail(unavailable());
    // The first was stored by an earlier run.
    rig.worker.restamp(Restamp { token: 1, after: MessageId(1), all: false, by: 50_000 });
    assert_eq!(rig.next(), StoreEvent::WallAdvanced(Duration::from_secs(50)));
    for healed in [false, true] {
        if healed {
            rig.heal();
            rig.worker.append(vec![timed(3, 100_000_000)]);
            assert_eq!(rig.next(), stored(&[3]));
        }
        rig.worker.load(channel(), MessageId(0), 100);
        let StoreEvent::Loaded { messages, .. } = rig.next() else { panic!("a page was asked for") };
        let times: Vec<u64> = messages.iter().map(|message| message.created.0).collect();
        assert_eq!(times[..2], [100_000_000 - 50_000, 100_000_000], "healed: {healed}");
    }
}
