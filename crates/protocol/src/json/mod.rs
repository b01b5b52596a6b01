//! JSON functions for both dialects: finds values, checks the grammar and the nesting of a text, and writes strings and numbers.
//!
//! Never builds a tree, and never recurses.

mod plain;
mod scan;
#[cfg(test)]
pub(super) mod strategies;

pub(super) use scan::{NotJson, Scanner, unescaped};

/// Whether `text` is a JSON value (RFC 8259), with optional white space around it, and nests at most `depth` levels and at most [`crate::limits::JSON_DEPTH`].
pub(super) fn is_value(text: &str, depth: usize) -> bool {
    let mut scanner = Scanner::new(text.as_bytes(), depth);
    scanner.value().and_then(|_| scanner.end()).is_ok()
}

/// Whether a JSON text nests at most `depth` objects and lists. For a text that is not JSON the result has no meaning; the time is linear in its length.
pub(super) fn nests_within(json: &[u8], depth: usize) -> bool {
    // A text with few brackets cannot nest deep, and counting is many times faster than scanning.
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

/// Counts all `[` and `{` (the two characters differ in one bit), also those in strings. Counts in a `u8`, so that the compiler vectorizes the loop; a chunk is
/// so short that the `u8` cannot overflow.
fn openers(json: &[u8]) -> usize {
    let count = |chunk: &[u8]| chunk.iter().map(|byte| u8::from(byte | 0x20 == b'{')).sum::<u8>();
    json.chunks(usize::from(u8::MAX)).map(|chunk| usize::from(count(chunk))).sum()
}

/// Appends `text` as a JSON string with quotes.
pub(super) fn push_string(out: &mut String, text: &str) {
    const HEX: [char; 16] = ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    out.reserve(text.len() + 2);
    out.push('"');
    let mut start = 0;
    loop {
        // Escaped characters are ASCII, so both ends are at a character boundary.
        let end = plain::end(text.as_bytes(), start);
        out.push_str(&text[start..end]);
        let Some(byte) = text.as_bytes().get(end) else { break };
        start = end + 1;
        out.push('\\');
        match byte {
            b'"' | b'\\' => out.push(char::from(*byte)),
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
    out.push('"');
}

/// Appends `number` in decimal digits.
pub(super) fn push_number(out: &mut String, mut number: u64) {
    // The largest number has 20 digits.
    let mut digits = [b'0'; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            break;
        }
    }
    out.push_str(std::str::from_utf8(&digits[start..]).unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde::de::IgnoredAny;

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
    fn a_million_open_brackets_are_not_a_value_and_cause_no_overflow() {
        assert!(!is_value(&"[".repeat(1 << 20), 128));
        assert!(!is_value(&"{\"a\":".repeat(1 << 18), usize::MAX));
    }

    proptest! {
        #[test]
        fn a_written_string_is_parsed_to_the_same_text(text in any::<String>()) {
            let mut json = String::new();
            push_string(&mut json, &text);
            prop_assert_eq!(serde_json::from_str::<String>(&json).unwrap(), text);
        }

        #[test]
        fn numbers_are_written_as_by_the_standard_library(number in any::<u64>(), digits in 0..64_u32) {
            for number in [number, number >> digits, u64::MAX, 0] {
                let mut text = "n".to_owned();
                push_number(&mut text, number);
                prop_assert_eq!(text, format!("n{number}"));
            }
        }

        #[test]
        fn exactly_the_values_of_serde_json_are_values(bytes in strategies::texts(), depth in 0_usize..8) {
            if let Ok(text) = std::str::from_utf8(&bytes) {
                for depth in [depth, 126, 128] {
                    let expected = nests_within(&bytes, depth) && serde_json::from_str::<IgnoredAny>(text).is_ok();
                    prop_assert_eq!(is_value(text, depth), expected, "{}", text);
                }
            }
        }
    }
}
