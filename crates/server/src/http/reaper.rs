//! Ends the receivers whose client has not come back.

use std::sync::Arc;
use std::time::Duration;

use super::receiver;
use crate::hub::Hub;
use crate::limits;
use wsmb_core::broker::Note;
use wsmb_core::message::{DeliveryName, Timestamp};

impl Hub {
    /// Ends receivers without a response, after `server.receiver_grace`.
    pub(crate) async fn run_mailboxes(self: Arc<Self>) {
        loop {
            tokio::time::sleep(limits::MAILBOX_LOOK).await;
            self.end_abandoned(self.options().limits.receiver_grace);
        }
    }

    /// Ends the receivers that have had no response for this time.
    pub(crate) fn end_abandoned(&self, grace: Duration) {
        let since = Timestamp(self.now().0.saturating_sub(u64::try_from(grace.as_millis()).unwrap_or(u64::MAX)));
        for mailbox in self.mailboxes.abandoned(since) {
            receiver::end(self, &mailbox);
        }
    }

    /// A delivery that the core has taken from a receiver is not given to it again.
    pub(crate) fn note_revoked(&self, note: &Note) {
        if let Note::Unanswered { connection, sequence, given: true, .. } = note {
            self.mailboxes.revoke(DeliveryName { connection: *connection, sequence: *sequence });
        }
    }
}
