//! The checker: reads the histories of all clients and finds broken promises.
//!
//! Must not depend on how the broker works. An event is a violation only if no permitted order of events explains it. If the histories are ambiguous
//! (a confirmation may have been lost with its connection), the checker decides in favour of the broker.

mod excuses;
mod history;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use history::History;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule.
    pub rule: &'static str,
    /// Key of the message.
    pub message: Option<String>,
    /// Description, for the report.
    pub text: String,
}

impl Violation {
    fn new(rule: &'static str, message: &str, text: String) -> Self {
        Self { rule, message: Some(message.to_owned()), text }
    }
}

/// Returns all violations in a history.
pub fn violations(history: &History) -> Vec<Violation> {
    let rules = [rules::wrong, rules::unknown, rules::disordered, rules::left];
    let mut found: Vec<Violation> = rules.iter().flat_map(|rule| rule(history)).collect();
    for (rule, check) in rules::OF_A_MESSAGE {
        for (key, message) in &history.messages {
            let mut texts = Vec::new();
            check(history, key, message, &mut texts);
            found.extend(texts.into_iter().map(|text| Violation::new(rule, key, text)));
        }
    }
    found
}

/// The largest number of listed violations of one rule.
const LISTED: usize = 12;
/// The largest number of messages whose events are listed. At most one message of each rule and channel is listed.
const MESSAGES_LISTED: usize = 8;

/// Formats the violations, with the events of some messages.
pub fn report(history: &History, found: &[Violation]) -> String {
    let mut text = format!("{} violations:\n", found.len());
    let mut rules: BTreeMap<&str, Vec<&Violation>> = BTreeMap::new();
    for violation in found {
        rules.entry(violation.rule).or_default().push(violation);
    }
    for (rule, list) in rules {
        text += &format!("  {rule} ({}{}):\n", list.len(), channels(history, &list));
        for violation in list.iter().take(LISTED) {
            text += &format!("    {}\n", violation.text);
        }
        if list.len() > LISTED {
            text += &format!("    … and {} more\n", list.len() - LISTED);
        }
    }
    let mut examples: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for violation in found {
        let Some(key) = violation.message.as_deref() else { continue };
        let channel = history.messages.get(key).map_or("", |message| message.channel.as_str());
        examples.entry((violation.rule, channel)).or_insert(key);
    }
    for message in examples.into_values().take(MESSAGES_LISTED) {
        text += &format!("events of {message}:\n{}", history.events_of(message));
    }
    text
}

/// Formats the number of violations on each channel.
fn channels(history: &History, list: &[&Violation]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for message in list.iter().filter_map(|violation| history.messages.get(violation.message.as_deref()?)) {
        *counts.entry(&message.channel).or_default() += 1;
    }
    counts.iter().map(|(channel, count)| format!(", {channel} {count}")).collect()
}
