//! Reads the TOML file into [`Settings`]. Knows the keys and TOML types, but must never interpret a value.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{Problem, Source};
use super::keys;
use super::raw::{Entry, Setting, Settings, Value};
use crate::limits;

/// Reads `text`, the content of the file `name`. If there are syntax errors, only these are reported.
pub(super) fn read(name: &str, text: &str, settings: &mut Settings, problems: &mut Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { name, text, settings, problems };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let source = reader.at(error.span().map_or(0, |span| span.start));
        reader
            .problems
            .push(Problem::at(&source, format_args!("is not TOML: {}", error.message().replace('\n', ", "))));
    }
    if errors.is_empty() {
        reader.top(table.get_ref());
    }
}

struct Reader<'a> {
    name: &'a str,
    text: &'a str,
    settings: &'a mut Settings,
    problems: &'a mut Vec<Problem>,
}

impl Reader<'_> {
    /// The location of a byte of the text.
    fn at(&self, byte: usize) -> Source {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        Source::File(self.name.to_owned(), 1 + before.iter().filter(|&&byte| byte == b'\n').count())
    }

    fn top(&mut self, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let section: &str = key.get_ref();
            let source = self.at(key.span().start);
            if !keys::is_section(section) {
                self.unknown(key, value);
            } else if keys::LISTS.contains(&section) {
                self.list(section, value);
            } else if let Some(table) = value.get_ref().as_table() {
                self.section(section, table);
            } else {
                self.problems.push(Problem::at(&source, format_args!("{section} is a section: write [{section}]")));
            }
        }
    }

    /// Reports a key at the top level that is not a section.
    fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>) {
        let (name, source): (&str, _) = (key.get_ref(), self.at(key.span().start));
        let sections: Vec<String> = keys::sections_with(name).into_iter().map(keys::heading).collect();
        let text = if value.get_ref().is_table()
            || value.get_ref().as_array().is_some_and(|array| array.iter().any(|e| e.get_ref().is_table()))
        {
            format!("there is no section [{name}]{}", keys::section_advice(name))
        } else if sections.is_empty() {
            format!("there is no key {name}{}", keys::advice(name))
        } else {
            format!("{name} is not in a section; write it below {}", sections.join(" or "))
        };
        self.problems.push(Problem::at(&source, text));
        // The value is stored all the same, so that its problems are reported too.
        if let [section] = keys::sections_with(name)[..]
            && let (Some(key), Some(value)) = (keys::find(&format!("{section}.{name}")), raw(value.get_ref()))
        {
            self.settings.scalars.insert(key.path, Setting { value, source });
        }
    }

    /// Reads a `[section]`.
    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            if section == "store" && key.get_ref() == "columns" {
                self.columns(value);
            } else if section == "auth" && key.get_ref() == "groups" {
                self.groups(value);
            } else if section == "auth" && key.get_ref() == "key" {
                self.list("auth.key", value);
            } else if let Some((path, setting)) = self.setting(section, key, value) {
                self.settings.scalars.insert(path, setting);
            }
        }
    }

    /// Reads the entries of a `[[section]]`.
    fn list(&mut self, section: &str, value: &Spanned<DeValue<'_>>) {
        let source = self.at(value.span().start);
        let wrong = format!("{section} is a list of sections: write [[{section}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.problems.push(Problem::at(&source, wrong));
            return;
        };
        let bound = match section {
            "listener" => limits::LISTENER_ENTRIES,
            "channel" => limits::CHANNEL_ENTRIES,
            "auth.key" => limits::KEY_ENTRIES,
            "webhook" => limits::WEBHOOK_ENTRIES,
            _ => limits::PERMISSION_ENTRIES,
        };
        if array.len() > bound {
            self.problems
                .push(Problem::at(&source, format_args!("there are more than {bound} sections [[{section}]]")));
            return;
        }
        for element in array {
            let source = self.at(element.span().start);
            let Some(table) = element.get_ref().as_table() else {
                self.problems.push(Problem::at(&source, &wrong));
                continue;
            };
            let pairs: BTreeMap<_, _> =
                in_order(table).into_iter().filter_map(|(key, value)| self.setting(section, key, value)).collect();
            let entry = Entry { settings: pairs, source };
            match section {
                "listener" => self.settings.listeners.push(entry),
                "channel" => self.settings.channels.push(entry),
                "auth.key" => self.settings.keys.push(entry),
                "permission" => self.settings.permissions.push(entry),
                "webhook" => self.settings.webhooks.push(entry),
                _ => self.settings.rates.push(entry),
            }
        }
    }

    /// Reads `[store.columns]`.
    fn columns(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            let source = self.at(value.span().start);
            self.problems.push(Problem::at(&source, "store.columns is a section: write [store.columns]"));
            return;
        };
        for (key, value) in in_order(table) {
            let source = self.at(key.span().start);
            let path = format!("store.columns.{}", key.get_ref());
            match value.get_ref().as_str() {
                Some(text) => {
                    let setting = Setting { value: Value::Text(text.to_owned()), source };
                    self.settings.columns.insert(key.get_ref().to_string(), setting);
                }
                None => self.problems.push(Problem::of_key(&source, &path, "must be a text like \"/receiver\"")),
            }
        }
    }

    /// Reads `[auth.groups]`.
    fn groups(&mut self, value: &Spanned<DeValue<'_>>) {
        let source = self.at(value.span().start);
        let Some(table) = value.get_ref().as_table() else {
            self.problems.push(Problem::at(&source, "auth.groups is a section: write [auth.groups]"));
            return;
        };
        if table.len() > limits::GROUPS {
            self.problems.push(Problem::at(&source, format_args!("there are more than {} groups", limits::GROUPS)));
            return;
        }
        for (key, value) in in_order(table) {
            let source = self.at(key.span().start);
            match raw(value.get_ref()) {
                Some(value) => drop(self.settings.groups.insert(key.get_ref().to_string(), Setting { value, source })),
                None => {
                    let path = format!("auth.groups.{}", key.get_ref());
                    let text = "must be a list of users, like [\"alice\", \"ops-*\"]";
                    self.problems.push(Problem::of_key(&source, &path, text));
                }
            }
        }
    }

    fn setting(
        &mut self,
        section: &str,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Option<(&'static str, Setting)> {
        let path = format!("{section}.{}", key.get_ref());
        let source = self.at(key.span().start);
        let Some(key) = keys::find(&path) else {
            let advice = keys::advice(&path);
            self.problems.push(Problem::at(&source, format_args!("there is no key {path}{advice}")));
            return None;
        };
        match raw(value.get_ref()) {
            Some(value) => Some((key.path, Setting { value, source })),
            None => {
                let kind = value.get_ref().type_str();
                self.problems.push(Problem::of_key(&source, &path, format_args!("cannot be of the type {kind}")));
                None
            }
        }
    }
}

/// Converts a TOML value; `None` if no key has its type.
fn raw(value: &DeValue<'_>) -> Option<Value> {
    match value {
        DeValue::String(text) => Some(Value::Text(text.to_string())),
        DeValue::Integer(integer) => Some(Value::Integer(number(integer))),
        DeValue::Boolean(boolean) => Some(Value::Boolean(*boolean)),
        DeValue::Array(array) => {
            let texts = array.iter().map(|element| element.get_ref().as_str().map(str::to_owned));
            texts.collect::<Option<_>>().map(Value::List)
        }
        DeValue::Float(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

/// Returns the pairs of a table in the order of the file, so that problems are reported in this order.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// Converts a TOML integer. A number that does not fit becomes the nearest `i64`, which is beyond the limits of all keys.
fn number(integer: &DeInteger<'_>) -> i64 {
    let beyond = if integer.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
    i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(beyond)
}
