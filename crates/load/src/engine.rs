//! The engine: one thread and one event queue for all connections of a run. It sends as far as the windows go, reads what comes, and counts.
//!
//! Edges, not levels: a socket is read until it is empty, and written until it is full, before the system is asked again.

use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::Error;
use super::connection::{Connection, Opening};
use super::flow::Flow;
use super::payload::Payload;
use super::tracker::{Arrival, Tracker};
use super::wire::{Heard, Session, frame};
use crate::limits;
use wsmb_protocol::frame::Opcode;

/// How far a stretch of work goes.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// So many further messages of all senders together.
    Messages(u64),
    /// As many as can be sent in this time.
    Time(Duration),
}

/// How far a run has come, for who watches it.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    /// What is being done, in a word or two.
    pub phase: &'static str,
    /// From 0 to 1.
    pub fraction: f64,
}

/// Who watches a run; called some ten times a second.
pub type Watch<'a> = &'a mut dyn FnMut(Progress);

/// What was counted so far. Deliveries and answers that came more than once are counted once in `received`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) sent: u64,
    pub(super) expected: u64,
    pub(super) received: u64,
    pub(super) asked: u64,
    pub(super) answered: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
}

impl Tally {
    fn is_settled(&self) -> bool {
        self.received >= self.expected && self.answered >= self.asked
    }
}

/// A stretch of work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) answered: u64,
    /// From its beginning to the last delivery or answer.
    pub(super) time: Duration,
    /// Everything that was expected has come.
    pub(super) complete: bool,
}

/// What a connection is there for.
pub(super) enum Post {
    /// It sends the messages of a flow.
    Sender(usize),
    /// It receives those of a flow, on channels from `first` on, each with its tracker.
    Receiver { flow: usize, first: u32, trackers: Vec<Tracker> },
    /// It is only there.
    Idle,
}

struct Link<S> {
    connection: Connection<S>,
    post: Post,
    /// It stands in the list of those that can be read.
    listed: bool,
}

/// See the module's description.
pub(super) struct Engine<S> {
    poll: Poll,
    events: Events,
    links: Vec<Link<S>>,
    flows: Vec<Flow>,
    payload: Payload,
    /// When nothing has come for so long, it is lost.
    stall: Duration,
    tally: Tally,
    /// Sends are answered for.
    answers: bool,
    readable: Vec<usize>,
    hungry: Vec<usize>,
    buffer: Vec<u8>,
    /// When the last delivery or answer came.
    moved: Instant,
}

impl<S: Session> Engine<S> {
    /// An engine without connections. `answers`: every send is answered for.
    ///
    /// # Errors
    /// The system gives no event queue.
    pub(super) fn new(payload: Payload, answers: bool, stall: Duration) -> Result<Self, Error> {
        Ok(Self {
            poll: Poll::new().map_err(|error| Error::System(format!("the system gives no event queue: {error}")))?,
            events: Events::with_capacity(limits::EVENTS),
            links: Vec::new(),
            flows: Vec::new(),
            payload,
            stall,
            tally: Tally::default(),
            answers,
            readable: Vec::new(),
            hungry: Vec::new(),
            buffer: vec![0; limits::READ],
            moved: Instant::now(),
        })
    }

    /// Takes a connection over. Returns its number.
    ///
    /// # Errors
    /// The system refuses it.
    pub(super) fn add(&mut self, opening: Opening<S>, post: Post) -> Result<usize, Error> {
        let mut connection = opening.into_connection()?;
        let index = self.links.len();
        self.poll
            .registry()
            .register(&mut connection.stream, Token(index), Interest::READABLE | Interest::WRITABLE)
            .map_err(|error| connection.line.lost(Some(error)))?;
        // What came while it was opened makes no edge any more.
        self.readable.push(index);
        self.links.push(Link { connection, post, listed: true });
        Ok(index)
    }

    /// Adds what a sender sends. Returns its number.
    pub(super) fn add_flow(&mut self, flow: Flow) -> usize {
        self.flows.push(flow);
        self.flows.len() - 1
    }

