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

/// Looks twice, as somebody does who waits until a change has settled.
fn look(credentials: &mut Credentials) -> Option<Arc<Users>> {
    match credentials.reload_if_changed() {
        Change::None => None,
        Change::New(users) => Some(users),
        Change::Settling => match credentials.reload_if_changed() {
            Change::New(users) => Some(users),
            Change::None | Change::Settling => None,
        },
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
    assert!(look(&mut credentials).is_none());
    home.write("users", &format!("bobby:{SHA}\n"));
    assert_eq!(names(&look(&mut credentials).unwrap()), ["bobby"]);
    assert!(look(&mut credentials).is_none());
}

#[test]
fn a_file_that_cannot_be_used_leaves_the_old_list_in_force_and_is_named_once() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let name = path.display().to_string();
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);

    home.write("users", "nothing but\ngarbage\n");
    assert!(look(&mut credentials).is_none());
    assert!(look(&mut credentials).is_none());
    assert_eq!(
        credentials.warnings(),
        [format!(
            "{name}: is not used: none of its lines is a user; first: {name}:1: has no colon between user and hash; the line is ignored"
        )]
    );
    assert_eq!(names(&credentials.users()), ["alice"]);

    fs::remove_file(&path).unwrap();
    assert!(look(&mut credentials).is_none());
    assert!(
        credentials.warnings()[0].starts_with(&format!("{name}: cannot be read: ")),
        "{:?}",
        credentials.warnings()
    );
    assert_eq!(names(&credentials.reload(std::slice::from_ref(&path), &[])), ["alice"]);

    home.write("users", "# nobody any more\n");
    assert_eq!(names(&look(&mut credentials).unwrap()), [""; 0]);
    assert_eq!(credentials.warnings(), [""; 0]);
}

#[test]
fn a_file_that_appears_later_is_read_then() {
    let home = Home::new();
    let mut credentials = Credentials::load(&[home.path("users")], &[]);
    assert_eq!(credentials.warnings().len(), 1);
    assert!(credentials.users().is_empty());
    home.write("users", &format!("alice:{SHA}\n"));
    assert_eq!(names(&look(&mut credentials).unwrap()), ["alice"]);
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
fn whoever_fails_has_waited_for_one_of_each_format_whether_he_exists_or_not() {
    let bcrypt = Hash::parse(BCRYPT).unwrap();
    let dearer = Hash::parse("$2y$06$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a").unwrap();
    let crypt = Hash::parse("$5$rounds=1000$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8").unwrap();
    // Alice's password is "other", that of the others is "secret"; nobody has the one of dave.
    let alice = Hash::parse("{SHA}0JQeaNqPOBUf+Gph/Fn3xc+fyqI=").unwrap();
    let of = [("alice", &alice), ("bob", &bcrypt), ("robert", &bcrypt), ("carol", &crypt), ("dave", &dearer)];
    let users = Users::new(of.map(|(user, hash)| Entry { user: user.into(), hash: hash.clone() }));
    let all = alice.effort() + bcrypt.effort() + crypt.effort() + dearer.effort();
    let table = [
        ("stranger", "secret", false, all),
        ("", "wrong", false, all),
        ("alice", "secret", false, all),
        ("bob", "wrong", false, all),
        ("carol", "wrong", false, all),
        ("dave", "wrong", false, all),
        ("robert", "secret", true, bcrypt.effort()),
        ("alice", "other", true, alice.effort()),
    ];
    let mut spent = 0;
    for (user, password, good, effort) in table {
        assert_eq!(users.verify(user, password.as_bytes()), good, "{user} {password}");
        spent += effort;
        assert_eq!(users.spent(), spent, "{user} {password}");
    }
}

#[test]
fn revoked_is_who_has_gone_or_has_another_password() {
    let list = |text: &str| Users::new(htpasswd::parse(text.as_bytes(), "test").unwrap().entries);
    let old = list(&format!("alice:{SHA}\nbob:{SHA}\ncarol:{SHA}"));
    let new = list(&format!("bob:{APR1}\ncarol:{SHA}\ndave:{SHA}"));
    let mut revoked: Vec<_> = old.revoked_by(&new).into_iter().map(|user| user.to_string()).collect();
    revoked.sort();
    assert_eq!(revoked, ["alice", "bob"]);
    assert!(old.has_same(&new, "carol") && old.has_same(&new, "") && !old.has_same(&new, "dave"));
}

#[test]
fn an_emptied_file_leaves_the_old_list_in_force_and_a_comment_makes_it_meant() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);
    for blank in ["", "\n", " \r\n\t\n", "\u{feff}"] {
        home.write("users", blank);
        assert!(look(&mut credentials).is_none(), "{blank:?}");
        let warnings = credentials.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("is not used: it is empty"), "{warnings:?}");
        assert_eq!(names(&credentials.reload(std::slice::from_ref(&path), &[])), ["alice"], "{blank:?}");
    }
    home.write("users", &format!("\u{feff}bob:{SHA}"));
    assert_eq!(names(&look(&mut credentials).unwrap()), ["bob"]);
    home.write("users", "# no users\n");
    assert!(look(&mut credentials).unwrap().is_empty());
    // Nobody was in it, so it can lose nobody.
    home.write("users", "");
    assert!(look(&mut credentials).unwrap().is_empty());
}

#[test]
fn a_file_that_is_being_written_is_read_when_it_is_whole() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\nbob:{SHA}\n"));
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);
    for part in ["", "alice", "alice:{SHA}5en6G", "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nbo"] {
        home.write("users", part);
        assert!(matches!(credentials.reload_if_changed(), Change::Settling), "{part:?}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(credentials.reload_if_changed(), Change::Settling));
    home.write("users", &format!("alice:{SHA}\nbob:{SHA}\ncarol:{SHA}\n"));
    assert!(matches!(credentials.reload_if_changed(), Change::Settling));
    assert!(matches!(credentials.reload_if_changed(), Change::New(users) if users.len() == 3));
    assert!(matches!(credentials.reload_if_changed(), Change::None));
}
