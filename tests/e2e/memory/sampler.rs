//! The broker's private memory (RssAnon of `/proc/PID/status`), sampled while a flood runs.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// The time between two samples.
const EVERY: Duration = Duration::from_millis(100);

/// Private memory in bytes; 0 if the process has ended.
pub fn private_memory(pid: u32) -> u64 {
    let process = procfs::process::Process::new(pid.cast_signed());
    let status = process.and_then(|process| process.status());
    status.ok().and_then(|status| status.rssanon).unwrap_or_default() * 1024
}

/// Samples until `over` is true; returns the highest value.
pub fn highest(pid: u32, over: &AtomicBool) -> u64 {
    let mut highest = 0;
    while !over.load(Ordering::SeqCst) {
        highest = private_memory(pid).max(highest);
        std::thread::sleep(EVERY);
    }
    highest
}

/// Waits until the memory is at most `most`, or until the time is over. Returns the last value, and the time that passed.
pub fn wait_until_at_most(pid: u32, most: u64, time: Duration) -> (u64, Duration) {
    let began = Instant::now();
    loop {
        let now = private_memory(pid);
        if now <= most || began.elapsed() >= time {
            return (now, began.elapsed());
        }
        std::thread::sleep(EVERY);
    }
}
