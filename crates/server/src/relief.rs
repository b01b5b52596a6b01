//! Keeps the program within its memory budget (`server.memory_budget`): the last of three steps.
//!
//! The core gives up stored messages first, and refuses new ones then ([`wsmb_core::broker::Broker::set_memory_used`]). When nearly all of the budget is
//! used nevertheless, the connections that hold most are ended, and new connections are refused. Freed memory goes back to the system afterwards.
//!
//! Never here: the lock of the core during a scan of sessions.

use std::sync::Arc;
use std::time::Instant;

use super::counters::Counters;
use super::hub::Hub;
use super::platform;
use super::request::Request;
use super::session::Session;
use crate::limits;

impl Hub {
    /// If nearly all memory is used: ends the connections that hold most, until enough will be free. Readers call this, because a task of its own
    /// would run only after all of them.
    pub(super) fn relieve_memory(&self) {
        if !self.memory.is_scan_due(self.now()) {
            return;
        }
        let mut excess = self.memory.excess();
        let mut holders: Vec<(usize, Arc<Session>)> = self
            .sessions()
            .into_iter()
            .map(|session| {
                let held = session.queue().held_bytes();
                (held, session)
            })
            .collect();
        holders.retain(|(held, _)| *held >= limits::MEMORY_HELD_MIN);
        holders.sort_unstable_by_key(|(held, _)| std::cmp::Reverse(*held));
        for (held, session) in holders {
            if excess == 0 {
                return;
            }
            excess = excess.saturating_sub(held);
            Counters::add(&self.counters.over_memory, 1);
            self.note_over_memory(&session, held);
            // No close frame: what the session holds must be free at once, and its client does not read or does not finish its message.
            session.queue().abort();
            self.apply(&session, Request::Aborted);
        }
    }

    /// Gives freed memory back to the system, and relieves the memory while no reader does: all of them may be paused because nearly all memory is used.
    pub(super) async fn run_memory(self: Arc<Self>) {
        let mut trimmed = Instant::now();
        loop {
            let is_scarce = self.memory.is_scarce();
            tokio::time::sleep(if is_scarce { limits::MEMORY_RELIEF_EVERY } else { limits::MEMORY_TRIM_EVERY }).await;
            self.relieve_memory();
            if is_scarce && trimmed.elapsed() < self.memory.trim_interval() {
                continue;
            }
            let has_fallen = self.memory.has_fallen();
            if has_fallen {
                self.shrink();
            }
            // Also while memory is scarce: large blocks that come and go leave gaps that nothing else fits into.
            if has_fallen || is_scarce {
                // An error is a panic, which has written its own message.
                let _ = tokio::task::spawn_blocking(platform::trim_memory).await;
                trimmed = Instant::now();
            }
        }
    }
}
