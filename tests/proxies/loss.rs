//! Kept messages through a proxy to a receiver that comes to grief: accepted ⊆ received ∪ waiting.
//!
//! *Received* is what the receiver has read as a message, not what some buffer on the way has taken. *Waiting* is what the next receiver gets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::PATIENCE;
use crate::broker::Broker;
use crate::client::{Client, messages_of};
use crate::legacy::Php;
use crate::proxy::Proxy as Network;
use crate::raw::{Got, Head, Raw, close_payload, opcode};
use crate::ways::{Proxy, Way};

/// Messages of a channel: half of them wait when the receiver comes, half are sent while it is there.
const MESSAGES: u64 = 60;

/// Frames that the receiver reads before it comes to grief.
const READ: usize = 2;

/// Who receives, and how it confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// The PHP scripts: empty pongs, from inside the next read.
    Php,
    /// The OTP publisher's dialect, read by a legacy client that echoes pings.
    Topic,
    /// Envelope, modern, pongs.
    Modern,
    /// Envelope, modern, `ack`.
    Manual,
}

const KINDS: [Kind; 4] = [Kind::Php, Kind::Topic, Kind::Modern, Kind::Manual];

/// What becomes of the receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grief {
    /// Its process is killed: RST, what it has not read is gone.
    Killed,
    /// It ends with FIN, although much is unread.
    Finished,
    /// It ends with a close frame.
    Closed(u16),
    /// It reads nothing more, and stays.
    Frozen,
    /// It reads nothing more, and is killed once everything that fits is on its way.
    FrozenThenKilled,
    /// Its cable is pulled: nothing comes from it any more, not even an end.
    Vanished,
    /// Its machine starts again: first nothing comes from it any more, then the network ends its connection.
    Rebooted,
    /// The proxy is killed.
    ProxyKilled,
    /// The proxy is restarted: it ends in an orderly way.
    ProxyStopped,
}

/// Griefs that the receiver's own end brings.
const OWN: [Grief; 5] =
    [Grief::Killed, Grief::Finished, Grief::Closed(1000), Grief::Closed(1009), Grief::FrozenThenKilled];

/// One receiver of one channel, and the numbers that it has read.
struct Receiver {
    channel: String,
    trace: String,
    peer: Peer,
    received: BTreeSet<u64>,
}

enum Peer {
    Php(Php),
    Raw(Raw),
    Modern(Client, bool),
}

impl Receiver {
    #[track_caller]
    fn connect(broker: &Broker, kind: Kind, grief: Grief) -> Self {
        let channel = format!("{kind:?}-{grief:?}").replace(['(', ')'], "-");
        let peer = match kind {
            Kind::Php => Peer::Php(Php::receiver(broker, &channel)),
            Kind::Topic => Peer::Raw(Raw::upgrade(broker, &Head::new(&format!("/ws?topic={channel}")))),
            Kind::Modern => Peer::Modern(Client::envelope(broker), false),
            Kind::Manual => Peer::Modern(Client::envelope(broker), true),
        };
        let mut receiver = Self { trace: format!("{kind:?} {grief:?}"), channel, peer, received: BTreeSet::new() };
        if let Peer::Modern(client, is_manual) = &mut receiver.peer {
            let ack = if *is_manual { "manual" } else { "auto" };
            client.command(&json!({"command": "receive-message", "channel": receiver.channel, "ack": ack}));
        }
        receiver
    }

    /// Reads some messages as the kind does, and confirms them.
    #[track_caller]
    fn read(&mut self, count: usize) {
        for _ in 0..count {
            let numbers = match &mut self.peer {
                Peer::Php(php) => numbers(&php.message()),
                Peer::Raw(raw) => vec![raw.next_data().text().parse().expect("a number")],
                Peer::Modern(client, is_manual) => {
                    let delivery = client.next_delivery();
                    if *is_manual {
                        client.command(&json!({"command": "ack", "delivery": delivery["delivery"]}));
                    }
                    numbers(&delivery.to_string())
                }
            };
            self.received.extend(numbers);
        }
    }

