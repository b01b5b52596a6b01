//! Converts client frames to server frames: parses the header and removes the mask. Payloads are not interpreted.
//!
//! A client frame is at least four bytes longer than the server frame, because of the mask. Therefore a burst of frames is converted in place, from
//! front to back.

use std::ops::Range;

/// The longest relayed payload in bytes: more than any workload sends, and little compared with the memory of the machine.
const LONGEST: u64 = 64 * 1024 * 1024;

/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL_PAYLOAD: usize = 125;

const FINAL: u8 = 0x80;
const MASKED: u8 = 0x80;
const OPCODE: u8 = 0x0f;
const CONTROL: u8 = 0x08;
const CLOSE: u8 = 0x08;
const PING: u8 = 0x09;
const PONG: u8 = 0x0a;

/// The header of a client frame.
struct Header {
    first: u8,
    /// Bytes of the header, including the mask.
    length: usize,
    payload: usize,
    mask: [u8; 4],
}

/// The connection must end: a close frame, or bytes that are not client frames.
pub struct End;

/// The result of a conversion.
#[derive(Default)]
pub struct Burst {
    /// Bytes at the front of the buffer that must be sent to the receivers.
    pub ready: usize,
    /// Converted bytes of the buffer. The bytes after them are an incomplete frame.
    pub consumed: usize,
    /// The length of the incomplete frame in bytes, or 0 if the length is unknown.
    pub needed: usize,
    /// Pongs for the sender.
    pub answer: Vec<u8>,
    /// Whether the sender's connection must end.
    pub end: Option<End>,
}

/// Converts all complete frames in `bytes` to server frames at the front of `bytes`.
pub fn convert(bytes: &mut [u8]) -> Burst {
    let mut burst = Burst::default();
    loop {
        let header = match Header::read(&bytes[burst.consumed..]) {
            Ok(Some(header)) => header,
            Ok(None) => return burst,
            Err(end) => {
                burst.end = Some(end);
                return burst;
            }
        };
        let start = burst.consumed + header.length;
        let end = start + header.payload;
        if end > bytes.len() {
            burst.needed = end - burst.consumed;
            return burst;
        }
        burst.consumed = end;
        if header.first & CONTROL == 0 {
            burst.ready += header.write(&mut bytes[burst.ready..]);
            unmask_down(bytes, start..end, burst.ready, header.mask);
            burst.ready += header.payload;
            continue;
        }
        match header.first & OPCODE {
            PING => {
                unmask(&mut bytes[start..end], header.mask);
                burst.answer.extend([FINAL | PONG, header.payload.to_le_bytes()[0]]);
                burst.answer.extend_from_slice(&bytes[start..end]);
            }
            CLOSE => burst.end = Some(End),
            _ => {}
        }
        if burst.end.is_some() {
            return burst;
        }
    }
}

/// Converts the frame that fills `bytes` to a server frame without moving its payload. Returns the start of the server frame.
pub fn convert_in_place(bytes: &mut [u8]) -> Result<usize, End> {
    let Some(header) = Header::read(bytes)? else { return Err(End) };
    unmask(&mut bytes[header.length..], header.mask);
    let start = header.length - header.server_length();
    header.write(&mut bytes[start..]);
    Ok(start)
}

impl Header {
    /// Parses the header at the front of `bytes`. Returns `None` if the header is incomplete.
    #[inline(always)]
    fn read(bytes: &[u8]) -> Result<Option<Self>, End> {
        let [first, second, ..] = *bytes else { return Ok(None) };
        if second & MASKED == 0 {
            return Err(End);
        }
        let (payload, mask) = match (second & !MASKED, bytes) {
            (126, [_, _, a, b, mask @ ..]) => (u64::from(u16::from_be_bytes([*a, *b])), mask),
            (127, [_, _, a, b, c, d, e, f, g, h, mask @ ..]) => {
                (u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]), mask)
            }
            (126.., _) => return Ok(None),
            (short, [_, _, mask @ ..]) => (u64::from(short), mask),
            (_, _) => return Ok(None),
        };
        let Some(mask) = mask.first_chunk::<4>() else { return Ok(None) };
        let length = match second & !MASKED {
            126 => 8,
            127 => 14,
            _ => 6,
        };
        let Some(payload) = Some(payload).filter(|payload| *payload <= LONGEST) else { return Err(End) };
        let payload = usize::try_from(payload).map_err(|_| End)?;
        if first & CONTROL != 0 && payload > CONTROL_PAYLOAD {
            return Err(End);
        }
        Ok(Some(Self { first, length, payload, mask: *mask }))
    }

    /// Returns the length of the server frame's header. (A client may have used a longer encoding of the length.)
    fn server_length(&self) -> usize {
        match self.payload {
            ..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
    }

    /// Writes the server frame's header to the front of `bytes`. Returns its length.
    #[inline(always)]
    fn write(&self, bytes: &mut [u8]) -> usize {
        bytes[0] = self.first;
        let length = self.payload.to_be_bytes();
        match self.server_length() {
            2 => bytes[1] = length[7],
            4 => {
                bytes[1] = 126;
                bytes[2..4].copy_from_slice(&length[6..]);
            }
            _ => {
                bytes[1] = 127;
                bytes[2..10].copy_from_slice(&length);
            }
        }
        self.server_length()
    }
}

fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    xor(bytes, mask);
    let rest = bytes.len() / 4 * 4;
    for (byte, mask) in bytes[rest..].iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Bytes that are unmasked at once: a few vector registers.
const BLOCK: usize = 64;

/// Unmasks the range `from` and moves it to the smaller index `to`, in one pass.
#[inline]
fn unmask_down(bytes: &mut [u8], from: Range<usize>, to: usize, mask: [u8; 4]) {
    let mut rest = Move { source: from.start, target: to, end: from.end };
    while rest.step::<BLOCK>(bytes, mask) {}
    while rest.step::<16>(bytes, mask) {}
    rest.step::<8>(bytes, mask);
    rest.step::<4>(bytes, mask);
    for (source, mask) in (rest.source..rest.end).zip(mask) {
        bytes[rest.target] = bytes[source] ^ mask;
        rest.target += 1;
    }
}

/// The range that is still to be unmasked and moved. All steps except the last three bytes are multiples of the mask's length.
struct Move {
    source: usize,
    target: usize,
    end: usize,
}

impl Move {
    /// Moves `N` bytes if at least `N` are left. The bytes are read before they are written, and the written range is before the next range to read.
    #[inline(always)]
    fn step<const N: usize>(&mut self, bytes: &mut [u8], mask: [u8; 4]) -> bool {
        if self.end - self.source < N {
            return false;
        }
        let Some(mut block) = bytes[self.source..].first_chunk::<N>().copied() else { return false };
        xor(&mut block, mask);
        bytes[self.target..self.target + N].copy_from_slice(&block);
        self.source += N;
        self.target += N;
        true
    }
}

#[inline(always)]
fn xor(block: &mut [u8], mask: [u8; 4]) {
    let wide = u32::from_ne_bytes(mask);
    for word in block.as_chunks_mut::<4>().0 {
        *word = (u32::from_ne_bytes(*word) ^ wide).to_ne_bytes();
    }
}
