//! Tests of single guarantees of the core. `simulation` tests them all in combination.

mod failures;

use std::borrow::Cow;
use std::time::Duration;

use wildmatch::WildMatch;

use super::*;
use crate::message::{Answer, DeadLetter, Dialect, Frame, Kind, Nack, Order, Payload, PublicationId, Why};
use crate::policy::{ChannelPolicy, Policies};

mod confirming;
mod expired;
mod groups;
mod holdings;
mod memory;
mod preference;
mod refusals;
mod replies;

/// A broker, its time, and the effects of the last event.
struct Scene {
    broker: Broker,
    now: Timestamp,
    effects: Effects,
    /// The user that publishes.
    user: &'static str,
    /// Publications without an id ask for a reply, too.
    answer: bool,
    delay: Option<Duration>,
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a valid name")
}

impl Scene {
    fn with(policy: ChannelPolicy) -> Self {
        let policies = Policies { named: vec![(WildMatch::new("sms"), policy)], default: ChannelPolicy::default() };
        let settings = Settings { policies, bounds: Bounds::TIGHT, ..Settings::default() };
        let broker = Broker::new(settings, Restored::default());
        Self { broker, now: Timestamp(1_000), effects: Effects::default(), user: "app", answer: false, delay: None }
    }

    fn new() -> Self {
        Self::with(ChannelPolicy { receivers: 1, ..ChannelPolicy::default() })
    }

    fn handle(&mut self, event: Event<'_>) -> Vec<Effect> {
        self.effects.clear();
        self.broker.handle(self.now, event, &mut self.effects);
        // The audit looks at every message.
        if self.broker.unsettled() < 1_000 {
            self.broker.audit();
        }
        self.effects.list.clone()
    }

    /// Whether no deadline is near. (A receiver's confirmations are watched from time to time.)
    fn is_idle(&self) -> bool {
        self.broker.next_deadline().is_none_or(|at| at.since(self.now) > Duration::from_secs(60))
    }

    /// Makes a message as the store returns it.
    fn row(&self, id: u64, text: &str) -> Message {
        Message {
            id: MessageId(id),
            channel: name("sms"),
            payload: Payload::text(text),
            created: self.now,
            expires: None,
            due: None,
            receivers: None,
            publication: None,
            deliveries: 0,
            dead: None,
        }
    }

    fn pass(&mut self, millis: u64) -> Vec<Effect> {
        self.now.0 += millis;
        self.handle(Event::Tick)
    }

    /// Subscribes a modern receiver. `limits::PREFETCH`: it names no `prefetch`.
    fn receive(&mut self, connection: u64, ack: AckMode, prefetch: u32) -> Vec<Effect> {
        let prefetch = Some(prefetch).filter(|prefetch| *prefetch != limits::PREFETCH);
        self.handle(Event::Subscribe(modern(connection, &["sms"], ack, prefetch)))
    }

    fn send(&mut self, text: &str, id: Option<&str>) -> Vec<Effect> {
        self.publish(100, "sms", text, id)
    }

    fn publish(&mut self, connection: u64, channel: &str, text: &str, id: Option<&str>) -> Vec<Effect> {
        let connection = ConnectionId(connection);
        self.publish_from(Some(connection), ReplyTo::Connection(connection), channel, text, id)
    }

    fn publish_from(
        &mut self,
        origin: Option<ConnectionId>,
        reply_to: ReplyTo,
        channel: &str,
        text: &str,
        id: Option<&str>,
    ) -> Vec<Effect> {
        let publication = Publication {
            channel: Cow::Owned(name(channel)),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Borrowed(text.as_bytes()),
            messages: std::iter::once(0..text.len()).collect(),
            verbatim: true,
        };
        self.handle(Event::Publish(&Publish {
            origin,
            user: &Arc::from(self.user),
            reply_to,
            publication: &publication,
            receivers: None,
            id: id.map(|id| PublicationId::new("app", id)),
            answer: self.answer,
            watch: matches!(reply_to, ReplyTo::Caller(_)),
            ttl: None,
            delay: self.delay,
        }))
    }
}

/// Makes the request of a modern receiver without a name and a group.
fn modern(connection: u64, channels: &[&str], ack: AckMode, prefetch: Option<u32>) -> Subscribe {
    Subscribe {
        connection: ConnectionId(connection),
        user: Arc::from("app"),
        channels: channels.iter().map(|channel| name(channel)).collect(),
        ack,
        prefetch,
        client: ClientKind::Modern,
        receiver: None,
        group: None,
        order: Order::List,
    }
}

