//! One suite of tests that runs against each store.
//!
//! [`backends`] lists the stores. Database servers are private (see `servers`); MySQL is tested if the environment variable
//! `WSMB_TEST_MYSQL` names its `mysqld`.

#[cfg(target_os = "linux")]
#[allow(dead_code, unused_imports)] // Other tests need more.
mod servers;

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use wsmb_core::message::{ChannelName, DeadLetter, Kind, Message, MessageId, Payload, PublicationId, Timestamp, Why};
use wsmb_core::policy::{ChannelPolicy, Policies, Spare};
#[cfg(target_os = "linux")]
use wsmb_store::JournalSettings;
use wsmb_store::{Background, ChannelSummary, Group, Restamp, StoreError, StoreSettings};

/// Opens an empty store in a directory, which exists as long as the store.
type Factory = Box<dyn Fn(&std::path::Path) -> Box<dyn Background>>;

/// All stores, with their names.
fn backends() -> Vec<(String, Factory)> {
    let mut all: Vec<(String, Factory)> =
        vec![("sqlite".to_owned(), Box::new(sqlite)), ("memory".to_owned(), Box::new(memory))];
    all.extend(on_servers());
    all
}

fn sqlite(directory: &std::path::Path) -> Box<dyn Background> {
    let url = format!("sqlite:{}", directory.join("wsmb.db").display());
    wsmb_store::open(&StoreSettings { url, ..StoreSettings::default() }).expect("opens")
}

fn memory(_directory: &std::path::Path) -> Box<dyn Background> {
    wsmb_store::open(&StoreSettings { url: "memory:".to_owned(), ..StoreSettings::default() }).expect("opens")
}

/// Database servers run on Linux only, because the harness uses features of Linux.
#[cfg(not(target_os = "linux"))]
fn on_servers() -> Vec<(String, Factory)> {
    Vec::new()
}

/// Each server without and with a journal.
#[cfg(target_os = "linux")]
fn on_servers() -> Vec<(String, Factory)> {
    let kinds = servers::Kind::all();
    let bare = kinds.iter().map(|kind| (kind.name().to_owned(), Box::new(remote(*kind, false)) as Factory));
    let journaled =
        kinds.iter().map(|kind| (format!("journal and {}", kind.name()), Box::new(remote(*kind, true)) as Factory));
    bare.chain(journaled).collect()
}

/// Stores in one database of the shared server, each with tables of its own.
#[cfg(target_os = "linux")]
fn remote(kind: servers::Kind, journal: bool) -> impl Fn(&std::path::Path) -> Box<dyn Background> {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicUsize, Ordering};
    static DATABASES: [OnceLock<servers::Database>; 3] = [const { OnceLock::new() }; 3];
    static NUMBER: AtomicUsize = AtomicUsize::new(0);
    move |directory| {
        let database = DATABASES[kind as usize].get_or_init(|| servers::Server::shared(kind).database());
        let prefix = format!("s{}_", NUMBER.fetch_add(1, Ordering::Relaxed));
        let journal = journal.then(|| JournalSettings { path: directory.join("journal.db"), bytes: 256 << 20 });
        wsmb_store::open(&StoreSettings { prefix, journal, ..database.settings() }).expect("opens")
    }
}

/// Runs a test against an empty store of every backend.
fn on_each(case: fn(&mut dyn Background)) {
    for (name, open) in backends() {
        println!("on {name}");
        let directory = tempfile::tempdir().expect("a directory");
        case(&mut *open(directory.path()));
    }
}

const ALL: usize = 1 << 30;

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

