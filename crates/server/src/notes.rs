//! What the core wants an administrator to know, as lines in the log.
//!
//! Each kind of line comes once in a while at most, with the number of those that were withheld.

use tracing::warn;

use super::counters::Seldom;
use wsmb_core::broker::Note;

/// When each kind of line was written last.
#[derive(Debug, Default)]
pub(super) struct NoteWarnings {
    dropped: Seldom,
    failing: Seldom,
    given: Seldom,
    stays: Seldom,
}

impl NoteWarnings {
    pub(super) fn log(&self, note: &Note) {
        match note {
            Note::Dropped { channel, id, why, attempts, reason } => {
                let Some(withheld) = self.dropped.now() else { return };
                warn!(
                    %channel, id = id.0, why = %why.as_str(), attempts, reason = reason.as_deref(), withheld,
                    "dropped a message: the channel has no dead-letter channel, or it is full; set dead_letter to keep such messages"
                );
            }
            Note::Failing { channel, id, attempts, reason } => {
                let Some(withheld) = self.failing.now() else { return };
                warn!(
                    %channel, id = id.0, attempts, reason = reason.as_deref(), withheld,
                    "a message fails again and again; it is tried on, and does not hold up the others"
                );
            }
            Note::Unanswered { connection, sequence, channel, given: true } => {
                let Some(withheld) = self.given.now() else { return };
                warn!(
                    connection = connection.0, delivery = sequence, %channel, withheld,
                    "a receiver has not answered a delivery within ack_timeout; the message is given to another one"
                );
            }
            Note::Unanswered { connection, sequence, channel, given: false } => {
                let Some(withheld) = self.stays.now() else { return };
                warn!(
                    connection = connection.0, delivery = sequence, %channel, withheld,
                    "a receiver has not answered a delivery within ack_timeout; it keeps the message, because there is no other receiver"
                );
            }
        }
    }
}
