//! Names of files, and that they are durable. Never writes into a file.

use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::datetime;
use wsmb_core::message::Timestamp;

/// The path of the file beside another one whose name ends like this: `wsmb.db` and `.ids` are `wsmb.db.ids`.
pub(crate) fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    PathBuf::from(name)
}

/// Makes the name of a new or renamed file or directory durable: a power cut can't take it back. Where a directory can't be opened, the system does without.
pub(crate) fn sync_directory(path: &Path) {
    if cfg!(unix)
        && let Some(directory) = path.parent()
    {
        let directory = if directory.as_os_str().is_empty() { Path::new(".") } else { directory };
        let _ = std::fs::File::open(directory).and_then(|directory| directory.sync_all());
    }
}

/// One name for one file, however it was reached: the lock goes by it. Elsewhere than on Unix the canonical form is one that not every program takes.
pub(crate) fn canonical(path: &Path) -> std::io::Result<PathBuf> {
    if cfg!(unix) { path.canonicalize() } else { std::path::absolute(path) }
}

/// A name for a file that is set aside, that no file has yet: `wsmb.db.damaged-20261122T100000Z`.
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
    // Ends: a directory is finite.
    if first.exists() { numbered.find(|name| !name.exists()).unwrap_or(first) } else { first }
}
