//! Hostile peers that send too much, too little or too fast. The broker's memory stays bounded, and other clients are served.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::bad_input::assert_unharmed;
use crate::broker::{Broker, PASSWORD, PATIENCE, Setup, USER};
use crate::client::Client;
use crate::raw::{Got, Head, Length, Raw, basic, frame, frame_with, opcode};

const MASK: Option<[u8; 4]> = Some([1, 2, 3, 4]);

/// Fails unless the broker ends the connection within `time`.
#[track_caller]
fn assert_ended_within(raw: &mut Raw, time: Duration) {
    let deadline = Instant::now() + time;
    loop {
        match raw.next_by(deadline) {
            Got::Frame(_) => {}
            Got::Fin | Got::Reset => return,
            Got::Silence => panic!("still open after {time:?}\n{}", raw.trace()),
        }
    }
}

#[test]
fn a_hundred_thousand_fragments_are_too_many() {
    let mut broker = Broker::start();
    for payload in [&b""[..], b"x"] {
        let mut raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
        let mut bytes = frame_with(0x01, Length::Minimal, MASK, b"x");
        let one = frame_with(0x00, Length::Minimal, MASK, payload);
        (0..100_000).for_each(|_| bytes.extend_from_slice(&one));
        let _ = raw.try_send(&bytes);
        let got = raw.next();
        assert!(matches!(&got, Got::Frame(frame) if frame.close_code() == Some(1009)), "{got:?}\n{}", raw.trace());
    }
    assert_unharmed(&mut broker);
}

#[test]
fn an_incomplete_frame_is_ended_by_the_heartbeat() {
    let mut broker = Setup::default().server("heartbeat = \"1s\"").start();
    let whole = frame_with(0x81, Length::Wide, MASK, &[b'x'; 1_000]);
    let mut halves: Vec<Raw> = [1, 2, 7, 14, 500]
        .into_iter()
        .map(|length| {
            let mut raw = Raw::upgrade(&broker, &Head::new("/"));
            raw.send(&whole[..length]);
            raw
        })
        .collect();
    assert_unharmed(&mut broker);
    for raw in &mut halves {
        assert_ended_within(raw, Duration::from_secs(40));
    }
}

#[test]
fn an_incomplete_head_is_ended() {
    let mut broker = Broker::start();
    let whole = Head::new("/").bytes();
    let mut halves: Vec<Raw> = [0, 1, whole.len() / 2, whole.len() - 1]
        .into_iter()
        .map(|length| {
            let mut raw = Raw::connect(&broker);
            raw.send(&whole[..length]);
            raw
        })
        .collect();
    // A peer that sends single bytes must not keep the connection open for longer.
    let mut drip = Raw::connect(&broker);
    let began = Instant::now();
    for byte in whole.iter().cycle() {
        if drip.try_send(&[*byte]).is_err() || began.elapsed() > Duration::from_secs(12) {
            break;
        }
        if !matches!(drip.head_or_end(Duration::from_millis(100)), Got::Silence) {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(12), "a head in single bytes has no timeout");
    for raw in &mut halves {
        raw.rest();
    }
    assert_unharmed(&mut broker);
}

#[test]
fn pings_at_full_speed_are_answered_in_order() {
    let mut broker = Broker::start();
    let mut raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
    for round in 0..100u32 {
        let burst: Vec<u8> =
            (0..1_000u32).flat_map(|index| frame(opcode::PING, &(round * 1_000 + index).to_be_bytes())).collect();
        raw.send(&burst);
        for index in 0..1_000u32 {
            let pong = raw.next_frame();
            assert_eq!((pong.opcode, &pong.payload[..]), (opcode::PONG, &(round * 1_000 + index).to_be_bytes()[..]));
        }
    }
    assert_unharmed(&mut broker);
}

#[test]
fn pings_from_a_peer_that_reads_no_pongs_cost_bounded_memory() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect_narrow(&broker, 16 << 10).upgraded(&Head::new("/ws?topic=sms").modern());
    let burst: Vec<u8> = (0..1_000).flat_map(|_| frame(opcode::PING, &[b'x'; 125])).collect();
    // The broker may stop reading or end the connection; it must not queue pongs without limit.
    raw.set_write_timeout(Duration::from_secs(2));
    for _ in 0..500 {
        if raw.try_send(&burst).is_err() {
            break;
        }
    }
    assert_unharmed(&mut broker);
}

