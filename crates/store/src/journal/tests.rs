//! The journal in front of a database that goes away, loses answers and comes back, against a model that has no journal.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;
use crate::{MemoryStore, Restamp};
use wsmb_core::message::{Message, Payload};

/// A database that can be made to fail, and outlives the journal in front of it.
#[derive(Clone, Debug)]
struct Database(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    rows: MemoryStore,
    /// What every call fails with.
    failure: Option<StoreError>,
    /// Commits are carried out, and their answers lost.
    mute: bool,
    /// Ids that it can't hold.
    unfit: Vec<MessageId>,
    commits: Vec<Group>,
    clean: bool,
    /// How often it was asked to empty a channel, and to count everything.
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

    fn rejuvenate(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.call(|rows| rows.rejuvenate(now, up_to))
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.call(Background::check)
    }

    fn tend(&mut self) -> Result<(), StoreError> {
        self.call(Background::tend)
    }
}

/// A place for a journal, and a database.
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
    /// Gives the courier what there is to do, without waiting for time to pass.
    fn hurry(&mut self) {
        self.move_at = Some(Instant::now());
        self.stuck_until = None;
        if let Some(away) = &mut self.away {
            away.retry_at = Instant::now();
        }
        self.drain().and_then(|()| self.dispatch()).expect("the journal works");
    }

    /// Until the database has everything, or can't be used.
    fn settle_all(&mut self) {
        loop {
            self.hurry();
            while self.courier.under_way() > 0 {
                self.wait(Duration::from_secs(10)).expect("the journal works");
            }
            if self.move_at.is_none() || self.away.is_some() {
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

/// Everything of a channel, in small pages.
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

#[test]
fn what_is_accepted_moves_to_the_database_and_leaves_the_journal() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=5);
    assert_eq!(store.ledger.waiting(), Ok((5, 0)));
    store.settle_all();
    assert_eq!((store.ledger.waiting(), rig.database.ids("sms")), (Ok((0, 0)), vec![1, 2, 3, 4, 5]));
    assert_eq!(ids(&mut store, "sms"), [1, 2, 3, 4, 5]);
    remove(&mut store, &[2]);
    assert_eq!(ids(&mut store, "sms"), [1, 3, 4, 5], "what is owed to be gone is gone");
    store.settle_all();
    assert_eq!((store.ledger.waiting(), rig.database.ids("sms")), (Ok((0, 0)), vec![1, 3, 4, 5]));
}

#[test]
fn what_is_confirmed_at_once_never_travels() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=5);
    remove(&mut store, &[1, 2, 3, 4, 5]);
    store.settle_all();
    assert!(rig.database.with(|state| state.commits.is_empty()));
}

#[test]
fn an_outage_refuses_nobody_and_the_rest_follows_in_order() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.settle_all();
    rig.database.fail(Some(away()));
    append(&mut store, 3..=4);
    store.settle_all();
    store.check().expect("the journal takes more");
    assert_eq!(store.load(&channel("sms"), MessageId(0), 9, 9), Err(away()), "what is older must come first");
    assert!(store.prepare(&channel("sms"), MessageId(0), 9, 9), "nobody waits for a database that is away");
    let page = store.load(&channel("sms"), MessageId(2), 9, 9).expect("this is here");
    assert_eq!(page.messages.len(), 2);
    rig.database.fail(None);
    store.settle_all();
    assert_eq!(ids(&mut store, "sms"), [1, 2, 3, 4]);
    assert_eq!(rig.database.ids("sms"), [1, 2, 3, 4]);
}

/// Lets the background run for as many rounds, as the store's thread would.
fn rounds(store: &mut JournaledStore, count: u32) {
    for _ in 0..count {
        store.advance(Waker::noop());
        store.wait(Duration::from_millis(2)).expect("the journal works");
    }
}

#[test]
fn a_purge_that_a_read_only_server_refuses_is_tried_once_a_second() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.settle_all();
    rig.database.fail(Some(StoreError::ReadOnly { place: "db://test".to_owned() }));
    let begun = Instant::now();
    store.purge(&channel("sms"), MessageId(3), 10).expect("it is owed");
    store.move_at = Some(Instant::now());
    rounds(&mut store, 200);
    let (tried, allowed) = (rig.database.with(|state| state.purges), begun.elapsed().as_secs() as u32 + 1);
    assert!(tried >= 1 && tried <= allowed, "tried {tried} times, {allowed} are enough");
    rig.database.fail(None);
    store.settle_all();
    assert!(rig.database.ids("sms").is_empty(), "it is carried out in the end");
}

