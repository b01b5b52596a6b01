//! Clients as receivers: they connect, subscribe, confirm and disconnect.

use super::*;

impl World {
    pub(super) fn any_client(&mut self) -> Option<ConnectionId> {
        let ids: Vec<_> = self.clients.keys().copied().collect();
        self.random.pick(&ids).copied()
    }

    pub(super) fn connect(&mut self) {
        self.last_connection += 1;
        let id = ConnectionId(self.last_connection);
        let client = Client {
            manual: false,
            group: None,
            channels: BTreeSet::new(),
            list: Vec::new(),
            order: Order::List,
            served: None,
            last: 0,
            unanswered: BTreeMap::new(),
            revoked: Vec::new(),
            ping: None,
            prefetch: None,
            kind: if self.random.chance(35) { ClientKind::Modern } else { ClientKind::Legacy },
            proxied: self.random.chance(20),
            proven: false,
            sent: BTreeSet::new(),
            frames: 0,
            kept: 0,
            first: None,
            since: self.now,
        };
        self.clients.insert(id, client);
        if self.random.chance(15) {
            let receiver = self.receiver_name();
            self.handle(Event::Claim { connection: id, receiver });
        }
    }

    pub(super) fn receiver_name(&mut self) -> ReceiverKey {
        ReceiverKey { user: Arc::from("u"), id: Arc::from(["x", "y"][self.random.below(2) as usize]) }
    }

    pub(super) fn subscribe(&mut self) {
        let Some(connection) = self.any_client() else { return };
        let count = self.random.below(4);
        let mut channels: Vec<String> = Vec::new();
        for _ in 0..count {
            let channel = CHANNELS[self.random.below(CHANNELS.len() as u64) as usize].to_owned();
            if !channels.contains(&channel) {
                channels.push(channel);
            }
        }
        let prefetch = [Some(1), Some(2), Some(4), None, None, None][self.random.below(6) as usize];
        let receiver = self.random.chance(10).then(|| self.receiver_name());
        let manual = self.random.chance(50);
        let group = [Some("g"), Some("h"), Some("g"), None, None, None][self.random.below(6) as usize];
        let order = if self.random.chance(30) { Order::Fair } else { Order::List };
        let prefers = channels.len() > 1 && order == Order::List;
        let prefetch = prefetch.or_else(|| prefers.then_some(1));
        let subscribe = Subscribe {
            connection,
            user: Arc::from(restart::user_of(connection)),
            channels: channels.iter().map(|channel| name(channel)).collect(),
            ack: if manual { AckMode::Manual } else { AckMode::Automatic },
            prefetch,
            client: self.clients[&connection].kind,
            receiver,
            group: group.map(GroupName::from),
            order,
        };
        self.too_many_channels = None;
        if self.must_refuse_channels(connection, &channels) {
            // The broker answers, and changes nothing.
            self.handle(Event::Subscribe(subscribe));
            assert_eq!(self.too_many_channels, Some(connection), "{connection:?} has opened too many channels");
            self.tally.refused += 1;
            return;
        }
        let Some(client) = self.clients.get_mut(&connection) else { return };
        (client.manual, client.group, client.prefetch, client.order) = (manual, group, prefetch, order);
        client.proven |= manual;
        client.channels = channels.iter().cloned().collect();
        (client.list, client.served) = (channels.clone(), None);
        for record in self.model.messages.values_mut() {
            // After the client has left the channel, it may get its own messages.
            record.sender_receives &= record.sender != connection || channels.contains(&record.channel);
        }
        self.handle(Event::Subscribe(subscribe));
        assert_eq!(self.too_many_channels, None, "{connection:?} was refused channels, and there is room");
    }

    pub(super) fn pong(&mut self) {
        let pinged: Vec<_> =
            self.clients.iter().filter(|(_, client)| client.ping.is_some()).map(|(id, _)| *id).collect();
        let Some(connection) = self.random.pick(&pinged).copied() else { return };
        let Some(up_to) = self.clients.get_mut(&connection).and_then(|client| client.ping.take()) else { return };
        self.confirm(connection, up_to);
        self.handle(Event::Confirmed { connection, up_to });
    }

    pub(super) fn confirm(&mut self, connection: ConnectionId, up_to: u64) {
        let Some(client) = self.clients.get_mut(&connection) else { return };
        let before = client.unanswered.len();
        client.unanswered.retain(|sequence, manual| *manual || *sequence > up_to);
        if client.unanswered.len() < before {
            (client.since, client.proven) = (self.now, true);
        }
        self.model.confirmed(self.now, connection, |sequence, holder| !holder.manual && sequence <= up_to);
    }

    pub(super) fn disconnect(&mut self) {
        if self.random.chance(30)
            && let Some(connection) = self.listening.pop_first()
        {
            self.gone(connection);
            self.handle(Event::Disconnected { connection, took_only: false, listens: false });
            return;
        }
        let waiting = |client: &Client| client.looks_like_one_shot() && !client.unanswered.is_empty();
        let one_shots: Vec<_> = self.clients.iter().filter(|(_, c)| waiting(c)).map(|(id, _)| *id).collect();
        // By chance, few one-shot readers would leave with an unconfirmed delivery.
        let one_shot = if self.random.chance(50) { self.random.pick(&one_shots).copied() } else { None };
        let Some(connection) = one_shot.or_else(|| self.any_client()) else { return };
        // An orderly end: FIN, or close 1000 or 1001, and TCP has acknowledged the frame and no later ping.
        let orderly = self.random.chance(80);
        let client = &self.clients[&connection];
        // Also tests that several messages are not confirmed by an end that the server takes for that of a one-shot reader.
        let took_only = orderly && (client.looks_like_one_shot() || client.kept > 1);
        let earned = took_only && client.earns_by_leaving();
        self.tally.by_leaving += u64::from(earned);
        self.tally.left += u64::from(!client.unanswered.is_empty() && !earned);
        if earned {
            self.confirm(connection, 1);
        }
        let waits = self.unnamed_senders.contains_key(&connection)
            || self.requests.values().any(|request| request.owed.get(&connection).is_some_and(|owed| *owed > 0));
        let listens = waits && self.random.chance(50);
        if listens {
            self.clients.remove(&connection);
            self.model.vanished(self.now, connection);
            self.listening.insert(connection);
        } else {
            self.gone(connection);
        }
        let before = self.broker.counters().confirmed;
        self.handle(Event::Disconnected { connection, took_only, listens });
        assert!(earned || self.broker.counters().confirmed == before, "{connection:?} confirmed by leaving");
    }

    pub(super) fn gone(&mut self, connection: ConnectionId) {
        self.clients.remove(&connection);
        self.listening.remove(&connection);
        self.unnamed_senders.remove(&connection);
        self.model.vanished(self.now, connection);
        for request in self.requests.values_mut() {
            request.owed.remove(&connection);
        }
    }
}
