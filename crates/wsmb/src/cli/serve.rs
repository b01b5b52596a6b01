//! `wsmb serve`: runs the broker.
//!
//! Reads the configuration, makes a first user if no users are configured, starts the log and the server, and prints the commands for a first test. The crate
//! `server` does all other work.

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
use crate::platform;
use wsmb_auth::{NewUser, first_start, passwd};
use wsmb_client::Url;
use wsmb_config::Config;
use wsmb_server::{Load, RunningServer};

/// Run the broker
///
/// Without a configuration, the broker listens on 127.0.0.1:8888, keeps its files in ./wsmb-data, and makes a user at its first start. It shows the password
/// once, and stores it for your other commands. Ctrl-C, SIGTERM or closing the terminal stops the broker in an orderly way; SIGHUP makes it read the
/// configuration again.
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

    /// If the store is damaged and cannot be opened, rename its files and start with an empty store
    ///
    /// The messages in the damaged store are then not delivered. No file is deleted. Use this option for one start, not in a unit file.
    #[arg(long)]
    set_aside_damaged: bool,

    #[command(flatten)]
    settings: Settings,
}

impl Serve {
    pub(crate) async fn run(self) -> Outcome {
        let mut config = self.settings.load(&self.listen)?;
        config.store.set_aside_damaged = self.set_aside_damaged;
        self.settings.add_first_admin(&mut config);
        // Servers raise the soft limit of open files: it is low only for old programs that use `select`. If the system refuses, the old limit remains.
        let _ = rlimit::increase_nofile_limit(u64::MAX);
        let log = start_log(config.log.level);
        let file = self.settings.config.clone();
        for warning in build::warnings(&config, file.as_deref()) {
            tracing::warn!("{warning}");
        }
        let server_settings = build::server_settings(&config).map_err(Failure::failed)?;
        let users = Users::find(&self.settings, &config)?;
        let load: Load = {
            let (settings, listen, running) = (self.settings.clone(), self.listen.clone(), config);
            Box::new(move || {
                let mut config =
                    Config::load(settings.config.as_deref(), std::env::vars_os(), &settings.flags(&listen))
                        .map_err(|problems| problems.to_string())?;
                settings.add_first_admin(&mut config);
                // The call only fails if the log does not exist any more; then there is no level to set.
                let _ = log.modify(|level| *level = LevelFilter::from_level(config.log.level));
                build::reload(&running, &config).map_err(|problem| problem.to_string())
            })
        };
        let mut started = false;
        let ready = |server: &RunningServer| {
            started = true;
            let urls: Vec<String> = server
                .local_addrs()
                .iter()
                .map(|address| url(*address, server.tls_addrs().contains(address)))
                .collect();
            print_greeting(&urls, &users, self.settings.data_dir());
        };
        let outcome = wsmb_server::serve(server_settings, Some(load), ready).await.map_err(Failure::failed);
        if let (false, Users::New(new)) = (started, &users) {
            // The password was not shown, so the next start must make a new user. If the removal fails, the next start says what to do.
            let _ = std::fs::remove_file(&new.file);
        }
        outcome
    }
}

type LogHandle = reload::Handle<LevelFilter, tracing_subscriber::Registry>;

/// Starts the log on standard error, one line per event. Returns the handle that changes the level.
fn start_log(level: tracing::Level) -> LogHandle {
    let (filter, handle) = reload::Layer::new(LevelFilter::from_level(level));
    let lines = fmt::layer().with_writer(std::io::stderr).with_ansi(Style::stderr().has_colours()).with_target(false);
    // A closed terminal must not end the broker. By default, the log reports a failed write on standard error, which panics if that is closed.
    let lines = lines.log_internal_errors(false);
    // A second start in the same process (in tests) keeps the first log.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    handle
}

