//! Expired messages of a channel with `dead_letter_expired` become dead letters, in whatever state they expire.

use super::*;

/// Makes a broker whose channel `sms` holds at most two messages, each for a second.
fn small_and_short() -> Scene {
    let ttl = Duration::from_secs(1);
    Scene::with(ChannelPolicy { receivers: 1, max_backlog: 2, ttl, ..ChannelPolicy::default() })
}

fn refusal(effects: &[Effect]) -> Option<Refusal> {
    effects.iter().find_map(|effect| match effect {
        Effect::Reply { reply: Reply::Refused { refusal, .. }, .. } => Some(*refusal),
        _ => None,
    })
}

fn dying() -> ChannelPolicy {
    ChannelPolicy {
        receivers: 1,
        ttl: Duration::from_secs(10),
        dead_letter: Some(name("dead")),
        dead_letter_expired: true,
        ..ChannelPolicy::default()
    }
}

/// Makes a broker with the channel `sms` as above. `dead`: the policy of its dead-letter channel.
fn scene(dead: ChannelPolicy) -> Scene {
    scene_on(Restored::default(), dead)
}

fn scene_on(restored: Restored, dead: ChannelPolicy) -> Scene {
    let named = vec![(WildMatch::new("sms"), dying()), (WildMatch::new("dead"), dead)];
    let policies = Policies { named, default: ChannelPolicy::default() };
    let broker = Broker::new(Settings { policies, bounds: Bounds::TIGHT, ..Settings::default() }, restored);
    Scene { broker, now: Timestamp(1_000), effects: Effects::default(), user: "app", answer: false, delay: None }
}

/// Returns the dead letters that the effects write to the store: their texts and origins.
fn letters(effects: &[Effect]) -> Vec<(String, DeadLetter)> {
    let mut found = Vec::new();
    for effect in effects {
        let messages = match effect {
            Effect::Store(StoreEffect::Append(messages)) => messages.clone(),
            Effect::Store(StoreEffect::Replace { message, .. }) => vec![Message::clone(message)],
            _ => Vec::new(),
        };
        found.extend(messages.into_iter().filter_map(|message| {
            Some((message.payload.as_text()?.to_owned(), DeadLetter::clone(message.dead.as_deref()?)))
        }));
    }
    found
}

fn expired(attempts: u32) -> DeadLetter {
    DeadLetter { why: Why::Expired, channel: name("sms"), attempts, reason: None }
}

/// Makes rows of `sms` as the store returns them; all of them have expired.
fn rows(scene: &Scene, rows: std::ops::RangeInclusive<u64>) -> Vec<Message> {
    let row = |id: u64| Message { expires: Some(Timestamp(500 + id)), ..scene.row(id, &id.to_string()) };
    rows.map(row).collect()
}

fn restored(messages: u64) -> Restored {
    let expiries = (1..=messages).map(|id| (Timestamp(500 + id), 1)).collect();
    let last = MessageId(messages);
    Restored {
        channels: vec![ChannelSummary { channel: name("sms"), messages, last, expiries }],
        last_id: last,
        ..Restored::default()
    }
}

#[test]
fn a_waiting_message_becomes_a_dead_letter_when_it_expires() {
    let mut scene = scene(ChannelPolicy::default());
    scene.receive(1, AckMode::Manual, 1);
    scene.send("held", None);
    scene.send("waits", None);
    assert_eq!(letters(&scene.pass(9_999)), []);
    assert_eq!(letters(&scene.pass(1)), [("waits".to_owned(), expired(0))]);
    assert_eq!((scene.broker.counters().dead_lettered, scene.broker.counters().expired), (1, 0));
}

#[test]
fn an_expired_message_in_flight_becomes_a_dead_letter_with_attempts_and_reason_when_it_returns() {
    let nack = |reason: &str| Answer::Nack(Nack { reason: Some(reason.into()), ..Nack::default() });
    let mut scene = scene(ChannelPolicy::default());
    scene.receive(1, AckMode::Manual, 1);
    scene.send("nacked", None);
    scene.pass(10_000);
    let effects = scene.handle(Event::Acknowledge(Acknowledge {
        connection: ConnectionId(1),
        sequence: 1,
        answer: nack("no network"),
    }));
    let told = DeadLetter { reason: Some("no network".into()), ..expired(1) };
    assert_eq!(letters(&effects), [("nacked".to_owned(), told)]);
    scene.send("vanished", None);
    scene.pass(10_000);
    let gone = Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false };
    assert_eq!(letters(&scene.handle(gone)), [("vanished".to_owned(), expired(1))]);
}

