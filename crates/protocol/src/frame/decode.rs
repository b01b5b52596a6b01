//! The decoder: reads frames from a stream that arrives in pieces of any size.
//!
//! A frame that is complete in the read buffer is unmasked and passed on in place. Only unfinished data is copied into an [`Unfinished`], which exists from the first
//! byte that cannot be used yet to the end of its frame or message.
//!
//! Every check depends only on the bytes before it, in stream order. So the result never depends on the size of the pieces.

use std::borrow::Cow;
use std::ops::ControlFlow;

use bytes::Bytes;

use super::encode::{apply_mask, put_header};
use super::{CONTROL_PAYLOAD, HEADER, Incoming, ProtocolError, Role};
use crate::limits;
use wsmb_core::message::{Frame, Kind};

/// Space for the longest unmasked header before a message that arrives in parts, so that the frame that forwards the message needs no copy.
const HEADER_ROOM: usize = HEADER - 4;

/// Decodes the inbound stream of one connection. Uses no heap while no frame or message is unfinished.
#[derive(Debug)]
pub struct Decoder {
    unfinished: Option<Box<Unfinished>>,
    max_message: usize,
    role: Role,
}

/// The unfinished part of the stream: a header or a control frame in `raw`, a data message, or both (a control frame between two fragments).
#[derive(Debug)]
struct Unfinished {
    /// The beginning of a header or of a control frame, still masked.
    raw: [u8; HEADER + CONTROL_PAYLOAD],
    raw_len: usize,
    /// The kind of the unfinished message; `None` if there is none.
    kind: Option<Kind>,
    /// [`HEADER_ROOM`] bytes, and the payload so far. Grows with the received bytes.
    message: Vec<u8>,
    /// The number of bytes of `message`, with the room, that are checked to be UTF-8. The rest is the beginning of one character.
    checked: usize,
    /// The number of frames of the message so far.
    fragments: usize,
    /// The missing bytes of the present frame, its mask for the next byte, and whether it is the last frame of its message.
    remaining: usize,
    mask: [u8; 4],
    fin: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum FrameKind {
    Continuation,
    Data(Kind),
    Close,
    Ping,
    Pong,
}

struct Header {
    fin: bool,
    frame_kind: FrameKind,
    /// Zeros if the frame is not masked.
    mask: [u8; 4],
    length: u64,
    /// The size of the header in bytes.
    size: usize,
}

/// The rest of the input after a step, and whether the decoder must continue.
type Step<'a> = Result<(&'a mut [u8], ControlFlow<()>), ProtocolError>;

impl Decoder {
    /// Makes a decoder for the inbound stream of one connection. A message may have at most `max_message` bytes.
    #[must_use]
    pub fn new(role: Role, max_message: usize) -> Self {
        Self { unfinished: None, max_message, role }
    }

