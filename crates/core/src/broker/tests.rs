//! Single promises of the core, one scene each; `simulation` holds them all against everything else.

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
mod preference;
mod replies;

/// A broker, its time, and what it wanted last.
struct Scene {
    broker: Broker,
    now: Timestamp,
    effects: Effects,
    /// Its sender waits for an answer without having given an id.
    answer: bool,
}

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).expect("a valid name")
}

impl Scene {
    fn with(policy: ChannelPolicy) -> Self {
        let policies = Policies { named: vec![(WildMatch::new("sms"), policy)], default: ChannelPolicy::default() };
        let settings = Settings { policies, bounds: Bounds::TIGHT, ..Settings::default() };
        let broker = Broker::new(settings, Restored::default());
        Self { broker, now: Timestamp(1_000), effects: Effects::default(), answer: false }
    }

    fn new() -> Self {
        Self::with(ChannelPolicy { receivers: 1, ..ChannelPolicy::default() })
    }

    fn give(&mut self, event: Event<'_>) -> Vec<Effect> {
        self.effects.clear();
        self.broker.handle(self.now, event, &mut self.effects);
        self.broker.audit();
        self.effects.list.clone()
    }

    /// Whether nothing is to be done for a long time. (A receiver's confirmations are watched from time to time.)
    fn sleeps(&self) -> bool {
        self.broker.next_deadline().is_none_or(|at| at.since(self.now) > Duration::from_secs(60))
    }

    /// A message as the store gives it back.
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
        self.give(Event::Tick)
    }

    /// A modern receiver; `limits::PREFETCH`: it names no `prefetch`.
    fn receive(&mut self, connection: u64, ack: AckMode, prefetch: u32) -> Vec<Effect> {
        let prefetch = Some(prefetch).filter(|prefetch| *prefetch != limits::PREFETCH);
        self.give(Event::Subscribe(modern(connection, &["sms"], ack, prefetch)))
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
        self.give(Event::Publish(&Publish {
            origin,
            reply_to,
            publication: &publication,
            receivers: None,
            id: id.map(|id| PublicationId::new("app", id)),
            answer: self.answer,
            ttl: None,
            delay: None,
        }))
    }
}

/// The request of a modern receiver that names neither itself nor a group.
fn modern(connection: u64, channels: &[&str], ack: AckMode, prefetch: Option<u32>) -> Subscribe {
    Subscribe {
        connection: ConnectionId(connection),
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
    let after = scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert!(after.is_empty(), "{after:?}");
    assert!(scene.sleeps(), "nothing is left to be done");
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
    assert!(!effects.iter().any(|effect| matches!(effect, Effect::Reply { .. })), "it is not safe yet");
    let effects = scene.give(Event::Stored(vec![MessageId(1)]));
    let id = PublicationId::new("app", "a");
    let accepted = Reply::Accepted { id: Some(id), receivers: 1, stored: true, duplicate: false };
    assert!(matches!(&effects[..], [Effect::Reply { reply, .. }] if *reply == accepted), "{effects:?}");
}

#[test]
fn the_same_id_again_is_answered_and_delivered_to_nobody() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("one", Some("a"));
    assert!(scene.send("one", Some("a")).is_empty(), "the answer is owed until the first is safe");
    let effects = scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    let replies = effects.iter().filter(|effect| matches!(effect, Effect::Reply { .. })).count();
    assert_eq!(replies, 2, "both are answered: {effects:?}");
    let effects = scene.send("one", Some("a"));
    assert!(matches!(&effects[..], [Effect::Reply { reply: Reply::Accepted { duplicate: true, .. }, .. }]));
    scene.pass(120_000);
    assert_eq!(deliveries(&scene.send("one", Some("a"))), [(1, 2)], "its window is over");
}

#[test]
fn what_a_receiver_did_not_confirm_goes_to_the_next_in_the_old_order() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.receive(2, AckMode::Automatic, limits::PREFETCH);
    for text in ["one", "two", "three"] {
        assert_eq!(deliveries(&scene.send(text, None)).len(), 1);
    }
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    let gone = Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false };
    let effects = scene.give(gone);
    assert_eq!(deliveries(&effects), [(2, 1)], "one backlog frame");
    let Some(Content::Backlog { messages, .. }) = scene.effects.contents.first() else { panic!("a backlog") };
    let texts: Vec<_> = messages.iter().filter_map(Payload::as_text).collect();
    assert_eq!(texts, ["two", "three"]);
}