#[test]
fn to_count_the_table_is_no_probe() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.summary(Timestamp(0)).expect("a summary");
    store.settle_all();
    let counts = || rig.database.with(|state| state.counts);
    assert_eq!(counts(), 1, "the start counts");
    for round in 0..5 {
        rig.database.fail(Some(away()));
        append(&mut store, 10 + round..=10 + round);
        store.settle_all();
        assert!(store.away.is_some());
        rig.database.fail(None);
        store.settle_all();
    }
    assert_eq!((counts(), rig.database.ids("sms").len()), (1, 8), "outages cost no count");
    // One that was away when the broker started is counted when it is back: nothing is known of it.
    drop(store);
    rig.database.fail(Some(away()));
    let mut store = rig.open();
    store.summary(Timestamp(0)).expect("the journal remembers");
    rig.database.fail(None);
    store.settle_all();
    store.settle_all();
    assert_eq!(counts(), 2);
}

#[test]
fn a_database_that_opens_read_only_is_tried_once_a_second() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=1);
    rig.database.fail(Some(away()));
    store.settle_all();
    assert!(store.away.is_some());
    rig.database.fail(Some(StoreError::ReadOnly { place: "db://test".to_owned() }));
    store.hurry();
    rounds(&mut store, 3);
    assert!(
        store.away.as_ref().is_some_and(|away| away.retry_at > Instant::now()),
        "it would be asked without a pause"
    );
}

#[test]
fn start_up_works_with_the_database_down_but_not_the_first_time() {
    let rig = Rig::new();
    rig.database.fail(Some(away()));
    assert_eq!(rig.try_open("db://test").err(), Some(away()), "the address may be wrong");
    rig.database.fail(None);
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.settle_all();
    append(&mut store, 4..=4);
    drop(store);
    rig.database.fail(Some(away()));
    let mut store = rig.open();
    let summary = store.summary(Timestamp(0)).expect("the journal remembers");
    let channels: Vec<_> = summary.channels.iter().map(|found| (found.messages, found.last.0)).collect();
    assert_eq!((channels, summary.last_id), (vec![(4, 4)], MessageId(4)));
    append(&mut store, 5..=5);
    rig.database.fail(None);
    store.settle_all();
    assert_eq!(ids(&mut store, "sms"), [1, 2, 3, 4, 5]);
}

#[test]
fn a_database_that_is_refused_is_no_outage() {
    let rig = Rig::new();
    drop(rig.open());
    let locked = StoreError::Locked { place: "db".to_owned(), holder: None };
    rig.database.fail(Some(locked.clone()));
    assert_eq!(rig.try_open("db://test").err(), Some(locked));
}

#[test]
fn a_journal_belongs_to_one_database() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=1);
    drop(store);
    let error = rig.try_open("db://other").expect_err("it holds a message for the first");
    assert!(matches!(error, StoreError::JournalOfAnother { ref other, messages: 1, .. } if other == "db://test"));
    let mut store = rig.open();
    store.settle_all();
    drop(store);
    rig.try_open("db://other").expect("it is empty");
}

#[test]
fn a_full_journal_refuses_and_takes_removals() {
    let rig = Rig::new();
    let mut store = rig.open();
    rig.database.fail(Some(away()));
    let large = |id| Message { payload: Payload::text("x".repeat(50_000)), ..message(id, "sms") };
    let mut id = 0;
    let error = loop {
        id += 1;
        let group = Group { appends: vec![large(id)], ..Group::default() };
        if let Err(error) = store.commit(&group) {
            break error;
        }
        assert!(id < 100, "never full");
    };
    assert!(matches!(error, StoreError::OverBudget { .. }), "{error}");
    assert!(matches!(store.check(), Err(StoreError::OverBudget { .. })), "a ping tells the truth");
    remove(&mut store, &[1, 2, 3]);
    store.check().expect("there is room again");
    rig.database.fail(None);
    store.settle_all();
    append(&mut store, 100..=100);
}