    /// Flows so far.
    pub(super) fn flows(&self) -> usize {
        self.flows.len()
    }

    /// Connections so far.
    pub(super) fn connections(&self) -> usize {
        self.links.len()
    }

    /// Messages of flow `flow` that were sent so far are to be received, which were sent while nobody was there.
    pub(super) fn expect_what_was_sent(&mut self, flow: usize) {
        self.tally.expected += self.flows.get(flow).map_or(0, |flow| flow.sent);
    }

    /// What was counted so far.
    pub(super) fn tally(&self) -> Tally {
        self.tally
    }

    /// Sends, and waits until everything that was sent is received and answered for, or nothing has come for [`super::Options::stall`].
    ///
    /// # Errors
    /// A connection broke, something was refused, or something came that was not sent.
    pub(super) fn run(&mut self, goal: Goal, phase: &'static str, watch: Watch<'_>) -> Result<Stretch, Error> {
        let before = self.tally;
        let began = Instant::now();
        self.moved = began;
        self.set_limits(goal);
        let mut looked = began;
        loop {
            let now = Instant::now();
            if let Goal::Time(time) = goal
                && now - began >= time
            {
                self.flows.iter_mut().for_each(|flow| flow.limit = flow.sent);
            }
            let all_sent = self.flows.iter().all(|flow| flow.sent >= flow.limit);
            let complete = all_sent && self.tally.is_settled();
            if complete || now - self.moved >= self.stall {
                let tally = self.tally;
                return Ok(Stretch {
                    sent: tally.sent - before.sent,
                    received: tally.received - before.received,
                    answered: tally.answered - before.answered,
                    time: self.moved - began,
                    complete,
                });
            }
            if now - looked >= limits::LOOK {
                looked = now;
                watch(Progress { phase, fraction: self.fraction(goal, &before, began) });
            }
            self.pass(limits::LOOK)?;
        }
    }

