//! What each user holds: bytes in memory, channels, delayed messages, and bytes that wait for the store. If one of them is scarce, the user that holds too much is
//! refused, so that other users still find room ([`crate::shares`]).
//!
//! ```text
//! entry, channel, delayed publication ─► Owner ─► Holding { user, bytes, channels, delayed, writing }
//! ```
//!
//! A user is in the table only while it holds something, so the table is bounded by what it counts. An [`Owner`] is valid as long as its
//! user holds something. Every channel and every message in memory counts bytes, so a user without bytes holds at most messages that wait for the
//! store.
//!
//! Never here: a decision about a message. `charge.rs` keeps the table, and `publish.rs`, `membership.rs` and `channel_table.rs` refuse.

use std::collections::HashMap;
use std::sync::Arc;

use foldhash::fast::RandomState;
use slab::Slab;

use crate::message::Message;
use crate::shares::SharedBound;

/// The user to whom an entry or a channel belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Owner(u32);

impl Owner {
    /// No known user: the store knows the users of publications with an id only.
    pub const NOBODY: Self = Self(u32::MAX);
}

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Bytes of messages in memory and of channels.
    Bytes,
    /// Channels.
    Channels,
    /// Delayed messages, and delayed publications to channels that are not kept.
    Delayed,
    /// Bytes of messages that the store has been asked to write.
    Writing,
}

/// The number of kinds.
const KINDS: usize = 4;

/// What one user holds.
#[derive(Debug)]
pub(super) struct Holding {
    user: Arc<str>,
    /// By [`Kind`].
    held: [usize; KINDS],
}

/// The holdings of all users.
#[derive(Debug)]
pub(super) struct Holdings {
    holdings: Slab<Holding>,
    keys: HashMap<Arc<str>, u32, RandomState>,
    /// The user that was looked up last, so that a sender that publishes again costs no hash. The only one that may hold nothing.
    last: Owner,
    /// The number of users that hold something, by [`Kind`].
    holders: [usize; KINDS],
    /// What all users hold, by [`Kind`].
    owned: [usize; KINDS],
}

impl Default for Holdings {
    fn default() -> Self {
        Self {
            holdings: Slab::new(),
            keys: HashMap::default(),
            last: Owner::NOBODY,
            holders: [0; KINDS],
            owned: [0; KINDS],
        }
    }
}

impl Holdings {
    /// Returns the owner for a user. Valid until the next call, or as long as the user holds something.
    #[inline]
    pub fn owner(&mut self, user: &Arc<str>) -> Owner {
        match self.holdings.get(self.last.0 as usize) {
            Some(last) if Arc::ptr_eq(&last.user, user) => self.last,
            _ => self.look_up(user, || user.clone()),
        }
    }

    /// Returns the owner of a message that was read from the store. Valid as [`Self::owner`].
    pub fn owner_of(&mut self, message: &Message) -> Owner {
        match &message.publication {
            Some(id) => self.look_up(id.user(), || Arc::from(id.user())),
            None => Owner::NOBODY,
        }
    }

    fn look_up(&mut self, user: &str, make: impl FnOnce() -> Arc<str>) -> Owner {
        let before = self.last;
        if self.holdings.get(before.0 as usize).is_some_and(|last| *last.user == *user) {
            return before;
        }
        self.last = match self.keys.get(user) {
            Some(key) => Owner(*key),
            None => self.insert(make()),
        };
        self.remove_if_empty(before);
        self.last
    }

    fn insert(&mut self, user: Arc<str>) -> Owner {
        // invariant: fewer than 2³² users hold something, because each holds a channel or a message in memory.
        let key =
            u32::try_from(self.holdings.insert(Holding { user: user.clone(), held: [0; KINDS] })).unwrap_or(u32::MAX);
        self.keys.insert(user, key);
        Owner(key)
    }

