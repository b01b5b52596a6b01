//! The tables of the report, in Markdown. Each cell is a median, or the reason why there is no median.

use std::collections::BTreeSet;

use super::goals;
use super::plan::{COMPARED, CONFIRMING};
use super::results::{Facts, Results};
use super::statistics::Summary;
use super::subject::{self, Subject};

/// The columns of the streams: case and title.
const STREAMS: [(&str, &str); 4] =
    [("p2p", "1→1"), ("fanout-100", "1→100"), ("fanout-1000", "1→1,000"), ("pairs-100", "100 pairs")];

/// Formats the tables that are printed after a measurement.
pub fn overview(results: &Results) -> String {
    format!("{}\n{}\n{}\n{}", summary(results), ratios(results), goals::block(results), failures(results))
}

/// Formats the table of medians: one row for each subject.
pub fn summary(results: &Results) -> String {
    let heads: Vec<&str> = STREAMS.iter().map(|(_, name)| *name).collect();
    let mut text = format!(
        "| medians | {} | confirmed sends | p50 / p99 µs at 1,000/s | bytes / idle connection | idle, private / resident MiB | exec→answer ms |\n\
         |---|{}\n",
        heads.join(" | "),
        "--:|".repeat(STREAMS.len() + 5)
    );
    for subject in shown(results) {
        let cell = |case, figure| cell(results, case, subject, figure, 1.0);
        let mut cells: Vec<String> = STREAMS.iter().map(|(case, _)| cell(case, "cpu")).collect();
        cells.push(cell("confirmed", "cpu"));
        cells.push(match results.summary("latency", 0, subject, "p99") {
            Some(p99) => format!("{} / {}", cell("latency", "p50"), number(p99.median)),
            None => cell("latency", "p50"),
        });
        cells.push(cell("idle", "bytes"));
        // All rows of this broker show the memory and the start time of the default configuration.
        let server = if subject.is_wsmb() { Subject::EnvelopeKept } else { subject };
        let memory = |figure| self::cell(results, "rest", server, figure, 1.0 / 1024.0);
        cells.push(format!("{} / {}", memory("private"), memory("rss")));
        cells.push(self::cell(results, "start", server, "start_ms", 1.0));
        text += &row(subject.name(), &cells);
    }
    text
}

