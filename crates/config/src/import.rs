//! Converts the PHP broker's `config.ini` to TOML, with a remark on everything that differs.
//!
//! Works on bytes and text, without I/O. The result is always a valid configuration. The TOML text must never contain the database's
//! password, which is returned beside it.

mod ini;

use std::fmt::{self, Write as _};
use std::path::Path;

use super::{StoreUrl, values};
use crate::limits;

/// The result of an import.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Imported {
    /// A configuration file for `wsmb`, with the remarks as comments.
    pub toml: String,
    /// What the user must know, one or two sentences each.
    pub remarks: Vec<String>,
    /// The database's password, to be written to the file that the configuration names.
    pub password: Option<String>,
    /// The value of `keep_data`, if it is ambiguous and the caller has not decided: a text such as `false`, which the PHP broker read as true.
    pub undecided: Option<String>,
}

/// Hides the password.
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

/// The file is larger than [`limits::CONFIGURATION_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl fmt::Display for TooLarge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is larger than {} bytes, the maximum for a configuration", limits::CONFIGURATION_BYTES)
    }
}

impl std::error::Error for TooLarge {}

/// Reads `bytes` as PHP's `parse_ini_file` does in its raw mode, and converts them to TOML. If the database has a password, the
/// configuration refers to `password_file`. `keep` decides whether messages are kept if `keep_data` is ambiguous. If `keep` is `None`,
/// messages are kept, as by the PHP broker, so that waiting messages in the table are not lost.
///
/// # Errors
/// [`TooLarge`]. All other problems become remarks.
pub fn import(bytes: &[u8], password_file: &Path, keep: Option<bool>) -> Result<Imported, TooLarge> {
    if bytes.len() > limits::CONFIGURATION_BYTES {
        return Err(TooLarge);
    }
    let (ini, remarks) = ini::parse(&String::from_utf8_lossy(bytes));
    let mut import = Importer { ini, remarks, password: None, undecided: None };
    let keep = import.keep(keep);
    let sections = [import.server(), import.channels(keep), import.auth(), import.store(keep, password_file)];
    import.secrets();
    import.remark_unknown_keys();
    let mut toml = "# Made by `wsmb import` from the PHP broker's config.ini.\n".to_owned();
    for remark in &import.remarks {
        let _infallible = writeln!(toml, "#\n# * {remark}");
    }
    for section in sections {
        toml.push('\n');
        toml.push_str(&section);
    }
    let Importer { remarks, password, undecided, .. } = import;
    Ok(Imported { toml, remarks, password, undecided })
}

struct Importer {
    ini: ini::Ini,
    remarks: Vec<String>,
    password: Option<String>,
    undecided: Option<String>,
}

/// Quotes a text for TOML.
fn quoted(text: &str) -> String {
    toml::Value::String(text.replace(['\n', '\r'], " ")).to_string()
}

/// Percent-encodes a text for a URL.
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

/// Patterns of channels on which gateways reply. The PHP broker's file names no channels.
const CALLBACKS: [&str; 4] = ["*callback*", "*Callback*", "*reply*", "*response*"];

/// How long such a reply is kept: a client that returns after an hour repeats its request.
const CALLBACK_TTL: &str = "1h";

/// Whether PHP reads the text as true: all texts except the empty text and `0`.
fn is_truthy(text: &str) -> bool {
    !text.is_empty() && text != "0"
}

impl Importer {
    fn remark(&mut self, text: String) {
        self.remarks.push(text);
    }

    /// Takes the values of all `keys`, and returns the value of the first key that is set.
    fn take(&mut self, section: &str, keys: &[&str]) -> Option<String> {
        let found: Vec<_> = keys.iter().filter_map(|key| self.ini.take(section, key)).collect();
        found.into_iter().next()
    }

