//! The event loops that serve sockets (`server.threads`). Each session's queue is flushed on the loop of the session.
//!
//! ```text
//! turn on loop 0 ─► touched sessions ─┬─ of loop 0, the first ones: flushed at once
//!                                     ├─ of loop 0, the rest: its list ─► loop 0 flushes them in slices
//!                                     └─ of loop n: its list ─► loop n flushes them in slices, few before many
//! ```
//!
//! Each loop has its own thread and its own sessions; all share one core. A message for thousands of receivers, or a long one for many, is written in
//! slices, so that timers, logins and other messages do not wait for all of these writes. The session that has published it is read on when the lists
//! of all loops are empty: a loop that is not waited for would be given more and more to write. What a turn has queued for a few sessions of another
//! loop does not wait behind the thousands of such a message.
//!
//! Never here: the core; a decision about the frames that are sent.

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio::sync::{Notify, watch};

use super::fatal::Fatal;
use super::session::Session;
use super::turns::{TurnCause, Turns};
use crate::limits;

thread_local! {
    /// The number of the loop that runs on this thread.
    static HERE: Cell<u16> = const { Cell::new(NO_LOOP) };
}

/// The number that stands for no loop.
const NO_LOOP: u16 = u16::MAX;

/// All loops of a server. The first is the caller's runtime.
#[derive(Debug)]
pub(super) struct Loops {
    lists: Box<[FlushList]>,
    next: AtomicUsize,
    /// How long the turns of all loops take.
    pub(super) turns: Turns,
}

/// The sessions of one loop that were touched by other threads, or by a turn that has touched many.
#[derive(Debug, Default)]
struct FlushList {
    state: Mutex<FlushState>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct FlushState {
    /// The sessions of turns that have touched few, each session at most once in either part: its queue remembers whether it is in the list.
    few: VecDeque<Arc<Session>>,
    /// The sessions of turns that have more than a slice to write.
    many: VecDeque<Arc<Session>>,
    /// The next session is taken from `many`: the parts take turns, so that neither waits for the other.
    is_turn_of_many: bool,
    /// The tasks that wait until `many` is empty: sessions that have published to many receivers.
    waiting: Vec<Waker>,
}

impl FlushState {
    fn pop(&mut self) -> Option<Arc<Session>> {
        let Self { few, many, is_turn_of_many, .. } = self;
        let many_first = std::mem::replace(is_turn_of_many, !*is_turn_of_many);
        let (first, second) = if many_first { (many, few) } else { (few, many) };
        first.pop_front().or_else(|| second.pop_front())
    }
}

impl FlushList {
    fn lock(&self) -> MutexGuard<'_, FlushState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds sessions of one turn for the loop to flush. Returns true if they have more than a slice queued, whether they are new in the list or not.
    fn add<'a>(&self, sessions: impl Iterator<Item = &'a Arc<Session>>) -> bool {
        let mut queued = Slice::default();
        let is_new = |session: &&Arc<Session>| {
            let mut queue = session.queue();
            queued.add(queue.bytes());
            queue.enlist()
        };
        let new: Vec<_> = sessions.filter(is_new).cloned().collect();
        if !new.is_empty() {
            let FlushState { few, many, .. } = &mut *self.lock();
            if queued.is_full() { many } else { few }.extend(new);
            self.filled.notify_one();
        }
        queued.is_full()
    }

