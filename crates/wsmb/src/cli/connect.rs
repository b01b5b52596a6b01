//! Finds the address of the broker, and the user and the password or the token, for a client command.
//!
//! Never sends a stored password to another address than the one that the password was stored for.

use std::path::{Path, PathBuf};

use clap::Args;

use super::Failure;
use super::contexts::{self, Context, Contexts};
use wsmb_client::{Credentials, Options, Token, Url};

/// The address that is used if no address is given and no login called "default" is stored.
pub(crate) const LOCAL: &str = "ws://127.0.0.1:8888";

/// Options of each command that connects to a broker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Broker")]
pub(crate) struct Connect {
    /// Address of the broker: ws[s]://[user@]host[:port][/path] [env: WSMB_URL] [default: the login called "default", else ws://127.0.0.1:8888]
    #[arg(long, global = true, value_name = "URL", conflicts_with = "context")]
    url: Option<String>,

    /// Login that `wsmb login` has stored: address, user and password [env: WSMB_CONTEXT]
    #[arg(long, global = true, value_name = "NAME")]
    context: Option<String>,

    /// User name; the password comes from --password-file, WSMB_PASSWORD or `wsmb login` [env: WSMB_USER]
    #[arg(long, global = true, value_name = "NAME")]
    user: Option<String>,

    /// File whose first line is the password [default: WSMB_PASSWORD, else the stored login]
    #[arg(long, global = true, value_name = "FILE")]
    password_file: Option<PathBuf>,

    /// File whose first line is a token, instead of user and password [default: WSMB_TOKEN]
    #[arg(long, global = true, value_name = "FILE", conflicts_with_all = ["user", "password_file", "context"])]
    token_file: Option<PathBuf>,
    /// For wss://: PEM file with the only certificates to trust, of authorities or of the broker itself [env: WSMB_CA] [default: the stored login's, else the system's
    /// authorities]
    #[arg(long, global = true, value_name = "FILE")]
    ca: Option<PathBuf>,
}

impl Connect {
    /// Returns the address of the broker, and the options with the user and the password.
    ///
    /// # Errors
    /// The address is invalid, the user or the password is missing, or the password file or the stored logins cannot be read.
    pub(crate) fn resolve(&self) -> Result<(Url, Options), Failure> {
        let mut logins = LazyContexts(None);
        let Target { address, named, named_ca } = self.target(&mut logins)?;
        let url = Url::parse(&address).map_err(Failure::misuse)?;
        if names_topic(&url) {
            return Err(Failure::misuse(
                "the address names a topic, and the broker accepts no commands on such a connection; \
                 omit ?topic= and give the channel as an argument",
            ));
        }
        if let Some(token) = self.token(&url)? {
            return Ok((url, Options { token: Some(token), ..Options::default() }));
        }
        let file = self.password_file.as_deref().map(read_password).transpose()?;
        let mut sources = LoginSources {
            flag: self.user.clone(),
            file,
            url_user: url.user().map(str::to_owned),
            url_password: url.password().map(str::to_owned),
            named,
            env_user: variable("WSMB_USER")?,
            env_password: variable("WSMB_PASSWORD")?,
            stored: Vec::new(),
        };
        if !sources.is_complete() {
            sources.stored = logins.get()?.at(&url).into_iter().filter_map(|(_, context)| login_of(context)).collect();
        }
        let credentials = sources.credentials().map_err(Failure::Misuse)?;
        let ca = self.ca.clone().or(named_ca).or(variable("WSMB_CA")?.map(PathBuf::from));
        let ca = match ca {
            None if url.is_tls() => logins.get()?.at(&url).into_iter().find_map(|(_, context)| context.ca.clone()),
            ca => ca,
        };
        Ok((url, Options { credentials, ca, ..Options::default() }))
    }

