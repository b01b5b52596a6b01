//! What a look at a store has shown. Holds nothing of a message.

/// What is known of a store without opening it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The store, as an administrator knows it.
    pub place: String,
    /// Which broker runs on it, as far as it can be found out; `None` if none does.
    pub holder: Option<String>,
    /// What the store does not keep, in sentences, the last of which says what would help; empty if it keeps everything.
    pub lacks: Vec<String>,
    /// The tables beside that of the messages that the next start of a broker makes.
    pub missing: Vec<String>,
    /// The store is a journal, and this is the database that it stands in front of.
    pub journal_of: Option<String>,
}
