//! The hub: lock, clock, engine. It gives requests to the engine under the core's lock, and carries out the outcome of the turn after it has released the lock.
//!
//! ```text
//! requests ─► [lock] engine.apply [unlock] ─► TurnOutcome ─► counters, log lines, store ─► flush each touched session, once
//! ```
//!
//! Any thread may call [`Hub::apply_all`].
//!
//! Never here: a decision about delivery; a system call or an await under the core's lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use tokio::sync::Notify;
use tracing::debug;

use super::access::Access;
use super::backpressure::Backpressure;
#[cfg(feature = "http")]
use super::callers::Callers;
use super::clock::Clock;
use super::core::Core;
use super::counters::Counters;
use super::engine::{Engine, EngineSettings, NoRoom, Now, TurnOutcome};
use super::expiries::Expiries;
use super::failed_logins::FailedLogins;
use super::fatal::Fatal;
#[cfg(feature = "http")]
use super::http::{Mailboxes, Requests};
use super::ids::Ids;
use super::loops::Loops;
use super::memory::Budget;
use super::origins::Origins;
use super::proxies::Proxies;
use super::request::Request;
use super::session::{Outlet, Peer, Profile, Session};
use super::settings::ConnectionLimits;
use super::stopping::Stop;
use super::storage::Storage;
use super::timers::{Hold, Timers};
use super::turns::TurnCause;
use super::warnings::Warnings;
use wsmb_core::broker::{Broker, CallerId, EndReason, Event, Note, Reply, Settings, StoreEffect};
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_core::policy::Policies;

/// The settings of sessions; a reload replaces them as a whole.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// Limits for connections.
    pub(super) limits: ConnectionLimits,
    /// The policy of each channel.
    pub(super) policies: Policies,
}

impl Options {
    pub(super) fn engine(&self) -> EngineSettings {
        EngineSettings { max_queue: self.limits.max_queue, policies: self.policies.clone() }
    }
}

/// The arguments of [`Hub::new`].
pub(super) struct Parts {
    pub(super) core: Arc<Core>,
    pub(super) storage: Storage,
    pub(super) ids: Arc<Ids>,
    pub(super) clock: Arc<Clock>,
    pub(super) fatal: Arc<Fatal>,
    pub(super) loops: Arc<Loops>,
    pub(super) options: Options,
    pub(super) access: Access,
    /// The bytes that the program may use.
    pub(super) budget: usize,
}

/// The load that requests have caused. Their session waits for it before it is read on.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct TurnLoad {
    /// A message was passed to the store.
    pub(super) stores: bool,
    /// Frames were queued for so many sessions that they are flushed in slices.
    pub(super) fans_out: bool,
}

/// Connects sessions, core and store. A server has one, which all its tasks share.
pub(super) struct Hub {
    core: Arc<Core>,
    /// The deadline until which the task of deadlines sleeps, in milliseconds as [`Timestamp`]; `u64::MAX`: none.
    armed: AtomicU64,
    /// The core's next deadline is earlier than [`Self::armed`].
    pub(super) deadline_moved: Notify,
    timers: Mutex<Timers>,
    /// The next timer is earlier than the time until which the timers' task sleeps.
    pub(super) timer_moved: Notify,
    pub(super) backpressure: Backpressure,
    pub(super) memory: Budget,
    pub(super) storage: Storage,
    #[cfg(feature = "http")]
    pub(super) callers: Callers,
    #[cfg(feature = "http")]
    pub(super) requests: Requests,
    #[cfg(feature = "http")]
    pub(super) mailboxes: Mailboxes,
    pub(super) ids: Arc<Ids>,
    pub(super) counters: Counters,
    pub(super) clock: Arc<Clock>,
    pub(super) loops: Arc<Loops>,
    options: RwLock<Arc<Options>>,
    access: RwLock<Arc<Access>>,
    pub(super) stop: Stop,
    /// The part that has died of a defect, if any.
    pub(super) fatal: Arc<Fatal>,
    /// A session has ended while the server was going down.
    pub(super) departed: Notify,
    warnings: Warnings,
    pub(super) proxies: Proxies,
    pub(super) origins: Origins,
    pub(super) failed_logins: FailedLogins,
    pub(super) expiries: Expiries,
}

impl Hub {
    pub(super) fn new(parts: Parts) -> Self {
        let Parts { core, storage, ids, clock, fatal, loops, options, access, budget } = parts;
        Self {
            core,
            armed: AtomicU64::new(u64::MAX),
            deadline_moved: Notify::new(),
            timers: Mutex::new(Timers::new(clock.now())),
            timer_moved: Notify::new(),
            backpressure: Backpressure::new(budget),
            memory: Budget::new(budget),
            storage,
            #[cfg(feature = "http")]
            callers: Callers::new(clock.now()),
            #[cfg(feature = "http")]
            requests: Requests::default(),
            #[cfg(feature = "http")]
            mailboxes: Mailboxes::default(),
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
            expiries: Expiries::default(),
        }
    }

