//! Whether the broker could write its files. Looks only: nothing is made and nothing is written.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use super::super::settings::Settings;
use wsmb_config::Config;
use wsmb_store::StoreError;

/// What keeps the broker from writing its files, one sentence for each place.
pub(super) fn obstacles(settings: &Settings, config: &Config) -> Vec<String> {
    let store = &config.store;
    let mut files: Vec<PathBuf> = store.url.path().map(Path::to_owned).into_iter().collect();
    if store.url.server().is_some() {
        // Without a journal, the ids of publications have a file of their own.
        files.extend(store.journal.clone().or_else(|| store.ids.clone()));
    }
    if settings.makes_first_user(config) {
        files.extend(config.auth.htpasswd.iter().filter(|file| !file.exists()).cloned());
    }
    let mut found: Vec<String> = files.iter().filter_map(|file| obstacle(file)).collect();
    found.dedup();
    found
}

fn obstacle(file: &Path) -> Option<String> {
    match OpenOptions::new().append(true).open(file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            return Some(StoreError::ReadOnly { place: file.display().to_string() }.to_string());
        }
        _ => {}
    }
    // What does not exist is made; the directory above it must allow that.
    let mut directory = directory_of(file);
    while !directory.exists() && directory != Path::new(".") && directory != Path::new("/") {
        directory = directory_of(directory);
    }
    let (place, file) = (directory.display(), file.display());
    if !directory.is_dir() {
        return Some(format!("{file} cannot be made: {place} is no directory"));
    }
    let error = unwritable(directory)?;
    Some(format!(
        "{file} cannot be written: this user may not write to the directory {place} ({error}); give it to the user that runs the broker, or name another place"
    ))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What the system says to the wish to make files there.
#[cfg(unix)]
fn unwritable(directory: &Path) -> Option<io::Error> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = std::ffi::CString::new(directory.as_os_str().as_bytes()).ok()?;
    // SAFETY: the path is a valid C string for the whole call, which only reads it.
    let answer = unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), libc::W_OK | libc::X_OK, libc::AT_EACCESS) };
    (answer != 0).then(io::Error::last_os_error)
}

#[cfg(not(unix))]
fn unwritable(_: &Path) -> Option<io::Error> {
    None
}
