//! Warnings about clients and messages in the log. Each kind is rate-limited, and names the number of withheld lines.

use tracing::warn;

use super::counters::WarningLimit;
use super::session::{Peer, Profile, Session};
use wsmb_core::broker::{Note, Refusal};
use wsmb_core::message::ChannelName;

/// The rate limit of each kind of warning.
#[derive(Debug, Default)]
pub(super) struct Warnings {
    dropped: WarningLimit,
    failing: WarningLimit,
    reassigned: WarningLimit,
    unanswered: WarningLimit,
    slow: WarningLimit,
    unconfirmed: WarningLimit,
    refused: WarningLimit,
    forbidden: WarningLimit,
    above_rate: WarningLimit,
    over_memory: WarningLimit,
}

impl Warnings {
    /// A session was ended because its client does not read fast enough.
    pub(super) fn slow(&self, session: &Session) {
        if let Some(withheld) = self.slow.admit() {
            let (user, peer) = (session.profile.user(), &session.profile.peer);
            warn!(connection = session.id.0, %user, %peer, withheld, "ended a slow receiver: it does not take what it is sent");
        }
    }

    /// A session was ended because its client has confirmed nothing for `server.confirm_timeout`.
    pub(super) fn unconfirmed(&self, session: &Session) {
        if let Some(withheld) = self.unconfirmed.admit() {
            let (user, peer) = (session.profile.user(), &session.profile.peer);
            warn!(
                connection = session.id.0, %user, %peer, withheld,
                "ended a receiver that has confirmed nothing for server.confirm_timeout; its messages go to other receivers"
            );
        }
    }

    /// A topic session was ended because its message was refused.
    pub(super) fn refused(&self, session: &Session, refusal: Refusal) {
        if let Some(withheld) = self.refused.admit() {
            let Profile { peer, topic, .. } = &session.profile;
            let user = session.profile.user();
            let channel = topic.as_ref().map_or("", ChannelName::as_str);
            warn!(
                connection = session.id.0, %user, %peer, channel, ?refusal, withheld,
                "a message was not accepted; its sender's connection is ended"
            );
        }
    }

    /// The user of a topic client may not send to its channel, or may not use the channel at all.
    pub(super) fn forbidden(&self, user: &str, peer: &Peer, channel: &ChannelName) {
        if let Some(withheld) = self.forbidden.admit() {
            warn!(
                user, %peer, channel = channel.as_str(), withheld,
                "refused a topic connection: its user may not use the channel so; see [[permission]]"
            );
        }
    }

    /// A user publishes or connects more often than its rate allows.
    pub(super) fn above_rate(&self, user: &str, peer: &Peer) {
        if let Some(withheld) = self.above_rate.admit() {
            warn!(user, %peer, withheld, "a user has reached its rate, so it is slowed down; see [[rate]]");
        }
    }

    /// A session was ended because it held most of the memory.
    pub(super) fn over_memory(&self, session: &Session, held: usize) {
        if let Some(withheld) = self.over_memory.admit() {
            let (user, peer) = (session.profile.user(), &session.profile.peer);
            warn!(
                connection = session.id.0, %user, %peer, held, withheld,
                "ended the connection that held most memory: server.memory_budget is nearly used up"
            );
        }
    }

    /// Logs a note of the core for the administrator.
    pub(super) fn note(&self, note: &Note) {
        match note {
            Note::Dropped { channel, id, why, attempts, reason } => {
                let Some(withheld) = self.dropped.admit() else { return };
                warn!(
                    %channel, id = id.0, why = %why.as_str(), attempts, reason = reason.as_deref(), withheld,
                    "dropped a message: the channel has no dead-letter channel, or it is full; set dead_letter to keep such messages"
                );
            }
            Note::Failing { channel, id, attempts, reason } => {
                let Some(withheld) = self.failing.admit() else { return };
                warn!(
                    %channel, id = id.0, attempts, reason = reason.as_deref(), withheld,
                    "a message fails again and again; it is tried on, and does not hold up the others"
                );
            }
            Note::Unanswered { connection, sequence, channel, given: true } => {
                let Some(withheld) = self.reassigned.admit() else { return };
                warn!(
                    connection = connection.0, delivery = sequence, %channel, withheld,
                    "a receiver has not answered a delivery within ack_timeout; the message is given to another one"
                );
            }
            Note::Unanswered { connection, sequence, channel, given: false } => {
                let Some(withheld) = self.unanswered.admit() else { return };
                warn!(
                    connection = connection.0, delivery = sequence, %channel, withheld,
                    "a receiver has not answered a delivery within ack_timeout; it keeps the message, because there is no other receiver"
                );
            }
        }
    }
}
