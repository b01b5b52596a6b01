//! The JSON that both dialects need: where its values lie, is this text one, how deep is it, and how a text is written as a JSON string.
//!
//! Never builds a tree, and never recurses into what it was given.

mod plain;
mod scan;
#[cfg(test)]
pub(super) mod strategies;

pub(super) use scan::{NotJson, Scanner, unescaped};

/// Whether `text` is one JSON value (RFC 8259), white space around it allowed, that nests at most `depth` levels, and never more than
/// [`crate::limits::JSON_DEPTH`].
pub(super) fn is_value(text: &str, depth: usize) -> bool {
    let mut scanner = Scanner::new(text.as_bytes(), depth);
    scanner.value().and_then(|_| scanner.end()).is_ok()
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
    let mut start = 0;
    loop {
        // What is escaped is ASCII, so both ends are on a character's boundary.
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

/// Appends `number` in digits.
pub(super) fn push_number(out: &mut String, mut number: u64) {
    // As many digits as the largest one has.
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

        #[test]
        fn a_written_number_is_the_one_that_std_writes(number in any::<u64>(), digits in 0..64_u32) {
            for number in [number, number >> digits, u64::MAX, 0] {
                let mut text = "n".to_owned();
                push_number(&mut text, number);
                prop_assert_eq!(text, format!("n{number}"));
            }
        }

        #[test]
        fn a_value_is_what_serde_json_takes_for_one(bytes in strategies::texts(), depth in 0_usize..8) {
            if let Ok(text) = std::str::from_utf8(&bytes) {
                for depth in [depth, 126, 128] {
                    let expected = nests_within(&bytes, depth) && serde_json::from_str::<IgnoredAny>(text).is_ok();
                    prop_assert_eq!(is_value(text, depth), expected, "{}", text);
                }
            }
        }
    }
}
