//! `wsmb cert`: makes a self-signed certificate for a network without names of its own.
//!
//! Never replaces a file without `--force`; never makes a key that other users can read.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::Args;

use super::output::{self, Style};
use super::{Failure, Outcome};
use crate::platform;

/// Make a self-signed certificate with its key, for TLS in a local network
///
/// The certificate is for the names and IP addresses under which clients reach the broker. Clients must be given a copy of the certificate, because no authority has
/// signed it; `wsmb` commands take it with --ca. A broker that uses the files reads new ones by itself. For a broker with a public name, use a certificate of a
/// certificate authority instead.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  wsmb cert
  wsmb cert broker.lan 192.168.1.7
  wsmb cert broker.lan --certificate /etc/wsmb/cert.pem --key /etc/wsmb/key.pem --force")]
pub(crate) struct Cert {
    /// Host names and IP addresses of the broker [default: the name of this computer, localhost, 127.0.0.1 and ::1]
    #[arg(value_name = "NAME")]
    names: Vec<String>,

    /// File to write the certificate to
    #[arg(long, value_name = "FILE", default_value = "wsmb-cert.pem")]
    certificate: PathBuf,

    /// File to write the private key to; only its owner can read it
    #[arg(long, value_name = "FILE", default_value = "wsmb-key.pem")]
    key: PathBuf,

    /// Replace existing files
    #[arg(long)]
    force: bool,
}

impl Cert {
    pub(crate) fn run(self) -> Outcome {
        let names = if self.names.is_empty() { default_names() } else { self.names };
        if self.certificate == self.key {
            return Err(Failure::misuse("certificate and key must be in different files"));
        }
        for file in [&self.certificate, &self.key] {
            if !self.force && file.symlink_metadata().is_ok() {
                return Err(Failure::failed(format_args!(
                    "{} exists already; clients that trust it would not trust a new one; to replace it, add --force",
                    file.display()
                )));
            }
        }
        let made = wsmb_tls::make(&names, SystemTime::now()).map_err(Failure::misuse)?;
        write(&self.key, &made.key, 0o600)?;
        write(&self.certificate, &made.certificate, 0o644)?;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let (certificate, key) = (absolute(&self.certificate), absolute(&self.key));
        let style = Style::stdout();
        output::line(&format!(
            "made a certificate for {}, valid until {}\n  certificate  {}   (give clients a copy: --ca FILE)\n  key          {}   (keep it secret; the broker's user must be able to read it)\n  SHA-256      {}\n\nFor the configuration:\n\n[server]\nlisten = [\"127.0.0.1:8888\", \"tls://0.0.0.0:8443\"]\n\n[tls]\ncertificate = {}\nkey = {}",
            names.join(", "),
            made.not_after.date(),
            style.bold(certificate.display()),
            style.bold(key.display()),
            made.fingerprint,
            toml_text(&certificate),
            toml_text(&key),
        ))
    }
}

/// Returns the path as a TOML string.
fn toml_text(path: &Path) -> String {
    toml::Value::String(path.display().to_string()).to_string()
}

/// Returns the names under which programs on this computer, and on its network, probably reach it.
fn default_names() -> Vec<String> {
    let mut names: Vec<String> = host_name().into_iter().collect();
    names.extend(["localhost", "127.0.0.1", "::1"].map(str::to_owned));
    names
}

/// The name of this computer, unless it is "localhost" or cannot be in a certificate.
fn host_name() -> Option<String> {
    let name = platform::host_name()?.trim().to_owned();
    let is_usable = !name.is_empty()
        && name != "localhost"
        && name
            .split('.')
            .all(|label| !label.is_empty() && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-'));
    is_usable.then_some(name)
}

/// Replaces a file as a whole: a broker never reads a part of it.
fn write(path: &Path, text: &str, mode: u32) -> Outcome {
    let failed = |error: io::Error| Failure::failed(format_args!("cannot write {}: {error}", path.display()));
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    // A leftover of an interrupted run: its permissions must not be taken over.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    platform::set_mode(&mut options, mode);
    let mut file = options.open(&new).map_err(failed)?;
    let written =
        file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&new, path));
    written.map_err(|error| {
        // The error of the write matters more.
        let _ = std::fs::remove_file(&new);
        failed(error)
    })
}
