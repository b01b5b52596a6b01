//! The receivers of one channel, in order, and those of them that may have room. No operation on one member searches through all of them.
//!
//! A member that leaves becomes a gap, because to close the gap costs a move of all later members. The gaps are closed when there is one for
//! every eight members.
//!
//! If a search for a member with room has passed by many that have none, the members with room get an index. The index may contain members
//! that have no room any more (they are removed when a search finds them), but never lacks one that has: [`Members::note_room`].

use std::collections::BTreeMap;
use std::ops::Bound;

use smallvec::SmallVec;

use super::member::Member;

/// Members for each gap, at least.
const MEMBERS_PER_GAP: usize = 8;

/// In place of a receiver's key: the member has left.
const GONE: usize = usize::MAX;

/// The receivers of a channel.
#[derive(Debug, Default)]
pub(super) struct Members {
    /// In order, with gaps. Many channels have one member.
    slots: SmallVec<[Member; 1]>,
    /// Boxed, because few channels have many members.
    many: Option<Box<Many>>,
}

/// What only a channel with many members needs.
#[derive(Debug, Default)]
struct Many {
    /// The number of gaps.
    gaps: usize,
    /// Every member that has room, by its order. `None`: there is no index.
    ready: Option<BTreeMap<u64, Member>>,
}

impl Members {
    pub fn len(&self) -> usize {
        self.slots.len() - self.gaps()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn gaps(&self) -> usize {
        self.many.as_ref().map_or(0, |many| many.gaps)
    }

    fn ready(&self) -> Option<&BTreeMap<u64, Member>> {
        self.many.as_ref()?.ready.as_ref()
    }

    fn ready_mut(&mut self) -> Option<&mut BTreeMap<u64, Member>> {
        self.many.as_mut()?.ready.as_mut()
    }

    /// Returns all members in order.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.slots.iter().filter(|member| member.receiver != GONE)
    }

    /// Returns all members: first those after the order `start`, then those up to it.
    pub fn from(&self, start: u64) -> impl Iterator<Item = &Member> {
        let index = if start == 0 { 0 } else { self.slots.partition_point(|member| member.order <= start) };
        let (before, after) = self.slots.split_at(index);
        after.iter().chain(before).filter(|member| member.receiver != GONE)
    }

    /// As [`Self::from`], but may leave out members that have no room.
    pub fn ready_from(&self, start: u64) -> impl Iterator<Item = &Member> {
        let ready = self.ready();
        let indexed = ready.into_iter().flat_map(move |ready| {
            let after = ready.range((Bound::Excluded(start), Bound::Unbounded));
            after.chain(ready.range(..=start)).map(|(_, member)| member)
        });
        let all = ready.is_none().then(|| self.from(start));
        all.into_iter().flatten().chain(indexed)
    }

    /// Returns the member with this order.
    pub fn get(&self, order: u64) -> Option<Member> {
        self.index(order).map(|index| self.slots[index])
    }

    fn index(&self, order: u64) -> Option<usize> {
        let index = self.slots.binary_search_by_key(&order, |member| member.order).ok()?;
        (self.slots[index].receiver != GONE).then_some(index)
    }

    /// Adds a member at its position.
    pub fn insert(&mut self, member: Member) {
        let index = self.slots.partition_point(|other| other.order < member.order);
        match self.slots.get_mut(index).filter(|other| other.order == member.order) {
            // A receiver has taken the position of its predecessor.
            Some(gap) => {
                *gap = member;
                self.many.get_or_insert_default().gaps -= 1;
            }
            None => self.slots.insert(index, member),
        }
        self.note_room(member);
    }

    /// Removes the member with this order. Returns false if there is none.
    pub fn remove(&mut self, order: u64) -> bool {
        let Some(index) = self.index(order) else { return false };
        if let Some(ready) = self.ready_mut() {
            ready.remove(&order);
        }
        self.slots[index].receiver = GONE;
        let gaps = self.gaps() + 1;
        if gaps * MEMBERS_PER_GAP + gaps <= self.slots.len() {
            self.many.get_or_insert_default().gaps = gaps;
        } else {
            self.slots.retain(|member| member.receiver != GONE);
            if let Some(many) = &mut self.many {
                many.gaps = 0;
            }
            if self.slots.len() * 4 < self.slots.capacity() {
                self.slots.shrink_to_fit();
            }
        }
        true
    }

    /// Notes that a member may have room again.
    #[inline]
    pub fn note_room(&mut self, member: Member) {
        if let Some(ready) = self.ready_mut() {
            ready.insert(member.order, member);
        }
    }

