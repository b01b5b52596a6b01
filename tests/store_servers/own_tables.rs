//! Tables that the broker creates itself.

use wsmb_core::message::{DeadLetter, MessageId, Payload, Timestamp, Why};
use wsmb_core::policy::Spare;
use wsmb_store::StoreError;

use crate::servers::{Kind, Server};
use crate::{appends, assert_says, channel, message, open, refusal, texts};

#[test]
fn own_tables_store_every_character_and_are_created_once() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let described = || {
            let query = kind.pick(
                "SHOW CREATE TABLE mq_data; SHOW CREATE TABLE mq_meta",
                "SELECT table_name, column_name, data_type, is_nullable FROM information_schema.columns \
                 WHERE table_schema = 'public' ORDER BY 1, 2; SELECT indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1",
            );
            server.sql_in(Some(&database), query)
        };
        let text = "é 😀 👩‍👩‍👧 مرحبا 日本";
        let unicode =
            wsmb_core::message::Message {
                channel: channel("日本😀"), payload: Payload::text(text), ..message(1, "")
            };
        open(&database.settings()).commit(&appends(vec![unicode])).expect("stored");
        let made = described();
        for name in ["data_id", "expires", "due", "receivers", "publication", "deliveries", "dead_why", "dead_reason"] {
            assert!(made.contains(name), "{name} is not in {made}");
        }
        assert!(!made.contains("latin1"), "{made}");
        let stored = server.sql_in(Some(&database), "SELECT data FROM mq_data");
        assert_eq!(stored.trim_end(), text, "an application must find the text");
        for _ in 0..2 {
            assert_eq!(texts(&mut *open(&database.settings()), "日本😀"), [text]);
            assert_eq!(described(), made, "a second start changed the tables");
        }
    }
}

#[test]
fn columns_that_an_earlier_version_did_not_have_are_added() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        open(&database.settings()).commit(&appends(vec![message(1, "1")])).expect("stored");
        let dead = ["dead_why", "dead_channel", "dead_attempts", "dead_reason"];
        let drops = dead.map(|column| format!("DROP COLUMN {column}")).join(", ");
        let earlier = format!("ALTER TABLE mq_data {drops}; DELETE FROM mq_meta WHERE name = 'dead_letters'");
        server.sql_in(Some(&database), &earlier);
        let (why, reason) = (Why::Rejected, Some("no SIM".into()));
        let letter = DeadLetter { why, channel: channel("sms"), attempts: 2, reason };
        let letter = wsmb_core::message::Message { dead: Some(Box::new(letter)), ..message(2, "2") };
        let mut store = open(&database.settings());
        store.maintain().expect("no column is missing");
        store.commit(&appends(vec![letter.clone()])).expect("stored");
        let page = store.load(&letter.channel, MessageId(0), 10, usize::MAX).expect("loads");
        assert_eq!(page.messages, [message(1, "1"), letter]);
    }
}

#[test]
fn a_missing_table_is_created_again() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        drop(open(&database.settings()));
        for lost in ["mq_data", "mq_meta"] {
            server.sql_in(Some(&database), &format!("DROP TABLE {lost}"));
            let mut store = open(&database.settings());
            store.commit(&appends(vec![message(1, "1")])).expect("stored");
            store.maintain().expect("maintained");
        }
    }
}

#[test]
fn a_newer_layout_is_refused_and_not_changed() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        open(&database.settings()).commit(&appends(vec![message(1, "1")])).expect("stored");
        server.sql_in(Some(&database), "UPDATE mq_meta SET value = '99' WHERE name = 'layout'");
        let contents = || server.sql_in(Some(&database), "SELECT * FROM mq_meta ORDER BY name; SELECT * FROM mq_data");
        let before = contents();
        let error = refusal(&database.settings());
        assert!(matches!(&error, StoreError::Newer { found: 99, .. }), "{error:?}");
        assert_says(&error, &database, &["layout 99", "newer version", &database.name]);
        assert_eq!(contents(), before);
    }
}

#[test]
fn an_existing_table_with_some_of_the_columns_is_used() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let table = kind.pick(
            "CREATE TABLE mq_data (data_id bigint PRIMARY KEY AUTO_INCREMENT, channel varchar(100), data longtext, created datetime, expires bigint)",
            "CREATE TABLE mq_data (data_id bigserial PRIMARY KEY, channel varchar(100), data text, created timestamp, expires bigint)",
        );
        let owner = kind.pick("SELECT 1".to_owned(), format!("ALTER TABLE mq_data OWNER TO {}", database.name));
        server.sql_in(Some(&database), &format!("{table}; {owner}"));
        let mut store = open(&database.settings());
        let expiring = wsmb_core::message::Message { expires: Some(Timestamp(5)), deliveries: 3, ..message(1, "1") };
        store.commit(&appends(vec![expiring, message(2, "2")])).expect("stored");
        assert_eq!(store.sweep(Timestamp(5), 10, &Spare::default()).expect("swept").gone.len(), 1);
        assert_eq!(texts(&mut *store, "sms"), ["2"]);
    }
}

#[test]
fn changes_to_a_table_in_use_are_noticed() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        store.commit(&appends(vec![message(1, "1")])).expect("stored");
        assert_eq!(texts(&mut *store, "sms"), ["1"]);
        let index = kind.pick("DROP INDEX channel ON mq_data", "DROP INDEX mq_data_channel");
        server.sql_in(Some(&database), &format!("{index}; ALTER TABLE mq_data DROP COLUMN publication"));
        assert_eq!(texts(&mut *store, "sms"), ["1"]);
        store.commit(&appends(vec![message(2, "2")])).expect("stored without the column");
        server.sql_in(Some(&database), "ALTER TABLE mq_data ADD COLUMN publication text");
        store.commit(&appends(vec![message(3, "3")])).expect("stored");
        assert_eq!(texts(&mut *store, "sms"), ["1", "2", "3"]);
        server.sql_in(Some(&database), "DROP TABLE mq_data");
        store.commit(&appends(vec![message(4, "4")])).expect("the table is created again");
        assert_eq!(texts(&mut *store, "sms"), ["4"]);
    }
}
