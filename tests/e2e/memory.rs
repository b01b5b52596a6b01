//! `server.memory_budget`: memory is bounded whatever clients do (SPEC 6, "Memory is bounded by one number").
//!
//! Each test floods a broker of its own, as one user. Meanwhile a sampler reads the broker's private memory, and a quiet pair of another
//! user exchanges a kept message every 50 ms. Afterwards the memory must be given back, and the broker must stop in an orderly way.
//!
//! A flood takes 3 s. `WSMB_FLOOD_SECONDS=60 cargo test --release --test e2e memory:: -- --nocapture --test-threads 1` runs each for a
//! minute, and prints a line with its figures.

pub mod flood;
mod quiet;
mod sampler;

use std::panic::resume_unwind;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::broker::{Broker, PASSWORD, PATIENCE, Setup};
use crate::client::Client;
use crate::raw::{Head, Length, basic, frame, frame_with, opcode};
use flood::{Bytes, Counters, Door, Plan};
use quiet::Pair;

/// The user of every flood, and the user of the quiet pair.
pub const FLOOD: &str = "flood";
pub const QUIET: &str = "quiet";
pub const USERS: &str =
    "htpasswd = []\nusers = [\"flood:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\", \"quiet:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\"]";

const MIB: u64 = 1 << 20;

/// `server.memory_budget` of these brokers: the smallest default.
const BUDGET: &str = "server.memory_budget=64MiB";
/// The most private memory: the budget, and the 30 MiB of SPEC 6.
const MOST: u64 = (64 + 30) * MIB;
/// After the flood, the memory may exceed what it was before by this much: what the allocator keeps.
const REMAINS: u64 = 16 * MIB;
/// The time in which the broker must give its memory back.
const RECOVERY: Duration = Duration::from_secs(10);

/// The longest time of a quiet message, at the 99th percentile. 250 ms is the goal of the optimised broker on a machine that does nothing
/// else (SPEC 6.10). A debug build interprets frames ten times more slowly and shares its cores with the clients of the flood and with other
/// tests, and in 3 s the percentile is the slowest of 60 messages. So a debug build only has to deliver each message before the usual
/// deadline of a test.
const QUIET_P99: Duration = if cfg!(debug_assertions) { PATIENCE } else { Duration::from_millis(250) };

/// The open files that this process needs at least: the largest flood, and another one beside it.
const FILES: u64 = 4_000;

const MASK: Option<[u8; 4]> = Some([0x37, 0xfa, 0x21, 0x3d]);

/// How long each flood lasts.
fn flood_time() -> Duration {
    let seconds = std::env::var("WSMB_FLOOD_SECONDS").ok().map(|text| text.parse().expect("WSMB_FLOOD_SECONDS"));
    Duration::from_secs(seconds.unwrap_or(3))
}

fn setup() -> Setup {
    setup_with(BUDGET)
}

fn setup_with(budget: &'static str) -> Setup {
    Setup::default().auth(USERS).argument("--set").argument(budget)
}

/// Floods this broker, and fails if it breaks a promise.
#[track_caller]
fn endure(name: &str, broker: Broker, plans: &[Plan]) {
    let _ = endure_with(name, broker, plans, REMAINS);
}

/// As [`endure`]. Messages of the flood stay in memory after it: they are delayed, or their channels exist as long as they wait.
#[track_caller]
fn endure_what_stays(name: &str, broker: Broker, plans: &[Plan]) {
    let _ = endure_with(name, broker, plans, MOST);
}

