//! No false confirmation (SPEC 6.3): which ends and pongs of a client confirm a delivery, and which do not. In every test, each accepted
//! message is received or waits.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::{Client, messages_of};
use crate::legacy::Php;
use crate::raw::{Got, Head, Raw, close_payload, opcode};

/// Publishes the numbers from 0 to `count` - 1, each as a publication with an id.
#[track_caller]
fn accept(broker: &Broker, count: u64) {
    let mut sender = Client::envelope(broker);
    for number in 0..count {
        let id = format!("number {number}");
        sender.command(&json!({"command": "send-message", "channel": "sms", "data": [number], "id": id}));
    }
    for number in 0..count {
        let reply = sender.next_reply();
        assert_eq!(reply["response_code"], "00", "{number}: {reply}");
    }
}

/// The kind of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Modern,
    ModernTopic,
    Legacy,
    LegacyTopic,
}

impl Kind {
    const ALL: [Self; 4] = [Self::Modern, Self::ModernTopic, Self::Legacy, Self::LegacyTopic];

    /// Connects and receives `sms`; answers no pings.
    #[track_caller]
    fn connect(self, broker: &Broker) -> Raw {
        let head = match self {
            Self::Modern => Head::new("/").modern(),
            Self::ModernTopic => Head::new("/ws?topic=sms").modern(),
            Self::Legacy => Head::new("/"),
            Self::LegacyTopic => Head::new("/ws?topic=sms"),
        };
        let mut raw = Raw::upgrade(broker, &head);
        if matches!(self, Self::Modern | Self::Legacy) {
            raw.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
            assert!(raw.next_frame().text().contains("connect"), "{}", raw.trace());
        }
        raw
    }

    /// The numbers in a data frame.
    fn numbers(self, text: &str) -> Vec<u64> {
        match self {
            Self::Modern | Self::Legacy => messages_of(text).iter().map(|message| message.parse().unwrap()).collect(),
            Self::ModernTopic | Self::LegacyTopic => vec![text.parse().unwrap()],
        }
    }
}

/// The next data frame; pings are read and not answered.
#[track_caller]
fn data(raw: &mut Raw) -> String {
    loop {
        let frame = raw.next_frame();
        if frame.opcode != opcode::PING {
            return frame.text().to_owned();
        }
    }
}

/// Waits for a ping and returns its payload without answering it.
#[track_caller]
fn ping(raw: &mut Raw) -> Vec<u8> {
    let frame = raw.next_frame();
    assert_eq!(frame.opcode, opcode::PING, "{}", raw.trace());
    frame.payload
}

/// The waiting messages, oldest first: all messages that a receiver gets before a marker.
#[track_caller]
fn waiting(broker: &Broker) -> Vec<u64> {
    const MARKER: u64 = 999_999;
    let mut sender = Client::envelope(broker);
    sender.publish_safely("sms", &json!(MARKER), "the marker");
    let mut receiver = Client::receiver(broker, "sms");
    let mut all = Vec::new();
    while all.last() != Some(&MARKER) {
        all.extend(Kind::Modern.numbers(&receiver.next_text()));
    }
    receiver.confirm();
    receiver.leave();
    all.pop();
    all
}

/// How a client ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Fin,
    Close(u16),
    CloseWithoutCode,
    Reset,
}

fn end(mut raw: Raw, how: End) {
    match how {
        End::Fin => raw.finish(),
        End::Close(code) => raw.send_frame(opcode::CLOSE, &close_payload(code, "")),
        End::CloseWithoutCode => raw.send_frame(opcode::CLOSE, b""),
        End::Reset => return raw.reset(),
    }
    raw.rest();
}

#[test]
fn a_client_that_leaves_after_one_of_many_frames_confirms_at_most_that_frame() {
    for how in [End::Fin, End::Close(1000), End::Close(1001), End::Close(1009), End::Reset] {
        for kind in Kind::ALL {
            let broker = Setup::default().in_memory().start();
            accept(&broker, 100);
            let mut raw = kind.connect(&broker);
            let first = kind.numbers(&data(&mut raw));
            end(raw, how);
            let left = waiting(&broker);
            let kind_of_end = format!("{kind:?} {how:?}");
            let (lost, again): (Vec<u64>, Vec<u64>) = (0..100).partition(|number| !left.contains(number));
            assert!(lost.is_empty() || lost == first, "{kind_of_end}: {lost:?} were lost");
            assert_eq!(left, again, "{kind_of_end}: not once each and in order");
        }
    }
}