/// The users of the broker, as far as the greeting needs them.
enum Users {
    /// An administrator has configured the users.
    Configured,
    /// This start has made the first user.
    New(NewUser),
    /// An earlier start has made the first user. `password`: the stored password, if it is still valid.
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
                // A person may have made the file with other users.
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

/// Returns the password of the first user, if it is in the stored logins of the user who starts the broker, and still valid.
fn stored_password(data_dir: &Path, htpasswd: &[u8]) -> Option<String> {
    let contexts = Contexts::load().ok()?;
    let Secret(password) = contexts.of_data_dir(data_dir)?.password.clone()?;
    (passwd::check(htpasswd, first_start::USER, &password) == Some(true)).then_some(password)
}

/// Stores the login of the first user, so that client commands on this computer need no password. Returns the file of the stored logins.
fn store_login(urls: &[String], password: &str, data_dir: &Path) -> Result<PathBuf, Failure> {
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
            ca: None,
            data_dir: Some(data_dir.clone()),
        };
        contexts.set(url.trim_start_matches("wss://").trim_start_matches("ws://"), context);
    }
    contexts.save()?;
    Ok(contexts.file().map(Path::to_owned).unwrap_or_default())
}

/// Stores the login of the first user, and prints the greeting. The broker runs even if standard output is closed.
fn print_greeting(urls: &[String], users: &Users, data_dir: &Path) {
    let stored = users.password().and_then(|password| match store_login(urls, password, data_dir) {
        Ok(file) => Some(file),
        Err(Failure::Failed(reason) | Failure::Misuse(reason)) => {
            tracing::warn!("{reason}");
            None
        }
        Err(Failure::Reported | Failure::NoReceiver) => None,
    });
    let text = Greeting { urls, users, stored: stored.as_deref(), default_url: &default_url(users) }
        .text(&program(), Style::stdout());
    let _ = output::line(&text);
}

/// Returns the address that client commands use without `--url` and `--context`.
fn default_url(users: &Users) -> String {
    let contexts = if matches!(users, Users::Configured) { None } else { Contexts::load().ok() };
    contexts.and_then(|contexts| Some(contexts.get(contexts::DEFAULT)?.url.clone())).unwrap_or_else(|| LOCAL.to_owned())
}

/// The text that is printed at the start.
struct Greeting<'a> {
    urls: &'a [String],
    users: &'a Users,
    /// The file that stores the login of the first user for client commands.
    stored: Option<&'a Path>,
    /// The address that client commands use without `--url` and `--context`.
    default_url: &'a str,
}

