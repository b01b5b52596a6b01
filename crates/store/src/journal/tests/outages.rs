//! A database that is unreachable, read-only, or whose answers are lost.

use super::*;

#[test]
fn an_outage_refuses_nobody_and_the_rest_follows_in_order() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.flush_all();
    rig.database.fail(Some(away()));
    append(&mut store, 3..=4);
    store.flush_all();
    store.check().expect("the journal takes more");
    assert_eq!(store.load(&channel("sms"), MessageId(0), 9, 9), Err(away()), "what is older must come first");
    assert!(store.prepare(&channel("sms"), MessageId(0), 9, 9), "nobody waits for a database that is away");
    let page = store.load(&channel("sms"), MessageId(2), 9, 9).expect("this is here");
    assert_eq!(page.messages.len(), 2);
    rig.database.fail(None);
    store.flush_all();
    assert_eq!(ids(&mut store, "sms"), [1, 2, 3, 4]);
    assert_eq!(rig.database.ids("sms"), [1, 2, 3, 4]);
}

/// Runs the background work `count` times, as the store's thread does.
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
    store.flush_all();
    rig.database.fail(Some(StoreError::ReadOnly { place: "db://test".to_owned() }));
    let begun = Instant::now();
    store.purge(&channel("sms"), MessageId(3), 10).expect("the purge is pending");
    store.move_at = Some(Instant::now());
    rounds(&mut store, 200);
    let (tried, allowed) = (rig.database.with(|state| state.purges), begun.elapsed().as_secs() as u32 + 1);
    assert!(tried >= 1 && tried <= allowed, "tried {tried} times, {allowed} are enough");
    rig.database.fail(None);
    store.flush_all();
    assert!(rig.database.ids("sms").is_empty(), "it is carried out in the end");
}

#[test]
fn to_count_the_table_is_no_probe() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.summary(Timestamp(0)).expect("a summary");
    store.flush_all();
    let counts = || rig.database.with(|state| state.counts);
    assert_eq!(counts(), 1, "the start counts");
    for round in 0..5 {
        rig.database.fail(Some(away()));
        append(&mut store, 10 + round..=10 + round);
        store.flush_all();
        assert!(store.outage.is_some());
        rig.database.fail(None);
        store.flush_all();
    }
    assert_eq!((counts(), rig.database.ids("sms").len()), (1, 8), "outages cost no count");
    // A database that was unreachable at the start is counted when it answers: the journal does not know its rows.
    drop(store);
    rig.database.fail(Some(away()));
    let mut store = rig.open();
    store.summary(Timestamp(0)).expect("the journal remembers");
    rig.database.fail(None);
    store.flush_all();
    store.flush_all();
    assert_eq!(counts(), 2);
}

#[test]
fn a_database_that_opens_read_only_is_tried_once_a_second() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=1);
    rig.database.fail(Some(away()));
    store.flush_all();
    assert!(store.outage.is_some());
    rig.database.fail(Some(StoreError::ReadOnly { place: "db://test".to_owned() }));
    store.dispatch_now();
    rounds(&mut store, 3);
    assert!(
        store.outage.as_ref().is_some_and(|away| away.retry_at > Instant::now()),
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
    store.flush_all();
    append(&mut store, 4..=4);
    drop(store);
    rig.database.fail(Some(away()));
    let mut store = rig.open();
    let summary = store.summary(Timestamp(0)).expect("the journal remembers");
    let channels: Vec<_> = summary.channels.iter().map(|found| (found.messages, found.last.0)).collect();
    assert_eq!((channels, summary.last_id), (vec![(4, 4)], MessageId(4)));
    append(&mut store, 5..=5);
    rig.database.fail(None);
    store.flush_all();
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
fn an_answer_that_is_lost_doubles_nothing() {
    let rig = Rig::new();
    let mut store = rig.open();
    rig.database.with(|state| state.mute = true);
    append(&mut store, 1..=3);
    store.flush_all();
    assert_eq!(store.ledger.waiting(), Ok((3, 0)), "as far as anybody knows");
    remove(&mut store, &[1]);
    drop(store);
    let mut store = rig.open();
    remove(&mut store, &[2]);
    rig.database.with(|state| state.mute = false);
    store.flush_all();
    assert_eq!((rig.database.ids("sms"), ids(&mut store, "sms")), (vec![3], vec![3]));
}
