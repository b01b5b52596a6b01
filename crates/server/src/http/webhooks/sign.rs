//! Ids and signatures of requests (Standard Webhooks 1.0).

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// The hexadecimal digits that follow the number in an id.
const DIGITS: usize = 16;

fn mac(secret: &[u8], parts: &[&[u8]]) -> Option<Vec<u8>> {
    // HMAC takes keys of any length, so there is always a result.
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).ok()?;
    parts.iter().for_each(|part| mac.update(part));
    Some(mac.finalize().into_bytes().to_vec())
}

/// Returns the value of `webhook-signature`: one signature for each secret.
pub(super) fn signatures(secrets: &[Vec<u8>], id: &str, timestamp: u64, body: &[u8]) -> String {
    let content = format!("{id}.{timestamp}.");
    let macs = secrets.iter().filter_map(|secret| mac(secret, &[content.as_bytes(), body]));
    macs.map(|mac| format!("v1,{}", BASE64_STANDARD.encode(mac))).collect::<Vec<_>>().join(" ")
}

/// Returns the id of a message: the same for each attempt, also after a restart. The broker may use a number again for a later message, so the id also
/// depends on the message. The key keeps everyone who knows the id only from guessing a short message.
pub(super) fn id(secret: &[u8], number: u64, message: &[u8]) -> String {
    let mac = mac(secret, &[number.to_string().as_bytes(), b".", message]).unwrap_or_default();
    let digits: String = mac.iter().take(DIGITS / 2).map(|byte| format!("{byte:02x}")).collect();
    format!("msg_{number}_{digits}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_is_that_of_the_reference_implementation() {
        let secret = BASE64_STANDARD.decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap();
        let (id, body) = ("msg_p5jXN8AQM9LWM0D4loKWxJek", br#"{"test": 2432232314}"#);
        let first = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
        assert_eq!(signatures(std::slice::from_ref(&secret), id, 1_614_265_330, body), first);
        let both = signatures(&[secret, vec![7; 24]], id, 1_614_265_330, body);
        assert_eq!(both.split(' ').next(), Some(first));
        assert_eq!(both.split(' ').count(), 2);
    }

    #[test]
    fn an_id_depends_on_the_number_and_the_message() {
        let secret = [7; 24];
        assert_eq!(id(&secret, 17, b"1"), id(&secret, 17, b"1"));
        assert!(id(&secret, 17, b"1").starts_with("msg_17_"));
        assert_eq!(id(&secret, 17, b"1").len(), "msg_17_".len() + DIGITS);
        for other in [id(&secret, 18, b"1"), id(&secret, 17, b"2"), id(&[8; 24], 17, b"1")] {
            assert_ne!(id(&secret, 17, b"1"), other);
        }
    }
}
