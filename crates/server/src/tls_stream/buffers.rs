//! What an encrypted connection keeps between two calls: bytes that found no room, and the sizes of the last writes.
//!
//! Never here: a system call.

use crate::limits;

/// Bytes of which the first are used up. Holds no memory when it is empty.
#[derive(Default)]
pub(super) struct Rest {
    all: Vec<u8>,
    used: usize,
}

impl Rest {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.all[self.used..]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn extend(&mut self, bytes: &[u8]) {
        self.all.extend_from_slice(bytes);
    }

    pub(super) fn advance(&mut self, count: usize) {
        self.used += count;
        if self.used >= self.all.len() {
            *self = Self::default();
        }
    }

    pub(super) fn into_vec(mut self) -> Vec<u8> {
        self.all.drain(..self.used);
        self.all
    }
}

/// The last writes, newest last: how many plain bytes became how many encrypted ones.
#[derive(Default)]
pub(super) struct RecentWrites {
    writes: [(u32, u32); limits::TLS_WRITES],
}

impl RecentWrites {
    pub(super) fn add(&mut self, plain: usize, encrypted: usize) {
        if encrypted > 0 {
            self.writes.rotate_left(1);
            let size = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
            self.writes[limits::TLS_WRITES - 1] = (size(plain), size(encrypted));
        }
    }

    /// How many plain bytes the last `encrypted` bytes hold at most. Of a write that they cut, all plain bytes count. Of older writes it is only known that
    /// encryption makes nothing shorter.
    pub(super) fn plain_in_last(&self, mut encrypted: u64) -> u64 {
        let mut plain = 0;
        for (of_write, length) in self.writes.iter().rev() {
            if encrypted == 0 {
                break;
            }
            plain += u64::from(*of_write);
            encrypted = encrypted.saturating_sub(u64::from(*length));
        }
        plain + encrypted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plain_bytes_of_the_last_encrypted_ones_are_never_too_few() {
        let mut writes = RecentWrites::default();
        assert_eq!(writes.plain_in_last(10), 10, "nothing is known");
        for (plain, encrypted) in [(100, 122), (0, 200), (50, 72), (0, 24)] {
            writes.add(plain, encrypted);
        }
        for (encrypted, plain) in
            [(0, 0), (1, 0), (24, 0), (25, 50), (96, 50), (97, 50), (296, 50), (297, 150), (418, 150)]
        {
            assert_eq!(writes.plain_in_last(encrypted), plain, "{encrypted}");
        }
        assert_eq!(writes.plain_in_last(420), 152);
    }

    #[test]
    fn a_rest_holds_no_memory_when_it_is_empty() {
        let mut rest = Rest::default();
        rest.extend(b"abc");
        rest.advance(1);
        rest.extend(b"d");
        assert_eq!(rest.bytes(), b"bcd");
        rest.advance(3);
        assert!(rest.is_empty() && rest.all.capacity() == 0);
    }
}
