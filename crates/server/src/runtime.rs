//! The hub that joins everything: it owns the core, gives it what happened, and carries out what it wants.
//!
//! ```text
//! steps of a burst ─► [lock] core.handle … effects → queues [unlock] ─► flush each touched connection, once
//! ```
//!
//! Under the core's lock there is only memory: no system call, no await, no socket closed. The order of a connection's queue is the
//! order of the core's decisions, because both happen under that lock. [`Hub::dispatch`] may be called from any thread.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::Notify;
use tracing::{debug, warn};

use super::access::Access;
use super::carry::{Core, Turn};
use super::clock::Clock;
use super::commands::Step;
use super::connection::{Closing, Connection, OnTime, Peer, Profile};
use super::counters::{Counters, Seldom};
use super::failed_logins::FailedLogins;
use super::fatal::Fatal;
use super::gate::Gate;
use super::heartbeat::{Hold, Timers};
use super::ids::Ids;
use super::notes::NoteWarnings;
use super::origins::Origins;
use super::proxies::Proxies;
use super::settings::ConnectionLimits;
use super::stop::Stop;
use super::storage::Storage;
use crate::limits;
use wsmb_core::broker::{Broker, Event, ForgottenIds, FreshIds, Note, Publish, Refusal, Settings};
use wsmb_core::message::{ChannelName, ConnectionId, Timestamp};
use wsmb_core::policy::Policies;

/// The settings that sessions obey; replaced as a whole by a reload.
#[derive(Clone, Debug)]
pub(super) struct Options {
    /// What each connection may cost.
    pub(super) limits: ConnectionLimits,
    /// What holds for each channel. A refusal tells a client the bound.
    pub(super) policies: Policies,
}

/// Why a connection was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// There are as many as there may be.
    Crowded,
    /// The server is going down.
    GoingDown,
}

/// Joins sockets, core and store. One for a server, shared by all its tasks.
pub(super) struct Hub {
    core: Mutex<Core>,
    /// The core's next deadline has come nearer.
    pub(super) nearer: Notify,
    timers: Mutex<Timers>,
    /// The timers' next time has come nearer.
    pub(super) sooner: Notify,
    pub(super) gate: Gate,
    pub(super) storage: Storage,
    pub(super) ids: Ids,
    pub(super) counters: Counters,
    pub(super) clock: Clock,
    options: RwLock<Arc<Options>>,
    access: RwLock<Arc<Access>>,
    pub(super) stop: Stop,
    /// What has died of a defect.
    pub(super) fatal: Fatal,
    /// A connection has ended while the server was going down.
    pub(super) departed: Notify,
    slow_warning: Seldom,
    unconfirmed_warning: Seldom,
    refused_warning: Seldom,
    forbidden_warning: Seldom,
    pub(super) proxies: Proxies,
    pub(super) origins: Origins,
    pub(super) failed_logins: FailedLogins,
    note_warnings: NoteWarnings,
}

impl Hub {
    pub(super) fn new(
        broker: Broker,
        (storage, ids): (Storage, Ids),
        clock: Clock,
        options: Options,
        access: Access,
    ) -> Self {
        Self {
            core: Mutex::new(Core::new(broker)),
            nearer: Notify::new(),
            timers: Mutex::new(Timers::new(clock.now())),
            sooner: Notify::new(),
            gate: Gate::default(),
            storage,
            ids,
            counters: Counters::default(),
            clock,
            options: RwLock::new(Arc::new(options)),
            access: RwLock::new(Arc::new(access)),
            stop: Stop::default(),
            fatal: Fatal::default(),
            departed: Notify::new(),
            slow_warning: Seldom::default(),
            unconfirmed_warning: Seldom::default(),
            refused_warning: Seldom::default(),
            forbidden_warning: Seldom::default(),
            proxies: Proxies::default(),
            origins: Origins::default(),
            failed_logins: FailedLogins::default(),
            note_warnings: NoteWarnings::default(),
        }
    }