/// Returns the number of connections that the broker has ended or refused. `remains`: the memory that may be in use afterwards.
#[track_caller]
fn endure_with(name: &str, mut broker: Broker, plans: &[Plan], remains: u64) -> u64 {
    let files = rlimit::increase_nofile_limit(u64::MAX).expect("the limit of open files");
    assert!(files >= FILES, "this process may open {files} files, and needs {FILES}: raise `ulimit -Hn`");
    let mut pair = Pair::connect(&broker);
    let pid = broker.id();
    let before = sampler::private_memory(pid);
    let counters = Counters::default();
    let (flood_over, all_over) = (AtomicBool::new(false), AtomicBool::new(false));
    let (highest, mut quiet, after, recovery) = std::thread::scope(|scope| {
        let sampler = scope.spawn(|| sampler::highest(pid, &all_over));
        let quiet = scope.spawn(|| pair.run(&flood_over));
        flood::run(plans, broker.address(), flood_time(), &counters);
        flood_over.store(true, Ordering::SeqCst);
        let (after, recovery) = sampler::wait_until_at_most(pid, before + remains, RECOVERY);
        let quiet = quiet.join();
        all_over.store(true, Ordering::SeqCst);
        let highest = sampler.join().unwrap_or_else(|panic| resume_unwind(panic));
        (highest, quiet.unwrap_or_else(|panic| resume_unwind(panic)), after, recovery)
    });
    broker.assert_alive();
    let (delivery, reply) = (quiet::p99(&mut quiet.delivery), quiet::p99(&mut quiet.reply));
    let half = quiet.delivery.get(quiet.delivery.len() / 2).copied().unwrap_or_default();
    let figures = format!(
        "{name}: private memory {} MiB before, {} MiB at most, {} MiB {recovery:.1?} after; {} quiet messages, half of them within {half:.1?}, p99 \
         {delivery:.0?} to the delivery and {reply:.0?} to the answer; sent {counters}",
        before / MIB,
        highest / MIB,
        after / MIB,
        quiet.messages
    );
    let mut faults = quiet.faults;
    if highest > MOST {
        faults.push(format!("more than {} MiB of private memory", MOST / MIB));
    }
    if delivery.max(reply) > QUIET_P99 {
        faults.push(format!("the quiet pair waited longer than {QUIET_P99:?}"));
    }
    if after > before + remains {
        faults.push(format!("{} MiB more than before, {RECOVERY:?} after the flood", (after - before) / MIB));
    }
    assert!(faults.is_empty(), "{figures}\n{}\n{}", faults.join("\n"), broker.log().tail());
    drop(pair);
    let status = broker.stop();
    assert!(status.success(), "the broker ended with {status}\n{}", broker.log().tail());
    broker.wait_for_log("stopped; everything accepted is in the store");
    let log = broker.log().text();
    let turns = log.split_once("longest_turn=").expect("the longest turn").1.lines().next().unwrap_or_default();
    eprintln!("{figures}; longest turn {turns}");
    counters.ended.load(Ordering::Relaxed)
}

