//! (Tests.) Publication ids compared with a plain map, and the shares of users.

use super::*;

const WINDOW: Duration = Duration::from_millis(10);

fn dedup(bound: usize) -> Dedup {
    Dedup::new([1, 2], bound)
}

fn id(user: &str, key: u64) -> PublicationId {
    PublicationId::new(user, &key.to_string())
}

/// [`Seen`] without the time of acceptance and the number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Known {
    Pending(usize),
    Accepted,
}

fn known(dedup: &mut Dedup, now: u64, key: u64) -> Option<Known> {
    let seen = dedup.get(Timestamp(now), WINDOW, [key, !key]);
    dedup.audit();
    seen.map(|seen| match seen {
        Seen::Pending(pending) => Known::Pending(pending),
        Seen::Accepted { .. } => Known::Accepted,
    })
}

fn accept_of(dedup: &mut Dedup, now: u64, user: &str, key: u64) {
    dedup.accept(Timestamp(now), [key, !key], &id(user, key), 0);
}

fn accept(dedup: &mut Dedup, now: u64, key: u64) {
    accept_of(dedup, now, "app", key);
}

#[test]
fn an_id_is_known_within_the_window_and_free_afterwards() {
    let mut dedup = dedup(100);
    accept(&mut dedup, 5, 1);
    assert_eq!(known(&mut dedup, 14, 1), Some(Known::Accepted));
    assert_eq!(known(&mut dedup, 15, 1), None);
    assert_eq!((dedup.len(), dedup.locations.len(), dedup.queues.len()), (0, 0, 0));
}

#[test]
fn a_pending_id_is_known_until_its_publication_is_decided() {
    let mut dedup = dedup(100);
    dedup.pend([1, !1], 7);
    for key in 2..200 {
        accept(&mut dedup, 0, key);
    }
    assert_eq!(known(&mut dedup, 1_000_000, 1), Some(Known::Pending(7)));
    accept(&mut dedup, 1_000_000, 1);
    assert_eq!(known(&mut dedup, 1_000_009, 1), Some(Known::Accepted));
    assert!(dedup.pending.is_empty());
}

#[test]
fn a_refused_id_is_free_at_once() {
    let mut dedup = dedup(100);
    dedup.pend([1, !1], 7);
    dedup.refuse([1, !1]);
    assert_eq!(known(&mut dedup, 0, 1), None);
    assert_eq!((dedup.len(), dedup.pending.len()), (0, 0));
}

#[test]
fn a_single_user_may_use_the_whole_bound_and_then_loses_its_oldest_id() {
    let mut dedup = dedup(100);
    for key in 0..=100 {
        accept(&mut dedup, 0, key);
    }
    assert_eq!((dedup.len(), dedup.locations.len()), (100, 100));
    assert_eq!(known(&mut dedup, 0, 0), None);
    for key in 1..=100 {
        assert_eq!(known(&mut dedup, 0, key), Some(Known::Accepted));
    }
    assert_eq!(dedup.take_forgotten(), Some(ForgottenIds { count: 1, user: Some("app".into()) }));
    assert_eq!(dedup.take_forgotten(), None);
}

#[test]
fn a_flood_of_one_user_displaces_its_own_ids_only() {
    let mut dedup = dedup(100);
    for key in 0..30 {
        accept_of(&mut dedup, 0, "quiet", key);
    }
    for key in 1_000..10_000 {
        accept_of(&mut dedup, 0, "loud", key);
    }
    for key in 0..30 {
        assert_eq!(known(&mut dedup, 0, key), Some(Known::Accepted), "{key}");
    }
    // Other users get room up to an equal share, at the expense of the user with the most ids.
    for key in 100..133 {
        accept_of(&mut dedup, 0, "third", key);
    }
    for key in (0..30).chain(100..133).chain(10_000 - 37..10_000) {
        assert_eq!(known(&mut dedup, 0, key), Some(Known::Accepted), "{key}");
    }
    assert_eq!(dedup.take_forgotten().map(|forgotten| forgotten.count), Some(9_000 - 37));
}