#[test]
fn a_held_message_becomes_a_dead_letter_when_it_expires() {
    let mut scene = scene(ChannelPolicy::default());
    scene.receive(1, AckMode::Manual, 1);
    scene.send("held", None);
    let answer = Answer::Nack(Nack { retry_after: Some(Duration::from_secs(60)), ..Nack::default() });
    scene.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence: 1, answer }));
    assert_eq!(letters(&scene.pass(10_000)), [("held".to_owned(), expired(1))]);
}

#[test]
fn thousands_of_stored_messages_become_dead_letters_in_order_and_a_few_at_a_time() {
    let total = 3_000;
    let mut scene = scene_on(restored(total), ChannelPolicy::default());
    let mut left: Vec<Message> = rows(&scene, 1..=total);
    let (mut order, mut most) = (Vec::new(), 0);
    let mut effects = scene.pass(0);
    // A minimal store: it sweeps, and writes at once.
    for round in 0.. {
        assert!(round < 5_000, "{} are left", left.len());
        let mut next = Vec::new();
        let swept = effects.iter().any(|effect| matches!(effect, Effect::Store(StoreEffect::Sweep { .. })));
        order.extend(letters(&effects).into_iter().map(|(text, _)| text));
        let mut written = Vec::new();
        for effect in &effects {
            if let Effect::Store(StoreEffect::Replace { message, old }) = effect {
                left.retain(|row| !old.contains(&row.id));
                written.push(message.id);
            }
        }
        most = most.max(scene.broker.bytes);
        if !written.is_empty() {
            next.extend(scene.handle(Event::Store(StoreEvent::Stored(written))));
        }
        if swept {
            let share: Vec<Message> = left.iter().take(Bounds::TIGHT_SWEEP_ROWS).cloned().collect();
            let more = share.len() < left.len();
            next.extend(scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: share, more })));
        }
        if left.is_empty() && next.is_empty() {
            break;
        }
        next.extend(scene.pass(0));
        effects = next;
    }
    let expected: Vec<String> = (1..=total).map(|id| id.to_string()).collect();
    assert_eq!(order, expected);
    assert!(
        most <= (Bounds::TIGHT.superseded_rows + Bounds::TIGHT_SWEEP_ROWS) * (limits::ENTRY_BYTES + 200),
        "{most} bytes at once"
    );
    assert_eq!(scene.broker.counters().dead_lettered, total);
}

#[test]
fn expired_rows_are_not_read_faster_than_the_store_writes() {
    let mut scene = scene_on(restored(1_000), ChannelPolicy::default());
    for first in (1..900).step_by(Bounds::TIGHT_SWEEP_ROWS) {
        let spared = rows(&scene, first..=first + Bounds::TIGHT_SWEEP_ROWS as u64 - 1);
        scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared, more: true }));
    }
    assert!(
        scene.broker.counters().dead_lettered as usize <= Bounds::TIGHT.superseded_rows,
        "{:?}",
        scene.broker.counters()
    );
}

#[test]
fn a_dead_letter_has_the_ttl_of_its_channel_and_expires_for_good() {
    let dead = ChannelPolicy {
        ttl: Duration::from_secs(60),
        dead_letter: Some(name("grave")),
        dead_letter_expired: true,
        ..ChannelPolicy::default()
    };
    let mut scene = scene(dead);
    scene.receive(1, AckMode::Manual, 1);
    scene.send("held", None);
    scene.send("one", None);
    let effects = scene.pass(10_000);
    let expires = effects.iter().find_map(|effect| match effect {
        Effect::Store(StoreEffect::Replace { message, .. }) => message.expires,
        Effect::Store(StoreEffect::Append(messages)) => messages.iter().find_map(|message| message.expires),
        _ => None,
    });
    assert_eq!(expires, Some(scene.now.after(Duration::from_secs(60))));
    let end = scene.pass(60_000);
    assert_eq!((letters(&end), scene.broker.counters().expired), (vec![], 1), "{end:?}");
}

