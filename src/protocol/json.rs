//! The JSON that both dialects need: is this text a JSON value, how deep is it, and how a text is written as a JSON string.
//!
//! Never builds a tree, and never recurses into what it was given.

use serde::de::IgnoredAny;

/// Whether `text` is one JSON value (RFC 8259), white space around it allowed, that nests at most `depth` levels.
pub(super) fn is_value(text: &str, depth: usize) -> bool {
    nests_within(text.as_bytes(), depth) && serde_json::from_str::<IgnoredAny>(text).is_ok()
}

/// Whether JSON text nests at most `depth` objects and arrays. What is not JSON gets some answer, in time that grows with
/// its length.
pub(super) fn nests_within(json: &[u8], depth: usize) -> bool {
    // Few brackets anywhere can't nest deep, and counting is many times quicker than reading.
    if openers(json) <= depth {
        return true;
    }
    let (mut open, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_string,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                open += 1;
                if open > depth {
                    return false;
                }
            }
            b']' | b'}' if !in_string => open = open.saturating_sub(1),
            _ => {}
        }
    }
    true
}

/// How many `[` and `{`, which differ in one bit, wherever they stand. Counts in bytes, so that the compiler can count many at
/// a time; a chunk is as long as a byte can count.
fn openers(json: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    json.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

/// Appends `text` as a JSON string, quotes included.
pub(super) fn push_string(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.reserve(text.len() + 2);
    out.push('"');
    let mut plain = 0;
    for (at, byte) in text.bytes().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        // What is escaped is ASCII, so both ends are on a character's boundary.
        out.push_str(&text[plain..at]);
        plain = at + 1;
        out.push('\\');
        match byte {
            b'"' | b'\\' => out.push(char::from(byte)),
            b'\n' => out.push('n'),
            b'\r' => out.push('r'),
            b'\t' => out.push('t'),
            _ => {
                out.push_str("u00");
                out.push(HEX[usize::from(byte >> 4)]);
                out.push(HEX[usize::from(byte & 0xf)]);
            }
        }
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn depth_counts_objects_and_arrays_but_not_brackets_in_strings() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        for (json, depth, expected) in [
            ("1".to_owned(), 0, true),
            ("[]".to_owned(), 0, false),
            (nested(128), 128, true),
            (nested(129), 128, false),
            (r#"["[[[[[["]"#.to_owned(), 1, true),
            (r#"["\"[[[["]"#.to_owned(), 1, true),
            (r#"["\\",[["]"]]]"#.to_owned(), 2, false),
            (r#"[{},{},{},[],{"a":{}}]"#.to_owned(), 3, true),
            (r#"[{},{},{},[],{"a":{}}]"#.to_owned(), 2, false),
        ] {
            assert_eq!(nests_within(json.as_bytes(), depth), expected, "{json} within {depth}");
        }
    }

    #[test]
    fn a_million_open_brackets_are_no_value_and_do_no_harm() {
        assert!(!is_value(&"[".repeat(1 << 20), 128));
        assert!(!is_value(&"{\"a\":".repeat(1 << 18), usize::MAX));
    }

    proptest! {
        #[test]
        fn a_written_string_reads_back(text in any::<String>()) {
            let mut json = String::new();
            push_string(&mut json, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }
    }
}
