//! Measures latencies from the sender through the broker to the receiver at a fixed rate, with one clock.
//!
//! The schedule is an open loop: the time of message *n* is fixed in advance, and its latency counts from that time, not from the time of
//! the actual send. So a pause of the broker counts for every message that was due in the pause (no coordinated omission). Sender and
//! receiver are two threads, which must never wait for each other.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;
use super::connection::BlockingConnection;
use super::frame_template::FrameTemplate;
use super::histogram::Histogram;
use super::payload::Payload;
use super::report::Latency;
use super::tracker::{Arrival, Tracker};
use super::wire::{Publication, Session, SessionEvent};
use crate::limits;

/// When the messages are sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Messages a second.
    pub(super) rate: u32,
    /// The messages sent first, which are not measured.
    pub(super) warm_up: u64,
    /// The measured messages.
    pub(super) messages: u64,
    /// Missing messages count as lost when nothing has arrived for this long after the due time.
    pub(super) stall: Duration,
}

impl Schedule {
    /// The time of a message after the start.
    fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }

    fn total(&self) -> u64 {
        self.warm_up + self.messages
    }
}

/// The result of a latency run.
#[derive(Clone, Debug)]
pub(super) struct LatencyResult {
    pub(super) latency: Latency,
    /// How late the messages were sent: caused by the generator unless the broker's socket was full.
    pub(super) lateness: Latency,
    /// The measured messages that arrived.
    pub(super) received: u64,
    /// All messages that arrived, without duplicates.
    pub(super) arrived: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// From the due time of the first measured message to the last arrival.
    pub(super) time: Duration,
}

