//! The address of a store: what can be wrong with it, what can be said about it, and how it is shown.
//!
//! It may hold a password. So it shows itself without one, wherever it is printed, and no error about it repeats any part of it that could be one.

use std::fmt;
use std::net::IpAddr;
use std::path::Path;

use crate::limits;

/// What to write instead of something else.
const EXAMPLE: &str = "\"mysql://USER@HOST/DATABASE\"";

/// How characters that mean something in an address are written in a user name or password.
const ENCODED: &str = "in a user name or password write @ as %40, : as %3A, / as %2F, ? as %3F, # as %23 and % as %25";

/// `store.url`, well-formed: `sqlite:PATH`, `memory:`, or the address of a database server.
#[derive(Clone, PartialEq, Eq)]
pub struct StoreUrl(String);

/// The parts of a database server's address, but for the password.
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

/// As [`DatabaseServer`], and what stands behind the user's name.
type Parts<'a> = (DatabaseServer<'a>, Option<&'a str>);

/// A parameter, under all its names, and the values that it may have (none = any).
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
    /// Takes the address as it stands.
    ///
    /// # Errors
    /// What is wrong with it, as the rest of a sentence.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.len() > limits::STORE_URL_BYTES {
            return Err(format!("is longer than {} bytes", limits::STORE_URL_BYTES));
        }
        match text.split_once(':') {
            Some(("memory", "")) => {}
            Some(("sqlite", path)) if path.contains('\0') => {
                return Err("has a NUL character in it, which no path has".to_owned());
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

    /// The one of a file.
    #[must_use]
    pub fn sqlite(path: &Path) -> Self {
        Self(format!("sqlite:{}", path.display()))
    }

    /// As it was written, with its password. Not to be printed.
    #[must_use]
    pub fn with_secrets(&self) -> &str {
        &self.0
    }

    /// Messages are kept nowhere.
    #[must_use]
    pub fn is_memory(&self) -> bool {
        self.0 == "memory:"
    }

    /// The file that it names, if it is one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        let path = self.0.strip_prefix("sqlite:")?;
        Some(Path::new(path.strip_prefix("//").unwrap_or(path)))
    }

    /// The database server that it names, if it is one.
    #[must_use]
    pub fn server(&self) -> Option<DatabaseServer<'_>> {
        self.parts().map(|(server, _)| server)
    }

    /// There is a password in it.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.parts().is_some_and(|(_, password)| password.is_some())
    }

    fn parts(&self) -> Option<Parts<'_>> {
        let is_other = self.0.starts_with("sqlite:") || self.is_memory();
        if is_other { None } else { parts(&self.0).ok() }
    }
}

/// Without the password.
impl fmt::Display for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.parts() {
            None => f.write_str(&self.0),
            Some((server, _)) => server.fmt(f),
        }
    }
}

/// Without the password.
impl fmt::Debug for StoreUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Without the parameters, which nobody needs to know it by.
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
    /// The server's host, as it is written.
    #[must_use]
    pub fn host(self) -> &'a str {
        self.host
    }

    /// What one says to it travels within this machine.
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

    /// It is never spoken to without encryption.
    #[must_use]
    pub fn is_encrypted(self) -> bool {
        let mode = self.parameter("ssl-mode").unwrap_or_default().to_ascii_lowercase();
        mode.starts_with("require") || mode.starts_with("verify")
    }

    /// The `ssl-mode` that makes sure of encryption.
    #[must_use]
    pub fn encrypting_mode(self) -> &'static str {
        if self.is_postgres() { "require" } else { "REQUIRED" }
    }

    fn is_postgres(self) -> bool {
        self.scheme.starts_with("postgres")
    }

    fn known(self) -> &'static [Parameter] {
        if self.is_postgres() { POSTGRES } else { MYSQL }
    }

    fn parameters(self) -> impl Iterator<Item = (&'a str, &'a str)> {
        let pairs = self.query.split('&').filter(|pair| !pair.is_empty());
        pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    }

    /// The last value of a parameter, by the first of its names.
    fn parameter(self, name: &str) -> Option<&'a str> {
        let known = self.known().iter().find(|known| known.names[0] == name)?;
        self.parameters().filter(|(key, _)| known.names.contains(key)).last().map(|(_, value)| value)
    }

    fn check(self, password: Option<&str>) -> Result<(), String> {
        if self.user.is_empty() {
            return Err(format!("names no user: write {EXAMPLE}; {ENCODED}"));
        }
        if self.host.is_empty() {
            let socket = if self.is_postgres() { "?host=/DIRECTORY" } else { "?socket=/PATH" };
            return Err(format!("names no host: write {EXAMPLE}, for a socket with localhost and {socket}"));
        }
        if !is_host(self.host) {
            return Err(format!("has a host that none can have; {ENCODED}"));
        }
        let is_port = |port: &str| port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|p| p > 0);
        if self.port.is_some_and(|port| !is_port(port)) {
            return Err(format!("has a port that is no number from 1 to 65535; {ENCODED}"));
        }
        if self.database.is_empty() || self.database.contains('/') {
            return Err(format!("names no database: write {EXAMPLE}"));
        }
        if [self.user, password.unwrap_or_default(), self.database, self.query].iter().any(|part| !is_encoded(part)) {
            return Err(format!("has a % without two hexadecimal digits behind it; {ENCODED}"));
        }
        self.check_parameters()
    }

    fn check_parameters(self) -> Result<(), String> {
        for (key, value) in self.parameters() {
            let Some(known) = self.known().iter().find(|known| known.names.contains(&key)) else {
                let names: Vec<_> = self.known().iter().map(|known| known.names[0]).collect();
                // A password that was not encoded may have got here.
                let is_name = key.len() < 32 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b));
                let which = if is_name && !self.query.contains('@') { format!(" {key}") } else { String::new() };
                return Err(format!("has a parameter{which} that is not known; there are {}", names.join(", ")));
            };
            let (name, good) = (known.names[0], known.values);
            if value.is_empty() || (!good.is_empty() && !good.contains(&value.to_ascii_lowercase().as_str())) {
                let right = if good.is_empty() { "a path".to_owned() } else { good.join(", ") };
                return Err(format!("has a bad value for {name}: it may be {right}"));
            }
            if name == "host" && !is_path(value) {
                return Err(
                    "has a parameter host that is no directory of a socket: the host stands before the database"
                        .to_owned(),
                );
            }
        }
        Ok(())
    }
}