    fn engine(&self) -> MutexGuard<'_, Engine> {
        self.core.lock()
    }

    /// Whether a panic has interrupted a change of the core.
    pub(super) fn is_core_broken(&self) -> bool {
        self.core.is_broken()
    }

    /// Locks the timers of all sessions. The lock must be held only briefly.
    pub(super) fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The core's time, which never goes back.
    pub(super) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The wall clock's time, for answers to clients.
    pub(super) fn wall_now(&self) -> Timestamp {
        self.clock.on_the_wall(self.now())
    }

    /// The settings in force.
    pub(super) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The credentials and permissions in force.
    pub(super) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the settings. Open sessions keep their profiles.
    pub(super) fn reconfigure(&self, options: Options, access: Access, settings: Settings) {
        let engine_settings = options.engine();
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        {
            let mut engine = self.engine();
            engine.reconfigure(engine_settings);
            engine.broker_mut().reconfigure(settings);
        }
        self.handle_event(Event::Tick);
    }

    /// Returns what `read` returns for the broker, under the core's lock.
    pub(super) fn with_broker<T>(&self, read: impl FnOnce(&Broker) -> T) -> T {
        self.core.with_broker(read)
    }

    /// Writes the ids of accepted publications to their file. Blocks. `durably`: so that they survive a power cut.
    pub(super) fn save_ids(&self, durably: bool) {
        self.ids.save(&self.core, &self.clock, durably);
    }

    /// Gives the core an event that concerns no session.
    pub(super) fn handle_event(&self, event: Event<'_>) {
        let cause = match event {
            Event::Store(_) => TurnCause::Store,
            Event::Tick => TurnCause::Deadline,
            Event::Purge { .. } | Event::Stopping => TurnCause::Administrator,
            _ => TurnCause::Client,
        };
        self.loops.turns.measure(cause, || self.apply_from(None, &mut [Some(Request::Core(Box::new(event)))]));
    }

    pub(super) fn apply(&self, session: &Arc<Session>, request: Request<'_>) {
        self.loops.turns.measure(TurnCause::Client, || self.apply_from(Some(session), &mut [Some(request)]));
    }

    /// Carries out requests of one session. Takes the lock once, unless the outbox gets full and must be flushed in between.
    /// Returns the load that the requests have caused. The caller measures the turn.
    pub(super) fn apply_all(&self, session: &Arc<Session>, requests: &mut [Option<Request<'_>>]) -> TurnLoad {
        self.apply_from(Some(session), requests)
    }

    fn apply_from(&self, source: Option<&Arc<Session>>, requests: &mut [Option<Request<'_>>]) -> TurnLoad {
        let mut requests = requests.iter_mut();
        let here = self.loops.here();
        let mut load = TurnLoad::default();
        while requests.len() > 0 {
            let outcome = {
                let mut engine = self.engine();
                if source.is_none() {
                    super::defect::strike("core");
                }
                // Under the lock, so that the core's time never goes back.
                let core = self.now();
                let now = Now { core, wall: self.clock.on_the_wall(core), here, memory: self.memory.measure() };
                let mut outcome = engine.apply(now, source, &mut requests);
                load.stores |= outcome.store_commands.iter().any(|command| matches!(command, StoreEffect::Append(_)));
                // Under the lock, so that commands keep the order of turns.
                self.storage.submit(std::mem::take(&mut outcome.store_commands));
                outcome
            };
            load.fans_out |= self.carry_out(outcome);
        }
        load
    }

    /// Carries out a turn's outcome. Must not be called under the core's lock. Returns true if some sessions will be flushed later.
    fn carry_out(&self, outcome: TurnOutcome) -> bool {
        let TurnOutcome {
            store_commands: _,
            questions,
            ended,
            refused,
            replies,
            refusals,
            notes,
            deadline,
            mut sealed,
        } = outcome;
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
        self.note_for_http(replies, &notes);
        notes.iter().for_each(|note| self.warnings.note(note));
        let unchecked: Vec<_> =
            questions.iter().filter(|session| !self.storage.request_health_check(session)).collect();
        self.storage.hand_over();
        self.backpressure.watch(self.storage.queued_bytes());
        let fans_out = self.loops.flush(&sealed.touched);
        // Not under the lock: dropping the last reference to a session closes its socket.
        sealed.touched.clear();
        if sealed.holds_memory() {
            self.engine().reuse(sealed);
        }
        for session in unchecked {
            // Too many sessions wait for the store's answer, and its last report was good.
            self.apply(session, Request::PingAnswer(true));
        }
        fans_out
    }

    /// Passes replies to their HTTP requests, and notes to receivers without a socket.
    #[cfg(feature = "http")]
    fn note_for_http(&self, replies: Vec<(CallerId, Reply)>, notes: &[Note]) {
        replies.into_iter().for_each(|(caller, reply)| self.callers.reply(caller, reply));
        notes.iter().for_each(|note| self.note_revoked(note));
    }

    /// Without HTTP there are no callers.
    #[cfg(not(feature = "http"))]
    fn note_for_http(&self, _replies: Vec<(CallerId, Reply)>, _notes: &[Note]) {}

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

    /// Returns the core's next deadline, until which the caller will sleep. An earlier deadline notifies [`Self::deadline_moved`].
    pub(super) fn arm(&self) -> Option<Timestamp> {
        let engine = self.engine();
        let deadline = engine.broker().next_deadline();
        self.armed.store(deadline.map_or(u64::MAX, |deadline| deadline.0), Ordering::Release);
        deadline
    }

    /// Creates the session of a connection whose credentials are valid. `home`: the loop that serves it.
    ///
    /// # Errors
    /// No session can be created; returns the outlet.
    pub(super) fn establish(
        &self,
        outlet: Outlet,
        mut profile: Profile,
        home: u16,
    ) -> Result<Arc<Session>, (Outlet, NoRoom)> {
        let now = self.now();
        let max = self.options().limits.max_connections;
        let session = {
            let mut engine = self.engine();
            super::defect::strike("register");
            let is_short = self.memory.is_nearly_used();
            let no_room = engine.no_room(profile.user(), max).or(is_short.then_some(NoRoom::Memory));
            if let Some(no_room) = no_room {
                // The caller closes the socket, after the lock is released.
                return Err((outlet, no_room));
            }
            if let Some(known) = profile.topic.as_ref().and_then(|topic| engine.broker().known_channel(topic)) {
                profile.topic = Some(known);
            }
            engine.register(|id| Arc::new(Session::new(id, profile, outlet, home, now)))
        };
        self.expiries.watch(&session);
        Counters::add(&self.counters.connected, 1);
        Ok(session)
    }

    /// Removes a session whose task has ended, and reports the end to the core unless that was done already.
    pub(super) fn depart(&self, session: &Arc<Session>, took_only: bool) {
        self.apply(session, Request::Departed { took_only });
        self.expiries.forget(session);
        Counters::add(&self.counters.disconnected, 1);
        debug!(connection = session.id.0, took_only, "disconnected");
        if self.stop.has_begun() {
            self.departed.notify_one();
        }
    }

    /// The client has finished sending. Returns whether it waits for answers: then the session stays open for them, but receives no messages.
    pub(super) fn finish(&self, session: &Arc<Session>, took_only: bool) -> bool {
        self.apply(session, Request::Finished { took_only });
        let stays = !session.is_forgotten() && session.pending.is_listening();
        if stays {
            self.hold(Hold::Answer, session.id);
        }
        stays
    }

    /// Starts the timer of a hold. At its end the session's queue is released, or its answer is given up.
    pub(super) fn hold(&self, hold: Hold, connection: ConnectionId) {
        let now = self.now();
        if self.timers().hold(now, hold, connection) {
            self.timer_moved.notify_one();
        }
    }

    /// Schedules a check of a session at `due`.
    pub(super) fn schedule_check(&self, due: Timestamp, connection: ConnectionId) {
        if self.timers().schedule_check(due, connection) {
            self.timer_moved.notify_one();
        }
    }

    /// Counts and logs a request of a client for a channel that its user has no permission for.
    pub(super) fn note_forbidden(&self, user: &str, peer: &Peer, channel: &ChannelName) {
        Counters::add(&self.counters.forbidden, 1);
        self.warnings.forbidden(user, peer, channel);
    }

    /// Logs that a user publishes or connects more often than its rate allows.
    pub(super) fn note_above_rate(&self, user: &str, peer: &Peer) {
        self.warnings.above_rate(user, peer);
    }

    /// Logs that a session was ended because it held most of the memory.
    pub(super) fn note_over_memory(&self, session: &Session, held: usize) {
        self.warnings.over_memory(session, held);
    }

    /// Returns the sessions with these ids that have not ended.
    pub(super) fn find(&self, ids: &[ConnectionId]) -> Vec<Arc<Session>> {
        if ids.is_empty() {
            return Vec::new();
        }
        let engine = self.engine();
        ids.iter().filter_map(|id| engine.registry().get(*id).cloned()).collect()
    }

    /// Frees the memory that the core's tables keep for removed entries.
    pub(super) fn shrink(&self) {
        self.engine().shrink();
    }

    /// Stops the creation of sessions. Returns all sessions.
    pub(super) fn close(&self) -> Vec<Arc<Session>> {
        let mut engine = self.engine();
        engine.close();
        engine.registry().iter().cloned().collect()
    }

    pub(super) fn sessions(&self) -> Vec<Arc<Session>> {
        self.engine().registry().iter().cloned().collect()
    }

    /// The number of sessions that have not ended.
    pub(super) fn open_sessions(&self) -> usize {
        self.engine().registry().len()
    }

    /// Aborts all sessions that have not ended.
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
