//! The protocols of other brokers in the load generator (`benches/peers`): packets compared with their specifications, and whole
//! measurements against a scripted server, which shares no code with the load generator and cuts its stream of packets into frames anywhere.

#[path = "../benches/peers/mqtt.rs"]
mod mqtt;
#[path = "../benches/peers/nats.rs"]
mod nats;
#[path = "../benches/peers/packets.rs"]
mod packets;
#[path = "peers/scripted.rs"]
mod scripted;

use clap::Parser;
use mqtt::Mqtt;
use nats::{Nats, Op};
use packets::Packets;
use scripted::{Protocol, Server};
use wsmb_client::Url;
use wsmb_load::{Channels, ConnectionPlan, Options, Payload, Report, Session, SessionEvent, Target, Wire, Workload};

fn plan(receives: bool, confirmed: bool) -> ConnectionPlan {
    ConnectionPlan { channels: Channels::new("a", "run"), index: 7, channel_numbers: 0..2, receives, confirmed }
}

/// Gives a session the payload of one frame. Returns the deliveries, the number of confirmations, and whether the session wrote something.
fn take(session: &mut impl Session, payload: &[u8]) -> Result<(Vec<Vec<u8>>, usize, bool), String> {
    let (mut deliveries, mut answers, mut out) = (Vec::new(), 0, Vec::new());
    session.handle_payload(payload, &mut out, |event| match event {
        SessionEvent::Delivery(message) => deliveries.push(message.to_vec()),
        SessionEvent::Confirmation => answers += 1,
    })?;
    Ok((deliveries, answers, !out.is_empty()))
}

#[test]
fn packets_are_found_in_frames_of_any_size() {
    // A packet is a length byte and as many bytes.
    let stream: Vec<u8> =
        (0..50_u8).flat_map(|length| std::iter::once(length).chain((0..length).map(|_| b'x'))).collect();
    for cut in 1..200 {
        let (mut packets, mut found) = (Packets::default(), Vec::new());
        for piece in stream.chunks(cut) {
            let result = packets.take(piece, |bytes| {
                let length = usize::from(bytes[0]) + 1;
                found.extend((bytes.len() >= length).then_some(bytes[0]));
                Ok((bytes.len() >= length).then_some(length))
            });
            assert_eq!(result, Ok(()));
        }
        assert_eq!(found, (0..50).collect::<Vec<u8>>(), "frames of {cut} bytes");
    }
}

