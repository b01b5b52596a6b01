//! Parses and displays the URL of a store.
//!
//! A URL may contain a password. Its `Display` and `Debug` outputs must never contain the password, and an error must never repeat a part
//! of the URL that could be one.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::limits;

/// An example for error messages.
const EXAMPLE: &str = "\"mysql://USER@HOST/DATABASE\"";

/// How to encode the special characters of a URL in a user name or password.
const ENCODED: &str = "in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25";

/// A valid `store.url`: `sqlite:PATH`, `memory:`, or the URL of a database server.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

/// The parts of the URL of a database server, without the password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatabaseServer<'a> {
    /// `mysql`, `mariadb`, `postgres` or `postgresql`.
    scheme: &'a str,
    user: &'a str,
    host: &'a str,
    port: Option<&'a str>,
    database: &'a str,
    /// `a=b&c=d`
    query: &'a str,
}

/// The server and the password.
type Parts<'a> = (DatabaseServer<'a>, Option<&'a str>);

/// A parameter of the query: its names, and its allowed values (empty: any path).
struct Parameter {
    names: &'static [&'static str],
    values: &'static [&'static str],
}

const fn parameter(names: &'static [&'static str], values: &'static [&'static str]) -> Parameter {
    Parameter { names, values }
}

const MYSQL: &[Parameter] = &[
    parameter(&["ssl-mode", "sslmode"], &["disabled", "preferred", "required", "verify_ca", "verify_identity"]),
    parameter(&["ssl-ca", "sslca"], &[]),
    parameter(&["ssl-cert", "sslcert"], &[]),
    parameter(&["ssl-key", "sslkey"], &[]),
    parameter(&["socket"], &[]),
];

const POSTGRES: &[Parameter] = &[
    parameter(&["ssl-mode", "sslmode"], &["disable", "allow", "prefer", "require", "verify-ca", "verify-full"]),
    parameter(&["ssl-ca", "sslrootcert", "ssl-root-cert"], &[]),
    parameter(&["ssl-cert", "sslcert"], &[]),
    parameter(&["ssl-key", "sslkey"], &[]),
    parameter(&["host"], &[]),
];

impl StoreUrl {
    /// Validates the URL.
    ///
    /// # Errors
    /// The problem, as the end of a sentence that begins with the key.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > limits::STORE_URL_BYTES {
            return Err(format!("is longer than {} bytes", limits::STORE_URL_BYTES));
        }
        match text.split_once(':') {
            Some(("memory", "")) => {}
            Some(("sqlite", path)) if path.contains('\0') => {
                return Err("contains a NUL character, which no path may contain".to_owned());
            }
            Some(("sqlite", path)) if !matches!(path, "" | "//") => {}
            Some(("sqlite", _)) => return Err("names no file: write \"sqlite:wsmb-data/wsmb.db\"".to_owned()),
            Some(("mysql" | "mariadb" | "postgres" | "postgresql", _)) => {
                let (server, password) = parts(text)?;
                server.check(password)?;
            }
            _ => {
                return Err(format!(
                    "must be \"sqlite:PATH\", \"memory:\", {EXAMPLE} or \"postgres://USER@HOST/DATABASE\""
                ));
            }
        }
        Ok(Self(text.to_owned()))
    }

    /// The URL of an SQLite file.
    #[must_use]
    pub fn sqlite(path: &Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// The URL as written, with its password. Must not be printed.
    #[must_use]
    pub fn with_secrets(&self) -> &str {
        &self.0
    }

    /// Whether messages are kept in memory only.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.0 == "memory:"
    }

    /// The path of an SQLite store.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        let path = self.0.strip_prefix("sqlite:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }

    /// The database server, if the URL names one.
    #[must_use]
    pub fn server(&self) -> Option<DatabaseServer<'_>> {
        self.parts().map(|(server, _)| server)
    }

    /// Whether the URL contains a password.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.parts().is_some_and(|(_, password)| password.is_some())
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let is_other = self.0.starts_with("sqlite:") || self.is_memory();
        if is_other { None } else { parts(&self.0).ok() }
    }
}

/// Omits the password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            None => f.write_str(&self.0),
            Some((server, _)) => server.fmt(f),
        }
    }
}

/// Omits the password.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Omits the parameters, which are not needed to identify the server.
impl fmt::Display for DatabaseServer<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}@{}", self.scheme, self.user, self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        write!(f, "/{}", self.database)
    }
}

