//! Panics on purpose, for the tests of panics. A release build does not contain them.

/// Panics if the environment requests it: with `WSMB_TEST_DEFECT=PLACE:FILE`, a call for that place panics as soon as the file exists.
#[cfg(debug_assertions)]
pub(super) fn strike(place: &str) {
    use std::sync::OnceLock;

    static DEFECT: OnceLock<Option<(String, std::path::PathBuf)>> = OnceLock::new();
    let defect = DEFECT.get_or_init(|| {
        let variable = std::env::var("WSMB_TEST_DEFECT").ok()?;
        let (place, file) = variable.split_once(':')?;
        Some((place.to_owned(), file.into()))
    });
    if let Some((wanted, file)) = defect {
        // invariant: only a test sets the variable.
        assert!(wanted != place || !file.exists(), "a defect in {place}, as a test has asked for");
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn strike(_place: &str) {}
