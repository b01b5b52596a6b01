//! Orderly restarts: no message is lost or doubled, what a stop waits for, its answers, and the ids that survive it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Log, PATIENCE, Setup};
use crate::client::{Client, messages_of};
use crate::raw::{Got, Head, Raw, frame, opcode};

/// The longest time of a stop with clients that do not end their connections. A stop takes half a second; the rest is for a loaded machine.
const MAX_STOP: Duration = Duration::from_millis(2_500);

/// The kind of a receiver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Modern,
    /// With manual acknowledgement.
    Manual,
    /// Like PHP: no `wsmb.v1`, empty pongs.
    Legacy,
}

/// Connects as soon as a broker accepts the connection.
#[track_caller]
fn connect(address: SocketAddr, log: &Log, head: &Head) -> Raw {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(raw) = Raw::try_upgrade(address, log.clone(), head) {
            return raw;
        }
        assert!(Instant::now() < deadline, "no broker accepts a connection");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Sends numbers one after the other, each until it is accepted, through restarts of the broker.
fn send(address: SocketAddr, log: &Log, channel: &str, count: u64, accepted: &AtomicUsize) {
    let head = Head::new("/").modern();
    let mut raw = connect(address, log, &head);
    for number in 0..count {
        let command =
            json!({"command": "send-message", "channel": channel, "data": [number], "id": number.to_string()});
        let bytes = frame(opcode::TEXT, command.to_string().as_bytes());
        'again: loop {
            if raw.try_send(&bytes).is_ok() {
                loop {
                    match raw.next() {
                        Got::Frame(frame) if frame.opcode == opcode::TEXT && frame.text().contains("\"id\"") => {
                            assert!(frame.text().contains("\"response_code\":\"00\""), "{}", frame.text());
                            break 'again;
                        }
                        Got::Frame(frame) if frame.opcode != opcode::CLOSE => {}
                        _ => break,
                    }
                }
            }
            raw = connect(address, log, &head);
        }
        accepted.fetch_add(1, Ordering::SeqCst);
    }
}

/// The numbers in a delivery, whether the delivery is marked, and its `ack` command if it needs one.
fn delivered(text: &str) -> Option<(Vec<u64>, bool, Option<String>)> {
    let value: Value = serde_json::from_str(text).ok()?;
    if value["command"] != "send-message" || value.get("response_code").is_some() {
        return None;
    }
    let numbers = messages_of(text).iter().filter_map(|text| text.parse().ok()).collect();
    let ack = value["delivery"].as_str().map(|name| json!({"command": "ack", "delivery": name}).to_string());
    Some((numbers, value["redelivered"] == true, ack))
}

/// Receives `count` numbers through restarts of the broker. Returns each number and whether its delivery was marked.
fn receive(
    address: SocketAddr,
    log: &Log,
    channel: &str,
    kind: Kind,
    count: u64,
    done: &AtomicBool,
) -> Vec<(u64, bool)> {
    let head = if kind == Kind::Legacy { Head::new("/") } else { Head::new("/").modern() };
    let mut subscribe = json!({"command": "receive-message", "channel": channel, "data": []});
    if kind == Kind::Manual {
        subscribe["ack"] = json!("manual");
    }
    let (mut all, mut seen) = (Vec::new(), BTreeSet::<u64>::new());
    while seen.len() < count as usize && !done.load(Ordering::SeqCst) {
        let mut raw = connect(address, log, &head);
        let _ = raw.try_send(&frame(opcode::TEXT, subscribe.to_string().as_bytes()));
        loop {
            match raw.next_by(Instant::now() + Duration::from_millis(200)) {
                Got::Frame(got) if got.opcode == opcode::PING => {
                    let payload = if kind == Kind::Legacy { &[][..] } else { &got.payload };
                    let _ = raw.try_send(&frame(opcode::PONG, payload));
                }
                Got::Frame(got) if got.opcode == opcode::TEXT => {
                    let Some((numbers, marked, ack)) = delivered(got.text()) else { continue };
                    seen.extend(&numbers);
                    all.extend(numbers.into_iter().map(|number| (number, marked)));
                    if let Some(ack) = ack {
                        let _ = raw.try_send(&frame(opcode::TEXT, ack.as_bytes()));
                    }
                }
                Got::Frame(got) if got.opcode == opcode::CLOSE => break,
                Got::Fin | Got::Reset => break,
                Got::Silence if done.load(Ordering::SeqCst) || seen.len() == count as usize => break,
                Got::Frame(_) | Got::Silence => {}
            }
        }
    }
    all
}

