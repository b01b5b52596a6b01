//! How many unconfirmed deliveries a receiver may hold.
//!
//! A receiver that dies gives back what it had not confirmed, and what it had handled of that arrives twice. So an automatic receiver
//! that names no `prefetch` holds little at first, twice as much after each confirmation that used half of its window, and never more
//! than about [`limits::WINDOW_WORK`] of its own work.

use std::time::Duration;

use super::{AckMode, ClientKind};
use crate::limits;

/// The number of unconfirmed deliveries that a receiver is allowed, and how that number follows its confirmations.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// 1 to [`limits::MAX_PREFETCH`].
    allowed: u16,
    /// `allowed` follows how quickly the receiver confirms.
    adaptive: bool,
    /// It is a legacy client that has confirmed nothing yet: perhaps it takes one frame and leaves.
    unproven: bool,
}

impl Pace {
    /// The pace of a receiver that has been given nothing yet.
    pub fn new(client: ClientKind, ack: AckMode, prefetch: Option<u32>) -> Self {
        let automatic = ack == AckMode::Automatic;
        let unproven = automatic && client != ClientKind::Modern;
        let first = if unproven { 1 } else { limits::PREFETCH };
        Self { allowed: window(prefetch.unwrap_or(first)), adaptive: automatic && prefetch.is_none(), unproven }
    }

    /// The pace after the receiver has subscribed again: what is known of it stays known.
    pub fn renew(self, client: ClientKind, ack: AckMode, prefetch: Option<u32>) -> Self {
        let new = Self::new(client, ack, prefetch);
        let allowed = if self.adaptive && new.adaptive { self.allowed } else { new.allowed };
        Self { allowed, unproven: new.unproven && self.unproven, ..new }
    }

    /// Unconfirmed deliveries allowed.
    pub fn allowed(self) -> usize {
        usize::from(self.allowed)
    }

    /// Whether it is a legacy client that has confirmed nothing yet.
    pub fn is_unproven(self) -> bool {
        self.unproven
    }

    /// A confirmation of so many deliveries (not 0) came, so long after it was asked for; `None`: it was not asked for.
    pub fn confirmed(&mut self, deliveries: usize, took: Option<Duration>) {
        self.unproven = false;
        let Some(took) = took.filter(|_| self.adaptive) else { return };
        let before = u32::from(self.allowed);
        let used = deliveries * 2 >= self.allowed();
        let grown = if used { before * 2 } else { before };
        let most = if took <= limits::QUICK_CONFIRMATION {
            limits::MAX_PREFETCH
        } else if took < limits::SLOW_CONFIRMATION {
            limits::PREFETCH.max(before)
        } else {
            limits::PREFETCH
        };
        self.allowed = window(grown.min(most).min(sustained(deliveries, took)));
    }
}

/// How many deliveries a receiver handles in [`limits::WINDOW_WORK`] if it has handled so many in `took`.
fn sustained(deliveries: usize, took: Duration) -> u32 {
    let work = deliveries as u128 * limits::WINDOW_WORK.as_millis();
    work.checked_div(took.as_millis()).map_or(u32::MAX, |deliveries| u32::try_from(deliveries).unwrap_or(u32::MAX))
}