    /// Adds what is left of a turn that has filled a slice.
    fn add_rest<'a>(&self, sessions: impl Iterator<Item = &'a Arc<Session>>) {
        self.lock().many.extend(sessions.filter(|session| session.queue().enlist()).cloned());
        self.filled.notify_one();
    }

    /// Flushes a slice of the list. Returns false if the list is empty; then the waiting tasks were woken.
    fn flush_slice(&self) -> bool {
        let mut slice = Slice::default();
        while !slice.is_full() {
            let Some(session) = self.pop() else { return false };
            slice.add(session.flush());
        }
        true
    }

    fn pop(&self) -> Option<Arc<Session>> {
        let mut state = self.lock();
        // Before the next one is taken: the last one of `many` is written by now.
        if state.many.is_empty() {
            state.many.shrink_to(limits::FLUSHED_AT_ONCE);
            std::mem::take(&mut state.waiting).into_iter().for_each(Waker::wake);
        }
        state.pop()
    }

    /// Whether nothing of a turn with more than a slice is left. Otherwise `waker` is woken then.
    fn has_flushed(&self, waker: &Waker) -> bool {
        let mut state = self.lock();
        let is_empty = state.many.is_empty();
        if !is_empty && !state.waiting.iter().any(|known| known.will_wake(waker)) {
            state.waiting.push(waker.clone());
        }
        is_empty
    }
}

/// Sessions that are flushed one after the other, and their bytes.
#[derive(Clone, Copy, Debug, Default)]
struct Slice {
    sessions: usize,
    bytes: usize,
}

impl Slice {
    fn add(&mut self, bytes: usize) {
        self.sessions += 1;
        self.bytes += bytes;
    }

    /// Whether other connections must be served before more is written.
    fn is_full(self) -> bool {
        self.sessions >= limits::FLUSHED_AT_ONCE || self.bytes >= limits::FLUSHED_BYTES_AT_ONCE
    }
}

impl Loops {
    /// Creates `count` loops, at least one.
    pub(super) fn new(count: u16) -> Self {
        let lists = (0..count.max(1)).map(|_| FlushList::default()).collect();
        Self { lists, next: AtomicUsize::new(0), turns: Turns::default() }
    }

    pub(super) fn count(&self) -> usize {
        self.lists.len()
    }

    /// Returns the loop of the next connection: round robin.
    pub(super) fn choose(&self) -> u16 {
        let next = self.next.fetch_add(1, Ordering::Relaxed) % self.lists.len();
        u16::try_from(next).unwrap_or_default()
    }

    /// The number of the loop that runs on this thread; [`NO_LOOP`] on other threads. With one loop, 0 on every thread.
    pub(super) fn here(&self) -> u16 {
        if self.lists.len() == 1 { 0 } else { HERE.get() }
    }

    /// Flushes the sessions: a slice of those of this loop at once, the rest later, the others on their loops. Returns true if a loop has more than a
    /// slice to write.
    pub(super) fn flush(&self, sessions: &[Arc<Session>]) -> bool {
        let here = self.here();
        if self.lists.len() == 1 {
            return self.flush_here(here, sessions.iter());
        }
        let mut is_left = false;
        // The other loops first, so that they write while this one does.
        for (number, list) in (0..).zip(&self.lists) {
            if here != number {
                is_left |= list.add(sessions.iter().filter(|session| session.home == number));
            }
        }
        self.flush_here(here, sessions.iter().filter(|session| session.home == here)) || is_left
    }

    fn flush_here<'a>(&self, here: u16, mut sessions: impl Iterator<Item = &'a Arc<Session>>) -> bool {
        let mut slice = Slice::default();
        while !slice.is_full()
            && let Some(session) = sessions.next()
        {
            slice.add(session.flush());
        }
        let Some(list) = self.lists.get(usize::from(here)) else { return false };
        let mut rest = sessions.peekable();
        let is_left = rest.peek().is_some();
        if is_left {
            list.add_rest(rest);
        }
        is_left
    }

    /// Whether a session may be read that has published to many receivers: all of them were flushed. Otherwise `waker` is woken then.
    pub(super) fn has_flushed(&self, waker: &Waker) -> bool {
        self.lists.iter().all(|list| list.has_flushed(waker))
    }

    /// The task of one loop that flushes the sessions that other threads have touched. `number`: the loop that runs the task.
    pub(super) async fn run_flushes(self: Arc<Self>, number: u16) {
        HERE.set(number);
        let Some(list) = self.lists.get(usize::from(number)) else { return };
        loop {
            list.filled.notified().await;
            while self.turns.measure(TurnCause::Flush, || list.flush_slice()) {
                tokio::task::yield_now().await;
            }
        }
    }
}

