//! The results of all runs, in the format of `docs/measurements/runs.jsonl`. All tables and plots are generated from this file.
//!
//! One JSON object per line. Each section begins with a line of facts about the machine and the programs, so that one section can be measured
//! again without the others. Must never change a figure.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use super::statistics::{self, Summary};
use super::subject::Subject;
use crate::Failure;

/// The names of the figures, and their JSON pointers in a report of the load generator.
const FIGURES: &[(&str, &str)] = &[
    ("cpu", "/server_cpu_us_per_delivery"),
    ("rate", "/deliveries_per_second"),
    ("p50", "/latency_us/p50"),
    ("p99", "/latency_us/p99"),
    ("bytes", "/bytes_per_connection"),
    ("store_rate", "/phases/0/messages_per_second"),
    ("store_cpu", "/phases/0/server_cpu_us_per_message"),
    ("store_peak", "/phases/0/peak_rss_kib"),
    ("drain_rate", "/phases/1/messages_per_second"),
    ("drain_cpu", "/phases/1/server_cpu_us_per_message"),
    ("drain_peak", "/phases/1/peak_rss_kib"),
    ("file_before", "/store_bytes/0"),
    ("file_after", "/store_bytes/1"),
];

/// The figures of one run, by name.
pub type Figures = BTreeMap<String, f64>;

/// Returns the figures of a report.
pub fn figures(report: &Value) -> Figures {
    let found = FIGURES.iter().filter_map(|(name, path)| Some(((*name).to_owned(), report.pointer(path)?.as_f64()?)));
    found.collect()
}

/// One measurement.
#[derive(Clone, Debug, PartialEq)]
pub struct Run {
    /// The name of the case, such as `p2p` or `growth-size`.
    pub case: String,
    /// The value of the varied quantity (receivers, bytes, …); 0 = none.
    pub x: u64,
    pub subject: Subject,
    pub repetition: u32,
    /// The figures, or the reason of the failure.
    pub outcome: Result<Figures, String>,
}

/// The machine, the programs and the options of a section, by name.
pub type Facts = BTreeMap<String, String>;

/// One section of the results.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Section {
    pub facts: Facts,
    pub runs: Vec<Run>,
}

/// All results, by section.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Results(pub BTreeMap<String, Section>);

impl Results {
    /// Reads a file. A missing file has no results.
    ///
    /// # Errors
    /// The file cannot be read, or has an invalid line.
    pub fn read(path: &Path) -> Result<Self, Failure> {
        match std::fs::read_to_string(path) {
            Ok(text) => Self::parse(&text).map_err(|why| Failure(format!("{}: {why}", path.display()))),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Self::default()),
            Err(error) => Err(Failure(format!("{} can't be read: {error}", path.display()))),
        }
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut results = Self::default();
        for (index, line) in text.lines().enumerate() {
            let invalid = |why: &str| format!("line {}: {why}", index + 1);
            let value: Value = serde_json::from_str(line).map_err(|error| invalid(&error.to_string()))?;
            let section = value["section"].as_str().ok_or_else(|| invalid("no section"))?;
            let section = results.0.entry(section.to_owned()).or_default();
            if let Some(facts) = value["facts"].as_object() {
                let facts = facts.iter().filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
                section.facts.extend(facts);
            } else {
                section.runs.push(run(&value).ok_or_else(|| invalid("not a run"))?);
            }
        }
        Ok(results)
    }

    /// Formats the results as the text of a file.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        for (name, section) in &self.0 {
            text += &format!("{}\n", json!({"section": name, "facts": section.facts}));
            for run in &section.runs {
                let mut line = json!({
                    "section": name,
                    "case": run.case,
                    "x": run.x,
                    "subject": run.subject.key(),
                    "repetition": run.repetition,
                });
                match &run.outcome {
                    Ok(figures) => line["figures"] = json!(figures),
                    Err(why) => line["failed"] = json!(why),
                }
                text += &format!("{line}\n");
            }
        }
        text
    }

    /// Returns the runs of a case for a subject.
    pub fn runs<'a>(&'a self, case: &'a str, x: u64, subject: Subject) -> impl Iterator<Item = &'a Run> {
        let all = self.0.values().flat_map(|section| &section.runs);
        all.filter(move |run| run.case == case && run.x == x && run.subject == subject)
    }

    /// Returns the values of a figure, each with the number of its repetition.
    pub fn values(&self, case: &str, x: u64, subject: Subject, figure: &str) -> Vec<(u32, f64)> {
        self.runs(case, x, subject)
            .filter_map(|run| Some((run.repetition, *run.outcome.as_ref().ok()?.get(figure)?)))
            .collect()
    }

    /// Returns the median and the spread of a figure.
    pub fn summary(&self, case: &str, x: u64, subject: Subject, figure: &str) -> Option<Summary> {
        let values: Vec<f64> = self.values(case, x, subject, figure).into_iter().map(|(_, value)| value).collect();
        statistics::summary(&values)
    }

    /// Returns the ratio of one subject's figure to another's.
    pub fn ratio(&self, case: &str, x: u64, figure: &str, ours: Subject, theirs: Subject) -> Option<Summary> {
        statistics::ratio(&self.values(case, x, ours, figure), &self.values(case, x, theirs, figure))
    }

    /// Returns the values of the varied quantity of a case, ascending.
    pub fn varied(&self, case: &str) -> Vec<u64> {
        let all = self.0.values().flat_map(|section| &section.runs);
        let mut found: Vec<u64> = all.filter(|run| run.case == case).map(|run| run.x).collect();
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Returns the failed runs, each with the reason.
    pub fn failures(&self) -> impl Iterator<Item = (&Run, &str)> {
        let all = self.0.values().flat_map(|section| &section.runs);
        all.filter_map(|run| Some((run, run.outcome.as_ref().err()?.as_str())))
    }
}

