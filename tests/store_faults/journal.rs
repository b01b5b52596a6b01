//! The answers and errors of a broker whose journal is full or whose database is away.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::broker::{Broker, Setup};
use crate::client::Client;
use crate::load::PATIENCE;
use crate::servers::{Kind, Server};
use crate::testbed::{Journal, Testbed};

/// The code of the answer to a `ping` command.
#[track_caller]
fn ping(client: &mut Client) -> Value {
    client.command(&json!({"command": "ping"}));
    client.next_reply()["response_code"].clone()
}

#[track_caller]
fn until(wanted: &Value, mut ask: impl FnMut() -> Value) {
    let deadline = Instant::now() + PATIENCE;
    while ask() != *wanted {
        assert!(Instant::now() < deadline, "not {wanted}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn a_ping_tells_whether_messages_are_accepted() {
    for kind in Kind::all() {
        for journal in [Journal::With, Journal::Without] {
            let testbed = Testbed::new(kind, journal);
            let mut client = Client::envelope(&testbed.broker);
            assert_eq!(ping(&mut client), "00");
            testbed.server.kill_hard();
            let (expected, answer) = match journal {
                Journal::With => ("00", "00"),
                Journal::Without => ("01", "05"),
            };
            until(&json!(expected), || ping(&mut client));
            let reply = client.request("kept", &json!([1]), &json!({"id": "a"}));
            assert_eq!(reply["response_code"], answer, "{reply}");
            assert_eq!(ping(&mut client), expected);
            testbed.server.start_again();
            until(&json!("00"), || ping(&mut client));
        }
    }
}

#[test]
fn a_full_journal_refuses_with_06_until_it_has_moved_messages() {
    let server = Server::start(Kind::MariaDb);
    let database = server.database();
    let setup = Setup::default().store("journal_max = \"1 MiB\"");
    let mut testbed = Testbed::with(server, database, Journal::With, setup);
    testbed.server.kill_hard();
    let load = testbed.load(2_000);
    load.refused(1);
    testbed.record(load);
    let publications = &testbed.history.publications;
    let codes: Vec<&str> = publications.iter().filter_map(|it| it.code.as_deref()).collect();
    assert!(codes.contains(&"00") && codes.iter().all(|code| ["00", "06"].contains(code)), "{codes:?}");
    testbed.server.start_again();
    let mut client = Client::envelope(&testbed.broker);
    let mut number = 0;
    until(&json!("00"), || {
        number += 1;
        client.request("again", &json!([number]), &json!({"id": number.to_string()}))["response_code"].clone()
    });
    testbed.check_with_refusals();
}

#[test]
fn the_first_start_needs_the_database_and_later_ones_do_not() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.database();
        let setup = Setup::default().url(&database.url_with_password());
        let dir = Arc::new(tempfile::tempdir().expect("a directory"));
        server.shut_down();
        let Err(said) = Broker::start_in(setup.clone(), dir.clone(), 0) else { panic!("the broker starts") };
        for part in ["can't be reached", database.name.as_str(), "check that it runs"] {
            assert!(said.contains(part), "{part:?} is not in: {said}");
        }
        assert!(!said.contains(&database.password), "a password is in: {said}");
        server.start_again();
        let mut broker = Broker::start_in(setup.clone(), dir.clone(), 0).unwrap_or_else(|said| panic!("{said}"));
        assert!(broker.stop().success());
        server.shut_down();
        let broker = Broker::start_in(setup, dir, 0).unwrap_or_else(|said| panic!("{said}"));
        Client::envelope(&broker).publish_safely("kept", &json!([1]), "a");
        server.start_again();
        let deadline = Instant::now() + PATIENCE;
        while server.sql_in(Some(&database), "SELECT data FROM mq_data").trim() != "[1]" {
            assert!(Instant::now() < deadline, "the message is not moved to the database\n{}", broker.log().tail());
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}
