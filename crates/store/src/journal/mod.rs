//! A local file in front of a database server: accepted messages are durable in the file, and are moved to the server when it can be reached.
//!
//! ```text
//! StoreWorker ─► JournaledStore ─► Ledger (SQLite): rows not moved yet, pending changes       commit returns here
//!                      │  ▲
//!                 Task ▼  │ Report
//!                    DatabaseThread ─► MessageStore of the database
//! ```
//!
//! Callers see each row in one place: in the journal until the database holds it, in the database after that. Rows are moved in the order of their
//! ids, after a short delay, so that messages that are confirmed at once are never moved. Messages with a due time stay in the journal until they are
//! due.
//!
//! Only these calls wait for the database: [`JournaledStore::open`], [`MessageStore::summary`], a [`MessageStore::load`] that was not prepared, and,
//! for a bounded time, an orderly stop.

mod blocking;
mod database_thread;
mod expired;
mod fetch;
mod ledger;
mod merge;
mod names;
mod offline;
mod outage;
mod restamp;
mod sweep;
#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::{Background, Group, JournalSettings, MessageStore, Page, Prefix, Restamp, StoreError, Summary, Swept};
use crate::limits;
pub(super) use database_thread::Opener;
use database_thread::{DatabaseThread, Report, Task, ThreadDied};
use expired::Sweeps;
use fetch::Fetches;
use ledger::Ledger;
pub(super) use offline::OfflineStore;
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// A store on a database server, with a journal in front of it.
#[derive(Debug)]
pub struct JournaledStore {
    ledger: Ledger,
    database_thread: DatabaseThread,
    fetches: Fetches,
    /// The database thread is carrying out a group.
    applying: bool,
    purging: bool,
    restamping: bool,
    /// The pending correction of rows of the database that were created in the future: the current time, and the highest id.
    future_clamp: Option<(Timestamp, MessageId)>,
    sweeps: Sweeps,
    counting: bool,
    /// The rows of the database have not been counted since the start.
    is_uncounted: bool,
    /// When the next group is moved; `None`: there is nothing to move.
    move_at: Option<Instant>,
    /// When the rows of the database are counted again.
    count_at: Instant,
    maintain_at: Instant,
    /// Set while the database cannot be used.
    outage: Option<Outage>,
    /// Set while the database can be used but not written: when the write is retried.
    write_retry_at: Option<Instant>,
    /// The last logged error.
    last_logged: Option<StoreError>,
}

/// An outage of the database.
#[derive(Debug)]
struct Outage {
    error: StoreError,
    /// When the database is tried again.
    retry_at: Instant,
}

impl JournaledStore {
    /// Opens the file and the database. The database may be unreachable if the journal has been used with it before.
    ///
    /// `database` is the address of the database, without secrets.
    ///
    /// # Errors
    /// Any error of the file; [`StoreError::JournalOfAnother`]; any error of the database, unless it is only unreachable.
    pub(super) fn open(
        settings: &JournalSettings,
        prefix: &Prefix,
        database: &str,
        mut opener: Opener,
    ) -> Result<Self, StoreError> {
        let mut ledger = Ledger::open(&settings.path, settings.bytes, prefix)?;
        let known = ledger.database()?;
        if let Some(other) = known.as_ref().filter(|known| *known != database) {
            let (messages, changes) = ledger.waiting()?;
            if messages + changes > 0 {
                let (place, other) = (ledger.place(), other.clone());
                return Err(StoreError::JournalOfAnother { place, other, messages });
            }
        }
        let is_own = known.as_deref() == Some(database);
        let (store, error) = match opener() {
            Ok(store) => (Some(store), None),
            // The first start must reach the database, to check the address.
            Err(error) if is_temporary(&error) && is_own => (None, Some(error)),
            Err(error) => return Err(error),
        };
        if !is_own {
            ledger.bind_to(database)?;
        }
        let place = ledger.place();
        let database_thread = DatabaseThread::start(store, opener)
            .map_err(|error| StoreError::Unavailable { place, detail: format!("can't start a thread: {error}") })?;
        let now = Instant::now();
        let mut journaled = Self {
            ledger,
            database_thread,
            fetches: Fetches::default(),
            applying: false,
            purging: false,
            restamping: false,
            future_clamp: None,
            sweeps: Sweeps::default(),
            counting: false,
            is_uncounted: true,
            move_at: Some(now),
            count_at: now + limits::JOURNAL_COUNT_EVERY,
            maintain_at: now + limits::STORE_MAINTENANCE_EVERY,
            outage: None,
            write_retry_at: None,
            last_logged: None,
        };
        if let Some(error) = error {
            journaled.database_failed(&error);
        }
        Ok(journaled)
    }

