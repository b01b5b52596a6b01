//! Random steps, compared with a model of a store that has no journal.

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

/// A random operation on the store or its database.
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
    /// Rows that a sweep may have removed without a report, because of a crash.
    unsure: BTreeMap<MessageId, Message>,
    next: u64,
    restamps: u64,
    /// The latest sweep: rows that were expired then may be removed, or not yet.
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
        // Rows that may have been removed stay in this state.
        model.swept = model.swept.map(|swept| swept.shifted(restamp.by));
    }

    /// Stops the broker, and starts another one.
    fn restart(mut self, orderly: bool) -> Self {
        if orderly {
            self.store.mark_clean().expect("marks");
        }
        // The database thread may still be carrying out a task; the next thread waits for the lock of the table.
        while self.store.database_thread.under_way() > 0 {
            let _ = self.store.database_thread.next(Duration::from_secs(10));
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
        self.store.dispatch_now();
        while self.store.database_thread.under_way() > 0 || self.store.outage.is_some() {
            self.store.wait(Duration::from_millis(1)).expect("the journal works");
            self.store.dispatch_now();
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
            Step::Move => run.store.dispatch_now(),
            Step::MoveAll => run.store.flush_all(),
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
    // A failing case is printed in its smallest form; proptest's file of seeds is switched off.
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
