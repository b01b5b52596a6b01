//! The limits of certificates, each with its reason.

/// The largest file with certificates or a key, in bytes: the certificate authorities of a whole system take some 250 KB.
pub const PEM_BYTES: u64 = 1 << 20;

/// Days before the end of a certificate from which on it is reported: enough for a person to act, and less than the time for which a renewed certificate
/// still lives (programs renew at a third of 90 days).
pub const DAYS_LEFT: i64 = 14;

/// Names of a certificate that an error shows. The rest is counted.
pub const NAMES_SHOWN: usize = 5;

/// How long a self-signed certificate is valid, in days. A longer time has no use: machines and their names change, and some clients refuse more than 825.
pub const SELF_SIGNED_DAYS: i64 = 820;

/// Names in a self-signed certificate.
pub const SELF_SIGNED_NAMES: usize = 100;
