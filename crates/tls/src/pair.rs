//! A certificate with its key, read from PEM files, and the settings of a TLS server.
//!
//! Reads blocking; never on an event loop.

use std::io::{ErrorKind, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use crate::facts::utc;
use crate::{Facts, Fault, limits, provider};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

/// The files of a TLS server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The certificate of the server and those of its issuers, in this order (PEM).
    pub certificate: PathBuf,
    /// The private key of the certificate (PEM: PKCS#8, PKCS#1 or SEC1).
    pub key: PathBuf,
    /// The certificate authorities that issue client certificates (PEM); `None`: client certificates are not asked for.
    pub client_ca: Option<PathBuf>,
}

/// A certificate and its key, which belong together.
#[derive(Debug)]
pub struct Pair {
    certified: Arc<CertifiedKey>,
    clients: Option<RootCertStore>,
    /// What the certificate says of itself.
    pub facts: Facts,
    certificate: PathBuf,
}

impl Files {
    /// Reads the files. Blocks.
    ///
    /// # Errors
    /// The first fault of the files. A certificate that is not valid at this time is no fault here; see [`Pair::time_fault`].
    pub fn read(&self) -> Result<Pair, Fault> {
        let chain = certificates(&self.certificate)?;
        let key = key(&self.key)?;
        let (certificate_file, key_file) = (self.certificate.display(), self.key.display());
        let facts = chain.first().and_then(|first| Facts::of(first)).ok_or_else(|| {
            Fault(format!("the first certificate in {certificate_file} is malformed; copy the file again"))
        })?;
        let signer = rustls::crypto::ring::sign::any_supported_type(&key).map_err(|_| {
            Fault(format!("the key in {key_file} has a kind that is not supported; use ECDSA (P-256, P-384), RSA of 2048 to 8192 bits, or Ed25519"))
        })?;
        let certified = CertifiedKey::new(chain, signer);
        certified.keys_match().map_err(|_| {
            Fault(format!(
                "the key in {key_file} does not belong to the certificate in {certificate_file}; the first certificate in the file must be the server's own"
            ))
        })?;
        let clients = self.client_ca.as_deref().map(roots).transpose()?;
        Ok(Pair { certified: Arc::new(certified), clients, facts, certificate: self.certificate.clone() })
    }
}

impl Pair {
    /// Returns why clients refuse the certificate at this time, if they do.
    #[must_use]
    pub fn time_fault(&self, now: SystemTime) -> Option<Fault> {
        let now = utc(now);
        let (Facts { not_before, not_after, .. }, file) = (&self.facts, self.certificate.display());
        if now < *not_before {
            return Some(Fault(format!(
                "the certificate in {file} is not valid before {}; check this machine's clock, which shows {}",
                not_before.date(),
                now.date()
            )));
        }
        (now > *not_after)
            .then(|| Fault(format!("the certificate in {file} expired on {}; renew it", not_after.date())))
    }

    /// Returns a warning if the certificate expires within [`limits::DAYS_LEFT`] days.
    #[must_use]
    pub fn expiry_warning(&self, now: SystemTime) -> Option<String> {
        let days = self.facts.days_left(now);
        let file = self.certificate.display();
        let when = match days {
            0 => "today".to_owned(),
            1 => "in 1 day".to_owned(),
            days => format!("in {days} days"),
        };
        ((0..limits::DAYS_LEFT).contains(&days))
            .then(|| format!("the certificate in {file} expires {when}, on {}; renew it", self.facts.not_after.date()))
    }

    /// Returns the settings of a server that shows this certificate.
    ///
    /// Keeps nothing for a client that comes again: the client's ticket holds its session. The keys of tickets belong to these settings, so tickets of an earlier
    /// certificate or of other client authorities are refused.
    ///
    /// # Errors
    /// The client authorities cannot be used, or the system provides no random numbers.
    pub fn server_config(&self) -> Result<ServerConfig, Fault> {
        let failed = |error: &dyn std::fmt::Display| Fault(format!("TLS cannot be set up: {error}"));
        let provider = provider();
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(&error))?;
        let builder = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(roots) => {
                // A client without a certificate logs in with a password.
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider)
                    .allow_unauthenticated()
                    .build();
                builder.with_client_cert_verifier(verifier.map_err(|error| failed(&error))?)
            }
        };
        let mut config = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(self.certified.clone())));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.ticketer = rustls::crypto::ring::Ticketer::new().map_err(|error| failed(&error))?;
        config.send_tls13_tickets = 1;
        // No HTTP/2 is spoken here. A browser that offers both must be told.
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Reads all certificates of a file; at least one.
pub(crate) fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, Fault> {
    let (bytes, file) = (read(path, "certificate")?, path.display());
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match found {
        Ok(found) if found.is_empty() => Err(Fault(format!(
            "there is no certificate in {file}; it must have a part that begins with -----BEGIN CERTIFICATE-----"
        ))),
        Ok(found) => Ok(found),
        Err(_) => Err(Fault(format!("a certificate in {file} is malformed; copy the file again"))),
    }
}

