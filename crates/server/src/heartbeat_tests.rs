//! What pings prove and when clients are dead; and that the wheel is on time.

use proptest::prelude::*;

use super::*;
use wsmb_protocol::frame::payload_start;

const INTERVAL: Duration = Duration::from_secs(25);

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000)
}

fn token(frame: &Bytes) -> Bytes {
    frame.slice(payload_start(frame)..)
}

#[test]
fn one_confirmation_is_outstanding_and_the_next_waits_for_its_answer() {
    let mut pings = Pings::default();
    let first = pings.confirm(3).expect("a ping");
    assert_eq!(pings.confirm(5), None);
    assert!(!pings.take_wish(), "still outstanding");
    assert_eq!(pings.answer(&token(&first)), Some(3));
    assert!(pings.take_wish());
    assert!(!pings.take_wish(), "a wish is granted once");
}

#[test]
fn a_payload_is_never_empty_nor_zero() {
    let mut pings = Pings { last: u32::MAX - 1, ..Pings::default() };
    for _ in 0..3 {
        let payload = token(&pings.send(0, true));
        assert!(!payload.is_empty() && &payload[..] != b"0", "{payload:?}");
    }
}

#[test]
fn an_empty_pong_answers_the_oldest_ping_and_one_with_a_payload_its_own_and_the_older_ones() {
    let mut pings = Pings::new(true);
    let frames: Vec<Bytes> = [1, 2, 3].into_iter().map(|up_to| pings.send(up_to, true)).collect();
    assert_eq!(pings.answer(b""), Some(1), "it has answered with no payload yet");
    assert_eq!(pings.answer(&token(&frames[0])), None, "answered already");
    assert_eq!(pings.answer(&token(&frames[2])), Some(3));
    assert_eq!(pings.answer(b""), None, "nothing is outstanding");
}

#[test]
fn an_empty_pong_proves_nothing_where_it_need_not_be_an_answer() {
    let mut modern = Pings::new(false);
    modern.send(1, true);
    assert_eq!(modern.answer(b""), None, "a modern client answers with the payload");
    assert_eq!(modern.answer(b"1"), Some(1), "and the ping still waits for that");

    let mut echoing = Pings::new(true);
    assert_eq!(echoing.answer(b""), None, "nothing is outstanding");
    echoing.send(1, true);
    assert_eq!(echoing.answer(b"1"), Some(1));
    echoing.send(2, true);
    assert_eq!(echoing.answer(b""), None, "it is one that answers with the payload");

    let mut keepalive = Pings::new(true);
    keepalive.send(1, true);
    assert_eq!(keepalive.answer(b"hello"), None);
    assert_eq!(keepalive.answer(b""), None, "it sends pongs that nobody asked for");
}

#[test]
fn an_empty_pong_answers_a_heartbeat_before_it_confirms_anything() {
    let mut pings = Pings::new(true);
    pings.send(7, false);
    pings.send(8, true);
    assert_eq!(pings.answer(b""), Some(0), "nothing was unconfirmed before that ping");
    assert_eq!(pings.answer(b""), Some(8));
}

#[test]
fn pings_are_acknowledged_when_the_end_of_the_newest_is() {
    let mut pings = Pings::default();
    assert!(pings.are_acknowledged(0));
    pings.send(0, false);
    pings.queued_up_to(90);
    pings.shift(10);
    assert!(!pings.are_acknowledged(99));
    assert!(pings.are_acknowledged(100));
    pings.send(0, false);
    pings.queued_up_to(103);
    assert!(!pings.are_acknowledged(102));
    pings.send(0, false);
    pings.queued_up_to((1 << 32) + 5);
    assert!(!pings.are_acknowledged(1 << 32));
    assert!(pings.are_acknowledged((1 << 32) + 5));
}

#[test]
fn a_client_at_work_is_pinged_on_and_on_within_bounds() {
    let (mut pings, opened) = (Pings::default(), at(100));
    let mut now = at(125);
    let mut sent = 0;
    for _ in 0..1_000 {
        match pings.beat(now, opened, opened, INTERVAL) {
            Beat::Wait(due) => assert_eq!(due, now.after(INTERVAL)),
            Beat::Ping(_) => drop(pings.send(0, true)),
            Beat::Dead if pings.go_on(now) => drop(pings.send(0, true)),
            Beat::Dead => sent = pings.outstanding.len(),
        }
        now = now.after(INTERVAL);
    }
    assert_eq!(sent, limits::OUTSTANDING_PINGS);
}

#[test]
fn a_ping_for_a_confirmation_that_is_unanswered_stands_for_the_heartbeats_first() {
    let (mut pings, opened) = (Pings::default(), at(100));
    pings.send(1, true);
    assert_eq!(pings.beat(at(125), opened, opened, INTERVAL), Beat::Wait(at(150)));
    assert_eq!(
        pings.beat(at(150), opened, opened, INTERVAL),
        Beat::Ping(at(175)),
        "so that TCP has something new to acknowledge"
    );
    assert_eq!(pings.beat(at(175), opened, opened, INTERVAL), Beat::Dead);
}

#[test]
fn an_unsolicited_pong_proves_nothing() {
    let mut pings = Pings::new(true);
    pings.send(7, true);
    for payload in [&b"hello"[..], b"2", b"-1", b"\xff", b" 1"] {
        assert_eq!(pings.answer(payload), None, "{payload:?}");
    }
    assert_eq!(pings.answer(b"1"), Some(7));
}

