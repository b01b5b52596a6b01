//! The core's answers in words.

use crate::broker::{Refusal, Reply};
use crate::limits;
use crate::message::{ChannelName, ConnectionId, DeliveryName};
use crate::protocol::envelope::{self, Code};

/// The JSON of `reply` to the connection `to`. `channel` is the one of the publication that it answers, where it answers at once; `max_backlog` its bound.
pub(super) fn render(
    reply: &Reply,
    to: ConnectionId,
    channel: Option<&ChannelName>,
    max_backlog: impl FnOnce(&ChannelName) -> u64,
) -> String {
    match reply {
        Reply::Accepted { id, receivers, stored, duplicate } => {
            envelope::accepted(id.id(), *receivers, *stored, *duplicate)
        }
        Reply::Refused { id, refusal } => {
            let id = id.as_ref().map(|id| id.id());
            let (code, detail) = refused(*refusal, channel, max_backlog);
            envelope::refusal(Some("send-message"), code, &detail, id)
        }
        Reply::UnknownDelivery { sequence, command } => {
            let detail = not_waiting(DeliveryName { connection: to, sequence: *sequence });
            envelope::refusal(Some(command), Code::Malformed, &detail, None)
        }
        Reply::TooManyChannels => {
            let detail = format!("the broker has {} channels, as many as it may have", limits::CHANNELS);
            envelope::refusal(Some("receive-message"), Code::Full, &detail, None)
        }
    }
}

/// Why an answer to a delivery is refused.
pub(super) fn not_waiting(delivery: DeliveryName) -> String {
    format!("delivery \"{delivery}\" is not waiting for an answer; it was answered, or given back")
}

fn refused(
    refusal: Refusal,
    channel: Option<&ChannelName>,
    max_backlog: impl FnOnce(&ChannelName) -> u64,
) -> (Code, String) {
    match refusal {
        Refusal::Unavailable => (
            Code::Unavailable,
            "the store cannot take the message now; it was not accepted, send it again later".into(),
        ),
        Refusal::BacklogFull => {
            let detail = match channel {
                Some(channel) => format!(
                    "channel \"{channel}\" keeps {} messages, as many as it may (max_backlog); the message was not accepted",
                    max_backlog(channel)
                ),
                None => {
                    "the channel keeps as many messages as it may (max_backlog); the message was not accepted".into()
                }
            };
            (Code::Full, detail)
        }
        Refusal::BrokerFull => {
            (Code::Full, "the broker has no room, in memory or in its store; the message was not accepted".into())
        }
        Refusal::Expired => {
            (Code::Expired, "the time to live ran out before the message was safe; it was not accepted".into())
        }
    }
}
