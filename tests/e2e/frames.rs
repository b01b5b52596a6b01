//! The frames of a WebSocket (RFC 6455), as a test sends and reads them.

/// The opcodes of RFC 6455.
pub mod opcode {
    pub const CONTINUATION: u8 = 0;
    pub const TEXT: u8 = 1;
    pub const BINARY: u8 = 2;
    pub const CLOSE: u8 = 8;
    pub const PING: u8 = 9;
    pub const PONG: u8 = 10;
}

/// One frame from the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    #[track_caller]
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).unwrap_or_else(|_| panic!("no text: {self:?}"))
    }

    /// The status code of a close frame.
    pub fn close_code(&self) -> Option<u16> {
        (self.opcode == opcode::CLOSE && self.payload.len() >= 2)
            .then(|| u16::from_be_bytes([self.payload[0], self.payload[1]]))
    }
}

/// The result of a read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Got {
    Frame(Frame),
    /// The broker has sent FIN.
    Fin,
    /// The broker has sent RST.
    Reset,
    /// Nothing arrived before the deadline.
    Silence,
}

/// How the length of a frame is written.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Length {
    Minimal,
    /// 64 bits, also for a short payload.
    Wide,
}

/// The bytes of a masked frame with FIN.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    frame_with(0x80 | opcode, Length::Minimal, Some([0x37, 0xfa, 0x21, 0x3d]), payload)
}

/// The bytes of a frame. `first` is the first byte (flags and opcode); without a mask the frame is unmasked.
pub fn frame_with(first: u8, length: Length, mask: Option<[u8; 4]>, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let masked = if mask.is_some() { 0x80 } else { 0 };
    match payload.len() {
        size if length == Length::Wide || size > 65_535 => {
            bytes.push(masked | 127);
            bytes.extend_from_slice(&(size as u64).to_be_bytes());
        }
        size if size > 125 => {
            bytes.push(masked | 126);
            bytes.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => bytes.push(masked | size as u8),
    }
    let mask = mask.inspect(|mask| bytes.extend_from_slice(mask)).unwrap_or_default();
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ mask[index % 4]));
    bytes
}

pub fn close_payload(code: u16, reason: &str) -> Vec<u8> {
    [&code.to_be_bytes()[..], reason.as_bytes()].concat()
}
