//! Binds the addresses, accepts connections, and gives each socket to a loop.

use std::fmt;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tracing::error;

use super::certificates::Certificates;
use super::counters::WarningLimit;
use super::handshake::{self, Accepted};
use super::handshakes::{Handshakes, Slot};
use super::hub::Hub;
use super::loops::Threads;
use super::reader::Reader;
use super::settings::Listener;
use super::tls_accept;
use super::transport::Transport;
use crate::{limits, platform};

/// An address on which the server cannot listen.
#[derive(Debug)]
pub struct ListenError {
    /// The address as configured.
    pub address: String,
    /// The system's error.
    pub cause: io::Error,
}

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { address, cause } = self;
        write!(f, "cannot listen on {address}: ")?;
        match cause.kind() {
            io::ErrorKind::AddrInUse => f.write_str(
                "the port is in use by another program; stop that program or set server.listen to another port",
            ),
            io::ErrorKind::PermissionDenied => f.write_str(
                "the system does not let this user open the port; set server.listen to a port above 1023, or give the program the right",
            ),
            io::ErrorKind::AddrNotAvailable => {
                f.write_str("this machine does not have that address; set server.listen to one it has, or to 0.0.0.0")
            }
            _ => write!(f, "{cause}"),
        }
    }
}

impl std::error::Error for ListenError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// An open listening socket.
pub(super) struct Bound {
    pub(super) listener: TcpListener,
    /// Every connection is encrypted.
    pub(super) tls: bool,
    /// Every connection begins with a PROXY protocol header.
    pub(super) proxy_protocol: bool,
}

/// Resolves all names and opens every address.
///
/// # Errors
/// The first address that cannot be opened; then all are closed again.
pub(super) async fn bind(wanted: &[Listener]) -> Result<Vec<Bound>, ListenError> {
    let mut found: Vec<(&Listener, Vec<SocketAddr>)> = Vec::new();
    for listener in wanted {
        let address = &listener.address;
        let resolved = tokio::net::lookup_host(address).await;
        let mut resolved: Vec<_> = resolved.map_err(|cause| ListenError { address: address.clone(), cause })?.collect();
        resolved.dedup();
        found.push((listener, resolved));
    }
    let everything: Vec<SocketAddr> = found.iter().flat_map(|(_, resolved)| resolved.clone()).collect();
    let mut all = Vec::new();
    for (Listener { address, tls, proxy_protocol }, resolved) in found {
        let before = all.len();
        let mut missing = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address_of_name in &resolved {
            match open(*address_of_name, &everything) {
                Ok(listener) => all.push(Bound { listener, tls: *tls, proxy_protocol: *proxy_protocol }),
                // `localhost` resolves to `::1` too, even on a machine without IPv6.
                Err(cause) if resolved.len() > 1 && is_missing(&cause) => missing = cause,
                Err(cause) => return Err(ListenError { address: address.clone(), cause }),
            }
        }
        if all.len() == before {
            return Err(ListenError { address: address.clone(), cause: missing });
        }
    }
    Ok(all)
}

/// Whether the machine does not have the address.
fn is_missing(cause: &io::Error) -> bool {
    cause.kind() == io::ErrorKind::AddrNotAvailable || platform::is_unknown_family(cause)
}

/// Returns the errors that a broker would get if it listened on these addresses now. Binds the addresses, but does not listen. Blocks: resolves
/// names.
#[must_use]
pub fn obstacles(wanted: &[Listener]) -> Vec<ListenError> {
    use std::net::ToSocketAddrs as _;

    let mut obstacles = Vec::new();
    let mut bound: Vec<SocketAddr> = Vec::new();
    let resolved = |listener: &Listener| listener.address.to_socket_addrs().map(Vec::from_iter);
    let everything: Vec<SocketAddr> = wanted.iter().filter_map(|listener| resolved(listener).ok()).flatten().collect();
    for listener in wanted {
        let mut refuse = |cause| obstacles.push(ListenError { address: listener.address.clone(), cause });
        let mut addresses = match resolved(listener) {
            Ok(addresses) => addresses,
            Err(cause) => {
                refuse(cause);
                continue;
            }
        };
        addresses.dedup();
        let mut missing = None;
        let before = bound.len();
        for address in &addresses {
            if address.port() != 0 && bound.contains(address) {
                refuse(io::Error::other("the address is named twice"));
            }
            match bind_one(*address, &everything) {
                Ok(_) => bound.push(*address),
                Err(cause) if addresses.len() > 1 && is_missing(&cause) => missing = Some(cause),
                Err(cause) => {
                    refuse(cause);
                    // Reported once: the other addresses of the name would fail with the same error.
                    bound.push(*address);
                    break;
                }
            }
        }
        if let (true, Some(cause)) = (bound.len() == before, missing) {
            refuse(cause);
        }
    }
    obstacles
}

fn open(address: SocketAddr, everything: &[SocketAddr]) -> io::Result<TcpListener> {
    bind_one(address, everything)?.listen(limits::ACCEPT_BACKLOG)
}

fn bind_one(address: SocketAddr, everything: &[SocketAddr]) -> io::Result<TcpSocket> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    platform::reuse_port_after_restart(&socket)?;
    if address.is_ipv6() && everything.iter().any(|other| other.is_ipv4() && other.port() == address.port()) {
        // Alone, `[::]` also accepts IPv4; beside an IPv4 address with the same port, that would be a conflict.
        socket2::SockRef::from(&socket).set_only_v6(true)?;
    }
    socket.bind(address)?;
    Ok(socket)
}

