//! What is known about how far the client has received what was queued: pings, their pongs, and what its TCP acknowledges.

use std::collections::VecDeque;

use super::{Io, Mark, Phase, Queue};

impl Queue {
    /// Notes that what was pushed last is the delivery of this number. A `manual` receiver confirms by name, so nothing more is noted.
    pub(crate) fn mark(&mut self, sequence: u64, manual: bool) {
        self.last_sequence = sequence;
        self.other_data |= manual;
        if !manual {
            self.marks.push_back(Mark { sequence, end: self.queued });
        }
    }

    /// Asks for a ping that confirms what is queued; `None` if one is outstanding (another follows its answer) or none can be sent.
    /// The frame is in the queue already; the result is [`Self::touch`]'s.
    pub(crate) fn confirm(&mut self) -> Option<bool> {
        self.append_ping().then(|| self.touch())
    }

    fn append_ping(&mut self) -> bool {
        if !self.takes_frames() {
            return false;
        }
        let Some(frame) = self.pings.confirm(self.last_sequence) else { return false };
        self.append(frame);
        self.pings.queued_up_to(self.queued);
        true
    }

    /// Queues a heartbeat's ping.
    pub(crate) fn heartbeat_ping(&mut self) {
        if self.takes_frames() {
            let frame = self.pings.send(self.last_sequence, self.has_unconfirmed());
            self.append(frame);
            self.pings.queued_up_to(self.queued);
        }
    }

    /// A pong has come: the last delivery it confirms (0: none), and whether the next ping is in the queue now, to be flushed.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> (u64, bool) {
        let Some(up_to) = self.pings.answer(payload) else { return (0, false) };
        self.trim(up_to);
        let again = self.pings.take_wanted() && self.has_unconfirmed() && self.append_ping();
        (up_to, again)
    }

    fn trim(&mut self, up_to: u64) {
        while self.marks.front().is_some_and(|mark| mark.sequence <= up_to) {
            self.marks.pop_front();
        }
        if self.marks.is_empty() {
            self.marks = VecDeque::new();
        }
    }

    /// Whether a delivery waits for its confirmation.
    pub(crate) fn has_unconfirmed(&self) -> bool {
        !self.marks.is_empty()
    }

    /// Bytes handed to the kernel, the FIN counted as one, as the kernel counts it; `None` while some thread is about to add to them.
    pub(crate) fn sent(&self) -> Option<u64> {
        (self.io != Io::Writing).then(|| self.written + u64::from(self.phase == Phase::Finished))
    }

    /// Notes that a data frame was queued besides the greeting and the first delivery.
    pub(crate) fn note_other_data(&mut self) {
        self.other_data = true;
    }

    /// Bytes up to the end of the only delivery that was ever queued, if there was exactly one, of one frame, and it is unconfirmed. Where
    /// the peer has acknowledged exactly so many, it has that frame, and nothing of what lies behind.
    pub(crate) fn only_delivery(&self) -> Option<u64> {
        if self.other_data || self.io == Io::Broken {
            return None;
        }
        self.marks.front().filter(|mark| mark.sequence == 1 && self.last_sequence == 1).map(|mark| mark.end)
    }
}