    /// Decodes input, which is unmasked in place, and calls `take` for each complete item in order. Items may be kept as long as the input is borrowed. If
    /// `take` breaks, the rest of the input and all unfinished data are dropped.
    ///
    /// # Errors
    /// The peer violated the protocol. `take` was called for all items before the violation. The decoder must not be used again.
    pub fn feed<'a>(
        &mut self,
        mut input: &'a mut [u8],
        mut take: impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<(), ProtocolError> {
        while !input.is_empty() {
            match self.step(input, &mut take) {
                Ok((rest, ControlFlow::Continue(()))) => input = rest,
                Ok((_, ControlFlow::Break(()))) => {
                    self.unfinished = None;
                    return Ok(());
                }
                Err(error) => {
                    self.unfinished = None;
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// Whether no frame and no message is unfinished.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.unfinished.is_none()
    }

    /// Decodes a part of `input`, which must not be empty. Uses at least one byte.
    fn step<'a>(&mut self, input: &'a mut [u8], take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>) -> Step<'a> {
        if let Some(unfinished) = &self.unfinished {
            if unfinished.remaining > 0 {
                return self.resume_payload(input, take);
            }
            if unfinished.raw_len > 0 {
                return self.resume_raw(input, take);
            }
        }
        let Some(header) = Header::parse(input, self.role)? else {
            return Ok(self.keep_all(input));
        };
        self.check_allowed(&header)?;
        let end = usize::try_from(header.length).ok().and_then(|length| header.size.checked_add(length));
        let end = end.filter(|end| *end <= input.len());
        match (end, header.frame_kind) {
            (Some(end), FrameKind::Data(kind)) if header.fin => {
                let (whole, rest) = input.split_at_mut(end);
                let frame = Frame::Borrowed(self.unmask(whole, &header, kind)?);
                Ok((rest, take(Incoming::Message { kind, frame })))
            }
            (_, FrameKind::Data(_) | FrameKind::Continuation) => {
                let flow = self.start_frame(&header, take)?;
                Ok((&mut input[header.size..], flow))
            }
            (Some(end), frame_kind) => {
                let (whole, rest) = input.split_at_mut(end);
                let payload = &mut whole[header.size..];
                apply_mask(payload, header.mask);
                control(frame_kind, Cow::Borrowed(payload), take).map(|flow| (rest, flow))
            }
            (None, _) => Ok(self.keep_all(input)),
        }
    }

    /// Keeps the whole input: the beginning of a header or a control frame.
    fn keep_all<'a>(&mut self, input: &'a mut [u8]) -> (&'a mut [u8], ControlFlow<()>) {
        self.unfinished_mut().push_raw(input);
        (&mut [], ControlFlow::Continue(()))
    }

