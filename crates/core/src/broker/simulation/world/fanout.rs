//! Checks the receivers of a delivery without receiver limit: every connected receiver gets it, and of each group one member.

use std::collections::btree_map::Entry;

use super::*;

/// The receivers of one content in one turn.
#[derive(Debug)]
struct Delivery {
    channel: String,
    message: u64,
    to: BTreeSet<ConnectionId>,
    /// The groups to which the message is bound; it may be delivered to them only.
    bound: Option<BTreeSet<&'static str>>,
}

/// The deliveries of one turn.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    /// The deliveries without a receiver limit, by the content's index.
    unlimited: BTreeMap<u32, Delivery>,
    /// The member of each group that got a content.
    groups: BTreeMap<(u32, &'static str), ConnectionId>,
}

impl World {
    /// Returns the contents that go to a member of a group.
    pub(super) fn grouped(&self, effects: &Effects) -> BTreeSet<u32> {
        let member = |effect: &Effect| match effect {
            Effect::Deliver { to, content, .. } => self.clients.get(to)?.group.map(|_| *content),
            _ => None,
        };
        effects.list.iter().filter_map(member).collect()
    }

    /// Records a delivery, before the model does.
    pub(super) fn note_fan_out(
        &self,
        fan_outs: &mut FanOuts,
        index: u32,
        (channel, numbers): &(ChannelName, Vec<u64>),
        to: ConnectionId,
    ) {
        if let Some(group) = self.clients.get(&to).and_then(|client| client.group) {
            let other = fan_outs.groups.insert((index, group), to);
            assert_eq!(other, None, "{numbers:?} went to two members of {group}, one of them {to:?}");
        }
        let Some(first) = numbers.first() else { return };
        let delivery = match fan_outs.unlimited.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let Some(record) = self.model.messages.get(first) else { return };
                // A message that a receiver has already goes to one more receiver, not to all.
                if record.limit > 0 || record.channel != channel.as_str() || !record.holders.is_empty() {
                    return;
                }
                let bound = record.bound_to.as_ref().map(|(groups, _)| groups.clone());
                free.insert(Delivery { channel: channel.to_string(), message: *first, to: BTreeSet::new(), bound })
            }
        };
        delivery.to.insert(to);
    }

    /// Checks at the end of a turn that no connected receiver and no group has been left out. (A receiver that does not read is ended
    /// instead.)
    pub(super) fn check_fan_outs(&self, fan_outs: &FanOuts) {
        for Delivery { channel, message, to, bound } in fan_outs.unlimited.values() {
            let record = &self.model.messages[message];
            let group = |connection: &ConnectionId| self.clients.get(connection).and_then(|client| client.group);
            let served: BTreeSet<_> = to.iter().filter_map(group).collect();
            // Whether the message went only to the groups to which it was bound.
            let only =
                bound.as_ref().filter(|groups| to.iter().all(|to| group(to).is_some_and(|g| groups.contains(g))));
            for (connection, client) in &self.clients {
                // A sender need not get its own message, even if it has left the channel meanwhile and has returned.
                let is_sender = record.sender == *connection;
                let has = to.contains(connection) || client.group.is_some_and(|group| served.contains(group));
                let is_asked = only.is_none_or(|groups| client.group.is_some_and(|group| groups.contains(group)));
                assert!(
                    // A receiver that gave the message back does not get it at once.
                    is_sender
                        || has
                        || !is_asked
                        || record.returned.contains(connection)
                        || !client.channels.contains(channel),
                    "message {message} went to {to:?} and left out {connection:?}, which receives {channel}"
                );
            }
        }
    }
}
