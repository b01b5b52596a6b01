//! `cargo xtask cross`: the program for other systems, as far as a Linux machine can build, check and run it.
//!
//! A target that the current tool chain has is built with it. Else Debian's second tool chain builds the standard library, too. Must never leave
//! a target out silently, and installs nothing: what is missing is a failure that names the packages.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Failure, cargo, run, shown, target_directory};

pub const HELP: &str = "\
Usage: cargo xtask cross [TARGET]...

Checks or builds the program for other systems, below target/cross; three minutes a target on two cores. Without TARGET, all of them:

  windows       x86_64-pc-windows-gnu, checked as it is shipped
  windows7      x86_64-win7-windows-gnu without default features, built; a broker under wine keeps and delivers a message
  arm           armv7-unknown-linux-gnueabihf, built; a broker under qemu keeps and delivers a message
  arm64         aarch64-unknown-linux-gnu, checked as it is shipped
  macos         aarch64-apple-darwin, checked: the Rust code only, as there is no C compiler for it here

On Debian: apt-get install rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 wine wine64
                           gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
";

/// Debian's second tool chain, with the source of the standard library: packages rustc-web, cargo-web, rust-web-src.
const SECOND: &str = "/usr/bin";
const SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// A system that the program is built for.
#[derive(Clone, Copy)]
struct Target {
    /// As the command line of this task calls it.
    name: &'static str,
    /// As rustc calls it.
    triple: &'static str,
    /// The C compiler and linker; `None`: C is not compiled at all, which is enough for a check.
    compiler: Option<&'static str>,
    arguments: &'static [&'static str],
    /// What starts a program of that system here; `None`: the code is only checked.
    runner: Option<Runner>,
    /// The Debian packages that the target needs beside the second tool chain.
    packages: &'static str,
}

#[derive(Clone, Copy)]
struct Runner {
    program: &'static str,
    arguments: &'static [&'static str],
}

const TARGETS: [Target; 5] = [
    Target {
        name: "windows",
        triple: "x86_64-pc-windows-gnu",
        compiler: Some("x86_64-w64-mingw32-gcc"),
        arguments: &[],
        runner: None,
        packages: "gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64",
    },
    Target {
        name: "windows7",
        // Debian's wine has not what the standard library of the other target needs (bcryptprimitives.dll).
        triple: "x86_64-win7-windows-gnu",
        compiler: Some("x86_64-w64-mingw32-gcc"),
        arguments: &["--no-default-features"],
        runner: Some(Runner { program: "wine", arguments: &[] }),
        packages: "gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 wine wine64",
    },
    Target {
        name: "arm",
        triple: "armv7-unknown-linux-gnueabihf",
        compiler: Some("arm-linux-gnueabihf-gcc"),
        arguments: &[],
        runner: Some(Runner { program: "qemu-arm-static", arguments: &["-L", "/usr/arm-linux-gnueabihf"] }),
        packages: "gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static",
    },
    Target {
        name: "arm64",
        triple: "aarch64-unknown-linux-gnu",
        compiler: Some("aarch64-linux-gnu-gcc"),
        arguments: &[],
        runner: None,
        packages: "gcc-aarch64-linux-gnu libc6-dev-arm64-cross",
    },
    Target {
        name: "macos",
        triple: "aarch64-apple-darwin",
        compiler: None,
        arguments: &[],
        runner: None,
        packages: "",
    },
];

/// What the task does.
pub fn task(names: &[String]) -> Result<(), Failure> {
    if let Some(name) = names.iter().find(|name| !TARGETS.iter().any(|target| target.name == name.as_str())) {
        return Err(Failure(format!("there is no target {name}\n\n{HELP}")));
    }
    let wanted = |target: &&Target| names.is_empty() || names.iter().any(|name| name == target.name);
    let targets: Vec<&Target> = TARGETS.iter().filter(wanted).collect();
    let missing: Vec<String> = targets.iter().flat_map(|target| missing(target)).collect();
    if !missing.is_empty() {
        return Err(Failure(format!("missing:\n  {}", missing.join("\n  "))));
    }
    for target in targets {
        eprintln!("\n=== {}: {} ===", target.name, target.triple);
        build(target)?;
        if let Some(runner) = &target.runner {
            try_out(target, runner)?;
            eprintln!("=== {}: a broker has kept and delivered a message ===", target.name);
        }
    }
    Ok(())
}