fn message(id: u64, name: &str, payload: Payload) -> Message {
    Message {
        id: MessageId(id),
        channel: channel(name),
        payload,
        created: Timestamp(1_763_800_000_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn text(id: u64, name: &str) -> Message {
    message(id, name, Payload::text(format!("{{\"id\":{id}}}")))
}

fn append(store: &mut dyn Background, appends: Vec<Message>) {
    store.commit(&Group { appends, ..Group::default() }).expect("commits");
}

fn remove(store: &mut dyn Background, ids: &[u64]) {
    let removals = ids.iter().copied().map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
}

fn ids(store: &mut dyn Background, name: &str) -> Vec<u64> {
    let page = store.load(&channel(name), MessageId(0), 1_000, ALL).expect("loads");
    assert!(page.complete);
    page.messages.iter().map(|message| message.id.0).collect()
}

#[test]
fn the_id_of_a_dead_letter_belongs_to_its_original_channel() {
    on_each(|store| {
        let (publication, reason) = (Some(PublicationId::new("user", "5")), None);
        let dead = DeadLetter { why: Why::MaxDeliveries, channel: channel("sms"), attempts: 4, reason };
        append(store, vec![Message { publication, dead: Some(Box::new(dead)), ..text(7, "dead") }]);
        let found = store.summary(Timestamp(0)).expect("summary").publications;
        let found: Vec<_> = found.iter().map(|it| (it.channel.as_str(), it.id.id())).collect();
        assert_eq!(found, [("sms", "5")]);
    });
}

#[test]
fn every_field_is_stored() {
    on_each(|store| {
        let full = Message {
            expires: Some(Timestamp(1_763_800_060_123)),
            receivers: Some(0),
            publication: Some(PublicationId::new("user", "é:5\"'\\")),
            deliveries: 3,
            dead: Some(Box::new(DeadLetter {
                why: Why::Rejected,
                channel: channel("gerät"),
                attempts: 4,
                reason: Some("no \"SIM\" – 😀".into()),
            })),
            ..text(7, "sms")
        };
        let delayed =
            Message { due: Some(Timestamp(1_763_800_001_500)), ..Message { id: MessageId(9), ..full.clone() } };
        append(store, vec![full.clone(), text(8, "sms"), delayed.clone()]);
        let page = store.load(&channel("sms"), MessageId(0), 10, ALL).expect("loads");
        assert_eq!(page.messages, [full, text(8, "sms")]);
        assert_eq!(store.summary(Timestamp(0)).expect("summary").delayed, [delayed]);
    });
}

#[test]
fn payloads_are_stored_byte_for_byte() {
    on_each(|store| {
        let texts = [
            "",
            "null",
            "😀👩‍👩‍👧 مرحبا",
            r#"\ " ' `` \\' %s ? ?1 :a @b $c"#,
            "a\0b\0",
            "\u{feff}x",
            "'); DROP TABLE mq_data; --",
            "\r\n\t",
        ];
        let mut payloads: Vec<Payload> = texts.into_iter().map(Payload::text).collect();
        payloads.push(Payload::text("é".repeat(512 << 10)));
        for bytes in [vec![], vec![0, 255, 254, 0], b"text".to_vec(), (0..=255).cycle().take(1 << 20).collect()] {
            payloads.push(Payload { bytes: Bytes::from(bytes), kind: Kind::Binary });
        }
        let messages: Vec<Message> =
            payloads.into_iter().zip(1..).map(|(payload, id)| message(id, "sms", payload)).collect();
        append(store, messages.clone());
        assert_eq!(store.load(&channel("sms"), MessageId(0), 100, ALL).expect("loads").messages, messages);
    });
}

#[test]
fn channel_names_are_taken_literally() {
    on_each(|store| {
        let names = ["sms", "SMS", "sms ", "s%", "s_s", "é", "e\u{301}", "😀", "'", "\"", "\\", "a;b", "42"];
        append(store, names.iter().zip(1..).map(|(name, id)| text(id, name)).collect());
        for (name, id) in names.iter().zip(1..) {
            assert_eq!(ids(store, name), [id], "{name}");
        }
        assert_eq!(store.summary(Timestamp(0)).expect("summary").channels.len(), names.len());
    });
}

#[test]
fn pages_are_in_the_order_of_ids() {
    on_each(|store| {
        append(store, [5, 3, 9, 1].map(|id| text(id, "a")).to_vec());
        append(store, vec![text(2, "b"), text(4, "a")]);
        assert_eq!(ids(store, "a"), [1, 3, 4, 5, 9]);
        let page = store.load(&channel("a"), MessageId(1), 2, ALL).expect("loads");
        assert_eq!((page.messages, page.complete), (vec![text(3, "a"), text(4, "a")], false));
        let page = store.load(&channel("a"), MessageId(4), 2, ALL).expect("loads");
        assert_eq!((page.messages, page.complete), (vec![text(5, "a"), text(9, "a")], true));
        let page = store.load(&channel("none"), MessageId(0), 2, ALL).expect("loads");
        assert!(page.messages.is_empty() && page.complete);
    });
}

#[test]
fn pages_are_bounded_in_bytes_but_never_empty() {
    on_each(|store| {
        append(store, (1..=4).map(|id| message(id, "a", Payload::text("x".repeat(1_000)))).collect());
        for (max_bytes, expected) in [(0, 1), (999, 1), (1_000, 2), (2_500, 3), (4_000, 4)] {
            let page = store.load(&channel("a"), MessageId(0), 10, max_bytes).expect("loads");
            assert_eq!((page.messages.len(), page.complete), (expected, expected == 4), "{max_bytes}");
        }
    });
}

#[test]
fn a_group_applies_appends_then_removals_then_counts() {
    on_each(|store| {
        append(store, vec![text(1, "a"), text(2, "a")]);
        let group = Group {
            appends: vec![text(3, "a"), text(4, "a")],
            removals: [1, 3, 77].map(MessageId).to_vec(),
            deliveries: [(2, 5), (4, 1), (1, 9), (99, 1)].map(|(id, count)| (MessageId(id), count)).to_vec(),
            marks: Vec::new(),
        };
        store.commit(&group).expect("unknown ids are no error");
        let page = store.load(&channel("a"), MessageId(0), 10, ALL).expect("loads");
        let counts: Vec<_> = page.messages.iter().map(|message| (message.id.0, message.deliveries)).collect();
        assert_eq!(counts, [(2, 5), (4, 1)]);
        store.commit(&Group::default()).expect("nothing to do");
    });
}

#[test]
fn writing_a_message_again_replaces_it() {
    on_each(|store| {
        append(store, vec![Message { expires: Some(Timestamp(5)), due: Some(Timestamp(1)), ..text(1, "a") }]);
        append(store, vec![text(1, "b")]);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![], vec![1]));
        assert!(store.sweep(Timestamp(10), 10, &Spare::default()).expect("sweeps").gone.is_empty());
        assert!(store.summary(Timestamp(0)).expect("summary").delayed.is_empty());
    });
}

#[test]
fn a_scan_returns_all_messages_in_the_order_of_ids() {
    on_each(|store| {
        let due = Message { due: Some(Timestamp(9)), expires: Some(Timestamp(3)), ..text(2, "b") };
        append(store, vec![text(5, "a"), text(1, "ü"), due.clone(), text(9, "a")]);
        let page = store.scan(MessageId(0), 3, ALL).expect("scans");
        assert_eq!((page.messages, page.complete), (vec![text(1, "ü"), due, text(5, "a")], false));
        let page = store.scan(MessageId(5), 3, ALL).expect("scans");
        assert_eq!((page.messages, page.complete), (vec![text(9, "a")], true));
        let page = store.scan(MessageId(0), 4, 0).expect("scans");
        assert_eq!((page.messages.len(), page.complete), (1, false), "a page is bounded in bytes, but never empty");
        let page = store.scan(MessageId(9), 4, 0).expect("scans");
        assert!(page.messages.is_empty() && page.complete);
    });
}

#[test]
fn marks_are_stored_with_their_group() {
    on_each(|store| {
        assert_eq!(store.mark("copy.1").expect("reads"), None);
        let marks = |value| vec![("copy.1".to_owned(), value), ("copy.2".to_owned(), value + 1)];
        store.commit(&Group { marks: marks(7), ..Group::default() }).expect("commits");
        store.commit(&Group { appends: vec![text(1, "a")], marks: marks(8), ..Group::default() }).expect("commits");
        assert_eq!(store.mark("copy.1").expect("reads"), Some(8));
        assert_eq!(store.mark("copy.2").expect("reads"), Some(9));
        let largest = i64::MAX.unsigned_abs();
        store.commit(&Group { marks: marks(largest - 1), ..Group::default() }).expect("commits");
        assert_eq!(store.mark("copy.2").expect("reads"), Some(largest));
        assert_eq!(store.mark("copy").expect("reads"), None);
        assert!(store.summary(Timestamp(0)).expect("summary").clean, "the store's own mark was changed");
    });
}

#[test]
fn a_sweep_removes_expired_messages_and_returns_their_ids() {
    on_each(|store| {
        let expiring = |id, name, at| Message { expires: Some(Timestamp(at)), ..text(id, name) };
        let due = Message { due: Some(Timestamp(99)), ..expiring(4, "b", 20) };
        append(store, vec![expiring(1, "a", 30), expiring(2, "b", 20), text(3, "a"), due, expiring(5, "a", 21)]);
        let swept = store.sweep(Timestamp(20), 10, &Spare::default()).expect("sweeps").gone;
        assert_eq!(swept, [(MessageId(2), channel("b"))], "a sweep must not remove delayed messages");
        assert_eq!(
            store.sweep(Timestamp(50), 1, &Spare::default()).expect("sweeps").gone,
            [(MessageId(5), channel("a"))],
            "the earliest first"
        );
        assert_eq!(ids(store, "a"), [1, 3]);
    });
}

/// Spares the expired messages of channel `a`.
fn sparing_a() -> Spare {
    let dead =
        ChannelPolicy { dead_letter: Some(channel("dead")), dead_letter_expired: true, ..ChannelPolicy::default() };
    let named = vec![(wildmatch::WildMatch::new("a"), dead)];
    Policies { named, default: ChannelPolicy::default() }.spare()
}

#[test]
fn a_sweep_returns_spared_messages_in_parts() {
    on_each(|store| {
        let expiring = |id, name, at| Message { expires: Some(Timestamp(at)), ..text(id, name) };
        let dead = DeadLetter { why: Why::Rejected, channel: channel("x"), attempts: 2, reason: Some("no".into()) };
        let first = Message { dead: Some(Box::new(dead)), deliveries: 3, ..expiring(3, "a", 10) };
        let rows = vec![expiring(1, "a", 20), expiring(2, "b", 20), first.clone(), expiring(4, "a", 30), text(5, "a")];
        append(store, rows);
        append(store, (6..=9).map(|id| expiring(id, "a", 20)).collect());
        let mut parts = Vec::new();
        loop {
            let swept = store.sweep(Timestamp(20), 2, &sparing_a()).expect("sweeps");
            assert!(swept.gone.len() + swept.spared.len() <= 2, "{swept:?}");
            parts.extend(swept.spared.iter().map(|message| message.id.0));
            if swept.spared.first().is_some_and(|message| message.id.0 == 3) {
                assert_eq!(swept.spared, [first.clone(), expiring(1, "a", 20)], "earliest first");
            } else if swept.gone.is_empty() && swept.spared.is_empty() {
                assert!(!swept.more, "an empty sweep must be the last");
            }
            if !swept.more {
                break;
            }
        }
        assert_eq!(parts, [3, 1, 6, 7, 8, 9]);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![1, 3, 4, 5, 6, 7, 8, 9], vec![]), "spared rows stay");
        // Rows that have become dead letters are removed, and the sweep does not return them again.
        remove(store, &[3, 1, 6, 7]);
        let again = store.sweep(Timestamp(20), 10, &sparing_a()).expect("sweeps");
        assert_eq!(again.spared.iter().map(|message| message.id.0).collect::<Vec<_>>(), [8, 9], "from the start");
        let all = store.sweep(Timestamp(30), 10, &Spare::default()).expect("sweeps");
        assert_eq!((all.gone.len(), all.spared.len()), (3, 0), "no message is spared");
        assert_eq!(ids(store, "a"), [5]);
    });
}