fn deliveries(effects: &[Effect]) -> Vec<(u64, u64)> {
    let delivery = |effect: &Effect| match effect {
        Effect::Deliver { to, sequence, .. } => Some((to.0, *sequence)),
        _ => None,
    };
    effects.iter().filter_map(delivery).collect()
}

fn writes(effects: &[Effect]) -> usize {
    let appended = |effect: &Effect| match effect {
        Effect::Store(StoreEffect::Append(messages)) => messages.len(),
        _ => 0,
    };
    effects.iter().map(appended).sum()
}

fn is_confirm(effect: &Effect) -> bool {
    matches!(effect, Effect::Confirm { .. })
}

#[test]
fn a_message_confirmed_in_time_is_never_written() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let effects = scene.send("one", None);
    assert_eq!((deliveries(&effects), writes(&effects)), (vec![(1, 1)], 0));
    let asked = scene.pass(100);
    assert!(asked.iter().any(is_confirm), "a pause of 100 ms ends the burst: {asked:?}");
    let after = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert!(after.is_empty(), "{after:?}");
    assert!(scene.is_idle(), "no deadline is left");
    assert_eq!(scene.broker.counters().confirmed, 1);
}

#[test]
fn a_message_unconfirmed_for_the_write_delay_is_written() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("one", None);
    assert_eq!(writes(&scene.pass(499)), 0);
    assert_eq!(writes(&scene.pass(1)), 1);
}

#[test]
fn a_message_whose_sender_waits_is_written_at_once_and_answered_when_it_is_stored() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let effects = scene.send("one", Some("a"));
    assert_eq!(writes(&effects), 1);
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Reply { .. })), "the message is not safe yet");
    let effects = scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    let id = PublicationId::new("app", "a");
    let accepted = Reply::Accepted { id: Some(id), receivers: 1, stored: true, duplicate: false };
    assert!(matches!(&effects[..], [Effect::Reply { reply, .. }] if *reply == accepted), "{effects:?}");
}

#[test]
fn the_same_id_again_is_answered_and_delivered_to_nobody() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("one", Some("a"));
    assert!(scene.send("one", Some("a")).is_empty(), "the answer waits until the first publication is safe");
    let effects = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    let replies = effects.iter().filter(|effect| matches!(effect, Effect::Reply { .. })).count();
    assert_eq!(replies, 2, "both are answered: {effects:?}");
    let effects = scene.send("one", Some("a"));
    assert!(matches!(&effects[..], [Effect::Reply { reply: Reply::Accepted { duplicate: true, .. }, .. }]));
    scene.pass(120_000);
    assert_eq!(deliveries(&scene.send("one", Some("a"))), [(1, 2)], "dedup_window is over");
}

#[test]
fn unconfirmed_messages_go_to_the_next_receiver_in_their_order() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.receive(2, AckMode::Automatic, limits::PREFETCH);
    for text in ["one", "two", "three"] {
        assert_eq!(deliveries(&scene.send(text, None)).len(), 1);
    }
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    let gone = Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false };
    let effects = scene.handle(gone);
    assert_eq!(deliveries(&effects), [(2, 1)], "one backlog frame");
    let Some(Content::Backlog(backlog)) = scene.effects.contents.first() else { panic!("a backlog") };
    let texts: Vec<_> = backlog.messages.iter().filter_map(Payload::as_text).collect();
    assert_eq!(texts, ["two", "three"]);
}

#[test]
fn messages_wait_for_a_full_window_and_an_ack_makes_room() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    assert_eq!(deliveries(&scene.send("one", None)), [(1, 1)]);
    assert_eq!(deliveries(&scene.send("two", None)), []);
    let ack = |sequence, done| {
        let answer = if done { Answer::Ack } else { Answer::Nack(Nack::default()) };
        Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence, answer })
    };
    assert_eq!(deliveries(&scene.handle(ack(1, true))), [(1, 2)]);
    assert_eq!(deliveries(&scene.handle(ack(2, false))), [], "there is no other receiver: the message is held back");
    let again = scene.pass(1_000);
    assert!(matches!(again.last(), Some(Effect::Deliver { sequence: 3, attempt: 2, .. })), "{again:?}");
    let unknown = scene.handle(ack(2, true));
    assert!(matches!(
        &unknown[..],
        [Effect::Reply { reply: Reply::UnknownDelivery { sequence: 2, command: "ack" }, .. }]
    ));
}

