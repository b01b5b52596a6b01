//! The result of the inspection of a store. Holds no content of a message.

/// The state of a store, found without opening the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inspection {
    /// The store's file or address.
    pub place: String,
    /// The broker that runs on the store; `None` if no broker runs on it.
    pub holder: Option<String>,
    /// Warnings about values that the store cannot keep, as sentences; the last sentence names the remedy. Empty if the store keeps everything.
    pub warnings: Vec<String>,
    /// The tables that the next start of a broker creates, besides the message table.
    pub missing: Vec<String>,
    /// If the store is a journal: the address of its database.
    pub journal_of: Option<String>,
}
