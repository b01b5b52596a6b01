//! The keyed hash of publication ids: SipHash with 128 bits of output.
//!
//! A file keeps the hashes over restarts, so the function must never change. Therefore it is implemented here and tested with the vectors
//! of its authors (<https://github.com/veorq/SipHash>, the variant with 128 bits). The key is random, so that no client can construct two
//! ids with the same hash.

/// The hash of an id and its channel. Two `u64`, because a `u128` would need padding.
pub(in crate::broker) type Key = [u64; 2];

/// The rounds for each word, and at the end: the same numbers as in the standard library's hash maps.
const ROUNDS: usize = 1;
const LAST_ROUNDS: usize = 3;

/// Hashes `parts` one after the other, each followed by a zero byte, which no part contains.
pub(super) fn hash<const N: usize>(key: [u64; 2], parts: [&str; N]) -> Key {
    let mut state = State::new(key);
    for part in parts {
        state.write(part.as_bytes());
        state.write_zero();
    }
    state.finish::<ROUNDS, LAST_ROUNDS>()
}

/// The state of the hash, and the bytes that do not fill a word yet.
struct State {
    v: [u64; 4],
    /// The remaining bytes, little-endian.
    tail: u64,
    length: usize,
}

impl State {
    fn new([k0, k1]: [u64; 2]) -> Self {
        let v = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d ^ 0xee,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { v, tail: 0, length: 0 }
    }

    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) {
        self.write_rounds::<ROUNDS>(bytes);
    }

    /// The same as `write(&[0])`.
    #[inline(always)]
    fn write_zero(&mut self) {
        self.length += 1;
        if self.length.is_multiple_of(8) {
            self.word::<ROUNDS>(self.tail);
            self.tail = 0;
        }
    }

    #[inline(always)]
    fn write_rounds<const C: usize>(&mut self, mut bytes: &[u8]) {
        let have = self.length % 8;
        self.length += bytes.len();
        if have > 0 {
            let (now, rest) = bytes.split_at(bytes.len().min(8 - have));
            self.tail |= word(now) << (8 * have);
            if have + now.len() < 8 {
                return;
            }
            self.word::<C>(self.tail);
            self.tail = 0;
            bytes = rest;
        }
        let (words, rest) = bytes.as_chunks::<8>();
        for bytes in words {
            self.word::<C>(u64::from_le_bytes(*bytes));
        }
        self.tail = word(rest);
    }

    #[inline(always)]
    fn word<const C: usize>(&mut self, word: u64) {
        self.v[3] ^= word;
        for _ in 0..C {
            round(&mut self.v);
        }
        self.v[0] ^= word;
    }

    #[inline(always)]
    fn finish<const C: usize, const D: usize>(mut self) -> Key {
        self.word::<C>(self.tail | (self.length as u64 & 0xff) << 56);
        self.v[2] ^= 0xee;
        for _ in 0..D {
            round(&mut self.v);
        }
        let first = self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3];
        self.v[1] ^= 0xdd;
        for _ in 0..D {
            round(&mut self.v);
        }
        [first, self.v[0] ^ self.v[1] ^ self.v[2] ^ self.v[3]]
    }
}

/// Returns fewer than eight bytes as a little-endian number.
#[inline(always)]
fn word(bytes: &[u8]) -> u64 {
    let (mut word, mut rest, mut shift) = (0, bytes, 0);
    if let Some((four, others)) = rest.split_first_chunk::<4>() {
        (word, rest, shift) = (u64::from(u32::from_le_bytes(*four)), others, 32);
    }
    if let Some((two, others)) = rest.split_first_chunk::<2>() {
        word |= u64::from(u16::from_le_bytes(*two)) << shift;
        (rest, shift) = (others, shift + 16);
    }
    rest.first().map_or(word, |last| word | u64::from(*last) << shift)
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    let [mut v0, mut v1, mut v2, mut v3] = *v;
    v0 = v0.wrapping_add(v1);
    v2 = v2.wrapping_add(v3);
    v1 = v1.rotate_left(13) ^ v0;
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v1);
    v0 = v0.wrapping_add(v3);
    v1 = v1.rotate_left(17) ^ v2;
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.rotate_left(32);
    *v = [v0, v1, v2, v3];
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hashes with the rounds, the key and the texts of the authors' test vectors.
    fn listed(length: u8) -> [u8; 16] {
        let mut state = State::new([0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908]);
        let text: Vec<u8> = (0..length).collect();
        // In two pieces, which must not change the result.
        let (first, second) = text.split_at(text.len() / 3);
        state.write_rounds::<2>(first);
        state.write_rounds::<2>(second);
        let [first, second] = state.finish::<2, 4>();
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&first.to_le_bytes());
        bytes[8..].copy_from_slice(&second.to_le_bytes());
        bytes
    }

    #[test]
    fn the_hash_is_the_published_function() {
        let wanted = [
            "a3817f04ba25a8e66df67214c7550293",
            "da87c1d86b99af44347659119b22fc45",
            "8177228da4a45dc7fca38bdef60affe4",
        ];
        for (length, wanted) in (0..).zip(wanted) {
            let hex: String = listed(length).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, wanted, "{length} bytes");
        }
    }

    #[test]
    fn the_hash_does_not_depend_on_how_the_text_is_split() {
        let text: Vec<u8> = (0..64).collect();
        let mut whole = State::new([1, 2]);
        whole.write(&text);
        let whole = whole.finish::<ROUNDS, LAST_ROUNDS>();
        for cut in 0..text.len() {
            for second in cut..text.len() {
                let mut state = State::new([1, 2]);
                state.write(&text[..cut]);
                state.write(&text[cut..second]);
                state.write(&text[second..]);
                assert_eq!(state.finish::<ROUNDS, LAST_ROUNDS>(), whole, "cut at {cut} and {second}");
            }
        }
    }

    #[test]
    fn the_hash_that_the_file_relies_on_never_changes() {
        // If this fails, the ids in the file of another version would not be found: change the version of the file format.
        assert_eq!(hash([1, 2], ["sms", "app:1"]), [0xba19_d7a2_0062_8d5e, 0xdd1d_1e01_94d0_0075]);
        assert_ne!(hash([1, 2], ["sm", "sapp:1"]), hash([1, 2], ["sms", "app:1"]));
    }
}
