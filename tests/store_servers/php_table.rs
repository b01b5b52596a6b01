//! The message table of the PHP broker: used without changes, drained correctly, and still usable for the PHP broker.

use serde_json::Value;
use wsmb_core::message::{Kind as PayloadKind, MessageId, Payload, PublicationId, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{Group, StoppedStore, StoreError, Tools as _};

use crate::servers::{Database, Kind, Server};
use crate::{ALL, appends, assert_says, channel, ids, message, open, refusal, removals, texts};

/// The table in the documentation of the PHP broker.
const TABLE: &str = "CREATE TABLE mq_data (
  data_id bigint(20) NOT NULL AUTO_INCREMENT, channel varchar(100) DEFAULT NULL, data longtext,
  created datetime DEFAULT NULL, PRIMARY KEY (data_id), KEY channel (channel)
) ENGINE=InnoDB DEFAULT CHARSET=latin1";

fn kinds() -> Vec<Kind> {
    Kind::all().into_iter().filter(|kind| kind.is_mysql()).collect()
}

/// Creates the table with rows that the PHP broker, a person or another program may have inserted.
fn filled(server: &Server) -> Database {
    let database = server.database();
    server.sql_in(
        Some(&database),
        &format!(
            r#"SET SESSION sql_mode = ''; {TABLE};
            INSERT INTO mq_data (data_id, channel, data, created) VALUES
            (3, 'sms', '{{"message":"caf\\u00e9 \\ud83d\\ude00"}}', '2025-11-22 08:26:40'),
            (5, 'SMS', '"upper"', '2025-11-22 08:26:41'),
            (6, 'sms ', '"blank"', '2025-11-22 08:26:41'),
            (7, 'sms', '{{"path":"C:\\\\temp\\\\new","quote":"\\"it''s\\""}}', '2025-11-22 08:26:42'),
            (8, 'sms', 'not JSON: caf', '0000-00-00 00:00:00'),
            (9, 'sms', NULL, NULL),
            (10, NULL, '"nowhere"', '2025-11-22 08:26:43'),
            (11, '', '"nowhere, too"', '2025-11-22 08:26:43'),
            (12, 'sms', '"é €"', '2025-11-22 08:26:44'),
            (13, 'sms', '', '2025-02-00 00:00:00'),
            (14, 'Straße', '1', '2025-11-22 08:26:44'),
            (15, 'sms', '{{"a":1}}', '9999-12-31 23:59:59')"#
        ),
    );
    database
}

fn definition(server: &Server, database: &Database) -> String {
    server.sql_in(Some(database), "SHOW CREATE TABLE mq_data")
}

/// The value that a reader in PHP gets: the text in the connection's character set, decoded as JSON.
fn php_reads(server: &Server, database: &Database, id: u64) -> Value {
    let text = server.sql_in(Some(database), &format!("SELECT data FROM mq_data WHERE data_id = {id}"));
    let text = text.strip_suffix('\n').expect("a row");
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
}

