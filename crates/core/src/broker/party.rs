//! The groups among the receivers of one delivery, and who of them has it.

use smallvec::SmallVec;

use super::groups::Groups;
use super::member::Member;
use crate::message::{ConnectionId, GroupName};

/// The groups among the receivers of a delivery.
#[derive(Debug)]
pub(super) struct Party {
    /// One or more, as they were when it was made.
    pub groups: SmallVec<[GroupName; 1]>,
    /// Who has it, and for which of the groups: their confirmations settle it.
    pub holders: SmallVec<[(usize, ConnectionId); 1]>,
    /// Others got it too.
    pub onlookers: bool,
}

impl Party {
    /// The groups of these receivers; `None` if none of them names one.
    pub fn new(groups: &Groups, targets: &[Member]) -> Option<Box<Self>> {
        let mut party = Self { groups: SmallVec::new(), holders: SmallVec::new(), onlookers: false };
        for target in targets {
            match groups.of(target.connection) {
                Some(name) => {
                    party.holders.push((party.groups.len(), target.connection));
                    party.groups.push(name.clone());
                }
                None => party.onlookers = true,
            }
        }
        (!party.groups.is_empty()).then(|| Box::new(party))
    }

    /// Whether the confirmation of this receiver settles the messages.
    pub fn is_holder(&self, connection: ConnectionId) -> bool {
        self.holders.iter().any(|(_, holder)| *holder == connection)
    }

    /// Whether another member of the receiver's group has the messages, too.
    pub fn is_shared(&self, connection: ConnectionId) -> bool {
        let part = self.part(connection);
        self.holders.iter().any(|(other, holder)| Some(*other) == part && *holder != connection)
    }

    /// Whether anybody else has the messages, for any of the groups.
    pub fn is_held_beside(&self, connection: ConnectionId) -> bool {
        self.holders.iter().any(|(_, holder)| *holder != connection)
    }

    /// For which group a receiver has the messages.
    pub fn part(&self, connection: ConnectionId) -> Option<usize> {
        self.holders.iter().find(|(_, holder)| *holder == connection).map(|(part, _)| *part)
    }

    /// The name of a group.
    pub fn group(&self, part: usize) -> &GroupName {
        &self.groups[part]
    }

    /// One more receiver has the messages for a group.
    pub fn add(&mut self, part: usize, connection: ConnectionId) {
        self.holders.push((part, connection));
    }
}

/// Who is asked to take a message.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub origin: Option<ConnectionId>,
    pub limit: u32,
    /// Only members of these groups.
    pub within: Option<&'a [GroupName]>,
    /// Not these.
    pub not: &'a dyn Fn(ConnectionId) -> bool,
}