fn window(deliveries: u32) -> u16 {
    // invariant: limits::MAX_PREFETCH is far below 65,536.
    u16::try_from(deliveries.clamp(1, limits::MAX_PREFETCH)).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEGACY: ClientKind = ClientKind::Legacy;

    fn automatic(client: ClientKind) -> Pace {
        Pace::new(client, AckMode::Automatic, None)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A receiver whose windows are always full and that takes so long for each delivery: the sizes of its windows.
    fn windows(mut pace: Pace, each: Duration) -> Vec<usize> {
        (0..14)
            .map(|_| {
                let held = pace.allowed();
                pace.confirmed(held, Some(each * u32::try_from(held).expect("a window")));
                held
            })
            .collect()
    }

    #[test]
    fn a_legacy_receiver_begins_with_one_frame_and_a_modern_one_with_many() {
        assert_eq!((automatic(LEGACY).allowed(), automatic(LEGACY).is_unproven()), (1, true));
        assert_eq!((automatic(ClientKind::Modern).allowed(), automatic(ClientKind::Modern).is_unproven()), (64, false));
        let manual = Pace::new(LEGACY, AckMode::Manual, None);
        assert_eq!((manual.allowed(), manual.is_unproven()), (64, false), "it confirms by name");
    }

    #[test]
    fn a_quick_receiver_gets_the_largest_window() {
        assert_eq!(windows(automatic(LEGACY), Duration::ZERO)[..8], [1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(windows(automatic(LEGACY), Duration::ZERO)[13], limits::MAX_PREFETCH as usize);
    }

    #[test]
    fn a_slow_receiver_never_holds_more_than_ten_seconds_of_its_work() {
        assert_eq!(windows(automatic(LEGACY), millis(2_000))[..6], [1, 2, 4, 5, 5, 5]);
        assert_eq!(windows(automatic(ClientKind::Modern), millis(2_000))[..3], [64, 5, 5]);
        assert_eq!(windows(automatic(LEGACY), millis(60_000))[..3], [1, 1, 1], "one is always allowed");
    }

    #[test]
    fn a_receiver_that_speeds_up_recovers() {
        let mut pace = automatic(ClientKind::Modern);
        pace.confirmed(64, Some(millis(128_000)));
        assert_eq!(pace.allowed(), 5);
        assert_eq!(windows(pace, millis(1))[..5], [5, 10, 20, 40, 64]);
    }

    #[test]
    fn a_receiver_far_away_reaches_the_usual_window_and_no_more() {
        let mut pace = automatic(LEGACY);
        for _ in 0..10 {
            pace.confirmed(pace.allowed(), Some(millis(600)));
        }
        assert_eq!(pace.allowed(), limits::PREFETCH as usize);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut pace = automatic(LEGACY);
        for _ in 0..10 {
            pace.confirmed(1, Some(Duration::ZERO));
        }
        assert_eq!(pace.allowed(), 4, "one at a time uses a quarter of it");
    }

    #[test]
    fn a_slow_confirmation_brings_a_large_window_back_to_the_usual_one() {
        let mut pace = automatic(ClientKind::Modern);
        pace.confirmed(64, Some(Duration::ZERO));
        pace.confirmed(64, Some(millis(50)));
        assert_eq!(pace.allowed(), 128, "neither quick nor slow: it stays");
        pace.confirmed(64, Some(limits::SLOW_CONFIRMATION));
        assert_eq!(pace.allowed(), 64);
    }

    #[test]
    fn an_explicit_prefetch_is_kept_as_given() {
        for prefetch in [1, 3, limits::PREFETCH, limits::MAX_PREFETCH] {
            for client in [LEGACY, ClientKind::Modern] {
                let mut pace = Pace::new(client, AckMode::Automatic, Some(prefetch));
                for took in [0, 1, 100, 10_000] {
                    assert_eq!(pace.allowed(), prefetch as usize);
                    pace.confirmed(1, Some(millis(took)));
                }
            }
        }
    }

    #[test]
    fn a_receiver_that_subscribes_again_keeps_what_is_known_of_it() {
        let mut pace = automatic(LEGACY);
        pace.confirmed(1, Some(Duration::ZERO));
        let again = pace.renew(LEGACY, AckMode::Automatic, None);
        assert_eq!((again.allowed(), again.is_unproven()), (2, false));
        assert_eq!(again.renew(LEGACY, AckMode::Automatic, Some(9)).allowed(), 9);
        assert!(automatic(LEGACY).renew(LEGACY, AckMode::Automatic, None).is_unproven());
    }
}
