//! Round trips at a fixed rate: sender, broker, receiver, on one clock.
//!
//! An open loop: message *n* is due at a time that was fixed before, and its latency counts from then, not from when it could be sent. So a
//! broker that stops for a while is charged for every message that was due meanwhile (what is known as coordinated omission does not happen).
//! Sender and receiver are two threads: neither waits for the other.

use std::io::{ErrorKind, Read, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::Error;
use super::connection::Opening;
use super::histogram::Histogram;
use super::payload::Payload;
use super::report::Latency;
use super::stamp::Stamp;
use super::tracker::{Arrival, Tracker};
use super::wire::{Heard, Publication, Session};
use crate::limits;

/// What is to be measured.
#[derive(Clone, Copy, Debug)]
pub(super) struct Schedule {
    /// Messages a second.
    pub(super) rate: u32,
    /// Messages that are sent first and do not count.
    pub(super) warm_up: u64,
    /// Messages that count.
    pub(super) messages: u64,
    /// When nothing has come for so long behind its time, it is lost.
    pub(super) stall: Duration,
}

impl Schedule {
    /// When a message is due after the beginning.
    fn due(&self, number: u64) -> Duration {
        Duration::from_secs_f64(number as f64 / f64::from(self.rate))
    }

    fn total(&self) -> u64 {
        self.warm_up + self.messages
    }
}

/// What was found.
#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) latency: Latency,
    /// How late messages were sent: not the broker's fault unless its socket was full.
    pub(super) lateness: Latency,
    /// Messages that counted and came.
    pub(super) received: u64,
    /// All that came, once each.
    pub(super) came: u64,
    pub(super) doubled: u64,
    pub(super) reordered: u64,
    /// From the first message that counts to the last that came.
    pub(super) time: Duration,
}

/// Runs the schedule. `counting` is called when the warm-up is over, `watch` with the messages received so far, some times a second.
///
/// # Errors
/// A connection broke, or the broker takes no more.
pub(super) fn run<S: Session + Send>(
    sender: Opening<S>,
    mut receiver: Opening<S>,
    publication: &Publication,
    payload: &Payload,
    schedule: Schedule,
    mut counting: impl FnMut(),
    mut watch: impl FnMut(u64),
) -> Result<(Found, Opening<S>, Opening<S>), Error> {
    // A little in the future, so that both threads are there.
    let began = Instant::now() + limits::LOOK;
    let stop = Arc::new(AtomicBool::new(false));
    let (heard, sent) = std::thread::scope(|scope| {
        let (ended, stamp) = (stop.clone(), Stamp::new(publication));
        let sending = scope.spawn(move || {
            let result = send(sender, &stamp, schedule, began, &ended);
            if result.is_err() {
                ended.store(true, Ordering::Relaxed);
            }
            result
        });
        let heard = receive(&mut receiver, payload, schedule, began, &stop, &mut counting, &mut watch);
        stop.store(true, Ordering::Relaxed);
        let sent = sending.join();
        (heard, sent)
    });
    // The receiver's reason first: a sender that is told to stop has none.
    let mut found = heard?;
    let (lateness, sender) = match sent {
        Ok(result) => result?,
        Err(panic) => std::panic::resume_unwind(panic),
    };
    found.lateness = lateness.latency();
    Ok((found, sender, receiver))
}

/// Sends every message when it is due, until it has sent all or `stop` is set.
fn send<S: Session>(
    mut sender: Opening<S>,
    stamp: &Stamp,
    schedule: Schedule,
    began: Instant,
    stop: &AtomicBool,
) -> Result<(Histogram, Opening<S>), Error> {
    sender.stream.set_nonblocking(true).map_err(|error| sender.line.lost(Some(error)))?;
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
        stamp.append(&mut sender.line.out, number, 0);
        write(&mut sender, stop)?;
        listen(&mut sender)?;
    }
    sender.stream.set_nonblocking(false).map_err(|error| sender.line.lost(Some(error)))?;
    Ok((lateness, sender))
}

