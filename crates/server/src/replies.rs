//! Answers to clients, as frames and as texts.

use bytes::Bytes;

use wsmb_core::broker::{Refusal, Reply};
use wsmb_core::message::{ChannelName, ConnectionId, DeliveryName, Timestamp};
use wsmb_protocol::envelope::{self, Code};
use wsmb_protocol::frame::{self, Opcode};

/// The text for a client whose answer is late.
pub(super) const NOT_YET_SAFE: &str = "not yet safe; may still be delivered";

/// Encodes a text frame.
pub(super) fn text(payload: &str) -> Bytes {
    frame::encode(Opcode::Text, payload.as_bytes())
}

/// The connect reply. `now`: the wall clock's time.
pub(super) fn greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Accepted, ""))
}

/// The connect reply of a client whose first message has no result in time.
pub(super) fn late_greeting(now: Timestamp) -> Bytes {
    text(&envelope::connect_reply(now, Code::Unavailable, NOT_YET_SAFE))
}

/// The answer to the client's `ping` command.
pub(super) fn ping_reply(now: Timestamp, healthy: bool) -> Bytes {
    let code = if healthy { Code::Accepted } else { Code::Rejected };
    text(&envelope::connect_reply(now, code, ""))
}

/// The JSON of `reply` to the connection `to`, as a command of its own. `channel`: the channel of the publication, if the reply belongs to the current one;
/// `max_backlog`: returns the bound of a channel.
pub(super) fn render(
    reply: &Reply,
    to: ConnectionId,
    channel: Option<&ChannelName>,
    max_backlog: impl FnOnce(&ChannelName) -> u64,
) -> String {
    let id = match reply {
        Reply::Accepted { id, .. } | Reply::Refused { id, .. } => id.as_ref().map(|id| id.id()),
        Reply::Settled(_) | Reply::UnknownDelivery { .. } | Reply::TooManyChannels => None,
    };
    if let Reply::Accepted { receivers, stored, duplicate, .. } = reply {
        return envelope::accepted(id.unwrap_or_default(), *receivers, *stored, *duplicate);
    }
    let (code, detail) = summary(reply, to, channel, max_backlog);
    let command = match reply {
        Reply::UnknownDelivery { command, .. } => command,
        Reply::TooManyChannels => "receive-message",
        Reply::Accepted { .. } | Reply::Settled(_) | Reply::Refused { .. } => "send-message",
    };
    envelope::refusal(Some(command), code, &detail, id)
}

/// The code of `reply`, and the detail that follows the code's text. The arguments are those of [`render`].
pub(super) fn summary(
    reply: &Reply,
    to: ConnectionId,
    channel: Option<&ChannelName>,
    max_backlog: impl FnOnce(&ChannelName) -> u64,
) -> (Code, String) {
    match reply {
        Reply::Accepted { .. } | Reply::Settled(_) => (Code::Accepted, String::new()),
        Reply::Refused { refusal, .. } => refused(*refusal, channel, max_backlog),
        Reply::UnknownDelivery { sequence, .. } => {
            (Code::Malformed, not_waiting(DeliveryName { connection: to, sequence: *sequence }))
        }
        Reply::TooManyChannels => {
            let most = wsmb_core::limits::CHANNELS;
            (Code::Full, format!("no room for further channels; the broker has at most {most}, shared by its users"))
        }
    }
}

/// The detail of a refused answer to a delivery.
pub(super) fn not_waiting(delivery: DeliveryName) -> String {
    format!("delivery \"{delivery}\" is not waiting for an answer; it was answered, or given back")
}

/// The code of a refusal, and the detail that follows the code's text. `channel` and `max_backlog`: see [`render`].
pub(super) fn refused(
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
