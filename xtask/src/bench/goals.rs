//! The goals beside what was measured. Nothing is rounded in our favour: a goal is met when the median is, and the table says by how much it is not.

use super::results::Results;
use super::statistics::{Summary, summary};
use super::subject::{self, Subject};
use super::tables::{number, spread};

/// What a goal is about.
enum Measure {
    /// A figure of a subject, times a factor.
    Figure { case: &'static str, x: u64, subject: Subject, figure: &'static str, factor: f64 },
    /// The same compared with the bare relay's.
    Limit { case: &'static str, subject: Subject, figure: &'static str },
    /// The same compared with that of the best other broker.
    BestPeer { case: &'static str, subject: Subject, figure: &'static str },
    /// The size of the program, as it is shipped.
    Program,
}

/// A goal.
struct Goal {
    what: &'static str,
    measure: Measure,
    wanted: f64,
    unit: &'static str,
    /// Whether less is better.
    at_most: bool,
}

const KIB: f64 = 1.0 / 1024.0;

const fn limit(what: &'static str, case: &'static str, subject: Subject, figure: &'static str, wanted: f64) -> Goal {
    Goal { what, measure: Measure::Limit { case, subject, figure }, wanted, unit: "× *limit*", at_most: true }
}

const fn peer(what: &'static str, case: &'static str, subject: Subject, figure: &'static str) -> Goal {
    Goal {
        what,
        measure: Measure::BestPeer { case, subject, figure },
        wanted: 1.0,
        unit: "× the best peer",
        at_most: true,
    }
}

const fn figure(
    what: &'static str,
    (case, x, subject, figure): (&'static str, u64, Subject, &'static str),
    factor: f64,
    wanted: f64,
    unit: &'static str,
) -> Goal {
    Goal { what, measure: Measure::Figure { case, x, subject, figure, factor }, wanted, unit, at_most: true }
}

const fn at_least(
    what: &'static str,
    (case, x, subject, figure): (&'static str, u64, Subject, &'static str),
    wanted: f64,
) -> Goal {
    let measure = Measure::Figure { case, x, subject, figure, factor: 1.0 };
    Goal { what, measure, wanted, unit: "/s", at_most: false }
}

const GOALS: [Goal; 33] = [
    limit("topic, 1→1, CPU", "p2p", Subject::Topic, "cpu", 2.0),
    limit("topic, 1→100, CPU", "fanout-100", Subject::Topic, "cpu", 1.5),
    limit("topic, 1→1,000, CPU", "fanout-1000", Subject::Topic, "cpu", 1.5),
    limit("topic, 100 pairs, CPU", "pairs-100", Subject::Topic, "cpu", 2.0),
    limit("topic, latency, p50", "latency", Subject::Topic, "p50", 1.2),
    limit("topic, latency, p99", "latency", Subject::Topic, "p99", 1.2),
    limit("envelope, 1→1, CPU", "p2p", Subject::Envelope, "cpu", 4.5),
    limit("envelope, 1→100, CPU", "fanout-100", Subject::Envelope, "cpu", 1.5),
    limit("envelope, 1→1,000, CPU", "fanout-1000", Subject::Envelope, "cpu", 1.5),
    limit("envelope, 100 pairs, CPU", "pairs-100", Subject::Envelope, "cpu", 4.5),
    limit("envelope, latency, p50", "latency", Subject::Envelope, "p50", 1.3),
    limit("envelope, latency, p99", "latency", Subject::Envelope, "p99", 1.3),
    peer("topic, 1→1, CPU", "p2p", Subject::Topic, "cpu"),
    peer("topic, 1→100, CPU", "fanout-100", Subject::Topic, "cpu"),
    peer("topic, 1→1,000, CPU", "fanout-1000", Subject::Topic, "cpu"),
    peer("topic, 100 pairs, CPU", "pairs-100", Subject::Topic, "cpu"),
    peer("envelope, 1→1, CPU", "p2p", Subject::Envelope, "cpu"),
    peer("envelope, 1→100, CPU", "fanout-100", Subject::Envelope, "cpu"),
    peer("envelope, 1→1,000, CPU", "fanout-1000", Subject::Envelope, "cpu"),
    peer("envelope, 100 pairs, CPU", "pairs-100", Subject::Envelope, "cpu"),
    peer("confirmed sends, CPU", "confirmed", Subject::EnvelopeKept, "cpu"),
    figure("confirmed sends, CPU", ("confirmed", 0, Subject::EnvelopeKept, "cpu"), 1.0, 6.0, "µs"),
    at_least("confirmed sends a second", ("confirmed", 0, Subject::EnvelopeKept, "rate"), 70_000.0),
    // Where nobody receives, each is on the disk before it is answered.
    figure(
        "answered when on the disk, CPU",
        ("backlog", 1_000_000, Subject::EnvelopeKept, "store_cpu"),
        1.0,
        6.0,
        "µs",
    ),
    at_least(
        "answered when on the disk, a second",
        ("backlog", 1_000_000, Subject::EnvelopeKept, "store_rate"),
        70_000.0,
    ),
    figure("kept, confirmed by a live receiver, CPU", ("p2p", 0, Subject::EnvelopeKept, "cpu"), 1.0, 1.0, "µs"),
    figure("peak RSS, 1,000,000 stored", ("backlog", 1_000_000, Subject::EnvelopeKept, "store_peak"), KIB, 32.0, "MiB"),
    figure(
        "peak RSS, 1,000,000 drained",
        ("backlog", 1_000_000, Subject::EnvelopeKept, "drain_peak"),
        KIB,
        32.0,
        "MiB",
    ),
    figure("idle connection, topic", ("idle", 10_000, Subject::Topic, "bytes"), 1.0, 1_250.0, "bytes"),
    figure("idle connection, envelope", ("idle", 10_000, Subject::Envelope, "bytes"), 1.0, 1_250.0, "bytes"),
    figure("idle RSS, SQLite open", ("rest", 0, Subject::EnvelopeKept, "rss"), KIB, 4.0, "MiB"),
    figure("exec→answer", ("start", 0, Subject::EnvelopeKept, "start_ms"), 1.0, 15.0, "ms"),
    Goal { what: "the program, every feature", measure: Measure::Program, wanted: 10.0, unit: "MB", at_most: true },
];

