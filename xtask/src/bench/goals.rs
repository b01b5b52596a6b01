//! The table of goals. A goal is met if the unrounded median meets it; otherwise the table shows the difference in per cent.

use super::results::Results;
use super::statistics::{Summary, ratio, summary};
use super::subject::Subject;
use super::tables::{number, spread};

/// The quantity of a goal.
enum Measure {
    /// A figure, multiplied by a factor.
    Figure { case: &'static str, x: u64, subject: Subject, figure: &'static str, factor: f64 },
    /// The ratio of a figure to that of the bare relay.
    Limit { case: &'static str, x: u64, subject: Subject, figure: &'static str },
    /// The ratio of the CPU time with 4,096 messages on their way to the CPU time with 256.
    Growth(Subject),
    /// The size of the program, built with the release profile.
    Program,
}

struct Goal {
    what: &'static str,
    measure: Measure,
    wanted: f64,
    unit: &'static str,
    /// Whether `wanted` is an upper bound.
    at_most: bool,
}

const KIB: f64 = 1.0 / 1024.0;

const fn limit(
    what: &'static str,
    (case, x, figure): (&'static str, u64, &'static str),
    subject: Subject,
    wanted: f64,
) -> Goal {
    Goal { what, measure: Measure::Limit { case, x, subject, figure }, wanted, unit: "× *limit*", at_most: true }
}

const fn growth(what: &'static str, subject: Subject, wanted: f64) -> Goal {
    Goal { what, measure: Measure::Growth(subject), wanted, unit: "× 256", at_most: true }
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

/// A goal for the peak memory while a million messages are stored or drained.
const fn peak(what: &'static str, peak: &'static str) -> Goal {
    figure(what, ("backlog", MILLION, Subject::EnvelopeKept, peak), KIB, 32.0, "MiB")
}

const ONE: (&str, u64, &str) = ("p2p", 0, "cpu");
const HUNDRED: (&str, u64, &str) = ("fanout-100", 0, "cpu");
const THOUSAND: (&str, u64, &str) = ("fanout-1000", 0, "cpu");
const PAIRS: (&str, u64, &str) = ("pairs-100", 0, "cpu");
const P50: (&str, u64, &str) = ("latency", 0, "p50");
const P99: (&str, u64, &str) = ("latency", 0, "p99");
const LARGE: (&str, u64, &str) = ("growth-size", 100_000, "cpu");
const LARGEST: (&str, u64, &str) = ("growth-size", 1_000_000, "cpu");
const MILLION: u64 = 1_000_000;

const GOALS: [Goal; 36] = [
    limit("topic, kept, 1→1", ONE, Subject::TopicKept, 5.0),
    limit("topic, kept, 1→100", HUNDRED, Subject::TopicKept, 2.5),
    limit("topic, kept, 100 pairs", PAIRS, Subject::TopicKept, 6.0),
    growth("topic, kept, 4,096 on their way", Subject::TopicKept, 2.0),
    limit("envelope, kept, 1→1", ONE, Subject::EnvelopeKept, 6.0),
    limit("envelope, kept, 1→100", HUNDRED, Subject::EnvelopeKept, 2.5),
    limit("envelope, kept, 100 pairs", PAIRS, Subject::EnvelopeKept, 8.0),
    growth("envelope, kept, 4,096 on their way", Subject::EnvelopeKept, 2.0),
    limit("topic, 1→1", ONE, Subject::Topic, 2.0),
    limit("topic, 1→100", HUNDRED, Subject::Topic, 1.5),
    limit("topic, 1→1,000", THOUSAND, Subject::Topic, 1.5),
    limit("topic, 100 pairs", PAIRS, Subject::Topic, 2.0),
    limit("topic, 100 KB", LARGE, Subject::Topic, 1.5),
    limit("topic, 1 MB", LARGEST, Subject::Topic, 1.5),
    limit("topic, latency, p50", P50, Subject::Topic, 1.2),
    limit("topic, latency, p99", P99, Subject::Topic, 1.2),
    limit("envelope, 1→1", ONE, Subject::Envelope, 4.5),
    limit("envelope, 1→100", HUNDRED, Subject::Envelope, 1.5),
    limit("envelope, 1→1,000", THOUSAND, Subject::Envelope, 1.5),
    limit("envelope, 100 pairs", PAIRS, Subject::Envelope, 4.5),
    limit("envelope, 100 KB", LARGE, Subject::Envelope, 1.5),
    limit("envelope, 1 MB", LARGEST, Subject::Envelope, 1.5),
    limit("envelope, latency, p50", P50, Subject::Envelope, 1.3),
    limit("envelope, latency, p99", P99, Subject::Envelope, 1.3),
    figure("kept, confirmed by a live receiver", ("p2p", 0, Subject::EnvelopeKept, "cpu"), 1.0, 1.0, "µs"),
    figure("confirmed send", ("confirmed", 0, Subject::EnvelopeKept, "cpu"), 1.0, 6.0, "µs"),
    at_least("confirmed sends", ("confirmed", 0, Subject::EnvelopeKept, "rate"), 70_000.0),
    // No receiver is connected, so each message is answered when it is on the disk.
    figure("answered when on the disk", ("backlog", MILLION, Subject::EnvelopeKept, "store_cpu"), 1.0, 6.0, "µs"),
    at_least("answered when on the disk", ("backlog", MILLION, Subject::EnvelopeKept, "store_rate"), 70_000.0),
    peak("1,000,000 stored, peak memory", "store_peak"),
    peak("1,000,000 drained, peak memory", "drain_peak"),
    figure("idle connection, topic", ("idle", 10_000, Subject::Topic, "bytes"), 1.0, 1_250.0, "bytes"),
    figure("idle connection, envelope", ("idle", 10_000, Subject::Envelope, "bytes"), 1.0, 1_250.0, "bytes"),
    figure("idle broker, private memory", ("rest", 0, Subject::EnvelopeKept, "private"), KIB, 1.5, "MiB"),
    figure("exec→answer", ("start", 0, Subject::EnvelopeKept, "start_ms"), 1.0, 15.0, "ms"),
    Goal { what: "the program, every feature", measure: Measure::Program, wanted: 10.0, unit: "MB", at_most: true },
];

/// Formats the table.
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
            Self::Limit { case, x, subject, figure } => results.ratio(case, x, figure, subject, Subject::Limit),
            Self::Growth(subject) => {
                let [many, few] = [4_096, 256].map(|x| results.values("growth-window", x, subject, "cpu"));
                ratio(&many, &few)
            }
            Self::Program => {
                let facts = results.0.values().map(|section| &section.facts);
                let shipped = facts.filter(|facts| facts.get("profile").is_some_and(|profile| profile == "release"));
                let sizes = shipped.filter_map(|facts| facts.get("wsmb bytes")?.parse().ok());
                // The parts may have been measured at different commits. The largest program counts.
                let largest = sizes.map(|bytes: f64| bytes / 1e6).max_by(f64::total_cmp)?;
                summary(&[largest])
            }
        }
    }
}

