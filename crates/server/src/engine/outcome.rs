//! The inputs and the outcome of a turn: plain data.

use std::sync::Arc;

use wsmb_core::broker::{CallerId, EndReason, Note, Refusal, Reply, StoreEffect};
use wsmb_core::message::Timestamp;
use wsmb_core::policy::Policies;

use crate::outbox::Sealed;
use crate::session::Session;

/// The time of a turn, the loop that carries it out, and the program's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Now {
    /// The core's time.
    pub(crate) core: Timestamp,
    /// The same moment on the wall clock.
    pub(crate) wall: Timestamp,
    /// The number of the loop that carries out the turn. It flushes its own sessions at once; other loops flush theirs later.
    pub(crate) here: u16,
    /// The bytes that the program uses.
    pub(crate) memory: usize,
}

/// The engine's settings besides the broker's.
#[derive(Clone, Debug)]
pub(crate) struct EngineSettings {
    /// Bytes queued for one session at which it is ended as slow.
    pub(crate) max_queue: usize,
    /// The policy of each channel. Refusals name its bound.
    pub(crate) policies: Policies,
}

/// The work that a turn leaves to the hub.
#[derive(Debug, Default)]
pub(crate) struct TurnOutcome {
    /// Commands for the store. Their order must be kept, also between turns.
    pub(crate) store_commands: Vec<StoreEffect>,
    /// Sessions that ask whether the store can be written.
    pub(crate) questions: Vec<Arc<Session>>,
    /// Sessions that the engine has ended, and why.
    pub(crate) ended: Vec<(Arc<Session>, EndReason)>,
    /// Topic sessions whose message was refused, and why.
    pub(crate) refused: Vec<(Arc<Session>, Refusal)>,
    /// Replies to callers.
    pub(crate) replies: Vec<(CallerId, Reply)>,
    /// Publications that were refused.
    pub(crate) refusals: u64,
    /// Notes of the core for the administrator.
    pub(crate) notes: Vec<Note>,
    /// When the core needs the next [`Event::Tick`].
    pub(crate) deadline: Option<Timestamp>,
    /// The sessions to flush. The hub returns the memory with [`Engine::reuse`](super::Engine::reuse).
    pub(crate) sealed: Sealed,
}
