//! The next page of a channel's backlog: whether the store reads it. `storage.rs` handles the answers.

use crate::message::{MessageId, Timestamp};

/// The state of the next page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum State {
    /// It was not requested.
    #[default]
    Idle,
    /// The store has not answered.
    Loading,
    /// The store has not answered, and the answer must be ignored, because the channel was purged after the request or a row of the page
    /// is no longer valid.
    Stale,
    /// The last load failed; the retry timer repeats it.
    Failed,
}

/// The next page of a channel's backlog: two words, because every channel has it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct NextPage {
    state: State,
    /// The page is not read, because memory is short. `Broker::memory` has the channel's key.
    pub starved: bool,
    /// The memory that the page may take, in KiB.
    most: u16,
    /// The time of the request: the lower 32 bits of the timestamp.
    asked: u32,
    /// The last paged message at the time of the request.
    cover: MessageId,
}

/// A request that the store has answered.
pub(super) struct FinishedLoad {
    /// The last paged message at the time of the request.
    pub cover: MessageId,
    /// The answer must be ignored.
    pub stale: bool,
    /// The memory that the page might take, in bytes, as [`NextPage::begin`] returned it.
    pub most: usize,
}

impl NextPage {
    /// Whether the page was neither requested nor failed to load.
    pub fn is_idle(&self) -> bool {
        self.state == State::Idle
    }

    /// Whether the store has not answered a request.
    pub fn is_loading(&self) -> bool {
        matches!(self.state, State::Loading | State::Stale)
    }

    /// Returns the time of the request that the store has not answered: the lower 32 bits of the timestamp.
    pub fn asked(&self) -> Option<u32> {
        self.is_loading().then_some(self.asked)
    }

    /// Notes a request. Returns the memory that the page may take in bytes, rounded up from `most`.
    pub fn begin(&mut self, cover: MessageId, now: Timestamp, most: usize) -> usize {
        self.most = u16::try_from(most.div_ceil(1_024)).unwrap_or(u16::MAX);
        (self.state, self.cover, self.asked) = (State::Loading, cover, now.0 as u32);
        usize::from(self.most) * 1_024
    }

    /// Ignores the answer to the running request.
    pub fn make_stale(&mut self) {
        if self.state == State::Loading {
            self.state = State::Stale;
        }
    }

    /// Notes the answer to the request.
    pub fn end(&mut self) -> Option<FinishedLoad> {
        let (cover, stale) = (self.cover, self.state == State::Stale);
        if !self.is_loading() {
            return None;
        }
        self.state = State::Idle;
        Some(FinishedLoad { cover, stale, most: usize::from(self.most) * 1_024 })
    }

    /// Notes that the load has failed.
    pub fn fail(&mut self) {
        self.state = State::Failed;
    }

    /// Allows another request if the last load failed. Returns whether it failed.
    pub fn retry(&mut self) -> bool {
        let failed = self.state == State::Failed;
        if failed {
            self.state = State::Idle;
        }
        failed
    }
}
