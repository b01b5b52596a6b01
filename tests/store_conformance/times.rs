//! Corrections of the times of rows, after a step of the clock.

use crate::{ALL, append, channel, on_each, text};
use wsmb_core::message::{Message, MessageId, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{Background, Restamp};

/// The times of a row, in seconds: created, expires, due.
type Times = (u64, Option<u64>, Option<u64>);

fn times(store: &mut dyn Background) -> Vec<(u64, Times)> {
    let page = store.scan(MessageId(0), 100, ALL).expect("reads");
    let seconds = |moment: Timestamp| moment.0 / 1_000;
    page.messages
        .iter()
        .map(|row| (row.id.0, (seconds(row.created), row.expires.map(seconds), row.due.map(seconds))))
        .collect()
}

pub fn timed(id: u64, (created, expires, due): Times) -> Message {
    let moment = |seconds: u64| Timestamp(seconds * 1_000);
    Message { created: moment(created), expires: expires.map(moment), due: due.map(moment), ..text(id, "a") }
}

#[test]
fn a_correction_moves_the_times_of_rows_once() {
    on_each(|store| {
        let rows = [
            (1, (100, None, None)),
            (2, (100, Some(160), None)),
            (3, (100, None, None)),
            (4, (100, Some(900), Some(130))),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        let forward = Restamp { token: 7, after: MessageId(2), all: false, by: 50_000 };
        let moved = vec![
            (1, (100, None, None)),
            (2, (100, Some(160), None)),
            (3, (150, None, None)),
            (4, (150, Some(950), Some(180))),
        ];
        for _ in 0..2 {
            store.restamp(&forward).expect("corrects");
            assert_eq!(times(store), moved, "the same token must be applied once");
        }
        store.restamp(&Restamp { token: 8, after: MessageId(2), all: true, by: -120_000 }).expect("corrects");
        let back = vec![
            (1, (100, None, None)),
            (2, (0, Some(40), None)),
            (3, (30, None, None)),
            (4, (30, Some(830), Some(60))),
        ];
        let mut found = times(store);
        // A time before 1970 may become any other time.
        found[1].1.0 = 0;
        assert_eq!(found, back, "older rows are moved only if they expire");
        assert_eq!(
            store.sweep(Timestamp(40_000), 10, &Spare::default()).expect("sweeps").gone,
            [(MessageId(2), channel("a"))]
        );
    });
}

#[test]
fn rows_from_the_future_count_as_created_now() {
    on_each(|store| {
        let rows = [
            (1, (500, Some(560), None)),
            (2, (500, None, None)),
            (3, (200, Some(900), None)),
            (4, (500, Some(800), Some(530))),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        append(store, vec![timed(5, (500, Some(560), None))]);
        store.clamp_future_rows(Timestamp(300_000), MessageId(4)).expect("corrects");
        let young = vec![
            (1, (300, Some(359), None)),
            (2, (500, None, None)),
            (3, (200, Some(900), None)),
            (4, (300, Some(599), Some(329))),
            (5, (500, Some(560), None)),
        ];
        assert_eq!(times(store), young, "the remaining times must not grow");
    });
}
