//! The naive model: everything that is known from outside about each message, and what must hold of it. No windows, pages or
//! queues; it only remembers.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::broker::Bounds;
use crate::message::{ConnectionId, MessageId, Nack, Timestamp};
use crate::policy::ChannelPolicy;

/// A delivery in somebody's hands.
#[derive(Clone, Copy, Debug)]
pub(super) struct Holder {
    /// Since when, or when it was extended.
    pub at: Timestamp,
    pub manual: bool,
    /// How long it may be unconfirmed; zero = for ever.
    pub within: Duration,
    /// It was late, and nobody else was there.
    pub overdue: bool,
    /// For which group the receiver has it.
    pub group: Option<&'static str>,
    /// It looks on, while groups have it: what it says counts for nothing.
    pub looks_on: bool,
}

impl Holder {
    /// When it is late.
    pub fn late(&self) -> Option<Timestamp> {
        (!self.within.is_zero()).then(|| self.at.after(self.within))
    }

    pub fn is_late(&self, now: Timestamp) -> bool {
        self.late().is_some_and(|late| late <= now)
    }
}

/// What those say who had a message and did not confirm it, since it was last in nobody's hands.
#[derive(Debug, Default)]
pub(super) struct Failed {
    by: BTreeSet<ConnectionId>,
    nacked: bool,
    until: Option<Timestamp>,
    reject: bool,
}

/// What the outside knows of one message; its number is its text.
#[derive(Debug)]
pub(super) struct Told {
    pub channel: String,
    pub sender: ConnectionId,
    /// The sender received the channel when it sent, and has not left it since.
    pub own: bool,
    /// The sender received the channel when it sent.
    pub as_member: bool,
    pub limit: usize,
    /// Its sender gave the limit; the channel's own may change.
    pub own_limit: bool,
    pub keep: bool,
    pub delayed: bool,
    pub due: Timestamp,
    pub expires: Option<Timestamp>,
    /// An earlier run has stored it; and whether with a due time.
    pub old: Option<bool>,
    /// The sender was told `00`.
    pub accepted: bool,
    /// The sender was told it is refused.
    pub refused: bool,
    /// Somebody has confirmed it.
    pub confirmed: bool,
    pub purged: bool,
    /// The process died and had not promised anything about it.
    pub lost: bool,
    /// How many held it when it was safe: when it was confirmed, or when the broker heard that it is stored.
    pub held: Option<usize>,
    /// How often it was delivered, on whatever channel.
    pub deliveries: u32,
    /// What the broker calls it.
    pub id: Option<MessageId>,
    /// In whose hands it is: connection and sequence.
    pub holders: BTreeMap<(ConnectionId, u64), Holder>,
    /// It is the only message of its publication.
    pub alone: bool,
    /// How often it left, since it was accepted by its channel of now, or the broker started.
    pub flights: u32,
    /// How often it has come back with a nack.
    pub nacks: u32,
    pub failed: Failed,
    /// It is held back until then, but for receivers other than these, if there are any.
    pub pause: Option<(Timestamp, BTreeSet<ConnectionId>)>,
    /// Who has had it and not confirmed it.
    pub returned: BTreeSet<ConnectionId>,
    /// It was taken from this receiver, which was too slow, at this time.
    pub revoked: Option<(ConnectionId, Timestamp)>,
    /// The groups among those who got it when it left last; whether others looked on; which delivery it was.
    pub party: BTreeSet<&'static str>,
    pub onlookers: bool,
    pub left: (u64, u32),
    /// It may have been held back while more was than may be.
    pub loose: bool,
    /// It was given to these groups and came back: nobody else gets it before this.
    pub bound: Option<(BTreeSet<&'static str>, Timestamp)>,
    /// A receiver has rejected it, and nobody else had it.
    pub rejected: bool,
    /// It is a dead letter now.
    pub letter: bool,
    /// A receiver has rejected the dead letter, and there are none of dead letters.
    pub buried: bool,
}

impl Told {
    pub fn new(channel: String, sender: ConnectionId, policy: &ChannelPolicy) -> Self {
        Self {
            channel,
            sender,
            own: false,
            as_member: false,
            limit: policy.receivers as usize,
            own_limit: false,
            keep: policy.keep,
            delayed: false,
            due: Timestamp::default(),
            expires: None,
            old: None,
            accepted: false,
            refused: false,
            confirmed: false,
            purged: false,
            lost: false,
            deliveries: 0,
            id: None,
            holders: BTreeMap::new(),
            alone: true,
            flights: 0,
            nacks: 0,
            failed: Failed::default(),
            held: None,
            pause: None,
            returned: BTreeSet::new(),
            revoked: None,
            party: BTreeSet::new(),
            onlookers: false,
            left: (0, 0),
            loose: false,
            bound: None,
            rejected: false,
            letter: false,
            buried: false,
        }
    }

