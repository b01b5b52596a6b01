//! The hub: lock, clock, engine. It gives the engine requests under the core's lock, and carries a turn's outcome out when the lock is released.
//!
//! ```text
//! requests ─► [lock] engine.apply [unlock] ─► TurnOutcome ─► counters, log lines, store ─► flush each touched session, once
//! ```
//!
//! [`Hub::apply_all`] may be called from any thread.
//!
//! Never here: a decision about delivery; a system call or an await under the core's lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tracing::debug;

use super::access::Access;
use super::backpressure::Backpressure;
use super::clock::Clock;
use super::core::Core;
use super::counters::Counters;
use super::engine::{Engine, EngineSettings, NoRoom, Now, TurnOutcome};
use super::failed_logins::FailedLogins;
use super::fatal::Fatal;
use super::ids::Ids;
use super::loops::Loops;
use super::origins::Origins;
use super::proxies::Proxies;
use super::request::Request;
use super::session::{Peer, Profile, Session};
use super::settings::ConnectionLimits;
use super::stopping::Stop;
use super::storage::Storage;
use super::timers::{Hold, Timers};
use super::transport::Transport;
use super::warnings::Warnings;
use wsmb_core::broker::{Broker, EndReason, Event, Settings};
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_core::policy::Policies;

/// The settings that sessions obey; replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// What each connection may cost.
    pub(super) limits: ConnectionLimits,
    /// What holds for each channel.
    pub(super) policies: Policies,
}

impl Options {
    /// The part that the engine obeys.
    pub(super) fn engine(&self) -> EngineSettings {
        EngineSettings { max_queue: self.limits.max_queue, policies: self.policies.clone() }
    }
}

/// What a hub is made of.
pub(super) struct Parts {
    pub(super) core: Arc<Core>,
    pub(super) storage: Storage,
    pub(super) ids: Arc<Ids>,
    pub(super) clock: Arc<Clock>,
    pub(super) fatal: Arc<Fatal>,
    pub(super) loops: Arc<Loops>,
    pub(super) options: Options,
    pub(super) access: Access,
}

/// Joins sessions, core and store. One for a server, shared by all its tasks.
pub(super) struct Hub {
    core: Arc<Core>,
    /// The deadline for which the task of deadlines sleeps, in milliseconds as [`Timestamp`]; the largest value: none.
    armed: AtomicU64,
    /// The core's next deadline is earlier than [`Self::armed`].
    pub(super) deadline_moved: Notify,
    timers: Mutex<Timers>,
    /// The timers' next time is earlier than the one for which their task sleeps.
    pub(super) timer_moved: Notify,
    pub(super) backpressure: Backpressure,
    pub(super) storage: Storage,
    pub(super) ids: Arc<Ids>,
    pub(super) counters: Counters,
    pub(super) clock: Arc<Clock>,
    pub(super) loops: Arc<Loops>,
    options: RwLock<Arc<Options>>,
    access: RwLock<Arc<Access>>,
    pub(super) stop: Stop,
    /// Which part has died of a defect.
    pub(super) fatal: Arc<Fatal>,
    /// A session has ended while the server was going down.
    pub(super) departed: Notify,
    warnings: Warnings,
    pub(super) proxies: Proxies,
    pub(super) origins: Origins,
    pub(super) failed_logins: FailedLogins,
}

impl Hub {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { core, storage, ids, clock, fatal, loops, options, access } = parts;
        Self {
            core,
            armed: AtomicU64::new(u64::MAX),
            deadline_moved: Notify::new(),
            timers: Mutex::new(Timers::new(clock.now())),
            timer_moved: Notify::new(),
            backpressure: Backpressure::default(),
            storage,
            ids,
            counters: Counters::default(),
            clock,
            loops,
            options: RwLock::new(Arc::new(options)),
            access: RwLock::new(Arc::new(access)),
            stop: Stop::default(),
            fatal,
            departed: Notify::new(),
            warnings: Warnings::default(),
            proxies: Proxies::default(),
            origins: Origins::default(),
            failed_logins: FailedLogins::default(),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.core.lock()
    }

    /// Whether a panic has left the core in the middle of a change.
    pub(super) fn is_core_broken(&self) -> bool {
        self.core.is_broken()
    }

