//! Frames as the relay sees them: a header that says where the next one begins, a mask to be taken off. It knows bytes only, and no meaning.
//!
//! A client's frame is four bytes longer than a server's, the mask. So a burst of frames becomes what the receivers get in the buffer that it
//! was read into, front to back.

use std::ops::Range;

/// The longest message that is relayed, in bytes: more than any workload sends, and no danger to the machine.
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

/// The header of a client's frame.
struct Header {
    first: u8,
    /// Bytes of the header, mask included.
    length: usize,
    payload: usize,
    mask: [u8; 4],
}

/// Why a connection has to end: a close frame, or bytes that are no client's frames.
pub struct End;

/// What was found in a burst.
#[derive(Default)]
pub struct Burst {
    /// Bytes at the front of the buffer that are ready for the receivers.
    pub ready: usize,
    /// Bytes of it that were looked at; what follows is the beginning of a frame.
    pub consumed: usize,
    /// How long that frame is in all, or 0 if that is not known yet.
    pub needed: usize,
    /// What the sender itself is to get: pongs.
    pub answer: Vec<u8>,
    /// The sender wants to leave, or must.
    pub end: Option<End>,
}

/// Turns all whole frames in `bytes` into a server's frames, at the front of `bytes`.
pub fn turn(bytes: &mut [u8]) -> Burst {
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

/// Turns one whole frame that fills `bytes` into a server's frame without moving its payload. Returns where that begins.
pub fn turn_in_place(bytes: &mut [u8]) -> Result<usize, End> {
    let Some(header) = Header::read(bytes)? else { return Err(End) };
    unmask(&mut bytes[header.length..], header.mask);
    let start = header.length - header.server_length();
    header.write(&mut bytes[start..]);
    Ok(start)
}

impl Header {
    /// The header at the front of `bytes`, if it is whole.
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

    /// Bytes of the same frame's header from a server. (A client may spell a length longer than it need be.)
    fn server_length(&self) -> usize {
        match self.payload {
            ..126 => 2,
            126..65_536 => 4,
            _ => 10,
        }
    }

    /// Writes the same frame's header from a server to the front of `bytes`. Returns its length.
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

/// Unmasks where it lies.
fn unmask(bytes: &mut [u8], mask: [u8; 4]) {
    xor(bytes, mask);
    let rest = bytes.len() / 4 * 4;
    for (byte, mask) in bytes[rest..].iter_mut().zip(mask) {
        *byte ^= mask;
    }
}

/// Bytes that are unmasked at once: a few of the processor's widest registers.
const BLOCK: usize = 64;

/// Unmasks `from` and moves it down to `to`, which is before it, in one pass.
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

/// What is still to be unmasked and moved: all but the last three bytes at most go in steps that are multiples of the mask's length.
struct Move {
    source: usize,
    target: usize,
    end: usize,
}

impl Move {
    /// Moves `N` bytes, if there are as many. They are read before anything is written, and what is written lies before what is read next.
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
