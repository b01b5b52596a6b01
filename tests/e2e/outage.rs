//! A store that fails while the broker runs, or that cannot be opened: the answers to clients, live deliveries, and no loss of accepted messages.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rusqlite::Connection;
use serde_json::{Value, json};

use crate::broker::{Broker, PATIENCE, Setup};
use crate::client::Client;
use crate::legacy::Php;
use crate::lifecycle::{assert_says, refusal};

/// A text that must not get into a log.
pub const SECRET: &str = "Your code is 402913";

/// The code of the answer to a `ping` command.
#[track_caller]
pub fn ping(client: &mut Client) -> Value {
    client.command(&json!({"command": "ping"}));
    let reply = client.next_reply();
    assert_eq!(reply["command"], "connect", "{reply}");
    reply["response_code"].clone()
}

/// The code of the answer to one message with this id.
#[track_caller]
pub fn send(client: &mut Client, message: &Value, id: &str) -> Value {
    let reply = client.request("sms", message, &json!({"id": id}));
    assert_eq!(reply["id"], id, "{reply}");
    reply["response_code"].clone()
}

/// Calls `ask` until it returns `wanted`.
#[track_caller]
pub fn until(wanted: &Value, mut ask: impl FnMut() -> Value) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let got = ask();
        if got == *wanted {
            return;
        }
        assert!(Instant::now() < deadline, "still {got} instead of {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Another program's transaction, which locks the broker's file until it is dropped.
pub struct Locked(Connection);

impl Locked {
    #[track_caller]
    pub fn new(broker: &Broker) -> Self {
        let connection = Connection::open(broker.dir().join("wsmb.db")).expect("the broker's file");
        connection.busy_timeout(PATIENCE).expect("a timeout");
        connection.execute_batch("BEGIN EXCLUSIVE").expect("the lock");
        Self(connection)
    }

    fn release(self) {
        self.0.execute_batch("COMMIT").expect("released");
    }
}

/// The number of lines of the log that contain `text`.
fn lines(broker: &Broker, text: &str) -> usize {
    broker.log().text().lines().filter(|line| line.contains(text)).count()
}

#[test]
fn a_locked_store_refuses_senders_delivers_live_and_recovers_by_itself() {
    let mut broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "live");
    let mut sender = Client::envelope(&broker);
    assert_eq!(send(&mut sender, &json!(SECRET), "before"), "00");
    assert_eq!(ping(&mut sender), "00");

    let lock = Locked::new(&broker);
    for number in 0..3 {
        let refused = sender.request("sms", &json!(SECRET), &json!({"id": format!("during {number}")}));
        assert_eq!(refused["response_code"], "05", "{refused}");
    }
    assert_eq!(ping(&mut sender), "01");
    let mut first_frame = Php::connect(&broker, "/");
    first_frame.send_envelope(r#"{"command":"ping","channel":"sms"}"#);
    assert!(first_frame.message().contains(r#""response_code":"01""#));
    // The receiver confirms the message, so it needs no storage.
    sender.command(&json!({"command": "send-message", "channel": "live", "data": [1], "id": "live"}));
    assert_eq!(receiver.numbers(1), [1]);
    receiver.confirm();
    let accepted = sender.next_reply();
    assert_eq!((&accepted["response_code"], &accepted["stored"]), (&json!("00"), &json!(false)), "{accepted}");

    lock.release();
    until(&json!("00"), || ping(&mut sender));
    assert_eq!(send(&mut sender, &json!(SECRET), "after"), "00");
    assert_eq!(Client::receiver(&broker, "sms").messages(2), [json!(SECRET).to_string(), json!(SECRET).to_string()]);
    broker.assert_alive();
    broker.wait_for_log("can be written again");
    assert_eq!(lines(&broker, "messages can't be stored"), 1, "{}", broker.log().tail());
    assert_eq!(lines(&broker, "stop that program, or wait until it has finished"), 1, "{}", broker.log().tail());
    assert_eq!(lines(&broker, "can be written again"), 1, "{}", broker.log().tail());
    assert!(!broker.log().text().contains("402913"), "a message is in the log:\n{}", broker.log().tail());
}

#[test]
fn a_ping_checks_the_store_itself() {
    let broker = Broker::start();
    let mut client = Client::envelope(&broker);
    assert_eq!(ping(&mut client), "00");
    let lock = Locked::new(&broker);
    // The result of a check may be reused for this time, but not longer.
    std::thread::sleep(wsmb_store::limits::STORE_CHECK_EVERY);
    assert_eq!(ping(&mut client), "01");
    lock.release();
    until(&json!("00"), || ping(&mut client));
}

#[test]
fn a_client_that_leaves_before_the_store_answers_does_no_harm() {
    let mut broker = Broker::start();
    let lock = Locked::new(&broker);
    for _ in 0..20 {
        let mut client = Client::envelope(&broker);
        client.command(&json!({"command": "ping"}));
        client.vanish();
    }
    lock.release();
    let mut client = Client::envelope(&broker);
    until(&json!("00"), || ping(&mut client));
    broker.assert_alive();
}

#[test]
fn messages_of_a_receiver_that_vanishes_in_an_outage_are_not_lost() {
    let broker = Setup::default().store("write_delay = \"100ms\"").start();
    let mut receiver = Client::receiver(&broker, "sms").silent();
    let mut sender = Client::envelope(&broker);
    let lock = Locked::new(&broker);
    for number in 0..5 {
        sender.publish("sms", &json!(number));
    }
    assert_eq!(receiver.numbers(5), [0, 1, 2, 3, 4]);
    broker.wait_for_log("messages can't be stored");
    receiver.vanish();
    sender.sync();
    lock.release();
    until(&json!("00"), || ping(&mut sender));
    // The next attempt writes the messages; an orderly stop writes them at the latest.
    let broker = broker.stop_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(5), [0, 1, 2, 3, 4]);
}

/// A store with one message, of a broker that was stopped in an orderly way.
#[track_caller]
fn used_store() -> Arc<tempfile::TempDir> {
    let mut broker = Broker::start();
    assert_eq!(send(&mut Client::envelope(&broker), &json!(SECRET), "a"), "00");
    assert!(broker.stop().success());
    broker.shared_dir()
}

/// Overwrites a part of the broker's file with garbage.
#[track_caller]
fn damage(dir: &Path, from: u64, to: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().write(true).open(dir.join("wsmb.db")).expect("the broker's file");
    let garbage = vec![0xA5; usize::try_from(to - from).expect("a length")];
    file.write_all_at(&garbage, from).expect("written");
}

#[test]
fn a_store_with_a_damaged_header_is_named_and_not_changed() {
    let dir = used_store();
    damage(dir.path(), 0, 100);
    let before = std::fs::read(dir.path().join("wsmb.db")).unwrap();
    assert_says(&refusal(Setup::default(), dir.clone(), 0), &["wsmb.db", "damaged", "restore a backup"]);
    assert!(std::fs::read(dir.path().join("wsmb.db")).unwrap() == before, "a damaged store was changed");
}

#[test]
fn a_store_of_a_newer_version_is_named_and_not_changed() {
    let dir = used_store();
    let path = dir.path().join("wsmb.db");
    let connection = Connection::open(&path).unwrap();
    assert_eq!(connection.execute("UPDATE mq_meta SET value = 99 WHERE name = 'layout'", []).unwrap(), 1);
    drop(connection);
    let before = std::fs::read(&path).unwrap();
    assert_says(&refusal(Setup::default(), dir.clone(), 0), &["wsmb.db", "99", "start a newer version"]);
    assert!(std::fs::read(&path).unwrap() == before, "a store of a newer version was changed");
}

#[test]
fn a_path_where_no_file_can_be_created_is_named() {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    std::fs::create_dir(dir.path().join("wsmb.db")).unwrap();
    assert_says(&refusal(Setup::default(), dir.clone(), 0), &["wsmb.db", "EISDIR", "give another path"]);
    std::fs::write(dir.path().join("file"), "").unwrap();
    assert_says(
        &refusal(Setup::default().database("file/wsmb.db"), dir, 0),
        &["file/wsmb.db", "check the path in store.url"],
    );
}

#[test]
fn a_store_that_is_damaged_while_in_use_refuses_senders_until_it_is_moved_away() {
    let mut broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "live");
    let mut sender = Client::envelope(&broker);
    assert_eq!(send(&mut sender, &json!(SECRET), "before"), "00");
    {
        // Pages in the journal would hide the damage.
        let connection = Connection::open(broker.dir().join("wsmb.db")).unwrap();
        connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        let length = std::fs::metadata(broker.dir().join("wsmb.db")).unwrap().len();
        damage(&broker.dir(), 4_096, length);
        // After a write of another program, the broker reads its cached pages again.
        connection.pragma_update(None, "user_version", 1).unwrap();
    }
    assert_eq!(send(&mut sender, &json!(SECRET), "during"), "05");
    assert_eq!(ping(&mut sender), "01");
    sender.publish("live", &json!(1));
    assert_eq!(receiver.numbers(1), [1]);
    receiver.confirm();
    broker.assert_alive();
    broker.wait_for_log("damaged");
    broker.wait_for_log("--set-aside-damaged");

    for suffix in ["", "-wal", "-shm"] {
        let from = broker.dir().join(format!("wsmb.db{suffix}"));
        if from.exists() {
            std::fs::rename(from, broker.dir().join(format!("aside.db{suffix}"))).unwrap();
        }
    }
    until(&json!("00"), || ping(&mut sender));
    assert_eq!(send(&mut sender, &json!(2), "after"), "00");
    assert_eq!(lines(&broker, "can be written again"), 1, "{}", broker.log().tail());
    assert!(!broker.log().text().contains("402913"), "a message is in the log:\n{}", broker.log().tail());
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [2]);
}

