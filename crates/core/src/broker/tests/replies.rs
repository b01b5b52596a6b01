//! Replies and origins: the reply goes to the connection that waits for it. The origin of a publication does not get the publication. Often
//! both are the same connection.

use super::*;

const RECEIVER: ConnectionId = ConnectionId(1);

/// Returns the receivers of the replies and of the deliveries.
fn answers_and_deliveries(effects: &[Effect]) -> (Vec<ReplyTo>, Vec<ConnectionId>) {
    let answers = effects.iter().filter_map(|effect| match effect {
        Effect::Reply { to, .. } => Some(*to),
        _ => None,
    });
    let deliveries = effects.iter().flat_map(|effect| match effect {
        Effect::Deliver { to, .. } => vec![*to],
        Effect::Broadcast { to, except, .. } => to.iter().copied().filter(|to| Some(*to) != *except).collect(),
        _ => Vec::new(),
    });
    (answers.collect(), deliveries.collect())
}

#[test]
fn a_receiver_of_the_reply_also_gets_a_publication_of_another_origin() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        scene.receive(RECEIVER.0, AckMode::Manual, 8);
        let asker = ReplyTo::Connection(RECEIVER);
        let mut effects = scene.publish_from(None, asker, "sms", "a", Some("1"));
        effects.extend(scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)]))));
        assert_eq!(answers_and_deliveries(&effects), (vec![asker], vec![RECEIVER]), "kept: {keep}");
    }
}

#[test]
fn a_connection_that_waits_for_a_reply_and_did_not_send_gets_the_reply() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        scene.receive(RECEIVER.0, AckMode::Manual, 8);
        let asker = ReplyTo::Connection(ConnectionId(7));
        let mut effects = scene.publish_from(Some(RECEIVER), asker, "sms", "a", Some("1"));
        effects.extend(scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)]))));
        assert_eq!(answers_and_deliveries(&effects), (vec![asker], vec![]), "kept: {keep}");
    }
}

#[test]
fn without_a_receiver_of_the_reply_there_is_no_reply() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        for _ in 0..2 {
            let mut effects = scene.publish_from(Some(RECEIVER), ReplyTo::Nobody, "sms", "a", Some("1"));
            effects.extend(scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)]))));
            assert_eq!(answers_and_deliveries(&effects).0, []);
        }
    }
}

/// Returns the fields of the `00` replies: receivers, stored, duplicate.
fn accepted_replies(effects: &[Effect]) -> Vec<(u32, bool, bool)> {
    let reply = |effect: &Effect| match effect {
        Effect::Reply { reply: Reply::Accepted { receivers, stored, duplicate, .. }, .. } => {
            Some((*receivers, *stored, *duplicate))
        }
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

#[test]
fn the_reply_counts_a_receiver_that_got_the_message_later() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("one", None);
    assert!(accepted_replies(&scene.send("two", Some("b"))).is_empty(), "the message waits for room");
    let ack = Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack });
    assert_eq!(deliveries(&scene.handle(ack)), [(1, 2)]);
    assert_eq!(
        accepted_replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])))),
        [(1, true, false)]
    );
}

#[test]
fn the_reply_to_a_duplicate_says_whether_the_message_is_still_stored() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    assert_eq!(
        accepted_replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])))),
        [(0, true, false)]
    );
    assert_eq!(accepted_replies(&scene.send("one", Some("a"))), [(0, true, true)], "the message waits");
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let row = Message { publication: Some(PublicationId::new("app", "a")), ..scene.row(1, "one") };
    scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages: vec![row], complete: true }));
    assert_eq!(accepted_replies(&scene.send("one", Some("a"))), [(0, true, true)], "the message is in flight");
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert_eq!(accepted_replies(&scene.send("one", Some("a"))), [(0, false, true)], "the message is confirmed");
}

#[test]
fn a_duplicate_of_a_purged_or_expired_message_is_not_reported_as_stored() {
    let mut scene = Scene::with(ChannelPolicy { ttl: Duration::from_secs(60), ..ChannelPolicy::default() });
    scene.send("one", Some("a"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    scene.now.0 += 59_999;
    assert_eq!(accepted_replies(&scene.send("one", Some("a"))), [(0, true, true)]);
    scene.now.0 += 1;
    assert_eq!(
        accepted_replies(&scene.send("one", Some("a"))),
        [(0, false, true)],
        "the message has expired, although no sweep has run"
    );
    scene.send("two", Some("b"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])));
    scene.handle(Event::Purge { channel: name("sms") });
    assert_eq!(accepted_replies(&scene.send("two", Some("b"))), [(0, false, true)]);
}

#[test]
fn a_sender_that_waits_without_an_id_is_answered_once() {
    let mut scene = Scene::new();
    scene.answer = true;
    assert_eq!(writes(&scene.send("one", None)), 1, "the sender waits, so the message is written at once");
    assert_eq!(
        accepted_replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])))),
        [(0, true, false)]
    );
    scene.send("two", None);
    let effects = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(2)], StoreFailure::Full)));
    let refused =
        |effect: &&Effect| matches!(effect, Effect::Reply { reply: Reply::Refused { id: None, answer: true, .. }, .. });
    assert_eq!(effects.iter().filter(refused).count(), 1, "{effects:?}");
}

#[test]
fn a_half_closed_client_gets_its_replies_and_no_messages() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.handle(Event::Subscribe(modern(100, &["sms"], AckMode::Automatic, Some(limits::PREFETCH))));
    let connection = ConnectionId(100);
    let gone = |listens| Event::Disconnected { connection, took_only: false, listens };
    scene.handle(gone(true));
    assert_eq!(
        accepted_replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])))),
        [(0, true, false)]
    );
    scene.send("two", Some("b"));
    assert!(scene.handle(gone(false)).is_empty());
    assert!(
        accepted_replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])))).is_empty(),
        "the connection gets no replies any more"
    );
}

#[test]
fn a_caller_learns_at_once_that_its_stored_message_has_expired() {
    let ttl = Duration::from_millis(20);
    let mut scene = Scene::with(ChannelPolicy { ttl, ..ChannelPolicy::default() });
    let caller = ReplyTo::Caller(CallerId(1));
    scene.publish_from(None, caller, "sms", "a", Some("1"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    let swept = scene.pass(20);
    assert!(matches!(swept[..], [Effect::Store(StoreEffect::Sweep { now, .. })] if now == scene.now), "{swept:?}");
    let gone = vec![(MessageId(1), name("sms"))];
    let told = scene.handle(Event::Store(StoreEvent::Swept { gone, spared: vec![], more: false }));
    let expired = |effect: &Effect| matches!(effect, Effect::Reply { to, reply: Reply::Settled(Outcome::Expired) } if *to == caller);
    assert!(told.iter().any(expired), "{told:?}");
}