#[test]
fn restarts_under_load_neither_lose_nor_double_messages() {
    const COUNT: u64 = 600;
    let channels = [("modern", Kind::Modern), ("manual", Kind::Manual), ("legacy", Kind::Legacy)];
    let broker = Setup::default().defaults("receivers = 1").start();
    let (address, log) = (broker.address(), broker.log());
    let mut running = Some(broker);
    let (accepted, done) = (AtomicUsize::new(0), AtomicBool::new(false));
    let received: BTreeMap<&str, Vec<(u64, bool)>> = std::thread::scope(|scope| {
        let (accepted, done, log) = (&accepted, &done, &log);
        let receiving: Vec<_> = channels
            .map(|(channel, kind)| (channel, scope.spawn(move || receive(address, log, channel, kind, COUNT, done))))
            .into_iter()
            .collect();
        let sending: Vec<_> =
            channels.map(|(channel, _)| scope.spawn(move || send(address, log, channel, COUNT, accepted))).into();
        for restart in 1..=3 {
            let deadline = Instant::now() + 3 * PATIENCE;
            while accepted.load(Ordering::SeqCst) < restart * 400 {
                assert!(Instant::now() < deadline, "no more messages are accepted\n{}", log.tail());
                std::thread::sleep(Duration::from_millis(1));
            }
            running = running.take().map(Broker::stop_and_restart);
        }
        sending.into_iter().for_each(|thread: std::thread::ScopedJoinHandle<'_, ()>| thread.join().unwrap());
        let deadline = Instant::now() + PATIENCE;
        while receiving.iter().any(|(_, thread)| !thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(10));
        }
        done.store(true, Ordering::SeqCst);
        receiving.into_iter().map(|(channel, thread)| (channel, thread.join().unwrap())).collect()
    });
    let log = running.expect("a broker").log();
    for (channel, numbers) in received {
        let mut seen = BTreeSet::new();
        let twice: Vec<u64> =
            numbers.iter().filter(|(n, marked)| !seen.insert(*n) && !marked).map(|(n, _)| *n).collect();
        assert_eq!(twice, Vec::<u64>::new(), "{channel}: delivered twice without a mark\n{}", log.tail());
        let lost: Vec<u64> = (0..COUNT).filter(|number| !seen.contains(number)).collect();
        assert_eq!(lost, Vec::<u64>::new(), "{channel}: accepted and never delivered\n{}", log.tail());
    }
}

/// Sends the same publications again; each must be a duplicate and reach no receiver.
#[track_caller]
fn assert_known(broker: &Broker, ids: &[(&str, &str)]) {
    let mut receiver = Client::receiver(broker, "live");
    let mut sender = Client::envelope(broker);
    for (channel, id) in ids {
        let reply = sender.publish_safely(channel, &json!("again"), id);
        assert_eq!(reply["duplicate"], true, "{channel} {id}: {reply}\n{}", broker.log().tail());
    }
    receiver.expect_nothing_yet();
}

/// Sends the publications of [`EACH_KIND`]: one that stays stored, one of a channel that keeps nothing, and two that are delivered and confirmed.
#[track_caller]
fn publish_of_each_kind(broker: &Broker) {
    let mut sender = Client::envelope(broker);
    sender.publish_safely("stored", &json!(1), "a");
    sender.publish_safely("live", &json!(2), "b");
    let mut receiver = Client::receiver(broker, "confirmed");
    sender.publish_safely("confirmed", &json!(3), "c");
    assert_eq!(receiver.numbers(1), [3]);
    receiver.confirm();
    receiver.leave();
    // The publication is stored, then delivered, confirmed and removed.
    sender.publish_safely("removed", &json!(4), "d");
    let mut receiver = Client::receiver(broker, "removed");
    assert_eq!(receiver.numbers(1), [4]);
    receiver.confirm();
    receiver.leave();
}

const EACH_KIND: [(&str, &str); 4] = [("stored", "a"), ("live", "b"), ("confirmed", "c"), ("removed", "d")];

#[test]
fn an_orderly_restart_forgets_no_id() {
    let broker = Setup::default().channel("live", "keep = false").start();
    publish_of_each_kind(&broker);
    let broker = broker.stop_and_restart();
    assert_known(&broker, &EACH_KIND);
    // The second start knows the ids from the file only.
    let broker = broker.stop_and_restart();
    assert_known(&broker, &EACH_KIND);
    let mut reader = Client::receiver(&broker, "stored");
    assert_eq!(reader.numbers(1), [1]);
}

