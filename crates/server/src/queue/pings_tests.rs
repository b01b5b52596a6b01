//! Tests of the proof by pongs, and of the heartbeat.

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
    assert!(!pings.take_wanted(), "still outstanding");
    assert_eq!(pings.answer(&token(&first)), Some(3));
    assert!(pings.take_wanted());
    assert!(!pings.take_wanted(), "a wish is granted once");
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
fn an_empty_pong_that_may_be_unsolicited_proves_nothing() {
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
fn the_outstanding_pings_of_a_client_at_work_are_bounded() {
    let (mut pings, opened) = (Pings::default(), at(100));
    let mut now = at(125);
    let mut sent = 0;
    for _ in 0..1_000 {
        match pings.beat(now, opened, opened, INTERVAL) {
            Beat::Wait(due) => assert_eq!(due, now.after(INTERVAL)),
            Beat::Ping(_) => drop(pings.send(0, true)),
            Beat::Dead if pings.continue_heartbeat(now) => drop(pings.send(0, true)),
            Beat::Dead => sent = pings.outstanding.len(),
        }
        now = now.after(INTERVAL);
    }
    assert_eq!(sent, limits::OUTSTANDING_PINGS);
}

#[test]
fn an_unanswered_confirmation_ping_replaces_the_first_heartbeat_ping() {
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
fn any_input_resets_the_heartbeat_count() {
    let (mut pings, opened) = (Pings::default(), at(100));
    assert_eq!(pings.beat(at(125), opened, opened, INTERVAL), Beat::Ping(at(150)));
    assert_eq!(pings.beat(at(150), at(130), opened, INTERVAL), Beat::Wait(at(155)));
    assert_eq!(pings.beat(at(155), at(130), opened, INTERVAL), Beat::Ping(at(180)));
    assert_eq!(pings.beat(at(180), at(130), opened, INTERVAL), Beat::Ping(at(205)));
}

#[test]
fn no_client_is_pinged_soon_after_its_handshake() {
    let (mut pings, opened) = (Pings::default(), at(100));
    let first = opened.after(limits::FIRST_PING);
    assert_eq!(pings.beat(at(103), opened, opened, Duration::from_secs(1)), Beat::Wait(first));
    assert!(matches!(pings.beat(first, opened, opened, Duration::from_secs(1)), Beat::Ping(_)));
}
