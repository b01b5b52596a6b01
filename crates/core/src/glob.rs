//! Compares patterns, in which `*` matches any characters and `?` matches one. Must never be used to match a name: `wildmatch` does.

/// Whether `earlier` matches every name that `later` matches. May return false wrongly (`?*` does match all names of `*?`), but never
/// returns true wrongly.
#[must_use]
pub fn covers(earlier: &str, later: &str) -> bool {
    let later: Vec<char> = later.chars().collect();
    // reach[j]: the part of `earlier` read so far covers the first j characters of `later`.
    let mut reach = vec![false; later.len() + 1];
    reach[0] = true;
    for pattern in earlier.chars() {
        let mut next = vec![false; later.len() + 1];
        if pattern == '*' {
            let mut any = false;
            for (j, reached) in reach.iter().enumerate() {
                any |= reached;
                next[j] = any;
            }
        } else {
            for (j, &character) in later.iter().enumerate() {
                let matches = character != '*' && (pattern == '?' || pattern == character);
                next[j + 1] = reach[j] && matches;
            }
        }
        reach = next;
    }
    reach[later.len()]
}

/// The length of the shortest name that the pattern matches, in characters.
#[must_use]
pub fn shortest_match(pattern: &str) -> usize {
    pattern.chars().filter(|&character| character != '*').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wildmatch::WildMatch;

    use super::*;

    #[test]
    fn covers_finds_patterns_that_are_never_used() {
        let yes =
            [("*", "sms"), ("*", "*"), ("sms*", "sms"), ("sms*", "sms.*"), ("s?s", "sms"), ("*s", "sms*s"), ("a", "a")];
        for (earlier, later) in yes {
            assert!(covers(earlier, later), "{earlier} {later}");
        }
        let no = [("sms", "*"), ("sms.*", "sms*"), ("s?s", "s*s"), ("a", "b"), ("", "a"), ("?", "*"), ("sms", "sms2")];
        for (earlier, later) in no {
            assert!(!covers(earlier, later), "{earlier} {later}");
        }
    }

    proptest! {
        #[test]
        fn covers_is_never_true_wrongly(earlier in "[ab*?]{0,6}", later in "[ab*?]{0,6}", name in "[abc]{0,6}") {
            if covers(&earlier, &later) && WildMatch::new(&later).matches(&name) {
                prop_assert!(WildMatch::new(&earlier).matches(&name));
            }
        }
    }
}
