//! The credentials that were verified lately, so that a thousand clients that reconnect at once cost a thousand cheap hashes and not a
//! thousand bcrypts.
//!
//! It holds no password: only digests under a key that lives and dies with the process. The stored hash is part of what is
//! digested, so a credential is forgotten the moment its entry in the file changes.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

use super::hash::Hash;
use crate::limits;

/// A digest of user, password and stored hash.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Fingerprint([u8; 16]);

/// Not even the digest.
impl std::fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Fingerprint")
    }
}

/// The credentials that were verified lately. Two generations of half the limit each: when the young one is full it becomes the old
/// one, and what nobody has used for that long is forgotten.
pub(super) struct Cache {
    young: HashSet<Fingerprint, foldhash::fast::RandomState>,
    old: HashSet<Fingerprint, foldhash::fast::RandomState>,
    capacity: usize,
}

/// The key of this process. Without randomness from the system there is none, and nothing is cached.
pub(super) struct Key([u8; 32]);

/// Stands where the hash of a user would: as long as those that `wsmb passwd` writes, and no hash.
const NO_USER: &str = "------------------------------------------------------------";

impl Key {
    pub(super) fn random() -> Option<Self> {
        let mut key = [0; 32];
        getrandom::fill(&mut key).ok()?;
        Some(Self(key))
    }

    /// The digest of a credential. Lengths are part of it, so that no two credentials run together. Without a stored hash (there is no such user) it
    /// takes as long.
    pub(super) fn fingerprint(&self, user: &str, password: &[u8], hash: Option<&Hash>) -> Fingerprint {
        let mut hasher = Sha256::new_with_prefix(self.0);
        let stored = hash.map_or(NO_USER, Hash::secret_text);
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
    /// At most [`limits::CREDENTIALS`].
    pub(super) fn new() -> Self {
        Self::with_capacity(limits::CREDENTIALS)
    }

    fn with_capacity(capacity: usize) -> Self {
        Self { young: HashSet::default(), old: HashSet::default(), capacity }
    }

    /// Whether it was verified lately; then it stays remembered.
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

    /// Remembers a credential that was verified.
    pub(super) fn insert(&mut self, fingerprint: Fingerprint) {
        if self.young.len() >= self.capacity / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(fingerprint);
    }

    /// Forgets everything.
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
        let (key, other_key) = (Key::random().unwrap(), Key::random().unwrap());
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
    fn is_bounded_and_keeps_what_is_used() {
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
