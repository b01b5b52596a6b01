//! Parses Apache htpasswd files into entries and warnings. No I/O.
//!
//! Invalid lines are skipped and reported. A warning names the file and the line. A warning must never contain a hash, or a line that
//! might be one.

use std::collections::HashSet;
use std::fmt;

use super::hash::{BadHash, Hash};
use crate::limits;

/// A user and the hash of the user's password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// 1–128 bytes, no colon, no control character.
    pub user: String,
    /// The hash of the password.
    pub hash: Hash,
}

/// The content of a file.
#[derive(Clone, Debug, Default)]
pub struct Parsed {
    /// The users in the order of the file, without duplicates.
    pub entries: Vec<Entry>,
    /// One sentence for each invalid line, with file and line number; at most [`limits::HTPASSWD_WARNINGS`], and a count of the rest.
    pub warnings: Vec<String>,
    /// The number of invalid lines (without duplicates).
    pub refused: usize,
}

/// Why a line is not a valid [`Entry`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadEntry {
    /// The line is not UTF-8.
    NotUtf8,
    /// There is no colon after the user name.
    NoColon,
    /// The line begins with the colon.
    EmptyUser,
    /// More than [`wsmb_core::limits::NAME_BYTES`] bytes.
    LongUser,
    /// A control character in the user name.
    ControlCharacter,
    /// The hash of this user is refused.
    Hash(String, BadHash),
}

impl fmt::Display for BadEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotUtf8 => f.write_str("is not UTF-8; the line is ignored"),
            Self::NoColon => f.write_str("has no colon between user and hash; the line is ignored"),
            Self::EmptyUser => f.write_str("has an empty user name; the line is ignored"),
            Self::LongUser => {
                write!(f, "has a user name of more than {} bytes; the line is ignored", wsmb_core::limits::NAME_BYTES)
            }
            Self::ControlCharacter => f.write_str("has a control character in the user name; the line is ignored"),
            Self::Hash(user, bad) => {
                write!(f, "user {user:?} {bad}; set a new password with `wsmb passwd`")
            }
        }
    }
}

/// Which limit the file exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TooLarge {
    /// More than [`limits::HTPASSWD_BYTES`].
    Bytes,
    /// More than [`limits::HTPASSWD_ENTRIES`].
    Entries,
}

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bytes => write!(f, "it is larger than {} bytes", limits::HTPASSWD_BYTES),
            Self::Entries => write!(f, "it has more than {} users", limits::HTPASSWD_ENTRIES),
        }
    }
}

impl std::error::Error for TooLarge {}

/// Parses the content of a file. `name` is the name of the file in warnings.
///
/// # Errors
/// [`TooLarge`] if the file exceeds a limit. Everything else is a warning.
pub fn parse(bytes: &[u8], name: &str) -> Result<Parsed, TooLarge> {
    if bytes.len() > limits::HTPASSWD_BYTES {
        return Err(TooLarge::Bytes);
    }
    let mut parsed = Parsed::default();
    let mut seen = HashSet::new();
    let mut omitted = 0;
    let mut warn = |number: usize, text: &dyn fmt::Display| {
        if parsed.warnings.len() < limits::HTPASSWD_WARNINGS {
            parsed.warnings.push(format!("{name}:{number}: {text}"));
        } else {
            omitted += 1;
        }
    };
    for (number, line) in (1..).zip(lines(bytes)) {
        let line = trim(line);
        if line.is_empty() || line[0] == b'#' {
            continue;
        }
        match parse_line(line) {
            Ok(entry) if seen.contains(&entry.user) => {
                warn(number, &format_args!("user {:?} is in the file twice; the first entry is used", entry.user));
            }
            Ok(entry) => {
                if parsed.entries.len() == limits::HTPASSWD_ENTRIES {
                    return Err(TooLarge::Entries);
                }
                seen.insert(entry.user.clone());
                parsed.entries.push(entry);
            }
            Err(bad) => {
                parsed.refused += 1;
                warn(number, &bad);
            }
        }
    }
    if omitted > 0 {
        parsed.warnings.push(format!("{name}: {omitted} more lines like these"));
    }
    Ok(parsed)
}

/// Parses one entry, `user:hash`. Text after a second colon is ignored, as in Apache.
///
/// # Errors
/// [`BadEntry`]: why the line is invalid.
pub fn parse_line(line: &[u8]) -> Result<Entry, BadEntry> {
    let line = std::str::from_utf8(trim(line)).map_err(|_| BadEntry::NotUtf8)?;
    let (user, rest) = line.split_once(':').ok_or(BadEntry::NoColon)?;
    check_user(user)?;
    let hash = rest.split(':').next().unwrap_or_default().trim_matches([' ', '\t']);
    let hash = Hash::parse(hash).map_err(|bad| BadEntry::Hash(user.to_owned(), bad))?;
    Ok(Entry { user: user.to_owned(), hash })
}

/// Checks that `user` can be a user name in a file.
///
/// # Errors
/// [`BadEntry`]: why the name is invalid.
pub fn check_user(user: &str) -> Result<(), BadEntry> {
    if user.is_empty() {
        Err(BadEntry::EmptyUser)
    } else if user.len() > wsmb_core::limits::NAME_BYTES {
        Err(BadEntry::LongUser)
    } else if user.chars().any(char::is_control) {
        Err(BadEntry::ControlCharacter)
    } else {
        Ok(())
    }
}

