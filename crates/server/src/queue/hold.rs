//! The hold of a legacy connection's queue: no frame is written before the client has read the upgrade reply, and the connect reply may wait for
//! the answer to the client's first frame.

use bytes::Bytes;

use super::piece::Piece;
use super::{Phase, Pushed, Queue};

impl Queue {
    /// Makes [`Self::answer`] the end of the current hold. Returns whether the queue is held.
    pub(crate) fn hold_for_answer(&mut self) -> bool {
        if let Phase::Shadow { answering } = &mut self.phase {
            *answering = true;
        }
        self.is_answering()
    }

    /// Whether the queue is held until [`Self::answer`].
    pub(crate) fn is_answering(&self) -> bool {
        self.phase == Phase::Shadow { answering: true }
    }

    /// Appends the answer to a command, as [`Self::push`] does. An answer for which the queue is held ends the hold, and goes before the held frames.
    pub(crate) fn answer(&mut self, frame: Bytes, max: usize) -> Pushed {
        if self.is_answering() {
            self.open(Some(frame));
            return Pushed::Queued { first: self.touch() };
        }
        self.note_other_data();
        self.push(frame, max)
    }

    /// Ends the hold, and puts `greeting` before the held frames. Returns false if the queue is not held, or is held for an answer.
    pub(crate) fn release(&mut self, greeting: Option<Bytes>) -> bool {
        match self.phase {
            Phase::Head { shadow: true } | Phase::Shadow { answering: false } => self.open(greeting),
            _ => return false,
        }
        true
    }

    /// Ends the hold, and puts `greeting` before the held frames.
    fn open(&mut self, greeting: Option<Bytes>) {
        self.phase = if matches!(self.phase, Phase::Head { .. }) { Phase::Head { shadow: false } } else { Phase::Open };
        let Some(greeting) = greeting else { return };
        self.bytes += greeting.len();
        self.queued += greeting.len() as u64;
        self.first_end += greeting.len() as u64;
        self.pings.shift(greeting.len() as u64);
        self.frames.push_front(Piece::Own(greeting));
    }
}
