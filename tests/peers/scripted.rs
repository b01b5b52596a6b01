//! A minimal MQTT or NATS server for tests. It forwards messages and stores none. It cuts its output into frames without regard to packets.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{Request, Response};

/// The most bytes of a frame. A prime, so that packets are cut at different positions.
const FRAME: usize = 1_009;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Mqtt,
    Nats,
}

/// The name of a subscription, and its connection.
type Subscriber = (String, UnboundedSender<Vec<u8>>);

/// The state that all connections share.
#[derive(Default)]
struct Shared {
    /// The subscribers of each subject.
    subscribers: Mutex<HashMap<String, Vec<Subscriber>>>,
    /// JetStream: the delivery subject of each stream. The name of a stream is a part of the subjects of its messages.
    consumers: Mutex<HashMap<String, String>>,
    acknowledged: AtomicU64,
}

/// A running server; stopped when dropped.
pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    _runtime: tokio::runtime::Runtime,
}

impl Server {
    pub fn start(protocol: Protocol) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let (address, shared) = (listener.local_addr().unwrap(), Arc::new(Shared::default()));
        let all = shared.clone();
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, protocol, all.clone()));
            }
        });
        Self { address, shared, _runtime: runtime }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Deliveries that receivers have acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.shared.acknowledged.load(Ordering::SeqCst)
    }
}

#[allow(clippy::result_large_err)] // The callback's type is tungstenite's.
async fn serve(stream: TcpStream, protocol: Protocol, shared: Arc<Shared>) {
    stream.set_nodelay(true).unwrap();
    let choose = |request: &Request, mut response: Response| {
        if let Some(offered) = request.headers().get("sec-websocket-protocol") {
            assert_eq!((protocol, offered.as_bytes()), (Protocol::Mqtt, &b"mqtt"[..]));
            response.headers_mut().insert("sec-websocket-protocol", offered.clone());
        }
        Ok(response)
    };
    // A connection without a handshake only checks whether the server listens.
    let Ok(socket) = tokio_tungstenite::accept_hdr_async(stream, choose).await else { return };
    let (mut sink, mut source) = socket.split();
    let (out, mut lines) = unbounded_channel::<Vec<u8>>();
    tokio::spawn(async move {
        while let Some(mut bytes) = lines.recv().await {
            while let Ok(more) = lines.try_recv() {
                bytes.extend(more);
            }
            for piece in bytes.chunks(FRAME) {
                if sink.feed(Message::binary(piece.to_vec())).await.is_err() {
                    return;
                }
            }
            if sink.flush().await.is_err() {
                return;
            }
        }
    });
    if protocol == Protocol::Nats {
        let _ = out.send(b"INFO {\"server_id\":\"scripted\",\"headers\":true}\r\n".to_vec());
    }
    while let Some(Ok(Message::Binary(bytes))) = source.next().await {
        match protocol {
            Protocol::Mqtt => mqtt(&bytes, &out, &shared),
            Protocol::Nats => nats(&bytes, &out, &shared),
        }
    }
    let mut subscribers = shared.subscribers.lock().unwrap();
    subscribers.values_mut().for_each(|list| list.retain(|(_, other)| !other.same_channel(&out)));
}

fn subscribe(shared: &Shared, subject: &str, name: &str, out: &UnboundedSender<Vec<u8>>) {
    let mut subscribers = shared.subscribers.lock().unwrap();
    subscribers.entry(subject.to_owned()).or_default().push((name.to_owned(), out.clone()));
}

fn forward(shared: &Shared, subject: &str, packet: impl Fn(&str) -> Vec<u8>) {
    for (name, out) in shared.subscribers.lock().unwrap().get(subject).into_iter().flatten() {
        let _ = out.send(packet(name));
    }
}

