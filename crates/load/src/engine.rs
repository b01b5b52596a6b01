//! The engine: one thread and one event queue for all connections of a run. It sends up to the windows' limits, reads deliveries and
//! confirmations, and counts them.
//!
//! Events are edge-triggered: a socket is read until it is empty and written until it is full before the engine polls again. The engine
//! must never block on a socket.

use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::Error;
use super::connection::{BlockingConnection, Connection};
use super::flow::Flow;
use super::payload::Payload;
use super::tracker::{Arrival, Tracker};
use super::wire::{Session, SessionEvent, frame};
use crate::limits;
use wsmb_protocol::frame::Opcode;

/// When [`Engine::run`] ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// After this many further messages of all senders together.
    Messages(u64),
    /// After this time.
    Time(Duration),
}

/// The progress of a run.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// The current phase, in one or two words.
    pub phase: &'static str,
    /// The completed part of the phase, from 0 to 1.
    pub fraction: f64,
}

/// A callback for the progress of a run; called about ten times a second.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// The counts so far. `received` does not count duplicates.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) expected: u64,
    pub(super) received: u64,
    /// Sends that the broker should confirm.
    pub(super) to_confirm: u64,
    pub(super) confirmed: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
}

impl Tally {
    fn is_complete(&self) -> bool {
        self.received >= self.expected && self.confirmed >= self.to_confirm
    }
}

/// The result of one call of [`Engine::run`].
#[derive(Clone, Copy, Debug)]
pub(super) struct PhaseResult {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) confirmed: u64,
    /// From the start to the last delivery or confirmation.
    pub(super) time: Duration,
    /// Whether all expected deliveries and confirmations have arrived.
    pub(super) complete: bool,
}

/// The role of a connection.
pub(super) enum Role {
    /// Sends the messages of this flow.
    Sender(usize),
    /// Receives the messages of a flow on the channels from `first` on, each with a tracker.
    Receiver { flow: usize, first: u32, trackers: Vec<Tracker> },
    /// Only stays open.
    Idle,
}

struct Link<S> {
    connection: Connection<S>,
    role: Role,
    /// Whether the connection is in the `readable` list.
    is_listed: bool,
}

/// Drives all connections of a run.
pub(super) struct Engine<S> {
    poll: Poll,
    events: Events,
    links: Vec<Link<S>>,
    flows: Vec<Flow>,
    payload: Payload,
    /// Missing deliveries count as lost when nothing has arrived for this long.
    stall: Duration,
    tally: Tally,
    /// Whether the broker confirms sends.
    confirms: bool,
    readable: Vec<usize>,
    /// The flows that may send.
    sendable: Vec<usize>,
    buffer: Vec<u8>,
    /// The time of the last delivery or confirmation.
    last_arrival: Instant,
}

