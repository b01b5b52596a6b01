//! Edits an htpasswd file for `wsmb passwd`: every line that is not the user's stays as it is, byte for byte.
//!
//! The text functions do no I/O; [`write()`] replaces a file in one step, so that a broker that reads it meanwhile sees the old or
//! the new one and nothing between.

use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::hash::Hash;
use super::htpasswd::{self, BadEntry};
use crate::limits;

/// The bcrypt cost of new passwords: some 50 ms on a small server, and a client's password is hashed once a process life.
const COST: u32 = 10;

/// Characters of random passwords: none that is taken for another (0 O, 1 l I), lower case only, as they are typed on phones. There are
/// 32, so every byte gives five fair bits.
const READABLE: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz2345678";

/// Groups of five characters in a random password: 100 bits.
const GROUPS: usize = 4;

/// What stands in a file whose last user was removed.
const NOBODY: &[u8] = b"# no users\n";

/// Why a file cannot be edited.
#[derive(Debug)]
pub enum PasswdError {
    /// A user name that no file can hold.
    User(BadEntry),
    /// A colon ends the user name, and a `#` in front makes a comment of the line.
    UserCharacter(char),
    /// Blanks around a user name are lost when the file is read.
    UserBlanks,
    /// No password at all.
    EmptyPassword,
    /// bcrypt would ignore the rest of it.
    LongPassword,
    /// bcrypt ends a password at a zero byte.
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

/// The hash that is written for a new password: bcrypt, `$2y$`. Takes some 50 ms.
///
/// # Errors
/// A password that bcrypt would not take whole.
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
    let parts = bcrypt::hash_with_salt(password, COST, salt).map_err(|_| PasswdError::LongPassword)?;
    Ok(parts.format_for_version(bcrypt::Version::TwoY))
}

/// A password that nobody guesses and everybody can type: four groups of five characters.
///
/// # Errors
/// The system gives no random numbers.
pub fn random_password() -> Result<String, PasswdError> {
    let mut bytes = [0; GROUPS * 5];
    getrandom::fill(&mut bytes).map_err(|_| PasswdError::Randomness)?;
    let groups = bytes.chunks(5).map(|group| group.iter().map(|byte| char::from(READABLE[usize::from(byte % 32)])));
    Ok(groups.map(Iterator::collect::<String>).collect::<Vec<_>>().join("-"))
}

/// The file `text` with the password of `user` set: in the place of his first line, or behind the last line if he is new. Further lines
/// of his, which never counted, go.
///
/// # Errors
/// A user name or password that cannot be used.
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

/// The file `text` without `user`; `None` if he is not in it. If nothing is left of it, a comment is: a broker takes a file without anything in it for a broken one.
#[must_use]
pub fn remove(text: &[u8], user: &str) -> Option<Vec<u8>> {
    let (mut out, found) = edit(text, user, None);
    if htpasswd::is_blank(&out) {
        out.extend_from_slice(NOBODY);
    }
    found.then_some(out)
}

/// Whether `password` is that of `user` in the file `text`; `None` if he is not in it, or his hash is not taken.
#[must_use]
pub fn check(text: &[u8], user: &str, password: &str) -> Option<bool> {
    let line = htpasswd::lines(text).find(|line| is_of(line, user))?;
    let hash: Hash = htpasswd::parse_line(line).ok()?.hash;
    Some(hash.verify(password.as_bytes()))
}

/// What a person has to know about a file that was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Owner, group and mode are those of the file before, or of the directory that a new file is in.
    Nothing,
    /// The file was somebody else's and is now that of whoever wrote it: only root may give a file away.
    OwnerLost {
        /// Numbers of the user and the group whose file it was.
        owner: (u32, u32),
    },
    /// Root made a new file in a directory of root's: nobody else can read it.
    RootOnly,
}

/// Replaces the file in one step, durably. An existing file keeps owner, group and mode. A new one is for its owner only (mode 0600); if root makes it, it belongs
/// to the owner of the directory, so that the service whose directory it is can read it. A symbolic link stays one.
///
/// # Errors
/// Which file could not be written, and why.
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
        // Best effort: the error that is reported is the first one.
        let _ = fs::remove_file(&temporary);
    }
    let notice = written?;
    #[cfg(unix)]
    fs::File::open(directory_of(target))?.sync_all()?;
    Ok(notice)
}

#[cfg(unix)]
fn directory_of(target: &Path) -> &Path {
    target.parent().filter(|directory| !directory.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

fn write_new(temporary: &Path, target: &Path, text: &[u8]) -> io::Result<Notice> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(temporary)?;
    #[cfg(unix)]
    let notice = hand_over(&file, target)?;
    #[cfg(not(unix))]
    let notice = {
        let _ = target;
        Notice::Nothing
    };
    file.write_all(text)?;
    file.sync_all()?;
    Ok(notice)
}

/// Gives the new file the owner, group and mode that `target` has or should have. Before anything is written into it.
#[cfg(unix)]
fn hand_over(file: &fs::File, target: &Path) -> io::Result<Notice> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
    let own = file.metadata()?;
    let is_root = own.uid() == 0;
    let old = fs::metadata(target).ok();
    let model = match &old {
        Some(old) => Some(old.clone()),
        // Who is not root can give nothing away, and makes a file for himself.
        None if is_root => Some(fs::metadata(directory_of(target))?),
        None => None,
    };
    let mut notice = Notice::Nothing;
    if let Some(model) = &model {
        let owner = (model.uid(), model.gid());
        let given = owner == (own.uid(), own.gid()) || fchown(file, Some(owner.0), Some(owner.1)).is_ok();
        if !given {
            // The group may be one of his, too.
            let _ = fchown(file, None, Some(owner.1));
            notice = Notice::OwnerLost { owner };
        } else if old.is_none() && owner.0 == 0 {
            notice = Notice::RootOnly;
        }
    }
    // After the owner: giving a file away may take bits of its mode.
    if let Some(old) = old {
        file.set_permissions(fs::Permissions::from_mode(old.mode() & 0o777))?;
    }
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

/// Copies `text` line by line; the first line of `user` becomes `replacement`, the others of his go. Whether there was one.
fn edit(text: &[u8], user: &str, replacement: Option<&[u8]>) -> (Vec<u8>, bool) {
    let mut out = Vec::with_capacity(text.len() + 128);
    let mut found = false;
    let mark = text.len() - text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text).len();
    out.extend_from_slice(&text[..mark]);
    let mut at = mark;
    for line in htpasswd::lines(text) {
        let end = at + line.len();
        let next = end
            + [&b"\r\n"[..], b"\n", b"\r"]
                .iter()
                .find(|mark| text[end..].starts_with(mark))
                .map_or(0, |mark| mark.len());
        if !is_of(line, user) {
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

fn is_of(line: &[u8], user: &str) -> bool {
    let line = htpasswd::trim(line);
    !line.starts_with(b"#") && line.strip_prefix(user.as_bytes()).is_some_and(|rest| rest.starts_with(b":"))
}

/// How the lines of this file end.
fn line_end(text: &[u8]) -> &'static [u8] {
    match text.iter().position(|byte| matches!(byte, b'\r' | b'\n')) {
        Some(at) if text[at..].starts_with(b"\r\n") => b"\r\n",
        Some(at) if text[at] == b'\r' => b"\r",
        _ => b"\n",
    }
}

#[cfg(test)]
mod tests;
