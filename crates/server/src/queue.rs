//! What waits to be sent to one session: the send queue, and what is known about how far the client has received it.
//!
//! Pure memory: no system call is made here, so the queue may be locked while the core is. `session/flush.rs` writes what the queue gives out. Frames leave
//! in the order in which they came, each whole. A queue has two states that change independently:
//!
//! ```text
//! phase   Head ─► Shadow (legacy clients) ─► Open ─► Ending ─► Finished          any ─► Aborted
//! io      Idle ◄─► Writing ─► Blocked ─► Idle                                    Writing ─► Broken
//! ```
//!
//! Two rules keep the order without a second lock: only the thread that has set `Writing` writes, and a thread that finds `Writing` leaves, because
//! the writer looks at the queue again before it goes.

mod hold;
mod piece;
mod pings;
mod proof;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use bytes::{Buf, Bytes};

use super::batch::Span;
use crate::limits;
use piece::Piece;
use wsmb_core::message::Timestamp;

pub(super) use pings::{Beat, Pings};

/// The queue of one session, and its state as far as other threads have to see it.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Piece>,
    /// Bytes queued and not written, those that a thread is writing included.
    bytes: usize,
    /// Bytes ever queued: the stream offset of the queue's end.
    queued: u64,
    /// Bytes ever written to the socket.
    written: u64,
    /// Bytes left of the frame in front (of what is being written, else of the queue), if its first bytes are written; else 0.
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
    phase: Phase,
    io: Io,
    /// Some of the frames lie in the batch of the turn that is going on.
    unsealed: bool,
    /// Somebody is about to flush.
    touched: bool,
    /// The session is in the list of its loop, which is about to flush.
    enlisted: bool,
    /// A data frame was queued that is neither the greeting nor the first delivery to be confirmed: no delivery is the only one.
    other_data: bool,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    sequence: u64,
    end: u64,
}

/// How far the connection's life is, as far as sending goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The upgrade reply is not written yet: the handshake has the socket. `shadow`: [`Phase::Shadow`] follows.
    Head { shadow: bool },
    /// A legacy client is reading the upgrade reply, and nothing is written yet. `answering`: the hold ends with the answer to the client's first frame,
    /// and only with it.
    Shadow { answering: bool },
    /// Frames are written as they come.
    #[default]
    Open,
    /// Nothing more is queued; behind the last frame comes a FIN.
    Ending,
    /// The FIN is sent.
    Finished,
    /// The connection's task shall end now, whatever is left.
    Aborted,
}

