//! Tests of requeue runs that are killed at every possible moment and started again.

use std::time::Duration;

use proptest::prelude::*;
use wildmatch::WildMatch;

use super::*;
use crate::crashing_store::CrashingStore;
use crate::{CLOCK, StoppedStore, StoreSettings, Tools as _};
use wsmb_core::message::{DeadLetter, Payload, PublicationId, Why};
use wsmb_core::policy::ChannelPolicy;

const NOW: Timestamp = Timestamp(1_000_000);

fn name(text: &str) -> ChannelName {
    ChannelName::parse(text).unwrap()
}

/// The policies of the channels: `sms` (never expires), `code` (expires after a minute), `live` (keeps nothing), `small` (keeps three messages).
fn policies() -> Policies {
    let policy = |channel: &str, policy: ChannelPolicy| (WildMatch::new(channel), policy);
    let named = vec![
        policy("code", ChannelPolicy { ttl: Duration::from_secs(60), ..ChannelPolicy::default() }),
        policy("live", ChannelPolicy { keep: false, ..ChannelPolicy::default() }),
        policy("small", ChannelPolicy { max_backlog: 3, ..ChannelPolicy::default() }),
    ];
    Policies { named, default: ChannelPolicy::default() }
}

/// A message of `channel`, with every field set.
fn row(id: u64, channel: &str, from: Option<&str>) -> Message {
    let dead = from.map(|from| {
        Box::new(DeadLetter { why: Why::Rejected, channel: name(from), attempts: 3, reason: Some("busy".into()) })
    });
    Message {
        id: MessageId(id),
        channel: name(channel),
        payload: Payload::text(format!("{{\"id\": {id}}}")),
        created: Timestamp(id),
        expires: Some(Timestamp(NOW.0 + 1)),
        due: None,
        receivers: Some(1),
        publication: Some(PublicationId::new("u", "x")),
        deliveries: 2,
        dead,
    }
}

fn letter(id: u64, from: &str) -> Message {
    row(id, "dead", Some(from))
}

/// The expected message in its new channel.
fn anew(id: u64, channel: &str, old: &Message) -> Message {
    let expires = (channel == "code").then_some(Timestamp(NOW.0 + 60_000));
    let plain = row(id, channel, None);
    Message {
        payload: old.payload.clone(),
        created: NOW,
        expires,
        receivers: None,
        publication: None,
        deliveries: 0,
        ..plain
    }
}

fn move_all(store: &mut CrashingStore) -> Result<Requeued, RequeueError> {
    move_some(store, None, None)
}

fn move_some(store: &mut CrashingStore, to: Option<&str>, count: Option<u64>) -> Result<Requeued, RequeueError> {
    let policies = policies();
    let requeue = Requeue { from: name("dead"), to: to.map(name), count, policies: &policies };
    StoppedStore::of(Box::new(store))?.requeue(&requeue, &|_| NOW)
}

fn moved(pairs: &[(&str, u64)]) -> BTreeMap<ChannelName, u64> {
    pairs.iter().map(|(channel, number)| (name(channel), *number)).collect()
}

#[test]
fn each_letter_goes_home_behind_what_waits_and_begins_anew() {
    let old = [letter(1, "sms"), row(2, "sms", None), letter(3, "code"), letter(4, "sms"), letter(9, "code")];
    let mut store = CrashingStore::new(&old);
    let requeued = move_all(&mut store).unwrap();
    assert_eq!(requeued, Requeued { moved: moved(&[("sms", 2), ("code", 2)]), ..Requeued::default() });
    let expected = [
        old[1].clone(),
        anew(10, "sms", &old[0]),
        anew(11, "code", &old[2]),
        anew(12, "sms", &old[3]),
        anew(13, "code", &old[4]),
    ];
    assert_eq!(store.everything(), expected);
    assert!(store.clean, "the mark of the clean stop is there again");
    assert_eq!(move_all(&mut store).unwrap(), Requeued::default(), "nothing is left to move");
}

#[test]
fn the_time_that_the_broker_noted_last_is_known_to_the_clock() {
    let directory = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", directory.path().join("wsmb.db").display());
    let settings = StoreSettings { url, ..StoreSettings::default() };
    let mut store = crate::open(&settings).unwrap();
    let marks = vec![(CLOCK.to_owned(), 7_000)];
    store.commit(&Group { appends: vec![letter(1, "code")], marks, ..Group::default() }).unwrap();
    drop(store);
    let policies = policies();
    let all = Requeue { from: name("dead"), to: None, count: None, policies: &policies };
    StoppedStore::open(&settings).unwrap().requeue(&all, &|last| last.unwrap()).unwrap();
    let mut store = crate::open(&settings).unwrap();
    let found = store.scan(MessageId(0), 9, 9_999).unwrap().messages;
    assert_eq!((found[0].created, found[0].expires), (Timestamp(7_000), Some(Timestamp(67_000))));
}

