//! From an accepted socket to a connection: the request head, the login, the upgrade reply; and the few plain HTTP answers.
//!
//! Runs in a future of its own that is dropped before the connection's task begins its long life, so its buffers cost an idle
//! connection nothing. No connection is made before its credentials are verified.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;

use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tracing::debug;

use super::access::Login;
use super::carry::greeting;
use super::commands::{Desk, Step};
use super::connection::{Connection, Profile, Reader};
use super::counters::Counters;
use super::runtime::{Burst, Hub, NoRoom};
use crate::limits;
use crate::protocol::envelope::{self, Code};
use crate::protocol::handshake::{self, Request, Upgrade};

const TEXT: &str = "text/plain; charset=utf-8";
const JSON: &str = "application/json";

/// Paths that belong to the HTTP interface (SPEC section 9): no WebSocket is served there.
const RESERVED: [&str; 5] = ["/api", "/healthz", "/readyz", "/metrics", "/dashboard"];

/// A request head and what came behind it.
struct Head {
    request: Request,
    rest: Vec<u8>,
}

/// What a request is answered with.
enum Answer {
    /// A plain HTTP response.
    Http(Vec<u8>),
    /// A connection.
    Upgrade(Upgrade, Profile),
}

/// Serves a socket that was just accepted, up to the connection's own task; `None` if it came to none.
pub(super) async fn run(hub: Arc<Hub>, stream: TcpStream, peer: SocketAddr) -> Option<Box<Reader>> {
    let head = match timeout(limits::HANDSHAKE_TIME, read_head(&stream)).await {
        Ok(Ok(head)) => head,
        Ok(Err(Some(response))) => return refuse(&stream, &response).await,
        Ok(Err(None)) => return None,
        Err(_) => return refuse(&stream, &plain(408, "the request did not arrive in time")).await,
    };
    let Head { request, mut rest } = head;
    let answer = match timeout(limits::LOGIN_TIME, answer(&hub, request, peer)).await {
        Ok(answer) => answer,
        Err(_) => Answer::Http(plain(503, "too many clients log in at once; try again")),
    };
    let (upgrade, profile) = match answer {
        Answer::Http(response) => return refuse(&stream, &response).await,
        Answer::Upgrade(upgrade, profile) => (upgrade, profile),
    };
    // The reader exists first: whatever happens from here on, its end is reported to the core.
    let (connection, mut reader) = match hub.establish(stream, profile) {
        Ok(connection) => (connection.clone(), Box::new(Reader::new(hub.clone(), connection))),
        Err((stream, NoRoom::GoingDown)) => {
            return refuse(&stream, &plain(503, "the broker is going down; try again")).await;
        }
        Err((stream, NoRoom::Crowded)) => {
            Counters::add(&hub.counters.crowded, 1);
            let sentence = "the broker has as many connections as it may have (server.max_connections)";
            return refuse(&stream, &plain(503, sentence)).await;
        }
    };
    open(&hub, &connection, &upgrade).await.ok()?;
    if !rest.is_empty() {
        reader.take(&mut rest);
    }
    Some(reader)
}

/// `Err(Some(response))`: the head is bad. `Err(None)`: the client has gone.
async fn read_head(stream: &TcpStream) -> Result<Head, Option<Vec<u8>>> {
    let mut bytes = Vec::with_capacity(1 << 10);
    loop {
        stream.readable().await.map_err(|_| None)?;
        match stream.try_read_buf(&mut bytes) {
            Ok(0) => return Err(None),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(_) => return Err(None),
        }
        match handshake::parse_request(&bytes) {
            Ok(Some((request, length))) => return Ok(Head { request, rest: bytes.split_off(length) }),
            Ok(None) if bytes.len() < limits::REQUEST_HEAD => {}
            Ok(None) => return Err(Some(plain(431, "the request head is too large"))),
            Err(bad) => {
                let version = [("Sec-WebSocket-Version", "13"), ("Upgrade", "websocket")];
                let headers = if bad.status() == 426 { &version[..] } else { &[] };
                return Err(Some(handshake::response(bad.status(), headers, TEXT, &format!("{bad}\n"))));
            }
        }
    }
}

