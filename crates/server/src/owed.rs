//! The answers that a client waits for, so that it gets them though it has finished sending.
//!
//! Everything here changes under the core's lock.

use std::sync::atomic::{AtomicU32, Ordering};

/// The client has sent its FIN, and is only there to be answered.
const LISTENING: u32 = 1 << 31;

/// The answers owed to one client, in 4 bytes: their number, and [`LISTENING`].
#[derive(Debug, Default)]
pub(super) struct Owed(AtomicU32);

impl Owed {
    /// One more is owed.
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less is owed. True if it was the last that a client has waited for that has finished sending.
    pub(super) fn settle(&self) -> bool {
        if self.any() {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
        !self.any() && self.is_listening()
    }

    /// Nothing more is owed to a client that has finished sending. True if it has.
    pub(super) fn write_off(&self) -> bool {
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |owed| (owed & LISTENING > 0).then_some(LISTENING))
            .is_ok()
    }

    /// Whether any is owed.
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Relaxed) & !LISTENING > 0
    }

    /// The client has finished sending. True if it waits for answers.
    pub(super) fn listen(&self) -> bool {
        let any = self.any();
        if any {
            self.0.fetch_or(LISTENING, Ordering::Relaxed);
        }
        any
    }

    /// Whether the client is only there to be answered.
    pub(super) fn is_listening(&self) -> bool {
        self.0.load(Ordering::Relaxed) & LISTENING > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_answer_to_a_client_that_only_listens_is_told() {
        let owed = Owed::default();
        assert!(!owed.listen(), "nothing is owed");
        owed.add();
        owed.add();
        assert!(!owed.settle() && owed.any());
        assert!(owed.listen());
        assert!(owed.settle() && !owed.any());
        assert!(owed.settle(), "one too many does no harm");
        owed.add();
        assert!(owed.write_off() && !owed.any());
        assert!(size_of::<Owed>() <= 4);
    }

    #[test]
    fn a_client_that_goes_on_sending_is_owed_what_it_was() {
        let owed = Owed::default();
        owed.add();
        assert!(!owed.write_off() && owed.any());
        assert!(!owed.settle() && !owed.any());
    }
}
