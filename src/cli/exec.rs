//! Runs a command for a message: the message on its standard input, its top-level scalar fields in the environment.
//!
//! The message comes from somebody else. It reaches the command as data only: never as a part of the command line, never under a
//! variable name that it chose freely, and never over a setting of this program.

use std::ffi::OsString;
use std::process::{ExitStatus, Stdio};

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::limits;

/// Begins the name of every variable that a message sets.
const PREFIX: &str = "WSMB_";

/// Settings of this program, and what `receive` itself tells the command: a message does not get to set these.
const RESERVED: [&str; 6] = ["URL", "USER", "PASSWORD", "CONFIG", "CHANNEL", "REDELIVERED"];

/// What one command is run for.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The message's JSON text (with `--raw`: the text of a string).
    pub text: String,
    /// What is put in the environment.
    pub environment: Vec<(String, OsString)>,
}

impl Job {
    /// A message of a channel.
    pub(crate) fn new(channel: &str, redelivered: bool, json: &str, text: String) -> Self {
        let mut environment = fields(json);
        environment.push((format!("{PREFIX}CHANNEL"), channel.into()));
        environment.push((format!("{PREFIX}REDELIVERED"), if redelivered { "1" } else { "0" }.into()));
        Self { text, environment }
    }
}

/// Runs `command` in the shell and waits for it.
///
/// # Errors
/// It could not be started.
pub(crate) async fn run(command: &str, job: &Job) -> std::io::Result<ExitStatus> {
    let mut child = shell(command).envs(job.environment.iter().cloned()).stdin(Stdio::piped()).spawn()?;
    if let Some(mut input) = child.stdin.take() {
        let mut text = job.text.clone().into_bytes();
        // A shell's `read` takes a line only with its end.
        text.push(b'\n');
        // A command that does not read its input is no failure: what counts is its exit code.
        let _ = input.write_all(&text).await;
    }
    child.wait().await
}

#[cfg(unix)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("/bin/sh");
    // A group of its own: Ctrl-C asks this program to stop, and what runs is finished first.
    shell.arg("-c").arg(command).process_group(0);
    shell
}

#[cfg(windows)]
fn shell(command: &str) -> Command {
    let mut shell = Command::new("cmd");
    shell.arg("/C").raw_arg(command);
    shell
}

/// The top-level scalar fields of a message as variables, bounded in number and size; what is over a bound is left out.
pub(crate) fn fields(json: &str) -> Vec<(String, OsString)> {
    let Ok(Value::Object(members)) = serde_json::from_str::<Value>(json) else { return Vec::new() };
    let mut variables: Vec<(String, OsString)> = Vec::new();
    let mut bytes = 0_usize;
    for (key, value) in members {
        if variables.len() == limits::EXEC_FIELDS {
            break;
        }
        let (Some(name), Some(text)) = (variable_name(&key), scalar(value)) else { continue };
        let size = name.len() + text.len() + 2;
        let fits = text.len() <= limits::EXEC_FIELD_BYTES && bytes + size <= limits::EXEC_ENVIRONMENT_BYTES;
        if fits && !variables.iter().any(|(taken, _)| same_name(taken, &name)) {
            bytes += size;
            variables.push((name, text.into()));
        }
    }
    variables
}

/// `WSMB_` and the key, everything but ASCII letters, digits and `_` replaced by `_`. `None` for a name that is not to be set.
pub(crate) fn variable_name(key: &str) -> Option<String> {
    /// No programming language's fields are longer.
    const LONGEST: usize = 100;
    let clean: String = key.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' }).collect();
    // Two underscores are how the broker's own settings are named (WSMB_SERVER__LISTEN).
    let setting = RESERVED.iter().any(|reserved| same_name(reserved, &clean)) || clean.contains("__");
    let empty = clean.chars().all(|c| c == '_');
    if setting || empty || clean.len() > LONGEST { None } else { Some(format!("{PREFIX}{clean}")) }
}

/// Windows does not tell `User` from `USER`.
fn same_name(a: &str, b: &str) -> bool {
    if cfg!(windows) { a.eq_ignore_ascii_case(b) } else { a == b }
}

