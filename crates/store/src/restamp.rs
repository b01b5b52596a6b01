//! Stored times, and their correction where the clock that made them was wrong.

use crate::limits;
use wsmb_core::message::{Message, MessageId, Timestamp};

/// The name under which a running broker remembers the wall clock's time ([`super::Group::marks`]).
pub const CLOCK: &str = "clock.last";

/// A correction of stored times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restamp {
    /// Names this correction.
    pub token: u64,
    /// Rows with ids above this one.
    pub after: MessageId,
    /// And of those with lower ids: the ones that expire or are due.
    pub all: bool,
    /// What is added to `created`, `expires` and `due`, in milliseconds.
    pub by: i64,
}

impl Restamp {
    /// Whether it concerns this message.
    pub(super) fn concerns(&self, message: &Message) -> bool {
        let ends = message.expires.is_some() || message.due.is_some();
        message.id > self.after || (self.all && ends)
    }

    /// Corrects a message outside the store, if it is concerned.
    pub(super) fn apply(&self, message: &mut Message) {
        if self.concerns(message) {
            shift(message, self.by);
        }
    }

    /// As seconds, for `created`, which has no parts of them.
    pub(super) fn seconds(&self) -> i64 {
        (self.by + self.by.signum() * 500) / 1_000
    }
}

/// Moves all times of a message by so many milliseconds.
pub(super) fn shift(message: &mut Message, millis: i64) {
    message.created = message.created.shifted(millis);
    for moment in [&mut message.expires, &mut message.due] {
        *moment = moment.map(|moment| moment.shifted(millis));
    }
}

/// By how much the times of a row are moved that was created in the future.
pub(super) fn surplus(created: Timestamp, now: Timestamp) -> u64 {
    // The column holds whole seconds; what is left of a message's time must not become more than it had.
    (created.0 / 1_000 * 1_000 + 999).saturating_sub(now.0)
}

/// How many milliseconds are taken together where the expiries of a store, the `first` to the `last`, are counted for its summary.
pub(super) fn expiry_span(first: Timestamp, last: Timestamp) -> u64 {
    last.0.saturating_sub(first.0) / limits::SUMMARY_EXPIRIES + 1
}
