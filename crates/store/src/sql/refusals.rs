//! Counts the field values that the table has refused, and limits how often they are logged.
//!
//! Each pair of a column and a reason is logged when it first occurs, then at most once in [`limits::STORE_LOG_EVERY`] with the number of rows since:
//! every message of a stream may have the same wrong field. There are at most as many pairs as columns times error codes of the server. Never reads a
//! clock and never logs: the caller does both.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::limits;

/// The index of a user-defined column, or `None` for all columns together, and the reason of the refusal, as the rest of a sentence that begins with
/// "they".
pub(super) type Cause = (Option<usize>, String);

/// The number of rows that have lost a value, by cause.
#[derive(Debug, Default)]
pub(super) struct Refusals(BTreeMap<Cause, Refusal>);

#[derive(Debug, Default)]
struct Refusal {
    /// Rows that the log has not mentioned yet.
    rows: u64,
    logged_at: Option<Instant>,
}

impl Refusals {
    /// Counts rows.
    pub(super) fn add(&mut self, rows: BTreeMap<Cause, u64>) {
        for (cause, count) in rows {
            self.0.entry(cause).or_default().rows += count;
        }
    }

    /// The causes to log now, with their rows.
    pub(super) fn due(&mut self, now: Instant) -> Vec<(Cause, u64)> {
        let is_due = |refusal: &Refusal| {
            let quiet = |at| now.saturating_duration_since(at) >= limits::STORE_LOG_EVERY;
            refusal.rows > 0 && refusal.logged_at.is_none_or(quiet)
        };
        let due = self.0.iter_mut().filter(|(_, refusal)| is_due(refusal));
        due.map(|(cause, refusal)| {
            refusal.logged_at = Some(now);
            (cause.clone(), std::mem::take(&mut refusal.rows))
        })
        .collect()
    }

    /// Takes all rows that the log has not mentioned, for the end of the store.
    pub(super) fn rest(&mut self) -> Vec<(Cause, u64)> {
        let all = std::mem::take(&mut self.0).into_iter();
        all.filter(|(_, refusal)| refusal.rows > 0).map(|(cause, refusal)| (cause, refusal.rows)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_is_logged_at_once_then_once_a_minute_and_in_the_end() {
        let cause = |column| (Some(column), "are too long".to_owned());
        let rows = |column, count| BTreeMap::from([(cause(column), count)]);
        let begin = Instant::now();
        let mut refusals = Refusals::default();
        refusals.add(rows(0, 2));
        assert_eq!(refusals.due(begin), [(cause(0), 2)]);
        // The same cause waits; another cause does not.
        refusals.add(rows(0, 3));
        refusals.add(rows(1, 1));
        assert_eq!(refusals.due(begin), [(cause(1), 1)]);
        refusals.add(rows(0, 4));
        assert_eq!(refusals.due(begin + limits::STORE_LOG_EVERY), [(cause(0), 7)]);
        assert_eq!(refusals.due(begin + 3 * limits::STORE_LOG_EVERY), []);
        refusals.add(rows(1, 5));
        assert_eq!((refusals.rest(), refusals.rest()), (vec![(cause(1), 5)], vec![]));
    }
}
