//! Counts the members of groups, for example the connections of an address or a network, and knows the largest group. When a limit is
//! reached, the largest group has to give up a member. No clock, no socket.

use std::collections::{BTreeSet, HashMap};
use std::hash::Hash;

/// Members by group. Each member has a number; newer members have higher numbers.
#[derive(Debug)]
pub struct Groups<K> {
    members: HashMap<K, BTreeSet<u64>>,
    /// Each group once, ordered by its size.
    sizes: BTreeSet<(usize, K)>,
}

impl<K> Default for Groups<K> {
    fn default() -> Self {
        Self { members: HashMap::new(), sizes: BTreeSet::new() }
    }
}

impl<K: Copy + Ord + Hash> Groups<K> {
    /// Adds a member to a group.
    pub fn insert(&mut self, group: K, member: u64) {
        let members = self.members.entry(group).or_default();
        self.sizes.remove(&(members.len(), group));
        members.insert(member);
        self.sizes.insert((members.len(), group));
    }

    /// Takes a member out of a group. A group without members is forgotten.
    pub fn remove(&mut self, group: K, member: u64) {
        let Some(members) = self.members.get_mut(&group) else { return };
        self.sizes.remove(&(members.len(), group));
        members.remove(&member);
        if members.is_empty() {
            self.members.remove(&group);
        } else {
            self.sizes.insert((members.len(), group));
        }
    }

    /// Returns the members of a group, oldest first.
    pub fn of(&self, group: K) -> impl DoubleEndedIterator<Item = u64> {
        self.members.get(&group).into_iter().flatten().copied()
    }

    /// Returns the number of members of a group.
    #[must_use]
    pub fn count(&self, group: K) -> usize {
        self.members.get(&group).map_or(0, BTreeSet::len)
    }

    /// Returns the size and the key of the largest group.
    #[must_use]
    pub fn largest(&self) -> Option<(usize, K)> {
        self.sizes.last().copied()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn the_largest_group_is_right_after_any_inserts_and_removals(acts in prop::collection::vec((any::<bool>(), 0_u8..4, 0_u64..6), 0..100)) {
            let mut groups = Groups::default();
            let mut naive = BTreeSet::new();
            for (adds, group, member) in acts {
                if adds {
                    groups.insert(group, member);
                    naive.insert((group, member));
                } else {
                    groups.remove(group, member);
                    naive.remove(&(group, member));
                }
                for group in 0..4 {
                    let members: Vec<_> = naive.iter().filter(|(of, _)| *of == group).map(|(_, member)| *member).collect();
                    prop_assert_eq!(groups.count(group), members.len());
                    prop_assert_eq!(groups.of(group).collect::<Vec<_>>(), members);
                }
                let largest = (0..4).map(|group| (groups.count(group), group)).max().filter(|(count, _)| *count > 0);
                prop_assert_eq!(groups.largest(), largest);
                prop_assert_eq!(groups.members.len(), groups.sizes.len());
            }
        }
    }
}
