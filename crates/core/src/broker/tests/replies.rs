//! An answer goes to who asks; the origin of a publication is who does not get it back. The two are often one connection, and need not be.

use super::*;

const RECEIVER: ConnectionId = ConnectionId(1);

/// Where the answers among the effects go, and who gets deliveries.
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
fn who_asks_is_answered_and_receives_what_it_did_not_send() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        scene.receive(RECEIVER.0, AckMode::Manual, 8);
        let asker = ReplyTo::Connection(RECEIVER);
        let mut effects = scene.publish_from(None, asker, "sms", "a", Some("1"));
        effects.extend(scene.give(Event::Stored(vec![MessageId(1)])));
        assert_eq!(answers_and_deliveries(&effects), (vec![asker], vec![RECEIVER]), "kept: {keep}");
    }
}

#[test]
fn a_connection_that_only_asks_is_answered() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        scene.receive(RECEIVER.0, AckMode::Manual, 8);
        let asker = ReplyTo::Connection(ConnectionId(7));
        let mut effects = scene.publish_from(Some(RECEIVER), asker, "sms", "a", Some("1"));
        effects.extend(scene.give(Event::Stored(vec![MessageId(1)])));
        assert_eq!(answers_and_deliveries(&effects), (vec![asker], vec![]), "kept: {keep}");
    }
}

#[test]
fn nobody_is_answered_where_nobody_asks() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        for _ in 0..2 {
            let mut effects = scene.publish_from(Some(RECEIVER), ReplyTo::Nobody, "sms", "a", Some("1"));
            effects.extend(scene.give(Event::Stored(vec![MessageId(1)])));
            assert_eq!(answers_and_deliveries(&effects).0, []);
        }
    }
}