#[test]
fn only_an_orderly_end_of_a_legacy_client_confirms_its_only_frame() {
    let broker = Broker::start();
    for kind in Kind::ALL {
        for how in [End::Fin, End::Close(1000), End::Close(1001), End::Close(1009), End::CloseWithoutCode, End::Reset] {
            let legacy = matches!(kind, Kind::Legacy | Kind::LegacyTopic);
            let confirms = legacy && matches!(how, End::Fin | End::Close(1000 | 1001));
            // On a loaded machine the ping may arrive before the client leaves. Then the end confirms nothing, and the test tries again.
            let attempts = if confirms { 20 } else { 1 };
            let left = (0..attempts).map(|attempt| {
                let mut sender = Client::envelope(&broker);
                sender.publish_safely("sms", &json!(7), &format!("{kind:?} {how:?} {attempt}"));
                let mut raw = kind.connect(&broker);
                assert_eq!(kind.numbers(&data(&mut raw)), [7]);
                end(raw, how);
                waiting_after(&broker)
            });
            let confirmed = left.inspect(|left| assert!(left.is_empty() || *left == [7])).any(|left| left.is_empty());
            assert_eq!(confirmed, confirms, "{kind:?} {how:?}");
        }
    }
}

/// Like [`waiting`], with a marker that needs no id, so that a test can call it several times.
#[track_caller]
fn waiting_after(broker: &Broker) -> Vec<u64> {
    let mut receiver = Client::receiver(broker, "sms");
    let mut sender = Client::envelope(broker);
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": [999]}));
    sender.sync();
    let mut all = Vec::new();
    while all.last() != Some(&999) {
        all.extend(Kind::Modern.numbers(&receiver.next_text()));
    }
    receiver.confirm();
    receiver.leave();
    all.pop();
    all
}

#[test]
fn a_fin_with_a_ping_unread_confirms_nothing() {
    let broker = Broker::start();
    accept(&broker, 1);
    let mut raw = Kind::LegacyTopic.connect(&broker);
    assert_eq!(data(&mut raw), "0");
    // The client's system has the ping, and the program leaves without an answer.
    ping(&mut raw);
    end(raw, End::Fin);
    assert_eq!(waiting(&broker), [0]);
}

#[test]
fn without_trust_in_fin_leaving_confirms_nothing() {
    let broker = Setup::default().server("trust_fin = false").start();
    accept(&broker, 1);
    let mut raw = Kind::LegacyTopic.connect(&broker);
    assert_eq!(data(&mut raw), "0");
    end(raw, End::Fin);
    assert_eq!(waiting(&broker), [0]);
}

