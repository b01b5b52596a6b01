//! A disk that is slower than the senders (SPEC 6.10): backpressure concerns the connections that cause the load, and nobody else.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use faulty_disk::{Fault, Shim};
use serde_json::json;

use crate::broker::{Broker, PASSWORD, PATIENCE, Setup};
use crate::client::Client;
use crate::memory::{self, flood};
use crate::raw::{Head, basic};

/// A broker whose disk takes this long for each sync.
fn slow_broker(setup: Setup, sync: Duration) -> (Broker, tempfile::TempDir) {
    let (dir, tools) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    let disk = Shim::new(tools.path(), dir.path()).expect("a disk");
    let setup = setup.variables(disk.environment(false, None));
    let broker = Broker::start_in(setup, std::sync::Arc::new(dir), 0).unwrap_or_else(|failure| panic!("{failure}"));
    disk.fail(Fault::Slow(u32::try_from(sync.as_millis()).expect("a short time"))).expect("a slow disk");
    (broker, tools)
}

#[test]
fn a_flood_into_a_channel_without_receivers_stops_nobody_else() {
    let (broker, _tools) = slow_broker(Setup::default(), Duration::from_millis(1_500));
    /// Ends the flood, also if an assertion fails.
    struct EndFlood<'a>(&'a AtomicBool);
    impl Drop for EndFlood<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Relaxed);
        }
    }
    let over = AtomicBool::new(false);
    let refused = AtomicBool::new(false);
    let slowest = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut flood = Client::envelope(&broker);
            let padding = "x".repeat(200 << 10);
            // Some 20 MiB a round: more than may wait for the store.
            for round in 0.. {
                for number in 0..100 {
                    flood.command(&json!({
                        "command": "send-message", "channel": "unattended", "data": [padding], "id": format!("{round}-{number}"),
                    }));
                }
                for _ in 0..100 {
                    refused.fetch_or(flood.next_reply()["response_code"] == "05", Ordering::Relaxed);
                }
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let _end = EndFlood(&over);
        let mut receiver = Client::receiver(&broker, "quiet");
        let mut sender = Client::envelope(&broker);
        let mut slowest = Duration::ZERO;
        let started = Instant::now();
        let mut number = 0;
        // Several commits of the flood, and at least one publication of it that has waited for as long as it may.
        while started.elapsed() < Duration::from_secs(4) || !refused.load(Ordering::Relaxed) {
            assert!(started.elapsed() < PATIENCE, "the flood is never refused");
            let sent = Instant::now();
            sender.publish("quiet", &json!(number));
            assert_eq!(receiver.numbers(1), [number]);
            receiver.confirm();
            slowest = slowest.max(sent.elapsed());
            number += 1;
        }
        slowest
    });
    println!("the slowest message took {slowest:?}");
    assert!(slowest < Duration::from_millis(750), "a message waited {slowest:?} for the flood's disk");
}

/// Each connection of the flood may send a few messages before it waits for the store, and all together send more than may wait there.
#[test]
fn a_user_with_many_connections_does_not_fill_the_stores_queue() {
    let setup = Setup::default().auth(memory::USERS).argument("--set").argument("server.memory_budget=512MiB");
    let (broker, _tools) = slow_broker(setup, Duration::from_millis(200));
    let head = Head::new("/").modern().with("Authorization", &basic(memory::QUIET, PASSWORD));
    let mut quiet = Client::envelope_with(&broker, &head);
    rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
    let counters = flood::Counters::default();
    let bytes = memory::message("unattended", &memory::text(100_000), "");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let plan = memory::repeaters(600, bytes).most(1 << 30);
            flood::run(&[plan], broker.address(), Duration::from_secs(6), &counters);
            over.store(true, Ordering::Relaxed);
        });
        let mut number = 0;
        while !over.load(Ordering::Relaxed) {
            // Each waits behind what the flood has in the queue.
            quiet.publish_safely("quiet", &json!(number), &number.to_string());
            number += 1;
        }
    });
    println!("{counters}");
    assert!(
        counters.unavailable.load(Ordering::Relaxed) > 0,
        "the flood was not refused, so it tests nothing: {counters}"
    );
}
