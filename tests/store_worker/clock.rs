//! Steps of the wall clock.

use std::time::Duration;

use crate::{Fixture, PAGE, channel, stored, timed, unavailable};
use wsmb_core::broker::StoreEvent;
use wsmb_core::message::{MessageId, Timestamp};
use wsmb_core::policy::Spare;
use wsmb_store::Restamp;

#[test]
fn a_step_of_the_wall_clock_does_not_change_the_times_of_loaded_messages() {
    let fixture = Fixture::new();
    let mut expected = Vec::new();
    for (number, by) in (1..).zip([0, 3_600_000, -7_200_000]) {
        if by != 0 {
            fixture.worker.restamp(Restamp { token: number, after: MessageId(0), all: by < 0, by });
        }
        if by > 0 {
            assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
        }
        fixture.worker.append(vec![timed(number, 100_000_000 + number)]);
        assert_eq!(fixture.next(), stored(&[number]));
        expected.push(timed(number, 100_000_000 + number));
    }
    fixture.worker.load(channel(), MessageId(0), 100, PAGE);
    assert_eq!(fixture.next(), StoreEvent::Loaded { channel: channel(), messages: expected, complete: true });
    let written = fixture.control.with(|script| script.groups.last().map(|group| group.appends[0].created));
    assert_eq!(written, Some(Timestamp(100_000_003 - 3_600_000)), "the store must contain the time of the wall clock");
    fixture.worker.sweep(Timestamp(100_060_002), Spare::default());
    let gone = |ids: &[u64]| ids.iter().map(|id| (MessageId(*id), channel())).collect();
    assert_eq!(fixture.next(), StoreEvent::Swept { gone: gone(&[1, 2]), spared: vec![], more: false });
}

#[test]
fn a_failed_restamp_is_repeated_and_loaded_times_are_correct_meanwhile() {
    let fixture = Fixture::new();
    fixture.worker.append(vec![timed(1, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[1]));
    fixture.fail(unavailable());
    fixture.worker.restamp(Restamp { token: 1, after: MessageId(0), all: false, by: 3_600_000 });
    assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_millis(3_600_000)));
    let page = || {
        fixture.worker.load(channel(), MessageId(0), 100, PAGE);
        fixture.next()
    };
    let expected = StoreEvent::Loaded { channel: channel(), messages: vec![timed(1, 100_000_000)], complete: true };
    assert_eq!(page(), expected);
    fixture.end_failure();
    fixture.worker.append(vec![timed(2, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[2]));
    let StoreEvent::Loaded { messages, .. } = page() else { panic!("not a page") };
    assert_eq!(messages, [timed(1, 100_000_000), timed(2, 100_000_000)]);
    fixture.worker.stop().expect("stops");
}

#[test]
fn the_time_is_written_with_groups_and_by_itself() {
    let fixture = Fixture::new();
    let written_times = || -> Vec<u64> {
        fixture
            .control
            .with(|script| script.groups.iter().flat_map(|group| group.marks.iter().map(|mark| mark.1)).collect())
    };
    for (id, created) in [(1, 5_000), (2, 5_999), (3, 6_000)] {
        fixture.worker.append(vec![timed(id, created)]);
        assert_eq!(fixture.next(), stored(&[id]));
    }
    assert_eq!(written_times(), [5_000, 6_000], "the time must be written once a second");
    fixture.worker.note_time(Timestamp(66_000));
    fixture.worker.stop().expect("stops");
    assert_eq!(written_times(), [5_000, 6_000, 66_000]);
}

#[test]
fn rows_of_an_earlier_run_are_restamped_at_once_in_an_outage_too() {
    let fixture = Fixture::new();
    fixture.worker.append(vec![timed(1, 100_000_000), timed(2, 100_000_000)]);
    assert_eq!(fixture.next(), stored(&[1, 2]));
    fixture.fail(unavailable());
    // An earlier run has stored the first row.
    fixture.worker.restamp(Restamp { token: 1, after: MessageId(1), all: false, by: 50_000 });
    assert_eq!(fixture.next(), StoreEvent::WallAdvanced(Duration::from_secs(50)));
    for healed in [false, true] {
        if healed {
            fixture.end_failure();
            fixture.worker.append(vec![timed(3, 100_000_000)]);
            assert_eq!(fixture.next(), stored(&[3]));
        }
        fixture.worker.load(channel(), MessageId(0), 100, PAGE);
        let StoreEvent::Loaded { messages, .. } = fixture.next() else { panic!("not a page") };
        let times: Vec<u64> = messages.iter().map(|message| message.created.0).collect();
        assert_eq!(times[..2], [100_000_000 - 50_000, 100_000_000], "healed: {healed}");
    }
}