#[test]
fn a_sweep_returns_at_most_a_page_of_spared_messages() {
    on_each(|store| {
        let large = "x".repeat(wsmb_core::limits::PAGE_BYTES / 4);
        let row = |id| Message { expires: Some(Timestamp(9)), ..message(id, "a", Payload::text(&large)) };
        for id in 1..=8 {
            append(store, vec![row(id)]);
        }
        let first = store.sweep(Timestamp(10), 100, &sparing_a()).expect("sweeps");
        assert!((4..=5).contains(&first.spared.len()) && first.more, "{} rows", first.spared.len());
        let second = store.sweep(Timestamp(10), 100, &sparing_a()).expect("sweeps");
        assert_eq!(first.spared.len() + second.spared.len(), 8);
    });
}

/// The times of a row, in seconds: created, expires, due.
type Times = (u64, Option<u64>, Option<u64>);

fn times(store: &mut dyn Background) -> Vec<(u64, Times)> {
    let page = store.scan(MessageId(0), 100, ALL).expect("reads");
    let seconds = |moment: Timestamp| moment.0 / 1_000;
    page.messages
        .iter()
        .map(|row| (row.id.0, (seconds(row.created), row.expires.map(seconds), row.due.map(seconds))))
        .collect()
}

fn timed(id: u64, (created, expires, due): Times) -> Message {
    let moment = |seconds: u64| Timestamp(seconds * 1_000);
    Message { created: moment(created), expires: expires.map(moment), due: due.map(moment), ..text(id, "a") }
}

