//! The frames of a turn: encodes each once per encoding, and puts them into the queues of the receivers.
//!
//! ```text
//! broadcast, broadcast, … ─► run: one range of the batch ─► spread: each receiver's queue, once
//! deliver, push ──────────────────────────────────────────► one queue
//! ```
//!
//! The cost of a broadcast does not depend on the number of receivers: the broadcast joins the *run* of consecutive broadcasts to the same
//! receivers. The run is spread over their queues before any other frame is queued, and at the end of the turn. So every queue has
//! the order of the core's decisions.
//!
//! Never here: a system call.

mod render;

use std::sync::Arc;

use bytes::Bytes;

use super::batch::{Batch, Span};
use super::encoding::{Encoding, PerEncoding};
use super::queue::{Pushed, Queue};
use super::registry::Registry;
use super::session::Session;
use crate::limits;
use render::{Frames, Rendered};
use wsmb_core::message::ConnectionId;
use wsmb_protocol::delivery::Manual;
use wsmb_protocol::frame;

pub(super) use render::Body;

/// The frames of the current turn, and the sessions whose queues have changed.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    batches: PerEncoding<Batch>,
    run: Option<Run>,
    /// The contents of the current effects as frames, by the number of the content.
    rendered: Vec<PerEncoding<Rendered>>,
    /// The loop that carries out the turn.
    here: u16,
    /// Frames queued in this turn.
    queued: usize,
    /// Deliveries queued in this turn.
    deliveries: u64,
    /// The sessions to flush.
    touched: Vec<Arc<Session>>,
    /// The sessions whose queues were full: they must be ended.
    overflowed: Vec<Arc<Session>>,
}

/// Consecutive broadcasts to the same receivers.
#[derive(Debug)]
struct Run {
    to: Arc<[ConnectionId]>,
    except: Option<ConnectionId>,
    /// The frames for the receivers of each encoding; `None` if no receiver has the encoding.
    spans: PerEncoding<Option<Span>>,
    messages: u64,
}

/// The frames of a finished turn.
#[derive(Debug, Default)]
pub(super) struct Sealed {
    /// The sessions to flush.
    pub(super) touched: Vec<Arc<Session>>,
    /// Returned with [`Outbox::reuse`] after the flush.
    batches: PerEncoding<Bytes>,
    /// Deliveries queued.
    pub(super) deliveries: u64,
}

impl Run {
    /// Appends a publication's frames.
    #[inline]
    fn append(&mut self, body: Body<'_>, batches: &mut PerEncoding<Batch>) {
        self.messages += 1;
        for encoding in Encoding::ALL {
            if let Some(span) = &mut self.spans[encoding] {
                let added = batches[encoding].append(|out| body.push(out, encoding, None));
                *span = if self.messages == 1 { added } else { Span { start: span.start, end: added.end } };
            }
        }
    }
}

impl Sealed {
    /// Whether [`Outbox::reuse`] can reuse memory.
    pub(super) fn holds_memory(&self) -> bool {
        self.batches.iter().any(|batch| !batch.is_empty())
    }
}

impl Outbox {
    /// Begins a turn of the loop with the number `here`.
    pub(super) fn begin(&mut self, here: u16) {
        self.here = here;
    }

    /// Prepares for effects that refer to new contents.
    #[inline]
    pub(super) fn prepare(&mut self) {
        if !self.rendered.is_empty() {
            self.rendered.clear();
            self.rendered.shrink_to(limits::EFFECTS_AT_ONCE);
        }
    }

    /// Whether the queues should be flushed before more frames are queued.
    pub(super) fn is_full(&self) -> bool {
        self.queued >= limits::FRAMES_AT_ONCE || !self.batches.iter().all(Batch::has_room)
    }

