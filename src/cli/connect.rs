//! How a client command finds its broker, and who it says it is.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use crate::client::{Credentials, Options, Url};

/// The options of every command that talks to a broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Broker")]
pub(crate) struct Connect {
    /// Address of the broker: ws://[user[:password]@]host[:port][/path]
    #[arg(
        long,
        global = true,
        env = "WSMB_URL",
        hide_env_values = true,
        default_value = "ws://127.0.0.1:8888",
        value_name = "URL"
    )]
    url: String,

    /// User name, or name and password (but others may see your command line: better set WSMB_PASSWORD) [env: WSMB_USER]
    #[arg(long, global = true, value_name = "NAME[:PASSWORD]")]
    user: Option<String>,

    /// File whose first line is the password (else WSMB_PASSWORD is used)
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Connect {
    /// Where to connect to, and how.
    ///
    /// # Errors
    /// A sentence about the address, the user or the password file.
    pub(crate) fn resolve(&self) -> Result<(Url, Options), Failure> {
        let url = Url::parse(&self.url).map_err(Failure::misuse)?;
        if speaks_topic(&url) {
            return Err(Failure::misuse(
                "the address names a topic, and on such a connection the broker knows no commands; \
                 leave ?topic= out and give the channel as an argument",
            ));
        }
        let file = self.password_file.as_deref().map(read_password).transpose()?;
        let given = Given {
            flag: self.user.clone(),
            file,
            url_user: url.user().map(str::to_owned),
            url_password: url.password().map(str::to_owned),
            env_user: variable("WSMB_USER")?,
            env_password: variable("WSMB_PASSWORD")?,
        };
        let credentials = given.credentials().map_err(Failure::Misuse)?;
        Ok((url, Options { credentials, ..Options::default() }))
    }
}

/// The broker takes every frame on such a connection for a message: a command would go to the receivers.
fn speaks_topic(url: &Url) -> bool {
    let query = url.target().split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| matches!(pair.split('=').next(), Some("topic" | "channel")))
}

/// A variable that is empty is as good as none.
fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::misuse(format_args!("{name} is not valid UTF-8"))),
    }
}

/// The first line of a password file, without its line ending.
///
/// # Errors
/// It cannot be read, or its first line is empty.
pub(crate) fn read_password(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format_args!("cannot read the password file {}: {error}", path.display())))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::failed(format_args!("the first line of the password file {} is empty", path.display()))),
    }
}

/// Everything that names a user or a password, in the order of precedence.
#[derive(Default)]
struct Given {
    flag: Option<String>,
    file: Option<String>,
    url_user: Option<String>,
    url_password: Option<String>,
    env_user: Option<String>,
    env_password: Option<String>,
}

impl Given {
    /// User: flag, address, environment. Password: beside the user name, from the file, from the environment.
    fn credentials(self) -> Result<Option<Credentials>, String> {
        let split = |text: String| match text.split_once(':') {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (text, None),
        };
        let (user, beside) = if let Some(flag) = self.flag {
            split(flag)
        } else if let Some(user) = self.url_user {
            (user, self.url_password)
        } else if let Some(user) = self.env_user {
            split(user)
        } else if self.file.is_some() {
            return Err("a password file, but no user name: add --user NAME".to_owned());
        } else {
            return Ok(None);
        };
        if user.is_empty() || user.contains(':') {
            return Err("the user name is empty or contains a colon".to_owned());
        }
        match beside.or(self.file).or(self.env_password) {
            Some(password) => Ok(Some(Credentials { user, password })),
            None => Err(format!("no password for the user {user}: set WSMB_PASSWORD or give --password-file")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(text: &str) -> Option<String> {
        Some(text.to_owned())
    }

    #[test]
    fn the_nearest_user_and_password_win() {
        let all = || Given {
            flag: some("flag"),
            file: some("from file"),
            url_user: some("url"),
            url_password: some("from url"),
            env_user: some("env"),
            env_password: some("from env"),
        };
        let table = [
            (all(), "flag", "from file"),
            (Given { flag: some("flag:a:b"), ..all() }, "flag", "a:b"),
            (Given { file: None, ..all() }, "flag", "from env"),
            (Given { flag: None, ..all() }, "url", "from url"),
            (Given { flag: None, url_password: None, ..all() }, "url", "from file"),
            (Given { flag: None, url_user: None, file: None, ..all() }, "env", "from env"),
            (Given { env_user: some("env:x"), env_password: some("from env"), ..Given::default() }, "env", "x"),
            (Given { flag: some("flag:"), ..Given::default() }, "flag", ""),
        ];
        for (given, user, password) in table {
            assert_eq!(given.credentials(), Ok(Some(Credentials::new(user, password))));
        }
    }

    #[test]
    fn an_address_that_names_a_topic_is_noticed() {
        for (address, topic) in [
            ("ws://h", false),
            ("ws://h/topic=x", false),
            ("ws://h/?receiver=a&x=topic", false),
            ("ws://h/ws?topic=sms", true),
            ("ws://h?a=1&channel=sms", true),
            ("ws://h?topic", true),
        ] {
            assert_eq!(speaks_topic(&Url::parse(address).unwrap()), topic, "{address}");
        }
    }

    #[test]
    fn nobody_is_nobody() {
        assert_eq!(Given { env_password: some("x"), ..Given::default() }.credentials(), Ok(None));
    }

    #[test]
    fn half_of_a_login_is_an_error_that_says_what_is_missing() {
        let error = Given { flag: some("app"), ..Given::default() }.credentials().unwrap_err();
        assert!(error.contains("WSMB_PASSWORD"), "{error}");
        let error = Given { file: some("x"), ..Given::default() }.credentials().unwrap_err();
        assert!(error.contains("--user"), "{error}");
        assert!(Given { flag: some(":x"), ..Given::default() }.credentials().is_err());
    }
}
