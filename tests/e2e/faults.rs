//! Defects, damaged files and failing disks: a defect ends the process, each fault is reported with its cause, and no damage stays unnoticed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::{Duration, Instant};

use faulty_disk::{Fault, Shim};
use serde_json::json;

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::lifecycle::{assert_says, refusal};
use crate::outage::{ping, send, until};
use crate::raw::{Head, Raw, basic};

fn directory() -> Arc<tempfile::TempDir> {
    Arc::new(tempfile::tempdir().expect("a directory"))
}

#[track_caller]
fn start_in(setup: Setup, dir: &Arc<tempfile::TempDir>) -> Broker {
    Broker::start_in(setup, dir.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"))
}

/// Sends the messages 0 to `count` - 1, which must be accepted.
#[track_caller]
fn accept(broker: &Broker, count: u64) {
    let mut sender = Client::envelope(broker);
    for number in 0..count {
        assert_eq!(send(&mut sender, &json!(number), &format!("{number}")), "00");
    }
}

/// Fails unless exactly the messages 0 to `count` - 1 wait.
#[track_caller]
fn assert_all(broker: &Broker, count: u64) {
    let mut receiver = Client::receiver(broker, "sms");
    let numbers = receiver.numbers(usize::try_from(count).expect("a count"));
    assert_eq!(numbers, (0..count).collect::<Vec<_>>(), "{}", broker.log().tail());
    receiver.expect_nothing_yet();
}

fn wsmb(broker: &Path, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsmb"));
    command.args(arguments).current_dir(broker);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("WSMB_")) {
        command.env_remove(name);
    }
    command.output().expect("the program")
}

