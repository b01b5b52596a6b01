//! A local file in front of a database server: what is accepted is durable here, and is moved there when the server can be reached.
//!
//! ```text
//! StoreWorker ─► JournaledStore ─► Ledger (SQLite): rows not moved yet, debts       commit returns here
//!                      │  ▲
//!                 Task ▼  │ Report
//!                    Courier (a thread) ─► MessageStore of the database
//! ```
//!
//! A row is in one place at a time as far as anybody can see: here until the database has it, there afterwards. Rows are moved in the order of their
//! ids, a little later than they come, so that what is confirmed at once never travels. Messages with a due time stay here until they are due.
//!
//! Nothing here waits for the database, but for [`JournaledStore::open`], [`MessageStore::summary`], a [`MessageStore::load`] that was not prepared,
//! and a bounded farewell.

mod courier;
mod direct;
mod expired;
mod fetch;
mod ledger;
mod merge;
mod patient;
mod restamp;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Background, Group, JournalSettings, MessageStore, Page, Prefix, Restamp, StoreError, Summary, Swept};
use crate::limits;
pub(super) use courier::Opener;
use courier::{Courier, Gone, Report, Task};
pub(super) use direct::Direct;
use expired::Sweeps;
use fetch::Fetches;
use ledger::Ledger;
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A store on a database server, with a file in front of it.
#[derive(Debug)]
pub struct JournaledStore {
    ledger: Ledger,
    courier: Courier,
    fetches: Fetches,
    /// A group is with the courier.
    applying: bool,
    purging: bool,
    restamping: bool,
    /// Rows of the database from the future are to be taken as created at this time, up to this id.
    rejuvenation: Option<(Timestamp, MessageId)>,
    sweeps: Sweeps,
    counting: bool,
    /// What the database holds was not counted since the start.
    is_uncounted: bool,
    /// When the next group is cut; `None`: there is nothing to move.
    move_at: Option<Instant>,
    /// When the database is asked again what it holds.
    count_at: Instant,
    tend_at: Instant,
    /// The database can't be used.
    away: Option<Away>,
    /// It can be used but not written; when that is tried again.
    stuck_until: Option<Instant>,
    /// What was last said about the database.
    told: Option<StoreError>,
}

/// Since when the database can't be used, and what is known about it.
#[derive(Debug)]
struct Away {
    error: StoreError,
    /// When it is tried again.
    retry_at: Instant,
}

impl JournaledStore {
    /// Opens the file and the database. A database that is away is no hindrance if the journal has belonged to it before.
    ///
    /// `database` names it, without secrets, as an administrator knows it.
    ///
    /// # Errors
    /// What is wrong with the file; [`StoreError::JournalOfAnother`]; what keeps the database from being used, unless it is merely away.
    pub(super) fn open(
        settings: &JournalSettings,
        prefix: &Prefix,
        database: &str,
        mut opener: Opener,
    ) -> Result<Self, StoreError> {
        let mut ledger = Ledger::open(&settings.path, settings.bytes, prefix)?;
        let known = ledger.database()?;
        if let Some(other) = known.as_ref().filter(|known| *known != database) {
            let (messages, debts) = ledger.waiting()?;
            if messages + debts > 0 {
                let (place, other) = (ledger.place(), other.clone());
                return Err(StoreError::JournalOfAnother { place, other, messages });
            }
        }
        let is_own = known.as_deref() == Some(database);
        let (store, error) = match opener() {
            Ok(store) => (Some(store), None),
            // The first start shows whether the address is right.
            Err(error) if may_pass(&error) && is_own => (None, Some(error)),
            Err(error) => return Err(error),
        };
        if !is_own {
            ledger.adopt(database)?;
        }
        let place = ledger.place();
        let courier = Courier::start(store, opener)
            .map_err(|error| StoreError::Unavailable { place, detail: format!("no thread for it: {error}") })?;
        let now = Instant::now();
        let mut journaled = Self {
            ledger,
            courier,
            fetches: Fetches::default(),
            applying: false,
            purging: false,
            restamping: false,
            rejuvenation: None,
            sweeps: Sweeps::default(),
            counting: false,
            is_uncounted: true,
            move_at: Some(now),
            count_at: now + limits::JOURNAL_COUNT_EVERY,
            tend_at: now + limits::STORE_TEND_EVERY,
            away: None,
            stuck_until: None,
            told: None,
        };
        if let Some(error) = error {
            journaled.failed(&error);
        }
        Ok(journaled)
    }

