//! What all clients of a run share: the stage of the run, the ways to the broker, and how control frames are answered.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Route;
use super::record::{Event, Recorder, now};
use super::socket::{PING, PONG, Socket};

/// How far a run is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Everybody works, the nemesis too.
    Running,
    /// The nemesis is done; senders bring what they have begun to its end.
    Settling,
    /// The receivers have gone; patient ones take what waits.
    Draining,
    /// All is over.
    Over,
}

/// Shared by all threads of a run.
pub struct Shared {
    stage: AtomicU8,
    /// When a receiver last got something, in microseconds.
    last_got: AtomicU64,
    /// Receivers leave in orderly ways, too, and not with resets only.
    pub orderly: bool,
    /// Receivers by hand reject, too.
    pub reject: bool,
    /// Where each way to the broker begins.
    pub routes: BTreeMap<&'static str, SocketAddr>,
}

impl Shared {
    /// A run that begins.
    pub fn new(routes: BTreeMap<&'static str, SocketAddr>, orderly: bool, reject: bool) -> Self {
        Self { stage: AtomicU8::new(0), last_got: AtomicU64::new(now()), orderly, reject, routes }
    }

    /// How far the run is.
    pub fn stage(&self) -> Stage {
        match self.stage.load(Ordering::SeqCst) {
            0 => Stage::Running,
            1 => Stage::Settling,
            2 => Stage::Draining,
            _ => Stage::Over,
        }
    }

    /// Moves the run on.
    pub fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::SeqCst);
    }

    /// How long no receiver has got anything.
    pub fn quiet(&self) -> Duration {
        Duration::from_micros(now().saturating_sub(self.last_got.load(Ordering::SeqCst)))
    }
}

/// One client: its file and what it shares with the others.
pub struct Client<'a> {
    shared: &'a Shared,
    recorder: Recorder,
}

impl<'a> Client<'a> {
    /// A client that keeps its file in `directory`.
    ///
    /// # Errors
    /// The file cannot be made.
    pub fn new(shared: &'a Shared, directory: &Path, name: &str) -> std::io::Result<Self> {
        Ok(Self { shared, recorder: Recorder::create(directory, name)? })
    }

    /// How far the run is.
    pub fn stage(&self) -> Stage {
        self.shared.stage()
    }

    /// Whether receivers leave in orderly ways, too.
    pub fn ends_in_order(&self) -> bool {
        self.shared.orderly
    }

    /// Whether receivers by hand reject, too.
    pub fn rejects(&self) -> bool {
        self.shared.reject
    }

    /// Where to connect; a way that this run does not have is the direct one.
    pub fn address(&self, route: Route) -> SocketAddr {
        let routes = &self.shared.routes;
        routes.get(route.name()).copied().unwrap_or_else(|| routes[Route::Direct.name()])
    }

    /// Writes a line.
    pub fn note(&self, event: &Event) {
        self.recorder.note(event);
    }

    /// Tells the run that something was received.
    pub fn got_something(&self) {
        self.shared.last_got.store(now(), Ordering::SeqCst);
    }

    /// Does nothing for a while, or until the run is over.
    pub fn rest(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.stage() < Stage::Over {
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(50)));
        }
    }

    /// Answers a ping of somebody who receives nothing.
    pub fn control(&self, socket: &mut Socket, opcode: u8, payload: &[u8]) {
        if opcode == PING {
            let _ = socket.send(PONG, payload);
        }
    }
}