    /// Handles every report that has arrived.
    fn drain(&mut self) -> Result<(), StoreError> {
        while let Some(report) = self.database_thread.try_next().map_err(|died| self.thread_died(died))? {
            self.handle(report)?;
        }
        Ok(())
    }

    /// Waits for one report and handles it; false if none arrived in time.
    fn wait(&mut self, timeout: Duration) -> Result<bool, StoreError> {
        match self.database_thread.next(timeout).map_err(|died| self.thread_died(died))? {
            Some(report) => self.handle(report).map(|()| true),
            None => Ok(false),
        }
    }

    /// The database thread has panicked, and the panic is in the log: no more rows can be moved. This thread panics too, and ends the process.
    fn thread_died(&self, ThreadDied: ThreadDied) -> StoreError {
        std::panic::resume_unwind(Box::new("the thread of the database has died"))
    }

    fn ask(&mut self, task: Task) -> Result<(), StoreError> {
        let asked = self.database_thread.ask(task);
        asked.map_err(|died| self.thread_died(died))
    }

    /// Handles a report. A returned error concerns the journal's own file; errors of the database are recorded.
    fn handle(&mut self, report: Report) -> Result<(), StoreError> {
        match report {
            Report::Applied(group, result) => self.applied(group, result),
            Report::Loaded(wanted, result) => {
                let result = result.inspect_err(|error| self.database_failed(error));
                if result.is_ok() {
                    self.database_answered();
                }
                let again = self.fetches.receive(&mut self.ledger, wanted, result)?;
                again.map_or(Ok(()), |wanted| self.ask(Task::Load(wanted)))
            }
            Report::Swept(result) => self.swept(result),
            Report::Purged(channel, up_to, result) => {
                self.purging = false;
                if self.record_result(result).is_none() {
                    // A read-only server refuses every attempt at once.
                    self.write_retry_at = Some(Instant::now() + wsmb_core::limits::STORE_RETRY);
                    return Ok(());
                }
                self.ledger.purged(&channel, up_to)
            }
            Report::Restamped(token, result) => self.restamped(token, result),
            Report::Counted(result) => {
                self.counting = false;
                self.count_at = Instant::now() + limits::JOURNAL_COUNT_EVERY;
                let Some(found) = self.record_result(result) else { return Ok(()) };
                self.is_uncounted = false;
                self.ledger.recount(&found.channels, found.last_id)
            }
            // The caller that requested the page has stopped waiting.
            Report::Scanned(result) => {
                self.record_result(result);
                Ok(())
            }
            Report::Done(result) => {
                self.record_result(result);
                Ok(())
            }
        }
    }

    fn applied(&mut self, mut group: Group, result: Result<(), StoreError>) -> Result<(), StoreError> {
        self.applying = false;
        match result {
            Ok(()) => {
                self.database_answered();
                self.write_retry_at = None;
                let first = group.appends.first().map(|message| message.id);
                let acknowledged = self.ledger.acknowledge(&group);
                if let (Err(_), Some(first)) = (&acknowledged, first) {
                    self.ledger.rewind(first);
                }
                acknowledged
            }
            Err(StoreError::Unfit { place, ids, reason }) => {
                self.database_answered();
                let gone = group.without(&ids);
                let error = StoreError::Unfit { place, ids, reason };
                if gone.is_empty() {
                    self.retry_later(&group, &error);
                    return Ok(());
                }
                // These messages are delivered from the journal.
                tracing::warn!("{error}; the journal keeps these messages");
                self.applying = true;
                self.ask(Task::Apply(group))
            }
            Err(error) => {
                self.retry_later(&group, &error);
                Ok(())
            }
        }
    }

