//! Failures of a server: each has its own error, and the store works again when the cause is gone.

use wsmb_core::message::{Message, MessageId, Payload};
use wsmb_store::{StoreError, StoreSettings};

use crate::servers::{Database, Kind, Options, Server};
use crate::{appends, assert_says, ids, message, open, refusal, removals, texts};

/// A reason why a database cannot be opened, and the expected error.
struct Case {
    name: &'static str,
    settings: fn(&Server, &Database) -> StoreSettings,
    is_expected: fn(&StoreError) -> bool,
    says: [&'static str; 3],
}

fn is_denied(error: &StoreError) -> bool {
    matches!(error, StoreError::Denied { .. })
}

const CASES: [Case; 5] = [
    Case {
        name: "a wrong password",
        settings: |_, database| StoreSettings { password: Some("wrong".to_owned()), ..database.settings() },
        is_expected: is_denied,
        says: ["refuses the broker", "password", "store.password_file"],
    },
    Case {
        name: "no password",
        settings: |_, database| StoreSettings { password: None, ..database.settings() },
        is_expected: is_denied,
        says: ["refuses the broker", "password", "store.password_file"],
    },
    Case {
        name: "an unknown user",
        settings: |_, database| {
            let url = database.url().replacen(&format!("{}@", database.name), "nobody@", 1);
            StoreSettings { url, ..database.settings() }
        },
        is_expected: is_denied,
        says: ["refuses the broker", "nobody", "store.url"],
    },
    Case {
        name: "an unknown database",
        settings: |_, database| {
            let url = database.url().replace(&format!("/{}", database.name), "/nowhere");
            StoreSettings { url, ..database.settings() }
        },
        is_expected: is_denied,
        says: ["refuses the broker", "nowhere", "store.url"],
    },
    Case {
        name: "nothing that listens",
        settings: |_, database| {
            // The port of a closed listener.
            let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
            StoreSettings { url: database.url_at(gone), ..database.settings() }
        },
        is_expected: |error| matches!(error, StoreError::Unreachable { .. }) && error.is_outage(),
        says: ["can't be reached", "refused", "check that it runs"],
    },
];

#[test]
fn each_reason_why_a_database_cannot_be_opened_is_reported() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        for case in &CASES {
            let database = server.database();
            let error = refusal(&(case.settings)(server, &database));
            assert!((case.is_expected)(&error), "{} on {kind:?}: {error:?}", case.name);
            assert_says(&error, &database, &case.says);
        }
    }
}

#[test]
fn missing_rights_are_named() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        drop(open(&database.settings()));
        let name = &database.name;
        server.sql_in(
            Some(&database),
            &kind.pick(
                format!(
                    "REVOKE ALL ON {name}.* FROM {name}@'127.0.0.1'; GRANT SELECT ON {name}.* TO {name}@'127.0.0.1'"
                ),
                "ALTER TABLE mq_meta OWNER TO CURRENT_USER; ALTER TABLE mq_data OWNER TO CURRENT_USER".to_owned(),
            ),
        );
        let error = refusal(&database.settings());
        assert!(is_denied(&error), "{error:?}");
        assert_says(&error, &database, &["refuses the broker", "denied", "mq_", "rights"]);
    }
}

#[test]
fn a_read_only_server_is_reported_and_works_when_it_is_writable_again() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        store.commit(&appends(vec![message(1, "1")])).expect("stored");
        server.read_only(true);
        let error = store.commit(&appends(vec![message(2, "2")])).expect_err("read-only");
        assert!(matches!(&error, StoreError::ReadOnly { .. }), "{error:?}");
        assert_says(&error, &database, &["read-only", &database.name]);
        assert!(matches!(store.check(), Err(StoreError::ReadOnly { .. })));
        assert_eq!(ids(&mut *store, "sms"), [1], "reading must work");
        server.read_only(false);
        store.commit(&appends(vec![message(2, "2")])).expect("stored");
        assert_eq!(ids(&mut *store, "sms"), [1, 2]);
    }
}

