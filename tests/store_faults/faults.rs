//! Each fault of the database or the network, on each kind of server, with and without a journal.

use std::time::{Duration, Instant};

use crate::load::{Load, PATIENCE};
use crate::servers::{Kind, Mode, Server};
use crate::testbed::{Journal, Testbed};

/// The number of messages that are accepted before, during and after a fault.
const MESSAGES: usize = 120;

/// Causes a fault in the middle of a load, on every kind of server.
#[track_caller]
fn under_load(journal: Journal, fault: fn(&Testbed, &Load)) {
    on_each(|kind| run(Testbed::new(kind, journal), 100, fault));
}

/// Runs a test on all kinds of servers at the same time, because most of its time is waiting.
#[track_caller]
fn on_each(case: impl Fn(Kind) + Sync) {
    std::thread::scope(|scope| {
        for kind in Kind::all() {
            let case = &case;
            scope.spawn(move || case(kind));
        }
    });
}

#[track_caller]
fn run(mut testbed: Testbed, padding: usize, fault: fn(&Testbed, &Load)) {
    println!("{:?}, journal: {:?}", testbed.server.kind(), testbed.journal);
    let receiver = testbed.receiver();
    let load = testbed.load(padding);
    load.accepted(MESSAGES);
    fault(&testbed, &load);
    load.accepted(MESSAGES);
    testbed.record(load);
    testbed.record_received(receiver);
    testbed.check();
}

/// Waits until the load has noticed the fault: with a journal messages are accepted, without one a message is refused.
#[track_caller]
fn continue_load(testbed: &Testbed, load: &Load) {
    match testbed.journal {
        Journal::With => load.accepted(MESSAGES),
        Journal::Without => load.refused(1),
    }
}

fn killed(testbed: &Testbed, load: &Load) {
    testbed.server.kill_hard();
    continue_load(testbed, load);
    testbed.server.start_again();
}

#[test]
fn a_server_that_is_killed_loses_nothing() {
    under_load(Journal::With, killed);
}

#[test]
fn a_server_that_is_killed_without_a_journal_loses_nothing() {
    under_load(Journal::Without, killed);
}

fn restarted(testbed: &Testbed, load: &Load) {
    for _ in 0..3 {
        testbed.server.restart();
        load.accepted(MESSAGES / 3);
    }
}

#[test]
fn a_server_that_is_restarted_refuses_no_sender() {
    under_load(Journal::With, restarted);
}

#[test]
fn a_server_that_is_restarted_without_a_journal_loses_nothing() {
    under_load(Journal::Without, restarted);
}

fn stopped(testbed: &Testbed, load: &Load) {
    testbed.server.stop();
    let begun = Instant::now();
    if testbed.journal == Journal::With {
        load.accepted(MESSAGES);
    }
    // A fixed pause, longer than the timeout of a commit.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed()));
    testbed.server.cont();
}

#[test]
fn a_server_that_is_suspended_for_ten_seconds_refuses_no_sender() {
    under_load(Journal::With, stopped);
}

#[test]
fn a_server_that_is_suspended_for_ten_seconds_without_a_journal_loses_nothing() {
    under_load(Journal::Without, stopped);
}

/// Waits until the server has logged that the disk is full.
#[track_caller]
fn wait_until_full(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while !["is full", "No space left", "File too large"].iter().any(|words| server.log().contains(words)) {
        assert!(Instant::now() < deadline, "the disk is not full\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn full(testbed: &Testbed, load: &Load) {
    testbed.server.fill_disk();
    wait_until_full(&testbed.server);
    continue_load(testbed, load);
    testbed.server.make_room();
    // MariaDB 10.11 may end itself if it has no space to roll back a statement.
    testbed.server.revive();
}

#[track_caller]
fn full_disk(journal: Journal) {
    on_each(|kind| {
        let server = Server::start(kind);
        let database = server.small_database();
        run(Testbed::on(server, database, journal), 2_000, full);
    });
}

#[test]
fn a_full_disk_of_the_database_refuses_no_sender() {
    full_disk(Journal::With);
}

#[test]
fn a_full_disk_of_the_database_without_a_journal_loses_nothing() {
    full_disk(Journal::Without);
}

fn cut(testbed: &Testbed, load: &Load) {
    for _ in 0..5 {
        testbed.proxy.cut();
        load.accepted(MESSAGES / 5);
    }
    testbed.proxy.set(Mode::Refuse);
    continue_load(testbed, load);
    testbed.proxy.set(Mode::Open);
}

#[test]
fn a_network_that_cuts_and_refuses_connections_refuses_no_sender() {
    under_load(Journal::With, cut);
}

#[test]
fn a_network_that_cuts_and_refuses_without_a_journal_loses_nothing() {
    under_load(Journal::Without, cut);
}

fn stalled(testbed: &Testbed, load: &Load) {
    testbed.proxy.set(Mode::Stall);
    continue_load(testbed, load);
    testbed.proxy.set(Mode::Open);
}

#[test]
fn a_network_that_drops_everything_refuses_no_sender() {
    under_load(Journal::With, stalled);
}

#[test]
fn a_network_that_drops_everything_without_a_journal_loses_nothing() {
    under_load(Journal::Without, stalled);
}

fn delayed(testbed: &Testbed, load: &Load) {
    testbed.proxy.set(Mode::Delay(Duration::from_millis(40)));
    load.accepted(MESSAGES);
    testbed.proxy.set(Mode::Open);
}

#[test]
fn a_slow_network_loses_nothing() {
    under_load(Journal::With, delayed);
    under_load(Journal::Without, delayed);
}

#[test]
fn a_broker_that_is_killed_while_its_database_is_away_starts_without_it_and_loses_nothing() {
    on_each(|kind| {
        let mut testbed = Testbed::new(kind, Journal::With);
        let load = testbed.load(100);
        load.accepted(MESSAGES);
        testbed.server.kill_hard();
        load.accepted(MESSAGES);
        // No sender waits for an answer during the kill, so no message counts as refused.
        testbed.record(load);
        testbed.kill_broker();
        let load = testbed.load(100);
        load.accepted(MESSAGES);
        testbed.record(load);
        testbed.server.start_again();
        testbed.check();
    });
}
