//! The message that is sent: one JSON value of an exact size, with its number at a fixed offset.
//!
//! The number is decimal and always has the same width ([`Payload::FIRST`] and up), so that a sender changes ten bytes and a receiver reads
//! ten bytes. Neither must ever read the rest.

/// The repeated padding of a message: the text of a one-time password, so that a JSON scanner has a realistic input.
const PADDING: &[u8] = b"Your code is 402913, valid for five minutes, do not tell anybody. ";

/// A message of an exact size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    bytes: Vec<u8>,
    number_at: usize,
}

impl Payload {
    /// The digits of a number.
    pub const DIGITS: usize = 10;

    /// The number of the first message: a JSON number must not begin with a zero.
    pub const FIRST: u64 = 1_000_000_000;

    /// The number of different message numbers.
    pub const NUMBERS: u64 = 9_000_000_000;

    /// The smallest size, in bytes: only the number.
    pub const SMALLEST: usize = Self::DIGITS;

    /// Creates the first message, of `size` bytes, but at least [`Self::SMALLEST`].
    ///
    /// From 25 bytes on it is `{"n":NUMBER,"pad":"TEXT"}`; from 16 bytes on `{"n":NUMBER}` with spaces before the brace; below that a bare
    /// number, of which the last ten digits are the message's number.
    #[must_use]
    pub fn new(size: usize) -> Self {
        let size = size.max(Self::SMALLEST);
        let number = Self::FIRST.to_string();
        let (start, end): (&[u8], &[u8]) = match size {
            25.. => (b"{\"n\":", b"\"}"),
            16.. => (b"{\"n\":", b"}"),
            _ => (b"", b""),
        };
        let mut bytes = Vec::with_capacity(size);
        bytes.extend_from_slice(start);
        if start.is_empty() {
            bytes.resize(size - Self::DIGITS, b'1');
        }
        let number_at = bytes.len();
        bytes.extend_from_slice(number.as_bytes());
        if size >= 25 {
            bytes.extend_from_slice(b",\"pad\":\"");
            let missing = size - end.len() - bytes.len();
            bytes.extend(PADDING.iter().cycle().take(missing));
        } else {
            bytes.resize(size - end.len(), b' ');
        }
        bytes.extend_from_slice(end);
        Self { bytes, number_at }
    }

    /// The size of every message, in bytes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// The first message.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The offset of the number in a message, in bytes.
    #[must_use]
    pub fn number_at(&self) -> usize {
        self.number_at
    }

    /// Returns the number of a message, counted from zero; `None` if this generator did not send the message.
    #[inline]
    #[must_use]
    pub fn number_of(&self, message: &[u8]) -> Option<u64> {
        if message.len() != self.bytes.len() {
            return None;
        }
        let digits: &[u8; Self::DIGITS] = message.get(self.number_at..)?.first_chunk()?;
        let mut number = 0;
        for digit in digits {
            let value = digit.wrapping_sub(b'0');
            if value > 9 {
                return None;
            }
            number = number * 10 + u64::from(value);
        }
        number.checked_sub(Self::FIRST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_size_and_number_and_is_json() {
        for size in (10..=300).chain([65_535, 65_536, 1 << 20]) {
            let payload = Payload::new(size);
            assert_eq!((payload.size(), payload.bytes().len()), (size, size));
            assert!(serde_json::from_slice::<serde_json::Value>(payload.bytes()).is_ok(), "{size}");
            assert_eq!(payload.number_of(payload.bytes()), Some(0), "{size}");
            let mut other = payload.bytes().to_vec();
            other[payload.number_at()..][..Payload::DIGITS].copy_from_slice(b"9999999999");
            assert_eq!(payload.number_of(&other), Some(Payload::NUMBERS - 1), "{size}");
        }
        assert_eq!(Payload::new(0).bytes(), b"1000000000");
    }

    #[test]
    fn other_messages_have_no_number() {
        let payload = Payload::new(200);
        let mut other = payload.bytes().to_vec();
        other[payload.number_at()] = b'x';
        assert_eq!(payload.number_of(&other), None);
        other[payload.number_at()] = b'0';
        assert_eq!(payload.number_of(&other), None);
        assert_eq!(payload.number_of(&payload.bytes()[1..]), None);
        assert_eq!(payload.number_of(b""), None);
    }
}
