//! Computes `$apr1$` hashes: Apache's variant of the MD5 password hash, which `htpasswd -m` and `openssl passwd -apr1` write.
//!
//! The algorithm is that of `apr_md5_encode` (Apache Portable Runtime, `crypto/apr_md5.c`). It is weak, but many password files of
//! the PHP broker use it. This module must never be used for new passwords.

use md5::{Digest, Md5};

/// The base-64 alphabet of the crypt formats, in the order of the values.
pub(super) const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// The length of an encoded digest, in characters.
pub(super) const DIGEST_CHARS: usize = 22;

/// The maximum length of a salt, in bytes.
pub(super) const SALT_MAX: usize = 8;

/// Returns the 22 characters that follow the salt in `$apr1$salt$…`. Only the first 8 bytes of `salt` are used.
pub(super) fn encode(password: &[u8], salt: &[u8]) -> [u8; DIGEST_CHARS] {
    let salt = &salt[..salt.len().min(SALT_MAX)];
    let mut digest = first_digest(password, salt);
    for round in 0..1_000 {
        let mut hasher = Md5::new();
        let odd = round % 2 == 1;
        hasher.update(if odd { password } else { &digest });
        if round % 3 != 0 {
            hasher.update(salt);
        }
        if round % 7 != 0 {
            hasher.update(password);
        }
        hasher.update(if odd { &digest[..] } else { password });
        digest = hasher.finalize().into();
    }
    encode_digest(&digest)
}

/// Computes the initial digest of the 1,000 rounds.
fn first_digest(password: &[u8], salt: &[u8]) -> [u8; 16] {
    let inner = Md5::new().chain_update(password).chain_update(salt).chain_update(password).finalize();
    let mut hasher = Md5::new();
    hasher.update(password);
    hasher.update(b"$apr1$");
    hasher.update(salt);
    let mut left = password.len();
    while left > 0 {
        let take = left.min(16);
        hasher.update(&inner[..take]);
        left -= take;
    }
    // The original code intended to add digest bytes here, but had cleared the digest before. The zero bytes are part of the format since.
    let mut bits = password.len();
    while bits > 0 {
        hasher.update(if bits & 1 == 1 { &[0] } else { &password[..1] });
        bits >>= 1;
    }
    hasher.finalize().into()
}

/// Encodes `digest` in the crypt alphabet: three bytes become four characters, in the byte order of the format.
fn encode_digest(digest: &[u8; 16]) -> [u8; DIGEST_CHARS] {
    const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
    let mut out = [b'.'; DIGEST_CHARS];
    for (group, order) in ORDER.iter().enumerate() {
        let mut bits = order.iter().fold(0_u32, |bits, &at| bits << 8 | u32::from(digest[at]));
        for character in &mut out[group * 4..group * 4 + 4] {
            *character = ALPHABET[(bits & 63) as usize];
            bits >>= 6;
        }
    }
    out[20] = ALPHABET[usize::from(digest[11] & 63)];
    out[21] = ALPHABET[usize::from(digest[11] >> 6)];
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agrees_with_openssl() {
        let vectors: [(&str, &str, &str); 4] = [
            ("secret", "abcdefgh", "h9FWgUz3n9YxylKLlR5SQ/"),
            ("pass:wörd", "xy", "Db/7WF.pHV29oAxSHzZCJ0"),
            ("0123456789012345678901234567890123456789", "12345678", "g7mwQfxy1n1W6s22hSC070"),
            ("", "zzzzzzzz", "NaFx4Liz6ojjy.0wtJ3hD."),
        ];
        for (password, salt, expected) in vectors {
            let encoded = encode(password.as_bytes(), salt.as_bytes());
            assert_eq!(std::str::from_utf8(&encoded).unwrap(), expected, "{password:?}");
        }
    }

    #[test]
    fn only_eight_characters_of_the_salt_count() {
        assert_eq!(encode(b"secret", b"abcdefgh"), encode(b"secret", b"abcdefghijk"));
    }
}