#[test]
fn a_full_window_lets_messages_wait_and_an_ack_takes_the_next() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    assert_eq!(deliveries(&scene.send("one", None)), [(1, 1)]);
    assert_eq!(deliveries(&scene.send("two", None)), []);
    let ack = |sequence, done| {
        let answer = if done { Answer::Ack } else { Answer::Nack(Nack::default()) };
        Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence, answer })
    };
    assert_eq!(deliveries(&scene.give(ack(1, true))), [(1, 2)]);
    assert_eq!(deliveries(&scene.give(ack(2, false))), [], "nobody else is there: it is held back");
    let again = scene.pass(1_000);
    assert!(matches!(again.last(), Some(Effect::Deliver { sequence: 3, attempt: 2, .. })), "{again:?}");
    let unknown = scene.give(ack(2, true));
    assert!(matches!(
        &unknown[..],
        [Effect::Reply { reply: Reply::UnknownDelivery { sequence: 2, command: "ack" }, .. }]
    ));
}

#[test]
fn the_window_grows_for_a_quick_receiver_and_shrinks_for_a_slow_one() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let allowed = |scene: &Scene| scene.broker.receivers.iter().next().map(|(_, receiver)| receiver.pace.allowed());
    for text in 0..limits::PREFETCH {
        scene.send(&text.to_string(), None);
    }
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 32 });
    assert_eq!(allowed(&scene), Some(128));
    assert!(scene.pass(100).iter().any(is_confirm));
    scene.pass(300);
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 64 });
    assert_eq!(allowed(&scene), Some(64));
}

fn accepted(effects: &[Effect]) -> Option<bool> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Accepted { stored, .. }, .. } => Some(*stored),
        _ => None,
    })
}

#[test]
fn a_prompt_receiver_is_asked_before_the_store_is() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let effects = scene.send("one", Some("a"));
    assert_eq!((writes(&effects), effects.iter().any(is_confirm)), (1, false), "nobody knows yet how prompt it is");
    assert!(scene.pass(100).iter().any(is_confirm));
    assert_eq!(accepted(&scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 })), Some(false));

    let effects = scene.send("two", Some("b"));
    assert_eq!((writes(&effects), effects.iter().any(is_confirm)), (0, true));
    let effects = scene.send("three", Some("c"));
    assert_eq!((writes(&effects), effects.iter().any(is_confirm)), (0, false), "one question at a time");
    let effects = scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 2 });
    assert_eq!((accepted(&effects), effects.iter().any(is_confirm)), (Some(false), true), "another one waits");
    let effects = scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 3 });
    assert_eq!((accepted(&effects), effects.iter().any(is_confirm)), (Some(false), false));
    assert!(scene.sleeps(), "what is settled wakes nobody");
}

#[test]
fn a_receiver_that_acknowledges_at_once_spares_the_store_as_well() {
    let mut scene = Scene::new();
    let done =
        |sequence| Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence, answer: Answer::Ack });
    scene.receive(1, AckMode::Manual, 8);
    assert_eq!(writes(&scene.send("one", Some("a"))), 1);
    scene.give(done(1));
    assert_eq!(writes(&scene.send("two", Some("b"))), 0);
    assert_eq!(accepted(&scene.give(done(2))), Some(false));
    assert_eq!(writes(&scene.send("three", Some("c"))), 0);
    assert_eq!(writes(&scene.pass(5)), 1, "it takes its time");
    scene.now.0 += 1;
    assert_eq!(writes(&scene.send("four", Some("d"))), 1);
    scene.give(done(3));
    scene.give(done(4));
    assert_eq!(writes(&scene.send("five", Some("e"))), 0, "the fourth was quick again");
}

#[test]
fn a_sender_does_not_wait_for_a_receiver_that_has_become_slow() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("one", None);
    scene.pass(100);
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert_eq!(writes(&scene.send("two", Some("b"))), 0);
    let due = scene.now.after(limits::PROMPT_CONFIRMATION);
    assert_eq!(scene.broker.next_deadline(), Some(due));
    assert_eq!(writes(&scene.pass(5)), 1);
    scene.now.0 += 1;
    assert_eq!(writes(&scene.send("three", Some("c"))), 1, "it is overdue, so nobody waits for it any more");
    assert_eq!(accepted(&scene.give(Event::Stored(vec![MessageId(2), MessageId(3)]))), Some(true));
    scene.now.0 += 1_000;
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 3 });
    assert_eq!(writes(&scene.send("four", Some("d"))), 1, "it was slow");
}

