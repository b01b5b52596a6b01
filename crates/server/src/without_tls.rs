//! The place of TLS in a build without the feature `tls`: types that have no value, so that no code for them remains.

/// As `tls_stream.rs`.
pub(crate) mod tls_stream {
    use std::io;
    use std::task::{Context, Poll};

    use tokio::net::TcpStream;

    /// There is none.
    #[derive(Debug)]
    pub(crate) enum TlsStream {}

    impl TlsStream {
        pub(crate) fn stream(&self) -> &TcpStream {
            match *self {}
        }

        pub(crate) fn poll_read_ready(&self, _: &mut Context<'_>) -> Poll<()> {
            match *self {}
        }

        pub(crate) fn try_read(&self, _: &mut [u8]) -> io::Result<usize> {
            match *self {}
        }

        pub(crate) fn try_write(&self, _: &[u8]) -> io::Result<usize> {
            match *self {}
        }

        pub(crate) fn abort(&self) {
            match *self {}
        }

        pub(crate) fn finish(&self) -> io::Result<()> {
            match *self {}
        }

        pub(crate) fn unacknowledged(&self) -> Option<u64> {
            match *self {}
        }

        pub(crate) fn held(&self) -> usize {
            match *self {}
        }
    }
}

/// As `certificates.rs`.
pub(crate) mod certificates {
    use std::time::Duration;

    use crate::settings::TlsFiles;

    /// There are none.
    #[derive(Debug)]
    pub(crate) enum Certificates {}

    impl Certificates {
        pub(crate) fn load(_: &TlsFiles) -> Result<Self, String> {
            Err("this build has no TLS; use a build with it, or remove the TLS listeners from the configuration"
                .to_owned())
        }

        pub(crate) fn reload(&self, _: &TlsFiles) {
            match *self {}
        }

        pub(crate) fn reload_if_changed(&self) -> Duration {
            match *self {}
        }
    }
}

/// As `tls_accept.rs`.
pub(crate) mod tls_accept {
    use std::sync::Arc;

    use super::certificates::Certificates;
    use crate::handshake::Accepted;
    use crate::handshakes::Slot;
    use crate::hub::Hub;
    use crate::reader::Reader;
    use crate::transport::Transport;

    pub(crate) async fn run(
        _: Arc<Hub>,
        _: Transport,
        _: Accepted,
        certificates: Arc<Certificates>,
        _: Slot,
    ) -> Option<Box<Reader>> {
        match *certificates {}
    }
}
