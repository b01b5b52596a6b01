//! The certificate of the TLS listeners: read at the start, read again when a file changes and on SIGHUP.
//!
//! A new pair that cannot be used, or is not valid at this time, leaves the old one in force. Open connections are not affected.
//!
//! Never here: a socket; blocking work on the event loop (the caller sees to it).

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime};

use rustls::{AlertDescription, ServerConfig};
use tokio::sync::Semaphore;
use tracing::{debug, info, warn};

use super::counters::WarningLimit;
use super::settings::TlsFiles;
use crate::limits;
use wsmb_auth::FileVersion;
use wsmb_tls::{Files, Pair};

/// The certificate in force.
pub(super) struct Certificates {
    config: RwLock<Arc<ServerConfig>>,
    source: Mutex<Source>,
    /// Bounds the handshakes that compute at the same time.
    pub(super) handshakes: Arc<Semaphore>,
    refused: WarningLimit,
    plain: WarningLimit,
}

/// The files, and what is known of them.
struct Source {
    files: Files,
    /// Those of the last attempt to read the files.
    versions: Versions,
    /// Those of a change that was seen but not read yet: a program may still be writing the files.
    unread: Option<Versions>,
    pair: Pair,
    /// When the end of the certificate was last looked at.
    looked: Instant,
}

type Versions = [Option<FileVersion>; 3];

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").finish_non_exhaustive()
    }
}

impl Certificates {
    /// Reads the files. A certificate that is not valid at this time is used, and reported: the machine's clock may be wrong until it is set. Blocks.
    ///
    /// # Errors
    /// A sentence: the files cannot be used.
    pub(super) fn load(files: &TlsFiles) -> Result<Self, String> {
        let files = files_of(files);
        let versions = versions(&files);
        let (pair, config) = read(&files).map_err(|fault| fault.to_string())?;
        report_time(&pair);
        Ok(Self {
            config: RwLock::new(Arc::new(config)),
            source: Mutex::new(Source { files, versions, unread: None, pair, looked: Instant::now() }),
            handshakes: Arc::new(Semaphore::new(limits::tls_handshakes())),
            refused: WarningLimit::default(),
            plain: WarningLimit::default(),
        })
    }

    /// The settings for a new connection.
    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.config.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the files again (SIGHUP). Blocks.
    pub(super) fn reload(&self, files: &TlsFiles) {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        source.files = files_of(files);
        self.replace(&mut source);
    }

    /// Reads the files again if they have changed and are the same at two calls in a row. Returns after what time to call again. Blocks.
    pub(super) fn reload_if_changed(&self) -> Duration {
        let mut source = self.source.lock().unwrap_or_else(PoisonError::into_inner);
        if source.looked.elapsed() >= limits::CERTIFICATE_LOOK {
            source.looked = Instant::now();
            report_time(&source.pair);
        }
        let current = versions(&source.files);
        if current == source.versions {
            source.unread = None;
        } else if source.unread == Some(current) {
            self.replace(&mut source);
        } else {
            source.unread = Some(current);
            return wsmb_auth::limits::HTPASSWD_STABLE;
        }
        limits::HTPASSWD_CHECK
    }

    fn replace(&self, source: &mut Source) {
        // Taken before reading, so that a change during the reading is found by the next check.
        source.versions = versions(&source.files);
        source.unread = None;
        let read = read(&source.files).and_then(|(pair, config)| match pair.time_fault(SystemTime::now()) {
            Some(fault) => Err(fault),
            None => Ok((pair, config)),
        });
        match read {
            Ok((pair, config)) => {
                info!(valid_until = %pair.facts.not_after.date(), "the certificate was read again; new connections get it");
                *self.config.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
                source.pair = pair;
                report_time(&source.pair);
            }
            Err(fault) => warn!("the new certificate is not used, the old one stays in force: {fault}"),
        }
    }

    /// Logs a failed handshake: as a warning only if the client does not trust the certificate.
    pub(super) fn note_failed(&self, peer: SocketAddr, error: &rustls::Error) {
        use AlertDescription::{BadCertificate, CertificateExpired, CertificateUnknown, DecryptError, UnknownCA};
        // `DecryptError`: the client knows an older certificate of the same name.
        if let rustls::Error::AlertReceived(
            BadCertificate | CertificateExpired | CertificateUnknown | DecryptError | UnknownCA,
        ) = error
            && let Some(withheld) = self.refused.admit()
        {
            warn!(%peer, withheld, "a client does not trust the certificate, and has left: {error}");
        } else {
            debug!(%peer, %error, "a TLS handshake failed");
        }
    }

    /// Logs a client that does not speak TLS.
    pub(super) fn note_plain(&self, peer: SocketAddr) {
        if let Some(withheld) = self.plain.admit() {
            warn!(%peer, withheld, "refused a connection: a client does not speak TLS on a port for TLS; it must use wss:// or https://");
        }
    }
}

fn files_of(files: &TlsFiles) -> Files {
    let TlsFiles { certificate, key, client_ca } = files.clone();
    Files { certificate, key, client_ca }
}

fn read(files: &Files) -> Result<(Pair, ServerConfig), wsmb_tls::Fault> {
    let pair = files.read()?;
    let config = pair.server_config()?;
    Ok((pair, config))
}

fn versions(Files { certificate, key, client_ca }: &Files) -> Versions {
    [Some(certificate), Some(key), client_ca.as_ref()]
        .map(|file| file.and_then(|file: &std::path::PathBuf| version(file)))
}

fn version(file: &Path) -> Option<FileVersion> {
    std::fs::metadata(file).ok().map(|metadata| FileVersion::of(&metadata))
}

/// Logs that the certificate is not valid, or not much longer.
fn report_time(pair: &Pair) {
    let now = SystemTime::now();
    if let Some(fault) = pair.time_fault(now) {
        warn!("{fault}");
    } else if let Some(warning) = pair.expiry_warning(now) {
        warn!("{warning}");
    }
}