#[test]
fn a_silent_client_is_pinged_twice_and_then_dead() {
    let (mut pings, opened) = (Pings::default(), at(100));
    assert_eq!(pings.beat(at(110), opened, opened, INTERVAL), Beat::Wait(at(125)));
    assert_eq!(pings.beat(at(125), opened, opened, INTERVAL), Beat::Ping(at(150)));
    assert_eq!(pings.beat(at(130), opened, opened, INTERVAL), Beat::Wait(at(150)));
    assert_eq!(pings.beat(at(150), opened, opened, INTERVAL), Beat::Ping(at(175)));
    assert_eq!(pings.beat(at(175), opened, opened, INTERVAL), Beat::Dead);
}

#[test]
fn anything_heard_starts_the_count_again() {
    let (mut pings, opened) = (Pings::default(), at(100));
    assert_eq!(pings.beat(at(125), opened, opened, INTERVAL), Beat::Ping(at(150)));
    assert_eq!(pings.beat(at(150), at(130), opened, INTERVAL), Beat::Wait(at(155)));
    assert_eq!(pings.beat(at(155), at(130), opened, INTERVAL), Beat::Ping(at(180)));
    assert_eq!(pings.beat(at(180), at(130), opened, INTERVAL), Beat::Ping(at(205)));
}

#[test]
fn nobody_is_pinged_soon_after_the_handshake() {
    let (mut pings, opened) = (Pings::default(), at(100));
    let first = opened.after(limits::FIRST_PING);
    assert_eq!(pings.beat(at(103), opened, opened, Duration::from_secs(1)), Beat::Wait(first));
    assert!(matches!(pings.beat(first, opened, opened, Duration::from_secs(1)), Beat::Ping(_)));
}

#[test]
fn holds_are_due_after_the_head_shadow_in_their_order() {
    let mut timers = Timers::new(at(0));
    assert!(timers.hold(at(1), Hold::Shadow, ConnectionId(1)), "the first wakes the timer's task");
    assert!(!timers.hold(at(1).after(Duration::from_millis(10)), Hold::Shadow, ConnectionId(2)));
    let due = at(1).after(limits::HEAD_SHADOW);
    assert_eq!(timers.next(), Some(due));
    assert_eq!(timers.take(Timestamp(due.0 - 1)), Due::default());
    assert_eq!(timers.take(due).holds, [ConnectionId(1)]);
    assert_eq!(timers.take(at(2)).holds, [ConnectionId(2)]);
    assert_eq!(timers.next(), None);
}

#[test]
fn a_nearer_look_wakes_the_timers_task_and_a_later_one_does_not() {
    let mut timers = Timers::new(at(0));
    assert!(timers.look(at(20), ConnectionId(1)));
    assert!(!timers.look(at(30), ConnectionId(2)));
    assert!(timers.look(at(5), ConnectionId(3)));
}

#[test]
fn the_wheel_keeps_no_memory_for_what_it_has_given_out() {
    let mut wheel = Wheel::new(at(0));
    (0..1_000).for_each(|id| wheel.insert(at(1), ConnectionId(id)));
    wheel.take(at(2), &mut Vec::new());
    assert!(wheel.slots.iter().all(|slot| slot.capacity() == 0));
}

proptest! {
    /// Within the ring's length every entry comes out once, not before its time and at most two ticks after it.
    #[test]
    fn the_wheel_is_never_early_and_hardly_late(delays in proptest::collection::vec(0u64..40_000, 1..50), step in 1u64..3_000) {
        let start = 1_763_800_000_123;
        let mut wheel = Wheel::new(Timestamp(start));
        for (id, delay) in (0..).zip(&delays) {
            wheel.insert(Timestamp(start + delay), ConnectionId(id));
        }
        let (mut now, mut came) = (start, vec![None; delays.len()]);
        while now < start + 50_000 {
            let mut out = Vec::new();
            wheel.take(Timestamp(now), &mut out);
            for id in out {
                prop_assert_eq!(came[id.0 as usize].replace(now), None, "twice");
            }
            now += step;
        }
        let tick = limits::WHEEL_TICK.as_millis() as u64;
        for (delay, came) in delays.iter().zip(came) {
            let came = came.expect("it comes out");
            prop_assert!(came >= start + delay, "early");
            prop_assert!(came <= start + delay + 2 * tick + step, "late");
        }
        prop_assert_eq!(wheel.next(), None);
    }

    #[test]
    fn the_wheel_wakes_its_task_in_time(delay in 0u64..40_000) {
        let start = 1_763_800_000_999;
        let mut wheel = Wheel::new(Timestamp(start));
        wheel.insert(Timestamp(start + delay), ConnectionId(1));
        let next = wheel.next().expect("something is due");
        let mut out = Vec::new();
        wheel.take(next, &mut out);
        prop_assert_eq!(out, [ConnectionId(1)]);
    }
}

#[test]
fn each_kind_of_hold_has_its_own_time() {
    let mut timers = Timers::new(at(0));
    for (hold, connection) in [(Hold::Answer, 3), (Hold::FirstFrame, 2), (Hold::Shadow, 1)] {
        timers.hold(at(1), hold, ConnectionId(connection));
    }
    let mut seen = Vec::new();
    while let Some(next) = timers.next() {
        let Due { holds, unanswered, .. } = timers.take(next);
        seen.push((next.since(at(1)), holds, unanswered));
    }
    let wanted = [
        (limits::HEAD_SHADOW, vec![ConnectionId(1)], vec![]),
        (limits::FIRST_FRAME, vec![ConnectionId(2)], vec![]),
        (limits::ANSWER_TIME, vec![], vec![ConnectionId(3)]),
    ];
    assert_eq!(seen, wanted);
}