#[test]
fn the_php_table_is_drained_in_order_and_never_altered() {
    for kind in kinds() {
        let server = Server::shared(kind);
        let database = filled(server);
        let before = definition(server, &database);
        let mut store = open(&database.settings());
        let summary = store.summary(Timestamp(0)).expect("a summary");
        let channels: Vec<_> =
            summary.channels.iter().map(|it| (it.channel.as_str(), it.messages, it.last.0)).collect();
        assert_eq!(channels, [("SMS", 1, 5), ("Straße", 1, 14), ("sms", 7, 15), ("sms ", 1, 6)]);
        assert_eq!((summary.last_id, summary.clean), (MessageId(15), true));
        assert!(summary.delayed.is_empty() && summary.publications.is_empty());

        assert_eq!(ids(&mut *store, "sms"), [3, 7, 8, 9, 12, 13, 15]);
        let expected = [
            r#"{"message":"caf\u00e9 \ud83d\ude00"}"#,
            r#"{"path":"C:\\temp\\new","quote":"\"it's\""}"#,
            "not JSON: caf",
            "null",
            "\"é €\"",
            "",
            r#"{"a":1}"#,
        ];
        assert_eq!(texts(&mut *store, "sms"), expected);
        for (name, text) in [("SMS", "\"upper\""), ("sms ", "\"blank\""), ("Straße", "1")] {
            assert_eq!(texts(&mut *store, name), [text], "{name}");
        }
        let page = store.load(&channel("sms"), MessageId(0), 2, ALL).expect("a page");
        assert_eq!((page.messages[0].created, page.complete), (Timestamp(1_763_800_000_000), false));
        let page = store.load(&channel("sms"), MessageId(7), 2, ALL).expect("a page");
        assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [8, 9]);

        store.commit(&removals(&[3, 7, 8, 9, 12, 13, 15])).expect("drained");
        assert!(ids(&mut *store, "sms").is_empty());
        assert_eq!(store.purge(&channel("SMS"), MessageId(99), 10).expect("purged"), 1, "not other cases");
        drop(store);
        assert_eq!(server.sql_in(Some(&database), "SELECT data_id FROM mq_data ORDER BY 1"), "6\n10\n11\n14\n");
        assert_eq!(definition(server, &database), before);
    }
}

#[test]
fn a_reader_in_php_gets_the_sent_values() {
    for kind in kinds() {
        let server = Server::shared(kind);
        let database = filled(server);
        let mut store = open(&database.settings());
        let sent = [
            r#"{"message":"Your code is 402913"}"#,
            r#"{"message":"caf\u00e9 é 😀 مرحبا €","path":"C:\\temp\\","é":["\"'`"]}"#,
            "[1.50,true,null]",
        ];
        let messages = sent.iter().zip(20..).map(|(text, id)| message(id, text)).collect();
        store.commit(&appends(messages)).expect("stored");
        for (text, id) in sent.iter().zip(20..) {
            let value: Value = serde_json::from_str(text).expect("JSON");
            assert_eq!(php_reads(server, &database, id), value);
            let here = store.load(&channel("sms"), MessageId(id - 1), 1, ALL).expect("a page");
            assert_eq!(serde_json::from_slice::<Value>(&here.messages[0].payload.bytes).expect("JSON"), value);
        }
        let created = server.sql_in(Some(&database), "SELECT created FROM mq_data WHERE data_id = 20");
        assert_eq!(created, "2025-11-22 08:26:40\n");

        let others =
            [Payload::text("no JSON: é 😀"), Payload { bytes: vec![0, 255].into(), kind: PayloadKind::Binary }];
        let messages = others.iter().zip(30..).map(|(payload, id)| {
            let payload = payload.clone();
            wsmb_core::message::Message { payload, ..message(id, "") }
        });
        store.commit(&appends(messages.collect())).expect("stored");
        let page = store.load(&channel("sms"), MessageId(29), 10, ALL).expect("a page");
        assert_eq!(page.messages.into_iter().map(|message| message.payload).collect::<Vec<_>>(), others);
    }
}

#[test]
fn only_a_channel_outside_the_character_set_is_refused() {
    for kind in kinds() {
        let server = Server::shared(kind);
        let database = server.database();
        server.sql_in(Some(&database), &TABLE.replace("latin1", "ascii"));
        let mut store = open(&database.settings());
        let strange = wsmb_core::message::Message { channel: channel("日本"), ..message(41, "1") };
        let error = store.commit(&appends(vec![message(40, "1"), strange])).expect_err("refused");
        assert!(matches!(&error, StoreError::Unfit { ids, .. } if *ids == [MessageId(41)]), "{error:?}");
        assert_says(&error, &database, &["character set", "utf8mb4", &database.name]);
        assert!(ids(&mut *store, "日本").is_empty());
        store.commit(&appends(vec![message(40, "1")])).expect("the others");
    }
}

