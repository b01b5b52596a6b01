//! A receiver of several channels: messages of preferred channels are delivered first.

use super::*;

impl Scene {
    fn listen(&mut self, connection: u64, channels: &[&str], ack: AckMode, prefetch: Option<u32>) -> Vec<Effect> {
        self.listen_in(connection, channels, (ack, Order::List), prefetch)
    }

    fn listen_in(
        &mut self,
        connection: u64,
        channels: &[&str],
        (ack, order): (AckMode, Order),
        prefetch: Option<u32>,
    ) -> Vec<Effect> {
        self.handle(Event::Subscribe(Subscribe { order, ..modern(connection, channels, ack, prefetch) }))
    }

    /// A receiver confirms its delivery with this number.
    pub(super) fn done(&mut self, connection: u64, sequence: u64, ack: AckMode) -> Vec<Effect> {
        let connection = ConnectionId(connection);
        match ack {
            AckMode::Manual => {
                self.handle(Event::Acknowledge(Acknowledge { connection, sequence, answer: Answer::Ack }))
            }
            AckMode::Automatic => self.handle(Event::Confirmed { connection, up_to: sequence }),
        }
    }

    /// The store returns a page of a channel.
    fn page(&mut self, channel: &str, first: u64, texts: &[&str]) -> Vec<Effect> {
        let rows = texts.iter().zip(first..).map(|(text, id)| Message { channel: name(channel), ..self.row(id, text) });
        let messages = rows.collect();
        self.handle(Event::Store(StoreEvent::Loaded { channel: name(channel), messages, complete: true }))
    }
}

/// Makes a broker whose store holds two messages of `bulk` and one of `otp`.
fn stored() -> Scene {
    let summary = |channel, messages, last| ChannelSummary {
        channel: name(channel),
        messages,
        last: MessageId(last),
        expiries: Vec::new(),
    };
    let restored = Restored {
        channels: vec![summary("bulk", 2, 2), summary("otp", 1, 3)],
        last_id: MessageId(3),
        ..Restored::default()
    };
    let broker = Broker::new(Settings::default(), restored);
    Scene { broker, now: Timestamp(1_000), effects: Effects::default(), user: "app", answer: false, delay: None }
}

const BOTH: [&str; 2] = ["otp", "bulk"];
const MODES: [AckMode; 2] = [AckMode::Manual, AckMode::Automatic];

#[test]
fn a_message_of_an_earlier_channel_is_delivered_next() {
    for ack in MODES {
        let mut scene = Scene::new();
        scene.broker.settings.batch = 1;
        scene.listen(1, &BOTH, ack, None);
        for text in ["b1", "b2", "b3", "b4"] {
            scene.publish(100, "bulk", text, None);
        }
        scene.publish(100, "otp", "code", None);
        let mut got = Vec::new();
        for sequence in 1..=4 {
            scene.done(1, sequence, ack);
            got.extend(scene.texts());
        }
        assert_eq!(got, ["code", "b2", "b3", "b4"], "{ack:?}: b1 was delivered before");
    }
}

#[test]
fn a_message_in_memory_waits_for_the_page_of_an_earlier_channel() {
    for ack in MODES {
        let mut scene = stored();
        scene.listen(1, &BOTH, ack, None);
        assert_eq!(deliveries(&scene.page("bulk", 1, &["b1", "b2"])), [], "{ack:?}");
        scene.page("otp", 3, &["code"]);
        assert_eq!(scene.texts(), ["code"], "{ack:?}");
        scene.done(1, 1, ack);
        assert_eq!(scene.texts()[0], "b1", "{ack:?}");
    }
}

#[test]
fn the_wait_for_a_page_ends_after_100_ms() {
    let mut scene = stored();
    scene.listen(1, &BOTH, AckMode::Manual, None);
    scene.page("bulk", 1, &["b1", "b2"]);
    assert_eq!(deliveries(&scene.pass(99)), []);
    assert_eq!(deliveries(&scene.publish(100, "bulk", "b3", None)), [], "new messages wait, too");
    assert_eq!(deliveries(&scene.pass(1)), [(1, 1)]);
    assert_eq!(scene.texts(), ["b1"]);
    scene.page("otp", 3, &["code"]);
    scene.done(1, 1, AckMode::Manual);
    assert_eq!(scene.texts(), ["code"], "after the page, the preferred channel takes precedence");
}

