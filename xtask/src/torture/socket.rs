//! A WebSocket client with its TCP connection in the open: it answers nothing by itself, and it can end in every way in which a client can.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use super::process;

/// Text frame.
pub const TEXT: u8 = 1;
/// Binary frame.
pub const BINARY: u8 = 2;
/// Close frame.
pub const CLOSE: u8 = 8;
/// Ping frame.
pub const PING: u8 = 9;
/// Pong frame.
pub const PONG: u8 = 10;

/// How long connecting, the upgrade and one write may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// `app` with the password `secret`.
const AUTHORIZATION: &str = "Basic YXBwOnNlY3JldA==";

/// What came next.
pub enum Got {
    /// A frame: opcode and payload.
    Frame(u8, Vec<u8>),
    /// Nothing in time.
    Silence,
    /// The connection is over.
    End,
}

/// How a client ends a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The socket is closed.
    Fin,
    /// A close frame with 1000, and the socket is closed.
    Close,
    /// A close frame with 1009: the message is too big for the client.
    Refuse,
    /// A reset.
    Reset,
}

impl Ending {
    /// As logs call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fin => "fin",
            Self::Close => "close",
            Self::Refuse => "refused",
            Self::Reset => "reset",
        }
    }
}

/// A connection that has been upgraded.
pub struct Socket {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Socket {
    /// Connects and upgrades. `modern` clients offer the subprotocol `wsmb.v1`.
    ///
    /// # Errors
    /// There is nobody, or the answer is not 101; its first line is the text.
    pub fn connect(address: SocketAddr, target: &str, modern: bool) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(PATIENCE))?;
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
        let deadline = Instant::now() + PATIENCE;
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

    /// Reads more; `false` if nothing came in time.
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

    /// The next frame within `time`.
    pub fn next(&mut self, time: Duration) -> Got {
        let deadline = Instant::now() + time;
        loop {
            if let Some((opcode, payload)) = self.take() {
                return Got::Frame(opcode, payload);
            }
            match self.fill(deadline) {
                Ok(true) => {}
                Ok(false) => return Got::Silence,
                Err(_) => return Got::End,
            }
        }
    }

    /// One whole frame from what was read.
    fn take(&mut self) -> Option<(u8, Vec<u8>)> {
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
    /// The connection is over, or takes nothing for seconds.
    pub fn send(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        self.stream.write_all(&frame(opcode, payload))
    }

    /// Whether a whole frame has been read and not been taken yet.
    pub fn holds_a_frame(&mut self) -> bool {
        let before = self.buffer.clone();
        let holds = self.take().is_some();
        self.buffer = before;
        holds
    }

    /// Writes a text frame.
    ///
    /// # Errors
    /// As [`Self::send`].
    pub fn text(&mut self, text: &str) -> io::Result<()> {
        self.send(TEXT, text.as_bytes())
    }

    /// Whether the other side's TCP has acknowledged everything that was written. A socket that is reset, or closed with something unread, throws
    /// away the rest; nobody can blame the other side for that.
    pub fn has_arrived(&self) -> bool {
        let mut bytes: libc::c_int = 0;
        // SAFETY: the descriptor is open, and the call writes the one number.
        let result = unsafe { libc::ioctl(self.stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
        result == 0 && bytes == 0
    }

    /// Ends the connection.
    pub fn end(mut self, ending: Ending) {
        match ending {
            // The system sends FIN, or RST if something is unread: as it does for every program that ends or calls `close`.
            Ending::Fin => {}
            Ending::Close | Ending::Refuse => {
                let code: u16 = if ending == Ending::Close { 1000 } else { 1009 };
                let _ = self.send(CLOSE, &code.to_be_bytes());
            }
            Ending::Reset => process::reset_on_close(&self.stream),
        }
    }
}

/// One masked frame of minimal length.
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
