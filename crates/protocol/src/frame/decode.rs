//! The decoder: frames from a stream that may be cut anywhere.
//!
//! A frame that lies whole in the read buffer is unmasked and handed out where it lies. Only what is unfinished is copied,
//! into one [`Held`] that lives from the first byte that can't be used yet to the end of its frame or message.
//!
//! Every check is a function of the bytes before it, in stream order, so that the answer never depends on how the stream
//! was cut.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::encode::{apply_mask, put_header};
use super::{CONTROL_PAYLOAD, HEADER, Incoming, ProtocolError, Role};
use crate::limits;
use wsmb_core::message::{Frame, Kind};

/// Room for the longest unmasked header in front of a message that is put together, so that the frame that forwards it needs no copy.
const ROOM: usize = HEADER - 4;

/// Decodes one connection's inbound stream. A few words while nothing is unfinished, and no heap.
#[derive(Debug)]
pub struct Decoder {
    held: Option<Box<Held>>,
    max_message: usize,
    role: Role,
}

/// What has arrived of something unfinished: a header or control frame in `raw`, or a data message, or (a control frame
/// between two fragments) both.
#[derive(Debug)]
struct Held {
    /// The start of a header, or of a control frame, still masked.
    raw: [u8; HEADER + CONTROL_PAYLOAD],
    raw_len: usize,
    /// The kind of the message that is being put together; `None` if there is none.
    kind: Option<Kind>,
    /// [`ROOM`] and its payload so far. Grows with what arrives.
    message: Vec<u8>,
    /// How much of `message`, the room included, is known to be UTF-8; the rest is the start of one character.
    checked: usize,
    /// Frames of the message so far.
    fragments: usize,
    /// The frame that is being read: bytes of it to come, its mask from here on, and whether it is the last of its message.
    remaining: usize,
    mask: [u8; 4],
    fin: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wire {
    Continuation,
    Data(Kind),
    Close,
    Ping,
    Pong,
}

struct Header {
    fin: bool,
    wire: Wire,
    /// Zeros where there is none.
    mask: [u8; 4],
    length: u64,
    /// Bytes of the header itself.
    size: usize,
}

/// What one step has left of the input, and whether the taker wants more.
type Step<'a> = Result<(&'a mut [u8], ControlFlow<()>), ProtocolError>;

impl Decoder {
    /// A decoder for the inbound stream of one connection, on which messages carry at most `max_message` bytes.
    #[must_use]
    pub fn new(role: Role, max_message: usize) -> Self {
        Self { held: None, max_message, role }
    }

    /// Takes what was read, which is unmasked in place, and calls `take` for each item that is whole, in order. Items may be kept as long as the
    /// input is borrowed. If `take` breaks, the rest of the input, and whatever is unfinished, is dropped.
    ///
    /// # Errors
    /// The peer broke the protocol. What came before has been handed out; feed nothing more.
    pub fn feed<'a>(
        &mut self,
        mut input: &'a mut [u8],
        mut take: impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<(), ProtocolError> {
        while !input.is_empty() {
            match self.step(input, &mut take) {
                Ok((rest, ControlFlow::Continue(()))) => input = rest,
                Ok((_, ControlFlow::Break(()))) => {
                    self.held = None;
                    return Ok(());
                }
                Err(error) => {
                    self.held = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Nothing is unfinished: no part of a frame, no message that lacks fragments.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.held.is_none()
    }

    /// Uses at least one byte of `input`, which is not empty.
    fn step<'a>(&mut self, input: &'a mut [u8], take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>) -> Step<'a> {
        if let Some(held) = &self.held {
            if held.remaining > 0 {
                return self.resume_payload(input, take);
            }
            if held.raw_len > 0 {
                return self.resume_raw(input, take);
            }
        }
        let Some(header) = Header::parse(input, self.role)? else {
            return Ok(self.keep_all(input));
        };
        self.admit(&header)?;
        let end = usize::try_from(header.length).ok().and_then(|length| header.size.checked_add(length));
        let end = end.filter(|end| *end <= input.len());
        match (end, header.wire) {
            (Some(end), Wire::Data(kind)) if header.fin => {
                let (whole, rest) = input.split_at_mut(end);
                let frame = Frame::Borrowed(self.unmask(whole, &header, kind)?);
                Ok((rest, take(Incoming::Message { kind, frame })))
            }
            (_, Wire::Data(_) | Wire::Continuation) => {
                let flow = self.open(&header, take)?;
                Ok((&mut input[header.size..], flow))
            }
            (Some(end), wire) => {
                let (whole, rest) = input.split_at_mut(end);
                let payload = &mut whole[header.size..];
                apply_mask(payload, header.mask);
                control(wire, Cow::Borrowed(payload), take).map(|flow| (rest, flow))
            }
            (None, _) => Ok(self.keep_all(input)),
        }
    }

    /// Keeps all of the input: the start of a header or control frame.
    fn keep_all<'a>(&mut self, input: &'a mut [u8]) -> (&'a mut [u8], ControlFlow<()>) {
        self.hold().keep_raw(input);
        (&mut [], ControlFlow::Continue(()))
    }

