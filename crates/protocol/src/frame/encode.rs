//! Encodes payloads as frames: always one frame per message, always with the shortest length encoding.

use bytes::Bytes;

use super::{CONTROL_PAYLOAD, HEADER, Opcode};

/// Returns an unmasked frame. A control payload is truncated to [`CONTROL_PAYLOAD`] bytes.
#[must_use]
pub fn encode(opcode: Opcode, payload: &[u8]) -> Bytes {
    // With the exact capacity, `Bytes` takes the vector over without a copy.
    let mut out = Vec::with_capacity(header_len(payload.len()) + payload.len());
    encode_into(&mut out, opcode, payload);
    Bytes::from(out)
}

/// Appends the header of an unmasked data frame. The caller must append the payload of `len` bytes.
pub(crate) fn push_header(out: &mut Vec<u8>, opcode: Opcode, len: usize) {
    let (header, size) = header(opcode, len, 0);
    out.reserve(size + len);
    out.extend_from_slice(&header[..size]);
}

/// Appends an unmasked frame to `out`. A control payload is truncated to [`CONTROL_PAYLOAD`] bytes.
pub fn encode_into(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8]) {
    let payload = fitting(opcode, payload);
    let (header, len) = header(opcode, payload.len(), 0);
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(payload);
}

/// Appends a masked frame to `out`: clients must mask. A control payload is truncated to [`CONTROL_PAYLOAD`] bytes.
///
/// `mask` must be unpredictable (RFC 6455 section 5.3).
pub fn encode_masked_into(out: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    let payload = fitting(opcode, payload);
    let (header, len) = header(opcode, payload.len(), 0x80);
    out.extend_from_slice(&header[..len]);
    out.extend_from_slice(&mask);
    let start = out.len();
    out.extend_from_slice(payload);
    apply_mask(&mut out[start..], mask);
}

/// Returns an unmasked close frame. `reason` is truncated to 123 bytes, at a character boundary.
#[must_use]
pub fn encode_close(code: u16, reason: &str) -> Bytes {
    let mut end = reason.len().min(CONTROL_PAYLOAD - 2);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    let mut payload = Vec::with_capacity(2 + end);
    payload.extend_from_slice(&code.to_be_bytes());
    payload.extend_from_slice(&reason.as_bytes()[..end]);
    encode(Opcode::Close, &payload)
}

/// Whether `frame` begins with a data frame (RFC 6455 section 5.6), not a control frame.
#[must_use]
pub fn is_data(frame: &[u8]) -> bool {
    frame.first().is_some_and(|first| first & 0x08 == 0)
}

/// Returns where the payload of an unmasked frame begins; the end of `frame` if it has no payload.
#[must_use]
pub fn payload_start(frame: &[u8]) -> usize {
    let start = match frame.get(1) {
        None => 0,
        Some(126) => 4,
        Some(127) => 10,
        Some(_) => 2,
    };
    start.min(frame.len())
}

/// Returns the length of the unmasked frame at the beginning of `bytes`, with its header; at most the length of `bytes`.
#[must_use]
pub fn unmasked_len(bytes: &[u8]) -> usize {
    let payload = match bytes {
        [_, 126, a, b, ..] => u64::from(u16::from_be_bytes([*a, *b])),
        [_, 127, rest @ ..] => rest.first_chunk().map_or(u64::MAX, |len| u64::from_be_bytes(*len)),
        [_, len, ..] => u64::from(*len),
        _ => u64::MAX,
    };
    let whole = usize::try_from(payload).ok().and_then(|payload| payload.checked_add(payload_start(bytes)));
    whole.map_or(bytes.len(), |whole| whole.min(bytes.len()))
}

/// Writes the unmasked header of a frame directly before its payload, which begins at `start`. Returns where the frame begins. There must be at least
/// [`header_len`] bytes before `start`.
pub(super) fn put_header(buffer: &mut [u8], start: usize, opcode: Opcode, len: usize) -> usize {
    let (header, size) = header(opcode, len, 0);
    let at = start - size;
    buffer[at..start].copy_from_slice(&header[..size]);
    at
}

/// XORs `bytes` with `mask` (RFC 6455 section 5.3): masks or unmasks. Returns whether the result is ASCII; this check costs almost nothing here.
pub(super) fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) -> bool {
    const HIGH_BITS: u64 = 0x8080_8080_8080_8080;
    let wide = u64::from(u32::from_ne_bytes(mask)) * 0x1_0000_0001;
    let mut seen = 0;
    // The compiler vectorizes this loop.
    let (words, tail) = bytes.as_chunks_mut();
    for word in words {
        let clear = u64::from_ne_bytes(*word) ^ wide;
        seen |= clear;
        *word = clear.to_ne_bytes();
    }
    for (byte, mask) in tail.iter_mut().zip(wide.to_ne_bytes()) {
        *byte ^= mask;
        seen |= u64::from(*byte);
    }
    seen & HIGH_BITS == 0
}

/// Returns the size of an unmasked header for a payload of `len` bytes.
pub(crate) fn header_len(len: usize) -> usize {
    match len {
        0..=125 => 2,
        126..=0xffff => 4,
        _ => 10,
    }
}

fn fitting(opcode: Opcode, payload: &[u8]) -> &[u8] {
    match opcode {
        Opcode::Text | Opcode::Binary => payload,
        Opcode::Ping | Opcode::Pong | Opcode::Close => &payload[..payload.len().min(CONTROL_PAYLOAD)],
    }
}

/// Returns a header without its mask, and the number of its valid bytes.
fn header(opcode: Opcode, len: usize, mask_bit: u8) -> ([u8; HEADER], usize) {
    let mut header = [0; HEADER];
    header[0] = 0x80
        | match opcode {
            Opcode::Text => 0x1,
            Opcode::Binary => 0x2,
            Opcode::Close => 0x8,
            Opcode::Ping => 0x9,
            Opcode::Pong => 0xa,
        };
    let size = header_len(len);
    let wide = (len as u64).to_be_bytes();
    match size {
        2 => header[1] = wide[7] | mask_bit,
        4 => {
            header[1] = 126 | mask_bit;
            header[2..4].copy_from_slice(&wide[6..]);
        }
        _ => {
            header[1] = 127 | mask_bit;
            header[2..10].copy_from_slice(&wide);
        }
    }
    (header, size)
}
