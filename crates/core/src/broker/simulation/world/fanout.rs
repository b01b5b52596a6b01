//! Holds a channel to its promises about who gets a delivery: without a receiver limit every receiver that is connected at that moment, and of a
//! group one.

use std::collections::btree_map::Entry;

use super::*;

/// Who gets one content in one turn.
#[derive(Debug)]
struct Delivery {
    channel: String,
    message: u64,
    to: BTreeSet<ConnectionId>,
    /// It was given to these groups before, and is perhaps given to them again.
    bound: Option<BTreeSet<&'static str>>,
}

/// What one turn delivers.
#[derive(Debug, Default)]
pub(super) struct FanOuts {
    /// Without a receiver limit, by the content's index.
    unlimited: BTreeMap<u32, Delivery>,
    /// Who got a content, of each group.
    groups: BTreeMap<(u32, &'static str), ConnectionId>,
}

impl World {
    /// The contents of which a member of a group gets one.
    pub(super) fn grouped(&self, effects: &Effects) -> BTreeSet<u32> {
        let member = |effect: &Effect| match effect {
            Effect::Deliver { to, content, .. } => self.clients.get(to)?.group.map(|_| *content),
            _ => None,
        };
        effects.list.iter().filter_map(member).collect()
    }

    /// Takes note of a delivery, before the model does.
    pub(super) fn note_fan_out(
        &self,
        fan_outs: &mut FanOuts,
        index: u32,
        (channel, numbers): &(ChannelName, Vec<u64>),
        to: ConnectionId,
    ) {
        if let Some(group) = self.clients.get(&to).and_then(|client| client.group) {
            let other = fan_outs.groups.insert((index, group), to);
            assert_eq!(other, None, "{numbers:?} went to two of {group}, the other one {to:?}");
        }
        let Some(first) = numbers.first() else { return };
        let delivery = match fan_outs.unlimited.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let Some(told) = self.model.messages.get(first) else { return };
                // A message that somebody has already is passed on to one receiver, not to all.
                if told.limit > 0 || told.channel != channel.as_str() || !told.holders.is_empty() {
                    return;
                }
                let bound = told.bound.as_ref().map(|(groups, _)| groups.clone());
                free.insert(Delivery { channel: channel.to_string(), message: *first, to: BTreeSet::new(), bound })
            }
        };
        delivery.to.insert(to);
    }

    /// At the end of a turn: no receiver that is still there has been left out, and no group. One that takes nothing is ended instead.
    pub(super) fn check_fan_outs(&self, fan_outs: &FanOuts) {
        for Delivery { channel, message, to, bound } in fan_outs.unlimited.values() {
            let told = &self.model.messages[message];
            let group = |connection: &ConnectionId| self.clients.get(connection).and_then(|client| client.group);
            let served: BTreeSet<_> = to.iter().filter_map(group).collect();
            // To the groups that had it, and to nobody else.
            let only =
                bound.as_ref().filter(|groups| to.iter().all(|to| group(to).is_some_and(|g| groups.contains(g))));
            for (connection, client) in &self.clients {
                // A sender need not get its own message, not even if it has left the channel meanwhile and is back.
                let is_sender = told.sender == *connection;
                let has = to.contains(connection) || client.group.is_some_and(|group| served.contains(group));
                let is_asked = only.is_none_or(|groups| client.group.is_some_and(|group| groups.contains(group)));
                assert!(
                    // Nor does one that gave it back get it at once.
                    is_sender
                        || has
                        || !is_asked
                        || told.returned.contains(connection)
                        || !client.channels.contains(channel),
                    "message {message} went to {to:?} and left out {connection:?}, which receives {channel}"
                );
            }
        }
    }
}