#[test]
fn the_window_grows_for_a_quick_receiver_and_shrinks_for_a_slow_one() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let allowed =
        |scene: &Scene| scene.broker.receivers.iter().next().map(|(_, receiver)| receiver.window_size.allowed());
    for text in 0..limits::PREFETCH {
        scene.send(&text.to_string(), None);
    }
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 32 });
    assert_eq!(allowed(&scene), Some(128));
    assert!(scene.pass(100).iter().any(is_confirm));
    scene.pass(300);
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 64 });
    assert_eq!(allowed(&scene), Some(64));
}

fn accepted(effects: &[Effect]) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Accepted { stored, .. }, .. } => Some(*stored),
        _ => None,
    })
}

#[test]
fn a_prompt_receiver_is_asked_before_the_store() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let effects = scene.send("one", Some("a"));
    assert_eq!(
        (writes(&effects), effects.iter().any(is_confirm)),
        (1, false),
        "the receiver has not confirmed anything yet"
    );
    assert!(scene.pass(100).iter().any(is_confirm));
    assert_eq!(accepted(&scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 })), Some(false));

    let effects = scene.send("two", Some("b"));
    assert_eq!((writes(&effects), effects.iter().any(is_confirm)), (0, true));
    let effects = scene.send("three", Some("c"));
    assert_eq!((writes(&effects), effects.iter().any(is_confirm)), (0, false), "one request at a time");
    let effects = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 2 });
    assert_eq!(
        (accepted(&effects), effects.iter().any(is_confirm)),
        (Some(false), true),
        "the sender of the next message waits"
    );
    let effects = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 3 });
    assert_eq!((accepted(&effects), effects.iter().any(is_confirm)), (Some(false), false));
    assert!(scene.is_idle(), "settled messages have no deadline");
}

#[test]
fn a_message_that_is_acknowledged_at_once_is_not_written() {
    let mut scene = Scene::new();
    let done =
        |sequence| Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence, answer: Answer::Ack });
    scene.receive(1, AckMode::Manual, 8);
    assert_eq!(writes(&scene.send("one", Some("a"))), 1);
    scene.handle(done(1));
    assert_eq!(writes(&scene.send("two", Some("b"))), 0);
    assert_eq!(accepted(&scene.handle(done(2))), Some(false));
    assert_eq!(writes(&scene.send("three", Some("c"))), 0);
    assert_eq!(writes(&scene.pass(5)), 1, "the receiver is slow this time");
    scene.now.0 += 1;
    assert_eq!(writes(&scene.send("four", Some("d"))), 1);
    scene.handle(done(3));
    scene.handle(done(4));
    assert_eq!(writes(&scene.send("five", Some("e"))), 0, "the last confirmation was quick again");
}

#[test]
fn a_sender_does_not_wait_for_a_receiver_that_has_become_slow() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("one", None);
    scene.pass(100);
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert_eq!(writes(&scene.send("two", Some("b"))), 0);
    let due = scene.now.after(limits::PROMPT_CONFIRMATION);
    assert_eq!(scene.broker.next_deadline(), Some(due));
    assert_eq!(writes(&scene.pass(5)), 1);
    scene.now.0 += 1;
    assert_eq!(
        writes(&scene.send("three", Some("c"))),
        1,
        "the confirmation is late, so the message is written at once"
    );
    assert_eq!(accepted(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2), MessageId(3)])))), Some(true));
    scene.now.0 += 1_000;
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 3 });
    assert_eq!(writes(&scene.send("four", Some("d"))), 1, "the last confirmation was slow");
}

