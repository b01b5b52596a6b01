//! Remembers recently verified credentials, so that 1,000 clients that reconnect at once cost 1,000 SHA-256 digests instead of 1,000
//! bcrypt hashes.
//!
//! The cache must never hold a password: it holds digests, keyed with a random key that exists only in this process. The stored hash
//! is part of the digested text, so a credential is no longer found when its entry in the file has changed.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::hash::Hash;
use crate::limits;

/// A digest of user, password and stored hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 16]);

/// Hides the digest.
impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// The recently verified credentials, in two generations of half the capacity each. When the young generation is full, it replaces the
/// old one, and the credentials of the old one are forgotten unless they were used since.
pub(super) struct Cache {
    young: HashSet<Fingerprint, foldhash::fast::RandomState>,
    old: HashSet<Fingerprint, foldhash::fast::RandomState>,
    capacity: usize,
}

/// The random key of this process.
pub(super) struct FingerprintKey([u8; 32]);

/// Replaces the hash of a user who does not exist. As long as a bcrypt hash, and no valid hash.
const PLACEHOLDER_HASH: &str = "------------------------------------------------------------";

impl FingerprintKey {
    /// Returns `None` if the system gives no random numbers; then nothing is cached.
    pub(super) fn random() -> Option<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok()?;
        Some(Self(key))
    }

    /// Returns the digest of a credential. The lengths are digested too, so that no two credentials give the same input. If there is no such
    /// user (`hash` is `None`), a placeholder is digested, so that the call takes as long.
    pub(super) fn fingerprint(&self, user: &str, password: &[u8], hash: Option<&Hash>) -> Fingerprint {
        let mut hasher = Sha256::new_with_prefix(self.0);
        let stored = hash.map_or(PLACEHOLDER_HASH, Hash::secret_text);
        for part in [user.as_bytes(), password, stored.as_bytes()] {
            hasher.update((part.len() as u64).to_le_bytes());
            hasher.update(part);
        }
        let digest: [u8; 32] = hasher.finalize().into();
        let mut short = [0; 16];
        short.copy_from_slice(&digest[..16]);
        Fingerprint(short)
    }
}

impl Cache {
    /// Creates a cache of at most [`limits::CACHED_CREDENTIALS`].
    pub(super) fn new() -> Self {
        Self::with_capacity(limits::CACHED_CREDENTIALS)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { young: HashSet::default(), old: HashSet::default(), capacity }
    }

    /// Whether the credential is in the cache. Moves a credential of the old generation to the young one.
    pub(super) fn contains(&mut self, fingerprint: Fingerprint) -> bool {
        if self.young.contains(&fingerprint) {
            return true;
        }
        let found = self.old.remove(&fingerprint);
        if found {
            self.insert(fingerprint);
        }
        found
    }

    /// Adds a verified credential.
    pub(super) fn insert(&mut self, fingerprint: Fingerprint) {
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint);
    }

    /// Removes all credentials.
    #[cfg(test)]
    pub(super) fn clear(&mut self) {
        (self.young, self.old) = Default::default();
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA: &str = "{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";
    const APR1: &str = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";

    fn number(n: u64) -> Fingerprint {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_le_bytes());
        Fingerprint(bytes)
    }

    #[test]
    fn a_credential_differs_in_user_password_stored_hash_and_process() {
        let (key, other_key) = (FingerprintKey::random().unwrap(), FingerprintKey::random().unwrap());
        let (sha, apr1) = (Hash::parse(SHA).unwrap(), Hash::parse(APR1).unwrap());
        let it = key.fingerprint("alice", b"secret", Some(&sha));
        assert!(it == key.fingerprint("alice", b"secret", Some(&sha)));
        assert!(it != key.fingerprint("alice", b"secret", Some(&apr1)));
        assert!(it != key.fingerprint("alices", b"ecret", Some(&sha)));
        assert!(it != key.fingerprint("alice", b"Secret", Some(&sha)));
        assert!(it != key.fingerprint("alice", b"secret", None));
        assert!(it != other_key.fingerprint("alice", b"secret", Some(&sha)));
    }

    #[test]
    fn the_cache_is_bounded_and_keeps_used_credentials() {
        let mut cache = Cache::with_capacity(100);
        cache.insert(number(0));
        for n in 1..10_000 {
            cache.insert(number(n));
            assert!(cache.len() <= 100, "{} after {n}", cache.len());
            if n % 20 == 0 {
                assert!(cache.contains(number(0)), "forgotten after {n}");
            }
        }
        assert!(!cache.contains(number(1)));
        assert!(cache.contains(number(9_999)));
    }
}
