//! A connection that reconnects, for callers that may block: opened when needed, closed after a failure, every wait bounded.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::super::{Columns, StoreError};
use super::connect::{Access, process_name};
use super::driver::Driver;
use super::error::{Recovery, classify, recovery};
use super::lock;
use super::schema::{self, read_note, write_note};
use super::statements::{Names, Statements};
use super::table::MessageTable;
use crate::limits;

/// The purpose of a connection.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// To serve as the only broker on the table, with these user-defined columns.
    Serve(Columns),
    /// To inspect without changes; the broker would have these user-defined columns.
    Inspect(Columns),
}

/// An open connection, with the table as found.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) driver: Driver,
    /// The connection's number, if it holds the table's lock.
    number: Option<u64>,
    pub(super) table: MessageTable,
    pub(super) statements: Statements,
}

/// The client of a database server.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) access: Access,
    pub(super) names: Names,
    purpose: Purpose,
    runtime: Runtime,
    session: Option<Session>,
    /// The number of the last connection that held the table's lock.
    last: Option<u64>,
    /// The warnings about the table have been logged.
    are_warnings_logged: bool,
}

impl Client {
    /// Creates a client that is not connected yet.
    ///
    /// # Errors
    /// If the system cannot create an event loop.
    pub(super) fn new(access: Access, names: Names, purpose: Purpose) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let place = access.place.clone();
        let runtime = runtime.map_err(|error| StoreError::Unavailable { place, detail: error.to_string() })?;
        Ok(Self { access, names, purpose, runtime, session: None, last: None, are_warnings_logged: false })
    }

    /// Returns the message table as found. Connects if necessary.
    ///
    /// # Errors
    /// Any error that keeps the table from being read.
    pub(super) fn table(&mut self) -> Result<&MessageTable, StoreError> {
        self.session().map(|session| &session.table)
    }

    fn session(&mut self) -> Result<&mut Session, StoreError> {
        let session = match self.session.take() {
            Some(session) => session,
            None => self.connect()?,
        };
        Ok(self.session.insert(session))
    }

    fn connect(&mut self) -> Result<Session, StoreError> {
        let open_session = open_session(&self.access, &self.names, &self.purpose, self.last);
        let session = self
            .runtime
            .block_on(async { timeout(limits::STORE_CONNECT, open_session).await })
            .unwrap_or_else(|_| Err(no_answer(&self.access, limits::STORE_CONNECT)))?;
        self.last = session.number.or(self.last);
        if !std::mem::replace(&mut self.are_warnings_logged, true) && matches!(self.purpose, Purpose::Serve(_)) {
            for sentence in session.table.warnings(&self.names.data_plain, &self.access.place) {
                tracing::warn!("{sentence}");
            }
        }
        Ok(session)
    }

    /// Runs `work` on the connection. Failures that another session or a lost connection has caused are retried, so `work` must be idempotent.
    ///
    /// # Errors
    /// The translated error.
    pub(super) fn run<T>(
        &mut self,
        limit: Duration,
        work: impl AsyncFn(&mut Session) -> sqlx::Result<T>,
    ) -> Result<T, StoreError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let is_fresh = self.session.is_none();
            let mut session = match self.session.take() {
                Some(session) => session,
                None => self.connect()?,
            };
            let outcome = self.runtime.block_on(async { timeout(limit, work(&mut session)).await });
            let error = match outcome {
                Ok(Ok(value)) => {
                    self.session = Some(session);
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                // The connection is in the middle of a statement and cannot be used any more.
                Err(_) => return Err(no_answer(&self.access, limit)),
            };
            let recovery = recovery(self.access.backend, &error);
            if recovery != Recovery::Reconnect && self.undo(&mut session) {
                self.session = Some(session);
            }
            let again = match recovery {
                Recovery::Retry => true,
                // An old connection may have ended long ago; a new connection that fails at once would fail again.
                Recovery::Reconnect => !is_fresh,
                Recovery::None => false,
            };
            if !again || tries >= limits::STORE_ATTEMPTS {
                return Err(classify(self.access.backend, &self.access.place, &error));
            }
        }
    }

    /// Rolls back a transaction that may be open; false if the connection is unusable.
    fn undo(&self, session: &mut Session) -> bool {
        let undo = session.driver.run("ROLLBACK");
        self.runtime.block_on(async { timeout(limits::STORE_CONNECT, undo).await }).is_ok_and(|done| done.is_ok())
    }

    /// Describes the connection and the process that hold the table's lock; `None` if no connection does.
    ///
    /// # Errors
    /// Any error that keeps the lock from being read.
    pub(super) fn holder(&mut self) -> Result<Option<String>, StoreError> {
        let (access, names) = (self.access.clone(), self.names.clone());
        self.run(limits::STORE_ANSWER, async |session| describe_holder(&access, &names, &mut session.driver).await)
    }
}

impl Drop for Client {
    /// Closes the connection, so that the server releases the lock at once.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let leave = session.driver.close();
            // The server also detects a connection that was not closed.
            let _ = self.runtime.block_on(async { timeout(limits::STORE_DISCONNECT, leave).await });
        }
    }
}

fn no_answer(access: &Access, limit: Duration) -> StoreError {
    let detail = format!("no answer within {} s", limit.as_secs());
    StoreError::Unreachable { place: access.place.clone(), detail }
}

async fn open_session(
    access: &Access,
    names: &Names,
    purpose: &Purpose,
    last: Option<u64>,
) -> Result<Session, StoreError> {
    let failed = |error: sqlx::Error| classify(access.backend, &access.place, &error);
    let mut driver = access.connect().await?;
    let (table, number) = match purpose {
        Purpose::Inspect(columns) => (schema::inspect(&mut driver, access, names, columns).await?, None),
        Purpose::Serve(columns) => {
            if let Some(last) = last {
                end_previous(access, names, &mut driver, last).await.map_err(failed)?;
            }
            if !lock::take(access, &mut driver).await.map_err(failed)? {
                // The error is also useful without the holder's name.
                let holder = describe_holder(access, names, &mut driver).await.ok().flatten();
                return Err(StoreError::Locked { place: access.place.clone(), holder });
            }
            let table = schema::prepare(&mut driver, access, names, columns).await?;
            write_note(&mut driver, names, "holder", &process_name()).await.map_err(failed)?;
            (table, lock::own_number(access, &mut driver).await.map_err(failed)?)
        }
    };
    let statements = Statements::new(access.backend, names, &table);
    Ok(Session { driver, number, table, statements })
}

/// Ends the previous connection of this process, if the server has not noticed yet that it is gone. Its number may belong to another broker by now.
async fn end_previous(access: &Access, names: &Names, driver: &mut Driver, last: u64) -> sqlx::Result<()> {
    let is_there = lock::holder(access, driver).await? == Some(last);
    if is_there && read_note(driver, names, "holder").await? == Some(process_name()) {
        lock::end(access, driver, last).await?;
    }
    Ok(())
}

async fn describe_holder(access: &Access, names: &Names, driver: &mut Driver) -> sqlx::Result<Option<String>> {
    let Some(connection) = lock::holder(access, driver).await? else { return Ok(None) };
    let connection = lock::describe(access, driver, connection).await?;
    // The tables may not exist yet.
    let note = read_note(driver, names, "holder").await.ok().flatten();
    Ok(Some(note.map_or_else(|| connection.clone(), |note| format!("{note}; {connection}"))))
}
