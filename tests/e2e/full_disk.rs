//! A store on a full disk, and a store that is read-only: on a small file system if mounting is permitted, otherwise with a limit of file sizes.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::json;

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::lifecycle::{assert_says, refusal};
use crate::outage::{SECRET, ping, send, until};

/// A directory for a store, on a small file system of its own if mounting is permitted.
struct SmallDisk {
    dir: PathBuf,
    mounted: bool,
}

impl SmallDisk {
    /// The size in bytes.
    const SIZE: usize = 2 << 20;

    /// Creates the directory `small` in `dir`, and mounts a file system on it if that is permitted.
    fn new(dir: &Path) -> Self {
        let dir = dir.join("small");
        std::fs::create_dir(&dir).expect("a directory");
        let size = format!("size={}", Self::SIZE);
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "wsmb-test"]).arg(&dir).output();
        let mounted = mount.is_ok_and(|output| output.status.success());
        println!(
            "the full disk is {}",
            if mounted { "a tmpfs" } else { "a limit of pages: mounting is not permitted" }
        );
        Self { dir, mounted }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        if self.mounted {
            // A lazy unmount, because the broker may not have ended yet.
            let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        }
    }
}

/// Sends until the store is full, and returns the accepted numbers.
#[track_caller]
fn fill(sender: &mut Client, from: u64) -> Vec<u64> {
    fill_until(sender, from, &["05", "06"])
}

/// As [`fill`], until one of these codes comes.
#[track_caller]
fn fill_until(sender: &mut Client, from: u64, codes: &[&str]) -> Vec<u64> {
    let padding = "x".repeat(8 << 10);
    let mut accepted = Vec::new();
    for number in from..from + 1_000 {
        match send(sender, &json!([number, padding]), &format!("fill {number}")).as_str() {
            Some("00") => accepted.push(number),
            Some(code) if codes.contains(&code) => return accepted,
            other => panic!("message {number} is answered {other:?}"),
        }
    }
    panic!("1,000 messages of {} bytes were accepted on a disk of {} bytes", padding.len(), SmallDisk::SIZE);
}

/// Receives `count` messages and returns the number in each.
#[track_caller]
fn drain(receiver: &mut Client, count: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    while numbers.len() < count {
        let delivery = receiver.next_delivery();
        let messages = delivery["data"].as_array().expect("a list");
        numbers.extend(messages.iter().map(|message| message[0].as_u64().expect("a number")));
    }
    numbers
}

/// Fills the store, drains it, and fills it again.
#[track_caller]
fn fill_and_drain(broker: &mut Broker, codes: &[&str]) {
    let mut sender = Client::envelope(broker);
    let accepted = fill_until(&mut sender, 0, codes);
    assert!(!accepted.is_empty(), "nothing was accepted");
    until(&json!("01"), || ping(&mut sender));
    broker.assert_alive();
    broker.wait_for_log("messages can't be stored");

    let mut receiver = Client::receiver(broker, "sms");
    assert_eq!(drain(&mut receiver, accepted.len()), accepted);
    receiver.confirm();
    receiver.leave();
    until(&json!("00"), || ping(&mut sender));
    let again = fill_until(&mut sender, 10_000, codes);
    assert!(again.len() >= accepted.len() / 2, "{} were accepted, and then only {}", accepted.len(), again.len());
    assert_eq!(drain(&mut Client::receiver(broker, "sms"), again.len()), again);
    broker.assert_alive();
    assert!(!broker.log().text().contains("xxxx"), "a message is in the log:\n{}", broker.log().tail());
}

#[test]
fn a_full_disk_refuses_senders_loses_nothing_and_recovers_when_the_backlog_is_drained() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let disk = SmallDisk::new(dir.path());
    // Without the limit, the broker would leave a reserve on the disk.
    let setup = Setup::default().database("small/wsmb.db").store("max_size = \"1 TiB\"");
    let mut broker = if disk.mounted {
        Broker::start_in(setup, dir.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"))
    } else {
        start_limited(setup, dir.clone())
    };
    fill_and_drain(&mut broker, &["05", "06"]);
}

#[test]
fn senders_are_refused_before_the_disk_is_full() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let disk = SmallDisk::new(dir.path());
    if !disk.mounted {
        // A limit of a process is no free space of a disk.
        return;
    }
    let setup = Setup::default().database("small/wsmb.db");
    let mut broker = Broker::start_in(setup, dir.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"));
    fill_and_drain(&mut broker, &["06"]);
    broker.wait_for_log("a reserve that the broker leaves free");
}

#[test]
fn a_store_of_its_maximum_size_refuses_senders_and_recovers_when_the_backlog_is_drained() {
    let mut broker = Setup::default().store("max_size = \"1 MiB\"").start();
    fill_and_drain(&mut broker, &["06"]);
    broker.wait_for_log("has reached its size limit");
}