#[test]
fn a_correction_moves_the_times_of_rows_once() {
    on_each(|store| {
        let rows = [
            (1, (100, None, None)),
            (2, (100, Some(160), None)),
            (3, (100, None, None)),
            (4, (100, Some(900), Some(130))),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        let forward = Restamp { token: 7, after: MessageId(2), all: false, by: 50_000 };
        let moved = vec![
            (1, (100, None, None)),
            (2, (100, Some(160), None)),
            (3, (150, None, None)),
            (4, (150, Some(950), Some(180))),
        ];
        for _ in 0..2 {
            store.restamp(&forward).expect("corrects");
            assert_eq!(times(store), moved, "the same token must be applied once");
        }
        store.restamp(&Restamp { token: 8, after: MessageId(2), all: true, by: -120_000 }).expect("corrects");
        let back = vec![
            (1, (100, None, None)),
            (2, (0, Some(40), None)),
            (3, (30, None, None)),
            (4, (30, Some(830), Some(60))),
        ];
        let mut found = times(store);
        // A time before 1970 may become any other time.
        found[1].1.0 = 0;
        assert_eq!(found, back, "older rows are moved only if they expire");
        assert_eq!(
            store.sweep(Timestamp(40_000), 10, &Spare::default()).expect("sweeps").gone,
            [(MessageId(2), channel("a"))]
        );
    });
}

#[test]
fn rows_from_the_future_count_as_created_now() {
    on_each(|store| {
        let rows = [
            (1, (500, Some(560), None)),
            (2, (500, None, None)),
            (3, (200, Some(900), None)),
            (4, (500, Some(800), Some(530))),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        append(store, vec![timed(5, (500, Some(560), None))]);
        store.clamp_future_rows(Timestamp(300_000), MessageId(4)).expect("corrects");
        let young = vec![
            (1, (300, Some(359), None)),
            (2, (500, None, None)),
            (3, (200, Some(900), None)),
            (4, (300, Some(599), Some(329))),
            (5, (500, Some(560), None)),
        ];
        assert_eq!(times(store), young, "the remaining times must not grow");
    });
}

#[test]
fn the_summary_contains_the_times_of_expiry() {
    on_each(|store| {
        let rows = [
            (1, (1, Some(60), None)),
            (2, (1, None, None)),
            (3, (1, Some(60), None)),
            (4, (1, Some(70), Some(30))),
            (5, (1, Some(9_000), None)),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        let mut found = store.summary(Timestamp(0)).expect("summary").expiries;
        found.sort();
        let a = || channel("a");
        assert_eq!(found, [(a(), Timestamp(60_000), 2), (a(), Timestamp(9_000_000), 1)], "without a due time");
    });
}

#[test]
fn a_purge_removes_a_channel_up_to_an_id_in_bounded_parts() {
    on_each(|store| {
        append(
            store,
            vec![
                text(1, "a"),
                Message { due: Some(Timestamp(9)), ..text(2, "a") },
                text(3, "b"),
                text(4, "a"),
                text(5, "a"),
            ],
        );
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 2);
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 1);
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 0);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![5], vec![3]));
        assert!(store.summary(Timestamp(0)).expect("summary").delayed.is_empty());
        assert_eq!(store.purge(&channel("a"), MessageId(u64::MAX), 9).expect("purges"), 1);
    });
}