#[test]
fn a_full_dead_letter_channel_drops_the_message_with_a_log_entry() {
    let mut scene = scene(ChannelPolicy { max_backlog: 1, ..ChannelPolicy::default() });
    scene.receive(1, AckMode::Manual, 1);
    for text in ["held", "first", "second"] {
        scene.send(text, None);
    }
    let effects = scene.pass(10_000);
    assert_eq!(letters(&effects).len(), 1);
    let dropped = effects.iter().find_map(|effect| match effect {
        Effect::Note(note) => Some(Note::clone(note)),
        _ => None,
    });
    let (channel, id) = (name("sms"), MessageId(3));
    assert_eq!(dropped, Some(Note::Dropped { channel, id, why: Why::Expired, attempts: 0, reason: None }));
}

#[test]
fn a_waiting_sender_gets_expired_and_may_use_its_id_again() {
    let mut scene = scene(ChannelPolicy::default());
    scene.receive(1, AckMode::Manual, 1);
    scene.send("held", None);
    scene.send("one", Some("x"));
    let effects = scene.pass(10_000);
    assert_eq!((refusal(&effects), letters(&effects).len()), (Some(Refusal::Expired), 1));
    let letter = effects.iter().find_map(|effect| match effect {
        Effect::Store(StoreEffect::Replace { message, .. }) => Some(message.publication.clone()),
        _ => None,
    });
    assert_eq!(letter, Some(None), "after a restart the id must not count as accepted");
    assert_eq!(accepted(&scene.send("two", Some("x"))), None, "it is a new publication");
}

#[test]
fn a_dead_letter_confirmed_while_a_sweep_returns_its_row_is_delivered_once() {
    let mut scene = scene_on(restored(2), ChannelPolicy::default());
    scene.handle(Event::Subscribe(modern(1, &["dead"], AckMode::Manual, Some(8))));
    scene.pass(0);
    let effects =
        scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: rows(&scene, 1..=1), more: true }));
    assert_eq!(deliveries(&effects), [(1, 1)]);
    // The next sweep reads the row again before the store learns of its removal.
    scene.pass(0);
    scene.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack }));
    let effects =
        scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: rows(&scene, 1..=2), more: false }));
    assert_eq!((deliveries(&effects), scene.texts()), (vec![(1, 2)], vec!["2".to_owned()]));
}

#[test]
fn a_page_read_before_the_removal_of_a_row_does_not_deliver_it() {
    let mut scene = scene_on(restored(3), ChannelPolicy::default());
    let join = |connection, channel| Event::Subscribe(modern(connection, &[channel], AckMode::Manual, Some(8)));
    scene.handle(join(1, "dead"));
    scene.pass(0);
    scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: rows(&scene, 2..=2), more: false }));
    let is_load = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Load { .. }));
    assert!(scene.handle(join(2, "sms")).iter().any(is_load));
    // The page is read now, with the row. The dead letter is confirmed before the page arrives.
    let alive = |row: Message| Message { expires: None, ..row };
    let messages = rows(&scene, 1..=3).into_iter().map(alive).collect();
    scene.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack }));
    let effects = scene.handle(Event::Store(StoreEvent::Loaded { channel: name("sms"), messages, complete: true }));
    assert!(effects.iter().any(is_load), "the page is read again: {effects:?}");
    assert_eq!((deliveries(&effects), scene.broker.unsettled()), (vec![], 2));
}

#[test]
fn expired_messages_in_the_store_do_not_count_against_a_limit() {
    let mut scene = small_and_short();
    for id in ["a", "b"] {
        assert_eq!(refusal(&scene.send(id, Some(id))), None);
    }
    scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1), MessageId(2)])));
    scene.now.0 += 999;
    assert_eq!(refusal(&scene.send("c", Some("c"))), Some(Refusal::BacklogFull));
    scene.now.0 += 1;
    for id in ["d", "e"] {
        assert_eq!(
            refusal(&scene.send(id, Some(id))),
            None,
            "the earlier messages have expired, although no sweep has run"
        );
    }
    assert_eq!(refusal(&scene.send("f", Some("f"))), Some(Refusal::BacklogFull), "the limit still applies");
    let gone = vec![(MessageId(1), name("sms")), (MessageId(2), name("sms"))];
    scene.handle(Event::Store(StoreEvent::Swept { gone, spared: Vec::new(), more: false }));
    assert_eq!((scene.broker.unsettled(), scene.broker.counters().expired), (2, 2));
    assert_eq!(refusal(&scene.send("g", Some("g"))), Some(Refusal::BacklogFull));
}

