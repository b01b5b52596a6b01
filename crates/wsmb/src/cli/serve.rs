//! `wsmb serve`: the broker itself.
//!
//! Reads the configuration, makes a first user where nobody has configured anything, starts the log and the server, and prints what a person
//! needs for a first exchange. Everything else is the server's.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{fmt, reload};

use super::connect::LOCAL;
use super::contexts::{self, Context, Contexts, Secret};
use super::output::{self, Style};
use super::settings::Settings;
use super::{Failure, Outcome, build};
use wsmb_auth::{NewUser, first_start, passwd};
use wsmb_client::Url;
use wsmb_config::Config;
use wsmb_server::{Load, RunningServer};

/// Run the broker
///
/// With nothing configured it listens on 127.0.0.1:8888, keeps its files in ./wsmb-data, and makes a user. It shows the password once, and
/// stores it where your other commands find it. Ctrl-C, SIGTERM or closing the terminal stops it in an orderly way; SIGHUP reads the configuration again.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb serve
  wsmb serve --config wsmb.toml
  wsmb serve --listen 0.0.0.0:8888 --set channel_defaults.ttl=5m")]
pub(crate) struct Serve {
    /// Address to listen on; may be given several times [default: 127.0.0.1:8888]
    #[arg(long, value_name = "HOST:PORT")]
    listen: Vec<String>,

    /// If the store is damaged so that it can't be opened: give its files other names and begin with an empty one
    ///
    /// What the damaged store holds is then not delivered. No file is deleted. Meant for one start, not for a unit file.
    #[arg(long)]
    set_aside_damaged: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) async fn run(self) -> Outcome {
        let mut config = self.settings.load(&self.listen)?;
        config.store.set_aside_damaged = self.set_aside_damaged;
        // As servers do: the soft limit is low for the sake of old programs that use `select`. If the system refuses, its limit stays.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let log = start_log(config.log.level);
        let file = self.settings.config.clone();
        for warning in wsmb_config::warnings(&config, file.as_deref()) {
            tracing::warn!("{warning}");
        }
        let server_settings = build::server_settings(&config).map_err(Failure::failed)?;
        let users = Users::find(&self.settings, &config)?;
        let load: Load = {
            let (settings, listen, running) = (self.settings.clone(), self.listen.clone(), config);
            Box::new(move || {
                let config = Config::load(settings.config.as_deref(), std::env::vars_os(), &settings.flags(&listen))
                    .map_err(|problems| problems.to_string())?;
                // The handle only fails when the log has gone, and then there is no level to set.
                let _ = log.modify(|level| *level = LevelFilter::from_level(config.log.level));
                Ok(build::reload(&running, &config))
            })
        };
        let mut started = false;
        let ready = |server: &RunningServer| {
            started = true;
            greet(server.local_addrs(), &users, self.settings.data_dir());
        };
        let outcome = wsmb_server::serve(server_settings, Some(load), ready).await.map_err(Failure::failed);
        if let (false, Users::New(new)) = (started, &users) {
            // Nobody has seen this password: the next start makes another user. If the file stays, that start says what to do.
            let _ = std::fs::remove_file(&new.file);
        }
        outcome
    }
}

type LogHandle = reload::Handle<LevelFilter, tracing_subscriber::Registry>;

/// One line an event, on standard error.
fn start_log(level: tracing::Level) -> LogHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(Style::stderr().has_colours()).with_target(false);
    // A terminal that was closed must not end the broker: to tell of it on the same terminal is a panic.
    let lines = lines.log_internal_errors(false);
    // A second start in one process (tests) keeps the first log.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    handle
}

/// Who may come in, as far as the greeting is concerned.
enum Users {
    /// Configured by somebody, who knows them.
    Configured,
    /// Made just now.
    New(NewUser),
    /// Made at an earlier first start; the password, if it is stored here and still the right one.
    Known { file: PathBuf, password: Option<String> },
}

impl Users {
    fn find(settings: &Settings, config: &Config) -> Result<Self, Failure> {
        if !settings.makes_first_user(config) {
            return Ok(Self::Configured);
        }
        let data_dir = settings.data_dir();
        Ok(match wsmb_auth::first_start(data_dir).map_err(Failure::failed)? {
            Some(new) => Self::New(new),
            None => {
                let file = data_dir.join(first_start::FILE);
                // Somebody may have made the file with users of his own.
                let entry = format!("{}:", first_start::USER);
                let text = std::fs::read(&file).unwrap_or_default();
                let is_there = text.split(|byte| *byte == b'\n').any(|line| line.starts_with(entry.as_bytes()));
                let password = || stored_password(data_dir, &text);
                if is_there { Self::Known { password: password(), file } } else { Self::Configured }
            }
        })
    }

