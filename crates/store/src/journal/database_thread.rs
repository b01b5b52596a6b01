//! The thread that talks to the database, so that no other thread waits for it.
//!
//! The thread carries out one task after the other and reports each in the same order: when a report is handled, no later task had been carried out
//! before it. The thread decides nothing.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::{Background, Group, Page, Restamp, StoreError, Summary, Swept};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// Opens the database's store; called again after every failure.
pub(crate) type Opener = Box<dyn FnMut() -> Result<Box<dyn Background>, StoreError> + Send>;

/// A task for the database.
#[derive(Debug)]
pub(super) enum Task {
    /// Carry out a group.
    Apply(Group),
    /// Read a page.
    Load(PageRequest),
    /// Read a page of all channels.
    Scan(MessageId, usize, usize),
    /// Remove expired rows, and read those of spared channels.
    Sweep(Timestamp, usize, Spare),
    /// Purge a channel up to an id, in parts of this many rows.
    Purge(ChannelName, MessageId, usize),
    /// Correct times.
    Restamp(Restamp),
    /// Correct rows that were created in the future.
    ClampFutureRows(Timestamp, MessageId),
    /// Return the contents.
    Count(Timestamp),
    /// Check whether the database answers, by a small read.
    Probe,
    /// Run maintenance.
    Maintain,
    /// Record an orderly stop.
    MarkClean,
}

/// The request for a page.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct PageRequest {
    pub(super) channel: ChannelName,
    pub(super) after: MessageId,
    pub(super) limit: usize,
    pub(super) max_bytes: usize,
}

/// The result of a task.
#[derive(Debug)]
pub(super) enum Report {
    /// Of [`Task::Apply`], with the group.
    Applied(Group, Result<(), StoreError>),
    /// Of [`Task::Load`].
    Loaded(PageRequest, Result<Page, StoreError>),
    /// Of [`Task::Scan`].
    Scanned(Result<Page, StoreError>),
    /// Of [`Task::Sweep`].
    Swept(Result<Swept, StoreError>),
    /// Of [`Task::Purge`].
    Purged(ChannelName, MessageId, Result<(), StoreError>),
    /// Of [`Task::Restamp`], with its token.
    Restamped(u64, Result<(), StoreError>),
    /// Of [`Task::Count`].
    Counted(Result<Summary, StoreError>),
    /// Of [`Task::ClampFutureRows`], [`Task::Probe`], [`Task::Maintain`] and [`Task::MarkClean`].
    Done(Result<(), StoreError>),
}

/// The handle to the thread. After a drop, the thread ends after its current task; the drop does not wait for it: a database that does not answer
/// must not delay the end of the process.
#[derive(Debug)]
pub(super) struct DatabaseThread {
    tasks: Sender<Task>,
    reports: Receiver<Report>,
    waker: Arc<Mutex<Option<Waker>>>,
    /// The number of tasks without a report.
    under_way: usize,
}

/// The thread has ended, which only a panic can cause.
#[derive(Clone, Copy, Debug)]
pub(super) struct ThreadDied;

impl DatabaseThread {
    /// Starts the thread, with the store if it is open already.
    ///
    /// # Errors
    /// If the system cannot create a thread.
    pub(super) fn start(store: Option<Box<dyn Background>>, opener: Opener) -> std::io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        let (outbox, reports) = mpsc::channel();
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let thread = Runner { store, opener, inbox, outbox, waker: Arc::clone(&waker) };
        std::thread::Builder::new().name("wsmb-database".to_owned()).spawn(move || thread.run())?;
        Ok(Self { tasks, reports, waker, under_way: 0 })
    }

    /// Sets the waker that is called after each report.
    pub(super) fn wake_with(&self, waker: &Waker) {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Sends the thread a task. The caller bounds the number of tasks.
    pub(super) fn ask(&mut self, task: Task) -> Result<(), ThreadDied> {
        self.tasks.send(task).map_err(|_| ThreadDied)?;
        self.under_way += 1;
        Ok(())
    }

    /// The number of tasks that have not been reported yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// The next report, if one has arrived.
    pub(super) fn try_next(&mut self) -> Result<Option<Report>, ThreadDied> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.under_way -= 1;
                Ok(Some(report))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(ThreadDied),
        }
    }

    /// Waits for the next report; `None` after `timeout`.
    pub(super) fn next(&mut self, timeout: Duration) -> Result<Option<Report>, ThreadDied> {
        match self.reports.recv_timeout(timeout) {
            Ok(report) => {
                self.under_way -= 1;
                Ok(Some(report))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(ThreadDied),
        }
    }
}

struct Runner {
    /// `None` until the store has been opened.
    store: Option<Box<dyn Background>>,
    opener: Opener,
    inbox: Receiver<Task>,
    outbox: Sender<Report>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Runner {
    fn run(mut self) {
        while let Ok(task) = self.inbox.recv() {
            let report = self.carry_out(task);
            if self.outbox.send(report).is_err() {
                return;
            }
            let waker = self.waker.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn carry_out(&mut self, task: Task) -> Report {
        match task {
            Task::Apply(group) => {
                let result = self.with(|store| store.commit(&group));
                Report::Applied(group, result)
            }
            Task::Load(wanted) => {
                let page = self.with(|store| store.load(&wanted.channel, wanted.after, wanted.limit, wanted.max_bytes));
                Report::Loaded(wanted, page)
            }
            Task::Scan(after, limit, max_bytes) => {
                Report::Scanned(self.with(|store| store.scan(after, limit, max_bytes)))
            }
            Task::Sweep(now, limit, spare) => Report::Swept(self.with(|store| store.sweep(now, limit, &spare))),
            Task::Purge(channel, up_to, limit) => {
                let result = self.with(|store| {
                    while store.purge(&channel, up_to, limit)? >= limit as u64 {}
                    Ok(())
                });
                Report::Purged(channel, up_to, result)
            }
            Task::Restamp(restamp) => Report::Restamped(restamp.token, self.with(|store| store.restamp(&restamp))),
            Task::ClampFutureRows(now, up_to) => Report::Done(self.with(|store| store.clamp_future_rows(now, up_to))),
            Task::Count(since) => Report::Counted(self.with(|store| store.summary(since))),
            Task::Probe => Report::Done(self.with(|store| store.mark("probe").map(drop))),
            Task::Maintain => Report::Done(self.with(|store| store.maintain())),
            Task::MarkClean => Report::Done(self.with(|store| store.mark_clean())),
        }
    }

    fn with<T>(&mut self, work: impl FnOnce(&mut dyn Background) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let store = match self.store.take() {
            Some(store) => store,
            None => (self.opener)()?,
        };
        work(&mut **self.store.insert(store))
    }
}