    /// The timers of all sessions. Held for short.
    pub(super) fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The time: never goes back.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The wall clock's time, for what clients are told.
    pub(super) fn wall_now(&self) -> Timestamp {
        self.clock.on_the_wall(self.now())
    }

    /// The settings in force.
    pub(super) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who may do what.
    pub(super) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obeys new settings from now on. Sessions that are open keep what their handshake gave them.
    pub(super) fn reconfigure(&self, options: Options, access: Access, settings: Settings) {
        let engine_settings = options.engine();
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        {
            let mut engine = self.engine();
            engine.reconfigure(engine_settings);
            engine.broker_mut().reconfigure(settings);
        }
        self.happened(Event::Tick);
    }

    /// Reads something of the core.
    pub(super) fn with_broker<T>(&self, read: impl FnOnce(&Broker) -> T) -> T {
        self.core.with_broker(read)
    }

    /// Writes down the ids of accepted publications. Blocks; `durably`: also for a power cut.
    pub(super) fn save_ids(&self, durably: bool) {
        self.ids.save(&self.core, &self.clock, durably);
    }

    /// Gives one event that concerns no session to the core.
    pub(super) fn happened(&self, event: Event<'_>) {
        self.apply_from(None, &mut [Some(Request::Core(event))]);
    }

    /// Carries out one request of a session.
    pub(super) fn apply(&self, session: &Arc<Session>, request: Request<'_>) {
        self.apply_from(Some(session), &mut [Some(request)]);
    }