    fn remove_if_empty(&mut self, owner: Owner) {
        let key = owner.0 as usize;
        if owner != self.last && self.holdings.get(key).is_some_and(|holding| holding.held == [0; KINDS]) {
            let Holding { user, .. } = self.holdings.remove(key);
            self.keys.remove(&user);
        }
    }

    /// Adds to what a user holds. `amount`: above 0.
    #[inline]
    pub fn add(&mut self, owner: Owner, kind: Kind, amount: usize) {
        let Some(holding) = self.holdings.get_mut(owner.0 as usize) else { return };
        let held = &mut holding.held[kind as usize];
        self.holders[kind as usize] += usize::from(*held == 0);
        *held += amount;
        self.owned[kind as usize] += amount;
    }

    /// Takes from what a user holds. Its bytes in memory are taken after its channels and delayed messages.
    #[inline]
    pub fn take(&mut self, owner: Owner, kind: Kind, amount: usize) {
        let Some(holding) = self.holdings.get_mut(owner.0 as usize) else { return };
        let held = &mut holding.held[kind as usize];
        *held -= amount;
        self.owned[kind as usize] -= amount;
        if *held == 0 {
            self.holders[kind as usize] -= 1;
            if matches!(kind, Kind::Bytes | Kind::Writing) && owner != self.last {
                self.remove_if_empty(owner);
            }
        }
    }

    /// Returns how much of a kind a user holds. Nobody holds nothing.
    fn held(&self, owner: Owner, kind: Kind) -> usize {
        self.holdings.get(owner.0 as usize).map_or(0, |holding| holding.held[kind as usize])
    }

    /// Whether a user is refused `more` of a kind of which `used` of `bound` are used.
    pub fn refuses(&self, owner: Owner, kind: Kind, more: usize, (used, bound): (usize, usize)) -> bool {
        let (owned, holders) = (self.owned[kind as usize], self.holders[kind as usize]);
        SharedBound { bound, used, owned, holders }.refuses(more, self.held(owner, kind))
    }
}

#[cfg(test)]
impl Holdings {
    /// Checks the table against all that exists: owner, kind and amount.
    pub(super) fn audit(&self, all: Vec<(Owner, Kind, usize)>) {
        let mut expected = std::collections::BTreeMap::<Owner, [usize; KINDS]>::new();
        for (owner, kind, amount) in all.into_iter().filter(|(owner, ..)| *owner != Owner::NOBODY) {
            expected.entry(owner).or_default()[kind as usize] += amount;
        }
        let (mut holders, mut owned) = ([0; KINDS], [0; KINDS]);
        for (key, Holding { user, held }) in &self.holdings {
            let owner = Owner(key as u32);
            assert_eq!(
                expected.remove(&owner).unwrap_or_default(),
                *held,
                "user {user}: bytes, channels, delayed, writing"
            );
            assert!(*held != [0; KINDS] || owner == self.last, "user {user} holds nothing and is in the table");
            assert_eq!(self.keys.get(user), Some(&owner.0), "user {user}");
            std::iter::zip(&mut holders, held).for_each(|(holders, held)| *holders += usize::from(*held > 0));
            std::iter::zip(&mut owned, held).for_each(|(owned, held)| *owned += held);
        }
        assert!(expected.is_empty(), "users who hold something and are not in the table: {expected:?}");
        assert_eq!(self.keys.len(), self.holdings.len(), "names of users who hold nothing");
        assert_eq!(self.owned, owned, "bytes, channels, delayed messages of all users");
        assert_eq!(self.holders, holders, "users who hold bytes, channels, delayed messages");
    }

    /// Returns the user's name. `None`: no known user.
    pub(super) fn user(&self, owner: Owner) -> Option<&str> {
        (owner != Owner::NOBODY).then(|| &*self.holdings[owner.0 as usize].user)
    }

    /// Returns the names of the users that hold something.
    pub(super) fn users(&self) -> Vec<&str> {
        let holding = self.holdings.iter().filter(|(_, holding)| holding.held != [0; KINDS]);
        holding.map(|(_, holding)| &*holding.user).collect()
    }
}
