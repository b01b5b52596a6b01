//! What waits to be sent to one connection: the queue, and what is known about how far the client has received it.
//!
//! Pure memory: no system call is made here, so the queue may be locked while the core is. [`super::connection`] writes what it gives
//! out. Frames leave in the order in which they came, each whole. Two rules keep it so without a second lock: only one
//! thread writes at a time (`writing`), and whoever finds another one writing leaves, because the writer looks again before it goes.

mod hold;
mod proof;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use bytes::{Buf, Bytes};

use super::batch::Span;
use super::heartbeat::Pings;
use super::piece::{self, Piece};
use crate::limits;
use wsmb_core::message::Timestamp;

/// The queue of one connection, and its state as far as other threads have to see it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Piece>,
    /// Bytes queued and not written, those in the writer's hand included.
    bytes: usize,
    /// Bytes ever queued: the stream offset of the queue's end.
    queued: u64,
    /// Bytes ever written to the socket.
    written: u64,
    /// Bytes that are left of the frame in front (of the hand, else of the queue), if its first ones are written; else 0.
    begun: u32,
    /// The last delivery that was queued.
    last_sequence: u64,
    /// Unconfirmed deliveries to an automatic receiver, each with the stream offset of its end. The core's window bounds it.
    marks: VecDeque<Mark>,
    /// The pings on their way.
    pub(super) pings: Pings,
    /// Wakes the connection's own task.
    waker: Option<Waker>,
    /// When an end that has begun is cut short, in milliseconds as [`Timestamp`].
    end_by: Option<NonZeroU64>,
    state: State,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    end: u64,
}

/// Flags of a [`Queue`].
#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)] // They are independent of each other: no enum says the same in fewer states.
struct State {
    /// The upgrade reply is not written yet.
    headless: bool,
    /// The client is in the head's shadow: nothing is written yet.
    held: bool,
    /// The hold ends with the answer to the client's first frame, and only with it.
    answering: bool,
    /// Some thread has frames in its hand.
    writing: bool,
    /// The socket took no more: the connection's own task waits until it does.
    blocked: bool,
    /// A write failed: nothing more can be sent.
    broken: bool,
    /// Some of the frames lie in the batch of the turn that is going on.
    unsealed: bool,
    /// Somebody is about to flush.
    touched: bool,
    /// Nothing more is queued; behind the last frame comes a FIN.
    ending: bool,
    /// The FIN is sent.
    finished: bool,
    /// The connection's task shall end now, whatever is left.
    aborted: bool,
    /// A data frame was queued that is neither the greeting nor the first delivery to be confirmed: no delivery is the only one.
    other_data: bool,
}

/// What became of a frame that was pushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Queued. `first`: the pusher has to see to it that the queue is flushed; nobody else will.
    Queued {
        /// See above.
        first: bool,
    },
    /// Over the bound: not queued, and the connection is to be ended as slow.
    Overflow,
    /// The connection is ending or broken: thrown away.
    Gone,
}

/// What the one who flushes has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing, or it is another one's business.
    Nothing,
    /// Write the frames in the hand.
    Write,
    /// Send a FIN.
    Finish,
}

/// How an attempt to write the frames in the hand went.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wrote {
    /// So many bytes were taken.
    Bytes(usize),
    /// The socket takes nothing now.
    Blocked,
    /// The connection is broken.
    Failed,
}

impl Queue {
    /// A queue from which nothing is written until [`Self::head_written`] and, for a legacy client, [`Self::release`].
    pub(super) fn new(legacy: bool) -> Self {
        let state = State { headless: true, held: legacy, ..State::default() };
        Self { state, pings: Pings::new(legacy), ..Self::default() }
    }

    /// The upgrade reply is written.
    pub(super) fn head_written(&mut self) {
        self.state.headless = false;
    }

    /// Appends one or more whole frames, unless `max` bytes would be exceeded; an empty queue takes any frame.
    pub(super) fn push(&mut self, frame: Bytes, max: usize) -> Pushed {
        if let Some(refused) = self.no_room(frame.len(), max) {
            return refused;
        }
        self.append(frame);
        Pushed::Queued { first: self.touch() }
    }

