//! The workloads: who is connected to what, what is sent when, and what of it counts.

mod opening;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use super::connection::Target;
use super::engine::{Engine, Goal, Post, Progress, Stretch, Watch};
use super::latency::{self, Schedule};
use super::open_files;
use super::options::{Options, Workload};
use super::payload::Payload;
use super::process::{Memory, Process, Usage};
use super::report::{Phase, Report};
use super::tracker::Tracker;
use super::wire::{Channels, Wire};
use crate::limits;

/// Measures a workload.
///
/// A report whose [`Report::is_sound`] is false is one of a broker that lost, doubled or reordered something. `watch` is told how far it has come.
///
/// # Errors
/// Nothing was measured, and why.
pub fn run<W: Wire>(
    wire: &W,
    target: &Target,
    workload: &Workload,
    options: &Options,
    watch: Watch<'_>,
) -> Result<Report, Error>
where
    W::Session: Send,
{
    let confirmed = matches!(workload, Workload::Confirmed | Workload::Backlog { .. });
    if confirmed && !wire.confirms() {
        return Err(Error::Misuse(format!(
            "{} answers for nothing, so {} cannot be measured",
            wire.name(),
            workload.name()
        )));
    }
    let due = connections(wire, workload, options);
    open_files::room_for(due)?;
    let server = match options.pid {
        Some(pid) => Process::new(pid),
        None => target.process(),
    };
    let mut run = Run {
        wire,
        target,
        options,
        payload: Payload::new(options.size),
        channels: Channels::new(options.channel.clone(), run_name()?),
        confirmed,
        due,
        opened: 0,
        opening: Duration::ZERO,
        server,
        watch,
    };
    let mut report = match workload {
        Workload::P2p => run.stream(1, 1, limits::WINDOW),
        Workload::Fanout { receivers } => run.stream(1, *receivers, limits::WINDOW_FANOUT),
        Workload::Pairs { pairs } => run.stream(*pairs, 1, limits::WINDOW_PAIR),
        Workload::Confirmed => run.stream(1, 1, limits::WINDOW_CONFIRMED),
        Workload::Channels { channels } => run.many_channels(*channels),
        Workload::Idle { connections } => run.idle(*connections),
        Workload::Latency { rate } => run.latency(*rate),
        Workload::Backlog { store, leave } => run.backlog(store.as_deref(), *leave),
    }?;
    report.workload = workload.name();
    report.dialect = wire.name();
    report.size = options.size;
    report.server_unseen = run.server.err();
    Ok(report)
}

/// How many connections a workload opens.
fn connections<W: Wire>(wire: &W, workload: &Workload, options: &Options) -> u64 {
    let own = match workload {
        Workload::Fanout { receivers } => u64::from(*receivers) + 1,
        Workload::Pairs { pairs } => u64::from(*pairs) * 2,
        Workload::Channels { channels } => u64::from(channels.div_ceil(wire.receiver_channels().max(1))) + 1,
        Workload::Idle { connections } => u64::from(*connections),
        Workload::P2p | Workload::Latency { .. } | Workload::Confirmed | Workload::Backlog { .. } => 2,
    };
    own + u64::from(options.beside)
}

/// Eight letters and digits that no other run has.
fn run_name() -> Result<String, Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(wsmb_client::Error::NoRandomness)?;
    Ok(hex::encode(bytes))
}

struct Run<'a, W> {
    wire: &'a W,
    target: &'a Target,
    options: &'a Options,
    payload: Payload,
    channels: Channels,
    confirmed: bool,
    /// How many connections there will be, and how many have been opened.
    due: u64,
    opened: u32,
    /// How long it has taken to open the connections so far.
    opening: Duration,
    /// The server, or why it cannot be seen.
    server: Result<Process, String>,
    watch: Watch<'a>,
}