    fn core(&self) -> MutexGuard<'_, Core> {
        self.core.lock().unwrap_or_else(|poisoned| self.fatal.core_is_broken(poisoned))
    }

    /// Whether a panic has left the core half way.
    pub(super) fn is_core_broken(&self) -> bool {
        self.core.is_poisoned()
    }

    fn timers(&self) -> MutexGuard<'_, Timers> {
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

    /// What of the configuration is in force.
    pub(super) fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Who may do what.
    pub(super) fn access(&self) -> Arc<Access> {
        self.access.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Obeys a new configuration from now on. Connections that are open keep what their handshake gave them.
    pub(super) fn reconfigure(&self, options: Options, access: Access, settings: Settings) {
        *self.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
        *self.access.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(access);
        self.core().broker.reconfigure(settings);
        self.happened(Event::Tick);
    }

    /// Reads something of the core.
    pub(super) fn with_broker<T>(&self, read: impl FnOnce(&Broker) -> T) -> T {
        read(&self.core().broker)
    }

    /// The ids that the core has accepted since this was asked last, those that it has forgotten, and how many it knows.
    pub(super) fn take_fresh_ids(&self) -> (FreshIds, Option<ForgottenIds>, usize) {
        let mut core = self.core();
        let broker = &mut core.broker;
        (broker.take_fresh_ids(), broker.take_forgotten_ids(), broker.accepted_ids_count())
    }

    /// Gives one event to the core.
    pub(super) fn happened(&self, event: Event<'_>) {
        self.dispatch(None, Step::Event(event));
    }

    /// Carries out one step. `source` is the connection that it comes from.
    pub(super) fn dispatch(&self, source: Option<&Arc<Connection>>, step: Step<'_>) {
        let mut burst = Burst::begin(self, source);
        burst.carry(step);
        burst.end();
    }

    /// Ends a turn: releases the core's lock, and flushes what the turn has queued.
    fn after_turn(&self, mut core: MutexGuard<'_, Core>, turn: &mut Turn<'_>) {
        let sealed = core.seal(turn);
        let nearer = core.arm();
        drop(core);
        if nearer {
            self.nearer.notify_one();
        }
        self.storage.kick();
        self.gate.watch(self.storage.queued_bytes());
        for connection in &sealed.touched {
            connection.flush();
        }
        if sealed.holds_memory() {
            self.core().reuse(sealed);
        }
    }

    /// Registers a connection whose credentials are good, or gives its socket back.
    pub(super) fn establish(
        &self,
        stream: TcpStream,
        mut profile: Profile,
    ) -> Result<Arc<Connection>, (TcpStream, NoRoom)> {
        let now = self.now();
        let max = self.options().limits.max_connections;
        let connection = {
            let mut core = self.core();
            if let Some(no_room) = core.no_room(max) {
                // Released first: the socket is closed by the caller, not under the lock.
                return Err((stream, no_room));
            }
            if let Some(known) = profile.topic.as_ref().and_then(|topic| core.broker.known_channel(topic)) {
                profile.topic = Some(known);
            }
            core.register(|id| Arc::new(Connection::new(id, profile, stream, now)))
        };
        Counters::add(&self.counters.connected, 1);
        Ok(connection)
    }

    /// A connection has ended: the core is told, unless it knows, and nothing is addressed to it any more.
    pub(super) fn depart(&self, connection: &Arc<Connection>, took_only: bool) {
        let mut core = self.core();
        let mut turn = Turn::new(self);
        core.forget(connection, took_only, &mut turn);
        core.unregister(connection.id);
        self.after_turn(core, &mut turn);
        Counters::add(&self.counters.disconnected, 1);
        debug!(connection = connection.id.0, took_only, "disconnected");
        if self.stop.has_begun() {
            self.departed.notify_one();
        }
    }

    /// The client has finished sending. True if it waits for answers: the core knows it no more as a receiver, and the connection stays for them.
    pub(super) fn finish(&self, connection: &Arc<Connection>, took_only: bool) -> bool {
        let mut core = self.core();
        let mut turn = Turn::new(self);
        let stays = core.finish(connection, took_only, &mut turn);
        self.after_turn(core, &mut turn);
        if stays {
            self.hold(Hold::Answer, connection.id);
        }
        stays
    }

    /// Has a legacy connection's queue released, or its answer given up, when it has been held as long as it may be.
    pub(super) fn hold(&self, hold: Hold, connection: ConnectionId) {
        let now = self.now();
        if self.timers().hold(now, hold, connection) {
            self.sooner.notify_one();
        }
    }

    /// Has a connection asked what is due, at `due`.
    pub(super) fn look(&self, due: Timestamp, connection: ConnectionId) {
        if self.timers().look(due, connection) {
            self.sooner.notify_one();
        }
    }

    /// Logs that a connection was slow, unless that is said all the time.
    pub(super) fn note_slow(&self, connection: &Connection) {
        Counters::add(&self.counters.slow, 1);
        if let Some(withheld) = self.slow_warning.now() {
            let Profile { user, peer, .. } = &connection.profile;
            warn!(connection = connection.id.0, %user, %peer, withheld, "ended a slow receiver: it does not take what it is sent");
        }
    }

    /// Logs that a receiver has confirmed nothing for too long, unless that is said all the time.
    pub(super) fn note_unconfirmed(&self, connection: &Connection) {
        Counters::add(&self.counters.unconfirmed, 1);
        if let Some(withheld) = self.unconfirmed_warning.now() {
            let Profile { user, peer, .. } = &connection.profile;
            warn!(
                connection = connection.id.0, %user, %peer, withheld,
                "ended a receiver that has confirmed nothing for server.confirm_timeout; its messages go to other receivers"
            );
        }
    }

    /// Logs what the core wants the administrator to know.
    pub(super) fn note(&self, note: &Note) {
        self.note_warnings.log(note);
    }

    /// Logs that a topic connection's message was refused, unless that is said all the time.
    pub(super) fn note_refused(&self, connection: &Connection, refusal: Refusal) {
        if let Some(withheld) = self.refused_warning.now() {
            let Profile { user, peer, topic, .. } = &connection.profile;
            let channel = topic.as_ref().map_or("", ChannelName::as_str);
            warn!(
                connection = connection.id.0, %user, %peer, channel, ?refusal, withheld,
                "a message was not accepted; its sender's connection is ended"
            );
        }
    }

    /// Logs that a topic connection sends what its user may not send, unless that is said all the time.
    pub(super) fn note_forbidden(&self, user: &str, peer: &Peer, channel: &ChannelName) {
        Counters::add(&self.counters.forbidden, 1);
        if let Some(withheld) = self.forbidden_warning.now() {
            warn!(
                user, %peer, channel = channel.as_str(), withheld,
                "refused a topic connection: its user may not use the channel so; see [[permission]]"
            );
        }
    }

    /// The task that gives the core its ticks.
    pub(super) async fn run_deadlines(self: Arc<Self>) {
        loop {
            let deadline = self.core().rearm();
            let Some(deadline) = deadline else {
                self.nearer.notified().await;
                continue;
            };
            // At least a millisecond, the clock's grain, so that nothing the core asks for makes this loop spin.
            let wait = deadline.since(self.now()).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.happened(Event::Tick),
                () = self.nearer.notified() => {}
            }
        }
    }

    /// The task that times heartbeats, holds and ends of all connections.
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.timers().next();
            let Some(next) = next else {
                self.sooner.notified().await;
                continue;
            };
            let wait = next.since(self.now()).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.on_time(),
                () = self.sooner.notified() => {}
            }
        }
    }

    /// The task that opens the gate again: not every commit is reported, and nobody who waits at the gate does anything.
    pub(super) async fn run_gate(self: Arc<Self>) {
        loop {
            self.gate.closed.notified().await;
            self.storage.room().await;
            self.gate.watch(self.storage.queued_bytes());
        }
    }

    fn on_time(&self) {
        let now = self.now();
        let due = self.timers().take(now);
        let (interval, lenient) = (self.options().limits.heartbeat, self.gate.is_closed());
        for connection in self.find(&due.holds) {
            self.dispatch(Some(&connection), Step::Release);
        }
        for connection in self.find(&due.unanswered) {
            self.dispatch(Some(&connection), Step::GiveUp);
        }
        for connection in self.find(&due.looks) {
            match connection.on_time(now, interval, lenient) {
                OnTime::Nothing => {}
                OnTime::Look(next) => {
                    self.timers().look(next, connection.id);
                }
                OnTime::Dead => {
                    let at_work = self.with_broker(|broker| broker.is_at_work(now, connection.id));
                    if at_work && let Some(next) = connection.spare(now, interval) {
                        self.timers().look(next, connection.id);
                        continue;
                    }
                    Counters::add(&self.counters.dead, 1);
                    debug!(connection = connection.id.0, "ended: it answers no ping");
                    let closing = Closing { code: 1008, reason: "no answer to pings", invited: false, flush: false };
                    self.dispatch(Some(&connection), Step::End(closing));
                }
            }
        }
    }

    fn find(&self, ids: &[ConnectionId]) -> Vec<Arc<Connection>> {
        if ids.is_empty() {
            return Vec::new();
        }
        let core = self.core();
        ids.iter().filter_map(|id| core.connection(*id).cloned()).collect()
    }

    /// No connection is made any more; those that there are.
    pub(super) fn close_register(&self) -> Vec<Arc<Connection>> {
        self.core().close()
    }

    /// The connections that there are.
    pub(super) fn connections(&self) -> Vec<Arc<Connection>> {
        self.core().connections()
    }

    /// Connections that have not ended yet.
    pub(super) fn open_connections(&self) -> usize {
        self.core().open()
    }

    /// Ends what has not ended by itself.
    pub(super) fn abort_all(&self) {
        let everyone = self.core().close();
        for connection in everyone {
            self.depart_aborted(&connection);
        }
    }

    fn depart_aborted(&self, connection: &Arc<Connection>) {
        connection.queue().abort();
        let mut core = self.core();
        let mut turn = Turn::new(self);
        core.forget(connection, false, &mut turn);
        self.after_turn(core, &mut turn);
    }
}

