//! Each fault, on each kind of server, with a journal and without.

use std::time::{Duration, Instant};

use crate::arena::{Arena, Journal};
use crate::load::{Load, PATIENCE};
use crate::servers::{Kind, Mode, Server};

/// Messages that are accepted before, during and after a fault.
const SOME: usize = 120;

/// Puts a fault into the middle of a load, on every kind of server.
#[track_caller]
fn under_load(journal: Journal, fault: fn(&Arena, &Load)) {
    on_each(|kind| one(Arena::new(kind, journal), 100, fault));
}

/// On every kind of server at the same time: most of it is waiting.
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
fn one(mut arena: Arena, padding: usize, fault: fn(&Arena, &Load)) {
    println!("{:?}, journal: {:?}", arena.server.kind(), arena.journal);
    let receiver = arena.receiver();
    let load = arena.load(padding);
    load.accepted(SOME);
    fault(&arena, &load);
    load.accepted(SOME);
    arena.note(load);
    arena.note_received(receiver);
    arena.check();
}

/// The load goes on during the fault: with a journal nobody notices, without one senders are told.
#[track_caller]
fn meanwhile(arena: &Arena, load: &Load) {
    match arena.journal {
        Journal::With => load.accepted(SOME),
        Journal::Without => load.refused(1),
    }
}

fn killed(arena: &Arena, load: &Load) {
    arena.server.kill_hard();
    meanwhile(arena, load);
    arena.server.start_again();
}

#[test]
fn a_server_that_is_killed_loses_nothing() {
    under_load(Journal::With, killed);
}

#[test]
fn a_server_that_is_killed_without_a_journal_loses_nothing() {
    under_load(Journal::Without, killed);
}

fn restarted(arena: &Arena, load: &Load) {
    for _ in 0..3 {
        arena.server.restart();
        load.accepted(SOME / 3);
    }
}

#[test]
fn a_server_that_is_restarted_is_not_noticed() {
    under_load(Journal::With, restarted);
}

#[test]
fn a_server_that_is_restarted_without_a_journal_loses_nothing() {
    under_load(Journal::Without, restarted);
}

fn stopped(arena: &Arena, load: &Load) {
    arena.server.stop();
    let begun = Instant::now();
    if arena.journal == Journal::With {
        load.accepted(SOME);
    }
    // It is the time that is tested: longer than a commit may take.
    std::thread::sleep(Duration::from_secs(10).saturating_sub(begun.elapsed()));
    arena.server.cont();
}

#[test]
fn a_server_that_stands_still_for_ten_seconds_is_not_noticed() {
    under_load(Journal::With, stopped);
}

#[test]
fn a_server_that_stands_still_for_ten_seconds_without_a_journal_loses_nothing() {
    under_load(Journal::Without, stopped);
}

/// Until the server has complained.
#[track_caller]
fn wait_until_full(server: &Server) {
    let deadline = Instant::now() + PATIENCE;
    while !["is full", "No space left", "File too large"].iter().any(|words| server.log().contains(words)) {
        assert!(Instant::now() < deadline, "the disk is not full\n{}", server.log_tail());
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn full(arena: &Arena, load: &Load) {
    arena.server.fill_disk();
    wait_until_full(&arena.server);
    meanwhile(arena, load);
    arena.server.make_room();
    // MariaDB 10.11 may end itself where a statement can't be undone for want of room; on a real machine it is started again, too.
    arena.server.revive();
}

#[track_caller]
fn full_disk(journal: Journal) {
    on_each(|kind| {
        let server = Server::start(kind);
        let database = server.small_database();
        one(Arena::on(server, database, journal), 2_000, full);
    });
}

#[test]
fn a_full_disk_of_the_database_is_not_noticed() {
    full_disk(Journal::With);
}

#[test]
fn a_full_disk_of_the_database_without_a_journal_loses_nothing() {
    full_disk(Journal::Without);
}

fn cut(arena: &Arena, load: &Load) {
    for _ in 0..5 {
        arena.proxy.cut();
        load.accepted(SOME / 5);
    }
    arena.proxy.set(Mode::Refuse);
    meanwhile(arena, load);
    arena.proxy.set(Mode::Open);
}

#[test]
fn a_network_that_cuts_and_refuses_is_not_noticed() {
    under_load(Journal::With, cut);
}

#[test]
fn a_network_that_cuts_and_refuses_without_a_journal_loses_nothing() {
    under_load(Journal::Without, cut);
}

fn stalled(arena: &Arena, load: &Load) {
    arena.proxy.set(Mode::Stall);
    meanwhile(arena, load);
    arena.proxy.set(Mode::Open);
}

#[test]
fn a_network_that_swallows_everything_is_not_noticed() {
    under_load(Journal::With, stalled);
}

#[test]
fn a_network_that_swallows_everything_without_a_journal_loses_nothing() {
    under_load(Journal::Without, stalled);
}

fn delayed(arena: &Arena, load: &Load) {
    arena.proxy.set(Mode::Delay(Duration::from_millis(40)));
    load.accepted(SOME);
    arena.proxy.set(Mode::Open);
}

#[test]
fn a_slow_network_loses_nothing() {
    under_load(Journal::With, delayed);
    under_load(Journal::Without, delayed);
}

#[test]
fn a_broker_that_is_killed_while_its_database_is_away_starts_without_it_and_loses_nothing() {
    on_each(|kind| {
        let mut arena = Arena::new(kind, Journal::With);
        let load = arena.load(100);
        load.accepted(SOME);
        arena.server.kill_hard();
        load.accepted(SOME);
        // It is killed when nobody waits for an answer, so that nothing is refused.
        arena.note(load);
        arena.kill_broker();
        let load = arena.load(100);
        load.accepted(SOME);
        arena.note(load);
        arena.server.start_again();
        arena.check();
    });
}