    fn password(&self) -> Option<&str> {
        match self {
            Self::Configured => None,
            Self::New(new) => Some(&new.password),
            Self::Known { password, .. } => password.as_deref(),
        }
    }
}

/// The first user's password, if the first start has stored it for the user who starts the broker now.
fn stored_password(data_dir: &Path, htpasswd: &[u8]) -> Option<String> {
    let contexts = Contexts::load().ok()?;
    let Secret(password) = contexts.of_data_dir(data_dir)?.password.clone()?;
    (passwd::check(htpasswd, first_start::USER, &password) == Some(true)).then_some(password)
}

/// Stores the first user's login, so that client commands on this machine need no password. Returns the file.
fn remember(urls: &[String], password: &str, data_dir: &Path) -> Result<PathBuf, Failure> {
    let mut contexts = Contexts::load()?;
    let data_dir = data_dir.canonicalize().map_err(Failure::failed)?;
    let old: Vec<String> = contexts
        .all()
        .filter(|(_, context)| context.data_dir.as_deref() == Some(&data_dir))
        .map(|(name, _)| name.to_owned())
        .collect();
    for name in &old {
        contexts.remove(name);
    }
    for url in urls {
        let context = Context {
            url: url.clone(),
            user: Some(first_start::USER.to_owned()),
            password: Some(Secret(password.to_owned())),
            data_dir: Some(data_dir.clone()),
        };
        contexts.set(url.trim_start_matches("ws://"), context);
    }
    contexts.save()?;
    Ok(contexts.file().map(Path::to_owned).unwrap_or_default())
}

/// What a person needs for the first exchange. If standard output has gone, the broker runs all the same.
fn greet(addresses: &[SocketAddr], users: &Users, data_dir: &Path) {
    let urls: Vec<String> = addresses.iter().map(|address| url(*address)).collect();
    let stored = users.password().and_then(|password| match remember(&urls, password, data_dir) {
        Ok(file) => Some(file),
        Err(Failure::Failed(reason) | Failure::Misuse(reason)) => {
            tracing::warn!("{reason}");
            None
        }
        Err(Failure::Said | Failure::Nobody) => None,
    });
    let text = Greeting { urls: &urls, users, stored: stored.as_deref(), usual: &usual(users) }
        .text(&program(), Style::stdout());
    let _ = output::line(&text);
}

/// Where client commands go that are told no address.
fn usual(users: &Users) -> String {
    let contexts = if matches!(users, Users::Configured) { None } else { Contexts::load().ok() };
    contexts.and_then(|contexts| Some(contexts.get(contexts::DEFAULT)?.url.clone())).unwrap_or_else(|| LOCAL.to_owned())
}

/// What is printed at the start.
struct Greeting<'a> {
    urls: &'a [String],
    users: &'a Users,
    /// The file in which client commands find the first user's login.
    stored: Option<&'a Path>,
    /// Where client commands go that are told no address.
    usual: &'a str,
}

impl Greeting<'_> {
    fn text(&self, program: &str, style: Style) -> String {
        let mut text = format!("wsmb is listening on {}", style.bold(self.urls.join(" and ")));
        let mut login = String::new();
        match self.users {
            Users::Configured => return text,
            Users::New(NewUser { user, password, file }) => {
                text.push_str(&format!(
                    "\n\n  user      {}\n  password  {}   (shown only now: {} holds a hash of it)",
                    style.bold(user),
                    style.bold(password),
                    file.display()
                ));
                match self.stored {
                    Some(stored) => {
                        text.push_str(&format!("\n\nThe commands below find both in {}.", stored.display()))
                    }
                    None if cfg!(windows) => login = format!("set WSMB_USER={user}& set WSMB_PASSWORD={password}& "),
                    None => login = format!("WSMB_USER={user} WSMB_PASSWORD={password} "),
                }
            }
            Users::Known { .. } if self.stored.is_some() => {}
            Users::Known { file, .. } => {
                let (user, file) = (first_start::USER, quoted(file.as_os_str()));
                let url = self.urls.first().map_or(LOCAL, String::as_str);
                text.push_str(&format!(
                    "\n\nThe password of the user {user} was shown at the first start. Store it for the commands below:\n  {program} login {url} --user {user}\n\
                     If it is lost, make a new one:\n  {program} passwd {file} {user}"
                ));
            }
        }
        let message = if cfg!(windows) {
            r#""{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}""#
        } else {
            r#"'{"receiver":"081234567890","message":"Your code is 402913"}'"#
        };
        let url = self.urls.first().filter(|url| !is_same(url, self.usual));
        let url = url.map(|url| format!(" --url {url}")).unwrap_or_default();
        text.push_str(&format!(
            "\n\nReceive, in a second terminal:\n  {login}{program} receive sms{url}\n\nSend, in a third:\n  {login}{program} send sms {message}{url}\n"
        ));
        text
    }
}

