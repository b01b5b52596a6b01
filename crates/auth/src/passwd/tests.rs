//! Editing entries of password files, and keeping everything else in them.

use proptest::prelude::*;

use super::*;

/// Replaces the bcrypt hash in `text` by `HASH`.
fn masked(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    match text.find("$2y$10$") {
        Some(at) => format!("{}HASH{}", &text[..at], &text[at + 60..]),
        None => text.into_owned(),
    }
}

#[test]
fn setting_a_password_keeps_all_other_lines() {
    let table = [
        ("", "alice:HASH\n"),
        ("bob:x\n", "bob:x\nalice:HASH\n"),
        ("bob:x", "bob:x\nalice:HASH\n"),
        ("bob:x\r\n", "bob:x\r\nalice:HASH\r\n"),
        ("bob:x\rcarol:y", "bob:x\rcarol:y\ralice:HASH\r"),
        ("# users\n\nalice:old\nbob:x", "# users\n\nalice:HASH\nbob:x"),
        ("# alice:old\nalice2:x\n", "# alice:old\nalice2:x\nalice:HASH\n"),
        ("alice:old\r\n\r\nbob:x \nalice:older\n", "alice:HASH\r\n\r\nbob:x \n"),
        ("bob:x\n  alice:old", "bob:x\nalice:HASH"),
        ("\u{feff}alice:old\n", "\u{feff}alice:HASH\n"),
        ("\u{feff}", "\u{feff}alice:HASH\n"),
    ];
    for (before, after) in table {
        let text = add_or_replace(before.as_bytes(), "alice", "new:pässword").unwrap();
        assert_eq!(masked(&text), after, "{before:?}");
        assert_eq!(check(&text, "alice", "new:pässword"), Some(true), "{before:?}");
        assert_eq!(check(&text, "alice", "old"), Some(false), "{before:?}");
    }
}

#[test]
fn removing_a_user_removes_exactly_the_lines_of_that_user() {
    let table = [
        ("alice:x\n", Some("# no users\n")),
        ("\nalice:x", Some("\n# no users\n")),
        ("bob:x\nalice:y\r\ncarol:z\nalice:w", Some("bob:x\ncarol:z\n")),
        ("bob:x\n", None),
        ("#alice:x\n", None),
        ("alice\n", None),
        ("", None),
    ];
    for (before, after) in table {
        let text = remove(before.as_bytes(), "alice");
        assert_eq!(text.as_deref(), after.map(str::as_bytes), "{before:?}");
    }
}

#[test]
fn checking_a_missing_user_or_an_invalid_hash_gives_none() {
    assert_eq!(check(b"bob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "alice", "secret"), None);
    assert_eq!(check(b"alice:secret", "alice", "secret"), None);
    assert_eq!(check(b"alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "alice", "secret"), Some(true));
}

#[test]
fn invalid_names_and_passwords_are_refused_with_a_reason() {
    let long = "x".repeat(129);
    let table = [
        ("", "p", "the user name is empty"),
        ("a:b", "p", "a user name cannot contain a colon"),
        ("#a", "p", "a user name cannot begin with '#'"),
        (" a", "p", "a user name cannot begin or end with a blank"),
        ("a\n", "p", "the user name contains a control character"),
        (&long, "p", "the user name is longer than 128 bytes"),
        ("a", "", "the password is empty"),
        ("a", "a\0b", "the password contains a zero byte"),
        ("a", &long, "the password is longer than 72 bytes, and bcrypt would ignore the rest; choose a shorter one"),
    ];
    for (user, password, reason) in table {
        assert_eq!(add_or_replace(b"", user, password).unwrap_err().to_string(), reason);
    }
}

#[test]
fn random_passwords_are_readable_and_differ() {
    let (one, two) = (random_password().unwrap(), random_password().unwrap());
    assert_ne!(one, two);
    assert_eq!(one.len(), 23);
    let in_alphabet = |c: char| c == '-' || u8::try_from(c).is_ok_and(|c| PASSWORD_ALPHABET.contains(&c));
    assert!(one.chars().all(in_alphabet), "{one}");
}

#[test]
fn writing_replaces_the_file_and_leaves_no_temporary_file() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".htpasswd");
    write(&path, b"one\n").unwrap();
    write(&path, b"two\n").unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"two\n");
    assert_eq!(fs::read_dir(home.path()).unwrap().count(), 1);

    let error = write(&home.path().join("no").join("file"), b"").unwrap_err().to_string();
    assert!(error.starts_with(&home.path().join("no").join("file").display().to_string()), "{error}");
}

#[cfg(unix)]
#[test]
fn new_files_are_private_and_links_are_kept() {
    use std::os::unix::fs::{PermissionsExt as _, symlink};
    let home = tempfile::tempdir().unwrap();
    let (path, link) = (home.path().join("real"), home.path().join("link"));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    write(&path, b"one\n").unwrap();
    assert_eq!(mode(&path), 0o600);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    symlink(&path, &link).unwrap();
    write(&link, b"two\n").unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(fs::read(&path).unwrap(), b"two\n");
    assert_eq!(mode(&path), 0o644);
}

/// The part with other owners runs only as root.
#[cfg(unix)]
#[test]
fn a_file_keeps_owner_group_and_mode_and_a_new_one_gets_the_owner_of_the_directory() {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join(".htpasswd");
    let owner = |path: &Path| fs::metadata(path).map(|is| (is.uid(), is.gid(), is.mode() & 0o777)).unwrap();
    let own = owner(home.path());
    fs::write(&path, "").unwrap();
    for mode in [0o600, 0o640, 0o644, 0o660] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(write(&path, b"x").unwrap(), Notice::Nothing);
        assert_eq!(owner(&path), (own.0, own.1, mode));
    }
    if own.0 != 0 {
        return;
    }
    chown(&path, Some(12_345), Some(54_321)).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    assert_eq!(write(&path, b"two").unwrap(), Notice::Nothing);
    assert_eq!((owner(&path), fs::read(&path).unwrap()), ((12_345, 54_321, 0o640), b"two".to_vec()));

    let (of_service, of_root) = (home.path().join("service"), home.path().join("root"));
    fs::create_dir(&of_service).unwrap();
    fs::create_dir(&of_root).unwrap();
    chown(&of_service, Some(12_345), Some(54_321)).unwrap();
    assert_eq!(write(&of_service.join("new"), b"x").unwrap(), Notice::Nothing);
    assert_eq!(owner(&of_service.join("new")), (12_345, 54_321, 0o600));
    assert_eq!(write(&of_root.join("new"), b"x").unwrap(), Notice::RootOnly);
    assert_eq!(owner(&of_root.join("new")), (0, 0, 0o600));
}

proptest! {
    #[test]
    fn editing_keeps_other_lines(
        lines in prop::collection::vec("(alice|bob|carol|#alice):[a-z]{0,5}", 0..6),
        end in "\n|\r\n|\r",
        last in any::<bool>(),
    ) {
        let mut text = lines.join(&end);
        if last { text.push_str(&end); }
        let without = remove(text.as_bytes(), "alice").unwrap_or_else(|| text.clone().into_bytes());
        let without = without.strip_suffix(NO_USERS_COMMENT).unwrap_or(&without);
        let kept: Vec<_> = htpasswd::lines(without).map(<[u8]>::to_vec).collect();
        let expected: Vec<_> = htpasswd::lines(text.as_bytes()).filter(|line| !line.starts_with(b"alice:")).map(<[u8]>::to_vec).collect();
        prop_assert_eq!(kept, expected);
    }
}