#[test]
fn a_row_that_the_database_can_not_hold_stays_and_is_delivered_from_here() {
    let rig = Rig::new();
    rig.database.with(|state| state.unfit = vec![MessageId(2)]);
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.settle_all();
    assert_eq!((rig.database.ids("sms"), ids(&mut store, "sms")), (vec![1, 3], vec![1, 2, 3]));
    remove(&mut store, &[2]);
    assert_eq!(ids(&mut store, "sms"), [1, 3]);
}

#[test]
fn an_orderly_stop_leaves_everything_in_the_database() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=10_000);
    remove(&mut store, &[7]);
    store.mark_clean().expect("marks");
    assert_eq!(store.ledger.waiting(), Ok((0, 0)));
    assert!(rig.database.with(|state| state.clean));
    drop(store);
    assert!(rig.open().summary(Timestamp(0)).expect("summary").clean);
}

#[test]
fn delayed_messages_stay_here_and_those_of_the_database_are_taken_over() {
    let rig = Rig::new();
    let due = |id| Message { due: Some(Timestamp(9)), ..message(id, "sms") };
    rig.database.with(|state| {
        state.rows.commit(&Group { appends: vec![due(1)], ..Group::default() }).expect("commits");
    });
    let mut store = rig.open();
    let delayed = |store: &mut JournaledStore| {
        let summary = store.summary(Timestamp(0)).expect("summary");
        summary.delayed.iter().map(|message| message.id.0).collect::<Vec<_>>()
    };
    assert_eq!(delayed(&mut store), [1]);
    store.commit(&Group { appends: vec![due(2)], ..Group::default() }).expect("commits");
    store.settle_all();
    assert_eq!(store.ledger.waiting(), Ok((2, 0)));
    remove(&mut store, &[1]);
    rig.database.with(|state| {
        // As if the removal of the first had not got through before the stop.
        state.rows.commit(&Group { appends: vec![due(2)], ..Group::default() }).expect("commits");
    });
    drop(store);
    assert_eq!(delayed(&mut rig.open()), [2]);
}

#[test]
fn an_answer_that_is_lost_doubles_nothing() {
    let rig = Rig::new();
    let mut store = rig.open();
    rig.database.with(|state| state.mute = true);
    append(&mut store, 1..=3);
    store.settle_all();
    assert_eq!(store.ledger.waiting(), Ok((3, 0)), "as far as anybody knows");
    remove(&mut store, &[1]);
    drop(store);
    let mut store = rig.open();
    remove(&mut store, &[2]);
    rig.database.with(|state| state.mute = false);
    store.settle_all();
    assert_eq!((rig.database.ids("sms"), ids(&mut store, "sms")), (vec![3], vec![3]));
}

/// Something that happens to the store or to its database.
#[derive(Clone, Debug)]
enum Step {
    Append { rows: Vec<(u8, Option<u64>)> },
    Remove { picks: Vec<usize> },
    Count { picks: Vec<(usize, u32)> },
    Purge { channel: u8 },
    Sweep { now: u64 },
    Restamp { after: usize, all: bool, seconds: i64 },
    Move,
    MoveAll,
    Outage(bool),
    Mute(bool),
    Crash,
    Stop,
    Compare,
}

const NAMES: [&str; 3] = ["a", "b", "ü"];

fn step() -> impl Strategy<Value = Step> {
    let row = (0..3_u8, prop::option::weighted(0.2, 0..20_u64));
    prop_oneof![
        6 => prop::collection::vec(row, 1..6).prop_map(|rows| Step::Append { rows }),
        4 => prop::collection::vec(any::<prop::sample::Index>(), 1..6)
            .prop_map(|picks| Step::Remove { picks: picks.iter().map(|pick| pick.index(1_000)).collect() }),
        2 => prop::collection::vec((0..1_000_usize, 1..9_u32), 1..4).prop_map(|picks| Step::Count { picks }),
        1 => (0..3_u8).prop_map(|channel| Step::Purge { channel }),
        1 => prop_oneof![0..20_u64, 0..4_000_u64].prop_map(|now| Step::Sweep { now }),
        2 => (0..1_000_usize, any::<bool>(), 1..3_i64).prop_map(|(after, all, seconds)| Step::Restamp { after, all, seconds }),
        6 => Just(Step::Move),
        3 => Just(Step::MoveAll),
        2 => any::<bool>().prop_map(Step::Outage),
        2 => any::<bool>().prop_map(Step::Mute),
        2 => Just(Step::Crash),
        1 => Just(Step::Stop),
        4 => Just(Step::Compare),
    ]
}

