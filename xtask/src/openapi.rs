//! Validates the description of the HTTP interface with `openapi-spec-validator` from PyPI, in a virtual environment below the target directory. Never
//! installs anything outside of it.

use std::process::Command;

use crate::{Failure, run, target_directory};

/// A fixed version, so that a new one cannot fail an unchanged document.
const VALIDATOR: &str = "openapi-spec-validator==0.9.0";

const DOCUMENT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/server/src/http/openapi.json");

/// Validates the document. The first run needs PyPI.
pub fn validate() -> Result<(), Failure> {
    let environment = target_directory().join("openapi");
    let program = environment.join("bin/openapi-spec-validator");
    if !program.exists() {
        run(Command::new("python3").args(["-m", "venv"]).arg(&environment))?;
        run(Command::new(environment.join("bin/pip")).args(["install", "--quiet", VALIDATOR]))?;
    }
    run(Command::new(program).arg(DOCUMENT))
}
