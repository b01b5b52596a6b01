//! The loops that serve sockets (`server.threads`), and how a session's queue is flushed on its own loop.
//!
//! ```text
//! turn on loop 0 ─► touched sessions ─┬─ of loop 0: flushed at once
//!                                     └─ of loop n: its list ─► loop n flushes them
//! ```
//!
//! Each loop has its own thread, its own sessions and its own flushes; the core is one for all. With one loop, whoever touches a session flushes it, and
//! nothing here costs anything.
//!
//! Never here: the core, a decision about what is sent.

use std::cell::Cell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};

use super::fatal::Fatal;
use super::session::Session;

thread_local! {
    /// The number of the loop that runs on this thread.
    static HERE: Cell<u16> = const { Cell::new(NO_LOOP) };
}

/// The number of no loop.
const NO_LOOP: u16 = u16::MAX;

/// All loops of a server. The first one is the caller's own runtime.
#[derive(Debug)]
pub(super) struct Loops {
    lists: Box<[FlushList]>,
    next: AtomicUsize,
}

/// The sessions of one loop that other threads have touched.
#[derive(Debug, Default)]
struct FlushList {
    /// Each session once at most: its queue remembers that it is here.
    sessions: Mutex<Vec<Arc<Session>>>,
    filled: Notify,
}

impl FlushList {
    fn lock(&self) -> MutexGuard<'_, Vec<Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the loop flush these sessions.
    fn add<'a>(&self, sessions: impl Iterator<Item = &'a Arc<Session>>) {
        let mut sessions = sessions.filter(|session| session.queue().enlist()).peekable();
        if sessions.peek().is_some() {
            self.lock().extend(sessions.cloned());
            self.filled.notify_one();
        }
    }

    fn take(&self) -> Vec<Arc<Session>> {
        std::mem::take(&mut *self.lock())
    }
}

impl Loops {
    /// As many as there are to be; at least one.
    pub(super) fn new(count: u16) -> Self {
        Self { lists: (0..count.max(1)).map(|_| FlushList::default()).collect(), next: AtomicUsize::new(0) }
    }

    /// How many there are.
    pub(super) fn count(&self) -> usize {
        self.lists.len()
    }

    /// The loop of the next connection: each in turn.
    pub(super) fn choose(&self) -> u16 {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.lists.len();
        u16::try_from(next).unwrap_or_default()
    }

    /// The number of the loop that runs on this thread; [`NO_LOOP`] on any other thread. With one loop every thread counts as that.
    pub(super) fn here(&self) -> u16 {
        if self.lists.len() == 1 { 0 } else { HERE.get() }
    }

    /// Flushes the sessions: those of this loop at once, the others on theirs.
    pub(super) fn flush(&self, sessions: &[Arc<Session>]) {
        if self.lists.len() == 1 {
            return sessions.iter().for_each(|session| session.flush());
        }
        let here = self.here();
        // The other loops first, so that they write while this one does.
        for (number, list) in (0..).zip(&self.lists) {
            if here != number {
                list.add(sessions.iter().filter(|session| session.home == number));
            }
        }
        for session in sessions.iter().filter(|session| session.home == here) {
            session.flush();
        }
    }

    /// The task of one loop that flushes what other threads have touched. `number`: the loop on which it runs.
    pub(super) async fn run_flushes(self: Arc<Self>, number: u16) {
        HERE.set(number);
        let Some(list) = self.lists.get(usize::from(number)) else { return };
        loop {
            list.filled.notified().await;
            for session in list.take() {
                session.flush();
            }
        }
    }
}

/// The threads of all loops but the first.
#[derive(Debug)]
pub(super) struct Threads {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Threads {
    /// Starts a thread for each loop but the first.
    ///
    /// # Errors
    /// The system makes no thread or no runtime.
    pub(super) fn start(loops: &Arc<Loops>, fatal: &Arc<Fatal>) -> std::io::Result<Self> {
        let (stop, _) = watch::channel(false);
        let mut all = Self { handles: vec![Handle::current()], threads: Vec::new(), stop };
        for number in 1..loops.count() {
            let number = u16::try_from(number).unwrap_or_default();
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.handles.push(runtime.handle().clone());
            let (loops, mut stop) = (loops.clone(), all.stop.subscribe());
            let watch = Watch(fatal.clone());
            let thread = std::thread::Builder::new().name(format!("wsmb-loop-{number}")).spawn(move || {
                runtime.spawn(async move {
                    let _watch = watch;
                    loops.run_flushes(number).await;
                });
                // The sender is dropped with the server, and that is a stop, too.
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
            })?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// Where tasks of a loop are spawned.
    pub(super) fn handle(&self, number: u16) -> &Handle {
        // invariant: loop numbers come from the same `Loops`.
        self.handles.get(usize::from(number)).unwrap_or(&self.handles[0])
    }
}

/// Declares the death of the task that holds it, if it panics: the sockets of its loop would be written no more.
struct Watch(Arc<Fatal>);

impl Drop for Watch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.declare("a thread of sockets");
        }
    }
}

impl Drop for Threads {
    /// Ends the threads and with them their tasks.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic in it has been told by its own message.
            let _ = thread.join();
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::io::AsyncReadExt as _;

    use super::*;
    use crate::queue::Pushed;
    use crate::session::open;
    use wsmb_core::message::ConnectionId;

    fn push(session: &Session) {
        let pushed = session.queue().push(Bytes::from_static(b"\x81\x01x"), 1_000);
        assert_eq!(pushed, Pushed::Queued { first: true });
    }

    #[tokio::test]
    async fn a_session_is_flushed_on_its_own_loop_and_nowhere_else() {
        let loops = Arc::new(Loops::new(2));
        let (here, _here) = open(ConnectionId(1), 0).await;
        let (there, mut client) = open(ConnectionId(2), 1).await;
        push(&here);
        push(&there);
        HERE.set(0);
        loops.flush(&[here.clone(), there.clone()]);
        assert_eq!((here.queue().bytes(), there.queue().bytes()), (0, 3));
        // A loop that is busy does not get a longer list from each turn.
        loops.flush(std::slice::from_ref(&there));
        assert_eq!(loops.lists[1].lock().len(), 1);
        // The other loop, on a thread of its own.
        let fatal = Arc::new(Fatal::default());
        let threads = Threads::start(&loops, &fatal).unwrap();
        let mut frame = [0; 3];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x01x");
        // Its thread has ended, so it has noted what it has written.
        drop(threads);
        assert_eq!(there.queue().bytes(), 0);
        assert!(!fatal.is_declared());
    }

    #[tokio::test]
    async fn the_only_loop_flushes_at_once_whoever_calls() {
        let loops = Loops::new(1);
        let (session, _client) = open(ConnectionId(1), 0).await;
        push(&session);
        HERE.set(NO_LOOP);
        loops.flush(std::slice::from_ref(&session));
        assert_eq!(session.queue().bytes(), 0);
    }

    #[test]
    fn connections_are_given_to_each_loop_in_turn() {
        let loops = Loops::new(3);
        assert_eq!(Vec::from_iter((0..6).map(|_| loops.choose())), [0, 1, 2, 0, 1, 2]);
    }
}
