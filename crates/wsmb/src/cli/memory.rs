//! The memory that the broker may use: `server.memory_budget`, or a part of the machine's memory.

use crate::platform;
use wsmb_config::{Server, limits};

/// The least and the most that the broker takes by itself.
const AUTO: std::ops::RangeInclusive<usize> = 64 << 20..=1 << 30;

/// What the broker takes of a machine whose memory it cannot learn.
const UNKNOWN: usize = 256 << 20;

/// Returns the bytes that the broker may use.
pub(crate) fn budget(server: &Server) -> usize {
    let least = limits::MEMORY_MESSAGES.saturating_mul(server.max_message);
    server.memory_budget.unwrap_or_else(|| share(platform::memory(), platform::memory_limit()).max(least))
}

/// Returns a quarter of the machine's memory, or half of what the control group allows, if that is less than the machine has. `None`: unknown.
fn share(machine: Option<u64>, group: Option<u64>) -> usize {
    let group = group.filter(|limit| machine.is_none_or(|machine| *limit < machine));
    let share = group.map(|limit| limit / 2).or(machine.map(|bytes| bytes / 4));
    let share = share.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(UNKNOWN);
    share.clamp(*AUTO.start(), *AUTO.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_share_is_a_quarter_of_the_machine_or_half_of_the_group() {
        const GIB: u64 = 1 << 30;
        assert_eq!(share(Some(2 * GIB), None), 512 << 20);
        assert_eq!(share(Some(2 * GIB), Some(GIB / 2)), 256 << 20);
        assert_eq!(share(Some(2 * GIB), Some(u64::MAX)), 512 << 20, "no limit");
        assert_eq!(share(Some(GIB / 8), None), 64 << 20, "a small machine");
        assert_eq!(share(Some(64 * GIB), Some(32 * GIB)), 1 << 30, "a large machine");
        assert_eq!(share(None, None), UNKNOWN);
    }
}