impl<S: Session> Engine<S> {
    /// Creates an engine without connections. `confirms`: whether the broker confirms every send.
    ///
    /// # Errors
    /// The system cannot create an event queue.
    pub(super) fn new(payload: Payload, confirms: bool, stall: Duration) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new()
                .map_err(|error| Error::System(format!("the system cannot create an event queue: {error}")))?,
            events: Events::with_capacity(limits::EVENTS_PER_POLL),
            links: Vec::new(),
            flows: Vec::new(),
            payload,
            stall,
            tally: Tally::default(),
            confirms,
            readable: Vec::new(),
            sendable: Vec::new(),
            buffer: vec![0; limits::READ_BYTES],
            last_arrival: Instant::now(),
        })
    }

    /// Adds a connection and returns its index.
    ///
    /// # Errors
    /// The system refuses to register the connection.
    pub(super) fn add(&mut self, opening: BlockingConnection<S>, role: Role) -> Result<usize, Error> {
        let mut connection = opening.into_nonblocking()?;
        let index = self.links.len();
        self.poll
            .registry()
            .register(connection.stream.tcp_mut(), Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| connection.state.lost(Some(error)))?;
        // Data that arrived during the opening does not cause another event.
        self.readable.push(index);
        self.links.push(Link { connection, role, is_listed: true });
        Ok(index)
    }

    /// Adds the flow of a sender and returns its index.
    pub(super) fn add_flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.flows.len() - 1
    }

    /// The number of flows.
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// The number of connections.
    pub(super) fn connections(&self) -> usize {
        self.links.len()
    }

    /// Expects one delivery of each message that `flow` has sent so far without a receiver.
    pub(super) fn expect_sent_messages(&mut self, flow: usize) {
        self.tally.expected += self.flows.get(flow).map_or(0, |flow| flow.sent);
    }

    /// The counts so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Sends, and waits until all messages are received and confirmed, or nothing has arrived for [`super::Options::stall`].
    ///
    /// # Errors
    /// A connection broke, the broker refused a send, or a message arrived that was not sent.
    pub(super) fn run(&mut self, goal: Goal, phase: &'static str, watch: Watch<'_>) -> Result<PhaseResult, Error> {
        let before = self.tally;
        let began = Instant::now();
        self.last_arrival = began;
        self.set_limits(goal);
        let mut last_report = began;
        loop {
            let now = Instant::now();
            if let Goal::Time(time) = goal
                && now - began >= time
            {
                self.flows.iter_mut().for_each(|flow| flow.limit = flow.sent);
            }
            let all_sent = self.flows.iter().all(|flow| flow.sent >= flow.limit);
            let complete = all_sent && self.tally.is_complete();
            if complete || now - self.last_arrival >= self.stall {
                let tally = self.tally;
                return Ok(PhaseResult {
                    sent: tally.sent - before.sent,
                    received: tally.received - before.received,
                    confirmed: tally.confirmed - before.confirmed,
                    time: self.last_arrival - began,
                    complete,
                });
            }
            if now - last_report >= limits::UPDATE_INTERVAL {
                last_report = now;
                watch(Progress { phase, fraction: self.fraction(goal, &before, began) });
            }
            self.poll_once(limits::UPDATE_INTERVAL)?;
        }
    }

    /// Reads and replies for this long, without sending messages.
    ///
    /// # Errors
    /// As for [`Self::run`].
    pub(super) fn idle(&mut self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.poll_once(left)?;
        }
    }

    /// Waits until each receiver has answered a ping after its last delivery, so that the broker keeps no delivery. If no ping comes, because
    /// nothing has to be confirmed, this takes [`limits::CONFIRM_TIMEOUT`].
    fn confirm(&mut self) -> Result<(), Error> {
        let end = Instant::now() + limits::CONFIRM_TIMEOUT;
        let is_unconfirmed =
            |link: &Link<S>| matches!(link.role, Role::Receiver { .. }) && link.connection.state.unconfirmed;
        while self.links.iter().any(is_unconfirmed) && Instant::now() < end {
            self.poll_once(limits::UPDATE_INTERVAL)?;
        }
        Ok(())
    }

    /// Closes all connections in an orderly way. Waits up to [`limits::CLOSE_TIMEOUT`] for the server's part.
    pub(super) fn close(mut self) {
        // The measurement is finished, so errors do not matter here.
        let _ = self.confirm();
        for link in &mut self.links {
            frame(&mut link.connection.state.out, Opcode::Close, &1000_u16.to_be_bytes());
            link.connection.blocked = false;
            // Fails if the connection is already closed.
            let _ = link.connection.flush();
        }
        let deadline = Instant::now() + limits::CLOSE_TIMEOUT;
        let mut open = self.links.len();
        let mut closed = vec![false; open];
        while open > 0 && Instant::now() < deadline {
            if self.poll.poll(&mut self.events, Some(limits::UPDATE_INTERVAL)).is_err() {
                return;
            }
            for event in &self.events {
                let Some(link) = self.links.get_mut(event.token().0) else { continue };
                let connection = &mut link.connection;
                connection.blocked = false;
                let ended = loop {
                    match connection.receive(&mut self.buffer, |_| Ok(())) {
                        Ok(true) => {}
                        Ok(false) => break connection.flush().is_err(),
                        Err(_) => break true,
                    }
                };
                if ended && !std::mem::replace(&mut closed[event.token().0], true) {
                    open -= 1;
                }
            }
        }
    }

    fn set_limits(&mut self, goal: Goal) {
        let count = self.flows.len().max(1) as u64;
        for (index, flow) in self.flows.iter_mut().enumerate() {
            flow.limit = match goal {
                Goal::Messages(messages) => flow.sent + messages / count + u64::from(messages % count > index as u64),
                Goal::Time(_) => Payload::NUMBERS,
            };
            if !std::mem::replace(&mut flow.is_listed, true) {
                self.sendable.push(index);
            }
        }
    }

    fn fraction(&self, goal: Goal, before: &Tally, began: Instant) -> f64 {
        match goal {
            Goal::Time(time) => began.elapsed().as_secs_f64() / time.as_secs_f64().max(f64::MIN_POSITIVE),
            Goal::Messages(messages) => {
                let copies = self.flows.iter().map(|flow| flow.copies).max().unwrap_or(1).max(1);
                let expected = if messages > 0 { messages * copies } else { self.tally.expected - before.expected };
                let done = (self.tally.received - before.received).max(self.tally.confirmed - before.confirmed);
                done as f64 / expected.max(1) as f64
            }
        }
    }

    /// Polls for events for at most `wait`, then reads from readable connections and sends for flows with room.
    fn poll_once(&mut self, wait: Duration) -> Result<(), Error> {
        let wait = if self.readable.is_empty() && self.sendable.is_empty() { wait } else { Duration::ZERO };
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() != std::io::ErrorKind::Interrupted => {
                return Err(Error::System(format!("the system's event queue failed: {error}")));
            }
            _ => {}
        }
        for event in &self.events {
            let index = event.token().0;
            let Some(link) = self.links.get_mut(index) else { continue };
            if event.is_writable() && std::mem::replace(&mut link.connection.blocked, false) {
                link.connection.flush()?;
                if let Role::Sender(flow) = link.role
                    && !std::mem::replace(&mut self.flows[flow].is_listed, true)
                {
                    self.sendable.push(flow);
                }
            }
            let to_read = event.is_readable() || event.is_read_closed() || event.is_error();
            if to_read && !std::mem::replace(&mut link.is_listed, true) {
                self.readable.push(index);
            }
        }
        let before = (self.tally.received, self.tally.confirmed);
        for index in std::mem::take(&mut self.readable) {
            self.read(index)?;
        }
        if before != (self.tally.received, self.tally.confirmed) {
            self.last_arrival = Instant::now();
        }
        for flow in std::mem::take(&mut self.sendable) {
            self.send(flow)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<(), Error> {
        let Self { links, flows, payload, tally, sendable, buffer, .. } = self;
        let Link { connection, role, is_listed } = &mut links[index];
        let more = connection.receive(buffer, |event| {
            let made_room = match (&mut *role, event) {
                (Role::Receiver { flow, first, trackers }, SessionEvent::Delivery(message)) => {
                    let flow_index = *flow;
                    let flow = &mut flows[flow_index];
                    let made_room = deliver(flow, *first, trackers, payload.number_of(message), tally)?;
                    made_room.then_some(flow_index)
                }
                (Role::Sender(flow), SessionEvent::Confirmation) => {
                    let flow_index = *flow;
                    let flow = &mut flows[flow_index];
                    flow.confirmed += 1;
                    tally.confirmed += 1;
                    if flow.confirmed > flow.sent {
                        return Err(Error::NotUnderstood("a confirmation without a send".to_owned()));
                    }
                    Some(flow_index)
                }
                (_, SessionEvent::Delivery(_)) => {
                    return Err(Error::NotUnderstood("a message on a connection that does not receive".to_owned()));
                }
                (_, SessionEvent::Confirmation) => {
                    return Err(Error::NotUnderstood("a confirmation without a send".to_owned()));
                }
            };
            if let Some(flow) = made_room
                && !std::mem::replace(&mut flows[flow].is_listed, true)
            {
                sendable.push(flow);
            }
            Ok(())
        })?;
        *is_listed = more;
        if more {
            self.readable.push(index);
        }
        Ok(())
    }

    /// Sends messages of a flow until its window or its socket is full.
    fn send(&mut self, index: usize) -> Result<(), Error> {
        let flow = &mut self.flows[index];
        let Some(link) = self.links.get_mut(flow.sender) else { return Ok(()) };
        let connection = &mut link.connection;
        flow.is_listed = false;
        for _ in 0..limits::BURSTS {
            if connection.blocked || connection.queued() > 0 {
                // The event queue reports when the socket is writable again.
                return Ok(());
            }
            let count = flow.fill(&mut connection.state.out);
            if count == 0 {
                return Ok(());
            }
            self.tally.sent += count;
            self.tally.expected += count * flow.copies;
            self.tally.to_confirm += if self.confirms { count } else { 0 };
            connection.flush()?;
        }
        if flow.room() > 0 {
            flow.is_listed = true;
            self.sendable.push(index);
        }
        Ok(())
    }
}

/// Records a delivery, and returns whether it made room in the sender's window.
#[inline]
fn deliver(
    flow: &mut Flow,
    first: u32,
    trackers: &mut [Tracker],
    number: Option<u64>,
    tally: &mut Tally,
) -> Result<bool, Error> {
    let Some(number) = number.filter(|number| *number < flow.sent) else {
        return Err(Error::NotUnderstood("a message that was not sent".to_owned()));
    };
    let (channel, index) = flow.channel_and_index(number);
    let Some(tracker) = channel.checked_sub(first).and_then(|at| trackers.get_mut(at as usize)) else {
        return Err(Error::NotUnderstood("a message of a channel that this connection does not receive".to_owned()));
    };
    match tracker.record(index) {
        Arrival::InOrder => {}
        Arrival::Late => tally.reordered += 1,
        Arrival::Duplicate => {
            tally.doubled += 1;
            return Ok(false);
        }
    }
    tally.received += 1;
    Ok(flow.received(number))
}
