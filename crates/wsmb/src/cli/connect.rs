//! How a client command finds its broker, and who it says it is.
//!
//! A stored password goes only to the address that it was stored with, whatever else is named.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::contexts::{self, Context, Contexts};
use wsmb_client::{Credentials, Options, Url};

/// The broker of somebody who names none.
pub(crate) const LOCAL: &str = "ws://127.0.0.1:8888";

/// The options of every command that talks to a broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Broker")]
pub(crate) struct Connect {
    /// Address of the broker: ws://[user@]host[:port][/path] [env: WSMB_URL] [default: the login called "default", else ws://127.0.0.1:8888]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "context")]
    url: Option<String>,

    /// A login that `wsmb login` has stored: address, user and password [env: WSMB_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// User name; the password comes from --password-file, WSMB_PASSWORD or `wsmb login` [env: WSMB_USER]
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,

    /// File whose first line is the password (else WSMB_PASSWORD is used)
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Connect {
    /// Where to connect to, and how.
    ///
    /// # Errors
    /// A sentence about the address, the user, the password file or the stored logins.
    pub(crate) fn resolve(&self) -> Result<(Url, Options), Failure> {
        let mut logins = Logins(None);
        let (address, named) = self.target(&mut logins)?;
        let url = Url::parse(&address).map_err(Failure::misuse)?;
        if speaks_topic(&url) {
            return Err(Failure::misuse(
                "the address names a topic, and on such a connection the broker knows no commands; \
                 leave ?topic= out and give the channel as an argument",
            ));
        }
        let file = self.password_file.as_deref().map(read_password).transpose()?;
        let mut given = Given {
            flag: self.user.clone(),
            file,
            url_user: url.user().map(str::to_owned),
            url_password: url.password().map(str::to_owned),
            named,
            env_user: variable("WSMB_USER")?,
            env_password: variable("WSMB_PASSWORD")?,
            stored: Vec::new(),
        };
        if !given.is_enough() {
            given.stored = logins.get()?.at(&url).into_iter().filter_map(|(_, context)| login_of(context)).collect();
        }
        let credentials = given.credentials().map_err(Failure::Misuse)?;
        Ok((url, Options { credentials, ..Options::default() }))
    }

    /// The address, and the login if one was named.
    fn target(&self, logins: &mut Logins) -> Result<(String, Option<Credentials>), Failure> {
        if let Some(url) = &self.url {
            return Ok((url.clone(), None));
        }
        let (url, context) = (variable("WSMB_URL")?, variable("WSMB_CONTEXT")?);
        if let Some(name) = self.context.as_deref().or(context.as_deref().filter(|_| url.is_none())) {
            let context = logins.get()?.get(name).ok_or_else(|| contexts::unknown(name))?;
            return Ok((context.url.clone(), login_of(context)));
        }
        match (url, context) {
            (Some(_), Some(_)) => Err(Failure::misuse("WSMB_URL and WSMB_CONTEXT are both set; unset one of them")),
            (Some(url), None) => Ok((url, None)),
            // Its login is found by the address, so that WSMB_USER takes precedence.
            _ => Ok((logins.get()?.get(contexts::DEFAULT).map_or(LOCAL, |context| &context.url).to_owned(), None)),
        }
    }
}

/// The stored logins, read when they are first wanted.
struct Logins(Option<Contexts>);

impl Logins {
    fn get(&mut self) -> Result<&Contexts, Failure> {
        match &mut self.0 {
            Some(contexts) => Ok(contexts),
            none => Ok(none.insert(Contexts::load()?)),
        }
    }
}

fn login_of(context: &Context) -> Option<Credentials> {
    let (user, password) = (context.user.as_ref()?, context.password.as_ref()?);
    Some(Credentials::new(user, &password.0))
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
    /// The login of the context that was named.
    named: Option<Credentials>,
    env_user: Option<String>,
    env_password: Option<String>,
    /// Logins that are stored for the address.
    stored: Vec<Credentials>,
}

impl Given {
    /// The stored logins need not be looked at.
    fn is_enough(&self) -> bool {
        let has_password = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(':'));
        let has_user = self.flag.is_some() || self.url_user.is_some() || self.env_user.is_some();
        self.named.is_some()
            || has_password(&self.flag)
            || self.url_password.is_some()
            || has_user && (self.file.is_some() || self.env_password.is_some() || has_password(&self.env_user))
    }

