//! Opens the connections of a workload, some at a time, and adds them to the engine. It must never take longer than
//! [`limits::OPENING_TIMEOUT`], whatever the server does.

use std::ops::Range;
use std::time::{Duration, Instant};

use super::super::Error;
use super::super::connection::BlockingConnection;
use super::super::engine::{Engine, Progress, Role};
use super::super::flow::{Credit, Flow};
use super::super::tracker::Tracker;
use super::super::wire::{ConnectionPlan, Wire};
use super::Run;
use crate::limits;

impl<W: Wire> Run<'_, W>
where
    W::Session: Send,
{
    /// Adds idle connections, on a channel without messages.
    pub(super) fn add_idle(&mut self, engine: &mut Engine<W::Session>, connections: u32) -> Result<(), Error> {
        let unused = limits::CHANNELS;
        let uses = vec![unused..unused + 1; connections as usize];
        self.open_all(&uses, true, |run, _, _, opening| run.attach(engine, opening, Role::Idle))
    }

    /// Adds a sender to the channels `uses` in turn. Returns the index of its flow.
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

    /// Adds one sender for each element of `uses`, which sends to its channels in turn. Returns the indexes of their flows.
    pub(super) fn add_senders(
        &mut self,
        engine: &mut Engine<W::Session>,
        uses: &[Range<u32>],
        copies: u64,
        window: u32,
    ) -> Result<Range<usize>, Error> {
        let first = engine.flows();
        self.open_all(uses, false, |run, index, plan, opening| {
            let publication = run.wire.publication(plan, &run.payload);
            let each = publication.size() + wsmb_protocol::limits::FRAME_PLACE;
            let receivers = usize::try_from(copies).unwrap_or(usize::MAX).max(1);
            let max = limits::WINDOW_BYTES.min(limits::WINDOW_BYTES_TOTAL / receivers) / each;
            let max = u32::try_from(max).unwrap_or(u32::MAX).max(1);
            let window = run.options.window.unwrap_or(window.min(max));
            let credit = if run.confirmed { Credit::Confirmed } else { Credit::Received };
            let (sender, uses) = (engine.connections(), uses[index].clone());
            let flow = engine.add_flow(Flow::new(sender, &publication, uses, copies, credit, window));
            run.attach(engine, opening, Role::Sender(flow))
        })?;
        Ok(first..engine.flows())
    }

    /// Adds receivers, each of a flow and some of its channels. `base` returns the first channel of the flow with these channels.
    pub(super) fn add_receivers(
        &mut self,
        engine: &mut Engine<W::Session>,
        receivers: Vec<(usize, Range<u32>)>,
        base: impl Fn(&Range<u32>) -> u32,
    ) -> Result<(), Error> {
        let (flows, uses): (Vec<usize>, Vec<Range<u32>>) = receivers.into_iter().unzip();
        self.open_all(&uses, true, |run, index, _, opening| {
            let uses = &uses[index];
            let trackers = vec![Tracker::default(); uses.len()];
            run.attach(engine, opening, Role::Receiver { flow: flows[index], first: uses.start - base(uses), trackers })
        })
    }

    /// Opens connections, some at a time, because some servers accept new connections only a few times a second. Calls `ready` for each
    /// connection that is ready, with its index in `uses`.
    fn open_all(
        &mut self,
        uses: &[Range<u32>],
        receives: bool,
        mut ready: impl FnMut(&mut Self, usize, &ConnectionPlan, BlockingConnection<W::Session>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        for (index, group) in uses.chunks(limits::CONCURRENT_OPENINGS).enumerate() {
            let mut openings = Vec::with_capacity(group.len());
            for uses in group {
                openings.push(self.begin(uses.clone(), receives)?);
            }
            let began = Instant::now();
            openings.iter_mut().try_for_each(|(_, opening)| opening.finish_handshake())?;
            openings.iter_mut().try_for_each(|(_, opening)| opening.wait_until_ready(|_| Ok(())))?;
            self.opening_time += began.elapsed();
            for (at, (plan, opening)) in openings.into_iter().enumerate() {
                ready(self, index * limits::CONCURRENT_OPENINGS + at, &plan, opening)?;
            }
        }
        Ok(())
    }

    /// Adds a connection to the engine.
    fn attach(
        &mut self,
        engine: &mut Engine<W::Session>,
        opening: BlockingConnection<W::Session>,
        role: Role,
    ) -> Result<(), Error> {
        engine.add(opening, role)?;
        if engine.connections() % limits::CONCURRENT_OPENINGS == 0 {
            engine.idle(Duration::from_micros(1))?;
            let fraction = engine.connections() as f64 / self.planned as f64;
            (self.watch)(Progress { phase: "connecting", fraction });
        }
        Ok(())
    }

    /// Opens one connection and writes the first frames of its session.
    pub(super) fn open(&mut self, uses: Range<u32>, receives: bool) -> Result<BlockingConnection<W::Session>, Error> {
        let (_, mut opening) = self.begin(uses, receives)?;
        opening.finish_handshake()?;
        Ok(opening)
    }

    fn begin(
        &mut self,
        uses: Range<u32>,
        receives: bool,
    ) -> Result<(ConnectionPlan, BlockingConnection<W::Session>), Error> {
        if self.opening_time >= limits::OPENING_TIMEOUT {
            let what = format!("only {} of {} connections could be opened", self.opened, self.planned);
            return Err(Error::Stalled { what, after: limits::OPENING_TIMEOUT });
        }
        let plan = self.plan(uses, receives);
        self.opened += 1;
        let began = Instant::now();
        let opening = BlockingConnection::connect(self.target, self.wire, &plan, &self.payload);
        self.opening_time += began.elapsed();
        Ok((plan, opening?))
    }

    pub(super) fn plan(&self, uses: Range<u32>, receives: bool) -> ConnectionPlan {
        let Self { channels, opened, confirmed, .. } = self;
        ConnectionPlan {
            channels: channels.clone(),
            index: *opened,
            channel_numbers: uses,
            receives,
            confirmed: *confirmed,
        }
    }
}