#[test]
fn expired_messages_in_flight_do_not_count_against_a_limit() {
    let mut scene = small_and_short();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("a", None);
    scene.send("b", None);
    assert_eq!(refusal(&scene.send("c", None)), Some(Refusal::BacklogFull));
    let effects = scene.pass(1_000);
    assert_eq!((scene.broker.unsettled(), deliveries(&effects).len()), (1, 0), "the waiting message has expired");
    scene.send("d", None);
    assert_eq!(refusal(&scene.send("e", None)), None);
    assert_eq!(refusal(&scene.send("f", None)), Some(Refusal::BacklogFull));
}

#[test]
fn a_publication_that_was_written_after_its_expiry_is_refused() {
    let mut scene = small_and_short();
    scene.send("a", Some("a"));
    scene.now.0 += 1_000;
    assert_eq!(refusal(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(1)])))), Some(Refusal::Expired));
    scene.send("b", Some("b"));
    scene.now.0 += 999;
    assert_eq!(accepted(&scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(2)])))), Some(true));
}

#[test]
fn a_returned_publication_that_expires_before_it_is_safe_is_refused() {
    let mut scene = small_and_short();
    scene.receive(1, AckMode::Manual, 1);
    scene.send("a", Some("a"));
    scene.handle(Event::Disconnected { connection: ConnectionId(1), took_only: false, listens: false });
    assert_eq!(refusal(&scene.pass(1_000)), Some(Refusal::Expired));
}

#[test]
fn sweeps_follow_one_another_until_no_expired_row_is_left() {
    let mut scene = small_and_short();
    scene.send("a", None);
    let is_sweep = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Sweep { .. }));
    assert!(scene.pass(Bounds::TIGHT.sweep_every.as_millis() as u64).iter().any(is_sweep));
    scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: Vec::new(), more: true }));
    assert_eq!(scene.broker.next_deadline(), Some(scene.now), "the next sweep is due at once");
    assert!(scene.pass(0).iter().any(is_sweep));
    scene.handle(Event::Store(StoreEvent::Swept { gone: Vec::new(), spared: Vec::new(), more: false }));
    assert_eq!(scene.broker.next_deadline(), Some(scene.now.after(Bounds::TIGHT.sweep_every)));
}

#[test]
fn a_step_of_the_wall_clock_moves_the_times_of_restored_messages_only() {
    let mut scene = small_and_short();
    let row = |id: u64, due: Option<u64>| Message {
        expires: Some(Timestamp(9_000_000)),
        due: due.map(Timestamp),
        ..scene.row(id, &id.to_string())
    };
    let delayed = vec![row(7, Some(3_700_000))];
    let expiries = vec![(Timestamp(500_000), 1)];
    let held = ChannelSummary { channel: name("sms"), messages: 1, last: MessageId(5), expiries };
    let restored = Restored { channels: vec![held], delayed, last_id: MessageId(7), ..Restored::default() };
    scene.broker = Broker::new(scene.broker.settings.clone(), restored);
    assert_eq!(refusal(&scene.send("a", Some("a"))), Some(Refusal::BacklogFull));
    scene.handle(Event::Store(StoreEvent::WallAdvanced(Duration::from_secs(3_600))));
    assert_eq!(refusal(&scene.send("b", Some("b"))), None, "the stored messages have expired");
    let effects = scene.pass(100_000);
    let is_due = |effect: &Effect| matches!(effect, Effect::Store(StoreEffect::Replace { .. }));
    assert!(effects.iter().any(is_due), "the delayed message of the store is due: {effects:?}");
    let late = scene.handle(Event::Store(StoreEvent::Stored(vec![MessageId(8)])));
    assert_eq!(refusal(&late), Some(Refusal::Expired), "a message that was accepted since then uses elapsed time");
}

#[test]
fn an_expired_message_does_not_block_the_one_behind_it() {
    let ttl = Duration::from_secs(1);
    let mut scene = Scene::with(ChannelPolicy { receivers: 1, ttl, ..ChannelPolicy::default() });
    scene.receive(1, AckMode::Manual, 1);
    scene.send("in flight", None);
    scene.send("expires while it waits", None);
    scene.pass(900);
    scene.send("later", None);
    scene.pass(200);
    let acknowledge = Acknowledge { connection: ConnectionId(1), sequence: 1, answer: Answer::Ack };
    let effects = scene.handle(Event::Acknowledge(acknowledge));
    assert_eq!(deliveries(&effects), [(1, 2)]);
    let Some(Content::Backlog(backlog)) = scene.effects.contents.first() else { panic!("a backlog") };
    assert_eq!(backlog.messages[0].as_text(), Some("later"));
    assert_eq!(scene.broker.counters().expired, 1);
}
