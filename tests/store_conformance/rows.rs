//! A group of rows is stored as it was given, and as a whole.

use crate::{ALL, append, channel, ids, message, on_each, text};
use bytes::Bytes;
use wsmb_core::message::{DeadLetter, Kind, Message, MessageId, Payload, PublicationId, Timestamp, Why};
use wsmb_core::policy::Spare;
use wsmb_store::{Group, StoreError, StoreSettings};

#[test]
fn the_id_of_a_dead_letter_belongs_to_its_original_channel() {
    on_each(|store| {
        let (publication, reason) = (Some(PublicationId::new("user", "5")), None);
        let dead = DeadLetter { why: Why::MaxDeliveries, channel: channel("sms"), attempts: 4, reason };
        append(store, vec![Message { publication, dead: Some(Box::new(dead)), ..text(7, "dead") }]);
        let found = store.summary(Timestamp(0)).expect("summary").publications;
        let found: Vec<_> = found.iter().map(|it| (it.channel.as_str(), it.id.id())).collect();
        assert_eq!(found, [("sms", "5")]);
    });
}

#[test]
fn every_field_is_stored() {
    on_each(|store| {
        let full = Message {
            expires: Some(Timestamp(1_763_800_060_123)),
            receivers: Some(0),
            publication: Some(PublicationId::new("user", "é:5\"'\\")),
            deliveries: 3,
            dead: Some(Box::new(DeadLetter {
                why: Why::Rejected,
                channel: channel("gerät"),
                attempts: 4,
                reason: Some("no \"SIM\" – 😀".into()),
            })),
            ..text(7, "sms")
        };
        let delayed =
            Message { due: Some(Timestamp(1_763_800_001_500)), ..Message { id: MessageId(9), ..full.clone() } };
        append(store, vec![full.clone(), text(8, "sms"), delayed.clone()]);
        let page = store.load(&channel("sms"), MessageId(0), 10, ALL).expect("loads");
        assert_eq!(page.messages, [full, text(8, "sms")]);
        assert_eq!(store.summary(Timestamp(0)).expect("summary").delayed, [delayed]);
    });
}

#[test]
fn payloads_are_stored_byte_for_byte() {
    on_each(|store| {
        let texts = [
            "",
            "null",
            "😀👩‍👩‍👧 مرحبا",
            r#"\ " ' `` \\' %s ? ?1 :a @b $c"#,
            "a\0b\0",
            "\u{feff}x",
            "'); DROP TABLE mq_data; --",
            "\r\n\t",
        ];
        let mut payloads: Vec<Payload> = texts.into_iter().map(Payload::text).collect();
        payloads.push(Payload::text("é".repeat(512 << 10)));
        for bytes in [vec![], vec![0, 255, 254, 0], b"text".to_vec(), (0..=255).cycle().take(1 << 20).collect()] {
            payloads.push(Payload { bytes: Bytes::from(bytes), kind: Kind::Binary });
        }
        let messages: Vec<Message> =
            payloads.into_iter().zip(1..).map(|(payload, id)| message(id, "sms", payload)).collect();
        append(store, messages.clone());
        assert_eq!(store.load(&channel("sms"), MessageId(0), 100, ALL).expect("loads").messages, messages);
    });
}

#[test]
fn channel_names_are_taken_literally() {
    on_each(|store| {
        let names = ["sms", "SMS", "sms ", "s%", "s_s", "é", "e\u{301}", "😀", "'", "\"", "\\", "a;b", "42"];
        append(store, names.iter().zip(1..).map(|(name, id)| text(id, name)).collect());
        for (name, id) in names.iter().zip(1..) {
            assert_eq!(ids(store, name), [id], "{name}");
        }
        assert_eq!(store.summary(Timestamp(0)).expect("summary").channels.len(), names.len());
    });
}

#[test]
fn a_group_applies_appends_then_removals_then_counts() {
    on_each(|store| {
        append(store, vec![text(1, "a"), text(2, "a")]);
        let group = Group {
            appends: vec![text(3, "a"), text(4, "a")],
            removals: [1, 3, 77].map(MessageId).to_vec(),
            deliveries: [(2, 5), (4, 1), (1, 9), (99, 1)].map(|(id, count)| (MessageId(id), count)).to_vec(),
            marks: Vec::new(),
        };
        store.commit(&group).expect("unknown ids are no error");
        let page = store.load(&channel("a"), MessageId(0), 10, ALL).expect("loads");
        let counts: Vec<_> = page.messages.iter().map(|message| (message.id.0, message.deliveries)).collect();
        assert_eq!(counts, [(2, 5), (4, 1)]);
        store.commit(&Group::default()).expect("nothing to do");
    });
}

#[test]
fn writing_a_message_again_replaces_it() {
    on_each(|store| {
        append(store, vec![Message { expires: Some(Timestamp(5)), due: Some(Timestamp(1)), ..text(1, "a") }]);
        append(store, vec![text(1, "b")]);
        assert_eq!((ids(store, "a"), ids(store, "b")), (vec![], vec![1]));
        assert!(store.sweep(Timestamp(10), 10, &Spare::default()).expect("sweeps").gone.is_empty());
        assert!(store.summary(Timestamp(0)).expect("summary").delayed.is_empty());
    });
}

#[test]
fn marks_are_stored_with_their_group() {
    on_each(|store| {
        assert_eq!(store.mark("copy.1").expect("reads"), None);
        let marks = |value| vec![("copy.1".to_owned(), value), ("copy.2".to_owned(), value + 1)];
        store.commit(&Group { marks: marks(7), ..Group::default() }).expect("commits");
        store.commit(&Group { appends: vec![text(1, "a")], marks: marks(8), ..Group::default() }).expect("commits");
        assert_eq!(store.mark("copy.1").expect("reads"), Some(8));
        assert_eq!(store.mark("copy.2").expect("reads"), Some(9));
        let largest = i64::MAX.unsigned_abs();
        store.commit(&Group { marks: marks(largest - 1), ..Group::default() }).expect("commits");
        assert_eq!(store.mark("copy.2").expect("reads"), Some(largest));
        assert_eq!(store.mark("copy").expect("reads"), None);
        assert!(store.summary(Timestamp(0)).expect("summary").clean, "the store's own mark was changed");
    });
}

#[test]
fn check_maintain_and_mark_clean_work() {
    on_each(|store| {
        store.check().expect("can be written");
        store.maintain().expect("maintained");
        store.mark_clean().expect("marks");
        append(store, vec![text(1, "a")]);
    });
}

#[test]
fn a_memory_store_refuses_groups_over_its_budget() {
    let settings = StoreSettings { url: "memory:".to_owned(), memory: 10_000, ..StoreSettings::default() };
    let mut store = wsmb_store::open(&settings).expect("opens");
    let large = |id| message(id, "a", Payload::text("x".repeat(4_000)));
    append(&mut *store, vec![large(1), large(2)]);
    let over = Group { appends: vec![large(3)], ..Group::default() };
    assert!(matches!(store.commit(&over), Err(StoreError::OverBudget { .. })));
    assert_eq!(ids(&mut *store, "a"), [1, 2], "a part of a refused group was stored");
    append(&mut *store, vec![large(2)]);
    let swap = Group { appends: vec![large(3)], removals: vec![MessageId(1)], ..Group::default() };
    store.commit(&swap).expect("a removal frees space for an append of the same group");
    assert_eq!(ids(&mut *store, "a"), [2, 3]);
}
