//! A masked frame that is encoded once. For each message, only the parts that differ are overwritten. It must never encode a whole frame for
//! each message.

use super::payload::Payload;
use super::wire::{Channels, MASK, Part, Publication, frame};

/// An encoded frame that is copied for each message.
#[derive(Clone, Debug)]
pub(super) struct FrameTemplate {
    frame: Vec<u8>,
    /// The offset of each variable part in the frame, and the mask bytes at this offset.
    parts: Vec<(usize, Part, [u8; Payload::DIGITS])>,
}

impl FrameTemplate {
    pub(super) fn new(publication: &Publication) -> Self {
        let mut bytes = Vec::new();
        frame(&mut bytes, publication.opcode, &publication.bytes);
        let header = bytes.len() - publication.bytes.len();
        let parts = publication
            .parts
            .iter()
            .map(|(at, part)| (header + at, *part, std::array::from_fn(|index| MASK[(at + index) % MASK.len()])))
            .collect();
        Self { frame: bytes, parts }
    }

    /// The size of a frame, in bytes.
    pub(super) fn len(&self) -> usize {
        self.frame.len()
    }

    /// Appends the frame of message `number` (counted from zero) to channel number `channel`.
    pub(super) fn append(&self, out: &mut Vec<u8>, number: u64, channel: u32) {
        let start = out.len();
        out.extend_from_slice(&self.frame);
        for (at, part, mask) in &self.parts {
            let target = &mut out[start + at..];
            match part {
                Part::Number => write(target, &decimal::<{ Payload::DIGITS }>(Payload::FIRST + number), mask),
                Part::Channel => write(target, &decimal::<{ Channels::DIGITS }>(u64::from(channel)), mask),
                Part::PacketId => write(target, &packet_id(number).to_be_bytes(), mask),
            }
        }
    }
}

#[inline]
fn write(target: &mut [u8], bytes: &[u8], mask: &[u8]) {
    for ((byte, new), mask) in target.iter_mut().zip(bytes).zip(mask) {
        *byte = new ^ mask;
    }
}

/// Returns the last `N` decimal digits of a number.
#[inline]
fn decimal<const N: usize>(mut number: u64) -> [u8; N] {
    let mut digits = [b'0'; N];
    for digit in digits.iter_mut().rev() {
        // A remainder below ten fits.
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
    digits
}

/// Returns the packet identifier of a message: 1 to 65,535, repeating.
fn packet_id(number: u64) -> u16 {
    u16::try_from(number % u64::from(u16::MAX)).unwrap_or(0) + 1
}

#[cfg(test)]
mod tests {
    use std::ops::ControlFlow;

    use super::super::wire::ConnectionPlan;
    use super::*;
    use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, payload_start};

    /// Decodes the frames as a server does.
    fn read(frames: &mut [u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        Decoder::new(Role::Server, 1 << 21)
            .feed(frames, |item| {
                if let Incoming::Message { frame, .. } = item {
                    found.push(frame[payload_start(&frame)..].to_vec());
                }
                ControlFlow::Continue(())
            })
            .unwrap();
        found
    }

    #[test]
    fn only_the_variable_parts_differ_and_are_masked_correctly() {
        let channels = Channels::new("a", "run");
        let plan = ConnectionPlan {
            channels: channels.clone(),
            index: 0,
            channel_numbers: 0..9,
            receives: false,
            confirmed: false,
        };
        for size in [10, 16, 25, 26, 27, 28, 125, 126, 200, 70_000] {
            let payload = Payload::new(size);
            let publication = Publication::new(Opcode::Binary)
                .bytes(b"to ")
                .channel(&plan)
                .bytes(b" id ")
                .packet_id()
                .number()
                .bytes(b":")
                .payload(&payload);
            let template = FrameTemplate::new(&publication);
            let mut out = Vec::new();
            let sends = [(0, 0), (7, 8), (65_535, 123_456), (8_999_999_999, 999_999)];
            for (number, channel) in sends {
                template.append(&mut out, number, channel);
            }
            assert_eq!(out.len(), 4 * template.len());
            for (message, (number, channel)) in read(&mut out).iter().zip(sends) {
                let mut expected = format!("to {} id ", channels.name(channel)).into_bytes();
                expected.extend_from_slice(&packet_id(number).to_be_bytes());
                expected.extend_from_slice(format!("{}:", Payload::FIRST + number).as_bytes());
                assert_eq!(&message[..expected.len()], expected);
                let message = &message[expected.len()..];
                assert_eq!(payload.number_of(message), Some(number));
                assert_eq!(&message[payload.number_at() + 10..], &payload.bytes()[payload.number_at() + 10..]);
            }
        }
    }

    #[test]
    fn packet_identifiers_are_never_zero() {
        assert_eq!([0, 1, 65_534, 65_535, 65_536].map(packet_id), [1, 2, 65_535, 1, 2]);
    }
}
