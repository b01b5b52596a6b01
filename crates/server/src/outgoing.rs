//! What a turn sends: the bytes, each once, and into which queues they go.
//!
//! ```text
//! broadcast, broadcast, … ─► run: one stretch of the batch ─► spread: each receiver's queue, once
//! deliver, push ──────────────────────────────────────────► one queue
//! ```
//!
//! A publication for everybody on a channel costs the same however many there are: it joins the *run* of those before it that went to the
//! same receivers, and the run is spread over their queues when anything else is to be queued, or the turn ends. So every
//! queue has what it gets in the order of the core's decisions.
//!
//! Pure memory: no system call is made here.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use slab::Slab;

use super::batch::{Batch, Span};
use super::connection::Connection;
use super::outbound::Pushed;
use super::render::{Body, Place, Rendered};
use crate::limits;
use wsmb_core::message::{ConnectionId, Dialect};
use wsmb_protocol::delivery::Manual;
use wsmb_protocol::frame;

/// How many low bits of a [`ConnectionId`] are the place in the register; the others count up, so that no id comes twice.
pub(super) const SLOT_BITS: u32 = 24;

/// Both dialects, as indices.
const DIALECTS: [Dialect; 2] = [Dialect::Envelope, Dialect::Topic];

/// What counts the connections of this run: the upper bits of a [`ConnectionId`].
///
/// It begins anywhere in the lower half, so that no id, and so no delivery's name, is one of an earlier run of the broker.
#[derive(Debug)]
struct Serial(u64);

impl Default for Serial {
    fn default() -> Self {
        // Without random numbers the time has to serve: no broker takes a thousand connections a second for as long as it runs.
        let start = getrandom::u64().unwrap_or_else(|_| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            (now.as_millis() as u64) << (SLOT_BITS + 1)
        });
        Self(start >> (SLOT_BITS + 1))
    }
}

/// The register of connections, and the frames of the turn.
#[derive(Debug, Default)]
pub(super) struct Outgoing {
    connections: Slab<Arc<Connection>>,
    serial: Serial,
    /// The frames of this turn, for each dialect.
    batches: [Batch; 2],
    run: Option<Run>,
    /// The contents of the current effects as frames, for each dialect.
    rendered: Vec<[Rendered; 2]>,
    /// Frames queued in this turn.
    queued: usize,
    /// Deliveries since they were last counted.
    deliveries: u64,
    /// Whose queues are to be flushed.
    touched: Vec<Arc<Connection>>,
    /// Who had no room for what was to be queued: to be ended.
    pub(super) overflowed: Vec<Arc<Connection>>,
}

/// Publications in a row for the same receivers.
#[derive(Debug)]
struct Run {
    to: Arc<[ConnectionId]>,
    except: Option<ConnectionId>,
    /// What each dialect's receivers get; `None` where there are none of them.
    spans: [Option<Span>; 2],
    messages: u64,
}

/// What a turn leaves to be done when the core's lock is released.
#[derive(Debug)]
pub(super) struct Sealed {
    /// Whose queues are to be flushed.
    pub(super) touched: Vec<Arc<Connection>>,
    /// To be given back with [`Outgoing::reuse`] when they are.
    batches: [Bytes; 2],
    /// Deliveries queued.
    pub(super) deliveries: u64,
}

impl Run {
    /// Appends a publication's frames.
    #[inline]
    fn append(&mut self, body: Body<'_>, batches: &mut [Batch; 2]) {
        self.messages += 1;
        for dialect in DIALECTS {
            if let Some(span) = &mut self.spans[dialect as usize] {
                let added = batches[dialect as usize].append(|out| body.push(out, dialect, None));
                *span = if self.messages == 1 { added } else { Span { start: span.start, end: added.end } };
            }
        }
    }
}

impl Sealed {
    /// Whether there is memory to be given back.
    pub(super) fn holds_memory(&self) -> bool {
        self.batches.iter().any(|batch| !batch.is_empty())
    }
}

