//! Clocks that are wrong or are set, and suspended systems: a Raspberry Pi without a battery, time services, laptops.
//!
//! libfaketime replaces the wall clock. `clock/shim.c`, which is compiled here, replaces the kernel's answers to two questions: whether a time service has set the
//! clock, and how long the system was suspended. So no test waits for time to pass.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;

const HOUR: i64 = 3_600;
const MONTH: i64 = 30 * 24 * HOUR;

/// The simulated time of a broker.
struct Time {
    dir: tempfile::TempDir,
}

impl Time {
    /// The correct time, set by a time service.
    fn new() -> Self {
        let time = Self { dir: tempfile::tempdir().unwrap() };
        time.set(0, true);
        time.suspend(0);
        let compiled = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(time.path("shim.so"))
            .arg(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")).join("tests/e2e/clock/shim.c"))
            .arg("-ldl")
            .output()
            .expect("a C compiler, which building the broker needs too");
        assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
        time
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Replaces a file atomically, so that the broker never reads a part of the text.
    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path("new"), text).unwrap();
        std::fs::rename(self.path("new"), self.path(name)).unwrap();
    }

    /// Sets the wall clock `ahead` seconds ahead of the correct time; `by_service` = whether a time service has set it.
    fn set(&self, ahead: i64, by_service: bool) {
        self.write("is_set", if by_service { "1" } else { "0" });
        self.write("ahead", &format!("{ahead:+}"));
    }

    /// Sets the total time that the system was suspended.
    fn suspend(&self, seconds: i64) {
        self.write("suspended", &seconds.to_string());
    }

    /// Gives the broker this time. The system was suspended for as long as the wall clock is ahead.
    fn apply_with_suspend(&self, setup: Setup) -> Setup {
        self.apply(setup).environment("TEST_SUSPENDED", &self.path("ahead").display().to_string())
    }