    /// It is delivered on a channel, as a dead letter or not: one that has just died is like a new one.
    fn starts_again(&mut self, letter: bool) {
        assert!(letter || !self.rejected, "a message was delivered after it was rejected: {self:?}");
        assert!(letter || !self.letter, "a dead letter came back: {self:?}");
        if letter && !self.letter {
            self.letter = true;
            (self.flights, self.nacks, self.pause, self.revoked, self.bound) = (0, 0, None, None, None);
            self.returned.clear();
        }
    }

    /// It goes to nobody but the groups that had it. (Dead letters go to one receiver.)
    fn waits_for_groups(&self) -> bool {
        self.onlookers || (self.limit == 0 && !self.letter)
    }

    /// The only groups that may get it, if it is theirs: it waits for them, or they have it and others look on.
    pub fn only_for(&self) -> Option<&BTreeSet<&'static str>> {
        let has = !self.holders.is_empty() && !self.party.is_empty() && self.waits_for_groups();
        if has { Some(&self.party) } else { self.bound.as_ref().map(|(groups, _)| groups) }
    }

    /// It leaves for a receiver, alone or with others.
    fn joins_party(&mut self, number: u64, now: Timestamp, seen: &Seen<'_>, crowded: bool) -> bool {
        let Seen { to, group, grouped, delivery, .. } = *seen;
        if self.holders.is_empty() {
            if let Some((groups, until)) = self.bound.take().filter(|(_, until)| now < *until && !crowded) {
                assert!(
                    group.is_some_and(|group| groups.contains(group)),
                    "message {number} waits for {groups:?} until {until:?} and was given to {to:?} of {group:?}"
                );
            }
            (self.party, self.onlookers, self.left) = (BTreeSet::new(), false, delivery);
        } else if self.left != delivery {
            // One more receiver of what others have: in the place of a member that has lost it, or is silent.
            let has = |holder: &Holder| group.is_some() && holder.group == group;
            let doubled = self.holders.values().filter(|holder| has(holder)).all(|holder| holder.is_late(now));
            assert!(doubled, "message {number} was given to {to:?} of {group:?}, which has it: {self:?}");
            if let Some(groups) = self.only_for() {
                let theirs = group.is_some_and(|group| groups.contains(group));
                assert!(theirs, "message {number} of {groups:?} was given to {to:?} of {group:?}");
            }
            return false;
        }
        let looks_on = grouped && group.is_none();
        self.party.extend(group);
        self.onlookers |= looks_on;
        looks_on
    }

    /// Nobody whose word counts has it any more.
    fn comes_back(&mut self, now: Timestamp) {
        if self.holders.values().any(|holder| !holder.looks_on) {
            return;
        }
        self.holders.clear();
        self.settle_failure(now);
        let from = self.pause.as_ref().map_or(now, |(until, _)| *until);
        let waits = !self.party.is_empty() && self.waits_for_groups();
        self.bound = waits.then(|| (std::mem::take(&mut self.party), from.after(Bounds::TIGHT.group_wait)));
    }