/// Handles the packets of one frame. A client sends complete packets in each frame.
fn mqtt(mut bytes: &[u8], out: &UnboundedSender<Vec<u8>>, shared: &Shared) {
    while !bytes.is_empty() {
        let digits = bytes[1..].iter().take_while(|byte| **byte >= 0x80).count() + 1;
        let length = bytes[1..=digits].iter().rev().fold(0, |length, byte| length << 7 | usize::from(byte & 0x7f));
        let (packet, rest) = bytes.split_at(1 + digits + length);
        let (first, body) = (packet[0], &packet[1 + digits..]);
        let text = |at: usize| {
            let length = usize::from(u16::from_be_bytes([body[at], body[at + 1]]));
            (String::from_utf8(body[at + 2..at + 2 + length].to_vec()).unwrap(), at + 2 + length)
        };
        match first {
            0x10 => {
                assert_eq!(text(0).0, "MQTT");
                assert_eq!(&body[6..10], &[4, 2, 0, 0], "version, flags, keep-alive");
                let _ = out.send(vec![0x20, 2, 0, 0]);
            }
            0x82 => {
                let (mut at, mut granted) = (2, body[..2].to_vec());
                while at < body.len() {
                    let (topic, end) = text(at);
                    subscribe(shared, &topic, "", out);
                    granted.push(body[end]);
                    at = end + 1;
                }
                let _ = out.send([&[0x90, u8::try_from(granted.len()).unwrap()], &granted[..]].concat());
            }
            // Forwarded unchanged. A real server chooses its own packet identifiers, but a receiver cannot notice that.
            0x30 => forward(shared, &text(0).0, |_| packet.to_vec()),
            0x32 => {
                let (topic, at) = text(0);
                assert_ne!(&body[at..at + 2], &[0, 0], "a packet identifier must not be zero");
                let _ = out.send(vec![0x40, 2, body[at], body[at + 1]]);
                forward(shared, &topic, |_| packet.to_vec());
            }
            0x40 => {
                shared.acknowledged.fetch_add(1, Ordering::SeqCst);
            }
            other => panic!("a packet that begins with {other:#x}"),
        }
        bytes = rest;
    }
}

/// Handles the commands of one frame. A client sends complete commands in each frame.
fn nats(mut bytes: &[u8], out: &UnboundedSender<Vec<u8>>, shared: &Shared) {
    while !bytes.is_empty() {
        let end = bytes.windows(2).position(|pair| pair == b"\r\n").expect("a complete line");
        let line = std::str::from_utf8(&bytes[..end]).expect("a line of text").to_owned();
        bytes = &bytes[end + 2..];
        let words: Vec<&str> = line.split(' ').collect();
        match words[..] {
            ["CONNECT", _] => {}
            ["PING"] => drop(out.send(b"PONG\r\n".to_vec())),
            ["PONG"] => {}
            ["SUB", subject, name] => subscribe(shared, subject, name, out),
            ["PUB", subject, .., size] => {
                let (payload, rest) = bytes.split_at(size.parse().expect("a size"));
                bytes = rest.strip_prefix(b"\r\n").expect("an end of the payload");
                publish(shared, subject, words.get(2).filter(|_| words.len() == 4).copied(), payload);
            }
            _ => panic!("an unknown line: {line}"),
        }
    }
}

/// Sends MSG to the subscribers of `subject`; `about` and `reply` are the subjects in MSG.
fn deliver(shared: &Shared, subject: &str, about: &str, reply: &str, payload: &[u8]) {
    forward(shared, subject, |name| {
        let head = format!("MSG {about} {name} {reply}{}\r\n", payload.len());
        [head.as_bytes(), payload, b"\r\n"].concat()
    });
}

fn publish(shared: &Shared, subject: &str, reply: Option<&str>, payload: &[u8]) {
    let answer = |body: &str| {
        let reply = reply.expect("a subject for the answer");
        deliver(shared, reply, reply, "", body.as_bytes());
    };
    if subject.starts_with("$JS.ACK.") {
        assert!(payload.is_empty());
        shared.acknowledged.fetch_add(1, Ordering::SeqCst);
    } else if let Some(stream) = subject.strip_prefix("$JS.API.STREAM.CREATE.") {
        let config: serde_json::Value = serde_json::from_slice(payload).unwrap();
        assert_eq!((config["name"].as_str(), config["storage"].as_str()), (Some(stream), Some("file")));
        answer("{\"type\":\"io.nats.jetstream.api.v1.stream_create_response\"}");
    } else if let Some(stream) = subject.strip_prefix("$JS.API.CONSUMER.CREATE.") {
        let config: serde_json::Value = serde_json::from_slice(payload).unwrap();
        let to = config["config"]["deliver_subject"].as_str().unwrap().to_owned();
        shared.consumers.lock().unwrap().insert(stream.to_owned(), to);
        answer("{\"type\":\"io.nats.jetstream.api.v1.consumer_create_response\"}");
    } else if reply.is_some() {
        answer("{\"stream\":\"S\",\"seq\":1}");
        // The stream RUN-000000 has the messages of the subject `bench-RUN-000000`.
        let stream = subject.split_once('-').expect("a channel of a run").1;
        let to = shared.consumers.lock().unwrap().get(stream).cloned().expect("a consumer");
        deliver(shared, &to, subject, "$JS.ACK.S.1 ", payload);
    } else {
        deliver(shared, subject, subject, "", payload);
    }
}
