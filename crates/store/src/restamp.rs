//! Corrections of stored times after the clock that produced them was wrong.

use crate::limits;
use wsmb_core::message::{Message, MessageId, Timestamp};

/// The name of the mark ([`super::Group::marks`]) that holds the wall clock's time as a running broker last saw it, in milliseconds since 1970.
pub const CLOCK: &str = "clock.last";

/// The name of the note that holds the token of the last correction.
pub(super) const LAST_RESTAMP: &str = "restamped";

/// A correction of stored times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Restamp {
    /// Identifies this correction: a store carries out each token once.
    pub token: u64,
    /// Every row with an id above this one is corrected.
    pub after: MessageId,
    /// Whether rows with lower ids are corrected too, if they have an expiry or a due time.
    pub all: bool,
    /// The amount that is added to `created`, `expires` and `due`, in milliseconds.
    pub by: i64,
}

impl Restamp {
    /// Whether the correction applies to this message.
    pub(super) fn applies_to(&self, message: &Message) -> bool {
        let ends = message.expires.is_some() || message.due.is_some();
        message.id > self.after || (self.all && ends)
    }

    /// Corrects a message that is held outside the store, if the correction applies to it.
    pub(super) fn apply(&self, message: &mut Message) {
        if self.applies_to(message) {
            shift(message, self.by);
        }
    }

    /// The amount in whole seconds, rounded, for the column `created`, which holds whole seconds.
    pub(super) fn seconds(&self) -> i64 {
        (self.by + self.by.signum() * 500) / 1_000
    }
}

/// Adds `millis` milliseconds to all times of a message.
pub(super) fn shift(message: &mut Message, millis: i64) {
    message.created = message.created.shifted(millis);
    for moment in [&mut message.expires, &mut message.due] {
        *moment = moment.map(|moment| moment.shifted(millis));
    }
}

/// By how many milliseconds the times of a row are moved back whose `created` lies in the future.
pub(super) fn future_excess(created: Timestamp, now: Timestamp) -> u64 {
    // The column holds whole seconds: the end of the second is used, so that the rest of a message's lifetime never grows.
    (created.0 / 1_000 * 1_000 + 999).saturating_sub(now.0)
}

/// The width in milliseconds of the intervals in which a summary counts the expiries of a store, which lie between `first` and `last`.
pub(super) fn expiry_span(first: Timestamp, last: Timestamp) -> u64 {
    last.0.saturating_sub(first.0) / limits::SUMMARY_EXPIRIES + 1
}
