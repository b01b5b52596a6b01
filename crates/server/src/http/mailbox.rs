//! A receiver without a socket: a session whose deliveries wait until a response takes them.
//!
//! A response that ends leaves the deliveries that were not acknowledged; the next response of the same receiver begins with them, marked as redelivered.
//!
//! Never here: HTTP.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use super::line::Line;
use crate::queue::Taken;
use crate::session::Session;
use wsmb_core::message::{GroupName, Order, Timestamp};

/// The deliveries of one receiver.
#[derive(Debug)]
pub(crate) struct Mailbox {
    pub(super) session: Arc<Session>,
    state: Mutex<State>,
}

/// What a response asks for besides the channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) order: Order,
    pub(super) group: Option<GroupName>,
    /// The most deliveries that may be unacknowledged.
    pub(super) window: u32,
}

#[derive(Debug, Default)]
struct State {
    /// Taken from the queue, and not given to a response.
    taken: VecDeque<Line>,
    /// Given to a response, and not acknowledged. The core's window bounds the list.
    unacknowledged: VecDeque<Line>,
    /// Of the last response.
    terms: Option<Terms>,
    /// Counts the responses, of which only the last one gets deliveries.
    attachment: u64,
    /// Since when no response takes the deliveries.
    detached: Option<Timestamp>,
}

/// What a response gets.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// These deliveries. `is_full`: the receiver gets no more until it acknowledges some.
    Lines { lines: Vec<Line>, is_full: bool },
    /// The session has ended, or another response has taken the place of this one.
    Ended,
    /// The session was ended to free memory.
    Aborted,
}

impl Mailbox {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self { session, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what the mailbox holds, so that a receiver that holds most is ended when nearly all memory is used.
    fn note_held(&self, state: &State) {
        let held = state.taken.iter().chain(&state.unacknowledged).map(|line| line.json.len()).sum();
        self.session.queue().note_partial(held);
    }

    /// Attaches a response, which takes the place of an earlier one. Returns its number. Unacknowledged deliveries are given again.
    pub(super) fn attach(&self) -> u64 {
        let mut state = self.state();
        state.attachment += 1;
        state.detached = None;
        let again: Vec<Line> = state.unacknowledged.drain(..).map(Line::redelivered).collect();
        again.into_iter().rev().for_each(|line| state.taken.push_front(line));
        let number = state.attachment;
        self.note_held(&state);
        drop(state);
        // The earlier response notices that it has been replaced.
        self.session.queue().wake();
        number
    }

    /// Sets the terms of the response. Returns whether they differ from those of the response before.
    pub(super) fn set_terms(&self, terms: Terms) -> bool {
        self.state().terms.replace(terms.clone()).is_none_or(|before| before != terms)
    }

    /// The response with this number has ended. Returns false if another one has taken its place.
    pub(super) fn detach(&self, attachment: u64, now: Timestamp) -> bool {
        let mut state = self.state();
        let is_current = state.attachment == attachment;
        if is_current {
            state.detached = Some(now);
        }
        is_current
    }

    /// Since when no response takes the deliveries.
    pub(super) fn detached(&self) -> Option<Timestamp> {
        self.state().detached
    }

    /// Takes up to `most` deliveries for the response with this number. Pending: there are none, and `cx` is woken when there may be some.
    pub(super) fn poll_next(&self, attachment: u64, most: usize, cx: &Context<'_>) -> Poll<Next> {
        let mut state = self.state();
        if state.attachment != attachment {
            return Poll::Ready(Next::Ended);
        }
        let mut ended = None;
        if state.taken.is_empty() {
            let mut chunk = Vec::new();
            let taken = {
                let mut queue = self.session.queue();
                queue.wake_with(cx.waker());
                queue.take(&mut chunk)
            };
            state.taken.extend(chunk.iter().flat_map(Line::split));
            ended = match taken {
                Taken::Open => None,
                Taken::Ended => Some(Next::Ended),
                Taken::Aborted => return Poll::Ready(Next::Aborted),
            };
        }
        if state.taken.is_empty() {
            return ended.map_or(Poll::Pending, Poll::Ready);
        }
        let count = most.min(state.taken.len());
        let lines: Vec<Line> = state.taken.drain(..count).collect();
        state.unacknowledged.extend(lines.iter().filter(|line| line.delivery.is_some()).cloned());
        self.note_held(&state);
        let is_full = state.terms.as_ref().is_some_and(|terms| state.unacknowledged.len() >= terms.window as usize);
        Poll::Ready(Next::Lines { lines, is_full })
    }

    /// Removes a delivery that its receiver has answered. Returns false if it was not given to the receiver, or was answered already.
    pub(super) fn answered(&self, sequence: u64) -> bool {
        let mut state = self.state();
        let position = state.unacknowledged.iter().position(|line| line.sequence() == Some(sequence));
        let is_known = position.is_some_and(|position| state.unacknowledged.remove(position).is_some());
        self.note_held(&state);
        is_known
    }

    /// Removes all deliveries up to this one. Returns their sequence numbers.
    pub(super) fn answered_up_to(&self, sequence: u64) -> Vec<u64> {
        let mut state = self.state();
        let mut answered = Vec::new();
        state.unacknowledged.retain(|line| {
            let is_answered = line.sequence().is_some_and(|known| known <= sequence);
            answered.extend(line.sequence().filter(|_| is_answered));
            !is_answered
        });
        self.note_held(&state);
        answered
    }

    /// The core has taken a delivery from the receiver: it is not given again.
    pub(super) fn revoke(&self, sequence: u64) {
        let mut state = self.state();
        let is_other = |line: &Line| line.sequence() != Some(sequence);
        state.unacknowledged.retain(is_other);
        state.taken.retain(is_other);
        self.note_held(&state);
    }

    /// Whether this delivery was given to the receiver and is unanswered.
    pub(super) fn is_unanswered(&self, sequence: u64) -> bool {
        self.state().unacknowledged.iter().any(|line| line.sequence() == Some(sequence))
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use super::*;
    use crate::access::Identity;
    use crate::session::{Outlet, Profile};
    use wsmb_core::message::ConnectionId;

    #[test]
    fn deliveries_count_until_they_are_acknowledged() {
        let profile = Profile {
            identity: Identity::default(),
            peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)).into(),
            topic: None,
            receiver: None,
            modern: true,
            proxied: false,
            internal: false,
        };
        let session = Arc::new(Session::new(ConnectionId(1), profile, Outlet::Mailbox, 0, Timestamp(0)));
        let mailbox = Mailbox::new(session.clone());
        let attachment = mailbox.attach();
        let line = format!("{{\"delivery\":\"1-7\",\"message_id\":\"2\",\"data\":\"{}\"}}\n", "x".repeat(64 << 10));
        session.queue().push(line.into(), usize::MAX);
        let cx = Context::from_waker(std::task::Waker::noop());
        let Poll::Ready(Next::Lines { lines, .. }) = mailbox.poll_next(attachment, 1, &cx) else { panic!("a line") };
        let sequence = lines[0].sequence().unwrap();
        assert!(session.queue().held_bytes() >= 64 << 10, "unacknowledged");
        assert!(mailbox.answered(sequence));
        assert_eq!(session.queue().held_bytes(), 0);
    }
}
