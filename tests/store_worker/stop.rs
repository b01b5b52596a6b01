//! The end of the thread and of the process.

use std::sync::mpsc::channel as pipe;

use crate::{Fixture, PATIENCE, channel, message, numbers, stored, unavailable};
use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_store::{StoreSettings, StoreWorker};

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