    /// User: flag, address, named login, environment, stored login. Password: beside the user name, from the file, from the named login, from the
    /// environment, from a stored login of this user.
    fn credentials(self) -> Result<Option<Credentials>, String> {
        let split = |text: String| match text.split_once(':') {
            Some((user, password)) => (user.to_owned(), Some(password.to_owned())),
            None => (text, None),
        };
        let (user, beside) = if let Some(flag) = self.flag {
            split(flag)
        } else if let Some(user) = self.url_user {
            (user, self.url_password)
        } else if let Some(named) = &self.named {
            (named.user.clone(), None)
        } else if let Some(user) = self.env_user {
            split(user)
        } else if let Some(stored) = self.stored.first() {
            (stored.user.clone(), None)
        } else if self.file.is_some() {
            return Err("a password file, but no user name: add --user NAME".to_owned());
        } else {
            return Ok(None);
        };
        if user.is_empty() || user.contains(':') {
            return Err("the user name is empty or contains a colon".to_owned());
        }
        let of_user = |login: &Credentials| (login.user == user).then(|| login.password.clone());
        let named = self.named.as_ref().and_then(of_user);
        let stored = || self.stored.iter().find_map(of_user);
        match beside.or(self.file).or(named).or(self.env_password).or_else(stored) {
            Some(password) => Ok(Some(Credentials { user, password })),
            None => Err(format!(
                "no password for the user {user}: store it with `wsmb login`, set WSMB_PASSWORD, or give --password-file"
            )),
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
            named: None,
            stored: vec![Credentials::new("stored", "from store")],
        };
        let named = || Some(Credentials::new("named", "of named"));
        let store =
            || Given { stored: vec![Credentials::new("a", "of a"), Credentials::new("b", "of b")], ..Given::default() };
        let table = [
            (all(), "flag", "from file"),
            (Given { flag: some("flag:a:b"), ..all() }, "flag", "a:b"),
            (Given { file: None, ..all() }, "flag", "from env"),
            (Given { flag: None, ..all() }, "url", "from url"),
            (Given { flag: None, url_password: None, ..all() }, "url", "from file"),
            (Given { flag: None, url_user: None, file: None, ..all() }, "env", "from env"),
            (Given { env_user: some("env:x"), env_password: some("from env"), ..Given::default() }, "env", "x"),
            (Given { flag: some("flag:"), ..Given::default() }, "flag", ""),
            (Given { flag: None, url_user: None, file: None, named: named(), ..all() }, "named", "of named"),
            (Given { flag: None, url_user: None, named: named(), ..all() }, "named", "from file"),
            (Given { file: None, named: named(), ..all() }, "flag", "from env"),
            (store(), "a", "of a"),
            (Given { flag: some("b"), ..store() }, "b", "of b"),
            (Given { env_user: some("b"), ..store() }, "b", "of b"),
            (Given { env_password: some("from env"), ..store() }, "a", "from env"),
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
        let of_another = Given { flag: some("c"), stored: vec![Credentials::new("a", "of a")], ..Given::default() };
        assert!(of_another.credentials().is_err(), "a password is never tried with another user");
    }

    #[test]
    fn half_of_a_login_is_an_error_that_says_what_is_missing() {
        let error = Given { flag: some("app"), ..Given::default() }.credentials().unwrap_err();
        assert!(error.contains("WSMB_PASSWORD") && error.contains("wsmb login"), "{error}");
        let error = Given { file: some("x"), ..Given::default() }.credentials().unwrap_err();
        assert!(error.contains("--user"), "{error}");
        assert!(Given { flag: some(":x"), ..Given::default() }.credentials().is_err());
    }
}
