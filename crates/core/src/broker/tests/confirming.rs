//! Confirmations that clients give by leaving, the first window of legacy receivers, and `confirm_timeout`.

use super::*;

const LEGACY: ClientKind = ClientKind::Legacy;

impl Scene {
    fn subscribe(&mut self, connection: u64, client: ClientKind, prefetch: Option<u32>) -> Vec<Effect> {
        let subscribe = modern(connection, &["sms"], AckMode::Automatic, prefetch);
        self.handle(Event::Subscribe(Subscribe { client, ..subscribe }))
    }

    fn confirm(&mut self, connection: u64, up_to: u64) -> Vec<Effect> {
        self.handle(Event::Confirmed { connection: ConnectionId(connection), up_to })
    }

    /// A connection sends one message to a channel.
    fn send_to(&mut self, connection: u64, channel: &str) {
        self.send_each(connection, channel, 1);
    }

    /// A connection sends a publication of several messages to a channel.
    fn send_each(&mut self, connection: u64, channel: &str, count: usize) {
        let publication = Publication {
            channel: Cow::Owned(name(channel)),
            dialect: Dialect::Envelope,
            kind: Kind::Text,
            frame: Frame::Borrowed(b"1"),
            messages: std::iter::repeat_n(0..1, count).collect(),
            verbatim: true,
        };
        let connection = ConnectionId(connection);
        let publication = &publication;
        self.handle(Event::Publish(&Publish {
            origin: Some(connection),
            user: &Arc::from("app"),
            reply_to: ReplyTo::Connection(connection),
            publication,
            receivers: None,
            id: None,
            answer: false,
            watch: false,
            ttl: None,
            delay: None,
        }));
    }

    /// A connection leaves like a one-shot reader. Returns the number of messages that this confirmed.
    fn leave(&mut self, connection: u64) -> u64 {
        let before = self.broker.counters().confirmed;
        self.handle(Event::Disconnected { connection: ConnectionId(connection), took_only: true, listens: false });
        self.broker.counters().confirmed - before
    }
}

/// Returns the number of messages of the only delivery.
fn backlog(scene: &Scene) -> usize {
    match &scene.effects.contents[..] {
        [Content::Backlog(backlog)] => backlog.messages.len(),
        other => panic!("one backlog frame: {other:?}"),
    }
}

#[test]
fn a_legacy_receiver_gets_one_frame_and_is_asked_after_a_pause() {
    let mut scene = Scene::new();
    scene.subscribe(1, LEGACY, None);
    let effects = scene.send("one", None);
    assert_eq!((deliveries(&effects), effects.iter().any(is_confirm)), (vec![(1, 1)], false));
    assert!(deliveries(&scene.send("two", None)).is_empty(), "it may take one frame and leave");
    assert!(!scene.pass(99).iter().any(is_confirm));
    assert!(scene.pass(1).iter().any(is_confirm));
    let effects = scene.confirm(1, 1);
    assert_eq!(deliveries(&effects), [(1, 2)]);
    assert!(effects.iter().any(is_confirm), "it is not a one-shot reader, and half of its window is used");
}

#[test]
fn a_receiver_with_a_large_window_is_asked_long_before_half_of_it_is_used() {
    let mut scene = Scene::new();
    scene.subscribe(1, ClientKind::Modern, Some(limits::MAX_PREFETCH));
    for number in 1..=limits::CONFIRM_DELIVERIES {
        let effects = scene.send("one", None);
        assert_eq!(effects.iter().any(is_confirm), number == limits::CONFIRM_DELIVERIES, "{number}");
    }
}

#[test]
fn a_legacy_receiver_gets_one_message_of_the_backlog_at_first() {
    for (client, first) in [(LEGACY, 1), (ClientKind::Modern, 3)] {
        let mut scene = Scene::new();
        scene.subscribe(1, client, None);
        // As long as another receiver has an unconfirmed message, later messages wait.
        scene.subscribe(2, LEGACY, None);
        for text in ["one", "two", "three"] {
            scene.send(text, None);
        }
        scene.handle(Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false });
        scene.handle(Event::Disconnected { connection: ConnectionId(2), took_only: false, listens: false });
        scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1), MessageId(2), MessageId(3)])));
        scene.subscribe(3, client, None);
        let messages = ["one", "two", "three"].into_iter().zip(1..).map(|(text, id)| scene.row(id, text)).collect();
        scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages, complete: true }));
        assert_eq!(backlog(&scene), first, "{client:?}");
        if first == 1 {
            scene.confirm(3, 1);
            assert_eq!(backlog(&scene), 2, "it is not a one-shot reader");
        }
    }
}

#[test]
fn a_one_shot_reader_confirms_its_only_message_by_leaving() {
    let mut scene = Scene::new();
    scene.subscribe(1, LEGACY, None);
    scene.send("one", None);
    scene.send("two", None);
    assert_eq!((scene.leave(1), scene.broker.unsettled()), (1, 1));
}

