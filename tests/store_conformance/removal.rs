//! Sweeps of expired messages, and purges of channels.

use crate::{append, channel, ids, message, on_each, remove, sparing_a, text};
use wsmb_core::message::{DeadLetter, Message, MessageId, Payload, Timestamp, Why};
use wsmb_core::policy::Spare;

#[test]
fn a_sweep_removes_expired_messages_and_returns_their_ids() {
    on_each(|store| {
        let expiring = |id, name, at| Message { expires: Some(Timestamp(at)), ..text(id, name) };
        let due = Message { due: Some(Timestamp(99)), ..expiring(4, "b", 20) };
        append(store, vec![expiring(1, "a", 30), expiring(2, "b", 20), text(3, "a"), due, expiring(5, "a", 21)]);
        let swept = store.sweep(Timestamp(20), 10, &Spare::default()).expect("sweeps").gone;
        assert_eq!(swept, [(MessageId(2), channel("b"))], "a sweep must not remove delayed messages");
        assert_eq!(
            store.sweep(Timestamp(50), 1, &Spare::default()).expect("sweeps").gone,
            [(MessageId(5), channel("a"))],
            "the earliest first"
        );
        assert_eq!(ids(store, "a"), [1, 3]);
    });
}

#[test]
fn a_sweep_returns_spared_messages_in_parts() {
    on_each(|store| {
        let expiring = |id, name, at| Message { expires: Some(Timestamp(at)), ..text(id, name) };
        let dead = DeadLetter { why: Why::Rejected, channel: channel("x"), attempts: 2, reason: Some("no".into()) };
        let first = Message { dead: Some(Box::new(dead)), deliveries: 3, ..expiring(3, "a", 10) };
        let rows = vec![expiring(1, "a", 20), expiring(2, "b", 20), first.clone(), expiring(4, "a", 30), text(5, "a")];
        append(store, rows);
        append(store, (6..=9).map(|id| expiring(id, "a", 20)).collect());
        let mut parts = Vec::new();
        loop {
            let swept = store.sweep(Timestamp(20), 2, &sparing_a()).expect("sweeps");
            assert!(swept.gone.len() + swept.spared.len() <= 2, "{swept:?}");
            parts.extend(swept.spared.iter().map(|message| message.id.0));
            if swept.spared.first().is_some_and(|message| message.id.0 == 3) {
                assert_eq!(swept.spared, [first.clone(), expiring(1, "a", 20)], "earliest first");
            } else if swept.gone.is_empty() && swept.spared.is_empty() {
                assert!(!swept.more, "an empty sweep must be the last");
            }
            if !swept.more {
                break;
            }
        }
        assert_eq!(parts, [3, 1, 6, 7, 8, 9]);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![1, 3, 4, 5, 6, 7, 8, 9], vec![]), "spared rows stay");
        // Rows that have become dead letters are removed, and the sweep does not return them again.
        remove(store, &[3, 1, 6, 7]);
        let again = store.sweep(Timestamp(20), 10, &sparing_a()).expect("sweeps");
        assert_eq!(again.spared.iter().map(|message| message.id.0).collect::<Vec<_>>(), [8, 9], "from the start");
        let all = store.sweep(Timestamp(30), 10, &Spare::default()).expect("sweeps");
        assert_eq!((all.gone.len(), all.spared.len()), (3, 0), "no message is spared");
        assert_eq!(ids(store, "a"), [5]);
    });
}

#[test]
fn a_sweep_returns_at_most_a_page_of_spared_messages() {
    on_each(|store| {
        let large = "x".repeat(wsmb_core::limits::PAGE_BYTES / 4);
        let row = |id| Message { expires: Some(Timestamp(9)), ..message(id, "a", Payload::text(&large)) };
        for id in 1..=8 {
            append(store, vec![row(id)]);
        }
        let first = store.sweep(Timestamp(10), 100, &sparing_a()).expect("sweeps");
        assert!((4..=5).contains(&first.spared.len()) && first.more, "{} rows", first.spared.len());
        let second = store.sweep(Timestamp(10), 100, &sparing_a()).expect("sweeps");
        assert_eq!(first.spared.len() + second.spared.len(), 8);
    });
}

#[test]
fn a_purge_removes_a_channel_up_to_an_id_in_bounded_parts() {
    on_each(|store| {
        append(
            store,
            vec![
                text(1, "a"),
                Message { due: Some(Timestamp(9)), ..text(2, "a") },
                text(3, "b"),
                text(4, "a"),
                text(5, "a"),
            ],
        );
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 2);
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 1);
        assert_eq!(store.purge(&channel("a"), MessageId(4), 2).expect("purges"), 0);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![5], vec![3]));
        assert!(store.summary(Timestamp(0)).expect("summary").delayed.is_empty());
        assert_eq!(store.purge(&channel("a"), MessageId(u64::MAX), 9).expect("purges"), 1);
    });
}
