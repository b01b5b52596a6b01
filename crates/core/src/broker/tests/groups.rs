//! Receivers that name one group count as one receiver.

use super::*;

impl Scene {
    /// Subscribes a modern receiver with manual acknowledgement and this window. `group`: empty for no group.
    fn join(&mut self, connection: u64, group: &str, prefetch: u32) -> Vec<Effect> {
        self.join_with(connection, group, AckMode::Manual, Some(prefetch))
    }

    fn join_with(&mut self, connection: u64, group: &str, ack: AckMode, prefetch: Option<u32>) -> Vec<Effect> {
        let group = (!group.is_empty()).then(|| GroupName::from(group));
        self.handle(Event::Subscribe(Subscribe { group, ..modern(connection, &["sms"], ack, prefetch) }))
    }

    fn says(&mut self, connection: u64, sequence: u64, answer: Answer) -> Vec<Effect> {
        self.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(connection), sequence, answer }))
    }

    fn disconnect(&mut self, connection: u64) -> Vec<Effect> {
        let connection = ConnectionId(connection);
        self.handle(Event::Disconnected { connection, took_only: false, listens: false })
    }
}

/// Makes a channel without a receiver limit: the connections 1 and 2 are members of a group, 3 is in no group.
fn two_and_one() -> Scene {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.join(1, "gateways", 4);
    scene.join(2, "gateways", 4);
    scene.join(3, "", 4);
    scene
}

fn to(effects: &[Effect]) -> Vec<u64> {
    deliveries(effects).into_iter().map(|(to, _)| to).collect()
}

fn is_marked(effects: &[Effect]) -> bool {
    effects.iter().any(|effect| matches!(effect, Effect::Deliver { attempt: 2.., .. }))
}

#[test]
fn without_a_limit_one_member_of_a_group_and_all_other_receivers_get_each_message() {
    let mut scene = two_and_one();
    for _ in 0..3 {
        assert_eq!(to(&scene.send("code", None)), [1, 3]);
    }
    scene.disconnect(1);
    assert_eq!(to(&scene.send("code", None)), [2, 3]);
}

#[test]
fn only_the_confirmation_of_a_member_settles_a_message() {
    let mut scene = two_and_one();
    scene.send("code", Some("a"));
    assert!(scene.says(3, 1, Answer::Ack).is_empty(), "it is an observer");
    let lost = scene.disconnect(1);
    assert_eq!(
        (to(&lost), is_marked(&lost)),
        (vec![2], true),
        "another member of the group gets the message with a mark"
    );
    scene.says(2, 1, Answer::Ack);
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (1, 0));
}

#[test]
fn a_message_waits_for_a_group_without_members() {
    let mut scene = two_and_one();
    scene.disconnect(2);
    scene.send("code", None);
    assert!(to(&scene.disconnect(1)).is_empty());
    scene.says(3, 1, Answer::Ack);
    assert_eq!(to(&scene.send("next", None)), [3], "the owed message does not block later ones");
    let back = scene.join(4, "gateways", 4);
    assert_eq!((to(&back), is_marked(&back), scene.texts()), (vec![4], true, vec!["code".to_owned()]));
}

#[test]
fn a_message_waits_for_a_group_without_members_for_group_wait_only() {
    let mut scene = two_and_one();
    scene.disconnect(2);
    scene.send("code", None);
    scene.disconnect(1);
    scene.says(3, 1, Answer::Ack);
    let wait = Bounds::TIGHT.group_wait.as_millis() as u64;
    assert!(to(&scene.pass(wait - 1)).is_empty());
    assert_eq!((to(&scene.pass(1)), scene.texts()), (vec![3], vec!["code".to_owned()]));
}

#[test]
fn a_group_counts_once_for_the_limit_and_its_lost_message_goes_to_others() {
    let mut scene = Scene::with(ChannelPolicy { receivers: 2, ..ChannelPolicy::default() });
    for (connection, group) in [(1, "gateways"), (2, "gateways"), (3, ""), (4, "")] {
        scene.join(connection, group, 1);
    }
    assert_eq!(to(&scene.send("one", None)), [1, 3]);
    assert_eq!(to(&scene.send("two", None)), [2, 4]);
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ..ChannelPolicy::default() });
    for (connection, group) in [(1, "gateways"), (3, ""), (2, "gateways")] {
        scene.join(connection, group, 1);
    }
    scene.send("one", None);
    assert_eq!(to(&scene.disconnect(1)), [2], "3 subscribed before 2, but 2 is a member of the group");
    assert_eq!(to(&scene.disconnect(2)), [3], "with a limit, other receivers are standby receivers");
    scene.says(3, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0, "their confirmation counts");
}

#[test]
fn a_message_with_a_nack_goes_to_another_member_and_then_waits() {
    let mut scene = two_and_one();
    scene.send("code", None);
    assert!(
        to(&scene.says(3, 1, Answer::Nack(Nack { reject: true, ..Nack::default() }))).is_empty(),
        "it is an observer"
    );
    let nack = || Answer::Nack(Nack::default());
    assert_eq!(to(&scene.says(1, 1, nack())), [2]);
    assert!(to(&scene.says(2, 1, nack())).is_empty(), "both members have failed");
    let again = scene.pass(2_000);
    assert_eq!(to(&again), [1], "only to the group, after the back-off");
}