/// Starts a broker whose files cannot grow beyond [`SmallDisk::SIZE`].
#[track_caller]
fn start_limited(setup: Setup, dir: Arc<tempfile::TempDir>) -> Broker {
    // SAFETY: ignoring a signal runs no code. The broker inherits it, so a write beyond the limit returns an error instead of ending the process.
    unsafe { libc::signal(libc::SIGXFSZ, libc::SIG_IGN) };
    let broker = Broker::start_in(setup, dir, 0).unwrap_or_else(|failure| panic!("{failure}"));
    broker.limit_files(Some(SmallDisk::SIZE as u64));
    broker
}

#[test]
fn a_limit_of_file_sizes_refuses_senders_and_loses_nothing() {
    let mut broker = start_limited(Setup::default(), Arc::new(tempfile::tempdir().unwrap()));
    let mut sender = Client::envelope(&broker);
    let accepted = fill(&mut sender, 0);
    until(&json!("01"), || ping(&mut sender));
    broker.limit_files(None);
    until(&json!("00"), || ping(&mut sender));
    assert_eq!(send(&mut sender, &json!([accepted.len(), ""]), "after"), "00");
    let received = drain(&mut Client::receiver(&broker, "sms"), accepted.len() + 1);
    assert_eq!(received, (0..=accepted.len() as u64).collect::<Vec<_>>());
    broker.assert_alive();
}

/// Puts two messages in flight to a receiver that does not confirm them, while the store cannot be written.
#[track_caller]
fn hold_two(broker: &Broker, sender: &mut Client) -> Client {
    let mut receiver = Client::envelope(broker);
    receiver.subscribe_with("held", &json!({"ack": "manual", "prefetch": 2}));
    for number in 1..=2 {
        sender.publish("held", &json!(number));
        assert_eq!(receiver.next_delivery()["data"], json!([number]));
    }
    broker.wait_for_log("messages can't be stored");
    receiver
}

/// Stops the broker, which must exit with 1 and log `sentence`.
#[track_caller]
fn assert_lost(broker: &mut Broker, sentence: &str) {
    let status = broker.stop();
    assert_eq!(status.code(), Some(1), "{}", broker.log().tail());
    assert_says(&broker.log().text(), &[sentence]);
}

#[test]
fn a_stop_that_loses_messages_says_how_many_and_fails() {
    let mut broker = start_limited(Setup::default(), Arc::new(tempfile::tempdir().unwrap()));
    let mut sender = Client::envelope(&broker);
    broker.limit_files(Some(4 << 10));
    let _receiver = hold_two(&broker, &mut sender);
    assert_lost(&mut broker, "the store did not take everything: 2 messages were lost");

    let mut broker = Broker::start();
    let lock = crate::outage::Locked::new(&broker);
    let mut sender = Client::envelope(&broker);
    let _receiver = hold_two(&broker, &mut sender);
    assert_lost(&mut broker, "2 messages were lost, which no sender was told to be safe: another program has locked");
    drop(lock);
}

#[test]
fn a_store_that_is_read_only_is_named() {
    // Permission bits do not restrict root, so for root the file system itself must be read-only.
    let dir = Arc::new(tempfile::tempdir().unwrap());
    let disk = SmallDisk::new(dir.path());
    let setup = Setup::default().database("small/wsmb.db");
    {
        let mut broker = Broker::start_in(setup.clone(), dir.clone(), 0).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(send(&mut Client::envelope(&broker), &json!(SECRET), "a"), "00");
        assert!(broker.stop().success());
    }
    // SAFETY: `geteuid` takes nothing, touches nothing and never fails.
    let root = unsafe { libc::geteuid() } == 0;
    if disk.mounted {
        let remount = Command::new("mount").args(["-o", "remount,ro"]).arg(&disk.dir).status().expect("mount");
        assert!(remount.success());
        assert_says(&refusal(setup, dir, 0), &["small/wsmb.db", "EROFS", "mount it writable again"]);
    } else if root {
        println!("mounting is not permitted: the test uses a directory that refuses every file");
        assert_says(
            &refusal(Setup::default().database("/proc/wsmb.db"), dir, 0),
            &["/proc/wsmb.db", "check the path in store.url"],
        );
    } else {
        use std::os::unix::fs::PermissionsExt;
        let mode = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        for file in ["wsmb.db", "wsmb.db.lock"] {
            mode(&disk.dir.join(file), 0o444);
        }
        mode(&disk.dir, 0o555);
        let said = refusal(setup, dir, 0);
        mode(&disk.dir, 0o755);
        assert_says(&said, &["small/wsmb.db", "EACCES", "chown"]);
    }
}