/// Runs `wsmb check`. Returns whether it exits with 0, and its output.
fn check(dir: &Path) -> (bool, String) {
    let output = wsmb(dir, &["check", "--config", "wsmb-0.toml"]);
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Fails unless a broker that panics at `place` exits with 1 and names `part`, and the next broker has the three messages that it has accepted.
#[track_caller]
fn assert_panic_ends_process(place: &str, trigger: impl FnOnce(&Broker), part: &str) {
    let (dir, marks) = (directory(), directory());
    let mark = marks.path().join("now");
    let defect = format!("{place}:{}", mark.display());
    let mut broker = start_in(Setup::default().environment("WSMB_TEST_DEFECT", &defect), &dir);
    accept(&broker, 3);
    fs::write(&mark, "").expect("a mark");
    trigger(&broker);
    let status = broker.wait();
    assert_eq!(status.code(), Some(1), "{}", broker.log().tail());
    // The pipes may still contain lines after the process has ended.
    broker.wait_for_log("start it again");
    assert_says(&broker.log().text(), &[&format!("{part} has died of a defect"), "a defect in"]);
    drop(broker);
    assert_all(&start_in(Setup::default(), &dir), 3);
}

#[test]
fn a_panic_in_the_core_ends_the_process() {
    // A message in flight has a deadline, so the core gets a tick.
    assert_panic_ends_process(
        "core",
        |broker| {
            Client::receiver(broker, "other").silent();
            Client::envelope(broker).publish("other", &json!(1));
        },
        "the core",
    );
}

#[test]
fn a_panic_in_the_core_in_a_clients_task_ends_the_process() {
    // The task of the connecting client panics while it uses the core.
    assert_panic_ends_process(
        "register",
        |broker| {
            let _ = Raw::try_upgrade(broker.address(), broker.log(), &Head::new("/"));
        },
        "the core",
    );
}

#[test]
fn a_panic_of_the_stores_thread_ends_the_process() {
    // The store's thread panics when it writes ids, which it does before it removes a row. The row of this message is removed at once.
    assert_panic_ends_process(
        "store",
        |broker| {
            let mut sender = Client::envelope(broker);
            let _ = sender.request("other", &json!(1), &json!({"id": "other"}));
            let mut receiver = Client::receiver(broker, "other");
            assert_eq!(receiver.numbers(1), [1]);
            receiver.confirm();
        },
        "the store's thread",
    );
}

/// The response to an HTTP request.
fn http(broker: &Broker, request: &str) -> String {
    let mut raw = Raw::connect(broker);
    raw.send(format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").as_bytes());
    let response = String::from_utf8(raw.rest()).expect("text");
    // The time may differ.
    response.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: ")).collect()
}

#[test]
fn health_answers_head_like_get() {
    let broker = Broker::start();
    let (get, head) = (http(&broker, "GET /healthz"), http(&broker, "HEAD /healthz"));
    assert!(get.starts_with("HTTP/1.1 200 OK\r\n") && get.ends_with("\r\n\r\nok\n"), "{get}");
    assert_eq!(head, get.strip_suffix("ok\n").expect("a body"), "HEAD must have the same head, and no body");
}

#[test]
fn two_brokers_never_share_a_file_even_without_the_lock_file() {
    let dir = directory();
    let broker = start_in(Setup::default(), &dir);
    accept(&broker, 1);
    fs::remove_file(dir.path().join("wsmb.db.lock")).expect("removed");
    let said = refusal(Setup::default(), dir.clone(), 0);
    assert_says(&said, &["is in use by another broker (process "]);

    fs::hard_link(dir.path().join("wsmb.db"), dir.path().join("other.db")).expect("a link");
    let said = refusal(Setup::default().database("other.db"), dir.clone(), 0);
    assert_says(&said, &["other.db is in use by another broker (process "]);

    // `wsmb check` sees the broker, and `wsmb queue purge` refuses to change its store.
    let usual = ["--config", "wsmb-0.toml", "--store", "sqlite:wsmb.db"];
    let looked = wsmb(dir.path(), &[&["check"], &usual[..]].concat());
    let said = String::from_utf8_lossy(&looked.stdout);
    assert!(said.contains("a broker is running on it (process "), "{said}");
    let mut receiver = Client::receiver(&broker, "sms").silent();
    assert_eq!(receiver.numbers(1), [0]);
    let purge = wsmb(dir.path(), &[&["queue", "purge", "sms", "--yes"], &usual[..]].concat());
    assert_says(&String::from_utf8_lossy(&purge.stderr), &["is in use by a broker (process ", "stop the broker first"]);
    receiver.vanish();
    let mut next = Client::receiver(&broker, "sms");
    assert_eq!(next.numbers(1), [0], "nothing was removed");
    next.confirm();
    let mut sender = Client::envelope(&broker);
    assert_eq!(send(&mut sender, &json!(0), "later"), "00");
    assert_all(&broker.kill_and_restart(), 1);
}

#[test]
fn a_journal_that_is_removed_under_the_broker_is_noticed_and_nothing_is_lost() {
    for replacement in [None, Some("not a journal")] {
        let dir = directory();
        let broker = start_in(Setup::default(), &dir);
        accept(&broker, 129);
        let journal = dir.path().join("wsmb.db-wal");
        fs::remove_file(&journal).expect("removed");
        if let Some(text) = replacement {
            fs::write(&journal, text).expect("another file");
        }
        let removed = Instant::now();
        broker.wait_for_log("wsmb.db-wal was removed or replaced while in use");
        // The broker checks once a second; the rest is for a loaded machine.
        assert!(removed.elapsed() < Duration::from_secs(3), "{:?}", removed.elapsed());
        let broker = broker.kill_and_restart();
        assert_all(&broker, 129);
        let foreign = fs::read_dir(dir.path()).expect("a directory").flatten();
        let foreign = foreign.filter(|file| file.file_name().to_string_lossy().contains("-wal.foreign-")).count();
        assert_eq!(foreign, usize::from(replacement.is_some()), "a foreign file is kept under another name");
    }
}

#[test]
fn a_broker_continues_with_a_new_journal() {
    let dir = directory();
    let broker = start_in(Setup::default(), &dir);
    accept(&broker, 3);
    fs::remove_file(dir.path().join("wsmb.db-wal")).expect("removed");
    broker.wait_for_log("was removed or replaced while in use");
    let mut sender = Client::envelope(&broker);
    until(&json!("00"), || ping(&mut sender));
    assert_eq!(send(&mut sender, &json!(3), "later"), "00");
    assert_all(&broker.kill_and_restart(), 4);
}

#[test]
fn a_damaged_journal_is_reported_at_the_start() {
    let dir = directory();
    let mut broker = start_in(Setup::default(), &dir);
    accept(&broker, 50);
    broker.kill();
    let journal = dir.path().join("wsmb.db-wal");
    let bytes = fs::read(&journal).expect("the journal");
    fs::write(&journal, &bytes[..bytes.len() / 2]).expect("cut");

    let (well, said) = check(dir.path());
    assert!(well, "the broker would not start: {said}");
    assert_says(&said, &["wsmb.db-wal is damaged", "the last accepted messages may be lost"]);
    let broker = start_in(Setup::default(), &dir);
    // The lines come through two pipes, in any order.
    for part in ["ERROR the journal", "wsmb.db-wal is damaged", "a copy of the journal is kept as", "clean=false"] {
        broker.wait_for_log(part);
    }
    let names = fs::read_dir(dir.path()).expect("a directory").flatten().map(|file| file.path());
    let copy = names.filter(|path| path.display().to_string().contains("-wal.damaged-")).collect::<Vec<PathBuf>>();
    assert_eq!(fs::read(&copy[0]).expect("the copy"), &bytes[..bytes.len() / 2]);
    let mut receiver = Client::receiver(&broker, "sms");
    assert_eq!(receiver.next_delivery()["data"][0], 0, "the first message is lost");
}

#[test]
fn a_damaged_store_is_set_aside_with_the_option() {
    let dir = directory();
    let mut broker = start_in(Setup::default(), &dir);
    accept(&broker, 5);
    assert!(broker.stop().success());
    let main = dir.path().join("wsmb.db");
    let mut bytes = fs::read(&main).expect("the store");
    bytes[..100].fill(0xA5);
    fs::write(&main, &bytes).expect("damaged");

    let said = refusal(Setup::default(), dir.clone(), 0);
    assert_says(&said, &["wsmb.db is damaged", "restore a backup", "--set-aside-damaged"]);
    assert_eq!(fs::read(&main).expect("the store"), bytes, "the damaged store was changed");
    let (well, said) = check(dir.path());
    assert!(!well, "{said}");
    assert_says(&said, &["wsmb.db is damaged", "restore a backup", "--set-aside-damaged"]);

    let broker = start_in(Setup::default().argument("--set-aside-damaged"), &dir);
    for part in ["SET ASIDE as asked", "wsmb.db.damaged-"] {
        broker.wait_for_log(part);
    }
    let mut names: Vec<String> = fs::read_dir(dir.path())
        .expect("a directory")
        .flatten()
        .map(|file| file.file_name().to_string_lossy().into_owned())
        .collect();
    names.retain(|name| name.contains(".damaged-"));
    names.sort();
    assert!(names.len() == 2 && names[1].ends_with(".ids"), "not the store and its ids: {names:?}");
    assert_eq!(fs::read(dir.path().join(&names[0])).expect("the old store"), bytes);
    accept(&broker, 2);
    assert_all(&broker.kill_and_restart(), 2);
}

#[test]
fn each_error_of_a_disk_is_reported_with_its_cause() {
    let (dir, tools) = (directory(), directory());
    let disk = Shim::new(tools.path(), dir.path()).expect("a disk that fails");
    let mut broker = start_in(Setup::default().variables(disk.environment(false, None)), &dir);
    let mut sender = Client::envelope(&broker);
    let faults = [
        (libc::EIO, "the device that holds it fails (EIO); save a copy"),
        (libc::EDQUOT, "the quota of the broker's user is used up (EDQUOT)"),
        (libc::EROFS, "its file system is read-only (EROFS)"),
        (libc::ENOSPC, "is full; free space there"),
    ];
    for (number, (errno, sentence)) in faults.into_iter().enumerate() {
        let before = broker.log().text().len();
        disk.fail(Fault::Everything(errno)).expect("an error");
        assert_eq!(send(&mut sender, &json!("lost"), &format!("during {number}")), "05");
        broker.wait_for_log(sentence);
        let log = broker.log().text();
        assert_eq!(log[before..].contains("is full"), errno == libc::ENOSPC, "{}", &log[before..]);
        disk.fail(Fault::None).expect("no error");
        until(&json!("00"), || ping(&mut sender));
    }
    assert_eq!(send(&mut sender, &json!(0), "after"), "00");
    broker.assert_alive();
    assert_all(&broker.kill_and_restart(), 1);
}

#[test]
fn a_password_file_that_could_not_be_read_is_read_later() {
    const APP: &str = "app:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n";
    let broker = Setup::default().auth("htpasswd = [\"{dir}/users\"]").file("users", APP).start();
    // No descriptor is left, so opening a file fails.
    broker.open_no_file_from(3);
    fs::write(broker.dir().join("users"), format!("{APP}late:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n")).expect("written");
    broker.wait_for_log("users: cannot be read: Too many open files");
    broker.open_no_file_from(1_024);
    broker.wait_for_log("password files have changed");
    let head = Head::new("/").with("Authorization", &basic("late", "secret"));
    let deadline = Instant::now() + PATIENCE;
    while Raw::try_upgrade(broker.address(), broker.log(), &head).is_none() {
        assert!(Instant::now() < deadline, "the new user cannot log in\n{}", broker.log().tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    let count = broker.log().text().matches("cannot be read").count();
    assert_eq!(count, 1, "the error must be logged once");
}