/// Takes the address of a server apart: `scheme://user:password@host:port/database?query`.
fn parts(text: &str) -> Result<Parts<'_>, String> {
    let wrong = || format!("must be written like {EXAMPLE}");
    let (scheme, rest) = text.split_once("://").ok_or_else(wrong)?;
    if rest.contains(|c: char| c.is_control() || c.is_whitespace()) {
        return Err("has a blank or a control character in it; write a blank as %20".to_owned());
    }
    if rest.contains('#') {
        return Err(format!("has a # in it; {ENCODED}"));
    }
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, database) = place.split_once('/').unwrap_or((place, ""));
    let (login, address) = authority.rsplit_once('@').unwrap_or(("", authority));
    let (user, password) = login.split_once(':').map_or((login, None), |(user, password)| (user, Some(password)));
    let (host, port) = match address.rfind(']') {
        Some(end) => (&address[..=end], address[end + 1..].strip_prefix(':')),
        None => address.split_once(':').map_or((address, None), |(host, port)| (host, Some(port))),
    };
    Ok((DatabaseServer { scheme, user, host, port, database, query }, password))
}

/// A name, an address, an IPv6 address in brackets, or the path of a socket's directory.
fn is_host(host: &str) -> bool {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']').is_some_and(|v6| v6.parse::<std::net::Ipv6Addr>().is_ok()),
        None if is_path(host) => is_encoded(host),
        None => host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte)),
    }
}

/// An absolute path, whose first slash may be encoded.
fn is_path(text: &str) -> bool {
    text.starts_with('/') || text.get(..3).is_some_and(|start| start.eq_ignore_ascii_case("%2f"))
}

/// Every `%` has two hexadecimal digits behind it.
fn is_encoded(text: &str) -> bool {
    text.split('%').skip(1).all(|rest| rest.len() >= 2 && rest.bytes().take(2).all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn good_ones_are_shown_without_their_secrets() {
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
    fn bad_ones_are_told_without_their_secrets() {
        let table = [
            ("mysql:geheim", "must be written like"),
            ("mysql://h/d", "names no user"),
            ("mysql://u:geheim@/d", "names no host"),
            ("mysql://u:geheim@h", "names no database"),
            ("mysql://u:geheim@h/a/b", "names no database"),
            ("mysql://u:geh#eim@h/d", "has a # in it"),
            ("mysql://u:geh?eim@h/d", "names no user"),
            ("mysql://u:geh/eim@h/d", "names no user"),
            ("mysql://u:geheim%@h/d", "has a % without two"),
            ("mysql://u:geheim@h:geheim/d", "has a port that is no number"),
            ("mysql://u:geheim@h:0/d", "has a port that is no number"),
            ("mysql://u:geheim@h o/d", "has a blank"),
            ("mysql://u:geheim@h,i/d", "has a host that none can have"),
            ("mysql://u@h/d?geheim@", "has a parameter that is not known; there are ssl-mode, ssl-ca"),
            ("mysql://u@h/d?charset=x", "has a parameter charset that is not known"),
            ("postgres://u@h/d?password=geheim", "has a parameter password that is not known"),
            ("mysql://u@h/d?ssl-mode=require", "has a bad value for ssl-mode: it may be disabled, preferred, required"),
            ("postgres://u@h/d?sslmode=REQUIRED", "has a bad value for ssl-mode: it may be disable, allow"),
            ("postgres://u@h/d?host=other", "has a parameter host that is no directory"),
            ("mysql://u@h/d?ssl-ca=", "has a bad value for ssl-ca: it may be a path"),
            ("oracle://u:geheim@h/d", "must be \"sqlite:PATH\", \"memory:\""),
            ("sqlite://", "names no file"),
        ];
        for (text, told) in table {
            let error = StoreUrl::parse(text).expect_err(text);
            assert!(error.starts_with(told), "{text}: {error}");
            assert!(!error.contains("geh") && !error.contains("eim"), "{text}: {error}");
        }
        assert!(StoreUrl::parse(&format!("sqlite:{}", "x".repeat(limits::STORE_URL_BYTES))).is_err());
    }

    #[test]
    fn what_travels_in_the_open_is_known() {
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
        fn no_text_shows_a_password(before in "\\PC{0,8}", after in "[@:/?#%a-z]{0,12}") {
            let text = format!("mysql://u:{before}geheim{after}@h/d");
            match StoreUrl::parse(&text) {
                Ok(url) => prop_assert!(!url.to_string().contains("geheim"), "{url}"),
                Err(error) => prop_assert!(!error.contains("geheim"), "{error}"),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in "(mysql|postgres|sqlite)?:?/{0,2}\\PC{0,30}") {
            if let Ok(url) = StoreUrl::parse(&text) {
                let _ = (url.to_string(), url.server().map(|server| (server.is_local(), server.is_encrypted())));
            }
        }
    }
}