    fn raw(&mut self) -> &mut Raw {
        match &mut self.peer {
            Peer::Php(php) => php.raw(),
            Peer::Raw(raw) => raw,
            Peer::Modern(client, _) => client.raw(),
        }
    }

    fn into_raw(self) -> Raw {
        match self.peer {
            Peer::Php(php) => php.into_raw(),
            Peer::Raw(raw) => raw,
            Peer::Modern(client, _) => client.into_raw(),
        }
    }
}

fn numbers(delivery: &str) -> Vec<u64> {
    messages_of(delivery).iter().map(|text| text.parse().expect("a number")).collect()
}

/// Sends messages, each of which is accepted.
#[track_caller]
fn accept(sender: &mut Client, channel: &str, range: std::ops::Range<u64>) {
    for number in range.clone() {
        sender.command(&json!({
            "command": "send-message", "channel": channel, "data": [number], "id": format!("{channel} {number}")
        }));
    }
    for _ in range {
        let reply = sender.next_reply();
        assert_eq!(reply["response_code"], "00", "{channel}: {reply}\n{}", sender.trace());
    }
}

/// How often the broker has said that a connection ended.
fn ended(broker: &Broker) -> usize {
    broker.log().text().matches(" disconnected connection=").count()
}

#[track_caller]
fn wait_for_ends(broker: &Broker, count: usize) {
    let deadline = Instant::now() + PATIENCE;
    while ended(broker) < count {
        assert!(Instant::now() < deadline, "{} of {count} ends:\n{}", ended(broker), broker.log().tail());
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What was confirmed before is removed from the store when this returns: it works in order.
#[track_caller]
fn settle(sender: &mut Client) {
    // Another message each time: a repetition would be answered at once.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    accept(sender, "settle", number..number + 1);
}

/// Fails if anything accepted was neither received nor comes now.
#[track_caller]
fn drain(broker: &Broker, channel: &str, received: &BTreeSet<u64>, trace: &str) {
    let mut missing: BTreeSet<u64> = (0..MESSAGES).filter(|number| !received.contains(number)).collect();
    let mut next = Client::receiver(broker, channel);
    for text in next.take_messages() {
        missing.remove(&text.parse().expect("a number"));
    }
    let deadline = Instant::now() + PATIENCE;
    while !missing.is_empty() {
        match next.raw().next_by(deadline) {
            Got::Frame(frame) if frame.opcode == opcode::PING => next.raw().send_frame(opcode::PONG, &frame.payload),
            Got::Frame(frame) if frame.opcode == opcode::TEXT => {
                for number in numbers(frame.text()) {
                    missing.remove(&number);
                }
            }
            Got::Frame(_) => {}
            other => panic!("{trace}: received {received:?}, lost {missing:?} ({other:?})\n{}", broker.log().tail()),
        }
    }
}

/// A receiver with half of the messages waiting for it, which has read some of them.
#[track_caller]
fn begin(broker: &Broker, sender: &mut Client, kind: Kind, grief: Grief) -> Receiver {
    let mut receiver = {
        let channel = format!("{kind:?}-{grief:?}").replace(['(', ')'], "-");
        accept(sender, &channel, 0..MESSAGES / 2);
        Receiver::connect(broker, kind, grief)
    };
    receiver.read(READ);
    // From here on it reads nothing, unless its grief says so.
    accept(sender, &receiver.channel, MESSAGES / 2..MESSAGES);
    receiver
}

/// One receiver that comes to its own end, and what the next one gets.
fn one(broker: &mut Broker, way: SocketAddr, sender: &mut Client, kind: Kind, grief: Grief) {
    broker.go_through(Some(way));
    let mut receiver = begin(broker, sender, kind, grief);
    let before = ended(broker);
    match grief {
        Grief::Closed(code) => {
            receiver.raw().send_frame(opcode::CLOSE, &close_payload(code, ""));
            receiver.raw().finish();
        }
        Grief::Finished => receiver.raw().finish(),
        // It went on reading up to the moment, or had stopped before.
        Grief::Killed => receiver.read(READ),
        _ => {}
    }
    let (channel, trace, received) = (receiver.channel.clone(), receiver.trace.clone(), receiver.received.clone());
    let raw = receiver.into_raw();
    let held = if matches!(grief, Grief::Killed | Grief::FrozenThenKilled) {
        raw.reset();
        None
    } else {
        Some(raw)
    };
    wait_for_ends(broker, before + 1);
    drop(held);
    settle(sender);
    broker.go_through(None);
    drain(broker, &channel, &received, &trace);
}

/// Receivers of every kind that lose their proxy, and what the next ones get.
fn proxy_ends(broker: &mut Broker, mut proxy: Proxy, grief: Grief) {
    let mut sender = Client::envelope(broker);
    broker.go_through(Some(proxy.address()));
    let receivers: Vec<Receiver> = KINDS.iter().map(|kind| begin(broker, &mut sender, *kind, grief)).collect();
    let before = ended(broker);
    if grief == Grief::ProxyKilled {
        proxy.kill()
    } else {
        proxy.stop()
    }
    wait_for_ends(broker, before + receivers.len());
    broker.go_through(None);
    settle(&mut sender);
    for receiver in &receivers {
        drain(broker, &receiver.channel, &receiver.received, &receiver.trace);
    }
}

/// Receivers of every kind that stay and do nothing, one half of them behind a network that is gone. Then the broker is killed.
fn silence(mut broker: Broker, way: SocketAddr) -> Broker {
    let mut sender = Client::envelope(&broker);
    broker.go_through(Some(way));
    let mut receivers: Vec<Receiver> =
        KINDS.iter().map(|kind| begin(&broker, &mut sender, *kind, Grief::Frozen)).collect();
    let network = Network::start(way);
    broker.go_through(Some(network.address()));
    receivers.extend(KINDS.iter().map(|kind| begin(&broker, &mut sender, *kind, Grief::Vanished)));
    network.forget();
    broker.go_through(None);
    settle(&mut sender);
    let broker = broker.kill_and_restart();
    for receiver in &receivers {
        drain(&broker, &receiver.channel, &receiver.received, &receiver.trace);
    }
    broker
}

/// Receivers of every kind whose machine starts again, and what the next ones get.
fn reboot(broker: &mut Broker, way: SocketAddr) {
    let mut sender = Client::envelope(broker);
    let network = Network::start(way);
    broker.go_through(Some(network.address()));
    let receivers: Vec<Receiver> =
        KINDS.iter().map(|kind| begin(broker, &mut sender, *kind, Grief::Rebooted)).collect();
    network.forget();
    for receiver in &receivers {
        accept(&mut sender, &receiver.channel, MESSAGES..MESSAGES + 1);
    }
    let before = ended(broker);
    network.cut();
    wait_for_ends(broker, before + receivers.len());
    broker.go_through(None);
    settle(&mut sender);
    for receiver in &receivers {
        drain(broker, &receiver.channel, &receiver.received, &receiver.trace);
    }
}

fn loses_nothing(way: Way) {
    let mut broker = way.setup().start();
    let proxy = Proxy::start(way, &broker);
    let address = proxy.as_ref().map_or(broker.address(), Proxy::address);
    let mut sender = Client::envelope(&broker);
    for (grief, kind) in OWN.iter().flat_map(|grief| KINDS.iter().map(move |kind| (*grief, *kind))) {
        one(&mut broker, address, &mut sender, kind, grief);
    }
    drop(sender);
    reboot(&mut broker, address);
    let mut broker = silence(broker, address);
    drop(proxy);
    for grief in [Grief::ProxyKilled, Grief::ProxyStopped] {
        if let Some(proxy) = Proxy::start(way, &broker) {
            proxy_ends(&mut broker, proxy, grief);
        }
    }
}

#[test]
fn nothing_is_lost_directly() {
    loses_nothing(Way::Direct);
}

#[test]
fn nothing_is_lost_behind_nginx() {
    loses_nothing(Way::Nginx);
}

#[test]
fn nothing_is_lost_behind_haproxy() {
    loses_nothing(Way::HaproxyHttp);
}

#[test]
fn nothing_is_lost_behind_haproxy_with_the_proxy_protocol() {
    loses_nothing(Way::HaproxyTcp(2));
    loses_nothing(Way::HaproxyTcp(1));
}
