//! The PHP broker's `config.ini`, turned into our TOML and remarks about everything that is not the same.
//!
//! Works on bytes and texts, no I/O. The result is always a valid configuration; the database's password is in none of it, but beside it.

mod ini;

use std::fmt::{self, Write as _};
use std::path::Path;

use super::{StoreUrl, values};
use crate::limits;

/// What became of a `config.ini`.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// A configuration file for `wsmb`; the remarks stand in it as comments.
    pub toml: String,
    /// What somebody who moves here must know, one sentence or two each.
    pub remarks: Vec<String>,
    /// The database's password, for the file that the configuration names.
    pub password: Option<String>,
    /// The value of `keep_data`, if it can mean both and nobody has said which: a text such as `false`, which the PHP broker took for true.
    pub undecided: Option<String>,
}

/// Whether there is a password, not which.
impl fmt::Debug for Imported {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Imported")
            .field("toml", &self.toml)
            .field("remarks", &self.remarks)
            .field("password", &self.password.is_some())
            .field("undecided", &self.undecided)
            .finish()
    }
}

/// Why a file is not imported at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is larger than {} bytes, which no configuration is", limits::CONFIGURATION_BYTES)
    }
}

impl std::error::Error for TooLarge {}

/// Reads `bytes` as PHP's `parse_ini_file` does in its raw mode, and says the same in our words. If the database has a password, the configuration has it
/// read from `password_file`. `keep` says whether messages are kept where `keep_data` can mean both; without it they are, as the PHP broker did, so that what waits in
/// the table is not lost.
///
/// # Errors
/// [`TooLarge`]; everything else that is odd becomes a remark.
pub fn import(bytes: &[u8], password_file: &Path, keep: Option<bool>) -> Result<Imported, TooLarge> {
    if bytes.len() > limits::CONFIGURATION_BYTES {
        return Err(TooLarge);
    }
    let (ini, remarks) = ini::parse(&String::from_utf8_lossy(bytes));
    let mut import = Import { ini, remarks, password: None, undecided: None };
    let keep = import.keep(keep);
    let sections = [import.server(), import.channels(keep), import.auth(), import.store(keep, password_file)];
    import.secrets();
    import.leftovers();
    let mut toml = "# Made by `wsmb import` from the PHP broker's config.ini.\n".to_owned();
    for remark in &import.remarks {
        let _infallible = writeln!(toml, "#\n# * {remark}");
    }
    for section in sections {
        toml.push('\n');
        toml.push_str(&section);
    }
    let Import { remarks, password, undecided, .. } = import;
    Ok(Imported { toml, remarks, password, undecided })
}

struct Import {
    ini: ini::Ini,
    remarks: Vec<String>,
    password: Option<String>,
    undecided: Option<String>,
}

/// A text as TOML writes it.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace(['\n', '\r'], " ")).to_string()
}

/// A text as a part of an address.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _infallible = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// Names of channels on which gateways answer. The PHP broker's file names no channels.
const CALLBACKS: [&str; 4] = ["*callback*", "*Callback*", "*reply*", "*response*"];

/// How long such an answer waits for who asked: one that comes back after an hour asks again.
const CALLBACK_TTL: &str = "1h";

/// What PHP takes for true: every text but the empty one and `0`.
fn is_truthy(text: &str) -> bool {
    !text.is_empty() && text != "0"
}

impl Import {
    fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    /// The last value of the first of these keys that is there. Those that are there count as read.
    fn take(&mut self, section: &str, keys: &[&str]) -> Option<String> {
        let found: Vec<_> = keys.iter().filter_map(|key| self.ini.take(section, key)).collect();
        found.into_iter().next()
    }

    /// A whole number. PHP reads a leading number off any text; so does this, and remarks on it.
    fn take_number(&mut self, section: &str, key: &str) -> Option<i64> {
        let text = self.take(section, &[key])?;
        match text.trim().parse::<i64>() {
            Ok(number) => Some(number),
            Err(_) if text.trim().is_empty() => None,
            Err(_) => {
                self.remark(format!(
                    "[{section}] {key} = {text:?} is no whole number; the default of wsmb holds instead."
                ));
                None
            }
        }
    }

    fn server(&mut self) -> String {
        let host = self.take("server", &["host", "address"]);
        if let Some(path) = self.take("server", &["path"]).filter(|path| !path.is_empty() && path != "/") {
            self.remark(format!("[server] path = {path:?} is not needed: clients may connect with any path."));
        }
        let port = match self.take_number("server", "port") {
            Some(port @ 1..=65_535) => port,
            Some(port) => {
                self.remark(format!("[server] port = {port} is no port; 8888 is used instead."));
                8_888
            }
            None => {
                self.remark("[server] port is not set; 8888, the default, is used.".to_owned());
                8_888
            }
        };
        let host = host.filter(|host| !host.is_empty()).unwrap_or_else(|| "0.0.0.0".to_owned());
        let mut listen = format!("{host}:{port}");
        if values::check_listen(&listen).is_err() {
            self.remark(format!("[server] host = {host:?} is no address; 0.0.0.0 is used instead."));
            listen = format!("0.0.0.0:{port}");
        }
        if listen.starts_with("0.0.0.0:") {
            self.remark(
                "The broker listens on all addresses of this machine, as the PHP broker did, without encryption. Behind a proxy \
                 on the same machine, change 0.0.0.0 to 127.0.0.1."
                    .to_owned(),
            );
        }
        format!("[server]\nlisten = {}\n", quoted(&listen))
    }

