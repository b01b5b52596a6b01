//! Callers: programs without a connection, which wait for what becomes of their publications.

use super::*;

/// A caller that waits.
#[derive(Debug)]
pub(super) struct Waiting {
    numbers: Vec<u64>,
    /// The caller was told that its publication is safe.
    accepted: bool,
}

impl World {
    /// Returns a new caller, who waits for these messages.
    pub(super) fn call(&mut self, numbers: &[u64]) -> CallerId {
        self.last_caller += 1;
        let caller = CallerId(self.last_caller);
        self.callers.insert(self.last_caller, Waiting { numbers: numbers.to_vec(), accepted: false });
        caller
    }

    pub(super) fn called_back(&mut self, caller: CallerId, reply: &Reply) {
        self.note_refusal(reply);
        // The core does not know that a caller has gone before its publication is safe.
        let Some(waiting) = self.callers.get_mut(&caller.0) else { return };
        match *reply {
            Reply::Accepted { duplicate, .. } => {
                assert!(!std::mem::replace(&mut waiting.accepted, true), "{caller:?} was accepted twice");
                let numbers = waiting.numbers.clone();
                if !self.model.messages[&numbers[0]].keep {
                    self.callers.remove(&caller.0);
                }
                self.decided(&numbers, true, !duplicate);
            }
            Reply::Refused { .. } => {
                assert!(!waiting.accepted, "{caller:?} was refused after it was accepted");
                let numbers = waiting.numbers.clone();
                self.callers.remove(&caller.0);
                self.decided(&numbers, false, false);
            }
            Reply::Settled(outcome) => {
                assert!(waiting.accepted, "{caller:?} was told the outcome before its publication was safe");
                let numbers = waiting.numbers.clone();
                self.callers.remove(&caller.0);
                self.check_outcome(&numbers, outcome);
                self.tally.outcomes[outcome as usize] += 1;
            }
            Reply::UnknownDelivery { .. } | Reply::TooManyChannels => panic!("{caller:?} got {reply:?}"),
        }
    }

    fn check_outcome(&self, numbers: &[u64], outcome: Outcome) {
        let records = || numbers.iter().map(|number| &self.model.messages[number]);
        let is_true = match outcome {
            Outcome::Delivered => records().all(|record| record.confirmed),
            Outcome::Expired => records().any(|record| record.expires.is_some_and(|at| at <= self.now)),
            Outcome::DeadLettered => records().any(|record| ["three", "late"].contains(&record.channel.as_str())),
            Outcome::Dropped => records().any(|record| !record.confirmed && !record.purged),
            Outcome::Purged => records().any(|record| record.purged),
        };
        let found: Vec<_> = records().collect();
        assert!(is_true, "the caller was told {outcome:?} at {:?}: {found:?}", self.now);
    }

    /// A caller that was told that its publication is safe waits no longer.
    pub(super) fn hang_up(&mut self) {
        let accepted = self.callers.iter().filter(|(_, waiting)| waiting.accepted);
        let callers: Vec<u64> = accepted.map(|(caller, _)| *caller).collect();
        let Some(caller) = self.random.pick(&callers).copied() else { return };
        self.callers.remove(&caller);
        self.handle(Event::CallerGone(CallerId(caller)));
    }

    /// Checks that every caller knows whether its publication is safe.
    pub(super) fn check_answered(&self) {
        let has_answer = |waiting: &Waiting| waiting.accepted;
        assert!(self.callers.values().all(has_answer), "callers without an answer: {:?}", self.callers);
    }

    /// Checks that nobody waits for messages that are settled.
    pub(super) fn check_callers(&self) {
        for (caller, Waiting { numbers, accepted }) in &self.callers {
            let is_settled = |number| {
                let record = &self.model.messages[number];
                record.confirmed || record.purged
            };
            assert!(
                !accepted || !numbers.iter().all(is_settled),
                "caller {caller} was not told what became of {numbers:?}"
            );
        }
    }
}
