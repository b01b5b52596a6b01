//! Receivers that name one group count as one.

use super::*;

impl Scene {
    /// A modern receiver with manual acknowledgement and this window, in a group if one is named.
    fn join(&mut self, connection: u64, group: &str, prefetch: u32) -> Vec<Effect> {
        self.join_with(connection, group, AckMode::Manual, Some(prefetch))
    }

    fn join_with(&mut self, connection: u64, group: &str, ack: AckMode, prefetch: Option<u32>) -> Vec<Effect> {
        let group = (!group.is_empty()).then(|| GroupName::from(group));
        self.give(Event::Subscribe(Subscribe { group, ..modern(connection, &["sms"], ack, prefetch) }))
    }

    fn says(&mut self, connection: u64, sequence: u64, answer: Answer) -> Vec<Effect> {
        self.give(Event::Acknowledge(Acknowledge { connection: ConnectionId(connection), sequence, answer }))
    }

    fn goes(&mut self, connection: u64) -> Vec<Effect> {
        let connection = ConnectionId(connection);
        self.give(Event::Disconnected { connection, took_only: false, listens: false })
    }
}

/// A channel without a receiver limit: 1 and 2 are of a group, 3 is of none.
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
fn without_a_limit_one_of_a_group_gets_each_message_and_everybody_else_does() {
    let mut scene = two_and_one();
    for _ in 0..3 {
        assert_eq!(to(&scene.send("code", None)), [1, 3]);
    }
    scene.goes(1);
    assert_eq!(to(&scene.send("code", None)), [2, 3]);
}

#[test]
fn what_only_a_member_confirms_is_settled() {
    let mut scene = two_and_one();
    scene.send("code", Some("a"));
    assert!(scene.says(3, 1, Answer::Ack).is_empty(), "it looks on");
    let lost = scene.goes(1);
    assert_eq!((to(&lost), is_marked(&lost)), (vec![2], true), "another one of the group gets it, marked");
    scene.says(2, 1, Answer::Ack);
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (1, 0));
}

#[test]
fn with_nobody_left_in_the_group_a_message_waits_for_it_and_not_for_the_others() {
    let mut scene = two_and_one();
    scene.goes(2);
    scene.send("code", None);
    assert!(to(&scene.goes(1)).is_empty());
    scene.says(3, 1, Answer::Ack);
    assert_eq!(to(&scene.send("next", None)), [3], "it holds up nobody");
    let back = scene.join(4, "gateways", 4);
    assert_eq!((to(&back), is_marked(&back), scene.texts()), (vec![4], true, vec!["code".to_owned()]));
}

#[test]
fn a_group_that_never_comes_back_holds_a_message_for_some_minutes_only() {
    let mut scene = two_and_one();
    scene.goes(2);
    scene.send("code", None);
    scene.goes(1);
    scene.says(3, 1, Answer::Ack);
    let wait = Bounds::TIGHT.group_wait.as_millis() as u64;
    assert!(to(&scene.pass(wait - 1)).is_empty());
    assert_eq!((to(&scene.pass(1)), scene.texts()), (vec![3], vec!["code".to_owned()]));
}

#[test]
fn a_limit_counts_a_group_once_and_what_it_loses_goes_on() {
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
    assert_eq!(to(&scene.goes(1)), [2], "3 came before, but 2 is of the group");
    assert_eq!(to(&scene.goes(2)), [3], "with a limit, others stand by");
    scene.says(3, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0, "and theirs counts");
}

#[test]
fn a_nack_goes_to_another_of_the_group_and_then_waits() {
    let mut scene = two_and_one();
    scene.send("code", None);
    assert!(to(&scene.says(3, 1, Answer::Nack(Nack { reject: true, ..Nack::default() }))).is_empty(), "it looks on");
    let nack = || Answer::Nack(Nack::default());
    assert_eq!(to(&scene.says(1, 1, nack())), [2]);
    assert!(to(&scene.says(2, 1, nack())).is_empty(), "both have failed");
    let again = scene.pass(2_000);
    assert_eq!(to(&again), [1], "the group only, after a pause");
}

#[test]
fn a_member_that_is_late_gives_way_to_another_of_its_group_only() {
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
        assert_eq!(to(&scene.goes(2)), if ack == AckMode::Manual { vec![1] } else { Vec::new() }, "{ack:?}");
    }
}