    /// It leaves for a receiver. `crowded`: more is held back than may be, so that some of it comes early.
    fn comes_out(&mut self, number: u64, to: ConnectionId, now: Timestamp, crowded: bool) {
        if self.holders.is_empty() {
            if let Some((until, not)) = self.pause.take().filter(|(until, _)| *until > now) {
                assert!(
                    crowded || !not.is_empty(),
                    "message {number} was delivered at {now:?}, though it is held until {until:?}"
                );
                assert!(!not.contains(&to), "message {number} came back at once to {to:?}, which gave it back");
            }
            if let Some((slow, at)) = self.revoked.take() {
                assert!(
                    !self.alone || at < now || slow != to,
                    "message {number} came back to {to:?}, which was too slow"
                );
            }
            self.flights += 1;
        } else if self.limit > 0 {
            // One more receiver of the same flight, if one is silent; else one of several.
            self.flights += u32::from(self.holders.len() >= self.limit);
        }
    }

    /// Nobody has it any more: decides what follows, if it came back with an answer.
    fn settle_failure(&mut self, now: Timestamp) {
        let failed = std::mem::take(&mut self.failed);
        if !failed.nacked {
            return;
        }
        let first = self.nacks == 0;
        self.nacks += 1;
        self.rejected |= failed.reject && !self.letter;
        self.buried |= failed.reject && self.letter;
        let pause = Duration::from_secs(1 << self.flights.saturating_sub(1).min(6)).min(Duration::from_secs(60));
        self.pause = match failed.until {
            Some(until) => Some((until, BTreeSet::new())),
            None => Some((now.after(pause), if first { failed.by } else { BTreeSet::new() })),
        };
    }

    /// It was rejected, and its channel has no dead letters.
    pub fn is_dropped(&self) -> bool {
        self.buried || self.is_rejected() && !["three", "late"].contains(&self.channel.as_str())
    }

    /// It was rejected; those who have it besides are perhaps about to be ended.
    pub fn is_rejected(&self) -> bool {
        self.rejected || self.failed.reject
    }

    /// Its time is over, and it is gone with it.
    pub fn has_vanished(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|at| at <= now) && (self.refused || !super::world::is_late(&self.channel))
    }

    /// The process died: what was only in its memory is forgotten.
    pub fn forget(&mut self) {
        self.holders.clear();
        (self.flights, self.nacks, self.pause, self.revoked, self.bound) = (0, 0, None, None, None);
        self.failed = Failed::default();
        self.returned.clear();
    }
}

#[derive(Debug, Default)]
pub(super) struct Model {
    pub messages: BTreeMap<u64, Told>,
    /// The last message of each sender on each channel whose first delivery has been seen. What it sent as a member may have to wait
    /// for another receiver, so it has an order of its own; what is not kept waits for nobody.
    last_first: BTreeMap<(ConnectionId, String, bool, bool), u64>,
    /// When each receiver last confirmed anything by a pong.
    heard: BTreeMap<ConnectionId, Timestamp>,
}

/// One delivered message, as the receiver sees it.
pub(super) struct Seen<'a> {
    pub number: u64,
    pub channel: &'a str,
    pub to: ConnectionId,
    pub sequence: u64,
    pub manual: bool,
    pub attempt: u32,
    pub message: MessageId,
    /// What holds for the channel.
    pub policy: &'a ChannelPolicy,
    /// The group that the receiver names.
    pub group: Option<&'static str>,
    /// One of those who get it names a group.
    pub grouped: bool,
    /// The turn, and the content in it.
    pub delivery: (u64, u32),
}