/// Formats whether a goal is met.
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
    use super::super::results::Run;
    use super::*;

    fn run(case: &str, x: u64, subject: Subject, figure: &str, value: f64) -> Run {
        Run::sample((case, x), subject, 0, &[(figure, value)])
    }

    #[test]
    fn goals_are_compared_with_the_median_and_missing_figures_are_reported() {
        let runs = vec![
            run("p2p", 0, Subject::Topic, "cpu", 0.2),
            run("p2p", 0, Subject::Limit, "cpu", 0.1),
            run("growth-window", 256, Subject::TopicKept, "cpu", 1.0),
            run("growth-window", 4_096, Subject::TopicKept, "cpu", 3.0),
            run("confirmed", 0, Subject::EnvelopeKept, "rate", 35_000.0),
            run("rest", 0, Subject::EnvelopeKept, "private", 1_920.0),
        ];
        let text = block(&Results::sample(("", ""), runs));
        for line in [
            "| topic, 1→1 | ≤ 2 × *limit* | 2 (2–2) | met |",
            "| topic, kept, 4,096 on their way | ≤ 2 × 256 | 3 (3–3) | **not met**: 50 % above |",
            "| confirmed sends | ≥ 70,000 /s | 35,000 (35,000–35,000) | **not met**: 50 % below |",
            "| idle broker, private memory | ≤ 1.50 MiB | 1.88 (1.88–1.88) | **not met**: 25 % above |",
            "| exec→answer | ≤ 15 ms | – | not measured |",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }
}
