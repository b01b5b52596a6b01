//! A WebSocket client that answers no frame automatically and can end its TCP connection in all ways that clients use.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use crate::process;

// Opcodes (RFC 6455 section 11.8).
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// The timeout of connecting, of the upgrade and of one write, each.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The user `app` with the password `secret`.
const AUTHORIZATION: &str = "Basic YXBwOnNlY3JldA==";

/// The result of waiting for a frame.
pub enum Received {
    /// A frame: opcode and payload.
    Frame(u8, Vec<u8>),
    /// No frame in time.
    Timeout,
    /// The connection has ended.
    End,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Closes the socket without a close frame.
    Fin,
    /// Sends a close frame with 1000 and closes the socket.
    Close,
    /// Sends a close frame with 1009 (message too big) and closes the socket.
    Refuse,
    /// Resets the TCP connection.
    Reset,
}

impl Ending {
    /// The name in the history files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Close => "close",
            Self::Refuse => "refused",
            Self::Reset => "reset",
        }
    }
}

/// An upgraded connection.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    /// Connects and upgrades. A `modern` client offers the subprotocol `wsmb.v1`.
    ///
    /// # Errors
    /// The connection fails, or the status is not 101; the error has the status line.
    pub fn connect(address: SocketAddr, target: &str, modern: bool) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        let offer = if modern { "Sec-WebSocket-Protocol: wsmb.v1\r\n" } else { "" };
        let head = format!(
            "GET {target} HTTP/1.1\r\nHost: broker\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
             Authorization: {AUTHORIZATION}\r\n{offer}\r\n"
        );
        let mut socket = Self { stream, buffer: Vec::new() };
        socket.stream.write_all(head.as_bytes())?;
        socket.upgraded()?;
        Ok(socket)
    }

    fn upgraded(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + TIMEOUT;
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                self.buffer.drain(..end + 4);
                return match head.lines().next() {
                    Some(line) if line.starts_with("HTTP/1.1 101 ") => Ok(()),
                    line => Err(io::Error::other(line.unwrap_or("an empty answer").to_owned())),
                };
            }
            if !self.fill(deadline)? {
                return Err(ErrorKind::TimedOut.into());
            }
        }
    }

    /// Reads more bytes. Returns `false` if no byte arrived before the deadline.
    fn fill(&mut self, deadline: Instant) -> io::Result<bool> {
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        self.stream.set_read_timeout(Some(left))?;
        let mut bytes = [0; 16 << 10];
        match self.stream.read(&mut bytes) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(count) => {
                self.buffer.extend_from_slice(&bytes[..count]);
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => Ok(true),
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Waits up to `time` for the next frame.
    pub fn next(&mut self, time: Duration) -> Received {
        let deadline = Instant::now() + time;
        loop {
            if let Some((opcode, payload)) = self.take_frame() {
                return Received::Frame(opcode, payload);
            }
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return Received::Timeout,
                Err(_) => return Received::End,
            }
        }
    }

    /// Takes one complete frame from the buffer.
    fn take_frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let [first, second, ..] = self.buffer[..] else { return None };
        let (start, length) = match second & 0x7f {
            126 => (4, u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let end = start + usize::try_from(length).ok()?;
        let payload = self.buffer.get(start..end)?.to_vec();
        self.buffer.drain(..end);
        Some((first & 0x0f, payload))
    }

    /// Writes one frame.
    ///
    /// # Errors
    /// The connection has ended, or the write timed out.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(opcode, payload))
    }

    /// Whether the buffer has a complete frame.
    pub fn has_frame(&mut self) -> bool {
        let before = self.buffer.clone();
        let found = self.take_frame().is_some();
        self.buffer = before;
        found
    }

    /// Writes a text frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.send(TEXT, text.as_bytes())
    }

    /// Whether the peer's TCP has acknowledged all written bytes. A socket that is reset, or closed with unread bytes, discards the unacknowledged
    /// bytes; the broker is not responsible for these.
    pub fn is_acknowledged(&self) -> bool {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the call writes the one number.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        result == 0 && bytes == 0
    }

    /// Ends the connection.
    pub fn end(mut self, ending: Ending) {
        match ending {
            // Dropping the stream makes the kernel send FIN, or RST if bytes are unread.
            Ending::Fin => {}
            Ending::Close | Ending::Refuse => {
                let code: u16 = if ending == Ending::Close { 1000 } else { 1009 };
                let _ = self.send(CLOSE, &code.to_be_bytes());
            }
            Ending::Reset => process::reset_on_close(&self.stream),
        }
    }
}

/// Returns one masked frame with the shortest header.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        size if size > 65_535 => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(size as u64).to_be_bytes());
        }
        size if size > 125 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(size as u16).to_be_bytes());
        }
        size => bytes.push(0x80 | size as u8),
    }
    bytes.extend_from_slice(&MASK);
    bytes.extend(payload.iter().enumerate().map(|(index, byte)| byte ^ MASK[index % 4]));
    bytes
}
