//! The loop of the store's thread: purges, one group, pages, a sweep, maintenance. Conversions of time are in `time`.

mod outage;
mod repeated;
mod time;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use self::repeated::{Logged, should_log};
use super::queue::{Load, Replaced, cost};
use super::shared::{End, Shared, Sleep, State};
use crate::limits;
use crate::restamp::shift;
use crate::{Background, Group, Page, StoreError};
use wsmb_core::broker::StoreEvent;
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A pause before the next group, in which more messages can arrive.
#[derive(Clone, Copy, Debug)]
struct GroupWait {
    /// The end of the pause.
    until: Instant,
    /// The pause ends earlier when this many messages are queued: those that were queued at the commit, and as many as the commit stored.
    full_at: usize,
}

/// The state of the store's thread.
pub(super) struct StoreThread {
    shared: Arc<Shared>,
    store: Box<dyn Background>,
    /// Called before rows are removed from the store.
    before_removal: Box<dyn FnMut() + Send>,
    report: Box<dyn FnMut(StoreEvent) + Send>,
    /// During an outage: when removals, counts and purges are retried.
    retry_at: Option<Instant>,
    /// The store was full, and no check has succeeded since.
    was_out_of_room: bool,
    /// The last successful write; `None` after a failure.
    written_at: Option<Instant>,
    /// When maintenance is due.
    maintain_at: Instant,
    /// When waiting removals and counts are written even if no message is.
    changes_due_at: Option<Instant>,
    group_wait: Option<GroupWait>,
    /// The start of the current outage has been logged, so its end is logged too.
    outage_logged: bool,
    write_log: Logged,
    read_log: Logged,
    unfit_log: Logged,
    /// Pages that the store is fetching from another machine.
    fetching: Vec<Load>,
    waker: Waker,
    /// Milliseconds to add to the callers' time to get the wall clock's time.
    offset: i64,
    /// Milliseconds to add besides `offset` to rows of earlier runs, up to this id. Used between the report of a clock step and the correction of
    /// this run's rows.
    earlier_rows: (i64, MessageId),
    /// The token of the last reported correction.
    reported_correction: Option<u64>,
    /// The wall clock's time that was last stored.
    noted: Timestamp,
    /// Rows that were swept to make room, and that the next sweep reports.
    unreported_removals: Vec<(MessageId, ChannelName)>,
    /// The channels whose expired rows stay, as of the last sweep; all channels before the first sweep.
    spare: Spare,
    /// When the store's background work continues.
    advance_at: Option<Instant>,
}