    /// Takes note of every report that is there.
    fn drain(&mut self) -> Result<(), StoreError> {
        while let Some(report) = self.courier.try_next().map_err(|gone| self.gone(gone))? {
            self.heard(report)?;
        }
        Ok(())
    }

    /// Waits for one report and takes note of it; false if none came in time.
    fn wait(&mut self, patience: Duration) -> Result<bool, StoreError> {
        match self.courier.next(patience).map_err(|gone| self.gone(gone))? {
            Some(report) => self.heard(report).map(|()| true),
            None => Ok(false),
        }
    }

    /// The courier has died of a defect, as its message has told: nothing is moved any more. This thread goes the same way, and the process with it.
    fn gone(&self, Gone: Gone) -> StoreError {
        std::panic::resume_unwind(Box::new("the courier has died"))
    }

    fn ask(&mut self, task: Task) -> Result<(), StoreError> {
        let asked = self.courier.ask(task);
        asked.map_err(|gone| self.gone(gone))
    }

    /// Takes note of a report. An error is one of the journal's own file; those of the database are noted.
    fn heard(&mut self, report: Report) -> Result<(), StoreError> {
        match report {
            Report::Applied(group, result) => self.applied(group, result),
            Report::Loaded(wanted, result) => {
                let result = result.inspect_err(|error| self.failed(error));
                if result.is_ok() {
                    self.reached();
                }
                let again = self.fetches.arrived(&mut self.ledger, wanted, result)?;
                again.map_or(Ok(()), |wanted| self.ask(Task::Load(wanted)))
            }
            Report::Swept(result) => self.swept(result),
            Report::Purged(channel, up_to, result) => {
                self.purging = false;
                if self.noted(result).is_none() {
                    // A server that is read-only refuses at once, every time.
                    self.stuck_until = Some(Instant::now() + wsmb_core::limits::STORE_RETRY);
                    return Ok(());
                }
                self.ledger.purged(&channel, up_to)
            }
            Report::Restamped(token, result) => self.restamped(token, result),
            Report::Counted(result) => {
                self.counting = false;
                self.count_at = Instant::now() + limits::JOURNAL_COUNT_EVERY;
                let Some(found) = self.noted(result) else { return Ok(()) };
                self.is_uncounted = false;
                self.ledger.recount(&found.channels, found.last_id)
            }
            // Whoever asked for it has stopped waiting.
            Report::Scanned(result) => {
                self.noted(result);
                Ok(())
            }
            Report::Done(result) => {
                self.noted(result);
                Ok(())
            }
        }
    }

    fn applied(&mut self, mut group: Group, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.applying = false;
        match result {
            Ok(()) => {
                self.reached();
                self.stuck_until = None;
                let first = group.appends.first().map(|message| message.id);
                let settled = self.ledger.settle(&group);
                if let (Err(_), Some(first)) = (&settled, first) {
                    self.ledger.rewind(first);
                }
                settled
            }
            Err(StoreError::Unfit { place, ids, reason }) => {
                self.reached();
                let gone = group.without(&ids);
                let error = StoreError::Unfit { place, ids, reason };
                if gone.is_empty() {
                    self.stuck(&group, &error);
                    return Ok(());
                }
                // Nobody loses them: they are delivered from here.
                tracing::warn!("{error}; the journal keeps what the database can't hold");
                self.applying = true;
                self.ask(Task::Apply(group))
            }
            Err(error) => {
                self.stuck(&group, &error);
                Ok(())
            }
        }
    }

