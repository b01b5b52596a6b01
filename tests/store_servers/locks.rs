//! The lock that allows one broker on a table, and row locks of other programs.

use std::time::{Duration, Instant};

use wsmb_core::message::MessageId;
use wsmb_store::{Group, StoreError, StoreSettings};

use crate::servers::{Kind, Mode, PATIENCE, Proxy, Server};
use crate::{appends, assert_says, ids, message, open, refusal, removals};

#[test]
fn a_second_broker_on_a_table_is_refused_with_the_holder_of_the_lock() {
    for kind in Kind::all() {
        let database = Server::shared(kind).database();
        let mut first = open(&database.settings());
        let error = refusal(&database.settings());
        assert!(matches!(&error, StoreError::Locked { holder: Some(_), .. }), "{error:?}");
        let process = format!("process {}", std::process::id());
        assert_says(
            &error,
            &database,
            &["another broker", &process, "connection", "127.0.0.1", &database.name, "stop that broker"],
        );
        let other = StoreSettings { prefix: "other_".to_owned(), ..database.settings() };
        drop(open(&other));
        first.commit(&appends(vec![message(1, "1")])).expect("the first broker is not disturbed");
        drop(first);
        assert_eq!(ids(&mut *open(&database.settings()), "sms"), [1], "the lock is released at once");
    }
}

#[test]
fn a_store_takes_its_lock_again_after_a_lost_connection_unless_another_broker_has_it() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut first = open(&database.settings());
        server.end_connections(&database);
        first.commit(&appends(vec![message(1, "1")])).expect("the store reconnects");
        assert!(matches!(refusal(&database.settings()), StoreError::Locked { .. }));

        server.end_connections(&database);
        let mut second = open_with_retries(&database.settings());
        let error = first.commit(&appends(vec![message(2, "2")])).expect_err("another broker has the lock");
        assert!(matches!(&error, StoreError::Locked { .. }), "{error:?}");
        second.commit(&appends(vec![message(3, "3")])).expect("stored");
        drop(second);
        first.commit(&appends(vec![message(2, "2")])).expect("the lock is free again");
        assert_eq!(ids(&mut *first, "sms"), [1, 2, 3]);
    }
}

/// Tries to open the store until it succeeds, because the server may need a moment to notice the end of a connection.
#[track_caller]
fn open_with_retries(settings: &StoreSettings) -> Box<dyn wsmb_store::Background> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match wsmb_store::open(settings) {
            Ok(store) => return store,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
    }
}

#[test]
fn the_lock_of_a_vanished_broker_is_released() {
    for kind in Kind::all().into_iter().filter(|kind| kind.is_mysql()) {
        let server = Server::shared(kind);
        let database = server.database();
        let proxy = Proxy::start(server.address());
        let first = open(&database.settings_at(proxy.address()));
        // As after a power cut of the broker's machine, the server gets no end of the connection.
        proxy.set(Mode::Stall);
        assert!(matches!(refusal(&database.settings()), StoreError::Locked { .. }));
        let begun = Instant::now();
        drop(open_with_retries(&database.settings()));
        assert!(begun.elapsed() < wsmb_store::limits::STORE_IDLE + Duration::from_secs(10), "{:?}", begun.elapsed());
        drop(first);
    }
}

/// Waits until a session of the database's user waits for a lock.
#[track_caller]
fn wait_until_blocked(server: &Server, kind: Kind, database: &str) {
    let query = kind.pick(
        format!("SELECT COUNT(*) FROM information_schema.innodb_trx WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id IN (SELECT id FROM information_schema.processlist WHERE user = '{database}')"),
        format!("SELECT COUNT(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND usename = '{database}'"),
    );
    let deadline = Instant::now() + PATIENCE;
    while server.sql(&query).trim() != "1" {
        assert!(Instant::now() < deadline, "no session waits for a lock\n{}", server.log_tail());
    }
}

#[test]
fn a_commit_waits_for_a_row_lock_of_another_session() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        store.commit(&appends(vec![message(1, "1"), message(2, "2")])).expect("stored");
        let mut session = server.session(&database);
        session.run("BEGIN");
        session.run("SELECT data_id FROM mq_data WHERE data_id = 1 FOR UPDATE");
        std::thread::scope(|scope| {
            let commit = scope.spawn(|| store.commit(&removals(&[1, 2])));
            wait_until_blocked(server, kind, &database.name);
            session.run("COMMIT");
            commit.join().expect("no panic").expect("removed");
        });
        assert!(ids(&mut *store, "sms").is_empty());
    }
}

#[test]
fn a_store_recovers_from_a_deadlock() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        store.commit(&appends((1..=40).map(|id| message(id, "1")).collect())).expect("stored");
        let mut session = server.session(&database);
        session.run("BEGIN");
        // InnoDB rolls back the transaction that has changed fewer rows: the store's.
        session.run("UPDATE mq_data SET created = NULL WHERE data_id > 2");
        std::thread::scope(|scope| {
            let group = Group { deliveries: vec![(MessageId(1), 9)], ..removals(&[40]) };
            let commit = scope.spawn(move || {
                let done = store.commit(&group);
                (store, done)
            });
            wait_until_blocked(server, kind, &database.name);
            session.begin("DELETE FROM mq_data WHERE data_id = 1");
            session.begin("COMMIT");
            let (mut store, done) = commit.join().expect("no panic");
            done.expect("done");
            assert!(!ids(&mut *store, "sms").contains(&40));
        });
    }
}

#[test]
fn a_row_lock_that_is_never_released_is_reported() {
    std::thread::scope(|scope| {
        for kind in Kind::all() {
            scope.spawn(move || {
                let server = Server::shared(kind);
                let database = server.database();
                let mut store = open(&database.settings());
                store.commit(&appends(vec![message(1, "1")])).expect("stored");
                let mut session = server.session(&database);
                session.run("BEGIN");
                session.run("SELECT data_id FROM mq_data WHERE data_id = 1 FOR UPDATE");
                let error = store.commit(&removals(&[1])).expect_err("the row is locked");
                assert!(matches!(&error, StoreError::Busy { .. }), "{error:?}");
                assert_says(&error, &database, &["another program has locked", &database.name]);
                drop(session);
                store.commit(&removals(&[1])).expect("removed");
            });
        }
    });
}
