//! Writes that fail: what is refused, and what stays.

use super::*;

const UNAVAILABLE: StoreFailure = StoreFailure::Unavailable;

impl Scene {
    /// Publishes several messages of four bytes each, with the id "a".
    fn send_together(&mut self, texts: &[&str]) -> Vec<Effect> {
        let frame = texts.concat();
        let publication = Publication {
            channel: Cow::Owned(name("sms")),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Borrowed(frame.as_bytes()),
            messages: (0..texts.len()).map(|index| index * 4..index * 4 + 4).collect(),
            verbatim: true,
        };
        self.handle(Event::Publish(&Publish {
            origin: None,
            user: &Arc::from("app"),
            reply_to: ReplyTo::Connection(ConnectionId(100)),
            publication: &publication,
            receivers: None,
            id: Some(PublicationId::new("app", "a")),
            answer: false,
            watch: false,
            ttl: None,
            delay: None,
        }))
    }
}

fn replies(effects: &[Effect]) -> Vec<Option<Refusal>> {
    let reply = |effect: &Effect| match effect {
        Effect::Reply { reply: Reply::Accepted { .. }, .. } => Some(None),
        Effect::Reply { reply: Reply::Refused { refusal, .. }, .. } => Some(Some(*refusal)),
        _ => None,
    };
    effects.iter().filter_map(reply).collect()
}

fn disowned(effects: &[Effect]) -> Vec<u64> {
    let disowned = |effect: &Effect| match effect {
        Effect::Store(StoreEffect::Disown(ids)) => ids.iter().map(|id| id.0).collect(),
        _ => Vec::new(),
    };
    effects.iter().flat_map(disowned).collect()
}

fn removed(effects: &[Effect]) -> Vec<u64> {
    let removed = |effect: &Effect| match effect {
        Effect::Store(StoreEffect::Remove(ids)) => ids.iter().map(|id| id.0).collect(),
        _ => Vec::new(),
    };
    effects.iter().flat_map(removed).collect()
}

#[test]
fn a_publication_that_a_receiver_has_begun_to_get_is_not_refused() {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("zero", None);
    // The receiver has no room, so the publication waits; then it gets the first of the two messages.
    scene.send_together(&["one ", "two "]);
    let got = scene.handle(Event::Acknowledge(Acknowledge {
        connection: ConnectionId(1),
        sequence: 1,
        answer: crate::message::Answer::Ack,
    }));
    assert_eq!(deliveries(&got), [(1, 2)]);
    let failed = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(2), MessageId(3)], UNAVAILABLE)));
    assert_eq!((replies(&failed), disowned(&failed)), (vec![], vec![]), "{failed:?}");
    assert_eq!(writes(&scene.pass(1_000)), 2, "both are written again");
    let stored = scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2), MessageId(3)])));
    assert_eq!(replies(&stored), [None]);
    assert_eq!(scene.broker.unsettled(), 2);
}

#[test]
fn a_publication_of_which_one_message_cannot_be_written_is_refused_as_a_whole() {
    for receivers in [0, 1] {
        let mut scene = Scene::new();
        if receivers > 0 {
            scene.receive(1, AckMode::Manual, 1);
            scene.send("zero", None);
        }
        let before = scene.broker.unsettled();
        let first = before + 1;
        assert_eq!(writes(&scene.send_together(&["one ", "two ", "thre"])), 3);
        let failed = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(first + 1)], UNAVAILABLE)));
        assert_eq!(replies(&failed), [Some(Refusal::Unavailable)], "{receivers} receivers");
        assert_eq!((disowned(&failed), removed(&failed)), (vec![first + 1], vec![first, first + 2]));
        assert_eq!(scene.broker.unsettled(), before);
        // The store wrote the others before it got the request to remove them.
        let stored = scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(first), MessageId(first + 2)])));
        assert_eq!((replies(&stored), scene.broker.unsettled()), (vec![], before));
        assert_eq!(writes(&scene.send_together(&["one ", "two ", "thre"])), 3, "the same id may be tried again");
    }
}

#[test]
fn a_publication_of_which_one_message_is_stored_is_not_refused() {
    let mut scene = Scene::new();
    scene.send_together(&["one ", "two "]);
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    let failed = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(2)], UNAVAILABLE)));
    assert_eq!(replies(&failed), []);
    assert_eq!(writes(&scene.pass(1_000)), 1);
    assert_eq!(replies(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])))), [None]);
    assert_eq!(scene.broker.unsettled(), 2);
}

#[test]
fn a_refused_message_leaves_nothing_behind() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    let effects = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(1)], StoreFailure::Unavailable)));
    let refused = |effect: &Effect| {
        matches!(effect, Effect::Reply { reply: Reply::Refused { refusal: Refusal::Unavailable, .. }, .. })
    };
    assert!(effects.iter().any(refused), "{effects:?}");
    assert_eq!(scene.broker.unsettled(), 0);
    assert_eq!(writes(&scene.send("one", Some("a"))), 1, "the same id may be tried again");
}

#[test]
fn a_refused_message_is_removed_from_the_store_and_never_delivered() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    scene.send("two", Some("b"));
    let effects = scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(2)], StoreFailure::Unavailable)));
    let disowned =
        |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Disown(ids)) if *ids == [MessageId(2)]);
    assert!(effects.iter().any(disowned), "{effects:?}");
    // The page was read before the row was removed.
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let effects = scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages, complete: true }));
    assert_eq!((deliveries(&effects).len(), scene.broker.unsettled()), (1, 1));
}

#[test]
fn a_row_whose_write_was_reported_as_failed_is_not_delivered_twice() {
    let mut scene = Scene::new();
    scene.send("one", Some("a"));
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])));
    scene.receive(1, AckMode::Manual, limits::PREFETCH);
    // The second message waits after a stored one. Its write is requested, and reported as failed although the row was written.
    scene.send("two", None);
    scene.pass(500);
    scene.handle(Event::Store(StoreEvent::StoreFailed(vec![MessageId(2)], StoreFailure::Unavailable)));
    let messages = vec![scene.row(1, "one"), scene.row(2, "two")];
    let mut delivered =
        deliveries(&scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages, complete: true })))
            .len();
    delivered += deliveries(&scene.pass(1_000)).len();
    delivered += deliveries(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])))).len();
    assert!(delivered <= 2, "{delivered} deliveries of two messages");
}