/// The rows that a store without a journal would hold.
#[derive(Default)]
struct Model {
    rows: BTreeMap<MessageId, Message>,
    /// Rows that a sweep may have removed without anybody being told, because of a crash.
    unsure: BTreeMap<MessageId, Message>,
    next: u64,
    restamps: u64,
    /// The latest sweep: what was expired then may be gone, or not yet.
    swept: Option<Timestamp>,
}

impl Model {
    fn pick(&self, picks: impl Iterator<Item = usize>) -> Vec<MessageId> {
        let ids: Vec<MessageId> = self.rows.keys().copied().collect();
        picks.filter(|_| !ids.is_empty()).map(|pick| ids[pick % ids.len()]).collect()
    }

    fn is_lasting(&self, message: &Message) -> bool {
        message.expires.is_none_or(|expires| self.swept.is_none_or(|swept| expires > swept))
    }

    fn compare(&self, store: &mut JournaledStore) {
        for name in NAMES {
            let found: Vec<Message> = all(store, name).into_iter().filter(|row| self.is_lasting(row)).collect();
            let expected = self.rows.values().filter(|row| row.channel.as_str() == name && self.is_lasting(row));
            assert_eq!(found, expected.cloned().collect::<Vec<_>>(), "channel {name}");
        }
        let scanned: Vec<Message> = store.scan(MessageId(0), 1_000, 1 << 20).expect("scans").messages;
        let scanned: Vec<Message> = scanned.into_iter().filter(|row| self.is_lasting(row)).collect();
        let expected = self.rows.values().filter(|row| self.is_lasting(row));
        assert_eq!(scanned, expected.cloned().collect::<Vec<_>>(), "all channels");
        let summary = store.summary(Timestamp(0)).expect("summary");
        assert!(summary.last_id.0 >= self.rows.keys().max().map_or(0, |id| id.0));
        for name in NAMES {
            let last = self.rows.values().filter(|row| row.channel.as_str() == name && self.is_lasting(row));
            let last = last.map(|row| row.id).max();
            let known = summary.channels.iter().find(|found| found.channel.as_str() == name).map(|found| found.last);
            assert!(known.unwrap_or_default() >= last.unwrap_or_default(), "channel {name} would be passed over");
        }
    }
}

/// One run: the store, its database, and the model.
struct Run {
    rig: Rig,
    store: JournaledStore,
    model: Model,
}

impl Run {
    fn new() -> Self {
        let rig = Rig::new();
        let store = rig.open();
        Self { rig, store, model: Model::default() }
    }

    fn commit(&mut self, group: Group) {
        self.store.commit(&group).expect("commits");
    }

    fn append(&mut self, rows: &[(u8, Option<u64>)]) {
        let mut appends = Vec::new();
        for (name, expires) in rows {
            self.model.next += 1;
            let row = message(self.model.next, NAMES[usize::from(*name)]);
            appends.push(Message { expires: expires.map(Timestamp), ..row });
        }
        self.model.rows.extend(appends.iter().map(|message| (message.id, message.clone())));
        self.commit(Group { appends, ..Group::default() });
    }

    fn remove(&mut self, picks: &[usize]) {
        let removals = self.model.pick(picks.iter().copied());
        self.model.rows.retain(|id, _| !removals.contains(id));
        self.commit(Group { removals, ..Group::default() });
    }

    fn count(&mut self, picks: &[(usize, u32)]) {
        let ids = self.model.pick(picks.iter().map(|(pick, _)| *pick));
        let deliveries: BTreeMap<_, _> = ids.into_iter().zip(picks.iter().map(|(_, count)| *count)).collect();
        for (id, count) in &deliveries {
            self.model.rows.get_mut(id).expect("picked").deliveries = *count;
        }
        self.commit(Group { deliveries: deliveries.into_iter().collect(), ..Group::default() });
    }

