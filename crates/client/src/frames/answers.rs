//! The answers of a receiver with manual acknowledgement to a delivery, and their JSON text.

/// The answer to a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    /// The messages are processed.
    Ack,
    /// The messages failed: the broker delivers them to another receiver, or again after a while.
    Nack {
        /// Why the messages failed.
        reason: &'a str,
    },
    /// The broker must deliver the messages again at once, each in a delivery of its own.
    Retry,
    /// The messages are invalid: the broker must not deliver them again.
    Reject {
        /// Why the messages are invalid.
        reason: &'a str,
    },
    /// The messages are still being processed: extends the deadline of the delivery.
    Extend,
}

impl Answer<'_> {
    /// Returns the command for the delivery of this name.
    #[must_use]
    pub fn to_json(&self, delivery: &str) -> String {
        let command = match self {
            Self::Ack => serde_json::json!({ "command": "ack", "delivery": delivery }),
            Self::Nack { reason } => serde_json::json!({ "command": "nack", "delivery": delivery, "reason": reason }),
            Self::Retry => serde_json::json!({ "command": "nack", "delivery": delivery, "retry_after": 0 }),
            Self::Reject { reason } => {
                serde_json::json!({ "command": "nack", "delivery": delivery, "reject": true, "reason": reason })
            }
            Self::Extend => serde_json::json!({ "command": "extend", "delivery": delivery }),
        };
        command.to_string()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use wsmb_core::message::{self, Frame, Kind, Nack};
    use wsmb_protocol::envelope::{Command, Parser};
    use wsmb_protocol::frame::{Opcode, encode};

    #[test]
    fn the_broker_parses_each_answer() {
        let nack = |reason: &str, again: bool, reject: bool| {
            let retry_after = again.then_some(Duration::ZERO);
            let reason = Some(reason).filter(|reason| !reason.is_empty()).map(Box::from);
            message::Answer::Nack(Nack { retry_after, reject, reason })
        };
        for (said, meant) in [
            (Answer::Ack, message::Answer::Ack),
            (Answer::Nack { reason: "no \"SIM\"" }, nack("no \"SIM\"", false, false)),
            (Answer::Retry, nack("", true, false)),
            (Answer::Reject { reason: "bad" }, nack("bad", false, true)),
            (Answer::Extend, message::Answer::Extend),
        ] {
            let json = said.to_json("1f-17");
            let frame = Frame::Shared(encode(Opcode::Binary, json.as_bytes()));
            match Parser::default().parse(Kind::Binary, &frame) {
                Ok(Command::Acknowledge { delivery, answer }) => {
                    assert_eq!((delivery.to_string().as_str(), answer), ("1f-17", meant));
                }
                other => panic!("{json}: {other:?}"),
            }
        }
    }
}
