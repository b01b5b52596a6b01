//! Models of the existing clients that will not change (SPEC sections 3 and 12). A model fails the test where the real client would fail.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::broker::{Broker, PASSWORD, PATIENCE, USER};
use crate::raw::{Frame, Got, KEY, Length, Raw, accept, basic, close_payload, frame, frame_with, opcode};

/// The PHP scripts: a hand-written WebSocket client on a blocking socket.
pub struct Php {
    raw: Raw,
}

/// The result of a read in a PHP script.
#[derive(Debug, PartialEq, Eq)]
pub enum PhpRead {
    /// A message.
    Message(String),
    /// A ping, which a one-shot reader takes for an empty answer.
    Ping,
    /// The end of the connection. A real receiver reconnects after 5 s.
    End,
}

/// The request head of the PHP scripts.
pub fn php_head(target: &str) -> Vec<u8> {
    format!(
        "GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\npragma: no-cache\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\nAuthorization: {}\r\nContent-type: application/json\r\n\r\n",
        basic(USER, PASSWORD)
    )
    .into_bytes()
}

impl Php {
    /// Connects and reads the head with one read of at most 1,024 bytes. Fails if the read contains more than the head, because the script would lose it.
    #[track_caller]
    pub fn connect(broker: &Broker, target: &str) -> Self {
        let (php, lost) = Self::connect_slowly(broker, target, Duration::ZERO);
        assert!(lost.is_empty(), "lost with the head: {}\n{}", lost.escape_ascii(), php.raw.trace());
        php
    }

    /// Like [`Self::connect`], with a pause before the read. Returns the bytes after the head, which the script would lose.
    #[track_caller]
    pub fn connect_slowly(broker: &Broker, target: &str, pause: Duration) -> (Self, Vec<u8>) {
        let mut raw = Raw::connect(broker);
        raw.send(&php_head(target));
        std::thread::sleep(pause);
        let bytes = raw.read_once(1_024);
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("the head is not in one read of 1,024 bytes\n{}", raw.trace())) + 4;
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        assert!(head.contains(" 101 "), "no ` 101 ` in {head:?}\n{}", raw.trace());
        assert!(head.contains(&format!("Sec-WebSocket-Accept: {}\r\n", accept(KEY))), "wrong accept in {head:?}");
        (Self { raw }, bytes[end..].to_vec())
    }

    /// An envelope script that has read its connect reply.
    #[track_caller]
    pub fn envelope(broker: &Broker) -> Self {
        let mut php = Self::connect(broker, "/");
        let reply = php.message();
        let reply: Value = serde_json::from_str(&reply).unwrap_or_else(|error| panic!("{reply}: {error}"));
        assert_eq!(reply["command"], "connect", "{reply}\n{}", php.raw.trace());
        php
    }

    /// `receiver.php`: an envelope script that receives a channel.
    #[track_caller]
    pub fn receiver(broker: &Broker, channel: &str) -> Self {
        let mut php = Self::envelope(broker);
        php.send_envelope(&format!(r#"{{"command":"receive-message","channel":"{channel}","data":[]}}"#));
        php
    }

    /// Sends a binary frame like the envelope scripts, which write a length of 65,535 and more with 64 bits.
    #[track_caller]
    pub fn send_envelope(&mut self, json: &str) {
        let length = if json.len() >= 65_535 { Length::Wide } else { Length::Minimal };
        self.raw.send(&frame_with(0x82, length, Some([1, 2, 3, 4]), json.as_bytes()));
    }

    /// Sends a text frame like the topic publishers.
    #[track_caller]
    pub fn send_topic(&mut self, text: &str) {
        self.raw.send_text(text);
    }

    /// Reads one frame like the script's blocking read. A ping is answered here with an empty pong, so only after the previous message was
    /// processed. Fails where the real script fails.
    #[track_caller]
    pub fn read(&mut self, deadline: Instant) -> PhpRead {
        match self.raw.next_by(deadline) {
            Got::Frame(frame) => self.take(frame),
            Got::Fin | Got::Reset => PhpRead::End,
            Got::Silence => panic!("the PHP client got nothing\n{}", self.raw.trace()),
        }
    }

    #[track_caller]
    fn take(&mut self, frame: Frame) -> PhpRead {
        match frame.opcode {
            opcode::CLOSE => panic!("an uninvited close frame kills the PHP client\n{}", self.raw.trace()),
            _ if frame.payload.is_empty() => {
                panic!("an empty frame kills the PHP client: {frame:?}\n{}", self.raw.trace())
            }
            opcode::PING => {
                if frame.payload != b"0" {
                    self.raw.send_frame(opcode::PONG, b"");
                }
                PhpRead::Ping
            }
            _ => PhpRead::Message(frame.text().to_string()),
        }
    }

    /// The next message; pings are answered, as in the loop of `receiver.php`.
    #[track_caller]
    pub fn message(&mut self) -> String {
        loop {
            match self.read(Instant::now() + PATIENCE) {
                PhpRead::Message(text) => return text,
                PhpRead::Ping => {}
                PhpRead::End => panic!("the broker has ended the connection\n{}", self.raw.trace()),
            }
        }
    }

    /// The next frame, as a one-shot reader takes it: waits for 10 s, and fails on a ping, which the script takes for an empty answer.
    #[track_caller]
    pub fn one_shot(mut self) -> String {
        match self.read(Instant::now() + Duration::from_secs(10)) {
            PhpRead::Message(text) => text,
            other => panic!("the one-shot reader got {other:?}\n{}", self.raw.trace()),
        }
    }

    /// Reads and answers one ping, as a script between two messages.
    #[track_caller]
    pub fn answer_one_ping(&mut self) {
        match self.read(Instant::now() + PATIENCE) {
            PhpRead::Ping => {}
            other => panic!("expected a ping, got {other:?}\n{}", self.raw.trace()),
        }
    }

    /// The connection.
    pub fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }

    #[allow(dead_code)] // For tests/proxies.
    pub fn into_raw(self) -> Raw {
        self.raw
    }
}