    /// Queues a delivery to one session. `content`: its number (see [`Self::prepare`]); `sequence` 0: the delivery needs no confirmation.
    pub(super) fn deliver(
        &mut self,
        registry: &Registry,
        to: ConnectionId,
        (content, body): (u32, Body<'_>),
        sequence: u64,
        manual: Option<Manual>,
        max: usize,
    ) {
        self.spread(registry, max);
        let Some(session) = registry.get(to) else { return };
        let encoding = session.encoding();
        let mut once = Rendered::default();
        let rendered = match manual {
            // The frame contains the delivery's name, so no other receiver gets the same bytes.
            Some(_) => &mut once,
            None => {
                let content = content as usize;
                if self.rendered.len() <= content {
                    self.rendered.resize_with(content + 1, Default::default);
                }
                &mut self.rendered[content][encoding]
            }
        };
        let mut queue = session.queue();
        let batch = &mut self.batches[encoding];
        let flowing = is_flushed_at_once(session, &queue, self.here);
        let pushed = match rendered.frames(batch, flowing, (body, encoding, manual)) {
            Frames::Batch(span) => queue.push_span(span, max),
            Frames::Own(frame) => queue.push(frame, max),
        };
        if sequence == 0 || !body.is_single() {
            queue.note_other_data();
        }
        if sequence > 0 && matches!(pushed, Pushed::Queued { .. }) {
            queue.mark(sequence, manual.is_some());
        }
        drop(queue);
        self.queued += 1;
        self.deliveries += u64::from(matches!(pushed, Pushed::Queued { .. }));
        self.note(session, pushed);
    }

    /// Queues a publication for all sessions in `to` except `except`, without confirmation.
    pub(super) fn broadcast(
        &mut self,
        registry: &Registry,
        to: Arc<[ConnectionId]>,
        except: Option<ConnectionId>,
        (content, body): (u32, Body<'_>),
        max: usize,
    ) {
        if body.is_large() {
            for id in to.iter().filter(|id| Some(**id) != except) {
                self.deliver(registry, *id, (content, body), 0, None, max);
            }
            return;
        }
        let same = self.run.as_ref().is_some_and(|run| Arc::ptr_eq(&run.to, &to) && run.except == except);
        if !same {
            self.spread(registry, max);
        }
        let Self { batches, run, queued, .. } = self;
        let run = run.get_or_insert_with(|| {
            *queued += to.len();
            let mut spans = PerEncoding::default();
            for session in to.iter().filter_map(|id| registry.get(*id)) {
                spans[session.encoding()] = Some(Span::EMPTY);
            }
            Run { to, except, spans, messages: 0 }
        });
        run.append(body, batches);
    }

    /// Spreads the run over its receivers' queues.
    pub(super) fn spread(&mut self, registry: &Registry, max: usize) {
        let Some(Run { to, except, spans, messages, .. }) = self.run.take() else { return };
        let mut shared: PerEncoding<Option<Bytes>> = PerEncoding::default();
        for id in to.iter().filter(|id| Some(**id) != except) {
            let Some(session) = registry.get(*id) else { continue };
            let encoding = session.encoding();
            let Some(span) = spans[encoding] else { continue };
            let mut queue = session.queue();
            queue.note_other_data();
            let pushed = if is_flushed_at_once(session, &queue, self.here) {
                queue.push_span(span, max)
            } else {
                let batch = &self.batches[encoding];
                let frames = shared[encoding].get_or_insert_with(|| Bytes::copy_from_slice(batch.get(span)));
                queue.push(frames.clone(), max)
            };
            drop(queue);
            self.deliveries += if matches!(pushed, Pushed::Queued { .. }) { messages } else { 0 };
            self.note(session, pushed);
        }
    }

    /// Queues a frame for one session: an answer or a pong.
    pub(super) fn push(&mut self, registry: &Registry, session: &Arc<Session>, frame: &Bytes, max: usize) {
        self.spread(registry, max);
        let batch = &mut self.batches[session.encoding()];
        let mut queue = session.queue();
        if frame::is_data(frame) {
            queue.note_other_data();
        }
        let pushed = if is_flushed_at_once(session, &queue, self.here) && batch.has_room() {
            queue.push_span(batch.append(|out| out.extend_from_slice(frame)), max)
        } else {
            queue.push(frame.clone(), max)
        };
        drop(queue);
        self.queued += 1;
        self.note(session, pushed);
    }

    /// Notes that a session's queue has changed. `first`: the result of [`Queue::touch`]; the session is flushed only if it is true.
    pub(super) fn touch(&mut self, session: &Arc<Session>, first: bool) {
        if first {
            self.touched.push(session.clone());
        }
    }

    /// Notes the result of a push.
    pub(super) fn note(&mut self, session: &Arc<Session>, pushed: Pushed) {
        match pushed {
            Pushed::Queued { first: true } => self.touched.push(session.clone()),
            Pushed::Queued { first: false } | Pushed::Gone => {}
            Pushed::Overflow => self.overflowed.push(session.clone()),
        }
    }

    /// Removes and returns a session whose queue was full.
    pub(super) fn next_overflowed(&mut self) -> Option<Arc<Session>> {
        self.overflowed.pop()
    }

    pub(super) fn has_overflowed(&self) -> bool {
        !self.overflowed.is_empty()
    }

    /// Ends the turn: replaces the spans in the queues by slices of the frozen batches. The run must have been spread.
    pub(super) fn seal(&mut self) -> Sealed {
        self.queued = 0;
        let mut batches = PerEncoding::default();
        for encoding in Encoding::ALL {
            batches[encoding] = self.batches[encoding].freeze();
        }
        let touched = std::mem::take(&mut self.touched);
        for session in &touched {
            session.queue().seal(&batches[session.encoding()]);
        }
        Sealed { touched, batches, deliveries: std::mem::take(&mut self.deliveries) }
    }

    /// Takes back the memory of a turn. Its queues must have been flushed, and its list of sessions must be empty.
    pub(super) fn reuse(&mut self, sealed: Sealed) {
        let Sealed { batches, mut touched, .. } = sealed;
        for (batch, frozen) in self.batches.zip(batches) {
            batch.reuse(frozen);
        }
        if self.touched.capacity() == 0 {
            touched.shrink_to(limits::EFFECTS_AT_ONCE);
            self.touched = touched;
        }
    }
}

/// Whether a frame that is queued now will probably be written at the end of the turn. Otherwise it must not stay in the batch, because a busy loop would
/// keep the batches of many turns in memory.
fn is_flushed_at_once(session: &Session, queue: &Queue, here: u16) -> bool {
    session.home == here && queue.is_flowing()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::open;

    /// A batch's memory can be reused when all its frames are written. A session of another loop may write much later.
    #[tokio::test]
    async fn a_session_of_another_loop_keeps_no_batch() {
        let (mut outbox, registry, mut sessions) = (Outbox::default(), Registry::new(0), Vec::new());
        let mut clients = Vec::new();
        for home in [0, 1] {
            let (session, client) = open(ConnectionId(home.into()), home).await;
            sessions.push(session);
            clients.push(client);
        }
        for here in [0, 1] {
            outbox.begin(here);
            let pong = frame::encode(frame::Opcode::Pong, b"x");
            for session in &sessions {
                outbox.push(&registry, session, &pong, 1 << 10);
            }
            let mut sealed = outbox.seal();
            assert_eq!(sealed.touched.len(), 2);
            sessions[usize::from(here)].flush();
            sealed.touched.clear();
            outbox.reuse(sealed);
            assert!(outbox.batches.iter().any(Batch::has_memory), "loop {here}");
            assert!(sessions.iter().any(|session| session.queue().bytes() > 0), "one is not written yet");
            for session in &sessions {
                session.flush();
            }
        }
    }
}
