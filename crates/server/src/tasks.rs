//! The tasks besides the sessions: deadlines, timers, backpressure, reports of the store, ids. `lifecycle` starts them.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::counters::Counters;
use super::hub::Hub;
use super::request::Request;
use super::session::{Closing, Session, TimerAction};
use super::storage::Report;
use super::timers::Due;
use super::turns::TurnCause;
use crate::limits;
use wsmb_core::broker::{Broker, Event};
use wsmb_core::message::{ConnectionId, Timestamp};

impl Hub {
    /// Gives the core its ticks.
    pub(super) async fn run_deadlines(self: Arc<Self>) {
        loop {
            let Some(deadline) = self.arm() else {
                self.deadline_moved.notified().await;
                continue;
            };
            // At least a millisecond, the clock's resolution, so that no deadline makes this loop spin.
            let wait = deadline.since(self.now()).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.handle_event(Event::Tick),
                () = self.deadline_moved.notified() => {}
            }
        }
    }

    /// Times the heartbeats, holds and ends of all sessions.
    pub(super) async fn run_timers(self: Arc<Self>) {
        loop {
            let next = self.timers().next();
            let Some(next) = next else {
                self.timer_moved.notified().await;
                continue;
            };
            let wait = next.since(self.now()).max(Duration::from_millis(1));
            tokio::select! {
                () = tokio::time::sleep(wait) => self.on_timer().await,
                () = self.timer_moved.notified() => {}
            }
        }
    }

    /// Handles the timers that are due, in slices: after a reconnect of all clients, thousands of heartbeats are due at once.
    async fn on_timer(&self) {
        let Due { holds, unanswered, checks } = self.timers().take(self.now());
        self.in_slices(&holds, |session| self.apply(session, Request::Release)).await;
        self.in_slices(&unanswered, |session| self.apply(session, Request::GiveUp)).await;
        let (interval, lenient) = (self.options().limits.heartbeat, self.backpressure.is_closed());
        self.in_slices(&checks, |session| self.check_session(session, self.now(), interval, lenient)).await;
    }

    async fn in_slices(&self, connections: &[ConnectionId], handle: impl Fn(&Arc<Session>)) {
        for slice in connections.chunks(limits::FLUSHED_AT_ONCE) {
            self.loops.turns.measure(TurnCause::Timer, || self.find(slice).iter().for_each(&handle));
            tokio::task::yield_now().await;
        }
    }

    /// Checks a session, and carries out the result. `lenient`: connections that publish are not read, so silence may not be the client's fault.
    fn check_session(&self, session: &Arc<Session>, now: Timestamp, interval: Duration, lenient: bool) {
        let mut due = session.on_timer(now, interval, lenient);
        if due == TimerAction::Dead && self.with_broker(|broker| broker.is_at_work(now, session.id)) {
            due = session.check_acknowledgements(now, interval);
        }
        match due {
            TimerAction::Nothing => {}
            TimerAction::CheckAt(next) => {
                self.timers().schedule_check(next, session.id);
            }
            TimerAction::Flush(next) => {
                self.loops.flush(std::slice::from_ref(session));
                self.timers().schedule_check(next, session.id);
            }
            TimerAction::Dead => {
                Counters::add(&self.counters.dead, 1);
                debug!(connection = session.id.0, "ended: it answers no ping");
                let closing = Closing { code: 1008, reason: "no answer to pings", invited: false, flush: false };
                self.apply(session, Request::End(closing));
            }
        }
    }

    /// Ends pauses of reading. A task of its own, because not every commit is reported, and waiting readers do nothing.
    pub(super) async fn run_backpressure(self: Arc<Self>) {
        loop {
            self.backpressure.closed.notified().await;
            self.storage.room().await;
            self.backpressure.watch(self.storage.queued_bytes());
        }
    }

    /// Takes the reports of the store's thread.
    pub(super) async fn run_reports(self: Arc<Self>) {
        loop {
            self.storage.reported().await;
            // Each report is a turn: one may be about thousands of messages.
            while self.take_report() {
                tokio::task::yield_now().await;
            }
        }
    }

    /// Takes all reports of the store's thread so far.
    pub(super) fn take_reports(&self) {
        while self.take_report() {}
    }

    /// Takes a report of the store's thread. Returns false if there is none.
    fn take_report(&self) -> bool {
        let report = self.storage.next_report();
        let is_report = report.is_some();
        match report {
            Some(Report::Store(event)) => self.handle_event(event.into()),
            Some(Report::Health(healthy)) => {
                for session in self.storage.take_waiting() {
                    self.apply(&session, Request::PingAnswer(healthy));
                }
            }
            None => self.backpressure.watch(self.storage.queued_bytes()),
        }
        is_report
    }

    /// Saves new ids once a second.
    pub(super) async fn run_ids(self: Arc<Self>) {
        loop {
            tokio::time::sleep(limits::IDS_SAVE).await;
            if self.ids.is_unfinished() || self.with_broker(Broker::has_fresh_ids) {
                let hub = self.clone();
                // An error is a panic, which has written its own message; the next round tries again.
                let _ = tokio::task::spawn_blocking(move || hub.save_ids(false)).await;
            }
        }
    }
}