/// Systems wake late: the last bit is waited for without sleeping.
fn wait_until(due: Instant) {
    let left = due.saturating_duration_since(Instant::now());
    if let Some(sleep) = left.checked_sub(limits::SPIN) {
        std::thread::sleep(sleep);
    }
    while Instant::now() < due {
        std::hint::spin_loop();
    }
}

/// Writes what is to be written, however long the broker does not take it; it gives up when the receiver has.
fn write<S: Session>(sender: &mut Opening<S>, stop: &AtomicBool) -> Result<(), Error> {
    let mut written = 0;
    while written < sender.line.out.len() && !stop.load(Ordering::Relaxed) {
        match sender.stream.write(&sender.line.out[written..]) {
            Ok(count) => written += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => std::thread::sleep(limits::SPIN),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(sender.line.lost(Some(error))),
        }
    }
    sender.line.out.clear();
    Ok(())
}

/// Reads what there is for the sender: pings, and the reason if it is thrown out.
fn listen<S: Session>(sender: &mut Opening<S>) -> Result<(), Error> {
    let mut buffer = [0; wsmb_protocol::limits::UPGRADE_REPLY];
    match sender.stream.read(&mut buffer) {
        Ok(0) => Err(sender.line.lost(None)),
        Ok(count) => sender.line.take(&buffer[..count], |_| Ok(())),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => Ok(()),
        Err(error) => Err(sender.line.lost(Some(error))),
    }
}

/// Takes the time of every message until all have come, or none has come for [`Schedule::stall`] behind its time.
fn receive<S: Session>(
    receiver: &mut Opening<S>,
    payload: &Payload,
    schedule: Schedule,
    began: Instant,
    stop: &AtomicBool,
    counting: &mut impl FnMut(),
    watch: &mut impl FnMut(u64),
) -> Result<Found, Error> {
    let timeout = receiver.stream.set_read_timeout(Some(limits::LOOK));
    timeout.map_err(|error| receiver.line.lost(Some(error)))?;
    let mut buffer = vec![0; limits::READ];
    let mut histogram = Histogram::new();
    let mut found = Found {
        latency: Latency::default(),
        lateness: Latency::default(),
        received: 0,
        came: 0,
        doubled: 0,
        reordered: 0,
        time: Duration::ZERO,
    };
    let mut tracker = Tracker::default();
    let (mut last, mut looked) = (began, began);
    let mut is_counting = false;
    while found.came < schedule.total() && !stop.load(Ordering::Relaxed) {
        if let Some(count) = read(receiver, &mut buffer)? {
            let now = Instant::now();
            last = now;
            receiver.line.take(&buffer[..count], |heard| {
                let Heard::Delivery(message) = heard else { return Ok(()) };
                let number = payload.number_of(message).filter(|number| *number < schedule.total());
                let number = number.ok_or_else(|| Error::NotUnderstood("a message that was not sent".to_owned()))?;
                match tracker.note(number) {
                    Arrival::InOrder => {}
                    Arrival::Late => found.reordered += 1,
                    Arrival::Again => {
                        found.doubled += 1;
                        return Ok(());
                    }
                }
                found.came += 1;
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
        if !is_counting && found.came >= schedule.warm_up {
            is_counting = true;
            counting();
        }
        if looked.elapsed() >= limits::LOOK {
            looked = Instant::now();
            watch(found.came);
        }
    }
    found.latency = histogram.latency();
    found.time = last.saturating_duration_since(began + schedule.due(schedule.warm_up));
    Ok(found)
}

/// Reads once; `None` if nothing came for a moment.
fn read<S: Session>(receiver: &mut Opening<S>, buffer: &mut [u8]) -> Result<Option<usize>, Error> {
    match receiver.stream.read(buffer) {
        Ok(0) => Err(receiver.line.lost(None)),
        Ok(count) => Ok(Some(count)),
        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted) => {
            Ok(None)
        }
        Err(error) => Err(receiver.line.lost(Some(error))),
    }
}
