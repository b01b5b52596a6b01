//! The send queue of one session, and what is known about how much of it the client has received.
//!
//! The queue is pure memory, without system calls, so that it may be locked under the core's lock. `session/flush.rs` writes the frames that the queue
//! hands out. Frames leave whole and in order. A queue has two states that change independently:
//!
//! ```text
//! phase   Head ─► Shadow (legacy clients) ─► Open ─► Ending ─► Finished          any ─► Aborted
//! io      Idle ◄─► Writing ─► Blocked ─► Idle                                    Writing ─► Broken
//! ```
//!
//! Two rules keep the order without a second lock: only the thread that has set `Writing` writes, and a thread that finds `Writing` leaves, because
//! the writer checks the queue again after each write.

mod hold;
mod piece;
mod pings;
mod proof;
#[cfg(feature = "http")]
mod taking;

use std::collections::VecDeque;
use std::num::NonZeroU64;
use std::task::Waker;

use bytes::{Buf, Bytes};

use super::batch::Span;
use crate::limits;
use piece::Piece;
use wsmb_core::message::Timestamp;

pub(super) use pings::{Beat, Pings};
#[cfg(feature = "http")]
pub(super) use taking::Taken;

/// The queue of one session, and the state that threads share.
#[derive(Debug, Default)]
pub(super) struct Queue {
    frames: VecDeque<Piece>,
    /// Bytes queued and not written, including those that a thread is writing.
    bytes: usize,
    /// Bytes ever queued: the stream offset of the queue's end.
    queued: u64,
    /// Bytes ever written to the socket.
    written: u64,
    /// The unwritten rest, in bytes, of a frame that was written in part; 0 if there is none. The frame is the first of the chunk being written, or of the queue.
    begun: u32,
    /// The sequence number of the last delivery that was queued.
    last_sequence: u64,
    /// The last delivery to an automatic receiver; 0 if all of them are confirmed.
    last_unconfirmed: u64,
    /// The stream offset of the end of the first delivery.
    first_end: u64,
    /// The outstanding pings.
    pub(super) pings: Pings,
    /// Wakes the connection's task.
    waker: Option<Waker>,
    /// When an end that has begun is aborted, in milliseconds as [`Timestamp`].
    end_by: Option<NonZeroU64>,
    phase: Phase,
    io: Io,
    /// Some frames are spans of the current turn's batch.
    unsealed: bool,
    /// What the reader holds of a message that has not arrived completely, in KiB: two bytes, because every connection has them.
    partial: u16,
    /// A thread is about to flush.
    touched: bool,
    /// The session is in the flush list of its loop.
    enlisted: bool,
    /// A data frame was queued besides the greeting and the first delivery that needs a confirmation. So no delivery is the only one.
    other_data: bool,
}

/// The phase of the connection, for sending.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Phase {
    /// The upgrade reply is not written yet: the handshake uses the socket. `shadow`: [`Phase::Shadow`] follows.
    Head { shadow: bool },
    /// The queue is held while a legacy client reads the upgrade reply. `answering`: only the answer to the client's first frame ends the hold.
    Shadow { answering: bool },
    /// Frames are written at once.
    #[default]
    Open,
    /// No more frames are queued; a FIN follows the last one.
    Ending,
    /// The FIN is sent.
    Finished,
    /// The connection's task must end now; queued frames are dropped.
    Aborted,
}

/// The state of the I/O between queue and socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Io {
    /// No thread writes: a thread that queues a frame flushes it.
    #[default]
    Idle,
    /// A thread is writing a chunk, or the handshake has not written the upgrade reply yet.
    Writing,
    /// The socket is full: the connection's task waits until it takes more.
    Blocked,
    /// A write failed: no more bytes can be sent.
    Broken,
}

/// The result of a push.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pushed {
    /// Queued. `first`: the caller must flush the queue, because no other thread is about to.
    Queued { first: bool },
    /// The bound is exceeded: not queued, and the connection must be ended as slow.
    Overflow,
    /// The connection is ending or broken: the frame was dropped.
    Gone,
}

/// The next step of a thread that flushes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Work {
    /// Nothing: the queue is empty or held, or another thread writes.
    Nothing,
    /// Write the chunk.
    Write,
    /// Send a FIN.
    Finish,
}

/// The result of a write.
#[derive(Clone, Copy, Debug)]
pub(super) enum WriteResult {
    /// The socket took this number of bytes.
    Bytes(usize),
    /// The socket is full.
    Blocked,
    /// The connection is broken.
    Failed,
}