    /// Returns the token of `--token-file`, or of `WSMB_TOKEN` unless the command line names a user.
    fn token(&self, url: &Url) -> Result<Option<Token>, Failure> {
        let names_user = self.user.is_some() || self.password_file.is_some() || self.context.is_some();
        let text = match &self.token_file {
            Some(file) => Some(read_token(file)?),
            None if names_user || url.user().is_some() => None,
            None => variable("WSMB_TOKEN")?,
        };
        let invalid = || Failure::misuse("the token has blanks or other characters that no token has");
        text.map(|text| Token::new(text.trim()).ok_or_else(invalid)).transpose()
    }

    /// Returns the address of the broker, and the stored login if `--context` or `WSMB_CONTEXT` names one.
    fn target(&self, logins: &mut LazyContexts) -> Result<Target, Failure> {
        let only = |address: String| Target { address, named: None, named_ca: None };
        if let Some(url) = &self.url {
            return Ok(only(url.clone()));
        }
        let (url, context) = (variable("WSMB_URL")?, variable("WSMB_CONTEXT")?);
        if let Some(name) = self.context.as_deref().or(context.as_deref().filter(|_| url.is_none())) {
            let context = logins.get()?.get(name).ok_or_else(|| contexts::unknown(name))?;
            return Ok(Target { address: context.url.clone(), named: login_of(context), named_ca: context.ca.clone() });
        }
        match (url, context) {
            (Some(_), Some(_)) => Err(Failure::misuse("WSMB_URL and WSMB_CONTEXT are both set; unset one of them")),
            (Some(url), None) => Ok(only(url)),
            // `resolve` finds the login by the address. So WSMB_USER takes precedence over the stored user.
            _ => Ok(only(logins.get()?.get(contexts::DEFAULT).map_or(LOCAL, |context| &context.url).to_owned())),
        }
    }
}

/// The address of the broker, and what belongs to it in the login that `--context` or `WSMB_CONTEXT` names.
struct Target {
    address: String,
    named: Option<Credentials>,
    named_ca: Option<PathBuf>,
}

/// The stored logins. The file is read at the first use.
struct LazyContexts(Option<Contexts>);

impl LazyContexts {
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

/// Whether the address names a topic. On such a connection the broker takes every frame for a message, so a command would go to the receivers.
fn names_topic(url: &Url) -> bool {
    let query = url.target().split_once('?').map_or("", |(_, query)| query);
    query.split('&').any(|pair| matches!(pair.split('=').next(), Some("topic" | "channel")))
}

/// Returns the value of an environment variable. An empty variable counts as unset.
pub(crate) fn variable(name: &str) -> Result<Option<String>, Failure> {
    match std::env::var(name) {
        Ok(value) if value.is_empty() => Ok(None),
        Ok(value) => Ok(Some(value)),
        Err(std::env::VarError::NotPresent) => Ok(None),
        Err(std::env::VarError::NotUnicode(_)) => Err(Failure::misuse(format_args!("{name} is not valid UTF-8"))),
    }
}

/// Returns the first line of a password file, without the line ending.
///
/// # Errors
/// The file cannot be read, or its first line is empty.
pub(crate) fn read_password(path: &Path) -> Result<String, Failure> {
    first_line(path, "password file")
}

/// Returns the first line of a file with a token.
///
/// # Errors
/// The file cannot be read, or its first line is empty.
pub(crate) fn read_token(path: &Path) -> Result<String, Failure> {
    first_line(path, "token file")
}

fn first_line(path: &Path, kind: &str) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::failed(format_args!("cannot read the {kind} {}: {error}", path.display())))?;
    match text.lines().next() {
        Some(line) if !line.is_empty() => Ok(line.to_owned()),
        _ => Err(Failure::failed(format_args!("the first line of the {kind} {} is empty", path.display()))),
    }
}

/// Everything that names a user or a password. [`Self::credentials`] has the order of precedence.
#[derive(Default)]
struct LoginSources {
    flag: Option<String>,
    file: Option<String>,
    url_user: Option<String>,
    url_password: Option<String>,
    /// The login that `--context` or `WSMB_CONTEXT` names.
    named: Option<Credentials>,
    env_user: Option<String>,
    env_password: Option<String>,
    /// Stored logins for the address.
    stored: Vec<Credentials>,
}