/// `sender.php`: connects, reads the connect reply, sends one envelope, and closes the socket.
#[track_caller]
pub fn php_send(broker: &Broker, json: &str) {
    let mut php = Php::envelope(broker);
    php.send_envelope(json);
}

/// The one-time password publisher: connects to the topic, sends one frame, and closes the socket.
#[track_caller]
pub fn php_publish(broker: &Broker, topic: &str, text: &str) {
    let mut php = Php::connect(broker, &format!("/ws?topic={topic}"));
    php.send_topic(text);
}

/// OTP-Pi, which uses Java-WebSocket 1.5.1.
pub struct Java {
    raw: Raw,
}

impl Java {
    /// Connects to a topic; a blank in the topic is sent as `+`.
    #[track_caller]
    pub fn connect(broker: &Broker, topic: &str) -> Self {
        let mut raw = Raw::connect(broker);
        let topic = topic.replace(' ', "+");
        let request = format!(
            "GET /ws?topic={topic} HTTP/1.1\r\nAuthorization: {}\r\nConnection: Upgrade\r\nHost: {}\r\nSec-WebSocket-Key: {KEY}\r\n\
             Sec-WebSocket-Version: 13\r\nUpgrade: websocket\r\n\r\n",
            basic(USER, PASSWORD),
            broker.address()
        );
        raw.send(request.as_bytes());
        let head = raw.head();
        let reason = head.lines().next().and_then(|line| line.strip_prefix("HTTP/1.1 101 ")).unwrap_or_default();
        assert!(!reason.trim().is_empty(), "Java needs a reason phrase: {head:?}\n{}", raw.trace());
        let value = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Accept: "));
        assert_eq!(value, Some(accept(KEY).as_str()), "Java checks the accept value\n{}", raw.trace());
        Self { raw }
    }

