//! Random calls have the same results on all stores.

use std::collections::BTreeMap;

use crate::{backends, channel, sparing_a, text};
use proptest::prelude::*;
use wsmb_core::message::{Message, MessageId, PublicationId, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::{Background, Group};

/// One call of the trait.
#[derive(Clone, Debug)]
enum Call {
    Commit { appends: Vec<(u64, u8, Option<u64>, Option<u64>)>, removals: Vec<u64>, deliveries: Vec<(u64, u32)> },
    Scan { after: u64, limit: usize, max_bytes: usize },
    Load { channel: u8, after: u64, limit: usize, max_bytes: usize },
    Sweep { now: u64, sparing: bool },
    Purge { channel: u8, up_to: u64, limit: usize },
    Summary { since: u64 },
}

fn call() -> impl Strategy<Value = Call> {
    let id = || 1..40_u64;
    let moment = || prop::option::of(0..20_u64);
    let row = (id(), 0..3_u8, moment(), prop::option::weighted(0.2, 0..20_u64));
    let commit = (
        prop::collection::vec(row, 0..8),
        prop::collection::vec(id(), 0..4),
        prop::collection::vec((id(), 0..9_u32), 0..4),
    );
    prop_oneof![
        4 => commit.prop_map(|(appends, removals, deliveries)| Call::Commit { appends, removals, deliveries }),
        3 => (0..3_u8, 0..40_u64, 1..9_usize, 0..60_usize)
            .prop_map(|(channel, after, limit, max_bytes)| Call::Load { channel, after, limit, max_bytes }),
        1 => (0..40_u64, 1..9_usize, 0..60_usize)
            .prop_map(|(after, limit, max_bytes)| Call::Scan { after, limit, max_bytes }),
        1 => (0..20_u64, any::<bool>()).prop_map(|(now, sparing)| Call::Sweep { now, sparing }),
        1 => (0..3_u8, id(), 1..9_usize).prop_map(|(channel, up_to, limit)| Call::Purge { channel, up_to, limit }),
        1 => (0..40_u64).prop_map(|since| Call::Summary { since: since * 1_000 }),
    ]
}

/// The result of a call as text, to compare two stores.
fn answer(store: &mut dyn Background, call: &Call) -> String {
    let name = |number: u8| channel(["a", "b", "ü"][usize::from(number)]);
    match call.clone() {
        Call::Commit { appends, removals, deliveries } => {
            let written = |(id, channel, expires, due): (u64, u8, Option<u64>, Option<u64>)| Message {
                expires: expires.map(Timestamp),
                due: due.map(Timestamp),
                // Ids increase with time.
                created: Timestamp(id * 1_000),
                publication: (id % 2 == 0).then(|| PublicationId::new("u", &(id / 4).to_string())),
                ..text(id, name(channel).as_str())
            };
            let group = Group {
                appends: appends.into_iter().map(written).collect(),
                removals: removals.into_iter().map(MessageId).collect(),
                deliveries: deliveries.into_iter().map(|(id, count)| (MessageId(id), count)).collect(),
                marks: Vec::new(),
            };
            format!("{:?}", store.commit(&group))
        }
        Call::Load { channel, after, limit, max_bytes } => {
            format!("{:?}", store.load(&name(channel), MessageId(after), limit, max_bytes))
        }
        Call::Scan { after, limit, max_bytes } => {
            format!("{:?}", store.scan(MessageId(after), limit, max_bytes))
        }
        Call::Sweep { now, sparing } => {
            let spare = if sparing { sparing_a() } else { Spare::default() };
            let wsmb_store::Swept { mut gone, spared, more } =
                store.sweep(Timestamp(now), 100, &spare).expect("sweeps");
            gone.sort();
            format!("{gone:?} {spared:?} {more}")
        }
        // The order of removals depends on the store; their number does not.
        Call::Purge { channel, up_to, limit } => {
            let mut parts = Vec::new();
            loop {
                let removed = store.purge(&name(channel), MessageId(up_to), limit).expect("purges");
                parts.push(removed);
                if removed < limit as u64 {
                    return format!("{parts:?}");
                }
            }
        }
        Call::Summary { since } => {
            let summary = store.summary(Timestamp(since)).expect("summary");
            // The grouping of times depends on the store; the number of expiring messages does not.
            let mut expiring = BTreeMap::<_, u64>::new();
            for (channel, _, messages) in &summary.expiries {
                *expiring.entry(channel.clone()).or_default() += messages;
            }
            format!("{:?} {expiring:?}", wsmb_store::Summary { clean: true, expiries: Vec::new(), ..summary })
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_stores_return_the_same_results(calls in prop::collection::vec(call(), 1..60)) {
        let backends = backends();
        let directories: Vec<_> = backends.iter().map(|_| tempfile::tempdir().expect("a directory")).collect();
        let mut stores: Vec<_> =
            backends.iter().zip(&directories).map(|((name, open), directory)| (name, open(directory.path()))).collect();
        for call in &calls {
            let answers: Vec<String> = stores.iter_mut().map(|(_, store)| answer(&mut **store, call)).collect();
            for (index, answer) in answers.iter().enumerate().skip(1) {
                prop_assert_eq!(&answers[0], answer, "{} and {} differ on {:?}", stores[0].0, stores[index].0, call);
            }
        }
    }
}
