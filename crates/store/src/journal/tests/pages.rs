//! Pages and expired rows that come from the database in the background.

use super::*;

#[test]
fn a_page_that_has_come_loses_what_is_settled_before_it_is_asked_for() {
    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.flush_all();
    assert!(!store.prepare(&channel("sms"), MessageId(0), 10, 1 << 20), "it is fetched");
    while store.database_thread.under_way() > 0 {
        store.wait(Duration::from_secs(10)).expect("the journal works");
    }
    remove(&mut store, &[1]);
    let page = store.load(&channel("sms"), MessageId(0), 10, 1 << 20).expect("it has come");
    assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn nobody_waits_for_a_page_that_the_database_is_slow_to_give() {
    use crate::StoreWorker;
    use std::sync::mpsc;
    use wsmb_core::broker::StoreEvent;

    let rig = Rig::new();
    let mut store = rig.open();
    append(&mut store, 1..=2);
    store.flush_all();
    let (report, outcomes) = mpsc::channel();
    let worker = StoreWorker::start(Box::new(store), move |outcome| report.send(outcome).expect("the test listens"));
    let worker = worker.expect("a thread");
    let next = || outcomes.recv_timeout(Duration::from_secs(10)).expect("an outcome");
    // The database does not answer while this guard is held.
    let guard = rig.database.0.lock().expect("no test panics under the lock");
    worker.load(channel("sms"), MessageId(0), 10, 1 << 20);
    worker.append(vec![message(3, "sms")]);
    assert_eq!(next(), StoreEvent::Stored(vec![MessageId(3)]));
    worker.remove(&[MessageId(1)]);
    worker.append(vec![message(4, "other")]);
    assert_eq!(next(), StoreEvent::Stored(vec![MessageId(4)]));
    drop(guard);
    let StoreEvent::Loaded { messages, complete, .. } = next() else { panic!("a page was asked for") };
    let found: Vec<u64> = messages.iter().map(|message| message.id.0).collect();
    assert_eq!((found, complete), (vec![2, 3], true), "without what has gone meanwhile");
    rig.database.fail(Some(away()));
    worker.load(channel("sms"), MessageId(0), 10, 1 << 20);
    assert_eq!(next(), StoreEvent::LoadFailed { channel: channel("sms") });
    worker.stop().expect("what is accepted is in the journal");
}

#[test]
fn what_the_database_spares_is_told_once_and_nothing_that_is_owed_to_be_gone() {
    let rig = Rig::new();
    let mut store = rig.open();
    let expiring = |id| Message { expires: Some(Timestamp(10)), ..message(id, "sms") };
    store.commit(&Group { appends: (1..=4).map(expiring).collect(), ..Group::default() }).expect("commits");
    store.flush_all();
    store.commit(&Group { deliveries: vec![(MessageId(2), 7)], ..Group::default() }).expect("commits");
    remove(&mut store, &[1]);
    store.commit(&Group { appends: vec![expiring(5)], ..Group::default() }).expect("commits");
    let sweep = |store: &mut JournaledStore| {
        let swept = store.sweep(Timestamp(10), 100, &Spare::all()).expect("sweeps");
        assert!(swept.gone.is_empty(), "{swept:?}");
        swept.spared.iter().map(|message| (message.id.0, message.deliveries)).collect::<Vec<_>>()
    };
    assert_eq!(sweep(&mut store), [(5, 0)], "the journal's own; the database is asked");
    while store.database_thread.under_way() > 0 {
        store.wait(Duration::from_secs(10)).expect("the journal works");
    }
    // The messages have become dead letters meanwhile.
    remove(&mut store, &[4, 5]);
    assert_eq!(sweep(&mut store), [(2, 7), (3, 0)]);
    assert_eq!(sweep(&mut store), [], "nothing new has come of the database");
}
