//! The state that all clients of a run share, and the functions that each client needs.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::plan::Route;
use super::record::{Event, Recorder, now};
use crate::process;

/// The stage of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// Clients send and receive; faults are injected.
    Running,
    /// No more faults. Senders finish their pending publications.
    Settling,
    /// Only the drain receivers are connected.
    Draining,
    /// All clients end.
    Over,
}

/// Shared by all threads of a run.
pub struct Shared {
    stage: Mutex<Stage>,
    /// The time of the last received message, in microseconds of CLOCK_MONOTONIC.
    last_received: AtomicU64,
    /// Whether receivers also end connections in orderly ways, not only with resets.
    pub orderly: bool,
    /// Whether manual receivers also reject messages.
    pub reject: bool,
    /// The address of each route, by the route's name.
    pub routes: BTreeMap<&'static str, SocketAddr>,
}

impl Shared {
    pub fn new(routes: BTreeMap<&'static str, SocketAddr>, orderly: bool, reject: bool) -> Self {
        Self { stage: Mutex::new(Stage::Running), last_received: AtomicU64::new(now()), orderly, reject, routes }
    }

    pub fn stage(&self) -> Stage {
        *process::lock(&self.stage)
    }

    pub fn set(&self, stage: Stage) {
        *process::lock(&self.stage) = stage;
    }

    /// Returns the time since the last received message.
    pub fn idle_time(&self) -> Duration {
        Duration::from_micros(now().saturating_sub(self.last_received.load(Ordering::SeqCst)))
    }
}

/// One client, with its history file.
pub struct Client<'a> {
    pub shared: &'a Shared,
    recorder: Recorder,
}

impl<'a> Client<'a> {
    /// Creates a client with the history file `name.jsonl` in `directory`.
    ///
    /// # Errors
    /// The file cannot be created.
    pub fn new(shared: &'a Shared, directory: &Path, name: &str) -> Result<Self, String> {
        let recorder = Recorder::create(directory, name).map_err(|error| format!("{name}.jsonl: {error}"))?;
        Ok(Self { shared, recorder })
    }

    pub fn stage(&self) -> Stage {
        self.shared.stage()
    }

    /// Returns the address of a route, or the broker's address if the run does not have the route.
    pub fn address(&self, route: Route) -> SocketAddr {
        let routes = &self.shared.routes;
        routes.get(route.name()).copied().unwrap_or_else(|| routes[Route::Direct.name()])
    }

    /// Appends an event to the history file.
    pub fn note(&self, event: &Event) {
        self.recorder.note(event);
    }

    /// Records the time of a received message, for [`Shared::idle_time`].
    pub fn mark_received(&self) {
        self.shared.last_received.store(now(), Ordering::SeqCst);
    }

    /// Sleeps, but not longer than until the run is over.
    pub fn sleep(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end && self.stage() < Stage::Over {
            std::thread::sleep((end - Instant::now()).min(Duration::from_millis(50)));
        }
    }
}