#[test]
fn other_receivers_confirm_nothing_by_leaving() {
    type Before = fn(&mut Scene);
    let cases: [(&str, Before); 6] = [
        ("it has got two messages", |scene| {
            scene.subscribe(1, LEGACY, Some(2));
            scene.send("one", None);
            scene.send("two", None);
        }),
        ("it has got two messages in one frame", |scene| {
            scene.subscribe(1, LEGACY, None);
            scene.send_each(2, "sms", 2);
        }),
        ("it has confirmed one message and has got another", |scene| {
            scene.subscribe(1, LEGACY, None);
            scene.send("one", None);
            scene.confirm(1, 1);
            scene.send("two", None);
        }),
        ("it has sent to the channel before it received it", |scene| {
            scene.send_to(1, "sms");
            scene.handle(Event::Purge { channel: name("sms") });
            scene.subscribe(1, LEGACY, None);
            scene.send("one", None);
        }),
        ("it has sent to several channels", |scene| {
            scene.send_to(1, "a");
            scene.send_to(1, "b");
            scene.subscribe(1, LEGACY, None);
            scene.send("one", None);
        }),
        ("it acknowledges manually", |scene| {
            let subscribe = modern(1, &["sms"], AckMode::Manual, None);
            scene.handle(Event::Subscribe(Subscribe { client: LEGACY, ..subscribe }));
            scene.send("one", None);
        }),
    ];
    for (case, before) in cases {
        let mut scene = Scene::new();
        before(&mut scene);
        let unsettled = scene.broker.unsettled();
        assert!(unsettled > 0, "{case}");
        assert_eq!((scene.leave(1), scene.broker.unsettled()), (0, unsettled), "{case}");
    }
}

#[test]
fn a_reader_that_has_sent_to_another_channel_confirms_its_message_by_leaving() {
    let mut scene = Scene::new();
    scene.send_to(1, "requests");
    scene.subscribe(1, LEGACY, None);
    scene.send("the answer", None);
    assert_eq!(scene.leave(1), 1);
}

#[test]
fn a_receiver_that_confirms_nothing_is_ended_after_the_confirm_timeout() {
    let mut scene = Scene::new();
    let timeout = Settings::default().confirm_timeout.as_millis() as u64;
    scene.receive(1, AckMode::Automatic, 4);
    scene.send("one", None);
    scene.send("two", None);
    scene.pass(timeout - 1);
    assert_eq!(scene.broker.counters().unconfirmed_receivers, 0);
    scene.confirm(1, 1);
    scene.pass(timeout - 1);
    assert_eq!(scene.broker.counters().unconfirmed_receivers, 0, "each confirmation restarts the time");
    let effects = scene.pass(1);
    let ended = |effect: &Effect| matches!(effect, Effect::End { reason: EndReason::Unconfirmed, .. });
    assert!(effects.iter().any(ended), "{effects:?}");
    assert_eq!((scene.broker.counters().unconfirmed_receivers, scene.broker.unsettled()), (1, 1));
}

#[test]
fn a_receiver_without_unconfirmed_deliveries_is_not_ended() {
    let mut scene = Scene::new();
    let timeout = Settings::default().confirm_timeout.as_millis() as u64;
    scene.subscribe(1, LEGACY, None);
    for sequence in 1..4 {
        scene.send("one", None);
        scene.pass(100);
        scene.confirm(1, sequence);
        for _ in 0..3 {
            assert!(!scene.pass(timeout).iter().any(|effect| matches!(effect, Effect::End { .. })));
        }
    }
    assert_eq!(scene.broker.next_deadline(), None, "an idle receiver has no deadline");
}

#[test]
fn a_shorter_confirm_timeout_applies_to_receivers_that_are_silent_already() {
    let mut scene = Scene::new();
    scene.subscribe(1, LEGACY, None);
    scene.send("one", None);
    scene.pass(2_000);
    for (timeout, ended) in [(3_000, 0), (1_000, 1)] {
        let confirm_timeout = Duration::from_millis(timeout);
        scene.broker.reconfigure(Settings { confirm_timeout, ..scene.broker.settings.clone() });
        scene.pass(0);
        assert_eq!(scene.broker.counters().unconfirmed_receivers, ended, "{timeout} ms");
    }
}

#[test]
fn a_burst_of_the_largest_window_stays_in_memory_while_a_receiver_is_there() {
    let policy = ChannelPolicy { receivers: 1, ..ChannelPolicy::default() };
    let policies = Policies { named: vec![(WildMatch::new("sms"), policy)], default: ChannelPolicy::default() };
    let settings = Settings { policies, bounds: Bounds::default(), ..Settings::default() };
    let mut scene = Scene { broker: Broker::new(settings, Restored::default()), ..Scene::new() };
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    let text = "x".repeat(200);
    let written: usize = (0..limits::MAX_PREFETCH).map(|_| writes(&scene.send(&text, None))).sum();
    assert_eq!(written, 0, "the receiver may confirm all of them in time");
    // Nobody takes so much: the rest waits in the store.
    let written: usize = (0..2 * limits::MAX_PREFETCH).map(|_| writes(&scene.send(&text, None))).sum();
    assert!(written > 0 && scene.broker.unsettled() == u64::from(3 * limits::MAX_PREFETCH));
}
