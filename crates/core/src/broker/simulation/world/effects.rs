//! Passes events to the broker, carries out the effects, and checks each delivery.

use super::*;

fn print_effects(effects: &Effects) {
    effects.list.iter().for_each(|effect| eprintln!("    {effect:?}"));
    let contents = effects.contents.iter().enumerate();
    contents.for_each(|(index, content)| eprintln!("    content {index}: {content:?}"));
}

impl World {
    /// Notes what is known before an event, and tells the broker how much memory is used.
    fn begin_turn(&mut self, event: &Event<'_>) {
        self.note_page(event);
        self.starved = self.broker.starved();
        self.broker.set_memory_used(self.settings.memory_budget / 100 * self.memory);
        self.turn += 1;
    }

    /// Passes an event to the broker, and carries out the effects.
    pub(super) fn handle(&mut self, event: Event<'_>) {
        let mut effects = std::mem::take(&mut self.effects);
        effects.clear();
        if self.trace {
            eprintln!("{} {event:?}", self.now.0);
        }
        let publish = if let Event::Publish(publish) = &event { Some(*publish) } else { None };
        let live = publish.map(|publish| publish.publication);
        self.begin_turn(&event);
        self.broker.handle(self.now, event, &mut effects);
        if self.trace {
            print_effects(&effects);
        }
        let mut fan_outs = fanout::FanOuts::default();
        let grouped = self.grouped(&effects);
        for effect in effects.list.drain(..) {
            match effect {
                Effect::Deliver { to, content: index, sequence, manual, attempt, message } => {
                    let content = content_of(&effects.contents[index as usize], live);
                    self.note_fan_out(&mut fan_outs, index, &content, to);
                    self.check_dead_letter(&effects.contents[index as usize]);
                    let grouped = grouped.contains(&index);
                    self.deliver(to, content, (sequence, index, grouped), manual, (attempt, message));
                }
                Effect::Broadcast { to, except, content: index } => {
                    for to in to.iter().filter(|to| Some(**to) != except) {
                        let content = content_of(&effects.contents[index as usize], live);
                        self.note_fan_out(&mut fan_outs, index, &content, *to);
                        self.deliver(*to, content, (0, index, false), false, (1, MessageId(0)));
                    }
                }
                Effect::Confirm { connection } => {
                    let client = self
                        .clients
                        .get_mut(&connection)
                        .expect("a confirmation was requested from a disconnected client");
                    assert!(client.ping.is_none(), "a second confirmation was requested before the first arrived");
                    let early =
                        !client.proven && !self.stopping && self.now < client.since.after(limits::CONFIRM_QUIET);
                    assert!(
                        !early || client.kind == ClientKind::Modern,
                        "{connection:?} was request before its burst ended"
                    );
                    client.ping = Some(client.last);
                }
                Effect::Reply { to: ReplyTo::Connection(to), reply } => self.answered(to, &reply),
                Effect::Reply { to: ReplyTo::Caller(caller), reply } => self.called_back(caller, &reply),
                Effect::Reply { to: ReplyTo::Nobody, reply } => panic!("a reply to nobody: {reply:?}"),
                Effect::End { connection, reason } => {
                    let client = self.clients.get(&connection).expect("a disconnected client was ended");
                    if reason == EndReason::Unconfirmed {
                        let late = self.now.since(client.since) >= self.settings.confirm_timeout;
                        assert!(late && client.has_automatic(), "{connection:?} was ended before confirm_timeout");
                        self.tally.unconfirmed += 1;
                    }
                    self.gone(connection);
                    self.ended.insert(connection);
                }
                Effect::Store(effect) => self.ask_store(effect),
                Effect::Note(note) => self.check_note(&note),
            }
        }
        self.effects = effects;
        self.check_fan_outs(&fan_outs);
        self.model.mark_early(self.now);
        // The server reports the end of every connection that the broker has ended.
        while let Some(connection) = self.ended.pop_first() {
            self.handle(Event::Disconnected { connection, took_only: false, listens: false });
        }
    }

    fn deliver(
        &mut self,
        to: ConnectionId,
        (channel, numbers): (ChannelName, Vec<u64>),
        (sequence, content, grouped): (u64, u32, bool),
        manual: bool,
        (attempt, message): (u32, MessageId),
    ) {
        self.check_preference(to, channel.as_str(), &numbers);
        let client = self.clients.get_mut(&to).expect("a delivery to a disconnected client");
        client.frames += numbers.len();
        assert!(client.channels.contains(channel.as_str()), "{to:?} does not receive {channel}");
        assert!(sequence == 0 || !self.stopping, "a kept message was delivered to {to:?} during the stop");
        if sequence > 0 {
            assert_eq!(manual, client.manual, "{to:?} uses the other acknowledgement mode");
            assert_eq!(sequence, client.last + 1, "deliveries are numbered without a gap");
            client.last = sequence;
            client.kept += numbers.len();
            client.first.get_or_insert_with(|| channel.as_str().to_owned());
            if !manual && !client.has_automatic() {
                client.since = self.now;
            }
            client.unanswered.insert(sequence, manual);
            let limited =
                channel.as_str() == "dead" || numbers.iter().any(|number| self.model.messages[number].limit > 0);
            let most = client.window(limited);
            assert!(client.unanswered.len() <= most, "{to:?} has more than {most} unconfirmed deliveries");
        }
        let (group, messages) = (client.group, numbers.len());
        for (index, number) in numbers.into_iter().enumerate() {
            let (channel, policy) = (channel.as_str(), self.settings.policies.of(&channel));
            let message = MessageId(message.0 + index as u64);
            let delivery = (self.turn, content);
            let view = DeliveryView {
                number,
                channel,
                to,
                sequence,
                manual,
                attempt,
                messages,
                message,
                policy,
                group,
                grouped,
                delivery,
            };
            self.model.delivered(self.now, &view, "dead");
        }
    }
}
