//! A WebSocket peer that sends any bytes: it answers, checks and hides nothing by itself.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest, Sha1};

pub use crate::frames::*;

use crate::broker::{Broker, Log, PASSWORD, PATIENCE, USER};
use crate::secure::Stream;

/// A request head that a test can change.
#[derive(Clone)]
pub struct Head {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
}

/// The key that every test client sends; RFC 6455 section 1.3.
pub const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

impl Head {
    /// An upgrade request of [`USER`].
    pub fn new(target: &str) -> Self {
        let headers =
            [("Host", "broker"), ("Connection", "Upgrade"), ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        let mut head = Self {
            method: "GET".into(),
            target: target.into(),
            headers: headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        };
        head = head.with("Sec-WebSocket-Key", KEY);
        head.with("Authorization", &basic(USER, PASSWORD))
    }

    /// Adds a header, or replaces the header with this name.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.into(), value.into()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(known, _)| !known.eq_ignore_ascii_case(name));
        self
    }

    /// Offers `wsmb.v1`.
    pub fn modern(self) -> Self {
        self.with("Sec-WebSocket-Protocol", "wsmb.v1")
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\n", self.method, self.target);
        for (name, value) in &self.headers {
            text += &format!("{name}: {value}\r\n");
        }
        (text + "\r\n").into_bytes()
    }
}

/// The value of `Authorization` for a user.
pub fn basic(user: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{user}:{password}")))
}

/// The value of `Sec-WebSocket-Accept` that answers `key`.
pub fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::digest(format!("{key}258EAFA5-E914-47DA-95CA-C5AB0DC85B11")))
}

/// One TCP connection to the broker.
pub struct Raw {
    stream: Stream,
    /// Bytes that were read and not yet parsed.
    buffer: Vec<u8>,
    ended: Option<Got>,
    /// The last 30 events of the connection, for [`Self::trace`].
    events: VecDeque<String>,
    log: Log,
}

