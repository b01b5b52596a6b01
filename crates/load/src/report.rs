//! The result of a measurement: a table with units for people, or one JSON object on one line for programs. The names of the JSON members
//! must never change, because the benchmark tools read them.

use std::fmt;

use serde::Serialize;

/// The result of one measurement. The field names are the members of the JSON object.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// `p2p`, `fanout`, `pairs`, `channels`, `idle`, `latency`, `confirmed` or `backlog`.
    pub workload: &'static str,
    /// The protocol's name ([`super::Wire::name`]).
    pub dialect: &'static str,
    /// The size of a message, in bytes.
    pub size: usize,
    /// The number of receiving connections.
    pub receivers: usize,
    /// The number of sending connections.
    pub senders: usize,
    /// The messages sent in the measurement, without the warm-up.
    pub messages: u64,
    /// The messages received, counted at each receiver; in `confirmed`, the confirmed sends.
    pub deliveries: u64,
    /// The time from the first send to the last delivery or confirmation.
    pub seconds: f64,
    /// The [`Self::deliveries`] a second.
    pub deliveries_per_second: f64,
    /// The server's CPU time (user and system) for each of [`Self::deliveries`], in microseconds; `None` if it cannot be read.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The server's resident memory at the end, in KiB.
    pub server_rss_kib: Option<u64>,
    /// The server's maximum resident memory since its start, in KiB.
    pub server_peak_rss_kib: Option<u64>,
    /// The deliveries that never arrived, including those of the warm-up.
    pub lost: u64,
    /// The duplicate deliveries.
    pub doubled: u64,
    /// The deliveries that arrived after a later message of the same sender and channel.
    pub reordered: u64,
    /// The time from the due time of a message to its arrival; `latency` only.
    pub latency_us: Option<Latency>,
    /// How late messages were sent, because of the generator or a full socket; a part of the latency. `latency` only.
    pub sender_late_us: Option<Latency>,
    /// The server's resident memory for each connection; `idle` only.
    pub bytes_per_connection: Option<f64>,
    /// The two phases of `backlog`; `backlog` only.
    pub phases: Option<Vec<Phase>>,
    /// The size of the store's file before and after the drain, in bytes; `backlog` only.
    pub store_bytes: Option<[u64; 2]>,
    /// Why the server's CPU time and memory are missing: a sentence.
    pub server_unseen: Option<String>,
}

/// The percentiles of a latency, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Latency {
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The 99.9th percentile.
    pub p999: f64,
    /// The maximum.
    pub max: f64,
}

/// One phase of the workload `backlog`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Phase {
    /// `store` or `drain`.
    pub name: &'static str,
    /// The confirmed or received messages a second.
    pub messages_per_second: f64,
    /// The server's CPU time for each message, in microseconds.
    pub server_cpu_us_per_message: Option<f64>,
    /// The server's maximum resident memory from its start to the end of the phase, in KiB.
    pub peak_rss_kib: Option<u64>,
}

impl Report {
    /// Returns the report as one JSON object on one line, without a line break.
    #[must_use]
    pub fn to_json(&self) -> String {
        // Serialising numbers, texts and lists of them cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Whether every message arrived exactly once and in order.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.reordered == 0
    }
}

/// Formats the report as a table with one quantity a line.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows = self.rows();
        let label = rows.iter().map(|(label, ..)| label.len()).max().unwrap_or(0);
        let value = rows.iter().map(|(_, value, _)| value.chars().count()).max().unwrap_or(0);
        let lines: Vec<String> = rows
            .iter()
            .map(|(name, number, unit)| format!("  {name:label$}  {number:>value$} {unit}").trim_end().to_owned())
            .collect();
        write!(f, "{} ({}): {}\n{}", self.workload, self.dialect, self.summary(), lines.join("\n"))
    }
}