    /// A group could not be carried out: all of it is to be tried again.
    fn stuck(&mut self, group: &Group, error: &StoreError) {
        if let Some(first) = group.appends.first() {
            self.ledger.rewind(first.id);
        }
        self.failed(error);
        self.stuck_until = Some(Instant::now() + wsmb_core::limits::STORE_RETRY);
    }

    fn noted<T>(&mut self, result: Result<T, StoreError>) -> Option<T> {
        match result {
            Ok(value) => {
                self.reached();
                Some(value)
            }
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }

    /// The database has answered.
    fn reached(&mut self) {
        if self.away.take().is_none() {
            return;
        }
        self.told = None;
        if self.is_uncounted {
            self.count_at = Instant::now();
        }
        self.move_at = Some(Instant::now());
        tracing::info!("the database can be used again; what the journal holds is being moved there");
    }

    /// The database has not done what it was asked.
    fn failed(&mut self, error: &StoreError) {
        let keeps = matches!(error, StoreError::ReadOnly { .. } | StoreError::Full { .. } | StoreError::Unfit { .. });
        // One that can't be opened because it is read-only is away all the same.
        if !keeps || self.away.is_some() {
            self.away = Some(Away { error: error.clone(), retry_at: Instant::now() + wsmb_core::limits::STORE_RETRY });
        }
        // One trouble may come in several wordings (refused, reset, silent).
        let kind = std::mem::discriminant(error);
        if self.told.as_ref().map(std::mem::discriminant) != Some(kind) {
            tracing::warn!("{error}; messages are kept in the journal {} meanwhile", self.ledger.place());
            self.told = Some(error.clone());
        }
    }

    /// Gives the courier what it can do now.
    fn dispatch(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.away.as_ref().is_some_and(|away| now < away.retry_at) {
            return Ok(());
        }
        // A database that has been away is asked one thing at a time until it answers.
        if self.away.is_some() && self.courier.under_way() > 0 {
            return Ok(());
        }
        if self.away.is_some() {
            return self.ask(Task::Probe);
        }
        if !self.counting && now >= self.count_at {
            self.counting = true;
            return self.ask(Task::Count(Timestamp(u64::MAX)));
        }
        if now >= self.tend_at && self.courier.under_way() == 0 {
            self.tend_at = now + limits::STORE_TEND_EVERY;
            self.ask(Task::Tend)?;
        }
        let is_due = self.move_at.is_some_and(|move_at| now >= move_at);
        if !is_due || self.applying || self.purging || self.stuck_until.is_some_and(|until| now < until) {
            return Ok(());
        }
        if self.start_restamp()? {
            return Ok(());
        }
        if let Some((channel, up_to)) = self.ledger.next_purge()? {
            self.purging = true;
            return self.ask(Task::Purge(channel, up_to, wsmb_core::limits::STORE_GROUP));
        }
        let batch = self.ledger.next_batch()?;
        self.move_at = match (batch.group.is_empty(), batch.more) {
            (true, _) => None,
            (false, true) => Some(now),
            (false, false) => Some(now + limits::JOURNAL_LINGER),
        };
        if batch.group.is_empty() {
            return Ok(());
        }
        self.applying = true;
        self.ask(Task::Apply(batch.group))
    }

    /// When [`Self::dispatch`] will have something to do that no report brings about.
    fn next_time(&self) -> Duration {
        let now = Instant::now();
        let due = match &self.away {
            Some(away) => away.retry_at,
            None => {
                let moving = self.move_at.filter(|_| !self.applying && !self.purging && !self.restamping);
                let moving = moving.map(|at| self.stuck_until.map_or(at, |until| until.max(at)));
                moving.into_iter().chain([self.count_at, self.tend_at]).min().unwrap_or(self.tend_at)
            }
        };
        due.saturating_duration_since(now).max(limits::JOURNAL_PULSE)
    }

    fn move_soon(&mut self) {
        self.move_at.get_or_insert_with(|| Instant::now() + limits::JOURNAL_LINGER);
    }
}

/// Whether waiting may help: the server is away, or does not write for now.
fn may_pass(error: &StoreError) -> bool {
    error.is_outage() || matches!(error, StoreError::ReadOnly { .. } | StoreError::Full { .. })
}

impl MessageStore for JournaledStore {
    fn commit(&mut self, group: &Group) -> Result<(), StoreError> {
        self.ledger.commit(group)?;
        let gone: HashSet<MessageId> = group.removals.iter().copied().collect();
        self.fetches.forget(&gone);
        self.sweeps.forget(&gone);
        self.move_soon();
        Ok(())
    }