#[test]
fn only_the_row_that_is_too_large_is_refused() {
    for kind in Kind::all().into_iter().filter(|kind| kind.is_mysql()) {
        let settings = vec!["max_allowed_packet=1M".to_owned()];
        let server = Server::start_with(kind, Options { settings, ..Options::default() });
        let database = server.database();
        let mut store = open(&database.settings());
        let large = |id, size| Message { payload: Payload::text("x".repeat(size)), ..message(id, "") };
        let error =
            store.commit(&appends(vec![message(1, "1"), large(2, 2 << 20), message(3, "3")])).expect_err("too large");
        assert!(matches!(&error, StoreError::Unfit { ids, .. } if *ids == [MessageId(2)]), "{error:?}");
        assert_says(&error, &database, &["1 message", "max_allowed_packet", "1048576", "raise"]);
        // Together these rows are too large for one statement.
        store.commit(&appends((10..20).map(|id| large(id, 300 << 10)).collect())).expect("in several statements");
        store.commit(&appends(vec![large(20, 1_000_000)])).expect("the largest row");
        assert_eq!(ids(&mut *store, "sms"), (10..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_disk_is_reported_and_the_store_works_again_with_space() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.small_database();
        let mut store = open(&database.settings());
        store.commit(&appends(vec![message(1, "1")])).expect("stored");
        server.fill_disk();
        let text = crate::servers::noise(2_000);
        let mut stored = 1;
        let error = loop {
            let group = appends((stored + 1..=stored + 50).map(|id| message(id, &text)).collect());
            match store.commit(&group) {
                Ok(()) => stored += 50,
                Err(error) => break error,
            }
            assert!(stored < 100_000, "the disk is not full");
        };
        assert_says(&error, &database, &[&database.name]);
        // Without a small disk, PostgreSQL reports a limit of file sizes, which is not `Full`.
        assert!(matches!(&error, StoreError::Full { .. }) || !server.has_small_disk(), "{error:?}");
        store.commit(&removals(&[stored])).expect("removals work on a full disk");
        server.make_room();
        let last = stored + 100;
        store.commit(&appends(vec![message(last, &text)])).expect("stored");
        let page = store.load(&crate::channel("sms"), MessageId(stored - 1), 9, crate::ALL).expect("a page");
        assert_eq!(page.messages.iter().map(|it| it.id.0).collect::<Vec<_>>(), [last], "a part of a group was stored");
    }
}

#[test]
fn a_database_with_another_character_set_loses_no_text() {
    let kind = Kind::Postgres;
    let server = Server::shared(kind);
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = server.database_with(&format!("ENCODING '{encoding}' TEMPLATE template0"));
        let mut store = match wsmb_store::open(&database.settings()) {
            Ok(store) => store,
            // A refusal with the reason is acceptable too.
            Err(error) => {
                assert_says(&error, &database, &["UTF8", &database.name]);
                continue;
            }
        };
        let sent = ["1", "\"é\"", "\"😀 日本\""];
        store.commit(&appends(sent.iter().zip(1..).map(|(text, id)| message(id, text)).collect())).expect("stored");
        let came: Vec<serde_json::Value> =
            texts(&mut *store, "sms").iter().map(|text| serde_json::from_str(text).expect("JSON")).collect();
        assert_eq!(came, sent.map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON")), "{encoding}");
    }
}

#[test]
fn passwords_with_special_characters_work_in_the_url_and_separately() {
    for kind in Kind::all() {
        let database = Server::shared(kind).database();
        drop(open(&database.settings()));
        drop(open(&StoreSettings { url: database.url_with_password(), password: None, ..database.settings() }));
        let wrong_in_url = database.url_with_password().replacen("%74", "%75", 1);
        drop(open(&StoreSettings { url: wrong_in_url, ..database.settings() }));
    }
}
