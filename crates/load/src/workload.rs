//! The workloads: which connections are opened, what they send, and what is measured. A workload must never report a failed run as a
//! measurement.

mod opening;

use std::ops::Range;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Error;
use super::connection::Target;
use super::engine::{Engine, Goal, PhaseResult, Progress, Role, Watch};
use super::latency::{self, Schedule};
use super::open_files;
use super::options::{Options, Workload};
use super::payload::Payload;
use super::platform::Process;
use super::process::{Memory, Usage};
use super::report::{Phase, Report};
use super::tracker::Tracker;
use super::wire::{Channels, Wire};
use crate::limits;

/// Measures a workload. `watch` is called with the progress.
///
/// If the broker lost, duplicated or reordered messages, [`Report::is_sound`] of the report is false.
///
/// # Errors
/// The options cannot be measured, a connection failed, the broker refused or stalled, or the system refused a request.
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
            "{} does not confirm sends, so {} cannot be measured",
            wire.name(),
            workload.name()
        )));
    }
    let planned = connections(wire, workload, options);
    open_files::room_for(planned)?;
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
        planned,
        opened: 0,
        opening_time: Duration::ZERO,
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

/// The number of connections of a workload.
fn connections<W: Wire>(wire: &W, workload: &Workload, options: &Options) -> u64 {
    let for_workload = match workload {
        Workload::Fanout { receivers } => u64::from(*receivers) + 1,
        Workload::Pairs { pairs } => u64::from(*pairs) * 2,
        Workload::Channels { channels } => u64::from(channels.div_ceil(wire.receiver_channels().max(1))) + 1,
        Workload::Idle { connections } => u64::from(*connections),
        Workload::P2p | Workload::Latency { .. } | Workload::Confirmed | Workload::Backlog { .. } => 2,
    };
    for_workload + u64::from(options.beside)
}

/// Creates eight letters and digits that are unique to the run.
fn run_name() -> Result<String, Error> {
    let mut bytes = [0; 4];
    getrandom::fill(&mut bytes).map_err(wsmb_client::Error::NoRandomness)?;
    Ok(hex::encode(bytes))
}

/// The state of one measurement.
struct Run<'a, W> {
    wire: &'a W,
    target: &'a Target,
    options: &'a Options,
    payload: Payload,
    channels: Channels,
    confirmed: bool,
    /// The number of connections to open in all.
    planned: u64,
    /// The number of connections opened so far.
    opened: u32,
    /// The time used for opening connections so far.
    opening_time: Duration,
    /// The server's process, or why it was not found.
    server: Result<Process, String>,
    watch: Watch<'a>,
}

