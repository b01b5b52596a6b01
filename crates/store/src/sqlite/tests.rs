//! Tests of the SQLite store alone.

use tempfile::TempDir;

use super::*;
use crate::platform::Space;
use crate::{ChannelSummary, StoppedStore, StoreSettings, Tools as _, inspect};
use wsmb_core::message::{Message, Payload, PublicationId};

struct File {
    directory: TempDir,
}

impl File {
    fn new() -> Self {
        Self { directory: tempfile::tempdir().expect("a directory") }
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("wsmb.db")
    }

    fn open(&self) -> SqliteStore {
        self.try_open().expect("the store opens")
    }

    fn try_open(&self) -> Result<SqliteStore, StoreError> {
        let columns = Columns::parse([("receiver", "/receiver"), ("sent_at", "/time")]).expect("valid columns");
        SqliteStore::open(&self.path(), &prefix(), &columns, SizeLimit::DiskReserve)
    }

    /// A second connection, as another program would have it.
    fn other(&self) -> Connection {
        Connection::open(self.path()).expect("the file opens")
    }
}

fn prefix() -> Prefix {
    Prefix::parse("mq_").expect("a valid prefix")
}

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

fn message(id: u64, text: &str) -> Message {
    Message {
        id: MessageId(id),
        channel: channel("sms"),
        payload: Payload::text(text),
        created: Timestamp(1_763_800_000_000),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn append(ids: std::ops::Range<u64>, text: &str) -> Group {
    Group { appends: ids.map(|id| message(id, text)).collect(), ..Group::default() }
}

fn ids(page: &Page) -> Vec<u64> {
    page.messages.iter().map(|message| message.id.0).collect()
}

fn all(store: &mut SqliteStore) -> Page {
    store.load(&channel("sms"), MessageId(0), 1_000, 1 << 30).expect("loads")
}

#[cfg(unix)]
#[test]
fn files_are_for_their_owner_only() {
    use std::os::unix::fs::PermissionsExt;
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("new/deeper/wsmb.db");
    let mut store = SqliteStore::open(&path, &prefix(), &Columns::default(), SizeLimit::DiskReserve).expect("opens");
    store.commit(&append(1..2, "1")).expect("commits");
    let mode = |path: &Path| std::fs::metadata(path).expect("is there").permissions().mode() & 0o777;
    for suffix in ["", "-wal", "-shm", ".lock"] {
        let file = PathBuf::from(format!("{}{suffix}", path.display()));
        assert_eq!(mode(&file), 0o600, "{}", file.display());
    }
    assert_eq!(mode(&directory.path().join("new")), 0o700);
}

#[test]
fn no_statement_that_recurs_scans_or_sorts_a_large_table() {
    let file = File::new();
    let store = file.open();
    let other = file.other();
    for query in [
        &store.sql.load,
        &store.sql.sweep,
        &store.sql.expired,
        &store.sql.purge,
        &store.sql.delete,
        &store.sql.delete_run,
        &store.sql.deliveries,
        &store.sql.delayed,
    ] {
        let mut statement = other.prepare(&format!("EXPLAIN QUERY PLAN {query}")).expect("prepares");
        let count = statement.parameter_count();
        let parameters = rusqlite::params_from_iter(std::iter::repeat_n(1, count));
        let plan: Vec<String> = statement
            .query_map(parameters, |row| row.get(3))
            .expect("explains")
            .map(|line| line.expect("a line"))
            .collect();
        let plan = plan.join("; ");
        assert!(!plan.contains("TEMP B-TREE"), "{query}: {plan}");
        assert!(!plan.contains("SCAN") || plan.contains("mq_data_due"), "{query}: {plan}");
    }
    let mut statement = other.prepare(&format!("EXPLAIN QUERY PLAN {}", store.sql.channels)).expect("prepares");
    let plan: String = statement.query_row([], |row| row.get(3)).expect("explains");
    assert!(plan.contains("COVERING INDEX"), "{plan}");
}

#[test]
fn a_table_that_the_php_broker_filled_is_completed_and_drained() {
    let file = File::new();
    file.other()
        .execute_batch(
            "CREATE TABLE mq_data (data_id bigint(20) NOT NULL, channel varchar(100) DEFAULT NULL, data longtext,
                created datetime DEFAULT NULL, PRIMARY KEY (data_id));
            INSERT INTO mq_data VALUES (5, 'sms', '{\"receiver\":\"0812\"}', '2025-11-22 08:26:40'), (6, 'sms', NULL, NULL),
                (7, 'sms', 42, 'yesterday'), (8, NULL, '1', NULL), (9, '', '1', NULL), (-1, 'sms', '1', NULL),
                (10, 'sms', CAST(x'ff00' AS TEXT), NULL);",
        )
        .expect("an old table");
    let mut store = file.open();
    let summary = store.summary(Timestamp(0)).expect("summary");
    let sms = ChannelSummary { channel: channel("sms"), messages: 4, last: MessageId(10) };
    assert_eq!((summary.channels, summary.last_id, summary.clean), (vec![sms], MessageId(10), true));
    let page = all(&mut store);
    assert_eq!(ids(&page), [5, 6, 7, 10]);
    assert_eq!(page.messages[0].created, Timestamp(1_763_800_000_000));
    let texts: Vec<_> = page.messages.iter().map(|message| message.payload.as_text()).collect();
    assert_eq!(texts, [Some("{\"receiver\":\"0812\"}"), Some("null"), Some("42"), None]);
    let group = Group {
        appends: vec![message(11, "{\"receiver\":\"1\"}")],
        removals: page.messages.iter().map(|message| message.id).collect(),
        ..Group::default()
    };
    store.commit(&group).expect("commits");
    assert_eq!(ids(&all(&mut store)), [11]);
}

#[test]
fn rows_are_the_same_however_many_go_by_one_statement() {
    let file = File::new();
    let mut store = file.open();
    let batch = limits::STORE_ROWS_AT_ONCE as u64;
    let (mut next, mut expected) = (1, Vec::new());
    for count in [1, batch - 1, batch, batch + 1, 3 * batch + 2] {
        for filler in [0, limits::STORE_BYTES_AT_ONCE] {
            let mut group = Group::default();
            for id in next..next + count {
                let text = format!("{{\"receiver\":\"{id}\",\"filler\":\"{}\"}}", "x".repeat(filler));
                let mut message = message(id, &text);
                message.deliveries = u32::from(id % 2 == 0);
                message.receivers = (id % 3 == 0).then_some(3);
                message.publication = (id % 5 == 0).then(|| PublicationId::new("", &id.to_string()));
                group.appends.push(message);
            }
            next += count;
            store.commit(&group).expect("commits");
            expected.extend(group.appends);
        }
    }
    let found = store.load(&channel("sms"), MessageId(0), 10_000, usize::MAX).expect("loads");
    assert!(found.messages == expected, "the rows that were read are not those that were written");
    let wrong = "SELECT count(*) FROM mq_data WHERE receiver IS NOT CAST(data_id AS TEXT) OR sent_at IS NOT NULL";
    assert_eq!(file.other().query_row(wrong, [], |row| row.get(0)), Ok(0));
}

#[test]
fn only_the_rows_that_are_named_are_removed() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..40, "a")).expect("commits");
    let removals = [3, 5, 6, 7, 30, 9, 10, 31, 32, 39, 100, 101, u64::MAX].map(MessageId).to_vec();
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
    let left: Vec<u64> = (1..40).filter(|id| ![3, 5, 6, 7, 9, 10, 30, 31, 32, 39].contains(id)).collect();
    assert_eq!(ids(&all(&mut store)), left);
}

