//! What a run consists of: the channels with their policies, the clients, and the broker's configuration. The seed decides what varies.

use serde::{Deserialize, Serialize};

use super::random::Random;
use super::socket::Ending;

/// A channel and its policy, as the checker needs it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Channel {
    /// Name.
    pub name: String,
    /// Receiver limit; 0 = all.
    pub limit: u64,
    /// Messages are kept until they are received.
    pub keep: bool,
    /// `dispatch = "rotate"`.
    pub rotate: bool,
    /// Milliseconds to live; 0 = for ever.
    pub ttl: u64,
    /// Deliveries after which a message becomes a dead letter; 0 = no limit.
    pub max_deliveries: u64,
    /// Where dead letters go; empty = nowhere.
    pub dead_letter: String,
    /// Expired messages are dead letters, too.
    pub dead_letter_expired: bool,
    /// Milliseconds after which an unconfirmed delivery goes to one more receiver; 0 = never.
    pub confirm_within: u64,
}

/// Milliseconds after which an unanswered manual delivery goes to somebody else.
pub const ACK_TIMEOUT: u64 = 4_000;
/// Milliseconds of silence after which the broker pings.
pub const HEARTBEAT: u64 = 2_000;
/// Milliseconds after which a receiver that confirms nothing is ended.
pub const CONFIRM_TIMEOUT: u64 = 8_000;

/// The way that a client's connections take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    /// Straight to the broker.
    Direct,
    /// Through our own proxy, which cuts, stalls, and takes bytes that it never passes on.
    Liar,
    /// Through nginx.
    Nginx,
    /// Through HAProxy in HTTP mode.
    Haproxy,
    /// Through HAProxy in TCP mode, with a PROXY protocol header.
    HaproxyTcp,
}

impl Route {
    /// As logs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Direct => "direct",
            Self::Liar => "liar",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::HaproxyTcp => "haproxy-tcp",
        }
    }
}

/// How a receiver speaks and confirms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// Envelope, modern: pongs echo the ping.
    Modern,
    /// Envelope, legacy, as PHP: empty pongs, from inside the next read.
    Legacy,
    /// Topic, modern.
    Topic,
    /// Topic, legacy, as Java: pongs echo, and empty pings are sent.
    LegacyTopic,
    /// Topic, legacy: takes one message and leaves.
    OneShot,
    /// Envelope with acknowledgement by hand.
    Manual,
}

impl Manner {
    /// As logs call it.
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

    /// Offers `wsmb.v1`.
    pub fn is_modern(self) -> bool {
        matches!(self, Self::Modern | Self::Topic | Self::Manual)
    }

    /// Speaks the topic dialect.
    pub fn is_topic(self) -> bool {
        matches!(self, Self::Topic | Self::LegacyTopic | Self::OneShot)
    }
}

/// A receiver.
#[derive(Clone, Debug)]
pub struct Receiver {
    /// Name of the client, and of its file.
    pub name: String,
    /// What it receives.
    pub channel: String,
    /// How.
    pub manner: Manner,
    /// Its way to the broker.
    pub route: Route,
    /// It names itself (`receiver=ID`), and takes its own place over when it reconnects.
    pub named: bool,
    /// Milliseconds at most that it stays away between two connections.
    pub away: u64,
    /// It never leaves, freezes or dawdles: what it sees must be in perfect order.
    pub calm: bool,
}

/// How a sender works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Envelope, every message with an id, sent again until it is answered.
    Sure,
    /// Envelope, legacy, without ids: connects, sends some, leaves.
    Loose,
    /// Topic: connects, sends some, drops TCP.
    Publisher,
}

/// A sender.
#[derive(Clone, Debug)]
pub struct Sender {
    /// Name of the client, and of its file.
    pub name: String,
    /// Where to.
    pub channel: String,
    /// How.
    pub style: Style,
    /// Its way to the broker.
    pub route: Route,
    /// Some messages carry a ttl of their own.
    pub ttl: bool,
    /// Some messages are delayed.
    pub delay: bool,
}

