//! `wsmb passwd`: adds, changes, removes and verifies the users of an htpasswd file.
//!
//! Never takes a password as an argument, because other users of the computer could read it. The user types the password without echo, or the password
//! comes from standard input or a file.

use std::io::{self, BufRead, IsTerminal, Read};
use std::path::{Path, PathBuf};

use clap::Args;

use super::connect::read_password;
use super::{Failure, Outcome};
use super::{contexts, output};
use wsmb_auth::passwd::{self, Notice};

/// Add a user to a password file, or change the password of a user
///
/// Creates the file if it does not exist. A running broker reads the changed file by itself.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb passwd wsmb-data/.htpasswd gateway
  printf '%s\\n' \"$NEW_PASSWORD\" | wsmb passwd wsmb-data/.htpasswd gateway
  wsmb passwd wsmb-data/.htpasswd gateway --delete")]
pub(crate) struct Passwd {
    /// Password file (htpasswd format)
    file: PathBuf,

    /// User name
    user: String,

    /// Remove the user
    #[arg(long, conflicts_with_all = ["verify", "password_file"])]
    delete: bool,

    /// Check whether a password is the user's (exit code 0: yes; 1: no), and change nothing
    #[arg(long)]
    verify: bool,

    /// File whose first line is the password [default: asked for on a terminal, else read from standard input]
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
            update_stored_login(&self.file, user, &password);
        }
        output::line(&match (known, old.is_some()) {
            (true, _) => format!("changed the password of the user {user} in {file}"),
            (false, true) => format!("added the user {user} to {file}"),
            (false, false) => format!("created {file} with the user {user}"),
        })
    }

    /// Writes the file, and warns if the broker may be unable to read the new file.
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
        Failure::failed(format_args!("there is no user {} with a valid hash in {}", self.user, self.file.display()))
    }

    fn password(&self, new: bool) -> Result<String, Failure> {
        if let Some(path) = &self.password_file {
            return read_password(path);
        }
        if !io::stdin().is_terminal() {
            return first_line(&mut io::stdin().lock());
        }
        let password = ask(&format!("Password for {}: ", self.user))?;
        if new && ask("Repeat the password: ")? != password {
            return Err(Failure::failed("the two passwords differ; nothing was changed"));
        }
        Ok(password)
    }
}

/// Updates the stored login of the client commands. Only warns if that fails, because the password in the file is changed already.
fn update_stored_login(file: &Path, user: &str, password: &str) {
    match contexts::password_changed(file, user, password) {
        Ok(true) => output::note("changed the password in the stored login of your commands, too"),
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

/// Asks for a password on the terminal. Reads it from standard input if that is not a terminal.
pub(crate) fn ask_or_read(user: &str) -> Result<String, Failure> {
    if io::stdin().is_terminal() { ask(&format!("Password for {user}: ")) } else { first_line(&mut io::stdin().lock()) }
}

/// Asks for a name on the terminal. Returns `None` if standard input is not a terminal, or if the answer is empty.
pub(crate) fn ask_name(question: &str) -> Option<String> {
    let terminal = console::Term::stderr();
    if !io::stdin().is_terminal() {
        return None;
    }
    terminal.write_str(question).and_then(|()| terminal.read_line()).ok().filter(|name| !name.is_empty())
}

/// Asks for a password on the terminal, without echo.
fn ask(question: &str) -> Result<String, Failure> {
    let terminal = console::Term::stderr();
    let answer = terminal.write_str(question).and_then(|()| terminal.read_secure_line());
    answer.map_err(|error| Failure::failed(format_args!("cannot read a password from the terminal: {error}")))
}

/// Returns the first line of standard input: at most [`wsmb_config::limits::PASSWORD_LINE_BYTES`] bytes.
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
    fn the_password_is_the_first_line_of_standard_input() {
        for (input, password) in [("a b \r\nc", "a b "), ("x", "x"), ("é\n", "é"), ("", "")] {
            assert_eq!(first_line(&mut input.as_bytes()).unwrap(), password);
        }
        assert!(first_line(&mut &b"\xff\n"[..]).is_err());
    }
}