#[test]
fn the_reply_to_a_duplicate_after_a_restart_says_whether_a_message_is_stored() {
    let broker = Setup::default().start();
    let batch = json!({"command": "send-message", "channel": "sms", "data": [1, 2, 3], "id": "batch"});
    let mut sender = Client::envelope(&broker);
    sender.command(&batch);
    sender.next_reply();
    let broker = broker.stop_and_restart();
    let mut sender = Client::envelope(&broker);
    let mut repeat = || {
        sender.command(&batch);
        let reply = sender.next_reply();
        assert_eq!(reply["duplicate"], true, "{reply}");
        reply["stored"].clone()
    };
    assert_eq!(repeat(), true);
    let mut receiver = Client::envelope(&broker);
    receiver.command(&json!({"command": "receive-message", "channel": "sms", "ack": "manual", "prefetch": 1}));
    for left in [true, true, false] {
        let delivery = receiver.next_delivery();
        receiver.command(&json!({"command": "ack", "delivery": delivery["delivery"]}));
        receiver.sync();
        assert_eq!(repeat(), left, "after the acknowledgement of {delivery}");
    }
}

#[test]
fn a_crash_forgets_no_id_that_is_a_second_old() {
    let broker = Setup::default().channel("live", "keep = false").start();
    publish_of_each_kind(&broker);
    let path = broker.dir().join("wsmb.db.ids");
    let deadline = Instant::now() + PATIENCE;
    while std::fs::metadata(&path).map_or(0, |file| file.len()) < 32 + 4 * 36 {
        assert!(Instant::now() < deadline, "the ids were not written\n{}", broker.log().tail());
        std::thread::sleep(Duration::from_millis(20));
    }
    let broker = broker.kill_and_restart();
    assert_known(&broker, &EACH_KIND);
}

#[test]
fn a_damaged_file_of_ids_is_only_a_warning() {
    let mut broker = Setup::default().channel("live", "keep = false").start();
    publish_of_each_kind(&broker);
    assert!(broker.stop().success());
    std::fs::write(broker.dir().join("wsmb.db.ids"), "garbage ".repeat(100)).unwrap();
    let broker = broker.kill_and_restart();
    broker.wait_for_log("the file of remembered ids: it is damaged");
    // The id of a stored message is in its row.
    assert_known(&broker, &EACH_KIND[..1]);
    Client::envelope(&broker).publish_safely("live", &json!(5), "e");
    let broker = broker.stop_and_restart();
    assert_known(&broker, &[("live", "e")]);
}

#[test]
fn deliveries_of_a_manual_receiver_are_redelivered_with_a_mark() {
    let broker = Setup::default().store("write_delay = \"1m\"").start();
    let mut receiver = Client::envelope(&broker);
    receiver.subscribe_with("sms", &json!({"ack": "manual"}));
    let mut sender = Client::envelope(&broker);
    // The first message is not written before the stop, the second is.
    sender.publish("sms", &json!(1));
    sender.publish_safely("sms", &json!(2), "a");
    for _ in 0..2 {
        assert!(receiver.next_delivery().get("redelivered").is_none());
    }
    let broker = broker.stop_and_restart();
    let mut receiver = Client::envelope(&broker);
    receiver.subscribe_with("sms", &json!({"ack": "manual"}));
    for number in [1, 2] {
        let delivery = receiver.next_delivery();
        assert_eq!((&delivery["data"][0], &delivery["redelivered"]), (&json!(number), &json!(true)), "{delivery}");
    }
}

