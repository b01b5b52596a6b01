//! Names of files, and new files. Never writes to a file.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::{datetime, platform};
use wsmb_core::message::Timestamp;

/// Options that open a file for reading and writing, and create it for its owner only (mode 0600).
pub(crate) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    platform::make_file_private(&mut options);
    options
}

/// The path with an ending added: `wsmb.db` and `.ids` give `wsmb.db.ids`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// An unused name for a file that is renamed: `wsmb.db.damaged-20261122T100000Z`.
pub(crate) fn aside_name(path: &Path, why: &str) -> PathBuf {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let stamp: String = datetime::to_text(Timestamp(now.as_millis() as u64))
        .chars()
        .map(|character| if character == ' ' { 'T' } else { character })
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let with = |ending: &str| beside(path, &format!(".{why}-{stamp}Z{ending}"));
    let mut numbered = (2..).map(|number| with(&format!("-{number}")));
    let first = with("");
    // The search ends, because a directory is finite.
    if first.exists() { numbered.find(|name| !name.exists()).unwrap_or(first) } else { first }
}