#[test]
fn a_late_delivery_goes_to_another_member_of_the_group_only() {
    let seconds = Duration::from_secs;
    let policy = ChannelPolicy { ack_timeout: seconds(5), confirm_within: seconds(5), ..ChannelPolicy::default() };
    for ack in [AckMode::Manual, AckMode::Automatic] {
        let mut scene = Scene::with(policy.clone());
        for (connection, group) in [(1, "gateways"), (3, ""), (2, "gateways")] {
            scene.join_with(connection, group, ack, Some(4));
        }
        scene.send("code", None);
        let late: Vec<u64> = (0..60).flat_map(|_| to(&scene.pass(100))).collect();
        assert_eq!(late, [2], "{ack:?}");
        scene.join_with(5, "", ack, Some(4));
        assert_eq!(to(&scene.disconnect(2)), if ack == AckMode::Manual { vec![1] } else { Vec::new() }, "{ack:?}");
    }
}

#[test]
fn a_late_delivery_stays_if_only_another_group_has_the_message() {
    let policy = ChannelPolicy { ack_timeout: Duration::from_secs(5), ..ChannelPolicy::default() };
    let mut scene = Scene::with(policy);
    scene.join(1, "a", 8);
    scene.join(2, "b", 8);
    assert_eq!(to(&scene.send("code", None)), [1, 2]);
    assert_eq!(to(&scene.pass(6_000)), [0; 0], "neither group has another member");
    // A late answer still counts.
    scene.says(1, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn each_of_two_groups_passes_its_lost_messages_on() {
    let mut scene = Scene::with(ChannelPolicy::default());
    for (connection, group) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        scene.join(connection, group, 4);
    }
    assert_eq!(to(&scene.send("code", None)), [1, 2]);
    assert_eq!(to(&scene.disconnect(1)), [3], "although 2 still has the message");
    assert_eq!(to(&scene.disconnect(2)), [4]);
    scene.says(3, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0, "the first confirmation of a member settles the message");
}

#[test]
fn a_receiver_that_changes_its_group_keeps_its_position_and_its_deliveries() {
    let mut scene = two_and_one();
    scene.send("one", None);
    scene.join(1, "others", 4);
    assert_eq!(to(&scene.send("two", None)), [1, 2, 3]);
    assert_eq!(to(&scene.disconnect(1)), [2], "it got the first message as a member of its old group");
    assert_eq!(scene.texts(), ["one"]);
    scene.join(2, "", 4);
    assert_eq!(to(&scene.send("three", None)), [2, 3]);
}

#[test]
fn members_take_turns_with_dispatch_rotate() {
    let rotate = ChannelPolicy { dispatch: crate::policy::Dispatch::Rotate, ..ChannelPolicy::default() };
    for keep in [true, false] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..rotate.clone() });
        for (connection, group) in [(1, "a"), (2, "a"), (3, "")] {
            scene.join(connection, group, 10);
        }
        let got: Vec<_> = (0..4).map(|_| to(&scene.send("code", None))).collect();
        assert_eq!(got, [[1, 3], [2, 3], [1, 3], [2, 3]], "kept: {keep}");
    }
}

#[test]
fn in_a_group_without_room_the_member_with_the_fewest_deliveries_gets_a_fan_out() {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.join(1, "a", 1);
    scene.join(2, "a", 1);
    assert_eq!(to(&scene.send("0", None)), [1]);
    assert_eq!(to(&scene.send("1", None)), [2]);
    assert!(to(&scene.send("2", None)).is_empty(), "the message waits until the group has room");
    scene.join(3, "", 64);
    let waited = scene.broker.counters().deliveries;
    assert_eq!(waited, 4, "if one receiver has room, all get the message: {:?}", scene.effects.list);
    assert_eq!(to(&scene.send("3", None)), [2, 3]);
    assert_eq!(scene.broker.counters().slow_receivers, 0);
}

#[test]
fn an_outrun_member_is_not_ended_while_another_member_has_room() {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.join(1, "a", 1);
    scene.join(3, "", 64);
    for _ in 0..Bounds::TIGHT.fanout_deliveries {
        scene.send("code", None);
    }
    scene.join(2, "a", 1);
    assert_eq!(to(&scene.send("code", None)), [2, 3], "1 is outrun");
    assert_eq!(scene.broker.counters().slow_receivers, 0);
    for _ in 0..Bounds::TIGHT.fanout_deliveries {
        scene.send("code", None);
    }
    assert_eq!(scene.broker.counters().slow_receivers, 2, "now all members are outrun");
}

#[test]
fn a_receiver_that_takes_over_a_name_gets_no_message_of_channels_that_it_leaves() {
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ..ChannelPolicy::default() });
    let named = |connection: u64, channel: &str| Subscribe {
        receiver: Some(ReceiverKey { user: "app".into(), id: channel.into() }),
        group: Some(GroupName::from("gateways")),
        ..modern(connection, &[channel], AckMode::Manual, Some(1))
    };
    scene.handle(Event::Subscribe(named(1, "sms")));
    scene.join(2, "gateways", 1);
    assert_eq!(to(&scene.send("code", None)), [1]);
    // It leaves the channel with the same request with which it replaces the receiver of the message.
    let subscribe = Subscribe { channels: vec![name("other")], ..named(2, "sms") };
    assert!(to(&scene.handle(Event::Subscribe(subscribe))).is_empty());
    assert_eq!(to(&scene.join(3, "", 1)), [3], "the message waits for the next receiver");
}

#[test]
fn a_sending_member_does_not_save_an_outrun_member_from_its_end() {
    let mut scene = Scene::with(ChannelPolicy::default());
    for (connection, group, prefetch) in [(1, "a", 64), (2, "a", 1), (3, "", 64)] {
        scene.join(connection, group, prefetch);
    }
    for _ in 0..Bounds::TIGHT.fanout_deliveries {
        assert_eq!(to(&scene.publish(1, "sms", "code", None)), [2, 3]);
    }
    assert_eq!(to(&scene.publish(1, "sms", "code", None)), [3]);
    assert_eq!(scene.broker.counters().slow_receivers, 1, "an outrun receiver that misses a message is ended");
}
