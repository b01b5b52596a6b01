//! Makes a self-signed certificate for a network without names of its own (`wsmb cert`).

use std::time::SystemTime;

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use time::{Duration, OffsetDateTime};

use crate::facts::utc;
use crate::{fingerprint, limits};

/// A new certificate and its key.
pub struct Made {
    /// The certificate (PEM).
    pub certificate: String,
    /// Its private key (PEM, PKCS#8).
    pub key: String,
    /// The SHA-256 fingerprint of the certificate, as [`fingerprint`] returns it.
    pub fingerprint: String,
    /// The last second at which the certificate is valid.
    pub not_after: OffsetDateTime,
}

/// Makes a certificate for these names and IP addresses, signed by its own key (ECDSA, P-256), valid from an hour ago on for
/// [`limits::SELF_SIGNED_DAYS`] days. It is no certificate authority, so a stolen key cannot make certificates for other names.
///
/// # Errors
/// A sentence: a name is not a host name, or the system provides no random numbers.
pub fn make(names: &[String], now: SystemTime) -> Result<Made, String> {
    if names.is_empty() || names.len() > limits::SELF_SIGNED_NAMES {
        return Err(format!("a certificate must have 1 to {} names", limits::SELF_SIGNED_NAMES));
    }
    if let Some(bad) = names.iter().find(|name| !is_name(name)) {
        return Err(format!("`{bad}` is not a host name or an IP address"));
    }
    let failed = |error: rcgen::Error| format!("the certificate cannot be made: {error}");
    let mut params = CertificateParams::new(names).map_err(failed)?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    let now = utc(now);
    // An hour for clients whose clock is late.
    params.not_before = now - Duration::HOUR;
    params.not_after = now + Duration::days(limits::SELF_SIGNED_DAYS);
    let key = KeyPair::generate().map_err(failed)?;
    let certificate = params.self_signed(&key).map_err(failed)?;
    Ok(Made {
        fingerprint: fingerprint(certificate.der()),
        certificate: certificate.pem(),
        key: key.serialize_pem(),
        not_after: params.not_after,
    })
}

/// Whether the text is an IP address, or a host name, perhaps with a wildcard as its first label (RFC 6125 section 6.4.3).
fn is_name(text: &str) -> bool {
    let host = text.strip_prefix("*.").unwrap_or(text);
    let is_label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.parse::<std::net::IpAddr>().is_ok() || (text.len() <= 253 && host.split('.').all(is_label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_pair_can_be_used_and_has_its_names() {
        let names = ["home.example", "192.0.2.7", "::1", "*.lan"].map(str::to_owned);
        let now = SystemTime::now();
        let made = make(&names, now).unwrap();
        let home = tempfile::tempdir().unwrap();
        let (certificate, key) = (home.path().join("c"), home.path().join("k"));
        std::fs::write(&certificate, &made.certificate).unwrap();
        std::fs::write(&key, &made.key).unwrap();
        let pair = crate::Files { certificate, key, client_ca: None }.read().unwrap();
        assert_eq!(pair.facts.common_name.as_deref(), Some("home.example"));
        assert_eq!(pair.facts.days_left(now - std::time::Duration::from_secs(60)), limits::SELF_SIGNED_DAYS);
        assert!(pair.time_fault(now).is_none() && pair.facts.is_self_signed);
        assert_eq!(made.fingerprint.len(), 32 * 3 - 1);
    }

    #[test]
    fn a_bad_name_is_refused_by_name() {
        for bad in ["", "a b", "http://h", "h:1", "[::1]", "a..b", "ä.example", "*"] {
            let refused = make(&[bad.to_owned()], SystemTime::now());
            assert!(refused.is_err_and(|sentence| sentence.contains(&format!("`{bad}`"))), "{bad}");
        }
    }
}
