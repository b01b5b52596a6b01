//! The server's clock.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use crate::message::Timestamp;

/// Reads the wall clock once, at start, and counts from there: setting the system's clock neither expires nor revives a message.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    wall: Timestamp,
    start: Instant,
}

impl Clock {
    /// Starts now.
    pub(super) fn start() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { wall: Timestamp(0).after(wall), start: Instant::now() }
    }

    /// The time: never goes back.
    pub(super) fn now(&self) -> Timestamp {
        self.wall.after(self.start.elapsed())
    }
}