/// The steps of one burst, carried out one by one under the core's lock.
pub(super) struct Burst<'a> {
    hub: &'a Hub,
    source: Option<&'a Arc<Connection>>,
    turn: Turn<'a>,
    /// `None` only while the lock is released to flush.
    core: Option<MutexGuard<'a, Core>>,
}

impl<'a> Burst<'a> {
    /// Takes the core's lock.
    pub(super) fn begin(hub: &'a Hub, source: Option<&'a Arc<Connection>>) -> Self {
        let core = hub.core();
        // Under the lock, so that the core's time never goes back.
        Self { hub, source, turn: Turn::new(hub), core: Some(core) }
    }

    /// Carries out one step. Where much is queued, it is flushed, without the lock.
    pub(super) fn carry(&mut self, step: Step<'_>) {
        self.with_core(|core, source, turn| core.step(step, source, turn));
    }

    /// Has a publication sent, as [`Self::carry`] would: nearly every step is one, and so nothing is put together for it.
    #[inline]
    pub(super) fn publish(&mut self, publish: &Publish<'_>) {
        self.with_core(|core, source, turn| core.publish(publish, source, turn));
    }

    #[inline]
    fn with_core(&mut self, work: impl FnOnce(&mut Core, Option<&Arc<Connection>>, &mut Turn<'_>)) {
        let Self { hub, source, turn, core } = self;
        let open = core.get_or_insert_with(|| {
            let core = hub.core();
            turn.renew();
            core
        });
        work(open, *source, turn);
        if open.is_full()
            && let Some(full) = core.take()
        {
            hub.after_turn(full, turn);
        }
    }

    /// Releases the lock and flushes what was queued.
    pub(super) fn end(mut self) {
        if let Some(core) = self.core.take() {
            self.hub.after_turn(core, &mut self.turn);
        }
    }
}

impl std::fmt::Debug for Hub {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Bounds what one dispatch leaves behind in a reusable list.
pub(super) fn shrink<T>(list: &mut Vec<T>) {
    if list.capacity() > limits::EFFECTS_AT_ONCE {
        list.shrink_to(limits::EFFECTS_AT_ONCE);
    }
}
