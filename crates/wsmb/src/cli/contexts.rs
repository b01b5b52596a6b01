//! Stored logins ("contexts"): each has a name, the address of a broker, a user and a password.
//!
//! The logins are in one TOML file of the user who runs the commands, `~/.config/wsmb/contexts.toml`. Only its owner can read the file. `wsmb login`
//! writes the file; the first start of a broker without configuration writes it, too. Never sends a password to another address than the stored one.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::{limits, platform};
use wsmb_auth::{first_start, passwd};
use wsmb_client::Url;

/// The login that client commands use if no address and no other login is named.
pub(crate) const DEFAULT: &str = "default";

/// One stored login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// The PEM file with the only certificates that are trusted (`--ca`), as an absolute path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<PathBuf>,
    /// The data directory of the broker whose first start has stored this login. `None`: a person has stored it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
}

impl Context {
    /// Whether the login is for the broker at this address.
    pub(crate) fn is_for(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| broker_key(&own) == broker_key(url))
    }
}

/// A password. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// The parts of an address that identify a broker: encryption, host, port and path. A password that was stored for `wss://` is never sent over `ws://`.
fn broker_key(url: &Url) -> (bool, String, u16, String) {
    let host = url.host().to_ascii_lowercase();
    let host = if host == "localhost" { "127.0.0.1".to_owned() } else { host };
    let path = url.target().split('?').next().unwrap_or_default();
    (url.is_tls(), host, url.port(), path.to_owned())
}

/// All stored logins of this user.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// `None`: the environment names no directory for configuration files.
    file: Option<PathBuf>,
    /// The file exists, but this user may not read it. Such a file must not be replaced.
    is_unreadable: bool,
    all: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads the stored logins. There are none if the file does not exist.
    ///
    /// # Errors
    /// The file exists, but cannot be read or is not valid.
    pub(crate) fn load() -> Result<Self, Failure> {
        Self::read_from(file())
    }

    fn read_from(file: Option<PathBuf>) -> Result<Self, Failure> {
        let found = match &file {
            Some(path) => read(path).map_err(|reason| {
                Failure::failed(format_args!("cannot read the stored logins in {}: {reason}", path.display()))
            })?,
            None => Some(String::new()),
        };
        let is_unreadable = found.is_none();
        let text = found.unwrap_or_default();
        let all = toml::from_str(&text).map_err(|error: toml::de::Error| {
            // The message omits the text around the mistake, because it may be a password.
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let name = file.as_deref().unwrap_or(Path::new("")).display().to_string();
            Failure::failed(format_args!(
                "cannot use the stored logins: {name}:{line}: {}; correct or remove the file",
                error.message().lines().next().unwrap_or_default()
            ))
        })?;
        Ok(Self { file, is_unreadable, all })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&Context> {
        self.all.get(name)
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Context)> {
        self.all.iter().map(|(name, context)| (name.as_str(), context))
    }

    /// The file of the stored logins.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Returns the logins for the broker at this address. Logins that a person has stored come first.
    pub(crate) fn at(&self, url: &Url) -> Vec<(&str, &Context)> {
        let mut found: Vec<_> =
            self.all().filter(|(_, context)| context.user.is_some() && context.is_for(url)).collect();
        found.sort_by_key(|(_, context)| context.data_dir.is_some());
        found
    }

    /// Returns the login that the first start with this data directory has stored.
    pub(crate) fn of_data_dir(&self, data_dir: &Path) -> Option<&Context> {
        let data_dir = data_dir.canonicalize().ok()?;
        self.all.values().find(|context| context.data_dir.as_deref() == Some(&data_dir))
    }

    /// Adds a login, or replaces the login of this name.
    pub(crate) fn set(&mut self, name: &str, context: Context) {
        self.all.insert(name.to_owned(), context);
    }

    /// Removes the login of this name. Returns whether there was one.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.all.remove(name).is_some()
    }

    /// Replaces the file atomically. Only its owner can read the new file.
    ///
    /// # Errors
    /// There is no directory for the file, or the file cannot be written.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let Some(path) = &self.file else {
            return Err(Failure::failed("there is no directory for logins; set HOME or XDG_CONFIG_HOME"));
        };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format_args!("cannot store the login in {}: {error}", path.display()))
        };
        if self.is_unreadable {
            return Err(failed(&"this user may not read the file; change its owner, or remove it"));
        }
        let text = toml::to_string(&self.all).map_err(|error| failed(&error))?;
        let text = format!("# Logins of `wsmb`, with their passwords. Change them with `wsmb login`.\n\n{text}");
        if let Some(directory) = path.parent() {
            first_start::make_private_directory(directory).map_err(|error| failed(&error))?;
        }
        passwd::write(path, text.as_bytes()).map_err(|error| failed(&error))?;
        Ok(())
    }
}

