//! Counts the requests that are being answered, by user, so that one user's slow requests keep nobody out (SPEC section 6.10).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::limits;
use wsmb_core::shares::SharedBound;

/// The requests that are being answered.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    by_user: Mutex<HashMap<Arc<str>, usize>>,
}

/// Counts one request until it is dropped.
#[derive(Debug)]
pub(super) struct Counted<'a> {
    requests: &'a Requests,
    user: Arc<str>,
}

impl Requests {
    fn by_user(&self) -> MutexGuard<'_, HashMap<Arc<str>, usize>> {
        self.by_user.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a request. Returns `None` if too many requests are being answered and the user has more than an equal share of them.
    pub(super) fn begin(&self, user: &Arc<str>) -> Option<Counted<'_>> {
        let mut by_user = self.by_user();
        let used = by_user.values().sum();
        let shared = SharedBound { bound: limits::HTTP_REQUESTS, used, owned: used, holders: by_user.len() };
        if shared.refuses(1, by_user.get(user).copied().unwrap_or_default()) {
            return None;
        }
        *by_user.entry(user.clone()).or_default() += 1;
        Some(Counted { requests: self, user: user.clone() })
    }
}

impl Drop for Counted<'_> {
    fn drop(&mut self) {
        let mut by_user = self.requests.by_user();
        if let Some(count) = by_user.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                by_user.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_with_many_requests_does_not_keep_another_user_out() {
        let (requests, greedy, other) = (Requests::default(), Arc::from("greedy"), Arc::from("other"));
        let held: Vec<_> = std::iter::from_fn(|| requests.begin(&greedy)).collect();
        assert!(held.len() < limits::HTTP_REQUESTS && held.len() >= limits::HTTP_REQUESTS / 10 * 9);
        let counted = requests.begin(&other).expect("room for another user");
        drop((held, counted));
        assert!(requests.by_user().is_empty());
    }
}
