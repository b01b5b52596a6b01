//! Tests of the queue: groups, removals, loads, order.

use super::*;
use wsmb_core::message::Payload;

fn channel(name: &str) -> ChannelName {
    ChannelName::parse(name).expect("a valid name")
}

fn message(id: u64) -> Message {
    Message {
        id: MessageId(id),
        channel: channel("a"),
        payload: Payload::text("1234"),
        created: Timestamp(0),
        expires: None,
        due: None,
        receivers: None,
        publication: None,
        deliveries: 0,
        dead: None,
    }
}

fn appended(group: &Group) -> Vec<u64> {
    group.appends.iter().map(|message| message.id.0).collect()
}

#[test]
fn a_message_removed_before_its_group_is_cut_is_in_no_group() {
    let mut queue = Queue::default();
    queue.append(vec![message(1), message(2), message(3)]);
    queue.count(&[(MessageId(2), 4)]);
    queue.remove(&[MessageId(1), MessageId(3)]);
    let group = queue.next_group(true).0;
    assert_eq!(appended(&group), [2]);
    assert_eq!(group.appends[0].deliveries, 4, "a count goes with the row that is not written yet");
    assert!(group.removals.is_empty() && group.deliveries.is_empty());
    assert_eq!(queue.bytes(), 0);
}

#[test]
fn a_message_removed_while_its_group_commits_is_removed_by_the_next() {
    let mut queue = Queue::default();
    queue.append(vec![message(1)]);
    queue.next_group(true);
    queue.remove(&[MessageId(1)]);
    assert_eq!(queue.next_group(true).0.removals, [MessageId(1)]);
}

#[test]
fn the_messages_of_a_publication_are_written_together() {
    let mut queue = Queue::default();
    let id = |id| Some(wsmb_core::message::PublicationId::new("app", id));
    let count = wsmb_core::limits::STORE_GROUP as u64;
    queue.append((1..count).map(message).collect());
    queue.append((count..count + 3).map(|number| Message { publication: id("one"), ..message(number) }).collect());
    queue.append(vec![Message { publication: id("two"), ..message(count + 3) }]);
    assert_eq!(
        queue.next_group(true).0.appends.len() as u64,
        count + 2,
        "the group has room for the first of three only"
    );
    assert_eq!(appended(&queue.next_group(true).0), [count + 3]);
}

#[test]
fn groups_are_bounded_in_messages_and_in_bytes() {
    let mut queue = Queue::default();
    let count = wsmb_core::limits::STORE_GROUP as u64 + 1;
    queue.append((1..=count).map(message).collect());
    assert_eq!(queue.next_group(true).0.appends.len(), wsmb_core::limits::STORE_GROUP);
    assert_eq!(appended(&queue.next_group(true).0), [count]);
    let large = |id| Message { payload: Payload::text("x".repeat(limits::STORE_GROUP_BYTES / 2)), ..message(id) };
    queue.append((1..=3).map(large).collect());
    assert_eq!(appended(&queue.next_group(true).0), [1, 2]);
    assert_eq!(queue.bytes(), cost(&large(3)));
}

#[test]
fn changes_survive_a_failure_and_newer_requests_win() {
    let mut queue = Queue::default();
    queue.remove(&[MessageId(1), MessageId(2)]);
    queue.count(&[(MessageId(3), 1), (MessageId(4), 1)]);
    let group = queue.next_group(true).0;
    queue.append(vec![message(2)]);
    queue.remove(&[MessageId(4)]);
    queue.count(&[(MessageId(3), 2)]);
    queue.put_back(group.removals, group.deliveries);
    assert!(queue.next_group(false).0.removals.is_empty(), "only if asked for");
    let group = queue.next_group(true).0;
    assert_eq!(group.removals, [MessageId(1), MessageId(4)]);
    assert_eq!(group.deliveries, [(MessageId(3), 2)]);
}

#[test]
fn a_purge_cancels_waiting_appends_of_its_channel_only() {
    let mut queue = Queue::default();
    queue.append(vec![message(1), message(2), Message { channel: channel("b"), ..message(3) }, message(4)]);
    queue.purge(&channel("a"), MessageId(3));
    queue.purge(&channel("a"), MessageId(2));
    assert_eq!(appended(&queue.next_group(true).0), [3, 4]);
    assert!(queue.is_gone(&channel("a"), MessageId(3)) && !queue.is_gone(&channel("b"), MessageId(3)));
    assert_eq!(queue.next_purge(), Some((channel("a"), MessageId(3))));
    queue.purged(&channel("a"), MessageId(2));
    assert!(queue.next_purge().is_some(), "a longer purge came meanwhile");
    queue.purged(&channel("a"), MessageId(3));
    assert_eq!(queue.next_purge(), None);
}

