//! The task of one session after its handshake: reads the client's input, and writes the bytes that the socket did not take from other threads.
//!
//! ```text
//! readable ─► transport ─► decoder ─► interpreter ─► requests ─► hub (takes the lock once)
//! ```
//!
//! An idle session holds no buffer: the task waits for readiness, then reads into a buffer that all sessions of the thread share. Only a partial frame
//! stays in the decoder.
//!
//! Never here: a lock held across a system call; the interpretation of frames.

use std::cell::RefCell;
use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tracing::debug;

use super::counters::Counters;
use super::hub::Hub;
use super::interpret::{Interpreted, Interpreter};
use super::request::{Leave, Request};
use super::session::{Closing, Session};
use super::timers::Hold;
use super::transport::Transport;
use super::turns::TurnCause;
use crate::limits;
use tokio::time::Sleep;
use wsmb_protocol::frame::{Decoder, Role};

thread_local! {
    /// The read buffer of all sessions of the thread.
    static INPUT: RefCell<Box<[u8]>> = RefCell::new(vec![0; wsmb_protocol::limits::READ_BUFFER].into_boxed_slice());
    /// The reused list of the requests of one read. Empty between two reads.
    static REQUESTS: RefCell<Vec<Option<Request<'static>>>> = const { RefCell::new(Vec::new()) };
}

/// The task of one session.
pub(super) struct Reader {
    hub: Arc<Hub>,
    session: Arc<Session>,
    decoder: Decoder,
    /// Input is dropped, because the client has sent a close frame or violated the protocol.
    ignores_input: bool,
    /// The code of the client's close frame.
    closed: Option<u16>,
    /// The client has sent a frame.
    greeted: bool,
    /// The timer of the end was started.
    lingering: bool,
    /// Bytes that the session has sent in reads that passed messages to the store. With more than [`limits::STORE_FREE`] it waits while too many bytes
    /// wait for the store.
    stored: u32,
    /// The session has published to so many receivers that they are flushed in slices: it waits for them.
    fans_out: bool,
    departed: bool,
    /// How often the size of a read is halved, because the work for each read takes long.
    halvings: u8,
    /// Present while the client publishes too fast.
    pauses: Option<Box<Pauses>>,
}

/// The reasons why a client that publishes is not read.
#[derive(Debug, Default)]
struct Pauses {
    /// The pause of the backpressure for whose end this task is registered.
    registered: u64,
    /// The longest wait for the store. It has passed if there is no more time left.
    store_wait: Option<Pin<Box<Sleep>>>,
    /// The end of a pause of a user that has reached its rate, or of a session with a long incomplete message while nearly all memory is used.
    slowed: Option<Pin<Box<Sleep>>>,
}

impl Pauses {
    fn slow_down(&mut self, time: Duration) {
        self.slowed = Some(Box::pin(tokio::time::sleep(time)));
    }
}

/// The result of one read.
enum Inbound {
    Nothing,
    /// The time that the work for the input took.
    More(Duration),
    Ended {
        orderly: bool,
    },
}

impl Reader {
    pub(super) fn new(hub: Arc<Hub>, session: Arc<Session>) -> Self {
        let decoder = Decoder::new(Role::Server, hub.options().limits.max_message);
        Self {
            hub,
            session,
            decoder,
            ignores_input: false,
            closed: None,
            greeted: false,
            lingering: false,
            stored: 0,
            fans_out: false,
            departed: false,
            halvings: limits::FIRST_READ_HALVINGS,
            pauses: None,
        }
    }

    /// Handles input of the client.
    pub(super) fn take(&mut self, input: &mut [u8]) {
        self.session.note_input(self.hub.now());
        self.hub.stop.note_input();
        if self.ignores_input {
            return;
        }
        let was_greeted = self.greeted;
        let length = u32::try_from(input.len()).unwrap_or(u32::MAX);
        let (hub, session) = (&*self.hub, &self.session);
        let has_waited = self.pauses.as_ref().is_some_and(|pauses| pauses.store_wait.is_some());
        let mut interpreter = Interpreter::new(hub, session, REQUESTS.take(), was_greeted, has_waited);
        let result = self.decoder.feed(input, |incoming| {
            let flow = interpreter.take(incoming);
            self.ignores_input = flow.is_break();
            flow
        });
        let held = self.decoder.unfinished_capacity() + session.transport().map_or(0, Transport::held);
        session.queue().note_partial(held);
        let Interpreted { mut requests, greeted, publishes, closed, pause } = interpreter.finish();
        self.greeted = greeted;
        // What an acknowledgement makes the core write is not the receiver's load.
        let load = hub.apply_all(session, &mut requests);
        if load.stores && publishes {
            self.stored = self.stored.saturating_add(length);
        }
        self.fans_out |= load.fans_out && publishes;
        recycle(requests);
        hub.relieve_memory();
        if !pause.is_zero() {
            // The client is not read meanwhile, so its silence does not count.
            session.note_input(hub.now().after(pause));
            self.pauses.get_or_insert_default().slow_down(pause);
        }
        if !was_greeted && session.queue().is_answering() {
            hub.hold(Hold::Answer, session.id);
        }
        if let Some((code, is_orderly)) = closed {
            // Not under the core's lock, because it makes a system call.
            let took_only = is_orderly && session.took_only(hub.options().limits.trust_fin);
            self.closed = Some(code);
            // A client that waits for answers gets them before the close frame.
            if !hub.finish(session, took_only) {
                hub.apply(session, Request::Leave(Leave { code, took_only }));
            }
        }
        if let Err(error) = result {
            self.ignores_input = true;
            debug!(connection = session.id.0, %error, "protocol violation");
            Counters::add(&hub.counters.violations, 1);
            let closing = Closing { code: error.close_code(), reason: "", invited: true, flush: true };
            hub.apply(session, Request::End(closing));
        }
    }

