//! Tests of the send queue: bounds, order, holds, ends and proofs of delivery, with sockets that take any number of bytes.

use proptest::prelude::*;

use super::*;
use crate::batch::Batch;
use wsmb_protocol::frame;

const MAX: usize = 1_000;

fn open() -> Queue {
    let mut queue = Queue::new(false);
    queue.head_written();
    queue
}

fn frame(size: usize, fill: u8) -> Bytes {
    Bytes::from(vec![fill; size])
}

fn queued(pushed: Pushed) -> bool {
    matches!(pushed, Pushed::Queued { .. })
}

/// Pushes a delivery as the outbox does.
fn deliver(queue: &mut Queue, frame: Bytes, max: usize, sequence: u64, manual: bool) -> Pushed {
    let pushed = queue.push(frame, max);
    if queued(pushed) && sequence > 0 {
        queue.mark(sequence, manual);
    }
    pushed
}

/// Writes the whole queue, at most `at_once` bytes in one write.
fn write_out(queue: &mut Queue, at_once: usize) -> Vec<u8> {
    let (mut chunk, mut wire) = (Vec::new(), Vec::new());
    let mut work = queue.begin(&mut chunk);
    while work == Work::Write {
        let all: Vec<u8> = chunk.iter().flat_map(|frame: &Bytes| frame.to_vec()).collect();
        let taken = all.len().min(at_once);
        wire.extend_from_slice(&all[..taken]);
        work = queue.after_write(&mut chunk, WriteResult::Bytes(taken));
    }
    wire
}

#[test]
fn an_empty_queue_takes_any_frame_and_a_filled_one_only_up_to_its_bound() {
    let mut queue = open();
    assert!(queued(queue.push(frame(5 * MAX, 1), MAX)));
    assert_eq!(queue.push(frame(1, 2), MAX), Pushed::Overflow);
    write_out(&mut queue, usize::MAX);
    assert!(queued(queue.push(frame(MAX - wsmb_protocol::limits::FRAME_PLACE - 1, 3), MAX)));
    assert!(queued(queue.push(frame(1, 4), MAX)));
    assert_eq!(queue.push(frame(1, 5), MAX), Pushed::Overflow);
}

#[test]
fn a_queue_of_tiny_frames_is_bounded_by_their_memory() {
    let mut queue = open();
    let taken = (0..MAX).take_while(|_| queued(queue.push(frame(2, 0), MAX))).count();
    assert!(taken <= MAX / wsmb_protocol::limits::FRAME_PLACE + 1, "{taken} frames");
}

#[test]
fn only_the_first_push_after_a_flush_has_to_flush() {
    let mut queue = open();
    assert_eq!(queue.push(frame(1, 1), MAX), Pushed::Queued { first: true });
    assert_eq!(queue.push(frame(1, 2), MAX), Pushed::Queued { first: false });
    write_out(&mut queue, usize::MAX);
    assert_eq!(queue.push(frame(1, 3), MAX), Pushed::Queued { first: true });
}

