//! The broker's own key for tokens: a random secret in a file that only its owner can read.
//!
//! The file is made when the first token is issued, so that a broker that issues none needs no file. All functions that use the file block. This module must
//! never replace a file that exists.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::first_start::make_private_directory;
use super::passwd;
use super::platform;
use super::token::Key;
use crate::limits;

/// The name of the file in the data directory.
pub const FILE: &str = "token.key";

/// The key, once it was read or made.
pub struct OwnKey {
    file: Option<PathBuf>,
    key: Mutex<Option<Arc<Key>>>,
}

impl fmt::Debug for OwnKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnKey").field("file", &self.file).finish_non_exhaustive()
    }
}

impl OwnKey {
    /// Reads the key, if the file exists. `None`: the broker issues no tokens. Returns a warning too, if the file cannot be used or others can read it.
    #[must_use]
    pub fn load(file: Option<PathBuf>) -> (Self, Option<String>) {
        let (key, warning) = match file.as_deref().map(read) {
            None => (None, None),
            Some(Ok(key)) => (key, file.as_deref().and_then(exposure)),
            Some(Err(problem)) => (None, Some(problem)),
        };
        (Self { file, key: Mutex::new(key.map(Arc::new)) }, warning)
    }

    /// Returns the key, if the broker has one.
    #[must_use]
    pub fn get(&self) -> Option<Arc<Key>> {
        self.key.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the key. Makes it if there is none. Blocks.
    ///
    /// # Errors
    /// A sentence: no file is configured, it cannot be written or used, or the system gives no random numbers.
    pub fn get_or_make(&self) -> Result<Arc<Key>, String> {
        let mut key = self.key.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(key) = &*key {
            return Ok(key.clone());
        }
        let file = self.file.as_deref().ok_or("auth.token_key names no file for the key")?;
        let made = match read(file)? {
            Some(there) => there,
            None => make(file)?,
        };
        Ok(key.insert(Arc::new(made)).clone())
    }
}

/// Reads the file; `None` if it does not exist.
fn read(file: &Path) -> Result<Option<Key>, String> {
    let text = match std::fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{}: the key for tokens cannot be read: {error}", file.display())),
    };
    let secret = STANDARD.decode(text.trim()).ok().and_then(|bytes| bytes.try_into().ok());
    secret.map(|secret| Some(Key::own(secret))).ok_or_else(|| {
        format!("{}: this is not a key for tokens; remove the file, and the broker makes a new key", file.display())
    })
}

fn make(file: &Path) -> Result<Key, String> {
    let failed = |error: &dyn fmt::Display| format!("{}: the key for tokens cannot be made: {error}", file.display());
    let mut secret = [0; limits::HS256_SECRET_BYTES];
    getrandom::fill(&mut secret).map_err(|error| failed(&error))?;
    if let Some(directory) = file.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        make_private_directory(directory).map_err(|error| failed(&error))?;
    }
    let text = format!("{}\n", STANDARD.encode(secret));
    passwd::write(file, text.as_bytes()).map_err(|error| failed(&error))?;
    tracing::info!(file = %file.display(), "made a key for the broker's own tokens");
    Ok(Key::own(secret))
}

/// Returns a warning if other users of the machine can read the file.
fn exposure(file: &Path) -> Option<String> {
    let is_exposed = platform::is_readable_by_others(file);
    is_exposed.then(|| {
        format!("{0}: other users of this machine can read the key for tokens; run `chmod 600 {0}`", file.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_its_owner_can_read_it() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join("data").join(FILE);
        let (own, warning) = OwnKey::load(Some(file.clone()));
        assert!(own.get().is_none() && warning.is_none() && !file.exists());
        let key = own.get_or_make().unwrap();
        assert_eq!((own.get_or_make().as_ref(), own.get().as_ref()), (Ok(&key), Some(&key)));
        let (again, warning) = OwnKey::load(Some(file.clone()));
        assert_eq!((again.get().as_ref(), warning), (Some(&key), None), "it survives a restart");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).unwrap();
            assert!(OwnKey::load(Some(file.clone())).1.unwrap().contains("chmod 600"));
        }
        let other = home.path().join("other").join(FILE);
        assert_ne!(OwnKey::load(Some(other)).0.get_or_make().unwrap(), key);
    }

    #[test]
    fn a_file_that_is_no_key_is_not_replaced() {
        let home = tempfile::tempdir().unwrap();
        let file = home.path().join(FILE);
        std::fs::write(&file, "secret\n").unwrap();
        let (own, warning) = OwnKey::load(Some(file.clone()));
        let problem = own.get_or_make().unwrap_err();
        assert_eq!(Some(&problem), warning.as_ref());
        assert!(problem.contains("remove the file") && !problem.contains("secret"), "{problem}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "secret\n");
        assert!(OwnKey::load(None).0.get_or_make().unwrap_err().contains("auth.token_key"));
    }
}
