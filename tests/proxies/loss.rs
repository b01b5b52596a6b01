//! Kept messages through a proxy to a receiver that fails: accepted ⊆ received ∪ waiting.
//!
//! *Received* are the messages that the receiver has read, not those in a buffer on the route. *Waiting* are the messages that the next receiver gets.

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
use crate::routes::{Proxy, Route};

/// Messages of a channel. Half of them wait when the receiver connects, half are sent afterwards.
const MESSAGES: u64 = 60;

/// Frames that the receiver reads before it fails.
const READ: usize = 2;

/// The kind of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A PHP script, which answers a ping with an empty pong in its next read.
    Php,
    /// A legacy client of a topic, which answers pings with their payload.
    Topic,
    /// A modern envelope client, which answers pings.
    Modern,
    /// A modern envelope client with manual acknowledgement.
    Manual,
}

const KINDS: [Kind; 4] = [Kind::Php, Kind::Topic, Kind::Modern, Kind::Manual];

/// How a receiver or its proxy fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// The process is killed: RST, and unread bytes are lost.
    Killed,
    /// The receiver sends FIN with unread bytes.
    Finished,
    /// The receiver sends a close frame with this code.
    Closed(u16),
    /// The receiver stops reading and stays connected.
    Frozen,
    /// The receiver stops reading and is killed later, when the buffers are filled.
    FrozenThenKilled,
    /// The network loses the connection: no more bytes arrive, and no end.
    Vanished,
    /// The receiver's machine restarts: first no more bytes arrive, then the connection ends.
    Rebooted,
    /// The proxy is killed.
    ProxyKilled,
    /// The proxy is stopped in an orderly way.
    ProxyStopped,
}

/// Failures of the receiver itself.
const OWN_FAILURES: [Failure; 5] =
    [Failure::Killed, Failure::Finished, Failure::Closed(1000), Failure::Closed(1009), Failure::FrozenThenKilled];

/// One receiver of one channel, and the numbers that it has read.
struct Receiver {
    channel: String,
    case: String,
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
    fn connect(broker: &Broker, kind: Kind, failure: Failure) -> Self {
        let channel = format!("{kind:?}-{failure:?}").replace(['(', ')'], "-");
        let peer = match kind {
            Kind::Php => Peer::Php(Php::receiver(broker, &channel)),
            Kind::Topic => Peer::Raw(Raw::upgrade(broker, &Head::new(&format!("/ws?topic={channel}")))),
            Kind::Modern => Peer::Modern(Client::envelope(broker), false),
            Kind::Manual => Peer::Modern(Client::envelope(broker), true),
        };
        let mut receiver = Self { case: format!("{kind:?} {failure:?}"), channel, peer, received: BTreeSet::new() };
        if let Peer::Modern(client, is_manual) = &mut receiver.peer {
            let ack = if *is_manual { "manual" } else { "auto" };
            client.command(&json!({"command": "receive-message", "channel": receiver.channel, "ack": ack}));
        }
        receiver
    }

    /// Reads and confirms frames in the way of the receiver's kind.
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

/// Sends messages, which must be accepted.
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

/// The number of ended connections in the broker's log.
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

/// Waits until the store has processed all earlier confirmations, because it commits in order.
#[track_caller]
fn wait_for_store(sender: &mut Client) {
    // Each message has another id, because a duplicate would be answered at once.
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    accept(sender, "settle", number..number + 1);
}

/// Fails if an accepted message was neither received nor comes now.
#[track_caller]
fn assert_not_lost(broker: &Broker, channel: &str, received: &BTreeSet<u64>, case: &str) {
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
            other => panic!("{case}: received {received:?}, lost {missing:?} ({other:?})\n{}", broker.log().tail()),
        }
    }
}

/// Starts a receiver, which reads `READ` frames. Half of the messages are sent before, half afterwards.
#[track_caller]
fn start_receiver(broker: &Broker, sender: &mut Client, kind: Kind, failure: Failure) -> Receiver {
    let mut receiver = {
        let channel = format!("{kind:?}-{failure:?}").replace(['(', ')'], "-");
        accept(sender, &channel, 0..MESSAGES / 2);
        Receiver::connect(broker, kind, failure)
    };
    receiver.read(READ);
    // The receiver reads no more, unless its failure says so.
    accept(sender, &receiver.channel, MESSAGES / 2..MESSAGES);
    receiver
}