    fn outbound(&mut self, cx: &mut Context<'_>) -> bool {
        let (aborted, blocked, ending) = {
            let mut queue = self.session.queue();
            queue.wake_with(cx.waker());
            (queue.is_aborted(), queue.is_blocked(), queue.is_ending())
        };
        if aborted {
            return false;
        }
        if ending && !self.lingering {
            self.lingering = true;
            let end_by = self.hub.now().after(limits::LINGER);
            self.session.queue().cut_at(end_by);
            self.hub.schedule_check(end_by, self.session.id);
        }
        if blocked && self.session.transport().is_some_and(|transport| transport.poll_write_ready(cx).is_ready()) {
            self.session.queue().unblock();
            // If the socket is full again, `flush` wakes this task, which then waits for the socket.
            self.session.flush();
        }
        true
    }

    /// Whether the session must not be read, because it has passed messages to the store and too many bytes wait there. A topic session waits without
    /// a limit, because a message on it can be refused only by the end of its connection.
    fn waits_for_store(&mut self, cx: &mut Context<'_>) -> bool {
        if self.stored == 0 {
            return false;
        }
        let registered = self.pauses.as_ref().map_or(0, |pauses| pauses.registered);
        let causes_load = self.stored > limits::STORE_FREE;
        let pause = if causes_load { self.hub.backpressure.pause(cx.waker(), registered) } else { None };
        let Some(pause) = pause else {
            if !self.hub.backpressure.is_closed() {
                self.stored = 0;
                if let Some(pauses) = &mut self.pauses {
                    pauses.store_wait = None;
                }
            }
            return false;
        };
        let pauses = self.pauses.get_or_insert_default();
        pauses.registered = pause;
        let wait = pauses.store_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(limits::STORE_WAIT)));
        let is_over = wait.is_elapsed() || wait.as_mut().poll(cx).is_ready();
        !is_over || self.session.profile.topic.is_some()
    }

    /// Whether the session must not be read yet, because its user has reached its rate, or because nearly all memory is used and the session has sent
    /// a part of a message: each read could make the memory of the message four times as large.
    fn is_paused(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if let Some(pauses) = &mut self.pauses
                && let Some(sleep) = &mut pauses.slowed
            {
                if sleep.as_mut().poll(cx).is_pending() {
                    return true;
                }
                pauses.slowed = None;
            }
            if !self.hub.memory.is_nearly_used() || self.decoder.unfinished_capacity() < limits::SHORT_MESSAGE {
                return false;
            }
            self.pauses.get_or_insert_default().slow_down(limits::MEMORY_SCAN_EVERY);
        }
    }

    fn inbound(&mut self, cx: &mut Context<'_>) -> Poll<Inbound> {
        if self.fans_out {
            if !self.hub.loops.has_flushed(cx.waker()) {
                return Poll::Pending;
            }
            self.fans_out = false;
        }
        if self.waits_for_store(cx) {
            return Poll::Pending;
        }
        if self.is_paused(cx) {
            return Poll::Pending;
        }
        if self.session.transport().is_some_and(|transport| transport.poll_read_ready(cx).is_pending()) {
            return Poll::Pending;
        }
        let is_scarce = self.hub.memory.is_scarce();
        Poll::Ready(INPUT.with_borrow_mut(|input| {
            let whole = if is_scarce { limits::SHORT_READ } else { input.len() >> self.halvings };
            // A reader has a session with a socket.
            let Some(transport) = self.session.transport() else { return Inbound::Ended { orderly: false } };
            match transport.try_read(&mut input[..whole]) {
                Ok(0) => Inbound::Ended { orderly: true },
                Ok(count) => {
                    let began = Instant::now();
                    self.take(&mut input[..count]);
                    let took = began.elapsed();
                    self.halvings = halvings_after(took, self.halvings);
                    Inbound::More(took)
                }
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => {
                        // An incomplete encrypted record.
                        let held = self.session.transport().map_or(0, Transport::held);
                        if held > 0 {
                            self.session.queue().note_partial(self.decoder.unfinished_capacity() + held);
                        }
                        Inbound::Nothing
                    }
                    _ => Inbound::Ended { orderly: false },
                },
            }
        }))
    }

    /// Reads a few times, until the work has taken half of [`limits::LONG_READ`]. Adds the time of the work to `turn`. `None`: other connections are served, and
    /// the session is read on then.
    fn read(&mut self, cx: &mut Context<'_>, turn: &mut Duration) -> Option<Poll<()>> {
        for _ in 0..limits::READ_ROUNDS {
            match self.inbound(cx) {
                Poll::Pending => return Some(Poll::Pending),
                Poll::Ready(Inbound::Nothing) => {}
                Poll::Ready(Inbound::More(took)) => {
                    *turn += took;
                    if *turn > limits::LONG_READ / 2 || self.halvings > 0 || self.hub.memory.is_scarce() {
                        return None;
                    }
                }
                Poll::Ready(Inbound::Ended { orderly }) => {
                    if orderly && self.finish() {
                        return Some(Poll::Pending);
                    }
                    self.depart(orderly);
                    return Some(Poll::Ready(()));
                }
            }
        }
        None
    }

    /// The client has sent a FIN. Returns whether the session stays open for answers.
    fn finish(&mut self) -> bool {
        let took_only = self.session.took_only(self.hub.options().limits.trust_fin);
        self.hub.finish(&self.session, took_only)
    }

    /// Continues a session that stays open for answers. `None`: the client has its answers and gets the reply to its close frame, so the task reads on
    /// until the client's FIN.
    fn answer(&mut self) -> Option<Poll<()>> {
        let (ending, broken) = {
            let queue = self.session.queue();
            (queue.is_ending(), queue.is_broken())
        };
        if self.session.pending.any() && !ending && !broken {
            return Some(Poll::Pending);
        }
        match self.closed {
            Some(code) if !broken => {
                if !ending {
                    self.hub.apply(&self.session, Request::Leave(Leave { code, took_only: false }));
                }
                None
            }
            _ => {
                self.depart(true);
                Some(Poll::Ready(()))
            }
        }
    }

    fn depart(&mut self, orderly: bool) {
        if !std::mem::replace(&mut self.departed, true) {
            let session = &self.session;
            let took_only =
                orderly && !session.pending.is_listening() && session.took_only(self.hub.options().limits.trust_fin);
            self.hub.depart(session, took_only);
            // Answers and a close frame may still be queued, and a client that has sent a FIN may still read.
            if orderly {
                session.flush();
            } else if let Some(transport) = session.transport()
                && transport.unacknowledged().is_none_or(|bytes| bytes > 1)
                && (!self.hub.stop.has_begun() || session.queue().has_unconfirmed())
            {
                // More than a FIN is unacknowledged, and the client takes nothing. In a stop only sessions with unconfirmed deliveries are reset, because these
                // are delivered again; an answer may still arrive.
                transport.abort();
            }
        }
    }
}