#[test]
fn user_defined_columns_can_be_queried() {
    let file = File::new();
    let mut store = file.open();
    let group = Group {
        appends: vec![
            message(1, r#"{"receiver":"0812","time":1763800000}"#),
            message(2, "no JSON"),
            message(3, r#"{"time":[1]}"#),
        ],
        ..Group::default()
    };
    store.commit(&group).expect("commits");
    let other = file.other();
    let mut statement = other
        .prepare("SELECT quote(receiver) || ' ' || quote(sent_at) FROM mq_data ORDER BY data_id")
        .expect("prepares");
    let rows: Vec<String> =
        statement.query_map([], |row| row.get(0)).expect("queries").map(|row| row.expect("a row")).collect();
    assert_eq!(rows, ["'0812' 1763800000", "NULL NULL", "NULL '[1]'"]);
}

#[test]
fn what_is_not_our_table_or_too_new_is_refused_by_name() {
    let file = File::new();
    file.other().execute_batch("CREATE TABLE mq_data (data_id INTEGER PRIMARY KEY, channel TEXT)").expect("a table");
    let error = file.try_open().expect_err("no message table");
    assert!(matches!(error, StoreError::Schema { column: "data", .. }), "{error}");

    let file = File::new();
    drop(file.open());
    file.other().execute("UPDATE mq_meta SET value = 99 WHERE name = 'layout'", []).expect("updates");
    let error = file.try_open().expect_err("too new");
    assert!(matches!(error, StoreError::Newer { found: 99, known: 1, .. }), "{error}");

    let file = File::new();
    std::fs::write(file.path(), vec![b'x'; 8_192]).expect("writes");
    let error = file.try_open().expect_err("no database");
    assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
}

#[test]
fn two_brokers_never_share_a_store() {
    let file = File::new();
    let first = file.open();
    assert!(matches!(file.try_open(), Err(StoreError::Locked { .. })));
    drop(first);
    file.open();
}

#[test]
fn a_stop_is_clean_only_if_it_was_marked() {
    let file = File::new();
    let clean = |store: &mut SqliteStore| store.summary(Timestamp(0)).expect("summary").clean;
    let mut store = file.open();
    assert!(clean(&mut store), "a new store");
    store.commit(&append(1..4, "1")).expect("commits");
    drop(store);
    let mut store = file.open();
    assert!(!clean(&mut store), "after a crash");
    assert_eq!(ids(&all(&mut store)), [1, 2, 3]);
    store.mark_clean().expect("marks");
    drop(store);
    assert!(clean(&mut file.open()), "after a stop");
    assert!(!clean(&mut file.open()), "opening takes the mark away");
}

#[test]
fn a_full_file_takes_nothing_of_a_group_and_recovers() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..3, "kept")).expect("commits");
    let pages = |store: &mut SqliteStore, pages: i64| {
        store
            .run(|connection, _, _| connection.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())))
            .expect("a pragma");
    };
    pages(&mut store, 20);
    let large = "x".repeat(10_000);
    let error = store.commit(&append(3..40, &large)).expect_err("full");
    assert!(matches!(error, StoreError::Full { .. }), "{error}");
    assert!(matches!(store.check(), Err(StoreError::Full { .. })), "a check must not be content with a page");
    assert_eq!(ids(&all(&mut store)), [1, 2]);
    store.commit(&Group { removals: vec![MessageId(1)], ..Group::default() }).expect("removing needs no room");
    pages(&mut store, 1_000_000);
    store.check().expect("room again");
    store.commit(&append(3..40, &large)).expect("room again");
    assert_eq!(all(&mut store).messages.len(), 38);
}

