//! Password files that change, disappear, become invalid and return.

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
        // Editors and `wsmb passwd` rename too. The new inode shows the change even if the clock's resolution is coarse.
        let (path, new) = (self.path(name), self.path("new"));
        fs::write(&new, text).unwrap();
        fs::rename(new, &path).unwrap();
        path
    }
}

/// Calls `reload_if_changed` again if the first call finds a file that may be incomplete.
fn reload_stable(credentials: &mut Credentials) -> Option<Arc<Users>> {
    match credentials.reload_if_changed() {
        Change::None => None,
        Change::New(users) => Some(users),
        Change::Unstable => match credentials.reload_if_changed() {
            Change::New(users) => Some(users),
            Change::None | Change::Unstable => None,
        },
    }
}

#[test]
fn earlier_files_take_precedence_and_files_over_inline_entries() {
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
    assert!(reload_stable(&mut credentials).is_none());
    home.write("users", &format!("bobby:{SHA}\n"));
    assert_eq!(names(&reload_stable(&mut credentials).unwrap()), ["bobby"]);
    assert!(reload_stable(&mut credentials).is_none());
}

#[test]
fn an_unusable_file_leaves_the_old_list_in_force_and_gives_one_warning() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let name = path.display().to_string();
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);

    home.write("users", "nothing but\ngarbage\n");
    assert!(reload_stable(&mut credentials).is_none());
    assert!(reload_stable(&mut credentials).is_none());
    assert_eq!(
        credentials.warnings(),
        [format!(
            "{name}: is not used: it has no valid line; first error: {name}:1: has no colon between user and hash; the line is ignored"
        )]
    );
    assert_eq!(names(&credentials.users()), ["alice"]);

    fs::remove_file(&path).unwrap();
    assert!(reload_stable(&mut credentials).is_none());
    assert!(
        credentials.warnings()[0].starts_with(&format!("{name}: cannot be read: ")),
        "{:?}",
        credentials.warnings()
    );
    assert_eq!(names(&credentials.reload(std::slice::from_ref(&path), &[])), ["alice"]);

    home.write("users", "# nobody any more\n");
    assert_eq!(names(&reload_stable(&mut credentials).unwrap()), [""; 0]);
    assert_eq!(credentials.warnings(), [""; 0]);
}

#[test]
fn a_file_created_later_is_read() {
    let home = Home::new();
    let mut credentials = Credentials::load(&[home.path("users")], &[]);
    assert_eq!(credentials.warnings().len(), 1);
    assert!(credentials.users().is_empty());
    home.write("users", &format!("alice:{SHA}\n"));
    assert_eq!(names(&reload_stable(&mut credentials).unwrap()), ["alice"]);
}

#[test]
fn a_reload_uses_the_new_files_and_entries() {
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
fn warnings_count_weak_hashes_of_each_file_and_report_that_there_are_no_users() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\nbob:{APR1}\ncarol:{BCRYPT}\n"));
    let warnings = Credentials::load(std::slice::from_ref(&path), &[format!("dave:{SHA}")]).all_warnings(false);
    assert_eq!(
        warnings,
        [
            format!(
                "{}: 2 password(s) with a weak hash ({{SHA}} or $apr1$); set new ones with `wsmb passwd`",
                path.display()
            ),
            "auth.users: 1 password(s) with a weak hash ({SHA} or $apr1$)".to_owned(),
        ]
    );
    let no_users = Credentials::load(&[], &[]);
    assert_eq!(no_users.all_warnings(false), ["there are no users, so nobody can connect; add one with `wsmb passwd`"]);
    assert_eq!(no_users.all_warnings(true), [""; 0]);
}

#[test]
fn a_failed_login_verifies_one_hash_of_each_format_whether_the_user_exists_or_not() {
    let bcrypt = Hash::parse(BCRYPT).unwrap();
    let dearer = Hash::parse("$2y$06$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a").unwrap();
    let crypt = Hash::parse("$5$rounds=1000$abc$Mz4DiYKTnNKbZLo/mIp3d8Y4aQBhv3uhSwxLDy55/Y8").unwrap();
    // Alice's password is "other"; bob's, robert's and carol's is "secret". No test uses the password of dave.
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
    let mut effort_spent = 0;
    for (user, password, good, effort) in table {
        assert_eq!(users.verify(user, password.as_bytes()), good, "{user} {password}");
        effort_spent += effort;
        assert_eq!(users.effort_spent(), effort_spent, "{user} {password}");
    }
}

#[test]
fn removed_users_and_changed_passwords_are_revoked() {
    let list = |text: &str| Users::new(htpasswd::parse(text.as_bytes(), "test").unwrap().entries);
    let old = list(&format!("alice:{SHA}\nbob:{SHA}\ncarol:{SHA}"));
    let new = list(&format!("bob:{APR1}\ncarol:{SHA}\ndave:{SHA}"));
    let mut revoked: Vec<_> = old.revoked_by(&new).into_iter().map(|user| user.to_string()).collect();
    revoked.sort();
    assert_eq!(revoked, ["alice", "bob"]);
    assert!(old.has_same(&new, "carol") && old.has_same(&new, "") && !old.has_same(&new, "dave"));
}

#[test]
fn an_empty_file_leaves_the_old_list_in_force_unless_it_holds_a_comment() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\n"));
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);
    for blank in ["", "\n", " \r\n\t\n", "\u{feff}"] {
        home.write("users", blank);
        assert!(reload_stable(&mut credentials).is_none(), "{blank:?}");
        let warnings = credentials.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains("is not used: it is empty"), "{warnings:?}");
        assert_eq!(names(&credentials.reload(std::slice::from_ref(&path), &[])), ["alice"], "{blank:?}");
    }
    home.write("users", &format!("\u{feff}bob:{SHA}"));
    assert_eq!(names(&reload_stable(&mut credentials).unwrap()), ["bob"]);
    home.write("users", "# no users\n");
    assert!(reload_stable(&mut credentials).unwrap().is_empty());
    // The file had no users before, so none can be lost.
    home.write("users", "");
    assert!(reload_stable(&mut credentials).unwrap().is_empty());
}

#[test]
fn a_file_is_read_only_after_its_content_is_stable() {
    let home = Home::new();
    let path = home.write("users", &format!("alice:{SHA}\nbob:{SHA}\n"));
    let mut credentials = Credentials::load(std::slice::from_ref(&path), &[]);
    for part in ["", "alice", "alice:{SHA}5en6G", "alice:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\nbo"] {
        home.write("users", part);
        assert!(matches!(credentials.reload_if_changed(), Change::Unstable), "{part:?}");
    }
    fs::remove_file(&path).unwrap();
    assert!(matches!(credentials.reload_if_changed(), Change::Unstable));
    home.write("users", &format!("alice:{SHA}\nbob:{SHA}\ncarol:{SHA}\n"));
    assert!(matches!(credentials.reload_if_changed(), Change::Unstable));
    assert!(matches!(credentials.reload_if_changed(), Change::New(users) if users.len() == 3));
    assert!(matches!(credentials.reload_if_changed(), Change::None));
}
