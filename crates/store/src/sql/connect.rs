//! Connects to a database server: parses its address and sets up the session. Never takes a lock or reads a table.

use std::str::FromStr as _;

#[cfg(feature = "mysql")]
use sqlx::mysql::MySqlConnectOptions;
#[cfg(feature = "postgres")]
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Error};

use super::super::{Backend, Prefix, StoreError};
use super::driver::Driver;
use super::error::classify;
use crate::limits;

/// The address of a database, and the login. Never shown completely: it holds a password.
#[derive(Clone)]
pub(super) struct Access {
    pub(super) backend: Backend,
    options: Options,
    /// The address of the database, without secrets.
    pub(super) place: String,
    /// The name of the table's lock.
    pub(super) lock: String,
}

#[derive(Clone)]
enum Options {
    #[cfg(feature = "mysql")]
    MySql(Box<MySqlConnectOptions>),
    #[cfg(feature = "postgres")]
    Postgres(Box<PgConnectOptions>),
}

impl std::fmt::Debug for Access {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Access").field("place", &self.place).finish_non_exhaustive()
    }
}

fn bad(reason: impl Into<String>) -> StoreError {
    StoreError::BadUrl { reason: reason.into() }
}

impl Access {
    /// Parses a store URL. Does not connect.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`], [`StoreError::NotBuilt`].
    pub(super) fn parse(
        backend: Backend,
        url: &str,
        password: Option<&str>,
        prefix: &Prefix,
    ) -> Result<Self, StoreError> {
        let broken = |_error: Error| {
            bad(
                "is not of the form mysql://USER@HOST/DATABASE or postgres://USER@HOST/DATABASE, or has an unknown value behind the question mark",
            )
        };
        // sqlx accepts only its own names of schemes.
        let (_, rest) = url.split_once(':').unwrap_or(("", url));
        let (options, user, host, database) = match backend {
            #[cfg(feature = "mysql")]
            Backend::MySql => {
                let mut options = MySqlConnectOptions::from_str(&format!("mysql:{rest}")).map_err(broken)?;
                if let Some(password) = password {
                    options = options.password(password);
                }
                let host = options.get_socket().map_or_else(
                    || format!("{}:{}", options.get_host(), options.get_port()),
                    |socket| socket.display().to_string(),
                );
                let (user, database) = (options.get_username().to_owned(), options.get_database().map(str::to_owned));
                let options = options
                    .pipes_as_concat(false)
                    .no_engine_substitution(false)
                    .statement_cache_capacity(limits::STORE_STATEMENTS)
                    .disable_statement_logging();
                (Options::MySql(Box::new(options)), user, host, database)
            }
            #[cfg(feature = "postgres")]
            Backend::Postgres => {
                let mut options = PgConnectOptions::from_str(&format!("postgres:{rest}")).map_err(broken)?;
                if let Some(password) = password {
                    options = options.password(password);
                }
                let host = options.get_socket().map_or_else(
                    || format!("{}:{}", options.get_host(), options.get_port()),
                    |socket| socket.display().to_string(),
                );
                let (user, database) = (options.get_username().to_owned(), options.get_database().map(str::to_owned));
                let options = options
                    .application_name(&format!("wsmb {}", process_name()))
                    .statement_cache_capacity(limits::STORE_STATEMENTS)
                    .disable_statement_logging();
                (Options::Postgres(Box::new(options)), user, host, database)
            }
            #[cfg(not(all(feature = "mysql", feature = "postgres")))]
            other => return Err(StoreError::NotBuilt { backend: other.name() }),
        };
        let Some(database) = database.filter(|database| !database.is_empty()) else {
            return Err(bad("names no database; add it after the host, like mysql://USER@HOST/DATABASE"));
        };
        let scheme = if backend == Backend::MySql { "mysql" } else { "postgres" };
        let place = format!("{scheme}://{user}@{host}/{database}");
        Ok(Self { backend, options, place, lock: lock_name(&database, prefix) })
    }

