//! Tests of the checker with written histories: each rule finds its violation, and each permitted reason applies only where it should.

use super::history::History;
use super::violations;
use crate::torture::plan::Channel;
use crate::torture::record::{Event, Kind};

/// Builds a history event by event. Times are in milliseconds.
#[derive(Default)]
struct Trace {
    events: Vec<(String, Event)>,
}

impl Trace {
    /// Returns a history with an accepted message `s-1` with an id on the channel `one`, and receivers `a` and `b` from the start.
    fn accepted() -> Self {
        Self::default().open(0, "a", "modern").open(0, "b", "modern").send(10, "s-1", "one").answer(20, "s-1", "00")
    }

    fn event(mut self, t: u64, client: &str, kind: Kind, change: impl FnOnce(&mut Event)) -> Self {
        let mut event = Event { t: t * 1_000, e: kind, conn: Some(1), ..Event::default() };
        change(&mut event);
        self.events.push((client.to_owned(), event));
        self
    }

    fn open(self, t: u64, client: &str, kind: &str) -> Self {
        self.open_on(t, client, 1, kind, "one", "direct")
    }

    fn open_on(self, t: u64, client: &str, conn: u64, kind: &str, channel: &str, route: &str) -> Self {
        self.event(t, client, Kind::Open, |event| {
            event.conn = Some(conn);
            event.ch = Some(channel.to_owned());
            event.what = Some(kind.to_owned());
            event.how = Some(route.to_owned());
        })
    }

    fn send(self, t: u64, key: &str, channel: &str) -> Self {
        let sender = key.rsplit_once('-').unwrap().0.to_owned();
        self.event(t, &sender, Kind::Send, |event| {
            event.m = Some(key.to_owned());
            event.ch = Some(channel.to_owned());
            event.h = Some(7);
            event.id = Some(true);
            event.how = Some("direct".to_owned());
        })
    }

    fn answer(self, t: u64, key: &str, code: &str) -> Self {
        self.event(t, "s", Kind::Answer, |event| {
            event.m = Some(key.to_owned());
            event.code = Some(code.to_owned());
        })
    }

    fn got(self, t: u64, client: &str, key: &str) -> Self {
        self.got_on(t, client, key, "one", None)
    }

    fn got_on(self, t: u64, client: &str, key: &str, channel: &str, delivery: Option<(&str, bool)>) -> Self {
        self.event(t, client, Kind::Got, |event| {
            event.m = Some(key.to_owned());
            event.ch = Some(channel.to_owned());
            event.h = Some(7);
            event.d = delivery.map(|(name, _)| name.to_owned());
            event.marked = delivery.and_then(|(_, marked)| marked.then_some(true));
        })
    }

    fn confirm(self, t: u64, client: &str) -> Self {
        self.event(t, client, Kind::Confirm, |_| {})
    }

    fn manual(self, t: u64, client: &str, kind: Kind, delivery: &str) -> Self {
        self.event(t, client, kind, |event| event.d = Some(delivery.to_owned()))
    }

    fn end(self, t: u64, client: &str, how: &str) -> Self {
        self.event(t, client, Kind::End, |event| event.what = Some(how.to_owned()))
    }

    fn act(self, t: u64, what: &str, how: &str) -> Self {
        self.event(t, "nemesis", Kind::Act, |event| {
            event.what = Some(what.to_owned());
            event.how = Some(how.to_owned());
        })
    }

    fn waits(self, t: u64, channel: &str, key: &str) -> Self {
        self.event(t, "waiting", Kind::Note, |event| {
            event.what = Some("waiting".to_owned());
            event.ch = Some(channel.to_owned());
            event.how = Some(format!("{{\"channel\":\"{channel}\",\"message\":{{\"m\":\"{key}\"}}}}"));
        })
    }