fn is_same(a: &str, b: &str) -> bool {
    Url::parse(a).ok().zip(Url::parse(b).ok()).is_some_and(|(a, b)| a == b)
}

/// How this machine reaches an address that is listened on.
fn url(mut address: SocketAddr) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("ws://{address}")
}

/// What to type to run this program: its name if the shell finds it, else its path.
fn program() -> String {
    const NAME: &str = if cfg!(windows) { "wsmb.exe" } else { "wsmb" };
    let Ok(own) = std::env::current_exe() else { return "wsmb".to_owned() };
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path).map(|directory| directory.join(NAME)).find(|candidate| candidate.is_file())
    });
    let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if found.is_some_and(|found| same(&found, &own)) { "wsmb".to_owned() } else { quoted(own.as_os_str()) }
}

/// A path as a shell reads it.
fn quoted(path: &OsStr) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '\\' | ':' | '+');
    if text.chars().all(plain) {
        text.into_owned()
    } else if cfg!(windows) {
        format!("\"{text}\"")
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addresses: &[&str], users: &Users, stored: Option<&str>, usual: &str) -> String {
        let urls: Vec<String> = addresses.iter().map(|address| url(address.parse().unwrap())).collect();
        Greeting { urls: &urls, users, stored: stored.map(Path::new), usual }.text("/opt/wsmb", Style::stdout())
    }

    fn new() -> Users {
        Users::New(NewUser { user: "wsmb".into(), password: "abcde-fghij".into(), file: "wsmb-data/.htpasswd".into() })
    }

    const MESSAGE: &str = "'{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}'";

    #[test]
    fn a_first_start_prints_lines_that_work_as_they_are_and_hold_no_password() {
        let said = text(&["127.0.0.1:8888"], &new(), Some("/srv/me/.config/wsmb/contexts.toml"), LOCAL);
        assert!(said.contains("\n  /opt/wsmb receive sms\n"), "{said}");
        assert!(said.contains(&format!("\n  /opt/wsmb send sms {MESSAGE}\n")), "{said}");
        assert!(said.contains("find both in /srv/me/.config/wsmb/contexts.toml."), "{said}");
        assert_eq!(said.matches("abcde-fghij").count(), 1, "{said}");
        let said = text(&["0.0.0.0:99", "[::]:99"], &new(), Some("/x"), LOCAL);
        assert!(said.contains("receive sms --url ws://127.0.0.1:99\n"), "{said}");
        assert!(said.starts_with("wsmb is listening on ws://127.0.0.1:99 and ws://[::1]:99\n"), "{said}");
        let said = text(&["127.0.0.1:8888"], &new(), Some("/x"), "ws://broker.example");
        assert!(said.contains("receive sms --url ws://127.0.0.1:8888\n"), "another login is the default: {said}");
    }

    #[test]
    fn a_login_that_cannot_be_stored_is_in_the_environment_and_never_an_argument() {
        let said = text(&["127.0.0.1:8888"], &new(), None, LOCAL);
        assert!(said.contains("\n  WSMB_USER=wsmb WSMB_PASSWORD=abcde-fghij /opt/wsmb receive sms\n"), "{said}");
    }

    #[test]
    fn a_later_start_says_how_to_store_the_password_and_how_to_make_a_new_one() {
        let known = |password: Option<&str>| Users::Known {
            file: "my data/.htpasswd".into(),
            password: password.map(str::to_owned),
        };
        let said = text(&["127.0.0.1:8888"], &known(None), None, LOCAL);
        assert!(said.contains("\n  /opt/wsmb login ws://127.0.0.1:8888 --user wsmb\n"), "{said}");
        assert!(said.contains("/opt/wsmb passwd 'my data/.htpasswd' wsmb"), "{said}");
        let said = text(&["127.0.0.1:8888"], &known(Some("x")), Some("/y"), LOCAL);
        assert!(
            said.starts_with("wsmb is listening on ws://127.0.0.1:8888\n\nReceive, in a second terminal:\n"),
            "{said}"
        );
    }

    #[test]
    fn a_configured_broker_says_only_where_it_listens() {
        let said = text(&["127.0.0.1:8888"], &Users::Configured, None, LOCAL);
        assert_eq!(said, "wsmb is listening on ws://127.0.0.1:8888");
    }

    #[test]
    fn a_path_with_a_quote_in_it_survives_the_shell() {
        assert_eq!(quoted(OsStr::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(OsStr::new("/it's")), r"'/it'\''s'");
    }
}
