//! Finds the next byte that ends or escapes a JSON string ("special": a quote, a backslash, a control character), and the end of a run of digits.
//!
//! Reading and writing JSON spends most of its time in these loops, so they check a block of bytes at once. Never checks the grammar of JSON.

/// Bytes that are checked together.
const BLOCK: usize = 16;
/// Blocks that are skipped together if they have no special byte, as in most of a long text.
const STRIDE: usize = 4;

/// Like [`end`], but checks at most one block, which is enough for most strings. No byte before the result is special.
#[inline(always)]
pub(super) fn end_in_block(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start..).and_then(<[u8]>::first_chunk).map(special) {
        None => start,
        Some(0) => start + BLOCK,
        Some(found) => start + found.trailing_zeros() as usize,
    }
}

/// Returns the position of the first special byte from `start` on: a quote, a backslash, or a control character. Returns the length of `bytes` if there is none.
pub(super) fn end(bytes: &[u8], start: usize) -> usize {
    let rest = bytes.get(start..).unwrap_or_default();
    let (blocks, tail) = rest.as_chunks();
    let passed = blocks.as_chunks::<STRIDE>().0.iter().take_while(|stride| !any_special(stride)).count() * STRIDE;
    for (index, block) in blocks.iter().enumerate().skip(passed) {
        let found = special(block);
        if found != 0 {
            return start + index * BLOCK + found.trailing_zeros() as usize;
        }
    }
    let tail_start = bytes.len() - tail.len();
    // Checks the last block of `bytes`, which overlaps the bytes before the tail.
    let found = match bytes.last_chunk() {
        Some(block) => u64::from(special(block)) << tail.len() >> BLOCK,
        None => {
            let mut block = [b' '; BLOCK];
            block[..tail.len()].copy_from_slice(tail);
            u64::from(special(&block))
        }
    };
    if found == 0 { bytes.len() } else { tail_start + found.trailing_zeros() as usize }
}

/// Returns the position after the decimal digits at `start`.
#[inline]
pub(super) fn digits(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(word) = bytes.get(at..).and_then(<[u8]>::first_chunk) {
        // Digits become 0 to 9. A byte above 9 gets its high bit. The carry may change later bytes, but only the first such byte counts.
        let word = u64::from_le_bytes(*word) ^ (ONES * u64::from(b'0'));
        let other = (word.wrapping_add(ONES * (0x80 - 10)) | word) & (ONES * 0x80);
        if other != 0 {
            return at + other.trailing_zeros() as usize / 8;
        }
        at += size_of::<u64>();
    }
    let tail = bytes.get(at..).unwrap_or_default();
    at + tail.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

/// A word in which every byte is 1.
const ONES: u64 = u64::MAX / 255;

/// Returns a bit for each special byte of the block. The lowest bit is for the first byte.
#[cfg(target_arch = "x86_64")]
#[inline]
fn special(block: &[u8; BLOCK]) -> u32 {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { sse2::special(block) }
}

/// Whether the blocks have a special byte.
#[cfg(target_arch = "x86_64")]
#[inline]
fn any_special(blocks: &[[u8; BLOCK]; STRIDE]) -> bool {
    // SAFETY: every x86-64 processor has SSE2.
    unsafe { sse2::any_special(blocks) }
}

#[cfg(target_arch = "x86_64")]
mod sse2 {
    use std::arch::x86_64::{
        __m128i, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_min_epu8, _mm_movemask_epi8, _mm_or_si128, _mm_set1_epi8,
    };

    use super::{BLOCK, STRIDE};

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn special(block: &[u8; BLOCK]) -> u32 {
        _mm_movemask_epi8(marks(block)) as u32
    }

    #[inline]
    #[target_feature(enable = "sse2")]
    pub(super) fn any_special([a, b, c, d]: &[[u8; BLOCK]; STRIDE]) -> bool {
        let marks = _mm_or_si128(_mm_or_si128(marks(a), marks(b)), _mm_or_si128(marks(c), marks(d)));
        _mm_movemask_epi8(marks) != 0
    }

    /// Returns 0xff for each special byte, and 0 for each other byte.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn marks(block: &[u8; BLOCK]) -> __m128i {
        // SAFETY: the block has the length of the read, and an unaligned read is allowed.
        let block = unsafe { _mm_loadu_si128(block.as_ptr().cast()) };
        let quote = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'"' as i8));
        let backslash = _mm_cmpeq_epi8(block, _mm_set1_epi8(b'\\' as i8));
        let control = _mm_cmpeq_epi8(_mm_min_epu8(block, _mm_set1_epi8(0x1f)), block);
        _mm_or_si128(_mm_or_si128(quote, backslash), control)
    }
}