/// The tools that a target needs and that are not there, each with its packages.
fn missing(target: &Target) -> Vec<String> {
    let found = |program: &str| {
        let probe = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    let second = Path::new(SOURCE).exists() && found(&format!("{SECOND}/cargo"));
    if !second && !has_target(target) {
        missing.push(format!(
            "a tool chain for {}: `rustup target add {}`, or on Debian `apt-get install rustc-web cargo-web rust-web-src`",
            target.triple, target.triple
        ));
    }
    let runner = target.runner.as_ref().map(|runner| runner.program);
    for program in target.compiler.into_iter().chain(runner).filter(|program| !found(program)) {
        missing.push(format!("{program}, on Debian `apt-get install {}`", target.packages));
    }
    missing
}

/// Whether the current tool chain has the standard library for the target.
fn has_target(target: &Target) -> bool {
    let output = Command::new("rustc").args(["--print", "target-libdir", "--target", target.triple]).output();
    output.is_ok_and(|output| Path::new(String::from_utf8_lossy(&output.stdout).trim()).exists())
}

/// Builds what is run, and checks the rest; a warning is a failure.
fn build(target: &Target) -> Result<(), Failure> {
    let mut command = if has_target(target) {
        cargo()
    } else {
        let mut command = Command::new(format!("{SECOND}/cargo"));
        // The tool chain may build a standard library although it is a stable one.
        command.env("RUSTC", format!("{SECOND}/rustc")).env("RUSTC_BOOTSTRAP", "1").env_remove("CARGO");
        command
    };
    command.arg(if target.runner.is_some() { "build" } else { "check" });
    if !has_target(target) {
        command.arg("-Zbuild-std=std,panic_unwind");
    }
    command.args(["--package", "wsmb", "--bin", "wsmb", "--target", target.triple]).args(target.arguments);
    command.env("RUSTFLAGS", "-Dwarnings");
    let folder = folder();
    fs::create_dir_all(&folder).map_err(|error| Failure(format!("{} cannot be made: {error}", folder.display())))?;
    let name = target.triple.replace('-', "_");
    if let Some(compiler) = target.compiler {
        command.env(format!("CC_{name}"), compiler);
        command.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
    } else {
        let (compiler, archiver) = (folder.join("no-cc"), folder.join("no-ar"));
        script(&compiler, NO_COMPILER)?;
        script(&archiver, NO_ARCHIVER)?;
        command.env(format!("CC_{name}"), compiler).env(format!("AR_{name}"), archiver).env("SDKROOT", "/");
    }
    run(command.env("CARGO_TARGET_DIR", &folder))
}

/// A compiler that makes empty files: what is only checked is never linked.
const NO_COMPILER: &str = "#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -E) exit 1 ;;
    -o) shift; : > \"$1\" ;;
    esac
    shift
done
";
const NO_ARCHIVER: &str = "#!/bin/sh
for file; do
    case $file in
    *.a) : > \"$file\" ;;
    esac
done
";

fn script(path: &Path, text: &str) -> Result<(), Failure> {
    fs::write(path, text).map_err(|error| Failure(format!("{} cannot be written: {error}", path.display())))?;
    run(Command::new("chmod").arg("755").arg(path))
}

fn folder() -> PathBuf {
    target_directory().join("cross")
}