/// What is happening between the queue and the socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Io {
    /// Nothing: whoever queues a frame flushes it.
    #[default]
    Idle,
    /// A thread has frames in its hand; before the upgrade reply is written, the handshake has the socket.
    Writing,
    /// The socket took no more: the connection's own task waits until it does.
    Blocked,
    /// A write failed: nothing more can be sent.
    Broken,
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
        let phase = Phase::Head { shadow: legacy };
        Self { phase, io: Io::Writing, pings: Pings::new(legacy), ..Self::default() }
    }

    /// The upgrade reply is written.
    pub(super) fn head_written(&mut self) {
        self.io = Io::Idle;
        if let Phase::Head { shadow } = self.phase {
            self.phase = if shadow { Phase::Shadow { answering: false } } else { Phase::Open };
        }
    }

    /// Appends one or more whole frames, unless `max` bytes would be exceeded; an empty queue takes any frame.
    pub(super) fn push(&mut self, frame: Bytes, max: usize) -> Pushed {
        if let Some(refused) = self.no_room(frame.len(), max) {
            return refused;
        }
        self.append(frame);
        Pushed::Queued { first: self.touch() }
    }

    /// Whether anything more can be queued.
    fn takes_frames(&self) -> bool {
        self.io != Io::Broken && matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. } | Phase::Open)
    }

    /// Why no frame of this size can be pushed, if none can.
    fn no_room(&self, size: usize, max: usize) -> Option<Pushed> {
        if !self.takes_frames() {
            return Some(Pushed::Gone);
        }
        let places = self.frames.len() * wsmb_protocol::limits::FRAME_PLACE;
        (self.bytes > 0 && self.bytes + places + size > max).then_some(Pushed::Overflow)
    }

    /// Whether what is pushed now will be written when the turn ends, as far as anybody knows: then it may stay in the turn's batch.
    pub(super) fn is_flowing(&self) -> bool {
        self.io == Io::Idle && !matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. })
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
        let sealed = !std::mem::replace(&mut self.unsealed, true);
        let untouched = self.touch();
        Pushed::Queued { first: sealed || untouched }
    }

    /// The turn has ended: what lies in its batch is a slice of that from now on.
    pub(super) fn seal(&mut self, batch: &Bytes) {
        if !std::mem::take(&mut self.unsealed) {
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
        !std::mem::replace(&mut self.touched, true)
    }

    /// Notes that the session's loop is going to flush; false if it was known.
    pub(super) fn enlist(&mut self) -> bool {
        !std::mem::replace(&mut self.enlisted, true)
    }

    /// Begins to flush: moves frames into `hand` if this thread shall write them.
    pub(super) fn begin(&mut self, hand: &mut Vec<Bytes>) -> Work {
        self.touched = false;
        self.enlisted = false;
        if self.io != Io::Idle || matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. }) {
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
            self.block();
            return Work::Nothing;
        }
        self.next(hand)
    }

    /// After the FIN.
    pub(super) fn after_finish(&mut self) {
        self.io = Io::Idle;
        self.wake();
    }

    /// Leaves the rest to the connection's own task: this thread has written enough for one turn.
    pub(super) fn hand_over(&mut self, hand: &mut Vec<Bytes>) {
        for frame in hand.drain(..).rev() {
            self.frames.push_front(Piece::Own(frame));
        }
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
        self.io = Io::Writing;
        if self.frames.is_empty() {
            // An idle connection holds no memory for its queue.
            self.frames = VecDeque::new();
        }
        if !hand.is_empty() {
            Work::Write
        } else if self.phase == Phase::Ending && self.frames.is_empty() {
            self.phase = Phase::Finished;
            Work::Finish
        } else {
            self.io = Io::Idle;
            Work::Nothing
        }
    }

    fn block(&mut self) {
        self.io = Io::Blocked;
        piece::detach(&mut self.frames);
        self.wake();
    }

    /// Whether the connection's own task has to wait for the socket to take more.
    pub(super) fn is_blocked(&self) -> bool {
        self.io == Io::Blocked
    }

    /// The socket takes more.
    pub(super) fn unblock(&mut self) {
        if self.io == Io::Blocked {
            self.io = Io::Idle;
        }
    }

    /// Nothing can be sent any more; the connection's task reads on to the end.
    fn fail(&mut self) {
        self.io = Io::Broken;
        self.drop_frames();
        self.wake();
    }

    fn drop_frames(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }

    /// The last frame, then a FIN. `flush`: what is queued goes before; otherwise only a frame whose first bytes are sent already.
    pub(super) fn end(&mut self, last: Option<Bytes>, flush: bool) {
        if !self.takes_frames() {
            return;
        }
        if !flush {
            // What another thread has in its hand comes back to the front, if it is not written. A begun frame must be finished.
            let in_hand = self.in_hand();
            let front = if self.begun > 0 && self.io != Io::Writing { self.frames.pop_front() } else { None };
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
        // A hold ends with this: the client gets what there is.
        self.phase = Phase::Ending;
        self.wake();
    }

    fn in_hand(&self) -> usize {
        let queued: usize = self.frames.iter().map(Piece::len).sum();
        self.bytes.saturating_sub(queued)
    }

    /// Whether nothing can be sent any more.
    pub(super) fn is_broken(&self) -> bool {
        self.io == Io::Broken
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
        matches!(self.phase, Phase::Ending | Phase::Finished)
    }

    /// Whether the FIN is sent, or nothing can be sent any more.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished || self.io == Io::Broken
    }

    /// Makes the connection's task end now.
    pub(super) fn abort(&mut self) {
        self.phase = Phase::Aborted;
        self.drop_frames();
        self.wake();
    }

    /// Whether the connection's task shall end now.
    pub(super) fn is_aborted(&self) -> bool {
        self.phase == Phase::Aborted
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
mod tests;
