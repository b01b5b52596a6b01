//! Fair shares of a bound that several users fill: the rule by which a user is refused (SPEC section 6, point 10).
//!
//! ```text
//! 0 ──────────── nobody is refused ──────────── 90 % ── users above an equal share are refused ── 100 % everybody is refused
//! ```
//!
//! The core uses the rule for channels, delayed messages and bytes, and the server for connections. This file must never know what is
//! counted.

/// A bound, and how much of it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SharedBound {
    /// The bound.
    pub bound: usize,
    /// How much of the bound is used, by users or otherwise.
    pub used: usize,
    /// What all users hold together.
    pub owned: usize,
    /// The number of users that hold something.
    pub holders: usize,
}

impl SharedBound {
    /// Whether a user that holds `mine` is refused `more`.
    #[must_use]
    #[inline]
    pub const fn refuses(self, more: usize, mine: usize) -> bool {
        self.used.saturating_add(more) > self.bound || (self.is_scarce() && self.is_above_share(mine))
    }

    /// Whether at least 90 % of the bound are used. (Divided first, so that no bound overflows.)
    #[inline]
    const fn is_scarce(self) -> bool {
        self.used >= self.bound - self.bound / 10
    }

    /// Whether `mine` is more than an equal share of what users can hold. One share more than there are holders, so that a newcomer finds
    /// one, too.
    #[inline]
    const fn is_above_share(self, mine: usize) -> bool {
        let not_owned = self.used.saturating_sub(self.owned);
        mine > self.bound.saturating_sub(not_owned) / (self.holders + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_refused_below_90_percent_and_everybody_at_100_percent() {
        for (used, mine, more, refused) in [
            (89, 89, 1, false),
            (89, 89, 11, false),
            (89, 89, 12, true),
            (90, 90, 1, true),
            (90, 34, 1, true),
            (90, 33, 1, false),
            (99, 0, 1, false),
            (99, 0, 2, true),
            (100, 0, 1, true),
        ] {
            let bound = SharedBound { bound: 100, used, owned: used, holders: 2 };
            assert_eq!(bound.refuses(more, mine), refused, "{bound:?} of which {mine} are mine, {more} more");
        }
    }

    #[test]
    fn a_single_user_leaves_the_last_tenth_to_others() {
        let alone = SharedBound { bound: 100, used: 90, owned: 90, holders: 1 };
        assert!(alone.refuses(1, 90));
        assert!(!alone.refuses(10, 0));
    }

    #[test]
    fn users_share_what_is_left_beside_other_uses() {
        let little = SharedBound { bound: 100, used: 90, owned: 20, holders: 2 };
        assert!(little.refuses(1, 11), "an equal share of 30 is 10");
        assert!(!little.refuses(1, 10));
        let nothing = SharedBound { bound: 100, used: 95, owned: 0, holders: 0 };
        assert!(!nothing.refuses(1, 0));
    }
}
