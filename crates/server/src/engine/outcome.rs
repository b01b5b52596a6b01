//! What a turn is given and what it leaves: plain data.

use std::sync::Arc;

use wsmb_core::broker::{EndReason, Note, Refusal, StoreEffect};
use wsmb_core::message::Timestamp;
use wsmb_core::policy::Policies;

use crate::outbox::Sealed;
use crate::session::Session;

/// The time of a turn, and where it happens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The core's time.
    pub(crate) core: Timestamp,
    /// The same moment as the wall clock shows it.
    pub(crate) wall: Timestamp,
    /// The number of the loop that carries the turn out and flushes its sessions at once; those of other loops are flushed later.
    pub(crate) here: u16,
}

/// What the engine obeys besides the broker's settings.
#[derive(Clone, Debug)]
pub(crate) struct EngineSettings {
    /// Bytes queued for one session at which it is ended as slow.
    pub(crate) max_queue: usize,
    /// What holds for each channel. A refusal tells a client the bound.
    pub(crate) policies: Policies,
}

/// What a turn leaves to be done, in this order where the order matters.
#[derive(Debug, Default)]
pub(crate) struct TurnOutcome {
    /// For the store, in this order, also between turns.
    pub(crate) store_commands: Vec<StoreEffect>,
    /// Sessions that wait for the store's word whether it can be written.
    pub(crate) questions: Vec<Arc<Session>>,
    /// Sessions that the engine has ended, and why.
    pub(crate) ended: Vec<(Arc<Session>, EndReason)>,
    /// Topic sessions whose message was refused, and why.
    pub(crate) refused: Vec<(Arc<Session>, Refusal)>,
    /// Publications that were refused.
    pub(crate) refusals: u64,
    /// What the core wants the administrator to know.
    pub(crate) notes: Vec<Note>,
    /// When the core wants [`Event::Tick`] next.
    pub(crate) deadline: Option<Timestamp>,
    /// The sessions to be flushed. To be given back with [`Engine::reuse`](super::Engine::reuse).
    pub(crate) sealed: Sealed,
}
