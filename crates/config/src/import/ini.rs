//! INI files as PHP's `parse_ini_file` reads them in its raw mode: no words with a meaning, no escapes, no variables.

/// The values that have not been taken yet, in the order of the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Ini(Vec<Pair>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Pair {
    section: String,
    key: String,
    value: String,
}

/// Reads `text`, and remarks on lines that are nothing.
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
                None => remarks.push(format!("Line {number} begins a section and does not end it; it was left out.")),
            }
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let key = key.trim();
        if key.is_empty() {
            remarks.push(format!("Line {number} has no key; it was left out."));
        } else {
            pairs.push(Pair { section: section.clone(), key: key.to_owned(), value: value_of(value).to_owned() });
        }
    }
    (Ini(pairs), remarks)
}

/// Without the comment behind it and the quotes around it. A semicolon begins a comment unless the value is quoted.
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
    /// The last value of `key` in `section`, which then is taken.
    pub(super) fn take(&mut self, section: &str, key: &str) -> Option<String> {
        let mut last = None;
        self.0.retain_mut(|pair| {
            let it = pair.section == section && pair.key == key;
            if it {
                last = Some(std::mem::take(&mut pair.value));
            }
            !it
        });
        last
    }

    /// Every value of `key[]` (with any index or none) in `section`, which then are taken.
    pub(super) fn take_all(&mut self, section: &str, key: &str) -> Vec<String> {
        let mut all = Vec::new();
        self.0.retain_mut(|pair| {
            let name = pair.key.split_once('[').map_or(pair.key.as_str(), |(name, _)| name.trim_end());
            let it = pair.section == section && name == key;
            if it {
                all.push(std::mem::take(&mut pair.value));
            }
            !it
        });
        all
    }

    /// The keys that are left in `section`, which then are taken.
    pub(super) fn take_section(&mut self, section: &str) -> Vec<String> {
        let mut keys = Vec::new();
        self.0.retain_mut(|pair| {
            let it = pair.section == section;
            if it {
                keys.push(plain(&pair.key));
            }
            !it
        });
        keys
    }

    /// The keys that nobody has taken, with their sections.
    pub(super) fn rest(&self) -> Vec<String> {
        let name = |pair: &Pair| match pair.section.as_str() {
            "" => plain(&pair.key),
            section => format!("[{}] {}", plain(section), plain(&pair.key)),
        };
        self.0.iter().map(name).collect()
    }
}

/// Without characters that would disturb a line of output, and short.
fn plain(text: &str) -> String {
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
        assert_eq!(ini.take("one", "key").as_deref(), Some("b"), "the last one counts");
        assert_eq!(ini.take("one", "key"), None);
        assert_eq!(ini.take_all("one", "list"), ["1", "2"]);
        assert_eq!(ini.rest(), ["top", "[one] bare"]);
        assert_eq!(ini.take_section("one"), ["bare"]);
        assert_eq!(
            remarks,
            ["Line 10 begins a section and does not end it; it was left out.", "Line 11 has no key; it was left out."]
        );
    }
}
