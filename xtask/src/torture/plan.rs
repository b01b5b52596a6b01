//! The channels, clients and broker configuration of a run. The seed decides the routes and some settings.

use serde::{Deserialize, Serialize};

use super::random::Random;
use super::socket::Ending;

/// A channel and its policy. The checker reads it from `channels.json`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Channel {
    pub name: String,
    /// `receivers`; 0 = all.
    pub limit: u64,
    pub keep: bool,
    /// `dispatch = "rotate"`.
    pub rotate: bool,
    /// Milliseconds; 0 = unlimited.
    pub ttl: u64,
    /// Deliveries after which a message becomes a dead letter; 0 = no limit.
    pub max_deliveries: u64,
    /// The channel for dead letters; empty = none.
    pub dead_letter: String,
    pub dead_letter_expired: bool,
    /// Milliseconds after which an unconfirmed message is delivered to one more receiver; 0 = never.
    pub confirm_within: u64,
}

impl Channel {
    pub fn new(name: &str, limit: u64, keep: bool) -> Self {
        Self { name: name.to_owned(), limit, keep, ..Self::default() }
    }
}

/// Milliseconds after which an unanswered manual delivery is delivered again.
pub const ACK_TIMEOUT: u64 = 4_000;
/// Milliseconds of silence after which the broker pings.
pub const HEARTBEAT: u64 = 2_000;
/// Milliseconds after which the broker closes the connection of a receiver that confirms nothing.
pub const CONFIRM_TIMEOUT: u64 = 8_000;

/// The path of a client's connections to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Direct,
    /// Through [`super::proxy`], which cuts, stalls and discards.
    FaultyProxy,
    Nginx,
    /// HAProxy in HTTP mode.
    Haproxy,
    /// HAProxy in TCP mode, with a PROXY protocol header.
    HaproxyTcp,
}

impl Route {
    /// The route's name in the history files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::FaultyProxy => "liar",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::HaproxyTcp => "haproxy-tcp",
        }
    }
}

/// The dialect of a receiver, and how it confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiverKind {
    /// Envelope, modern: pongs echo the ping.
    Modern,
    /// Envelope, legacy, as the PHP clients: pongs are empty.
    Legacy,
    /// Topic, modern.
    Topic,
    /// Topic, legacy, as the Java clients: pongs echo the ping, and the client sends empty pings.
    LegacyTopic,
    /// Topic, legacy: receives one message and closes the connection.
    OneShot,
    /// Envelope with manual acknowledgement.
    Manual,
}

impl ReceiverKind {
    /// The kind's name in the history files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Modern => "modern",
            Self::Legacy => "legacy",
            Self::Topic => "topic",
            Self::LegacyTopic => "legacy-topic",
            Self::OneShot => "one-shot",
            Self::Manual => "manual",
        }
    }

    /// Whether the client offers the subprotocol `wsmb.v1`.
    pub fn is_modern(self) -> bool {
        matches!(self, Self::Modern | Self::Topic | Self::Manual)
    }

    /// Whether the client uses the topic dialect.
    pub fn is_topic(self) -> bool {
        matches!(self, Self::Topic | Self::LegacyTopic | Self::OneShot)
    }
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Name of the client and of its history file.
    pub name: String,
    pub channel: String,
    pub kind: ReceiverKind,
    pub route: Route,
    /// Whether the client sends `receiver=ID`, so that a new connection replaces its old one.
    pub named: bool,
    /// The longest time between two connections, in milliseconds.
    pub away: u64,
    /// Whether the client never disconnects, freezes or reads slowly. Its messages must then be in exact order.
    pub calm: bool,
}

/// The dialect of a sender, and whether it repeats messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SenderKind {
    /// Envelope. Each publication has an id and is repeated until it is answered. These clients are named `sure-…`.
    Reliable,
    /// Envelope, legacy, without ids: sends some messages and disconnects. These clients are named `loose-…`.
    Unconfirmed,
    /// Topic: sends some messages and disconnects.
    Publisher,
}

/// A sender.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Name of the client and of its history file.
    pub name: String,
    pub channel: String,
    pub kind: SenderKind,
    pub route: Route,
    /// Whether some messages have a `ttl`.
    pub ttl: bool,
    /// Whether some messages have a `delay`.
    pub delay: bool,
}

