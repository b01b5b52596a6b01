//! Publication ids that were seen within `dedup_window`, so that a repeated publication is delivered to nobody.
//!
//! ```text
//! table: half a hash ─► (user, number) ─► the user's queue of ids, oldest first
//! ```
//!
//! An id is held as 128 bits of hash (see [`hash`]): about 40 bytes in all, where the texts would take 200. Two of a few hundred thousand
//! ids have the same hash once in 10²⁷ windows.
//!
//! Each user has a queue of ids, so that one user's ids cannot displace those of another: when there are [`crate::limits::DEDUP_IDS`] in
//! all, the user with the most ids loses its oldest one. The id of a pending publication is never forgotten: its sender has no answer yet
//! and will ask again.
//!
//! Accepted ids are also listed for the file that keeps the ids over a restart ([`Dedup::take_fresh`]). Must never do I/O itself.

mod hash;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, HashMap, VecDeque};
use std::time::Duration;

use foldhash::fast::RandomState;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use slab::Slab;

pub(super) use hash::Key;

use crate::message::{AcceptedId, ChannelName, PublicationId, Timestamp};

/// The state of a known id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// The publication is not safe yet. Holds the key of the pending publication.
    Pending(usize),
    /// The publication was accepted.
    Accepted {
        /// The time of acceptance.
        at: Timestamp,
        /// The number of its messages in the store, as far as the core knows.
        rows: u32,
    },
}

/// An accepted id, in 24 bytes.
#[derive(Clone, Copy, Debug)]
struct Accepted {
    /// The time of acceptance in milliseconds in the upper bits, and the number of stored messages in the lower [`Self::ROW_BITS`].
    at_and_rows: u64,
    key: Key,
}

impl Accepted {
    /// Enough for the messages of a publication ([`crate::limits::PUBLICATION_MESSAGES`]). The bits above last for 8,000 years.
    const ROW_BITS: u32 = 16;
    const MOST_ROWS: u64 = (1 << Self::ROW_BITS) - 1;

    fn new(at: Timestamp, key: Key, rows: u32) -> Self {
        let at = at.0.min(u64::MAX >> Self::ROW_BITS);
        Self { at_and_rows: (at << Self::ROW_BITS) | u64::from(rows).min(Self::MOST_ROWS), key }
    }

    fn at(&self) -> Timestamp {
        Timestamp(self.at_and_rows >> Self::ROW_BITS)
    }

    fn rows(&self) -> u32 {
        (self.at_and_rows & Self::MOST_ROWS) as u32
    }

    fn set_rows(&mut self, rows: u32) {
        *self = Self::new(self.at(), self.key, rows);
    }
}

/// The location of an accepted id: the user's key, and the number of the id in the user's queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct IdLocation {
    user: u32,
    number: u32,
}

/// The accepted ids of one user, oldest first.
#[derive(Debug)]
struct UserQueue {
    /// The hash of the user's name, which the file contains.
    user: u64,
    /// The user's name; `None` if all ids come from the file.
    name: Option<Box<str>>,
    /// The number of the oldest id; the others count up from it. The number may wrap around, because there are far fewer than 2³² ids.
    first: u32,
    ids: VecDeque<Accepted>,
}

impl UserQueue {
    /// Returns the id with this number, which is in the table.
    fn get(&self, number: u32) -> &Accepted {
        // invariant: a number is taken out of the table before its id goes from the row.
        &self.ids[number.wrapping_sub(self.first) as usize]
    }
}

/// Ids that were forgotten before `dedup_window` was over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForgottenIds {
    /// The number of ids.
    pub count: u64,
    /// The user of the last of them; `None` if the user has sent nothing since the start.
    pub user: Option<Box<str>>,
}

/// The ids that were accepted since the last query.
#[derive(Debug, Default)]
pub struct FreshIds {
    /// The ids in the order of acceptance.
    pub ids: Vec<AcceptedId>,
    /// The list is incomplete: [`super::Broker::accepted_ids`] has all ids.
    pub incomplete: bool,
}