#[test]
fn a_php_receiver_that_does_not_read_does_not_delay_the_stop() {
    let mut broker = Broker::start();
    let script = format!("{}/tests/e2e/php/half_open.php", concat!(env!("CARGO_MANIFEST_DIR"), "/../.."));
    let mut php = Command::new("php")
        .args([&script, &broker.address().port().to_string(), "sms"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("php (Debian: apt-get install php-cli)");
    Client::envelope(&broker).publish_safely("sms", &json!(1), "a");
    let mut line = String::new();
    BufReader::new(php.stdout.take().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line.trim(), "1");
    let began = Instant::now();
    assert!(broker.stop().success(), "{}", broker.log().tail());
    assert!(began.elapsed() < MAX_STOP, "the stop took {:?}\n{}", began.elapsed(), broker.log().tail());
    php.kill().unwrap();
    php.wait().unwrap();
    let broker = broker.kill_and_restart();
    assert_eq!(Client::receiver(&broker, "sms").numbers(1), [1], "an unconfirmed message is lost");
}

#[test]
fn silent_peers_do_not_delay_the_stop() {
    let mut broker = Broker::start();
    let _legacy = Raw::upgrade(&broker, &Head::new("/"));
    let _topic = Raw::upgrade(&broker, &Head::new("/?topic=sms"));
    let _modern = Client::receiver(&broker, "sms").silent();
    let _half = Raw::connect(&broker);
    let began = Instant::now();
    assert!(broker.stop().success(), "{}", broker.log().tail());
    assert!(began.elapsed() < MAX_STOP, "the stop took {:?}\n{}", began.elapsed(), broker.log().tail());
    assert!(!broker.log().text().contains("cut:"), "{}", broker.log().tail());
}

/// A client that sends pings without a pause, so that a stop waits for it as long as possible.
fn chatter(mut raw: Raw, done: &AtomicBool) {
    while !done.load(Ordering::SeqCst) && raw.try_send(&frame(opcode::PING, b"here")).is_ok() {
        let _ = raw.next_by(Instant::now() + Duration::from_millis(20));
    }
}

#[test]
fn a_client_that_connects_during_the_stop_is_asked_to_retry() {
    let mut broker = Broker::start();
    let done = AtomicBool::new(false);
    let chatty = Raw::upgrade(&broker, &Head::new("/").modern());
    std::thread::scope(|scope| {
        scope.spawn(|| chatter(chatty, &done));
        broker.signal(libc::SIGTERM);
        broker.wait_for_log("stopping");
        let (mut upgrade, mut health) = (Raw::connect(&broker), Raw::connect(&broker));
        upgrade.send(&Head::new("/").bytes());
        health.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n");
        let answer = String::from_utf8(upgrade.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(answer.contains("\r\nRetry-After: 1\r\n") && answer.ends_with("going down; try again\n"), "{answer}");
        let answer = String::from_utf8(health.rest()).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nstopping\n"), "{answer}");
        assert_eq!(broker.wait().code(), Some(0), "{}", broker.log().tail());
        done.store(true, Ordering::SeqCst);
    });
}

#[test]
fn a_client_that_connects_around_a_stop_gets_an_answer() {
    let mut broker = Broker::start();
    let (address, log) = (broker.address(), broker.log());
    let _open = Raw::upgrade(&broker, &Head::new("/"));
    let (done, refused) = (AtomicBool::new(false), AtomicUsize::new(0));
    let unanswered = std::thread::scope(|scope| {
        let requests = scope.spawn(|| {
            let mut unanswered = 0;
            while !done.load(Ordering::SeqCst) {
                match Raw::try_request(address, log.clone(), &Head::new("/").modern()) {
                    Some(head) if head.starts_with("HTTP/1.1 503 ") => drop(refused.fetch_add(1, Ordering::SeqCst)),
                    Some(head) if head.is_empty() => unanswered += 1,
                    Some(_) | None => {}
                }
            }
            unanswered
        });
        assert!(broker.stop().success(), "{}", broker.log().tail());
        done.store(true, Ordering::SeqCst);
        requests.join().unwrap()
    });
    assert!(refused.load(Ordering::SeqCst) > 0, "no client was asked to retry");
    // One client may connect between the last accept and the end of the listener.
    assert!(unanswered <= 1, "{unanswered} connected and got no answer\n{}", broker.log().tail());
}

#[test]
fn a_stop_stores_messages_in_the_sockets_and_answers_waiting_senders() {
    let mut broker = Broker::start();
    let mut waiting = Client::envelope(&broker);
    let mut leaving = Raw::upgrade(&broker, &Head::new("/"));
    let mut topic = Raw::upgrade(&broker, &Head::new("/?topic=sms"));
    // The broker is suspended, so all bytes are in the sockets when SIGTERM arrives.
    broker.signal(libc::SIGSTOP);
    for number in 0..50 {
        let command = json!({"command": "send-message", "channel": "sms", "data": [number]}).to_string();
        leaving.send_frame(opcode::BINARY, command.as_bytes());
    }
    leaving.finish();
    topic.send_text("50");
    topic.finish();
    waiting.command(&json!({"command": "send-message", "channel": "other", "data": [1], "id": "a"}));
    broker.signal(libc::SIGTERM);
    broker.signal(libc::SIGCONT);
    let reply = waiting.next_reply();
    assert_eq!((&reply["id"], &reply["response_code"]), (&json!("a"), &json!("00")), "{reply}");
    assert_eq!(waiting.closed(), 1001);
    assert_eq!(broker.wait().code(), Some(0), "{}", broker.log().tail());
    let broker = broker.kill_and_restart();
    let mut numbers = Client::receiver(&broker, "sms").numbers(51);
    numbers.sort_unstable();
    assert_eq!(numbers, (0..51).collect::<Vec<_>>());
}
