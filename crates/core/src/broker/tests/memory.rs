//! What leaves memory while it is short, and what does not; and how much is done in one turn.

use super::*;

/// The budget of the scenes, far above what they hold.
const BUDGET: usize = limits::MEMORY_BUDGET;

/// A receiver that works on message 1, and messages 2 to 8 that wait, all of them stored.
fn with_backlog() -> Scene {
    let mut scene = Scene::new();
    scene.receive(1, AckMode::Manual, 1);
    for number in 1..=8 {
        scene.send(&number.to_string(), None);
    }
    scene.pass(1_000);
    scene.handle(Event::Store(StoreEvent::Stored((1..=8).map(MessageId).collect())));
    scene
}

/// Returns the numbers of the messages that wait in memory.
fn waiting(scene: &Scene) -> Vec<u64> {
    let (_, channel) = scene.broker.channels.iter().next().expect("a channel");
    channel.waiting.keys().map(|id| id.0).collect()
}

/// Returns where the pages that were asked for begin.
fn pages(effects: &[Effect]) -> Vec<u64> {
    let page = |effect: &Effect| match effect {
        Effect::Store(StoreEffect::Load { after, .. }) => Some(after.0),
        _ => None,
    };
    effects.iter().filter_map(page).collect()
}

#[test]
fn stored_messages_at_the_end_of_the_backlog_leave_memory_while_it_is_short() {
    let mut scene = with_backlog();
    assert_eq!(waiting(&scene), [2, 3, 4, 5, 6, 7, 8]);
    let before = scene.broker.bytes;
    scene.broker.set_memory_used(BUDGET / 10 * 6);
    scene.pass(1);
    // As many as fill a small page stay.
    assert_eq!(waiting(&scene), [2]);
    assert!(scene.broker.bytes < before);
    assert_eq!(scene.broker.unsettled(), 8, "nothing is lost");
    // They come back in order when the receiver needs them, also while memory is short.
    let effects = scene.done(1, 1, AckMode::Manual);
    assert_eq!((deliveries(&effects), pages(&effects)), (vec![(1, 2)], vec![2]));
}

#[test]
fn a_page_is_read_again_when_there_is_memory() {
    let mut scene = with_backlog();
    scene.broker.set_memory_used(BUDGET / 100 * 95);
    scene.pass(1);
    assert_eq!(waiting(&scene), [2]);
    let effects = scene.done(1, 1, AckMode::Manual);
    assert_eq!(
        (deliveries(&effects), pages(&effects)),
        (vec![(1, 2)], vec![]),
        "no page, because memory is nearly full"
    );
    assert!(pages(&scene.pass(1_000)).is_empty(), "it still is");
    scene.broker.set_memory_used(0);
    assert_eq!(pages(&scene.pass(1_000)), [2]);
}

#[test]
fn messages_whose_failures_are_remembered_stay_in_memory() {
    let mut scene = Scene::new();
    scene.handle(Event::Subscribe(modern(1, &["sms", "other"], AckMode::Manual, Some(2))));
    for channel in ["sms", "sms", "other", "other"] {
        scene.publish(100, channel, &"x".repeat(1_000), None);
    }
    scene.pass(1_000);
    scene.handle(Event::Store(StoreEvent::Stored((1..=4).map(MessageId).collect())));
    // The receiver gives both back, and works on the other channel when their pauses are over.
    for sequence in [1, 2] {
        let answer = Answer::Nack(Nack { retry_after: Some(Duration::from_millis(10)), ..Nack::default() });
        scene.handle(Event::Acknowledge(Acknowledge { connection: ConnectionId(1), sequence, answer }));
    }
    scene.pass(20);
    assert_eq!(waiting(&scene), [1, 2]);
    scene.broker.set_memory_used(BUDGET / 10 * 6);
    scene.pass(1);
    assert_eq!(waiting(&scene), [1, 2]);
}

#[test]
fn delayed_messages_that_are_due_at_once_are_released_in_several_turns() {
    let mut scene = Scene::new();
    scene.broker.settings.bounds.delayed = 4 * limits::RELEASED_AT_ONCE;
    scene.delay = Some(Duration::from_secs(1));
    for number in 0..2 * limits::RELEASED_AT_ONCE - 1 {
        scene.send(&number.to_string(), None);
    }
    scene.now.0 += 1_000;
    for left in [limits::RELEASED_AT_ONCE - 1, 0] {
        scene.handle(Event::Tick);
        assert_eq!(scene.broker.delayed.len(), left);
        let is_due = scene.broker.next_deadline().is_some_and(|at| at <= scene.now);
        assert_eq!(is_due, left > 0, "the next turn follows at once");
    }
}
