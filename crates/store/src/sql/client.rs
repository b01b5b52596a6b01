//! A connection that heals, for callers that may block: made when it is needed, given up when it fails, every wait bounded.

use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::super::{Columns, StoreError};
use super::connect::{Access, myself};
use super::driver::Driver;
use super::error::{Cure, classify, cure};
use super::lock;
use super::schema::{self, read_note, write_note};
use super::statements::{Names, Statements};
use super::table::MessageTable;
use crate::limits;

/// What a connection is for.
#[derive(Clone, Debug)]
pub(super) enum Purpose {
    /// To be the one broker on the table, which has these user-defined columns.
    Serve(Columns),
    /// To look, and change nothing; the broker would have these user-defined columns.
    Look(Columns),
}

/// A connection that is set up, with what it found.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) driver: Driver,
    /// The connection's number, if it has the table's lock.
    number: Option<u64>,
    pub(super) table: MessageTable,
    pub(super) statements: Statements,
}

/// The way to a database server.
#[derive(Debug)]
pub(super) struct Client {
    pub(super) access: Access,
    pub(super) names: Names,
    purpose: Purpose,
    runtime: Runtime,
    session: Option<Session>,
    /// The number of the last connection that had the table's lock.
    last: Option<u64>,
    /// What the table does not keep has been said.
    told: bool,
}

impl Client {
    /// A client that is not connected yet.
    ///
    /// # Errors
    /// If the system gives it no event loop.
    pub(super) fn new(access: Access, names: Names, purpose: Purpose) -> Result<Self, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let place = access.place.clone();
        let runtime = runtime.map_err(|error| StoreError::Unavailable { place, detail: error.to_string() })?;
        Ok(Self { access, names, purpose, runtime, session: None, last: None, told: false })
    }

    /// What the message table is like. Connects if need be.
    ///
    /// # Errors
    /// Whatever keeps it from being found out.
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
        let establish = establish(&self.access, &self.names, &self.purpose, self.last);
        let session = self
            .runtime
            .block_on(async { timeout(limits::STORE_CONNECT, establish).await })
            .unwrap_or_else(|_| Err(silent(&self.access, limits::STORE_CONNECT)))?;
        self.last = session.number.or(self.last);
        if !std::mem::replace(&mut self.told, true) && matches!(self.purpose, Purpose::Serve(_)) {
            for sentence in session.table.lacks(&self.names.data_plain, &self.access.place) {
                tracing::warn!("{sentence}");
            }
        }
        Ok(session)
    }

    /// Does something on the connection. What another session or a lost connection has spoilt is tried again, so that `work` must do no harm when it
    /// is done twice.
    ///
    /// # Errors
    /// What went wrong, in its meaning.
    pub(super) fn run<T>(
        &mut self,
        patience: Duration,
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
            let outcome = self.runtime.block_on(async { timeout(patience, work(&mut session)).await });
            let error = match outcome {
                Ok(Ok(value)) => {
                    self.session = Some(session);
                    return Ok(value);
                }
                Ok(Err(error)) => error,
                // The connection is in the middle of something: it is of no use any more.
                Err(_) => return Err(silent(&self.access, patience)),
            };
            let cure = cure(self.access.backend, &error);
            if cure != Cure::Reconnect && self.undo(&mut session) {
                self.session = Some(session);
            }
            let again = match cure {
                Cure::Again => true,
                // An old connection may have ended long ago; a new one that ends at once will do so again.
                Cure::Reconnect => !is_fresh,
                Cure::None => false,
            };
            if !again || tries >= limits::STORE_TRIES {
                return Err(classify(self.access.backend, &self.access.place, &error));
            }
        }
    }

    /// Ends a transaction that may be open; false if the connection is spoilt.
    fn undo(&self, session: &mut Session) -> bool {
        let undo = session.driver.run("ROLLBACK");
        self.runtime.block_on(async { timeout(limits::STORE_CONNECT, undo).await }).is_ok_and(|done| done.is_ok())
    }

    /// Which connection, and which process, has the table; `None` if nobody has.
    ///
    /// # Errors
    /// If that can't be found out.
    pub(super) fn holder(&mut self) -> Result<Option<String>, StoreError> {
        let (access, names) = (self.access.clone(), self.names.clone());
        self.run(limits::STORE_ANSWER, async |session| told_holder(&access, &names, &mut session.driver).await)
    }
}

impl Drop for Client {
    /// Takes leave of the server, so that it frees the lock at once.
    fn drop(&mut self) {
        if let Some(session) = self.session.take() {
            let leave = session.driver.close();
            // It notices by itself, too, if this gets lost.
            let _ = self.runtime.block_on(async { timeout(limits::STORE_LEAVE, leave).await });
        }
    }
}

fn silent(access: &Access, patience: Duration) -> StoreError {
    let detail = format!("no answer within {} s", patience.as_secs());
    StoreError::Unreachable { place: access.place.clone(), detail }
}

async fn establish(
    access: &Access,
    names: &Names,
    purpose: &Purpose,
    last: Option<u64>,
) -> Result<Session, StoreError> {
    let failed = |error: sqlx::Error| classify(access.backend, &access.place, &error);
    let mut driver = access.connect().await?;
    let (table, number) = match purpose {
        Purpose::Look(columns) => (schema::look(&mut driver, access, names, columns).await?, None),
        Purpose::Serve(columns) => {
            if let Some(last) = last {
                end_own(access, names, &mut driver, last).await.map_err(failed)?;
            }
            if !lock::take(access, &mut driver).await.map_err(failed)? {
                // Who it is helps, but that it is somebody is enough.
                let holder = told_holder(access, names, &mut driver).await.ok().flatten();
                return Err(StoreError::Locked { place: access.place.clone(), holder });
            }
            let table = schema::prepare(&mut driver, access, names, columns).await?;
            write_note(&mut driver, names, "holder", &myself()).await.map_err(failed)?;
            (table, lock::own_number(access, &mut driver).await.map_err(failed)?)
        }
    };
    let statements = Statements::new(access.backend, names, &table);
    Ok(Session { driver, number, table, statements })
}

/// Ends the connection that this process had before, if the server has not noticed yet that it is gone. Its number may be another broker's by now.
async fn end_own(access: &Access, names: &Names, driver: &mut Driver, last: u64) -> sqlx::Result<()> {
    let is_there = lock::holder(access, driver).await? == Some(last);
    if is_there && read_note(driver, names, "holder").await? == Some(myself()) {
        lock::end(access, driver, last).await?;
    }
    Ok(())
}

async fn told_holder(access: &Access, names: &Names, driver: &mut Driver) -> sqlx::Result<Option<String>> {
    let Some(connection) = lock::holder(access, driver).await? else { return Ok(None) };
    let connection = lock::told(access, driver, connection).await?;
    // The tables may not be there yet.
    let note = read_note(driver, names, "holder").await.ok().flatten();
    Ok(Some(note.map_or_else(|| connection.clone(), |note| format!("{note}; {connection}"))))
}