#[test]
fn a_refused_message_leaves_nothing_behind() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    let effects = scene.give(Event::StoreFailed(vec![MessageId(1)], StoreFailure::Unavailable));
    let refused = |effect: &Effect| {
        matches!(effect, Effect::Reply { reply: Reply::Refused { refusal: Refusal::Unavailable, .. }, .. })
    };
    assert!(effects.iter().any(refused), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
    assert_eq!(writes(&scene.send("one", Some("a"))), 1, "the same id may be tried again");
}

#[test]
fn a_row_that_nobody_counted_is_a_message_like_any_other() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.give(Event::Stored(vec![MessageId(1)]));
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    // Another program has written the second one.
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let effects = scene.give(Event::Loaded { channel: name("sms"), messages, complete: true });
    assert!(!deliveries(&effects).is_empty());
    assert_eq!(scene.broker.unsettled(), 2);
    let up_to = deliveries(&effects).last().expect("a delivery").1;
    let effects = scene.give(Event::Confirmed { connection: ConnectionId(1), up_to });
    let removed = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Remove(ids)) if ids.len() == 2);
    assert!(effects.iter().any(removed), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn what_was_refused_is_removed_in_case_it_is_there_and_never_delivered() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.give(Event::Stored(vec![MessageId(1)]));
    scene.send("two", Some("b"));
    let effects = scene.give(Event::StoreFailed(vec![MessageId(2)], StoreFailure::Unavailable));
    let disowned =
        |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Disown(ids)) if *ids == [MessageId(2)]);
    assert!(effects.iter().any(disowned), "{effects:?}");
    // The page was read before the row was removed.
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let effects = scene.give(Event::Loaded { channel: name("sms"), messages, complete: true });
    assert_eq!((deliveries(&effects).len(), scene.broker.unsettled()), (1, 1));
}

#[test]
fn a_row_whose_writing_was_said_to_have_failed_is_not_delivered_twice() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.give(Event::Stored(vec![MessageId(1)]));
    scene.receive(1, AckMode::Manual, limits::PREFETCH);
    // It waits behind what is in the store, is promised, and its writing fails as far as anybody knows.
    scene.send("two", None);
    scene.pass(500);
    scene.give(Event::StoreFailed(vec![MessageId(2)], StoreFailure::Unavailable));
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let mut delivered = deliveries(&scene.give(Event::Loaded { channel: name("sms"), messages, complete: true })).len();
    delivered += deliveries(&scene.pass(1_000)).len();
    delivered += deliveries(&scene.give(Event::Stored(vec![MessageId(2)]))).len();
    assert!(delivered <= 2, "{delivered} deliveries of two messages");
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
fn an_expired_message_does_not_block_the_one_behind_it() {
    let ttl = Duration::from_secs(1);
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ttl, ..ChannelPolicy::default() });
    scene.receive(1, AckMode::Manual, 1);
    scene.send("in flight", None);
    scene.send("expires while it waits", None);
    scene.pass(900);
    scene.send("later", None);
    scene.pass(200);
    let acknowledge = Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack };
    let effects = scene.give(Event::Acknowledge(acknowledge));
    assert_eq!(deliveries(&effects), [(1, 2)]);
    let Some(Content::Backlog { messages, .. }) = scene.effects.contents.first() else { panic!("a backlog") };
    assert_eq!(messages[0].as_text(), Some("later"));
    assert_eq!(scene.broker.counters().expired, 1);
}

#[test]
fn a_named_receiver_gets_its_place_back() {
    let mut scene = Scene::new();
    let key = ReceiverKey { user: Arc::from("u"), id: Arc::from("gateway") };
    let subscribe = |connection, receiver| {
        Event::Subscribe(Subscribe { receiver, ..modern(connection, &["sms"], AckMode::Automatic, None) })
    };
    scene.give(subscribe(1, Some(key.clone())));
    scene.give(subscribe(2, None));
    scene.send("one", None);
    let effects = scene.give(Event::Claim { connection: ConnectionId(3), receiver: key });
    let ended = Effect::End { connection: ConnectionId(1), reason: EndReason::Replaced };
    assert!(effects.iter().any(|effect| format!("{effect:?}") == format!("{ended:?}")), "{effects:?}");
    assert_eq!(deliveries(&effects), [(2, 1)], "what it had not confirmed goes to who is there");
    scene.give(subscribe(3, None));
    assert_eq!(deliveries(&scene.send("two", None)), [(3, 1)], "the new connection stands where the old one stood");
}

