//! Logins that are remembered: the address of a broker with a user and a password, under a name.
//!
//! They are in one TOML file of the user who runs the commands, `~/.config/wsmb/contexts.toml`, for its owner only. `wsmb login` writes it, and
//! the first start of a broker that nobody has configured does. A password is only ever sent to the address that it was stored with.

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Failure;
use crate::limits;
use wsmb_auth::{first_start, passwd};
use wsmb_client::Url;

/// The context that is used where nobody names an address or another one.
pub(crate) const DEFAULT: &str = "default";

/// One login.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Context {
    pub url: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// Made at the first start of the broker with this data directory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data_dir: Option<PathBuf>,
}

impl Context {
    /// It is for the broker at this address.
    pub(crate) fn is_for(&self, url: &Url) -> bool {
        Url::parse(&self.url).is_ok_and(|own| place(&own) == place(url))
    }
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("…")
    }
}

/// What makes two addresses that of one broker: host, port and path.
fn place(url: &Url) -> (String, u16, String) {
    let host = url.host().to_ascii_lowercase();
    let host = if host == "localhost" { "127.0.0.1".to_owned() } else { host };
    let path = url.target().split('?').next().unwrap_or_default();
    (host, url.port(), path.to_owned())
}

/// All logins of this user.
#[derive(Debug)]
pub(crate) struct Contexts {
    /// `None`: the system says of no place for such files.
    file: Option<PathBuf>,
    /// The file is there, and this user may not read it: it must not be replaced.
    is_unreadable: bool,
    all: BTreeMap<String, Context>,
}

impl Contexts {
    /// Reads them; none if there is no file.
    ///
    /// # Errors
    /// The file is there and cannot be read.
    pub(crate) fn load() -> Result<Self, Failure> {
        Self::of(file())
    }