    /// Converts a complete frame into an unmasked frame in place.
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
        // A masked header is always longer than the shortest unmasked header, so there is enough space.
        let len = payload.len();
        let start = put_header(whole, header.size, kind.into(), len);
        Ok(&whole[start..])
    }

    /// Continues a header or a control frame whose beginning is in `unfinished`.
    fn resume_raw<'a>(
        &mut self,
        input: &'a mut [u8],
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Step<'a> {
        let role = self.role;
        let unfinished = self.unfinished_mut();
        let mut used = 0;
        let header = loop {
            if let Some(header) = Header::parse(&unfinished.raw[..unfinished.raw_len], role)? {
                break header;
            }
            let Some(byte) = input.get(used) else {
                return Ok((&mut [], ControlFlow::Continue(())));
            };
            unfinished.push_raw(&[*byte]);
            used += 1;
        };
        if matches!(header.frame_kind, FrameKind::Data(_) | FrameKind::Continuation) {
            unfinished.raw_len = 0;
            self.check_allowed(&header)?;
            return self.start_frame(&header, take).map(|flow| (&mut input[used..], flow));
        }
        // `Header::parse` has checked that the length is at most CONTROL_PAYLOAD.
        let end = header.size + header.length as usize;
        let missing = (end - unfinished.raw_len).min(input.len() - used);
        unfinished.push_raw(&input[used..used + missing]);
        used += missing;
        if unfinished.raw_len < end {
            return Ok((&mut input[used..], ControlFlow::Continue(())));
        }
        let mut frame = unfinished.raw;
        unfinished.raw_len = 0;
        if unfinished.kind.is_none() {
            self.unfinished = None;
        }
        let payload = &mut frame[header.size..end];
        apply_mask(payload, header.mask);
        control(header.frame_kind, Cow::Owned(payload.to_vec()), take).map(|flow| (&mut input[used..], flow))
    }

    /// Continues the payload of a data frame.
    fn resume_payload<'a>(
        &mut self,
        input: &'a mut [u8],
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Step<'a> {
        let unfinished = self.unfinished_mut();
        let used = unfinished.remaining.min(input.len());
        let (part, rest) = input.split_at_mut(used);
        let is_ascii = apply_mask(part, unfinished.mask);
        unfinished.mask.rotate_left(used % 4);
        unfinished.append(part, is_ascii)?;
        unfinished.remaining -= used;
        if unfinished.remaining == 0 {
            self.end_frame(take).map(|flow| (rest, flow))
        } else {
            Ok((rest, ControlFlow::Continue(())))
        }
    }

    /// Begins a data frame whose payload is collected in `unfinished`.
    fn start_frame<'a>(
        &mut self,
        header: &Header,
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ProtocolError> {
        let unfinished = self.unfinished_mut();
        if let FrameKind::Data(kind) = header.frame_kind {
            unfinished.kind = Some(kind);
        }
        unfinished.fragments += 1;
        // `check_allowed` has checked that the length is at most `max_message`.
        unfinished.remaining = header.length as usize;
        unfinished.mask = header.mask;
        unfinished.fin = header.fin;
        if unfinished.remaining == 0 { self.end_frame(take) } else { Ok(ControlFlow::Continue(())) }
    }

    /// Ends a data frame. If it was the last one of its message, passes the message on.
    fn end_frame<'a>(
        &mut self,
        take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, ProtocolError> {
        let Some(mut unfinished) = self.unfinished.take_if(|unfinished| unfinished.fin) else {
            return Ok(ControlFlow::Continue(()));
        };
        let kind = unfinished.kind.unwrap_or(Kind::Binary);
        if kind == Kind::Text && unfinished.checked < unfinished.message.len() {
            return Err(ProtocolError::BadUtf8);
        }
        let len = unfinished.message.len() - HEADER_ROOM;
        let start = put_header(&mut unfinished.message, HEADER_ROOM, kind.into(), len);
        // The owner of the message must not hold unused capacity.
        unfinished.message.shrink_to_fit();
        let frame = Frame::Shared(Bytes::from(unfinished.message).slice(start..));
        Ok(take(Incoming::Message { kind, frame }))
    }

    /// Checks, before any byte of the payload is kept, that the frame is allowed at this point and not too large.
    fn check_allowed(&self, header: &Header) -> Result<(), ProtocolError> {
        let open = self.unfinished.as_ref().filter(|unfinished| unfinished.kind.is_some());
        let have = match (header.frame_kind, open) {
            (FrameKind::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation),
            (FrameKind::Data(_), Some(_)) => return Err(ProtocolError::ExpectedContinuation),
            (FrameKind::Data(_), None) => 0,
            (FrameKind::Continuation, Some(unfinished)) => {
                let have = unfinished.message.len() - HEADER_ROOM;
                if unfinished.fragments >= limits::FRAGMENTS + have / limits::FRAGMENT_BYTES {
                    return Err(ProtocolError::TooManyFragments);
                }
                have
            }
            (FrameKind::Close | FrameKind::Ping | FrameKind::Pong, _) => return Ok(()),
        };
        if header.length > self.max_message.saturating_sub(have) as u64 {
            return Err(ProtocolError::MessageTooLarge(self.max_message));
        }
        Ok(())
    }

    /// Returns the number of bytes that are reserved for an unfinished message.
    #[must_use]
    pub fn unfinished_capacity(&self) -> usize {
        self.unfinished.as_ref().map_or(0, |unfinished| unfinished.message.capacity())
    }

    fn unfinished_mut(&mut self) -> &mut Unfinished {
        self.unfinished.get_or_insert_with(|| {
            Box::new(Unfinished {
                raw: [0; HEADER + CONTROL_PAYLOAD],
                raw_len: 0,
                kind: None,
                message: vec![0; HEADER_ROOM],
                checked: HEADER_ROOM,
                fragments: 0,
                remaining: 0,
                mask: [0; 4],
                fin: false,
            })
        })
    }
}

impl Unfinished {
    /// Keeps bytes of a header or a control frame. `raw` has enough space, because callers pass an incomplete header or a part of one control frame.
    fn push_raw(&mut self, bytes: &[u8]) {
        self.raw[self.raw_len..self.raw_len + bytes.len()].copy_from_slice(bytes);
        self.raw_len += bytes.len();
    }

