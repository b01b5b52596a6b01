//! Reads the values of a section, and collects their problems.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Problem, Source};
use super::raw::{Setting, Value};
use super::values;

/// The values of one section or of all sections, and the list of problems.
pub(super) struct SectionReader<'a> {
    pub(super) settings: &'a BTreeMap<&'static str, Setting>,
    pub(super) problems: &'a mut Vec<Problem>,
}

impl SectionReader<'_> {
    /// Returns the value of `key`. `None` if it is not set or invalid; then the problem is recorded.
    pub(super) fn get<T>(&mut self, key: &str, read: impl FnOnce(&Value) -> Result<T, String>) -> Option<T> {
        let setting = self.settings.get(key)?;
        read(&setting.value).map_err(|text| self.problems.push(Problem::of_key(&setting.source, key, text))).ok()
    }

    pub(super) fn set<T>(&mut self, key: &str, target: &mut T, read: impl FnOnce(&Value) -> Result<T, String>) {
        if let Some(value) = self.get(key, read) {
            *target = value;
        }
    }

    pub(super) fn set_number(&mut self, key: &str, target: &mut usize, min: u64, max: u64) {
        // invariant: no limit of a caller is above u32::MAX, so the number fits in any usize.
        self.set(key, target, |value| {
            values::integer(value, &(min..=max)).map(|n| usize::try_from(n).unwrap_or(usize::MAX))
        });
    }

    pub(super) fn set_size(&mut self, key: &str, target: &mut usize, min: u64, max: u64) {
        // invariant: no limit of a caller is above u32::MAX, so the size fits in any usize.
        self.set(key, target, |value| {
            values::size(value, &(min..=max)).map(|size| usize::try_from(size).unwrap_or(usize::MAX))
        });
    }

    /// Whether the value comes from the configuration file.
    pub(super) fn is_in_file(&self, key: &str) -> bool {
        self.settings.get(key).is_some_and(|setting| matches!(setting.source, Source::File(..)))
    }

    pub(super) fn set_duration(&mut self, key: &str, target: &mut Duration, min: Duration, max: Duration) {
        self.set(key, target, |value| values::duration(value, &(min..=max)));
    }
}