impl<W: Wire> Run<'_, W>
where
    W::Session: Send,
{
    /// Measures pairs of one sender and some receivers, each pair on its own channel.
    fn stream(&mut self, pairs: u32, receivers: u32, window: u32) -> Result<Report, Error> {
        let mut engine = self.engine()?;
        let uses: Vec<Range<u32>> = (0..pairs).map(|pair| pair..pair + 1).collect();
        let flows = self.add_senders(&mut engine, &uses, u64::from(receivers), window)?;
        let receiving = flows.zip(uses).flat_map(|receiver| std::iter::repeat_n(receiver, receivers as usize));
        self.add_receivers(&mut engine, receiving.collect(), |uses| uses.start)?;
        self.measure(engine, pairs as usize, pairs as usize * receivers as usize)
    }

    /// Measures one sender that sends to many channels in turn, with as many receivers as needed.
    fn many_channels(&mut self, channels: u32) -> Result<Report, Error> {
        let each = self.wire.receiver_channels().max(1);
        if each == 1 && channels > 1 {
            return Err(Error::Misuse(format!(
                "a connection of {} has one channel, so a sender cannot use many channels in turn; measure pairs instead",
                self.wire.name()
            )));
        }
        let mut engine = self.engine()?;
        let flow = self.add_sender(&mut engine, 0..channels, 1, limits::WINDOW)?;
        let firsts = (0..channels).step_by(each as usize);
        let receiving: Vec<_> = firsts.map(|first| (flow, first..channels.min(first + each))).collect();
        let receivers = receiving.len();
        self.add_receivers(&mut engine, receiving, |_| 0)?;
        self.measure(engine, 1, receivers)
    }

    /// Warms up, measures, and closes the connections.
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
        let result = if complete { Some(engine.run(goal, "measuring", self.watch)?) } else { None };
        let cpu = self.cpu_since(before);
        let tally = engine.tally();
        if self.confirmed && tally.confirmed < tally.to_confirm {
            let unconfirmed = tally.to_confirm - tally.confirmed;
            let what = format!("{unconfirmed} of {} sends were not confirmed", tally.to_confirm);
            return Err(Error::Stalled { what, after: self.options.stall });
        }
        let mut report = self.report();
        if let Some(result) = result {
            fill(&mut report, &result, self.confirmed, cpu);
        }
        report.senders = senders;
        report.receivers = receivers;
        report.lost = tally.expected - tally.received;
        report.doubled = tally.doubled;
        report.reordered = tally.reordered;
        engine.close();
        Ok(report)
    }

    /// Measures connections that receive a channel without messages.
    fn idle(&mut self, connections: u32) -> Result<Report, Error> {
        let mut engine = Engine::new(self.payload.clone(), false, self.options.stall)?;
        // The memory that the first connection adds (hashing a password, loading pages of the program) must not be attributed to the idle
        // connections. The server must be at rest before: this broker frees memory at the end of its start.
        self.when_stable(&mut engine)?;
        self.open(0..1, true)?.close();
        let before = self.when_stable(&mut engine)?;
        self.add_idle(&mut engine, connections)?;
        let after = self.when_stable(&mut engine)?;
        let mut report = self.report();
        report.receivers = engine.connections();
        report.bytes_per_connection = before.zip(after).map(|(before, after)| {
            let grown = (after.resident as f64 - before.resident as f64) * 1024.0;
            (grown / f64::from(connections)).round()
        });
        engine.close();
        Ok(report)
    }

    /// Measures latencies at a fixed rate.
    fn latency(&mut self, rate: u32) -> Result<Report, Error> {
        let mut beside = Engine::new(self.payload.clone(), false, self.options.stall)?;
        self.add_idle(&mut beside, self.options.beside)?;
        let mut sender = self.open(0..1, false)?;
        sender.wait_until_ready(|_| Ok(()))?;
        let mut receiver = self.open(0..1, true)?;
        receiver.wait_until_ready(|_| Ok(()))?;
        let count = |time: Duration| (time.as_secs_f64() * f64::from(rate)).round() as u64;
        let messages = self.options.messages.unwrap_or_else(|| count(self.options.seconds).max(1));
        let longest = limits::RUN_TIME.as_secs();
        if messages / u64::from(rate) > longest {
            return Err(Error::Misuse(format!(
                "{messages} messages at {rate} a second take longer than the maximum of {longest} seconds; lower --messages or raise the rate"
            )));
        }
        let schedule = Schedule { rate, warm_up: count(self.options.warm_up), messages, stall: self.options.stall };
        let publication = self.wire.publication(&self.plan(0..1, false), &self.payload);
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
            |arrived| {
                watch(Progress { phase: "measuring", fraction: arrived as f64 / total });
                // Answers pings. A broken idle connection does not end the measurement.
                let _ = beside.idle(Duration::from_micros(1));
            },
        )?;
        let cpu = self.cpu_since(before);
        let mut report = self.report();
        let result =
            PhaseResult { sent: messages, received: found.received, confirmed: 0, time: found.time, complete: true };
        fill(&mut report, &result, false, cpu);
        (report.senders, report.receivers) = (1, 1);
        report.lost = (schedule.messages + schedule.warm_up).saturating_sub(found.arrived);
        report.doubled = found.doubled;
        report.reordered = found.reordered;
        report.latency_us = Some(found.latency);
        report.sender_late_us = Some(found.lateness);
        sender.close();
        receiver.close();
        beside.close();
        Ok(report)
    }

    /// Measures storing messages without a receiver, and draining them, unless they should stay (`leave`).
    fn backlog(&mut self, store: Option<&Path>, leave: bool) -> Result<Report, Error> {
        let messages = self.options.messages.unwrap_or(limits::BACKLOG_MESSAGES);
        let mut engine = self.engine()?;
        let flow = self.add_sender(&mut engine, 0..1, 0, limits::WINDOW_CONFIRMED)?;
        let before = self.usage();
        let stored = engine.run(Goal::Messages(messages), "storing", self.watch)?;
        engine.idle(limits::TRAILING_WORK)?;
        let store_phase = self.phase("store", stored.confirmed, &stored, before);
        if !stored.complete {
            let what = format!("{} of {messages} sends were not confirmed", messages - stored.confirmed);
            return Err(Error::Stalled { what, after: self.options.stall });
        }
        let size_before = store.map(|path| self.file_size_when_stable(path, &mut engine)).transpose()?;
        let mut report = Report { messages, senders: 1, seconds: seconds(stored.time), ..Report::default() };
        let mut phases = vec![store_phase];
        if !leave {
            phases.push(self.drain(&mut engine, flow, &mut report)?);
        }
        let size_after = store.map(|path| self.file_size_when_stable(path, &mut engine)).transpose()?;
        report.phases = Some(phases);
        report.store_bytes = size_before.zip(size_after).map(|(before, after)| [before, after]);
        let memory = self.memory();
        report.server_rss_kib = memory.map(|memory| memory.resident);
        report.server_peak_rss_kib = memory.map(|memory| memory.peak);
        engine.close();
        Ok(report)
    }

    /// Measures one receiver that receives all stored messages.
    fn drain(&mut self, engine: &mut Engine<W::Session>, flow: usize, report: &mut Report) -> Result<Phase, Error> {
        let before = self.usage();
        engine.expect_sent_messages(flow);
        let receiver = self.open(0..1, true)?;
        engine.add(receiver, Role::Receiver { flow, first: 0, trackers: vec![Tracker::default()] })?;
        let drained = engine.run(Goal::Messages(0), "draining", self.watch)?;
        // Time for confirming the last deliveries and for committing their removal.
        engine.idle(limits::TRAILING_WORK)?;
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

    /// Creates an engine with the additional idle connections (`--beside`).
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

    /// Creates a report with the server's current memory.
    fn report(&self) -> Report {
        let memory = self.memory();
        Report {
            server_rss_kib: memory.map(|memory| memory.resident),
            server_peak_rss_kib: memory.map(|memory| memory.peak),
            ..Report::default()
        }
    }

    fn phase(&self, name: &'static str, count: u64, result: &PhaseResult, before: Option<Usage>) -> Phase {
        Phase {
            name,
            messages_per_second: per_second(count, result.time),
            server_cpu_us_per_message: self.cpu_since(before).map(|cpu| micros_each(cpu, count)),
            peak_rss_kib: self.memory().map(|memory| memory.peak),
        }
    }

    /// Waits until the server's memory is stable, and returns it.
    fn when_stable(&mut self, engine: &mut Engine<W::Session>) -> Result<Option<Memory>, Error> {
        when_stable(engine, self.watch, || self.server.as_ref().ok().and_then(Process::memory))
    }

    /// Waits until the size of a file is stable, and returns it.
    fn file_size_when_stable(&mut self, path: &Path, engine: &mut Engine<W::Session>) -> Result<u64, Error> {
        let size = when_stable(engine, self.watch, || std::fs::metadata(path).ok().map(|file| file.len()))?;
        size.ok_or_else(|| Error::Misuse(format!("cannot read the size of the file {}; check --store", path.display())))
    }
}

