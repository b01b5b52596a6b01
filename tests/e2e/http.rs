//! The HTTP interface: real requests over real sockets, with curl where a person would use curl.

mod admin;
#[cfg(target_os = "linux")] // Debian's Chromium.
mod browser;
mod hostile;
mod openapi;
mod page;
mod php_examples;
mod publish;
mod receive;
mod tokens;

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::process::Command;

use serde_json::Value;

use crate::broker::{Broker, PASSWORD, PATIENCE, USER};
use crate::raw::basic;

/// A response of the broker.
#[derive(Debug)]
pub struct Response {
    pub status: u16,
    /// The names are in lower case.
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Response {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| &**value)
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// A connection on which requests are sent one after another.
pub struct Http {
    stream: TcpStream,
    /// Bytes that were read and belong to the next response.
    rest: Vec<u8>,
}

impl Http {
    #[track_caller]
    pub fn connect(broker: &Broker) -> Self {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, broker.address().port())).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream, rest: Vec::new() }
    }

    #[track_caller]
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.write_all(bytes.as_ref()).expect("a written request");
    }

    pub fn into_stream(self) -> TcpStream {
        self.stream
    }

    /// Closes the sending half.
    pub fn finish(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("an open connection");
    }

    /// Sends a request of [`USER`] with a body, and reads the response.
    #[track_caller]
    pub fn request(&mut self, line: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
        self.send(line, headers, body);
        self.read().expect("a response")
    }

    #[track_caller]
    pub fn send(&mut self, line: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        let mut head = format!("{line} HTTP/1.1\r\nHost: broker\r\nContent-Length: {}\r\n", body.len());
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization")) {
            head += &format!("Authorization: {}\r\n", basic(USER, PASSWORD));
        }
        for (name, value) in headers.iter().filter(|(_, value)| !value.is_empty()) {
            head += &format!("{name}: {value}\r\n");
        }
        head += "\r\n";
        self.write([head.as_bytes(), body].concat());
    }

    /// Reads a response; `None` if the broker closes the connection before.
    pub fn read(&mut self) -> Option<Response> {
        let head = self.read_head()?;
        let length = head.header("content-length").map_or(0, |value| value.parse().expect("a length"));
        while self.rest.len() < length {
            assert!(self.fill(), "the body ends too early");
        }
        let rest = self.rest.split_off(length);
        let body = String::from_utf8(std::mem::replace(&mut self.rest, rest)).expect("a text");
        Some(Response { body, ..head })
    }

    /// Reads the head of a response; `None` if the broker closes the connection before.
    pub fn read_head(&mut self) -> Option<Response> {
        let head = self.read_line("\r\n\r\n")?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a status line");
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        Some(Response { status: status.parse().expect("a status"), headers, body: String::new() })
    }

    /// Reads a chunk of a chunked body; `None` at its end.
    pub fn read_chunk(&mut self) -> Option<String> {
        let length = usize::from_str_radix(self.read_line("\r\n")?.trim(), 16).expect("a length of a chunk");
        while self.rest.len() < length + 2 {
            if !self.fill() {
                return None;
            }
        }
        let rest = self.rest.split_off(length + 2);
        let chunk = std::mem::replace(&mut self.rest, rest);
        (length > 0).then(|| String::from_utf8_lossy(&chunk[..length]).into_owned())
    }

    /// Reads up to the end of a line or head; `None` at the end of the connection.
    fn read_line(&mut self, end: &str) -> Option<String> {
        loop {
            if let Some(at) = self.rest.windows(end.len()).position(|window| window == end.as_bytes()) {
                let rest = self.rest.split_off(at + end.len());
                let line = std::mem::replace(&mut self.rest, rest);
                return Some(String::from_utf8(line).expect("ASCII"));
            }
            if !self.fill() {
                return None;
            }
        }
    }

    /// Reads more bytes. Returns false at the end of the connection.
    fn fill(&mut self) -> bool {
        let mut buffer = [0; 4096];
        match self.stream.read(&mut buffer) {
            Ok(0) => false,
            Ok(count) => {
                self.rest.extend_from_slice(&buffer[..count]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("nothing was read: {error}"),
        }
    }
}

/// Sends one request on a connection of its own.
#[track_caller]
pub fn request(broker: &Broker, line: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Response {
    Http::connect(broker).request(line, headers, body)
}

/// Publishes JSON with `query` and returns the response.
#[track_caller]
pub fn publish(broker: &Broker, channel: &str, query: &str, body: &str) -> Response {
    request(
        broker,
        &format!("POST /api/v1/channels/{channel}/messages{query}"),
        &[("Content-Type", "application/json")],
        body,
    )
}

/// Runs curl with these arguments and the broker's address in front of `path`. Returns the status and the body.
#[track_caller]
pub fn curl(broker: &Broker, arguments: &[&str], path: &str) -> (u16, String) {
    let output = Command::new("curl")
        .args(["--silent", "--show-error", "--max-time", "20", "--noproxy", "*", "--write-out", "\n%{http_code}"])
        .args(arguments)
        .arg(format!("http://127.0.0.1:{}{path}", broker.address().port()))
        .output()
        .unwrap_or_else(|error| panic!("curl cannot be started ({error}); install it (Debian: apt-get install curl)"));
    let text = String::from_utf8(output.stdout).expect("text");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {said}\n{}", output.status, broker.log().tail());
    let (body, status) = text.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}
