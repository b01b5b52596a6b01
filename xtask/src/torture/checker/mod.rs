//! The checker: reads what every client noted, and finds promises that were broken.
//!
//! It knows nothing of how the broker works. A violation is something that no permitted order of events explains; where the histories leave a
//! doubt (a confirmation that may have been lost with its connection), the doubt is the broker's.

mod excuses;
mod history;
mod rules;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

pub use history::History;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Name of the rule.
    pub rule: &'static str,
    /// The message that it is about.
    pub message: Option<String>,
    /// What happened.
    pub text: String,
}

/// Everything that is wrong in a history.
pub fn violations(history: &History) -> Vec<Violation> {
    let rules = [
        rules::wrong,
        rules::damaged,
        rules::lost,
        rules::doubled,
        rules::unmarked,
        rules::disordered,
        rules::late,
        rules::refused,
        rules::rejected,
        rules::more_than_once,
        rules::left,
    ];
    rules.iter().flat_map(|rule| rule(history)).collect()
}

/// How many of one rule are listed.
const LISTED: usize = 12;
/// How many messages are told in full: the first of each rule and channel.
const TOLD: usize = 8;

/// The violations for a reader, with the whole story of the first messages.
pub fn report(history: &History, found: &[Violation]) -> String {
    let mut text = format!("{} promises were broken:\n", found.len());
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
    let mut told: BTreeMap<(&str, &str), &str> = BTreeMap::new();
    for violation in found {
        let Some(key) = violation.message.as_deref() else { continue };
        let channel = history.messages.get(key).map_or("", |message| message.channel.as_str());
        told.entry((violation.rule, channel)).or_insert(key);
    }
    for message in told.into_values().take(TOLD) {
        text += &format!("the story of {message}:\n{}", history.story(message));
    }
    text
}

/// On which channels, and how often.
fn channels(history: &History, list: &[&Violation]) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for message in list.iter().filter_map(|violation| history.messages.get(violation.message.as_deref()?)) {
        *counts.entry(&message.channel).or_default() += 1;
    }
    counts.iter().map(|(channel, count)| format!(", {channel} {count}")).collect()
}
