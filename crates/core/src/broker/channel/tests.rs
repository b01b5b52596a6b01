//! (Tests.) The choice of the next message, and paged messages of members.

use super::*;
use crate::broker::stage::Stage;
use crate::message::{Message, Payload};

fn entry(id: u64, origin: Option<ConnectionId>, expires: Option<Timestamp>) -> Box<Entry> {
    let message = Message {
        id: MessageId(id),
        channel: ChannelName::parse("sms").expect("a name"),
        payload: Payload::text("{}"),
        created: Timestamp(0),
        expires,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    };
    Box::new(Entry {
        message,
        remembered: None,
        origin,
        owner: Owner::NOBODY,
        written: false,
        suspect: false,
        stage: Stage::Waiting,
        failures: None,
    })
}

fn channel() -> Channel {
    Channel::new(ChannelName::parse("sms").expect("a name"), Arc::default())
}

#[test]
fn a_members_own_messages_are_searched_once() {
    let (me, mut channel) = (ConnectionId(1), channel());
    for id in 1..=1_000 {
        channel.wait(entry(id, Some(me), None));
        assert_eq!(channel.first_deliverable(Some(me), Timestamp(0)), None);
        assert_eq!(channel.self_sent.as_ref().map(|self_sent| self_sent.up_to), Some((me, MessageId(id))));
    }
    assert_eq!(channel.first_deliverable(None, Timestamp(0)), Some(MessageId(1)));
    assert_eq!(
        channel.self_sent.as_ref().map(|self_sent| self_sent.up_to),
        Some((me, MessageId(1_000))),
        "the position is kept"
    );
    channel.wait(entry(500, None, None));
    assert_eq!(
        channel.first_deliverable(Some(me), Timestamp(0)),
        Some(MessageId(500)),
        "given back by another receiver"
    );
}

#[test]
fn the_first_deliverable_message_is_the_same_as_that_of_a_full_search() {
    let mut channel = channel();
    let (mut random, mut found) = (1_u64, 0);
    for now in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [id, choice, origin, only, ttl] = [33, 40, 44, 48, 52].map(|shift| random >> shift & 15);
        let (now, connection) = (Timestamp(now), |number: u64| (number < 3).then_some(ConnectionId(number)));
        match choice {
            // 0 to 2: a message is sent or given back. 3 to 12: a message is taken.
            0..3 => channel.wait(entry(
                id + 1,
                connection(origin % 4),
                (ttl < 3).then(|| now.after(std::time::Duration::from_millis(ttl))),
            )),
            3..13 => drop(channel.unwait(MessageId(id + 1))),
            _ => {}
        }
        let only = connection(only % 4);
        let mut deliverable =
            channel.waiting.iter().filter(|(_, entry)| !entry.expired(now) && (only.is_none() || entry.origin != only));
        let expected = deliverable.next().map(|(id, _)| *id);
        assert_eq!(channel.first_deliverable(only, now), expected, "step {}", now.0);
        found += u64::from(expected.is_some());
    }
    assert!((1_000..19_000).contains(&found), "both outcomes occur: {found}");
}
