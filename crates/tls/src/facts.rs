//! What a certificate says of itself (X.509, RFC 5280 section 4.1): its time, and the names of subject and issuer.
//!
//! A reader of DER for exactly these fields. It proves nothing: rustls verifies certificates. Never panics, whatever the bytes are.

use std::time::{SystemTime, UNIX_EPOCH};

use time::{Date, Month, OffsetDateTime, PrimitiveDateTime, Time};

const INTEGER: u8 = 0x02;
const OBJECT_ID: u8 = 0x06;
const UTF8_STRING: u8 = 0x0c;
const PRINTABLE_STRING: u8 = 0x13;
const IA5_STRING: u8 = 0x16;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
/// `[0] EXPLICIT`, the version.
const VERSION: u8 = 0xa0;

/// `id-at-commonName`, 2.5.4.3.
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];

/// The facts of one certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The first second at which the certificate is valid.
    pub not_before: OffsetDateTime,
    /// The last second at which the certificate is valid.
    pub not_after: OffsetDateTime,
    /// The common name of the subject, if there is exactly one.
    pub common_name: Option<String>,
    /// The common name of the issuer, if there is exactly one.
    pub issuer: Option<String>,
    /// Subject and issuer are the same: the certificate is signed by its own key.
    pub is_self_signed: bool,
}

impl Facts {
    /// Reads a certificate (DER); `None` if it is malformed.
    #[must_use]
    pub fn of(certificate: &[u8]) -> Option<Self> {
        let mut certificate = Reader(Reader(certificate).take(SEQUENCE)?);
        let mut body = Reader(certificate.take(SEQUENCE)?);
        if body.peek() == Some(VERSION) {
            body.take(VERSION)?;
        }
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        let issuer = body.take(SEQUENCE)?;
        let mut validity = Reader(body.take(SEQUENCE)?);
        let subject = body.take(SEQUENCE)?;
        Some(Self {
            not_before: validity.time()?,
            not_after: validity.time()?,
            common_name: common_name(subject),
            issuer: common_name(issuer),
            is_self_signed: issuer == subject,
        })
    }

    /// The whole days until the certificate expires; negative after that.
    #[must_use]
    pub fn days_left(&self, now: SystemTime) -> i64 {
        (self.not_after - utc(now)).whole_seconds().div_euclid(86_400)
    }
}

/// Converts the system's time. A clock before 1970 counts as 1970.
pub(crate) fn utc(time: SystemTime) -> OffsetDateTime {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    OffsetDateTime::from_unix_timestamp(seconds).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// Returns the only common name of a distinguished name, without its outer tag.
fn common_name(name: &[u8]) -> Option<String> {
    let mut found = None;
    let mut name = Reader(name);
    while !name.0.is_empty() {
        let mut set = Reader(name.take(SET)?);
        while !set.0.is_empty() {
            let mut attribute = Reader(set.take(SEQUENCE)?);
            if attribute.take(OBJECT_ID)? != COMMON_NAME {
                continue;
            }
            let (tag, text) = attribute.next()?;
            let text = std::str::from_utf8(text)
                .ok()
                .filter(|_| matches!(tag, UTF8_STRING | PRINTABLE_STRING | IA5_STRING))?;
            if found.replace(text).is_some() {
                return None;
            }
        }
    }
    found.map(str::to_owned)
}

/// The rest of a sequence of DER values.
struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn peek(&self) -> Option<u8> {
        self.0.first().copied()
    }

    /// Takes the next value: its tag and its content.
    fn next(&mut self) -> Option<(u8, &'a [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            // No certificate nears 4 GiB.
            0x81..=0x84 => {
                let (bytes, rest) = rest.split_at_checked(usize::from(first - 0x80))?;
                (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (content, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, content))
    }

    /// Takes the next value, which must have this tag.
    fn take(&mut self, tag: u8) -> Option<&'a [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, content)| content)
    }

    /// Takes a time: `YYMMDDhhmmssZ` or `YYYYMMDDhhmmssZ` (RFC 5280 section 4.1.2.5).
    fn time(&mut self) -> Option<OffsetDateTime> {
        let (tag, text) = self.next()?;
        let digits = text.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let number = |at: std::ops::Range<usize>| {
            digits.get(at).map(|digits| digits.iter().fold(0, |sum, digit| sum * 10 + i32::from(digit - b'0')))
        };
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => (number(0..2).map(|year| if year < 50 { 2000 + year } else { 1900 + year })?, 2),
            (GENERALIZED_TIME, 14) => (number(0..4)?, 4),
            _ => return None,
        };
        let part =
            |index: usize| number(rest + 2 * index..rest + 2 * index + 2).and_then(|part| u8::try_from(part).ok());
        let date = Date::from_calendar_date(year, Month::try_from(part(0)?).ok()?, part(1)?).ok()?;
        // A leap second is one too many for `time`.
        let time = Time::from_hms(part(2)?, part(3)?, part(4)?.min(59)).ok()?;
        Some(PrimitiveDateTime::new(date, time).assume_utc())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate(change: impl FnOnce(&mut rcgen::CertificateParams)) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2026, 1, 31);
        params.not_after = rcgen::date_time_ymd(2051, 12, 1);
        change(&mut params);
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    #[test]
    fn times_and_names_are_read() {
        let der = certificate(|params| {
            params.distinguished_name = rcgen::DistinguishedName::new();
            params.distinguished_name.push(rcgen::DnType::OrganizationName, "home");
            params.distinguished_name.push(rcgen::DnType::CommonName, "gateway é");
        });
        let facts = Facts::of(&der).unwrap();
        // The first is a UTCTime, the second a GeneralizedTime.
        assert_eq!(facts.not_before.unix_timestamp(), 1_769_817_600);
        assert_eq!(facts.not_after.date().to_string(), "2051-12-01");
        assert_eq!((facts.common_name.as_deref(), facts.is_self_signed), (Some("gateway é"), true));
        let end = UNIX_EPOCH + std::time::Duration::from_secs(facts.not_after.unix_timestamp().unsigned_abs());
        assert_eq!(facts.days_left(end - std::time::Duration::from_secs(47 * 3_600)), 1);
        assert_eq!(facts.days_left(end + std::time::Duration::from_secs(1)), -1);
    }

    #[test]
    fn a_name_that_is_missing_or_ambiguous_is_none() {
        let der = certificate(|params| params.distinguished_name = rcgen::DistinguishedName::new());
        assert_eq!(Facts::of(&der).unwrap().common_name, None);
        let set = |text: &str| {
            let mut attribute = vec![OBJECT_ID, 3];
            attribute.extend_from_slice(COMMON_NAME);
            attribute.extend([UTF8_STRING, u8::try_from(text.len()).unwrap()]);
            attribute.extend_from_slice(text.as_bytes());
            let length = u8::try_from(attribute.len()).unwrap();
            [&[SET, length + 2, SEQUENCE, length][..], &attribute].concat()
        };
        assert_eq!(common_name(&set("a")).as_deref(), Some("a"));
        assert_eq!(common_name(&[set("a"), set("b")].concat()), None);
    }

    #[test]
    fn no_bytes_cause_a_panic() {
        let der = certificate(|_| {});
        for at in 0..der.len() {
            assert_eq!(Facts::of(&der[..at]), None, "{at}");
            for byte in [0, 0x7f, 0x80, 0x84, 0xff] {
                let mut changed = der.clone();
                changed[at] = byte;
                let _ = Facts::of(&changed);
            }
        }
    }
}
