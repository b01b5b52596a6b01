//! Suggests the right command to people who type the command of another program.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands that do not exist, and the command to type instead.
const SUGGESTIONS: &[(&[&str], &str)] = &[
    (&["publish", "pub", "produce", "push", "post"], "wsmb send CHANNEL MESSAGE"),
    (&["subscribe", "sub", "consume", "listen", "recv", "get"], "wsmb receive CHANNEL"),
    (&["server", "start", "run", "broker"], "wsmb serve"),
    (&["status", "health"], "wsmb ping"),
    (&["logout"], "wsmb login --remove NAME"),
    (&["users", "user", "adduser", "password"], "wsmb passwd FILE USER"),
    (&["completion"], "wsmb completions SHELL"),
];

/// Returns an error message with the right command, if the error is an unknown command that [`SUGGESTIONS`] lists.
pub(crate) fn suggestion(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (_, right) = SUGGESTIONS.iter().find(|(words, _)| words.contains(&typed.as_str()))?;
    Some(format!("there is no command {typed}; type: {right}"))
}
