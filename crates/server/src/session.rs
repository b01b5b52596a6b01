//! A session: the user, the encoding of frames, and a send queue in front of a transport.
//!
//! All threads share the same [`Session`]; it does not know the hub or the core. An idle session holds no buffer. A thread that queues frames also flushes
//! them, without waiting; bytes that the socket does not take are left to the session's own task (`reader`).
//!
//! Never here: a system call under the queue's lock, a decision about delivery.

mod answers;
mod flush;
mod liveness;

use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::access::Identity;
use super::encoding::Encoding;
use super::queue::Queue;
use super::transport::Transport;
use answers::PendingAnswers;
use wsmb_core::broker::ClientKind;
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_protocol::frame;

pub(super) use liveness::TimerAction;

/// The client and its dialect, as the handshake determined them.
#[derive(Clone, Debug)]
pub(super) struct Profile {
    /// Who the session belongs to.
    pub(super) identity: Identity,
    /// The client's address, as trusted proxies report it.
    pub(super) peer: Peer,
    /// The channel of a topic connection; `None` for an envelope connection.
    pub(super) topic: Option<ChannelName>,
    /// The receiver name (`?receiver=ID`). In a box, because few connections have one.
    pub(super) receiver: Option<Box<Arc<str>>>,
    /// The client offered `wsmb.v1`: it gets close frames, and its queue is not held.
    pub(super) modern: bool,
    /// The connection comes through a proxy, so acknowledgements of its TCP prove nothing about the client (SPEC section 3).
    pub(super) proxied: bool,
    /// The session is a part of the broker (a webhook): no login, and no permission applies to it.
    pub(super) internal: bool,
}

impl Profile {
    /// The user; empty for an anonymous connection.
    pub(super) fn user(&self) -> &Arc<str> {
        self.identity.user()
    }

    /// The kind of client, for the core.
    pub(super) fn client(&self) -> ClientKind {
        if self.modern { ClientKind::Modern } else { ClientKind::Legacy }
    }
}

/// A client's address: 24 bytes, where a [`SocketAddr`] has 32.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    ip: IpAddr,
    /// 0: a proxy did not report it.
    port: u16,
    /// The interface of a link-local address.
    scope: u32,
}

impl Peer {
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
    /// The reason in the close frame.
    pub(super) reason: &'static str,
    /// A legacy client gets the close frame too, because it has sent its own close frame or violated the protocol.
    pub(super) invited: bool,
    /// Queued frames are sent before the close frame; otherwise they are dropped.
    pub(super) flush: bool,
}

/// Where the frames of a session go.
#[derive(Debug)]
pub(super) enum Outlet {
    /// Into a socket: a thread that queues frames also writes them.
    Socket(Transport),
    /// Nowhere: they wait until another task takes them, the task of an HTTP response.
    #[cfg_attr(not(feature = "http"), expect(dead_code, reason = "only HTTP has receivers without a socket"))]
    Mailbox,
}

/// A session, shared by all threads.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) id: ConnectionId,
    pub(super) profile: Profile,
    /// Which of the server's loops reads and writes the transport.
    pub(super) home: u16,
    /// The end was reported to the core. Changes under the core's lock.
    forgotten: AtomicBool,
    outlet: Outlet,
    queue: Mutex<Queue>,
    /// The time of the last input, in milliseconds as [`Timestamp`].
    last_input: AtomicU64,
    opened: Timestamp,
    /// The answers that the client waits for.
    pub(super) pending: PendingAnswers,
}

impl Session {
    /// A session whose upgrade reply is not written yet, or one without a socket. `home`: the loop that serves it.
    pub(super) fn new(id: ConnectionId, profile: Profile, outlet: Outlet, home: u16, now: Timestamp) -> Self {
        let queue = Mutex::new(match outlet {
            Outlet::Socket(_) => Queue::new(!profile.modern),
            Outlet::Mailbox => Queue::for_mailbox(),
        });
        Self {
            id,
            profile,
            home,
            forgotten: AtomicBool::new(false),
            outlet,
            queue,
            last_input: AtomicU64::new(now.0),
            opened: now,
            pending: PendingAnswers::default(),
        }
    }

    /// Locks the queue. The lock must be held only briefly, and never across a system call.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket, if the session has one.
    pub(super) fn transport(&self) -> Option<&Transport> {
        match &self.outlet {
            Outlet::Socket(transport) => Some(transport),
            Outlet::Mailbox => None,
        }
    }

    pub(super) fn encoding(&self) -> Encoding {
        match (&self.outlet, &self.profile.topic) {
            (Outlet::Mailbox, _) => Encoding::Lines,
            (Outlet::Socket(_), Some(_)) => Encoding::Topic,
            (Outlet::Socket(_), None) => Encoding::Envelope,
        }
    }

    /// Queues the close frame, if the client gets one, and the FIN. The caller must flush.
    pub(super) fn end(&self, closing: Closing) {
        let has_frames = matches!(self.outlet, Outlet::Socket(_));
        let last = (has_frames && (self.profile.modern || closing.invited))
            .then(|| frame::encode_close(closing.code, closing.reason));
        self.queue().end(last, closing.flush);
    }

    /// Marks the session as forgotten by the core. Returns whether it was not marked before.
    pub(super) fn forget(&self) -> bool {
        !self.forgotten.swap(true, Ordering::Relaxed)
    }

    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// An answer for which the client waits is in the queue.
    pub(super) fn answered(&self) {
        if self.pending.remove() {
            self.queue().wake();
        }
    }

    /// The answers for which the client waits are late.
    pub(super) fn give_up(&self) {
        if self.pending.give_up() {
            self.queue().wake();
        }
    }

    pub(super) fn note_input(&self, now: Timestamp) {
        self.last_input.store(now.0, Ordering::Relaxed);
    }

    #[cfg(feature = "http")]
    pub(super) fn opened(&self) -> Timestamp {
        self.opened
    }

    pub(super) fn last_input(&self) -> Timestamp {
        Timestamp(self.last_input.load(Ordering::Relaxed))
    }
}

/// Returns a modern envelope session of the loop `home`, whose upgrade reply is written, and the client's socket.
#[cfg(test)]
pub(super) async fn open(id: ConnectionId, home: u16) -> (Arc<Session>, tokio::net::TcpStream) {
    let listener = tokio::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let identity = Identity::default();
    let profile = Profile {
        identity,
        peer: peer.into(),
        topic: None,
        receiver: None,
        modern: true,
        proxied: false,
        internal: false,
    };
    let session = Session::new(id, profile, Outlet::Socket(Transport::new(stream).unwrap()), home, Timestamp(0));
    session.queue().head_written();
    (Arc::new(session), client)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_shown_like_its_socket_address() {
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