    /// Makes an unmasked frame of a whole one, in its place.
    #[inline]
    fn unmask<'a>(&self, whole: &'a mut [u8], header: &Header, kind: Kind) -> Result<&'a [u8], ProtocolError> {
        let payload = &mut whole[header.size..];
        let is_ascii = apply_mask(payload, header.mask);
        if kind == Kind::Text && !is_ascii && std::str::from_utf8(payload).is_err() {
            return Err(ProtocolError::BadUtf8);
        }
        if self.role == Role::Client {
            return Ok(whole);
        }
        // A masked header is longer than the shortest unmasked one, whatever its length.
        let len = payload.len();
        let start = put_header(whole, header.size, kind.into(), len);
        Ok(&whole[start..])
    }

    /// Goes on with a header or control frame whose start is held.
    fn resume_raw<'a>(
        &mut self,
        input: &'a mut [u8],
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Step<'a> {
        let role = self.role;
        let held = self.hold();
        let mut used = 0;
        let header = loop {
            if let Some(header) = Header::parse(&held.raw[..held.raw_len], role)? {
                break header;
            }
            let Some(byte) = input.get(used) else {
                return Ok((&mut [], ControlFlow::Continue(())));
            };
            held.keep_raw(&[*byte]);
            used += 1;
        };
        if matches!(header.wire, Wire::Data(_) | Wire::Continuation) {
            held.raw_len = 0;
            self.admit(&header)?;
            return self.open(&header, take).map(|flow| (&mut input[used..], flow));
        }
        // At most CONTROL_PAYLOAD, as `Header::parse` has checked.
        let end = header.size + header.length as usize;
        let missing = (end - held.raw_len).min(input.len() - used);
        held.keep_raw(&input[used..used + missing]);
        used += missing;
        if held.raw_len < end {
            return Ok((&mut input[used..], ControlFlow::Continue(())));
        }
        let mut frame = held.raw;
        held.raw_len = 0;
        if held.kind.is_none() {
            self.held = None;
        }
        let payload = &mut frame[header.size..end];
        apply_mask(payload, header.mask);
        control(header.wire, Cow::Owned(payload.to_vec()), take).map(|flow| (&mut input[used..], flow))
    }

    /// Goes on with a data frame's payload.
    fn resume_payload<'a>(
        &mut self,
        input: &'a mut [u8],
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Step<'a> {
        let held = self.hold();
        let used = held.remaining.min(input.len());
        let (part, rest) = input.split_at_mut(used);
        apply_mask(part, held.mask);
        held.mask.rotate_left(used % 4);
        held.remaining -= used;
        held.append(part)?;
        if held.remaining == 0 {
            self.end_frame(take).map(|flow| (rest, flow))
        } else {
            Ok((rest, ControlFlow::Continue(())))
        }
    }

    /// Begins a data frame whose payload is put together in `held`.
    fn open<'a>(
        &mut self,
        header: &Header,
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ProtocolError> {
        let held = self.hold();
        if let Wire::Data(kind) = header.wire {
            held.kind = Some(kind);
        }
        held.fragments += 1;
        // At most `max_message`, as `admit` has checked.
        held.remaining = header.length as usize;
        held.mask = header.mask;
        held.fin = header.fin;
        if held.remaining == 0 { self.end_frame(take) } else { Ok(ControlFlow::Continue(())) }
    }

    /// A data frame is whole; if it was its message's last, so is the message.
    fn end_frame<'a>(
        &mut self,
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ProtocolError> {
        let Some(mut held) = self.held.take_if(|held| held.fin) else {
            return Ok(ControlFlow::Continue(()));
        };
        let kind = held.kind.unwrap_or(Kind::Binary);
        if kind == Kind::Text && held.checked < held.message.len() {
            return Err(ProtocolError::BadUtf8);
        }
        let len = held.message.len() - ROOM;
        let start = put_header(&mut held.message, ROOM, kind.into(), len);
        // To what it needs: whoever keeps it keeps no more.
        held.message.shrink_to_fit();
        let frame = Frame::Shared(Bytes::from(held.message).slice(start..));
        Ok(take(Incoming::Message { kind, frame }))
    }

    /// Whether this frame may come now, and is not too much; decided before a byte of it is kept.
    fn admit(&self, header: &Header) -> Result<(), ProtocolError> {
        let open = self.held.as_ref().filter(|held| held.kind.is_some());
        let have = match (header.wire, open) {
            (Wire::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (Wire::Data(_), Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (Wire::Data(_), None) => 0,
            (Wire::Continuation, Some(held)) => {
                let have = held.message.len() - ROOM;
                if held.fragments >= limits::FRAGMENTS + have / limits::FRAGMENT_BYTES {
                    return Err(ProtocolError::TooManyFragments);
                }
                have
            }
            (Wire::Close | Wire::Ping | Wire::Pong, _) => return Ok(()),
        };
        if header.length > self.max_message.saturating_sub(have) as u64 {
            return Err(ProtocolError::MessageTooLarge(self.max_message));
        }
        Ok(())
    }

    /// Bytes reserved for an unfinished message.
    #[cfg(test)]
    pub(super) fn held_capacity(&self) -> usize {
        self.held.as_ref().map_or(0, |held| held.message.capacity())
    }

    fn hold(&mut self) -> &mut Held {
        self.held.get_or_insert_with(|| {
            Box::new(Held {
                raw: [0; HEADER + CONTROL_PAYLOAD],
                raw_len: 0,
                kind: None,
                message: vec![0; ROOM],
                checked: ROOM,
                fragments: 0,
                remaining: 0,
                mask: [0; 4],
                fin: false,
            })
        })
    }
}

impl Held {
    /// Keeps bytes of a header or control frame. They fit: callers pass an incomplete header or part of one control frame.
    fn keep_raw(&mut self, bytes: &[u8]) {
        self.raw[self.raw_len..self.raw_len + bytes.len()].copy_from_slice(bytes);
        self.raw_len += bytes.len();
    }

    /// Appends to the message and checks the text as far as it goes: a character may be cut, but must not be wrong.
    fn append(&mut self, part: &[u8]) -> Result<(), ProtocolError> {
        self.message.extend_from_slice(part);
        if self.kind == Some(Kind::Text) {
            match std::str::from_utf8(&self.message[self.checked..]) {
                Ok(_) => self.checked = self.message.len(),
                Err(error) if error.error_len().is_none() => self.checked += error.valid_up_to(),
                Err(_) => return Err(ProtocolError::BadUtf8),
            }
        }
        Ok(())
    }
}

impl Header {
    /// The header at the start of `bytes`; `None` if it is not all there. A violation is found with the byte that commits it.
    #[inline]
    fn parse(bytes: &[u8], role: Role) -> Result<Option<Self>, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let wire = match first & 0xf {
            0x0 => Wire::Continuation,
            0x1 => Wire::Data(Kind::Text),
            0x2 => Wire::Data(Kind::Binary),
            0x8 => Wire::Close,
            0x9 => Wire::Ping,
            0xa => Wire::Pong,
            reserved => return Err(ProtocolError::ReservedOpcode(reserved)),
        };
        let is_control = matches!(wire, Wire::Close | Wire::Ping | Wire::Pong);
        if is_control && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        match (role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(ProtocolError::Unmasked),
            (Role::Client, true) => return Err(ProtocolError::Masked),
            (Role::Server, true) | (Role::Client, false) => {}
        }
        // A length in more bytes than it needs is accepted: the PHP client writes 65,535 in eight.
        let (length, at) = match second & 0x7f {
            126 => match bytes[2..].first_chunk() {
                Some(length) => (u64::from(u16::from_be_bytes(*length)), 4),
                None => return Ok(None),
            },
            127 => match bytes[2..].first_chunk() {
                Some(length) => (u64::from_be_bytes(*length), 10),
                None => return Ok(None),
            },
            short => (u64::from(short), 2),
        };
        if length >> 63 != 0 {
            return Err(ProtocolError::LengthOutOfRange);
        }
        if is_control && length > CONTROL_PAYLOAD as u64 {
            return Err(ProtocolError::LongControl);
        }
        if role == Role::Client {
            return Ok(Some(Self { fin, wire, mask: [0; 4], length, size: at }));
        }
        let Some(mask) = bytes[at..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { fin, wire, mask: *mask, length, size: at + 4 }))
    }
}

/// Hands out one whole control frame.
fn control<'a>(
    wire: Wire,
    payload: Cow<'a, [u8]>,
    take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ProtocolError> {
    let item = match wire {
        Wire::Ping => Incoming::Ping(payload),
        Wire::Pong => Incoming::Pong(payload),
        Wire::Close | Wire::Continuation | Wire::Data(_) => close(&payload)?,
    };
    Ok(take(item))
}

/// The meaning of a close frame's payload (RFC 6455 sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Incoming<'static>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok(Incoming::Close { code: None, reason: String::new() });
        }
        return Err(ProtocolError::HalfCloseCode);
    };
    let code = u16::from_be_bytes(*code);
    // 1004–1006 and 1015 never travel; 1012–1014 have been registered since the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::BadCloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::BadUtf8)?;
    Ok(Incoming::Close { code: Some(code), reason: reason.to_owned() })
}