/// Formats the ratios to the bare relay.
pub fn ratios(results: &Results) -> String {
    let columns = STREAMS.iter().map(|(case, name)| (*case, *name, "cpu"));
    let columns: Vec<_> = columns.chain([("latency", "p50", "p50"), ("latency", "p99", "p99")]).collect();
    let names: Vec<&str> = columns.iter().map(|(_, name, _)| *name).collect();
    let mut text =
        format!("| × *limit* (least–most) | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(columns.len()));
    for subject in shown(results).into_iter().filter(|subject| *subject != Subject::Limit) {
        let cells: Vec<String> = columns
            .iter()
            .map(|(case, _, figure)| spread(results.ratio(case, 0, figure, subject, Subject::Limit)))
            .collect();
        if cells.iter().any(|cell| cell != NO_VALUE) {
            text += &row(subject.name(), &cells);
        }
    }
    text
}

/// Formats the deliveries per second and the CPU time per delivery, with their spreads.
pub fn rates(results: &Results) -> String {
    let columns: Vec<(&str, &str)> = STREAMS.into_iter().chain([("confirmed", "confirmed sends")]).collect();
    let names: Vec<&str> = columns.iter().map(|(_, name)| *name).collect();
    let mut text = String::new();
    for (figure, head) in
        [("rate", "deliveries a second (least–most)"), ("cpu", "server CPU µs per delivery (least–most)")]
    {
        text += &format!("| {head} | {} |\n|---|{}\n", names.join(" | "), "--:|".repeat(columns.len()));
        for subject in shown(results) {
            let cells: Vec<String> =
                columns.iter().map(|(case, _)| spread(results.summary(case, 0, subject, figure))).collect();
            text += &row(subject.name(), &cells);
        }
        text += "\n";
    }
    text
}

/// Formats the tables of confirmed sends and of backlogs.
pub fn kept(results: &Results) -> String {
    let mut text = String::from("| confirmed sends | sends/s | server CPU µs per send |\n|---|--:|--:|\n");
    for subject in CONFIRMING {
        let cells = ["rate", "cpu"].map(|figure| spread(results.summary("confirmed", 0, subject, figure)));
        text += &row(subject.name(), &cells);
    }
    text += "\n| messages stored, then drained | stored/s | CPU µs each | drained/s | CPU µs each | peak RSS storing, MiB | \
             peak RSS draining, MiB | file before the drain, MiB | after, MiB |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n";
    for messages in results.varied("backlog") {
        let figure = |name, factor: f64| {
            let found = results.summary("backlog", messages, Subject::EnvelopeKept, name);
            found.map_or(NO_VALUE.to_owned(), |found| number(found.median * factor))
        };
        let cells = [("store_rate", 1.0), ("store_cpu", 1.0), ("drain_rate", 1.0), ("drain_cpu", 1.0)];
        let memory = [("store_peak", 1.0 / 1024.0), ("drain_peak", 1.0 / 1024.0)];
        let file = [("file_before", MIB), ("file_after", MIB)];
        let cells: Vec<String> =
            cells.into_iter().chain(memory).chain(file).map(|(name, factor)| figure(name, factor)).collect();
        text += &row(&grouped(messages as f64), &cells);
    }
    text
}

/// Formats the table of memory and start times, with their spreads.
pub fn idle(results: &Results) -> String {
    let mut text = String::from(
        "| | bytes per idle connection | idle, private KiB | idle, resident KiB | exec→answer ms |\n|---|--:|--:|--:|--:|\n",
    );
    for subject in shown(results) {
        let figures = [("idle", "bytes"), ("rest", "private"), ("rest", "rss"), ("start", "start_ms")];
        let cells =
            figures.map(|(case, figure)| spread(results.summary(case, largest(results, case), subject, figure)));
        if cells.iter().any(|cell| cell != NO_VALUE) {
            text += &row(subject.name(), &cells);
        }
    }
    text
}

/// Formats the facts of the machine and the programs. Parts with the same facts share a row.
pub fn machine(results: &Results) -> String {
    let mut seen: Vec<(Vec<&str>, &Facts)> = Vec::new();
    for (name, section) in &results.0 {
        match seen.iter_mut().find(|(_, facts)| **facts == section.facts) {
            Some((names, _)) => names.push(name),
            None => seen.push((vec![name], &section.facts)),
        }
    }
    if seen.is_empty() {
        return "Not measured yet.\n".to_owned();
    }
    let mut text = String::from("| part | |\n|---|---|\n");
    for (names, facts) in seen {
        let facts: Vec<String> = facts.iter().map(|(name, value)| format!("{name}: {value}")).collect();
        text += &row(&names.join(", "), &[facts.join("; ").replace('|', "\\|")]);
    }
    text
}

/// Formats the commit of each part.
pub fn commits(results: &Results) -> String {
    let parts = results.0.iter().filter_map(|(part, section)| Some(format!("{part} {}", section.facts.get("commit")?)));
    let parts: Vec<String> = parts.collect();
    if parts.is_empty() {
        "Not measured yet.\n".to_owned()
    } else {
        format!("Measured at commit: {}.\n", parts.join(", "))
    }
}

/// Formats the failed runs and the missing programs.
pub fn failures(results: &Results) -> String {
    let mut missing = BTreeSet::new();
    for facts in results.0.values().map(|section| &section.facts) {
        missing.extend(facts.iter().filter_map(|(name, why)| Some((name.strip_prefix("missing ")?, why))));
    }
    let mut text: String =
        missing.into_iter().map(|(name, why)| format!("* {name} was not measured: {why}.\n")).collect();
    for (run, why) in results.failures() {
        let x = if run.x > 0 { format!(" {}", grouped(run.x as f64)) } else { String::new() };
        let name = run.subject.name();
        text += &format!("* **Failed:** {}{x}, {name}, repetition {}: {why}\n", run.case, run.repetition + 1);
    }
    if text.is_empty() { "Every run succeeded.\n".to_owned() } else { text }
}

const NO_VALUE: &str = "–";
const MIB: f64 = 1.0 / 1_048_576.0;

/// Returns the subjects that have a row: those with at least one run.
fn shown(results: &Results) -> Vec<Subject> {
    let cases = COMPARED.iter().map(|(case, _)| *case).chain(["confirmed", "idle", "rest", "start"]);
    let cases: Vec<&str> = cases.collect();
    let runs = || results.0.values().flat_map(|section| &section.runs);
    let has = |subject| runs().any(|run| run.subject == subject && cases.contains(&run.case.as_str()));
    subject::ALL.into_iter().filter(|subject| has(*subject)).collect()
}

/// Returns the largest value of the varied quantity of a case; 0 without runs.
fn largest(results: &Results, case: &str) -> u64 {
    results.varied(case).last().copied().unwrap_or_default()
}

/// Formats a median at the largest value of the varied quantity, or "failed" if all runs failed.
fn cell(results: &Results, case: &str, subject: Subject, figure: &str, factor: f64) -> String {
    let x = largest(results, case);
    match results.summary(case, x, subject, figure) {
        Some(found) => number(found.median * factor),
        None if results.runs(case, x, subject).any(|run| run.outcome.is_err()) => "failed".to_owned(),
        None => NO_VALUE.to_owned(),
    }
}

/// Formats a median with its least and greatest value.
pub fn spread(summary: Option<Summary>) -> String {
    summary.map_or(NO_VALUE.to_owned(), |Summary { median, least, most }| {
        format!("{} ({}–{})", number(median), number(least), number(most))
    })
}

fn row(name: &str, cells: &[String]) -> String {
    format!("| {name} | {} |\n", cells.join(" | "))
}

/// Formats a number with two or three significant digits, or a whole number from 100 on.
pub fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".to_owned(),
        size if size < 0.2 => trimmed(format!("{value:.3}")),
        size if size < 9.995 => trimmed(format!("{value:.2}")),
        size if size < 99.95 => trimmed(format!("{value:.1}")),
        _ => grouped(value),
    }
}