/// The table.
pub fn block(results: &Results) -> String {
    let mut text = String::from("| | goal | measured (least–most) | |\n|---|--:|--:|---|\n");
    for goal in &GOALS {
        let measured = goal.measure.of(results);
        let sign = if goal.at_most { "≤" } else { "≥" };
        text += &format!(
            "| {} | {sign} {} {} | {} | {} |\n",
            goal.what,
            number(goal.wanted),
            goal.unit,
            spread(measured),
            verdict(goal, measured)
        );
    }
    text
}

impl Measure {
    fn of(&self, results: &Results) -> Option<Summary> {
        match *self {
            Self::Figure { case, x, subject, figure, factor } => {
                let Summary { median, least, most } = results.summary(case, x, subject, figure)?;
                Some(Summary { median: median * factor, least: least * factor, most: most * factor })
            }
            Self::Limit { case, subject, figure } => results.ratio(case, 0, figure, subject, Subject::Limit),
            Self::BestPeer { case, subject, figure } => {
                let peers = subject::ALL.into_iter().filter(|peer| peer.is_peer());
                let best = peers
                    .filter_map(|peer| Some((peer, results.summary(case, 0, peer, figure)?.median)))
                    .min_by(|(_, one), (_, other)| one.total_cmp(other))?;
                results.ratio(case, 0, figure, subject, best.0)
            }
            Self::Program => {
                let facts = results.0.values().map(|section| &section.facts);
                let shipped = facts.filter(|facts| facts.get("profile").is_some_and(|profile| profile == "release"));
                let sizes = shipped.filter_map(|facts| facts.get("wsmb bytes")?.parse().ok());
                summary(&sizes.map(|bytes: f64| bytes / 1e6).collect::<Vec<_>>())
            }
        }
    }
}

/// Whether a goal is met, or by how much it is not.
fn verdict(goal: &Goal, measured: Option<Summary>) -> String {
    let Some(Summary { median, .. }) = measured else { return "not measured".to_owned() };
    let part = median / goal.wanted;
    match goal.at_most {
        true if part <= 1.0 => "met".to_owned(),
        true => format!("**not met**: {:.0} % above", (part - 1.0) * 100.0),
        false if part >= 1.0 => "met".to_owned(),
        false => format!("**not met**: {:.0} % below", (1.0 - part) * 100.0),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::results::{Figures, Run, Section};
    use super::*;

    fn results(runs: &[(&str, Subject, &str, f64)]) -> Results {
        let runs = runs.iter().map(|(case, subject, figure, value)| Run {
            case: (*case).to_owned(),
            x: 0,
            subject: *subject,
            repetition: 0,
            outcome: Ok(Figures::from([((*figure).to_owned(), *value)])),
        });
        Results(BTreeMap::from([("x".to_owned(), Section { runs: runs.collect(), ..Section::default() })]))
    }

    #[test]
    fn goals_are_judged_by_the_median_and_missing_ones_are_told() {
        let text = block(&results(&[
            ("p2p", Subject::Topic, "cpu", 0.2),
            ("p2p", Subject::Limit, "cpu", 0.1),
            ("p2p", Subject::Nats, "cpu", 0.5),
            ("p2p", Subject::Mosquitto, "cpu", 5.0),
            ("confirmed", Subject::EnvelopeKept, "rate", 35_000.0),
            ("rest", Subject::EnvelopeKept, "rss", 5_120.0),
        ]));
        for line in [
            "| topic, 1→1, CPU | ≤ 2 × *limit* | 2 (2–2) | met |",
            "| topic, 1→1, CPU | ≤ 1 × the best peer | 0.40 (0.40–0.40) | met |",
            "| confirmed sends a second | ≥ 70,000 /s | 35,000 (35,000–35,000) | **not met**: 50 % below |",
            "| idle RSS, SQLite open | ≤ 4 MiB | 5 (5–5) | **not met**: 25 % above |",
            "| exec→answer | ≤ 15 ms | – | not measured |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