/// Runs the schedule. Calls `on_measuring` at the end of the warm-up, and `watch` about ten times a second with the number of messages
/// that have arrived.
///
/// # Errors
/// A connection broke, the broker ended it, or a message arrived that was not sent.
pub(super) fn run<S: Session + Send>(
    sender: BlockingConnection<S>,
    mut receiver: BlockingConnection<S>,
    publication: &Publication,
    payload: &Payload,
    schedule: Schedule,
    mut on_measuring: impl FnMut(),
    mut watch: impl FnMut(u64),
) -> Result<(LatencyResult, BlockingConnection<S>, BlockingConnection<S>), Error> {
    // Slightly in the future, so that both threads are running by then.
    let began = Instant::now() + limits::UPDATE_INTERVAL;
    let stop = Arc::new(AtomicBool::new(false));
    let (received, sent) = std::thread::scope(|scope| {
        let (ended, template) = (stop.clone(), FrameTemplate::new(publication));
        let sending = scope.spawn(move || {
            let result = send(sender, &template, schedule, began, &ended);
            if result.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            result
        });
        let received = receive(&mut receiver, payload, schedule, began, &stop, &mut on_measuring, &mut watch);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join();
        (received, sent)
    });
    // The receiver's error first: a sender that was stopped has none.
    let mut found = received?;
    let (lateness, sender) = match sent {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    found.lateness = lateness.latency();
    Ok((found, sender, receiver))
}

/// Sends each message at its time, until all are sent or `stop` is set.
fn send<S: Session>(
    mut sender: BlockingConnection<S>,
    template: &FrameTemplate,
    schedule: Schedule,
    began: Instant,
    stop: &AtomicBool,
) -> Result<(Histogram, BlockingConnection<S>), Error> {
    sender.stream.tcp().set_nonblocking(true).map_err(|error| sender.state.lost(Some(error)))?;
    let mut lateness = Histogram::new();
    for number in 0..schedule.total() {
        let due = began + schedule.due(number);
        wait_until(due);
        if stop.load(Ordering::Relaxed) {
            break;
        }
        if number >= schedule.warm_up {
            lateness.record(Instant::now().saturating_duration_since(due));
        }
        template.append(&mut sender.state.out, number, 0);
        write(&mut sender, stop)?;
        read_sender(&mut sender)?;
    }
    sender.stream.tcp().set_nonblocking(false).map_err(|error| sender.state.lost(Some(error)))?;
    Ok((lateness, sender))
}

/// Sleeps, and spins for the last [`limits::SPIN_TIME`], because systems wake a thread late.
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if let Some(sleep) = left.checked_sub(limits::SPIN_TIME) {
        std::thread::sleep(sleep);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// Writes the queued bytes. Waits as long as the socket is full, until `stop` is set.
fn write<S: Session>(sender: &mut BlockingConnection<S>, stop: &AtomicBool) -> Result<(), Error> {
    let mut written = 0;
    while written < sender.state.out.len() && !stop.load(Ordering::Relaxed) {
        match sender.stream.write(&sender.state.out[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(limits::SPIN_TIME),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(sender.state.lost(Some(error))),
        }
    }
    sender.state.out.clear();
    Ok(())
}

/// Reads without blocking from the sender's connection: pings, and the close frame if the broker ends it.
fn read_sender<S: Session>(sender: &mut BlockingConnection<S>) -> Result<(), Error> {
    let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
    match sender.stream.read(&mut buffer) {
        Ok(0) => Err(sender.state.lost(None)),
        Ok(count) => sender.state.handle_input(&buffer[..count], |_| Ok(())),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        Err(error) => Err(sender.state.lost(Some(error))),
    }
}

/// Records the latency of every message until all have arrived, or none has arrived for [`Schedule::stall`] after its time.
fn receive<S: Session>(
    receiver: &mut BlockingConnection<S>,
    payload: &Payload,
    schedule: Schedule,
    began: Instant,
    stop: &AtomicBool,
    on_measuring: &mut impl FnMut(),
    watch: &mut impl FnMut(u64),
) -> Result<LatencyResult, Error> {
    let timeout = receiver.stream.tcp().set_read_timeout(Some(limits::UPDATE_INTERVAL));
    timeout.map_err(|error| receiver.state.lost(Some(error)))?;
    let mut buffer = vec![0; limits::READ_BYTES];
    let mut histogram = Histogram::new();
    let mut found = LatencyResult {
        latency: Latency::default(),
        lateness: Latency::default(),
        received: 0,
        arrived: 0,
        doubled: 0,
        reordered: 0,
        time: Duration::ZERO,
    };
    let mut tracker = Tracker::default();
    let (mut last, mut last_report) = (began, began);
    let mut is_measuring = false;
    while found.arrived < schedule.total() && !stop.load(Ordering::Relaxed) {
        if let Some(count) = read(receiver, &mut buffer)? {
            let now = Instant::now();
            last = now;
            receiver.state.handle_input(&buffer[..count], |event| {
                let SessionEvent::Delivery(message) = event else { return Ok(()) };
                let number = payload.number_of(message).filter(|number| *number < schedule.total());
                let number = number.ok_or_else(|| Error::NotUnderstood("a message that was not sent".to_owned()))?;
                match tracker.record(number) {
                    Arrival::InOrder => {}
                    Arrival::Late => found.reordered += 1,
                    Arrival::Duplicate => {
                        found.doubled += 1;
                        return Ok(());
                    }
                }
                found.arrived += 1;
                if number >= schedule.warm_up {
                    found.received += 1;
                    histogram.record(now.saturating_duration_since(began + schedule.due(number)));
                }
                Ok(())
            })?;
            receiver.write()?;
        } else if last.elapsed() >= schedule.stall + schedule.due(1) {
            break;
        }
        if !is_measuring && found.arrived >= schedule.warm_up {
            is_measuring = true;
            on_measuring();
        }
        if last_report.elapsed() >= limits::UPDATE_INTERVAL {
            last_report = Instant::now();
            watch(found.arrived);
        }
    }
    found.latency = histogram.latency();
    found.time = last.saturating_duration_since(began + schedule.due(schedule.warm_up));
    Ok(found)
}

/// Reads once. `None` if nothing arrived within the socket's timeout.
fn read<S: Session>(receiver: &mut BlockingConnection<S>, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
    match receiver.stream.read(buffer) {
        Ok(0) => Err(receiver.state.lost(None)),
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(receiver.state.lost(Some(error))),
    }
}
