//! MySQL, MariaDB and PostgreSQL as stores, through sqlx.

use super::{Backend, Columns, Group, MessageStore, Page, Prefix, Request, RequestToken, StoreError, Summary};
use crate::message::{ChannelName, MessageId, Timestamp};

/// A store on a database server.
#[derive(Debug)]
pub struct SqlStore {}

impl SqlStore {
    /// The database that a URL names, without secrets, as an administrator knows it.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`]
    pub fn place(backend: Backend, _url: &str) -> Result<String, StoreError> {
        Err(StoreError::NotBuilt { backend: backend.name() })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn open(
        backend: Backend,
        _url: &str,
        _password: Option<&str>,
        _prefix: &Prefix,
        _columns: &Columns,
    ) -> Result<Self, StoreError> {
        Err(StoreError::NotBuilt { backend: backend.name() })
    }
}

impl MessageStore for SqlStore {
    fn commit(&mut self, _group: &Group) -> Result<(), StoreError> {
        Ok(())
    }
    fn load(&mut self, _: &ChannelName, _: MessageId, _: usize, _: usize) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
    fn scan(&mut self, _: MessageId, _: usize, _: usize) -> Result<Page, StoreError> {
        Ok(Page::default())
    }
    fn mark(&mut self, _: &str) -> Result<Option<u64>, StoreError> {
        Ok(None)
    }
    fn sweep(&mut self, _: Timestamp, _: usize) -> Result<Vec<(MessageId, ChannelName)>, StoreError> {
        Ok(Vec::new())
    }
    fn purge(&mut self, _: &ChannelName, _: MessageId, _: usize) -> Result<u64, StoreError> {
        Ok(0)
    }
    fn summary(&mut self, _: Timestamp) -> Result<Summary, StoreError> {
        Ok(Summary::default())
    }
    fn check(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
    fn tend(&mut self) -> Result<Vec<Request>, StoreError> {
        Ok(Vec::new())
    }
    fn answer(&mut self, _: RequestToken) -> Result<(), StoreError> {
        Ok(())
    }
    fn mark_clean(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
