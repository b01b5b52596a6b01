//! What follows when the system's clock was set, and when the system was suspended.

use std::sync::Arc;
use std::time::Duration;

use tracing::{info, warn};

use super::clock::{Beginning, Clock, Step, elapsed, running};
use super::hub::Hub;
use crate::limits;
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_protocol::envelope::iso8601;
use wsmb_store::{Background, CLOCK, Restamp, StoreError};

/// Starts the clock with what the store remembers of the time, and takes rows from the future as created now.
///
/// # Errors
/// If the store can't be used.
pub(super) fn start(store: &mut dyn Background) -> Result<Clock, StoreError> {
    let (clock, beginning) = Clock::start(store.mark(CLOCK)?.map(Timestamp));
    let now = clock.now();
    match beginning {
        Beginning::Usual => {}
        Beginning::Behind(last) => warn!(
            "the system's clock is behind the time of the broker's last note, {}, and no time service has set it yet; going on from that time",
            iso8601(last)
        ),
        Beginning::Ahead(last) => warn!(
            "the broker's last note is of {}, later than the system's clock, {}, which a time service has set; the clock is believed",
            iso8601(last),
            iso8601(now)
        ),
    }
    store.clamp_future_rows(now, MessageId(i64::MAX as u64))?;
    Ok(clock)
}

impl Hub {
    /// The task that watches the system's clock. `restored`: the highest id that the store held at the start. What is seen from now on counts, not from when
    /// the task first runs.
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
                    // The timers of the tasks have slept too.
                    self.deadline_moved.notify_one();
                    self.timer_moved.notify_one();
                }
                suspended = asleep;
                if let Some(step) = self.clock.look() {
                    self.follow(step, restored);
                } else if self.now().since(noted) >= limits::CLOCK_NOTE_IDLE {
                    noted = self.now();
                    // Without messages nobody will ask what time it was.
                    if self.with_broker(|broker| broker.unsettled() > 0) {
                        self.storage.note_time(self.wall_now());
                    }
                }
            }
        }
    }

    /// Follows the system's clock: stored times that this run has made with the wrong one are corrected.
    ///
    /// What earlier runs have stored was made with another clock. If this one was behind, it is reckoned anew with the right time; if it was ahead, what was
    /// left of a message's time stays what it was, for it must not become more.
    fn follow(&self, step: Step, restored: MessageId) {
        let Step { from, to, by } = step;
        let difference = Duration::from_millis(by.unsigned_abs());
        let (seconds, direction) = (seconds(difference), if by > 0 { "forward" } else { "back" });
        warn!(
            "the system's clock was set {direction} by {seconds} s, from {} to {}; stored times follow it",
            iso8601(from),
            iso8601(to)
        );
        // The core hears of it from the store, in order with the pages that it reads.
        self.storage.restamp(Restamp { token: self.now().0, after: restored, all: by < 0, by });
        self.storage.note_time(to);
    }
}

/// Whole seconds, rounded.
fn seconds(duration: Duration) -> u64 {
    (duration + Duration::from_millis(500)).as_secs()
}