#[test]
fn a_failed_page_does_not_block_other_channels() {
    let mut scene = stored();
    scene.listen(1, &BOTH, AckMode::Manual, None);
    scene.page("bulk", 1, &["b1", "b2"]);
    scene.handle(Event::Store(StoreEvent::LoadFailed { channel: name("otp") }));
    assert_eq!(scene.texts(), ["b1"]);
}

#[test]
fn fair_channels_take_turns() {
    let mut scene = Scene::new();
    scene.broker.settings.batch = 1;
    let fair = (AckMode::Manual, Order::Fair);
    scene.listen_in(1, &["a", "b", "c"], fair, Some(1));
    scene.publish(100, "c", "c0", None);
    for round in ["1", "2"] {
        for channel in ["a", "b", "c"] {
            scene.publish(100, channel, &format!("{channel}{round}"), None);
        }
    }
    let mut got = Vec::new();
    for sequence in 1..=6 {
        scene.done(1, sequence, AckMode::Manual);
        got.extend(scene.texts());
    }
    assert_eq!(got, ["a1", "b1", "c1", "a2", "b2", "c2"]);
}

#[test]
fn fair_channels_take_turns_in_one_window_too() {
    let mut scene = Scene::new();
    let fair = (AckMode::Manual, Order::Fair);
    scene.listen_in(1, &["a", "b"], fair, Some(1));
    for text in ["a0", "a1", "a2"] {
        scene.publish(100, "a", text, None);
    }
    scene.publish(100, "b", "b1", None);
    scene.listen_in(1, &["a", "b"], fair, Some(8));
    assert_eq!(scene.texts(), ["a1", "b1", "a2"]);
}

#[test]
fn the_default_window_is_one_delivery_if_channels_have_an_order() {
    for ack in MODES {
        for (channels, order, prefetch, most) in [
            (&BOTH[..], Order::List, None, 1),
            (&BOTH, Order::List, Some(3), 3),
            (&BOTH, Order::Fair, None, 64),
            (&BOTH[..1], Order::List, None, 64),
        ] {
            let mut scene = Scene::new();
            scene.listen_in(1, channels, (ack, order), prefetch);
            let out: usize = (0..80).map(|_| deliveries(&scene.publish(100, "otp", "code", None)).len()).sum();
            assert_eq!(out, most, "{ack:?} {channels:?} {order:?} {prefetch:?}");
        }
    }
}

#[test]
fn a_receivers_own_messages_do_not_block_other_channels() {
    let mut scene = Scene::new();
    scene.listen(1, &BOTH, AckMode::Manual, None);
    scene.publish(1, "otp", "its own", None);
    scene.publish(100, "bulk", "b1", None);
    scene.publish(100, "bulk", "b2", None);
    scene.done(1, 1, AckMode::Manual);
    assert_eq!(scene.texts(), ["b2"]);
}

#[test]
fn receivers_with_opposite_orders_each_get_their_preferred_channel() {
    let mut scene = Scene::with(ChannelPolicy::default());
    let one = ChannelPolicy { receivers: 1, ..ChannelPolicy::default() };
    scene.broker.reconfigure(Settings {
        policies: Policies { named: Vec::new(), default: one },
        batch: 1,
        ..Settings::default()
    });
    scene.listen(1, &["a", "b"], AckMode::Manual, None);
    scene.listen(2, &["b", "a"], AckMode::Manual, None);
    for text in ["0", "1", "2", "3"] {
        scene.publish(100, "a", text, None);
        scene.publish(100, "b", text, None);
    }
    // Each receiver has one message, and further messages wait in both channels.
    for sequence in 1..=3 {
        for (receiver, wanted) in [(1, "a"), (2, "b")] {
            let effects = scene.done(receiver, sequence, AckMode::Manual);
            let Some(Content::Backlog(backlog)) = scene.effects.contents.first() else { continue };
            assert_eq!((deliveries(&effects)[0].0, backlog.channel.as_str()), (receiver, wanted));
        }
    }
}

#[test]
fn a_receiver_can_change_its_order() {
    let mut scene = Scene::new();
    scene.listen(1, &BOTH, AckMode::Manual, None);
    for (channel, text) in [("bulk", "b1"), ("bulk", "b2"), ("otp", "code")] {
        scene.publish(100, channel, text, None);
    }
    scene.listen(1, &["bulk", "otp"], AckMode::Manual, None);
    scene.done(1, 1, AckMode::Manual);
    assert_eq!(scene.texts(), ["b2"]);
    scene.listen(1, &["otp"], AckMode::Manual, Some(4));
    assert_eq!(scene.texts(), ["code"], "a single channel does not wait");
}