/// Starts a broker, sends it a message that it keeps, starts it anew, and receives the message.
fn try_out(target: &Target, runner: &Runner) -> Result<(), Failure> {
    let place = folder().join(format!("try-{}", target.name));
    // What an earlier run has left; it is usually not there.
    let _ = fs::remove_dir_all(&place);
    fs::create_dir_all(&place).map_err(|error| Failure(format!("{} cannot be made: {error}", place.display())))?;
    let built = folder().join(target.triple).join("debug");
    let program = [built.join("wsmb"), built.join("wsmb.exe")].into_iter().find(|path| path.exists());
    let program = program.ok_or_else(|| Failure(format!("cargo has left no program in {}", built.display())))?;
    let there = There { runner, program, place };
    let text = "kept over a restart";
    let broker = there.serve()?;
    there.client(&["send", "cross", text, "--url", &broker.url])?;
    drop(broker);
    let broker = there.serve()?;
    let received = there.client(&["receive", "cross", "--count", "1", "--url", &broker.url])?;
    if received.trim() == format!("\"{text}\"") {
        return Ok(());
    }
    Err(Failure(format!("{}: sent {text:?}, received {received:?}", target.name)))
}

/// A program of another system.
struct There<'a> {
    runner: &'a Runner,
    program: PathBuf,
    /// Its directory: data, configuration, and what wine takes for a disk.
    place: PathBuf,
}

/// A broker that runs; its end is the end of this.
struct Broker<'a> {
    child: Child,
    url: String,
    there: &'a There<'a>,
}

impl There<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.runner.program);
        command.args(self.runner.arguments).arg(&self.program).args(arguments);
        command.current_dir(&self.place).stdin(Stdio::null()).stderr(Stdio::inherit());
        command.env("WINEPREFIX", self.place.join("wine")).env("WINEDEBUG", "-all").env("HOME", &self.place);
        command
    }

    fn serve(&self) -> Result<Broker<'_>, Failure> {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--set", "auth.anonymous=true"]);
        let line = shown(&command);
        let failed = |why: String| Failure(format!("`{line}`: {why}"));
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| failed(error.to_string()))?;
        let mut broker = Broker { child, url: String::new(), there: self };
        let output = broker.child.stdout.take().ok_or_else(|| failed("no output".to_owned()))?;
        let mut first = String::new();
        // A program that ends closes its output, so this comes to an end.
        BufReader::new(output).read_line(&mut first).map_err(|error| failed(error.to_string()))?;
        let url = first.trim().strip_prefix("wsmb is listening on ");
        broker.url = url.ok_or_else(|| failed(format!("it said {first:?}")))?.to_owned();
        Ok(broker)
    }

    fn client(&self, arguments: &[&str]) -> Result<String, Failure> {
        let mut command = self.command(arguments);
        let line = shown(&command);
        let output = command.output().map_err(|error| Failure(format!("`{line}` cannot be started: {error}")))?;
        if !output.status.success() {
            return Err(Failure(format!("`{line}` ended with {}", output.status)));
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        if self.there.runner.program == "wine" {
            // wine's own process is not the program's: this ends what runs in this prefix, and nothing else.
            let mut command = Command::new("wineserver");
            let _ = command.arg("-k").env("WINEPREFIX", self.there.place.join("wine")).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_that_is_not_there_is_refused_with_the_help() {
        let Err(Failure(told)) = task(&["windows".to_owned(), "amiga".to_owned()]) else { panic!("it was taken") };
        assert!(told.starts_with("there is no target amiga\n") && told.contains("aarch64-apple-darwin"), "{told}");
        for target in &TARGETS {
            assert!(HELP.contains(&format!("  {:<13} {}", target.name, target.triple)), "{}", target.name);
        }
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let target = Target { compiler: Some("no-such-compiler"), packages: "gcc-none", ..TARGETS[4] };
        let told = missing(&target).join("\n");
        assert!(told.contains("no-such-compiler, on Debian `apt-get install gcc-none`"), "{told}");
    }
}