    fn history(self) -> History {
        let new = Channel::new;
        let dead_letter = "dead".to_owned();
        let tries = Channel { dead_letter: dead_letter.clone(), max_deliveries: 3, ..new("tries", 1, true) };
        let late = Channel { ttl: 2_000, dead_letter, dead_letter_expired: true, ..new("late", 1, true) };
        let guard = Channel { confirm_within: 1_000, ..new("guard", 1, true) };
        let short = Channel { ttl: 2_000, ..new("short", 1, true) };
        let (one, two, dead) = (new("one", 1, true), new("two", 2, true), new("dead", 1, true));
        let (all, live) = (new("all", 0, true), new("live", 0, false));
        History::new(vec![one, two, all, live, dead, tries, short, late, guard], self.events)
    }

    #[track_caller]
    fn breaks(self, rule: &str) {
        let history = self.history();
        let found = violations(&history);
        assert!(!found.is_empty() && found.iter().all(|violation| violation.rule == rule), "{rule}: {found:?}");
        let report = super::report(&history, &found);
        assert!(report.contains(rule), "{report}");
    }

    #[track_caller]
    fn holds(self) {
        let found = violations(&self.history());
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn an_accepted_and_confirmed_message_is_no_violation() {
    Trace::accepted().got(30, "a", "s-1").confirm(40, "a").holds();
}

#[test]
fn an_accepted_message_without_a_receipt_is_lost() {
    Trace::accepted().breaks("lost");
    Trace::accepted().waits(9_000, "one", "s-1").breaks("left");
    Trace::default().send(10, "s-1", "one").answer(20, "s-1", "05").holds();
}

#[test]
fn an_unconfirmed_message_must_be_delivered_again() {
    Trace::accepted().got(30, "a", "s-1").end(40, "a", "reset").breaks("lost");
    Trace::accepted().got(30, "a", "s-1").end(40, "a", "reset").got(50, "b", "s-1").confirm(60, "b").holds();
}

#[test]
fn an_orderly_end_confirms_the_only_message_of_a_legacy_client_without_a_proxy() {
    let leaves = |kind, route, how| {
        let trace =
            Trace::default().open_on(0, "a", 1, kind, "one", route).send(10, "s-1", "one").answer(20, "s-1", "00");
        trace.got(30, "a", "s-1").end(40, "a", how)
    };
    leaves("legacy", "direct", "fin").holds();
    leaves("one-shot", "direct", "close").holds();
    leaves("modern", "direct", "fin").breaks("lost");
    leaves("legacy", "nginx", "fin").breaks("lost");
    leaves("legacy", "direct", "refused").breaks("lost");
    leaves("legacy", "direct", "reset").breaks("lost");
    let two = leaves("legacy", "direct", "fin").send(21, "s-2", "one").answer(22, "s-2", "00");
    two.got(31, "a", "s-2").breaks("lost");
}

#[test]
fn an_undisturbed_message_without_an_answer_must_be_delivered() {
    let handed = |how: &str| {
        let trace = Trace::default().event(10, "s", Kind::Send, |event| {
            event.m = Some("s-1".to_owned());
            event.ch = Some("one".to_owned());
            event.how = Some("direct".to_owned());
        });
        trace.event(20, "s", Kind::Gone, |event| event.what = Some(how.to_owned()))
    };
    handed("fin").act(9_000, "settled", "").breaks("lost");
    handed("reset").act(9_000, "settled", "").breaks("lost");
    handed("fin").act(1_000, "kill", "").act(9_000, "settled", "").holds();
    handed("fin").act(5, "term", "").act(500, "ended", "").act(9_000, "settled", "").holds();
    handed("fin").act(3_000, "database-down", "").act(3_100, "database-up", "").act(9_000, "settled", "").holds();
}

#[test]
fn no_more_receivers_than_the_limit_have_a_message() {
    let twice = || Trace::accepted().got(30, "a", "s-1").confirm(40, "a");
    twice().got(3_000, "b", "s-1").confirm(3_010, "b").breaks("doubled");
    // Not confirmed yet, and not returned.
    Trace::accepted().got(30, "a", "s-1").got(31, "b", "s-1").confirm(5_000, "a").confirm(5_000, "b").breaks("doubled");
    // The broker was killed before the confirmation was on the disk, or long after.
    twice().act(50, "kill", "").got(3_000, "b", "s-1").confirm(3_010, "b").holds();
    twice().act(9_000, "kill", "").got(9_100, "b", "s-1").confirm(9_200, "b").breaks("doubled");
    // An orderly stop loses no confirmation.
    twice().act(500, "term", "").act(900, "ended", "").got(3_000, "b", "s-1").confirm(3_010, "b").breaks("doubled");
    // A pong may be lost with a connection that is reset, not with one that ends in order.
    twice().end(50, "a", "reset").got(3_000, "b", "s-1").confirm(3_010, "b").holds();
    twice().end(50, "a", "fin").got(3_000, "b", "s-1").confirm(3_010, "b").breaks("doubled");
}

#[test]
fn a_limit_of_two_permits_two_receivers() {
    let trace = |names: &[&str]| {
        let mut trace = Trace::default().send(10, "s-1", "two").answer(20, "s-1", "00");
        for name in names {
            trace = trace.open_on(0, name, 1, "modern", "two", "direct").got_on(30, name, "s-1", "two", None);
            trace = trace.confirm(40, name);
        }
        trace
    };
    trace(&["a", "b"]).holds();
    trace(&["a", "b", "c"]).breaks("doubled");
}

#[test]
fn without_a_limit_each_client_has_a_message_once() {
    let all = |name: &str| {
        let trace = Trace::default()
            .open_on(0, "a", 1, "modern", "all", "direct")
            .open_on(0, name, 2, "modern", "all", "direct");
        let trace = trace.send(10, "s-1", "all").answer(20, "s-1", "00");
        trace
            .got_on(30, "a", "s-1", "all", None)
            .confirm(40, "a")
            .got_on(6_000, name, "s-1", "all", None)
            .confirm(6_100, name)
    };
    all("b").holds();
    all("a").breaks("doubled");
}

#[test]
fn an_id_prevents_duplicates_except_after_a_kill_or_a_start_with_another_clock() {
    let again = |fault: &str, step: u64| {
        let trace = Trace::accepted().got(30, "a", "s-1").confirm(40, "a").act(20_000, fault, "");
        let trace = trace.act(20_001, "ended", "").act(20_010, "start", "").act(step, "clock", "14400");
        let trace = trace.send(25_000, "s-1", "one").answer(25_100, "s-1", "00");
        trace.got(26_000, "b", "s-1").confirm(26_010, "b")
    };
    again("kill", 24_900).holds();
    again("term", 20_005).holds();
    again("term", 15_000).breaks("doubled");
    again("term", 24_900).breaks("doubled");
}

#[test]
fn a_second_manual_delivery_is_marked() {
    let trace = |marked| {
        let trace = Trace::default()
            .open(0, "a", "manual")
            .open(0, "b", "manual")
            .send(10, "s-1", "one")
            .answer(20, "s-1", "00");
        let trace = trace.got_on(30, "a", "s-1", "one", Some(("x", false))).manual(40, "a", Kind::Nack, "x");
        trace.got_on(50, "b", "s-1", "one", Some(("y", marked))).manual(60, "b", Kind::Ack, "y")
    };
    trace(true).holds();
    trace(false).breaks("unmarked");
}

#[test]
fn a_rejected_message_is_a_dead_letter() {
    let trace = |channel: &str, kind| {
        let trace = Trace::default().open_on(0, "a", 1, "manual", "tries", "direct");
        let trace =
            trace.open_on(2_000, "b", 1, "manual", channel, "direct").send(10, "s-1", "tries").answer(20, "s-1", "00");
        let trace = trace.got_on(30, "a", "s-1", "tries", Some(("x", false))).manual(40, "a", kind, "x");
        trace.got_on(4_000, "b", "s-1", channel, Some(("y", true))).manual(4_010, "b", Kind::Ack, "y")
    };
    trace("dead", Kind::Reject).holds();
    trace("tries", Kind::Reject).breaks("rejected");
    trace("tries", Kind::Nack).holds();
    trace("tries", Kind::Reject).act(50, "kill", "").holds();
}

#[test]
fn an_unanswered_manual_delivery_is_repeated_after_the_ack_timeout_only() {
    let trace = |t| {
        let trace = Trace::default()
            .open(0, "a", "manual")
            .open(0, "b", "manual")
            .send(10, "s-1", "one")
            .answer(20, "s-1", "00");
        let trace = trace.got_on(30, "a", "s-1", "one", Some(("x", false)));
        trace.got_on(t, "b", "s-1", "one", Some(("y", true))).manual(t + 10, "b", Kind::Ack, "y")
    };
    trace(1_000).breaks("doubled");
    trace(4_100).holds();
}

#[test]
fn messages_of_a_sender_stay_in_order() {
    let trace = || {
        let trace = Trace::accepted().send(11, "s-2", "one").answer(21, "s-2", "00");
        trace.got(5_000, "a", "s-2").got(5_001, "a", "s-1").confirm(5_010, "a")
    };
    trace().breaks("disordered");
    // A message that another receiver had and did not confirm may be late.
    trace().end(4_900, "b", "reset").holds();
    trace().end(9_900, "b", "reset").breaks("disordered");
    // A message that was sent again has no defined position.
    trace().send(300, "s-1", "one").holds();
}

#[test]
fn an_expired_message_is_not_delivered() {
    let trace = |t| {
        let trace = Trace::default().open_on(0, "a", 1, "modern", "short", "direct").send(10, "s-1", "short");
        trace.answer(20, "s-1", "00").got_on(t, "a", "s-1", "short", None).confirm(t + 1, "a")
    };
    trace(1_900).holds();
    trace(4_100).breaks("late");
    let expired = Trace::default().send(10, "s-1", "short").answer(20, "s-1", "00");
    expired.act(9_000, "settled", "").holds();
    let too_early = Trace::default().send(10, "s-1", "short").answer(20, "s-1", "00");
    too_early.act(1_500, "settled", "").breaks("lost");
}

#[test]
fn an_expired_message_is_a_dead_letter_if_configured() {
    let trace = || {
        let trace = Trace::default().open_on(0, "a", 1, "manual", "dead", "direct").send(10, "s-1", "late");
        trace.answer(20, "s-1", "00").act(9_000, "settled", "")
    };
    trace().breaks("lost");
    let dead = trace().got_on(2_500, "a", "s-1", "dead", Some(("x", false)));
    dead.manual(2_600, "a", Kind::Ack, "x").holds();
}

#[test]
fn one_more_receiver_may_have_an_unconfirmed_message() {
    let trace = |names: &[&str]| {
        let mut trace = Trace::default().send(10, "s-1", "guard").answer(20, "s-1", "00");
        for name in names {
            trace = trace.open_on(0, name, 1, "modern", "guard", "direct").got_on(30, name, "s-1", "guard", None);
        }
        trace.confirm(5_000, "a")
    };
    trace(&["a", "b"]).holds();
    trace(&["a", "b", "c"]).breaks("doubled");
}

#[test]
fn a_refused_message_is_not_delivered() {
    let trace = |code| {
        let trace = Trace::default().open(0, "a", "modern").send(10, "s-1", "one").answer(20, "s-1", code);
        trace.got(3_000, "a", "s-1").confirm(3_010, "a")
    };
    trace("08").breaks("refused");
    trace("06").breaks("refused");
    // With the answer 05 the message may have been accepted.
    trace("05").holds();
}

#[test]
fn a_message_answered_as_expired_may_be_a_dead_letter() {
    let trace = |code, channel| {
        let trace = Trace::default().open_on(0, "a", 1, "manual", channel, "direct").send(10, "s-1", "late");
        let trace = trace.answer(20, "s-1", code).got_on(3_500, "a", "s-1", channel, Some(("x", false)));
        trace.manual(3_600, "a", Kind::Ack, "x")
    };
    trace("08", "dead").holds();
    trace("06", "dead").breaks("refused");
}

#[test]
fn an_unkept_message_is_delivered_once() {
    let trace =
        Trace::default().open_on(0, "a", 1, "modern", "live", "direct").send(10, "s-1", "live").answer(20, "s-1", "00");
    let trace = trace.got_on(30, "a", "s-1", "live", None);
    trace.got_on(40, "a", "s-1", "live", None).breaks("more than once");
    Trace::default().send(10, "s-1", "live").answer(20, "s-1", "00").holds();
}

#[test]
fn a_message_arrives_unchanged_on_its_channel() {
    let damaged = Trace::accepted().got(30, "a", "s-1").confirm(40, "a");
    damaged.event(30, "a", Kind::Got, |event| event.m = Some("s-9".to_owned())).breaks("damaged");
    let changed = Trace::accepted().event(30, "a", Kind::Got, |event| {
        event.m = Some("s-1".to_owned());
        event.ch = Some("one".to_owned());
        event.h = Some(8);
    });
    changed.confirm(40, "a").breaks("damaged");
    let astray = Trace::accepted().open_on(0, "c", 1, "modern", "two", "direct").got_on(30, "c", "s-1", "two", None);
    astray.confirm(40, "c").breaks("damaged");
    let dead = Trace::default()
        .open_on(0, "c", 1, "manual", "dead", "direct")
        .send(10, "s-1", "tries")
        .answer(20, "s-1", "00");
    dead.got_on(30, "c", "s-1", "dead", Some(("x", false))).manual(40, "c", Kind::Ack, "x").holds();
}

#[test]
fn a_wrong_event_is_reported() {
    Trace::default().event(5, "a", Kind::Wrong, |event| event.what = Some("a close frame".to_owned())).breaks("wrong");
}

#[test]
fn a_frozen_reader_may_note_a_message_late() {
    let trace = |kind: Kind| {
        let trace = Trace::accepted()
            .event(15, "a", kind, |_| {})
            .act(1_000, "kill", "")
            .open_on(1_100, "b", 2, "modern", "one", "direct");
        let trace = trace.event(1_200, "b", Kind::Got, |event| {
            event.conn = Some(2);
            event.m = Some("s-1".to_owned());
            event.ch = Some("one".to_owned());
            event.h = Some(7);
        });
        let trace = trace.event(1_210, "b", Kind::Confirm, |event| event.conn = Some(2));
        trace.event(8_000, "a", Kind::Resume, |_| {}).got(8_001, "a", "s-1").end(8_002, "a", "lost")
    };
    trace(Kind::Pause).holds();
    trace(Kind::Note).breaks("doubled");
}

#[test]
fn a_slow_reader_may_note_a_message_after_the_restart_of_its_proxy() {
    let trace = |kind: Kind| {
        let trace = Trace::default()
            .open_on(0, "c", 1, "modern", "one", "haproxy")
            .open_on(0, "b", 1, "modern", "one", "direct")
            .event(5, "c", kind, |event| event.conn = Some(1))
            .send(10, "s-1", "one")
            .answer(20, "s-1", "00")
            .act(1_000, "haproxy", "restart")
            .event(3_000, "c", Kind::Resume, |event| event.conn = Some(1));
        trace.got_on(3_001, "c", "s-1", "one", None).got_on(3_100, "b", "s-1", "one", None).confirm(3_200, "b")
    };
    trace(Kind::Pause).holds();
    trace(Kind::Note).breaks("doubled");
}

#[test]
fn a_slow_reader_may_note_the_end_of_its_connection_late() {
    let trace = |kind: Kind, ended: u64| {
        let trace = Trace::accepted()
            .open_on(0, "b", 1, "modern", "one", "direct")
            .event(15, "a", kind, |event| event.conn = Some(1))
            .event(3_000, "a", Kind::Resume, |event| event.conn = Some(1));
        let trace = trace.got(3_001, "a", "s-1").got_on(3_100, "b", "s-1", "one", None).confirm(3_200, "b");
        trace.end(ended, "a", "close")
    };
    trace(Kind::Pause, 6_000).holds();
    trace(Kind::Note, 6_000).breaks("doubled");
    trace(Kind::Pause, 20_000).breaks("doubled");
}
