//! Checks whether the broker could write its files. Creates no file and writes to none.

use std::fs::OpenOptions;
use std::io;
use std::path::{Path, PathBuf};

use super::super::settings::Settings;
use crate::platform;
use wsmb_config::Config;
use wsmb_store::StoreError;

/// Returns an error message for each file that the broker could not write.
pub(super) fn write_errors(settings: &Settings, config: &Config) -> Vec<String> {
    let store = &config.store;
    let mut files: Vec<PathBuf> = store.url.path().map(Path::to_owned).into_iter().collect();
    if store.url.server().is_some() {
        // Without a journal, the ids of publications have a file of their own.
        files.extend(store.journal.clone().or_else(|| store.ids.clone()));
    }
    if settings.makes_first_user(config) {
        files.extend(config.auth.htpasswd.iter().filter(|file| !file.exists()).cloned());
    }
    let mut errors: Vec<String> = files.iter().filter_map(|file| write_error(file)).collect();
    errors.dedup();
    errors
}

fn write_error(file: &Path) -> Option<String> {
    match OpenOptions::new().append(true).open(file) {
        Err(error) if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) => {
            return Some(StoreError::ReadOnly { place: file.display().to_string() }.to_string());
        }
        _ => {}
    }
    // The broker creates missing files and directories. The nearest existing directory must allow that.
    let mut directory = directory_of(file);
    while !directory.exists() && directory != Path::new(".") && directory != Path::new("/") {
        directory = directory_of(directory);
    }
    let (place, file) = (directory.display(), file.display());
    if !directory.is_dir() {
        return Some(format!("cannot create {file}: {place} is not a directory"));
    }
    let error = platform::access_error(directory)?;
    Some(format!(
        "cannot write {file}: this user may not write to the directory {place} ({error}); make the user that runs the broker its owner, or configure another directory"
    ))
}

fn directory_of(path: &Path) -> &Path {
    path.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}