#[test]
fn what_can_not_go_home_stays_as_it_is_and_is_counted() {
    let old = vec![
        letter(1, "live"),
        row(2, "dead", None),
        Message { expires: Some(NOW), ..letter(3, "sms") },
        Message { due: Some(Timestamp(5)), ..letter(4, "sms") },
        row(5, "small", None),
        row(6, "small", None),
        letter(7, "small"),
        letter(8, "small"),
        letter(9, "small"),
    ];
    let mut store = CrashingStore::new(&old);
    let requeued = move_all(&mut store).unwrap();
    let stay = [
        (Stay::NoDeadLetter, 1),
        (Stay::Expired, 1),
        (Stay::Delayed, 1),
        (Stay::NotKept(name("live")), 1),
        (Stay::Full(name("small")), 2),
    ];
    assert_eq!(requeued, Requeued { moved: moved(&[("small", 1)]), stay: stay.into(), left: 0 });
    let mut expected: Vec<Message> = old.iter().filter(|message| message.id.0 != 7).cloned().collect();
    expected.push(anew(10, "small", &old[6]));
    assert_eq!(store.everything(), expected);

    // A named target also receives messages that are not dead letters, and dead letters from a channel that keeps nothing.
    let requeued = move_some(&mut store, Some("sms"), None).unwrap();
    assert_eq!((requeued.total(), requeued.stay.len()), (4, 2), "{requeued:?}");
    let requeued = move_some(&mut store, Some("live"), None).unwrap();
    assert_eq!((requeued.total(), store.everything().len()), (0, 9), "nothing goes where nothing is kept");
}

#[test]
fn a_count_takes_the_oldest_and_says_how_many_are_left() {
    let mut old: Vec<Message> = (1..=10).map(|id| letter(id, "sms")).collect();
    old[1] = row(2, "dead", None);
    let mut store = CrashingStore::new(&old);
    for (count, total, left) in [(1, 1, 9), (4, 4, 4), (4, 4, 0), (4, 0, 0)] {
        let requeued = move_some(&mut store, None, Some(count)).unwrap();
        assert_eq!((requeued.total(), requeued.left), (total, left), "{requeued:?}");
    }
    let bodies: Vec<_> = store.everything().into_iter().skip(1).map(|message| message.payload).collect();
    assert_eq!(bodies, [1, 3, 4, 5, 6, 7, 8, 9, 10].map(|id| Payload::text(format!("{{\"id\": {id}}}"))));
}

#[test]
fn what_is_moved_into_its_own_channel_is_moved_once() {
    let old: Vec<Message> = (1..=7).map(|id| letter(id, "dead")).collect();
    let mut store = CrashingStore::new(&old);
    assert_eq!(move_all(&mut store).unwrap(), Requeued { moved: moved(&[("dead", 7)]), ..Requeued::default() });
    assert_eq!(store.everything().iter().map(|message| message.id.0).collect::<Vec<_>>(), (8..=14).collect::<Vec<_>>());
}

#[test]
fn what_the_store_can_not_hold_stays_and_the_rest_is_moved() {
    let old: Vec<Message> = (1..=7).map(|id| letter(id, "sms")).collect();
    let mut store = CrashingStore::new(&old);
    // The new ids of the second, the third and the last one.
    store.unfit = [9, 10, 14].map(MessageId).to_vec();
    let requeued = move_some(&mut store, None, Some(4)).unwrap();
    let why = Stay::Unfit { channel: name("sms"), reason: "are too large".to_owned() };
    assert_eq!(requeued, Requeued { moved: moved(&[("sms", 4)]), stay: [(why, 2)].into(), left: 1 });
    let ids: Vec<u64> = store.everything().iter().map(|message| message.id.0).collect();
    assert_eq!(ids, [2, 3, 7, 8, 11, 12, 13]);
}

#[test]
fn the_last_id_is_not_exceeded() {
    let mut store = CrashingStore::new(&[letter(i64::MAX as u64, "sms")]);
    assert!(matches!(move_all(&mut store), Err(RequeueError::Ids)));
    assert_eq!(store.everything().len(), 1);
}

proptest! {
    #[test]
    fn killed_at_any_moment_nothing_is_lost_doubled_or_out_of_order(
        rows in prop::collection::vec(0_usize..4, 0..30),
        deaths in prop::collection::vec((0_u32..4, any::<bool>(), prop::option::of(1_u64..8)), 0..6),
    ) {
        let old: Vec<Message> = rows.iter().zip(1_u64..).map(|(kind, id)| match kind {
            0 => letter(id, "sms"),
            1 => letter(id, "code"),
            2 => row(id, "dead", None),
            _ => row(id, "sms", None),
        }).collect();
        let mut store = CrashingStore::new(&old);
        for (commits, after, count) in deaths {
            store.crashes_at(Some(commits), after);
            let _ = move_some(&mut store, None, count);
            prop_assert!(store.clean);
        }
        store.crashes_at(None, false);
        move_all(&mut store).unwrap();
        let now = store.everything();
        prop_assert_eq!(now.len(), old.len());
        let (kept, home): (Vec<_>, Vec<_>) = old.into_iter().partition(|message| message.dead.is_none());
        prop_assert_eq!(&now[..kept.len()], &kept[..]);
        for (moved, old) in now[kept.len()..].iter().zip(home) {
            let target = old.dead.as_ref().unwrap().channel.clone();
            prop_assert_eq!(moved, &anew(moved.id.0, target.as_str(), &old));
        }
    }
}