/// A value that is neither a list nor an object, as text; no variable can hold a NUL.
fn scalar(value: Value) -> Option<String> {
    match value {
        Value::Null => Some(String::new()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Number(number) => Some(number.to_string()),
        Value::String(text) if !text.contains('\0') => Some(text),
        Value::String(_) | Value::Array(_) | Value::Object(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn names(json: &str) -> Vec<(String, String)> {
        let mut found: Vec<_> =
            fields(json).into_iter().map(|(name, value)| (name, value.into_string().unwrap())).collect();
        found.sort();
        found
    }

    #[test]
    fn scalar_fields_become_variables_and_others_do_not() {
        let json = r#"{"receiver":"0812","id":71,"urgent":true,"note":null,"price":1.50,"list":[1],"nested":{"a":1}}"#;
        let expected = [
            ("WSMB_id", "71"),
            ("WSMB_note", ""),
            ("WSMB_price", "1.5"),
            ("WSMB_receiver", "0812"),
            ("WSMB_urgent", "true"),
        ];
        assert_eq!(names(json), expected.map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    #[test]
    fn a_message_that_is_no_object_sets_nothing() {
        for json in ["5", "\"x\"", "[1]", "null", "not json"] {
            assert_eq!(names(json), []);
        }
    }

    #[test]
    fn a_message_cannot_set_what_is_not_its_own() {
        for key in ["", "_", "日", "URL", "USER", "PASSWORD", "CONFIG", "CHANNEL", "SERVER__LISTEN", "a--b"] {
            assert_eq!(variable_name(key), None, "{key}");
        }
        assert_eq!(variable_name("a=b\nc-d é"), None, "two underscores in a row");
        assert_eq!(variable_name("date-time").as_deref(), Some("WSMB_date_time"));
        assert_eq!(variable_name("a=b").as_deref(), Some("WSMB_a_b"));
        assert_eq!(names(r#"{"x":"a\u0000b"}"#), []);
    }

    #[test]
    fn of_two_fields_with_one_name_the_first_counts() {
        assert_eq!(names(r#"{"a.b":1,"a-b":2}"#).len(), 1);
    }

    #[test]
    fn fields_are_bounded_in_number_and_size() {
        let many: Value =
            (0..500).map(|number| (format!("f{number}"), Value::from(1))).collect::<serde_json::Map<_, _>>().into();
        assert_eq!(fields(&many.to_string()).len(), limits::EXEC_FIELDS);
        let long = serde_json::json!({ "long": "x".repeat(limits::EXEC_FIELD_BYTES + 1), "short": "x" });
        assert_eq!(names(&long.to_string()), [("WSMB_short".to_owned(), "x".to_owned())]);
        let sum: Value = (0..50)
            .map(|number| (format!("f{number}"), Value::from("x".repeat(limits::EXEC_FIELD_BYTES))))
            .collect::<serde_json::Map<_, _>>()
            .into();
        let bytes: usize = fields(&sum.to_string()).iter().map(|(name, value)| name.len() + value.len()).sum();
        assert!(bytes <= limits::EXEC_ENVIRONMENT_BYTES && bytes > limits::EXEC_FIELD_BYTES, "{bytes}");
    }

    proptest! {
        #[test]
        fn every_name_is_one_that_a_shell_can_read(key in ".*") {
            if let Some(name) = variable_name(&key) {
                prop_assert!(name.starts_with("WSMB_"));
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
            }
        }
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn the_command_gets_the_message_and_its_fields() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("out");
        let json = r#"{"receiver":"$(touch hacked); `id`"}"#;
        let job = Job::new("sms", true, json, json.to_owned());
        let command = format!(
            "read line && printf '%s|%s|%s|%s' \"$line\" \"$WSMB_receiver\" \"$WSMB_CHANNEL\" \"$WSMB_REDELIVERED\" > '{}'",
            file.display()
        );
        assert!(run(&command, &job).await.unwrap().success());
        assert_eq!(std::fs::read_to_string(file).unwrap(), format!("{json}|$(touch hacked); `id`|sms|1"));
        assert_eq!(run("exit 3", &job).await.unwrap().code(), Some(3));
    }
}