impl Queue {
    /// Creates a queue that is held until [`Self::head_written`] and, for a legacy client, [`Self::release`].
    pub(super) fn new(legacy: bool) -> Self {
        let phase = Phase::Head { shadow: legacy };
        Self { phase, io: Io::Writing, pings: Pings::new(legacy), ..Self::default() }
    }

    /// Creates the queue of a session without a socket. No thread writes its frames; [`Self::take`] takes them.
    pub(super) fn for_mailbox() -> Self {
        Self { io: Io::Blocked, ..Self::default() }
    }

    /// The upgrade reply is written.
    pub(super) fn head_written(&mut self) {
        self.io = Io::Idle;
        if let Phase::Head { shadow } = self.phase {
            self.phase = if shadow { Phase::Shadow { answering: false } } else { Phase::Open };
        }
    }

    /// Appends one or more whole frames, unless the queue would exceed `max` bytes. An empty queue takes any frame.
    pub(super) fn push(&mut self, frame: Bytes, max: usize) -> Pushed {
        if let Some(refused) = self.no_room(frame.len(), max) {
            return refused;
        }
        self.append(frame);
        Pushed::Queued { first: self.touch() }
    }

    /// Whether more frames can be queued.
    fn takes_frames(&self) -> bool {
        self.io != Io::Broken && matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. } | Phase::Open)
    }

    /// Returns why no frame of this size can be pushed, or `None`.
    fn no_room(&self, size: usize, max: usize) -> Option<Pushed> {
        if !self.takes_frames() {
            return Some(Pushed::Gone);
        }
        let places = self.frames.len() * wsmb_protocol::limits::FRAME_PLACE;
        (self.bytes > 0 && self.bytes + places + size > max).then_some(Pushed::Overflow)
    }

    /// Whether a frame that is pushed now will probably be written at the end of the turn: then it may stay in the turn's batch.
    pub(super) fn is_flowing(&self) -> bool {
        self.io == Io::Idle && !matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. })
    }

    /// Appends whole frames of this turn's batch, as [`Self::push`] does. The caller must call [`Self::seal`] at the end of the turn.
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
        // This turn must seal its spans, even if another thread is about to flush the frames of an earlier turn.
        let sealed = !std::mem::replace(&mut self.unsealed, true);
        let untouched = self.touch();
        Pushed::Queued { first: sealed || untouched }
    }

    /// Replaces the spans by slices of the turn's frozen batch.
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

    /// Notes that the caller will flush. Returns false if another thread is about to.
    pub(super) fn touch(&mut self) -> bool {
        !std::mem::replace(&mut self.touched, true)
    }

    /// Notes that the session is in its loop's flush list. Returns false if it was there already.
    pub(super) fn enlist(&mut self) -> bool {
        !std::mem::replace(&mut self.enlisted, true)
    }

    /// Begins a flush: moves frames into `chunk` if this thread must write them.
    pub(super) fn begin(&mut self, chunk: &mut Vec<Bytes>) -> Work {
        self.touched = false;
        self.enlisted = false;
        if self.io != Io::Idle || matches!(self.phase, Phase::Head { .. } | Phase::Shadow { .. }) {
            return Work::Nothing;
        }
        self.next(chunk)
    }

    /// Accounts for a write, and puts back the bytes that the socket did not take. Returns the next step.
    pub(super) fn after_write(&mut self, chunk: &mut Vec<Bytes>, wrote: WriteResult) -> Work {
        let mut taken = match wrote {
            WriteResult::Bytes(taken) => taken,
            WriteResult::Blocked => 0,
            WriteResult::Failed => {
                chunk.clear();
                self.fail();
                return Work::Nothing;
            }
        };
        self.written += taken as u64;
        self.bytes = self.bytes.saturating_sub(taken);
        let mut whole = 0;
        for frame in chunk.iter_mut() {
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
        for frame in chunk.drain(..).skip(whole).rev() {
            self.frames.push_front(Piece::Own(frame));
        }
        if matches!(wrote, WriteResult::Blocked) {
            self.block();
            return Work::Nothing;
        }
        self.next(chunk)
    }

    /// The FIN is sent.
    pub(super) fn after_finish(&mut self) {
        self.io = Io::Idle;
        self.wake();
    }

    /// Puts the chunk back and leaves the rest to the connection's task, after [`limits::WRITE_ROUNDS`] writes.
    pub(super) fn hand_over(&mut self, chunk: &mut Vec<Bytes>) {
        for frame in chunk.drain(..).rev() {
            self.frames.push_front(Piece::Own(frame));
        }
        self.block();
    }

    fn next(&mut self, chunk: &mut Vec<Bytes>) -> Work {
        let mut size = 0;
        while let Some(Piece::Own(frame)) = self.frames.front() {
            if size > 0 && size + frame.len() > limits::COALESCE {
                break;
            }
            size += frame.len().max(wsmb_protocol::limits::FRAME_PLACE);
            if let Some(Piece::Own(frame)) = self.frames.pop_front() {
                chunk.push(frame);
            }
        }
        self.io = Io::Writing;
        if self.frames.is_empty() {
            // Frees the memory: an idle connection holds none for its queue.
            self.frames = VecDeque::new();
        }
        if !chunk.is_empty() {
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

    /// Whether the connection's task must wait until the socket takes more.
    pub(super) fn is_blocked(&self) -> bool {
        self.io == Io::Blocked
    }

    /// The socket takes more.
    pub(super) fn unblock(&mut self) {
        if self.io == Io::Blocked {
            self.io = Io::Idle;
        }
    }

    /// No more bytes can be sent; the connection's task reads on to the end.
    fn fail(&mut self) {
        self.io = Io::Broken;
        self.drop_frames();
        self.wake();
    }

    fn drop_frames(&mut self) {
        self.frames = VecDeque::new();
        self.bytes = 0;
    }

    /// Queues the last frame and a FIN. `flush`: queued frames are sent before; otherwise they are dropped, except for one that was sent in part.
    pub(super) fn end(&mut self, last: Option<Bytes>, flush: bool) {
        if !self.takes_frames() {
            return;
        }
        if !flush {
            // A chunk that another thread is writing may still be put back to the front. A frame that was sent in part must be sent whole.
            let being_written = self.being_written();
            let front = if self.begun > 0 && self.io != Io::Writing { self.frames.pop_front() } else { None };
            let begun = front.map(|piece| match piece {
                Piece::Own(bytes) => Piece::Own(bytes.slice(..bytes.len().min(self.begun as usize))),
                span @ Piece::Span(_) => span,
            });
            self.frames = VecDeque::from_iter(begun);
            self.bytes = being_written + self.frames.front().map_or(0, Piece::len);
            self.last_unconfirmed = 0;
        }
        if let Some(frame) = last {
            self.append(frame);
        }
        // This also ends a hold: held frames are sent.
        self.phase = Phase::Ending;
        self.wake();
    }

    fn being_written(&self) -> usize {
        let queued: usize = self.frames.iter().map(Piece::len).sum();
        self.bytes.saturating_sub(queued)
    }

    /// Whether a write has failed.
    pub(super) fn is_broken(&self) -> bool {
        self.io == Io::Broken
    }

    pub(super) fn cut_at(&mut self, time: Timestamp) {
        self.end_by = NonZeroU64::new(time.0);
    }

    pub(super) fn end_by(&self) -> Option<Timestamp> {
        self.end_by.map(|time| Timestamp(time.get()))
    }

    pub(super) fn is_ending(&self) -> bool {
        matches!(self.phase, Phase::Ending | Phase::Finished)
    }

    /// Whether the FIN is sent, or a write has failed.
    pub(super) fn is_finished(&self) -> bool {
        self.phase == Phase::Finished || self.io == Io::Broken
    }

    /// Drops the frames, and makes the connection's task end.
    pub(super) fn abort(&mut self) {
        self.phase = Phase::Aborted;
        self.drop_frames();
        self.wake();
    }

    pub(super) fn is_aborted(&self) -> bool {
        self.phase == Phase::Aborted
    }

    /// Sets the waker of the connection's task.
    pub(super) fn wake_with(&mut self, waker: &Waker) {
        match &mut self.waker {
            Some(known) if known.will_wake(waker) => {}
            known => *known = Some(waker.clone()),
        }
    }

    pub(super) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Notes the bytes that are held outside the queue: by the reader of an incomplete message, or by the mailbox of a receiver without a socket.
    pub(super) fn note_partial(&mut self, bytes: usize) {
        self.partial = u16::try_from(bytes >> 10).unwrap_or(u16::MAX);
    }

    /// The bytes that the session holds: the queue, and those of [`Self::note_partial`].
    pub(super) fn held_bytes(&self) -> usize {
        self.bytes + (usize::from(self.partial) << 10)
    }

    /// Bytes queued and not written.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests;