/// Calls `read` until its value has not changed for [`limits::STABLE_TIME`], but at most for [`limits::STABLE_TIMEOUT`]. Returns the last
/// value. The engine answers pings in between.
fn when_stable<S: super::wire::Session, T: PartialEq>(
    engine: &mut Engine<S>,
    watch: Watch<'_>,
    read: impl Fn() -> Option<T>,
) -> Result<Option<T>, Error> {
    let began = Instant::now();
    let (mut last, mut since) = (read(), began);
    while last.is_some() && since.elapsed() < limits::STABLE_TIME && began.elapsed() < limits::STABLE_TIMEOUT {
        engine.idle(limits::UPDATE_INTERVAL)?;
        let now = read();
        if now != last {
            (last, since) = (now, Instant::now());
        }
        let fraction = since.elapsed().as_secs_f64() / limits::STABLE_TIME.as_secs_f64();
        watch(Progress { phase: "waiting for stable values", fraction });
    }
    Ok(last)
}

/// Copies the result of a phase to the report.
fn fill(report: &mut Report, result: &PhaseResult, confirmed: bool, cpu: Option<Duration>) {
    report.messages = result.sent;
    report.deliveries = if confirmed { result.confirmed } else { result.received };
    report.seconds = seconds(result.time);
    report.deliveries_per_second = per_second(report.deliveries, result.time);
    report.server_cpu_us_per_delivery =
        cpu.filter(|_| report.deliveries > 0).map(|cpu| micros_each(cpu, report.deliveries));
}

/// Converts a time to seconds, rounded to a microsecond.
fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e6
}

fn per_second(count: u64, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { (count as f64 / time.as_secs_f64()).round() }
}

/// Returns the microseconds for each of `count`, rounded to a tenth of a nanosecond.
fn micros_each(time: Duration, count: u64) -> f64 {
    (time.as_secs_f64() * 1e10 / count.max(1) as f64).round() / 1e4
}
