//! The errors of a server's start and end, as sentences for the administrator.

use std::fmt;

use super::listener::ListenError;
use wsmb_store::StoreError;

/// Why the server did not start, or did not stop in an orderly way.
#[derive(Debug)]
pub enum ServeError {
    /// An address can't be listened on.
    Listen(ListenError),
    /// The certificate of the TLS listeners can't be used: a sentence.
    Tls(String),
    /// The store can't be opened, or could not be closed in an orderly way.
    Store(StoreError),
    /// The store had not stored all messages at the end.
    Unstored {
        /// The number of messages; none of them was accepted.
        messages: u64,
        /// The store's error at the end, if there was one.
        cause: Option<StoreError>,
    },
    /// The system refused a basic resource: a thread, a signal handler.
    System(std::io::Error),
    /// A vital part of the broker has panicked. The caller should end the process at once.
    Defect {
        /// The part, such as "the core".
        part: &'static str,
    },
    /// A second signal came while the server was stopping, at least [`crate::limits::SECOND_SIGNAL`] after the first. The caller should end the process at once.
    Interrupted {
        /// Messages that were not stored yet.
        unstored: u64,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listen(error) => error.fmt(f),
            Self::Tls(sentence) => f.write_str(sentence),
            Self::Store(error) => error.fmt(f),
            Self::Unstored { messages, cause } => {
                write!(
                    f,
                    "the store did not take everything: {} lost, which no sender was told to be safe",
                    counted(*messages)
                )?;
                cause.as_ref().map_or(Ok(()), |cause| write!(f, ": {cause}"))
            }
            Self::System(error) => write!(f, "the system refused something every program needs: {error}"),
            Self::Defect { part } => write!(
                f,
                "{part} has died of a defect, and the broker can't go on; what it has accepted is in the store, so start it again, \
                 and report the lines of the log that begin with \"thread\""
            ),
            Self::Interrupted { unstored } => {
                f.write_str("a second signal came while the broker was stopping; it did not wait any more")?;
                match unstored {
                    0 => Ok(()),
                    _ => write!(f, ", and {} not stored yet", counted(*unstored)),
                }
            }
        }
    }
}

/// Returns "1 message was", "2 messages were".
fn counted(messages: u64) -> String {
    if messages == 1 { "1 message was".to_owned() } else { format!("{messages} messages were") }
}

impl std::error::Error for ServeError {}

impl From<ListenError> for ServeError {
    fn from(error: ListenError) -> Self {
        Self::Listen(error)
    }
}

impl From<StoreError> for ServeError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<std::io::Error> for ServeError {
    fn from(error: std::io::Error) -> Self {
        Self::System(error)
    }
}
