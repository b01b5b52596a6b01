//! A TCP proxy between a broker and its database that fails on command.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::process;

/// The behaviour of the proxy, for old and new connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// All bytes are passed on.
    Open,
    /// Every connection ends, and new ones are refused.
    Refuse,
    /// Connections stay open and can be made, but no byte is passed on, as with a firewall that drops packets.
    Stall,
    /// Each read is passed on after this delay, in each direction.
    Delay(Duration),
}

struct State {
    mode: Mode,
    /// The client's and the server's socket of each connection.
    connections: Vec<(TcpStream, TcpStream)>,
    /// Connections with a number up to this one pass no bytes on.
    forgotten: u64,
    accepted: u64,
    bytes: u64,
    over: bool,
}

type Shared = Arc<(Mutex<State>, Condvar)>;

/// A TCP proxy on a port of its own; stopped when dropped.
pub struct Proxy {
    address: SocketAddr,
    target: SocketAddr,
    shared: Shared,
    acceptor: Mutex<Option<JoinHandle<()>>>,
}

impl Proxy {
    /// Starts a proxy that passes all bytes to `target`.
    #[track_caller]
    pub fn start(target: SocketAddr) -> Self {
        let state =
            State { mode: Mode::Open, connections: Vec::new(), forgotten: 0, accepted: 0, bytes: 0, over: false };
        let listener = process::free_port();
        let address = listener.local_addr().expect("the address of a listener");
        let proxy =
            Self { address, target, shared: Arc::new((Mutex::new(state), Condvar::new())), acceptor: Mutex::new(None) };
        proxy.listen(listener);
        proxy
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes the behaviour immediately.
    #[track_caller]
    pub fn set(&self, mode: Mode) {
        let before = std::mem::replace(&mut lock(&self.shared).mode, mode);
        self.shared.1.notify_all();
        if mode == Mode::Refuse {
            self.stop_listening();
            self.cut();
        } else if before == Mode::Refuse {
            self.listen(TcpListener::bind(self.address).expect("the port that this proxy has just released"));
        }
    }

    /// Ends every connection once; new ones can be made.
    pub fn cut(&self) {
        for (client, server) in lock(&self.shared).connections.drain(..) {
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }

    /// Existing connections pass nothing on, not even their end; new connections work. So behaves a router that has lost its table.
    pub fn forget(&self) {
        let mut state = lock(&self.shared);
        state.forgotten = state.accepted;
        self.shared.1.notify_all();
    }

    /// The number of connections so far.
    pub fn accepted(&self) -> u64 {
        lock(&self.shared).accepted
    }

    /// The number of bytes passed on, in both directions together.
    pub fn bytes(&self) -> u64 {
        lock(&self.shared).bytes
    }

    fn listen(&self, listener: TcpListener) {
        let (shared, target) = (self.shared.clone(), self.target);
        *self.acceptor.lock().unwrap_or_else(PoisonError::into_inner) = Some(std::thread::spawn(move || {
            while let Ok((client, _)) = listener.accept() {
                if refuses(&shared) {
                    break;
                }
                connect(client, target, &shared);
            }
        }));
    }

    /// Ends the accepting thread, which a connection to the own address wakes.
    fn stop_listening(&self) {
        let acceptor = self.acceptor.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(thread) = acceptor {
            let _ = TcpStream::connect(self.address);
            let _ = thread.join();
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        lock(&self.shared).over = true;
        self.shared.1.notify_all();
        self.stop_listening();
        self.cut();
    }
}

fn lock(shared: &Shared) -> MutexGuard<'_, State> {
    shared.0.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuses(shared: &Shared) -> bool {
    let state = lock(shared);
    state.over || state.mode == Mode::Refuse
}

/// Joins a client with the server. If the server cannot be reached, the client's connection ends.
fn connect(client: TcpStream, target: SocketAddr, shared: &Shared) {
    let Ok(server) = TcpStream::connect(target) else { return };
    let copies = || -> io::Result<_> {
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        Ok((client.try_clone()?, server.try_clone()?, client.try_clone()?, server.try_clone()?))
    };
    let Ok((client_end, server_end, client_again, server_again)) = copies() else { return };
    let mut state = lock(shared);
    state.accepted += 1;
    let number = state.accepted;
    state.connections.push((client_end, server_end));
    drop(state);
    let (to_server, to_client) = (shared.clone(), shared.clone());
    std::thread::spawn(move || pass(client, server, number, &to_server));
    std::thread::spawn(move || pass(server_again, client_again, number, &to_client));
}

/// Passes bytes in one direction until one side ends.
fn pass(mut from: TcpStream, mut to: TcpStream, number: u64, shared: &Shared) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        let count = from.read(&mut buffer).unwrap_or(0);
        if !hold(number, shared) || count == 0 || to.write_all(&buffer[..count]).is_err() {
            break;
        }
        lock(shared).bytes += count as u64;
    }
    let _ = from.shutdown(Shutdown::Both);
    let _ = to.shutdown(Shutdown::Both);
}

/// Returns `true` when the bytes read may be passed on; `false` if the proxy is being dropped.
fn hold(number: u64, shared: &Shared) -> bool {
    let begun = Instant::now();
    let mut state = lock(shared);
    loop {
        let left = match state.mode {
            _ if state.over => return false,
            _ if number <= state.forgotten => Duration::MAX,
            Mode::Open | Mode::Refuse => return true,
            Mode::Stall => Duration::MAX,
            Mode::Delay(time) => time.saturating_sub(begun.elapsed()),
        };
        if left.is_zero() {
            return true;
        }
        let left = left.min(Duration::from_secs(3_600));
        state = shared.1.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