/// Returns the lines of a file without their line ends (LF, CRLF or CR). A byte order mark at the start is skipped.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|byte| matches!(byte, b'\r' | b'\n')).unwrap_or(rest.len());
        let line = &rest[..end];
        rest = &rest[end..];
        rest = rest.strip_prefix(b"\r\n").or_else(|| rest.get(1..)).unwrap_or_default();
        Some(line)
    })
}

/// Whether a file has neither entries nor comments.
pub(super) fn is_blank(bytes: &[u8]) -> bool {
    lines(bytes).all(|line| trim(line).is_empty())
}

/// Removes leading and trailing spaces and tabs.
pub(super) fn trim(mut line: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = line {
        line = rest;
    }
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    const APR1: &str = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";

    fn users(file: &[u8]) -> (Vec<String>, Vec<String>) {
        let parsed = parse(file, ".htpasswd").unwrap();
        (parsed.entries.into_iter().map(|entry| entry.user).collect(), parsed.warnings)
    }

    #[test]
    fn common_variants_of_the_file_format_are_accepted() {
        let two = ["alice", "bob"].map(String::from).to_vec();
        let table = [
            ("LF", format!("alice:{SHA}\nbob:{APR1}\n")),
            ("CRLF", format!("alice:{SHA}\r\nbob:{APR1}\r\n")),
            ("CR", format!("alice:{SHA}\rbob:{APR1}\r")),
            ("no final newline", format!("alice:{SHA}\nbob:{APR1}")),
            ("blank lines", format!("\n\n  \nalice:{SHA}\n\t\n\nbob:{APR1}\n\n")),
            ("comments", format!("# users\nalice:{SHA}\n  # bob:x\nbob:{APR1}\n#")),
            ("blanks around", format!("  alice:{SHA}  \n\tbob: {APR1}\t \n")),
            ("byte order mark", format!("\u{feff}alice:{SHA}\nbob:{APR1}\n")),
            ("more fields", format!("alice:{SHA}:Alice:x\nbob:{APR1}:\n")),
        ];
        for (what, file) in table {
            assert_eq!(users(file.as_bytes()), (two.clone(), vec![]), "{what}");
        }
        assert_eq!(users(b""), (vec![], vec![]));
    }

    #[test]
    fn an_invalid_line_is_reported_and_the_others_are_kept() {
        let long = format!("{}:{SHA}", "u".repeat(wsmb_core::limits::NAME_BYTES + 1));
        let table: [(&[u8], &str); 9] = [
            (b"carol", ".htpasswd:2: has no colon between user and hash; the line is ignored"),
            (b":{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", ".htpasswd:2: has an empty user name; the line is ignored"),
            (
                b"carol:",
                ".htpasswd:2: user \"carol\" has no password hash after the colon; set a new password with `wsmb passwd`",
            ),
            (
                b"carol:opensesame",
                ".htpasswd:2: user \"carol\" has a password in plain text or a hash of an unsupported format, which is refused; \
                 set a new password with `wsmb passwd`",
            ),
            (
                b"carol:abNANd1rDfiNc",
                ".htpasswd:2: user \"carol\" has a DES crypt hash, which is refused because it uses only 8 characters of the password; \
                 set a new password with `wsmb passwd`",
            ),
            (b"car\xf6l:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", ".htpasswd:2: is not UTF-8; the line is ignored"),
            (
                b"car\x07ol:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=",
                ".htpasswd:2: has a control character in the user name; the line is ignored",
            ),
            (long.as_bytes(), ".htpasswd:2: has a user name of more than 128 bytes; the line is ignored"),
            (
                b"alice:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a",
                ".htpasswd:2: user \"alice\" is in the file twice; the first entry is used",
            ),
        ];
        for (line, warning) in table {
            let file = [b"alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\n", line, b"\r\nbob:", APR1.as_bytes()].concat();
            let (users, warnings) = users(&file);
            assert_eq!(users, ["alice", "bob"]);
            assert_eq!(warnings, [warning]);
        }
    }

    #[test]
    fn the_first_of_two_entries_is_used() {
        let parsed = parse(format!("alice:{SHA}\nalice:{APR1}\n").as_bytes(), "f").unwrap();
        assert_eq!(parsed.entries, [Entry { user: "alice".into(), hash: Hash::parse(SHA).unwrap() }]);
    }

    #[test]
    fn the_number_of_warnings_is_bounded() {
        let parsed = parse(&b"x\n".repeat(1_000), "f").unwrap();
        assert_eq!(parsed.refused, 1_000);
        assert_eq!(parsed.warnings.len(), limits::HTPASSWD_WARNINGS + 1);
        assert_eq!(parsed.warnings.last().unwrap(), "f: 980 more lines like these");
    }

    #[test]
    fn size_and_number_of_users_are_bounded() {
        assert_eq!(parse(&vec![b'\n'; limits::HTPASSWD_BYTES + 1], "f").unwrap_err(), TooLarge::Bytes);
        let many: String = (0..=limits::HTPASSWD_ENTRIES).map(|n| format!("u{n}:{SHA}\n")).collect();
        assert_eq!(parse(many.as_bytes(), "f").unwrap_err(), TooLarge::Entries);
    }

    proptest! {
        #[test]
        fn parsing_any_bytes_does_not_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let parsed = parse(&bytes, "f").unwrap();
            prop_assert!(parsed.entries.iter().all(|entry| check_user(&entry.user).is_ok()));
        }

        #[test]
        fn all_line_ends_are_recognised(names in prop::collection::vec("[a-z]{1,8}", 0..8), end in "\n|\r\n|\r") {
            let file: String = names.iter().map(|name| format!("{name}{end}")).collect();
            let split: Vec<_> = lines(file.as_bytes()).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
            prop_assert_eq!(split, names);
        }
    }
}