/// Returns a bit for each special byte of the block. The lowest bit is for the first byte.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn special(block: &[u8; BLOCK]) -> u32 {
    portable(block)
}

/// Whether the blocks have a special byte.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn any_special(blocks: &[[u8; BLOCK]; STRIDE]) -> bool {
    blocks.iter().any(|block| portable(block) != 0)
}

/// [`special`] without SIMD instructions: uses Mycroft's method to find a zero byte in a word of eight bytes.
#[cfg(any(test, not(target_arch = "x86_64")))]
#[inline]
fn portable(block: &[u8; BLOCK]) -> u32 {
    let (words, _) = block.as_chunks();
    let mask = |word: &[u8; 8]| {
        let word = u64::from_le_bytes(*word);
        // Sets the high bit of each zero byte, without a carry into the next byte.
        let zero = |word: u64| !(((word & (ONES * 0x7f)) + ONES * 0x7f) | word | (ONES * 0x7f));
        let found =
            zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\'))) | zero(word & (ONES * 0xe0));
        // Collects the high bits in the highest byte.
        ((found >> 7).wrapping_mul(0x0102_0408_1020_4080) >> 56) as u32
    };
    words.iter().rev().fold(0, |found, word| found << 8 | mask(word))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_special(byte: u8) -> bool {
        byte < 0x20 || byte == b'"' || byte == b'\\'
    }

    #[test]
    fn every_byte_at_every_position_of_a_block() {
        for byte in 0..=u8::MAX {
            for place in 0..BLOCK {
                for around in [b' ', b'a', 0x7f, 0x80, 0xff] {
                    let mut block = [around; BLOCK];
                    block[place] = byte;
                    let expected = u32::from(is_special(byte)) << place;
                    assert_eq!((special(&block), portable(&block)), (expected, expected), "{byte} at {place}");
                }
            }
        }
    }

    proptest! {
        #[test]
        fn both_implementations_return_the_same(block in any::<[u8; BLOCK]>()) {
            prop_assert_eq!(special(&block), portable(&block));
        }

        #[test]
        fn the_first_special_byte_is_found(
            bytes in prop::collection::vec(prop_oneof![20 => Just(b'a'), 1 => any::<u8>()], 0..300),
            start in 0_usize..90,
        ) {
            let start = start.min(bytes.len());
            let expected = bytes[start..].iter().position(|byte| is_special(*byte)).map_or(bytes.len(), |at| start + at);
            prop_assert_eq!(end(&bytes, start), expected);
            let whole_block = bytes.len() - start >= BLOCK;
            prop_assert_eq!(end_in_block(&bytes, start), if whole_block { expected.min(start + BLOCK) } else { start });
        }

        #[test]
        fn the_digits_end_at_the_first_other_byte(
            bytes in prop::collection::vec(prop_oneof![20 => b'0'..=b'9', 1 => any::<u8>()], 0..40),
            start in 0_usize..45,
        ) {
            let start = start.min(bytes.len());
            let count = bytes[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            prop_assert_eq!(digits(&bytes, start), start + count);
        }
    }

    #[test]
    fn every_byte_after_and_between_digits() {
        for byte in 0..=u8::MAX {
            for place in 0..20 {
                let mut bytes = [b'7'; 20];
                bytes[place] = byte;
                let end = if byte.is_ascii_digit() { 20 } else { place };
                assert_eq!(digits(&bytes, 0), end, "{byte} at {place}");
            }
        }
    }
}
