//! Failed deliveries: given back, rejected, late, or not confirmed in time.

use super::*;

fn manual(policy: ChannelPolicy, receivers: std::ops::RangeInclusive<u64>) -> Scene {
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ..policy });
    for connection in receivers {
        scene.receive(connection, AckMode::Manual, 1);
    }
    scene
}

impl Scene {
    fn answer(&mut self, connection: u64, sequence: u64, answer: Answer) -> Vec<Effect> {
        self.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(connection), sequence, answer }))
    }

    fn nack(&mut self, connection: u64, sequence: u64) -> Vec<Effect> {
        self.answer(connection, sequence, Answer::Nack(Nack::default()))
    }

    /// Returns the texts of the backlog that the last event delivered.
    pub(super) fn texts(&self) -> Vec<String> {
        let contents = self.effects.contents.iter();
        contents
            .flat_map(|content| match content {
                Content::Backlog(backlog) => backlog.messages.iter().filter_map(Payload::as_text).collect(),
                _ => Vec::new(),
            })
            .map(str::to_owned)
            .collect()
    }
}

fn notes(effects: &[Effect]) -> Vec<Note> {
    let note = |effect: &Effect| match effect {
        Effect::Note(note) => Some(Note::clone(note)),
        _ => None,
    };
    effects.iter().filter_map(note).collect()
}

#[test]
fn the_first_nack_passes_a_message_on_and_later_nacks_hold_it_back() {
    let mut scene = manual(ChannelPolicy::default(), 1..=2);
    assert_eq!(deliveries(&scene.send("bad", None)), [(1, 1)]);
    let again = scene.nack(1, 1);
    assert_eq!(deliveries(&again), [(2, 1)], "to the standby receiver");
    assert!(again.iter().any(|effect| matches!(effect, Effect::Deliver { attempt: 2, .. })), "{again:?}");
    assert_eq!(deliveries(&scene.nack(2, 1)), [], "the second nack holds the message back");
    assert_eq!(deliveries(&scene.send("good", None)), [(1, 2)], "the held message does not block later ones");
    scene.answer(1, 2, Answer::Ack);
    assert_eq!(deliveries(&scene.pass(1_999)), []);
    assert_eq!(deliveries(&scene.pass(1)), [(1, 3)], "two failures, two seconds");
    scene.nack(1, 3);
    assert_eq!(deliveries(&scene.pass(3_999)), []);
    let again = scene.pass(1);
    assert_eq!(deliveries(&again), [(1, 4)], "three failures, four seconds");
    assert!(again.iter().any(|effect| matches!(effect, Effect::Deliver { attempt: 4, .. })), "{again:?}");
}

#[test]
fn the_back_off_is_a_minute_at_most_and_failures_are_logged() {
    let mut scene = manual(ChannelPolicy::default(), 1..=1);
    scene.send("bad", None);
    let (mut warnings, mut pauses) = (Vec::new(), Vec::new());
    for sequence in 1..=40 {
        let effects =
            scene.answer(1, sequence, Answer::Nack(Nack { reason: Some("no SIM".into()), ..Nack::default() }));
        warnings.extend(notes(&effects).into_iter().map(|note| match note {
            Note::Failing { attempts, reason, .. } => (attempts, reason.as_deref().map(str::to_owned)),
            other => panic!("{other:?}"),
        }));
        let ((next, _), _) = scene.broker.held.first_key_value().expect("the message is held");
        let next = *next;
        pauses.push(next.since(scene.now).as_secs());
        assert_eq!(deliveries(&scene.pass(next.since(scene.now).as_millis() as u64)), [(1, sequence + 1)]);
    }
    assert_eq!(pauses[..8], [1, 2, 4, 8, 16, 32, 60, 60]);
    assert_eq!(warnings, [5, 10, 20, 40].map(|attempts| (attempts, Some("no SIM".to_owned()))));
}

