//! The groups of a channel: receivers that name one group count as one receiver, and one of them gets each message.
//!
//! This file chooses the receivers. `group_delivery.rs` handles messages that a group has got.

use super::member::{Member, Targets};
use crate::message::{ConnectionId, GroupName};
use crate::policy::Dispatch;

/// The receivers of a channel that name one group.
#[derive(Debug)]
struct Group {
    name: GroupName,
    /// In order; at least one member.
    members: Vec<Member>,
    /// The order of the member that got the last delivery (`dispatch = "rotate"`).
    served: u64,
}

impl Group {
    /// Returns the group's position among the channel's receivers: that of its first member.
    fn order(&self) -> u64 {
        self.members.first().map_or(0, |member| member.order)
    }

    /// Returns the member with the lowest rank; of several, the first one. If members take turns, the search starts after the member that
    /// was served last.
    fn best(&self, dispatch: Dispatch, rank: &impl Fn(&Member) -> Option<usize>) -> Option<Member> {
        let start = match dispatch {
            Dispatch::First => 0,
            Dispatch::Rotate => self.members.partition_point(|member| member.order <= self.served),
        };
        let (before, after) = self.members.split_at(start);
        let ranked = after.iter().chain(before).filter_map(|member| Some((rank(member)?, *member)));
        ranked.min_by_key(|(rank, _)| *rank).map(|(_, member)| member)
    }
}

/// A unit that counts as one receiver: a receiver without a group, or a group.
enum Unit<'a> {
    Alone(&'a Member),
    Group(&'a Group),
}

impl Unit<'_> {
    fn order(&self) -> u64 {
        match self {
            Self::Alone(member) => member.order,
            Self::Group(group) => group.order(),
        }
    }
}

/// The parameters of a choice of receivers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Choice<'a> {
    pub dispatch: Dispatch,
    /// The order of the receiver or group that got the last delivery.
    pub served: u64,
    /// The receiver limit; 0 = all. A group counts as one receiver.
    pub limit: u32,
    /// If given, only these groups.
    pub within: Option<&'a [GroupName]>,
}

/// The receivers of a channel by their groups. There is at least one group.
#[derive(Debug, Default)]
pub(super) struct Groups {
    /// Receivers without a group, in order.
    alone: Vec<Member>,
    /// In the order of their first members.
    groups: Vec<Group>,
}

impl Groups {
    /// Starts with receivers that name no group, in order.
    pub fn new(alone: Vec<Member>) -> Self {
        Self { alone, groups: Vec::new() }
    }

    /// Adds a receiver at its position.
    pub fn join(&mut self, member: Member, group: Option<&GroupName>) {
        let members = match group {
            None => &mut self.alone,
            Some(name) => match self.groups.iter().position(|group| group.name == *name) {
                Some(index) => &mut self.groups[index].members,
                None => {
                    self.groups.push(Group { name: name.clone(), members: Vec::new(), served: 0 });
                    let last = self.groups.len() - 1;
                    &mut self.groups[last].members
                }
            },
        };
        members.insert(members.partition_point(|other| other.order < member.order), member);
        self.groups.sort_by_key(Group::order);
    }

    /// Removes the receiver with this order. Returns false if no group is left.
    pub fn leave(&mut self, order: u64) -> bool {
        for members in self.groups.iter_mut().map(|group| &mut group.members).chain([&mut self.alone]) {
            if let Ok(index) = members.binary_search_by_key(&order, |member| member.order) {
                members.remove(index);
            }
        }
        self.groups.retain(|group| !group.members.is_empty());
        self.groups.sort_by_key(Group::order);
        !self.groups.is_empty()
    }