    fn purge(&mut self, name: u8) {
        let name = channel(NAMES[usize::from(name)]);
        while self.store.purge(&name, MessageId(self.model.next), 2).expect("purges") == 2 {}
        self.model.rows.retain(|_, row| row.channel != name);
        self.model.unsure.retain(|_, row| row.channel != name);
    }

    fn sweep(&mut self, now: Timestamp) {
        let model = &mut self.model;
        model.swept = model.swept.max(Some(now));
        for (id, name) in self.store.sweep(now, 100, &Spare::default()).expect("sweeps").gone {
            let row = model.rows.remove(&id).or_else(|| model.unsure.remove(&id));
            let row = row.expect("only what is there, and once");
            assert_eq!(row.channel, name);
            assert!(!model.is_lasting(&row), "{row:?} is not expired");
        }
    }

    fn restamp(&mut self, after: usize, all: bool, seconds: i64) {
        let model = &mut self.model;
        model.restamps += 1;
        let after = model.pick(std::iter::once(after)).first().copied().unwrap_or_default();
        let restamp = Restamp { token: model.restamps, after, all, by: seconds * 1_000 };
        self.store.restamp(&restamp).expect("corrects");
        model.rows.values_mut().chain(model.unsure.values_mut()).for_each(|row| restamp.apply(row));
        // What may be gone must stay what may be gone.
        model.swept = model.swept.map(|swept| swept.shifted(restamp.by));
    }

    /// The broker ends, and another one starts.
    fn restart(mut self, orderly: bool) -> Self {
        if orderly {
            self.store.mark_clean().expect("marks");
        }
        // The courier may be at a task still; the next one waits for the lock of the table.
        while self.store.courier.under_way() > 0 {
            let _ = self.store.courier.next(Duration::from_secs(10));
        }
        let Self { rig, store, mut model } = self;
        drop(store);
        let mut store = rig.open();
        store.summary(Timestamp(0)).expect("summary");
        let all = std::mem::take(&mut model.rows);
        let (lasting, unsure): (BTreeMap<_, _>, BTreeMap<_, _>) =
            all.into_iter().partition(|(_, row)| model.is_lasting(row));
        model.rows = lasting;
        model.unsure.extend(unsure);
        Self { rig, store, model }
    }

    fn compare(&mut self) {
        self.rig.database.fail(None);
        self.rig.database.with(|state| state.mute = false);
        self.store.hurry();
        while self.store.courier.under_way() > 0 || self.store.away.is_some() {
            self.store.wait(Duration::from_millis(1)).expect("the journal works");
            self.store.hurry();
        }
        self.model.compare(&mut self.store);
    }
}

fn run(steps: &[Step]) {
    let mut run = Run::new();
    for step in steps {
        match step {
            Step::Append { rows } => run.append(rows),
            Step::Remove { picks } => run.remove(picks),
            Step::Count { picks } => run.count(picks),
            Step::Purge { channel } => run.purge(*channel),
            Step::Sweep { now } => run.sweep(Timestamp(*now)),
            Step::Restamp { after, all, seconds } => run.restamp(*after, *all, *seconds),
            Step::Move => run.store.hurry(),
            Step::MoveAll => run.store.settle_all(),
            Step::Outage(on) => run.rig.database.fail(on.then(away)),
            Step::Mute(on) => run.rig.database.with(|state| state.mute = *on),
            Step::Crash => run = run.restart(false),
            Step::Stop => run = run.restart(true),
            Step::Compare => run.compare(),
        }
    }
}

