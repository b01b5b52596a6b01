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
        effects.extend(scene.handle(Event::Stored(vec![MessageId(1)])));
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
        effects.extend(scene.handle(Event::Stored(vec![MessageId(1)])));
        assert_eq!(answers_and_deliveries(&effects), (vec![asker], vec![]), "kept: {keep}");
    }
}

#[test]
fn without_a_receiver_of_the_reply_there_is_no_reply() {
    for keep in [false, true] {
        let mut scene = Scene::with(ChannelPolicy { keep, ..ChannelPolicy::default() });
        for _ in 0..2 {
            let mut effects = scene.publish_from(Some(RECEIVER), ReplyTo::Nobody, "sms", "a", Some("1"));
            effects.extend(scene.handle(Event::Stored(vec![MessageId(1)])));
            assert_eq!(answers_and_deliveries(&effects).0, []);
        }
    }
}