#[test]
fn retry_after_is_exact_and_the_message_returns_to_its_position() {
    let mut scene = manual(ChannelPolicy::default(), 1..=2);
    scene.send("first", None);
    let nack = Nack { retry_after: Some(Duration::from_millis(2_500)), ..Nack::default() };
    assert_eq!(deliveries(&scene.answer(1, 1, Answer::Nack(nack))), [], "not even to another receiver");
    scene.receive(2, AckMode::Manual, 1);
    assert_eq!(deliveries(&scene.send("second", None)), [(1, 2)]);
    assert_eq!(deliveries(&scene.send("third", None)), [(2, 1)]);
    assert_eq!(deliveries(&scene.send("fourth", None)), []);
    assert_eq!(deliveries(&scene.pass(2_499)), []);
    scene.pass(1);
    assert_eq!(deliveries(&scene.answer(1, 2, Answer::Ack)), [(1, 3)]);
    assert_eq!(scene.texts(), ["first"]);
}

#[test]
fn a_held_message_is_written_purged_and_expired_like_any_other() {
    let nack = || Answer::Nack(Nack { retry_after: Some(Duration::from_secs(60)), ..Nack::default() });
    let mut scene = manual(ChannelPolicy { ttl: Duration::from_secs(10), ..ChannelPolicy::default() }, 1..=1);
    scene.send("short", None);
    assert_eq!(writes(&scene.answer(1, 1, nack())), 1);
    scene.pass(10_000);
    assert_eq!((scene.broker.counters().expired, scene.broker.unsettled()), (1, 0));
    scene.send("purged", None);
    scene.answer(1, 2, nack());
    scene.handle(Event::Purge { channel: name("sms") });
    assert_eq!((scene.broker.counters().purged, scene.broker.unsettled()), (1, 0));
}

#[test]
fn above_the_bound_the_message_with_the_earliest_release_time_is_released() {
    let mut scene = manual(ChannelPolicy::default(), 1..=1);
    let large = "x".repeat(limits::MEMORY_BUDGET / 16);
    for sequence in 1..=4 {
        scene.send(&format!("{large}{sequence}"), None);
        let pause = Duration::from_secs(10 - sequence);
        let effects = scene.answer(1, sequence, Answer::Nack(Nack { retry_after: Some(pause), ..Nack::default() }));
        let early = if sequence < 4 { vec![] } else { vec![(1, 5)] };
        assert_eq!(deliveries(&effects), early, "the last message has the earliest release time");
    }
    assert!(scene.texts()[0].ends_with('4'));
}

#[test]
fn a_rejected_message_becomes_a_dead_letter_or_is_dropped_with_a_log_entry() {
    let reject = || Answer::Nack(Nack { reject: true, reason: Some("bad number".into()), ..Nack::default() });
    let dead = ChannelPolicy { dead_letter: Some(name("dead")), ..ChannelPolicy::default() };
    let mut scene = manual(dead, 1..=2);
    scene.send("one", None);
    assert_eq!(deliveries(&scene.answer(1, 1, reject())), []);
    assert_eq!((scene.broker.counters().dead_lettered, scene.broker.counters().dropped), (1, 0));
    let mut scene = manual(ChannelPolicy::default(), 1..=2);
    scene.send("one", None);
    let effects = scene.answer(1, 1, reject());
    let dropped = Note::Dropped {
        channel: name("sms"),
        id: MessageId(1),
        why: Why::Rejected,
        attempts: 1,
        reason: Some("bad number".into()),
    };
    assert_eq!((notes(&effects), scene.broker.counters().dropped), (vec![dropped], 1));
    assert_eq!(scene.broker.unsettled(), 0);
}