/// The state that all listeners share.
pub(super) struct Shared {
    pub(super) hub: Arc<Hub>,
    pub(super) handshakes: Arc<Handshakes>,
    pub(super) threads: Arc<Threads>,
    /// The certificate of the listeners with TLS.
    pub(super) certificates: Option<Arc<Certificates>>,
    /// Limits the warnings about failed accepts.
    pub(super) accept_warning: WarningLimit,
}

/// Accepts connections until the listeners must close and no connection waits. Never waits for a session.
pub(super) async fn accept(shared: Arc<Shared>, bound: Bound) {
    let Bound { listener, tls, proxy_protocol } = bound;
    let certificates = shared.certificates.clone().filter(|_| tls);
    let mut closing = std::pin::pin!(shared.hub.stop.closing());
    loop {
        let accepted = tokio::select! {
            biased;
            accepted = listener.accept() => accepted,
            () = &mut closing => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                if let Err(cause) = shared.serve(stream, peer, certificates.clone(), proxy_protocol) {
                    // The client has gone.
                    tracing::debug!(%peer, %cause, "lost before its handshake");
                }
            }
            Err(cause) if is_of_client(&cause) => {}
            Err(cause) => {
                if let Some(withheld) = shared.accept_warning.admit() {
                    if platform::is_out_of_descriptors(&cause) {
                        tracing::warn!(
                            withheld,
                            "no connection can be accepted: no file descriptors are left; raise `ulimit -n` or lower server.max_connections"
                        );
                    } else {
                        error!(withheld, %cause, "no connection can be accepted");
                    }
                }
                // Evicted sockets free descriptors for new connections.
                let has_room = shared.handshakes.evict(limits::ACCEPT_ROOM);
                tokio::time::sleep(if has_room { limits::ACCEPT_RETRY } else { limits::ACCEPT_PAUSE }).await;
            }
        }
    }
}

impl Shared {
    /// Spawns the task of an accepted socket on the loop that serves it.
    fn serve(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        tls: Option<Arc<Certificates>>,
        proxy_protocol: bool,
    ) -> io::Result<()> {
        let hub = self.hub.clone();
        if hub.memory.is_nearly_used() {
            // More than this one adds.
            self.handshakes.evict(2);
        }
        let home = hub.loops.choose();
        let accepted = Accepted { peer, proxy_protocol, home, secured: None };
        if hub.loops.count() == 1 {
            let transport = Transport::new(stream)?;
            let slot = self.handshakes.begin(peer.ip());
            tokio::spawn(SocketTask::Handshake(begin(hub, transport, accepted, tls, slot)));
            return Ok(());
        }
        // The socket must be registered with the loop that serves it.
        let stream = stream.into_std()?;
        let slot = self.handshakes.begin(peer.ip());
        let handshake = async move {
            let transport = TcpStream::from_std(stream).and_then(Transport::new).ok()?;
            begin(hub, transport, accepted, tls, slot).await
        };
        self.threads.handle(home).spawn(SocketTask::Handshake(Box::pin(handshake)));
        Ok(())
    }
}

/// The handshake of an accepted socket.
type Handshake = Pin<Box<dyn Future<Output = Option<Box<Reader>>> + Send>>;

fn begin(
    hub: Arc<Hub>,
    transport: Transport,
    accepted: Accepted,
    tls: Option<Arc<Certificates>>,
    slot: Slot,
) -> Handshake {
    match tls {
        None => Box::pin(handshake::run(hub, transport, accepted, slot)),
        Some(certificates) => Box::pin(tls_accept::run(hub, transport, accepted, certificates, slot)),
    }
}

/// Whether the client disconnected between the kernel's accept and ours.
fn is_of_client(cause: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(cause.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

/// The task of one accepted socket. Not an `async fn`, because its future would be as large as handshake and reader together: this enum frees the
/// handshake's memory when the session begins. The variants are boxed, so that the task fits into 128 bytes: tokio allocates in steps of 128 bytes.
enum SocketTask {
    Handshake(Handshake),
    Open(Box<Reader>),
}

impl Future for SocketTask {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            match &mut *self {
                Self::Handshake(handshake) => match handshake.as_mut().poll(cx) {
                    Poll::Pending => return Poll::Pending,
                    Poll::Ready(None) => return Poll::Ready(()),
                    Poll::Ready(Some(reader)) => *self = Self::Open(reader),
                },
                Self::Open(reader) => return Pin::new(&mut **reader).poll(cx),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Session;

    /// DESIGN section 4: 1,000 bytes for an idle connection, including tokio, the core and the allocator. Fields that few connections need belong into a
    /// box; memory that an idle connection does not need must be freed.
    #[test]
    fn an_idle_connection_is_small() {
        // Tokio adds 104 bytes to a task, and allocates in steps of 128.
        assert!(size_of::<SocketTask>() <= 24, "its task: {} bytes", size_of::<SocketTask>());
        assert!(size_of::<Reader>() <= 64, "what its task holds: {} bytes", size_of::<Reader>());
        assert!(size_of::<Session>() <= 328, "what is shared: {} bytes", size_of::<Session>());
    }
}
