//! Whether one channel pattern leaves nothing for another. `*` is any characters, `?` is one.

/// Whether every name that `later` matches is matched by `earlier` too. May say no where the true answer is yes (`?*` does match all
/// that `*?` does), never the other way round.
pub(super) fn covers(earlier: &str, later: &str) -> bool {
    let later: Vec<char> = later.chars().collect();
    // reach[j]: what has been read of `earlier` covers the first j characters of `later`.
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
                let fits = character != '*' && (pattern == '?' || pattern == character);
                next[j + 1] = reach[j] && fits;
            }
        }
        reach = next;
    }
    reach[later.len()]
}

/// The fewest characters a name must have to match.
pub(super) fn shortest_match(pattern: &str) -> usize {
    pattern.chars().filter(|&character| character != '*').count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use wildmatch::WildMatch;

    use super::*;

    #[test]
    fn covers_what_is_behind_it() {
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
        fn never_says_yes_wrongly(earlier in "[ab*?]{0,6}", later in "[ab*?]{0,6}", name in "[abc]{0,6}") {
            if covers(&earlier, &later) && WildMatch::new(&later).matches(&name) {
                prop_assert!(WildMatch::new(&earlier).matches(&name));
            }
        }
    }
}
