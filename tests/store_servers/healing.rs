//! A store without a journal, whose server or network goes away and comes back.

use std::time::{Duration, Instant};

use wsmb_store::{MessageStore, StoreError};

use crate::servers::{Kind, Mode, PATIENCE, Proxy, Server};
use crate::{appends, assert_says, ids, message, open};

/// Commits a message, with repetitions until it succeeds. Returns the first error.
#[track_caller]
fn commit(store: &mut dyn MessageStore, id: u64) -> Option<StoreError> {
    let deadline = Instant::now() + PATIENCE;
    let mut first = None;
    loop {
        match store.commit(&appends(vec![message(id, "1")])) {
            Ok(()) => return first,
            Err(error) => {
                assert!(Instant::now() < deadline, "{error}");
                first.get_or_insert(error);
            }
        }
    }
}

#[test]
fn a_server_that_was_restarted_or_killed_is_used_again() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        assert!(commit(&mut *store, 1).is_none());
        server.restart();
        assert!(commit(&mut *store, 2).is_none(), "a restart between two commits causes no error");
        server.kill_hard();
        let begun = Instant::now();
        let error = store.commit(&appends(vec![message(3, "1")])).expect_err("the server is gone");
        assert!(begun.elapsed() < Duration::from_secs(5), "the error came after {:?}", begun.elapsed());
        assert!(error.is_outage(), "{error:?}");
        assert_says(&error, &database, &["can't be reached", &database.name, "check that it runs"]);
        server.start_again();
        commit(&mut *store, 3);
        assert_eq!(ids(&mut *store, "sms"), [1, 2, 3]);
    }
}

#[test]
fn a_store_recovers_from_cut_refused_and_slow_connections() {
    for kind in Kind::all() {
        let server = Server::shared(kind);
        let database = server.database();
        let proxy = Proxy::start(server.address());
        let mut store = open(&database.settings_at(proxy.address()));
        commit(&mut *store, 1);
        for id in 2..12 {
            proxy.cut();
            commit(&mut *store, id);
        }
        proxy.set(Mode::Refuse);
        let error = store.commit(&appends(vec![message(12, "1")])).expect_err("refused");
        assert!(error.is_outage(), "{error:?}");
        proxy.set(Mode::Delay(Duration::from_millis(20)));
        commit(&mut *store, 12);
        proxy.set(Mode::Open);
        assert_eq!(ids(&mut *store, "sms"), (1..=12).collect::<Vec<_>>());
    }
}

#[test]
fn a_network_that_drops_everything_is_noticed_within_the_timeout() {
    std::thread::scope(|scope| {
        for kind in Kind::all() {
            scope.spawn(move || {
                let server = Server::shared(kind);
                let database = server.database();
                let proxy = Proxy::start(server.address());
                let mut store = open(&database.settings_at(proxy.address()));
                commit(&mut *store, 1);
                proxy.set(Mode::Stall);
                let begun = Instant::now();
                let error = store.commit(&appends(vec![message(2, "1")])).expect_err("no answer");
                assert!(matches!(&error, StoreError::Unreachable { .. }), "{error:?}");
                assert_says(&error, &database, &["no answer within"]);
                assert!(
                    begun.elapsed() < wsmb_store::limits::STORE_ANSWER + Duration::from_secs(5),
                    "{:?}",
                    begun.elapsed()
                );
                proxy.set(Mode::Open);
                commit(&mut *store, 2);
                assert_eq!(ids(&mut *store, "sms"), [1, 2]);
            });
        }
    });
}

#[test]
fn a_commit_whose_answer_was_lost_is_applied_once() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.database();
        let mut store = open(&database.settings());
        for id in 1..=20_u64 {
            std::thread::scope(|scope| {
                let cutting = scope.spawn(|| server.end_connections(&database));
                commit(&mut *store, id);
                cutting.join().expect("no panic");
            });
        }
        assert_eq!(ids(&mut *store, "sms"), (1..=20).collect::<Vec<_>>(), "{kind:?}");
    }
}

#[test]
fn a_dead_connection_of_the_broker_does_not_lock_it_out() {
    std::thread::scope(|scope| {
        for kind in Kind::all() {
            scope.spawn(move || {
                let server = Server::shared(kind);
                let database = server.database();
                let proxy = Proxy::start(server.address());
                let mut store = open(&database.settings_at(proxy.address()));
                commit(&mut *store, 1);
                proxy.forget();
                let error = store.commit(&appends(vec![message(2, "1")])).expect_err("no answer");
                assert!(matches!(&error, StoreError::Unreachable { .. }), "{error:?}");
                // The server has not noticed the dead connection yet, because its timeout is longer.
                assert!(commit(&mut *store, 2).is_none(), "{kind:?}");
                assert_eq!(ids(&mut *store, "sms"), [1, 2]);
            });
        }
    });
}
