//! Raises the limit of open files for the connections of a run. It must never lower the limit.

use super::Error;
use crate::limits;

/// Raises the soft limit of open files, so that this many connections can be open.
///
/// # Errors
/// Even the hard limit is too low.
pub(super) fn room_for(connections: u64) -> Result<(), Error> {
    let needed = connections + limits::SPARE_FILES;
    // If the limit cannot be read or raised, opening the connections shows the actual limit.
    match rlimit::increase_nofile_limit(needed) {
        Ok(most) if most < needed => Err(Error::System(format!(
            "{connections} connections need {needed} open files, and this system allows a process {most}: \
             raise the limit (ulimit -n, or LimitNOFILE for a service), or ask for fewer connections"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_allowed_and_too_many_are_refused() {
        assert!(room_for(8).is_ok());
        if cfg!(unix)
            && let Err(error) = room_for(u64::from(u32::MAX) * 1_000)
        {
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
    }
}
