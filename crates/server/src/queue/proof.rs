//! Tracks which deliveries the client has received, from pongs and from the acknowledgements of its TCP.

use super::{Io, Phase, Queue};

impl Queue {
    /// Notes that the last pushed frames are the delivery `sequence`. A `manual` receiver confirms by name, not by pongs.
    pub(crate) fn mark(&mut self, sequence: u64, manual: bool) {
        self.last_sequence = sequence;
        self.other_data |= manual;
        if !manual {
            self.last_unconfirmed = sequence;
        }
        if sequence == 1 {
            self.first_end = self.queued;
        }
    }

    /// Queues a ping whose pong confirms the deliveries before it, and returns the result of [`Self::touch`]. `None`: a ping is outstanding (another
    /// follows its answer), or no frame can be sent.
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

    /// Handles a pong. Returns the last delivery that it confirms (0: none), and whether another ping was queued and must be flushed.
    pub(crate) fn pong(&mut self, payload: &[u8]) -> (u64, bool) {
        let Some(up_to) = self.pings.answer(payload) else { return (0, false) };
        if self.last_unconfirmed <= up_to {
            self.last_unconfirmed = 0;
        }
        let again = self.pings.take_wanted() && self.has_unconfirmed() && self.append_ping();
        (up_to, again)
    }

    /// Whether a delivery waits for its confirmation.
    pub(crate) fn has_unconfirmed(&self) -> bool {
        self.last_unconfirmed > 0
    }

    /// Bytes handed to the kernel, including 1 for the FIN, as the kernel counts it; `None` while a thread is writing.
    pub(crate) fn sent(&self) -> Option<u64> {
        (self.io != Io::Writing).then(|| self.written + u64::from(self.phase == Phase::Finished))
    }

    /// Notes that a data frame was queued besides the greeting and the first delivery.
    pub(crate) fn note_other_data(&mut self) {
        self.other_data = true;
    }

    /// The stream offset of the end of the only delivery that was ever queued, if there was exactly one, of one frame, and it is unconfirmed. A
    /// peer that has acknowledged exactly this number of bytes has received that frame and nothing behind it.
    pub(crate) fn only_delivery(&self) -> Option<u64> {
        if self.other_data || self.io == Io::Broken {
            return None;
        }
        (self.last_unconfirmed == 1 && self.last_sequence == 1).then_some(self.first_end)
    }
}
