//! The thread that talks to the database, so that nobody else ever waits for it.
//!
//! It does one task after the other and reports each in the same order: whoever hears of a report knows that nothing later has been done when
//! that was. It decides nothing.

use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::{Background, Group, Page, Restamp, StoreError, Summary, Swept};
use wsmb_core::message::{ChannelName, MessageId, Timestamp};
use wsmb_core::policy::Spare;

/// Opens the database's store; tried again whenever it failed.
pub(crate) type Opener = Box<dyn FnMut() -> Result<Box<dyn Background>, StoreError> + Send>;

/// What the database is asked for.
#[derive(Debug)]
pub(super) enum Task {
    /// Carry out a group.
    Apply(Group),
    /// Read a page.
    Load(Wanted),
    /// Read a page of everything, for a tool.
    Scan(MessageId, usize, usize),
    /// Remove expired rows, and read those of spared channels.
    Sweep(Timestamp, usize, Spare),
    /// Empty a channel up to an id, in parts of so many rows.
    Purge(ChannelName, MessageId, usize),
    /// Correct times.
    Restamp(Restamp),
    /// Take rows from the future as created now.
    Rejuvenate(Timestamp, MessageId),
    /// Say what is there.
    Count(Timestamp),
    /// Say whether it is there, by reading something small.
    Probe,
    /// Housekeeping.
    Tend,
    /// Note an orderly stop.
    MarkClean,
}

/// A page that is wanted.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Wanted {
    pub(super) channel: ChannelName,
    pub(super) after: MessageId,
    pub(super) limit: usize,
    pub(super) max_bytes: usize,
}

/// What has become of a task.
#[derive(Debug)]
pub(super) enum Report {
    /// Of [`Task::Apply`], with the group.
    Applied(Group, Result<(), StoreError>),
    /// Of [`Task::Load`].
    Loaded(Wanted, Result<Page, StoreError>),
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
    /// Of [`Task::Rejuvenate`], [`Task::Probe`], [`Task::Tend`] and [`Task::MarkClean`].
    Done(Result<(), StoreError>),
}

/// The way to the thread. Dropped, it lets the thread end after the task it is at, and does not wait for it: a database that does not answer must not
/// hold up anybody's end.
#[derive(Debug)]
pub(super) struct Courier {
    tasks: Sender<Task>,
    reports: Receiver<Report>,
    waker: Arc<Mutex<Option<Waker>>>,
    /// Tasks without a report.
    under_way: usize,
}

/// The thread is gone, which only a defect can bring about.
#[derive(Clone, Copy, Debug)]
pub(super) struct Gone;

impl Courier {
    /// Starts the thread, with the store if it is open already.
    ///
    /// # Errors
    /// If the system makes no thread.
    pub(super) fn start(store: Option<Box<dyn Background>>, opener: Opener) -> std::io::Result<Self> {
        let (tasks, inbox) = mpsc::channel();
        let (outbox, reports) = mpsc::channel();
        let waker: Arc<Mutex<Option<Waker>>> = Arc::default();
        let thread = Thread { store, opener, inbox, outbox, waker: Arc::clone(&waker) };
        std::thread::Builder::new().name("wsmb-courier".to_owned()).spawn(move || thread.run())?;
        Ok(Self { tasks, reports, waker, under_way: 0 })
    }

    /// From now on this one is called after each report.
    pub(super) fn wake_with(&self, waker: &Waker) {
        let mut known = self.waker.lock().unwrap_or_else(PoisonError::into_inner);
        if !known.as_ref().is_some_and(|known| known.will_wake(waker)) {
            *known = Some(waker.clone());
        }
    }

    /// Gives the thread a task. The caller bounds how many.
    pub(super) fn ask(&mut self, task: Task) -> Result<(), Gone> {
        self.tasks.send(task).map_err(|_| Gone)?;
        self.under_way += 1;
        Ok(())
    }

    /// Tasks that have not been reported yet.
    pub(super) fn under_way(&self) -> usize {
        self.under_way
    }

    /// The next report, if there is one.
    pub(super) fn try_next(&mut self) -> Result<Option<Report>, Gone> {
        match self.reports.try_recv() {
            Ok(report) => {
                self.under_way -= 1;
                Ok(Some(report))
            }
            Err(TryRecvError::Empty) => Ok(None),
            Err(TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// Waits for the next report; `None` after `patience`.
    pub(super) fn next(&mut self, patience: Duration) -> Result<Option<Report>, Gone> {
        match self.reports.recv_timeout(patience) {
            Ok(report) => {
                self.under_way -= 1;
                Ok(Some(report))
            }
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => Err(Gone),
        }
    }
}

struct Thread {
    /// `None` until it could be opened.
    store: Option<Box<dyn Background>>,
    opener: Opener,
    inbox: Receiver<Task>,
    outbox: Sender<Report>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Thread {
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
            Task::Rejuvenate(now, up_to) => Report::Done(self.with(|store| store.rejuvenate(now, up_to))),
            Task::Count(since) => Report::Counted(self.with(|store| store.summary(since))),
            Task::Probe => Report::Done(self.with(|store| store.mark("probe").map(drop))),
            Task::Tend => Report::Done(self.with(|store| store.tend())),
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