    /// (Tests.) Whether `members` are exactly the receivers, each once.
    #[cfg(test)]
    pub fn is_of<'a>(&self, members: impl Iterator<Item = &'a Member>) -> bool {
        let mut orders: Vec<u64> =
            self.groups.iter().flat_map(|group| &group.members).chain(&self.alone).map(|member| member.order).collect();
        orders.sort_unstable();
        !self.groups.is_empty() && orders.into_iter().eq(members.map(|member| member.order))
    }

    /// Returns each group's name and members.
    pub fn iter(&self) -> impl Iterator<Item = (&GroupName, &[Member])> {
        self.groups.iter().map(|group| (&group.name, &*group.members))
    }

    /// Returns the members of a group.
    pub fn members(&self, name: &GroupName) -> &[Member] {
        self.groups.iter().find(|group| group.name == *name).map_or(&[], |group| &group.members)
    }

    /// Returns the group of a receiver.
    pub fn of(&self, connection: ConnectionId) -> Option<&GroupName> {
        let has = |group: &&Group| group.members.iter().any(|member| member.connection == connection);
        self.groups.iter().find(has).map(|group| &group.name)
    }

    fn units(&self) -> impl Iterator<Item = Unit<'_>> {
        let mut alone = self.alone.iter().peekable();
        let mut groups = self.groups.iter().peekable();
        std::iter::from_fn(move || match (alone.peek(), groups.peek()) {
            (Some(member), Some(group)) if group.order() < member.order => groups.next().map(Unit::Group),
            (Some(_), _) => alone.next().map(Unit::Alone),
            (None, _) => groups.next().map(Unit::Group),
        })
    }

    /// Chooses the receivers of a delivery: of each group the member with the lowest `rank`. A receiver whose rank is `None` is not chosen.
    pub fn choose(&self, choice: Choice<'_>, rank: impl Fn(&Member) -> Option<usize>) -> Targets {
        let Choice { dispatch, served, limit, within } = choice;
        let start = if limit > 0 && dispatch == Dispatch::Rotate { served } else { 0 };
        let after = self.units().filter(|unit| unit.order() > start);
        let before = self.units().filter(|unit| unit.order() <= start);
        let wanted = if limit == 0 { usize::MAX } else { limit as usize };
        let chosen = after.chain(before).filter_map(|unit| match unit {
            Unit::Alone(member) => (within.is_none() && rank(member).is_some()).then_some(*member),
            Unit::Group(group) => {
                let wanted = within.is_none_or(|within| within.contains(&group.name));
                if wanted { group.best(dispatch, &rank) } else { None }
            }
        });
        chosen.take(wanted).collect()
    }

    /// Notes which receivers got a delivery. Returns the order of the last receiver or group.
    pub fn serve(&mut self, targets: &[Member]) -> Option<u64> {
        let mut last = None;
        for target in targets {
            last = Some(target.order);
            let has = |group: &&mut Group| group.members.binary_search_by_key(&target.order, |m| m.order).is_ok();
            if let Some(group) = self.groups.iter_mut().find(has) {
                group.served = target.order;
                last = Some(group.order());
            }
        }
        last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(order: u64) -> Member {
        Member { order, receiver: order as usize, connection: ConnectionId(order) }
    }

    /// Makes receivers in order, each with its group.
    fn groups(named: &[&str]) -> Groups {
        let mut groups = Groups::default();
        for (index, name) in named.iter().enumerate() {
            let name = (!name.is_empty()).then(|| GroupName::from(*name));
            groups.join(member(index as u64 + 1), name.as_ref());
        }
        groups
    }

    fn orders(targets: &[Member]) -> Vec<u64> {
        targets.iter().map(|target| target.order).collect()
    }

    fn all(dispatch: Dispatch, limit: u32) -> Choice<'static> {
        Choice { dispatch, served: 0, limit, within: None }
    }

    #[test]
    fn one_member_of_each_group_and_all_other_receivers_are_chosen() {
        let groups = groups(&["a", "", "b", "a", "b", ""]);
        assert_eq!(orders(&groups.choose(all(Dispatch::First, 0), |_| Some(0))), [1, 2, 3, 6]);
        assert_eq!(orders(&groups.choose(all(Dispatch::First, 2), |_| Some(0))), [1, 2]);
        let first_is_full = |member: &Member| (member.order != 1).then_some(0);
        assert_eq!(
            orders(&groups.choose(all(Dispatch::First, 2), first_is_full)),
            [4, 2],
            "a group has the position of its first member"
        );
    }

    #[test]
    fn the_member_with_the_lowest_rank_is_chosen() {
        let groups = groups(&["a", "a", "a"]);
        let loads = |member: &Member| Some([0, 5, 3, 4][member.order as usize]);
        assert_eq!(orders(&groups.choose(all(Dispatch::First, 0), loads)), [2]);
    }

    #[test]
    fn groups_and_other_receivers_take_turns_and_so_do_the_members_of_a_group() {
        let mut groups = groups(&["a", "a", "", "b"]);
        let mut served = 0;
        let mut got = Vec::new();
        for _ in 0..6 {
            let choice = Choice { served, ..all(Dispatch::Rotate, 1) };
            let targets = groups.choose(choice, |_| Some(0));
            served = groups.serve(&targets).expect("a receiver");
            got.extend(orders(&targets));
        }
        assert_eq!(got, [1, 3, 4, 2, 3, 4]);
    }

    #[test]
    fn a_choice_can_be_limited_to_some_groups() {
        let groups = groups(&["a", "", "b", "c"]);
        let names = [GroupName::from("c"), GroupName::from("a")];
        let choice = Choice { within: Some(&names), ..all(Dispatch::First, 0) };
        assert_eq!(orders(&groups.choose(choice, |_| Some(0))), [1, 4]);
    }

    #[test]
    fn a_group_is_removed_with_its_last_member() {
        let mut groups = groups(&["a", "b", "a"]);
        assert!(groups.leave(1));
        assert_eq!(
            groups.iter().map(|(name, _)| &**name).collect::<Vec<_>>(),
            ["b", "a"],
            "the first member has left, so the group has a later position"
        );
        assert!(groups.leave(2));
        assert!(!groups.leave(3), "no group is left");
    }
}