#[test]
fn commands_from_a_peer_that_reads_no_answers_cost_bounded_memory() {
    let mut broker = Broker::start();
    let mut raw = Raw::connect_narrow(&broker, 16 << 10).upgraded(&Head::new("/").modern());
    let burst: Vec<u8> = (0..1_000).flat_map(|_| frame(opcode::TEXT, br#"{"command":"ping"}"#)).collect();
    raw.set_write_timeout(Duration::from_secs(2));
    for _ in 0..300 {
        if raw.try_send(&burst).is_err() {
            break;
        }
    }
    assert_unharmed(&mut broker);
}

#[test]
fn a_receiver_that_never_reads_is_ended() {
    let mut broker = Setup::default().defaults("keep = false").start();
    let mut never: Vec<Raw> =
        (0..4).map(|_| Raw::connect_narrow(&broker, 16 << 10).upgraded(&Head::new("/ws?topic=sms"))).collect();
    let mut reader = Client::receiver(&broker, "sms");
    let mut sender = Client::envelope(&broker);
    let text = "x".repeat(64 << 10);
    let ended = (0..600u32).any(|number| {
        let reply = sender.publish_safely("sms", &json!({"number": number, "text": text}), &number.to_string());
        assert_eq!(reader.next_delivery()["data"][0]["number"], number);
        reply["receivers"] == 1
    });
    assert!(ended, "{}", broker.log().tail());
    for raw in &mut never {
        assert_ended_within(raw, PATIENCE);
    }
    assert_unharmed(&mut broker);
}

#[test]
fn partial_messages_cost_only_the_received_bytes() {
    let mut broker = Broker::start();
    let start = frame_with(0x01, Length::Minimal, MASK, &[b'x'; 1_000]);
    let held: Vec<Raw> = (0..200)
        .map(|_| {
            let mut raw = Raw::upgrade(&broker, &Head::new("/ws?topic=sms").modern());
            // A header that announces 1 MiB must not make the broker allocate 1 MiB.
            raw.send(
                &[&start[..], &[0x80, 0xff], &((1u64 << 20) - 2_000).to_be_bytes(), &[0; 4], &[b'x'; 10]].concat(),
            );
            raw
        })
        .collect();
    assert_unharmed(&mut broker);
    drop(held);
}

#[test]
fn short_connections_do_no_harm() {
    let mut broker = Broker::start();
    for round in 0..300 {
        let mut raw = Raw::connect(&broker);
        match round % 4 {
            0 => drop(raw),
            1 => raw.send(b"GET / HT"),
            2 => raw.send(&Head::new("/").bytes()),
            _ => {
                raw.send(&Head::new("/ws?topic=sms").bytes());
                raw.reset();
            }
        }
    }
    assert_unharmed(&mut broker);
}

#[test]
fn above_the_limit_of_connections_new_ones_are_refused_and_old_ones_stay() {
    let broker = Setup::default().server("max_connections = 5").start();
    let mut held: Vec<Client> = (0..5).map(|_| Client::receiver(&broker, "sms")).collect();
    for _ in 0..3 {
        let mut raw = Raw::connect(&broker);
        let _ = raw.try_send(&Head::new("/").bytes());
        let answer = String::from_utf8_lossy(&raw.rest()).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 503 "), "{answer}");
    }
    held.pop().unwrap().leave();
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut raw = Raw::connect(&broker);
        let _ = raw.try_send(&Head::new("/").modern().bytes());
        if matches!(raw.head_or_end(PATIENCE), Got::Frame(frame) if frame.payload.starts_with(b"HTTP/1.1 101 ")) {
            break;
        }
        assert!(Instant::now() < deadline, "a connection that has left still counts");
    }
    held[0].publish("sms", &json!(1));
    assert_eq!(held[1].numbers(1), [1]);
}

/// Connects as `user`. Returns `None` if the broker refuses the connection because of its limit.
#[track_caller]
fn connect_as(broker: &Broker, (user, password): (&str, &str)) -> Option<Raw> {
    let mut raw = Raw::connect(broker);
    raw.send(&Head::new("/").modern().with("Authorization", &basic(user, password)).bytes());
    let head = raw.head();
    if head.starts_with("HTTP/1.1 101 ") {
        return Some(raw);
    }
    let body = String::from_utf8_lossy(&raw.rest()).into_owned();
    assert!(head.starts_with("HTTP/1.1 503 ") && body.contains("server.max_connections"), "{head}{body}");
    None
}

#[test]
fn a_user_with_most_connections_leaves_some_to_other_users() {
    let broker = Setup::default().server("max_connections = 10").start();
    let (app, other) = ((USER, PASSWORD), ("colon", "pass:word"));
    let mut crowd: Vec<Raw> = (0..9).map(|_| connect_as(&broker, app).expect("below 90 %")).collect();
    assert!(connect_as(&broker, app).is_none(), "it has more than an equal share");
    let last = connect_as(&broker, other).expect("a place for another user");
    assert!(connect_as(&broker, other).is_none(), "all places are taken");

    crowd.truncate(8);
    let deadline = Instant::now() + PATIENCE;
    let second = loop {
        assert!(connect_as(&broker, app).is_none(), "it has more than an equal share");
        if let Some(raw) = connect_as(&broker, other) {
            break raw;
        }
        assert!(Instant::now() < deadline, "a connection that has left still counts");
    };
    drop((crowd, last));
    while connect_as(&broker, app).is_none() {
        assert!(Instant::now() < deadline, "connections that have left still count");
    }
    drop(second);
}
