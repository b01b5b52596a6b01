//! Which errors are logged again. Never hides a new kind of error.

use std::time::Instant;

use crate::error::StoreError;
use crate::limits;

/// The last logged error, and when it was logged.
pub(super) type Logged = Option<(Instant, StoreError)>;

/// Whether to log the error: the last logged error was a different one, or was logged more than [`limits::STORE_LOG_EVERY`] ago.
pub(super) fn should_log(last: &mut Logged, error: &StoreError) -> bool {
    let known = last.as_ref().is_some_and(|(at, known)| known == error && at.elapsed() < limits::STORE_LOG_EVERY);
    if !known {
        *last = Some((Instant::now(), error.clone()));
    }
    !known
}