#[test]
fn mqtt_packets_are_encoded_as_in_the_specification() {
    assert_eq!(mqtt::connect("c"), b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x00\x00\x01c");
    assert_eq!(mqtt::subscribe(&["a/b".into(), "c/d".into()], 1), b"\x82\x0e\x00\x01\x00\x03a/b\x01\x00\x03c/d\x01");
    assert_eq!(mqtt::publish_head(3, 10, false), b"\x30\x0f\x00\x03");
    assert_eq!(mqtt::publish_head(3, 10, true), b"\x32\x11\x00\x03");
    // 2 + 3 + 316 = 321 is the example of section 2.2.3; then the lengths on both sides of each further digit.
    assert_eq!(mqtt::publish_head(3, 316, false), b"\x30\xc1\x02\x00\x03");
    for (payload, digits) in [
        (122, &b"\x7f"[..]),
        (123, b"\x80\x01"),
        (16_378, b"\xff\x7f"),
        (16_379, b"\x80\x80\x01"),
        (2_097_147, b"\x80\x80\x80\x01"),
    ] {
        assert_eq!(mqtt::publish_head(3, payload, false), [b"\x30", digits, b"\x00\x03"].concat());
    }
}

#[test]
fn an_mqtt_session_understands_the_packets_of_a_server() {
    let payload = Payload::new(30);
    let mut receiver = Mqtt.session(&plan(true, true), &payload);
    take(&mut receiver, b"\x20\x02\x00\x00").unwrap();
    assert!(!receiver.is_ready());
    take(&mut receiver, b"\x90\x04\x00\x01\x01\x01").unwrap();
    assert!(receiver.is_ready());
    // QoS 1 is acknowledged, with any DUP and RETAIN flags; QoS 0 is not.
    assert_eq!(take(&mut receiver, b"\x32\x07\x00\x01a\x00\x09hi").unwrap(), (vec![b"hi".to_vec()], 0, true));
    assert_eq!(take(&mut receiver, b"\x3b\x07\x00\x01a\x00\x09hi").unwrap(), (vec![b"hi".to_vec()], 0, true));
    assert_eq!(take(&mut receiver, b"\x30\x05\x00\x01ahi").unwrap(), (vec![b"hi".to_vec()], 0, false));

    let mut sender = Mqtt.session(&plan(false, true), &payload);
    take(&mut sender, b"\x20\x02\x00\x00").unwrap();
    assert!(sender.is_ready());
    assert_eq!(take(&mut sender, b"\x40\x02\x00\x01\x40\x02\x00\x02").unwrap(), (vec![], 2, false));

    for bad in [
        &b"\x20\x02\x00\x05"[..],
        b"\x90\x03\x00\x01\x80",
        b"\xf0\x00",
        b"\x32\x03\x00\x05a",
        b"\x30\xff\xff\xff\xff\x01",
    ] {
        assert!(take(&mut Mqtt.session(&plan(true, false), &payload), bad).is_err(), "{bad:?}");
    }
}

#[test]
fn nats_lines_are_parsed() {
    let said =
        |text: &'static str| nats::read(text.as_bytes()).map(|found| found.map(|found| (found.op, found.length)));
    let message = |to: &'static str, reply: Option<&'static str>, payload: &'static str| Op::Message {
        to: to.as_bytes(),
        reply: reply.map(str::as_bytes),
        payload: payload.as_bytes(),
    };
    assert_eq!(said("INFO {\"a\":1} \r\n"), Ok(Some((Op::Ignored, 15))));
    assert_eq!(said("PING\r\n"), Ok(Some((Op::Ping, 6))));
    assert_eq!(said("PONG\r\nMSG"), Ok(Some((Op::Pong, 6))));
    assert_eq!(said("MSG a.b 9 11\r\nHello World\r\n"), Ok(Some((message("9", None, "Hello World"), 27))));
    assert_eq!(said("MSG a.b 9 G.69 2\r\nhi\r\nMSG"), Ok(Some((message("9", Some("G.69"), "hi"), 22))));
    assert_eq!(said("MSG a 1 0\r\n\r\n"), Ok(Some((message("1", None, ""), 13))));
    assert_eq!(said("HMSG a 2 12 14\r\nNATS/1.0\r\n\r\nhi\r\n"), Ok(Some((message("2", None, "hi"), 32))));
    assert_eq!(said("HMSG a 2 r 12 12\r\nNATS/1.0\r\n\r\n\r\n"), Ok(Some((message("2", Some("r"), ""), 32))));
    for cut in ["", "MS", "MSG a 1 2\r", "MSG a 1 2\r\nh", "MSG a 1 2\r\nhi\r"] {
        assert_eq!(said(cut), Ok(None), "{cut:?}");
    }
    for bad in
        ["-ERR 'no'\r\n", "WHAT\r\n", "MSG a 1 x\r\n", "MSG a 1 2\r\nhi!\r\n", "MSG a 1\r\n", "MSG a 1 99999999999\r\n"]
    {
        assert!(said(bad).is_err(), "{bad:?}");
    }
}

