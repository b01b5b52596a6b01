//! Rows that move from the journal to the database, and rows that stay in the journal.

use super::*;

#[test]
fn what_is_accepted_moves_to_the_database_and_leaves_the_journal() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=5);
    assert_eq!(store.ledger.waiting(), Ok((5, 0)));
    store.flush_all();
    assert_eq!((store.ledger.waiting(), rig.database.ids("sms")), (Ok((0, 0)), vec![1, 2, 3, 4, 5]));
    assert_eq!(ids(&mut store, "sms"), [1, 2, 3, 4, 5]);
    remove(&mut store, &[2]);
    assert_eq!(ids(&mut store, "sms"), [1, 3, 4, 5], "a row with a pending removal is not returned");
    store.flush_all();
    assert_eq!((store.ledger.waiting(), rig.database.ids("sms")), (Ok((0, 0)), vec![1, 3, 4, 5]));
}

#[test]
fn what_is_confirmed_at_once_never_travels() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=5);
    remove(&mut store, &[1, 2, 3, 4, 5]);
    store.flush_all();
    assert!(rig.database.with(|state| state.commits.is_empty()));
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
    store.flush_all();
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
    store.flush_all();
    append(&mut store, 100..=100);
}

#[test]
fn a_row_that_the_database_can_not_hold_stays_and_is_delivered_from_here() {
    let rig = Rig::new();
    rig.database.with(|state| state.unfit = vec![MessageId(2)]);
    let mut store = rig.open();
    append(&mut store, 1..=3);
    store.flush_all();
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
    store.flush_all();
    assert_eq!(store.ledger.waiting(), Ok((2, 0)));
    remove(&mut store, &[1]);
    rig.database.with(|state| {
        // As if the removal of the first message had not arrived before the stop.
        state.rows.commit(&Group { appends: vec![due(2)], ..Group::default() }).expect("commits");
    });
    drop(store);
    assert_eq!(delayed(&mut rig.open()), [2]);
}