#[test]
fn an_unanswered_delivery_goes_to_another_receiver_with_a_mark() {
    let mut scene = manual(ChannelPolicy::default(), 1..=2);
    scene.send("slow", None);
    scene.pass(200_000);
    scene.answer(1, 1, Answer::Extend);
    assert_eq!(deliveries(&scene.pass(299_999)), []);
    let effects = scene.pass(1);
    assert_eq!(deliveries(&effects), [(2, 1)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Deliver { attempt: 2, .. })), "{effects:?}");
    assert!(matches!(&notes(&effects)[..], [Note::Unanswered { given: true, sequence: 1, .. }]), "{effects:?}");
    let late = scene.answer(1, 1, Answer::Ack);
    assert!(matches!(&late[..], [Effect::Reply { reply: Reply::UnknownDelivery { .. }, .. }]), "{late:?}");
    assert_eq!(scene.broker.unsettled(), 1, "the other receiver has the message");
}

#[test]
fn an_unanswered_delivery_stays_until_another_receiver_comes() {
    let mut scene = manual(ChannelPolicy::default(), 1..=1);
    scene.send("slow", None);
    for _ in 0..2 {
        let effects = scene.pass(300_000);
        assert!(matches!(&notes(&effects)[..], [Note::Unanswered { given: false, .. }]), "{effects:?}");
        assert_eq!(deliveries(&effects), []);
    }
    assert_eq!(deliveries(&scene.receive(2, AckMode::Manual, 1)), [(2, 1)]);
    scene.answer(2, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0);
    let mut scene = manual(ChannelPolicy::default(), 1..=1);
    scene.send("slow", None);
    scene.pass(300_000);
    scene.answer(1, 1, Answer::Ack);
    assert_eq!(scene.broker.unsettled(), 0, "late, but the delivery was still its own");
}

fn hurried() -> Scene {
    let within = Duration::from_secs(10);
    Scene::with(ChannelPolicy { receivers: 1, confirm_within: within, ..ChannelPolicy::default() })
}

#[test]
fn a_silent_receivers_delivery_goes_to_one_more_receiver_and_it_gets_nothing_new() {
    let mut scene = hurried();
    for connection in 1..=3 {
        scene.receive(connection, AckMode::Automatic, limits::PREFETCH);
    }
    assert_eq!(deliveries(&scene.send("code", None)), [(1, 1)]);
    assert_eq!(deliveries(&scene.pass(9_999)), []);
    assert_eq!(deliveries(&scene.pass(1)), [(2, 1)]);
    assert_eq!(deliveries(&scene.pass(10_000)), [], "one more receiver at most");
    assert_eq!(deliveries(&scene.send("next", None)), [(3, 1)], "two receivers are silent now");
    scene.handle(Event::Confirmed { connection: ConnectionId(2), up_to: 1 });
    assert_eq!(scene.broker.counters().confirmed, 1);
    let late = scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert!(late.is_empty(), "a late confirmation has no effects: {late:?}");
    assert_eq!(deliveries(&scene.send("again", None)), [(1, 2)], "the first receiver is not silent any more");
}

#[test]
fn a_silent_receivers_delivery_goes_to_the_next_new_receiver() {
    let mut scene = hurried();
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    scene.send("code", None);
    assert_eq!(deliveries(&scene.pass(15_000)), []);
    let effects = scene.receive(2, AckMode::Manual, 1);
    assert_eq!(deliveries(&effects), [(2, 1)]);
    assert!(effects.iter().any(|effect| matches!(effect, Effect::Deliver { attempt: 2, .. })), "{effects:?}");
    scene.handle(Event::Disconnected { connection: ConnectionId(2), took_only: false, listens: false });
    let effects = scene.receive(3, AckMode::Automatic, limits::PREFETCH);
    assert_eq!(deliveries(&effects), [(3, 1)], "the second receiver has vanished");
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 1 });
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (1, 0));
}