#[test]
fn ids_restored_out_of_order_are_known_until_their_own_windows_end() {
    let mut dedup = dedup(100);
    let name = ChannelName::parse("sms").unwrap();
    let stored = |key: u64, at: u64| (name.clone(), id("app", key), Timestamp(at), 1);
    let filed = |dedup: &Dedup, key: u64, at: u64| {
        let [user, _] = hash::hash(dedup.seed, ["app"]);
        AcceptedId { at: Timestamp(at), key: dedup.key(&name, &id("app", key)), user }
    };
    // Id 3 is old and comes after newer ones, id 2 is in both lists, id 1 has nearly expired.
    let files = vec![filed(&dedup, 4, 19), filed(&dedup, 2, 17)];
    dedup.restore(vec![stored(1, 15), stored(2, 10), stored(3, 1), stored(5, 18)], files);
    let mut at = |now: u64, key: u64| {
        let key = dedup.key(&name, &id("app", key));
        let seen = dedup.get(Timestamp(now), WINDOW, key);
        dedup.audit();
        seen.is_some()
    };
    assert_eq!([1, 2, 3, 4, 5].map(|key| at(20, key)), [true, true, false, true, true]);
    assert_eq!([1, 2, 4, 5].map(|key| at(26, key)), [false, true, true, true]);
    assert_eq!([1, 2, 4, 5].map(|key| at(28, key)), [false, false, true, false]);
}

#[test]
fn accepted_ids_are_listed_once_and_a_list_beyond_the_bound_is_marked_incomplete() {
    let mut dedup = dedup(10);
    accept(&mut dedup, 5, 1);
    let FreshIds { ids, incomplete } = dedup.take_fresh();
    let [user, _] = hash::hash(dedup.seed, ["app"]);
    assert_eq!((ids, incomplete), (vec![AcceptedId { at: Timestamp(5), key: [1, !1], user }], false));
    assert!(dedup.take_fresh().ids.is_empty());
    for key in 0..11 {
        accept(&mut dedup, 6, key);
    }
    let FreshIds { ids, incomplete } = dedup.take_fresh();
    assert_eq!((ids.len(), incomplete), (10, true));
    assert_eq!(dedup.accepted().len(), 10);
}

#[test]
fn ids_are_known_as_in_a_plain_map() {
    let mut dedup = dedup(100);
    // Start with numbers that wrap around.
    for user in ["a", "b", "c"] {
        let queue = dedup.queue_of(user);
        dedup.queues[queue].first = u32::MAX - 50;
    }
    // For each key, the time of acceptance, or the key of the pending publication. A simple generator of numbers, so that a failure can be
    // repeated.
    let mut model = std::collections::BTreeMap::<u64, Result<u64, usize>>::new();
    let mut random = 1_u64;
    for step in 0..20_000 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (key, choice, now) = ((random >> 33) % 20, (random >> 40) % 4, step / 2);
        let user = ["a", "b", "c"][(key % 3) as usize];
        let expected = model.get(&key).copied().filter(|known| known.is_err() || known.is_ok_and(|at| now - at < 10));
        let seen = expected.map(|known| known.map_or_else(Known::Pending, |_| Known::Accepted));
        assert_eq!(known(&mut dedup, now, key), seen, "step {step}");
        match (expected, choice) {
            (None, 0) | (Some(Err(_)), 1) => {
                accept_of(&mut dedup, now, user, key);
                model.insert(key, Ok(now));
            }
            (None, 1..) => {
                dedup.pend([key, !key], step as usize);
                model.insert(key, Err(step as usize));
            }
            (Some(Err(_)), 2) => {
                dedup.refuse([key, !key]);
                model.remove(&key);
            }
            _ => {}
        }
        if step % 7 == 0 {
            dedup.take_fresh();
        }
    }
}

#[test]
fn stored_rows_of_an_id_are_counted_until_they_are_removed() {
    let mut dedup = dedup(100);
    let key = [1, 2];
    let seen = |dedup: &mut Dedup, key| match dedup.get(Timestamp(5), WINDOW, key) {
        Some(Seen::Accepted { at, rows }) => (at.0, rows),
        other => panic!("{other:?}"),
    };
    dedup.pend(key, 7);
    assert_eq!(dedup.row_removed(key), Some(7), "the pending publication counts its rows itself");
    let most = crate::limits::PUBLICATION_MESSAGES as u32;
    dedup.accept(Timestamp(5), key, &id("app", 1), most);
    assert_eq!(seen(&mut dedup, key), (5, most));
    assert_eq!((dedup.row_removed(key), seen(&mut dedup, key)), (None, (5, most - 1)));

    let channel = ChannelName::parse("sms").expect("a name");
    let stored = vec![(channel.clone(), id("app", 9), Timestamp(4), 2)];
    let other = dedup.key(&channel, &id("app", 9));
    assert_eq!(dedup.row_removed(other), None, "it is not known");
    let mut dedup = Dedup::new([1, 2], 100);
    let filed = AcceptedId { at: Timestamp(5), key: other, user: 3 };
    dedup.restore(stored, vec![filed]);
    assert_eq!(seen(&mut dedup, other), (5, 2), "the time comes from the file, the rows from the store");
    for left in [1, 0, 0] {
        dedup.row_removed(other);
        assert_eq!(seen(&mut dedup, other), (5, left));
    }
}