    /// Gives the broker this time.
    fn apply(&self, setup: Setup) -> Setup {
        let preload = format!("{}:{}", self.path("shim.so").display(), faketime().display());
        let path = |name: &str| self.path(name).display().to_string();
        setup
            .environment("LD_PRELOAD", &preload)
            .environment("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .environment("FAKETIME_NO_CACHE", "1")
            .environment("FAKETIME_TIMESTAMP_FILE", &path("ahead"))
            .environment("TEST_CLOCK_IS_SET", &path("is_set"))
            .environment("TEST_SUSPENDED", &path("suspended"))
    }
}

/// The library of Debian's package `libfaketime`.
fn faketime() -> PathBuf {
    let found = std::fs::read_dir("/usr/lib").unwrap().filter_map(Result::ok);
    let mut found = found.map(|entry| entry.path().join("faketime/libfaketimeMT.so.1")).filter(|path| path.exists());
    found.next().expect("libfaketime; `cargo xtask test` installs it")
}

/// The number of seconds by which the broker's time stamps are ahead of the correct time.
#[track_caller]
fn seconds_ahead(broker: &Broker) -> i64 {
    let mut client = Client::envelope(broker);
    client.command(&json!({"command": "ping", "channel": "sms"}));
    let reply = client.next_json();
    let stamp = reply["data"][0]["time_stamp"].as_str().unwrap_or_else(|| panic!("{reply}"));
    let number = |range: std::ops::Range<usize>| stamp[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // Days since 1970, with years that begin in March.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (153 * month + 2) / 5 + day - 1 - 719_468;
    let reported = days * 86_400 + number(11..13) * HOUR + number(14..16) * 60 + number(17..19);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    reported - i64::try_from(now).unwrap()
}

#[track_caller]
fn assert_ahead(broker: &Broker, wanted: i64) {
    let ahead = seconds_ahead(broker);
    assert!((ahead - wanted).abs() <= 30, "{ahead} s ahead, not {wanted}\n{}", broker.log().tail());
}

#[track_caller]
fn publish(broker: &Broker, number: u64, ttl: i64) {
    let id = format!("{number} at {:?}", broker.address());
    let reply = Client::envelope(broker).request("sms", &json!(number), &json!({"id": id, "ttl": ttl}));
    assert_eq!((&reply["response_code"], &reply["stored"]), (&json!("00"), &json!(true)), "{reply}");
}

/// Fails unless exactly these messages wait, in this order.
#[track_caller]
fn assert_left(broker: &Broker, numbers: &[u64]) {
    publish(broker, 99, 0);
    let mut receiver = Client::receiver(broker, "sms");
    assert_eq!(receiver.numbers(numbers.len() + 1), [numbers, &[99]].concat(), "{}", broker.log().tail());
    receiver.confirm();
    receiver.leave();
}

#[test]
fn a_clock_that_is_set_forward_expires_nothing_and_is_logged() {
    let time = Time::new();
    let broker = time.apply(Setup::default()).start();
    publish(&broker, 1, 10 * 60);
    assert_ahead(&broker, 0);
    time.set(8 * HOUR, true);
    broker.wait_for_log("set forward by 28800 s");
    assert_ahead(&broker, 8 * HOUR);
    publish(&broker, 2, 10 * 60);
    let broker = broker.kill_and_restart();
    publish(&broker, 3, 10 * 60);
    assert_left(&broker, &[1, 2, 3]);
}

#[test]
fn a_clock_that_is_set_back_extends_no_ttl() {
    let time = Time::new();
    let broker = time.apply(Setup::default()).start();
    publish(&broker, 1, 5 * 60);
    publish(&broker, 2, 24 * HOUR);
    time.set(-8 * HOUR, true);
    broker.wait_for_log("set back by 28800 s");
    assert_ahead(&broker, -8 * HOUR);
    publish(&broker, 3, 5 * 60);
    let broker = broker.stop_and_restart();
    time.suspend(6 * 60);
    broker.wait_for_log("suspended for 360 s");
    assert_left(&broker, &[2]);
}

#[test]
fn a_broker_that_starts_with_a_clock_in_the_past_delivers_nothing_late() {
    let time = Time::new();
    let broker = time.apply(Setup::default()).start();
    publish(&broker, 1, 5 * 60);
    publish(&broker, 2, 24 * HOUR);
    // A power cut of an hour. The clock has no battery, and there is no network yet.
    time.set(-MONTH, false);
    let broker = broker.kill_and_restart();
    broker.wait_for_log("going on from that time");
    assert_ahead(&broker, 0);
    publish(&broker, 3, 5 * 60);
    publish(&broker, 4, 24 * HOUR);
    // A time service sets the clock.
    time.set(HOUR, true);
    broker.wait_for_log("set forward by");
    assert_ahead(&broker, HOUR);
    let broker = broker.stop_and_restart();
    assert_left(&broker, &[2, 3, 4]);
}

#[test]
fn deadlines_of_messages_in_memory_are_recomputed_when_the_clock_is_set() {
    let time = Time::new();
    let broker = time.apply(Setup::default()).start();
    publish(&broker, 1, 5 * 60);
    publish(&broker, 2, 24 * HOUR);
    time.set(-MONTH, false);
    let broker = broker.kill_and_restart();
    broker.wait_for_log("going on from that time");
    // The receiver keeps the first message, so the second waits in memory.
    let mut receiver = Client::envelope(&broker).silent();
    receiver.subscribe_with("sms", &json!({"ack": "manual", "prefetch": 1}));
    assert_eq!(receiver.next_delivery()["data"], json!([1]));
    time.set(HOUR, true);
    broker.wait_for_log("set forward by");
    receiver.vanish();
    assert_left(&broker, &[2]);
}

#[test]
fn a_store_with_times_in_the_future_extends_no_ttl() {
    let time = Time::new();
    time.set(MONTH, true);
    let broker = time.apply(Setup::default()).start();
    publish(&broker, 1, 5 * 60);
    publish(&broker, 2, 24 * HOUR);
    time.set(0, true);
    let broker = broker.kill_and_restart();
    broker.wait_for_log("the clock is believed");
    assert_ahead(&broker, 0);
    publish(&broker, 3, 5 * 60);
    time.suspend(6 * 60);
    broker.wait_for_log("suspended for 360 s");
    assert_left(&broker, &[2]);
}

#[test]
fn messages_age_while_the_system_is_suspended() {
    let time = Time::new();
    let broker = time.apply_with_suspend(Setup::default()).start();
    // A receiver is connected and its window is full, so the messages wait in memory.
    let mut receiver = Client::envelope(&broker).silent();
    receiver.subscribe_with("sms", &json!({"ack": "manual", "prefetch": 1}));
    let mut sender = Client::envelope(&broker);
    for number in [1, 2, 3] {
        sender.command(&json!({"command": "send-message", "channel": "sms", "data": [number], "ttl": 100 * number}));
    }
    sender.sync();
    assert_eq!(receiver.next_delivery()["data"], json!([1]));
    time.set(250, true);
    broker.wait_for_log("suspended for 250 s");
    receiver.vanish();
    assert_left(&broker, &[3]);
    assert!(!broker.log().text().contains("clock was set"), "{}", broker.log().tail());
}