/// Returns one channel for each policy that affects a promise.
pub fn channels(failures: bool) -> Vec<Channel> {
    let channel = Channel::new;
    let mut list = vec![
        channel("calm", 1, true),
        channel("one", 1, true),
        Channel { rotate: true, ..channel("turn", 1, true) },
        channel("two", 2, true),
        channel("all", 0, true),
        channel("hand", 1, true),
        Channel { max_deliveries: 3, dead_letter: "dead".to_owned(), ..channel("tries", 1, true) },
        channel("dead", 1, true),
        Channel { ttl: 2_000, ..channel("short", 1, true) },
        channel("script", 1, true),
        channel("once", 1, true),
        channel("named", 1, true),
        channel("live", 0, false),
        channel("live-one", 1, false),
    ];
    if failures {
        list.push(Channel { confirm_within: 1_000, ..channel("guard", 1, true) });
        let dead_letter = "dead-late".to_owned();
        list.push(Channel { ttl: 2_000, dead_letter, dead_letter_expired: true, ..channel("late", 1, true) });
        list.push(channel("dead-late", 1, true));
    }
    list
}

/// Returns the senders.
pub fn senders(random: &mut Random, routes: &[Route], failures: bool) -> Vec<Sender> {
    let sender = |name: &str, channel: &str, kind, route| Sender {
        name: name.to_owned(),
        channel: channel.to_owned(),
        kind,
        route,
        ttl: false,
        delay: false,
    };
    let mut list = vec![
        sender("sure-calm", "calm", SenderKind::Reliable, Route::Direct),
        sender("loose-calm", "calm", SenderKind::Unconfirmed, Route::Direct),
        Sender { ttl: true, ..sender("sure-one", "one", SenderKind::Reliable, Route::Direct) },
        sender("publisher-one", "one", SenderKind::Publisher, Route::Direct),
        Sender { delay: true, ..sender("sure-hand", "hand", SenderKind::Reliable, Route::Direct) },
        sender("loose-turn", "turn", SenderKind::Unconfirmed, Route::Direct),
        sender("sure-tries", "tries", SenderKind::Reliable, Route::Direct),
        sender("sure-short", "short", SenderKind::Reliable, Route::Direct),
        sender("sure-script", "script", SenderKind::Reliable, Route::Direct),
        sender("loose-once", "once", SenderKind::Unconfirmed, Route::Direct),
        sender("loose-live", "live", SenderKind::Unconfirmed, Route::Direct),
        sender("publisher-live", "live", SenderKind::Publisher, Route::Direct),
        sender("loose-live-one", "live-one", SenderKind::Unconfirmed, Route::Direct),
    ];
    for (name, channel, kind) in [
        ("sure-turn", "turn", SenderKind::Reliable),
        ("sure-two", "two", SenderKind::Reliable),
        ("sure-all", "all", SenderKind::Reliable),
        ("publisher-all", "all", SenderKind::Publisher),
        ("sure-named", "named", SenderKind::Reliable),
        ("loose-hand", "hand", SenderKind::Unconfirmed),
        ("publisher-hand", "hand", SenderKind::Publisher),
    ] {
        list.push(sender(name, channel, kind, random.pick(routes)));
    }
    if failures {
        list.push(sender("sure-guard", "guard", SenderKind::Reliable, Route::Direct));
        list.push(sender("sure-late", "late", SenderKind::Reliable, Route::Direct));
    }
    list
}