    /// Takes a whole number. Any other text gives a remark and `None` (PHP would read the digits at its start).
    fn take_number(&mut self, section: &str, key: &str) -> Option<i64> {
        let text = self.take(section, &[key])?;
        match text.trim().parse::<i64>() {
            Ok(number) => Some(number),
            Err(_) if text.trim().is_empty() => None,
            Err(_) => {
                self.remark(format!(
                    "[{section}] {key} = {text:?} is not a whole number; the default is used instead."
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
                self.remark(format!("[server] port = {port} is not a valid port; 8888 is used instead."));
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
            self.remark(format!("[server] host = {host:?} is not a valid address; 0.0.0.0 is used instead."));
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

    /// Reads `keep_data`. `decided` applies if the value is ambiguous.
    fn keep(&mut self, decided: Option<bool>) -> bool {
        let Some(text) = self.take("server", &["keep_data"]) else {
            self.remark(
                "[server] keep_data is not set, so the PHP broker kept no messages; keep is off here too.".to_owned(),
            );
            return false;
        };
        let word = text.trim().to_ascii_lowercase();
        if !["false", "off", "no", "none", "null"].contains(&word.as_str()) {
            return is_truthy(&text);
        }
        let read = format!(
            "[server] keep_data = {text}: the PHP broker read this non-empty text as ON: it kept messages, and its table may hold waiting messages."
        );
        self.remark(match decided {
            Some(true) => format!("{read} Messages are kept here too, as you chose."),
            Some(false) => format!("{read} Messages are not kept here, as you chose: messages waiting in the table are not delivered."),
            None => format!(
                "{read} So [channel_defaults] has keep = true, and no waiting message is lost. To keep no messages, write keep = false there: \
                 then messages waiting in the table are not delivered."
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
                    "[server] number_of_receiver = {number}: the PHP broker read this as no limit; it is 0 (all) here."
                ));
                0
            }
            Some(number) => {
                self.remark(format!("[server] number_of_receiver = {number} is above the limit; it is 0 (all) here."));
                0
            }
            None => 0,
        };
        let mut out = format!("[channel_defaults]\nreceivers = {receivers}\nkeep = {keep}\n");
        if keep {
            self.remark(format!(
                "Kept messages without a time to live wait for ever, for example replies on a callback channel that no client reads any more. Channels \
                 whose names look like callbacks ({}) have a ttl of {CALLBACK_TTL} in this file: replace the names with yours, and set a short ttl for channels with one-time passwords.",
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
            self.remark(format!("[credential] data has more than {bound} values; only the first {bound} are used."));
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
                    "Relative paths in auth.htpasswd are relative to the directory in which wsmb is started; in the PHP broker \
                     they were relative to its own directory."
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
            "This file contains password hashes in auth.users: make it readable by its owner only, or move the hashes to a password file.".to_owned(),
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
                    "The database is not used, because keep_data is off; the PHP broker did not use it either. Its address is in [store] as a comment."
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
                    "[database] prefix = {prefix:?} may contain only letters, digits and underscores; the default is used instead."
                ));
            }
        }
        match self.take_number("database", "limit") {
            Some(limit @ 1..=10_000) => {
                let _infallible = writeln!(out, "batch = {limit}");
            }
            Some(limit) => {
                self.remark(format!("[database] limit = {limit} is not from 1 to 10000; the default is used instead."))
            }
            None => {}
        }
        match self.take_number("server", "delay_send") {
            Some(delay @ 0..=60_000) => {
                let _infallible = writeln!(out, "delay = \"{delay}ms\"");
            }
            Some(delay) => {
                self.remark(format!(
                    "[server] delay_send = {delay} is not from 0 to 60000 ms; no delay is used instead."
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

    /// Builds the URL of the database without the password. `None` if the file names no database.
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
            "wsmb delivers the messages waiting in {url}, and uses the table as it is. Stop the PHP broker before you start wsmb: \
             the two must not use the table at the same time."
        ));
        if let Some(server) = url.server().filter(|server| server.host() == "localhost") {
            let (what, parameter) = if url.with_secrets().starts_with("mysql") {
                ("/run/mysqld/mysqld.sock", "socket")
            } else {
                ("/run/postgresql", "host")
            };
            self.remark(format!(
                "The PHP broker may have connected to {server} through a Unix socket; wsmb connects to a port of localhost. If the database refuses this, \
                 append ?{parameter}={what} (or the path of your socket) to the address in store.url."
            ));
        }
    }

    /// Reads `[secret]`, with which the PHP broker passed values of other sections through the environment.
    fn secrets(&mut self) {
        let used = self.take("secret", &["use_secret"]).is_some_and(|text| is_truthy(&text));
        let mode = self.take("secret", &["secret_mode"]).unwrap_or_default();
        let name = self.take("secret", &["secret_name"]).unwrap_or_default();
        let ignored = self.ini.take_section("secret");
        if used && mode == "read" {
            self.remark(format!(
                "[secret] made the PHP broker read values from the environment variable {name:?}, which took precedence over the file. They are not in \
                 this file; set them as WSMB_SECTION__KEY."
            ));
        }
        if !ignored.is_empty() {
            self.remark(format!(
                "[secret] is not imported: {}. The values of the other sections are used.",
                ignored.join(", ")
            ));
        }
    }

    /// Remarks on all values that were not taken.
    fn remark_unknown_keys(&mut self) {
        for key in self.ini.remaining() {
            self.remark(format!("{key} is not known and is omitted."));
        }
    }
}

#[cfg(test)]
mod tests;
