//! `wsmb passwd`: makes, changes, removes and verifies the users of an htpasswd file.
//!
//! A password is never an argument: other users of the machine could read it. It is typed without echo, or comes from standard input or a file.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::connect::read_password;
use super::{Failure, Outcome};
use super::{contexts, output};
use wsmb_auth::passwd::{self, Notice};

/// Make a user in a password file, or give him a new password
///
/// The file is made if there is none. A running broker takes the change over by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb passwd wsmb-data/.htpasswd gateway
  printf '%s\\n' \"$NEW_PASSWORD\" | wsmb passwd wsmb-data/.htpasswd gateway
  wsmb passwd wsmb-data/.htpasswd gateway --delete")]
pub(crate) struct Passwd {
    /// The password file (htpasswd format)
    file: PathBuf,

    /// The user
    user: String,

    /// Remove the user
    #[arg(long, conflicts_with_all = ["verify", "password_file"])]
    delete: bool,

    /// Say whether a password is the user's (exit code 0: it is), and change nothing
    #[arg(long)]
    verify: bool,

    /// File whose first line is the password (else it is asked for, or read from standard input)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
}

impl Passwd {
    pub(crate) fn run(&self) -> Outcome {
        let old = read(&self.file)?;
        let (file, user) = (self.file.display(), &self.user);
        if self.delete {
            let text = old.as_deref().and_then(|old| passwd::remove(old, user)).ok_or_else(|| self.unknown())?;
            self.write(&text)?;
            return output::line(&format!("removed the user {user} from {file}"));
        }
        if self.verify {
            let old = old.ok_or_else(|| self.unknown())?;
            let password = self.password(false)?;
            return match passwd::check(&old, user, &password) {
                Some(true) => output::line(&format!("this is the password of the user {user}")),
                Some(false) => Err(Failure::failed(format_args!("this is not the password of the user {user}"))),
                None => Err(self.unknown()),
            };
        }
        let known = old.as_deref().is_some_and(|old| passwd::remove(old, user).is_some());
        let password = self.password(true)?;
        let text =
            passwd::add_or_replace(old.as_deref().unwrap_or_default(), user, &password).map_err(Failure::failed)?;
        self.write(&text)?;
        if known {
            store_again(&self.file, user, &password);
        }
        output::line(&match (known, old.is_some()) {
            (true, _) => format!("the user {user} has a new password in {file}"),
            (false, true) => format!("made the user {user} in {file}"),
            (false, false) => format!("made {file} with the user {user}"),
        })
    }

    /// Writes the file, and says what has to be done about its owner.
    fn write(&self, text: &[u8]) -> Outcome {
        let file = self.file.display();
        match passwd::write(&self.file, text).map_err(Failure::failed)? {
            Notice::Nothing => {}
            Notice::OwnerLost { owner: (user, group) } => eprintln!(
                "warning: {file} belonged to user {user} and group {group}, and now belongs to you; the broker may be unable to read it: sudo chown {user}:{group} {file}"
            ),
            Notice::RootOnly => eprintln!(
                "warning: only root can read {file}; if the broker runs as another user, give the file to that user: chown USER: {file}"
            ),
        }
        Ok(())
    }

    fn unknown(&self) -> Failure {
        Failure::failed(format_args!(
            "there is no user {} with a hash that can be used in {}",
            self.user,
            self.file.display()
        ))
    }

    fn password(&self, new: bool) -> Result<String, Failure> {
        if let Some(path) = &self.password_file {
            return read_password(path);
        }
        if !io::stdin().is_terminal() {
            return first_line(&mut io::stdin().lock());
        }
        let password = ask(&format!("Password for {}: ", self.user))?;
        if new && ask("The same again: ")? != password {
            return Err(Failure::failed("the two passwords differ; nothing was changed"));
        }
        Ok(password)
    }
}

/// The password is changed already: that the login of this person's commands cannot be changed is no failure.
fn store_again(file: &Path, user: &str, password: &str) {
    match contexts::password_changed(file, user, password) {
        Ok(true) => output::note("the login that is stored for your commands has the new password, too"),
        Err(Failure::Failed(reason)) => output::note(&format!("warning: {reason}")),
        Ok(false) | Err(_) => {}
    }
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, Failure> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Failure::failed(format_args!("cannot read {}: {error}", path.display()))),
    }
}

/// A password from the terminal, or from standard input if that is none.
pub(crate) fn ask_or_read(user: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() { ask(&format!("Password for {user}: ")) } else { first_line(&mut io::stdin().lock()) }
}

/// Asks for a name on the terminal; `None` if nobody is there to answer.
pub(crate) fn ask_name(question: &str) -> Option<String> {
    let terminal = console::Term::stderr();
    if !io::stdin().is_terminal() {
        return None;
    }
    terminal.write_str(question).and_then(|()| terminal.read_line()).ok().filter(|name| !name.is_empty())
}

/// Asks on the terminal, without showing what is typed.
fn ask(question: &str) -> Result<String, Failure> {
    let terminal = console::Term::stderr();
    let answer = terminal.write_str(question).and_then(|()| terminal.read_secure_line());
    answer.map_err(|error| Failure::failed(format_args!("cannot read a password from the terminal: {error}")))
}

/// The first line of standard input, bounded.
fn first_line(input: &mut impl BufRead) -> Result<String, Failure> {
    let mut line = Vec::new();
    let failed =
        |error: io::Error| Failure::failed(format_args!("cannot read the password from standard input: {error}"));
    input.take(wsmb_config::limits::PASSWORD_LINE_BYTES).read_until(b'\n', &mut line).map_err(failed)?;
    let line = String::from_utf8(line).map_err(|_| Failure::failed("the password is not valid UTF-8"))?;
    Ok(line.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_standard_input_is_its_first_line() {
        for (input, password) in [("a b \r\nc", "a b "), ("x", "x"), ("é\n", "é"), ("", "")] {
            assert_eq!(first_line(&mut input.as_bytes()).unwrap(), password);
        }
        assert!(first_line(&mut &b"\xff\n"[..]).is_err());
    }
}