impl Raw {
    /// Connects and writes nothing.
    #[track_caller]
    pub fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect_timeout(&broker.address(), PATIENCE)
            .unwrap_or_else(|error| panic!("connecting to {}: {error}\n{}", broker.address(), broker.log().tail()));
        Self::over(stream, broker)
    }

    /// Connects to another address of the broker and writes nothing.
    #[track_caller]
    pub fn connect_to(broker: &Broker, address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)
            .unwrap_or_else(|error| panic!("connecting to {address}: {error}\n{}", broker.log().tail()));
        Self::over(stream, broker)
    }

    /// Connects with a receive buffer of `bytes`, so that the broker soon notices a peer that does not read.
    #[track_caller]
    pub fn connect_narrow(broker: &Broker, bytes: usize) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("a receive buffer");
        socket.connect_timeout(&SocketAddr::into(broker.address()), PATIENCE).expect("a connection");
        Self::over(socket.into(), broker)
    }

    /// Connects from this address and writes nothing. On Linux, every address in 127.0.0.0/8 can be used.
    #[track_caller]
    pub fn connect_from(broker: &Broker, from: Ipv4Addr) -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        socket.bind(&SocketAddr::from((from, 0)).into()).expect("an address of this machine");
        socket.connect_timeout(&SocketAddr::into(broker.address()), PATIENCE).expect("a connection");
        Self::over(socket.into(), broker)
    }

    /// A peer on an existing connection.
    pub fn over(stream: TcpStream, broker: &Broker) -> Self {
        Self::with(stream, broker.log())
    }

    fn with(stream: TcpStream, log: Log) -> Self {
        stream.set_nodelay(true).expect("TCP_NODELAY");
        stream.set_write_timeout(Some(PATIENCE)).expect("a write timeout");
        stream.set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        Self::on(Stream::over(stream), log)
    }

    /// A peer on a connection whose TLS handshake is complete.
    pub fn on(stream: Stream, log: Log) -> Self {
        Self { stream, buffer: Vec::new(), ended: None, events: VecDeque::new(), log }
    }

    /// Connects and upgrades. Bytes after the head stay unread.
    #[track_caller]
    pub fn upgrade(broker: &Broker, head: &Head) -> Self {
        Self::connect(broker).upgraded(head)
    }

    /// Connects and upgrades; `None` if no broker listens or the broker refuses.
    pub fn try_upgrade(address: SocketAddr, log: Log, head: &Head) -> Option<Self> {
        let mut raw = Self::try_connect(address, log)?;
        raw.try_send(&head.bytes()).ok()?;
        raw.try_head().filter(|head| head.starts_with("HTTP/1.1 101 ")).map(|_| raw)
    }

    /// Connects and sends a head. Returns the head of the answer, which is empty if there is no answer; `None` if no broker listens.
    pub fn try_request(address: SocketAddr, log: Log, head: &Head) -> Option<String> {
        let mut raw = Self::try_connect(address, log)?;
        let sent = raw.try_send(&head.bytes());
        Some(sent.ok().and_then(|()| raw.try_head()).unwrap_or_default())
    }

    fn try_connect(address: SocketAddr, log: Log) -> Option<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
        Some(Self::with(stream, log))
    }

    /// The head of the answer; `None` if the connection ends without an answer.
    fn try_head(&mut self) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        while !self.buffer.ends_with(b"\r\n\r\n") {
            if !self.fill_at_most(1, deadline) {
                return None;
            }
        }
        let head = std::mem::take(&mut self.buffer);
        Some(String::from_utf8_lossy(&head).into_owned())
    }

    /// Upgrades this connection.
    #[track_caller]
    pub fn upgraded(mut self, head: &Head) -> Self {
        self.send(&head.bytes());
        let reply = self.head();
        assert!(reply.starts_with("HTTP/1.1 101 "), "the upgrade was answered with\n{reply}\n{}", self.trace());
        self
    }

    /// The own address of the connection.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.tcp().local_addr().expect("the own address")
    }

    /// Waits until `bytes` bytes are in the socket's buffer, without reading them.
    #[track_caller]
    pub fn wait_unread(&self, bytes: usize) {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = vec![0; bytes];
        while self.stream.tcp().peek(&mut seen).unwrap_or(0) < bytes {
            assert!(Instant::now() < deadline, "fewer than {bytes} bytes arrived\n{}", self.trace());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn note(&mut self, line: String) {
        if self.events.len() == 30 {
            self.events.pop_front();
        }
        self.events.push_back(line.chars().take(300).collect());
    }

    /// The last events of this connection and the end of the broker's log, for a message.
    pub fn trace(&self) -> String {
        let events: Vec<String> = self.events.iter().cloned().collect();
        format!("on this connection:\n{}\nthe broker's log:\n{}", indent(&events.join("\n")), indent(&self.log.tail()))
    }

    #[track_caller]
    pub fn send(&mut self, bytes: &[u8]) {
        if let Err(error) = self.try_send(bytes) {
            panic!("writing {} bytes: {error}\n{}", bytes.len(), self.trace());
        }
    }

    /// Writes bytes; returns the error if the broker has ended the connection.
    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.note(format!("> {} bytes: {}", bytes.len(), bytes[..bytes.len().min(60)].escape_ascii()));
        self.stream.write_all(bytes)
    }

    /// Writes a masked frame with a length of minimal size.
    #[track_caller]
    pub fn send_frame(&mut self, opcode: u8, payload: &[u8]) {
        self.note(format!("> opcode {opcode}: {}", payload[..payload.len().min(200)].escape_ascii()));
        self.send(&frame(opcode, payload));
    }

    #[track_caller]
    pub fn send_text(&mut self, text: &str) {
        self.send_frame(opcode::TEXT, text.as_bytes());
    }

    /// Reads at most `most` bytes with one system call.
    #[track_caller]
    pub fn read_once(&mut self, most: usize) -> Vec<u8> {
        self.stream.tcp().set_read_timeout(Some(PATIENCE)).expect("a read timeout");
        let mut bytes = vec![0; most];
        let count = self
            .stream
            .read(&mut bytes)
            .unwrap_or_else(|error| panic!("reading from the broker: {error}\n{}", self.trace()));
        bytes.truncate(count);
        self.note(format!("< {} bytes: {}", count, bytes.escape_ascii()));
        bytes
    }

    /// Reads a response head up to the blank line. Bytes after the head stay in the socket.
    #[track_caller]
    pub fn head(&mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                self.note(format!("< {}", head.escape_default()));
                return head;
            }
            if !self.fill_at_most(1, deadline) {
                let got = String::from_utf8_lossy(&self.buffer).into_owned();
                panic!(
                    "no response head, {:?} after {got:?}\n{}",
                    self.ended.clone().unwrap_or(Got::Silence),
                    self.trace()
                );
            }
        }
    }

    /// Waits for `time`. Returns any bytes as the payload of a frame, the end of the connection, or silence.
    pub fn head_or_end(&mut self, time: Duration) -> Got {
        if self.fill(Instant::now() + time) {
            return Got::Frame(Frame { fin: true, opcode: opcode::CONTINUATION, payload: self.buffer.clone() });
        }
        self.ended.clone().unwrap_or(Got::Silence)
    }

    /// Sets the timeout of writes.
    pub fn set_write_timeout(&self, time: Duration) {
        self.stream.tcp().set_write_timeout(Some(time)).expect("a write timeout");
    }

    /// All bytes until the broker ends the connection.
    #[track_caller]
    pub fn rest(&mut self) -> Vec<u8> {
        let deadline = Instant::now() + PATIENCE;
        while self.fill(deadline) {}
        assert!(self.ended.is_some(), "the broker does not end the connection\n{}", self.trace());
        std::mem::take(&mut self.buffer)
    }

    /// Reads more bytes; `false` at the end of the connection or at the deadline.
    fn fill(&mut self, deadline: Instant) -> bool {
        self.fill_at_most(64 << 10, deadline)
    }

    /// Reads at most `most` more bytes; `false` at the end of the connection or at the deadline.
    fn fill_at_most(&mut self, most: usize, deadline: Instant) -> bool {
        if self.ended.is_some() {
            return false;
        }
        let mut bytes = vec![0; most];
        loop {
            let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.stream.tcp().set_read_timeout(Some(left)).expect("a read timeout");
            match self.stream.read(&mut bytes) {
                Ok(0) => self.ended = Some(Got::Fin),
                Ok(count) => {
                    self.buffer.extend_from_slice(&bytes[..count]);
                    return true;
                }
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => self.ended = Some(Got::Reset),
            }
            if self.ended.is_some() || Instant::now() >= deadline {
                return false;
            }
        }
    }

    /// The next frame, the end of the connection, or silence until the deadline.
    #[track_caller]
    pub fn next_by(&mut self, deadline: Instant) -> Got {
        loop {
            if let Some(frame) = self.take_frame() {
                self.note(format!(
                    "< opcode {}: {}",
                    frame.opcode,
                    frame.payload[..frame.payload.len().min(200)].escape_ascii()
                ));
                return Got::Frame(frame);
            }
            if !self.fill(deadline) {
                let end = self.ended.clone().unwrap_or(Got::Silence);
                self.note(format!("< {end:?}"));
                return end;
            }
        }
    }

    /// Like [`Self::next_by`], with the usual timeout.
    #[track_caller]
    pub fn next(&mut self) -> Got {
        self.next_by(Instant::now() + PATIENCE)
    }

    /// The next frame; fails if there is none.
    #[track_caller]
    pub fn next_frame(&mut self) -> Frame {
        match self.next() {
            Got::Frame(frame) => frame,
            other => panic!("expected a frame, got {other:?}\n{}", self.trace()),
        }
    }

    /// The next frame that is not a ping; pings are answered with their payload.
    #[track_caller]
    pub fn next_data(&mut self) -> Frame {
        loop {
            let frame = self.next_frame();
            if frame.opcode != opcode::PING {
                return frame;
            }
            self.send_frame(opcode::PONG, &frame.payload);
        }
    }

    /// Takes a complete frame from the buffer.
    #[track_caller]
    fn take_frame(&mut self) -> Option<Frame> {
        let [first, second, ..] = self.buffer[..] else { return None };
        assert_eq!(second & 0x80, 0, "the broker has masked a frame\n{}", self.trace());
        assert_eq!(first & 0x70, 0, "the broker has set a reserved bit\n{}", self.trace());
        let (start, length) = match second {
            126 => (4, u64::from(u16::from_be_bytes(self.buffer.get(2..4)?.try_into().ok()?))),
            127 => (10, u64::from_be_bytes(self.buffer.get(2..10)?.try_into().ok()?)),
            short => (2, u64::from(short)),
        };
        let end = start + usize::try_from(length).ok()?;
        let payload = self.buffer.get(start..end)?.to_vec();
        self.buffer.drain(..end);
        Some(Frame { fin: first & 0x80 != 0, opcode: first & 0x0f, payload })
    }

    /// Sends FIN; the peer can still read.
    pub fn finish(&mut self) {
        self.note("> FIN".into());
        self.stream.finish();
    }

    /// Writes these bytes to the socket itself.
    pub fn send_unencrypted(&mut self, bytes: &[u8]) {
        let _ = self.stream.tcp().write_all(bytes);
    }

    /// Sends FIN, and does not announce it if the connection is encrypted.
    pub fn cut(&mut self) {
        let _ = self.stream.tcp().shutdown(std::net::Shutdown::Write);
    }

    /// Ends the connection with RST.
    pub fn reset(self) {
        self.stream.reset();
    }
}

fn indent(text: &str) -> String {
    text.lines().map(|line| format!("    {line}\n")).collect()
}

#[test]
fn frames_are_encoded_as_in_rfc_6455() {
    assert_eq!(
        frame_with(0x81, Length::Minimal, Some([0x37, 0xfa, 0x21, 0x3d]), b"Hello"),
        b"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
    );
    assert_eq!(frame_with(0x82, Length::Minimal, None, &[0; 256])[..4], [0x82, 0x7e, 0x01, 0x00]);
    assert_eq!(frame_with(0x82, Length::Wide, None, &[7])[..], [0x82, 0x7f, 0, 0, 0, 0, 0, 0, 0, 1, 7]);
    assert_eq!(accept(KEY), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
}
