//! Tests of copies that are killed at every possible moment and started again.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::crashing_store::CrashingStore;
use wsmb_core::message::{ChannelName, Payload, PublicationId, Timestamp};

fn message(id: u64) -> Message {
    Message {
        id: MessageId(id),
        channel: ChannelName::parse(["sms", "SMS", "ü"][id as usize % 3]).unwrap(),
        payload: Payload::text(format!("{{\"id\":{id}}}")),
        created: Timestamp(id * 1_000),
        expires: id.is_multiple_of(2).then_some(Timestamp(id * 2_000)),
        due: id.is_multiple_of(5).then_some(Timestamp(id * 3_000)),
        receivers: id.is_multiple_of(7).then_some(1),
        publication: id.is_multiple_of(4).then(|| PublicationId::new("u", "x")),
        deliveries: u32::try_from(id % 3).unwrap(),
        dead: None,
    }
}

fn messages(ids: impl IntoIterator<Item = u64>) -> Vec<Message> {
    ids.into_iter().map(message).collect()
}

fn run(source: &mut CrashingStore, destination: &mut CrashingStore, remove: bool) -> Result<Copied, CopyError> {
    copy_with(source, destination, CopyOptions { remove, again: false }, |_| {})
}

fn copy_with(
    source: &mut CrashingStore,
    destination: &mut CrashingStore,
    options: CopyOptions,
    progress: impl FnMut(Progress),
) -> Result<Copied, CopyError> {
    let source = StoppedStore::of(Box::new(source)).map_err(CopyError::Source)?;
    let destination = StoppedStore::of(Box::new(destination)).map_err(CopyError::Destination)?;
    copy_all(source, destination, options, progress)
}

/// Without the ids.
fn contents(messages: Vec<Message>) -> Vec<Message> {
    messages.into_iter().map(|message| Message { id: MessageId(0), ..message }).collect()
}

#[test]
fn an_empty_destination_gets_everything_as_it_was() {
    let all = messages([3, 4, 5, 9, 10, 35, 1_000]);
    let (mut source, mut destination) = (CrashingStore::new(&all), CrashingStore::new(&[]));
    let mut told = Vec::new();
    let copied =
        copy_with(&mut source, &mut destination, CopyOptions::default(), |progress| told.push(progress)).unwrap();
    assert_eq!(copied, Copied { copied: 7, earlier: 0, removed: 0, shift: 0 });
    assert_eq!((destination.everything(), source.everything()), (all.clone(), all.clone()));
    assert_eq!(told, [3, 6, 7].map(|done| Progress { done, total: 7 }));
    assert!(source.clean && destination.clean);

    let again = run(&mut source, &mut destination, true).unwrap();
    assert_eq!(again, Copied { copied: 0, earlier: 7, removed: 7, shift: 0 });
    assert_eq!((destination.everything(), source.everything()), (all, vec![]));
}

#[test]
fn what_came_later_is_added_behind_what_is_there() {
    let (mut source, mut destination) = (CrashingStore::new(&messages(1..=4)), CrashingStore::new(&messages([2, 7])));
    assert_eq!(run(&mut source, &mut destination, false).unwrap().shift, 7);
    let ids = |store: &mut CrashingStore| store.everything().iter().map(|message| message.id.0).collect::<Vec<_>>();
    assert_eq!(ids(&mut destination), [2, 7, 8, 9, 10, 11]);
    // Both brokers have run: the source has new messages, the destination has assigned its next ids.
    source.rows.commit(&Group { appends: messages([5, 6]), ..Group::default() }).unwrap();
    let theirs = Group { appends: messages([12, 13]), removals: [8, 9].map(MessageId).to_vec(), ..Group::default() };
    destination.rows.commit(&theirs).unwrap();
    let copied = run(&mut source, &mut destination, false).unwrap();
    assert_eq!(copied, Copied { copied: 2, earlier: 4, removed: 0, shift: 9 });
    assert_eq!(ids(&mut destination), [2, 7, 10, 11, 12, 13, 14, 15]);
}

#[test]
fn two_sources_go_into_one_destination() {
    let (mut one, mut two, mut both) =
        (CrashingStore::new(&messages(1..=3)), CrashingStore::new(&messages(1..=3)), CrashingStore::new(&[]));
    for source in [&mut one, &mut two] {
        assert_eq!(run(source, &mut both, false).unwrap().copied, 3);
        assert_eq!(run(source, &mut both, false).unwrap().copied, 0, "each is known by itself");
    }
    assert_eq!(both.everything().len(), 6);
}