/// The known publication ids.
#[derive(Debug)]
pub(super) struct Dedup {
    /// The ids of publications that are not safe yet, with the keys of the pending publications.
    pending: HashMap<Key, usize, RandomState>,
    queues: Slab<UserQueue>,
    /// The keys of the users' queues, by the hash of the user's name.
    users: HashMap<u64, usize, RandomState>,
    /// The queue that got the last id: often the next id belongs to the same user.
    last: usize,
    /// The locations of the accepted ids, by the first half of their keys.
    locations: HashTable<IdLocation>,
    /// The number of accepted ids.
    count: usize,
    /// Each queue once, with a time that is not later than that of its oldest id: ids that may have expired are at the top.
    oldest: BinaryHeap<Reverse<(Timestamp, usize)>>,
    /// The queues by length. Present only while `count` is near the bound.
    longest: Option<BTreeSet<(usize, usize)>>,
    /// The key of the hash.
    seed: [u64; 2],
    bound: usize,
    fresh: FreshIds,
    forgotten: ForgottenIds,
}

impl Dedup {
    /// Makes an empty table. `seed`: the key of the hash; the same key as for the ids that [`Self::restore`] gets.
    pub fn new(seed: [u64; 2], bound: usize) -> Self {
        Self {
            pending: HashMap::default(),
            queues: Slab::new(),
            users: HashMap::default(),
            last: 0,
            locations: HashTable::new(),
            count: 0,
            oldest: BinaryHeap::new(),
            longest: None,
            seed,
            bound,
            fresh: FreshIds::default(),
            forgotten: ForgottenIds::default(),
        }
    }

    /// Returns the key of an id.
    pub fn key(&self, channel: &ChannelName, id: &PublicationId) -> Key {
        hash::hash(self.seed, [channel.as_str(), id.as_str()])
    }

    /// Returns the state of an id; `None` if it is not known.
    pub fn get(&mut self, now: Timestamp, window: Duration, key: Key) -> Option<Seen> {
        if let Some(pending) = self.pending.get(&key) {
            return Some(Seen::Pending(*pending));
        }
        self.expire(now, window);
        let known = self.id(*self.locations.find(key[0], |location| self.id(*location).key == key)?);
        let (at, rows) = (known.at(), known.rows());
        // `expire` checks the oldest time of each queue, not that of every id.
        (now.since(at) < window).then_some(Seen::Accepted { at, rows })
    }

    fn find_mut(&mut self, key: Key) -> Option<&mut Accepted> {
        let location = *self.locations.find(key[0], |location| self.id(*location).key == key)?;
        let queue = &mut self.queues[location.user as usize];
        queue.ids.get_mut(location.number.wrapping_sub(queue.first) as usize)
    }

    /// Notes that a row of the publication was removed from the store. Returns the key of the pending publication, if the publication is
    /// not accepted yet.
    pub fn row_removed(&mut self, key: Key) -> Option<usize> {
        if let Some(pending) = self.pending.get(&key) {
            return Some(*pending);
        }
        if let Some(accepted) = self.find_mut(key) {
            accepted.set_rows(accepted.rows().saturating_sub(1));
        }
        None
    }

    /// Adds an id whose publication is not safe yet.
    pub fn pend(&mut self, key: Key, pending: usize) {
        self.pending.insert(key, pending);
    }

    /// Notes that the id's publication is safe. `rows`: the number of its messages in the store.
    pub fn accept(&mut self, now: Timestamp, key: Key, id: &PublicationId, rows: u32) {
        self.pending.remove(&key);
        let queue = self.queue_of(id.user());
        let accepted = AcceptedId { at: self.push(now, key, queue, rows), key, user: self.queues[queue].user };
        if self.fresh.ids.len() < self.bound {
            self.fresh.ids.push(accepted);
        } else {
            self.fresh.incomplete = true;
        }
    }

    /// Removes an id whose publication was refused: the sender may use it again.
    pub fn refuse(&mut self, key: Key) {
        self.pending.remove(&key);
    }

