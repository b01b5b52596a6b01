//! Runs a command for a message: the message on its standard input, its fields in the environment.
//!
//! The message comes from somebody else. It reaches the command as data only: never as a part of the command line, never under a variable name
//! that it chose freely. Of this program's own settings the command gets the address of the broker and nothing else, no password above all.
//! No command outlives this program, unless both are killed with SIGKILL on a system that tells nobody.

mod fields;
mod process;

use std::ffi::OsString;

use sha2::{Digest as _, Sha256};

use self::fields::PREFIX;
pub(crate) use self::process::{Ended, Report, run};

/// What the gateway knows of a message, for its command.
#[derive(Clone, Copy, Debug)]
pub(crate) struct About<'a> {
    pub id: &'a str,
    pub channel: &'a str,
    pub attempt: u32,
    pub redelivered: bool,
    /// The broker's address, without user and password.
    pub url: &'a str,
}

/// What one command is run for.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The message's JSON text (with `--raw`: the text of a string).
    pub text: String,
    /// What is put in the environment.
    pub environment: Vec<(String, OsString)>,
}

impl Job {
    /// A message, and sentences about fields of it that the command does not get.
    pub(crate) fn new(about: &About<'_>, json: &str, text: String) -> (Self, Vec<String>) {
        let found = fields::fields(json);
        let mut environment = found.variables;
        for (name, value) in [
            ("ID", about.id),
            ("CHANNEL", about.channel),
            ("ATTEMPT", &about.attempt.to_string()),
            ("REDELIVERED", if about.redelivered { "1" } else { "0" }),
            ("URL", about.url),
        ] {
            environment.push((format!("{PREFIX}{name}"), value.into()));
        }
        (Self { text, environment }, found.notes)
    }
}

/// A name for those who run the same command: the file name of the program or script. A piece of shell script has none, and is the same only if
/// every character of it is.
pub(crate) fn command_name(command: &str) -> String {
    /// Programs that run the one that is meant.
    const RUNNERS: [&str; 16] = [
        "sudo", "doas", "env", "exec", "nice", "nohup", "timeout", "sh", "bash", "dash", "php", "perl", "python",
        "python3", "ruby", "node",
    ];
    /// Words of the shell's own.
    const SHELL: [&str; 22] = [
        "if", "for", "while", "until", "case", "read", "cd", "set", "{", "[", "[[", ".", ":", "!", "export", "unset",
        "echo", "printf", "test", "trap", "true", "eval",
    ];
    let is_setting = |word: &str| {
        let assigns = word.split_once('=').is_some_and(|(name, _)| !name.contains('/'));
        assigns || word.starts_with(|c: char| c == '-' || c.is_ascii_digit())
    };
    let words = command.split_whitespace().map(|word| word.trim_matches(['\'', '"', ';', '(', ')']));
    let names =
        words.filter(|word| !is_setting(word)).filter_map(|word| word.rsplit('/').find(|part| !part.is_empty()));
    match names.filter(|name| !RUNNERS.contains(name)).map(str::to_owned).next() {
        Some(name) if !SHELL.contains(&name.as_str()) => name.chars().take(64).collect(),
        _ => {
            let digest = Sha256::digest(command.as_bytes());
            format!("script-{}", hex::encode(&digest[..4]))
        }
    }
}

/// Whether a variable of this program's environment is kept from the command.
fn is_own_setting(name: &std::ffi::OsStr) -> bool {
    let name = name.to_string_lossy();
    let name = if cfg!(windows) { name.to_ascii_uppercase() } else { name.into_owned() };
    name.starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_and_what_is_known_of_it_are_in_the_environment() {
        let about = About { id: "7-ab", channel: "sms", attempt: 2, redelivered: true, url: "ws://h:1/" };
        let (job, notes) = Job::new(&about, r#"{"a":1,"ID":"x"}"#, "x".to_owned());
        let expected = [
            ("WSMB_a", "1"),
            ("WSMB_ID", "7-ab"),
            ("WSMB_CHANNEL", "sms"),
            ("WSMB_ATTEMPT", "2"),
            ("WSMB_REDELIVERED", "1"),
            ("WSMB_URL", "ws://h:1/"),
        ];
        assert_eq!(job.environment, expected.map(|(name, value)| (name.to_owned(), value.into())));
        assert_eq!(notes.len(), 1);
    }

    #[test]
    fn a_command_has_a_name() {
        for (command, name) in [
            ("gammu sendsms TEXT \"$WSMB_receiver\"", "gammu"),
            ("/usr/local/bin/send-sms", "send-sms"),
            ("LANG=C TZ=UTC exec/run.sh x", "run.sh"),
            ("cat > done", "cat"),
            ("sudo nice -n 5 python3 /opt/send.py --fast", "send.py"),
            ("  ", "script-"),
            ("if true; then x; fi", "script-"),
            ("read m; /usr/bin/x", "script-"),
            ("sh -c 'read m; x'", "script-"),
            ("sh -c 'sms \"$0\"'", "sms"),
        ] {
            assert!(command_name(command).starts_with(name), "{command}: {}", command_name(command));
        }
        assert_ne!(command_name("read m; x"), command_name("read m; y"));
    }

    #[test]
    fn settings_of_this_program_are_kept_from_commands() {
        for (name, own) in [("WSMB_PASSWORD", true), ("WSMB_anything", true), ("PATH", false), ("XWSMB_A", false)] {
            assert_eq!(is_own_setting(name.as_ref()), own, "{name}");
        }
    }
}