#[test]
fn a_thread_that_finds_a_writer_leaves_its_frames_to_the_writer() {
    let mut queue = open();
    queue.push(frame(3, 1), MAX);
    let (mut chunk, mut other) = (Vec::new(), Vec::new());
    assert_eq!(queue.begin(&mut chunk), Work::Write);
    queue.push(frame(2, 2), MAX);
    assert_eq!(queue.begin(&mut other), Work::Nothing);
    assert_eq!(queue.after_write(&mut chunk, WriteResult::Bytes(3)), Work::Write);
    assert_eq!(chunk, [frame(2, 2)]);
    assert_eq!(queue.after_write(&mut chunk, WriteResult::Bytes(2)), Work::Nothing);
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn a_full_socket_is_left_to_the_connections_own_task() {
    let mut queue = open();
    queue.push(frame(3, 1), MAX);
    let mut chunk = Vec::new();
    queue.begin(&mut chunk);
    assert_eq!(queue.after_write(&mut chunk, WriteResult::Blocked), Work::Nothing);
    assert!(queue.is_blocked() && chunk.is_empty());
    queue.push(frame(1, 2), MAX);
    assert_eq!(queue.begin(&mut chunk), Work::Nothing, "nobody else tries");
    queue.unblock();
    assert_eq!(write_out(&mut queue, 1), [1, 1, 1, 2]);
}

#[test]
fn no_frame_is_written_before_the_head_or_in_its_shadow() {
    let mut queue = Queue::new(true);
    queue.push(frame(1, 2), MAX);
    assert!(write_out(&mut queue, 9).is_empty());
    queue.head_written();
    assert!(write_out(&mut queue, 9).is_empty());
    assert!(queue.release(Some(frame(1, 1))));
    assert_eq!(write_out(&mut queue, 9), [1, 2], "the greeting goes before all else");
    assert!(!queue.release(Some(frame(1, 1))), "there is one greeting");
}

#[test]
fn the_answer_to_a_first_ping_replaces_the_greeting() {
    let mut queue = Queue::new(true);
    queue.head_written();
    queue.hold_for_answer();
    queue.push(frame(1, 2), MAX);
    assert!(!queue.release(Some(frame(1, 1))), "the time of the hold runs out before the answer is there");
    assert!(write_out(&mut queue, 9).is_empty());
    assert_eq!(queue.answer(frame(1, 3), MAX), Pushed::Queued { first: true });
    assert_eq!(queue.answer(frame(1, 4), MAX), Pushed::Queued { first: false }, "a second ping");
    assert_eq!(write_out(&mut queue, 9), [3, 2, 4]);
}

#[test]
fn an_answer_after_the_end_is_dropped() {
    let mut queue = Queue::new(true);
    queue.head_written();
    queue.hold_for_answer();
    queue.end(Some(frame(1, 9)), true);
    assert_eq!(queue.answer(frame(1, 3), MAX), Pushed::Gone);
    assert_eq!(write_out(&mut queue, 9), [9]);
}

#[test]
fn an_end_that_flushes_sends_all_frames_then_the_last_one_then_a_fin() {
    let mut queue = open();
    queue.push(frame(2, 1), MAX);
    queue.end(Some(frame(1, 9)), true);
    assert_eq!(queue.push(frame(1, 2), MAX), Pushed::Gone);
    let mut chunk = Vec::new();
    assert_eq!(queue.begin(&mut chunk), Work::Write);
    assert_eq!(chunk.concat(), [1, 1, 9]);
    assert_eq!(queue.after_write(&mut chunk, WriteResult::Bytes(3)), Work::Finish);
    queue.after_finish();
    assert_eq!(queue.begin(&mut chunk), Work::Nothing, "one FIN");
}

#[test]
fn an_end_that_does_not_flush_completes_a_frame_that_was_sent_in_part() {
    let frames = [2_usize, 3, 200].map(|len| frame::encode(frame::Opcode::Binary, &vec![7; len]));
    let all = frames.concat();
    // In buffers of their own and in one batch, and for every number of bytes that the socket takes.
    for (together, taken) in
        [false, true].into_iter().flat_map(|together| (0..=all.len()).map(move |at| (together, at)))
    {
        let mut queue = open();
        if together {
            push_spans(&mut queue, &frames);
        } else {
            frames.iter().for_each(|frame| assert!(queued(queue.push(frame.clone(), MAX))));
        }
        let mut chunk = Vec::new();
        queue.begin(&mut chunk);
        if taken < all.len() {
            queue.after_write(&mut chunk, WriteResult::Bytes(taken / 2));
            queue.after_write(&mut chunk, WriteResult::Bytes(taken - taken / 2));
            queue.after_write(&mut chunk, WriteResult::Blocked);
        } else {
            queue.after_write(&mut chunk, WriteResult::Bytes(taken));
        }
        queue.end(Some(frame(1, 9)), false);
        queue.unblock();
        let ends = [0, frames[0].len(), frames[0].len() + frames[1].len(), all.len()];
        let end = *ends.iter().find(|end| **end >= taken).expect("not more than all");
        let expected = [&all[taken..end], &[9]].concat();
        assert_eq!(write_out(&mut queue, 2), expected, "{taken} bytes were taken, together: {together}");
    }
}

/// Pushes adjacent frames of one batch.
fn push_spans(queue: &mut Queue, frames: &[Bytes]) {
    let mut batch = Batch::default();
    for frame in frames {
        let span = batch.append(|out| out.extend_from_slice(frame));
        assert!(queue.is_flowing() && queued(queue.push_span(span, MAX)));
    }
    queue.seal(&batch.freeze());
}

#[test]
fn adjacent_frames_are_one_piece_and_others_keep_their_order() {
    let mut queue = open();
    let mut batch = Batch::default();
    let mut span = |text: &[u8]| batch.append(|out| out.extend_from_slice(text));
    let (first, second, gap, third) = (span(b"a"), span(b"b"), span(b"elsewhere"), span(b"c"));
    queue.push_span(first, MAX);
    queue.push_span(second, MAX);
    queue.push_span(third, MAX);
    assert_eq!((queue.frames.len(), queue.bytes()), (2, 3));
    let Work::Nothing = queue.begin(&mut Vec::new()) else { panic!("what is not sealed is not written") };
    queue.seal(&batch.freeze());
    queue.push(frame(1, b'd'), MAX);
    assert_eq!(gap.len(), 9);
    assert_eq!(write_out(&mut queue, usize::MAX), b"abcd");
}

#[test]
fn a_turn_seals_its_spans_even_if_another_thread_is_about_to_flush() {
    let mut queue = open();
    assert_eq!(queue.push(frame(1, b'a'), MAX), Pushed::Queued { first: true });
    let mut batch = Batch::default();
    let span = batch.append(|out| out.push(b'b'));
    assert_eq!(queue.push_span(span, MAX), Pushed::Queued { first: true }, "to be sealed");
    let span = batch.append(|out| out.push(b'c'));
    assert_eq!(queue.push_span(span, MAX), Pushed::Queued { first: false });
    assert_eq!(write_out(&mut queue, usize::MAX), b"a", "the other thread writes what was sealed");
    queue.seal(&batch.freeze());
    assert_eq!(write_out(&mut queue, usize::MAX), b"bc");
}

#[test]
fn frames_that_wait_for_a_full_socket_do_not_keep_their_batch_in_memory() {
    let mut queue = open();
    let mut batch = Batch::default();
    batch.append(|out| out.resize(limits::BATCH / 2, 1));
    let span = batch.append(|out| out.extend_from_slice(b"small"));
    queue.push_span(span, MAX);
    let frozen = batch.freeze();
    queue.seal(&frozen);
    let mut chunk = Vec::new();
    assert_eq!(queue.begin(&mut chunk), Work::Write);
    queue.after_write(&mut chunk, WriteResult::Bytes(1));
    queue.after_write(&mut chunk, WriteResult::Blocked);
    assert!(frozen.try_into_mut().is_ok(), "nobody needs it any more");
    queue.unblock();
    assert_eq!(write_out(&mut queue, usize::MAX), b"mall");
}

#[test]
fn a_failed_write_drops_the_queue_and_no_more_frames_are_taken() {
    let mut queue = open();
    deliver(&mut queue, frame(3, 1), MAX, 1, false);
    let mut chunk = Vec::new();
    queue.begin(&mut chunk);
    assert_eq!(queue.after_write(&mut chunk, WriteResult::Failed), Work::Nothing);
    assert_eq!((queue.bytes(), chunk.len()), (0, 0));
    assert_eq!(queue.push(frame(1, 1), MAX), Pushed::Gone);
    assert_eq!(queue.only_delivery(), None, "a broken connection confirms nothing");
}

#[test]
fn the_only_delivery_ends_where_its_last_byte_was_queued() {
    let mut queue = Queue::new(true);
    deliver(&mut queue, frame(10, 0), MAX, 1, false);
    assert_eq!(queue.only_delivery(), Some(10));
    queue.head_written();
    queue.release(Some(frame(7, 1)));
    assert_eq!(queue.only_delivery(), Some(17), "the greeting goes before it");
    assert_eq!(queue.sent(), Some(0));
    write_out(&mut queue, usize::MAX);
    assert_eq!(queue.sent(), Some(17));
    queue.confirm();
    write_out(&mut queue, usize::MAX);
    assert_eq!((queue.only_delivery(), queue.sent()), (Some(17), Some(20)), "a ping behind it is told apart");
    queue.end(None, true);
    assert_eq!(queue.begin(&mut Vec::new()), Work::Finish);
    queue.after_finish();
    assert_eq!(queue.sent(), Some(21), "the FIN counts");
}

#[test]
fn a_delivery_is_the_only_one_if_no_other_data_was_ever_queued() {
    type Other = fn(&mut Queue);
    let others: [(&str, Other); 5] = [
        ("a second delivery", |queue| assert!(queued(deliver(queue, frame(1, 1), MAX, 2, false)))),
        ("one by hand", |queue| assert!(queued(deliver(queue, frame(1, 1), MAX, 2, true)))),
        ("a reply, or one that needs no confirmation", Queue::note_other_data),
        ("an answer to a ping", |queue| assert!(queued(queue.answer(frame(1, 1), MAX)))),
        ("its own confirmation", |queue| {
            queue.confirm();
            assert_eq!(queue.pong(b"1").0, 1);
        }),
    ];
    for (what, other) in others {
        let mut queue = open();
        deliver(&mut queue, frame(10, 0), MAX, 1, false);
        assert_eq!(queue.only_delivery(), Some(10));
        other(&mut queue);
        assert_eq!(queue.only_delivery(), None, "behind it: {what}");
    }
    let mut queue = open();
    deliver(&mut queue, frame(1, 1), MAX, 1, true);
    assert_eq!(queue.only_delivery(), None, "a receiver that confirms by name");
    let mut queue = open();
    queue.note_other_data();
    deliver(&mut queue, frame(1, 1), MAX, 1, false);
    assert_eq!(queue.only_delivery(), None, "before it: a reply");
}

#[test]
fn the_number_of_sent_bytes_is_unknown_while_a_thread_writes() {
    let mut queue = open();
    deliver(&mut queue, frame(3, 1), MAX, 1, false);
    let mut chunk = Vec::new();
    queue.begin(&mut chunk);
    assert_eq!(queue.sent(), None);
    queue.after_write(&mut chunk, WriteResult::Bytes(3));
    assert_eq!(queue.sent(), Some(3));
}

#[test]
fn a_pong_confirms_what_was_queued_before_its_ping() {
    let mut queue = Queue::new(true);
    queue.head_written();
    deliver(&mut queue, frame(1, 1), MAX, 1, false);
    deliver(&mut queue, frame(1, 1), MAX, 2, false);
    assert_eq!(queue.confirm(), Some(false));
    deliver(&mut queue, frame(1, 1), MAX, 3, false);
    assert_eq!(queue.pong(b""), (2, false));
    assert!(queue.has_unconfirmed());
    assert_eq!(queue.pong(b""), (0, false), "nothing was asked");
    queue.confirm();
    assert_eq!(queue.pong(b"2"), (3, false));
    assert!(!queue.has_unconfirmed());
}

#[test]
fn a_confirmation_requested_while_a_ping_is_outstanding_gets_the_next_ping() {
    let mut queue = open();
    deliver(&mut queue, frame(1, 1), MAX, 1, false);
    queue.confirm();
    deliver(&mut queue, frame(1, 1), MAX, 2, false);
    assert_eq!(queue.confirm(), None);
    assert_eq!(queue.pong(b"1"), (1, true), "the next ping is queued");
    assert_eq!(queue.pong(b"2"), (2, false));
}

#[test]
fn manual_deliveries_and_those_that_need_no_confirmation_leave_no_marks() {
    let mut queue = open();
    deliver(&mut queue, frame(1, 1), MAX, 0, false);
    deliver(&mut queue, frame(1, 1), MAX, 1, true);
    assert!(!queue.has_unconfirmed());
}

#[test]
fn an_idle_queue_holds_no_memory() {
    let mut queue = open();
    for sequence in 1..100 {
        deliver(&mut queue, frame(1, 1), MAX, sequence, false);
    }
    queue.confirm();
    write_out(&mut queue, 64);
    queue.pong(b"1");
    assert_eq!((queue.frames.capacity(), queue.has_unconfirmed()), (0, false));
}

proptest! {
    /// For any number of bytes that the socket takes at a time.
    #[test]
    fn the_wire_carries_every_frame_in_order(
        sizes in proptest::collection::vec(1usize..300, 1..40),
        takes in proptest::collection::vec(0usize..500, 1..200),
        large in proptest::option::of(0usize..40),
    ) {
        let mut queue = open();
        let (mut expected, mut wire, mut chunk) = (Vec::new(), Vec::new(), Vec::new());
        let mut takes = takes.into_iter();
        for (index, size) in sizes.into_iter().enumerate() {
            let size = if large == Some(index) { limits::COALESCE + size } else { size };
            let frame = frame::encode(frame::Opcode::Binary, &vec![index as u8; size]);
            expected.extend_from_slice(&frame);
            prop_assert!(queued(queue.push(frame, usize::MAX)));
            let Some(take) = takes.next() else { continue };
            queue.unblock();
            if queue.begin(&mut chunk) == Work::Write {
                let all = chunk.concat();
                let taken = all.len().min(take);
                wire.extend_from_slice(&all[..taken]);
                if queue.after_write(&mut chunk, WriteResult::Bytes(taken)) == Work::Write {
                    queue.after_write(&mut chunk, WriteResult::Blocked);
                }
            }
        }
        prop_assert_eq!(queue.bytes(), expected.len() - wire.len());
        queue.unblock();
        wire.extend(write_out(&mut queue, 20_011));
        prop_assert_eq!(queue.bytes(), 0);
        prop_assert!(wire == expected);
    }
}
