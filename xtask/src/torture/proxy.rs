//! A TCP proxy with faults: it resets connections, stalls them, and discards bytes from the broker after its TCP has acknowledged them. It adds a
//! `Via` header to each request, so that the broker knows of the proxy.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::process;

/// The behaviour of the proxy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Passes all bytes.
    #[default]
    Pass,
    /// Passes no bytes; connections stay open.
    Stall,
    /// Discards the bytes that the broker sends. A connection with discarded bytes is closed with FIN when the mode changes.
    Discard,
}

#[derive(Default)]
struct Shared {
    mode: Mutex<Mode>,
    /// Connections of an earlier epoch are reset.
    epoch: AtomicU64,
    over: AtomicBool,
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// How often a waiting thread checks the mode.
const POLL: Duration = Duration::from_millis(20);

impl Proxy {
    /// Starts a proxy in front of `target`.
    ///
    /// # Errors
    /// The address of the listener cannot be read.
    pub fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = process::free_port();
        let address = listener.local_addr()?;
        let shared = Arc::<Shared>::default();
        let for_thread = shared.clone();
        std::thread::spawn(move || accept(&listener, target, &for_thread));
        Ok(Self { address, shared })
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Sets the mode of all connections.
    pub fn set(&self, mode: Mode) {
        *process::lock(&self.shared.mode) = mode;
    }

    /// Resets all current connections.
    pub fn cut(&self) {
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn mode(&self) -> Mode {
        *process::lock(&self.mode)
    }
}

/// One connection through the proxy.
struct Link {
    shared: Arc<Shared>,
    epoch: u64,
    /// Whether bytes of the broker were discarded.
    lossy: AtomicBool,
    /// Whether one side was reset.
    reset: AtomicBool,
}

impl Link {
    fn must_reset(&self) -> bool {
        self.shared.over.load(Ordering::SeqCst)
            || self.reset.load(Ordering::SeqCst)
            || self.shared.epoch.load(Ordering::SeqCst) != self.epoch
    }

    fn must_close(&self) -> bool {
        self.lossy.load(Ordering::SeqCst) && self.shared.mode() != Mode::Discard
    }
}

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    while let Ok((client, _)) = listener.accept() {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let shared = shared.clone();
        std::thread::spawn(move || {
            let Ok(broker) = TcpStream::connect(target) else { return };
            let epoch = shared.epoch.load(Ordering::SeqCst);
            let link = Arc::new(Link { shared, epoch, lossy: AtomicBool::new(false), reset: AtomicBool::new(false) });
            let _ = client.set_nodelay(true).and_then(|()| broker.set_nodelay(true));
            let _ = client.set_read_timeout(Some(POLL)).and_then(|()| broker.set_read_timeout(Some(POLL)));
            let (Ok(client_again), Ok(broker_again)) = (client.try_clone(), broker.try_clone()) else { return };
            let back = link.clone();
            std::thread::spawn(move || pass(&broker_again, &client_again, &back, false));
            pass(&client, &broker, &link, true);
        });
    }
}

/// Passes bytes in one direction until one side ends. The first bytes to the broker are the request head; a `Via` header is inserted there.
fn pass(mut from: &TcpStream, mut to: &TcpStream, link: &Link, to_broker: bool) {
    let mut buffer = vec![0; 16 << 10];
    let mut first = to_broker;
    loop {
        if link.must_reset() {
            // The sockets are closed when the thread of the other direction has returned, too.
            process::reset_on_close(from);
            process::reset_on_close(to);
            return;
        }
        if link.must_close() {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if link.shared.mode() == Mode::Stall {
            std::thread::sleep(POLL);
            continue;
        }
        let count = match from.read(&mut buffer) {
            Ok(0) => {
                let _ = to.shutdown(Shutdown::Write);
                return;
            }
            Ok(count) => count,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
            Err(_) => {
                link.reset.store(true, Ordering::SeqCst);
                process::reset_on_close(to);
                return;
            }
        };
        if !to_broker && link.shared.mode() == Mode::Discard {
            link.lossy.store(true, Ordering::SeqCst);
            continue;
        }
        let mut bytes = buffer[..count].to_vec();
        if std::mem::take(&mut first) {
            let line = bytes.windows(2).position(|pair| pair == b"\r\n").map_or(count, |at| at + 2);
            bytes.splice(line..line, *b"Via: 1.1 torture\r\n");
        }
        if to.write_all(&bytes).is_err() {
            let _ = from.shutdown(Shutdown::Both);
            return;
        }
    }
}
