//! Rows that a table refuses because of their values, rows of other programs with the broker's ids, and unusable tables.

use wsmb_core::message::{ChannelName, Message, MessageId, Payload, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{Columns, StoreError, StoreSettings};

use crate::servers::{Database, Kind, Server};
use crate::{ALL, appends, assert_says, channel, ids, message, open, refusal, removals, texts};

/// Creates a database with this message table.
fn with_table(kind: Kind, definition: (&str, &str)) -> Database {
    let server = Server::shared(kind);
    let database = server.database();
    let owner = kind.pick(String::new(), format!("; ALTER TABLE mq_data OWNER TO {}", database.name));
    let definition = kind.pick(definition.0, definition.1);
    server.sql_in(Some(&database), &format!("CREATE TABLE mq_data ({definition}){owner}"));
    database
}

fn with(database: &Database, pairs: &[(&str, &str)]) -> StoreSettings {
    let columns = Columns::parse(pairs.iter().copied()).expect("valid columns");
    StoreSettings { columns, ..database.settings() }
}

#[test]
fn rows_that_the_table_refuses_are_named_and_the_others_are_stored() {
    for kind in Kind::all() {
        let database = with_table(
            kind,
            (
                "data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(5), data text CHECK (data <> 'bad'), created datetime",
                "data_id bigserial PRIMARY KEY, channel varchar(5), data text CHECK (data <> 'bad'), created timestamp",
            ),
        );
        let mut store = open(&database.settings());
        let long = Message { channel: channel("longer"), ..message(20, "1") };
        let mut messages: Vec<Message> = (1..=40).map(|id| message(id, "1")).collect();
        messages[6].payload = Payload::text("bad");
        messages[30].payload = Payload::text("bad");
        messages[19] = long;
        let mut refused = Vec::new();
        while let Err(error) = store.commit(&appends(messages.clone())) {
            let StoreError::Unfit { ids, .. } = &error else { panic!("{error:?}") };
            assert_says(&error, &database, &[&database.name, "code"]);
            assert!(!error.to_string().contains("bad"), "the error contains a message: {error}");
            messages.retain(|message| !ids.contains(&message.id));
            refused.extend(ids.iter().map(|id| id.0));
        }
        refused.sort_unstable();
        assert_eq!(refused, [7, 20, 31], "{kind:?}");
        assert_eq!(ids(&mut *store, "sms").len(), 37);
    }
}

#[test]
fn a_message_is_stored_without_the_fields_that_the_table_refuses() {
    for kind in Kind::all() {
        let database = with_table(
            kind,
            (
                "data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(100), data longtext, created datetime, code varchar(9) UNIQUE, n int CHECK (n < 5), CHECK (n <> 3 OR code <> 'd')",
                "data_id bigserial PRIMARY KEY, channel text, data text, created timestamp, code varchar(9) UNIQUE, n int CHECK (n < 5), CHECK (n <> 3 OR code <> 'd')",
            ),
        );
        let mut store = open(&with(&database, &[("code", "/code"), ("n", "/n")]));
        let texts = [
            r#"{"code":"a","n":1}"#,
            r#"{"code":"a","n":2}"#,
            r#"{"code":"b","n":9}"#,
            r#"{"code":"c"}"#,
            r#"{"code":"d","n":3}"#,
        ];
        let messages = |from: u64| texts.iter().zip(from..).map(|(text, id)| message(id, text)).collect();
        store.commit(&appends(messages(1))).expect("invalid fields refuse no message");
        store.commit(&appends(messages(11))).expect("no message replaces another");
        assert_eq!(ids(&mut *store, "sms"), [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]);
        let rows =
            Server::shared(kind).sql_in(Some(&database), "SELECT data_id, code, n FROM mq_data ORDER BY data_id");
        let expected = [
            "1\ta\t1",
            "2\tNULL\t2",
            "3\tb\tNULL",
            "4\tc\tNULL",
            "5\tNULL\tNULL",
            "11\tNULL\t1",
            "12\tNULL\t2",
            "13\tNULL\tNULL",
            "14\tNULL\tNULL",
            "15\tNULL\tNULL",
        ];
        assert_eq!(rows.lines().collect::<Vec<_>>(), expected, "{kind:?}");
    }
}

#[test]
fn a_row_of_another_program_gets_another_id_and_is_not_lost() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        server.sql_in(
            Some(&database),
            "INSERT INTO mq_data (data_id, channel, data, created) VALUES \
             (2, 'sms', '\"foreign\"', '2025-11-22 08:26:40'), (3, 'SMS', '3', '2025-11-22 08:26:40'), (4, 'sms', NULL, NULL)",
        );
        let group = appends((1..=5).map(|id| message(id, &id.to_string())).collect());
        store.commit(&group).expect("stored");
        let page = store.load(&channel("sms"), MessageId(0), 100, ALL).expect("a page");
        let found: Vec<_> = page.messages.iter().map(|message| (message.id.0, message.payload.clone())).collect();
        let ours: Vec<_> = (1..=5).map(|id| (id, Payload::text(id.to_string()))).collect();
        assert_eq!(found[..5], ours);
        let moved: Vec<_> = found[5..].iter().map(|(_, payload)| payload.clone()).collect();
        assert_eq!(moved.len(), 2);
        assert!(moved.contains(&Payload::text("\"foreign\"")) && moved.contains(&Payload::text("null")));
        assert_eq!(texts(&mut *store, "SMS"), ["3"]);
        assert!(found[5].0 > wsmb_store::limits::STORE_FOREIGN_GAP, "the broker's next ids stay free");

        store.commit(&group).expect("the same group again, as after a lost answer");
        assert_eq!(ids(&mut *store, "sms").len(), 7);
    }
}