/// The threads of all loops except the first.
#[derive(Debug)]
pub(super) struct Threads {
    handles: Vec<Handle>,
    threads: Vec<JoinHandle<()>>,
    stop: watch::Sender<bool>,
}

impl Threads {
    /// Starts a thread for each loop except the first.
    ///
    /// # Errors
    /// The system creates no thread or no runtime.
    pub(super) fn start(loops: &Arc<Loops>, fatal: &Arc<Fatal>) -> std::io::Result<Self> {
        let (stop, _) = watch::channel(false);
        let mut all = Self { handles: vec![Handle::current()], threads: Vec::new(), stop };
        for number in 1..loops.count() {
            let number = u16::try_from(number).unwrap_or_default();
            let runtime = Builder::new_current_thread().enable_all().build()?;
            all.handles.push(runtime.handle().clone());
            let (loops, mut stop) = (loops.clone(), all.stop.subscribe());
            let guard = PanicGuard(fatal.clone());
            let thread = std::thread::Builder::new().name(format!("wsmb-loop-{number}")).spawn(move || {
                runtime.spawn(async move {
                    let _guard = guard;
                    loops.run_flushes(number).await;
                });
                // An error means that the sender was dropped with the server; the loop stops too.
                let _ = runtime.block_on(stop.wait_for(|stop| *stop));
            })?;
            all.threads.push(thread);
        }
        Ok(all)
    }

    /// The runtime of a loop.
    pub(super) fn handle(&self, number: u16) -> &Handle {
        // invariant: loop numbers come from the same `Loops`.
        self.handles.get(usize::from(number)).unwrap_or(&self.handles[0])
    }
}

/// Declares the defect when the task that holds this value panics: the sockets of its loop would not be flushed any more.
struct PanicGuard(Arc<Fatal>);

impl Drop for PanicGuard {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.declare("a thread of sockets");
        }
    }
}