#[test]
fn whatever_happens_to_the_database_the_store_is_the_same_as_without_a_journal() {
    let cases = std::env::var("WSMB_JOURNAL_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(200);
    // A failing case is printed in its smallest form; the file of seeds would lie in the source.
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let outcome = runner.run(&prop::collection::vec(step(), 1..60), |steps| {
        run(&steps);
        Ok(())
    });
    if let Err(error) = outcome {
        panic!("{error}");
    }
}

#[test]
fn a_page_that_has_come_loses_what_is_settled_before_it_is_asked_for() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.settle_all();
    assert!(!store.prepare(&channel("sms"), MessageId(0), 10, 1 << 20), "it is fetched");
    while store.courier.under_way() > 0 {
        store.wait(Duration::from_secs(10)).expect("the journal works");
    }
    remove(&mut store, &[1]);
    let page = store.load(&channel("sms"), MessageId(0), 10, 1 << 20).expect("it has come");
    assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn nobody_waits_for_a_page_that_the_database_is_slow_to_give() {
    use crate::{Outcome, StoreWorker};
    use std::sync::mpsc;

    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.settle_all();
    let (report, outcomes) = mpsc::channel();
    let worker = StoreWorker::start(Box::new(store), move |outcome| report.send(outcome).expect("the test listens"));
    let worker = worker.expect("a thread");
    let next = || outcomes.recv_timeout(Duration::from_secs(10)).expect("an outcome");
    // The database does not answer as long as this is held.
    let guard = rig.database.0.lock().expect("no test panics under the lock");
    worker.load(channel("sms"), MessageId(0), 10);
    worker.append(vec![message(3, "sms")]);
    assert_eq!(next(), Outcome::Stored(vec![MessageId(3)]));
    worker.remove(&[MessageId(1)]);
    worker.append(vec![message(4, "other")]);
    assert_eq!(next(), Outcome::Stored(vec![MessageId(4)]));
    drop(guard);
    let Outcome::Loaded { messages, complete, .. } = next() else { panic!("a page was asked for") };
    let found: Vec<u64> = messages.iter().map(|message| message.id.0).collect();
    assert_eq!((found, complete), (vec![2, 3], true), "without what has gone meanwhile");
    rig.database.fail(Some(away()));
    worker.load(channel("sms"), MessageId(0), 10);
    assert_eq!(next(), Outcome::LoadFailed { channel: channel("sms") });
    worker.stop().expect("what is accepted is in the journal");
}

#[test]
fn what_the_database_spares_is_told_once_and_nothing_that_is_owed_to_be_gone() {
    let rig = Rig::new();
    let mut store = rig.open();
    let expiring = |id| Message { expires: Some(Timestamp(10)), ..message(id, "sms") };
    store.commit(&Group { appends: (1..=4).map(expiring).collect(), ..Group::default() }).expect("commits");
    store.settle_all();
    store.commit(&Group { deliveries: vec![(MessageId(2), 7)], ..Group::default() }).expect("commits");
    remove(&mut store, &[1]);
    store.commit(&Group { appends: vec![expiring(5)], ..Group::default() }).expect("commits");
    let sweep = |store: &mut JournaledStore| {
        let swept = store.sweep(Timestamp(10), 100, &Spare::all()).expect("sweeps");
        assert!(swept.gone.is_empty(), "{swept:?}");
        swept.spared.iter().map(|message| (message.id.0, message.deliveries)).collect::<Vec<_>>()
    };
    assert_eq!(sweep(&mut store), [(5, 0)], "the journal's own; the database is asked");
    while store.courier.under_way() > 0 {
        store.wait(Duration::from_secs(10)).expect("the journal works");
    }
    // It has become a dead letter meanwhile.
    remove(&mut store, &[4, 5]);
    assert_eq!(sweep(&mut store), [(2, 7), (3, 0)]);
    assert_eq!(sweep(&mut store), [], "nothing new has come of the database");
}

/// The two in the hands of a tool.
fn direct(rig: &Rig, name: &str) -> Result<Box<dyn MessageStore>, StoreError> {
    let prefix = Prefix::parse("mq_").expect("a valid prefix");
    let settings = rig.settings();
    Direct::open(Box::new(rig.database.clone()), Some(&settings), &prefix, name)
}

fn scanned(store: &mut dyn MessageStore) -> Vec<u64> {
    let page = store.scan(MessageId(0), 1_000, 1 << 30).expect("scans");
    page.messages.iter().map(|message| message.id.0).collect()
}

#[test]
fn a_tool_finds_what_is_owed_paid_and_everything_in_one_place() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=6);
    store.settle_all();
    rig.database.fail(Some(away()));
    let due = Message { due: Some(Timestamp(9)), ..message(9, "sms") };
    let removals = [2, 3].map(MessageId).to_vec();
    store
        .commit(&Group { appends: vec![message(7, "sms"), message(8, "other"), due], removals, ..Group::default() })
        .expect("commits");
    store.commit(&Group { deliveries: vec![(MessageId(4), 3)], ..Group::default() }).expect("commits");
    store.purge(&channel("other"), MessageId(8), 10).expect("purges");
    drop(store);
    assert_eq!(rig.database.ids("sms"), [1, 2, 3, 4, 5, 6]);

    assert!(direct(&rig, "db://test").is_err(), "the database is away");
    rig.database.fail(None);
    let mut store = direct(&rig, "db://test").expect("opens");
    assert_eq!(scanned(&mut *store), [1, 4, 5, 6, 7, 9]);
    assert_eq!(rig.database.ids("sms"), [1, 4, 5, 6, 7], "the delayed one waits in the journal");
    assert_eq!(ids(&mut *store, "sms"), [1, 4, 5, 6, 7]);
    let summary = store.summary(Timestamp(0)).expect("summary");
    assert_eq!((summary.last_id, summary.delayed.len(), summary.channels[0].messages), (MessageId(9), 1, 5));
    let counted = store.scan(MessageId(1), 1, 1 << 30).expect("scans").messages.remove(0);
    assert_eq!((counted.id, counted.deliveries), (MessageId(4), 3));

    store.commit(&Group { removals: [1, 9].map(MessageId).to_vec(), ..Group::default() }).expect("commits");
    assert_eq!(scanned(&mut *store), [4, 5, 6, 7]);
    assert_eq!(store.purge(&channel("sms"), MessageId(u64::MAX), 3).expect("purges"), 3);
    assert_eq!(store.purge(&channel("sms"), MessageId(u64::MAX), 3).expect("purges"), 1);
    assert!(scanned(&mut *store).is_empty());
}