impl LoginSources {
    /// Whether user and password are known without the stored logins for the address.
    fn is_complete(&self) -> bool {
        let has_password = |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains(':'));
        let has_user = self.flag.is_some() || self.url_user.is_some() || self.env_user.is_some();
        self.named.is_some()
            || has_password(&self.flag)
            || self.url_password.is_some()
            || has_user && (self.file.is_some() || self.env_password.is_some() || has_password(&self.env_user))
    }

    /// Returns the user and the password.
    ///
    /// The user comes from, in this order: flag, address, named login, environment, stored login. The password comes from: the text after the user name,
    /// password file, named login, environment, stored login of this user.
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
            return Err("there is a password file, but no user name; add --user NAME".to_owned());
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
                "there is no password for the user {user}; store it with `wsmb login`, set WSMB_PASSWORD, or add --password-file FILE"
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
    fn each_source_of_user_and_password_has_its_precedence() {
        let all = || LoginSources {
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
        let store = || LoginSources {
            stored: vec![Credentials::new("a", "of a"), Credentials::new("b", "of b")],
            ..LoginSources::default()
        };
        let table = [
            (all(), "flag", "from file"),
            (LoginSources { flag: some("flag:a:b"), ..all() }, "flag", "a:b"),
            (LoginSources { file: None, ..all() }, "flag", "from env"),
            (LoginSources { flag: None, ..all() }, "url", "from url"),
            (LoginSources { flag: None, url_password: None, ..all() }, "url", "from file"),
            (LoginSources { flag: None, url_user: None, file: None, ..all() }, "env", "from env"),
            (
                LoginSources { env_user: some("env:x"), env_password: some("from env"), ..LoginSources::default() },
                "env",
                "x",
            ),
            (LoginSources { flag: some("flag:"), ..LoginSources::default() }, "flag", ""),
            (LoginSources { flag: None, url_user: None, file: None, named: named(), ..all() }, "named", "of named"),
            (LoginSources { flag: None, url_user: None, named: named(), ..all() }, "named", "from file"),
            (LoginSources { file: None, named: named(), ..all() }, "flag", "from env"),
            (store(), "a", "of a"),
            (LoginSources { flag: some("b"), ..store() }, "b", "of b"),
            (LoginSources { env_user: some("b"), ..store() }, "b", "of b"),
            (LoginSources { env_password: some("from env"), ..store() }, "a", "from env"),
        ];
        for (sources, user, password) in table {
            assert_eq!(sources.credentials(), Ok(Some(Credentials::new(user, password))));
        }
    }

    #[test]
    fn an_address_with_a_topic_is_recognised() {
        for (address, topic) in [
            ("ws://h", false),
            ("ws://h/topic=x", false),
            ("ws://h/?receiver=a&x=topic", false),
            ("ws://h/ws?topic=sms", true),
            ("ws://h?a=1&channel=sms", true),
            ("ws://h?topic", true),
        ] {
            assert_eq!(names_topic(&Url::parse(address).unwrap()), topic, "{address}");
        }
    }

    #[test]
    fn a_password_alone_gives_no_credentials_and_belongs_to_one_user() {
        assert_eq!(LoginSources { env_password: some("x"), ..LoginSources::default() }.credentials(), Ok(None));
        let of_another =
            LoginSources { flag: some("c"), stored: vec![Credentials::new("a", "of a")], ..LoginSources::default() };
        assert!(of_another.credentials().is_err(), "a password is never tried with another user");
    }

    #[test]
    fn the_error_for_an_incomplete_login_names_the_missing_part() {
        let error = LoginSources { flag: some("app"), ..LoginSources::default() }.credentials().unwrap_err();
        assert!(error.contains("WSMB_PASSWORD") && error.contains("wsmb login"), "{error}");
        let error = LoginSources { file: some("x"), ..LoginSources::default() }.credentials().unwrap_err();
        assert!(error.contains("--user"), "{error}");
        assert!(LoginSources { flag: some(":x"), ..LoginSources::default() }.credentials().is_err());
    }
}