impl Drop for Threads {
    /// Ends the threads and their tasks.
    fn drop(&mut self) {
        self.stop.send_replace(true);
        for thread in self.threads.drain(..) {
            // A panic of the thread has written its own message.
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
        // A session is in the list at most once, so the list of a busy loop does not grow with each turn.
        loops.flush(std::slice::from_ref(&there));
        assert_eq!(loops.lists[1].lock().few.len(), 1);
        // The other loop, on a thread of its own.
        let fatal = Arc::new(Fatal::default());
        let threads = Threads::start(&loops, &fatal).unwrap();
        let mut frame = [0; 3];
        client.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x01x");
        // The thread has ended, so it has recorded its writes.
        drop(threads);
        assert_eq!(there.queue().bytes(), 0);
        assert!(!fatal.is_declared());
    }

    #[tokio::test]
    async fn a_single_loop_flushes_at_once_on_any_thread() {
        let loops = Loops::new(1);
        let (session, _client) = open(ConnectionId(1), 0).await;
        push(&session);
        HERE.set(NO_LOOP);
        loops.flush(std::slice::from_ref(&session));
        assert_eq!(session.queue().bytes(), 0);
    }

    #[tokio::test]
    async fn many_sessions_are_flushed_in_slices() {
        let loops = Arc::new(Loops::new(1));
        let (mut sessions, mut clients) = (Vec::new(), Vec::new());
        for id in 0..=limits::FLUSHED_AT_ONCE as u64 {
            let (session, client) = open(ConnectionId(id), 0).await;
            push(&session);
            sessions.push(session);
            clients.push(client);
        }
        let (last, first) = sessions.split_last().unwrap();
        assert!(!loops.flush(first), "one slice");
        assert!(first.iter().all(|session| session.queue().bytes() == 0));
        first.iter().for_each(|session| push(session));
        assert!(loops.flush(&sessions), "one more than a slice");
        assert!(first.iter().all(|session| session.queue().bytes() == 0));
        assert_eq!(last.queue().bytes(), 3);
        // Whoever waits for the rest is woken when it is flushed.
        let flushed = std::future::poll_fn(|cx| {
            if loops.has_flushed(cx.waker()) { std::task::Poll::Ready(()) } else { std::task::Poll::Pending }
        });
        tokio::select! {
            () = loops.clone().run_flushes(0) => {}
            () = flushed => {}
        }
        assert_eq!(last.queue().bytes(), 0);
    }

    /// Opens sessions of the loop `home`, each with this frame in its queue.
    async fn queued(count: usize, home: u16, frame: &Bytes) -> (Vec<Arc<Session>>, Vec<tokio::net::TcpStream>) {
        let (mut sessions, mut clients) = (Vec::new(), Vec::new());
        for id in 0..count as u64 {
            let (session, client) = open(ConnectionId(id), home).await;
            session.queue().push(frame.clone(), 1 << 20);
            sessions.push(session);
            clients.push(client);
        }
        (sessions, clients)
    }

    /// A few sessions with much to write are flushed in slices, too.
    #[tokio::test]
    async fn a_slice_has_few_bytes() {
        let loops = Arc::new(Loops::new(1));
        let count = limits::FLUSHED_AT_ONCE - 1;
        let (sessions, _clients) = queued(count, 0, &Bytes::from(vec![0; 64 << 10])).await;
        assert!(loops.flush(&sessions), "more than a slice");
        let unwritten: usize = sessions.iter().map(|session| session.queue().bytes()).sum();
        let written = (count << 16) - unwritten;
        assert!(written >= limits::FLUSHED_BYTES_AT_ONCE, "{written} bytes");
        assert!(written < limits::FLUSHED_BYTES_AT_ONCE + (64 << 10), "{written} bytes");
        assert!(loops.lists[0].flush_slice(), "more is left");
    }

    /// The sender must not get ahead of another loop: the queues of that loop would grow until their receivers count as slow.
    #[tokio::test]
    async fn a_sender_waits_for_all_loops_that_have_much_to_write() {
        let loops = Arc::new(Loops::new(2));
        HERE.set(0);
        let frame = Bytes::from_static(b"\x81\x01x");
        let (sessions, _clients) = queued(limits::FLUSHED_AT_ONCE, 1, &frame).await;
        let waker = Waker::noop();
        assert!(!loops.flush(&sessions[1..]), "less than a slice");
        assert!(loops.flush(&sessions), "also if most of them are in the list already");
        assert!(!loops.has_flushed(waker));
        assert!(loops.lists[1].flush_slice() && loops.has_flushed(waker));
        let (large, _clients) = queued(32, 1, &Bytes::from(vec![0; 64 << 10])).await;
        assert!(loops.flush(&large), "few sessions with many bytes");
    }

    /// A message from one loop to another must not wait until a message for thousands is written.
    #[tokio::test]
    async fn a_turn_for_few_does_not_wait_behind_a_turn_for_many() {
        let loops = Arc::new(Loops::new(2));
        HERE.set(0);
        let frame = Bytes::from_static(b"\x81\x01x");
        let (many, _clients) = queued(2 * limits::FLUSHED_AT_ONCE, 1, &frame).await;
        let (few, _clients) = queued(limits::FLUSHED_AT_ONCE / 4, 1, &frame).await;
        assert!(loops.flush(&many) && !loops.flush(&few));
        assert!(loops.lists[1].flush_slice());
        assert!(few.iter().all(|session| session.queue().bytes() == 0), "in the first slice");
        let written = many.iter().filter(|session| session.queue().bytes() == 0).count();
        assert_eq!(written, limits::FLUSHED_AT_ONCE - few.len(), "and the others go on");
        while loops.lists[1].flush_slice() {}
        assert!(many.iter().all(|session| session.queue().bytes() == 0));
        assert!(loops.has_flushed(Waker::noop()));
    }

    #[test]
    fn connections_are_given_to_each_loop_in_turn() {
        let loops = Loops::new(3);
        assert_eq!(Vec::from_iter((0..6).map(|_| loops.choose())), [0, 1, 2, 0, 1, 2]);
    }
}
