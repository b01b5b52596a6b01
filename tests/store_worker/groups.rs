//! Groups of requests, failed commits and outages.

use std::sync::mpsc::channel as pipe;

use crate::{Fixture, PAGE, PATIENCE, channel, message, numbers, stored, unavailable};
use wsmb_core::broker::{StoreEvent, StoreFailure};
use wsmb_core::message::{Message, MessageId, Payload};
use wsmb_store::StoreError;

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