    fn load(
        &mut self,
        channel: &ChannelName,
        after: MessageId,
        limit: usize,
        max_bytes: usize,
    ) -> Result<Page, StoreError> {
        loop {
            if let Some(page) = self.fetches.take(channel, after) {
                return page;
            }
            if !self.ledger.is_moved(channel, after) {
                self.fetches.abandon(channel, after);
                return self.ledger.rows.load(channel, after, limit, max_bytes);
            }
            if let Some(away) = &self.away {
                self.fetches.abandon(channel, after);
                return Err(away.error.clone());
            }
            if !self.prepare(channel, after, limit, max_bytes) && !self.wait(limits::JOURNAL_PATIENCE)? {
                return Err(self.silent());
            }
        }
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.scan_patiently(after, limit, max_bytes)
    }

    fn mark(&mut self, name: &str) -> Result<Option<u64>, StoreError> {
        self.ledger.rows.mark(name)
    }

    fn purge(&mut self, channel: &ChannelName, up_to: MessageId, limit: usize) -> Result<u64, StoreError> {
        let gone = self.ledger.purge(channel, up_to, limit)?;
        self.fetches.forget_channel(channel, up_to);
        self.sweeps.forget_channel(channel, up_to);
        self.move_soon();
        Ok(gone)
    }

    fn summary(&mut self, publications_since: Timestamp) -> Result<Summary, StoreError> {
        self.sum_up(publications_since)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.farewell()?;
        self.ledger.rows.mark_clean()
    }
}

impl Background for JournaledStore {
    fn prepare(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> bool {
        if !self.ledger.is_moved(channel, after) || self.away.is_some() {
            return true;
        }
        match self.fetches.want(channel, after, limit, max_bytes) {
            fetch::State::Ready => true,
            fetch::State::UnderWay => false,
            // An error comes up again when the page is asked for.
            fetch::State::New(wanted) => self.ask(Task::Load(wanted)).is_err(),
        }
    }

    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        self.sweep_both(now, limit, spare)
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.restamp_both(restamp)
    }

    fn rejuvenate(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.rejuvenate_both(now, up_to)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        if self.ledger.is_full(limits::STORE_PROBE_BYTES)? {
            return Err(StoreError::OverBudget { place: self.ledger.place() });
        }
        self.ledger.rows.check()
    }

    fn tend(&mut self) -> Result<(), StoreError> {
        self.ledger.rows.tend()
    }

    fn advance(&mut self, waker: &Waker) -> Option<Duration> {
        self.courier.wake_with(waker);
        if let Err(error) = self.drain().and_then(|()| self.dispatch()) {
            // The journal's own file: whoever writes to it next says so, too.
            if self.told.as_ref() != Some(&error) {
                tracing::error!("what the journal holds can't be moved: {error}");
                self.told = Some(error);
            }
            return Some(wsmb_core::limits::STORE_RETRY);
        }
        Some(self.next_time())
    }
}
