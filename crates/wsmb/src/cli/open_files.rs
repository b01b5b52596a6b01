//! How many files and sockets the broker may open.

/// Raises the soft limit of open files to the hard one, as servers do: the soft one is low for the sake of old programs that use
/// `select`, and this is none. Where the system refuses, what it gave holds, and `check` has its doubt.
#[cfg(unix)]
pub(crate) fn raise_limit() {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid rlimit for the whole call, which writes to it and nowhere else.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } == 0 && limit.rlim_cur < limit.rlim_max {
        limit.rlim_cur = limit.rlim_max;
        // SAFETY: `limit` is a valid rlimit for the whole call, which only reads it.
        let _ = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) };
    }
}

/// There is no such limit here.
#[cfg(not(unix))]
pub(crate) fn raise_limit() {}
