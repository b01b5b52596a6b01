//! One connection: its socket, what other threads do to it ([`Connection`]), and the task that reads it ([`Reader`]).
//!
//! An idle connection holds no buffer: readiness is awaited first, then read into a buffer that its thread shares, and only a partial
//! frame stays in the decoder. Whoever queues frames for a connection writes them himself, without waiting; only what the socket does
//! not take is left to the connection's own task. Nothing here holds the queue's lock across a system call.

mod evidence;

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::io::{self, Read};
use std::net::{IpAddr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tracing::debug;

use super::commands::{self, Leave, Step};
use super::counters::Counters;
use super::heartbeat::Hold;
use super::outbound::Queue;
use super::owed::Owed;
use super::runtime::{Burst, Hub};
use super::tcp;
use crate::limits;
use wsmb_core::broker::ClientKind;
use wsmb_core::message::{ChannelName, ConnectionId, Dialect, Timestamp};
use wsmb_protocol::frame::{self, Decoder, Incoming, Role};

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
    /// How the connection frames messages.
    pub(super) fn dialect(&self) -> Dialect {
        if self.topic.is_some() { Dialect::Topic } else { Dialect::Envelope }
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

/// A connection, as every thread sees it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) id: ConnectionId,
    pub(super) profile: Profile,
    stream: TcpStream,
    queue: Mutex<Queue>,
    /// When its last byte came, in milliseconds as [`Timestamp`].
    heard: AtomicU64,
    opened: Timestamp,
    /// The core does not know this connection any more. Changes under the core's lock.
    forgotten: AtomicBool,
    pub(super) owed: Owed,
}

pub(super) use evidence::OnTime;

thread_local! {
    /// What all connections of the thread read into.
    static INBOX: RefCell<Box<[u8]>> = RefCell::new(vec![0; wsmb_protocol::limits::READ_BUFFER].into_boxed_slice());
}

impl Connection {
    /// A connection whose upgrade reply is not written yet.
    pub(super) fn new(id: ConnectionId, profile: Profile, stream: TcpStream, now: Timestamp) -> Self {
        let queue = Mutex::new(Queue::new(!profile.modern));
        Self {
            id,
            profile,
            stream,
            queue,
            heard: AtomicU64::new(now.0),
            opened: now,
            forgotten: AtomicBool::new(false),
            owed: Owed::default(),
        }
    }

    /// The queue. Held for short, never across a system call.
    pub(super) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The socket, for the handshake.
    pub(super) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Queues the last things: the close frame if the client is to get one, and the FIN. To be flushed by the caller.
    pub(super) fn end(&self, closing: Closing) {
        let last = (self.profile.modern || closing.invited).then(|| frame::encode_close(closing.code, closing.reason));
        self.queue().end(last, closing.flush);
    }

    /// Notes that the core does not know the connection any more; true for the first time.
    pub(super) fn forget(&self) -> bool {
        !self.forgotten.swap(true, Ordering::Relaxed)
    }

    /// Whether the core has forgotten the connection.
    pub(super) fn is_forgotten(&self) -> bool {
        self.forgotten.load(Ordering::Relaxed)
    }

    /// An answer that was owed is in the queue.
    pub(super) fn answered(&self) {
        if self.owed.settle() {
            self.queue().wake();
        }
    }

    /// What is owed does not come in time.
    pub(super) fn give_up(&self) {
        if self.owed.write_off() {
            self.queue().wake();
        }
    }

    /// Something was read.
    fn hear(&self, now: Timestamp) {
        self.heard.store(now.0, Ordering::Relaxed);
    }

    /// When its last byte came.
    pub(super) fn heard(&self) -> Timestamp {
        Timestamp(self.heard.load(Ordering::Relaxed))
    }
}

/// The task of one connection, from the end of the handshake to the end.
pub(super) struct Reader {
    hub: Arc<Hub>,
    connection: Arc<Connection>,
    decoder: Decoder,
    /// What the client sends is thrown away: it has closed, or violated the protocol.
    deaf: bool,
    /// The code of the client's close frame.
    closed: Option<u16>,
    /// The client's first frame has come.
    greeted: bool,
    /// The end is being timed.
    lingering: bool,
    /// The pause of the store's gate for which this task waits already.
    paused: u64,
    departed: bool,
}

/// What one look at the socket brought.
enum Inbound {
    Nothing,
    More,
    Ended { orderly: bool },
}

impl Reader {
    pub(super) fn new(hub: Arc<Hub>, connection: Arc<Connection>) -> Self {
        let decoder = Decoder::new(Role::Server, hub.options().limits.max_message);
        Self {
            hub,
            connection,
            decoder,
            deaf: false,
            closed: None,
            greeted: false,
            lingering: false,
            paused: 0,
            departed: false,
        }
    }

    /// Takes what the client sent, in order.
    pub(super) fn take(&mut self, input: &mut [u8]) {
        self.connection.hear(self.hub.now());
        self.hub.stop.hear();
        if self.deaf {
            return;
        }
        let Self { hub, connection, decoder, greeted, .. } = self;
        let desk = commands::Desk::new(hub, connection);
        let mut burst = Burst::begin(hub, Some(connection));
        let was_greeted = *greeted;
        let mut last = None;
        let result = decoder.feed(input, |incoming| {
            if let Incoming::Close { code, .. } = &incoming {
                last = Some(*code);
            }
            let flow = desk.take(&incoming, greeted, &mut burst);
            self.deaf = flow.is_break();
            flow
        });
        burst.end();
        desk.count();
        if !was_greeted && connection.queue().is_answering() {
            hub.hold(Hold::Answer, connection.id);
        }
        if let Some(code) = last {
            // Asked without the core's lock: the answer needs a system call.
            let took_only = matches!(code, Some(1000 | 1001)) && connection.took_only(hub.options().limits.trust_fin);
            let code = code.unwrap_or(1000);
            self.closed = Some(code);
            // Whoever waits for answers gets the close frame behind them.
            if !hub.finish(connection, took_only) {
                hub.dispatch(Some(connection), Step::Leave(Leave { code, took_only }));
            }
        }
        if let Err(error) = result {
            self.deaf = true;
            debug!(connection = connection.id.0, %error, "protocol violation");
            Counters::add(&hub.counters.violations, 1);
            let closing = Closing { code: error.close_code(), reason: "", invited: true, flush: true };
            hub.dispatch(Some(connection), Step::End(closing));
        }
    }

    fn outbound(&mut self, cx: &mut Context<'_>) -> bool {
        let (aborted, blocked, ending) = {
            let mut queue = self.connection.queue();
            queue.wake_with(cx.waker());
            (queue.is_aborted(), queue.is_blocked(), queue.is_ending())
        };
        if aborted {
            return false;
        }
        if ending && !self.lingering {
            self.lingering = true;
            let end_by = self.hub.now().after(limits::LINGER);
            self.connection.queue().cut_at(end_by);
            self.hub.look(end_by, self.connection.id);
        }
        if blocked && self.connection.stream.poll_write_ready(cx).is_ready() {
            self.connection.queue().unblock();
            // If the socket is full again, this wakes the task, which then waits for it.
            self.connection.flush();
        }
        true
    }

    fn inbound(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        if let Some(pause) = self.hub.gate.pause(cx.waker(), self.paused) {
            self.paused = pause;
            return Poll::Pending;
        }
        if self.connection.stream.poll_read_ready(cx).is_pending() {
            return Poll::Pending;
        }
        Poll::Ready(INBOX.with_borrow_mut(|inbox| match read(&self.connection.stream, inbox) {
            Ok(0) => Inbound::Ended { orderly: true },
            Ok(count) => {
                self.take(&mut inbox[..count]);
                Inbound::More
            }
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Inbound::Nothing,
                _ => Inbound::Ended { orderly: false },
            },
        }))
    }

    /// The client has sent a FIN. True if it waits for answers, so that the connection stays for them.
    fn finish(&mut self) -> bool {
        let took_only = self.connection.took_only(self.hub.options().limits.trust_fin);
        self.hub.finish(&self.connection, took_only)
    }

    /// Looks after a client that has finished sending and waits for answers. `None`: it is to be read from like any other, for it has its
    /// answers and the close frame that it asked for.
    fn answer(&mut self) -> Option<Poll<()>> {
        let (ending, broken) = {
            let queue = self.connection.queue();
            (queue.is_ending(), queue.is_broken())
        };
        if self.connection.owed.any() && !ending && !broken {
            return Some(Poll::Pending);
        }
        match self.closed {
            Some(code) if !broken => {
                if !ending {
                    self.hub.dispatch(Some(&self.connection), Step::Leave(Leave { code, took_only: false }));
                }
                None
            }
            _ => {
                self.depart(true);
                Some(Poll::Ready(()))
            }
        }
    }

    fn depart(&mut self, orderly: bool) {
        if !std::mem::replace(&mut self.departed, true) {
            let took_only = orderly
                && !self.connection.owed.is_listening()
                && self.connection.took_only(self.hub.options().limits.trust_fin);
            self.hub.depart(&self.connection, took_only);
            // Replies and a close frame may still be queued; whoever sent a FIN may still read.
            if orderly {
                self.connection.flush();
            } else if tcp::unacknowledged(self.connection.stream()).is_none_or(|bytes| bytes > 1)
                && (!self.hub.stop.has_begun() || self.connection.queue().has_unconfirmed())
            {
                // More than a FIN is on its way to a client that takes nothing: the kernel shall not keep it for minutes. In a stop only what will come
                // again is cut off; an answer may still arrive.
                let _ = SockRef::from(&self.connection.stream).set_linger(Some(Duration::ZERO));
            }
        }
    }
}

