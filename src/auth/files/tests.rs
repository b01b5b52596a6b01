//! Password files that change, disappear, break, and come back.

use super::*;

const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
const APR1: &str = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";
const BCRYPT: &str = "$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a";

fn names(users: &Users) -> Vec<&str> {
    let mut names: Vec<_> = users.hashes.keys().map(|name| &**name).collect();
    names.sort_unstable();
    names
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        // As editors and `wsmb passwd` do: another inode each time, whatever the clock's resolution.
        let (path, new) = (self.path(name), self.path("new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }
}

#[test]
fn files_come_in_their_order_and_before_inline_entries() {
    let home = Home::new();
    let first = home.write("first", &format!("alice:{SHA}\n"));
    let second = home.write("second", &format!("alice:{APR1}\nbob:{APR1}\n"));
    let credentials = Credentials::load(&[first, second], &[format!("bob:{SHA}"), format!("carol:{BCRYPT}")]);
    let users = credentials.users();
    assert_eq!(names(&users), ["alice", "bob", "carol"]);
    assert_eq!(users.hash_of("alice"), Some(&Hash::parse(SHA).unwrap()));
    assert_eq!(users.hash_of("bob"), Some(&Hash::parse(APR1).unwrap()));
    assert_eq!(credentials.warnings(), [""; 0]);
}

#[test]
fn a_changed_file_is_read_again_and_an_unchanged_one_is_not() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let mut credentials = Credentials::load(&[path], &[]);
    assert!(credentials.reload_if_changed().is_none());
    home.write("users", &format!("bobby:{SHA}\n"));
    assert_eq!(names(&credentials.reload_if_changed().unwrap()), ["bobby"]);
    assert!(credentials.reload_if_changed().is_none());
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_old_list_in_force_and_is_named_once() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let name = path.display().to_string();
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);

    home.write("users", "nothing but\ngarbage\n");
    assert!(credentials.reload_if_changed().is_none());
    assert!(credentials.reload_if_changed().is_none());
    assert_eq!(
        credentials.warnings(),
        [format!(
            "{name}: is not used: none of its lines is a user; first: {name}:1: has no colon between user and hash; the line is ignored"
        )]
    );
    assert_eq!(names(&credentials.users()), ["alice"]);

    fs::remove_file(&path).unwrap();
    assert!(credentials.reload_if_changed().is_none());
    assert!(
        credentials.warnings()[0].starts_with(&format!("{name}: cannot be read: ")),
        "{:?}",
        credentials.warnings()
    );
    assert_eq!(names(&credentials.reload(std::slice::from_ref(&path), &[])), ["alice"]);

    home.write("users", "# nobody any more\n");
    assert_eq!(names(&credentials.reload_if_changed().unwrap()), [""; 0]);
    assert_eq!(credentials.warnings(), [""; 0]);
}

#[test]
fn a_file_that_appears_later_is_read_then() {
    let home = Home::new();
    let mut credentials = Credentials::load(&[home.path("users")], &[]);
    assert_eq!(credentials.warnings().len(), 1);
    assert!(credentials.users().is_empty());
    home.write("users", &format!("alice:{SHA}\n"));
    assert_eq!(names(&credentials.reload_if_changed().unwrap()), ["alice"]);
}

#[test]
fn a_reload_takes_other_files_and_entries() {
    let home = Home::new();
    let first = home.write("first", &format!("alice:{SHA}\n"));
    let second = home.write("second", &format!("bob:{SHA}\n"));
    let mut credentials = Credentials::load(&[first], &[format!("carol:{SHA}")]);
    let users = credentials.reload(&[second], &["dave".to_owned(), format!("erin:{SHA}")]);
    assert_eq!(names(&users), ["bob", "erin"]);
    assert_eq!(
        credentials.warnings(),
        ["auth.users, entry 1: has no colon between user and hash; the line is ignored"]
    );
}

#[test]
fn doubts_count_weak_hashes_for_each_file_and_tell_if_there_is_nobody() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\nbob:{APR1}\ncarol:{BCRYPT}\n"));
    let doubts = Credentials::load(std::slice::from_ref(&path), &[format!("dave:{SHA}")]).doubts(false);
    assert_eq!(
        doubts,
        [
            format!(
                "{}: 2 password(s) with a weak hash ({{SHA}} or $apr1$); set them anew with `wsmb passwd`",
                path.display()
            ),
            "auth.users: 1 password(s) with a weak hash ({SHA} or $apr1$)".to_owned(),
        ]
    );
    let nobody = Credentials::load(&[], &[]);
    assert_eq!(nobody.doubts(false), ["there are no users, so nobody can connect; add one with `wsmb passwd`"]);
    assert_eq!(nobody.doubts(true), [""; 0]);
}

#[test]
fn whoever_fails_has_waited_for_the_slowest_format_and_not_twice() {
    let bcrypt = Hash::parse(BCRYPT).unwrap();
    // Alice's password is "other"; bob's, under the slowest format, is "secret".
    let alice = Hash::parse("{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=").unwrap();
    let users = Users::new([
        Entry { user: "alice".into(), hash: alice.clone() },
        Entry { user: "bob".into(), hash: bcrypt.clone() },
    ]);
    let table = [
        ("stranger", "secret", false, bcrypt.effort()),
        ("alice", "secret", false, alice.effort() + bcrypt.effort()),
        ("bob", "wrong", false, bcrypt.effort()),
        ("bob", "secret", true, bcrypt.effort()),
        ("alice", "other", true, alice.effort()),
    ];
    let mut spent = 0;
    for (user, password, good, effort) in table {
        assert_eq!(users.verify(user, password.as_bytes()), good, "{user} {password}");
        spent += effort;
        assert_eq!(users.spent(), spent, "{user} {password}");
    }
}
