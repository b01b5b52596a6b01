//! The promises with several event loops (`server.threads`). Consecutive connections are on different loops.

use std::process::Command;
use std::time::Instant;

use serde_json::{Value, json};

use crate::broker::{PATIENCE, Setup, THREADS};
use crate::client::Client;
use crate::raw::Head;

/// Modules whose tests depend on the threads: takeover, limits, acknowledgement, backlog, slow receivers, restarts. Not `ends`: its tests assume that the
/// broker notices an end before the next client connects, which several loops do not promise.
const PROMISES: [&str; 7] =
    ["groups::", "kept::", "manual_ack::", "publication::", "receivers::", "restart::", "slow::"];

/// Tests with the same assumption as those in `ends`.
const ONE_LOOP_ONLY: [&str; 2] =
    ["kept::each_one_shot_reader_takes_one_message", "kept::messages_of_a_vanished_receiver_return_in_their_old_order"];

#[test]
fn the_promises_hold_with_four_threads() {
    let program = std::env::current_exe().expect("this program");
    let skipped = ONE_LOOP_ONLY.iter().flat_map(|test| ["--skip", test]);
    // Two tests at a time, because the other tests run at the same time.
    let run = Command::new(program).args(PROMISES).args(skipped).arg("--test-threads=2").env(THREADS, "4").output();
    let run = run.expect("this program can be started");
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(run.status.success(), "{said}\n{}", String::from_utf8_lossy(&run.stderr));
    for module in PROMISES {
        assert!(said.contains(&format!("test {module}")), "no test of {module} has run:\n{said}");
    }
}

#[test]
#[cfg(target_os = "linux")] // Reads /proc.
fn there_are_as_many_loops_as_configured() {
    for (threads, others) in [(1, 0), (4, 3)] {
        let broker = Setup::default().server(&format!("threads = {threads}")).start();
        let count = || broker.threads().iter().filter(|name| name.starts_with("wsmb-loop-")).count();
        // A thread sets its name when it first runs.
        let deadline = Instant::now() + PATIENCE;
        while count() < others && Instant::now() < deadline {
            std::thread::yield_now();
        }
        Client::envelope(&broker).sync();
        assert_eq!(count(), others, "{:?}", broker.threads());
    }
}

/// A gateway connects again and again with the same name, on one loop after the other, and never acknowledges its last delivery.
#[test]
fn a_takeover_between_loops_gives_back_unacknowledged_deliveries_only() {
    const MESSAGES: u64 = 40;
    let mut broker = Setup::default().defaults("receivers = 1").server("threads = 4").start();
    let mut sender = Client::envelope(&broker);
    for number in 0..MESSAGES {
        sender.publish_safely("sms", &json!(number), &number.to_string());
    }
    let name = json!({"receiver": "gateway-1", "ack": "manual", "prefetch": 2});
    let numbers = |delivery: &Value| -> Vec<u64> {
        delivery["data"].as_array().expect("messages").iter().filter_map(Value::as_u64).collect()
    };
    let mut settled = Vec::new();
    let mut old: Option<(Client, Vec<u64>)> = None;
    while settled.len() < MESSAGES as usize {
        let mut new = Client::envelope_with(&broker, &Head::new("/").modern());
        new.subscribe_with("sms", &name);
        let first = new.next_delivery();
        if let Some((mut old, unanswered)) = old.take() {
            assert_eq!(old.closed(), 1008, "{}", old.trace());
            assert_eq!(numbers(&first), unanswered);
        }
        new.command(&json!({"command": "ack", "delivery": first["delivery"]}));
        // The other loop may process the takeover before this loop has processed the acknowledgement.
        new.sync();
        settled.extend(numbers(&first));
        if settled.len() < MESSAGES as usize {
            let second = numbers(&new.next_delivery());
            old = Some((new, second));
        }
    }
    assert_eq!(settled, Vec::from_iter(0..MESSAGES), "not in order, or not once each");
    sender.sync();
    assert!(broker.stop().success(), "{}", broker.log().tail());
    assert!(broker.log().text().contains("stopped; everything accepted is in the store"), "{}", broker.log().tail());
}
