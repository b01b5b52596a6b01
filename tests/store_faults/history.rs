//! Checks every promise about accepted messages against the answers that senders got and the deliveries that receivers got.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use crate::load::{Delivery, Publication, SENDER_STEP};

/// The longest time between the delivery of a message and its receipt.
const MAX_TRANSIT: Duration = Duration::from_secs(1);

/// All publications and deliveries.
#[derive(Default)]
pub struct History {
    pub publications: Vec<Publication>,
    /// In the order in which the only receiver of each channel got them.
    pub deliveries: Vec<Delivery>,
}

impl History {
    /// The number of accepted messages.
    pub fn accepted(&self, channel: &str) -> usize {
        self.publications.iter().filter(|it| it.channel == channel && is_accepted(it)).count()
    }

    /// The number of messages that were not accepted.
    pub fn refused(&self, channel: &str) -> usize {
        self.publications.iter().filter(|it| it.channel == channel && !is_accepted(it)).count()
    }

    /// Fails with all broken promises.
    #[track_caller]
    pub fn check(&self) {
        let broken = self.broken();
        assert!(broken.is_empty(), "{} promises are broken:\n{}", broken.len(), broken.join("\n"));
    }

    /// Fails if any message was refused.
    #[track_caller]
    pub fn check_none_refused(&self) {
        let refused: Vec<_> = self.publications.iter().filter(|it| !is_accepted(it)).collect();
        assert!(refused.is_empty(), "{} were refused: {:?}", refused.len(), &refused[..refused.len().min(5)]);
    }

    fn broken(&self) -> Vec<String> {
        let sent: BTreeMap<u64, &Publication> = self.publications.iter().map(|it| (it.number, it)).collect();
        let delivered: BTreeSet<u64> = self.deliveries.iter().map(|it| it.number).collect();
        let now = Instant::now();
        let mut broken = Vec::new();
        for it in self.publications.iter().filter(|it| is_accepted(it) && !delivered.contains(&it.number)) {
            if it.expires.is_none_or(|expires| expires > now) {
                broken.push(format!("{} on {} was accepted and never delivered", it.number, it.channel));
            }
        }
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<(&str, u64), u64> = BTreeMap::new();
        for delivery in &self.deliveries {
            let Delivery { channel, number, .. } = *delivery;
            let Some(publication) = sent.get(&number).filter(|it| it.channel == channel) else {
                broken.push(format!("{number} on {channel} was delivered and never sent"));
                continue;
            };
            if publication.expires.is_some_and(|expires| delivery.at > expires + MAX_TRANSIT) {
                broken.push(format!("{number} on {channel} was delivered after its time to live"));
            }
            if !seen.insert(number) {
                if !delivery.redelivered {
                    broken.push(format!("{number} on {channel} was delivered again, unmarked"));
                }
                continue;
            }
            let before = last.insert((channel, number / SENDER_STEP), number);
            if before.is_some_and(|before| before > number) && !delivery.redelivered {
                broken.push(format!("{number} on {channel} was delivered after {}", before.unwrap_or_default()));
            }
        }
        broken
    }
}

fn is_accepted(publication: &Publication) -> bool {
    publication.code.as_deref() == Some("00")
}

#[cfg(test)]
mod tests {
    //! Each kind of broken promise is found.

    use super::*;

    fn sent(number: u64) -> Publication {
        Publication { channel: "a", number, expires: None, code: Some("00".to_owned()) }
    }

    fn delivered(number: u64, redelivered: bool) -> Delivery {
        Delivery { channel: "a", number, redelivered, at: Instant::now() }
    }

    #[track_caller]
    fn assert_broken(publications: Vec<Publication>, deliveries: Vec<Delivery>, wanted: &[&str]) {
        let broken = History { publications, deliveries }.broken();
        assert_eq!(broken.len(), wanted.len(), "{broken:?}");
        for (broken, wanted) in broken.iter().zip(wanted) {
            assert!(broken.contains(wanted), "{broken}");
        }
    }

    #[test]
    fn a_good_history_breaks_no_promise() {
        let all = vec![sent(1), sent(2), sent(SENDER_STEP), Publication { code: Some("05".to_owned()), ..sent(3) }];
        let order = [(1, false), (SENDER_STEP, false), (1, true), (2, false)];
        assert_broken(all, order.map(|(number, again)| delivered(number, again)).to_vec(), &[]);
    }

    #[test]
    fn lost_unknown_doubled_and_disordered_messages_are_found() {
        assert_broken(vec![sent(1)], vec![], &["1 on a was accepted and never delivered"]);
        assert_broken(vec![], vec![delivered(1, false)], &["never sent"]);
        assert_broken(vec![sent(1)], vec![delivered(1, false), delivered(1, false)], &["again, unmarked"]);
        assert_broken(
            vec![sent(1), sent(2)],
            vec![delivered(2, false), delivered(1, false)],
            &["1 on a was delivered after 2"],
        );
    }

    #[test]
    fn an_expired_message_may_be_lost_and_must_not_be_late() {
        let past = Instant::now() - Duration::from_secs(5);
        let expired = Publication { expires: Some(past), ..sent(1) };
        assert_broken(vec![expired.clone()], vec![], &[]);
        assert_broken(vec![expired], vec![delivered(1, false)], &["after its time to live"]);
        let fresh = Publication { expires: Some(Instant::now() + Duration::from_secs(60)), ..sent(1) };
        assert_broken(vec![fresh], vec![], &["never delivered"]);
    }
}
