//! The groups among the receivers of one delivery, and the members that hold it.

use smallvec::SmallVec;

use super::groups::Groups;
use super::member::Member;
use crate::message::{ConnectionId, GroupName};

/// The groups among the receivers of a delivery.
#[derive(Debug)]
pub(super) struct GroupShares {
    /// At least one group. The list does not change after the delivery was made.
    pub groups: SmallVec<[GroupName; 1]>,
    /// The members that hold the delivery, each with the index of its group in `groups`. Only their confirmations settle the messages.
    pub holders: SmallVec<[(usize, ConnectionId); 1]>,
    /// Receivers without a group got the delivery, too (see `group_delivery.rs`).
    pub has_observers: bool,
}

impl GroupShares {
    /// Collects the groups of these receivers; `None` if no receiver names a group.
    pub fn new(groups: &Groups, targets: &[Member]) -> Option<Box<Self>> {
        let mut shares = Self { groups: SmallVec::new(), holders: SmallVec::new(), has_observers: false };
        for target in targets {
            match groups.of(target.connection) {
                Some(name) => {
                    shares.holders.push((shares.groups.len(), target.connection));
                    shares.groups.push(name.clone());
                }
                None => shares.has_observers = true,
            }
        }
        (!shares.groups.is_empty()).then(|| Box::new(shares))
    }

    /// Whether the confirmation of this receiver settles the messages.
    pub fn is_holder(&self, connection: ConnectionId) -> bool {
        self.holders.iter().any(|(_, holder)| *holder == connection)
    }

    /// Whether another member of the receiver's group holds the messages, too.
    pub fn is_shared(&self, connection: ConnectionId) -> bool {
        let share = self.share(connection);
        self.holders.iter().any(|(other, holder)| Some(*other) == share && *holder != connection)
    }

    /// Whether another receiver holds the messages, for any of the groups.
    pub fn is_held_beside(&self, connection: ConnectionId) -> bool {
        self.holders.iter().any(|(_, holder)| *holder != connection)
    }

    /// Returns the index of the group for which a receiver holds the messages.
    pub fn share(&self, connection: ConnectionId) -> Option<usize> {
        self.holders.iter().find(|(_, holder)| *holder == connection).map(|(share, _)| *share)
    }

    /// Returns the name of a group.
    pub fn group(&self, share: usize) -> &GroupName {
        &self.groups[share]
    }

    /// Adds a receiver that holds the messages for a group.
    pub fn add(&mut self, share: usize, connection: ConnectionId) {
        self.holders.push((share, connection));
    }
}

/// The receivers that may get a message.
#[derive(Clone, Copy)]
pub(super) struct Eligible<'a> {
    pub origin: Option<ConnectionId>,
    pub limit: u32,
    /// If given, only members of these groups.
    pub within: Option<&'a [GroupName]>,
    /// Returns true for connections that must not get the message.
    pub not: &'a dyn Fn(ConnectionId) -> bool,
}
