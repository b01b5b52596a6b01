//! The message table as found or created: its columns, the types that they can hold, and the values that the table cannot keep.

use super::field::Form;
use super::text::Charset;
use crate::limits;

/// The columns that the broker adds: name, type in PostgreSQL's casts, and the consequence if the column is missing.
pub(super) const OPTIONAL: [(&str, &str, &str); 9] = [
    (
        "expires",
        "bigint",
        "when a message expires is forgotten once it is in the database only, and it is delivered late rather than never",
    ),
    ("due", "bigint", "a delayed message that is in the database only is delivered at once"),
    ("receivers", "bigint", "number_of_receiver is forgotten once a message is in the database only"),
    ("publication", "text", "an id that is sent again after a restart is not recognised"),
    ("deliveries", "bigint", "how often a message was delivered is forgotten at a restart"),
    ("dead_why", "text", "why a message is a dead letter is forgotten once it is in the database only"),
    ("dead_channel", "text", "which channel a dead letter was sent to is forgotten, and so is the reason"),
    ("dead_attempts", "bigint", "how often a dead letter was delivered before is forgotten"),
    ("dead_reason", "text", "the last reason that a receiver gave for giving a dead letter back is forgotten"),
];

/// The message table as found or created.
#[derive(Clone, Debug)]
pub(super) struct MessageTable {
    /// Which of the optional columns exist.
    present: [bool; OPTIONAL.len()],
    pub(super) data: Charset,
    pub(super) channel: Charset,
    pub(super) publication: Charset,
    pub(super) dead_channel: Charset,
    pub(super) dead_reason: Charset,
    /// The maximum length of `channel` and `data` in characters, if there is one.
    pub(super) widths: [Option<u64>; 2],
    /// The name of an index that begins with the channel.
    pub(super) channel_index: Option<String>,
    /// The user-defined columns, in the order of the configuration.
    pub(super) fields: Vec<Field>,
    /// The largest statement with its values, in bytes.
    pub(super) packet: usize,
}

/// A user-defined column.
#[derive(Clone, Debug)]
pub(super) struct Field {
    pub(super) name: String,
    pub(super) form: Form,
    /// PostgreSQL's name of the type.
    pub(super) cast: String,
}

impl MessageTable {
    /// A table with these optional columns, and these character sets of `data`, `channel`, `publication`, `dead_channel`, `dead_reason`.
    pub(super) fn new(present: [bool; OPTIONAL.len()], charsets: [Charset; 5], fields: Vec<Field>) -> Self {
        let [data, channel, publication, dead_channel, dead_reason] = charsets;
        let (channel_index, packet) = (None, limits::STORE_PACKET);
        let widths = [None; 2];
        Self { present, data, channel, publication, dead_channel, dead_reason, widths, channel_index, fields, packet }
    }

    /// A Unicode table with all of the optional columns or none.
    #[cfg(test)]
    pub(super) fn plain(present: bool) -> Self {
        Self::new([present; OPTIONAL.len()], [Charset::Unicode; 5], Vec::new())
    }

    /// Whether the table has this optional column.
    pub(super) fn has(&self, column: &str) -> bool {
        self.optional().any(|(name, _, _)| name == column)
    }

    /// The optional columns that exist.
    pub(super) fn optional(&self) -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
        OPTIONAL.into_iter().zip(self.present).filter_map(|(column, present)| present.then_some(column))
    }

    /// Warnings about missing columns and a missing index, as sentences; empty if there are none.
    pub(super) fn warnings(&self, table: &str, place: &str) -> Vec<String> {
        let mut warnings = Vec::new();
        let missing: Vec<_> =
            OPTIONAL.into_iter().zip(self.present).filter_map(|(column, there)| (!there).then_some(column)).collect();
        let lost = |(name, _, lost): &(&str, &str, &str)| {
            format!("the table {table} in {place} has no column {name}, so {lost}")
        };
        warnings.extend(missing.iter().map(lost));
        if !missing.is_empty() {
            let adds: Vec<String> = missing.iter().map(|(name, kind, _)| format!("ADD COLUMN {name} {kind}")).collect();
            warnings.push(format!(
                "to keep these values: ALTER TABLE {table} {}; then restart the broker",
                adds.join(", ")
            ));
        }
        if self.channel_index.is_none() {
            warnings.push(format!(
                "the table {table} in {place} has no index on channel, so every page of a backlog reads the whole backlog; \
                 to add one: CREATE INDEX {table}_channel ON {table} (channel, data_id); then restart the broker"
            ));
        }
        warnings
    }
}