impl<W: Wire> Run<'_, W>
where
    W::Session: Send,
{
    /// Pairs of one sender and some receivers, each on a channel of its own.
    fn stream(&mut self, pairs: u32, receivers: u32, window: u32) -> Result<Report, Error> {
        let mut engine = self.engine()?;
        let uses: Vec<Range<u32>> = (0..pairs).map(|pair| pair..pair + 1).collect();
        let flows = self.add_senders(&mut engine, &uses, u64::from(receivers), window)?;
        let places = flows.zip(uses).flat_map(|place| std::iter::repeat_n(place, receivers as usize));
        self.add_receivers(&mut engine, places.collect(), |uses| uses.start)?;
        self.measure(engine, pairs as usize, pairs as usize * receivers as usize)
    }

    /// One sender that sends to many channels in turn, and as many receivers as it takes.
    fn many_channels(&mut self, channels: u32) -> Result<Report, Error> {
        let each = self.wire.receiver_channels().max(1);
        if each == 1 && channels > 1 {
            return Err(Error::Misuse(format!(
                "a connection of {} has one channel, so nobody can send to many in turn; measure pairs instead",
                self.wire.name()
            )));
        }
        let mut engine = self.engine()?;
        let flow = self.add_sender(&mut engine, 0..channels, 1, limits::WINDOW)?;
        let firsts = (0..channels).step_by(each as usize);
        let places: Vec<_> = firsts.map(|first| (flow, first..channels.min(first + each))).collect();
        let receivers = places.len();
        self.add_receivers(&mut engine, places, |_| 0)?;
        self.measure(engine, 1, receivers)
    }

    /// Warms up, measures, and leaves.
    fn measure(&mut self, mut engine: Engine<W::Session>, senders: usize, receivers: usize) -> Result<Report, Error> {
        let warm_up = match self.options.messages {
            Some(messages) => Goal::Messages(messages / 10),
            None => Goal::Time(self.options.warm_up),
        };
        let mut complete = true;
        if !self.options.warm_up.is_zero() {
            complete = engine.run(warm_up, "warming up", self.watch)?.complete;
        }
        let goal = self.options.messages.map_or(Goal::Time(self.options.seconds), Goal::Messages);
        let before = self.usage();
        let stretch = if complete { Some(engine.run(goal, "measuring", self.watch)?) } else { None };
        let cpu = self.cpu_since(before);
        let tally = engine.tally();
        if self.confirmed && tally.answered < tally.asked {
            let what = format!("{} of {} sends were not answered for", tally.asked - tally.answered, tally.asked);
            return Err(Error::Stalled { what, after: self.options.stall });
        }
        let mut report = self.report();
        if let Some(stretch) = stretch {
            fill(&mut report, &stretch, self.confirmed, cpu);
        }
        report.senders = senders;
        report.receivers = receivers;
        report.lost = tally.expected - tally.received;
        report.doubled = tally.doubled;
        report.reordered = tally.reordered;
        engine.leave();
        Ok(report)
    }

    /// Connections that receive a channel on which nothing happens.
    fn idle(&mut self, connections: u32) -> Result<Report, Error> {
        let mut engine = Engine::new(self.payload.clone(), false, self.options.stall)?;
        // What the first connection leaves behind (a password is hashed, the program's pages are read) is not the connections'. It comes when
        // the server rests: this broker gives back what it has read so far when its start is over.
        self.at_rest(&mut engine)?;
        self.open(0..1, true)?.leave();
        let before = self.at_rest(&mut engine)?;
        self.add_idle(&mut engine, connections)?;
        let after = self.at_rest(&mut engine)?;
        let mut report = self.report();
        report.receivers = engine.connections();
        report.bytes_per_connection = before.zip(after).map(|(before, after)| {
            let grown = (after.resident as f64 - before.resident as f64) * 1024.0;
            (grown / f64::from(connections)).round()
        });
        engine.leave();
        Ok(report)
    }

    /// Round trips at a fixed rate.
    fn latency(&mut self, rate: u32) -> Result<Report, Error> {
        let mut beside = Engine::new(self.payload.clone(), false, self.options.stall)?;
        self.add_idle(&mut beside, self.options.beside)?;
        let mut sender = self.open(0..1, false)?;
        sender.settle(|_| Ok(()))?;
        let mut receiver = self.open(0..1, true)?;
        receiver.settle(|_| Ok(()))?;
        let count = |time: Duration| (time.as_secs_f64() * f64::from(rate)).round() as u64;
        let messages = self.options.messages.unwrap_or_else(|| count(self.options.seconds).max(1));
        let longest = limits::TIME.as_secs();
        if messages / u64::from(rate) > longest {
            return Err(Error::Misuse(format!(
                "{messages} messages at {rate} a second take longer than {longest} seconds"
            )));
        }
        let schedule = Schedule { rate, warm_up: count(self.options.warm_up), messages, stall: self.options.stall };
        let publication = self.wire.publication(&self.seat(0..1, false), &self.payload);
        let server = self.server.as_ref().ok();
        let mut before = None;
        let watch = &mut *self.watch;
        let total = (schedule.messages + schedule.warm_up) as f64;
        let (found, sender, receiver) = latency::run(
            sender,
            receiver,
            &publication,
            &self.payload,
            schedule,
            || before = server.and_then(Process::usage),
            |came| {
                watch(Progress { phase: "measuring", fraction: came as f64 / total });
                // Pings are answered; that an idle connection breaks does not stop the clock.
                let _ = beside.idle(Duration::from_micros(1));
            },
        )?;
        let cpu = self.cpu_since(before);
        let mut report = self.report();
        let stretch =
            Stretch { sent: messages, received: found.received, answered: 0, time: found.time, complete: true };
        fill(&mut report, &stretch, false, cpu);
        (report.senders, report.receivers) = (1, 1);
        report.lost = (schedule.messages + schedule.warm_up).saturating_sub(found.came);
        report.doubled = found.doubled;
        report.reordered = found.reordered;
        report.latency_us = Some(found.latency);
        report.sender_late_us = Some(found.lateness);
        sender.leave();
        receiver.leave();
        beside.leave();
        Ok(report)
    }

    /// Messages are stored while nobody receives, then drained, unless they are to stay.
    fn backlog(&mut self, store: Option<&Path>, leave: bool) -> Result<Report, Error> {
        let messages = self.options.messages.unwrap_or(limits::BACKLOG);
        let mut engine = self.engine()?;
        let flow = self.add_sender(&mut engine, 0..1, 0, limits::WINDOW_CONFIRMED)?;
        let before = self.usage();
        let stored = engine.run(Goal::Messages(messages), "storing", self.watch)?;
        engine.idle(limits::SETTLE)?;
        let store_phase = self.phase("store", stored.answered, &stored, before);
        if !stored.complete {
            let what = format!("{} of {messages} sends were not answered for", messages - stored.answered);
            return Err(Error::Stalled { what, after: self.options.stall });
        }
        let size_before = store.map(|path| self.file_at_rest(path, &mut engine)).transpose()?;
        let mut report = Report { messages, senders: 1, seconds: seconds(stored.time), ..Report::default() };
        let mut phases = vec![store_phase];
        if !leave {
            phases.push(self.drain(&mut engine, flow, &mut report)?);
        }
        let size_after = store.map(|path| self.file_at_rest(path, &mut engine)).transpose()?;
        report.phases = Some(phases);
        report.store_bytes = size_before.zip(size_after).map(|(before, after)| [before, after]);
        let memory = self.memory();
        report.server_rss_kib = memory.map(|memory| memory.resident);
        report.server_peak_rss_kib = memory.map(|memory| memory.peak);
        engine.leave();
        Ok(report)
    }

    /// One receiver comes and takes everything that was sent.
    fn drain(&mut self, engine: &mut Engine<W::Session>, flow: usize, report: &mut Report) -> Result<Phase, Error> {
        let before = self.usage();
        engine.expect_what_was_sent(flow);
        let receiver = self.open(0..1, true)?;
        engine.add(receiver, Post::Receiver { flow, first: 0, trackers: vec![Tracker::default()] })?;
        let drained = engine.run(Goal::Messages(0), "draining", self.watch)?;
        // The last deliveries are confirmed, and their removal is committed.
        engine.idle(limits::SETTLE)?;
        let phase = self.phase("drain", drained.received, &drained, before);
        let tally = engine.tally();
        report.receivers = 1;
        report.deliveries = drained.received;
        report.seconds = seconds(Duration::from_secs_f64(report.seconds) + drained.time);
        report.deliveries_per_second = per_second(drained.received, drained.time);
        report.server_cpu_us_per_delivery = phase.server_cpu_us_per_message;
        report.lost = tally.expected - tally.received;
        report.doubled = tally.doubled;
        report.reordered = tally.reordered;
        Ok(phase)
    }

    /// An engine with the connections that are only there.
    fn engine(&mut self) -> Result<Engine<W::Session>, Error> {
        let mut engine = Engine::new(self.payload.clone(), self.confirmed, self.options.stall)?;
        self.add_idle(&mut engine, self.options.beside)?;
        Ok(engine)
    }

    fn usage(&self) -> Option<Usage> {
        self.server.as_ref().ok()?.usage()
    }

    fn cpu_since(&self, before: Option<Usage>) -> Option<Duration> {
        Some(self.usage()?.since(&before?))
    }

    fn memory(&self) -> Option<Memory> {
        self.server.as_ref().ok()?.memory()
    }

    /// A report with what the server's memory is now.
    fn report(&self) -> Report {
        let memory = self.memory();
        Report {
            server_rss_kib: memory.map(|memory| memory.resident),
            server_peak_rss_kib: memory.map(|memory| memory.peak),
            ..Report::default()
        }
    }

    fn phase(&self, name: &'static str, count: u64, stretch: &Stretch, before: Option<Usage>) -> Phase {
        Phase {
            name,
            messages_per_second: per_second(count, stretch.time),
            server_cpu_us_per_message: self.cpu_since(before).map(|cpu| micros_each(cpu, count)),
            peak_rss_kib: self.memory().map(|memory| memory.peak),
        }
    }

    /// The server's memory when it has come to rest; what is to be answered is answered meanwhile.
    fn at_rest(&mut self, engine: &mut Engine<W::Session>) -> Result<Option<Memory>, Error> {
        at_rest(engine, self.watch, || self.server.as_ref().ok().and_then(Process::memory))
    }

    /// The size of a file when it has come to rest.
    fn file_at_rest(&mut self, path: &Path, engine: &mut Engine<W::Session>) -> Result<u64, Error> {
        let size = at_rest(engine, self.watch, || std::fs::metadata(path).ok().map(|file| file.len()))?;
        size.ok_or_else(|| Error::Misuse(format!("there is no file {} to look at (--store)", path.display())))
    }
}