    /// Adds the ids that were accepted before the start, from the store and from the file, in any order. Each id counts once.
    pub fn restore(&mut self, stored: Vec<(ChannelName, PublicationId, Timestamp, u32)>, filed: Vec<AcceptedId>) {
        let mut all = filed;
        for (channel, id, at, _) in &stored {
            let (key, queue) = (self.key(channel, id), self.queue_of(id.user()));
            all.push(AcceptedId { at: *at, key, user: self.queues[queue].user });
        }
        // Of two times the later is the better one, because the store has whole seconds only.
        all.sort_unstable_by_key(|id| (id.key, Reverse(id.at)));
        all.dedup_by_key(|id| id.key);
        all.sort_unstable_by_key(|id| (id.at, id.key));
        for AcceptedId { at, key, user } in all {
            let queue = self.queue_of_hash(user, None);
            self.push(at, key, queue, 0);
        }
        for (channel, id, _, rows) in &stored {
            let key = self.key(channel, id);
            if let Some(known) = self.find_mut(key) {
                known.set_rows(known.rows().saturating_add(*rows));
            }
        }
        self.drop_empty_queues();
    }

    /// Returns the ids that were accepted since the last call.
    pub fn take_fresh(&mut self) -> FreshIds {
        std::mem::take(&mut self.fresh)
    }

    /// Whether [`Self::take_fresh`] or [`Self::take_forgotten`] would return something.
    pub fn has_news(&self) -> bool {
        !self.fresh.ids.is_empty() || self.forgotten.count > 0
    }

    /// Returns all accepted ids.
    pub fn accepted(&self) -> Vec<AcceptedId> {
        let ids = |queue: &UserQueue| {
            let user = queue.user;
            queue.ids.iter().map(move |id| AcceptedId { at: id.at(), key: id.key, user }).collect::<Vec<_>>()
        };
        self.queues.iter().flat_map(|(_, queue)| ids(queue)).collect()
    }

    /// Returns the number of accepted ids.
    pub fn len(&self) -> usize {
        self.count
    }

    /// Returns the ids that were forgotten too early since the last call.
    pub fn take_forgotten(&mut self) -> Option<ForgottenIds> {
        (self.forgotten.count > 0).then(|| std::mem::take(&mut self.forgotten))
    }

    /// (Tests.) Returns the number of pending ids.
    #[cfg(test)]
    pub fn pending(&self) -> usize {
        self.pending.len()
    }

    fn id(&self, location: IdLocation) -> &Accepted {
        self.queues[location.user as usize].get(location.number)
    }

    /// Returns the key of a user's queue, and makes the queue if it does not exist.
    #[inline]
    fn queue_of(&mut self, user: &str) -> usize {
        if self.queues.get(self.last).is_some_and(|queue| queue.name.as_deref() == Some(user)) {
            return self.last;
        }
        let [hash, _] = hash::hash(self.seed, [user]);
        self.queue_of_hash(hash, Some(user))
    }

    fn queue_of_hash(&mut self, user: u64, name: Option<&str>) -> usize {
        let queue = *self.users.entry(user).or_insert_with(|| {
            let queue = self.queues.insert(UserQueue { user, name: None, first: 0, ids: VecDeque::new() });
            // Not later than any id.
            self.oldest.push(Reverse((Timestamp(0), queue)));
            if let Some(longest) = &mut self.longest {
                longest.insert((0, queue));
            }
            queue
        });
        if let Some(name) = name.filter(|_| self.queues[queue].name.is_none()) {
            self.queues[queue].name = Some(name.into());
        }
        self.last = queue;
        queue
    }

    /// Adds an id to a user's queue. Makes room before, so that no table grows beyond the bound. Returns the id's time, which is never
    /// earlier than the time of the previous id in the queue.
    fn push(&mut self, now: Timestamp, key: Key, user: usize, stored: u32) -> Timestamp {
        while self.count >= self.bound {
            self.make_room(user);
        }
        let Self { queues, locations, .. } = self;
        let queue = &queues[user];
        let at = queue.ids.back().map_or(now, |last| now.max(last.at()));
        // invariant: there are fewer rows than ids, and fewer ids than 2³².
        let location = IdLocation { user: user as u32, number: queue.first.wrapping_add(queue.ids.len() as u32) };
        let id = |location: IdLocation| queues[location.user as usize].get(location.number).key;
        match locations.entry(key[0], |other| id(*other) == key, |other| id(*other)[0]) {
            Entry::Occupied(mut older) => *older.get_mut() = location,
            Entry::Vacant(free) => drop(free.insert(location)),
        }
        self.queues[user].ids.push_back(Accepted::new(at, key, stored));
        self.resized(user, 1);
        at
    }

