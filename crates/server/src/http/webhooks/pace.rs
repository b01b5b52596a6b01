//! How long to wait after a failure. Pure.

use std::time::{Duration, SystemTime};

use super::outcome::Failed;
use crate::limits;

/// How long a message waits aside after this attempt, counted from 1.
pub(super) fn back_off(attempt: u32) -> Duration {
    let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let steps = limits::WEBHOOK_BACKOFF;
    Duration::from_secs(steps[at.min(steps.len() - 1)])
}

/// How long a channel rests after so many failures in a row, counted from 1. One failure does not stop the others: it may be the fault of its message.
pub(super) fn rest(failures: u32, failed: &Failed) -> Duration {
    let own = match failures {
        0 | 1 => Duration::ZERO,
        _ if failed.is_of_message => limits::WEBHOOK_REST,
        more => back_off(more - 1),
    };
    own.max(failed.retry_after.unwrap_or_default())
}

/// Reads the value of `Retry-After` (RFC 9110 section 10.2.3): a number of seconds or a time.
pub(super) fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let pause = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => httpdate::parse_http_date(value).ok()?.duration_since(now).unwrap_or_default(),
    };
    Some(pause.min(limits::WEBHOOK_RETRY_AFTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(is_of_message: bool, retry_after: Option<u64>) -> Failed {
        Failed { cause: String::new(), is_of_message, retry_after: retry_after.map(Duration::from_secs) }
    }

    #[test]
    fn pauses_grow_to_a_minute() {
        let pauses: Vec<u64> = [1, 2, 3, 4, 5, 6, 7, u32::MAX].map(|attempt| back_off(attempt).as_secs()).into();
        assert_eq!(pauses, [1, 2, 5, 15, 30, 60, 60, 60]);
        let rests = |of_message| [1, 2, 3, 4, 9].map(|failures| rest(failures, &failed(of_message, None)).as_secs());
        assert_eq!(rests(false), [0, 1, 2, 5, 60]);
        assert_eq!(rests(true), [0, 1, 1, 1, 1]);
        assert_eq!(rest(1, &failed(true, Some(7))).as_secs(), 7);
    }

    #[test]
    fn retry_after_is_a_number_or_a_time() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").unwrap();
        for (value, seconds) in [
            ("7", Some(7)),
            (" 0 ", Some(0)),
            ("99999999", Some(limits::WEBHOOK_RETRY_AFTER.as_secs())),
            ("Sun, 06 Nov 1994 08:49:40 GMT", Some(3)),
            ("Sun, 06 Nov 1994 08:49:30 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
            ("", None),
        ] {
            assert_eq!(retry_after(value, now).map(|pause| pause.as_secs()), seconds, "{value:?}");
        }
    }
}
