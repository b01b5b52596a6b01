//! Edits htpasswd files for `wsmb passwd`. The lines of other users stay byte for byte.
//!
//! The functions on text do no I/O. [`write()`] replaces a file atomically, so that a broker that reads it at the same time sees the old
//! or the new content. This module must never write a password in plain text.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::hash::Hash;
use super::htpasswd::{self, BadEntry};
use crate::{limits, platform};

pub use crate::platform::Notice;

/// The bcrypt cost of new passwords: some 50 ms on a small server. Later logins with the same password are served from the cache.
const BCRYPT_COST: u32 = 10;

/// The characters of random passwords: without those that look alike (0 O, 1 l I), and in lower case for typing on phones. There are 32,
/// so each random byte selects one of them with equal probability.
const PASSWORD_ALPHABET: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

/// Groups of five characters in a random password: 100 bits.
const GROUPS: usize = 4;

/// Written to a file whose last user was removed.
const NO_USERS_COMMENT: &[u8] = b"# no users\n";

/// Why a password file cannot be edited.
#[derive(Debug)]
pub enum PasswdError {
    /// The user name is invalid in a password file.
    User(BadEntry),
    /// A character with a meaning in the file: a colon ends the user name; a `#` or a byte order mark at its start changes the line.
    UserCharacter(char),
    /// The user name begins or ends with a space, which is lost when the file is read.
    UserBlanks,
    /// The password is empty.
    EmptyPassword,
    /// The password is longer than bcrypt uses ([`limits::BCRYPT_PASSWORD_BYTES`]).
    LongPassword,
    /// The password contains a zero byte, at which bcrypt would end it.
    ZeroByte,
    /// The system gives no random numbers.
    Randomness,
    /// A file or directory cannot be read or written.
    Io(PathBuf, io::Error),
}

impl fmt::Display for PasswdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User(BadEntry::EmptyUser) => f.write_str("the user name is empty"),
            Self::User(BadEntry::LongUser) => {
                write!(f, "the user name is longer than {} bytes", wsmb_core::limits::NAME_BYTES)
            }
            Self::User(_) => f.write_str("the user name contains a control character"),
            Self::UserCharacter(':') => f.write_str("a user name cannot contain a colon"),
            Self::UserCharacter(character) => write!(f, "a user name cannot begin with {character:?}"),
            Self::UserBlanks => f.write_str("a user name cannot begin or end with a blank"),
            Self::EmptyPassword => f.write_str("the password is empty"),
            Self::LongPassword => write!(
                f,
                "the password is longer than {} bytes, and bcrypt would ignore the rest; choose a shorter one",
                limits::BCRYPT_PASSWORD_BYTES
            ),
            Self::ZeroByte => f.write_str("the password contains a zero byte"),
            Self::Randomness => f.write_str("the system gives no random numbers"),
            Self::Io(path, error) => write!(f, "{}: {error}", path.display()),
        }
    }
}

impl std::error::Error for PasswdError {}

/// Hashes a new password with bcrypt (`$2y$`). Blocks for some 50 ms.
///
/// # Errors
/// The password is empty, too long for bcrypt or contains a zero byte, or the system gives no random numbers.
pub fn hash(password: &str) -> Result<String, PasswdError> {
    if password.is_empty() {
        return Err(PasswdError::EmptyPassword);
    }
    if password.len() > limits::BCRYPT_PASSWORD_BYTES {
        return Err(PasswdError::LongPassword);
    }
    if password.contains('\0') {
        return Err(PasswdError::ZeroByte);
    }
    let mut salt = [0; 16];
    getrandom::fill(&mut salt).map_err(|_| PasswdError::Randomness)?;
    let parts = bcrypt::hash_with_salt(password, BCRYPT_COST, salt).map_err(|_| PasswdError::LongPassword)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

/// Generates a random password of four groups of five characters (100 bits).
///
/// # Errors
/// The system gives no random numbers.
pub fn random_password() -> Result<String, PasswdError> {
    let mut bytes = [0; GROUPS * 5];
    getrandom::fill(&mut bytes).map_err(|_| PasswdError::Randomness)?;
    let groups =
        bytes.chunks(5).map(|group| group.iter().map(|byte| char::from(PASSWORD_ALPHABET[usize::from(byte % 32)])));
    Ok(groups.map(Iterator::collect::<String>).collect::<Vec<_>>().join("-"))
}

/// Returns the file `text` with a new password of `user`. The new line replaces the user's first line; for a new user it becomes the last
/// line. Further lines of the user, which were never used, are removed.
///
/// # Errors
/// The user name or the password is invalid, or the system gives no random numbers.
pub fn add_or_replace(text: &[u8], user: &str, password: &str) -> Result<Vec<u8>, PasswdError> {
    check_user(user)?;
    let line = format!("{user}:{}", hash(password)?).into_bytes();
    let (mut out, found) = edit(text, user, Some(&line));
    if !found {
        let end = line_end(text);
        if !out.is_empty() && !out.ends_with(b"\n") && !out.ends_with(b"\r") && out != b"\xef\xbb\xbf" {
            out.extend_from_slice(end);
        }
        out.extend_from_slice(&line);
        out.extend_from_slice(end);
    }
    Ok(out)
}

/// Returns the file `text` without `user`, or `None` if the user is not in it. If the result would be empty, it holds a comment: the broker
/// does not use an empty file.
#[must_use]
pub fn remove(text: &[u8], user: &str) -> Option<Vec<u8>> {
    let (mut out, found) = edit(text, user, None);
    if htpasswd::is_blank(&out) {
        out.extend_from_slice(NO_USERS_COMMENT);
    }
    found.then_some(out)
}

/// Whether `password` is the password of `user` in the file `text`. `None` if the user is not in the file or the hash is refused.
#[must_use]
pub fn check(text: &[u8], user: &str, password: &str) -> Option<bool> {
    let line = htpasswd::lines(text).find(|line| is_line_of(line, user))?;
    let hash: Hash = htpasswd::parse_line(line).ok()?.hash;
    Some(hash.verify(password.as_bytes()))
}

/// Replaces the file atomically and durably. An existing file keeps its owner, group and mode. A new file has mode 0600. If root creates
/// the file, it gets the owner of the directory, so that the service that owns the directory can read it. A symbolic link is kept, and
/// its target is replaced.
///
/// # Errors
/// [`PasswdError::Io`] with the file and the reason.
pub fn write(path: &Path, text: &[u8]) -> Result<Notice, PasswdError> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    replace(&target, text).map_err(|error| PasswdError::Io(path.to_owned(), error))
}