#[test]
fn a_file_keeps_to_its_maximum_size_and_takes_rows_again_when_others_are_removed() {
    let file = File::new();
    let most = 400_000;
    let mut store =
        SqliteStore::open(&file.path(), &prefix(), &Columns::default(), SizeLimit::Bytes(most)).expect("opens");
    let large = "x".repeat(10_000);
    let mut accepted = 0;
    let error = loop {
        match store.commit(&append(accepted + 1..accepted + 2, &large)) {
            Ok(()) => accepted += 1,
            Err(error) => break error,
        }
        assert!(accepted < 100, "nothing is refused");
    };
    assert!(matches!(error, StoreError::OverBudget { .. }), "{error}");
    assert!(matches!(store.check(), Err(StoreError::OverBudget { .. })), "a ping tells the truth");
    assert_eq!(all(&mut store).messages.len() as u64, accepted, "nothing of a refused group");
    assert!((20..40).contains(&accepted), "{accepted} messages of 10 KB in 400 KB");
    let swap = Group { removals: vec![MessageId(1), MessageId(2)], ..append(50..51, &large) };
    store.commit(&swap).expect("room is made within the group");
    let removals = (3..=14).map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("removals are never refused");
    store.check().expect("room again");
    store.commit(&append(60..63, &large)).expect("free pages are used again");
    let size = std::fs::metadata(file.path()).expect("a file").len();
    assert!(size <= 2 * most, "{size} bytes");
}

