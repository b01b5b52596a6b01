//! The summary that a broker reads at its start.

use crate::times::timed;
use crate::{append, channel, on_each, remove, text};
use wsmb_core::message::{Message, MessageId, PublicationId, Timestamp};
use wsmb_store::ChannelSummary;

#[test]
fn the_summary_contains_the_times_of_expiry() {
    on_each(|store| {
        let rows = [
            (1, (1, Some(60), None)),
            (2, (1, None, None)),
            (3, (1, Some(60), None)),
            (4, (1, Some(70), Some(30))),
            (5, (1, Some(9_000), None)),
        ];
        append(store, rows.iter().map(|(id, times)| timed(*id, *times)).collect());
        let mut found = store.summary(Timestamp(0)).expect("summary").expiries;
        found.sort();
        let a = || channel("a");
        assert_eq!(found, [(a(), Timestamp(60_000), 2), (a(), Timestamp(9_000_000), 1)], "without a due time");
    });
}

#[test]
fn the_summary_contains_all_waiting_messages() {
    on_each(|store| {
        let empty = store.summary(Timestamp(0)).expect("summary");
        assert!(empty.channels.is_empty() && empty.clean && empty.last_id == MessageId(0));
        let published = |id: u64, name, key: &str| Message {
            publication: Some(PublicationId::new("u", key)),
            created: Timestamp(1_000_000 + id * 1_000),
            ..text(id, name)
        };
        let due = Message { due: Some(Timestamp(1)), ..published(6, "c", "z") };
        append(store, vec![text(1, "b"), published(2, "a", "x"), published(3, "a", "y"), published(4, "a", "y"), due]);
        append(store, vec![text(9, "a")]);
        remove(store, &[9]);
        let summary = store.summary(Timestamp(1_003_000)).expect("summary");
        let a = ChannelSummary { channel: channel("a"), messages: 3, last: MessageId(4) };
        let b = ChannelSummary { channel: channel("b"), messages: 1, last: MessageId(1) };
        assert_eq!(summary.channels, [a, b]);
        let delayed: Vec<_> = summary.delayed.iter().map(|message| message.id.0).collect();
        assert_eq!((delayed, summary.last_id), (vec![6], MessageId(9)));
        let publications: Vec<_> =
            summary.publications.iter().map(|it| (it.channel.as_str(), it.id.id(), it.rows.len())).collect();
        let recent = publications.iter().filter(|(name, _, rows)| (*name, *rows) == ("a", 2)).count();
        assert_eq!((publications.len(), recent), (2, 1), "{publications:?}");
    });
}
