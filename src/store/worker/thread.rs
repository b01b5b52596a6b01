//! What the store's thread does, round after round: purges, one group, pages, a sweep, housekeeping.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::Waker;
use std::time::Instant;

use super::queue::{Load, Replaced, cost};
use super::{End, Outcome, Shared};
use crate::limits;
use crate::message::{Message, MessageId};
use crate::store::{Group, MessageStore, Page, StoreError};

/// The thread's own state.
pub(super) struct Body {
    shared: Arc<Shared>,
    store: Box<dyn MessageStore>,
    report: Box<dyn FnMut(Outcome) + Send>,
    /// In an outage: when the debts are tried again.
    retry_at: Option<Instant>,
    /// There was no room, and no probe has found any since.
    cramped: bool,
    /// When the store was last written without a failure.
    vouched: Option<Instant>,
    /// When housekeeping is due.
    tend_at: Instant,
    /// The outage that lasts has been logged, so its end will be.
    announced: bool,
    write_log: Logged,
    read_log: Logged,
    unfit_log: Logged,
    /// Pages that the store is fetching from elsewhere.
    fetching: Vec<Load>,
    waker: Waker,
    /// When the store's background wants to go on.
    advance_at: Option<Instant>,
}

impl Body {
    pub(super) fn new(
        shared: Arc<Shared>,
        store: Box<dyn MessageStore>,
        report: Box<dyn FnMut(Outcome) + Send>,
    ) -> Self {
        let waker = Waker::from(Arc::clone(&shared));
        Self {
            shared,
            store,
            report,
            fetching: Vec::new(),
            waker,
            advance_at: None,
            retry_at: None,
            cramped: false,
            vouched: None,
            tend_at: Instant::now(),
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
    fn wait(&self) -> Option<End> {
        let shared = Arc::clone(&self.shared);
        let mut state = shared.lock();
        loop {
            if state.end.is_some() {
                return state.end;
            }
            let now = Instant::now();
            let may_pay = self.retry_at.is_none_or(|retry_at| now >= retry_at);
            let due = self.retry_at.unwrap_or(self.tend_at);
            let due = self.advance_at.map_or(due, |advance_at| advance_at.min(due));
            if std::mem::take(&mut state.woken) {
                return None;
            }
            if state.queue.has_work() || (state.queue.has_debts() && may_pay) || now >= due {
                return None;
            }
            let timeout = due.saturating_duration_since(now);
            state = match shared.wake.wait_timeout(state, timeout) {
                Ok((state, _)) => state,
                Err(poisoned) => poisoned.into_inner().0,
            };
        }
    }

    fn round(&mut self) {
        let retry = self.retry_at.is_none_or(|retry_at| Instant::now() >= retry_at);
        // A failure is logged where it happens; here it only means that what is owed can wait.
        let retry = retry && self.purge().is_ok();
        let _ = self.commit_next(retry);
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
        let removed = self.store.purge(&channel, up_to, limits::STORE_GROUP).inspect_err(|error| self.failed(error))?;
        self.succeeded();
        if removed < limits::STORE_GROUP as u64 {
            self.shared.lock().queue.purged(&channel, up_to);
        }
        Ok(())
    }

    /// Cuts the next group and commits it.
    fn commit_next(&mut self, debts: bool) -> Result<(), StoreError> {
        let (group, replaced) = {
            let mut state = self.shared.lock();
            let (group, replaced) = state.queue.cut(debts);
            state.in_flight = group.appends.iter().map(cost).sum();
            (group, replaced)
        };
        if group.is_empty() {
            return Ok(());
        }
        let result = self.commit(group, replaced);
        let mut state = self.shared.lock();
        state.in_flight = 0;
        self.shared.account(&state);
        result
    }

    fn commit(&mut self, mut group: Group, mut replaced: Replaced) -> Result<(), StoreError> {
        let error = loop {
            match self.store.commit(&group) {
                Ok(()) => {
                    self.succeeded();
                    if !group.appends.is_empty() {
                        (self.report)(Outcome::Stored(ids(&group)));
                    }
                    return Ok(());
                }
                // The others must not suffer for it.
                Err(error @ StoreError::Unfit { .. }) if self.drop_unfit(&mut group, &mut replaced, &error) => {}
                Err(error) => break error,
            }
        };
        self.failed(&error);
        let failed = ids(&group);
        // What an append would have replaced stays until it is written after all.
        let mut debts = Group { appends: Vec::new(), ..group };
        let kept: HashSet<MessageId> = replaced.into_values().flatten().collect();
        debts.removals.retain(|id| !kept.contains(id));
        // What has no room for new rows may well let old ones go, which makes room.
        let retry = !failed.is_empty() && error.is_out_of_room();
        let paid = debts.is_empty() || (retry && self.store.commit(&debts).is_ok());
        if !paid {
            self.shared.lock().queue.restore(debts.removals, debts.deliveries);
        }
        if !failed.is_empty() {
            (self.report)(Outcome::Failed(failed, error.kind()));
        }
        Err(error)
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
            if !self.store.prepare(&load.channel, load.after, load.limit, limits::PAGE_BYTES) {
                self.fetching.push(load);
                return;
            }
            let page = self.store.load(&load.channel, load.after, load.limit, limits::PAGE_BYTES);
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

    /// Takes what is as good as gone out of a page.
    fn settle(&self, messages: &mut Vec<Message>) {
        let state = self.shared.lock();
        messages.retain(|message| !state.queue.is_gone(&message.channel, message.id));
        for message in messages {
            // A count that came while the row was being written is still owed.
            message.deliveries = state.queue.owed_count(message.id).unwrap_or(message.deliveries);
        }
    }

    fn sweep(&mut self) {
        let Some(now) = self.shared.lock().queue.take_sweep() else {
            return;
        };
        let mut gone = match self.store.sweep(now, limits::SWEEP_ROWS) {
            Ok(gone) => gone,
            Err(error) => {
                self.failed(&error);
                Vec::new()
            }
        };
        {
            let state = self.shared.lock();
            gone.retain(|(id, channel)| !state.queue.is_gone(channel, *id));
        }
        (self.report)(Outcome::Swept(gone));
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

    /// Answers and housekeeping.
    fn tend(&mut self) {
        let mut answers = self.shared.lock().queue.take_answers().into_iter();
        while let Some(token) = answers.next() {
            if let Err(error) = self.store.answer(token) {
                let mut state = self.shared.lock();
                std::iter::once(token).chain(answers).for_each(|token| state.queue.answer(token));
                drop(state);
                self.failed(&error);
                return;
            }
        }
        if Instant::now() < self.tend_at {
            return;
        }
        self.tend_at = Instant::now() + limits::STORE_TEND_EVERY;
        match self.store.tend() {
            Ok(requests) => {
                for request in requests {
                    (self.report)(Outcome::PurgeRequest { channel: request.channel, token: request.token });
                }
            }
            Err(error) => self.failed(&error),
        }
    }

    /// Writes what waits, as far as it can be written: one attempt at everything, outage or not.
    fn finish(&mut self) -> Result<(), StoreError> {
        let mut result = Ok(());
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
        let answers = self.shared.lock().queue.take_answers();
        for token in answers {
            self.store.answer(token)?;
        }
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
        self.retry_at = self.retry_at.filter(|retry_at| *retry_at > now).or(Some(now + limits::STORE_RETRY));
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
