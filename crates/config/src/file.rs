//! Reads the TOML file into [`Settings`]: knows keys and shapes, not meanings.

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::{DeInteger, DeTable, DeValue};

use super::error::{Origin, Problem};
use super::keys;
use super::raw::{Entry, Setting, Settings, Value};
use crate::limits;

/// Reads `text`, the file called `name`. After a syntax error nothing else of the file is looked at.
pub(super) fn read(name: &str, text: &str, settings: &mut Settings, problems: &mut Vec<Problem>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { name, text, settings, problems };
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in &errors {
        let origin = reader.at(error.span().map_or(0, |span| span.start));
        reader
            .problems
            .push(Problem::at(&origin, format_args!("is not TOML: {}", error.message().replace('\n', ", "))));
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
    /// The place of a byte of the text.
    fn at(&self, byte: usize) -> Origin {
        let before = &self.text.as_bytes()[..byte.min(self.text.len())];
        Origin::File(self.name.to_owned(), 1 + before.iter().filter(|&&byte| byte == b'\n').count())
    }

    fn top(&mut self, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            let section: &str = key.get_ref();
            let origin = self.at(key.span().start);
            if !keys::is_section(section) {
                self.unknown(key, value);
            } else if keys::LISTS.contains(&section) {
                self.list(section, value);
            } else if let Some(table) = value.get_ref().as_table() {
                self.section(section, table);
            } else {
                self.problems.push(Problem::at(&origin, format_args!("{section} is a section: write [{section}]")));
            }
        }
    }

    /// Neither a section nor anything else that may stand outside of sections.
    fn unknown(&mut self, key: &Spanned<std::borrow::Cow<'_, str>>, value: &Spanned<DeValue<'_>>) {
        let (name, origin): (&str, _) = (key.get_ref(), self.at(key.span().start));
        let sections: Vec<String> = keys::sections_with(name).into_iter().map(keys::heading).collect();
        let text = if value.get_ref().is_table()
            || value.get_ref().as_array().is_some_and(|array| array.iter().any(|e| e.get_ref().is_table()))
        {
            format!("there is no section [{name}]{}", keys::section_advice(name))
        } else if sections.is_empty() {
            format!("there is no key {name}{}", keys::advice(name))
        } else {
            format!("{name} stands in no section; write it below {}", sections.join(" or "))
        };
        self.problems.push(Problem::at(&origin, text));
        // What is wrong with its value is told as well.
        if let [section] = keys::sections_with(name)[..]
            && let (Some(key), Some(value)) = (keys::find(&format!("{section}.{name}")), raw(value.get_ref()))
        {
            self.settings.scalars.insert(key.path, Setting { value, origin });
        }
    }

    /// `[section]`
    fn section(&mut self, section: &str, table: &DeTable<'_>) {
        for (key, value) in in_order(table) {
            if section == "store" && key.get_ref() == "columns" {
                self.columns(value);
            } else if let Some((path, setting)) = self.setting(section, key, value) {
                self.settings.scalars.insert(path, setting);
            }
        }
    }

    /// `[[section]]`
    fn list(&mut self, section: &str, value: &Spanned<DeValue<'_>>) {
        let origin = self.at(value.span().start);
        let wrong = format!("{section} is a list of sections: write [[{section}]]");
        let Some(array) = value.get_ref().as_array() else {
            self.problems.push(Problem::at(&origin, wrong));
            return;
        };
        let bound = match section {
            "listener" => limits::LISTENER_ENTRIES,
            "channel" => limits::CHANNEL_ENTRIES,
            _ => limits::PERMISSION_ENTRIES,
        };
        if array.len() > bound {
            self.problems
                .push(Problem::at(&origin, format_args!("there are more than {bound} sections [[{section}]]")));
            return;
        }
        for element in array {
            let origin = self.at(element.span().start);
            let Some(table) = element.get_ref().as_table() else {
                self.problems.push(Problem::at(&origin, &wrong));
                continue;
            };
            let pairs: BTreeMap<_, _> =
                in_order(table).into_iter().filter_map(|(key, value)| self.setting(section, key, value)).collect();
            let entry = Entry { settings: pairs, origin };
            match section {
                "listener" => self.settings.listeners.push(entry),
                "channel" => self.settings.channels.push(entry),
                _ => self.settings.permissions.push(entry),
            }
        }
    }

    /// `[store.columns]`
    fn columns(&mut self, value: &Spanned<DeValue<'_>>) {
        let Some(table) = value.get_ref().as_table() else {
            let origin = self.at(value.span().start);
            self.problems.push(Problem::at(&origin, "store.columns is a section: write [store.columns]"));
            return;
        };
        for (key, value) in in_order(table) {
            let origin = self.at(key.span().start);
            let path = format!("store.columns.{}", key.get_ref());
            match value.get_ref().as_str() {
                Some(text) => {
                    let setting = Setting { value: Value::Text(text.to_owned()), origin };
                    self.settings.columns.insert(key.get_ref().to_string(), setting);
                }
                None => self.problems.push(Problem::of_key(&origin, &path, "must be a text like \"/receiver\"")),
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
        let origin = self.at(key.span().start);
        let Some(key) = keys::find(&path) else {
            let advice = keys::advice(&path);
            self.problems.push(Problem::at(&origin, format_args!("there is no key {path}{advice}")));
            return None;
        };
        match raw(value.get_ref()) {
            Some(value) => Some((key.path, Setting { value, origin })),
            None => {
                let kind = value.get_ref().type_str();
                self.problems.push(Problem::of_key(&origin, &path, format_args!("cannot be of the type {kind}")));
                None
            }
        }
    }
}

/// The value, if it is of a type that any key has.
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

/// The pairs of a table in the order of the file, so that problems are told in it too.
fn in_order<'t, 'i>(table: &'t DeTable<'i>) -> Vec<(&'t Spanned<std::borrow::Cow<'i, str>>, &'t Spanned<DeValue<'i>>)> {
    let mut pairs: Vec<_> = table.iter().collect();
    pairs.sort_by_key(|(key, _)| key.span().start);
    pairs
}

/// The number, or the nearest one that fits: both are beyond every bound there is.
fn number(integer: &DeInteger<'_>) -> i64 {
    let beyond = if integer.as_str().starts_with('-') { i64::MIN } else { i64::MAX };
    i64::from_str_radix(integer.as_str(), integer.radix()).unwrap_or(beyond)
}
