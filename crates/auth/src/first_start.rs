//! Creates the first user at the first start without configuration, so that `wsmb serve` works at once and still requires a password.
//! Must never replace an existing password file.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::passwd::{self, PasswdError};
use crate::platform;

/// The name of the first user.
pub const USER: &str = "wsmb";

/// The name of the password file in the data directory.
pub const FILE: &str = ".htpasswd";

/// A new user. The password is stored nowhere else: print it once.
#[derive(Clone, PartialEq, Eq)]
pub struct NewUser {
    /// The user name.
    pub user: String,
    /// The password, in plain text.
    pub password: String,
    /// The password file that holds the hash.
    pub file: PathBuf,
}

impl fmt::Debug for NewUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NewUser({:?}, {})", self.user, self.file.display())
    }
}

/// Creates `data_dir` (readable by its owner only) and a password file with one user in it. Returns `None` if the file exists already.
/// Call this only if no configuration was given. Blocks.
///
/// # Errors
/// The directory or the file cannot be created, or the system gives no random numbers.
pub fn first_start(data_dir: &Path) -> Result<Option<NewUser>, PasswdError> {
    let file = data_dir.join(FILE);
    if file.symlink_metadata().is_ok() {
        return Ok(None);
    }
    make_private_directory(data_dir).map_err(|error| PasswdError::Io(data_dir.to_owned(), error))?;
    let password = passwd::random_password()?;
    let text = passwd::add_or_replace(b"", USER, &password)?;
    passwd::write(&file, &text)?;
    Ok(Some(NewUser { user: USER.to_owned(), password, file }))
}

/// Creates a directory and its missing parents, accessible to the owner only (mode 0700). Does nothing if the directory exists.
///
/// # Errors
/// The directory cannot be created.
pub fn make_private_directory(path: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    platform::make_directories_private(&mut builder);
    builder.create(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Credentials;

    #[test]
    fn creates_the_user_once() {
        let home = tempfile::tempdir().unwrap();
        let data = home.path().join("deep").join("wsmb-data");
        let new = first_start(&data).unwrap().unwrap();
        assert_eq!((new.user.as_str(), &new.file), ("wsmb", &data.join(".htpasswd")));
        let users = Credentials::load(std::slice::from_ref(&new.file), &[]).users();
        assert!(users.verify("wsmb", new.password.as_bytes()));
        assert!(!format!("{new:?}").contains(&new.password));
        assert_eq!(first_start(&data).unwrap(), None);
        assert!(users.verify("wsmb", new.password.as_bytes()));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(fs::metadata(&data).unwrap().permissions().mode() & 0o777, 0o700);
            assert_eq!(fs::metadata(&new.file).unwrap().permissions().mode() & 0o777, 0o600);
        }
    }

    #[test]
    fn the_error_names_the_directory_that_cannot_be_created() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("file"), "").unwrap();
        let error = first_start(&home.path().join("file").join("data")).unwrap_err().to_string();
        assert!(error.contains(&format!("{}", home.path().join("file").join("data").display())), "{error}");
    }
}
