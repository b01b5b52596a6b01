//! The stages of a kept message, and the causes for which it goes from one to another. `journey.rs` makes the changes.

/// Where a message is, without the key under which it is found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The message has just been accepted and is in no place yet.
    Outside,
    /// See [`super::entry::Place::Waiting`].
    Waiting,
    /// See [`super::entry::Place::Parked`].
    Parked,
    /// See [`super::entry::Place::Flight`].
    Flight,
    /// See [`super::entry::Place::Delayed`].
    Delayed,
    /// See [`super::entry::Place::Held`].
    Held,
    /// Only the store has the message, or it has just been read from there.
    Paged,
    /// The message is settled, refused or given up, and does not come back.
    Gone,
}

/// Why a message changes its stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The message was accepted.
    Accepted,
    /// The delay is over.
    Due,
    /// The message was delivered.
    Delivered,
    /// Its receivers have ended, have given the message back or have not answered.
    Returned,
    /// The message was held back long enough.
    Released,
    /// No receiver takes the message soon, and the store has it.
    PagedOut,
    /// The message was in a page that was read from the store.
    Loaded,
    /// No message that only the store has stands before this message any more.
    Unparked,
    /// The store held the delayed message at the start.
    Restored,
    /// A receiver has confirmed the message.
    Confirmed,
    /// The time to live is over.
    Expired,
    /// The message was given up and goes to the dead-letter channel.
    DeadLettered,
    /// The message was given up, and no dead-letter channel takes it.
    Dropped,
    /// An administrator has emptied the channel.
    Purged,
    /// The store did not take the message.
    Refused,
}