    /// Forgets the oldest id of the user with the most ids. `user`: the user that needs the room; it loses its own oldest id if no other
    /// user has more ids.
    fn make_room(&mut self, user: usize) {
        let queues = &self.queues;
        let longest =
            self.longest.get_or_insert_with(|| queues.iter().map(|(key, queue)| (queue.ids.len(), key)).collect());
        let Some((most, other)) = longest.last().copied() else { return };
        let loser = if queues[user].ids.len() >= most { user } else { other };
        self.forgotten.count += 1;
        self.forgotten.user.clone_from(&queues[loser].name);
        self.forget_oldest(loser);
    }

    /// Forgets ids that are older than the window.
    #[inline]
    fn expire(&mut self, now: Timestamp, window: Duration) {
        while self.oldest.peek().is_some_and(|Reverse((at, _))| now.since(*at) >= window) {
            let Some(Reverse((_, queue))) = self.oldest.pop() else { return };
            while self.queues[queue].ids.front().is_some_and(|oldest| now.since(oldest.at()) >= window) {
                self.forget_oldest(queue);
            }
            match self.queues[queue].ids.front() {
                Some(oldest) => self.oldest.push(Reverse((oldest.at(), queue))),
                None => self.drop_queue(queue),
            }
        }
    }

    fn drop_queue(&mut self, queue: usize) {
        if let Some(longest) = &mut self.longest {
            longest.remove(&(0, queue));
        }
        let UserQueue { user, .. } = self.queues.remove(queue);
        self.users.remove(&user);
    }

    /// Removes queues without ids.
    fn drop_empty_queues(&mut self) {
        let queues = &self.queues;
        self.oldest.retain(|Reverse((_, queue))| !queues[*queue].ids.is_empty());
        let empty: Vec<usize> = queues.iter().filter(|(_, queue)| queue.ids.is_empty()).map(|(key, _)| key).collect();
        empty.into_iter().for_each(|queue| self.drop_queue(queue));
    }

    fn forget_oldest(&mut self, user: usize) {
        let queue = &mut self.queues[user];
        let Some(Accepted { key, .. }) = queue.ids.pop_front() else { return };
        let location = IdLocation { user: user as u32, number: queue.first };
        queue.first = queue.first.wrapping_add(1);
        // If the id was accepted again after its window, the table contains the newer location.
        if let Ok(entry) = self.locations.find_entry(key[0], |other| *other == location) {
            entry.remove();
        }
        self.resized(user, -1);
    }

    /// Updates the counts after a queue became longer or shorter by one.
    fn resized(&mut self, queue: usize, by: isize) {
        self.count = self.count.wrapping_add_signed(by);
        if self.count < self.bound / 2 {
            self.longest = None;
        }
        if let Some(longest) = &mut self.longest {
            let length = self.queues[queue].ids.len();
            longest.remove(&(length.wrapping_add_signed(-by), queue));
            longest.insert((length, queue));
        }
    }

    /// (Tests.) Checks counts, queues, tables and bounds.
    #[cfg(test)]
    pub fn audit(&self) {
        let count: usize = self.queues.iter().map(|(_, queue)| queue.ids.len()).sum();
        assert_eq!(self.count, count, "ids are counted");
        assert!(
            count <= self.bound && self.locations.len() <= count && self.fresh.ids.len() <= self.bound,
            "ids are bounded"
        );
        assert_eq!(
            (self.users.len(), self.oldest.len()),
            (self.queues.len(), self.queues.len()),
            "each user has one queue"
        );
        for Reverse((at, queue)) in &self.oldest {
            assert!(self.queues[*queue].ids.iter().map(Accepted::at).is_sorted(), "a queue is in order");
            assert!(self.queues[*queue].ids.front().is_none_or(|oldest| *at <= oldest.at()), "no id expires unnoticed");
        }
        if let Some(longest) = &self.longest {
            let lengths: BTreeSet<_> = self.queues.iter().map(|(key, queue)| (queue.ids.len(), key)).collect();
            assert_eq!(*longest, lengths, "the longest queue is known");
        }
    }
}

#[cfg(test)]
mod tests;
