//! Starts the clock, and follows steps of the system's clock and suspensions of the system.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::clock::{Clock, ClockAtStart, Step, elapsed, running};
use super::hub::Hub;
use crate::limits;
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_protocol::envelope::iso8601;
use wsmb_store::{Background, CLOCK, Restamp, StoreError};

/// Starts the clock with the store's last time, and sets the creation time of rows from the future to now.
///
/// # Errors
/// The store cannot be used.
pub(super) fn start(store: &mut dyn Background) -> Result<Clock, StoreError> {
    let (clock, beginning) = Clock::start(store.mark(CLOCK)?.map(Timestamp));
    let now = clock.now();
    match beginning {
        ClockAtStart::Usual => {}
        ClockAtStart::Behind(last) => warn!(
            "the system's clock is behind the time of the broker's last note, {}, and no time service has set it yet; going on from that time",
            iso8601(last)
        ),
        ClockAtStart::Ahead(last) => warn!(
            "the broker's last note is of {}, later than the system's clock, {}, which a time service has set; the clock is believed",
            iso8601(last),
            iso8601(now)
        ),
    }
    store.clamp_future_rows(now, MessageId(i64::MAX as u64))?;
    Ok(clock)
}

impl Hub {
    /// Watches the system's clock. `restored`: the highest id that the store held at the start. Measures from this call on, not from the first poll of the
    /// returned future.
    pub(super) fn run_clock(self: Arc<Self>, restored: MessageId) -> impl Future<Output = ()> + Send {
        let mut suspended = elapsed().saturating_sub(running());
        let mut noted = self.now();
        async move {
            loop {
                tokio::time::sleep(limits::CLOCK_LOOK).await;
                let asleep = elapsed().saturating_sub(running());
                if asleep >= suspended + limits::CLOCK_STEP {
                    let seconds = seconds(asleep - suspended);
                    info!("the system was suspended for {seconds} s; messages have aged meanwhile");
                    // The tasks' timers were suspended too.
                    self.deadline_moved.notify_one();
                    self.timer_moved.notify_one();
                }
                suspended = asleep;
                if let Some(step) = self.clock.check() {
                    self.follow(step, restored);
                } else if self.now().since(noted) >= limits::CLOCK_NOTE_IDLE {
                    noted = self.now();
                    // Without messages no expiry depends on the stored time.
                    if self.with_broker(|broker| broker.unsettled() > 0) {
                        self.storage.note_time(self.wall_now());
                    }
                }
            }
        }
    }

    /// Follows a step of the system's clock: corrects the stored times that this run has written with the old clock.
    ///
    /// Rows of earlier runs were written with another clock. If this run's clock was behind, they stay as they are, and their age is computed with the right
    /// time. If it was ahead, they move with the step, so that the remaining time of a message does not grow.
    fn follow(&self, step: Step, restored: MessageId) {
        let Step { from, to, by } = step;
        let difference = Duration::from_millis(by.unsigned_abs());
        let (seconds, direction) = (seconds(difference), if by > 0 { "forward" } else { "back" });
        warn!(
            "the system's clock was set {direction} by {seconds} s, from {} to {}; stored times follow it",
            iso8601(from),
            iso8601(to)
        );
        // The store reports the step to the core, in order with the pages that the core loads.
        self.storage.restamp(Restamp { token: self.now().0, after: restored, all: by < 0, by });
        self.storage.note_time(to);
    }
}

/// Whole seconds, rounded.
fn seconds(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}