    /// Carries out requests of one session: under one lock, unless so much is queued that it is flushed in between.
    pub(super) fn apply_all(&self, session: &Arc<Session>, requests: &mut [Option<Request<'_>>]) {
        self.apply_from(Some(session), requests);
    }

    fn apply_from(&self, source: Option<&Arc<Session>>, requests: &mut [Option<Request<'_>>]) {
        let mut requests = requests.iter_mut();
        let here = self.loops.here();
        while requests.len() > 0 {
            let outcome = {
                let mut engine = self.engine();
                if source.is_none() {
                    super::defect::strike("core");
                }
                // Under the lock, so that the core's time never goes back.
                let core = self.now();
                let now = Now { core, wall: self.clock.on_the_wall(core), here };
                let mut outcome = engine.apply(now, source, &mut requests);
                // Also under the lock, so that the order between turns is kept.
                self.storage.submit(std::mem::take(&mut outcome.store_commands));
                outcome
            };
            self.carry_out(outcome);
        }
    }

    /// Carries out what a turn leaves to be done. The core's lock is released.
    fn carry_out(&self, outcome: TurnOutcome) {
        let TurnOutcome { store_commands: _, questions, ended, refused, refusals, notes, deadline, mut sealed } =
            outcome;
        if deadline.is_some_and(|deadline| deadline.0 < self.armed.load(Ordering::Acquire)) {
            self.deadline_moved.notify_one();
        }
        Counters::add(&self.counters.deliveries, sealed.deliveries);
        if refusals > 0 {
            Counters::add(&self.counters.refused, refusals);
        }
        for (session, reason) in &ended {
            self.note_ended(session, *reason);
        }
        for (session, refusal) in &refused {
            self.warnings.refused(session, *refusal);
        }
        notes.iter().for_each(|note| self.warnings.note(note));
        let unasked: Vec<_> = questions.iter().filter(|session| !self.storage.ask(session)).collect();
        self.storage.hand_over();
        self.backpressure.watch(self.storage.queued_bytes());
        self.loops.flush(&sealed.touched);
        // Not under the lock: this may be the last that holds a session, and then its socket is closed.
        sealed.touched.clear();
        if sealed.holds_memory() {
            self.engine().reuse(sealed);
        }
        for session in unasked {
            // Too many wait for the store's word: it was well a moment ago.
            self.apply(session, Request::PingAnswer(true));
        }
    }

    fn note_ended(&self, session: &Session, reason: EndReason) {
        match reason {
            EndReason::Slow => {
                Counters::add(&self.counters.slow, 1);
                self.warnings.slow(session);
            }
            EndReason::Unconfirmed => {
                Counters::add(&self.counters.unconfirmed, 1);
                self.warnings.unconfirmed(session);
            }
            EndReason::Replaced => {
                Counters::add(&self.counters.replaced, 1);
                debug!(connection = session.id.0, "ended: replaced by a newer connection of the same name");
            }
        }
    }

    /// The core's next deadline, for which the caller is going to sleep. [`Self::deadline_moved`] is notified if an earlier one comes up.
    pub(super) fn arm(&self) -> Option<Timestamp> {
        let engine = self.engine();
        let deadline = engine.broker().next_deadline();
        self.armed.store(deadline.map_or(u64::MAX, |deadline| deadline.0), Ordering::Release);
        deadline
    }

    /// Makes a session of a connection whose credentials are good, or gives its transport back. `home`: the loop that serves it.
    pub(super) fn establish(
        &self,
        transport: Transport,
        mut profile: Profile,
        home: u16,
    ) -> Result<Arc<Session>, (Transport, NoRoom)> {
        let now = self.now();
        let max = self.options().limits.max_connections;
        let session = {
            let mut engine = self.engine();
            super::defect::strike("register");
            if let Some(no_room) = engine.no_room(max) {
                // Released first: the socket is closed by the caller, not under the lock.
                return Err((transport, no_room));
            }
            if let Some(known) = profile.topic.as_ref().and_then(|topic| engine.broker().known_channel(topic)) {
                profile.topic = Some(known);
            }
            engine.register(|id| Arc::new(Session::new(id, profile, transport, home, now)))
        };
        Counters::add(&self.counters.connected, 1);
        Ok(session)
    }

    /// A session's task has ended: the core is told, unless it knows, and nothing is addressed to the session any more.
    pub(super) fn depart(&self, session: &Arc<Session>, took_only: bool) {
        self.apply(session, Request::Departed { took_only });
        Counters::add(&self.counters.disconnected, 1);
        debug!(connection = session.id.0, took_only, "disconnected");
        if self.stop.has_begun() {
            self.departed.notify_one();
        }
    }

    /// The client has finished sending. True if it waits for answers: the core knows it no more as a receiver, and the session stays for them.
    pub(super) fn finish(&self, session: &Arc<Session>, took_only: bool) -> bool {
        self.apply(session, Request::Finished { took_only });
        let stays = !session.is_forgotten() && session.pending.is_listening();
        if stays {
            self.hold(Hold::Answer, session.id);
        }
        stays
    }

    /// Has a legacy session's queue released, or its answer given up, when it has been held as long as it may be.
    pub(super) fn hold(&self, hold: Hold, connection: ConnectionId) {
        let now = self.now();
        if self.timers().hold(now, hold, connection) {
            self.timer_moved.notify_one();
        }
    }

    /// Has a session asked what is due, at `due`.
    pub(super) fn look(&self, due: Timestamp, connection: ConnectionId) {
        if self.timers().look(due, connection) {
            self.timer_moved.notify_one();
        }
    }

    /// Counts and logs that a client asks for a channel that its user may not use so.
    pub(super) fn note_forbidden(&self, user: &str, peer: &Peer, channel: &ChannelName) {
        Counters::add(&self.counters.forbidden, 1);
        self.warnings.forbidden(user, peer, channel);
    }

    /// Logs that a user publishes or connects more often than its rate allows.
    pub(super) fn note_above_rate(&self, user: &str, peer: &Peer) {
        self.warnings.above_rate(user, peer);
    }

    /// The sessions with these ids that have not ended.
    pub(super) fn find(&self, ids: &[ConnectionId]) -> Vec<Arc<Session>> {
        if ids.is_empty() {
            return Vec::new();
        }
        let engine = self.engine();
        ids.iter().filter_map(|id| engine.registry().get(*id).cloned()).collect()
    }

    /// No session is made any more. Returns those that there are.
    pub(super) fn close(&self) -> Vec<Arc<Session>> {
        let mut engine = self.engine();
        engine.close();
        engine.registry().iter().cloned().collect()
    }

    /// The sessions that there are.
    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.engine().registry().iter().cloned().collect()
    }

    /// How many sessions have not ended.
    pub(super) fn open_sessions(&self) -> usize {
        self.engine().registry().len()
    }

    /// Ends what has not ended by itself.
    pub(super) fn abort_all(&self) {
        for session in self.close() {
            session.queue().abort();
            self.apply(&session, Request::Aborted);
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("counters", &self.counters).finish_non_exhaustive()
    }
}
