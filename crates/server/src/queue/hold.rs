//! The hold of a legacy connection's queue: nothing is written before the client has read the head, and the connect reply may wait for the
//! answer to the client's first frame.

use bytes::Bytes;

use super::piece::Piece;
use super::{Phase, Pushed, Queue};

impl Queue {
    /// A hold that has not ended yet ends with [`Self::answer`]; true if there is one.
    pub(crate) fn hold_for_answer(&mut self) -> bool {
        if let Phase::Shadow { answering } = &mut self.phase {
            *answering = true;
        }
        self.is_answering()
    }

    /// Whether the hold ends with [`Self::answer`].
    pub(crate) fn is_answering(&self) -> bool {
        self.phase == Phase::Shadow { answering: true }
    }

    /// Appends the answer to a command as [`Self::push`] does; one that was held for is the greeting.
    pub(crate) fn answer(&mut self, frame: Bytes, max: usize) -> Pushed {
        if self.is_answering() {
            self.open(Some(frame));
            return Pushed::Queued { first: self.touch() };
        }
        self.note_other_data();
        self.push(frame, max)
    }

    /// Ends the hold; true if it has ended now. Pushed before the hold's other frames: `greeting`.
    pub(crate) fn release(&mut self, greeting: Option<Bytes>) -> bool {
        match self.phase {
            Phase::Head { shadow: true } | Phase::Shadow { answering: false } => self.open(greeting),
            _ => return false,
        }
        true
    }

    /// Ends the hold. `greeting` goes before everything that has been held.
    fn open(&mut self, greeting: Option<Bytes>) {
        self.phase = if matches!(self.phase, Phase::Head { .. }) { Phase::Head { shadow: false } } else { Phase::Open };
        let Some(greeting) = greeting else { return };
        self.bytes += greeting.len();
        self.queued += greeting.len() as u64;
        for mark in &mut self.marks {
            mark.end += greeting.len() as u64;
        }
        self.pings.shift(greeting.len() as u64);
        self.frames.push_front(Piece::Own(greeting));
    }
}