#[test]
fn whose_a_paged_message_is_survives_any_order_of_paging() {
    let (me, other) = (Some(ConnectionId(1)), Some(ConnectionId(2)));
    let mut channel = Channel::new(name("sms"), Arc::default());
    for (id, origin) in [(10, me), (11, me), (14, me), (15, None), (16, other), (12, other), (13, None)] {
        channel.page_out(MessageId(id), origin);
    }
    let found: Vec<_> = (10..=16).map(|id| channel.paged_origin(MessageId(id))).collect();
    assert_eq!(found, [me, me, other, None, me, None, other]);
}

#[test]
fn who_came_to_send_confirms_nothing_by_leaving() {
    let mut scene = Scene::new();
    scene.send("kept", None);
    scene.give(Event::Stored(vec![MessageId(1)]));
    let asked = scene.receive(100, AckMode::Automatic, limits::PREFETCH);
    assert!(matches!(asked[..], [Effect::Store(StoreEffect::Load { .. })]), "{asked:?}");
    let row = scene.row(1, "kept");
    let loaded = Event::Loaded { channel: name("sms"), messages: vec![row], complete: true };
    assert_eq!(deliveries(&scene.give(loaded)), [(100, 1)], "every topic connection is a receiver");
    scene.send("what it came for", None);
    scene.give(Event::Disconnected { connection: ConnectionId(100), took_only: true, listens: false });
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (0, 2), "the gateway will get both");
}

#[test]
fn a_page_that_was_read_before_a_purge_is_thrown_away() {
    let mut scene = Scene::new();
    scene.send("kept", None);
    scene.give(Event::Stored(vec![MessageId(1)]));
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.give(Event::Purge { channel: name("sms") });
    let page = vec![scene.row(1, "kept")];
    let effects = scene.give(Event::Loaded { channel: name("sms"), messages: page, complete: true });
    assert!(deliveries(&effects).is_empty(), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn a_steady_stream_without_a_pause_is_confirmed_before_it_would_be_written() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let (mut sent, mut written) = (0, 0);
    for _ in 0..60 {
        let mut effects = scene.send("one every 50 ms", None);
        sent += 1;
        effects.extend(scene.pass(50));
        written += writes(&effects);
        if effects.iter().any(is_confirm) {
            scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: sent });
        }
    }
    assert_eq!(written, 0);
    assert!(scene.broker.counters().confirmed > 50);
}

/// A topic client receives what it sends to: as a member of the channel it has always room for what it does not get.
#[test]
fn the_only_receiver_is_not_outrun_by_the_one_who_sends() {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.receive(100, AckMode::Automatic, limits::PREFETCH);
    for number in 0..2 * (Bounds::TIGHT.fanout_deliveries + limits::PREFETCH as usize) {
        let effects = scene.send(&number.to_string(), None);
        assert!(!effects.iter().any(|effect| matches!(effect, Effect::End { .. })), "ended after {number} messages");
    }
}

/// DESIGN section 4: 1,000 bytes for an idle connection, and it has one of each, if it receives a channel that nobody else does.
#[test]
fn an_idle_receiver_and_its_channel_are_small() {
    assert!(size_of::<Receiver>() <= 96, "a receiver: {} bytes", size_of::<Receiver>());
    assert!(size_of::<Channel>() <= 208, "a channel: {} bytes", size_of::<Channel>());
}

/// A broker whose channel `sms` holds two messages at the most, each for a second.
fn small_and_short() -> Scene {
    let ttl = Duration::from_secs(1);
    Scene::with(ChannelPolicy { receivers: 1, max_backlog: 2, ttl, ..ChannelPolicy::default() })
}

fn refusal(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Refused { refusal, .. }, .. } => Some(*refusal),
        _ => None,
    })
}

