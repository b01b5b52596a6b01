//! The engine of the floods: a few threads that drive many sockets, none of which ever blocks.
//!
//! A [`Plan`] says how many connections there are and what each of them sends next. A connection that the broker ends, refuses or stops
//! reading is no failure: it is opened again, or waits, until the time is over. The engine never reports an error of the broker;
//! `memory.rs` decides what is one.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use crate::broker::PATIENCE;
use crate::raw::{Head, basic};

/// The threads of one plan. The broker needs a core, too.
const THREADS: usize = 2;

/// The longest time for the answer to one upgrade. A connection without an answer is opened again.
const HANDSHAKE: Duration = Duration::from_secs(2);

/// The pause before a connection is opened again, and before a thread whose connections are all blocked tries again.
const PAUSE: Duration = Duration::from_millis(5);

/// The most bytes that one connection writes in one turn, so that the connections take turns.
const TURN: usize = 256 << 10;

/// How the connections of a plan begin.
#[derive(Clone, Copy)]
pub enum Door {
    /// A TCP connection without a request.
    Plain,
    /// The envelope dialect.
    Envelope,
    /// The topic dialect. Each connection has a channel of its own.
    Topic,
}

/// The bytes that a connection sends next.
pub type Bytes = Arc<[u8]>;

/// One kind of connection in a flood, and what these connections do.
pub struct Plan {
    pub door: Door,
    pub peers: usize,
    /// Whether the connections read what the broker sends.
    pub reads: bool,
    /// The receive buffer of each socket, if it is not the system's.
    pub buffer: Option<usize>,
    /// The time after which a connection is replaced by a new one. For connections that do not read, and so do not see their end.
    pub life: Option<Duration>,
    /// The plan sends nothing new when all of its connections together have sent this many bytes. Bounds the use of the disk.
    pub most: u64,
    /// What the connection with this number sends in this round (0, 1, 2 …). After `None` it sends nothing more and stays open.
    pub next: Box<dyn Fn(usize, u64) -> Option<Bytes> + Send + Sync>,
}

impl Plan {
    /// Envelope connections that read their answers, and send what `next` returns.
    pub fn senders(peers: usize, next: impl Fn(usize, u64) -> Option<Bytes> + Send + Sync + 'static) -> Self {
        Self {
            door: Door::Envelope,
            peers,
            reads: true,
            buffer: None,
            life: None,
            most: u64::MAX,
            next: Box::new(next),
        }
    }

    /// Connections that send `bytes` once and stay open.
    pub fn holders(peers: usize, bytes: impl Fn(usize) -> Bytes + Send + Sync + 'static) -> Self {
        Self::senders(peers, move |peer, round| (round == 0).then(|| bytes(peer)))
    }

    pub fn door(self, door: Door) -> Self {
        Self { door, ..self }
    }

    /// The connections never read, and their sockets take little.
    pub fn deaf(self) -> Self {
        Self { reads: false, buffer: Some(16 << 10), ..self }
    }

    pub fn life(self, life: Duration) -> Self {
        Self { life: Some(life), ..self }
    }

    pub fn most(self, most: u64) -> Self {
        Self { most, ..self }
    }
}

/// What the connections of a flood have seen.
#[derive(Default)]
pub struct Counters {
    /// Bytes sent.
    pub sent: AtomicU64,
    /// Connections opened.
    pub opened: AtomicU64,
    /// Connections that the broker has ended or refused.
    pub ended: AtomicU64,
    /// Answers 00, 05 and 06.
    pub accepted: AtomicU64,
    pub unavailable: AtomicU64,
    pub full: AtomicU64,
}

impl Counters {
    fn add(counter: &AtomicU64, more: usize) {
        counter.fetch_add(more as u64, Ordering::Relaxed);
    }