#[test]
fn a_late_delivery_stays_if_only_another_group_has_the_message() {
    let policy = ChannelPolicy { ack_timeout: Duration::from_secs(5), ..ChannelPolicy::default() };
    let mut scene = Scene::with(policy);
    scene.join(1, "a", 8);
    scene.join(2, "b", 8);
    assert_eq!(to(&scene.send("code", None)), [1, 2]);
    assert_eq!(to(&scene.pass(6_000)), [0; 0], "nobody else of either group is there");
    // What it answers late still counts.
    scene.says(1, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn two_groups_are_two_receivers_and_each_passes_on_what_it_loses() {
    let mut scene = Scene::with(ChannelPolicy::default());
    for (connection, group) in [(1, "a"), (2, "b"), (3, "a"), (4, "b")] {
        scene.join(connection, group, 4);
    }
    assert_eq!(to(&scene.send("code", None)), [1, 2]);
    assert_eq!(to(&scene.goes(1)), [3], "though 2 still has it");
    assert_eq!(to(&scene.goes(2)), [4]);
    scene.says(3, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0, "the first confirmation of a member settles it");
}

#[test]
fn a_receiver_changes_its_group_and_keeps_its_place_and_what_it_has() {
    let mut scene = two_and_one();
    scene.send("one", None);
    scene.join(1, "others", 4);
    assert_eq!(to(&scene.send("two", None)), [1, 2, 3]);
    assert_eq!(
        to(&scene.goes(1)),
        [2],
        "it got the first message for the group that it was in; its new group is no more"
    );
    assert_eq!(scene.texts(), ["one"]);
    scene.join(2, "", 4);
    assert_eq!(to(&scene.send("three", None)), [2, 3]);
}

#[test]
fn members_take_turns_if_the_channel_says_so() {
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
fn in_a_group_without_room_the_one_with_least_gets_what_others_get_at_once() {
    let mut scene = Scene::with(ChannelPolicy::default());
    scene.join(1, "a", 1);
    scene.join(2, "a", 1);
    assert_eq!(to(&scene.send("0", None)), [1]);
    assert_eq!(to(&scene.send("1", None)), [2]);
    assert!(to(&scene.send("2", None)).is_empty(), "alone, the group waits until it has room");
    scene.join(3, "", 64);
    let waited = scene.broker.counters().deliveries;
    assert_eq!(waited, 4, "with somebody who has room, nobody waits: {:?}", scene.effects.list);
    assert_eq!(to(&scene.send("3", None)), [2, 3]);
    assert_eq!(scene.broker.counters().slow_receivers, 0);
}

#[test]
fn an_outrun_member_is_spared_while_another_one_goes_on() {
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
    assert_eq!(scene.broker.counters().slow_receivers, 2, "now all of the group are");
}

#[test]
fn a_receiver_that_takes_over_a_name_gets_nothing_of_the_channels_that_it_leaves() {
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ..ChannelPolicy::default() });
    let named = |connection: u64, channel: &str| Subscribe {
        receiver: Some(ReceiverKey { user: "app".into(), id: channel.into() }),
        group: Some(GroupName::from("gateways")),
        ..modern(connection, &[channel], AckMode::Manual, Some(1))
    };
    scene.give(Event::Subscribe(named(1, "sms")));
    scene.join(2, "gateways", 1);
    assert_eq!(to(&scene.send("code", None)), [1]);
    // It leaves the channel in the moment in which it replaces the receiver that has the message.
    let subscribe = Subscribe { channels: vec![name("other")], ..named(2, "sms") };
    assert!(to(&scene.give(Event::Subscribe(subscribe))).is_empty());
    assert_eq!(to(&scene.join(3, "", 1)), [3], "it waits for whoever comes");
}

#[test]
fn a_member_that_sends_spares_no_outrun_one_what_it_does_not_get_itself() {
    let mut scene = Scene::with(ChannelPolicy::default());
    for (connection, group, prefetch) in [(1, "a", 64), (2, "a", 1), (3, "", 64)] {
        scene.join(connection, group, prefetch);
    }
    for _ in 0..Bounds::TIGHT.fanout_deliveries {
        assert_eq!(to(&scene.publish(1, "sms", "code", None)), [2, 3]);
    }
    assert_eq!(to(&scene.publish(1, "sms", "code", None)), [3]);
    assert_eq!(scene.broker.counters().slow_receivers, 1, "it may not miss a message and stay");
}