fn run(value: &Value) -> Option<Run> {
    let outcome = match (value["figures"].as_object(), value["failed"].as_str()) {
        (Some(figures), _) => Ok(figures
            .iter()
            .map(|(name, figure)| Some((name.clone(), figure.as_f64()?)))
            .collect::<Option<Figures>>()?),
        (None, Some(why)) => Err(why.to_owned()),
        (None, None) => return None,
    };
    Some(Run {
        case: value["case"].as_str()?.to_owned(),
        x: value["x"].as_u64()?,
        subject: Subject::of_key(value["subject"].as_str()?)?,
        repetition: u32::try_from(value["repetition"].as_u64()?).ok()?,
        outcome,
    })
}

#[cfg(test)]
impl Run {
    /// Returns a successful run of a case, with a value of the varied quantity.
    pub fn sample((case, x): (&str, u64), subject: Subject, repetition: u32, figures: &[(&str, f64)]) -> Self {
        let figures = figures.iter().map(|(name, value)| ((*name).to_owned(), *value));
        Self { case: case.to_owned(), x, subject, repetition, outcome: Ok(figures.collect()) }
    }
}

#[cfg(test)]
impl Results {
    /// Returns results of one section with one fact.
    pub fn sample((fact, value): (&str, &str), runs: Vec<Run>) -> Self {
        let facts = Facts::from([(fact.to_owned(), value.to_owned())]);
        Self(BTreeMap::from([("compare".to_owned(), Section { facts, runs })]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Output of `wsmb bench latency --json`.
    const LATENCY: &str = r#"{"workload":"latency","dialect":"topic","size":200,"receivers":1,"senders":1,"messages":200,"deliveries":200,
        "seconds":0.2,"deliveries_per_second":1000.0,"server_cpu_us_per_delivery":16.25,"server_rss_kib":6100,"server_peak_rss_kib":6200,
        "lost":0,"doubled":0,"reordered":0,"latency_us":{"p50":41.5,"p90":60.0,"p99":88.0,"p999":120.0,"max":130.0},"sender_late_us":null,
        "bytes_per_connection":null,"phases":null,"store_bytes":null,"server_unseen":null}"#;

    /// Output of `wsmb bench backlog --json`.
    const BACKLOG: &str = r#"{"workload":"backlog","dialect":"envelope","deliveries":500,"deliveries_per_second":20000.0,
        "server_cpu_us_per_delivery":3.5,"latency_us":null,"bytes_per_connection":null,"phases":[
        {"name":"store","messages_per_second":9000.0,"server_cpu_us_per_message":11.0,"peak_rss_kib":7000},
        {"name":"drain","messages_per_second":20000.0,"server_cpu_us_per_message":3.5,"peak_rss_kib":7100}],"store_bytes":[4096,8192]}"#;

    fn sample(subject: Subject, repetition: u32, cpu: f64) -> Run {
        Run::sample(("p2p", 0), subject, repetition, &[("cpu", cpu)])
    }

    #[test]
    fn figures_are_read_from_a_report_and_null_is_omitted() {
        let latency = figures(&serde_json::from_str(LATENCY).unwrap());
        let found: Vec<(&str, f64)> = latency.iter().map(|(name, value)| (name.as_str(), *value)).collect();
        assert_eq!(found, [("cpu", 16.25), ("p50", 41.5), ("p99", 88.0), ("rate", 1000.0)]);
        let backlog = figures(&serde_json::from_str(BACKLOG).unwrap());
        assert_eq!((backlog["store_cpu"], backlog["drain_peak"], backlog["file_after"]), (11.0, 7100.0, 8192.0));
        assert!(!backlog.contains_key("bytes"));
    }

    #[test]
    fn written_results_are_read_again() {
        let failed = Run { outcome: Err("lost 3\n\"y\"".to_owned()), ..sample(Subject::Nats, 1, 0.0) };
        let runs = vec![sample(Subject::Topic, 0, 0.125), failed];
        let results = Results::sample(("kernel", "6.1 \"x\""), runs);
        let text = results.to_text();
        assert_eq!(text.lines().count(), 3);
        assert_eq!(Results::parse(&text).unwrap(), results);
        assert!(Results::parse("{\"section\":\"a\"}").unwrap_err().starts_with("line 1: not a run"));
        assert!(Results::parse("{}").unwrap_err().contains("no section"));
        assert_eq!(Results::parse("").unwrap(), Results::default());
    }

    #[test]
    fn a_failed_run_is_listed_and_has_no_figures() {
        let failed = Run { outcome: Err("gone".to_owned()), ..sample(Subject::Topic, 2, 0.0) };
        let runs = vec![sample(Subject::Topic, 0, 1.0), sample(Subject::Topic, 1, 3.0), failed];
        let limit = vec![sample(Subject::Limit, 0, 0.5), sample(Subject::Limit, 1, 1.0)];
        let results = Results::sample(("", ""), [runs, limit].concat());
        assert_eq!(results.summary("p2p", 0, Subject::Topic, "cpu").unwrap().median, 2.0);
        assert_eq!(results.ratio("p2p", 0, "cpu", Subject::Topic, Subject::Limit).unwrap().most, 3.0);
        assert_eq!(results.failures().map(|(run, why)| (run.repetition, why)).collect::<Vec<_>>(), [(2, "gone")]);
        assert_eq!(results.varied("p2p"), [0]);
    }
}