/// Returns receivers of every kind, directly connected and behind proxies.
pub fn receivers(random: &mut Random, routes: &[Route], failures: bool) -> Vec<Receiver> {
    let receiver = |name: &str, channel: &str, kind, route| Receiver {
        name: name.to_owned(),
        channel: channel.to_owned(),
        kind,
        route,
        named: false,
        away: 400,
        calm: false,
    };
    let mut list = vec![
        Receiver { calm: true, ..receiver("calm", "calm", ReceiverKind::Modern, Route::Direct) },
        receiver("one-legacy", "one", ReceiverKind::Legacy, Route::Direct),
        receiver("turn-legacy", "turn", ReceiverKind::Legacy, Route::Direct),
        receiver("hand-direct", "hand", ReceiverKind::Manual, Route::Direct),
        receiver("tries", "tries", ReceiverKind::Manual, Route::Direct),
        // The channel's messages live for two seconds and must often expire while no receiver is connected.
        Receiver { away: 6_000, ..receiver("short", "short", ReceiverKind::Modern, Route::Direct) },
        receiver("once", "once", ReceiverKind::OneShot, Route::Direct),
        receiver("once-again", "once", ReceiverKind::OneShot, Route::Direct),
        receiver("live-modern", "live", ReceiverKind::Modern, Route::Direct),
        receiver("live-topic", "live", ReceiverKind::Topic, Route::Direct),
        receiver("live-one-a", "live-one", ReceiverKind::Modern, Route::Direct),
        receiver("live-one-b", "live-one", ReceiverKind::LegacyTopic, Route::Direct),
    ];
    for (name, channel, kind) in [
        ("one-modern", "one", ReceiverKind::Modern),
        ("one-topic", "one", ReceiverKind::Topic),
        ("one-java", "one", ReceiverKind::LegacyTopic),
        ("turn-modern", "turn", ReceiverKind::Modern),
        ("turn-topic", "turn", ReceiverKind::Topic),
        ("two-modern", "two", ReceiverKind::Modern),
        ("two-legacy", "two", ReceiverKind::Legacy),
        ("two-java", "two", ReceiverKind::LegacyTopic),
        ("all-modern", "all", ReceiverKind::Modern),
        ("all-legacy", "all", ReceiverKind::Legacy),
        ("all-topic", "all", ReceiverKind::Topic),
        ("hand-away", "hand", ReceiverKind::Manual),
    ] {
        list.push(receiver(name, channel, kind, random.pick(routes)));
    }
    for (name, kind) in [("named-modern", ReceiverKind::Modern), ("named-java", ReceiverKind::LegacyTopic)] {
        list.push(Receiver { named: true, ..receiver(name, "named", kind, random.pick(routes)) });
    }
    if failures {
        list.push(receiver("guard-legacy", "guard", ReceiverKind::Legacy, Route::Direct));
        list.push(receiver("guard-modern", "guard", ReceiverKind::Modern, random.pick(routes)));
        list.push(Receiver { away: 6_000, ..receiver("late", "late", ReceiverKind::Modern, Route::Direct) });
    }
    list
}

/// Returns the broker's configuration. `behind` is the port for a proxy that sends PROXY protocol headers.
pub fn configuration(random: &mut Random, channels: &[Channel], port: u16, behind: u16, store: &str) -> String {
    let write_delay = random.pick(&[20, 100, 500]);
    let batch = random.pick(&[1, 10]);
    let mut text = format!(
        "[server]\nlisten = \"127.0.0.1:{port}\"\nheartbeat = \"{HEARTBEAT}ms\"\nconfirm_timeout = \"{CONFIRM_TIMEOUT}ms\"\n\
         [[listener]]\naddress = \"127.0.0.1:{behind}\"\nproxy_protocol = true\n\
         [channel_defaults]\nack_timeout = \"{ACK_TIMEOUT}ms\"\n\
         [auth]\nhtpasswd = []\nusers = [\"app:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]\n\
         [store]\nurl = \"{store}\"\nbatch = {batch}\nwrite_delay = \"{write_delay}ms\"\n"
    );
    for channel in channels {
        text += &format!(
            "[[channel]]\nname = \"{}\"\nreceivers = {}\nkeep = {}\nttl = \"{}ms\"\nmax_deliveries = {}\nack_timeout = \"{ACK_TIMEOUT}ms\"\n",
            channel.name, channel.limit, channel.keep, channel.ttl, channel.max_deliveries,
        );
        if channel.rotate {
            text += "dispatch = \"rotate\"\n";
        }
        if !channel.dead_letter.is_empty() {
            text += &format!("dead_letter = \"{}\"\n", channel.dead_letter);
        }
        if channel.dead_letter_expired {
            text += "dead_letter_expired = true\n";
        }
        if channel.confirm_within > 0 {
            text += &format!("confirm_within = \"{}ms\"\n", channel.confirm_within);
        }
    }
    text
}

/// Chooses how a receiver ends its connection. An orderly close of a legacy client with a single message confirms the message even if it is unread in
/// the client's socket buffer. Therefore a client closes with 1000 only directly after it has read a message.
pub fn ending(random: &mut Random, just_got: bool, orderly: bool) -> Ending {
    let weight = |wanted: bool, weight| if wanted { weight } else { 0 };
    random.weighted(&[
        (3, Ending::Reset),
        (weight(orderly, 2), Ending::Fin),
        (weight(orderly && just_got, 2), Ending::Close),
        (weight(orderly, 1), Ending::Refuse),
    ])
}