/// Chooses the size of the next read by the work for the last one. `halvings`: how often the last one was halved.
fn halvings_after(work: Duration, halvings: u8) -> u8 {
    if work > limits::LONG_READ {
        limits::READ_HALVINGS.min(halvings + 1)
    } else if work < limits::LONG_READ / 4 {
        halvings.saturating_sub(1)
    } else {
        halvings
    }
}

/// Keeps the memory of a list of requests for the next read, up to [`limits::REQUESTS_AT_ONCE`].
fn recycle(mut requests: Vec<Option<Request<'_>>>) {
    requests.clear();
    requests.shrink_to(limits::REQUESTS_AT_ONCE);
    // The list is empty: this changes only the lifetime in its type, and keeps the memory.
    REQUESTS.set(requests.into_iter().map_while(|_| None).collect());
}

impl Future for Reader {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        if !this.outbound(cx) {
            this.depart(false);
            return Poll::Ready(());
        }
        if this.session.pending.is_listening()
            && let Some(poll) = this.answer()
        {
            return poll;
        }
        let mut turn = Duration::ZERO;
        let poll = this.read(cx, &mut turn);
        this.hub.loops.turns.note(TurnCause::Client, turn);
        // Not `wake_by_ref`: a runtime that always has a task to run rarely asks the system which other sockets are readable.
        poll.unwrap_or_else(|| pin!(tokio::task::yield_now()).poll(cx))
    }
}

/// Reports the end to the core, even after a panic or when the task is cancelled.
impl Drop for Reader {
    fn drop(&mut self) {
        self.depart(false);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_makes_the_next_reads_shorter_and_short_work_makes_them_longer() {
        let (long, middle, short) = (limits::LONG_READ * 2, limits::LONG_READ / 2, Duration::ZERO);
        assert_eq!([long, middle, short].map(|work| halvings_after(work, 2)), [3, 2, 1]);
        assert_eq!(halvings_after(long, limits::READ_HALVINGS), limits::READ_HALVINGS);
        assert_eq!(halvings_after(short, 0), 0);
        assert_eq!(wsmb_protocol::limits::READ_BUFFER >> limits::READ_HALVINGS, 1 << 10);
    }
}