impl StoreThread {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Box<dyn Background>,
        before_removal: Box<dyn FnMut() + Send>,
        report: Box<dyn FnMut(StoreEvent) + Send>,
    ) -> Self {
        let waker = Waker::from(Arc::clone(&shared));
        Self {
            shared,
            store,
            before_removal,
            report,
            fetching: Vec::new(),
            waker,
            offset: 0,
            earlier_rows: (0, MessageId(0)),
            reported_correction: None,
            noted: Timestamp(0),
            unreported_removals: Vec::new(),
            spare: Spare::all(),
            advance_at: None,
            retry_at: None,
            was_out_of_room: false,
            written_at: None,
            maintain_at: Instant::now(),
            changes_due_at: None,
            group_wait: None,
            outage_logged: false,
            write_log: None,
            read_log: None,
            unfit_log: None,
        }
    }

    pub(super) fn run(&mut self) -> Result<(), StoreError> {
        loop {
            match self.wait() {
                Some(End::Abrupt) => return Ok(()),
                Some(End::Orderly) => return self.finish(),
                None => self.round(),
            }
        }
    }

    /// Sleeps until there is work, or until the thread must end.
    fn wait(&mut self) -> Option<End> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.end.is_some() {
                return state.end;
            }
            let now = Instant::now();
            if std::mem::take(&mut state.woken) || self.is_due(&state, now) {
                state.sleep = Sleep::Awake;
                return None;
            }
            state.sleep = match self.group_wait {
                Some(group_wait) => Sleep::Until(group_wait.full_at),
                None if self.changes_due_at.is_some() && self.retry_at.is_none() => Sleep::Until(1),
                None => Sleep::Idle,
            };
            let due = [
                self.advance_at,
                self.changes_due_at.filter(|_| self.retry_at.is_none()),
                self.group_wait.map(|pause| pause.until),
            ];
            let due = due.into_iter().flatten().fold(self.retry_at.unwrap_or(self.maintain_at), Instant::min);
            let timeout = due.saturating_duration_since(now);
            state = match shared.wake.wait_timeout(state, timeout) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Whether the thread has work now.
    fn is_due(&mut self, state: &State, now: Instant) -> bool {
        let queue = &state.queue;
        self.group_wait = self.group_wait.filter(|pause| now < pause.until && queue.appends() < pause.full_at);
        if queue.has_requests() || (queue.has_appends() && self.group_wait.is_none()) {
            return true;
        }
        let may_retry = self.retry_at.is_none_or(|retry_at| now >= retry_at);
        let is_wanted = self.changes_are_due(state, now) || queue.has_urgent_changes();
        let passed = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        (is_wanted && may_retry) || passed(self.advance_at) || passed(Some(self.retry_at.unwrap_or(self.maintain_at)))
    }

    /// Whether waiting removals and counts are written now, even if no message is.
    fn changes_are_due(&mut self, state: &State, now: Instant) -> bool {
        if !state.queue.has_row_changes() {
            self.changes_due_at = None;
            return false;
        }
        let changes_due_at = *self.changes_due_at.get_or_insert(now + limits::STORE_CHANGES_WAIT);
        now >= changes_due_at || state.queue.row_changes() >= wsmb_core::limits::STORE_GROUP || state.end.is_some()
    }

    fn round(&mut self) {
        let retry = self.retry_at.is_none_or(|retry_at| Instant::now() >= retry_at);
        // Failures are logged where they occur; here a failure only postpones the waiting changes.
        let retry = retry && self.restamp().is_ok() && self.purge().is_ok();
        let _ = self.commit_next(retry);
        let _ = self.note_time();
        self.advance_at = self.store.advance(&self.waker).map(|after| Instant::now() + after);
        self.read();
        self.sweep();
        self.answer_checks();
        match self.retry_at {
            None => self.maintain(),
            // No write was queued that would have tested the store.
            Some(retry_at) if Instant::now() >= retry_at => self.probe(),
            Some(_) => {}
        }
    }

    /// Carries out a bounded part of one purge, so that senders do not wait for the removal of a million rows.
    fn purge(&mut self) -> Result<(), StoreError> {
        let Some((channel, up_to)) = self.shared.lock().queue.next_purge() else {
            return Ok(());
        };
        (self.before_removal)();
        let removed = self
            .store
            .purge(&channel, up_to, wsmb_core::limits::STORE_GROUP)
            .inspect_err(|error| self.failed(error))?;
        self.succeeded();
        if removed < wsmb_core::limits::STORE_GROUP as u64 {
            self.shared.lock().queue.purged(&channel, up_to);
        }
        Ok(())
    }

    /// Takes the next group from the queue and commits it.
    fn commit_next(&mut self, changes: bool) -> Result<(), StoreError> {
        let (group, replaced) = {
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            let changes = changes && (state.queue.has_appends() || self.changes_are_due(&state, Instant::now()));
            let (mut group, replaced) = state.queue.next_group(changes);
            self.to_wall_time(&mut group);
            if changes {
                self.changes_due_at = None;
            }
            state.in_flight = group.appends.iter().map(cost).sum();
            (group, replaced)
        };
        if group.is_empty() {
            return Ok(());
        }
        if !group.removals.is_empty() {
            (self.before_removal)();
        }
        let result = self.commit(group, replaced);
        let mut state = self.shared.lock();
        state.in_flight = 0;
        self.shared.account(&state);
        result
    }

    fn commit(&mut self, mut group: Group, mut replaced: Replaced) -> Result<(), StoreError> {
        let error = loop {
            let began = Instant::now();
            match self.store.commit(&group) {
                Ok(()) => {
                    let took = began.elapsed();
                    self.succeeded();
                    self.noted = group.marks.last().map_or(self.noted, |(_, noted)| Timestamp(*noted));
                    if !group.appends.is_empty() {
                        let full_at = group.appends.len() + self.shared.lock().queue.appends();
                        (self.report)(StoreEvent::Stored(ids(&group)));
                        self.wait_for_more(took, full_at);
                    }
                    return Ok(());
                }
                // The other rows of the group can be stored.
                Err(error @ StoreError::Unfit { .. }) if self.remove_unfit(&mut group, &mut replaced, &error) => {}
                // Expired rows give way to new rows.
                Err(error) if error.is_out_of_room() && self.make_room(&group) => {}
                Err(error) => break error,
            }
        };
        self.failed(&error);
        let failed = ids(&group);
        // A replaced row stays until the new row is written.
        let mut changes = Group { appends: Vec::new(), marks: Vec::new(), ..group };
        let kept: HashSet<MessageId> = replaced.into_values().flatten().collect();
        changes.removals.retain(|id| !kept.contains(id));
        // A full store may still remove rows, which makes room.
        let retry = !failed.is_empty() && error.is_out_of_room();
        let is_written = changes.is_empty() || (retry && self.store.commit(&changes).is_ok());
        if !is_written {
            self.shared.lock().queue.put_back(changes.removals, changes.deliveries);
        }
        if !failed.is_empty() {
            self.shared.lock().queue.mark_uncertain(&failed);
            (self.report)(StoreEvent::StoreFailed(failed, error.kind()));
        }
        Err(error)
    }

    /// Starts a pause after a commit that took `took`, until `full_at` messages are queued.
    fn wait_for_more(&mut self, took: Duration, full_at: usize) {
        let until = Instant::now() + (took / 2).min(limits::STORE_GATHER);
        self.group_wait = Some(GroupWait { until, full_at: full_at.min(wsmb_core::limits::STORE_GROUP) });
    }

    /// Removes from the group the rows that the store can never hold, and reports them. False if the group holds none of them.
    fn remove_unfit(&mut self, group: &mut Group, replaced: &mut Replaced, error: &StoreError) -> bool {
        let StoreError::Unfit { ids: unfit, .. } = error else { return false };
        let gone = group.without(unfit);
        if gone.is_empty() {
            return false;
        }
        let kept: HashSet<MessageId> = gone.iter().filter_map(|id| replaced.remove(id)).flatten().collect();
        group.removals.retain(|id| !kept.contains(id));
        if should_log(&mut self.unfit_log, error) {
            tracing::error!("{error}");
        }
        (self.report)(StoreEvent::StoreFailed(gone, error.kind()));
        true
    }

    fn read(&mut self) {
        let (loads, overloaded) = {
            let mut state = self.shared.lock();
            (state.queue.ready_loads(limits::STORE_LOADS), state.queue.is_overloaded())
        };
        for load in std::mem::take(&mut self.fetching).into_iter().chain(loads) {
            if overloaded {
                (self.report)(StoreEvent::LoadFailed { channel: load.channel });
            } else {
                self.load(load);
            }
        }
    }

    /// Reads until a page holds a message that is not about to be removed, or until the end: an empty page that is not the last page has no meaning
    /// to the caller.
    fn load(&mut self, mut load: Load) {
        loop {
            if !self.store.prepare(&load.channel, load.after, load.limit, load.bytes) {
                self.fetching.push(load);
                return;
            }
            let page = self.store.load(&load.channel, load.after, load.limit, load.bytes);
            let channel = load.channel.clone();
            let Page { mut messages, complete } = match page {
                Ok(page) => page,
                Err(error) => {
                    self.read_failed(&error);
                    (self.report)(StoreEvent::LoadFailed { channel });
                    return;
                }
            };
            let last = messages.last().map(|message| message.id);
            self.apply_pending(&mut messages);
            match last {
                Some(last) if messages.is_empty() && !complete => load.after = last,
                _ => {
                    (self.report)(StoreEvent::Loaded { channel, messages, complete });
                    return;
                }
            }
        }
    }

    /// Removes messages that are about to be removed, applies pending delivery counts, and converts times to the callers' time.
    fn apply_pending(&self, messages: &mut Vec<Message>) {
        let state = self.shared.lock();
        messages.retain(|message| !state.queue.is_gone(&message.channel, message.id));
        for message in messages {
            // A count that arrived while the row was being written is still pending.
            message.deliveries = state.queue.pending_count(message.id).unwrap_or(message.deliveries);
            shift(message, -self.offset_of(message.id));
        }
    }

    fn answer_checks(&mut self) {
        let checks = self.shared.lock().queue.take_checks();
        if checks.is_empty() {
            return;
        }
        let fresh = self.written_at.is_some_and(|written_at| written_at.elapsed() < limits::STORE_CHECK_EVERY);
        if self.retry_at.is_none() && !fresh {
            self.probe();
        }
        for check in checks {
            check(self.retry_at.is_none());
        }
    }

    fn probe(&mut self) {
        match self.store.check() {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(&error),
        }
    }

    /// Calls the store's maintenance when it is due.
    fn maintain(&mut self) {
        if Instant::now() < self.maintain_at {
            return;
        }
        self.maintain_at = Instant::now() + limits::STORE_MAINTENANCE_EVERY;
        if let Err(error) = self.store.maintain() {
            self.failed(&error);
        }
    }

    /// Writes everything that waits: one attempt each, also during an outage.
    fn finish(&mut self) -> Result<(), StoreError> {
        let mut result = self.restamp();
        while result.is_ok() && self.shared.lock().queue.next_purge().is_some() {
            result = self.purge();
        }
        // Every group is reported, so that no caller waits for an outcome for ever.
        while self.shared.lock().queue.has_appends() {
            result = result.and(self.commit_next(true));
        }
        while self.shared.lock().queue.has_row_changes() {
            self.commit_next(true)?;
        }
        self.note_time()?;
        self.store.mark_clean()?;
        result
    }
}

impl Drop for StoreThread {
    /// Also after a panic, the store counts as unhealthy, and no caller waits for room.
    fn drop(&mut self) {
        self.shared.healthy.store(false, Ordering::Release);
        self.shared.bytes.store(0, Ordering::Release);
        self.shared.room.notify_waiters();
    }
}

/// The ids of a group's new messages.
fn ids(group: &Group) -> Vec<MessageId> {
    group.appends.iter().map(|message| message.id).collect()
}