#[test]
fn what_has_expired_counts_against_no_limit_though_the_store_still_holds_it() {
    let mut scene = small_and_short();
    for id in ["a", "b"] {
        assert_eq!(refusal(&scene.send(id, Some(id))), None);
    }
    scene.give(Event::Stored(vec![MessageId(1), MessageId(2)]));
    scene.now.0 += 999;
    assert_eq!(refusal(&scene.send("c", Some("c"))), Some(Refusal::BacklogFull));
    scene.now.0 += 1;
    for id in ["d", "e"] {
        assert_eq!(refusal(&scene.send(id, Some(id))), None, "nothing was swept, and the others have expired");
    }
    assert_eq!(refusal(&scene.send("f", Some("f"))), Some(Refusal::BacklogFull), "the limit is one still");
    let gone = vec![(MessageId(1), name("sms")), (MessageId(2), name("sms"))];
    scene.give(Event::Swept { gone, spared: Vec::new(), more: false });
    assert_eq!((scene.broker.unsettled(), scene.broker.counters().expired), (2, 2));
    assert_eq!(refusal(&scene.send("g", Some("g"))), Some(Refusal::BacklogFull));
}

#[test]
fn what_has_expired_in_flight_counts_against_no_limit_either() {
    let mut scene = small_and_short();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("a", None);
    scene.send("b", None);
    assert_eq!(refusal(&scene.send("c", None)), Some(Refusal::BacklogFull));
    let effects = scene.pass(1_000);
    assert_eq!((scene.broker.unsettled(), deliveries(&effects).len()), (1, 0), "what waited has left in time");
    scene.send("d", None);
    assert_eq!(refusal(&scene.send("e", None)), None);
    assert_eq!(refusal(&scene.send("f", None)), Some(Refusal::BacklogFull));
}

#[test]
fn a_publication_that_was_written_too_late_has_expired() {
    let mut scene = small_and_short();
    scene.send("a", Some("a"));
    scene.now.0 += 1_000;
    assert_eq!(refusal(&scene.give(Event::Stored(vec![MessageId(1)]))), Some(Refusal::Expired));
    scene.send("b", Some("b"));
    scene.now.0 += 999;
    assert_eq!(accepted(&scene.give(Event::Stored(vec![MessageId(2)]))), Some(true));
}

#[test]
fn a_publication_that_was_given_back_and_expired_before_it_was_safe_is_answered_so() {
    let mut scene = small_and_short();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("a", Some("a"));
    scene.give(Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false });
    assert_eq!(refusal(&scene.pass(1_000)), Some(Refusal::Expired));
}

#[test]
fn sweeps_follow_one_another_until_nothing_is_left() {
    let mut scene = small_and_short();
    scene.send("a", None);
    let is_sweep = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Sweep { .. }));
    assert!(scene.pass(Bounds::TIGHT.sweep_every.as_millis() as u64).iter().any(is_sweep));
    scene.give(Event::Swept { gone: Vec::new(), spared: Vec::new(), more: true });
    assert_eq!(scene.broker.next_deadline(), Some(scene.now), "there is more");
    assert!(scene.pass(0).iter().any(is_sweep));
    scene.give(Event::Swept { gone: Vec::new(), spared: Vec::new(), more: false });
    assert_eq!(scene.broker.next_deadline(), Some(scene.now.after(Bounds::TIGHT.sweep_every)));
}

#[test]
fn what_the_store_held_is_reckoned_anew_when_the_wall_clock_was_behind() {
    let mut scene = small_and_short();
    let row = |id: u64, due: Option<u64>| Message {
        expires: Some(Timestamp(9_000_000)),
        due: due.map(Timestamp),
        ..scene.row(id, &id.to_string())
    };
    let delayed = vec![row(7, Some(3_700_000))];
    let expiries = vec![(Timestamp(500_000), 1)];
    let held = ChannelSummary { channel: name("sms"), messages: 1, last: MessageId(5), expiries };
    let restored = Restored { channels: vec![held], delayed, last_id: MessageId(7), ..Restored::default() };
    scene.broker = Broker::new(scene.broker.settings.clone(), restored);
    assert_eq!(refusal(&scene.send("a", Some("a"))), Some(Refusal::BacklogFull));
    scene.give(Event::WallAdvanced(Duration::from_secs(3_600)));
    assert_eq!(refusal(&scene.send("b", Some("b"))), None, "what is only in the store has expired");
    let effects = scene.pass(100_000);
    let is_due = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Replace { .. }));
    assert!(effects.iter().any(is_due), "what was to come at a time of the day comes then: {effects:?}");
    let late = scene.give(Event::Stored(vec![MessageId(8)]));
    assert_eq!(refusal(&late), Some(Refusal::Expired), "what was accepted since has lived its time");
}