fn replace(target: &Path, text: &[u8]) -> io::Result<Notice> {
    let mut suffix = [0; 8];
    getrandom::fill(&mut suffix).map_err(|_| io::Error::other("the system gives no random numbers"))?;
    let mut name = target.file_name().ok_or(io::ErrorKind::InvalidFilename)?.to_owned();
    name.push(format!(".{:016x}.new", u64::from_le_bytes(suffix)));
    let temporary = target.with_file_name(name);
    let written =
        write_new(&temporary, target, text).and_then(|notice| fs::rename(&temporary, target).map(|()| notice));
    if written.is_err() {
        // Best effort: the first error is reported.
        let _ = fs::remove_file(&temporary);
    }
    let notice = written?;
    platform::sync_directory_of(target)?;
    Ok(notice)
}

fn write_new(temporary: &Path, target: &Path, text: &[u8]) -> io::Result<Notice> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    platform::make_file_private(&mut options);
    let mut file = options.open(temporary)?;
    let notice = platform::copy_owner_and_mode(&file, target)?;
    file.write_all(text)?;
    file.sync_all()?;
    Ok(notice)
}

fn check_user(user: &str) -> Result<(), PasswdError> {
    htpasswd::check_user(user).map_err(PasswdError::User)?;
    if user.contains(':') {
        Err(PasswdError::UserCharacter(':'))
    } else if user.starts_with('#') {
        Err(PasswdError::UserCharacter('#'))
    } else if user.starts_with('\u{feff}') {
        Err(PasswdError::UserCharacter('\u{feff}'))
    } else if user.starts_with(' ') || user.ends_with(' ') {
        Err(PasswdError::UserBlanks)
    } else {
        Ok(())
    }
}

/// Copies `text`, replaces the first line of `user` by `replacement` (or removes it) and removes the user's other lines. Returns the copy and
/// whether the user had a line.
fn edit(text: &[u8], user: &str, replacement: Option<&[u8]>) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(text.len() + 128);
    let mut found = false;
    let bom = text.len() - text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).len();
    out.extend_from_slice(&text[..bom]);
    let mut at = bom;
    for line in htpasswd::lines(text) {
        let end = at + line.len();
        let next = end
            + [&b"\r\n"[..], b"\n", b"\r"]
                .iter()
                .find(|mark| text[end..].starts_with(mark))
                .map_or(0, |mark| mark.len());
        if !is_line_of(line, user) {
            out.extend_from_slice(&text[at..next]);
        } else if let Some(replacement) = replacement.filter(|_| !found) {
            out.extend_from_slice(replacement);
            out.extend_from_slice(&text[end..next]);
            found = true;
        } else {
            found = true;
        }
        at = next;
    }
    (out, found)
}

fn is_line_of(line: &[u8], user: &str) -> bool {
    let line = htpasswd::trim(line);
    !line.starts_with(b"#") && line.strip_prefix(user.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

/// The line end that the file uses; LF if it has none.
fn line_end(text: &[u8]) -> &'static [u8] {
    match text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(at) if text[at..].starts_with(b"\r\n") => b"\r\n",
        Some(at) if text[at] == b'\r' => b"\r",
        _ => b"\n",
    }
}

#[cfg(test)]
mod tests;
