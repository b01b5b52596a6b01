//! Writes a session's queue to its transport, as far as the socket takes it.
//!
//! Must never hold the queue's lock across a system call.

use std::cell::RefCell;
use std::io;

use bytes::Bytes;
use tracing::debug;

use super::Session;
use crate::limits;
use crate::queue::{Work, WriteResult};
use crate::transport::Transport;

/// The buffers that all sessions of a thread share for writing.
#[derive(Default)]
struct Scratch {
    chunk: Vec<Bytes>,
    copy: Vec<u8>,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

impl Session {
    /// Writes queued frames until the socket is full; without a socket, wakes the task that takes them. Any thread may call this, but not under the core's lock.
    /// Returns the number of bytes written.
    pub(crate) fn flush(&self) -> usize {
        let Some(transport) = self.transport() else {
            self.queue().wake();
            return 0;
        };
        SCRATCH.with_borrow_mut(|scratch| {
            let Scratch { chunk, copy } = scratch;
            let mut written = 0;
            let mut work = self.queue().begin(chunk);
            for _ in 0..limits::WRITE_ROUNDS {
                match work {
                    Work::Nothing => return written,
                    Work::Write => {
                        let wrote = self.write(transport, chunk, copy);
                        if let WriteResult::Bytes(count) = wrote {
                            written += count;
                        }
                        work = self.queue().after_write(chunk, wrote);
                    }
                    Work::Finish => {
                        // An error means that the peer has gone; the reader sees that too.
                        let _ = transport.finish();
                        self.queue().after_finish();
                        return written;
                    }
                }
            }
            match work {
                Work::Nothing => {}
                Work::Write => self.queue().hand_over(chunk),
                Work::Finish => {
                    let _ = transport.finish();
                    self.queue().after_finish();
                }
            }
            written
        })
    }

    fn write(&self, transport: &Transport, chunk: &[Bytes], copy: &mut Vec<u8>) -> WriteResult {
        let bytes = match chunk {
            [single] => &single[..],
            many => {
                copy.clear();
                for frame in many {
                    copy.extend_from_slice(frame);
                }
                &copy[..]
            }
        };
        match transport.try_write(bytes) {
            Ok(count) => WriteResult::Bytes(count),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => WriteResult::Blocked,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => WriteResult::Bytes(0),
            Err(error) => {
                debug!(connection = self.id.0, %error, "writing failed");
                WriteResult::Failed
            }
        }
    }
}