/// A `send-message` with this data, and further members that begin with a comma.
pub fn message(channel: &str, data: &str, more: &str) -> Vec<u8> {
    let text = format!(r#"{{"command":"send-message","channel":"{channel}","data":[{data}]{more}}}"#);
    frame(opcode::TEXT, text.as_bytes())
}

/// A JSON string of this length.
pub fn text(length: usize) -> String {
    format!("\"{}\"", "x".repeat(length - 2))
}

/// A `receive-message` for these channels, and further members that begin with a comma.
fn subscription(channels: impl Iterator<Item = String>, more: &str) -> Vec<u8> {
    let channels: Vec<String> = channels.collect();
    let text = format!(r#"{{"command":"receive-message","channel":{}{more}}}"#, json!(channels));
    frame(opcode::TEXT, text.as_bytes())
}

/// Connections that send these bytes again and again.
pub fn repeaters(peers: usize, bytes: Vec<u8>) -> Plan {
    let bytes: Bytes = bytes.into();
    Plan::senders(peers, move |_, _| Some(bytes.clone()))
}

/// Connections that send these frames in turn, each to another channel.
fn in_turn(peers: usize, frames: Vec<Bytes>) -> Plan {
    let next = AtomicUsize::new(0);
    Plan::senders(peers, move |_, _| Some(frames[next.fetch_add(1, Ordering::Relaxed) % frames.len()].clone()))
}

#[test]
fn delayed_messages_of_one_byte_in_frames_of_a_mebibyte() {
    let padding = "x".repeat((1 << 20) - 200);
    let bytes = message("flood", "1", &format!(r#","delay":3600,"padding":"{padding}""#));
    endure("padded frames", setup().start(), &[repeaters(4, bytes)]);
}

#[test]
fn unconfirmed_messages_of_one_byte_in_frames_of_a_mebibyte() {
    let channel = |number: usize| format!("own-{number}");
    // A receiver with automatic acknowledgement gets the sender's frame as it is, and this one answers no ping.
    let receivers = Plan::holders(50, move |number| {
        let ack = if number % 2 == 0 { "auto" } else { "manual" };
        subscription(std::iter::once(channel(number)), &format!(r#","ack":"{ack}","prefetch":4096"#)).into()
    });
    let padding = "x".repeat((1 << 20) - 200);
    let frames: Vec<Bytes> =
        (0..50).map(|number| message(&channel(number), "1", &format!(r#","padding":"{padding}""#)).into()).collect();
    endure("unconfirmed padded frames", setup().start(), &[receivers, in_turn(4, frames)]);
}

#[test]
fn delayed_messages_of_200_kib() {
    let bytes = message("flood", &text(200 << 10), r#","delay":3600"#);
    endure_what_stays("delayed messages", setup().start(), &[repeaters(4, bytes).most(2 << 30)]);
}

#[test]
fn publications_to_ever_new_channels() {
    let number = AtomicU64::new(0);
    let plan = Plan::senders(4, move |_, _| {
        let first = number.fetch_add(100, Ordering::Relaxed);
        let bytes: Vec<u8> = (first..first + 100).flat_map(|n| message(&format!("channel-{n}"), "1", "")).collect();
        Some(bytes.into())
    });
    endure_what_stays("new channels", setup().start(), &[plan]);
}

/// Receivers that subscribe to 100 new channels each. Most of them keep their channels, and the others replace theirs again and again.
fn subscribers(peers: usize) -> Plan {
    let number = AtomicU64::new(0);
    Plan::senders(peers, move |peer, round| {
        let first = number.fetch_add(100, Ordering::Relaxed);
        let bytes = || subscription((first..first + 100).map(|n| format!("channel-{n}")), "").into();
        (round == 0 || peer % 20 == 0).then(bytes)
    })
}

#[test]
fn subscriptions_to_ever_new_channels() {
    let setup = setup().channel("channel-*", "keep = false");
    endure("new subscriptions", setup.start(), &[subscribers(200)]);
}

#[test]
fn subscriptions_to_ever_new_kept_channels() {
    // The broker looks into the store for the backlog of each channel.
    endure("new kept subscriptions", setup().start(), &[subscribers(200)]);
}

/// The time after which a receiver that does not read is replaced: it does not see that the broker has ended it.
const DEAF_LIFE: Duration = Duration::from_secs(2);

#[test]
fn receivers_of_messages_that_are_not_kept_and_never_read() {
    let setup = setup().defaults("keep = false").channel(quiet::CHANNEL, "keep = true");
    let receivers = Plan::holders(60, |_| Bytes::default()).door(Door::Topic).deaf().life(DEAF_LIFE);
    let senders = repeaters(60, frame(opcode::BINARY, &vec![b'x'; 200 << 10])).door(Door::Topic);
    endure("deaf receivers, not kept", setup.start(), &[receivers, senders]);
}

#[test]
fn receivers_of_kept_messages_that_never_read() {
    // Half of the receivers share a channel, and half have a channel of their own.
    let channel = |number: usize| if number < 150 { format!("own-{number}") } else { "common".to_owned() };
    let receivers = Plan::holders(300, move |number| subscription(std::iter::once(channel(number)), "").into());
    let data = text(200 << 10);
    let frames: Vec<Bytes> = (0..=150).map(|number| message(&channel(number), &data, "").into()).collect();
    let senders = in_turn(4, frames).most(2 << 30);
    endure("deaf receivers, kept", setup().start(), &[receivers.deaf().life(DEAF_LIFE), senders]);
}

/// Senders of short messages to 3,000 receivers that read.
#[track_caller]
fn endure_large_fan_out(name: &str, setup: Setup) {
    let setup = setup.channel("common", "keep = false");
    let receivers = Plan::holders(3_000, |_| subscription(std::iter::once("common".to_owned()), "").into());
    endure(name, setup.start(), &[receivers, repeaters(1, message("common", &text(200), "").repeat(100))]);
}

#[test]
fn messages_to_thousands_of_receivers() {
    endure_large_fan_out("3,000 receivers", setup());
}

#[test]
fn messages_to_thousands_of_receivers_with_two_loops() {
    endure_large_fan_out("3,000 receivers, two loops", setup().server("threads = 2"));
}

#[test]
fn half_frames_of_a_mebibyte() {
    let whole = frame(opcode::TEXT, &vec![b'x'; 1 << 20]);
    let half: Bytes = whole[..whole.len() / 10 * 9].into();
    endure("half frames", setup().start(), &[Plan::holders(500, move |_| half.clone())]);
}

/// A connection that sends a long message slowly is ended if it holds much memory, and not if it holds little.
#[test]
fn the_connections_that_hold_most_are_ended() {
    let broker = setup_with("server.memory_budget=32MiB").start();
    let head = Head::new("/").modern().with("Authorization", &basic(QUIET, PASSWORD));
    let mut small = Client::envelope_with(&broker, &head);
    let bytes = message("quiet", &text(100 << 10), r#","id":"small""#);
    let (first, rest) = bytes.split_at(bytes.len() / 2);
    small.raw().send(first);
    // Each needs a mebibyte, so 60 of them need twice the budget.
    let whole = frame(opcode::TEXT, &vec![b'x'; 1 << 20]);
    let half: Bytes = whole[..whole.len() / 10 * 9].into();
    let counters = Counters::default();
    flood::run(&[Plan::holders(60, move |_| half.clone())], broker.address(), Duration::from_secs(2), &counters);
    assert!(counters.ended.load(Ordering::Relaxed) > 0, "{counters}");
    broker.wait_for_log("ended the connection that held most memory");
    small.raw().send(rest);
    assert_eq!(small.next_reply()["response_code"], "00", "{}", small.trace());
}

#[test]
fn fragments_of_messages_that_never_end() {
    let payload = vec![b'x'; 100 << 10];
    let part = |first: u8| frame_with(first, Length::Minimal, MASK, &payload);
    let bytes: Vec<u8> = (0..9).flat_map(|index| part(if index == 0 { opcode::TEXT } else { 0 })).collect();
    let bytes: Bytes = bytes.into();
    endure("fragments", setup().start(), &[Plan::holders(500, move |_| bytes.clone())]);
}

/// A broker with a backlog of a mebibyte in each of these channels, all of it in the store only.
#[track_caller]
fn broker_with_backlogs(channels: usize) -> Broker {
    let broker = setup().start();
    let data = json!(vec!["x".repeat(100_000); 10]);
    let head = Head::new("/").modern().with("Authorization", &basic(FLOOD, PASSWORD));
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let (broker, data, head) = (&broker, &data, &head);
            scope.spawn(move || {
                let mut client = Client::envelope_with(broker, head);
                let deadline = Instant::now() + 3 * PATIENCE;
                for number in (thread..channels).step_by(4) {
                    let command = json!({"command": "send-message", "channel": format!("backlog-{number}"), "data": data, "id": "1"});
                    let mut reply = json!(null);
                    while reply["response_code"] != "00" {
                        assert!(Instant::now() < deadline, "{reply}\n{}", client.trace());
                        client.command(&command);
                        reply = client.next_reply();
                    }
                }
            });
        }
    });
    broker.stop_and_restart()
}

#[test]
fn receivers_of_long_backlogs_that_confirm_nothing() {
    let broker = broker_with_backlogs(200);
    let manual = r#","ack":"manual","prefetch":1"#;
    let plan =
        Plan::holders(200, move |number| subscription(std::iter::once(format!("backlog-{number}")), manual).into());
    endure("pages", broker, &[plan]);
}

#[test]
fn messages_of_100_kib_to_unattended_channels() {
    let envelope = repeaters(2, message("flood", &text(100 << 10), ""));
    let topic = repeaters(2, frame(opcode::BINARY, &vec![b'x'; 100 << 10])).door(Door::Topic);
    endure("unattended", setup().start(), &[envelope.most(2 << 30), topic.most(2 << 30)]);
}

#[test]
fn pings_and_commands_from_clients_that_never_read() {
    let pings = repeaters(30, frame(opcode::PING, &[b'x'; 125]).repeat(500));
    // Each answer is some five times as long as its command.
    let commands = repeaters(10, frame(opcode::TEXT, br#"{"command":"x"}"#).repeat(500));
    endure("pings and commands", setup().start(), &[pings.deaf(), commands.deaf()]);
}

#[test]
fn request_heads_that_never_end() {
    let head = format!("GET / HTTP/1.1\r\nHost: broker\r\nX-Padding: {}", "x".repeat(15 << 10));
    let head: Bytes = head.into_bytes().into();
    // With the default of `server.max_handshakes` (2,048) the heads together are far below the budget. A larger budget would need more connections than
    // many systems allow.
    let setup = setup_with("server.memory_budget=32MiB").server("max_handshakes = 20000");
    let ended = endure_with(
        "request heads",
        setup.start(),
        &[Plan::holders(3_000, move |_| head.clone()).door(Door::Plain)],
        REMAINS,
    );
    assert!(ended > 0, "the heads would take 45 MiB, so some of them must be refused");
}

#[test]
fn invalid_frames_and_commands() {
    let commands = crate::bad_input::invalid_commands().map(|text| frame(opcode::TEXT, text.as_bytes()));
    // Each of these ends its connection.
    let frames = crate::bad_frames::cases().into_iter().map(|(_, bytes, _)| bytes);
    let plans = [in_turn(8, commands.map(Bytes::from).collect()), in_turn(8, frames.map(Bytes::from).collect())];
    endure("invalid", setup().start(), &plans);
}
