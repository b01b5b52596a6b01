//! What the store's thread does, round after round: purges, one group, pages, a sweep, housekeeping. What has to do with time is in `time`.

mod time;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::queue::{Load, Replaced, cost};
use super::shared::{End, Outcome, Shared, Sleep, State};
use crate::limits;
use crate::restamp::shift;
use crate::{Background, Group, Page, StoreError};
use wsmb_core::message::{ChannelName, Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A pause before the next group is cut.
#[derive(Clone, Copy, Debug)]
struct Gathering {
    /// Not longer than this.
    until: Instant,
    /// Nor with more messages than this: what had queued, and as many as were answered.
    enough: usize,
}

/// The thread's own state.
pub(super) struct Body {
    shared: Arc<Shared>,
    store: Box<dyn Background>,
    /// Called before rows are removed.
    before_removal: Box<dyn FnMut() + Send>,
    report: Box<dyn FnMut(Outcome) + Send>,
    /// In an outage: when the debts are tried again.
    retry_at: Option<Instant>,
    /// There was no room, and no probe has found any since.
    cramped: bool,
    /// When the store was last written without a failure.
    vouched: Option<Instant>,
    /// When housekeeping is due.
    tend_at: Instant,
    /// When removals and counts are carried out for which no group has come along.
    debts_at: Option<Instant>,
    gathering: Option<Gathering>,
    /// The outage that lasts has been logged, so its end will be.
    announced: bool,
    write_log: Logged,
    read_log: Logged,
    unfit_log: Logged,
    /// Pages that the store is fetching from elsewhere.
    fetching: Vec<Load>,
    waker: Waker,
    /// What is added to the callers' time to make it the wall clock's, in milliseconds.
    offset: i64,
    /// What is added beside that for rows of earlier runs, up to this id, while their correction is done and that of this run's is not.
    ahead: (i64, MessageId),
    /// The correction that was reported last.
    announced_step: Option<u64>,
    /// The wall clock's time that was noted last.
    noted: Timestamp,
    /// Rows that were swept to make room, to be told with the sweep that waits.
    swept: Vec<(MessageId, ChannelName)>,
    /// The channels whose expired rows stay: as the last sweep said, and all of them before the first.
    spare: Spare,
    /// When the store's background wants to go on.
    advance_at: Option<Instant>,
}

impl Body {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Box<dyn Background>,
        before_removal: Box<dyn FnMut() + Send>,
        report: Box<dyn FnMut(Outcome) + Send>,
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
            ahead: (0, MessageId(0)),
            announced_step: None,
            noted: Timestamp(0),
            swept: Vec::new(),
            spare: Spare::all(),
            advance_at: None,
            retry_at: None,
            cramped: false,
            vouched: None,
            tend_at: Instant::now(),
            debts_at: None,
            gathering: None,
            announced: false,
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

    /// Sleeps until there is something to do, or the thread is to end.
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
            state.sleep = match self.gathering {
                Some(gathering) => Sleep::Until(gathering.enough),
                None if self.debts_at.is_some() && self.retry_at.is_none() => Sleep::Until(1),
                None => Sleep::Idle,
            };
            let due = [
                self.advance_at,
                self.debts_at.filter(|_| self.retry_at.is_none()),
                self.gathering.map(|pause| pause.until),
            ];
            let due = due.into_iter().flatten().fold(self.retry_at.unwrap_or(self.tend_at), Instant::min);
            let timeout = due.saturating_duration_since(now);
            state = match shared.wake.wait_timeout(state, timeout) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    /// Whether a round is to be made now.
    fn is_due(&mut self, state: &State, now: Instant) -> bool {
        let queue = &state.queue;
        self.gathering = self.gathering.filter(|pause| now < pause.until && queue.appends() < pause.enough);
        if queue.has_requests() || (queue.has_appends() && self.gathering.is_none()) {
            return true;
        }
        let may_pay = self.retry_at.is_none_or(|retry_at| now >= retry_at);
        let owed = self.is_payday(state, now) || queue.has_pressing_debts();
        let passed = |at: Option<Instant>| at.is_some_and(|at| now >= at);
        (owed && may_pay) || passed(self.advance_at) || passed(Some(self.retry_at.unwrap_or(self.tend_at)))
    }

    /// Whether removals and counts are to be carried out though no message is to be written.
    fn is_payday(&mut self, state: &State, now: Instant) -> bool {
        if !state.queue.has_row_debts() {
            self.debts_at = None;
            return false;
        }
        let debts_at = *self.debts_at.get_or_insert(now + limits::STORE_DEBTS_WAIT);
        now >= debts_at || state.queue.row_debts() >= wsmb_core::limits::STORE_GROUP || state.end.is_some()
    }

    fn round(&mut self) {
        let retry = self.retry_at.is_none_or(|retry_at| Instant::now() >= retry_at);
        // A failure is logged where it happens; here it only means that what is owed can wait.
        let retry = retry && self.restamp().is_ok() && self.purge().is_ok();
        let _ = self.commit_next(retry);
        let _ = self.note_time();
        self.advance_at = self.store.advance(&self.waker).map(|after| Instant::now() + after);
        self.read();
        self.sweep();
        self.answer_checks();
        match self.retry_at {
            None => self.tend(),
            // Nothing was there to try it with.
            Some(retry_at) if Instant::now() >= retry_at => self.probe(),
            Some(_) => {}
        }
    }

    /// One bounded part of one purge, so that senders don't wait for a million rows.
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

    /// Cuts the next group and commits it.
    fn commit_next(&mut self, debts: bool) -> Result<(), StoreError> {
        let (group, replaced) = {
            let shared = Arc::clone(&self.shared);
            let mut state = shared.lock();
            let debts = debts && (state.queue.has_appends() || self.is_payday(&state, Instant::now()));
            let (mut group, replaced) = state.queue.cut(debts);
            self.translate(&mut group);
            if debts {
                self.debts_at = None;
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
                        let enough = group.appends.len() + self.shared.lock().queue.appends();
                        (self.report)(Outcome::Stored(ids(&group)));
                        self.gather(took, enough);
                    }
                    return Ok(());
                }
                // The others must not suffer for it.
                Err(error @ StoreError::Unfit { .. }) if self.drop_unfit(&mut group, &mut replaced, &error) => {}
                // What has expired must take no room.
                Err(error) if error.is_out_of_room() && self.make_room(&group) => {}
                Err(error) => break error,
            }
        };
        self.failed(&error);
        let failed = ids(&group);
        // What an append would have replaced stays until it is written after all.
        let mut debts = Group { appends: Vec::new(), marks: Vec::new(), ..group };
        let kept: HashSet<MessageId> = replaced.into_values().flatten().collect();
        debts.removals.retain(|id| !kept.contains(id));
        // What has no room for new rows may well let old ones go, which makes room.
        let retry = !failed.is_empty() && error.is_out_of_room();
        let paid = debts.is_empty() || (retry && self.store.commit(&debts).is_ok());
        if !paid {
            self.shared.lock().queue.restore(debts.removals, debts.deliveries);
        }
        if !failed.is_empty() {
            self.shared.lock().queue.doubt(&failed);
            (self.report)(Outcome::Failed(failed, error.kind()));
        }
        Err(error)
    }

    /// Pauses after a commit that took so long, until there is enough for the next one.
    fn gather(&mut self, took: Duration, enough: usize) {
        let until = Instant::now() + (took / 2).min(limits::STORE_GATHER);
        self.gathering = Some(Gathering { until, enough: enough.min(wsmb_core::limits::STORE_GROUP) });
    }

    /// Takes the rows that the store can never hold out of the group, and reports them; false if there are none of them in it.
    fn drop_unfit(&mut self, group: &mut Group, replaced: &mut Replaced, error: &StoreError) -> bool {
        let StoreError::Unfit { ids: unfit, .. } = error else { return false };
        let gone = group.without(unfit);
        if gone.is_empty() {
            return false;
        }
        let kept: HashSet<MessageId> = gone.iter().filter_map(|id| replaced.remove(id)).flatten().collect();
        group.removals.retain(|id| !kept.contains(id));
        if log_now(&mut self.unfit_log, error) {
            tracing::error!("{error}");
        }
        (self.report)(Outcome::Failed(gone, error.kind()));
        true
    }

    fn read(&mut self) {
        let (loads, overdue) = {
            let mut state = self.shared.lock();
            (state.queue.ready_loads(limits::STORE_LOADS), state.queue.is_overdue())
        };
        for load in std::mem::take(&mut self.fetching).into_iter().chain(loads) {
            if overdue {
                (self.report)(Outcome::LoadFailed { channel: load.channel });
            } else {
                self.load(load);
            }
        }
    }

    /// Reads on until there is a message that is not as good as gone, or nothing more: an empty page that is not the last would say nothing.
    fn load(&mut self, mut load: Load) {
        loop {
            if !self.store.prepare(&load.channel, load.after, load.limit, wsmb_core::limits::PAGE_BYTES) {
                self.fetching.push(load);
                return;
            }
            let page = self.store.load(&load.channel, load.after, load.limit, wsmb_core::limits::PAGE_BYTES);
            let channel = load.channel.clone();
            let Page { mut messages, complete } = match page {
                Ok(page) => page,
                Err(error) => {
                    self.read_failed(&error);
                    (self.report)(Outcome::LoadFailed { channel });
                    return;
                }
            };
            let last = messages.last().map(|message| message.id);
            self.settle(&mut messages);
            match last {
                Some(last) if messages.is_empty() && !complete => load.after = last,
                _ => {
                    (self.report)(Outcome::Loaded { channel, messages, complete });
                    return;
                }
            }
        }
    }

    /// Takes what is as good as gone out of what was read.
    fn settle(&self, messages: &mut Vec<Message>) {
        let state = self.shared.lock();
        messages.retain(|message| !state.queue.is_gone(&message.channel, message.id));
        for message in messages {
            // A count that came while the row was being written is still owed.
            message.deliveries = state.queue.owed_count(message.id).unwrap_or(message.deliveries);
            shift(message, -self.offset_of(message.id));
        }
    }

    fn answer_checks(&mut self) {
        let checks = self.shared.lock().queue.take_checks();
        if checks.is_empty() {
            return;
        }
        let fresh = self.vouched.is_some_and(|vouched| vouched.elapsed() < limits::STORE_CHECK_EVERY);
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

    /// Housekeeping.
    fn tend(&mut self) {
        if Instant::now() < self.tend_at {
            return;
        }
        self.tend_at = Instant::now() + limits::STORE_TEND_EVERY;
        if let Err(error) = self.store.tend() {
            self.failed(&error);
        }
    }

    /// Writes what waits, as far as it can be written: one attempt at everything, outage or not.
    fn finish(&mut self) -> Result<(), StoreError> {
        let mut result = self.restamp();
        while result.is_ok() && self.shared.lock().queue.next_purge().is_some() {
            result = self.purge();
        }
        // Each group is reported, so that nobody waits for an answer that never comes.
        while self.shared.lock().queue.has_appends() {
            result = result.and(self.commit_next(true));
        }
        while self.shared.lock().queue.has_row_debts() {
            self.commit_next(true)?;
        }
        self.note_time()?;
        self.store.mark_clean()?;
        result
    }

    /// Something was written. While there was no room, that proves nothing, unless it was the probe, which is large on purpose.
    fn succeeded(&mut self) {
        if !self.cramped {
            self.recovered();
        }
    }

    fn recovered(&mut self) {
        self.cramped = false;
        self.vouched = Some(Instant::now());
        if self.retry_at.take().is_none() {
            return;
        }
        self.shared.healthy.store(true, Ordering::Release);
        if std::mem::take(&mut self.announced) {
            tracing::info!("the store can be written again");
        }
    }

    fn failed(&mut self, error: &StoreError) {
        self.vouched = None;
        self.cramped |= error.is_out_of_room();
        self.shared.healthy.store(false, Ordering::Release);
        if self.retry_at.is_none() && log_now(&mut self.write_log, error) {
            self.announced = true;
            tracing::error!("messages can't be stored: {error}");
        }
        // A stream of failing appends must not put off the next attempt at what is owed.
        let now = Instant::now();
        self.retry_at = self.retry_at.filter(|retry_at| *retry_at > now).or(Some(now + wsmb_core::limits::STORE_RETRY));
    }

    fn read_failed(&mut self, error: &StoreError) {
        if log_now(&mut self.read_log, error) {
            tracing::error!("stored messages can't be read: {error}");
        }
    }
}

impl Drop for Body {
    /// However the thread ends, nobody is told that all is well, or waits for room that nobody makes.
    fn drop(&mut self) {
        self.shared.healthy.store(false, Ordering::Release);
        self.shared.bytes.store(0, Ordering::Release);
        self.shared.room.notify_waiters();
    }
}

/// The messages that a group adds.
fn ids(group: &Group) -> Vec<MessageId> {
    group.appends.iter().map(|message| message.id).collect()
}

/// What was last logged, and when.
type Logged = Option<(Instant, StoreError)>;

/// Whether this trouble is worth a line: it is another one than the last, or that was long ago.
fn log_now(last: &mut Logged, error: &StoreError) -> bool {
    let known = last.as_ref().is_some_and(|(at, known)| known == error && at.elapsed() < limits::STORE_LOG_EVERY);
    if !known {
        *last = Some((Instant::now(), error.clone()));
    }
    !known
}