#[test]
fn without_a_limit_a_silent_receivers_delivery_goes_to_one_new_receiver_only() {
    let within = Duration::from_secs(10);
    let mut scene = Scene::with(ChannelPolicy { receivers: 0, confirm_within: within, ..ChannelPolicy::default() });
    scene.receive(1, AckMode::Automatic, limits::PREFETCH);
    assert_eq!(deliveries(&scene.send("code", None)), [(1, 1)]);
    scene.pass(10_000);
    assert_eq!(deliveries(&scene.receive(2, AckMode::Automatic, limits::PREFETCH)), [(2, 1)]);
    assert_eq!(deliveries(&scene.receive(3, AckMode::Automatic, limits::PREFETCH)), []);
    scene.handle(Event::Disconnected { connection: ConnectionId(2), took_only: false, listens: false });
    assert_eq!(scene.broker.unsettled(), 1, "the first receiver still has the message");
}

#[test]
fn a_shorter_confirm_within_applies_to_deliveries_in_flight() {
    for before in [Duration::ZERO, Duration::from_secs(300)] {
        let policy = |within| ChannelPolicy { receivers: 1, confirm_within: within, ..ChannelPolicy::default() };
        let mut scene = Scene::with(policy(before));
        scene.receive(1, AckMode::Automatic, limits::PREFETCH);
        scene.receive(2, AckMode::Automatic, limits::PREFETCH);
        assert_eq!(deliveries(&scene.send("code", None)), [(1, 1)]);
        assert_eq!(deliveries(&scene.pass(6_000)), []);
        let policies = Policies { named: Vec::new(), default: policy(Duration::from_secs(10)) };
        scene.broker.reconfigure(Settings { policies, ..scene.broker.settings.clone() });
        assert_eq!(deliveries(&scene.pass(3_999)), []);
        assert_eq!(deliveries(&scene.pass(1)), [(2, 1)], "confirm_within was {before:?}");
    }
}

#[test]
fn manual_deliveries_stay_manual_when_the_receiver_becomes_automatic() {
    let mut scene = manual(ChannelPolicy::default(), 1..=1);
    scene.send("one", None);
    scene.receive(1, AckMode::Automatic, 8);
    scene.send("two", None);
    assert!(scene.pass(100).iter().any(is_confirm), "the second delivery is automatic");
    scene.handle(Event::Confirmed { connection: ConnectionId(1), up_to: 2 });
    assert_eq!(
        (scene.broker.counters().confirmed, scene.broker.unsettled()),
        (1, 1),
        "a pong does not confirm the manual delivery"
    );
    scene.receive(1, AckMode::Manual, 8);
    scene.send("three", None);
    scene.receive(1, AckMode::Automatic, 8);
    scene.answer(1, 1, Answer::Ack);
    scene.answer(1, 3, Answer::Ack);
    assert_eq!((scene.broker.counters().confirmed, scene.broker.unsettled()), (3, 0));
    scene.send("four", None);
    let guessed = scene.answer(1, 4, Answer::Ack);
    assert!(matches!(&guessed[..], [Effect::Reply { reply: Reply::UnknownDelivery { .. }, .. }]), "{guessed:?}");
    scene.receive(1, AckMode::Manual, 8);
    assert!(scene.pass(100).iter().any(is_confirm), "an automatic delivery still needs a confirmation");
}

#[test]
fn timers_of_disconnected_receivers_are_removed() {
    let mut scene = Scene::with(ChannelPolicy::default());
    for connection in 1..20_000 {
        scene.broker.handle(scene.now, subscribe(connection), &mut scene.effects);
        scene.send("one", None);
        let gone = Event::Disconnected { connection: ConnectionId(connection), took_only: false, listens: false };
        scene.handle(gone);
        scene.handle(Event::Purge { channel: name("sms") });
    }
    assert!(scene.broker.deadlines.waiting() <= limits::TIMERS_LEFT + 8, "{}", scene.broker.deadlines.waiting());
}

fn subscribe(connection: u64) -> Event<'static> {
    Event::Subscribe(modern(connection, &["sms"], AckMode::Manual, Some(1)))
}