/// Reads the certificate authorities of a file; at least one.
pub(crate) fn roots(path: &Path) -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots
            .add(certificate)
            .map_err(|_| Fault(format!("a certificate in {} is malformed or has no usable key", path.display())))?;
    }
    Ok(roots)
}

fn key(path: &Path) -> Result<PrivateKeyDer<'static>, Fault> {
    let (bytes, file) = (read(path, "key")?, path.display());
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        Fault(if has("ENCRYPTED") {
            format!("the key in {file} is encrypted with a passphrase; store it without: openssl pkey -in {file} -out NEW_FILE")
        } else {
            format!("there is no key in {file}; it must have a part that begins with -----BEGIN PRIVATE KEY-----")
        })
    })
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, Fault> {
    let mut bytes = Vec::new();
    let result = std::fs::File::open(path).and_then(|file| file.take(limits::PEM_BYTES + 1).read_to_end(&mut bytes));
    let file = path.display();
    match result {
        Ok(_) if bytes.len() as u64 > limits::PEM_BYTES => {
            Err(Fault(format!("the {what} file {file} is larger than {} bytes", limits::PEM_BYTES)))
        }
        Ok(_) => Ok(bytes),
        Err(error) => Err(Fault(match error.kind() {
            ErrorKind::NotFound => format!("the {what} file {file} does not exist"),
            ErrorKind::PermissionDenied => format!(
                "the {what} file {file} cannot be read by the user that runs the broker; give the file, and its directories, to a group of that user (chgrp, chmod g+r)"
            ),
            _ => format!("the {what} file {file} cannot be read: {error}"),
        })),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    struct Home(tempfile::TempDir);

    impl Home {
        fn file(&self, name: &str, text: &str) -> PathBuf {
            let path = self.0.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        }

        fn fault(&self, certificate: &str, key: &str) -> String {
            let files = Files { certificate: self.file("c", certificate), key: self.file("k", key), client_ca: None };
            files.read().unwrap_err().to_string()
        }
    }

    fn pair() -> (String, String) {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn each_fault_of_the_files_has_its_sentence() {
        let home = Home(tempfile::tempdir().unwrap());
        let ((certificate, key), (_, other)) = (pair(), pair());
        let found = home.fault(&certificate, &other);
        assert!(found.contains("does not belong to the certificate"), "{found}");
        let found = home.fault("", &key);
        assert!(found.contains("there is no certificate in"), "{found}");
        let found = home.fault(&key, &key);
        assert!(found.contains("there is no certificate in"), "{found}");
        let found = home.fault(&certificate, &certificate);
        assert!(found.contains("there is no key in"), "{found}");
        let found = home
            .fault(&certificate, "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n");
        assert!(found.contains("passphrase"), "{found}");
        let found = home.fault(&certificate.replace("MII", "M!I"), &key);
        assert!(found.contains("malformed"), "{found}");
        let missing = Files { certificate: home.0.path().join("none"), key: home.file("k", &key), client_ca: None };
        let found = missing.read().unwrap_err().to_string();
        assert!(found.ends_with("none does not exist"), "{found}");
        let directory = Files { certificate: home.file("c", &certificate), key: home.0.path().into(), client_ca: None };
        let found = directory.read().unwrap_err().to_string();
        assert!(found.contains("cannot be read"), "{found}");
    }

    #[test]
    fn faults_of_time_are_told_apart_and_the_last_days_are_counted() {
        let home = Home(tempfile::tempdir().unwrap());
        let (certificate, key) = pair();
        let files = Files { certificate: home.file("c", &certificate), key: home.file("k", &key), client_ca: None };
        let pair = files.read().unwrap();
        let time = |time: time::OffsetDateTime| {
            SystemTime::UNIX_EPOCH + Duration::from_secs(time.unix_timestamp().unsigned_abs())
        };
        let (not_before, not_after) = (time(pair.facts.not_before), time(pair.facts.not_after));
        let day = Duration::from_secs(86_400);
        let early = pair.time_fault(not_before - day).unwrap();
        assert!(early.to_string().contains("clock"), "{early}");
        let late = pair.time_fault(not_after + day).unwrap();
        assert!(late.to_string().contains("expired on"), "{late}");
        assert_eq!((pair.time_fault(not_before + day), pair.expiry_warning(not_after - 14 * day)), (None, None));
        let warning = pair.expiry_warning(not_after - day).unwrap();
        assert!(warning.contains("expires in 1 day"), "{warning}");
        assert_eq!(pair.expiry_warning(not_after + day), None);
        pair.server_config().unwrap();
    }
}
