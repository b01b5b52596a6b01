//! The lines that mailboxes hold: each is one delivery as JSON, the same object that a WebSocket receiver gets.

use bytes::Bytes;

use wsmb_core::message::DeliveryName;

/// The beginning of a delivery that must be acknowledged.
const NAME: &[u8] = b"{\"delivery\":\"";

/// The member that follows `message_id` in a redelivery.
const MARK: &[u8] = b"\"redelivered\":true,";

/// One delivery as JSON, without a line break.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) json: Bytes,
    /// The delivery's name, if the receiver must acknowledge it.
    pub(super) delivery: Option<DeliveryName>,
}

impl Line {
    /// Splits bytes of a queue into lines.
    pub(super) fn split(bytes: &Bytes) -> Vec<Self> {
        let lines = bytes.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        lines.map(|line| Self { json: bytes.slice_ref(line), delivery: delivery(line) }).collect()
    }

    pub(super) fn sequence(&self) -> Option<u64> {
        self.delivery.map(|name| name.sequence)
    }

    /// Marks the delivery as redelivered.
    pub(super) fn redelivered(self) -> Self {
        // `{"delivery":"NAME","message_id":"ID",` and perhaps the mark.
        let Some(end) = self.json.iter().enumerate().filter(|(_, byte)| **byte == b',').nth(1).map(|(at, _)| at + 1)
        else {
            return self;
        };
        let (before, after) = self.json.split_at(end);
        if after.starts_with(MARK) {
            return self;
        }
        Self { json: [before, MARK, after].concat().into(), ..self }
    }
}

fn delivery(line: &[u8]) -> Option<DeliveryName> {
    let name = line.strip_prefix(NAME)?.split(|byte| *byte == b'"').next()?;
    DeliveryName::parse(std::str::from_utf8(name).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_have_the_names_of_their_deliveries() {
        let bytes = Bytes::from_static(
            b"{\"delivery\":\"a1-7\",\"message_id\":\"3\",\"data\":[1]}\n{\"command\":\"send-message\"}\n",
        );
        let lines = Line::split(&bytes);
        assert_eq!(lines.iter().map(Line::sequence).collect::<Vec<_>>(), [Some(7), None]);
        assert_eq!(lines[1].json, "{\"command\":\"send-message\"}");
        let again = lines[0].clone().redelivered();
        assert_eq!(again.json, "{\"delivery\":\"a1-7\",\"message_id\":\"3\",\"redelivered\":true,\"data\":[1]}");
        assert_eq!(again.clone().redelivered(), again);
        assert_eq!(again.delivery, lines[0].delivery);
    }
}