/// The channels: each policy that a promise depends on.
pub fn channels(failures: bool) -> Vec<Channel> {
    let channel = |name: &str, limit, keep| Channel {
        name: name.to_owned(),
        limit,
        keep,
        rotate: false,
        ttl: 0,
        max_deliveries: 0,
        dead_letter: String::new(),
        dead_letter_expired: false,
        confirm_within: 0,
    };
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

/// The senders: at least one of each style for each kind of channel.
pub fn senders(random: &mut Random, routes: &[Route], failures: bool) -> Vec<Sender> {
    let sender = |name: &str, channel: &str, style, route| Sender {
        name: name.to_owned(),
        channel: channel.to_owned(),
        style,
        route,
        ttl: false,
        delay: false,
    };
    let mut list = vec![
        sender("sure-calm", "calm", Style::Sure, Route::Direct),
        sender("loose-calm", "calm", Style::Loose, Route::Direct),
        Sender { ttl: true, ..sender("sure-one", "one", Style::Sure, Route::Direct) },
        sender("publisher-one", "one", Style::Publisher, Route::Direct),
        Sender { delay: true, ..sender("sure-hand", "hand", Style::Sure, Route::Direct) },
        sender("loose-turn", "turn", Style::Loose, Route::Direct),
        sender("sure-tries", "tries", Style::Sure, Route::Direct),
        sender("sure-short", "short", Style::Sure, Route::Direct),
        sender("sure-script", "script", Style::Sure, Route::Direct),
        sender("loose-once", "once", Style::Loose, Route::Direct),
        sender("loose-live", "live", Style::Loose, Route::Direct),
        sender("publisher-live", "live", Style::Publisher, Route::Direct),
        sender("loose-live-one", "live-one", Style::Loose, Route::Direct),
    ];
    for (name, channel, style) in [
        ("sure-turn", "turn", Style::Sure),
        ("sure-two", "two", Style::Sure),
        ("sure-all", "all", Style::Sure),
        ("publisher-all", "all", Style::Publisher),
        ("sure-named", "named", Style::Sure),
        ("loose-hand", "hand", Style::Loose),
        ("publisher-hand", "hand", Style::Publisher),
    ] {
        list.push(sender(name, channel, style, random.pick(routes)));
    }
    if failures {
        list.push(sender("sure-guard", "guard", Style::Sure, Route::Direct));
        list.push(sender("sure-late", "late", Style::Sure, Route::Direct));
    }
    list
}

/// The receivers: every manner, directly and through the proxies.
pub fn receivers(random: &mut Random, routes: &[Route], failures: bool) -> Vec<Receiver> {
    let receiver = |name: &str, channel: &str, manner, route| Receiver {
        name: name.to_owned(),
        channel: channel.to_owned(),
        manner,
        route,
        named: false,
        away: 400,
        calm: false,
    };
    let mut list = vec![
        Receiver { calm: true, ..receiver("calm", "calm", Manner::Modern, Route::Direct) },
        receiver("one-legacy", "one", Manner::Legacy, Route::Direct),
        receiver("turn-legacy", "turn", Manner::Legacy, Route::Direct),
        receiver("hand-direct", "hand", Manner::Manual, Route::Direct),
        receiver("tries", "tries", Manner::Manual, Route::Direct),
        // Messages that live for two seconds must often find nobody.
        Receiver { away: 6_000, ..receiver("short", "short", Manner::Modern, Route::Direct) },
        receiver("once", "once", Manner::OneShot, Route::Direct),
        receiver("once-again", "once", Manner::OneShot, Route::Direct),
        receiver("live-modern", "live", Manner::Modern, Route::Direct),
        receiver("live-topic", "live", Manner::Topic, Route::Direct),
        receiver("live-one-a", "live-one", Manner::Modern, Route::Direct),
        receiver("live-one-b", "live-one", Manner::LegacyTopic, Route::Direct),
    ];
    for (name, channel, manner) in [
        ("one-modern", "one", Manner::Modern),
        ("one-topic", "one", Manner::Topic),
        ("one-java", "one", Manner::LegacyTopic),
        ("turn-modern", "turn", Manner::Modern),
        ("turn-topic", "turn", Manner::Topic),
        ("two-modern", "two", Manner::Modern),
        ("two-legacy", "two", Manner::Legacy),
        ("two-java", "two", Manner::LegacyTopic),
        ("all-modern", "all", Manner::Modern),
        ("all-legacy", "all", Manner::Legacy),
        ("all-topic", "all", Manner::Topic),
        ("hand-away", "hand", Manner::Manual),
    ] {
        list.push(receiver(name, channel, manner, random.pick(routes)));
    }
    for (name, manner) in [("named-modern", Manner::Modern), ("named-java", Manner::LegacyTopic)] {
        list.push(Receiver { named: true, ..receiver(name, "named", manner, random.pick(routes)) });
    }
    if failures {
        list.push(receiver("guard-legacy", "guard", Manner::Legacy, Route::Direct));
        list.push(receiver("guard-modern", "guard", Manner::Modern, random.pick(routes)));
        list.push(Receiver { away: 6_000, ..receiver("late", "late", Manner::Modern, Route::Direct) });
    }
    list
}

/// The broker's configuration: a port for everybody, one for a proxy that sends PROXY protocol headers, and a store.
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

/// How a receiver ends. What lies unread in a legacy client's system counts as taken when it closes with 1000 and has got one message only, so such a
/// client closes that way only when it has just read its message.
pub fn ending(random: &mut Random, just_got: bool, orderly: bool) -> Ending {
    let weight = |wanted: bool, weight| if wanted { weight } else { 0 };
    random.weighted(&[
        (3, Ending::Reset),
        (weight(orderly, 2), Ending::Fin),
        (weight(orderly && just_got, 2), Ending::Close),
        (weight(orderly, 1), Ending::Refuse),
    ])
}
