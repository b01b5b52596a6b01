//! (Tests.) Ids against a plain map, and the shares of users.

use super::*;

const WINDOW: Duration = Duration::from_millis(10);

fn dedup(bound: usize) -> Dedup {
    Dedup::new([1, 2], bound)
}

fn id(user: &str, key: u64) -> PublicationId {
    PublicationId::new(user, &key.to_string())
}

/// [`Seen`], without when it was accepted and what is stored of it.
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
    assert_eq!((dedup.len(), dedup.places.len(), dedup.rows.len()), (0, 0, 0));
}

#[test]
fn a_pending_id_is_known_until_its_fate_is_whatever_comes_meanwhile() {
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
fn one_user_alone_may_fill_the_bound_and_then_loses_its_oldest() {
    let mut dedup = dedup(100);
    for key in 0..=100 {
        accept(&mut dedup, 0, key);
    }
    assert_eq!((dedup.len(), dedup.places.len()), (100, 100));
    assert_eq!(known(&mut dedup, 0, 0), None);
    for key in 1..=100 {
        assert_eq!(known(&mut dedup, 0, key), Some(Known::Accepted));
    }
    assert_eq!(dedup.take_forgotten(), Some(ForgottenIds { count: 1, user: Some("app".into()) }));
    assert_eq!(dedup.take_forgotten(), None);
}

#[test]
fn a_flood_of_one_user_pushes_out_its_own_ids_only() {
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
    // Others find room up to an equal share, which costs the loud one only.
    for key in 100..133 {
        accept_of(&mut dedup, 0, "third", key);
    }
    for key in (0..30).chain(100..133).chain(10_000 - 37..10_000) {
        assert_eq!(known(&mut dedup, 0, key), Some(Known::Accepted), "{key}");
    }
    assert_eq!(dedup.take_forgotten().map(|forgotten| forgotten.count), Some(9_000 - 37));
}

#[test]
fn what_is_restored_out_of_order_hides_and_expires_nothing() {
    let mut dedup = dedup(100);
    let name = ChannelName::parse("sms").unwrap();
    let stored = |key: u64, at: u64| (name.clone(), id("app", key), Timestamp(at), 1);
    let filed = |dedup: &Dedup, key: u64, at: u64| {
        let [user, _] = hash::hash(dedup.seed, ["app"]);
        AcceptedId { at: Timestamp(at), key: dedup.key(&name, &id("app", key)), user }
    };
    // An old one behind newer ones; one that both know; one that is as good as over.
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
fn what_is_accepted_is_listed_once_and_more_than_the_bound_is_said_to_be_missing() {
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
fn whatever_happens_it_knows_what_a_plain_map_knows() {
    let mut dedup = dedup(100);
    // Numbers that wrap around.
    for user in ["a", "b", "c"] {
        let row = dedup.row_of(user);
        dedup.rows[row].first = u32::MAX - 50;
    }
    // By key: since when it is accepted, or by what it is pending. A number behind another, so that a failure comes again.
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
fn rows_are_counted_until_they_are_gone() {
    let mut dedup = dedup(100);
    let key = [1, 2];
    let seen = |dedup: &mut Dedup, key| match dedup.get(Timestamp(5), WINDOW, key) {
        Some(Seen::Accepted { at, rows }) => (at.0, rows),
        other => panic!("{other:?}"),
    };
    dedup.pend(key, 7);
    assert_eq!(dedup.row_gone(key), Some(7), "the pending publication counts its own");
    let most = crate::limits::PUBLICATION_MESSAGES as u32;
    dedup.accept(Timestamp(5), key, &id("app", 1), most);
    assert_eq!(seen(&mut dedup, key), (5, most));
    assert_eq!((dedup.row_gone(key), seen(&mut dedup, key)), (None, (5, most - 1)));

    let channel = ChannelName::parse("sms").expect("a name");
    let stored = vec![(channel.clone(), id("app", 9), Timestamp(4), 2)];
    let other = dedup.key(&channel, &id("app", 9));
    assert_eq!(dedup.row_gone(other), None, "it is not known");
    let mut dedup = Dedup::new([1, 2], 100);
    let filed = AcceptedId { at: Timestamp(5), key: other, user: 3 };
    dedup.restore(stored, vec![filed]);
    assert_eq!(seen(&mut dedup, other), (5, 2), "its time is from the file, its rows from the store");
    for left in [1, 0, 0] {
        dedup.row_gone(other);
        assert_eq!(seen(&mut dedup, other), (5, left));
    }
}
