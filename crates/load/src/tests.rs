//! The load generator against a broker on a real socket that loses, duplicates, reorders or refuses messages according to a script.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use wsmb_client::Url;
use wsmb_core::message::Dialect;
use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, encode, encode_close, payload_start};
use wsmb_protocol::handshake;

/// The timeout of each operation, long enough for slow machines.
const DEADLINE: Duration = Duration::from_secs(30);

const TOPIC: Wsmb = Wsmb { dialect: Dialect::Topic, manual: false };

/// Returns the frames to send to the receiver for the message with this number.
type Script = fn(u64, &[u8], &mut Vec<u8>) -> Vec<Vec<u8>>;

/// A relay between one sender, which connects first, and one receiver.
struct Relay {
    target: Target,
    thread: JoinHandle<()>,
}

impl Relay {
    fn start(script: Script) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = Url::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
        let thread = std::thread::spawn(move || {
            // The first connection only tests whether the address accepts connections.
            drop(listener.accept().unwrap());
            let (sender, receiver) = (accept(&listener), accept(&listener));
            relay(sender, receiver, script);
        });
        Self { target: Target::new(url, None, None).unwrap(), thread }
    }

    fn run(self, workload: &Workload, messages: u64) -> Result<Report, Error> {
        let result = run(&TOPIC, &self.target, workload, &options(messages), &mut |_| {});
        self.thread.join().unwrap();
        result
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut head = Vec::new();
    let request = loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).unwrap();
        head.push(byte[0]);
        if let Some((request, _)) = handshake::parse_request(&head).unwrap() {
            break request;
        }
    };
    stream.write_all(&handshake::upgrade_reply(&request.upgrade.unwrap())).unwrap();
    stream
}

/// Relays until the sender closes its connection.
fn relay(mut sender: TcpStream, mut receiver: TcpStream, script: Script) {
    let mut decoder = Decoder::new(Role::Server, 1 << 20);
    let (mut buffer, mut number, mut held, mut out) = (vec![0; 1 << 16], 0, Vec::new(), Vec::new());
    while let Ok(count) = sender.read(&mut buffer) {
        let mut is_open = count > 0;
        decoder
            .feed(&mut buffer[..count], |item| {
                match item {
                    Incoming::Message { frame, .. } => {
                        let frames = script(number, &frame[payload_start(&frame)..], &mut held);
                        frames.iter().for_each(|frame| out.extend_from_slice(frame));
                        number += 1;
                    }
                    Incoming::Close { .. } => is_open = false,
                    _ => {}
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        // Fails if the receiver has closed its connection.
        let _ = receiver.write_all(&out);
        out.clear();
        if !is_open {
            break;
        }
    }
}

fn options(messages: u64) -> Options {
    Options {
        messages: Some(messages),
        seconds: Duration::from_secs(1),
        warm_up: Duration::ZERO,
        size: 200,
        window: None,
        beside: 0,
        channel: "bench".to_owned(),
        pid: None,
        json: false,
        // Short, because some messages are lost on purpose.
        stall: Duration::from_secs(1),
    }
}

fn text(payload: &[u8]) -> Vec<u8> {
    encode(Opcode::Text, payload).to_vec()
}

fn faithful(_: u64, payload: &[u8], _: &mut Vec<u8>) -> Vec<Vec<u8>> {
    vec![text(payload)]
}

/// Loses message 5, sends message 7 twice, and sends message 9 after message 10.
fn faithless(number: u64, payload: &[u8], held: &mut Vec<u8>) -> Vec<Vec<u8>> {
    match number {
        5 => Vec::new(),
        7 => vec![text(payload), text(payload)],
        9 => {
            *held = text(payload);
            Vec::new()
        }
        10 => vec![text(payload), std::mem::take(held)],
        _ => vec![text(payload)],
    }
}

#[test]
fn a_faithful_relay_gets_a_sound_report() {
    let report = Relay::start(faithful).run(&Workload::P2p, 10_000).unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!((report.messages, report.deliveries, report.senders, report.receivers), (10_000, 10_000, 1, 1));
    assert!(report.deliveries_per_second > 0.0 && report.seconds > 0.0);
    // The relay is a thread of this process, whose CPU time can be read.
    assert_eq!(report.server_cpu_us_per_delivery.is_some(), cfg!(target_os = "linux"), "{report}");
}

#[test]
fn lost_duplicate_and_reordered_messages_are_reported() {
    let report = Relay::start(faithless).run(&Workload::P2p, 1_000).unwrap();
    assert_eq!((report.lost, report.doubled, report.reordered), (1, 1, 1), "{report}");
    assert_eq!((report.messages, report.deliveries), (1_000, 999));
    assert!(!report.is_sound());
}

#[test]
fn the_latency_workload_reports_the_same_faults() {
    let latency = Workload::Latency { rate: 2_000 };
    let report = Relay::start(faithful).run(&latency, 500).unwrap();
    let times = report.latency_us.unwrap();
    assert!(report.is_sound(), "{report}");
    assert_eq!(report.deliveries, 500);
    assert!(0.0 < times.p50 && times.p50 <= times.p99 && times.p99 <= times.max, "{times:?}");

    let report = Relay::start(faithless).run(&latency, 500).unwrap();
    assert_eq!((report.lost, report.doubled, report.reordered), (1, 1, 1), "{report}");
}

#[test]
fn the_error_quotes_the_brokers_close_reason() {
    fn slow(number: u64, payload: &[u8], _: &mut Vec<u8>) -> Vec<Vec<u8>> {
        if number == 20 { vec![encode_close(1008, "slow receiver").to_vec()] } else { vec![text(payload)] }
    }
    for workload in [Workload::P2p, Workload::Latency { rate: 2_000 }] {
        let error = Relay::start(slow).run(&workload, 1_000).unwrap_err();
        assert_eq!(error.to_string(), "the broker ended the connection: slow receiver (1008)");
    }
}

#[test]
fn a_message_that_was_not_sent_is_an_error() {
    fn odd(number: u64, payload: &[u8], _: &mut Vec<u8>) -> Vec<Vec<u8>> {
        vec![if number == 3 { text(b"hello") } else { text(payload) }]
    }
    let error = Relay::start(odd).run(&Workload::P2p, 100).unwrap_err();
    assert!(error.to_string().contains("a message that was not sent"), "{error}");
}

#[test]
fn unsupported_workloads_are_refused_before_anything_is_sent() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = Url::parse(&format!("ws://{}", listener.local_addr().unwrap())).unwrap();
    let target = Target::new(url, None, None).unwrap();
    for workload in [Workload::Confirmed, Workload::Channels { channels: 2 }] {
        let error = run(&TOPIC, &target, &workload, &options(1), &mut |_| {}).unwrap_err();
        assert!(matches!(error, Error::Misuse(_)), "{error}");
    }
}