    fn of(file: Option<PathBuf>) -> Result<Self, Failure> {
        let found = match &file {
            Some(path) => read(path).map_err(|reason| {
                Failure::failed(format_args!("the stored logins in {} cannot be read: {reason}", path.display()))
            })?,
            None => Some(String::new()),
        };
        let is_unreadable = found.is_none();
        let text = found.unwrap_or_default();
        let all = toml::from_str(&text).map_err(|error: toml::de::Error| {
            // Without the text around the mistake: it may be a password.
            let line = error.span().map_or(1, |span| 1 + text[..span.start.min(text.len())].matches('\n').count());
            let name = file.as_deref().unwrap_or(Path::new("")).display().to_string();
            Failure::failed(format_args!(
                "the stored logins cannot be used: {name}:{line}: {}; mend or remove the file",
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

    /// Where they are.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// The logins for the broker at this address, those that a person has made first.
    pub(crate) fn at(&self, url: &Url) -> Vec<(&str, &Context)> {
        let mut found: Vec<_> =
            self.all().filter(|(_, context)| context.user.is_some() && context.is_for(url)).collect();
        found.sort_by_key(|(_, context)| context.data_dir.is_some());
        found
    }

    /// The login that the first start with this data directory has made.
    pub(crate) fn of_data_dir(&self, data_dir: &Path) -> Option<&Context> {
        let data_dir = data_dir.canonicalize().ok()?;
        self.all.values().find(|context| context.data_dir.as_deref() == Some(&data_dir))
    }

    /// Adds a login, or replaces the one of this name.
    pub(crate) fn set(&mut self, name: &str, context: Context) {
        self.all.insert(name.to_owned(), context);
    }

    /// False: there was none of this name.
    pub(crate) fn remove(&mut self, name: &str) -> bool {
        self.all.remove(name).is_some()
    }

    /// Writes them in one step, for their owner only.
    ///
    /// # Errors
    /// There is no place for them, or it cannot be written.
    pub(crate) fn save(&self) -> Result<(), Failure> {
        let Some(path) = &self.file else {
            return Err(Failure::failed("there is no place for logins: neither HOME nor XDG_CONFIG_HOME is set"));
        };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::failed(format_args!("the login cannot be stored in {}: {error}", path.display()))
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

/// The first user of a broker has a new password: the login that its first start has stored gets it, too. Returns whether there is one.
///
/// # Errors
/// It cannot be written.
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

/// A name of a context.
pub(crate) fn name(text: &str) -> Result<String, String> {
    let is_good = |c: char| c.is_alphanumeric() || "-_.:[]".contains(c);
    if text.is_empty() || text.len() > wsmb_core::limits::NAME_BYTES || !text.chars().all(is_good) {
        return Err("a context is named with letters, digits and - _ . :".to_owned());
    }
    Ok(text.to_owned())
}

/// The text of the file; empty if there is none, `None` if it is there and this user may not read it.
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
                    format!("it has more than {} bytes", limits::CONTEXTS_BYTES),
                ));
            }
        }
        // Where a service or `sudo` leaves a HOME that is none of this user's, nothing of his is stored.
        Err(error) if matches!(error.kind(), NotFound | NotADirectory) => {}
        Err(error) if error.kind() == PermissionDenied => return Ok(None),
        Err(error) => return Err(error),
    }
    Ok(Some(text))
}

#[cfg(unix)]
fn warn_if_others_can_read(path: &Path, file: &std::fs::File) {
    use std::os::unix::fs::PermissionsExt as _;
    if file.metadata().is_ok_and(|metadata| metadata.permissions().mode() & 0o077 != 0) {
        let path = path.display();
        super::output::note(&format!("wsmb: other users can read the passwords in {path}: chmod 600 {path}"));
    }
}

#[cfg(not(unix))]
fn warn_if_others_can_read(_: &Path, _: &std::fs::File) {}

/// Where this user's logins are, as the XDG base directory specification says.
fn file() -> Option<PathBuf> {
    let directory = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let config = if cfg!(windows) {
        directory("APPDATA")
    } else {
        directory("XDG_CONFIG_HOME").or_else(|| directory("HOME").map(|home| home.join(".config")))
    };
    config.map(|config| config.join("wsmb").join("contexts.toml"))
}

/// There is no context of this name.
pub(crate) fn unknown(name: &str) -> Failure {
    Failure::misuse(format_args!("there is no login named {name}; `wsmb login --list` shows those that are stored"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(url: &str, user: &str) -> Context {
        Context {
            url: url.to_owned(),
            user: Some(user.to_owned()),
            password: Some(Secret("geheim".to_owned())),
            data_dir: None,
        }
    }

    #[test]
    fn what_is_stored_is_found_again_and_no_other_user_can_read_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("deep").join("contexts.toml");
        let mut contexts = Contexts::of(Some(file.clone())).unwrap();
        contexts.set("home", context("ws://Broker.example:8888/a?x=1", "app"));
        contexts
            .set("127.0.0.1:8888", Context { data_dir: Some("/d".into()), ..context("ws://127.0.0.1:8888", "wsmb") });
        contexts.set("a.here", context("ws://localhost:8888", "me"));
        contexts.save().unwrap();
        let again = Contexts::of(Some(file.clone())).unwrap();
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
        let Err(Failure::Failed(reason)) = Contexts::of(Some(file)) else { panic!("it is no TOML") };
        assert!(reason.contains("contexts.toml:3: ") && !reason.contains("geheim"), "{reason}");
    }

    #[test]
    fn a_file_that_this_user_may_not_read_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("contexts.toml");
        let contexts = Contexts { file: Some(file.clone()), is_unreadable: true, all: BTreeMap::new() };
        let Err(Failure::Failed(reason)) = contexts.save() else { panic!("it would be lost") };
        assert!(reason.contains("may not read") && !file.exists(), "{reason}");
    }

    #[test]
    fn a_file_that_is_too_long_is_not_read_in_part() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("contexts.toml");
        std::fs::write(&file, "#".repeat(usize::try_from(limits::CONTEXTS_BYTES).unwrap() + 1)).unwrap();
        assert!(Contexts::of(Some(file)).is_err());
    }

    #[test]
    fn a_name_is_one_word() {
        for good in ["home", "127.0.0.1:8888", "[::1]:8888", "größer"] {
            assert!(name(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a\nb", "ws://x", &"x".repeat(129)] {
            assert!(name(bad).is_err(), "{bad}");
        }
    }
}