    /// Sends the database thread the work that it can do now.
    fn dispatch(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        if self.outage.as_ref().is_some_and(|outage| now < outage.retry_at) {
            return Ok(());
        }
        // After an outage, the database gets one request at a time until it answers.
        if self.outage.is_some() && self.database_thread.under_way() > 0 {
            return Ok(());
        }
        if self.outage.is_some() {
            return self.ask(Task::Probe);
        }
        if !self.counting && now >= self.count_at {
            self.counting = true;
            return self.ask(Task::Count(Timestamp(u64::MAX)));
        }
        if now >= self.maintain_at && self.database_thread.under_way() == 0 {
            self.maintain_at = now + limits::STORE_MAINTENANCE_EVERY;
            self.ask(Task::Maintain)?;
        }
        let is_due = self.move_at.is_some_and(|move_at| now >= move_at);
        if !is_due || self.applying || self.purging || self.write_retry_at.is_some_and(|until| now < until) {
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

    /// The time until [`Self::dispatch`] has work that no report triggers.
    fn next_time(&self) -> Duration {
        let now = Instant::now();
        let due = match &self.outage {
            Some(outage) => outage.retry_at,
            None => {
                let moving = self.move_at.filter(|_| !self.applying && !self.purging && !self.restamping);
                let moving = moving.map(|at| self.write_retry_at.map_or(at, |until| until.max(at)));
                moving.into_iter().chain([self.count_at, self.maintain_at]).min().unwrap_or(self.maintain_at)
            }
        };
        due.saturating_duration_since(now).max(limits::JOURNAL_MIN_INTERVAL)
    }

    fn move_soon(&mut self) {
        self.move_at.get_or_insert_with(|| Instant::now() + limits::JOURNAL_LINGER);
    }
}

/// Whether waiting may help: the server is unreachable, or temporarily refuses writes.
fn is_temporary(error: &StoreError) -> bool {
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
            if !self.ledger.may_be_in_database(channel, after) {
                self.fetches.abandon(channel, after);
                return self.ledger.rows.load(channel, after, limit, max_bytes);
            }
            if let Some(outage) = &self.outage {
                self.fetches.abandon(channel, after);
                return Err(outage.error.clone());
            }
            if !self.prepare(channel, after, limit, max_bytes) && !self.wait(limits::JOURNAL_ANSWER)? {
                return Err(self.no_answer());
            }
        }
    }

    fn scan(&mut self, after: MessageId, limit: usize, max_bytes: usize) -> Result<Page, StoreError> {
        self.scan_blocking(after, limit, max_bytes)
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
        self.summary_blocking(publications_since)
    }

    fn mark_clean(&mut self) -> Result<(), StoreError> {
        self.flush_before_stop()?;
        self.ledger.rows.mark_clean()
    }
}

impl Background for JournaledStore {
    fn prepare(&mut self, channel: &ChannelName, after: MessageId, limit: usize, max_bytes: usize) -> bool {
        if !self.ledger.may_be_in_database(channel, after) || self.outage.is_some() {
            return true;
        }
        match self.fetches.request(channel, after, limit, max_bytes) {
            fetch::State::Ready => true,
            fetch::State::UnderWay => false,
            // The error occurs again when the page is requested.
            fetch::State::New(wanted) => self.ask(Task::Load(wanted)).is_err(),
        }
    }

    fn sweep(&mut self, now: Timestamp, limit: usize, spare: &Spare) -> Result<Swept, StoreError> {
        self.sweep_both(now, limit, spare)
    }

    fn restamp(&mut self, restamp: &Restamp) -> Result<(), StoreError> {
        self.restamp_both(restamp)
    }

    fn clamp_future_rows(&mut self, now: Timestamp, up_to: MessageId) -> Result<(), StoreError> {
        self.clamp_future_rows_both(now, up_to)
    }

    fn check(&mut self) -> Result<(), StoreError> {
        self.ledger.rows.check_room(limits::STORE_PROBE_BYTES)?;
        self.ledger.rows.check()
    }

    fn maintain(&mut self) -> Result<(), StoreError> {
        self.ledger.rows.maintain()
    }

    fn advance(&mut self, waker: &Waker) -> Option<Duration> {
        self.database_thread.wake_with(waker);
        if let Err(error) = self.drain().and_then(|()| self.dispatch()) {
            // An error of the journal's own file; the next write to the file reports it too.
            if self.last_logged.as_ref() != Some(&error) {
                tracing::error!("the rows of the journal can't be moved: {error}");
                self.last_logged = Some(error);
            }
            return Some(wsmb_core::limits::STORE_RETRY);
        }
        Some(self.next_time())
    }
}
