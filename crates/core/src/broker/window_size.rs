//! The number of unconfirmed deliveries that a receiver may hold.
//!
//! If a receiver dies, its unconfirmed messages are delivered again, and those that it had already handled arrive twice. So an automatic
//! receiver that names no `prefetch` starts with a small window. The window doubles after each confirmation that finds half of it used, and never
//! exceeds the work of about [`limits::WINDOW_WORK`].

use std::time::Duration;

use super::{AckMode, ClientKind};
use crate::limits;

/// The size of a receiver's window in deliveries, and how it follows the receiver's confirmations.
#[derive(Clone, Copy, Debug)]
pub(super) struct WindowSize {
    /// 1 to [`limits::MAX_PREFETCH`].
    allowed: u16,
    /// Whether `allowed` follows the speed of the receiver's confirmations.
    adaptive: bool,
    /// The receiver is a legacy client that has confirmed nothing yet. It may take one frame and leave.
    unproven: bool,
}

impl WindowSize {
    /// Makes the window size of a new receiver.
    pub fn new(client: ClientKind, ack: AckMode, prefetch: Option<u32>) -> Self {
        let automatic = ack == AckMode::Automatic;
        let unproven = automatic && client != ClientKind::Modern;
        let first = if unproven { 1 } else { limits::PREFETCH };
        Self { allowed: window(prefetch.unwrap_or(first)), adaptive: automatic && prefetch.is_none(), unproven }
    }

    /// Returns the window size after the receiver has subscribed again. Keeps the adapted size.
    pub fn reconfigured(self, client: ClientKind, ack: AckMode, prefetch: Option<u32>) -> Self {
        let new = Self::new(client, ack, prefetch);
        let allowed = if self.adaptive && new.adaptive { self.allowed } else { new.allowed };
        Self { allowed, unproven: new.unproven && self.unproven, ..new }
    }

    /// Returns the number of unconfirmed deliveries that are allowed.
    pub fn allowed(self) -> usize {
        usize::from(self.allowed)
    }

    /// Whether the receiver is a legacy client that has confirmed nothing yet.
    pub fn is_unproven(self) -> bool {
        self.unproven
    }

    /// Adapts the size to a confirmation. `deliveries`: the number of confirmed deliveries, at least 1. `held`: the number that were unconfirmed before.
    /// `took`: the time since the request; `None` if there was no request.
    pub fn confirmed(&mut self, deliveries: usize, held: usize, took: Option<Duration>) {
        self.unproven = false;
        let Some(took) = took.filter(|_| self.adaptive) else { return };
        let before = u32::from(self.allowed);
        let used = held * 2 >= self.allowed();
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

/// Returns the number of deliveries that a receiver handles in [`limits::WINDOW_WORK`] if it handled `deliveries` in `took`.
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

    fn automatic(client: ClientKind) -> WindowSize {
        WindowSize::new(client, AckMode::Automatic, None)
    }

    fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// Returns the successive window sizes of a receiver that always fills its window and takes `each` for a delivery.
    fn windows(mut window_size: WindowSize, each: Duration) -> Vec<usize> {
        (0..14)
            .map(|_| {
                let held = window_size.allowed();
                window_size.confirmed(held, held, Some(each * u32::try_from(held).expect("a window")));
                held
            })
            .collect()
    }

    #[test]
    fn a_legacy_receiver_begins_with_one_frame_and_a_modern_one_with_many() {
        assert_eq!((automatic(LEGACY).allowed(), automatic(LEGACY).is_unproven()), (1, true));
        assert_eq!((automatic(ClientKind::Modern).allowed(), automatic(ClientKind::Modern).is_unproven()), (64, false));
        let manual = WindowSize::new(LEGACY, AckMode::Manual, None);
        assert_eq!((manual.allowed(), manual.is_unproven()), (64, false), "a manual receiver answers each delivery");
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
        assert_eq!(windows(automatic(LEGACY), millis(60_000))[..3], [1, 1, 1], "one delivery is always allowed");
    }

    #[test]
    fn a_receiver_that_speeds_up_recovers() {
        let mut window_size = automatic(ClientKind::Modern);
        window_size.confirmed(64, 64, Some(millis(128_000)));
        assert_eq!(window_size.allowed(), 5);
        assert_eq!(windows(window_size, millis(1))[..5], [5, 10, 20, 40, 64]);
    }

    #[test]
    fn a_receiver_with_a_long_round_trip_gets_the_default_window_at_most() {
        let mut window_size = automatic(LEGACY);
        for _ in 0..10 {
            window_size.confirmed(window_size.allowed(), window_size.allowed(), Some(millis(600)));
        }
        assert_eq!(window_size.allowed(), limits::PREFETCH as usize);
    }

    #[test]
    fn a_window_that_is_not_used_does_not_grow() {
        let mut window_size = automatic(LEGACY);
        for _ in 0..10 {
            window_size.confirmed(1, 1, Some(Duration::ZERO));
        }
        assert_eq!(window_size.allowed(), 4, "one delivery uses a quarter of the window");
    }

    #[test]
    fn a_slow_confirmation_reduces_a_large_window_to_the_default() {
        let mut window_size = automatic(ClientKind::Modern);
        window_size.confirmed(64, 64, Some(Duration::ZERO));
        window_size.confirmed(64, 64, Some(millis(50)));
        assert_eq!(window_size.allowed(), 128, "neither quick nor slow: the window stays");
        window_size.confirmed(64, 64, Some(limits::SLOW_CONFIRMATION));
        assert_eq!(window_size.allowed(), 64);
    }

    #[test]
    fn an_explicit_prefetch_is_kept_as_given() {
        for prefetch in [1, 3, limits::PREFETCH, limits::MAX_PREFETCH] {
            for client in [LEGACY, ClientKind::Modern] {
                let mut window_size = WindowSize::new(client, AckMode::Automatic, Some(prefetch));
                for took in [0, 1, 100, 10_000] {
                    assert_eq!(window_size.allowed(), prefetch as usize);
                    window_size.confirmed(1, 1, Some(millis(took)));
                }
            }
        }
    }

    #[test]
    fn a_receiver_that_subscribes_again_keeps_its_window_size() {
        let mut window_size = automatic(LEGACY);
        window_size.confirmed(1, 1, Some(Duration::ZERO));
        let again = window_size.reconfigured(LEGACY, AckMode::Automatic, None);
        assert_eq!((again.allowed(), again.is_unproven()), (2, false));
        assert_eq!(again.reconfigured(LEGACY, AckMode::Automatic, Some(9)).allowed(), 9);
        assert!(automatic(LEGACY).reconfigured(LEGACY, AckMode::Automatic, None).is_unproven());
    }
}
