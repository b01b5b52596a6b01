//! Shares: one user fills a bound, and another user still finds room.

use super::*;

impl Scene {
    fn as_user(&mut self, user: &'static str) -> &mut Self {
        self.user = user;
        self
    }

    /// Subscribes `user`'s connection to one more channel. Returns whether the broker has refused it.
    fn subscribe_as(&mut self, user: &str, connection: u64, channels: &[&str]) -> bool {
        let subscribe = modern(connection, channels, AckMode::Automatic, None);
        let effects = self.handle(Event::Subscribe(Subscribe { user: Arc::from(user), ..subscribe }));
        let refusals = effects.iter().filter(|effect| is_too_many_channels(effect)).count();
        assert!(refusals <= 1, "one answer to one request: {effects:?}");
        refusals == 1
    }

    fn channels_of(&self, connection: u64) -> Vec<&str> {
        self.broker.channels_of(ConnectionId(connection)).map(ChannelName::as_str).collect()
    }
}

fn is_too_many_channels(effect: &Effect) -> bool {
    matches!(effect, Effect::Reply { reply: Reply::TooManyChannels, .. })
}

fn is_full(effects: &[Effect]) -> bool {
    let refused = |effect: &Effect| {
        matches!(effect, Effect::Reply { reply: Reply::Refused { refusal: Refusal::BrokerFull, .. }, .. })
    };
    effects.iter().any(refused)
}

/// Nine tenths of the bound.
const MOST: usize = Bounds::TIGHT.channels / 10 * 9;

#[test]
fn a_user_with_too_many_channels_is_refused_and_another_user_is_not() {
    let mut scene = Scene::new();
    for number in 0..MOST {
        let effects = scene.as_user("flood").publish(1, &format!("flood/{number}"), "x", None);
        assert!(!is_full(&effects), "nobody is refused below 90 %");
    }
    assert!(is_full(&scene.publish(1, "flood/more", "x", None)));
    assert!(scene.subscribe_as("flood", 2, &["flood/more"]));
    assert!(!is_full(&scene.publish(1, "flood/0", "x", None)), "an existing channel needs no room");

    assert!(!scene.subscribe_as("app", 3, &["sms"]));
    assert!(!is_full(&scene.as_user("app").publish(4, "otp", "x", None)));
    assert!(is_full(&scene.publish(4, "third", "x", None)), "all channels are used");
}