    /// Prepares a search for up to `wanted` members with room, from the order `start` on. A channel with at most `few` members needs no
    /// index.
    #[inline]
    pub fn prepare(&mut self, (start, wanted): (u64, usize), few: usize, has_room: impl Fn(&Member) -> bool) {
        if self.slots.len() > few {
            self.prepare_many((start, wanted), few, has_room);
        } else if self.gaps() == 0 {
            self.many = None;
        }
    }

    fn prepare_many(&mut self, (start, wanted): (u64, usize), few: usize, has_room: impl Fn(&Member) -> bool) {
        let (mut found, mut passed) = (0, SmallVec::<[u64; 32]>::new());
        for member in self.ready_from(start) {
            if has_room(member) {
                found += 1;
                if found == wanted {
                    break;
                }
            } else if self.ready().is_some() || passed.len() <= few {
                passed.push(member.order);
            } else {
                break;
            }
        }
        match self.ready_mut() {
            Some(ready) => passed.iter().for_each(|order| {
                ready.remove(order);
            }),
            None if passed.len() > few => {
                let ready = self.iter().filter(|member| has_room(member)).map(|member| (member.order, *member));
                let ready = ready.collect();
                self.many.get_or_insert_default().ready = Some(ready);
            }
            None => {}
        }
    }

    /// (Tests.) Whether the index lacks no member for which `has_room` returns true, and the members are in order.
    #[cfg(test)]
    pub fn is_complete(&self, has_room: impl Fn(&Member) -> bool) -> bool {
        let all = self.ready().is_none_or(|ready| {
            self.iter().all(|member| !has_room(member) || ready.contains_key(&member.order))
                && ready.keys().all(|order| self.get(*order).is_some())
        });
        all && self.slots.is_sorted_by_key(|member| member.order) && self.gaps() * MEMBERS_PER_GAP <= self.len()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::message::ConnectionId;

    fn member(order: u64) -> Member {
        Member { order, receiver: order as usize, connection: ConnectionId(order) }
    }

    fn orders<'a>(members: impl Iterator<Item = &'a Member>) -> Vec<u64> {
        members.map(|member| member.order).collect()
    }

    proptest! {
        /// Members come, go, fill up and get room again.
        #[test]
        fn a_search_finds_the_same_members_as_in_a_plain_list(
            steps in prop::collection::vec((0..4_u8, 1..60_u64, 0..60_u64, 1..4_usize), 0..300)
        ) {
            let (mut members, mut model, mut full) = (Members::default(), BTreeSet::new(), BTreeSet::new());
            for (step, order, start, wanted) in steps {
                match step {
                    0 if model.insert(order) => {
                        full.remove(&order);
                        members.insert(member(order));
                    }
                    1 => prop_assert_eq!(members.remove(order), model.remove(&order)),
                    2 => drop(full.insert(order)),
                    3 if full.remove(&order) && model.contains(&order) => members.note_room(member(order)),
                    _ => {}
                }
                let has_room = |member: &Member| !full.contains(&member.order);
                members.prepare((start, wanted), 4, has_room);
                prop_assert!(members.is_complete(has_room));
                let expected: Vec<u64> = model.range(start + 1..).chain(model.range(..=start)).copied().collect();
                prop_assert_eq!(orders(members.from(start)), expected.clone());
                let with_room = expected.iter().filter(|order| !full.contains(order)).copied();
                prop_assert_eq!(orders(members.ready_from(start).filter(|member| has_room(member))), Vec::from_iter(with_room));
                prop_assert_eq!((members.len(), members.get(order).is_some()), (model.len(), model.contains(&order)));
            }
        }
    }

    #[test]
    fn a_search_among_many_without_room_looks_at_few() {
        let mut members = Members::default();
        (1..=1_000).for_each(|order| members.insert(member(order)));
        let looked = std::cell::Cell::new(0);
        let mut search = |last: u64| {
            looked.set(0);
            let has_room = |member: &Member| {
                looked.set(looked.get() + 1);
                member.order >= last
            };
            members.prepare((0, 2), 32, has_room);
            (orders(members.ready_from(0).filter(|member| has_room(member)).take(2)), looked.get())
        };
        assert_eq!(search(1), (vec![1, 2], 4));
        let (found, first) = search(990);
        assert!(found == [990, 991] && first > 1_000, "the index is made: {first}");
        assert_eq!(search(990), (vec![990, 991], 4));
        let (found, after) = search(999);
        assert!(found == [999, 1_000] && after < 20, "{after}");
    }
}