    /// Opens a connection and sets it up. Takes no lock.
    ///
    /// # Errors
    /// Any error that keeps the connection from being opened.
    pub(super) async fn connect(&self) -> Result<Driver, StoreError> {
        let failed = |error: Error| classify(self.backend, &self.place, &error);
        let mut driver = match &self.options {
            #[cfg(feature = "mysql")]
            Options::MySql(options) => Driver::MySql(Box::new(options.connect().await.map_err(failed)?)),
            #[cfg(feature = "postgres")]
            Options::Postgres(options) => Driver::Postgres(Box::new(options.connect().await.map_err(failed)?)),
        };
        driver.run(&self.settings()).await.map_err(failed)?;
        Ok(driver)
    }

    /// The session's settings: a value that does not fit is an error and never cut; waits are bounded; the server ends an idle session and releases
    /// its lock.
    fn settings(&self) -> String {
        let (idle, wait, answer) =
            (limits::STORE_IDLE.as_secs(), limits::STORE_LOCK_TIME.as_secs(), limits::STORE_COUNT_TIME.as_millis());
        match self.backend {
            Backend::MySql => format!(
                "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION,NO_AUTO_VALUE_ON_ZERO', \
                 SESSION wait_timeout = {idle}, SESSION innodb_lock_wait_timeout = {wait}, SESSION lock_wait_timeout = {wait}; \
                 SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED"
            ),
            Backend::Postgres => format!(
                "SET statement_timeout = {answer}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
                 SET tcp_keepalives_idle = {idle}; SET tcp_keepalives_interval = 5; SET tcp_keepalives_count = 2; \
                 SET client_min_messages = error; \
                 SELECT set_config(name, '{}', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
                wait * 1_000,
                idle * 1_000,
                idle * 1_000,
            ),
        }
    }
}

/// The name of the lock. MySQL allows 64 characters, and the name is valid for the whole server; a longer name is replaced by its hash.
pub(super) fn lock_name(database: &str, prefix: &Prefix) -> String {
    use sha1::{Digest as _, Sha1};
    let name = format!("wsmb.{database}.{}data", prefix.as_str());
    if name.len() <= 64 && name.is_ascii() {
        return name;
    }
    format!("wsmb.{}", hex::encode(Sha1::digest(name.as_bytes())))
}

/// The name of this process, for other brokers that find the table locked.
pub(super) fn process_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .ok()
        .or_else(|| std::env::var("HOSTNAME").or_else(|_| std::env::var("COMPUTERNAME")).ok());
    let process = std::process::id();
    match host.as_deref().map(str::trim).filter(|host| !host.is_empty()) {
        Some(host) => format!("process {process} on {host}"),
        None => format!("process {process}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prefix() -> Prefix {
        Prefix::parse("mq_").expect("a valid prefix")
    }

    #[test]
    #[cfg(all(feature = "mysql", feature = "postgres"))]
    fn a_place_is_named_without_secrets() {
        for (backend, url, expected) in [
            (Backend::MySql, "mysql://u:secret@h/d", "mysql://u@h:3306/d"),
            (Backend::MySql, "mariadb://u:secret@h:7/d?ssl-mode=REQUIRED", "mysql://u@h:7/d"),
            (Backend::Postgres, "postgres://u:secret@h/d", "postgres://u@h:5432/d"),
            (Backend::Postgres, "postgresql://u@[::1]:1/d", "postgres://u@[::1]:1/d"),
        ] {
            let access = Access::parse(backend, url, Some("secret"), &prefix()).expect(url);
            assert_eq!(access.place, expected);
            assert!(!format!("{access:?}").contains("secret"));
        }
        for (backend, url, told) in [
            (Backend::MySql, "mysql://u:secret@h", "names no database"),
            (Backend::MySql, "mysql://u:secret@h/d?ssl-mode=perhaps", "unknown value"),
            (Backend::Postgres, "postgres://u:secret@h:port/d", "of the form"),
        ] {
            let error = Access::parse(backend, url, None, &prefix()).expect_err(url).to_string();
            assert!(error.contains(told) && !error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_lock_has_a_name_of_its_own_and_of_64_characters_at_the_most() {
        let prefix = Prefix::parse("mq_").expect("a valid prefix");
        assert_eq!(lock_name("shop", &prefix), "wsmb.shop.mq_data");
        let long = lock_name(&"x".repeat(64), &prefix);
        assert_eq!((long.len(), long == lock_name(&"y".repeat(64), &prefix)), (45, false));
    }
}
