//! The tasks besides the sessions: deadlines, timers, backpressure, reports of the store, ids. `lifecycle` starts them.

use std::sync::Arc;
use std::time::Duration;

use tracing::debug;

use super::counters::Counters;
use super::hub::Hub;
use super::request::Request;
use super::session::{Closing, Session, TimerAction};
use super::storage::Report;
use crate::limits;
use wsmb_core::broker::{Broker, Event};
use wsmb_core::message::Timestamp;

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
                () = tokio::time::sleep(wait) => self.on_timer(),
                () = self.timer_moved.notified() => {}
            }
        }
    }

    fn on_timer(&self) {
        let now = self.now();
        let due = self.timers().take(now);
        for session in self.find(&due.holds) {
            self.apply(&session, Request::Release);
        }
        for session in self.find(&due.unanswered) {
            self.apply(&session, Request::GiveUp);
        }
        let (interval, lenient) = (self.options().limits.heartbeat, self.backpressure.is_closed());
        for session in self.find(&due.checks) {
            self.check_session(&session, now, interval, lenient);
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
            self.take_reports();
        }
    }

    /// Takes all reports of the store's thread so far.
    pub(super) fn take_reports(&self) {
        while let Some(report) = self.storage.next_report() {
            match report {
                Report::Store(event) => self.handle_event(event.into()),
                Report::Health(healthy) => {
                    for session in self.storage.take_waiting() {
                        self.apply(&session, Request::PingAnswer(healthy));
                    }
                }
            }
        }
        self.backpressure.watch(self.storage.queued_bytes());
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