#[test]
fn new_rows_are_refused_while_the_disk_is_low_unless_the_file_has_free_pages() {
    const TOTAL: u64 = 100 << 20;
    let file = File::new();
    let mut store = file.open();
    let set = |store: &mut SqliteStore, measure: fn(&Path) -> Option<Space>| store.room = Room::on_disk(measure);
    let large = "x".repeat(100_000);
    set(&mut store, |_| Some(Space { total: TOTAL, free: TOTAL / 20 }));
    store.commit(&append(1..61, &large)).expect("the reserve is untouched");
    set(&mut store, |_| Some(Space { total: TOTAL, free: TOTAL / 20 - 1 }));
    let low = |result| matches!(result, Err(StoreError::LowDisk { free, .. }) if free == TOTAL / 20 - 1);
    assert!(low(store.commit(&append(61..62, &large))) && low(store.check()));
    let removals = (1..=59).map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("removals are never refused");
    set(&mut store, |_| Some(Space { total: TOTAL, free: 0 }));
    store.commit(&append(61..62, &large)).expect("the free pages are more than the reserve");
}

#[test]
fn a_locked_file_is_busy_until_it_is_released() {
    let file = File::new();
    let mut store = file.open();
    let other = file.other();
    other.execute_batch("BEGIN EXCLUSIVE").expect("locks");
    for result in [store.commit(&append(1..2, "1")), store.check()] {
        assert!(matches!(result, Err(StoreError::Busy { .. })));
    }
    other.execute_batch("COMMIT").expect("releases");
    store.commit(&append(1..2, "1")).expect("released");
    assert_eq!(ids(&all(&mut store)), [1]);
}

#[test]
fn a_store_that_was_read_only_can_be_written_again() {
    let file = File::new();
    let mut store = file.open();
    store.run(|connection, _, _| connection.pragma_update(None, "query_only", true)).expect("a pragma");
    assert!(matches!(store.commit(&append(1..2, "1")), Err(StoreError::ReadOnly { .. })));
    // The cause was in the connection: the store opens a new one.
    store.commit(&append(1..2, "1")).expect("writable");
    assert_eq!(ids(&all(&mut store)), [1]);
}

#[test]
fn damage_while_running_is_reported_and_a_good_file_is_taken_up_again() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..500, &"x".repeat(200))).expect("commits");
    store.mark_clean().expect("everything is in the one file");
    let good = std::fs::read(file.path()).expect("reads");
    let mut bad = good.clone();
    bad[0..good.len()].fill(0x5a);
    std::fs::write(file.path(), &bad).expect("damages");
    // Bypasses the page cache and the write-ahead log.
    store.link.failed(&StoreError::Unavailable { place: String::new(), detail: String::new() });
    for _ in 0..2 {
        let error = store.commit(&append(500..501, "1")).expect_err("damaged");
        assert!(matches!(error, StoreError::Damaged { .. }), "{error}");
    }
    std::fs::write(file.path(), &good).expect("puts back");
    store.commit(&append(500..501, "1")).expect("works again");
    assert_eq!(all(&mut store).messages.len(), 500);
}

#[cfg(unix)]
#[test]
fn a_file_that_was_moved_away_is_noticed_and_made_anew() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..2, "1")).expect("commits");
    std::fs::rename(file.path(), file.directory.path().join("away.db")).expect("moves");
    let error = store.commit(&append(2..3, "1")).expect_err("nobody would find it there");
    assert!(error.to_string().contains("moved"), "{error}");
    store.commit(&append(3..4, "1")).expect("a new file");
    assert_eq!(ids(&all(&mut store)), [3]);
    let away = Connection::open(file.directory.path().join("away.db")).expect("opens");
    let kept: i64 = away.query_row("SELECT count(*) FROM mq_data", [], |row| row.get(0)).expect("counts");
    assert_eq!(kept, 1, "what was stored is in the file that was moved");
}

#[test]
fn a_drained_store_gives_its_space_back() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..3_000, &"x".repeat(8_000))).expect("commits");
    store
        .run(|connection, _, _| connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())))
        .expect("checkpoint");
    let size = || std::fs::metadata(file.path()).expect("is there").len();
    let full = size();
    let removals = (1..3_000).map(MessageId).collect();
    store.commit(&Group { removals, ..Group::default() }).expect("commits");
    for _ in 0..3 {
        store.maintain().expect("tends");
    }
    let left = size();
    assert!(full > 20 << 20 && left < 6 << 20, "{full} -> {left}");
}

