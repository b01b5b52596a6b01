//! Descriptors for the connections of a run.

use super::Error;
use crate::limits;

/// Sees to it that so many connections can be open: the soft limit of the system is raised as far as it goes.
///
/// # Errors
/// Even the hard limit is too low.
pub(super) fn room_for(connections: u64) -> Result<(), Error> {
    let needed = connections + limits::load::SPARE_FILES;
    match raise(needed) {
        Some(most) if most < needed => Err(Error::System(format!(
            "{connections} connections need {needed} open files, and this system allows a process {most}: \
             raise the limit (ulimit -n, or LimitNOFILE for a service), or ask for fewer connections"
        ))),
        _ => Ok(()),
    }
}

/// How many files may be open now; `None` where the system has no such limit or does not tell it.
#[cfg(unix)]
fn raise(needed: u64) -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the whole call, which writes to it and nowhere else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return None;
    }
    if limit.rlim_cur < needed && limit.rlim_cur < limit.rlim_max {
        let before = limit.rlim_cur;
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit for the whole call, which only reads it.
        if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
            limit.rlim_cur = before;
        }
    }
    Some(limit.rlim_cur)
}

#[cfg(not(unix))]
fn raise(_needed: u64) -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_connections_are_allowed_and_too_many_are_refused_in_words() {
        assert!(room_for(8).is_ok());
        if cfg!(unix)
            && let Err(error) = room_for(u64::from(u32::MAX) * 1_000)
        {
            assert!(error.to_string().contains("ulimit -n"), "{error}");
        }
    }
}
