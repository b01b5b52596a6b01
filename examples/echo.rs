//! A WebSocket echo server on the broker's own handshake and frame codec, for conformance suites.
//!
//! `cargo run --example echo -- [ADDRESS]` listens on the address (default: `127.0.0.1:9001`) and sends every message back unchanged.
//! [Autobahn](https://github.com/crossbario/autobahn-testsuite) runs against it, and so does `tests/echo.rs`; `docs/trust.md` has the
//! results. The replies to pings, close frames and violations are those of the broker (`crates/server/src`).
//!
//! `cargo run --example echo -- 'ws://127.0.0.1:8888/?topic=echo'` does not listen. It connects to a running broker as a receiver of this
//! topic and sends every message back to the topic, so that the suite can run against the broker itself.
//!
//! Must not add to the codec or correct it; otherwise a suite would test this file. Not for use as a public server: the number of connections, each
//! with its own thread, is not limited.

use std::error::Error;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::ops::ControlFlow;
use std::time::Duration;

use wsmb_client::{Client, Options, Url};
use wsmb_core::message::Kind;
use wsmb_protocol::frame::{Decoder, Incoming, Opcode, Role, encode_close, encode_into};
use wsmb_protocol::handshake::{parse_request, response, upgrade_reply};

/// The largest message, in bytes, which Autobahn's largest cases send. The server answers a larger one with 1009.
pub const MAX_MESSAGE: usize = 16 << 20;
/// The timeout after which a connection that sends nothing, or does not read an echo, is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a client may take to close its half of an ended connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

fn main() -> Result<(), Box<dyn Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".to_owned());
    if address.contains("://") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        return runtime.block_on(echo_topic(&Url::parse(&address)?));
    }
    let listener = TcpListener::bind(&address)?;
    println!("echoing on ws://{}", listener.local_addr()?);
    Ok(serve(&listener)?)
}

/// Sends every message of a topic back to the topic, until the connection ends.
async fn echo_topic(topic: &Url) -> Result<(), Box<dyn Error>> {
    let mut client = Client::connect(topic, &Options::default()).await?;
    println!("echoing through {}", topic.authority());
    loop {
        let message = client.next().await?;
        match (message.kind, message.as_text()) {
            (Kind::Text, Some(text)) => client.send_text(text).await?,
            _ => client.send_binary(&message.payload).await?,
        }
    }
}

/// Accepts connections until the listener fails.
///
/// # Errors
/// The listener's error. A connection's error ends that connection only.
pub fn serve(listener: &TcpListener) -> io::Result<()> {
    loop {
        let (socket, peer) = listener.accept()?;
        std::thread::spawn(move || {
            if let Err(error) = echo(&socket) {
                eprintln!("{peer}: {error}");
            }
        });
    }
}

/// Serves one connection to its end.
fn echo(mut socket: &TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(IDLE_TIMEOUT))?;
    socket.set_write_timeout(Some(IDLE_TIMEOUT))?;
    let Some(mut early) = open(socket)? else { return end(socket) };
    let mut decoder = Decoder::new(Role::Server, MAX_MESSAGE);
    let mut buffer = vec![0; 64 << 10];
    let mut out = Vec::new();
    let mut is_open = answer(&mut decoder, &mut early, &mut out);
    loop {
        socket.write_all(&out)?;
        out.clear();
        if !is_open {
            return end(socket);
        }
        match socket.read(&mut buffer)? {
            0 => return Ok(()),
            count => is_open = answer(&mut decoder, &mut buffer[..count], &mut out),
        }
    }
}

/// Reads the request head and writes the reply. Returns the bytes that the client has sent after the head, or `None` if the client was refused.
fn open(mut socket: &TcpStream) -> io::Result<Option<Vec<u8>>> {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let count = socket.read(&mut buffer)?;
        if count == 0 {
            return Ok(None);
        }
        bytes.extend_from_slice(&buffer[..count]);
        let reply = match parse_request(&bytes) {
            Ok(None) => continue,
            Ok(Some((request, length))) => match request.upgrade {
                Some(upgrade) => {
                    socket.write_all(&upgrade_reply(&upgrade))?;
                    return Ok(Some(bytes.split_off(length)));
                }
                None => response(426, &[("Upgrade", "websocket")], "text/plain", "this is a WebSocket server\n"),
            },
            Err(bad) => response(bad.status(), bad.headers(), "text/plain", &format!("{bad}\n")),
        };
        socket.write_all(&reply)?;
        return Ok(None);
    }
}

/// Appends the replies to the frames in `input`. Returns whether the connection stays open; if not, the last reply is a close frame.
fn answer(decoder: &mut Decoder, input: &mut [u8], out: &mut Vec<u8>) -> bool {
    let mut is_open = true;
    let result = decoder.feed(input, |incoming| {
        match incoming {
            // `frame` is the whole frame that forwards the message.
            Incoming::Message { frame, .. } => out.extend_from_slice(&frame),
            Incoming::Ping(payload) => encode_into(out, Opcode::Pong, &payload),
            Incoming::Pong(_) => {}
            Incoming::Close { code, .. } => {
                is_open = false;
                out.extend_from_slice(&encode_close(code.unwrap_or(1000), ""));
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = result {
        is_open = false;
        out.extend_from_slice(&encode_close(error.close_code(), ""));
    }
    is_open
}

/// Closes the server's half first, as RFC 6455 section 7.1.1 requires, and discards the bytes that the client still sends: with unread bytes the
/// kernel would send a reset, which may overtake the close frame.
fn end(mut socket: &TcpStream) -> io::Result<()> {
    socket.shutdown(Shutdown::Write)?;
    socket.set_read_timeout(Some(CLOSE_TIMEOUT))?;
    let mut buffer = [0; 4096];
    while socket.read(&mut buffer)? > 0 {}
    Ok(())
}
