//! The record of a program's changes to its files, in the format that `shim.c` writes.

use std::path::Path;

/// One change. `file` is an inode number; a name is relative to the watched directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new file.
    Create { name: String, file: u64 },
    /// A new directory.
    MakeDirectory { name: String },
    /// Bytes written at an offset of a file.
    Write { file: u64, at: u64, bytes: Vec<u8> },
    /// A file's new length.
    Resize { file: u64, length: u64 },
    /// A name was removed.
    Remove { name: String },
    /// A file or directory was renamed. A file that had the new name is gone.
    Rename { from: String, to: String },
    /// All earlier writes to the file are on the disk.
    Synced { file: u64 },
    /// A sync has failed: unsynced writes may be lost, also after a later sync.
    SyncFailed { file: u64 },
    /// All earlier changes of names in a directory are on the disk.
    SyncedDirectory { name: String },
}

/// A record: each change, with the length of the record up to its end in bytes.
#[derive(Clone, Debug, Default)]
pub struct Record(pub Vec<(u64, Change)>);

const HEAD: usize = 32;

impl Record {
    /// Reads a record. An incomplete last change is ignored: the program was killed while it wrote the record, so no client saw a result of the change.
    ///
    /// # Errors
    /// The file cannot be read, or is not a record.
    pub fn read(path: &Path) -> Result<Self, String> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            Err(error) => return Err(format!("{}: {error}", path.display())),
        };
        let (mut rest, mut changes) = (&bytes[..], Vec::new());
        while let Some((change, behind)) = change(rest).map_err(|what| format!("{}: {what}", path.display()))? {
            rest = behind;
            changes.push(((bytes.len() - rest.len()) as u64, change));
        }
        Ok(Self(changes))
    }
}

/// The first change and the remaining bytes; `None` if the first change is incomplete.
fn change(bytes: &[u8]) -> Result<Option<(Change, &[u8])>, String> {
    let Some((head, rest)) = bytes.split_first_chunk::<HEAD>() else { return Ok(None) };
    let number = |at: usize| u64::from_ne_bytes(std::array::from_fn(|index| head[at + index]));
    let half = |at: usize| u32::from_ne_bytes(std::array::from_fn(|index| head[at + index]));
    let (kind, file, at, length) = (half(0), number(8), number(16), number(24));
    let Some((name, rest)) = rest.split_at_checked(half(4) as usize) else { return Ok(None) };
    let name = String::from_utf8_lossy(name).into_owned();
    let Some((data, rest)) = usize::try_from(length).ok().and_then(|length| rest.split_at_checked(length)) else {
        return Ok(None);
    };
    let change = match u8::try_from(kind).unwrap_or(0) {
        b'c' => Change::Create { name, file },
        b'm' => Change::MakeDirectory { name },
        b'w' => Change::Write { file, at, bytes: data.to_vec() },
        b't' => Change::Resize { file, length: at },
        b'u' => Change::Remove { name },
        b'r' => Change::Rename { from: name, to: String::from_utf8_lossy(data).into_owned() },
        b's' => Change::Synced { file },
        b'f' => Change::SyncFailed { file },
        b'd' => Change::SyncedDirectory { name },
        _ => return Err(format!("a change of kind {kind} is unknown")),
    };
    Ok(Some((change, rest)))
}
