//! Parses INI files as PHP's `parse_ini_file` does in its raw mode: without keywords, escapes and variables. No I/O.

/// The values not taken yet, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ini(Vec<Pair>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    section: String,
    key: String,
    value: String,
}

/// Parses `text`, and returns a remark for each invalid line.
pub(super) fn parse(text: &str) -> (Ini, Vec<String>) {
    let mut pairs = Vec::new();
    let mut remarks = Vec::new();
    let mut section = String::new();
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n").replace('\r', "\n");
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with([';', '#']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            match rest.split_once(']') {
                Some((name, _)) => name.trim().clone_into(&mut section),
                None => remarks.push(format!("Line {number} has an unterminated section name and is omitted.")),
            }
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim();
        if key.is_empty() {
            remarks.push(format!("Line {number} has no key and is omitted."));
        } else {
            pairs.push(Pair { section: section.clone(), key: key.to_owned(), value: value_of(value).to_owned() });
        }
    }
    (Ini(pairs), remarks)
}

/// Removes the comment and the quotes of a value. A semicolon begins a comment unless the value is quoted.
fn value_of(text: &str) -> &str {
    let text = text.trim();
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote)
            && let Some((inside, behind)) = rest.rsplit_once(quote)
            && (behind.trim().is_empty() || behind.trim_start().starts_with(';'))
        {
            return inside;
        }
    }
    text.split_once(';').map_or(text, |(value, _)| value).trim_end()
}

impl Ini {
    /// Takes all values of `key` in `section`, and returns the last one.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Option<String> {
        let mut last = None;
        self.0.retain_mut(|pair| {
            let matches = pair.section == section && pair.key == key;
            if matches {
                last = Some(std::mem::take(&mut pair.value));
            }
            !matches
        });
        last
    }

    /// Takes all values of `key[]` (with any index or none) in `section`.
    pub(super) fn take_all(&mut self, section: &str, key: &str) -> Vec<String> {
        let mut all = Vec::new();
        self.0.retain_mut(|pair| {
            let name = pair.key.split_once('[').map_or(pair.key.as_str(), |(name, _)| name.trim_end());
            let matches = pair.section == section && name == key;
            if matches {
                all.push(std::mem::take(&mut pair.value));
            }
            !matches
        });
        all
    }

    /// Takes the remaining values of `section`, and returns their keys.
    pub(super) fn take_section(&mut self, section: &str) -> Vec<String> {
        let mut keys = Vec::new();
        self.0.retain_mut(|pair| {
            let matches = pair.section == section;
            if matches {
                keys.push(printable(&pair.key));
            }
            !matches
        });
        keys
    }

    /// Returns the keys not taken, with their sections.
    pub(super) fn remaining(&self) -> Vec<String> {
        let name = |pair: &Pair| match pair.section.as_str() {
            "" => printable(&pair.key),
            section => format!("[{}] {}", printable(section), printable(&pair.key)),
        };
        self.0.iter().map(name).collect()
    }
}

/// Removes control characters, and cuts the text to 64 characters.
fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_raw() {
        let table = [
            ("8888", "8888"),
            (" a b ", "a b"),
            ("\"quoted\"", "quoted"),
            ("'quoted'", "quoted"),
            ("\"a;b\"", "a;b"),
            ("\"a;b\" ; comment", "a;b"),
            ("a ; comment", "a"),
            ("a;b", "a"),
            ("false", "false"),
            ("a=b", "a=b"),
            ("\"", "\""),
            ("", ""),
            ("${HOME}", "${HOME}"),
        ];
        for (text, value) in table {
            assert_eq!(value_of(text), value, "{text}");
        }
    }

    #[test]
    fn lines_and_sections() {
        let text = "\u{feff}top=1\r\n[one] ; first\r\n; x=1\r\n# y=1\rkey = a\nkey = b\nlist[]=1\nlist[x] = 2\nbare\n[two\n=3\n";
        let (mut ini, remarks) = parse(text);
        assert_eq!(ini.take("one", "key").as_deref(), Some("b"), "the last one is used");
        assert_eq!(ini.take("one", "key"), None);
        assert_eq!(ini.take_all("one", "list"), ["1", "2"]);
        assert_eq!(ini.remaining(), ["top", "[one] bare"]);
        assert_eq!(ini.take_section("one"), ["bare"]);
        assert_eq!(
            remarks,
            ["Line 10 has an unterminated section name and is omitted.", "Line 11 has no key and is omitted."]
        );
    }
}