/// Reads once. A read that does not fill the buffer has emptied the socket, so readiness is awaited again without asking the
/// kernel a second time (as tokio itself does, where readiness is edge-triggered).
fn read(stream: &TcpStream, buffer: &mut [u8]) -> io::Result<usize> {
    let mut count = None;
    let result = stream.try_io(Interest::READABLE, || {
        let got = (&*SockRef::from(stream)).read(buffer)?;
        count = Some(got);
        let emptied = cfg!(any(target_os = "linux", target_os = "android", target_os = "macos", target_os = "ios"));
        if emptied && got > 0 && got < buffer.len() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    });
    match count {
        Some(count) => Ok(count),
        None => result.map(|()| 0),
    }
}

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !this.outbound(cx) {
            this.depart(false);
            return Poll::Ready(());
        }
        if this.connection.owed.is_listening()
            && let Some(poll) = this.answer()
        {
            return poll;
        }
        for _ in 0..limits::READ_ROUNDS {
            match this.inbound(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Inbound::Nothing | Inbound::More) => {}
                Poll::Ready(Inbound::Ended { orderly }) => {
                    if orderly && this.finish() {
                        return Poll::Pending;
                    }
                    this.depart(orderly);
                    return Poll::Ready(());
                }
            }
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// Whatever ends the task, the core hears of it.
impl Drop for Reader {
    fn drop(&mut self) {
        self.depart(false);
    }
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
