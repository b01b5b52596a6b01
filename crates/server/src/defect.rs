//! Defects on purpose, for the tests of what happens then. In a release build there are none, and nothing that could make one.

/// Panics here if the environment asks for it: `WSMB_TEST_DEFECT=PLACE:FILE` strikes at that place once there is a file of that name.
#[cfg(debug_assertions)]
pub(super) fn strike(place: &str) {
    use std::sync::OnceLock;

    static WISH: OnceLock<Option<(String, std::path::PathBuf)>> = OnceLock::new();
    let wish = WISH.get_or_init(|| {
        let wish = std::env::var("WSMB_TEST_DEFECT").ok()?;
        let (place, file) = wish.split_once(':')?;
        Some((place.to_owned(), file.into()))
    });
    if let Some((wanted, file)) = wish {
        // invariant: only a test asks for it.
        assert!(wanted != place || !file.exists(), "a defect in {place}, as a test has asked for");
    }
}

#[cfg(not(debug_assertions))]
#[inline(always)]
pub(super) fn strike(_place: &str) {}
