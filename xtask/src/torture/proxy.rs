//! A proxy of our own that misbehaves as real ones do: it cuts connections, stalls them, and takes bytes from the broker that it never passes on
//! (their TCP has been acknowledged all the same). As a proxy it says so: each request gets a `Via` header.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::Duration;

use super::process;

/// What it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// It passes everything.
    Pass,
    /// Nothing gets through; connections stay.
    Stall,
    /// What the broker sends is taken and thrown away. Such a connection is ended as soon as the mode is another one: the broker sees a FIN.
    Forget,
}

struct Shared {
    mode: AtomicU8,
    /// Connections of an earlier age are cut.
    age: AtomicU64,
    over: AtomicBool,
}

/// A running proxy.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

/// How often a thread that waits looks at the mode.
const LOOK: Duration = Duration::from_millis(20);

impl Proxy {
    /// Starts one in front of `target`.
    ///
    /// # Errors
    /// There is no address for it.
    pub fn start(target: SocketAddr) -> std::io::Result<Self> {
        let listener = process::free_port();
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { mode: AtomicU8::new(0), age: AtomicU64::new(0), over: AtomicBool::new(false) });
        let for_thread = shared.clone();
        std::thread::spawn(move || accept(&listener, target, &for_thread));
        Ok(Self { address, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Changes what it does.
    pub fn set(&self, mode: Mode) {
        self.shared.mode.store(mode as u8, Ordering::SeqCst);
    }

    /// Ends every connection with RST, once.
    pub fn cut(&self) {
        self.shared.age.fetch_add(1, Ordering::SeqCst);
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
        match self.mode.load(Ordering::SeqCst) {
            0 => Mode::Pass,
            1 => Mode::Stall,
            _ => Mode::Forget,
        }
    }
}

/// One connection through the proxy.
struct Link {
    shared: Arc<Shared>,
    age: u64,
    /// Something was thrown away.
    poisoned: AtomicBool,
    /// One side was reset.
    ended: AtomicBool,
}

impl Link {
    fn is_cut(&self) -> bool {
        self.shared.over.load(Ordering::SeqCst)
            || self.ended.load(Ordering::SeqCst)
            || self.shared.age.load(Ordering::SeqCst) != self.age
    }

    fn is_to_end(&self) -> bool {
        self.poisoned.load(Ordering::SeqCst) && self.shared.mode() != Mode::Forget
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
            let age = shared.age.load(Ordering::SeqCst);
            let link = Arc::new(Link { shared, age, poisoned: AtomicBool::new(false), ended: AtomicBool::new(false) });
            let _ = client.set_nodelay(true).and_then(|()| broker.set_nodelay(true));
            let _ = client.set_read_timeout(Some(LOOK)).and_then(|()| broker.set_read_timeout(Some(LOOK)));
            let (Ok(client_again), Ok(broker_again)) = (client.try_clone(), broker.try_clone()) else { return };
            let back = link.clone();
            std::thread::spawn(move || pass(&broker_again, &client_again, &back, false));
            pass(&client, &broker, &link, true);
        });
    }
}

/// Passes bytes one way until one side ends. The first bytes towards the broker are a request's head, which gets its `Via`.
fn pass(mut from: &TcpStream, mut to: &TcpStream, link: &Link, to_broker: bool) {
    let mut buffer = vec![0; 16 << 10];
    let mut first = to_broker;
    loop {
        if link.is_cut() {
            // The other direction's thread returns, too, and with it the sockets are closed.
            process::reset_on_close(from);
            process::reset_on_close(to);
            return;
        }
        if link.is_to_end() {
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
            return;
        }
        if link.shared.mode() == Mode::Stall {
            std::thread::sleep(LOOK);
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
                link.ended.store(true, Ordering::SeqCst);
                process::reset_on_close(to);
                return;
            }
        };
        if !to_broker && link.shared.mode() == Mode::Forget {
            link.poisoned.store(true, Ordering::SeqCst);
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