#[test]
fn the_summary_contains_all_waiting_messages() {
    on_each(|store| {
        let empty = store.summary(Timestamp(0)).expect("summary");
        assert!(empty.channels.is_empty() && empty.clean && empty.last_id == MessageId(0));
        let published = |id: u64, name, key: &str| Message {
            publication: Some(PublicationId::new("u", key)),
            created: Timestamp(1_000_000 + id * 1_000),
            ..text(id, name)
        };
        let due = Message { due: Some(Timestamp(1)), ..published(6, "c", "z") };
        append(store, vec![text(1, "b"), published(2, "a", "x"), published(3, "a", "y"), published(4, "a", "y"), due]);
        append(store, vec![text(9, "a")]);
        remove(store, &[9]);
        let summary = store.summary(Timestamp(1_003_000)).expect("summary");
        let a = ChannelSummary { channel: channel("a"), messages: 3, last: MessageId(4) };
        let b = ChannelSummary { channel: channel("b"), messages: 1, last: MessageId(1) };
        assert_eq!(summary.channels, [a, b]);
        let delayed: Vec<_> = summary.delayed.iter().map(|message| message.id.0).collect();
        assert_eq!((delayed, summary.last_id), (vec![6], MessageId(9)));
        let publications: Vec<_> =
            summary.publications.iter().map(|it| (it.channel.as_str(), it.id.id(), it.rows.len())).collect();
        let recent = publications.iter().filter(|(name, _, rows)| (*name, *rows) == ("a", 2)).count();
        assert_eq!((publications.len(), recent), (2, 1), "{publications:?}");
    });
}