/// A receiver of one kind fails by itself, and the next receiver gets the waiting messages.
fn receiver_fails(broker: &mut Broker, route: SocketAddr, sender: &mut Client, kind: Kind, failure: Failure) {
    broker.set_proxy(Some(route));
    let mut receiver = start_receiver(broker, sender, kind, failure);
    let before = ended(broker);
    match failure {
        Failure::Closed(code) => {
            receiver.raw().send_frame(opcode::CLOSE, &close_payload(code, ""));
            receiver.raw().finish();
        }
        Failure::Finished => receiver.raw().finish(),
        // The killed receiver reads up to the kill; the frozen receiver does not.
        Failure::Killed => receiver.read(READ),
        _ => {}
    }
    let (channel, case, received) = (receiver.channel.clone(), receiver.case.clone(), receiver.received.clone());
    let raw = receiver.into_raw();
    let held = if matches!(failure, Failure::Killed | Failure::FrozenThenKilled) {
        raw.reset();
        None
    } else {
        Some(raw)
    };
    wait_for_ends(broker, before + 1);
    drop(held);
    wait_for_store(sender);
    broker.set_proxy(None);
    assert_not_lost(broker, &channel, &received, &case);
}

/// The proxy of receivers of every kind fails, and the next receivers get the waiting messages.
fn proxy_fails(broker: &mut Broker, mut proxy: Proxy, failure: Failure) {
    let mut sender = Client::envelope(broker);
    broker.set_proxy(Some(proxy.address()));
    let receivers: Vec<_> = KINDS.iter().map(|kind| start_receiver(broker, &mut sender, *kind, failure)).collect();
    let before = ended(broker);
    if failure == Failure::ProxyKilled {
        proxy.kill()
    } else {
        proxy.stop()
    }
    wait_for_ends(broker, before + receivers.len());
    broker.set_proxy(None);
    wait_for_store(&mut sender);
    for receiver in &receivers {
        assert_not_lost(broker, &receiver.channel, &receiver.received, &receiver.case);
    }
}

/// Receivers of every kind stay connected and do nothing, half of them behind a lost network. Then the broker is killed.
fn receivers_are_silent(mut broker: Broker, route: SocketAddr) -> Broker {
    let mut sender = Client::envelope(&broker);
    broker.set_proxy(Some(route));
    let mut receivers: Vec<Receiver> =
        KINDS.iter().map(|kind| start_receiver(&broker, &mut sender, *kind, Failure::Frozen)).collect();
    let network = Network::start(route);
    broker.set_proxy(Some(network.address()));
    receivers.extend(KINDS.iter().map(|kind| start_receiver(&broker, &mut sender, *kind, Failure::Vanished)));
    network.forget();
    broker.set_proxy(None);
    wait_for_store(&mut sender);
    let broker = broker.kill_and_restart();
    for receiver in &receivers {
        assert_not_lost(&broker, &receiver.channel, &receiver.received, &receiver.case);
    }
    broker
}

/// The machines of receivers of every kind restart, and the next receivers get the waiting messages.
fn receivers_reboot(broker: &mut Broker, route: SocketAddr) {
    let mut sender = Client::envelope(broker);
    let network = Network::start(route);
    broker.set_proxy(Some(network.address()));
    let receivers: Vec<Receiver> =
        KINDS.iter().map(|kind| start_receiver(broker, &mut sender, *kind, Failure::Rebooted)).collect();
    network.forget();
    for receiver in &receivers {
        accept(&mut sender, &receiver.channel, MESSAGES..MESSAGES + 1);
    }
    let before = ended(broker);
    network.cut();
    wait_for_ends(broker, before + receivers.len());
    broker.set_proxy(None);
    wait_for_store(&mut sender);
    for receiver in &receivers {
        assert_not_lost(broker, &receiver.channel, &receiver.received, &receiver.case);
    }
}

fn loses_nothing(route: Route) {
    let mut broker = route.setup().start();
    let proxy = Proxy::start(route, &broker);
    let address = proxy.as_ref().map_or(broker.address(), Proxy::address);
    let mut sender = Client::envelope(&broker);
    for (failure, kind) in OWN_FAILURES.iter().flat_map(|failure| KINDS.iter().map(move |kind| (*failure, *kind))) {
        receiver_fails(&mut broker, address, &mut sender, kind, failure);
    }
    drop(sender);
    receivers_reboot(&mut broker, address);
    let mut broker = receivers_are_silent(broker, address);
    drop(proxy);
    for failure in [Failure::ProxyKilled, Failure::ProxyStopped] {
        if let Some(proxy) = Proxy::start(route, &broker) {
            proxy_fails(&mut broker, proxy, failure);
        }
    }
}

#[test]
fn nothing_is_lost_directly() {
    loses_nothing(Route::Direct);
}

#[test]
fn nothing_is_lost_behind_nginx() {
    loses_nothing(Route::Nginx);
}

#[test]
fn nothing_is_lost_behind_haproxy() {
    loses_nothing(Route::HaproxyHttp);
}

#[test]
fn nothing_is_lost_behind_haproxy_with_the_proxy_protocol() {
    loses_nothing(Route::HaproxyTcp(2));
    loses_nothing(Route::HaproxyTcp(1));
}