/// Creates the table with rows that the PHP broker writes on a server whose default is latin1: its connection has that character set, and sends UTF-8.
fn filled_over_latin1(server: &Server) -> Database {
    let database = server.database();
    server.sql_in(
        Some(&database),
        &format!(
            r#"{TABLE}; SET NAMES latin1;
            INSERT INTO mq_data (data_id, channel, data, created) VALUES
            (1, 'grün', '{{"message":"caf\\u00e9"}}', '2025-11-22 08:26:40'),
            (2, 'sms', '{{"message":"Grüße, 日本 😀 €"}}', '2025-11-22 08:26:40'),
            (3, '日本', '1', '2025-11-22 08:26:40'),
            (4, 'ÁÍÏÐÝ', '"all bytes that Windows-1252 lacks"', '2025-11-22 08:26:40'),
            (6, 'grün', '"second"', '2025-11-22 08:26:40');
            SET NAMES utf8mb4;
            INSERT INTO mq_data (data_id, channel, data, created) VALUES
            (5, 'grün', '"grün"', '2025-11-22 08:26:40'),
            (7, 'GRÜN', '"another channel"', '2025-11-22 08:26:40')"#
        ),
    );
    database
}

#[test]
fn rows_of_a_latin1_connection_are_decoded() {
    for kind in kinds() {
        let server = Server::shared(kind);
        let database = filled_over_latin1(server);
        let mut store = open(&database.settings());
        let channels = |store: &mut dyn wsmb_store::MessageStore| -> Vec<(String, u64, u64)> {
            let summary = store.summary(Timestamp(0)).expect("a summary");
            summary.channels.iter().map(|it| (it.channel.to_string(), it.messages, it.last.0)).collect()
        };
        let expected = [("GRÜN", 1, 7), ("grün", 3, 6), ("sms", 1, 2), ("ÁÍÏÐÝ", 1, 4), ("日本", 1, 3)];
        let expected = expected.map(|(name, count, last)| (name.to_owned(), count, last));
        assert_eq!(channels(&mut *store), expected, "both encodings are one channel");
        assert_eq!(ids(&mut *store, "grün"), [1, 5, 6]);
        assert_eq!(texts(&mut *store, "grün"), [r#"{"message":"caf\u00e9"}"#, "\"grün\"", "\"second\""]);
        assert_eq!(texts(&mut *store, "sms"), [r#"{"message":"Grüße, 日本 😀 €"}"#]);
        assert_eq!((ids(&mut *store, "日本"), ids(&mut *store, "ÁÍÏÐÝ")), (vec![3], vec![4]));
        let page = store.load(&channel("grün"), MessageId(0), 2, ALL).expect("a page");
        assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [1, 5]);
        assert!(!page.complete, "a page with two encodings is not the last");
        let page = store.load(&channel("grün"), MessageId(5), 2, ALL).expect("a page");
        assert_eq!((page.messages.len(), page.complete), (1, true));

        // This broker adds messages, some on channels whose names look like names in the other encoding.
        let own = ["grün", "Ã¼", "Ã\u{192}Â¼", "日本", "€", "naïve Ã"];
        let on = |(name, id): (&&str, u64)| wsmb_core::message::Message {
            channel: channel(name),
            ..message(id, "\"Ã¼\"")
        };
        store.commit(&appends(own.iter().zip(10..).map(on).collect())).expect("stored");
        drop(store);
        let mut store = open(&database.settings());
        for (name, expected) in own.iter().zip([vec![1, 5, 6, 10], vec![11], vec![12], vec![3, 13], vec![14], vec![15]])
        {
            assert_eq!(ids(&mut *store, name), expected, "{name}");
            let text = texts(&mut *store, name).pop().expect("a message");
            assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), "Ã¼", "the text on {name}");
        }

        store.commit(&removals(&[5, 12])).expect("confirmed");
        assert_eq!(ids(&mut *store, "grün"), [1, 6, 10]);
        assert_eq!(store.purge(&channel("grün"), MessageId(6), 1).expect("purged"), 1, "a purge stops at the limit");
        assert_eq!(store.purge(&channel("grün"), MessageId(6), 10).expect("purged"), 1);
        let left = server.sql_in(Some(&database), "SELECT data_id FROM mq_data ORDER BY 1");
        assert_eq!(left, "2\n3\n4\n7\n10\n11\n13\n14\n15\n", "other rows were removed");
    }
}

#[test]
fn a_tool_reads_rows_of_a_latin1_connection() {
    for kind in kinds() {
        let database = filled_over_latin1(Server::shared(kind));
        let mut tool = StoppedStore::open(&database.settings()).expect("opened");
        let channels = tool.channels().expect("counted");
        let counts: Vec<_> = channels.iter().map(|it| (it.channel.as_str(), it.messages)).collect();
        assert_eq!(counts, [("GRÜN", 1), ("grün", 3), ("sms", 1), ("ÁÍÏÐÝ", 1), ("日本", 1)]);
        let page = tool.peek(&channel("grün"), 10).expect("a page");
        assert_eq!(page.messages.iter().map(|message| message.id.0).collect::<Vec<_>>(), [1, 5, 6]);
    }
}

#[test]
fn values_without_a_column_are_omitted() {
    for kind in kinds() {
        let database = filled(Server::shared(kind));
        let mut store = open(&database.settings());
        let rich = wsmb_core::message::Message {
            expires: Some(Timestamp(1)),
            due: Some(Timestamp(2)),
            receivers: Some(3),
            publication: Some(PublicationId::new("app", "x")),
            deliveries: 4,
            ..message(40, "1")
        };
        store.commit(&appends(vec![rich])).expect("stored");
        let counts = Group { deliveries: vec![(MessageId(40), 9)], ..Group::default() };
        store.commit(&counts).expect("no harm");
        assert!(store.sweep(Timestamp(u64::MAX >> 20), 10, &Spare::default()).expect("nothing").gone.is_empty());
        let page = store.load(&channel("sms"), MessageId(39), 10, ALL).expect("a page");
        assert_eq!(page.messages, [message(40, "1")]);
    }
}

#[test]
fn marks_survive_and_ids_are_not_reused() {
    for kind in kinds() {
        let database = filled(Server::shared(kind));
        let mut store = open(&database.settings());
        store.commit(&appends(vec![message(50, "1")])).expect("stored");
        store.commit(&removals(&[50])).expect("removed");
        store.mark_clean().expect("marked");
        drop(store);
        let summary = open(&database.settings()).summary(Timestamp(0)).expect("a summary");
        assert_eq!((summary.last_id, summary.clean), (MessageId(50), true), "the last id is remembered");
        let summary = open(&database.settings()).summary(Timestamp(0)).expect("a summary");
        assert!(!summary.clean, "opening must remove the mark");
    }
}

#[test]
fn another_prefix_is_another_table_and_a_wrong_table_is_named() {
    for kind in kinds() {
        let server = Server::shared(kind);
        let database = filled(server);
        let with = |prefix: &str| wsmb_store::StoreSettings { prefix: prefix.to_owned(), ..database.settings() };
        let mut one = open(&with("mq_"));
        let mut other = open(&with("other_"));
        assert!(ids(&mut *other, "sms").is_empty() && !ids(&mut *one, "sms").is_empty());
        server.sql_in(Some(&database), "CREATE TABLE bad_data (data_id bigint, channel text, created datetime)");
        let error = refusal(&with("bad_"));
        assert!(matches!(&error, StoreError::Schema { column: "data", .. }), "{error:?}");
        assert_says(&error, &database, &["bad_data", "no column data", "store.prefix"]);
    }
}