#[test]
fn a_nats_session_is_ready_when_all_its_requests_are_granted() {
    let payload = Payload::new(30);
    let mut plain = Nats.session(&plan(true, false), &payload);
    plain.open(&mut Vec::new());
    take(&mut plain, b"INFO {}\r\n").unwrap();
    assert!(!plain.is_ready());
    take(&mut plain, b"PONG\r\n").unwrap();
    assert!(plain.is_ready());
    assert_eq!(take(&mut plain, b"PING\r\n").unwrap(), (vec![], 0, true));
    assert_eq!(take(&mut plain, b"MSG a 11 2\r\nhi\r\n").unwrap(), (vec![b"hi".to_vec()], 0, false));

    let mut receiver = Nats.session(&plan(true, true), &payload);
    receiver.open(&mut Vec::new());
    let granted = b"MSG i 2 2\r\n{}\r\n";
    assert_eq!(take(&mut receiver, granted).unwrap(), (vec![], 0, true));
    assert!(!receiver.is_ready(), "only the stream is created, not the consumer");
    take(&mut receiver, granted).unwrap();
    assert!(receiver.is_ready());
    assert_eq!(take(&mut receiver, b"MSG a 1 $JS.ACK.1 2\r\nhi\r\n").unwrap(), (vec![b"hi".to_vec()], 0, true));

    let mut sender = Nats.session(&plan(false, true), &payload);
    sender.open(&mut Vec::new());
    let (refused, nobody) = ("{\"error\":{\"code\":503}}", "NATS/1.0 503\r\n\r\n");
    let refused = format!("MSG i 3 {}\r\n{refused}\r\n", refused.len());
    let nobody = format!("HMSG i 2 {} {}\r\n{nobody}\r\n", nobody.len(), nobody.len());
    assert!(take(&mut sender, refused.as_bytes()).unwrap_err().contains("503"));
    assert!(take(&mut sender, nobody.as_bytes()).unwrap_err().contains("no JetStream"));
}

/// The arguments of a measurement on the command line.
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    workload: Workload,
    #[command(flatten)]
    options: Options,
}

fn measure<W: Wire>(wire: &W, server: &Server, arguments: &str) -> Report
where
    W::Session: Send,
{
    let arguments = format!("peers {arguments} --warm-up 0 --json");
    let Arguments { workload, options } = Arguments::parse_from(arguments.split(' '));
    let target = Target::new(Url::parse(&format!("ws://{}/any", server.address())).unwrap(), None, None).unwrap();
    let report = wsmb_load::run(wire, &target, &workload, &options, &mut |_| {}).unwrap();
    assert!(report.is_sound(), "{arguments}: {report}");
    report
}

/// A short run of every workload that the peers support.
fn run_every_workload<W: Wire>(wire: &W, protocol: Protocol)
where
    W::Session: Send,
{
    let server = Server::start(protocol);
    for (arguments, messages, deliveries) in [
        ("p2p --messages 3000", 3_000, 3_000),
        ("p2p --messages 20 --size 100000", 20, 20),
        ("p2p --messages 200 --size 10", 200, 200),
        ("fanout --receivers 7 --messages 500", 500, 3_500),
        ("pairs --pairs 5 --messages 1000", 1_000, 1_000),
        ("channels --channels 150 --messages 1000", 1_000, 1_000),
        ("latency --rate 500 --messages 50", 50, 50),
    ] {
        let report = measure(wire, &server, arguments);
        assert_eq!((report.messages, report.deliveries), (messages, deliveries), "{arguments}");
    }
    assert_eq!(measure(wire, &server, "idle --connections 20").receivers, 20);
    assert_eq!(server.acknowledged(), 0, "no workload before needs acknowledgements");
    let confirmed = measure(wire, &server, "confirmed --messages 2000");
    assert_eq!((confirmed.messages, confirmed.deliveries), (2_000, 2_000));
    assert_eq!(server.acknowledged(), 2_000, "each delivery must be acknowledged once");
}

#[test]
fn every_workload_works_with_mqtt() {
    run_every_workload(&Mqtt, Protocol::Mqtt);
}

#[test]
fn every_workload_works_with_nats() {
    run_every_workload(&Nats, Protocol::Nats);
}