    /// The next text; binary frames are ignored, pings are answered.
    #[track_caller]
    pub fn text(&mut self) -> String {
        loop {
            let frame = self.raw.next_data();
            match frame.opcode {
                opcode::TEXT => return frame.text().to_string(),
                opcode::CLOSE => panic!("Java got a close frame\n{}", self.raw.trace()),
                _ => {}
            }
        }
    }

    /// Sends the empty ping that the library sends every minute, and waits for the pong.
    #[track_caller]
    pub fn keep_alive(&mut self) {
        self.raw.send_frame(opcode::PING, b"");
        loop {
            let frame = self.raw.next_data();
            assert_ne!(frame.opcode, opcode::CLOSE, "Java got a close frame\n{}", self.raw.trace());
            if frame.opcode == opcode::PONG {
                return assert!(
                    frame.payload.is_empty(),
                    "the pong does not answer the ping: {frame:?}\n{}",
                    self.raw.trace()
                );
            }
        }
    }

    /// Sends a text and a close frame in one segment.
    #[track_caller]
    pub fn send_and_close(mut self, text: &str) {
        let bytes = [frame(opcode::TEXT, text.as_bytes()), frame(opcode::CLOSE, &close_payload(1000, ""))].concat();
        self.raw.send(&bytes);
        let answer = self.raw.next_data();
        assert_eq!(answer.close_code(), Some(1000), "Java waits for the answer to its close\n{}", self.raw.trace());
    }

    /// The connection.
    pub fn raw(&mut self) -> &mut Raw {
        &mut self.raw
    }
}

/// The ESP32 sketches, which use arduinoWebSockets.
pub struct Esp32 {
    raw: Raw,
}

/// The largest message that the ESP32 library accepts, in bytes.
const ESP32_MESSAGE: usize = 15 << 10;

impl Esp32 {
    /// Connects to a topic; fails unless the reply has exactly the headers that the library compares.
    #[track_caller]
    pub fn connect(broker: &Broker, topic: &str) -> Self {
        let mut raw = Raw::connect(broker);
        let request = format!(
            "GET /ws?topic={topic} HTTP/1.1\r\nHost: {}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Protocol: arduino\r\nOrigin: file://\r\nAuthorization: {}\r\nUser-Agent: arduino-WebSocket-Client\r\n\r\n",
            broker.address(),
            basic(USER, PASSWORD)
        );
        raw.send(request.as_bytes());
        let head = raw.head();
        for line in [
            "Connection: Upgrade".to_string(),
            "Upgrade: websocket".into(),
            format!("Sec-WebSocket-Accept: {}", accept(KEY)),
        ] {
            assert!(
                head.lines().any(|other| other == line),
                "the ESP32 needs exactly `{line}` in {head:?}\n{}",
                raw.trace()
            );
        }
        Self { raw }
    }

    /// The next text; fragments are ignored, pings are answered. Fails on a message over 15 KiB, which ends the real connection with 1009.
    #[track_caller]
    pub fn text(&mut self) -> String {
        loop {
            let frame = self.raw.next_data();
            assert!(frame.payload.len() <= ESP32_MESSAGE, "the ESP32 closes with 1009: {} bytes", frame.payload.len());
            assert_ne!(frame.opcode, opcode::CLOSE, "the ESP32 got a close frame\n{}", self.raw.trace());
            if frame.opcode == opcode::TEXT && frame.fin {
                return frame.text().to_string();
            }
        }
    }

    /// Sends an empty ping, a text and a close frame, like the sketches.
    #[track_caller]
    pub fn send_and_close(mut self, text: &str) {
        self.raw.send_frame(opcode::PING, b"");
        self.raw.send_text(text);
        self.raw.send_frame(opcode::CLOSE, &close_payload(1000, ""));
        let pong = self.raw.next_data();
        assert_eq!(
            (pong.opcode, pong.payload.len()),
            (opcode::PONG, 0),
            "the empty ping is not answered\n{}",
            self.raw.trace()
        );
        let close = self.raw.next_data();
        assert_eq!(close.close_code(), Some(1000), "the close frame is not answered\n{}", self.raw.trace());
    }
}