#[test]
fn a_refused_subscription_changes_nothing() {
    let mut scene = Scene::new();
    let names: Vec<String> = (0..MOST).map(|number| format!("flood/{number}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    assert!(!scene.subscribe_as("flood", 1, &names[..MOST - 1]));
    assert!(!scene.subscribe_as("flood", 2, &names[MOST - 1..]));
    let before = scene.channels_of(1).join(" ");

    assert!(!scene.subscribe_as("flood", 1, &["flood/0", "new", "newer"]), "the channels that it leaves make room");
    assert_eq!(scene.channels_of(1), ["flood/0", "new", "newer"]);
    assert!(!scene.subscribe_as("flood", 1, &names[..MOST - 1]), "and back");
    assert_eq!(scene.channels_of(1).join(" "), before);

    let more = [&names[..MOST - 1], &["new"]].concat();
    assert!(scene.subscribe_as("flood", 1, &more));
    assert_eq!(scene.channels_of(1).join(" "), before, "the connection keeps its channels");
    assert!(scene.subscribe_as("flood", 3, &["new"]));
    assert!(scene.channels_of(3).is_empty());
    assert!(scene.broker.known_channel(&name("new")).is_none(), "no channel is left behind");
}

#[test]
fn a_user_with_too_many_delayed_messages_is_refused_and_another_user_is_not() {
    for keep in [true, false] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        scene.delay = Some(Duration::from_secs(1));
        for _ in 0..Bounds::TIGHT.delayed / 10 * 9 {
            assert!(!is_full(&scene.as_user("flood").send("x", None)), "nobody is refused below 90 %");
        }
        assert!(is_full(&scene.send("x", None)), "kept: {keep}");
        assert!(!is_full(&scene.as_user("app").send("x", None)), "kept: {keep}");
        assert!(is_full(&scene.send("x", None)), "all places are used");
        scene.pass(1_000);
        assert!(!is_full(&scene.as_user("flood").send("x", None)), "the messages are due, and the places are free");
    }
}

#[test]
fn a_message_without_a_known_user_takes_nobodys_share() {
    let row = Message { due: Some(Timestamp(5_000)), ..Scene::new().row(1, "x") };
    let known = Message { id: MessageId(2), publication: Some(PublicationId::new("app", "a")), ..row.clone() };
    let restored = Restored { delayed: vec![row, known], last_id: MessageId(2), ..Restored::default() };
    let broker = Broker::new(Settings { bounds: Bounds::TIGHT, ..Settings::default() }, restored);
    broker.audit();
    assert_eq!(broker.holdings.users(), ["app"]);
}

#[test]
fn a_user_whose_messages_are_confirmed_gets_its_share_back() {
    let mut scene = Scene::new();
    for number in 0..MOST {
        scene.as_user("flood").publish(1, &format!("flood/{number}"), "x", None);
    }
    assert!(is_full(&scene.publish(1, "flood/more", "x", None)));
    let ids: Vec<_> = (1..=MOST as u64).map(MessageId).collect();
    scene.handle(Event::Store(StoreEvent::Stored(ids)));
    assert_eq!(scene.broker.holdings.users(), ["flood"], "the messages are paged, and the channels are still open");
    scene.subscribe_as("gateway", 2, &["flood/0"]);
    let messages = vec![Message { channel: name("flood/0"), ..scene.row(1, "x") }];
    scene.handle(Event::Store(StoreEvent::Loaded { channel: name("flood/0"), messages, complete: true }));
    scene.handle(Event::Confirmed { connection: ConnectionId(2), up_to: 1 });
    assert!(is_full(&scene.publish(1, "flood/more", "x", None)), "the receiver keeps the channel open");
    scene.handle(Event::Disconnected { connection: ConnectionId(2), took_only: false, listens: false });
    assert!(!is_full(&scene.publish(1, "flood/more", "x", None)));
    for number in 0..MOST {
        scene.handle(Event::Purge { channel: name(&format!("flood/{number}")) });
    }
    scene.handle(Event::Purge { channel: name("flood/more") });
    assert!(scene.broker.holdings.users().is_empty(), "nobody holds anything");
    scene.as_user("app").send("x", None);
    assert_eq!(scene.broker.holdings.users(), ["app"]);
}

/// Whether the broker has refused the publication with 05.
fn is_unavailable(effects: &[Effect]) -> bool {
    let refused = |effect: &Effect| {
        matches!(effect, Effect::Reply { reply: Reply::Refused { refusal: Refusal::Unavailable, .. }, .. })
    };
    effects.iter().any(refused)
}

#[test]
fn a_user_that_fills_the_stores_queue_is_refused_and_another_user_is_not() {
    let mut scene = Scene::new();
    scene.broker.settings.bounds.store_queue = 10 * (limits::ENTRY_BYTES + 1);
    let send =
        |scene: &mut Scene, user, channel: &str| is_unavailable(&scene.as_user(user).publish(100, channel, "x", None));
    for connection in 0..9 {
        // Many connections of one user count together.
        let refused = scene.as_user("flood").publish(connection, "sms", "x", None);
        assert!(!is_unavailable(&refused), "nobody is refused below 90 %");
    }
    assert!(send(&mut scene, "flood", "sms"));
    assert!(!send(&mut scene, "app", "other"), "another user finds room");
    assert!(send(&mut scene, "app", "other"), "everybody is refused at 100 %");
    scene.handle(Event::Subscribe(modern(1, &["live"], AckMode::Automatic, None)));
    assert!(!send(&mut scene, "flood", "live"), "a message that a receiver takes is not written yet");
    scene.delay = Some(Duration::from_secs(1));
    assert!(send(&mut scene, "flood", "live"), "a delayed one is");
    scene.delay = None;
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1), MessageId(2)])));
    assert!(!send(&mut scene, "flood", "sms"), "the store has written some");
    let ids: Vec<_> = (3..20).map(MessageId).collect();
    scene.handle(Event::Store(StoreEvent::StoreFailed(ids, StoreFailure::Unavailable)));
    assert_eq!(scene.broker.writing, 0, "nothing waits for the store any more");
}

#[test]
fn a_user_that_fills_the_memory_is_refused_and_another_user_is_not() {
    let mut scene = Scene::new();
    let size = 8 << 20;
    scene.receive(1, AckMode::Manual, 1);
    let text = "x".repeat(size);
    let send = |scene: &mut Scene, user, size: usize| is_full(&scene.as_user(user).send(&text[..size], None));
    // A message in flight stays in memory. Each receiver takes one.
    let most = limits::MEMORY_BUDGET / 10 * 9 / size + 1;
    for connection in 1..=most as u64 {
        scene.receive(connection, AckMode::Manual, 1);
        assert!(!send(&mut scene, "flood", size), "nobody is refused below 90 %");
    }
    assert!(scene.broker.bytes >= limits::MEMORY_BUDGET / 10 * 9, "{}", scene.broker.bytes);
    scene.receive(1_000, AckMode::Manual, 2);
    assert!(send(&mut scene, "flood", 1));
    assert!(!send(&mut scene, "app", 1));
    let left = limits::MEMORY_BUDGET - scene.broker.bytes;
    let text = "x".repeat(left + 1);
    assert!(is_full(&scene.as_user("app").send(&text, None)), "everybody is refused at 100 %");
    let ack = Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack };
    scene.handle(Event::Acknowledge(ack));
    assert!(!send(&mut scene, "flood", 1), "a confirmed message makes room");
}