    /// Why no frame of this size can be pushed, if none can.
    fn no_room(&self, size: usize, max: usize) -> Option<Pushed> {
        if self.state.ending || self.state.broken || self.state.aborted {
            return Some(Pushed::Gone);
        }
        let places = self.frames.len() * wsmb_protocol::limits::FRAME_PLACE;
        (self.bytes > 0 && self.bytes + places + size > max).then_some(Pushed::Overflow)
    }

    /// Whether what is pushed now will be written when the turn ends, as far as anybody knows: then it may stay in the turn's batch.
    pub(super) fn is_flowing(&self) -> bool {
        let State { headless, held, writing, blocked, .. } = self.state;
        !(headless || held || writing || blocked)
    }

    /// Appends whole frames that lie in the batch of this turn, as [`Self::push`] does. To be followed by [`Self::seal`].
    pub(super) fn push_span(&mut self, span: Span, max: usize) -> Pushed {
        if let Some(refused) = self.no_room(span.len(), max) {
            return refused;
        }
        self.bytes += span.len();
        self.queued += span.len() as u64;
        match self.frames.back_mut() {
            Some(Piece::Span(last)) if last.end == span.start => last.end = span.end,
            _ => self.frames.push_back(Piece::Span(span)),
        }
        // Another thread may be about to flush what its turn has queued; what lies in this turn's batch is this turn's to seal.
        let sealed = !std::mem::replace(&mut self.state.unsealed, true);
        let untouched = self.touch();
        Pushed::Queued { first: sealed || untouched }
    }

    /// The turn has ended: what lies in its batch is a slice of that from now on.
    pub(super) fn seal(&mut self, batch: &Bytes) {
        if !std::mem::take(&mut self.state.unsealed) {
            return;
        }
        for piece in &mut self.frames {
            if let Piece::Span(span) = piece {
                *piece = Piece::Own(batch.slice(span.start as usize..span.end as usize));
            }
        }
    }

    fn append(&mut self, frame: Bytes) {
        self.bytes += frame.len();
        self.queued += frame.len() as u64;
        self.frames.push_back(Piece::Own(frame));
    }