#[test]
fn ids_that_a_tool_gave_are_not_given_again_while_the_database_is_away() {
    let rig = Rig::new();
    drop(rig.open());
    let mut store = direct(&rig, "db://test").expect("opens");
    append(&mut *store, 1..=50);
    drop(store);
    assert_eq!(rig.database.ids("sms").len(), 50, "new rows are the database's");
    rig.database.fail(Some(away()));
    assert_eq!(rig.open().summary(Timestamp(0)).expect("summary").last_id, MessageId(50));
}

#[test]
fn a_tool_leaves_the_journal_of_another_database_alone() {
    let rig = Rig::new();
    let mut store = rig.open();
    rig.database.fail(Some(away()));
    append(&mut store, 1..=2);
    assert!(matches!(direct(&rig, "db://test"), Err(StoreError::Locked { .. })), "a broker runs on it");
    rig.database.fail(None);
    let mut other = direct(&rig, "db://other").expect("opens beside it");
    assert!(scanned(&mut *other).is_empty());
}

#[test]
fn a_row_that_waits_in_the_journal_gives_way_to_another_once() {
    let rig = Rig::new();
    rig.database.with(|state| state.unfit = [1, 5].map(MessageId).to_vec());
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.settle_all();
    drop(store);
    let mut store = direct(&rig, "db://test").expect("opens");
    assert_eq!((scanned(&mut *store), rig.database.ids("sms")), (vec![1, 2, 3], vec![2, 3]));
    // The process ends when the database has carried out its part.
    rig.database.with(|state| state.mute = true);
    let appends = (4..=6).map(|id| message(id, "other")).collect();
    let removals = (1..=3).map(MessageId).collect();
    store.commit(&Group { appends, removals, ..Group::default() }).expect_err("the answer is lost");
    drop(store);
    rig.database.with(|state| state.mute = false);
    let mut store = direct(&rig, "db://test").expect("opens");
    assert_eq!(scanned(&mut *store), [4, 5, 6], "each is there once, also the one that the database can't hold");
    assert_eq!((rig.database.ids("other"), rig.database.ids("sms")), (vec![4, 6], vec![]));
}

#[test]
fn a_tool_finds_the_time_that_the_broker_noted_in_the_journal() {
    let rig = Rig::new();
    let note = |name: &str, value| Group { marks: vec![(name.to_owned(), value)], ..Group::default() };
    rig.open().commit(&note("clock.last", 7)).expect("commits");
    let mut store = direct(&rig, "db://test").expect("opens");
    store.commit(&note("copy.x", 3)).expect("commits");
    assert_eq!(["clock.last", "copy.x", "copy.y"].map(|name| store.mark(name)), [Ok(Some(7)), Ok(Some(3)), Ok(None)]);
}