#[test]
fn a_source_whose_ids_began_anew_can_be_copied_again() {
    let (mut source, mut destination) = (CrashingStore::new(&messages([1, 2])), CrashingStore::new(&[]));
    run(&mut source, &mut destination, false).unwrap();
    let again = CopyOptions { again: true, remove: false };
    let copied = copy_with(&mut source, &mut destination, again, |_| {}).unwrap();
    assert_eq!(copied, Copied { copied: 2, earlier: 0, removed: 0, shift: 2 });
    assert_eq!(run(&mut source, &mut destination, false).unwrap().earlier, 2, "only if it is asked for");
}

#[test]
fn a_source_that_crashed_makes_no_clean_destination() {
    let (mut source, mut destination) = (CrashingStore::new(&messages(1..=3)), CrashingStore::new(&[]));
    source.clean = false;
    run(&mut source, &mut destination, false).unwrap();
    assert!(!source.clean && !destination.clean);
}

#[test]
fn ids_that_no_table_can_hold_are_refused() {
    let highest = Message { id: MessageId(i64::MAX.unsigned_abs()), ..message(1) };
    let (mut source, mut destination) =
        (CrashingStore::new(&[message(1), highest]), CrashingStore::new(&messages([1])));
    assert!(matches!(run(&mut source, &mut destination, false), Err(CopyError::Ids)));
    run(&mut source, &mut CrashingStore::new(&[]), false).unwrap();
}

#[test]
fn ends_that_can_not_be_copied_are_named() {
    let home = tempfile::tempdir().unwrap();
    let at = |path: &Path| StoreSettings { url: format!("sqlite:{}", path.display()), ..StoreSettings::default() };
    let (one, two) = (at(&home.path().join("one.db")), at(&home.path().join("two.db")));
    let told = |from: &StoreSettings, to: &StoreSettings| {
        copy(from, to, CopyOptions::default(), |_| {}).unwrap_err().to_string()
    };
    assert!(told(&one, &two).starts_with("the source: there is no store at "), "{}", told(&one, &two));
    assert!(!home.path().join("one.db").exists(), "a source is not made");
    let running = crate::open(&one).unwrap();
    let text = told(&one, &two);
    assert!(text.starts_with("the source: the store ") && text.contains("is in use by a broker (process "), "{text}");
    assert!(text.ends_with("; stop the broker first, because this command needs the store for itself"), "{text}");
    drop(running);
    let dotted = at(&home.path().join(".").join("one.db"));
    assert!(told(&one, &dotted).starts_with("source and destination are the same store"));
    let memory = StoreSettings { url: "memory:".to_owned(), ..StoreSettings::default() };
    assert!(
        told(&one, &memory).starts_with("the destination: store.url is memory:, which only the broker itself can see")
    );
    let other = StoreSettings { prefix: "other_".to_owned(), ..one.clone() };
    assert!(told(&other, &two).starts_with("the source: there is no store at "));
    let _running = crate::open(&two).unwrap();
    assert!(told(&one, &two).starts_with("the destination: the store "));
}

proptest! {
    #[test]
    fn however_often_it_is_killed_everything_is_there_once_and_in_order(
        ids in prop::collection::btree_set(1..60_u64, 0..30),
        own in prop::collection::btree_set(1..60_u64, 0..6),
        deaths in prop::collection::vec((0..6_u32, any::<bool>(), any::<bool>(), any::<bool>()), 0..8),
        remove in any::<bool>(),
    ) {
        let (all, own) = (messages(ids), messages(own));
        let (mut source, mut destination) = (CrashingStore::new(&all), CrashingStore::new(&own));
        for (at, after, of_source, remove_now) in deaths {
            let store = if of_source { &mut source } else { &mut destination };
            store.crashes_at(Some(at), after);
            let _ = run(&mut source, &mut destination, remove && remove_now);
            source.crashes_at(None, false);
            destination.crashes_at(None, false);
        }
        run(&mut source, &mut destination, remove).unwrap();
        let expected: Vec<Message> = own.into_iter().chain(all.iter().cloned()).collect();
        prop_assert_eq!(contents(destination.everything()), contents(expected));
        prop_assert_eq!(source.everything(), if remove { vec![] } else { all });
    }
}