    /// Appends to the message, and checks a text message: the last character may be incomplete, but no character may be invalid.
    fn append(&mut self, part: &[u8], is_ascii: bool) -> Result<(), ProtocolError> {
        if self.fragments == 1 && self.message.capacity() - self.message.len() < part.len() {
            // At most four times the received bytes, and no more than the frame has: few copies, and none at the end.
            self.message.reserve_exact((self.message.len() * 3 + part.len()).min(self.remaining));
        }
        let is_checked = self.checked == self.message.len();
        self.message.extend_from_slice(part);
        if is_checked && is_ascii {
            self.checked = self.message.len();
        } else if self.kind == Some(Kind::Text) {
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
    /// Parses the header at the beginning of `bytes`. Returns `None` if it is incomplete. An error is returned as soon as the invalid byte has arrived.
    #[inline]
    fn parse(bytes: &[u8], role: Role) -> Result<Option<Self>, ProtocolError> {
        let Some(&first) = bytes.first() else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(ProtocolError::ReservedBits);
        }
        let fin = first & 0x80 != 0;
        let frame_kind = match first & 0xf {
            0x0 => FrameKind::Continuation,
            0x1 => FrameKind::Data(Kind::Text),
            0x2 => FrameKind::Data(Kind::Binary),
            0x8 => FrameKind::Close,
            0x9 => FrameKind::Ping,
            0xa => FrameKind::Pong,
            reserved => return Err(ProtocolError::ReservedOpcode(reserved)),
        };
        let is_control = matches!(frame_kind, FrameKind::Close | FrameKind::Ping | FrameKind::Pong);
        if is_control && !fin {
            return Err(ProtocolError::FragmentedControl);
        }
        let Some(&second) = bytes.get(1) else { return Ok(None) };
        match (role, second & 0x80 != 0) {
            (Role::Server, false) => return Err(ProtocolError::Unmasked),
            (Role::Client, true) => return Err(ProtocolError::Masked),
            (Role::Server, true) | (Role::Client, false) => {}
        }
        // A length with more bytes than necessary is accepted: the PHP client writes 65,535 with eight bytes.
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
            return Ok(Some(Self { fin, frame_kind, mask: [0; 4], length, size: at }));
        }
        let Some(mask) = bytes[at..].first_chunk() else { return Ok(None) };
        Ok(Some(Self { fin, frame_kind, mask: *mask, length, size: at + 4 }))
    }
}

/// Passes on a complete control frame.
fn control<'a>(
    frame_kind: FrameKind,
    payload: Cow<'a, [u8]>,
    take: &mut impl FnMut(Incoming<'a>) -> ControlFlow<()>,
) -> Result<ControlFlow<()>, ProtocolError> {
    let item = match frame_kind {
        FrameKind::Ping => Incoming::Ping(payload),
        FrameKind::Pong => Incoming::Pong(payload),
        FrameKind::Close | FrameKind::Continuation | FrameKind::Data(_) => close(&payload)?,
    };
    Ok(take(item))
}

/// Parses the payload of a close frame (RFC 6455 sections 5.5.1 and 7.4).
fn close(payload: &[u8]) -> Result<Incoming<'static>, ProtocolError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        if payload.is_empty() {
            return Ok(Incoming::Close { code: None, reason: String::new() });
        }
        return Err(ProtocolError::HalfCloseCode);
    };
    let code = u16::from_be_bytes(*code);
    // 1004–1006 and 1015 are not allowed in a frame; 1012–1014 were registered after the RFC.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(ProtocolError::BadCloseCode(code));
    }
    let reason = std::str::from_utf8(reason).map_err(|_| ProtocolError::BadUtf8)?;
    Ok(Incoming::Close { code: Some(code), reason: reason.to_owned() })
}
