//! A session: who is connected, how frames to it are encoded, and where they go (a send queue in front of a transport).
//!
//! Every thread sees the same [`Session`]; it knows no hub and no core. An idle session holds no buffer. A thread that queues frames also flushes them, without
//! waiting; only what the socket does not take is left to the session's own task (`reader`).
//!
//! Never here: a system call under the queue's lock, a decision about delivery.

mod answers;
mod flush;
mod liveness;

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::encoding::Encoding;
use super::queue::Queue;
use super::transport::Transport;
use answers::PendingAnswers;
use wsmb_core::broker::ClientKind;
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_protocol::frame;

pub(super) use liveness::OnTime;

/// Who is at the other end, and how it speaks; fixed by the handshake.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Who is logged in; empty for an anonymous connection.
    pub(super) user: Arc<str>,
    /// Where from: the client's address, as far as trusted proxies tell.
    pub(super) peer: Peer,
    /// The channel of a topic connection; `None` for an envelope connection.
    pub(super) topic: Option<ChannelName>,
    /// Its name (`?receiver=ID`), which few have.
    pub(super) receiver: Option<Box<Arc<str>>>,
    /// It offered `wsmb.v1`: it gets close frames, and nothing is held for it.
    pub(super) modern: bool,
    /// A proxy stands between: what its TCP acknowledges says nothing about the client (SPEC section 3).
    pub(super) proxied: bool,
}

impl Profile {
    /// How frames to the session are encoded.
    pub(super) fn encoding(&self) -> Encoding {
        if self.topic.is_some() { Encoding::Topic } else { Encoding::Envelope }
    }

    /// What kind of client it is, for the core.
    pub(super) fn client(&self) -> ClientKind {
        if self.modern { ClientKind::Modern } else { ClientKind::Legacy }
    }
}

/// An address, as far as it is told: in 24 bytes where a [`SocketAddr`] has 32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    ip: IpAddr,
    /// 0 where a proxy does not tell.
    port: u16,
    /// The interface of a link-local address.
    scope: u32,
}

impl Peer {
    /// Without the port.
    pub(super) fn ip(&self) -> IpAddr {
        self.ip
    }
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        let scope = match address {
            SocketAddr::V4(_) => 0,
            SocketAddr::V6(address) => address.scope_id(),
        };
        Self { ip: address.ip(), port: address.port(), scope }
    }
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            ip if self.port == 0 => ip.fmt(f),
            IpAddr::V4(ip) => SocketAddrV4::new(ip, self.port).fmt(f),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, self.port, 0, self.scope).fmt(f),
        }
    }
}

/// How the broker ends a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Closing {
    /// RFC 6455 section 7.4.
    pub(super) code: u16,
    /// A few words for the close frame.
    pub(super) reason: &'static str,
    /// A legacy client gets the close frame too: it asked for it, by its own close frame or by a violation of the protocol.
    pub(super) invited: bool,
    /// What is queued is sent before.
    pub(super) flush: bool,
}

/// A session, as every thread sees it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ConnectionId,
    pub(super) profile: Profile,
    /// Which of the server's loops reads and writes the transport.
    pub(super) home: u16,
    /// The core does not know this session any more. Changes under the core's lock.
    forgotten: AtomicBool,
    transport: Transport,
    queue: Mutex<Queue>,
    /// When the last byte came, in milliseconds as [`Timestamp`].
    last_input: AtomicU64,
    opened: Timestamp,
    /// The answers that the client waits for.
    pub(super) pending: PendingAnswers,
}

impl Session {
    /// A session whose upgrade reply is not written yet. `home`: the loop that serves it.
    pub(super) fn new(id: ConnectionId, profile: Profile, transport: Transport, home: u16, now: Timestamp) -> Self {
        let queue = Mutex::new(Queue::new(!profile.modern));
        Self {
            id,
            profile,
            home,
            forgotten: AtomicBool::new(false),
            transport,
            queue,
            last_input: AtomicU64::new(now.0),
            opened: now,
            pending: PendingAnswers::default(),
        }
    }

    /// The queue. Held for short, never across a system call.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The way to the client.
    pub(super) fn transport(&self) -> &Transport {
        &self.transport
    }

    /// Queues the last things: the close frame if the client is to get one, and the FIN. To be flushed by the caller.
    pub(super) fn end(&self, closing: Closing) {
        let last = (self.profile.modern || closing.invited).then(|| frame::encode_close(closing.code, closing.reason));
        self.queue().end(last, closing.flush);
    }

    /// Notes that the core does not know the session any more; true for the first time.
    pub(super) fn forget(&self) -> bool {
        !self.forgotten.swap(true, Ordering::Relaxed)
    }

    /// Whether the core has forgotten the session.
    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// An answer that the client waits for is in the queue.
    pub(super) fn answered(&self) {
        if self.pending.remove() {
            self.queue().wake();
        }
    }

    /// The answers that the client waits for do not come in time.
    pub(super) fn give_up(&self) {
        if self.pending.give_up() {
            self.queue().wake();
        }
    }

    /// Notes that something was read.
    pub(super) fn note_input(&self, now: Timestamp) {
        self.last_input.store(now.0, Ordering::Relaxed);
    }

    /// When the last byte came.
    pub(super) fn last_input(&self) -> Timestamp {
        Timestamp(self.last_input.load(Ordering::Relaxed))
    }
}

/// (Tests.) A modern envelope session of the loop `home`, whose head is written, and the client's end.
#[cfg(test)]
pub(super) async fn open(id: ConnectionId, home: u16) -> (Arc<Session>, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let profile =
        Profile { user: Arc::default(), peer: peer.into(), topic: None, receiver: None, modern: true, proxied: false };
    let session = Session::new(id, profile, Transport::new(stream).unwrap(), home, Timestamp(0));
    session.queue().head_written();
    (Arc::new(session), client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_told_as_its_address_is() {
        for text in ["192.0.2.1:8888", "[2001:db8::1]:1", "[::ffff:192.0.2.1]:65535", "[fe80::1%7]:443"] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Peer::from(address).to_string(), text);
        }
        for (text, shown) in [("192.0.2.1:0", "192.0.2.1"), ("[2001:db8::1]:0", "2001:db8::1")] {
            let address: SocketAddr = text.parse().expect("an address");
            assert_eq!(Peer::from(address).to_string(), shown, "a proxy did not tell the port");
        }
    }
}