#[test]
fn a_receiver_that_has_sent_to_its_channel_confirms_nothing_by_leaving() {
    for (channel, expected) in [("sms", vec![0]), ("other", vec![])] {
        let broker = Broker::start();
        accept(&broker, 1);
        let mut raw = Raw::upgrade(&broker, &Head::new("/"));
        raw.send_text(&format!(r#"{{"command":"send-message","channel":"{channel}","data":[]}}"#));
        raw.send_text(&format!(
            r#"{{"command":"send-message","channel":"{channel}","number_of_receiver":1,"data":["own"]}}"#
        ));
        assert!(data(&mut raw).contains("connect"));
        raw.send_text(r#"{"command":"receive-message","channel":"sms"}"#);
        assert!(data(&mut raw).contains("[0"), "{}", raw.trace());
        end(raw, End::Fin);
        let mut receiver = Client::receiver(&broker, "sms");
        let mut sender = Client::envelope(&broker);
        sender.publish("sms", &json!("marker"));
        let mut texts = Vec::new();
        while texts.last().is_none_or(|text| text != "\"marker\"") {
            texts.extend(messages_of(&receiver.next_text()));
        }
        receiver.confirm();
        receiver.leave();
        let numbers: Vec<u64> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        assert_eq!(numbers, expected, "the receiver had sent to {channel}: {texts:?}");
    }
}

#[test]
fn an_unsolicited_empty_pong_confirms_nothing() {
    let broker = Broker::start();
    type Pongs = fn(&mut Raw);
    let cases: [(&str, Kind, Pongs); 4] = [
        ("modern, while a ping is outstanding", Kind::Modern, |raw| {
            ping(raw);
            raw.send_frame(opcode::PONG, b"");
        }),
        ("modern topic, before any ping", Kind::ModernTopic, |raw| raw.send_frame(opcode::PONG, b"")),
        ("legacy, before any ping", Kind::LegacyTopic, |raw| raw.send_frame(opcode::PONG, b"")),
        ("legacy, after a pong with a payload", Kind::LegacyTopic, |raw| {
            raw.send_frame(opcode::PONG, b"keep-alive");
            ping(raw);
            raw.send_frame(opcode::PONG, b"");
        }),
    ];
    for (case, kind, pongs) in cases {
        accept_one(&broker, case);
        let mut raw = kind.connect(&broker);
        assert_eq!(kind.numbers(&data(&mut raw)), [5], "{case}");
        pongs(&mut raw);
        raw.reset();
        assert_eq!(waiting_after(&broker), [5], "{case}");
    }
}

#[track_caller]
fn accept_one(broker: &Broker, id: &str) {
    Client::envelope(broker).publish_safely("sms", &json!(5), id);
}

#[test]
fn the_empty_pong_of_a_php_client_confirms_what_came_before_its_ping() {
    let broker = Broker::start();
    accept(&broker, 2);
    let mut raw = Kind::LegacyTopic.connect(&broker);
    assert_eq!(data(&mut raw), "0");
    ping(&mut raw);
    raw.send_frame(opcode::PONG, b"");
    assert_eq!(data(&mut raw), "1", "the window opens");
    raw.reset();
    assert_eq!(waiting(&broker), [1]);
}

#[test]
fn a_legacy_receiver_gets_one_frame_until_it_confirms() {
    let broker = Broker::start();
    accept(&broker, 30);
    let mut raw = Kind::LegacyTopic.connect(&broker);
    let mut seen = Vec::new();
    let mut frames_before_ping = Vec::new();
    let mut frames = 0;
    while seen.len() < 30 {
        let frame = raw.next_frame();
        if frame.opcode == opcode::PING {
            frames_before_ping.push(frames);
            frames = 0;
            raw.send_frame(opcode::PONG, b"");
        } else {
            frames += 1;
            seen.push(frame.text().parse::<u64>().unwrap());
        }
    }
    assert_eq!(seen, (0..30).collect::<Vec<_>>());
    assert_eq!(frames_before_ping[0], 1, "{frames_before_ping:?}");
}

#[test]
fn an_explicit_prefetch_never_grows() {
    let broker = Broker::start();
    accept(&broker, 10);
    let mut raw = Raw::upgrade(&broker, &Head::new("/"));
    raw.send_text(r#"{"command":"receive-message","channel":"sms","prefetch":1}"#);
    assert!(data(&mut raw).contains("connect"));
    // The window stays at one frame, however quickly the receiver confirms.
    for _ in 0..3 {
        let frame = raw.next_frame();
        assert_eq!(frame.opcode, opcode::TEXT, "{}", raw.trace());
        ping(&mut raw);
        raw.send_frame(opcode::PONG, b"");
        let mut sender = Client::envelope(&broker);
        sender.publish("sms", &json!(1));
        sender.publish("sms", &json!(2));
        sender.sync();
    }
}

#[test]
fn a_receiver_that_confirms_nothing_is_ended_and_its_messages_go_to_another() {
    let broker = Setup::default().server("confirm_timeout = \"1s\"").defaults("receivers = 1").start();
    let mut modern = Client::envelope(&broker).silent();
    modern.subscribe("sms");
    accept(&broker, 3);
    assert_eq!(modern.numbers(3), [0, 1, 2]);
    let mut php = Php::connect(&broker, "/ws?topic=sms");
    assert_eq!(modern.closed(), 1008);
    assert_eq!(crate::legacy::PhpRead::Message("0".into()), php.read(Instant::now() + Duration::from_secs(10)));
    loop {
        match php.raw().next() {
            // A legacy client gets no close frame.
            Got::Frame(frame) => assert_eq!(frame.opcode, opcode::PING, "{}", php.raw().trace()),
            Got::Fin => break,
            other => panic!("{other:?}\n{}", php.raw().trace()),
        }
    }
    broker.wait_for_log("confirmed nothing for server.confirm_timeout");
    assert_eq!(waiting(&broker), [0, 1, 2]);
}

#[test]
fn a_busy_receiver_survives_the_heartbeat_but_not_the_confirm_timeout() {
    let broker = Setup::default().server("heartbeat = \"1s\"\nconfirm_timeout = \"22s\"").start();
    let mut busy = Client::envelope(&broker).silent();
    busy.subscribe("sms");
    let began = Instant::now();
    accept(&broker, 1);
    assert_eq!(busy.numbers(1), [0]);
    // The client's system acknowledges every ping (TCP), and the program answers none. The heartbeat alone would end the connection about 18 s after the handshake.
    let deadline = began + Duration::from_secs(60);
    loop {
        match busy.raw().next_by(deadline) {
            Got::Frame(frame) if frame.opcode == opcode::PING => {}
            Got::Frame(frame) => break assert_eq!(frame.close_code(), Some(1008), "{frame:?}"),
            other => panic!("{other:?}\n{}", busy.trace()),
        }
    }
    assert!(began.elapsed() >= Duration::from_secs(21), "ended after {:?}", began.elapsed());
    broker.wait_for_log("confirmed nothing for server.confirm_timeout");
    assert_eq!(waiting(&broker), [0]);
}
