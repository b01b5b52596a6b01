//! Requests without a session that wait for the core's replies: one reply that says whether a publication is safe, and perhaps a second one that says what
//! became of it.
//!
//! Never here: a decision about the answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use wsmb_core::broker::{CallerId, Outcome, Reply};
use wsmb_core::message::Timestamp;

/// The callers that wait. Their number is bounded by [`crate::limits::HTTP_REQUESTS`].
#[derive(Debug)]
pub(super) struct Callers {
    waiting: Mutex<HashMap<CallerId, Waiting>>,
    last: AtomicU64,
    /// Differs from run to run.
    run: u64,
}

#[derive(Debug)]
struct Waiting {
    answer: Option<oneshot::Sender<Reply>>,
    outcome: Option<oneshot::Sender<Outcome>>,
}

/// The replies to one caller. The caller must call [`Callers::remove`] when it waits no longer.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) id: CallerId,
    /// [`Reply::Accepted`] or [`Reply::Refused`].
    pub(super) answer: oneshot::Receiver<Reply>,
    /// The outcome of an accepted publication.
    pub(super) outcome: oneshot::Receiver<Outcome>,
}

impl Callers {
    /// `now`: differs from run to run, in case the system has no random numbers.
    pub(super) fn new(now: Timestamp) -> Self {
        let run = getrandom::u64().unwrap_or(now.0);
        Self { waiting: Mutex::default(), last: AtomicU64::default(), run }
    }

    /// Returns an id for the publication of a caller that gives none. No other publication has it.
    pub(super) fn publication_id(&self, caller: CallerId) -> String {
        format!("{:016x}-{:x}", self.run, caller.0)
    }

    fn waiting(&self) -> MutexGuard<'_, HashMap<CallerId, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a caller.
    pub(super) fn begin(&self) -> Call {
        let id = CallerId(self.last.fetch_add(1, Ordering::Relaxed) + 1);
        let (answer, answered) = oneshot::channel();
        let (outcome, settled) = oneshot::channel();
        self.waiting().insert(id, Waiting { answer: Some(answer), outcome: Some(outcome) });
        Call { id, answer: answered, outcome: settled }
    }

    /// Passes a reply of the core to its caller, unless the caller has gone.
    pub(super) fn reply(&self, caller: CallerId, reply: Reply) {
        let mut waiting = self.waiting();
        let Some(waiting) = waiting.get_mut(&caller) else { return };
        // An error means that the caller has just gone.
        match reply {
            Reply::Settled(outcome) => drop(waiting.outcome.take().map(|sender| sender.send(outcome))),
            reply => drop(waiting.answer.take().map(|sender| sender.send(reply))),
        }
    }

    /// Removes a caller. Returns whether the core may still report an outcome to it.
    pub(super) fn remove(&self, caller: CallerId) -> bool {
        self.waiting().remove(&caller).is_some_and(|waiting| waiting.outcome.is_some())
    }
}
