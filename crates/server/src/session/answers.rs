//! Counts the answers for which a client waits, so that the client gets them even after it has finished sending.
//!
//! The count changes only under the core's lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// Set if the client has finished sending, and the connection stays open only for answers.
const LISTENING: u32 = 1 << 31;

/// The number of answers for which one client waits, and the flag [`LISTENING`].
#[derive(Debug, Default)]
pub(crate) struct PendingAnswers(AtomicU32);

impl PendingAnswers {
    /// The client waits for one more answer.
    pub(crate) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The client has got an answer. Returns whether it was the last one and the client has finished sending.
    pub(crate) fn remove(&self) -> bool {
        if self.any() {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        !self.any() && self.is_listening()
    }

    /// Clears the count of a client that has finished sending. Returns whether it has.
    pub(crate) fn give_up(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pending| {
                (pending & LISTENING > 0).then_some(LISTENING)
            })
            .is_ok()
    }

    /// Whether the client waits for an answer.
    pub(crate) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !LISTENING > 0
    }

    /// The client has finished sending. Returns whether it waits for answers.
    pub(crate) fn listen(&self) -> bool {
        let any = self.any();
        if any {
            self.0.fetch_or(LISTENING, Ordering::Relaxed);
        }
        any
    }

    /// Whether the connection stays open only for answers.
    pub(crate) fn is_listening(&self) -> bool {
        self.0.load(Ordering::Relaxed) & LISTENING > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_of_a_client_that_has_finished_sending_is_reported() {
        let pending = PendingAnswers::default();
        assert!(!pending.listen(), "no answer is pending");
        pending.add();
        pending.add();
        assert!(!pending.remove() && pending.any());
        assert!(pending.listen());
        assert!(pending.remove() && !pending.any());
        assert!(pending.remove(), "one too many does no harm");
        pending.add();
        assert!(pending.give_up() && !pending.any());
        assert!(size_of::<PendingAnswers>() <= 4);
    }

    #[test]
    fn a_client_that_goes_on_sending_still_waits_for_its_answers() {
        let pending = PendingAnswers::default();
        pending.add();
        assert!(!pending.give_up() && pending.any());
        assert!(!pending.remove() && !pending.any());
    }
}