#[test]
fn a_row_of_another_program_is_delivered_like_any_message() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    // Another program has written the second message.
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let effects = scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages, complete: true }));
    assert!(!deliveries(&effects).is_empty());
    assert_eq!(scene.broker.unsettled(), 2);
    let up_to = deliveries(&effects).last().expect("a delivery").1;
    let effects = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to });
    let removed = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Remove(ids)) if ids.len() == 2);
    assert!(effects.iter().any(removed), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn a_full_backlog_refuses_the_sender() {
    let mut scene = Scene::with(ChannelPolicy { max_backlog: 2, ..ChannelPolicy::default() });
    scene.send("one", None);
    scene.send("two", None);
    let effects = scene.send("three", None);
    assert!(matches!(
        &effects[..],
        [Effect::Reply { reply: Reply::Refused { refusal: Refusal::BacklogFull, .. }, .. }]
    ));
}

#[test]
fn a_named_receiver_gets_its_position_back() {
    let mut scene = Scene::new();
    let key = ReceiverKey { user: Arc::from("u"), id: Arc::from("gateway") };
    let subscribe = |connection, receiver| {
        Event::Subscribe(Subscribe { receiver, ..modern(connection, &["sms"], AckMode::Automatic, None) })
    };
    scene.handle(subscribe(1, Some(key.clone())));
    scene.handle(subscribe(2, None));
    scene.send("one", None);
    let effects = scene.handle(Event::Claim { connection: ConnectionId(3), receiver: key });
    let ended = Effect::End { connection: ConnectionId(1), reason: EndReason::Replaced };
    assert!(effects.iter().any(|effect| format!("{effect:?}") == format!("{ended:?}")), "{effects:?}");
    assert_eq!(deliveries(&effects), [(2, 1)], "its unconfirmed message goes to the other receiver");
    scene.handle(subscribe(3, None));
    assert_eq!(deliveries(&scene.send("two", None)), [(3, 1)], "the new connection has the position of the old one");
}

#[test]
fn the_sender_of_a_paged_message_is_known_in_any_order_of_paging() {
    let (me, other) = (Some(ConnectionId(1)), Some(ConnectionId(2)));
    let mut channel = Channel::new(name("sms"), Arc::default());
    for (id, origin) in [(10, me), (11, me), (14, me), (15, None), (16, other), (12, other), (13, None)] {
        channel.page_out(MessageId(id), origin);
    }
    let found: Vec<_> = (10..=16).map(|id| channel.paged_origin(MessageId(id))).collect();
    assert_eq!(found, [me, me, other, None, me, None, other]);
}

#[test]
fn a_connection_that_has_sent_confirms_nothing_by_leaving() {
    let mut scene = Scene::new();
    scene.send("kept", None);
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    let asked = scene.receive(100, AckMode::Automatic, limits::PREFETCH);
    assert!(matches!(asked[..], [Effect::Store(StoreEffect::Load { .. })]), "{asked:?}");
    let row = scene.row(1, "kept");
    let loaded = Event::Store(StoreEvent::Loaded { channel: name("sms"), messages: vec![row], complete: true });
    assert_eq!(deliveries(&scene.handle(loaded)), [(100, 1)], "every topic connection is a receiver");
    scene.send("its publication", None);
    scene.handle(Event::Disconnected { connection: ConnectionId(100), took_only: true, listens: false });
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (0, 2), "both messages are kept");
}

#[test]
fn a_page_that_was_read_before_a_purge_is_ignored() {
    let mut scene = Scene::new();
    scene.send("kept", None);
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.handle(Event::Purge { channel: name("sms") });
    let page = vec![scene.row(1, "kept")];
    let effects =
        scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages: page, complete: true }));
    assert!(deliveries(&effects).is_empty(), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn a_steady_stream_is_confirmed_before_it_would_be_written() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let (mut sent, mut written) = (0, 0);
    for _ in 0..60 {
        let mut effects = scene.send("one every 50 ms", None);
        sent += 1;
        effects.extend(scene.pass(50));
        written += writes(&effects);
        if effects.iter().any(is_confirm) {
            scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: sent });
        }
    }
    assert_eq!(written, 0);
    assert!(scene.broker.counters().confirmed > 50);
}

/// A topic client receives the channel to which it sends. As a sender it has room in its window, because it does not get its own messages.
#[test]
fn a_sending_member_does_not_make_the_only_receiver_outrun() {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.receive(100, AckMode::Automatic, limits::PREFETCH);
    for number in 0..2 * (Bounds::TIGHT.fanout_deliveries + limits::PREFETCH as usize) {
        let effects = scene.send(&number.to_string(), None);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::End { .. })), "ended after {number} messages");
    }
}

/// DESIGN section 4 allows 1,000 bytes for an idle connection, which includes a receiver and, if no other receiver has the same channel, a
/// channel.
#[test]
fn an_idle_receiver_and_its_channel_are_small() {
    assert!(size_of::<Receiver>() <= 96, "a receiver: {} bytes", size_of::<Receiver>());
    assert!(size_of::<Channel>() <= 224, "a channel: {} bytes", size_of::<Channel>());
    assert!(size_of::<Entry>() <= 200, "a message in memory: {} bytes", size_of::<Entry>());
}