impl Model {
    /// A delivery happens; checks everything that must hold of it.
    pub fn delivered(&mut self, now: Timestamp, seen: &Seen<'_>, dead_letter: &str) {
        let Seen { number, channel, to, sequence, manual, attempt, message, policy, .. } = *seen;
        let crowded = self.is_crowded(now);
        let told = self.messages.get_mut(&number).unwrap_or_else(|| panic!("message {number} was never sent"));
        let letter = channel == dead_letter && told.channel != dead_letter;
        assert!(channel == told.channel || letter, "message {number} of {} came on {channel}", told.channel);
        assert!(letter || to != told.sender || !told.own, "message {number} came back to its sender");
        assert!(letter || told.expires.is_none_or(|at| at > now), "message {number} was delivered after it expired");
        assert!(now >= told.due, "message {number} was delivered before it was due");
        assert!(!told.confirmed, "message {number} was delivered after it was confirmed");
        assert!(!told.purged, "message {number} was delivered after it was purged");
        // 08 says that it never comes on its own channel.
        assert!(letter || !told.refused, "message {number} was delivered after it was refused");
        assert!(!told.lost, "message {number} was delivered though nothing of it was stored");
        assert_eq!(sequence > 0, told.keep, "message {number}: a sequence is for kept messages");
        if told.keep {
            told.starts_again(letter);
            let others = told.holders.keys().filter(|(holder, _)| *holder != to).count();
            // One more, if one of them is silent.
            let late = told.holders.values().any(|holder| !holder.manual && holder.is_late(now));
            let limit = if letter { policy.receivers as usize } else { told.limit };
            assert!(
                limit == 0 || others < limit + usize::from(late),
                "message {number} has more receivers than its limit"
            );
            assert!(
                told.holders.is_empty() || !told.holders.keys().any(|(holder, _)| *holder == to),
                "message {number} was given to {to:?}, which has it"
            );
            let crowded = crowded || std::mem::take(&mut told.loose);
            told.comes_out(number, to, now, crowded);
            let looks_on = told.joins_party(number, now, seen, crowded);
            let within = if manual { policy.ack_timeout } else { policy.confirm_within };
            let within = if looks_on { Duration::ZERO } else { within };
            let holder = Holder { at: now, manual, within, overdue: false, group: seen.group, looks_on };
            told.holders.insert((to, sequence), holder);
            assert!(limit == 0 || !self.is_silent(now, to), "message {number} was given to {to:?}, which is silent");
        }
        let told = self.messages.get_mut(&number).expect("it is known");
        if manual && !letter {
            let before = told.deliveries > told.holders.len().saturating_sub(1) as u32;
            // One that came due right before a crash, and waits until after the next restart.
            let unknown = told.delayed && matches!(channel, "drop" | "three");
            let id = told.id.replace(message).unwrap_or(message);
            assert!(id == message || told.delayed, "message {number} came as {id:?} and comes as {message:?}");
            assert!(!before || attempt > 1 || unknown, "message {number} was redelivered without a mark");
        }
        told.deliveries += 1;
        // One that came due after a crash counts a delivery that nobody knows of.
        let most = (told.deliveries + u32::from(told.delayed)).max(2);
        assert!(attempt <= most, "message {number}: attempt {attempt} of {}", told.deliveries);
        // Some of its own messages are withheld from a sender (those it sent while it received), so it may see others before them.
        if told.deliveries == 1 && !letter && !told.delayed && to != told.sender {
            let key = (told.sender, told.channel.clone(), told.as_member, told.keep);
            let last = self.last_first.entry(key).or_default();
            assert!(*last < number, "message {number} was first delivered after message {last} of the same sender");
            *last = number;
        }
    }

    fn is_crowded(&self, now: Timestamp) -> bool {
        let is_held = |told: &&Told| {
            let waits = told.pause.as_ref().map(|(at, _)| *at).max(told.bound.as_ref().map(|(_, at)| *at));
            told.holders.is_empty() && waits.is_some_and(|at| at > now)
        };
        self.messages.values().filter(is_held).count() > Bounds::TIGHT.held
    }

    /// At the end of a turn: if more is held back than may be, some of it waits no more, and nobody can tell which.
    pub fn loosen(&mut self, now: Timestamp) {
        if self.is_crowded(now) {
            self.messages.values_mut().for_each(|told| told.loose = told.holders.is_empty());
        }
    }

    /// How many messages may count against the limit of a channel, at the most.
    pub fn live(&self, channel: &str, now: Timestamp) -> u64 {
        let live = |told: &&Told| {
            let over = told.confirmed || told.purged || told.refused || told.lost;
            told.channel == channel && told.keep && !over && told.expires.is_none_or(|at| at > now)
        };
        self.messages.values().filter(live).count() as u64
    }

    /// The wall clock was behind by so much: what earlier runs have stored is reckoned anew, unless it has come due since and is a new message.
    pub fn advance(&mut self, now: Timestamp, by: u64) {
        for told in self.messages.values_mut() {
            if told.old == Some(true) && told.due <= now {
                told.old = None;
            }
            let Some(is_due_later) = told.old else { continue };
            if is_due_later {
                told.due.0 = told.due.0.saturating_sub(by);
            }
            if let Some(expires) = &mut told.expires {
                expires.0 = expires.0.saturating_sub(by);
            }
        }
    }

