//! Holds a channel without a receiver limit to its promise: every receiver that is connected at the moment of a delivery gets it.

use std::collections::btree_map::Entry;

use super::*;

/// Who gets one content in one turn.
#[derive(Debug)]
struct Delivery {
    channel: String,
    message: u64,
    to: BTreeSet<ConnectionId>,
}

/// What one turn delivers without a receiver limit, by the content's index.
#[derive(Debug, Default)]
pub(super) struct FanOuts(BTreeMap<u32, Delivery>);

impl World {
    /// Takes note of a delivery, before the model does.
    pub(super) fn note_fan_out(
        &self,
        fan_outs: &mut FanOuts,
        index: u32,
        (channel, numbers): &(ChannelName, Vec<u64>),
        to: ConnectionId,
    ) {
        let Some(first) = numbers.first() else { return };
        let delivery = match fan_outs.0.entry(index) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(free) => {
                let Some(told) = self.model.messages.get(first) else { return };
                // A message that somebody has already is passed on to one receiver, not to all.
                if told.limit > 0 || told.channel != channel.as_str() || !told.holders.is_empty() {
                    return;
                }
                free.insert(Delivery { channel: channel.to_string(), message: *first, to: BTreeSet::new() })
            }
        };
        delivery.to.insert(to);
    }

    /// At the end of a turn: no receiver that is still there has been left out. One that takes nothing is ended instead.
    pub(super) fn check_fan_outs(&self, fan_outs: &FanOuts) {
        for Delivery { channel, message, to } in fan_outs.0.values() {
            let told = &self.model.messages[message];
            for (connection, client) in &self.clients {
                // A sender need not get its own message, not even if it has left the channel meanwhile and is back.
                let is_sender = told.sender == *connection;
                assert!(
                    // Nor does one that gave it back get it at once.
                    is_sender
                        || told.returned.contains(connection)
                        || !client.channels.contains(channel)
                        || to.contains(connection),
                    "message {message} went to {to:?} and left out {connection:?}, which receives {channel}"
                );
            }
        }
    }
}
