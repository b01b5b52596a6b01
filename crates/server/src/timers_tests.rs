//! Tests of the times of holds and of the wheel.

use proptest::prelude::*;

use super::*;

fn at(seconds: u64) -> Timestamp {
    Timestamp(seconds * 1_000)
}
#[test]
fn holds_are_due_after_the_head_shadow_in_their_order() {
    let mut timers = Timers::new(at(0));
    assert!(timers.hold(at(1), Hold::Shadow, ConnectionId(1)), "the first wakes the timer's task");
    assert!(!timers.hold(at(1).after(Duration::from_millis(10)), Hold::Shadow, ConnectionId(2)));
    let due = at(1).after(limits::HEAD_SHADOW);
    assert_eq!(timers.next(), Some(due));
    assert_eq!(timers.take(Timestamp(due.0 - 1)), Due::default());
    assert_eq!(timers.take(due).holds, [ConnectionId(1)]);
    assert_eq!(timers.take(at(2)).holds, [ConnectionId(2)]);
    assert_eq!(timers.next(), None);
}

#[test]
fn an_earlier_check_wakes_the_timers_task_and_a_later_one_does_not() {
    let mut timers = Timers::new(at(0));
    assert!(timers.schedule_check(at(20), ConnectionId(1)));
    assert!(!timers.schedule_check(at(30), ConnectionId(2)));
    assert!(timers.schedule_check(at(5), ConnectionId(3)));
}

#[test]
fn the_wheel_frees_the_memory_of_entries_that_were_taken_out() {
    let mut wheel = Wheel::new(at(0));
    (0..1_000).for_each(|id| wheel.insert(at(1), ConnectionId(id)));
    wheel.take(at(2), &mut Vec::new());
    assert!(wheel.slots.iter().all(|slot| slot.capacity() == 0));
}

proptest! {
    /// Within the ring's length every entry comes out once, not before its time and at most two ticks after it.
    #[test]
    fn the_wheel_is_never_early_and_hardly_late(delays in proptest::collection::vec(0u64..40_000, 1..50), step in 1u64..3_000) {
        let start = 1_763_800_000_123;
        let mut wheel = Wheel::new(Timestamp(start));
        for (id, delay) in (0..).zip(&delays) {
            wheel.insert(Timestamp(start + delay), ConnectionId(id));
        }
        let (mut now, mut came) = (start, vec![None; delays.len()]);
        while now < start + 50_000 {
            let mut out = Vec::new();
            wheel.take(Timestamp(now), &mut out);
            for id in out {
                prop_assert_eq!(came[id.0 as usize].replace(now), None, "twice");
            }
            now += step;
        }
        let tick = limits::WHEEL_TICK.as_millis() as u64;
        for (delay, came) in delays.iter().zip(came) {
            let came = came.expect("it comes out");
            prop_assert!(came >= start + delay, "early");
            prop_assert!(came <= start + delay + 2 * tick + step, "late");
        }
        prop_assert_eq!(wheel.next(), None);
    }

    #[test]
    fn the_wheel_wakes_its_task_in_time(delay in 0u64..40_000) {
        let start = 1_763_800_000_999;
        let mut wheel = Wheel::new(Timestamp(start));
        wheel.insert(Timestamp(start + delay), ConnectionId(1));
        let next = wheel.next().expect("something is due");
        let mut out = Vec::new();
        wheel.take(next, &mut out);
        prop_assert_eq!(out, [ConnectionId(1)]);
    }
}

#[test]
fn each_kind_of_hold_has_its_own_duration() {
    let mut timers = Timers::new(at(0));
    for (hold, connection) in [(Hold::Answer, 3), (Hold::FirstFrame, 2), (Hold::Shadow, 1)] {
        timers.hold(at(1), hold, ConnectionId(connection));
    }
    let mut seen = Vec::new();
    while let Some(next) = timers.next() {
        let Due { holds, unanswered, .. } = timers.take(next);
        seen.push((next.since(at(1)), holds, unanswered));
    }
    let wanted = [
        (limits::HEAD_SHADOW, vec![ConnectionId(1)], vec![]),
        (limits::FIRST_FRAME, vec![ConnectionId(2)], vec![]),
        (limits::ANSWER_TIME, vec![], vec![ConnectionId(3)]),
    ];
    assert_eq!(seen, wanted);
}