    /// Notes that somebody will flush; true for the first one.
    pub(super) fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.state.touched, true)
    }

    /// Begins to flush: moves frames into `hand` if this thread shall write them.
    pub(super) fn begin(&mut self, hand: &mut Vec<Bytes>) -> Work {
        self.state.touched = false;
        let State { headless, held, writing, blocked, broken, .. } = self.state;
        if headless || held || writing || blocked || broken {
            return Work::Nothing;
        }
        self.next(hand)
    }

    /// After writing: accounts for it, puts back what was not taken, and says how to go on.
    pub(super) fn after_write(&mut self, hand: &mut Vec<Bytes>, wrote: Wrote) -> Work {
        let mut taken = match wrote {
            Wrote::Bytes(taken) => taken,
            Wrote::Blocked => 0,
            Wrote::Failed => {
                hand.clear();
                self.fail();
                return Work::Nothing;
            }
        };
        self.written += taken as u64;
        self.bytes = self.bytes.saturating_sub(taken);
        let mut whole = 0;
        for frame in hand.iter_mut() {
            if taken < frame.len() {
                // invariant: no frame nears 4 GiB.
                self.begun = u32::try_from(piece::left_of_frame(frame, self.begun as usize, taken)).unwrap_or(u32::MAX);
                frame.advance(taken);
                break;
            }
            taken -= frame.len();
            whole += 1;
            self.begun = 0;
        }
        for frame in hand.drain(..).skip(whole).rev() {
            self.frames.push_front(Piece::Own(frame));
        }
        if matches!(wrote, Wrote::Blocked) {
            self.state.writing = false;
            self.block();
            return Work::Nothing;
        }
        self.next(hand)
    }

    /// After the FIN.
    pub(super) fn after_finish(&mut self) {
        self.state.writing = false;
        self.wake();
    }

    /// Leaves the rest to the connection's own task: this thread has written enough for one turn.
    pub(super) fn hand_over(&mut self, hand: &mut Vec<Bytes>) {
        for frame in hand.drain(..).rev() {
            self.frames.push_front(Piece::Own(frame));
        }
        self.state.writing = false;
        self.block();
    }

    fn next(&mut self, hand: &mut Vec<Bytes>) -> Work {
        let mut size = 0;
        while let Some(Piece::Own(frame)) = self.frames.front() {
            if size > 0 && size + frame.len() > limits::COALESCE {
                break;
            }
            size += frame.len().max(wsmb_protocol::limits::FRAME_PLACE);
            if let Some(Piece::Own(frame)) = self.frames.pop_front() {
                hand.push(frame);
            }
        }
        self.state.writing = true;
        if self.frames.is_empty() {
            // An idle connection holds no memory for its queue.
            self.frames = VecDeque::new();
        }
        if !hand.is_empty() {
            Work::Write
        } else if self.state.ending && !self.state.finished && self.frames.is_empty() {
            self.state.finished = true;
            Work::Finish
        } else {
            self.state.writing = false;
            Work::Nothing
        }
    }

    fn block(&mut self) {
        self.state.blocked = true;
        piece::detach(&mut self.frames);
        self.wake();
    }

    /// Whether the connection's own task has to wait for the socket to take more.
    pub(super) fn is_blocked(&self) -> bool {
        self.state.blocked
    }

    /// The socket takes more.
    pub(super) fn unblock(&mut self) {
        self.state.blocked = false;
    }

    /// Nothing can be sent any more; the connection's task reads on to the end.
    fn fail(&mut self) {
        self.state.broken = true;
        self.state.writing = false;
        self.drop_frames();
        self.wake();
    }

    fn drop_frames(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }

    /// The last frame, then a FIN. `flush`: what is queued goes before; otherwise only a frame whose first bytes are sent already.
    pub(super) fn end(&mut self, last: Option<Bytes>, flush: bool) {
        if self.state.ending || self.state.broken {
            return;
        }
        if !flush {
            // What another thread has in its hand comes back to the front, if it is not written. A begun frame must be finished.
            let in_hand = self.in_hand();
            let front = if self.begun > 0 && !self.state.writing { self.frames.pop_front() } else { None };
            let begun = front.map(|piece| match piece {
                Piece::Own(bytes) => Piece::Own(bytes.slice(..bytes.len().min(self.begun as usize))),
                span @ Piece::Span(_) => span,
            });
            self.frames = VecDeque::from_iter(begun);
            self.bytes = in_hand + self.frames.front().map_or(0, Piece::len);
            self.marks = VecDeque::new();
        }
        if let Some(frame) = last {
            self.append(frame);
        }
        // Whoever is ended before its hold was over gets what there is.
        self.state.held = false;
        self.state.answering = false;
        self.state.ending = true;
        self.wake();
    }

    fn in_hand(&self) -> usize {
        let queued: usize = self.frames.iter().map(Piece::len).sum();
        self.bytes.saturating_sub(queued)
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_broken(&self) -> bool {
        self.state.broken
    }

    /// Has an end that has begun cut short then.
    pub(super) fn cut_at(&mut self, time: Timestamp) {
        self.end_by = NonZeroU64::new(time.0);
    }

    /// When an end that has begun is cut short.
    pub(super) fn end_by(&self) -> Option<Timestamp> {
        self.end_by.map(|time| Timestamp(time.get()))
    }

    /// Whether an end has begun.
    pub(super) fn is_ending(&self) -> bool {
        self.state.ending
    }

    /// Whether the FIN is sent, or nothing can be sent any more.
    pub(super) fn is_finished(&self) -> bool {
        self.state.finished || self.state.broken
    }

    /// Makes the connection's task end now.
    pub(super) fn abort(&mut self) {
        self.state.aborted = true;
        self.drop_frames();
        self.wake();
    }

    /// Whether the connection's task shall end now.
    pub(super) fn is_aborted(&self) -> bool {
        self.state.aborted
    }

    /// Has the connection's own task woken through `waker` from now on.
    pub(super) fn wake_with(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    /// Wakes the connection's own task.
    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Bytes queued and not written.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
#[path = "outbound_tests.rs"]
mod tests;
