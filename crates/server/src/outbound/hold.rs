//! The hold of a legacy connection's queue: nothing is written before the client has read the head, and the connect reply may wait for the
//! answer to the client's first frame.

use bytes::Bytes;

use super::{Pushed, Queue};
use crate::piece::Piece;

impl Queue {
    /// A hold that has not ended yet ends with [`Self::answer`]; true if there is one.
    pub(crate) fn hold_for_answer(&mut self) -> bool {
        self.state.answering = self.state.held;
        self.state.answering
    }

    /// Whether the hold ends with [`Self::answer`].
    pub(crate) fn is_answering(&self) -> bool {
        self.state.answering
    }

    /// Appends the answer to a command as [`Self::push`] does; one that was held for is the greeting.
    pub(crate) fn answer(&mut self, frame: Bytes, max: usize) -> Pushed {
        if std::mem::take(&mut self.state.answering) && self.release(Some(frame.clone())) {
            return Pushed::Queued { first: self.touch() };
        }
        self.note_other_data();
        self.push(frame, max)
    }

    /// Ends the hold; true if it has ended now. Pushed before the hold's other frames: `greeting`.
    pub(crate) fn release(&mut self, greeting: Option<Bytes>) -> bool {
        if self.state.answering || !std::mem::take(&mut self.state.held) {
            return false;
        }
        if let Some(greeting) = greeting
            && !self.state.ending
        {
            self.bytes += greeting.len();
            self.queued += greeting.len() as u64;
            for mark in &mut self.marks {
                mark.end += greeting.len() as u64;
            }
            self.pings.shift(greeting.len() as u64);
            self.frames.push_front(Piece::Own(greeting));
        }
        true
    }
}