#[test]
fn a_page_waits_for_what_came_before_it_and_for_nothing_after() {
    let mut queue = Queue::default();
    let first = wsmb_core::limits::STORE_GROUP as u64 + 1;
    queue.append((1..=first).map(message).collect());
    queue.load(channel("a"), MessageId(0), (10, 1 << 20));
    queue.append((first + 1..first + 3).map(message).collect());
    queue.next_group(true);
    assert!(queue.ready_loads(9).is_empty());
    queue.next_group(true);
    assert_eq!(queue.ready_loads(9).len(), 1);
}

#[test]
fn waiting_changes_are_bounded() {
    let mut queue = Queue::default();
    let ids: Vec<_> = (0..limits::STORE_PENDING as u64).map(|id| (MessageId(id), 1)).collect();
    queue.count(&ids);
    assert!(queue.is_overloaded());
    queue.count(&[(MessageId(u64::MAX), 1)]);
    assert_eq!(queue.deliveries.len(), limits::STORE_PENDING);
    for _ in 0..limits::STORE_CHECKS {
        assert!(queue.check(Box::new(drop)).is_none());
    }
    assert!(queue.check(Box::new(drop)).is_some());
}

#[test]
fn a_replaced_row_goes_with_the_commit_of_the_new_one_and_not_without() {
    let mut queue = Queue::default();
    queue.replace(message(2), vec![MessageId(1)]);
    let (group, replaced) = queue.next_group(true);
    assert_eq!((appended(&group), &group.removals[..]), (vec![2], &[MessageId(1)][..]));
    assert_eq!(replaced[&MessageId(2)], [MessageId(1)], "after a failure the removal does not wait");
    queue.replace(message(4), vec![MessageId(3)]);
    queue.remove(&[MessageId(4)]);
    let (group, _) = queue.next_group(true);
    assert!(group.is_empty(), "the new one was never written, so the old one stays: {group:?}");
}

#[test]
fn a_row_whose_write_was_reported_as_failed_is_removed() {
    let mut queue = Queue::default();
    queue.append(vec![message(1), message(2), message(3)]);
    queue.next_group(true);
    queue.mark_uncertain(&[MessageId(1), MessageId(2), MessageId(3)]);
    queue.append(vec![message(1), message(2), message(4)]);
    queue.remove(&[MessageId(1), MessageId(4)]);
    let group = queue.next_group(true).0;
    assert_eq!(
        (appended(&group), group.removals),
        (vec![2], vec![MessageId(1)]),
        "the one that failed before, and no other"
    );
    queue.append(vec![message(2)]);
    queue.remove(&[MessageId(2), MessageId(3)]);
    assert_eq!(
        queue.next_group(true).0.removals,
        [MessageId(3)],
        "a row that was written since is not uncertain any more"
    );
}

#[test]
fn refused_rows_that_may_exist_are_removed_and_nothing_else() {
    let mut queue = Queue::default();
    queue.append(vec![message(1), message(2)]);
    queue.next_group(true);
    queue.mark_uncertain(&[MessageId(1)]);
    queue.remove_uncertain(&[MessageId(1), MessageId(2)]);
    assert_eq!(queue.next_group(true).0.removals, [MessageId(1)]);
    let many: Vec<MessageId> = (1..=2 * limits::STORE_UNCERTAIN_ROWS as u64).map(MessageId).collect();
    queue.mark_uncertain(&many);
    queue.remove_uncertain(&many);
    assert_eq!(
        queue.next_group(true).0.removals.len(),
        wsmb_core::limits::STORE_GROUP,
        "as many as a transaction takes"
    );
    assert!(queue.row_changes() <= limits::STORE_UNCERTAIN_ROWS, "and no more than the bound wait");
}

#[test]
fn uncertain_rows_are_bounded() {
    let mut queue = Queue::default();
    let many = 3 * limits::STORE_UNCERTAIN_ROWS as u64;
    queue.mark_uncertain(&(1..=many).map(MessageId).collect::<Vec<_>>());
    queue.append(vec![message(1), message(many)]);
    queue.remove(&[MessageId(1), MessageId(many)]);
    assert_eq!(queue.next_group(true).0.removals, [MessageId(many)], "the oldest are forgotten");
}