#[test]
fn expired_rows_without_a_channel_are_removed_and_do_not_block_others() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        server.sql_in(
            Some(&database),
            "INSERT INTO mq_data (data_id, channel, data, expires) VALUES (1, NULL, '1', 1), (2, '', '1', 1), (3, 'sms', '1', 2)",
        );
        assert!(store.sweep(Timestamp(9), 2, &Spare::default()).expect("swept").gone.is_empty());
        let sms = ChannelName::parse("sms").expect("a valid name");
        assert_eq!(store.sweep(Timestamp(9), 2, &Spare::default()).expect("swept").gone, [(MessageId(3), sms)]);
        store.commit(&removals(&[3])).expect("the row is already removed");
        assert_eq!(server.sql_in(Some(&database), "SELECT COUNT(*) FROM mq_data").trim(), "0");
    }
}

#[test]
fn an_unusable_table_is_refused_with_a_remedy() {
    for kind in Kind::all() {
        for (mysql, postgres, column, says) in [
            (
                "data_id bigint, channel varchar(100), data longtext, created datetime",
                "data_id bigint, channel text, data text, created timestamp",
                "data_id",
                "ADD PRIMARY KEY (data_id)",
            ),
            (
                "data_id bigint, channel varchar(100), data longtext, created datetime, PRIMARY KEY (data_id, channel)",
                "data_id bigint, channel text, data text, created timestamp, PRIMARY KEY (data_id, channel)",
                "data_id",
                "must be unique",
            ),
            (
                "data_id int PRIMARY KEY, channel varchar(100), data longtext, created datetime",
                "data_id int PRIMARY KEY, channel text, data text, created timestamp",
                "data_id",
                "needs bigint",
            ),
            (
                "data_id bigint PRIMARY KEY, channel char(100), data longtext, created datetime",
                "data_id bigint PRIMARY KEY, channel char(100), data text, created timestamp",
                "channel",
                "has the type char",
            ),
            (
                "data_id bigint PRIMARY KEY, channel varchar(100), data longtext, created datetime, due int",
                "data_id bigint PRIMARY KEY, channel text, data text, created timestamp, due int",
                "due",
                "needs bigint",
            ),
        ] {
            let database = with_table(kind, (mysql, postgres));
            let error = refusal(&database.settings());
            assert!(matches!(&error, StoreError::Column { column: found, .. } if found == column), "{error:?}");
            assert_says(&error, &database, &["mq_data", column, says, &database.name]);
        }
    }
}

#[test]
fn many_rows_with_invalid_fields_are_stored() {
    for kind in Kind::all() {
        let database = with_table(
            kind,
            (
                "data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(100), data longtext, created datetime, code varchar(3), n int",
                "data_id bigserial PRIMARY KEY, channel text, data text, created timestamp, code varchar(3), n int",
            ),
        );
        let mut store = open(&with(&database, &[("code", "/code"), ("n", "/n")]));
        let count = 2 * wsmb_store::limits::STORE_REFUSALS as u64 + 1;
        let messages = (1..=count).map(|id| message(id, &format!(r#"{{"code":"too long","n":{id}}}"#))).collect();
        store.commit(&appends(messages)).expect("invalid fields refuse no message");
        let query = "SELECT COUNT(*), SUM(n), COUNT(code) FROM mq_data";
        let row = Server::shared(kind).sql_in(Some(&database), query);
        assert_eq!(row.trim(), format!("{count}\t{}\t0", count * (count + 1) / 2), "{kind:?}");
    }
}

#[test]
fn rows_whose_blanks_a_server_would_cut_are_refused() {
    for kind in Kind::all() {
        let database = with_table(
            kind,
            (
                "data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(5), data varchar(9), created datetime",
                "data_id bigserial PRIMARY KEY, channel varchar(5), data varchar(9), created timestamp",
            ),
        );
        let mut store = open(&database.settings());
        let long_name = Message { channel: channel("sms   "), ..message(1, "1") };
        let long_text = message(2, "\"seven\"    ");
        let error = store.commit(&appends(vec![long_name, long_text, message(3, "3")])).expect_err("too long");
        assert!(matches!(&error, StoreError::Unfit { ids, .. } if *ids == [MessageId(1), MessageId(2)]), "{error:?}");
        assert_says(&error, &database, &["blanks", &database.name]);
        store.commit(&appends(vec![message(3, "3")])).expect("the other row");
    }
}
