//! Takes frames out of the queue of a session without a socket.

use bytes::Bytes;

use super::piece::Piece;
use super::{Phase, Queue};
use crate::limits;

/// The state of such a queue after frames were taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// More frames may come.
    Open,
    /// These were the last frames.
    Ended,
    /// The session was aborted: its frames are dropped.
    Aborted,
}

impl Queue {
    /// Takes frames, up to [`limits::COALESCE`] bytes, but at least one if there is any.
    pub(crate) fn take(&mut self, out: &mut Vec<Bytes>) -> Taken {
        self.touched = false;
        self.enlisted = false;
        if self.phase == Phase::Aborted {
            return Taken::Aborted;
        }
        let mut size = 0;
        while let Some(Piece::Own(frame)) = self.frames.front() {
            if size > 0 && size + frame.len() > limits::COALESCE {
                return Taken::Open;
            }
            size += frame.len();
            self.bytes = self.bytes.saturating_sub(frame.len());
            self.written += frame.len() as u64;
            if let Some(Piece::Own(frame)) = self.frames.pop_front() {
                out.push(frame);
            }
        }
        // Frees the memory: an idle session holds none for its queue.
        self.frames = std::collections::VecDeque::new();
        if matches!(self.phase, Phase::Ending | Phase::Finished) {
            self.phase = Phase::Finished;
            return Taken::Ended;
        }
        Taken::Open
    }
}