    /// `keep_data`. `decided`: what is meant where it can mean both.
    fn keep(&mut self, decided: Option<bool>) -> bool {
        let Some(text) = self.take("server", &["keep_data"]) else {
            self.remark(
                "[server] keep_data is not set, so the PHP broker kept no messages; keep is off here, too.".to_owned(),
            );
            return false;
        };
        let word = text.trim().to_ascii_lowercase();
        if !["false", "off", "no", "none", "null"].contains(&word.as_str()) {
            return is_truthy(&text);
        }
        let read = format!(
            "[server] keep_data = {text}: the PHP broker read this as a text that is not empty, and so as ON: it did keep messages, and its table may hold some that wait."
        );
        self.remark(match decided {
            Some(true) => format!("{read} They are kept here, too, as you said."),
            Some(false) => format!("{read} Here they are not kept, as you said: what waits in the table is delivered to nobody."),
            None => format!(
                "{read} So keep = true stands in [channel_defaults], and nothing that waits is lost. If messages shall not be kept, write keep = false there: \
                 then what waits in the table is delivered to nobody."
            ),
        });
        if decided.is_none() {
            self.undecided = Some(text);
        }
        decided.unwrap_or(true)
    }

    fn channels(&mut self, keep: bool) -> String {
        let receivers = match self.take_number("server", "number_of_receiver") {
            Some(number @ 0..=1_000_000) => number,
            Some(number) if number < 0 => {
                self.remark(format!(
                    "[server] number_of_receiver = {number}: the PHP broker took this for no limit; it is 0 here."
                ));
                0
            }
            Some(number) => {
                self.remark(format!(
                    "[server] number_of_receiver = {number} is beyond every limit; it is 0, all, here."
                ));
                0
            }
            None => 0,
        };
        let mut out = format!("[channel_defaults]\nreceivers = {receivers}\nkeep = {keep}\n");
        if keep {
            self.remark(format!(
                "Kept messages wait for ever, unless they have a time to live. Nobody may come for the answer on a callback channel, or for a command to a gateway that is gone. Channels \
                 whose names look like callbacks ({}) have a ttl of {CALLBACK_TTL} in this file: change the names to yours, and give the channels of one-time passwords a short ttl.",
                CALLBACKS.join(", ")
            ));
            for pattern in CALLBACKS {
                let _infallible = write!(out, "\n[[channel]]\nname = \"{pattern}\"\nttl = \"{CALLBACK_TTL}\"\n");
            }
        }
        out
    }

    fn auth(&mut self) -> String {
        let source = self.take("credential", &["source"]).unwrap_or_default();
        let mut data = self.ini.take_all("credential", "data");
        data.retain(|value| !value.trim().is_empty());
        if data.len() > limits::LIST_ENTRIES {
            let bound = limits::LIST_ENTRIES;
            self.remark(format!("[credential] data has more than {bound} values; only the first {bound} are taken."));
            data.truncate(limits::LIST_ENTRIES);
        }
        let list = |values: &[String]| values.iter().map(|value| quoted(value)).collect::<Vec<_>>().join(", ");
        if source == "file" {
            if data.is_empty() {
                self.remark(
                    "[credential] names no password file, so nobody can connect; add one to auth.htpasswd.".to_owned(),
                );
            } else {
                self.remark(
                    "The password files in auth.htpasswd are looked for from the directory in which wsmb is started; the PHP broker \
                     looked in its own."
                        .to_owned(),
                );
            }
            return format!("[auth]\nhtpasswd = [{}]\n", list(&data));
        }
        if data.is_empty() {
            self.remark("[credential] has no users, so nobody can connect; add some with `wsmb passwd`.".to_owned());
            return "[auth]\nhtpasswd = [\"wsmb-data/.htpasswd\"]\n".to_owned();
        }
        self.remark(
            "Password hashes stand in this file, in auth.users: let nobody else read it, or move them to a password file.".to_owned(),
        );
        format!("[auth]\nhtpasswd = []\nusers = [{}]\n", list(&data))
    }