/// Removes a fraction of zeros, or the third decimal if it is zero.
fn trimmed(text: String) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.bytes().all(|digit| digit == b'0') && whole != "0" => whole.to_owned(),
        Some((_, fraction)) if fraction.len() == 3 => text.strip_suffix('0').unwrap_or(&text).to_owned(),
        _ => text,
    }
}

/// Formats a whole number with thousands separators.
pub fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let (sign, digits) = digits.strip_prefix('-').map_or(("", digits.as_str()), |rest| ("-", rest));
    let mut text = String::from(sign);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::Run;
    use super::*;

    fn run(case: &str, subject: Subject, repetition: u32, figures: &[(&str, f64)]) -> Run {
        Run::sample((case, 0), subject, repetition, figures)
    }

    #[test]
    fn numbers_are_short() {
        let numbers = [0.0, 0.05, 0.123_4, 0.5, 1.0, 2.345, 10.0, 12.34, 99.96, 1_234.5, 1e6].map(number);
        assert_eq!(numbers, ["0", "0.05", "0.123", "0.50", "1", "2.35", "10", "12.3", "100", "1,234", "1,000,000"]);
    }

    #[test]
    fn a_cell_is_a_median_or_the_reason_why_there_is_none() {
        let failed = Run { outcome: Err("gone".to_owned()), ..run("pairs-100", Subject::Topic, 0, &[]) };
        let runs = vec![
            run("p2p", Subject::Topic, 0, &[("cpu", 0.5)]),
            run("p2p", Subject::Topic, 1, &[("cpu", 0.7)]),
            run("p2p", Subject::Limit, 0, &[("cpu", 0.25)]),
            run("rest", Subject::EnvelopeKept, 0, &[("private", 1_024.0), ("rss", 6_144.0)]),
            failed,
        ];
        let results = Results::sample(("missing nats-server", "no package"), runs);
        let text = summary(&results);
        assert!(text.contains("| wsmb, topic | 0.60 | – | – | failed | – | – | – | 1 / 6 | – |"), "{text}");
        assert!(ratios(&results).contains("| wsmb, topic | 2 (2–2) | – |"), "{}", ratios(&results));
        let text = failures(&results);
        assert!(text.contains("nats-server was not measured: no package."), "{text}");
        assert!(text.contains("**Failed:** pairs-100, wsmb, topic, repetition 1: gone"), "{text}");
        assert_eq!(failures(&Results::default()), "Every run succeeded.\n");
    }
}
