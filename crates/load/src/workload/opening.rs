//! The connections of a workload: opened some at once, and given to the engine. It must not take longer than it may, whatever the server does.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::Error;
use super::super::connection::Opening;
use super::super::engine::{Engine, Post, Progress};
use super::super::flow::{Credit, Flow};
use super::super::tracker::Tracker;
use super::super::wire::{Seat, Wire};
use super::Run;
use crate::limits;

impl<W: Wire> Run<'_, W>
where
    W::Session: Send,
{
    /// Idle connections, on a channel that nothing is sent to.
    pub(super) fn add_idle(&mut self, engine: &mut Engine<W::Session>, connections: u32) -> Result<(), Error> {
        let nobody = limits::CHANNELS;
        let uses = vec![nobody..nobody + 1; connections as usize];
        self.open_all(&uses, true, |run, _, _, opening| run.attach(engine, opening, Post::Idle))
    }

    /// A sender to these channels, in turn. Returns the number of its flow.
    pub(super) fn add_sender(
        &mut self,
        engine: &mut Engine<W::Session>,
        uses: Range<u32>,
        copies: u64,
        window: u32,
    ) -> Result<usize, Error> {
        let flows = self.add_senders(engine, std::slice::from_ref(&uses), copies, window)?;
        Ok(flows.start)
    }

    /// Senders, each to these channels in turn. Returns the numbers of their flows.
    pub(super) fn add_senders(
        &mut self,
        engine: &mut Engine<W::Session>,
        uses: &[Range<u32>],
        copies: u64,
        window: u32,
    ) -> Result<Range<usize>, Error> {
        let first = engine.flows();
        self.open_all(uses, false, |run, index, seat, opening| {
            let publication = run.wire.publication(seat, &run.payload);
            let each = publication.size() + wsmb_protocol::limits::FRAME_PLACE;
            let receivers = usize::try_from(copies).unwrap_or(usize::MAX).max(1);
            let most = limits::WINDOW_BYTES.min(limits::WINDOW_BYTES_OF_ALL / receivers) / each;
            let most = u32::try_from(most).unwrap_or(u32::MAX).max(1);
            let window = run.options.window.unwrap_or(window.min(most));
            let credit = if run.confirmed { Credit::Answered } else { Credit::Received };
            let (sender, uses) = (engine.connections(), uses[index].clone());
            let flow = engine.add_flow(Flow::new(sender, &publication, uses, copies, credit, window));
            run.attach(engine, opening, Post::Sender(flow))
        })?;
        Ok(first..engine.flows())
    }

    /// Receivers, each of a flow and some of its channels. `base`: the first channel of the flow that has these.
    pub(super) fn add_receivers(
        &mut self,
        engine: &mut Engine<W::Session>,
        places: Vec<(usize, Range<u32>)>,
        base: impl Fn(&Range<u32>) -> u32,
    ) -> Result<(), Error> {
        let (flows, uses): (Vec<usize>, Vec<Range<u32>>) = places.into_iter().unzip();
        self.open_all(&uses, true, |run, index, _, opening| {
            let uses = &uses[index];
            let trackers = vec![Tracker::default(); uses.len()];
            run.attach(engine, opening, Post::Receiver { flow: flows[index], first: uses.start - base(uses), trackers })
        })
    }

    /// Opens connections, some at once: there are servers that look at new connections a few times a second only. Each is handed over when it is ready,
    /// with its place in the list and its seat.
    fn open_all(
        &mut self,
        uses: &[Range<u32>],
        receives: bool,
        mut ready: impl FnMut(&mut Self, usize, &Seat, Opening<W::Session>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (index, group) in uses.chunks(limits::OPENED_AT_ONCE).enumerate() {
            let mut openings = Vec::with_capacity(group.len());
            for uses in group {
                openings.push(self.begin(uses.clone(), receives)?);
            }
            let began = Instant::now();
            openings.iter_mut().try_for_each(|(_, opening)| opening.shake_hands())?;
            openings.iter_mut().try_for_each(|(_, opening)| opening.settle(|_| Ok(())))?;
            self.opening += began.elapsed();
            for (at, (seat, opening)) in openings.into_iter().enumerate() {
                ready(self, index * limits::OPENED_AT_ONCE + at, &seat, opening)?;
            }
        }
        Ok(())
    }

    /// Gives a connection to the engine.
    fn attach(
        &mut self,
        engine: &mut Engine<W::Session>,
        opening: Opening<W::Session>,
        post: Post,
    ) -> Result<(), Error> {
        engine.add(opening, post)?;
        if engine.connections() % limits::OPENED_AT_ONCE == 0 {
            engine.idle(Duration::from_micros(1))?;
            let fraction = engine.connections() as f64 / self.due as f64;
            (self.watch)(Progress { phase: "connecting", fraction });
        }
        Ok(())
    }

    /// One connection, whose session has said what it begins with.
    pub(super) fn open(&mut self, uses: Range<u32>, receives: bool) -> Result<Opening<W::Session>, Error> {
        let (_, mut opening) = self.begin(uses, receives)?;
        opening.shake_hands()?;
        Ok(opening)
    }

    fn begin(&mut self, uses: Range<u32>, receives: bool) -> Result<(Seat, Opening<W::Session>), Error> {
        if self.opening >= limits::OPENING {
            let what = format!("only {} of {} connections could be opened", self.opened, self.due);
            return Err(Error::Stalled { what, after: limits::OPENING });
        }
        let seat = self.seat(uses, receives);
        self.opened += 1;
        let began = Instant::now();
        let opening = Opening::begin(self.target, self.wire, &seat, &self.payload);
        self.opening += began.elapsed();
        Ok((seat, opening?))
    }

    pub(super) fn seat(&self, uses: Range<u32>, receives: bool) -> Seat {
        let Self { channels, opened, confirmed, .. } = self;
        Seat { channels: channels.clone(), index: *opened, uses, receives, confirmed: *confirmed }
    }
}
