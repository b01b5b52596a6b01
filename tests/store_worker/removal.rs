//! Purges and sweeps.

use std::sync::mpsc::channel as pipe;

use crate::{Fixture, PATIENCE, channel, message, numbers, stored, timed, unavailable};
use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{MemoryStore, StoreWorker};

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