#[test]
fn publications_are_found_from_the_newest_back() {
    let file = File::new();
    let mut store = file.open();
    let publish = |id: u64, name: Option<&str>| Message {
        created: Timestamp(1_000_000 + id * 10_000),
        publication: name.map(|name| PublicationId::new("user", name)),
        ..message(id, "1")
    };
    let appends = vec![
        publish(1, Some("old")),
        publish(2, Some("a")),
        publish(3, Some("a")),
        publish(4, None),
        publish(5, Some("b")),
        // An imported row, or a dead letter: an old row with the highest id.
        Message { created: Timestamp(5_000), ..publish(6, Some("imported")) },
    ];
    store.commit(&Group { appends, ..Group::default() }).expect("commits");
    let found = store.summary(Timestamp(1_020_500)).expect("summary").publications;
    let names: Vec<_> = found.iter().map(|it| (it.id.id(), it.created.0, it.rows.len())).collect();
    assert_eq!(names, [("a", 1_030_000, 2), ("b", 1_050_000, 1)]);
    assert!(store.summary(Timestamp(u64::MAX)).expect("summary").publications.is_empty());
}

#[test]
fn a_stopped_store_is_in_the_hands_of_a_tool_and_a_running_one_is_not() {
    let file = File::new();
    let settings = |url: &str, prefix: &str| StoreSettings {
        url: url.to_owned(),
        prefix: prefix.to_owned(),
        ..StoreSettings::default()
    };
    let url = format!("sqlite:{}", file.path().display());
    let open = || StoppedStore::open(&settings(&url, "mq_"));
    assert!(matches!(open(), Err(StoreError::Missing { .. })));
    assert!(!file.path().exists(), "a tool makes no store");
    let mut store = file.open();
    let mut group = append(1..6, "é");
    group.appends[2].due = Some(Timestamp(9));
    store.commit(&group).expect("commits");
    let holder = Some(format!("process {}", std::process::id()));
    assert_eq!(inspect(&settings(&url, "mq_")).expect("looks").holder, holder);
    assert!(matches!(open(), Err(StoreError::Served { holder: of, .. }) if of == holder));
    store.mark_clean().expect("marks");
    drop(store);
    assert_eq!(inspect(&settings(&url, "mq_")).expect("looks").holder, None);

    let mut tool = open().expect("opens");
    assert!(matches!(StoreLock::take(&file.path()), Err(StoreError::Locked { .. })), "no broker starts meanwhile");
    let info = tool.channels().expect("lists");
    assert_eq!((info[0].messages, info[0].bytes, info[0].oldest), (5, 10, Timestamp(1_763_800_000_000)));
    for (limit, expected, complete) in
        [(2, vec![1, 2], false), (3, vec![1, 2, 3], false), (5, vec![1, 2, 3, 4, 5], true)]
    {
        let page = tool.peek(&channel("sms"), limit).expect("peeks");
        assert_eq!((ids(&page), page.complete), (expected, complete), "{limit}");
    }
    assert_eq!(tool.purge(&channel("sms")), Ok(5));
    assert!(
        tool.channels().expect("lists").is_empty() && tool.peek(&channel("sms"), 9).expect("peeks").messages.is_empty()
    );
    drop(tool);
    assert!(file.open().summary(Timestamp(0)).expect("summary").clean, "it was stopped in order, and still is");
    assert!(matches!(StoppedStore::open(&settings(&url, "other_")), Err(StoreError::Missing { .. })));
    assert!(StoppedStore::open(&settings("memory:", "mq_")).is_err());
}

#[test]
fn rows_that_are_no_messages_do_not_end_a_scan() {
    let file = File::new();
    let mut store = file.open();
    store.commit(&append(1..7, "null")).expect("commits");
    file.other().execute("UPDATE mq_data SET channel = NULL WHERE data_id < 5", []).expect("updates");
    let page = store.scan(MessageId(0), 1, wsmb_core::limits::PAGE_BYTES).expect("scans");
    assert_eq!((ids(&page), page.complete), (vec![5], false));
    let page = store.scan(MessageId(5), 1, wsmb_core::limits::PAGE_BYTES).expect("scans");
    assert_eq!((ids(&page), page.complete), (vec![6], true));
}