#[test]
fn check_maintain_and_mark_clean_work() {
    on_each(|store| {
        store.check().expect("can be written");
        store.maintain().expect("maintained");
        store.mark_clean().expect("marks");
        append(store, vec![text(1, "a")]);
    });
}

#[test]
fn a_hundred_thousand_messages_are_paged_in_order() {
    on_each(|store| {
        let all: Vec<u64> = (1..=100_000).collect();
        for part in all.chunks(4_096) {
            append(store, part.iter().map(|id| text(*id, if id % 10 == 0 { "rare" } else { "usual" })).collect());
        }
        let (mut after, mut seen) = (MessageId(0), 0_u64);
        loop {
            let page = store.load(&channel("usual"), after, 512, ALL).expect("loads");
            for message in &page.messages {
                assert!(message.id > after && message.payload == text(message.id.0, "usual").payload);
                after = message.id;
                seen += 1;
            }
            if page.complete {
                break;
            }
            assert_eq!(page.messages.len(), 512);
        }
        assert_eq!(seen, 90_000);
    });
}

#[test]
fn a_memory_store_refuses_groups_over_its_budget() {
    let settings = StoreSettings { url: "memory:".to_owned(), memory: 10_000, ..StoreSettings::default() };
    let mut store = wsmb_store::open(&settings).expect("opens");
    let large = |id| message(id, "a", Payload::text("x".repeat(4_000)));
    append(&mut *store, vec![large(1), large(2)]);
    let over = Group { appends: vec![large(3)], ..Group::default() };
    assert!(matches!(store.commit(&over), Err(StoreError::OverBudget { .. })));
    assert_eq!(ids(&mut *store, "a"), [1, 2], "a part of a refused group was stored");
    append(&mut *store, vec![large(2)]);
    let swap = Group { appends: vec![large(3)], removals: vec![MessageId(1)], ..Group::default() };
    store.commit(&swap).expect("a removal frees space for an append of the same group");
    assert_eq!(ids(&mut *store, "a"), [2, 3]);
}