#[test]
fn the_sender_learns_that_a_message_expired_before_it_was_safe() {
    let broker = Broker::start();
    let mut receiver = Client::receiver(&broker, "sms").silent();
    let mut sender = Client::envelope(&broker);
    let lock = Locked::new(&broker);
    let sent = Instant::now();
    sender.command(&json!({"command": "send-message", "channel": "sms", "data": [1], "id": "a", "ttl": 1}));
    // A delivered message is not refused when the store fails, because its receiver may still confirm it.
    assert_eq!(receiver.numbers(1), [1]);
    broker.wait_for_log("messages can't be stored");
    sender.expect_nothing_yet();
    // A fixed pause, because no event reports the end of the time to live.
    std::thread::sleep(Duration::from_millis(1_100).saturating_sub(sent.elapsed()));
    receiver.vanish();
    let reply = sender.next_reply();
    assert_eq!((&reply["response_code"], &reply["id"]), (&json!("08"), &json!("a")), "{reply}");
    lock.release();
    until(&json!("00"), || ping(&mut sender));
    Client::receiver(&broker, "sms").expect_nothing_yet();
}

#[test]
fn a_message_that_would_be_due_only_after_its_time_to_live_is_refused_at_once() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    for (delay, ttl, code) in [(2, 2, "08"), (3, 2, "08"), (1, 60, "00")] {
        let id = format!("{delay} {ttl}");
        let reply = sender.request("sms", &json!(1), &json!({"id": id, "delay": delay, "ttl": ttl}));
        assert_eq!(reply["response_code"], code, "delay {delay}, ttl {ttl}: {reply}");
    }
}

#[test]
fn an_expired_message_is_removed_from_the_store_without_a_receiver() {
    let broker = Broker::start();
    let mut sender = Client::envelope(&broker);
    let stored = |channel: &str| -> i64 {
        let file = rusqlite::Connection::open(broker.dir().join("wsmb.db")).expect("the store");
        file.busy_timeout(Duration::from_secs(20)).expect("a timeout");
        let query = "SELECT count(*) FROM mq_data WHERE channel = ?1";
        file.query_row(query, [channel], |row| row.get(0)).expect("a count")
    };
    let members = json!({"id": "short", "ttl": 1});
    assert_eq!(sender.request("short", &json!(1), &members)["response_code"], "00");
    sender.publish_safely("long", &json!(1), "long");
    assert_eq!(stored("short"), 1);
    until(&json!(0), || json!(stored("short")));
    assert_eq!(stored("long"), 1);
}
