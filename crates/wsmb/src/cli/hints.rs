//! What people type who know another program: the command that they mean.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Commands that do not exist, and what to type instead.
const MEANT: &[(&[&str], &str)] = &[
    (&["publish", "pub", "produce", "push", "post"], "wsmb send CHANNEL MESSAGE"),
    (&["subscribe", "sub", "consume", "listen", "recv", "get"], "wsmb receive CHANNEL"),
    (&["server", "start", "run", "broker"], "wsmb serve"),
    (&["status", "health"], "wsmb ping"),
    (&["logout"], "wsmb login --remove NAME"),
    (&["users", "user", "adduser", "password"], "wsmb passwd FILE USER"),
    (&["completion"], "wsmb completions SHELL"),
];

/// A sentence for a command that does not exist and of which it is known what it would do here.
pub(crate) fn meant(error: &clap::Error) -> Option<String> {
    if error.kind() != ErrorKind::InvalidSubcommand {
        return None;
    }
    let Some(ContextValue::String(typed)) = error.get(ContextKind::InvalidSubcommand) else { return None };
    let (_, right) = MEANT.iter().find(|(words, _)| words.contains(&typed.as_str()))?;
    Some(format!("there is no command {typed}; type: {right}"))
}
