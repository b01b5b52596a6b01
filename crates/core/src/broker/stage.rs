//! The stages of a kept message, and the causes of its transitions. `journey.rs` carries the transitions out.

/// The location of a message, without the key under which it is found there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// The message has just been accepted and has no location yet.
    Outside,
    /// See [`super::entry::Location::Waiting`].
    Waiting,
    /// See [`super::entry::Location::Parked`].
    Parked,
    /// See [`super::entry::Location::Flight`].
    Flight,
    /// See [`super::entry::Location::Delayed`].
    Delayed,
    /// See [`super::entry::Location::Held`].
    Held,
    /// Only the store has the message, or the message has just been read from the store.
    Paged,
    /// The message is settled. It does not return.
    Gone,
}

/// The cause of a transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cause {
    /// The message was accepted.
    Accepted,
    /// The message was delayed and is due.
    Due,
    /// The message was delivered.
    Delivered,
    /// The receivers have vanished, have given the message back or have not answered.
    Returned,
    /// The message was held, and the time is over.
    Released,
    /// The message left the memory, because no receiver takes it soon and the store has it.
    PagedOut,
    /// The message was in a page that was read from the store.
    Loaded,
    /// All earlier messages of the channel have left the store.
    Unparked,
    /// The message is delayed, and the store held it at the start.
    Restored,
    /// A receiver has confirmed the message.
    Confirmed,
    /// The message has expired.
    Expired,
    /// The message was given up and goes to the dead-letter channel.
    DeadLettered,
    /// The message was given up, and there is no dead-letter channel or it is full.
    Dropped,
    /// An administrator has purged the channel.
    Purged,
    /// The store failed to write the message.
    Refused,
}