async fn answer(hub: &Hub, request: Request, peer: SocketAddr) -> Answer {
    let is_reserved = RESERVED.iter().any(|reserved| {
        request.path.strip_prefix(reserved).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    });
    if request.method == "GET" && request.path == "/healthz" && request.upgrade.is_none() {
        return Answer::Http(plain(200, "ok"));
    }
    if is_reserved {
        return Answer::Http(plain(404, "there is nothing here"));
    }
    let Some(upgrade) = request.upgrade else {
        let body = "this is a WebSocket broker; connect with a WebSocket client\n";
        let headers = [("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13")];
        return Answer::Http(handshake::response(426, &headers, TEXT, body));
    };
    let access = hub.access();
    let user = match access.login(request.authorization.as_deref(), peer.ip()).await {
        Login::Welcome(user) => user,
        Login::Busy => return Answer::Http(plain(503, "too many clients log in at once; try again")),
        Login::Rejected => {
            Counters::add(&hub.counters.unauthorized, 1);
            debug!(%peer, "rejected: missing or wrong credentials");
            let body = envelope::connect_reply(hub.now(), Code::Rejected);
            let headers = [("WWW-Authenticate", "Basic realm=\"wsmb\"")];
            return Answer::Http(handshake::response(401, &headers, JSON, &body));
        }
    };
    if let Some(channel) = &upgrade.topic
        && !access.may_send(&user, channel)
        && !access.may_receive(&user, channel)
    {
        Counters::add(&hub.counters.forbidden, 1);
        return Answer::Http(plain(
            403,
            &format!("user \"{user}\" may neither send to nor receive from \"{channel}\""),
        ));
    }
    let profile = Profile {
        user,
        peer: peer.into(),
        topic: upgrade.topic.clone(),
        receiver: upgrade.receiver.as_deref().map(Arc::from).map(Box::new),
        modern: upgrade.modern,
    };
    Answer::Upgrade(upgrade, profile)
}

/// Declares the connection to the core, then writes the upgrade reply: a client that has read it receives what is sent from then on.
async fn open(hub: &Arc<Hub>, connection: &Arc<Connection>, upgrade: &Upgrade) -> io::Result<()> {
    let Profile { user, peer, topic, modern, .. } = &connection.profile;
    debug!(connection = connection.id.0, %user, %peer, ?topic, modern, "connected");
    declare(hub, connection);
    write_all(connection.stream(), &handshake::upgrade_reply(upgrade)).await?;
    connection.queue().head_written();
    if *modern {
        connection.flush();
    } else {
        hub.hold(connection.id);
    }
    let interval = hub.options().heartbeat;
    if !interval.is_zero() {
        hub.look(hub.now().after(interval.max(limits::FIRST_PING)), connection.id);
    }
    Ok(())
}

/// The first that goes to a modern envelope client, and what the connection declares by connecting. No lock is held across an await.
fn declare(hub: &Hub, connection: &Arc<Connection>) {
    let Profile { topic, modern, .. } = &connection.profile;
    let mut burst = Burst::begin(hub, Some(connection));
    if *modern && topic.is_none() {
        burst.carry(Step::Frame(greeting(hub.now())));
    }
    Desk::new(hub, connection).arrive(&mut burst);
    burst.end();
}

/// The reply fits into an empty socket buffer, so this is one write.
async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(count) => bytes = &bytes[count..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn plain(status: u16, sentence: &str) -> Vec<u8> {
    handshake::response(status, &[], TEXT, &format!("{sentence}\n"))
}

/// Answers, and reads the rest of the request for a while, so that closing does not reset the answer away.
async fn refuse(stream: &TcpStream, response: &[u8]) -> Option<Box<Reader>> {
    let answer = async {
        write_all(stream, response).await?;
        SockRef::from(stream).shutdown(Shutdown::Write)?;
        let mut sink = [0; 1 << 10];
        // Bounded by the time-out around it.
        loop {
            stream.readable().await?;
            match stream.try_read(&mut sink) {
                Ok(0) => return io::Result::Ok(()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    };
    // Whether the client took it or not: this was all.
    let _ = timeout(limits::HTTP_LINGER, answer).await;
    None
}