impl Outgoing {
    /// Takes note that `contents` contents follow, of which nothing is rendered yet.
    pub(super) fn prepare(&mut self, contents: usize) {
        self.rendered.clear();
        self.rendered.resize_with(contents, Default::default);
        self.rendered.shrink_to(limits::EFFECTS_AT_ONCE);
    }

    /// Whether so much was queued that it shall be flushed before more is.
    pub(super) fn is_full(&self) -> bool {
        self.queued >= limits::FRAMES_AT_ONCE || !self.batches.iter().all(Batch::has_room)
    }

    /// A delivery to one connection. `content` is its number among those expected; `sequence` 0: nothing is to be confirmed.
    pub(super) fn deliver(
        &mut self,
        to: ConnectionId,
        (content, body): (u32, Body<'_>),
        sequence: u64,
        manual: Option<Manual>,
        max: usize,
    ) {
        self.spread(max);
        let Some(connection) = find(&self.connections, to) else { return };
        let dialect = connection.profile.dialect();
        let mut once = Rendered::default();
        let rendered = match manual {
            // Its frame bears the delivery's number: nobody else gets the same.
            Some(_) => &mut once,
            None => match self.rendered.get_mut(content as usize) {
                Some(rendered) => &mut rendered[dialect as usize],
                None => return,
            },
        };
        let mut queue = connection.queue();
        let batch = &mut self.batches[dialect as usize];
        let pushed = match rendered.place(batch, queue.is_flowing(), (body, dialect, manual)) {
            Place::Batch(span) => queue.push_span(span, max),
            Place::Own(frame) => queue.push(frame, max),
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
        note(connection, pushed, &mut self.touched, &mut self.overflowed);
    }

    /// A publication for everybody in `to` but `except`; nothing is to be confirmed.
    pub(super) fn broadcast(
        &mut self,
        to: Arc<[ConnectionId]>,
        except: Option<ConnectionId>,
        (content, body): (u32, Body<'_>),
        max: usize,
    ) {
        if body.is_large() {
            for id in to.iter().filter(|id| Some(**id) != except) {
                self.deliver(*id, (content, body), 0, None, max);
            }
            return;
        }
        let same = self.run.as_ref().is_some_and(|run| Arc::ptr_eq(&run.to, &to) && run.except == except);
        if !same {
            self.spread(max);
        }
        let Self { connections, batches, run, queued, .. } = self;
        let run = run.get_or_insert_with(|| {
            *queued += to.len();
            let mut spans = [None; 2];
            for connection in to.iter().filter_map(|id| find(connections, *id)) {
                spans[connection.profile.dialect() as usize] = Some(Span::EMPTY);
            }
            Run { to, except, spans, messages: 0 }
        });
        run.append(body, batches);
    }

    /// Spreads the run over its receivers' queues.
    pub(super) fn spread(&mut self, max: usize) {
        let Some(Run { to, except, spans, messages, .. }) = self.run.take() else { return };
        let mut shared: [Option<Bytes>; 2] = [None, None];
        for id in to.iter().filter(|id| Some(**id) != except) {
            let Some(connection) = find(&self.connections, *id) else { continue };
            let dialect = connection.profile.dialect() as usize;
            let Some(span) = spans[dialect] else { continue };
            let mut queue = connection.queue();
            queue.note_other_data();
            let pushed = if queue.is_flowing() {
                queue.push_span(span, max)
            } else {
                let batch = &self.batches[dialect];
                let frames = shared[dialect].get_or_insert_with(|| Bytes::copy_from_slice(batch.get(span)));
                queue.push(frames.clone(), max)
            };
            drop(queue);
            self.deliveries += if matches!(pushed, Pushed::Queued { .. }) { messages } else { 0 };
            note(connection, pushed, &mut self.touched, &mut self.overflowed);
        }
    }

    /// A frame for one connection: an answer, a pong.
    pub(super) fn push(&mut self, connection: &Arc<Connection>, frame: &Bytes, max: usize) {
        self.spread(max);
        let batch = &mut self.batches[connection.profile.dialect() as usize];
        let mut queue = connection.queue();
        if frame::is_data(frame) {
            queue.note_other_data();
        }
        let pushed = if queue.is_flowing() && batch.has_room() {
            queue.push_span(batch.append(|out| out.extend_from_slice(frame)), max)
        } else {
            queue.push(frame.clone(), max)
        };
        drop(queue);
        self.queued += 1;
        note(connection, pushed, &mut self.touched, &mut self.overflowed);
    }

    /// Something was done to a connection's queue directly: flush it, if `first` says that nobody else will.
    pub(super) fn touch(&mut self, connection: &Arc<Connection>, first: bool) {
        if first {
            self.touched.push(connection.clone());
        }
    }

    /// What was done to a connection's queue directly.
    pub(super) fn note(&mut self, connection: &Arc<Connection>, pushed: Pushed) {
        note(connection, pushed, &mut self.touched, &mut self.overflowed);
    }

    /// Ends the turn: what was queued is part of the queues now. The run must have been spread.
    pub(super) fn seal(&mut self) -> Sealed {
        self.queued = 0;
        let batches = [self.batches[0].freeze(), self.batches[1].freeze()];
        let touched = std::mem::take(&mut self.touched);
        for connection in &touched {
            connection.queue().seal(&batches[connection.profile.dialect() as usize]);
        }
        Sealed { touched, batches, deliveries: std::mem::take(&mut self.deliveries) }
    }

    /// Takes back the memory of a turn whose queues are flushed.
    pub(super) fn reuse(&mut self, sealed: Sealed) {
        let Sealed { batches, mut touched, .. } = sealed;
        for (batch, frozen) in self.batches.iter_mut().zip(batches) {
            batch.reuse(frozen);
        }
        if self.touched.capacity() == 0 {
            touched.clear();
            touched.shrink_to(limits::EFFECTS_AT_ONCE);
            self.touched = touched;
        }
    }

    /// The connection with this id, if it has not ended.
    pub(super) fn connection(&self, id: ConnectionId) -> Option<&Arc<Connection>> {
        find(&self.connections, id)
    }

    /// Every connection.
    pub(super) fn connections(&self) -> impl ExactSizeIterator<Item = &Arc<Connection>> {
        self.connections.iter().map(|(_, connection)| connection)
    }

    /// Puts a new connection into the register.
    pub(super) fn register(&mut self, make: impl FnOnce(ConnectionId) -> Arc<Connection>) -> Arc<Connection> {
        let entry = self.connections.vacant_entry();
        self.serial.0 += 1;
        let connection = make(ConnectionId((self.serial.0 << SLOT_BITS) | entry.key() as u64));
        entry.insert(connection.clone());
        connection
    }

    /// Takes a connection out of the register. Its caller holds the connection, so that no socket is closed under the lock.
    pub(super) fn unregister(&mut self, id: ConnectionId) {
        if self.connection(id).is_some() {
            self.connections.remove(slot(id));
        }
    }
}

fn note(
    connection: &Arc<Connection>,
    pushed: Pushed,
    touched: &mut Vec<Arc<Connection>>,
    overflowed: &mut Vec<Arc<Connection>>,
) {
    match pushed {
        Pushed::Queued { first: true } => touched.push(connection.clone()),
        Pushed::Queued { first: false } | Pushed::Gone => {}
        Pushed::Overflow => overflowed.push(connection.clone()),
    }
}

fn find(connections: &Slab<Arc<Connection>>, id: ConnectionId) -> Option<&Arc<Connection>> {
    connections.get(slot(id)).filter(|connection| connection.id == id)
}

fn slot(id: ConnectionId) -> usize {
    (id.0 & ((1 << SLOT_BITS) - 1)) as usize
}