impl Greeting<'_> {
    fn text(&self, program: &str, style: Style) -> String {
        let mut text = format!("wsmb is listening on {}", style.bold(self.urls.join(" and ")));
        let mut login = String::new();
        match self.users {
            Users::Configured => return text,
            Users::New(NewUser { user, password, file }) => {
                text.push_str(&format!(
                    "\n\n  user      {}\n  password  {}   (shown only once: {} contains only a hash)",
                    style.bold(user),
                    style.bold(password),
                    file.display()
                ));
                match self.stored {
                    Some(stored) => {
                        text.push_str(&format!("\n\nThe commands below read both from {}.", stored.display()))
                    }
                    None => {
                        login = platform::with_variables(&[
                            ("WSMB_USER", user.as_str()),
                            ("WSMB_PASSWORD", password.as_str()),
                        ])
                    }
                }
            }
            Users::Known { .. } if self.stored.is_some() => {}
            Users::Known { file, .. } => {
                let (user, file) = (first_start::USER, quoted(file.as_os_str()));
                let url = self.urls.first().map_or(LOCAL, String::as_str);
                text.push_str(&format!(
                    "\n\nThe password of the user {user} was shown at the first start. Store it for the commands below:\n  {program} login {url} --user {user}\n\
                     If you have lost the password, set a new one:\n  {program} passwd {file} {user}"
                ));
            }
        }
        let message = platform::quoted(r#"{"receiver":"081234567890","message":"Your code is 402913"}"#);
        let url = self.urls.first().filter(|url| !is_same(url, self.default_url));
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

/// Returns the URL by which this computer reaches a listener's address.
fn url(mut address: SocketAddr, is_tls: bool) -> String {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    format!("{}://{address}", if is_tls { "wss" } else { "ws" })
}

/// Returns the text that runs this program in a shell: its name if it is in `PATH`, else its path.
fn program() -> String {
    let Ok(own) = std::env::current_exe() else { return "wsmb".to_owned() };
    let found = std::env::var_os("PATH").and_then(|path| {
        std::env::split_paths(&path)
            .map(|directory| directory.join(platform::PROGRAM))
            .find(|candidate| candidate.is_file())
    });
    let same = |a: &Path, b: &Path| a.canonicalize().ok().zip(b.canonicalize().ok()).is_some_and(|(a, b)| a == b);
    if found.is_some_and(|found| same(&found, &own)) { "wsmb".to_owned() } else { quoted(own.as_os_str()) }
}

/// Returns a path in quotes for a shell, if it needs quotes.
fn quoted(path: &OsStr) -> String {
    let text = path.to_string_lossy();
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '/' | '.' | '_' | '-' | '\\' | ':' | '+');
    if text.chars().all(plain) { text.into_owned() } else { platform::quoted(&text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(addresses: &[&str], users: &Users, stored: Option<&str>, default_url: &str) -> String {
        let urls: Vec<String> = addresses.iter().map(|address| url(address.parse().unwrap(), false)).collect();
        Greeting { urls: &urls, users, stored: stored.map(Path::new), default_url }.text("/opt/wsmb", Style::stdout())
    }

    fn new() -> Users {
        Users::New(NewUser { user: "wsmb".into(), password: "abcde-fghij".into(), file: "wsmb-data/.htpasswd".into() })
    }

    const MESSAGE: &str = "'{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}'";

    #[test]
    fn a_first_start_prints_complete_commands_without_a_password() {
        let said = text(&["127.0.0.1:8888"], &new(), Some("/srv/me/.config/wsmb/contexts.toml"), LOCAL);
        assert!(said.contains("\n  /opt/wsmb receive sms\n"), "{said}");
        assert!(said.contains(&format!("\n  /opt/wsmb send sms {MESSAGE}\n")), "{said}");
        assert!(said.contains("read both from /srv/me/.config/wsmb/contexts.toml."), "{said}");
        assert_eq!(said.matches("abcde-fghij").count(), 1, "{said}");
        let said = text(&["0.0.0.0:99", "[::]:99"], &new(), Some("/x"), LOCAL);
        assert!(said.contains("receive sms --url ws://127.0.0.1:99\n"), "{said}");
        assert!(said.starts_with("wsmb is listening on ws://127.0.0.1:99 and ws://[::1]:99\n"), "{said}");
        let said = text(&["127.0.0.1:8888"], &new(), Some("/x"), "ws://broker.example");
        assert!(said.contains("receive sms --url ws://127.0.0.1:8888\n"), "another login is the default: {said}");
    }

    #[test]
    fn a_login_that_is_not_stored_is_shown_as_environment_variables() {
        let said = text(&["127.0.0.1:8888"], &new(), None, LOCAL);
        assert!(said.contains("\n  WSMB_USER=wsmb WSMB_PASSWORD=abcde-fghij /opt/wsmb receive sms\n"), "{said}");
    }

    #[test]
    fn a_later_start_shows_how_to_store_the_password_and_how_to_set_a_new_one() {
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
    fn a_configured_broker_prints_only_its_addresses() {
        let said = text(&["127.0.0.1:8888"], &Users::Configured, None, LOCAL);
        assert_eq!(said, "wsmb is listening on ws://127.0.0.1:8888");
    }

    #[test]
    fn a_path_with_a_quote_is_escaped_for_the_shell() {
        assert_eq!(quoted(OsStr::new("/a/b-c.d")), "/a/b-c.d");
        assert_eq!(quoted(OsStr::new("/it's")), r"'/it'\''s'");
    }
}
