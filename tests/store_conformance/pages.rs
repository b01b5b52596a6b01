//! Reading in pages, in the order of ids.

use crate::{ALL, append, channel, ids, message, on_each, text};
use wsmb_core::message::{Message, MessageId, Payload, Timestamp};

#[test]
fn pages_are_in_the_order_of_ids() {
    on_each(|store| {
        append(store, [5, 3, 9, 1].map(|id| text(id, "a")).to_vec());
        append(store, vec![text(2, "b"), text(4, "a")]);
        assert_eq!(ids(store, "a"), [1, 3, 4, 5, 9]);
        let page = store.load(&channel("a"), MessageId(1), 2, ALL).expect("loads");
        assert_eq!((page.messages, page.complete), (vec![text(3, "a"), text(4, "a")], false));
        let page = store.load(&channel("a"), MessageId(4), 2, ALL).expect("loads");
        assert_eq!((page.messages, page.complete), (vec![text(5, "a"), text(9, "a")], true));
        let page = store.load(&channel("none"), MessageId(0), 2, ALL).expect("loads");
        assert!(page.messages.is_empty() && page.complete);
    });
}

#[test]
fn pages_are_bounded_in_bytes_but_never_empty() {
    on_each(|store| {
        append(store, (1..=4).map(|id| message(id, "a", Payload::text("x".repeat(1_000)))).collect());
        for (max_bytes, expected) in [(0, 1), (999, 1), (1_000, 2), (2_500, 3), (4_000, 4)] {
            let page = store.load(&channel("a"), MessageId(0), 10, max_bytes).expect("loads");
            assert_eq!((page.messages.len(), page.complete), (expected, expected == 4), "{max_bytes}");
        }
    });
}

#[test]
fn a_scan_returns_all_messages_in_the_order_of_ids() {
    on_each(|store| {
        let due = Message { due: Some(Timestamp(9)), expires: Some(Timestamp(3)), ..text(2, "b") };
        append(store, vec![text(5, "a"), text(1, "ü"), due.clone(), text(9, "a")]);
        let page = store.scan(MessageId(0), 3, ALL).expect("scans");
        assert_eq!((page.messages, page.complete), (vec![text(1, "ü"), due, text(5, "a")], false));
        let page = store.scan(MessageId(5), 3, ALL).expect("scans");
        assert_eq!((page.messages, page.complete), (vec![text(9, "a")], true));
        let page = store.scan(MessageId(0), 4, 0).expect("scans");
        assert_eq!((page.messages.len(), page.complete), (1, false), "a page is bounded in bytes, but never empty");
        let page = store.scan(MessageId(9), 4, 0).expect("scans");
        assert!(page.messages.is_empty() && page.complete);
    });
}

#[test]
fn a_hundred_thousand_messages_are_paged_in_order() {
    on_each(|store| {
        let all: Vec<u64> = (1..=100_000).collect();
        for part in all.chunks(4_096) {
            append(store, part.iter().map(|id| text(*id, if id % 10 == 0 { "rare" } else { "usual" })).collect());
        }
        let (mut after, mut seen) = (MessageId(0), 0_u64);
        loop {
            let page = store.load(&channel("usual"), after, 512, ALL).expect("loads");
            for message in &page.messages {
                assert!(message.id > after && message.payload == text(message.id.0, "usual").payload);
                after = message.id;
                seen += 1;
            }
            if page.complete {
                break;
            }
            assert_eq!(page.messages.len(), 512);
        }
        assert_eq!(seen, 90_000);
    });
}
