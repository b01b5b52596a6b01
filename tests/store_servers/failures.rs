//! What a server can refuse: each case is a clear sentence, and the store works again when the cause is gone.

use wsmb_core::message::{Message, MessageId, Payload};
use wsmb_store::{StoreError, StoreSettings};

use crate::servers::{Database, Kind, Options, Server};
use crate::{appends, assert_says, ids, message, open, refusal, removals, texts};

/// How to spoil a database, and what is said then.
struct Case {
    name: &'static str,
    spoil: fn(&Server, &Database) -> StoreSettings,
    is: fn(&StoreError) -> bool,
    says: [&'static str; 3],
}

fn denied(error: &StoreError) -> bool {
    matches!(error, StoreError::Denied { .. })
}

const CASES: [Case; 5] = [
    Case {
        name: "a wrong password",
        spoil: |_, database| StoreSettings { password: Some("wrong".to_owned()), ..database.settings() },
        is: denied,
        says: ["refuses the broker", "password", "store.password_file"],
    },
    Case {
        name: "no password",
        spoil: |_, database| StoreSettings { password: None, ..database.settings() },
        is: denied,
        says: ["refuses the broker", "password", "store.password_file"],
    },
    Case {
        name: "an unknown user",
        spoil: |_, database| {
            let url = database.url().replacen(&format!("{}@", database.name), "nobody@", 1);
            StoreSettings { url, ..database.settings() }
        },
        is: denied,
        says: ["refuses the broker", "nobody", "store.url"],
    },
    Case {
        name: "an unknown database",
        spoil: |_, database| {
            let url = database.url().replace(&format!("/{}", database.name), "/nowhere");
            StoreSettings { url, ..database.settings() }
        },
        is: denied,
        says: ["refuses the broker", "nowhere", "store.url"],
    },
    Case {
        name: "nothing that listens",
        spoil: |_, database| {
            // A listener of our own keeps the port from anybody else's until its place is refused.
            let gone = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
            StoreSettings { url: database.url_at(gone), ..database.settings() }
        },
        is: |error| matches!(error, StoreError::Unreachable { .. }) && error.is_outage(),
        says: ["can't be reached", "refused", "check that it runs"],
    },
];

#[test]
fn whatever_keeps_a_database_from_being_opened_is_told() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        for case in &CASES {
            let database = server.database();
            let error = refusal(&(case.spoil)(server, &database));
            assert!((case.is)(&error), "{} on {kind:?}: {error:?}", case.name);
            assert_says(&error, &database, &case.says);
        }
    }
}

#[test]
fn rights_that_are_missing_are_named() {
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
        assert!(denied(&error), "{error:?}");
        assert_says(&error, &database, &["refuses the broker", "denied", "mq_", "rights"]);
    }
}

#[test]
fn a_server_that_is_read_only_is_told_and_works_again_when_it_is_not() {
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
        assert_eq!(ids(&mut *store, "sms"), [1], "it can still be read");
        server.read_only(false);
        store.commit(&appends(vec![message(2, "2")])).expect("stored");
        assert_eq!(ids(&mut *store, "sms"), [1, 2]);
    }
}

#[test]
fn a_row_that_is_too_large_for_the_server_is_refused_alone() {
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
        // Together they are too large for one statement; each by itself is not.
        store.commit(&appends((10..20).map(|id| large(id, 300 << 10)).collect())).expect("in several statements");
        store.commit(&appends(vec![large(20, 1_000_000)])).expect("as large as it may be");
        assert_eq!(ids(&mut *store, "sms"), (10..=20).collect::<Vec<_>>());
    }
}

#[test]
fn a_full_disk_is_told_and_works_again_when_there_is_room() {
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
        // Where mounting is not permitted, PostgreSQL meets a limit that it has no name for.
        assert!(matches!(&error, StoreError::Full { .. }) || !server.has_small_disk(), "{error:?}");
        store.commit(&removals(&[stored])).expect("what frees room is done");
        server.make_room();
        let last = stored + 100;
        store.commit(&appends(vec![message(last, &text)])).expect("there is room again");
        let page = store.load(&crate::channel("sms"), MessageId(stored - 1), 9, crate::ALL).expect("a page");
        assert_eq!(page.messages.iter().map(|it| it.id.0).collect::<Vec<_>>(), [last], "a part of a group");
    }
}

#[test]
fn a_database_of_another_character_set_loses_nothing() {
    let kind = Kind::Postgres;
    let server = Server::shared(kind);
    for encoding in ["LATIN1", "SQL_ASCII"] {
        let database = server.database_with(&format!("ENCODING '{encoding}' TEMPLATE template0"));
        let mut store = match wsmb_store::open(&database.settings()) {
            Ok(store) => store,
            // A refusal that says why is as good.
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
fn passwords_with_every_character_work_in_the_url_and_beside_it() {
    for kind in Kind::all() {
        let database = Server::shared(kind).database();
        drop(open(&database.settings()));
        drop(open(&StoreSettings { url: database.url_with_password(), password: None, ..database.settings() }));
        let wrong_in_url = database.url_with_password().replacen("%74", "%75", 1);
        drop(open(&StoreSettings { url: wrong_in_url, ..database.settings() }));
    }
}
