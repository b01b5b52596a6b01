//! Runs a command for a message. The command gets the message on its standard input, and the fields of the message as environment variables.
//!
//! The message is not trusted. It reaches the command as data only: never as a part of the command line, and never under a variable name that the
//! sender chose freely. The command never gets a setting of this program, above all no password; it only gets the address of the broker.
//! No command outlives this program, except if SIGKILL ends this program on a system without `PR_SET_PDEATHSIG`.

mod fields;
mod process;

use std::ffi::OsString;

use sha2::{Digest as _, Sha256};

use self::fields::PREFIX;
pub(crate) use self::process::{CommandResult, Termination, run};
use crate::platform;

/// Properties of a message that its command gets as environment variables.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageInfo<'a> {
    pub id: &'a str,
    pub channel: &'a str,
    pub attempt: u32,
    pub redelivered: bool,
    /// The broker's address, without user and password.
    pub url: &'a str,
}

/// The input of one command.
#[derive(Clone, Debug)]
pub(crate) struct CommandInput {
    /// Standard input: the message's JSON text, or with `--raw` the text of a JSON string.
    pub text: String,
    /// Environment variables.
    pub environment: Vec<(String, OsString)>,
}

impl CommandInput {
    /// Returns the input for a message, and a note for each field that the command does not get.
    pub(crate) fn new(info: &MessageInfo<'_>, json: &str, text: String) -> (Self, Vec<String>) {
        let fields = fields::variables(json);
        let mut environment = fields.variables;
        for (name, value) in [
            ("ID", info.id),
            ("CHANNEL", info.channel),
            ("ATTEMPT", &info.attempt.to_string()),
            ("REDELIVERED", if info.redelivered { "1" } else { "0" }),
            ("URL", info.url),
        ] {
            environment.push((format!("{PREFIX}{name}"), value.into()));
        }
        (Self { text, environment }, fields.notes)
    }
}

/// Returns a name for receivers that run the same command: the file name of the program or script. A piece of shell script has no file name; its name is
/// a hash of its text.
pub(crate) fn command_name(command: &str) -> String {
    /// Programs that run another program, which gives the name.
    const WRAPPERS: [&str; 16] = [
        "sudo", "doas", "env", "exec", "nice", "nohup", "timeout", "sh", "bash", "dash", "php", "perl", "python",
        "python3", "ruby", "node",
    ];
    /// Words of the shell's language.
    const SHELL_WORDS: [&str; 22] = [
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
    match names.filter(|name| !WRAPPERS.contains(name)).map(str::to_owned).next() {
        Some(name) if !SHELL_WORDS.contains(&name.as_str()) => name.chars().take(64).collect(),
        _ => {
            let digest = Sha256::digest(command.as_bytes());
            format!("script-{}", hex::encode(&digest[..4]))
        }
    }
}

/// Whether a variable of this program's environment is a setting of this program. The command does not get such a variable.
fn is_wsmb_variable(name: &std::ffi::OsStr) -> bool {
    platform::variable_key(&name.to_string_lossy()).starts_with(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_and_the_properties_of_a_message_are_in_the_environment() {
        let info = MessageInfo { id: "7-ab", channel: "sms", attempt: 2, redelivered: true, url: "ws://h:1/" };
        let (input, notes) = CommandInput::new(&info, r#"{"a":1,"ID":"x"}"#, "x".to_owned());
        let expected = [
            ("WSMB_a", "1"),
            ("WSMB_ID", "7-ab"),
            ("WSMB_CHANNEL", "sms"),
            ("WSMB_ATTEMPT", "2"),
            ("WSMB_REDELIVERED", "1"),
            ("WSMB_URL", "ws://h:1/"),
        ];
        assert_eq!(input.environment, expected.map(|(name, value)| (name.to_owned(), value.into())));
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
            assert_eq!(is_wsmb_variable(name.as_ref()), own, "{name}");
        }
    }
}
