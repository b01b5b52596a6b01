//! Counters of messages and other events since the broker started.

use super::Broker;

/// The counters count messages unless stated otherwise. At any time, for kept channels: `accepted` = unsettled messages + `confirmed` +
/// `expired` + `dead_lettered` + `dropped` + `purged` + `refused_late`. A dead letter counts as accepted again by its new channel, and a
/// message that the store held at the start counts as accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Accepted by a kept channel.
    pub accepted: u64,
    /// Accepted by a channel that is not kept.
    pub fleeting: u64,
    /// Deliveries of publications or backlog frames to receivers.
    pub deliveries: u64,
    /// Deliveries of messages that may have been delivered before.
    pub redeliveries: u64,
    /// Confirmed by a receiver.
    pub confirmed: u64,
    /// Expired, and not moved to a dead-letter channel.
    pub expired: u64,
    /// Given up or expired, and moved to the dead-letter channel.
    pub dead_lettered: u64,
    /// Given up or expired, and lost, because there is no dead-letter channel or it is full.
    pub dropped: u64,
    /// Warnings about messages that fail again and again.
    pub failing: u64,
    /// Deliveries that were taken from a receiver that did not answer them in time.
    pub unanswered: u64,
    /// Deliveries that were also given to one more receiver because the first did not confirm them in time.
    pub doubled: u64,
    /// Purged by an administrator.
    pub purged: u64,
    /// Refused at once (codes 05, 06, 08).
    pub refused: u64,
    /// Refused after their acceptance, because the store failed before they were safe.
    pub refused_late: u64,
    /// Publications with an id that was known already.
    pub duplicates: u64,
    /// Publication ids that were forgotten before `dedup_window` was over, because there were too many.
    pub forgotten_ids: u64,
    /// Connections of receivers that were ended because they did not read their messages.
    pub slow_receivers: u64,
    /// Connections of receivers that were ended because they confirmed nothing for `confirm_timeout`.
    pub unconfirmed_receivers: u64,
}

impl Broker {
    /// Adds `count` to a metric. All counting goes through this function. `channel`: the channel's key, or `None` if no known channel is
    /// concerned.
    pub(super) fn count(&mut self, channel: impl Into<Option<usize>>, metric: Metric, count: u64) {
        *self.counters.of(metric) += count;
        #[cfg(test)]
        if let Some(channel) = channel.into() {
            *self.channel_audit.counters.entry(self.channels[channel].name.clone()).or_default().of(metric) += count;
        }
        #[cfg(not(test))]
        let _ = channel;
    }
}

/// The metrics: one for each field of [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Metric {
    /// [`Counters::accepted`].
    Accepted,
    /// [`Counters::fleeting`].
    Fleeting,
    /// [`Counters::deliveries`].
    Deliveries,
    /// [`Counters::redeliveries`].
    Redeliveries,
    /// [`Counters::confirmed`].
    Confirmed,
    /// [`Counters::expired`].
    Expired,
    /// [`Counters::dead_lettered`].
    DeadLettered,
    /// [`Counters::dropped`].
    Dropped,
    /// [`Counters::failing`].
    Failing,
    /// [`Counters::unanswered`].
    Unanswered,
    /// [`Counters::doubled`].
    Doubled,
    /// [`Counters::purged`].
    Purged,
    /// [`Counters::refused`].
    Refused,
    /// [`Counters::refused_late`].
    RefusedLate,
    /// [`Counters::duplicates`].
    Duplicates,
    /// [`Counters::forgotten_ids`].
    ForgottenIds,
    /// [`Counters::slow_receivers`].
    SlowReceivers,
    /// [`Counters::unconfirmed_receivers`].
    UnconfirmedReceivers,
}

impl Counters {
    /// Returns the counter of a metric.
    pub(super) fn of(&mut self, metric: Metric) -> &mut u64 {
        match metric {
            Metric::Accepted => &mut self.accepted,
            Metric::Fleeting => &mut self.fleeting,
            Metric::Deliveries => &mut self.deliveries,
            Metric::Redeliveries => &mut self.redeliveries,
            Metric::Confirmed => &mut self.confirmed,
            Metric::Expired => &mut self.expired,
            Metric::DeadLettered => &mut self.dead_lettered,
            Metric::Dropped => &mut self.dropped,
            Metric::Failing => &mut self.failing,
            Metric::Unanswered => &mut self.unanswered,
            Metric::Doubled => &mut self.doubled,
            Metric::Purged => &mut self.purged,
            Metric::Refused => &mut self.refused,
            Metric::RefusedLate => &mut self.refused_late,
            Metric::Duplicates => &mut self.duplicates,
            Metric::ForgottenIds => &mut self.forgotten_ids,
            Metric::SlowReceivers => &mut self.slow_receivers,
            Metric::UnconfirmedReceivers => &mut self.unconfirmed_receivers,
        }
    }

    /// Returns the number of accepted messages that are settled.
    #[cfg(test)]
    pub(super) fn over(&self) -> u64 {
        self.confirmed + self.expired + self.dead_lettered + self.dropped + self.purged + self.refused_late
    }
}