/// Updates the login that the first start of a broker has stored, after `user` has got a new password in the file `htpasswd`. Returns whether there is
/// such a login.
///
/// # Errors
/// The stored logins cannot be read or written.
pub(crate) fn password_changed(htpasswd: &Path, user: &str, password: &str) -> Result<bool, Failure> {
    let Some(data_dir) = htpasswd.canonicalize().ok().and_then(|file| file.parent().map(Path::to_owned)) else {
        return Ok(false);
    };
    let mut contexts = Contexts::load()?;
    let mut is_stored = false;
    for context in contexts.all.values_mut() {
        if context.data_dir.as_deref() == Some(&data_dir) && context.user.as_deref() == Some(user) {
            context.password = Some(Secret(password.to_owned()));
            is_stored = true;
        }
    }
    if is_stored {
        contexts.save()?;
    }
    Ok(is_stored)
}

/// Parses the name of a login.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_alphanumeric() || "-_.:[]".contains(c);
    if text.is_empty() || text.len() > wsmb_core::limits::NAME_BYTES || !text.chars().all(is_good) {
        return Err("the name of a login consists of letters, digits and - _ . : [ ]".to_owned());
    }
    Ok(text.to_owned())
}

/// Returns the text of the file; an empty text if the file does not exist; `None` if this user may not read it.
fn read(path: &Path) -> std::io::Result<Option<String>> {
    use std::io::ErrorKind::{InvalidData, NotADirectory, NotFound, PermissionDenied};

    let mut text = String::new();
    match std::fs::File::open(path) {
        Ok(file) => {
            warn_if_others_can_read(path, &file);
            file.take(limits::CONTEXTS_BYTES + 1).read_to_string(&mut text)?;
            if text.len() as u64 > limits::CONTEXTS_BYTES {
                return Err(std::io::Error::new(
                    InvalidData,
                    format!("the file has more than {} bytes", limits::CONTEXTS_BYTES),
                ));
            }
        }
        // A service manager or `sudo` may leave a HOME that is not a directory or belongs to another user. This user has then no logins there.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
        Err(error) if error.kind() == PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(text))
}

fn warn_if_others_can_read(path: &Path, file: &std::fs::File) {
    if platform::is_readable_by_others(file) {
        let path = path.display();
        super::output::note(&format!(
            "wsmb: warning: other users can read the passwords in {path}; run: chmod 600 {path}"
        ));
    }
}

/// Returns the path of this user's file of logins.
fn file() -> Option<PathBuf> {
    platform::configuration_directory().map(|config| config.join("wsmb").join("contexts.toml"))
}

/// Returns the failure for a name under which no login is stored.
pub(crate) fn unknown(name: &str) -> Failure {
    Failure::misuse(format_args!("there is no login named {name}; `wsmb login --list` shows the stored logins"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(url: &str, user: &str) -> Context {
        Context {
            url: url.to_owned(),
            user: Some(user.to_owned()),
            password: Some(Secret("geheim".to_owned())),
            ca: None,
            data_dir: None,
        }
    }

    #[test]
    fn stored_logins_are_found_by_address_and_only_their_owner_can_read_them() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("deep").join("contexts.toml");
        let mut contexts = Contexts::read_from(Some(file.clone())).unwrap();
        contexts.set("home", context("ws://Broker.example:8888/a?x=1", "app"));
        contexts
            .set("127.0.0.1:8888", Context { data_dir: Some("/d".into()), ..context("ws://127.0.0.1:8888", "wsmb") });
        contexts.set("a.here", context("ws://localhost:8888", "me"));
        contexts.save().unwrap();
        let again = Contexts::read_from(Some(file.clone())).unwrap();
        assert_eq!(again.all, contexts.all);
        assert_eq!(again.get("home").unwrap().user.as_deref(), Some("app"));
        let names = |url: &str| again.at(&Url::parse(url).unwrap()).iter().map(|(name, _)| *name).collect::<Vec<_>>();
        assert_eq!(names("ws://broker.example:8888/a"), ["home"]);
        assert_eq!(names("ws://broker.example:8888/b"), [""; 0]);
        assert_eq!(names("ws://broker.example:8889/a"), [""; 0]);
        assert_eq!(names("ws://localhost:8888/"), ["a.here", "127.0.0.1:8888"], "a person's own goes first");
        assert!(!format!("{again:?}").contains("geheim"));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
        }
        std::fs::write(&file, "[a]\nurl = \"x\"\npassword = geheim\n").unwrap();
        let Err(Failure::Failed(reason)) = Contexts::read_from(Some(file)) else { panic!("it is no TOML") };
        assert!(reason.contains("contexts.toml:3: ") && !reason.contains("geheim"), "{reason}");
    }

    #[test]
    fn an_unreadable_file_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("contexts.toml");
        let contexts = Contexts { file: Some(file.clone()), is_unreadable: true, all: BTreeMap::new() };
        let Err(Failure::Failed(reason)) = contexts.save() else { panic!("it would be lost") };
        assert!(reason.contains("may not read") && !file.exists(), "{reason}");
    }

    #[test]
    fn a_too_large_file_is_an_error() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("contexts.toml");
        std::fs::write(&file, "#".repeat(usize::try_from(limits::CONTEXTS_BYTES).unwrap() + 1)).unwrap();
        assert!(Contexts::read_from(Some(file)).is_err());
    }

    #[test]
    fn a_name_has_no_blanks_and_no_slashes() {
        for good in ["home", "127.0.0.1:8888", "[::1]:8888", "größer"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "ws://x", &"x".repeat(129)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
