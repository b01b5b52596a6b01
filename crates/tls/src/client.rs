//! The client's side: which authorities are trusted, and what is wrong with the server's certificate.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, RootCertStore, SignatureScheme,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use time::OffsetDateTime;

use crate::{Facts, Fault, limits, pair, provider};

/// Returns the settings of a client. `ca`: a PEM file with the only certificates that are trusted, or the server's own; `None`: the system's authorities.
/// Blocks: reads files.
///
/// # Errors
/// The file cannot be used, or the system has no authorities.
pub fn config(ca: Option<&Path>) -> Result<ClientConfig, Fault> {
    let roots = match ca {
        Some(path) => pair::roots(path)?,
        None => system_roots()?,
    };
    let failed = |error: &dyn fmt::Display| Fault(format!("TLS cannot be set up: {error}"));
    let inner = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| failed(&error))?;
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(&error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Verifier { inner }))
        .with_no_client_auth();
    Ok(config)
}

fn system_roots() -> Result<RootCertStore, Fault> {
    let mut roots = RootCertStore::empty();
    // Some systems have an authority that rustls cannot use; the others still count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        return Err(Fault(
            "this system has no certificate authorities, so no server can be trusted; install the package ca-certificates, or name the server's certificate with --ca FILE"
                .to_owned(),
        ));
    }
    Ok(roots)
}

/// Returns the sentence about the server's certificate, if that is why a handshake failed.
#[must_use]
pub fn certificate_fault(error: &Error) -> Option<String> {
    match error {
        Error::InvalidCertificate(CertificateError::Other(OtherError(inner))) => {
            inner.downcast_ref::<Refused>().map(ToString::to_string)
        }
        _ => None,
    }
}

/// Returns why a handshake failed, as a part of a sentence.
#[must_use]
pub fn reason(error: &Error) -> String {
    match error {
        Error::InvalidMessage(_) => "the server does not speak TLS on this port; is it a port for ws://?".to_owned(),
        Error::AlertReceived(alert) => format!("the server refused TLS with the alert {alert:?}"),
        error => certificate_fault(error).unwrap_or_else(|| error.to_string()),
    }
}

/// rustls' own verifier, whose errors become sentences.
#[derive(Debug)]
struct Verifier {
    inner: Arc<WebPkiServerVerifier>,
}

/// Why the certificate of a server is refused.
#[derive(Debug)]
struct Refused(String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Refused {}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.inner.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now);
        verified.map_err(|error| match error {
            Error::InvalidCertificate(bad) => {
                let sentence = sentence(&bad, Facts::of(end_entity).as_ref(), &server_name.to_str());
                CertificateError::Other(OtherError(Arc::new(Refused(sentence)))).into()
            }
            error => error,
        })
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

fn sentence(bad: &CertificateError, facts: Option<&Facts>, server: &str) -> String {
    let day = |time: &UnixTime| {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
        OffsetDateTime::from_unix_timestamp(seconds).map_or_else(|_| "?".to_owned(), |time| time.date().to_string())
    };
    match bad {
        CertificateError::ExpiredContext { not_after, time } => format!(
            "the server's certificate expired on {}; have it renewed, or check this machine's clock, which shows {}",
            day(not_after),
            day(time)
        ),
        CertificateError::NotValidYetContext { not_before, time } => format!(
            "the server's certificate is not valid before {}; check this machine's clock, which shows {}",
            day(not_before),
            day(time)
        ),
        CertificateError::UnknownIssuer if facts.is_some_and(|facts| facts.is_self_signed) => {
            "the server's certificate is self-signed; if it is the right one, copy it from the server and name it with --ca FILE"
                .to_owned()
        }
        CertificateError::UnknownIssuer => {
            let issuer = facts.and_then(|facts| facts.issuer.as_deref()).unwrap_or("an unnamed authority");
            format!(
                "the server's certificate was issued by \"{issuer}\", which is not trusted here; name the certificate of that authority with --ca FILE"
            )
        }
        CertificateError::NotValidForNameContext { presented, .. } => {
            format!("the server's certificate is not for {server}, but for {}", names(presented))
        }
        CertificateError::BadSignature => {
            "the server's certificate is not signed by the authority that it names; --ca FILE may name an older certificate"
                .to_owned()
        }
        // webpki has no error of its own for it in rustls' list.
        CertificateError::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "the server's certificate is that of a certificate authority; make one for the server with `wsmb cert`, or with openssl and -addext basicConstraints=CA:FALSE"
                .to_owned()
        }
        other => format!("the server's certificate cannot be trusted: {other}"),
    }
}

fn names(presented: &[String]) -> String {
    // rustls writes `DnsName("a")` and `IpAddress(192.0.2.7)`.
    let bare = |name: &String| {
        let inner = name.split_once('(').map_or(name.as_str(), |(_, rest)| rest.trim_end_matches(')'));
        inner.trim_matches('"').to_owned()
    };
    let shown: Vec<String> = presented.iter().take(limits::NAMES_SHOWN).map(bare).collect();
    match presented.len().saturating_sub(limits::NAMES_SHOWN) {
        _ if presented.is_empty() => "no name at all".to_owned(),
        0 => shown.join(", "),
        more => format!("{} and {more} more", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_a_certificate_are_shown_bare_and_bounded() {
        assert_eq!(names(&[]), "no name at all");
        assert_eq!(
            names(&["DnsName(\"a.example\")".to_owned(), "IpAddress(192.0.2.7)".to_owned()]),
            "a.example, 192.0.2.7"
        );
        assert!(names(&vec!["DnsName(\"a\")".to_owned(); 7]).ends_with(" and 2 more"));
    }
}
