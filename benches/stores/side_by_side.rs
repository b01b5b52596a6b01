//! The store against the bare client: the same rows, the same batches, in turns.

use std::time::{Duration, Instant};

use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_store::{Group, MessageStore, StoreSettings};

use crate::bare::{Bare, Row};
use crate::servers::Server;

/// Messages of one turn.
const MESSAGES: u64 = 16_384;
/// Turns of each.
const TURNS: usize = 5;

/// What one turn took.
#[derive(Clone, Copy)]
struct Cost {
    wall: Duration,
    cpu: Duration,
}

pub fn run(server: &Server) {
    println!(
        "\n{}: {MESSAGES} messages of 200 bytes, inserted and removed; medians of {TURNS} turns",
        server.kind().name()
    );
    println!(
        "| batch | store µs | bare µs | ratio | store CPU µs | bare CPU µs | ratio |\n|--:|--:|--:|--:|--:|--:|--:|"
    );
    for batch in [64, 1_024] {
        let database = server.database();
        let mut ours: Vec<Cost> = Vec::new();
        let mut floor: Vec<Cost> = Vec::new();
        for _ in 0..TURNS {
            let mut store = wsmb_store::open(&StoreSettings { journal: None, ..database.settings() }).expect("opens");
            ours.push(with_store(&mut *store, batch));
            drop(store);
            let mut bare = Bare::connect(&database);
            floor.push(with_bare(&mut bare, batch));
        }
        let each = |costs: &[Cost], pick: fn(&Cost) -> Duration| {
            let mut all: Vec<f64> = costs.iter().map(|cost| pick(cost).as_secs_f64() * 1e6 / MESSAGES as f64).collect();
            all.sort_by(f64::total_cmp);
            all[all.len() / 2]
        };
        let (wall, bare_wall) = (each(&ours, |cost| cost.wall), each(&floor, |cost| cost.wall));
        let (cpu, bare_cpu) = (each(&ours, |cost| cost.cpu), each(&floor, |cost| cost.cpu));
        println!(
            "| {batch} | {wall:.1} | {bare_wall:.1} | {:.2} | {cpu:.1} | {bare_cpu:.1} | {:.2} |",
            wall / bare_wall,
            cpu / bare_cpu
        );
    }
}

fn text(id: u64) -> String {
    format!("{{\"id\":{id:0>20},\"receiver\":\"081234567890\",\"message\":\"{}\"}}", "x".repeat(127))
}

fn batches(batch: u64) -> impl Iterator<Item = std::ops::Range<u64>> {
    (0..MESSAGES / batch).map(move |number| 1 + number * batch..1 + (number + 1) * batch)
}

fn with_store(store: &mut dyn MessageStore, batch: u64) -> Cost {
    let channel = ChannelName::parse("sms").expect("a valid name");
    let message = |id: u64| Message {
        id: MessageId(id),
        channel: channel.clone(),
        payload: Payload::text(text(id)),
        created: Timestamp(1_763_800_000_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    };
    let mut removals = Vec::new();
    let groups: Vec<Group> = batches(batch)
        .map(|ids| {
            let removals = std::mem::replace(&mut removals, ids.clone().map(MessageId).collect());
            Group { appends: ids.map(message).collect(), removals, ..Group::default() }
        })
        .collect();
    let cost = measured(|| groups.iter().for_each(|group| store.commit(group).expect("commits")));
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
    cost
}

fn with_bare(bare: &mut Bare, batch: u64) -> Cost {
    let row = |id: u64| Row { id: id as i64, channel: "sms", data: text(id), created: "2025-11-22 08:26:40" };
    let mut removals: Vec<i64> = Vec::new();
    let groups: Vec<(Vec<Row>, Vec<i64>)> = batches(batch)
        .map(|ids| {
            let removals = std::mem::replace(&mut removals, ids.clone().map(|id| id as i64).collect());
            (ids.map(row).collect(), removals)
        })
        .collect();
    let cost = measured(|| groups.iter().for_each(|(rows, removals)| bare.commit(rows, removals)));
    bare.commit(&[], &removals);
    cost
}

fn measured(work: impl FnOnce()) -> Cost {
    let (began, cpu) = (Instant::now(), own_cpu());
    work();
    Cost { wall: began.elapsed(), cpu: own_cpu().saturating_sub(cpu) }
}

/// What this process has used, in user and system mode.
fn own_cpu() -> Duration {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: the structure is ours, of the right type, and all zeroes are valid for it.
    let usage = unsafe {
        assert_eq!(libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()), 0, "getrusage");
        usage.assume_init()
    };
    let time = |value: libc::timeval| Duration::new(value.tv_sec as u64, value.tv_usec as u32 * 1_000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