/// One line of the table: a label, a number and a unit.
type TableRow = (String, String, &'static str);

impl Report {
    fn summary(&self) -> String {
        let plural = |count: usize, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let receivers = plural(self.receivers, "receiver");
        if self.workload == "idle" {
            return plural(self.receivers, "connection");
        }
        format!("messages of {} bytes, {}, {receivers}", self.size, plural(self.senders, "sender"))
    }

    fn rows(&self) -> Vec<TableRow> {
        let mut rows = Vec::new();
        let mut row = |label: &str, number: String, unit| rows.push((label.to_owned(), number, unit));
        if let Some(bytes) = self.bytes_per_connection {
            row("server memory for each connection", with_thousands_separators(bytes), "bytes");
        }
        let each = if self.workload == "confirmed" { "confirmed send" } else { "delivery" };
        if self.phases.is_none() && self.deliveries > 0 {
            row("messages", with_thousands_separators(self.messages as f64), "");
            row(
                if self.workload == "confirmed" { "confirmed" } else { "deliveries" },
                with_thousands_separators(self.deliveries as f64),
                "",
            );
            row("time", format!("{:.2}", self.seconds), "s");
            row("rate", with_thousands_separators(self.deliveries_per_second), "/s");
            if let Some(cpu) = self.server_cpu_us_per_delivery {
                row(&format!("server CPU for each {each}"), format!("{cpu:.3}"), "µs");
            }
        }
        if let Some(latency) = &self.latency_us {
            for (label, time) in [
                ("latency, median", latency.p50),
                ("latency, 90 %", latency.p90),
                ("latency, 99 %", latency.p99),
                ("latency, 99.9 %", latency.p999),
                ("latency, maximum", latency.max),
            ] {
                row(label, format!("{time:.1}"), "µs");
            }
        }
        for phase in self.phases.iter().flatten() {
            row(&format!("{}: rate", phase.name), with_thousands_separators(phase.messages_per_second), "/s");
            if let Some(cpu) = phase.server_cpu_us_per_message {
                row(&format!("{}: server CPU for each message", phase.name), format!("{cpu:.3}"), "µs");
            }
            if let Some(peak) = phase.peak_rss_kib {
                row(&format!("{}: maximum server memory", phase.name), with_thousands_separators(peak as f64), "KiB");
            }
        }
        if let Some([before, after]) = self.store_bytes {
            row("store file before the drain", with_thousands_separators(before as f64), "bytes");
            row("store file after the drain", with_thousands_separators(after as f64), "bytes");
        }
        if let Some(resident) = self.server_rss_kib {
            row("server memory, resident", with_thousands_separators(resident as f64), "KiB");
        }
        if let Some(peak) = self.server_peak_rss_kib {
            row("server memory, maximum", with_thousands_separators(peak as f64), "KiB");
        }
        if let Some(reason) = &self.server_unseen {
            row("server CPU and memory", "unknown".to_owned(), "");
            rows.push((format!("  {reason}"), String::new(), ""));
        }
        if !self.is_sound() {
            for (label, count) in [("LOST", self.lost), ("DOUBLED", self.doubled), ("REORDERED", self.reordered)] {
                rows.push((label.to_owned(), with_thousands_separators(count as f64), "deliveries"));
            }
        }
        rows
    }
}

/// Formats a whole number with commas between the thousands.
fn with_thousands_separators(number: f64) -> String {
    let digits = format!("{number:.0}");
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
    use super::*;

    #[test]
    fn the_json_object_has_the_documented_members() {
        let report = Report {
            workload: "latency",
            dialect: "topic",
            latency_us: Some(Latency { p50: 1.5, ..Latency::default() }),
            phases: Some(vec![Phase { name: "store", ..Phase::default() }]),
            store_bytes: Some([1, 2]),
            ..Report::default()
        };
        let json: serde_json::Value = serde_json::from_str(&report.to_json()).unwrap();
        for member in [
            "workload",
            "dialect",
            "size",
            "receivers",
            "senders",
            "messages",
            "deliveries",
            "seconds",
            "deliveries_per_second",
            "server_cpu_us_per_delivery",
            "server_rss_kib",
            "server_peak_rss_kib",
            "lost",
            "doubled",
            "reordered",
            "latency_us",
            "bytes_per_connection",
            "phases",
            "store_bytes",
        ] {
            assert!(json.get(member).is_some(), "{member}");
        }
        assert_eq!(json["latency_us"]["p50"], 1.5);
        assert!(json["latency_us"]["p999"].is_number());
        assert_eq!(json["phases"][0]["name"], "store");
        assert_eq!(json["store_bytes"], serde_json::json!([1, 2]));
        assert!(json["bytes_per_connection"].is_null());
    }

    #[test]
    fn the_table_is_aligned_and_shows_losses() {
        let mut report = Report {
            workload: "p2p",
            dialect: "topic",
            size: 200,
            receivers: 1,
            senders: 1,
            messages: 1_234_567,
            deliveries: 1_234_567,
            seconds: 2.0,
            deliveries_per_second: 617_283.5,
            server_cpu_us_per_delivery: Some(0.12),
            ..Report::default()
        };
        let text = report.to_string();
        assert!(text.starts_with("p2p (topic): messages of 200 bytes, 1 sender, 1 receiver\n"), "{text}");
        assert!(text.contains("deliveries                    1,234,567"), "{text}");
        assert!(text.contains("0.120 µs"), "{text}");
        assert!(!text.contains("LOST"), "{text}");
        report.lost = 3;
        assert!(report.to_string().contains("LOST"));
        assert!(!report.is_sound());
    }

    #[test]
    fn thousands_are_separated() {
        let numbers = [0.0, 999.0, 1000.0, 1_234_567.0, -1000.0].map(with_thousands_separators);
        assert_eq!(numbers, ["0", "999", "1,000", "1,234,567", "-1,000"]);
    }
}