/// What `look` sees when it has seen the same for [`limits::REST`], or after [`limits::RESTLESS`].
fn at_rest<S: super::wire::Session, T: PartialEq>(
    engine: &mut Engine<S>,
    watch: Watch<'_>,
    look: impl Fn() -> Option<T>,
) -> Result<Option<T>, Error> {
    let began = Instant::now();
    let (mut last, mut since) = (look(), began);
    while last.is_some() && since.elapsed() < limits::REST && began.elapsed() < limits::RESTLESS {
        engine.idle(limits::LOOK)?;
        let now = look();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        let fraction = since.elapsed().as_secs_f64() / limits::REST.as_secs_f64();
        watch(Progress { phase: "waiting for rest", fraction });
    }
    Ok(last)
}

/// Puts what a stretch came to into a report.
fn fill(report: &mut Report, stretch: &Stretch, confirmed: bool, cpu: Option<Duration>) {
    report.messages = stretch.sent;
    report.deliveries = if confirmed { stretch.answered } else { stretch.received };
    report.seconds = seconds(stretch.time);
    report.deliveries_per_second = per_second(report.deliveries, stretch.time);
    report.server_cpu_us_per_delivery =
        cpu.filter(|_| report.deliveries > 0).map(|cpu| micros_each(cpu, report.deliveries));
}

/// Seconds, to a microsecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64()).round() }
}

/// Microseconds, to a tenth of a nanosecond.
fn micros_each(time: Duration, count: u64) -> f64 {
    (time.as_secs_f64() * 1e10 / count.max(1) as f64).round() / 1e4
}