    fn store(&mut self, keep: bool, password_file: &Path) -> String {
        let mut out = "[store]\n".to_owned();
        let password = self.database_part("password");
        match self.database_url() {
            Some(Ok(url)) if keep => {
                let _infallible = writeln!(out, "url = {}", quoted(url.with_secrets()));
                if password.is_some() {
                    let _infallible = writeln!(out, "password_file = {}", quoted(&password_file.display().to_string()));
                }
                self.password = password;
                self.database_remarks(&url);
            }
            Some(Ok(url)) => {
                self.remark(
                    "The database is not used, as the PHP broker did not use it: keep_data is off. Its address stands in [store] as a comment."
                        .to_owned(),
                );
                let _infallible = writeln!(out, "# url = {}", quoted(url.with_secrets()));
            }
            Some(Err(problem)) => self.remark(format!(
                "[database] does not name a database that wsmb can use: its address {problem}. Messages are kept in the file wsmb-data/wsmb.db instead."
            )),
            None => {}
        }
        if let Some(prefix) = self.take("database", &["prefix", "database_prefix", "table_prefix"]) {
            if values::is_identifier(&prefix, 32) {
                let _infallible = writeln!(out, "prefix = {}", quoted(&prefix));
            } else {
                self.remark(format!(
                    "[database] prefix = {prefix:?} is not only letters, digits and underscores; the default holds instead."
                ));
            }
        }
        match self.take_number("database", "limit") {
            Some(limit @ 1..=10_000) => {
                let _infallible = writeln!(out, "batch = {limit}");
            }
            Some(limit) => {
                self.remark(format!("[database] limit = {limit} is not from 1 to 10000; the default holds instead."))
            }
            None => {}
        }
        match self.take_number("server", "delay_send") {
            Some(delay @ 0..=60_000) => {
                let _infallible = writeln!(out, "delay = \"{delay}ms\"");
            }
            Some(delay) => {
                self.remark(format!(
                    "[server] delay_send = {delay} is not from 0 to 60000 ms; there is no delay instead."
                ));
            }
            None => {}
        }
        out
    }

    fn database_part(&mut self, key: &str) -> Option<String> {
        let long = format!("database_{key}");
        self.take("database", &[key, &long]).filter(|value| !value.is_empty())
    }

    /// The address of the database, without the password; `None` if none is named.
    fn database_url(&mut self) -> Option<Result<StoreUrl, String>> {
        let driver = self.database_part("driver").or(self.database_part("type"));
        let [host, port, name, user] = ["host", "port", "name", "username"].map(|key| self.database_part(key));
        let scheme = match driver.as_deref() {
            None if host.is_none() && name.is_none() => return None,
            None | Some("mysql" | "mysqli" | "mariadb") => "mysql",
            Some("pgsql" | "postgres" | "postgresql") => "postgres",
            Some(other) => return Some(Err(format!("has the driver {other:?}, which is neither mysql nor pgsql"))),
        };
        let host = host.unwrap_or_else(|| "localhost".to_owned());
        let host = if host.contains(':') && !host.starts_with('[') { format!("[{host}]") } else { host };
        let mut url = format!("{scheme}://{}@{host}", encoded(&user.unwrap_or_default()));
        if let Some(port) = port {
            let _infallible = write!(url, ":{port}");
        }
        let _infallible = write!(url, "/{}", encoded(&name.unwrap_or_default()));
        Some(StoreUrl::parse(&url))
    }

    fn database_remarks(&mut self, url: &StoreUrl) {
        self.remark(format!(
            "Messages that wait in {url} are delivered by wsmb, which uses the table as it stands. Stop the PHP broker before wsmb starts: \
             the two must not use it at once."
        ));
        if let Some(server) = url.server().filter(|server| server.host() == "localhost") {
            let (what, parameter) = if url.with_secrets().starts_with("mysql") {
                ("/run/mysqld/mysqld.sock", "socket")
            } else {
                ("/run/postgresql", "host")
            };
            self.remark(format!(
                "The PHP broker may have reached {server} through a Unix socket; wsmb connects to a port of localhost. If the database refuses that, \
                 put ?{parameter}={what} (or where the socket is) behind the address in store.url."
            ));
        }
    }

    /// `[secret]`, in which values of other sections travel through the environment.
    fn secrets(&mut self) {
        let used = self.take("secret", &["use_secret"]).is_some_and(|text| is_truthy(&text));
        let mode = self.take("secret", &["secret_mode"]).unwrap_or_default();
        let name = self.take("secret", &["secret_name"]).unwrap_or_default();
        let ignored = self.ini.take_section("secret");
        if used && mode == "read" {
            self.remark(format!(
                "[secret] made the PHP broker take values from the environment variable {name:?}, over those of the file. They are not in \
                 this file; set what you need as WSMB_SECTION__KEY."
            ));
        }
        if !ignored.is_empty() {
            self.remark(format!(
                "[secret] is not imported: {}. The values of the other sections count.",
                ignored.join(", ")
            ));
        }
    }

    /// Whatever nobody has asked for.
    fn leftovers(&mut self) {
        for key in self.ini.rest() {
            self.remark(format!("{key} is not known and was left out."));
        }
    }
}

#[cfg(test)]
mod tests;
