//! TLS for the tests: certificates, and the byte stream of a connection with TLS or without.
//!
//! With [`EVERYWHERE`], every broker listens with TLS and every [`crate::raw::Raw`] speaks it, so that the other tests can be run over TLS.
#![allow(dead_code)] // Not every test program uses everything.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use crate::broker::PATIENCE;

/// The environment variable that makes all connections encrypted.
pub const EVERYWHERE: &str = "WSMB_TEST_TLS";

pub fn is_everywhere() -> bool {
    std::env::var_os(EVERYWHERE).is_some()
}

/// The lines of `[tls]`, for [`Identity::store`].
pub const SECTION: &str = "[tls]\ncertificate = \"cert.pem\"\nkey = \"key.pem\"\n";

/// A certificate with its key (PEM).
pub struct Identity {
    pub certificate: String,
    pub key: String,
}

impl Identity {
    /// A self-signed certificate for 127.0.0.1 and localhost, with these changes.
    pub fn new(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Self {
        let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        change(&mut params);
        let key = rcgen::KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        Self { certificate, key: key.serialize_pem() }
    }

    /// The identity of all brokers of this process that need no other one.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Identity> = OnceLock::new();
        SHARED.get_or_init(|| Self::new(|_| {}))
    }

    /// Writes the files that [`SECTION`] names.
    pub fn store(&self, dir: &Path) {
        std::fs::write(dir.join("cert.pem"), &self.certificate).expect("the certificate");
        std::fs::write(dir.join("key.pem"), &self.key).expect("the key");
    }

    /// A client that trusts only this certificate, and shows `own`.
    pub fn client_with(&self, own: Option<&Self>) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")).expect("a root");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder =
            ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("versions");
        let builder = builder.with_root_certificates(roots);
        Arc::new(match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let chain = vec![CertificateDer::from_pem_slice(own.certificate.as_bytes()).expect("a certificate")];
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("a key");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
        })
    }

    /// A server with this certificate.
    pub fn server(&self) -> Arc<rustls::ServerConfig> {
        let chain = vec![CertificateDer::from_pem_slice(self.certificate.as_bytes()).expect("a certificate")];
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).expect("a key");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).expect("a pair"))
    }

    /// A client that trusts only this certificate.
    pub fn client(&self) -> Arc<ClientConfig> {
        self.client_with(None)
    }
}

/// The byte stream of a connection.
pub struct Stream {
    bytes: Bytes,
    /// A drop does not announce the end.
    is_silent: bool,
}

enum Bytes {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// A new connection, encrypted with [`EVERYWHERE`].
    pub fn over(stream: TcpStream) -> Self {
        if !is_everywhere() {
            return Self { bytes: Bytes::Plain(stream), is_silent: true };
        }
        static CLIENT: OnceLock<Arc<ClientConfig>> = OnceLock::new();
        Self::secure(stream, CLIENT.get_or_init(|| Identity::shared().client()).clone()).expect("a TLS handshake")
    }

    /// Performs the TLS handshake.
    pub fn secure(mut stream: TcpStream, config: Arc<ClientConfig>) -> std::io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut tls = ClientConnection::new(config, "127.0.0.1".try_into().expect("a name")).expect("a client");
        while tls.is_handshaking() {
            tls.complete_io(&mut stream)?;
        }
        Ok(Self { bytes: Bytes::Tls(Box::new(StreamOwned::new(tls, stream))), is_silent: false })
    }

    /// Makes the close a reset, without announcement.
    pub fn reset(mut self) {
        socket2::SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO)).expect("SO_LINGER");
        self.is_silent = true;
    }

    pub fn tcp(&self) -> &TcpStream {
        match &self.bytes {
            Bytes::Plain(stream) => stream,
            Bytes::Tls(stream) => &stream.sock,
        }
    }

    /// Reads once. An end that was not announced is an error.
    pub fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<usize> {
        match &mut self.bytes {
            Bytes::Plain(stream) => stream.read(bytes),
            Bytes::Tls(stream) => stream.read(bytes),
        }
    }

    pub fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match &mut self.bytes {
            Bytes::Plain(stream) => stream.write_all(bytes),
            Bytes::Tls(stream) => stream.write_all(bytes).and_then(|()| stream.flush()),
        }
    }

    /// Announces the end, and sends FIN.
    pub fn finish(&mut self) {
        self.announce_end();
        let _ = self.tcp().shutdown(Shutdown::Write);
    }

    fn announce_end(&mut self) {
        if let Bytes::Tls(stream) = &mut self.bytes {
            stream.conn.send_close_notify();
            let _ = stream.conn.write_tls(&mut stream.sock);
        }
    }
}

/// The libraries of most clients announce the end when a stream is closed.
impl Drop for Stream {
    fn drop(&mut self) {
        if !self.is_silent {
            self.announce_end();
        }
    }
}