    /// A receiver proves that it has deliveries.
    pub fn confirmed(&mut self, now: Timestamp, connection: ConnectionId, holds: impl Fn(u64, &Holder) -> bool) {
        for told in self.messages.values_mut() {
            let before = told.holders.len();
            let mut settled = false;
            told.holders.retain(|(holder, sequence), held| {
                let goes = *holder == connection && holds(*sequence, held);
                settled |= goes && !held.looks_on;
                !goes
            });
            if told.holders.len() < before {
                self.heard.insert(connection, now);
            }
            if settled {
                told.held.get_or_insert(before);
                told.confirmed = true;
            }
        }
    }

    /// A receiver has vanished.
    pub fn vanished(&mut self, now: Timestamp, connection: ConnectionId) {
        self.lets_go(connection, None, now, |_| {});
    }

    /// A receiver gives a delivery back.
    pub fn nacked(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64), nack: &Nack) {
        self.lets_go(connection, Some(sequence), now, |told| {
            told.failed.by.insert(connection);
            told.failed.nacked = true;
            told.failed.reject |= nack.reject;
            told.failed.until = told.failed.until.max(nack.retry_after.map(|pause| now.after(pause)));
        });
    }

    /// A delivery is taken from a receiver that was too slow.
    pub fn revoked(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64)) {
        // A frame is taken back as one. Of its messages another receiver perhaps has room for the first only.
        let is_only = self.held_by(connection, sequence).len() == 1;
        self.lets_go(connection, Some(sequence), now, |told| {
            told.failed.by.insert(connection);
            // Unless others have it: what they do is another matter.
            told.revoked = (is_only && told.holders.is_empty()).then_some((connection, now));
        });
    }

    /// `only`: this delivery, or everything.
    fn lets_go(&mut self, connection: ConnectionId, only: Option<u64>, now: Timestamp, note: impl Fn(&mut Told)) {
        for told in self.messages.values_mut() {
            let (mut counts, mut any) = (false, false);
            told.holders.retain(|(holder, sequence), held| {
                let stays = *holder != connection || only.is_some_and(|only| only != *sequence);
                any |= !stays;
                counts |= !stays && !held.looks_on;
                stays
            });
            if any && !told.confirmed && !told.purged {
                told.returned.insert(connection);
            }
            if counts && !told.confirmed && !told.purged {
                note(told);
                told.comes_back(now);
            }
        }
    }

    /// A receiver is still at work on a delivery.
    pub fn extended(&mut self, now: Timestamp, (connection, sequence): (ConnectionId, u64), overdue: bool) {
        for told in self.messages.values_mut() {
            if let Some(holder) = told.holders.get_mut(&(connection, sequence)) {
                (holder.at, holder.overdue) = (now, overdue);
            }
        }
    }

    /// A receiver is done with a manual delivery.
    pub fn answered(&mut self, connection: ConnectionId, sequence: u64) {
        for told in self.messages.values_mut() {
            let before = told.holders.len();
            if told.holders.remove(&(connection, sequence)).is_some_and(|holder| !holder.looks_on) {
                told.held.get_or_insert(before);
                told.confirmed = true;
            }
        }
    }

    /// The messages of a delivery.
    pub fn held_by(&self, connection: ConnectionId, sequence: u64) -> Vec<u64> {
        let holds = |told: &Told| told.holders.contains_key(&(connection, sequence));
        self.messages.iter().filter(|(_, told)| holds(told)).map(|(number, _)| *number).collect()
    }

    /// Whether a receiver has not confirmed something in time, and nothing since.
    pub fn is_silent(&self, now: Timestamp, connection: ConnectionId) -> bool {
        let heard = self.heard.get(&connection).copied().unwrap_or_default();
        self.messages.values().filter(|told| !told.confirmed && !told.purged).any(|told| {
            told.holders.iter().any(|((holder, _), held)| {
                // Of what is due at one moment, one thing comes first.
                *holder == connection && !held.manual && held.late().is_some_and(|at| heard < at && at < now)
            })
        })
    }
}