/// One call of the trait.
#[derive(Clone, Debug)]
enum Call {
    Commit { appends: Vec<(u64, u8, Option<u64>, Option<u64>)>, removals: Vec<u64>, deliveries: Vec<(u64, u32)> },
    Scan { after: u64, limit: usize, max_bytes: usize },
    Load { channel: u8, after: u64, limit: usize, max_bytes: usize },
    Sweep { now: u64, sparing: bool },
    Purge { channel: u8, up_to: u64, limit: usize },
    Summary { since: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let id = || 1..40_u64;
    let moment = || prop::option::of(0..20_u64);
    let row = (id(), 0..3_u8, moment(), prop::option::weighted(0.2, 0..20_u64));
    let commit = (
        prop::collection::vec(row, 0..8),
        prop::collection::vec(id(), 0..4),
        prop::collection::vec((id(), 0..9_u32), 0..4),
    );
    prop_oneof![
        4 => commit.prop_map(|(appends, removals, deliveries)| Call::Commit { appends, removals, deliveries }),
        3 => (0..3_u8, 0..40_u64, 1..9_usize, 0..60_usize)
            .prop_map(|(channel, after, limit, max_bytes)| Call::Load { channel, after, limit, max_bytes }),
        1 => (0..40_u64, 1..9_usize, 0..60_usize)
            .prop_map(|(after, limit, max_bytes)| Call::Scan { after, limit, max_bytes }),
        1 => (0..20_u64, any::<bool>()).prop_map(|(now, sparing)| Call::Sweep { now, sparing }),
        1 => (0..3_u8, id(), 1..9_usize).prop_map(|(channel, up_to, limit)| Call::Purge { channel, up_to, limit }),
        1 => (0..40_u64).prop_map(|since| Call::Summary { since: since * 1_000 }),
    ]
}

/// The result of a call as text, to compare two stores.
fn answer(store: &mut dyn Background, call: &Call) -> String {
    let name = |number: u8| channel(["a", "b", "ü"][usize::from(number)]);
    match call.clone() {
        Call::Commit { appends, removals, deliveries } => {
            let written = |(id, channel, expires, due): (u64, u8, Option<u64>, Option<u64>)| Message {
                expires: expires.map(Timestamp),
                due: due.map(Timestamp),
                // Ids increase with time.
                created: Timestamp(id * 1_000),
                publication: (id % 2 == 0).then(|| PublicationId::new("u", &(id / 4).to_string())),
                ..text(id, name(channel).as_str())
            };
            let group = Group {
                appends: appends.into_iter().map(written).collect(),
                removals: removals.into_iter().map(MessageId).collect(),
                deliveries: deliveries.into_iter().map(|(id, count)| (MessageId(id), count)).collect(),
                marks: Vec::new(),
            };
            format!("{:?}", store.commit(&group))
        }
        Call::Load { channel, after, limit, max_bytes } => {
            format!("{:?}", store.load(&name(channel), MessageId(after), limit, max_bytes))
        }
        Call::Scan { after, limit, max_bytes } => {
            format!("{:?}", store.scan(MessageId(after), limit, max_bytes))
        }
        Call::Sweep { now, sparing } => {
            let spare = if sparing { sparing_a() } else { Spare::default() };
            let wsmb_store::Swept { mut gone, spared, more } =
                store.sweep(Timestamp(now), 100, &spare).expect("sweeps");
            gone.sort();
            format!("{gone:?} {spared:?} {more}")
        }
        // The order of removals depends on the store; their number does not.
        Call::Purge { channel, up_to, limit } => {
            let mut parts = Vec::new();
            loop {
                let removed = store.purge(&name(channel), MessageId(up_to), limit).expect("purges");
                parts.push(removed);
                if removed < limit as u64 {
                    return format!("{parts:?}");
                }
            }
        }
        Call::Summary { since } => {
            let summary = store.summary(Timestamp(since)).expect("summary");
            // The grouping of times depends on the store; the number of expiring messages does not.
            let mut expiring = BTreeMap::<_, u64>::new();
            for (channel, _, messages) in &summary.expiries {
                *expiring.entry(channel.clone()).or_default() += messages;
            }
            format!("{:?} {expiring:?}", wsmb_store::Summary { clean: true, expiries: Vec::new(), ..summary })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_return_the_same_results(calls in prop::collection::vec(call(), 1..60)) {
        let backends = backends();
        let directories: Vec<_> = backends.iter().map(|_| tempfile::tempdir().expect("a directory")).collect();
        let mut stores: Vec<_> =
            backends.iter().zip(&directories).map(|((name, open), directory)| (name, open(directory.path()))).collect();
        for call in &calls {
            let answers: Vec<String> = stores.iter_mut().map(|(_, store)| answer(&mut **store, call)).collect();
            for (index, answer) in answers.iter().enumerate().skip(1) {
                prop_assert_eq!(&answers[0], answer, "{} and {} differ on {:?}", stores[0].0, stores[index].0, call);
            }
        }
    }
}
