//! Inspects a store on a database server, whether a broker runs on it or not. Never takes a lock, creates a table or reads a message.

use super::super::{Backend, Prefix, StoreError, StoreSettings};
use super::client::{Client, Purpose};
use super::connect::Access;
use super::schema;
use super::statements::Names;
use crate::inspect::Inspection;
use crate::limits;

/// Connects and inspects the tables.
///
/// # Errors
/// [`StoreError::Missing`] if there is no message table; any error that would keep a broker with these columns from starting; any error that keeps
/// the tables from being inspected.
pub(crate) fn inspect(backend: Backend, settings: &StoreSettings, prefix: &Prefix) -> Result<Inspection, StoreError> {
    let access = Access::parse(backend, &settings.url, settings.password.as_deref(), prefix)?;
    let (place, names) = (access.place.clone(), Names::new(backend, prefix));
    let mut client = Client::new(access, names.clone(), Purpose::Inspect(settings.columns.clone()))?;
    let warnings = client.table()?.warnings(&names.data_plain, &place);
    let missing =
        client.run(limits::STORE_ANSWER, async |session| schema::missing(&mut session.driver, &names).await)?;
    let holder = client.holder()?;
    Ok(Inspection { place, holder, warnings, missing, journal_of: None })
}