    /// Answers what is to be answered for this long; nothing is sent.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub(super) fn idle(&mut self, time: Duration) -> Result<(), Error> {
        let end = Instant::now() + time;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(());
            }
            self.pass(left)?;
        }
    }

    /// Answers the pings that confirm what receivers were given last, so that nothing of it stays with the broker. Where nothing is to be
    /// confirmed, no ping comes, and the time is waited out.
    fn confirm(&mut self) -> Result<(), Error> {
        let end = Instant::now() + limits::CONFIRM;
        let is_open = |link: &Link<S>| matches!(link.post, Post::Receiver { .. }) && link.connection.line.unconfirmed;
        while self.links.iter().any(is_open) && Instant::now() < end {
            self.pass(limits::LOOK)?;
        }
        Ok(())
    }

    /// Ends every connection in an orderly way, and waits for the server's part of it for a while.
    pub(super) fn leave(mut self) {
        // What is measured is measured; who breaks now is gone.
        let _ = self.confirm();
        for link in &mut self.links {
            frame(&mut link.connection.line.out, Opcode::Close, &1000_u16.to_be_bytes());
            link.connection.blocked = false;
            // Whoever is gone already needs no goodbye.
            let _ = link.connection.flush();
        }
        let deadline = Instant::now() + limits::LEAVE;
        let mut left = self.links.len();
        let mut gone = vec![false; left];
        while left > 0 && Instant::now() < deadline {
            if self.poll.poll(&mut self.events, Some(limits::LOOK)).is_err() {
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
                if ended && !std::mem::replace(&mut gone[event.token().0], true) {
                    left -= 1;
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
            if !std::mem::replace(&mut flow.listed, true) {
                self.hungry.push(index);
            }
        }
    }

    fn fraction(&self, goal: Goal, before: &Tally, began: Instant) -> f64 {
        match goal {
            Goal::Time(time) => began.elapsed().as_secs_f64() / time.as_secs_f64().max(f64::MIN_POSITIVE),
            Goal::Messages(messages) => {
                let copies = self.flows.iter().map(|flow| flow.copies).max().unwrap_or(1).max(1);
                let due = if messages > 0 { messages * copies } else { self.tally.expected - before.expected };
                let done = (self.tally.received - before.received).max(self.tally.answered - before.answered);
                done as f64 / due.max(1) as f64
            }
        }
    }

    /// Waits for something to happen, for a while at the most, and does what there is to do.
    fn pass(&mut self, wait: Duration) -> Result<(), Error> {
        let wait = if self.readable.is_empty() && self.hungry.is_empty() { wait } else { Duration::ZERO };
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
                if let Post::Sender(flow) = link.post
                    && !std::mem::replace(&mut self.flows[flow].listed, true)
                {
                    self.hungry.push(flow);
                }
            }
            let to_read = event.is_readable() || event.is_read_closed() || event.is_error();
            if to_read && !std::mem::replace(&mut link.listed, true) {
                self.readable.push(index);
            }
        }
        let before = (self.tally.received, self.tally.answered);
        for index in std::mem::take(&mut self.readable) {
            self.read(index)?;
        }
        if before != (self.tally.received, self.tally.answered) {
            self.moved = Instant::now();
        }
        for flow in std::mem::take(&mut self.hungry) {
            self.feed(flow)?;
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<(), Error> {
        let Self { links, flows, payload, tally, hungry, buffer, .. } = self;
        let Link { connection, post, listed } = &mut links[index];
        let more = connection.receive(buffer, |heard| {
            let made_room = match (&mut *post, heard) {
                (Post::Receiver { flow, first, trackers }, Heard::Delivery(message)) => {
                    let flow_index = *flow;
                    let flow = &mut flows[flow_index];
                    let made_room = deliver(flow, *first, trackers, payload.number_of(message), tally)?;
                    made_room.then_some(flow_index)
                }
                (Post::Sender(flow), Heard::Answer) => {
                    let flow_index = *flow;
                    let flow = &mut flows[flow_index];
                    flow.answered += 1;
                    tally.answered += 1;
                    if flow.answered > flow.sent {
                        return Err(Error::NotUnderstood("an answer to nothing that was sent".to_owned()));
                    }
                    Some(flow_index)
                }
                (_, Heard::Delivery(_)) => {
                    return Err(Error::NotUnderstood("a message for somebody who receives nothing".to_owned()));
                }
                (_, Heard::Answer) => {
                    return Err(Error::NotUnderstood("an answer to nothing that was sent".to_owned()));
                }
            };
            if let Some(flow) = made_room
                && !std::mem::replace(&mut flows[flow].listed, true)
            {
                hungry.push(flow);
            }
            Ok(())
        })?;
        *listed = more;
        if more {
            self.readable.push(index);
        }
        Ok(())
    }

    /// Sends what the window of a flow and its socket take.
    fn feed(&mut self, index: usize) -> Result<(), Error> {
        let flow = &mut self.flows[index];
        let Some(link) = self.links.get_mut(flow.sender) else { return Ok(()) };
        let connection = &mut link.connection;
        flow.listed = false;
        for _ in 0..limits::BURSTS {
            if connection.blocked || connection.queued() > 0 {
                // The system says when the socket takes more.
                return Ok(());
            }
            let count = flow.fill(&mut connection.line.out);
            if count == 0 {
                return Ok(());
            }
            self.tally.sent += count;
            self.tally.expected += count * flow.copies;
            self.tally.asked += if self.answers { count } else { 0 };
            connection.flush()?;
        }
        if flow.room() > 0 {
            flow.listed = true;
            self.hungry.push(index);
        }
        Ok(())
    }
}

/// Takes note of a delivery. Whether it made room for its sender.
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
    let (channel, place) = flow.place_of(number);
    let Some(tracker) = channel.checked_sub(first).and_then(|index| trackers.get_mut(index as usize)) else {
        return Err(Error::NotUnderstood("a message of a channel that this connection does not receive".to_owned()));
    };
    match tracker.note(place) {
        Arrival::InOrder => {}
        Arrival::Late => tally.reordered += 1,
        Arrival::Again => {
            tally.doubled += 1;
            return Ok(false);
        }
    }
    tally.received += 1;
    Ok(flow.received(number))
}
