//! The journal and its database, opened by a tool while no broker runs.

use super::*;

/// Opens the database and the journal as a tool does.
fn offline(rig: &Rig, name: &str) -> Result<Box<dyn MessageStore>, StoreError> {
    let prefix = Prefix::parse("mq_").expect("a valid prefix");
    let settings = rig.settings();
    OfflineStore::open(Box::new(rig.database.clone()), Some(&settings), &prefix, name)
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
    store.flush_all();
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

    assert!(offline(&rig, "db://test").is_err(), "the database is away");
    rig.database.fail(None);
    let mut store = offline(&rig, "db://test").expect("opens");
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
    let mut store = offline(&rig, "db://test").expect("opens");
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
    assert!(matches!(offline(&rig, "db://test"), Err(StoreError::Locked { .. })), "a broker runs on it");
    rig.database.fail(None);
    let mut other = offline(&rig, "db://other").expect("opens beside it");
    assert!(scanned(&mut *other).is_empty());
}

#[test]
fn a_row_that_waits_in_the_journal_gives_way_to_another_once() {
    let rig = Rig::new();
    rig.database.with(|state| state.unfit = [1, 5].map(MessageId).to_vec());
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.flush_all();
    drop(store);
    let mut store = offline(&rig, "db://test").expect("opens");
    assert_eq!((scanned(&mut *store), rig.database.ids("sms")), (vec![1, 2, 3], vec![2, 3]));
    // The process ends after the database has carried out its part.
    rig.database.with(|state| state.mute = true);
    let appends = (4..=6).map(|id| message(id, "other")).collect();
    let removals = (1..=3).map(MessageId).collect();
    store.commit(&Group { appends, removals, ..Group::default() }).expect_err("the answer is lost");
    drop(store);
    rig.database.with(|state| state.mute = false);
    let mut store = offline(&rig, "db://test").expect("opens");
    assert_eq!(scanned(&mut *store), [4, 5, 6], "each is there once, also the one that the database can't hold");
    assert_eq!((rig.database.ids("other"), rig.database.ids("sms")), (vec![4, 6], vec![]));
}

#[test]
fn a_tool_finds_the_time_that_the_broker_noted_in_the_journal() {
    let rig = Rig::new();
    let note = |name: &str, value| Group { marks: vec![(name.to_owned(), value)], ..Group::default() };
    rig.open().commit(&note("clock.last", 7)).expect("commits");
    let mut store = offline(&rig, "db://test").expect("opens");
    store.commit(&note("copy.x", 3)).expect("commits");
    assert_eq!(["clock.last", "copy.x", "copy.y"].map(|name| store.mark(name)), [Ok(Some(7)), Ok(Some(3)), Ok(None)]);
}