    fn answers(&self, bytes: &[u8]) {
        let text = String::from_utf8_lossy(bytes);
        for (code, counter) in [("00", &self.accepted), ("05", &self.unavailable), ("06", &self.full)] {
            Self::add(counter, text.matches(&format!(r#""response_code":"{code}""#)).count());
        }
    }
}

impl std::fmt::Display for Counters {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [sent, opened, ended, accepted, unavailable, full] =
            [&self.sent, &self.opened, &self.ended, &self.accepted, &self.unavailable, &self.full]
                .map(|counter| counter.load(Ordering::Relaxed));
        let sent = sent >> 20;
        write!(f, "{sent} MiB on {opened} connections, {ended} ended by the broker; answers: {accepted} × 00, ")?;
        write!(f, "{unavailable} × 05, {full} × 06")
    }
}

/// Opens the connections of all plans, then runs the plans for `time`, and closes the connections.
pub fn run(plans: &[Plan], address: SocketAddr, time: Duration, counters: &Counters) {
    let all_open = Barrier::new(plans.iter().map(|plan| THREADS.min(plan.peers)).sum());
    let all_open = &all_open;
    std::thread::scope(|scope| {
        for plan in plans {
            for thread in 0..THREADS.min(plan.peers) {
                scope.spawn(move || Worker { plan, address, counters, sent: 0 }.run(thread, time, all_open));
            }
        }
    });
}

/// One thread of a plan.
struct Worker<'a> {
    plan: &'a Plan,
    address: SocketAddr,
    counters: &'a Counters,
    /// Bytes that this thread has sent.
    sent: u64,
}

/// One connection.
struct Peer {
    stream: TcpStream,
    opened: Instant,
    round: u64,
    /// The bytes being sent, and how many of them are sent.
    current: Option<(Bytes, usize)>,
    silent: bool,
}

/// A place for a connection: the connection, or the time at which it is opened again.
enum Slot {
    Open(Peer),
    Closed(Instant),
}

/// The result of one turn of a connection.
enum Turn {
    Moved,
    Blocked,
    Ended,
}

impl Worker<'_> {
    fn run(&mut self, thread: usize, time: Duration, all_open: &Barrier) {
        let numbers = (thread..self.plan.peers).step_by(THREADS);
        // The flood begins without the connections that the broker refuses.
        let deadline = Instant::now() + PATIENCE;
        let open = |number: usize| if Instant::now() < deadline { self.open(number) } else { None };
        let mut slots: Vec<(usize, Slot)> =
            numbers.map(|number| (number, open(number).map_or_else(|| self.closed(), Slot::Open))).collect();
        all_open.wait();
        let until = Instant::now() + time;
        let mut buffer = vec![0; 64 << 10];
        while Instant::now() < until {
            let mut moved = false;
            for (number, slot) in &mut slots {
                if Instant::now() >= until {
                    return;
                }
                moved |= self.turn(*number, slot, &mut buffer);
            }
            if !moved {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// One turn of one connection; `false` if it could do nothing.
    fn turn(&mut self, number: usize, slot: &mut Slot, buffer: &mut [u8]) -> bool {
        let peer = match slot {
            Slot::Closed(again) if Instant::now() < *again => return false,
            Slot::Closed(_) => {
                *slot = self.open(number).map_or_else(|| self.closed(), Slot::Open);
                return true;
            }
            Slot::Open(peer) => peer,
        };
        if self.plan.life.is_some_and(|life| peer.opened.elapsed() >= life) {
            *slot = Slot::Closed(Instant::now());
            return true;
        }
        let written = self.write(number, peer);
        let read = if self.plan.reads { self.read(peer, buffer) } else { Turn::Blocked };
        match (written, read) {
            (Turn::Ended, _) | (_, Turn::Ended) => {
                *slot = self.closed();
                true
            }
            (Turn::Blocked, Turn::Blocked) => false,
            _ => true,
        }
    }

    fn closed(&self) -> Slot {
        Counters::add(&self.counters.ended, 1);
        Slot::Closed(Instant::now() + PAUSE)
    }

    fn write(&mut self, number: usize, peer: &mut Peer) -> Turn {
        if peer.current.is_none() && !peer.silent {
            let share = self.plan.most / THREADS as u64;
            let bytes = if self.sent < share { (self.plan.next)(number, peer.round) } else { None };
            peer.silent = bytes.is_none();
            peer.round += 1;
            peer.current = bytes.filter(|bytes| !bytes.is_empty()).map(|bytes| (bytes, 0));
        }
        let Some((bytes, done)) = &mut peer.current else { return Turn::Blocked };
        let end = bytes.len().min(*done + TURN);
        match peer.stream.write(&bytes[*done..end]) {
            Ok(count) => {
                *done += count;
                self.sent += count as u64;
                Counters::add(&self.counters.sent, count);
                if *done == bytes.len() {
                    peer.current = None;
                }
                Turn::Moved
            }
            Err(error) if is_blocked(&error) => Turn::Blocked,
            Err(_) => Turn::Ended,
        }
    }

    fn read(&self, peer: &mut Peer, buffer: &mut [u8]) -> Turn {
        match peer.stream.read(buffer) {
            Ok(0) => Turn::Ended,
            Ok(count) => {
                self.counters.answers(&buffer[..count]);
                Turn::Moved
            }
            Err(error) if is_blocked(&error) => Turn::Blocked,
            Err(_) => Turn::Ended,
        }
    }

    /// Opens a connection; `None` if the broker refuses it.
    fn open(&self, number: usize) -> Option<Peer> {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).ok()?;
        if let Some(bytes) = self.plan.buffer {
            socket.set_recv_buffer_size(bytes).ok()?;
        }
        socket.connect_timeout(&self.address.into(), HANDSHAKE).ok()?;
        let mut stream = TcpStream::from(socket);
        stream.set_nodelay(true).ok()?;
        let target = match self.plan.door {
            Door::Plain => None,
            Door::Envelope => Some("/".to_owned()),
            Door::Topic => Some(format!("/?topic=flood-{number}")),
        };
        if let Some(target) = target {
            upgrade(&mut stream, &target)?;
        }
        stream.set_nonblocking(true).ok()?;
        Counters::add(&self.counters.opened, 1);
        Some(Peer { stream, opened: Instant::now(), round: 0, current: None, silent: false })
    }
}

fn upgrade(stream: &mut TcpStream, target: &str) -> Option<()> {
    let head = Head::new(target).modern().with("Authorization", &basic(super::FLOOD, super::PASSWORD));
    stream.set_read_timeout(Some(HANDSHAKE)).ok()?;
    stream.set_write_timeout(Some(HANDSHAKE)).ok()?;
    stream.write_all(&head.bytes()).ok()?;
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).ok()?;
        answer.push(byte[0]);
    }
    answer.starts_with(b"HTTP/1.1 101 ").then_some(())
}

fn is_blocked(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted)
}
