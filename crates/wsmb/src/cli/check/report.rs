//! The findings of `wsmb check`: collects facts, warnings and errors, and prints them as text or JSON.

use wsmb_config::{ConfigError, Problem};

use super::super::Outcome;
use super::super::output::{self, Style, count};

/// All findings. Each kind keeps the order in which the findings were added.
#[derive(Default)]
pub(super) struct Report {
    /// What the broker would serve: a heading and a value.
    facts: Vec<(&'static str, String)>,
    warnings: Vec<String>,
    errors: Vec<ReportedError>,
}

/// A cause why the broker would not start.
struct ReportedError {
    text: String,
    /// File, line and key, for a mistake in the configuration.
    problem: Option<Problem>,
}

impl Report {
    pub(super) fn fact(&mut self, name: &'static str, value: impl Into<String>) {
        self.facts.push((name, value.into()));
    }

    pub(super) fn warning(&mut self, text: impl Into<String>) {
        self.warnings.push(text.into());
    }

    pub(super) fn warnings(&mut self, texts: impl IntoIterator<Item = String>) {
        self.warnings.extend(texts);
    }

    pub(super) fn error(&mut self, text: impl Into<String>) {
        self.errors.push(ReportedError { text: text.into(), problem: None });
    }

    pub(super) fn errors(&mut self, texts: impl IntoIterator<Item = String>) {
        texts.into_iter().for_each(|text| self.error(text));
    }

    /// Adds each mistake of a configuration as an error of its own.
    pub(super) fn problems(&mut self, problems: &ConfigError) {
        let errors = problems
            .0
            .iter()
            .map(|problem| ReportedError { text: problem.to_string(), problem: Some(problem.clone()) });
        self.errors.extend(errors);
    }

    pub(super) fn is_failure(&self, strict: bool) -> bool {
        !self.errors.is_empty() || (strict && !self.warnings.is_empty())
    }

    pub(super) fn print(&self, json: bool) -> Outcome {
        if json { self.print_objects() } else { self.print_lines() }
    }

    fn print_objects(&self) -> Outcome {
        for (name, value) in &self.facts {
            output::line(&serde_json::json!({ "kind": "fact", "name": name, "value": value }).to_string())?;
        }
        for text in &self.warnings {
            output::line(&serde_json::json!({ "kind": "warning", "text": text }).to_string())?;
        }
        for ReportedError { text, problem } in &self.errors {
            let mut object = serde_json::json!({ "kind": "error", "text": text });
            if let Some(problem) = problem {
                object["file"] = problem.file().into();
                object["line"] = problem.line().into();
                object["key"] = problem.key().into();
            }
            output::line(&object.to_string())?;
        }
        Ok(())
    }

    fn print_lines(&self) -> Outcome {
        let style = Style::stdout();
        for (name, value) in &self.facts {
            output::line(&format!("{}  {value}", style.dim(format_args!("{name:14}"))))?;
        }
        for warning in &self.warnings {
            output::line(&format!("{} {warning}", style.warning("warning:")))?;
        }
        for ReportedError { text, .. } in &self.errors {
            output::line(&format!("{} {text}", style.bad("error:")))?;
        }
        output::line(&match (self.errors.len() as u64, self.warnings.len() as u64) {
            (0, 0) => style.good("the broker would start; no warnings"),
            (0, warnings) => format!("the broker would start; {}", count(warnings, "warning")),
            (errors, warnings) => {
                format!("the broker would not start: {}, {}", count(errors, "error"), count(warnings, "warning"))
            }
        })
    }
}