/// What the sender was told: receivers, stored, duplicate.
fn told(effects: &[Effect]) -> Vec<(u32, bool, bool)> {
    let told = |effect: &Effect| match effect {
        Effect::Reply { reply: Reply::Accepted { receivers, stored, duplicate, .. }, .. } => {
            Some((*receivers, *stored, *duplicate))
        }
        _ => None,
    };
    effects.iter().filter_map(told).collect()
}

#[test]
fn a_message_that_had_to_wait_for_its_receiver_is_told_to_be_there() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("one", None);
    assert!(told(&scene.send("two", Some("b"))).is_empty(), "it waits for room");
    let ack = Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack });
    assert_eq!(deliveries(&scene.give(ack)), [(1, 2)]);
    assert_eq!(told(&scene.give(Event::Stored(vec![MessageId(2)]))), [(1, true, false)]);
}

#[test]
fn a_duplicate_is_told_whether_the_first_is_still_in_the_store() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    assert_eq!(told(&scene.give(Event::Stored(vec![MessageId(1)]))), [(0, true, false)]);
    assert_eq!(told(&scene.send("one", Some("a"))), [(0, true, true)], "it waits");
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let row = Message { publication: Some(PublicationId::new("app", "a")), ..scene.row(1, "one") };
    scene.give(Event::Loaded { channel: name("sms"), messages: vec![row], complete: true });
    assert_eq!(told(&scene.send("one", Some("a"))), [(0, true, true)], "it is in flight");
    scene.give(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert_eq!(told(&scene.send("one", Some("a"))), [(0, false, true)], "it is confirmed");
}

#[test]
fn a_duplicate_of_what_was_purged_or_has_expired_is_not_called_stored() {
    let mut scene = Scene::with(ChannelPolicy { ttl: Duration::from_secs(60), ..ChannelPolicy::default() });
    scene.send("one", Some("a"));
    scene.give(Event::Stored(vec![MessageId(1)]));
    scene.now.0 += 59_999;
    assert_eq!(told(&scene.send("one", Some("a"))), [(0, true, true)]);
    scene.now.0 += 1;
    assert_eq!(told(&scene.send("one", Some("a"))), [(0, false, true)], "its time is over, swept or not");
    scene.send("two", Some("b"));
    scene.give(Event::Stored(vec![MessageId(2)]));
    scene.give(Event::Purge { channel: name("sms") });
    assert_eq!(told(&scene.send("two", Some("b"))), [(0, false, true)]);
}

#[test]
fn a_sender_that_waits_without_an_id_is_answered_once() {
    let mut scene = Scene::new();
    scene.answer = true;
    assert_eq!(writes(&scene.send("one", None)), 1, "its sender waits, so it is written at once");
    assert_eq!(told(&scene.give(Event::Stored(vec![MessageId(1)]))), [(0, true, false)]);
    scene.send("two", None);
    let effects = scene.give(Event::StoreFailed(vec![MessageId(2)], StoreFailure::Full));
    let refused =
        |effect: &&Effect| matches!(effect, Effect::Reply { reply: Reply::Refused { id: None, answer: true, .. }, .. });
    assert_eq!(effects.iter().filter(refused).count(), 1, "{effects:?}");
}

#[test]
fn a_client_that_has_finished_sending_is_answered_and_receives_nothing() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.give(Event::Subscribe(modern(100, &["sms"], AckMode::Automatic, Some(limits::PREFETCH))));
    let connection = ConnectionId(100);
    let gone = |listens| Event::Disconnected { connection, took_only: false, listens };
    scene.give(gone(true));
    assert_eq!(told(&scene.give(Event::Stored(vec![MessageId(1)]))), [(0, true, false)]);
    scene.send("two", Some("b"));
    assert!(scene.give(gone(false)).is_empty());
    assert!(told(&scene.give(Event::Stored(vec![MessageId(2)]))).is_empty(), "there is nobody to be told");
}
