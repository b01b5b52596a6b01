//! Tables and plots of the cost by number of receivers, channels, connections and messages, and by message size.

use super::plot::{Plot, Series};
use super::results::Results;
use super::subject::Subject;
use super::tables::{grouped, number};

/// The figures of one line of a plot.
struct Source {
    name: &'static str,
    case: &'static str,
    subject: Subject,
    figure: &'static str,
}

/// A table, and its plot.
struct Chart {
    /// The plot's file without its extension. `None`: only the table.
    file: Option<&'static str>,
    title: &'static str,
    x: &'static str,
    y: &'static str,
    sources: &'static [Source],
}

const DELIVERY: &str = "server CPU, µs per delivery";

const fn source(name: &'static str, case: &'static str, subject: Subject, figure: &'static str) -> Source {
    Source { name, case, subject, figure }
}

/// The sources of a chart that compares both dialects with the bare relay.
const fn dialects_and_limit(case: &'static str) -> [Source; 3] {
    [
        source("topic", case, Subject::Topic, "cpu"),
        source("envelope", case, Subject::Envelope, "cpu"),
        source("limit (bare relay)", case, Subject::Limit, "cpu"),
    ]
}

const CHARTS: [Chart; 7] = [
    Chart {
        file: Some("receivers"),
        title: "What a delivery costs, by receivers of one channel",
        x: "receivers",
        y: DELIVERY,
        sources: &dialects_and_limit("growth-receivers"),
    },
    Chart {
        file: None,
        title: "What a delivery costs, by channels that one sender sends to in turn",
        x: "channels",
        y: DELIVERY,
        sources: &[source("envelope", "growth-channels", Subject::Envelope, "cpu")],
    },
    Chart {
        file: None,
        title: "What a delivery costs, by pairs, each with a channel of its own",
        x: "pairs of a sender and a receiver",
        y: DELIVERY,
        sources: &dialects_and_limit("growth-pairs"),
    },
    Chart {
        file: Some("connections"),
        title: "What a delivery costs, by idle connections beside its two",
        x: "idle connections",
        y: DELIVERY,
        sources: &dialects_and_limit("growth-connections"),
    },
    Chart {
        file: Some("backlog"),
        title: "What a kept message costs, by messages in the store",
        x: "messages in the store",
        y: "server CPU, µs per message",
        sources: &[
            source("confirmed send beside them", "behind-confirmed", Subject::EnvelopeKept, "cpu"),
            source("live message beside them", "behind-p2p", Subject::EnvelopeKept, "cpu"),
            source("storing them", "backlog", Subject::EnvelopeKept, "store_cpu"),
            source("draining them", "backlog", Subject::EnvelopeKept, "drain_cpu"),
        ],
    },
    Chart {
        file: None,
        title: "What a kept message costs, by messages on their way",
        x: "messages on their way (--window)",
        y: DELIVERY,
        sources: &[
            source("topic, kept", "growth-window", Subject::TopicKept, "cpu"),
            source("envelope, kept", "growth-window", Subject::EnvelopeKept, "cpu"),
        ],
    },
    Chart {
        file: Some("size"),
        title: "What a delivery costs, by size of the message",
        x: "bytes",
        y: DELIVERY,
        sources: &dialects_and_limit("growth-size"),
    },
];

/// Returns the plots, each with the name of its file without extension.
pub fn plots(results: &Results) -> Vec<(&'static str, Plot)> {
    CHARTS.iter().filter_map(|chart| Some((chart.file?, plot(chart, results)?))).collect()
}

/// Returns the plot of a chart, or `None` without figures.
fn plot(chart: &Chart, results: &Results) -> Option<Plot> {
    let series: Vec<Series> = chart.sources.iter().filter_map(|source| line(source, results)).collect();
    let Chart { title, x, y, .. } = chart;
    let [title, x, y] = [title, x, y].map(|text| (*text).to_owned());
    if series.is_empty() { None } else { Some(Plot { title, x, y, series }) }
}

fn line(source: &Source, results: &Results) -> Option<Series> {
    let Source { name, case, subject, figure } = source;
    let points: Vec<(f64, f64)> = results
        .varied(case)
        .into_iter()
        .filter_map(|x| Some((x as f64, results.summary(case, x, *subject, figure)?.median)))
        .filter(|(_, y)| *y > 0.0)
        .collect();
    if points.is_empty() { None } else { Some(Series { name: (*name).to_owned(), points }) }
}

/// Formats the tables, each below its title.
pub fn tables(results: &Results) -> String {
    let plots = CHARTS.iter().filter_map(|chart| plot(chart, results));
    plots.map(|plot| format!("{}:\n\n{}\n", plot.title, table(&plot))).collect()
}

/// Formats the figures of a plot as a table.
fn table(plot: &Plot) -> String {
    let mut columns: Vec<f64> = plot.series.iter().flat_map(|series| &series.points).map(|(x, _)| *x).collect();
    columns.sort_by(f64::total_cmp);
    columns.dedup();
    let head: Vec<String> = columns.iter().map(|x| grouped(*x)).collect();
    let mut text =
        format!("| {} | {} | last : first |\n|---|{}--:|\n", plot.x, head.join(" | "), "--:|".repeat(head.len()));
    for series in &plot.series {
        let at =
            |x: &f64| series.points.iter().find(|(point, _)| point == x).map_or("–".to_owned(), |(_, y)| number(*y));
        let cells: Vec<String> = columns.iter().map(at).collect();
        let growth = match (series.points.first(), series.points.last()) {
            (Some((_, first)), Some((_, last))) if series.points.len() > 1 => number(last / first),
            _ => "–".to_owned(),
        };
        text += &format!("| {} | {} | {growth} |\n", series.name, cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::results::Run;
    use super::*;

    fn results() -> Results {
        let run = |x, subject, repetition, cpu| Run::sample(("growth-size", x), subject, repetition, &[("cpu", cpu)]);
        let failed = Run { outcome: Err("no".to_owned()), ..run(1_000, Subject::Limit, 0, 0.0) };
        let runs = vec![
            run(1_000, Subject::Topic, 0, 0.4),
            run(10, Subject::Topic, 0, 0.3),
            run(10, Subject::Topic, 1, 0.1),
            run(10, Subject::Limit, 0, 0.05),
            failed,
        ];
        Results::sample(("", ""), runs)
    }

    #[test]
    fn points_are_medians_in_order_and_failed_runs_are_omitted() {
        let plots = plots(&results());
        assert_eq!(plots.iter().map(|(file, _)| *file).collect::<Vec<_>>(), ["size"]);
        let series = &plots[0].1.series;
        assert_eq!(series[0].points, [(10.0, 0.2), (1_000.0, 0.4)]);
        assert_eq!((series[1].name.as_str(), series[1].points.len()), ("limit (bare relay)", 1));
    }

    #[test]
    fn the_table_has_the_ratio_of_the_last_to_the_first_figure() {
        let text = tables(&results());
        assert!(text.starts_with("What a delivery costs, by size of the message:\n"), "{text}");
        assert!(text.contains("| topic | 0.20 | 0.40 | 2 |"), "{text}");
        assert!(text.contains("| limit (bare relay) | 0.05 | – | – |"), "{text}");
        assert_eq!(tables(&Results::default()), "");
    }
}