impl<'a> DatabaseServer<'a> {
    /// The host as written.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.host
    }

    /// Whether the connection stays within this machine.
    #[must_use]
    pub fn is_local(self) -> bool {
        let host = self.host.trim_start_matches('[').trim_end_matches(']');
        let socket = if self.is_postgres() { self.parameter("host") } else { self.parameter("socket") };
        match host.parse::<IpAddr>() {
            _ if socket.is_some_and(is_path) || is_path(host) => true,
            Ok(address) => address.to_canonical().is_loopback(),
            Err(_) => host.eq_ignore_ascii_case("localhost"),
        }
    }

    /// Whether the connection is always encrypted.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        let mode = self.parameter("ssl-mode").unwrap_or_default().to_ascii_lowercase();
        mode.starts_with("require") || mode.starts_with("verify")
    }

    /// The value of `ssl-mode` that enforces encryption.
    #[must_use]
    pub fn encrypting_mode(self) -> &'static str {
        if self.is_postgres() { "require" } else { "REQUIRED" }
    }

    fn is_postgres(self) -> bool {
        self.scheme.starts_with("postgres")
    }

    fn allowed_parameters(self) -> &'static [Parameter] {
        if self.is_postgres() { POSTGRES } else { MYSQL }
    }

    fn parameters(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The last value of a parameter, by the first of its names.
    fn parameter(self, name: &str) -> Option<&'a str> {
        let known = self.allowed_parameters().iter().find(|known| known.names[0] == name)?;
        self.parameters().filter(|(key, _)| known.names.contains(key)).last().map(|(_, value)| value)
    }

    fn check(self, password: Option<&str>) -> Result<(), String> {
        if self.user.is_empty() {
            return Err(format!("names no user: write {EXAMPLE}; {ENCODED}"));
        }
        if self.host.is_empty() {
            let socket = if self.is_postgres() { "?host=/DIRECTORY" } else { "?socket=/PATH" };
            return Err(format!("names no host: write {EXAMPLE}; for a socket, use localhost and {socket}"));
        }
        if !is_host(self.host) {
            return Err(format!("has an invalid host; {ENCODED}"));
        }
        let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
        if self.port.is_some_and(|port| !is_port(port)) {
            return Err(format!("has a port that is not a number from 1 to 65535; {ENCODED}"));
        }
        if self.database.is_empty() || self.database.contains('/') {
            return Err(format!("names no database: write {EXAMPLE}"));
        }
        if [self.user, password.unwrap_or_default(), self.database, self.query].iter().any(|part| !is_encoded(part)) {
            return Err(format!("has a % without two hexadecimal digits after it; {ENCODED}"));
        }
        self.check_parameters()
    }

    fn check_parameters(self) -> Result<(), String> {
        for (key, value) in self.parameters() {
            let Some(known) = self.allowed_parameters().iter().find(|known| known.names.contains(&key)) else {
                let names: Vec<_> = self.allowed_parameters().iter().map(|known| known.names[0]).collect();
                // The key may be a part of a password that was not encoded.
                let is_name = key.len() < 32 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                let which = if is_name && !self.query.contains('@') { format!(" {key}") } else { String::new() };
                return Err(format!("has an unknown parameter{which}; the parameters are {}", names.join(", ")));
            };
            let (name, good) = (known.names[0], known.values);
            if value.is_empty() || (!good.is_empty() && !good.contains(&value.to_ascii_lowercase().as_str())) {
                let right = if good.is_empty() { "a path".to_owned() } else { format!("one of {}", good.join(", ")) };
                return Err(format!("has an invalid value for {name}; the value must be {right}"));
            }
            if name == "host" && !is_path(value) {
                return Err(
                    "has a parameter host that is not the directory of a socket; write a host name before the database"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Splits the URL of a server: `scheme://user:password@host:port/database?query`.
fn parts(text: &str) -> Result<Parts<'_>, String> {
    let wrong = || format!("must be written like {EXAMPLE}");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if rest.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("contains a space or a control character; write a space as %20".to_owned());
    }
    if rest.contains('#') {
        return Err(format!("contains a #; {ENCODED}"));
    }
    let (address_and_database, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = address_and_database.split_once('/').unwrap_or((address_and_database, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let (host, port) = match address.rfind(']') {
        Some(end) => (&address[..=end], address[end + 1..].strip_prefix(':')),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    Ok((DatabaseServer { scheme, user, host, port, database, query }, password))
}

/// Whether the text is a host name, an IPv4 address, an IPv6 address in brackets, or the path of a socket's directory.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None if is_path(host) => is_encoded(host),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    }
}

/// Whether the text is an absolute path. The first slash may be encoded.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f"))
}

/// Whether each `%` is followed by two hexadecimal digits.
fn is_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn valid_urls_are_shown_without_their_secrets() {
        let table = [
            ("memory:", "memory:"),
            ("sqlite:a b.db", "sqlite:a b.db"),
            ("mysql://u@h/d", "mysql://u@h/d"),
            ("mariadb://u:geheim@h:3307/d?ssl-mode=REQUIRED", "mariadb://u@h:3307/d"),
            ("postgres://u%40x:geheim%2F@[::1]:5433/d", "postgres://u%40x@[::1]:5433/d"),
            ("postgresql://u:geheim@%2Frun%2Fpostgresql/d", "postgresql://u@%2Frun%2Fpostgresql/d"),
            ("mysql://u:geheim:@geheim@h/d?socket=/run/geheim.sock", "mysql://u@h/d"),
        ];
        for (text, shown) in table {
            let url = StoreUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.to_string(), format!("{url:?}")), (shown.to_owned(), shown.to_owned()));
            assert_eq!(url.has_password(), text.contains(":geheim"), "{text}");
            assert_eq!(url.with_secrets(), text);
        }
    }

    #[test]
    fn errors_about_invalid_urls_do_not_contain_secrets() {
        let table = [
            ("mysql:geheim", "must be written like"),
            ("mysql://h/d", "names no user"),
            ("mysql://u:geheim@/d", "names no host"),
            ("mysql://u:geheim@h", "names no database"),
            ("mysql://u:geheim@h/a/b", "names no database"),
            ("mysql://u:geh#eim@h/d", "contains a #"),
            ("mysql://u:geh?eim@h/d", "names no user"),
            ("mysql://u:geh/eim@h/d", "names no user"),
            ("mysql://u:geheim%@h/d", "has a % without two"),
            ("mysql://u:geheim@h:geheim/d", "has a port that is not a number"),
            ("mysql://u:geheim@h:0/d", "has a port that is not a number"),
            ("mysql://u:geheim@h o/d", "contains a space"),
            ("mysql://u:geheim@h,i/d", "has an invalid host"),
            ("mysql://u@h/d?geheim@", "has an unknown parameter; the parameters are ssl-mode, ssl-ca"),
            ("mysql://u@h/d?charset=x", "has an unknown parameter charset;"),
            ("postgres://u@h/d?password=geheim", "has an unknown parameter password;"),
            (
                "mysql://u@h/d?ssl-mode=require",
                "has an invalid value for ssl-mode; the value must be one of disabled, preferred, required",
            ),
            (
                "postgres://u@h/d?sslmode=REQUIRED",
                "has an invalid value for ssl-mode; the value must be one of disable, allow",
            ),
            ("postgres://u@h/d?host=other", "has a parameter host that is not the directory"),
            ("mysql://u@h/d?ssl-ca=", "has an invalid value for ssl-ca; the value must be a path"),
            ("oracle://u:geheim@h/d", "must be \"sqlite:PATH\", \"memory:\""),
            ("sqlite://", "names no file"),
        ];
        for (text, expected) in table {
            let error = StoreUrl::parse(text).expect_err(text);
            assert!(error.starts_with(expected), "{text}: {error}");
            assert!(!error.contains("geh") && !error.contains("eim"), "{text}: {error}");
        }
        assert!(StoreUrl::parse(&format!("sqlite:{}", "x".repeat(limits::STORE_URL_BYTES))).is_err());
    }

    #[test]
    fn local_and_encrypted_connections_are_recognised() {
        let table = [
            ("mysql://u@localhost/d", true, false),
            ("mysql://u@127.0.0.1:1/d", true, false),
            ("postgres://u@[::1]/d", true, false),
            ("postgres://u@h/d?host=/run/postgresql", true, false),
            ("mysql://u@h/d?socket=/run/mysqld/mysqld.sock", true, false),
            ("mysql://u@h/d", false, false),
            ("mysql://u@h/d?sslmode=preferred", false, false),
            ("mysql://u@h/d?ssl-mode=VERIFY_IDENTITY", false, true),
            ("postgres://u@192.168.1.2/d?sslmode=require", false, true),
            ("postgres://u@h/d?sslmode=require&sslmode=prefer", false, false),
        ];
        for (text, local, encrypted) in table {
            let url = StoreUrl::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let server = url.server().expect("a server");
            assert_eq!((server.is_local(), server.is_encrypted()), (local, encrypted), "{text}");
        }
    }

    proptest! {
        #[test]
        fn outputs_and_errors_never_contain_the_password(before in "\\PC{0,8}", after in "[@:/?#%a-z]{0,12}") {
            let text = format!("mysql://u:{before}geheim{after}@h/d");
            match StoreUrl::parse(&text) {
                Ok(url) => prop_assert!(!url.to_string().contains("geheim"), "{url}"),
                Err(error) => prop_assert!(!error.contains("geheim"), "{error}"),
            }
        }

        #[test]
        fn parsing_any_text_does_not_panic(text in "(mysql|postgres|sqlite)?:?/{0,2}\\PC{0,30}") {
            if let Ok(url) = StoreUrl::parse(&text) {
                let _ = (url.to_string(), url.server().map(|server| (server.is_local(), server.is_encrypted())));
            }
        }
    }
}
