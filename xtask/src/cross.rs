//! `cargo xtask cross`: builds, checks and runs the program for other systems on a Linux machine.
//!
//! If the current tool chain has the target's standard library, the current tool chain is used. Otherwise Debian's tool chain builds the standard
//! library, too. Must never skip a target silently. Installs nothing: a missing tool is a failure that names the packages.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::{Failure, cargo, run, shown, target_directory};

pub const HELP: &str = "\
Usage: cargo xtask cross [TARGET]...

Checks or builds the program for other systems in target/cross. Takes three minutes per target on two cores. Without TARGET, all targets:

  windows       x86_64-pc-windows-gnu, checked with default features
  windows7      x86_64-win7-windows-gnu without default features, built, and run under wine
  arm           armv7-unknown-linux-gnueabihf, built, and run under qemu
  arm64         aarch64-unknown-linux-gnu, checked with default features
  macos         aarch64-apple-darwin, checked; only the Rust code, because no C compiler for macOS is available

A run: the target's broker takes a message from this system's client, stops, starts again, and delivers the message to the target's client.

On Debian: apt-get install rustc-web cargo-web rust-web-src gcc-mingw-w64-x86-64 g++-mingw-w64-x86-64 wine wine64
                           gcc-arm-linux-gnueabihf libc6-dev-armhf-cross qemu-user-static gcc-aarch64-linux-gnu libc6-dev-arm64-cross
";

/// Debian's tool chain for cross builds, with the source of the standard library: packages rustc-web, cargo-web, rust-web-src.
const DEBIAN_TOOLS: &str = "/usr/bin";
const STD_SOURCE: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// A system for which the program is built or checked.
#[derive(Clone, Copy)]
struct Target {
    /// The target's name on the command line of this task.
    name: &'static str,
    triple: &'static str,
    /// The C compiler and linker. `None`: C code is not compiled, which is enough for a check.
    compiler: Option<&'static str>,
    arguments: &'static [&'static str],
    /// The emulator that starts a program of the target system. `None`: the code is only checked.
    runner: Option<Runner>,
    /// The Debian packages that the target needs in addition to Debian's tool chain.
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
        // Debian's wine has no bcryptprimitives.dll, which the standard library of x86_64-pc-windows-gnu needs.
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

/// Runs `cargo xtask cross` for the named targets, or for all targets if `names` is empty.
pub fn task(names: &[String]) -> Result<(), Failure> {
    if let Some(name) = names.iter().find(|name| !TARGETS.iter().any(|target| target.name == name.as_str())) {
        return Err(Failure(format!("unknown target {name:?}\n\n{HELP}")));
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
            smoke_test(target, runner)?;
            eprintln!("=== {}: the broker kept and delivered a message ===", target.name);
        }
    }
    Ok(())
}

/// Returns the missing tools of a target, each with its Debian packages.
fn missing(target: &Target) -> Vec<String> {
    let found = |program: &str| {
        let probe = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let mut missing = Vec::new();
    let has_debian_tools = Path::new(STD_SOURCE).exists() && found(&format!("{DEBIAN_TOOLS}/cargo"));
    if !has_debian_tools && !has_target(target) {
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

/// Builds a target that has a runner, and checks any other target. A warning is a failure.
fn build(target: &Target) -> Result<(), Failure> {
    let has_target = has_target(target);
    let mut command = if has_target { cargo() } else { Command::new(format!("{DEBIAN_TOOLS}/cargo")) };
    command.arg(if target.runner.is_some() { "build" } else { "check" });
    if !has_target {
        command.arg("-Zbuild-std=std,panic_unwind");
        // Only with RUSTC_BOOTSTRAP may a stable tool chain build the standard library.
        command.env("RUSTC", format!("{DEBIAN_TOOLS}/rustc")).env("RUSTC_BOOTSTRAP", "1").env_remove("CARGO");
    }
    command.args(["--package", "wsmb", "--bin", "wsmb", "--target", target.triple]).args(target.arguments);
    command.env("RUSTFLAGS", "-Dwarnings");
    let folder = target_folder();
    fs::create_dir_all(&folder).map_err(|error| Failure(format!("{} cannot be created: {error}", folder.display())))?;
    let name = target.triple.replace('-', "_");
    if let Some(compiler) = target.compiler {
        command.env(format!("CC_{name}"), compiler);
        command.env(format!("CARGO_TARGET_{}_LINKER", name.to_uppercase()), compiler);
    } else {
        let (compiler, archiver) = (folder.join("no-cc"), folder.join("no-ar"));
        script(&compiler, STUB_COMPILER)?;
        script(&archiver, STUB_ARCHIVER)?;
        command.env(format!("CC_{name}"), compiler).env(format!("AR_{name}"), archiver).env("SDKROOT", "/");
    }
    run(command.env("CARGO_TARGET_DIR", &folder))
}

/// A compiler that writes empty files. A check links nothing, so their contents do not matter.
const STUB_COMPILER: &str = "#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
    -E) exit 1 ;;
    -o) shift; : > \"$1\" ;;
    esac
    shift
done
";
const STUB_ARCHIVER: &str = "#!/bin/sh
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

fn target_folder() -> PathBuf {
    target_directory().join("cross")
}

/// Sends a message to a broker from this system's program, stops the broker, starts it again, and receives the message with the target's program.
fn smoke_test(target: &Target, runner: &Runner) -> Result<(), Failure> {
    run(cargo().args(["build", "--package", "wsmb", "--bin", "wsmb"]))?;
    let native = target_directory().join("debug").join("wsmb");
    let directory = target_folder().join(format!("try-{}", target.name));
    // Removes the files of an earlier run. Usually there are none.
    let _ = fs::remove_dir_all(&directory);
    fs::create_dir_all(&directory)
        .map_err(|error| Failure(format!("{} cannot be created: {error}", directory.display())))?;
    let built = target_folder().join(target.triple).join("debug");
    let program = [built.join("wsmb"), built.join("wsmb.exe")].into_iter().find(|path| path.exists());
    let program = program.ok_or_else(|| Failure(format!("cargo wrote no program to {}", built.display())))?;
    let program = ForeignProgram { runner, program, directory };
    let text = "kept over a restart";
    let broker = program.serve()?;
    output(Command::new(native).args(["send", "cross", text, "--url", &broker.url]))?;
    broker.stop()?;
    let broker = program.serve()?;
    let received = output(&mut program.command(&["receive", "cross", "--count", "1", "--url", &broker.url]))?;
    if received.trim() != format!("\"{text}\"") {
        return Err(Failure(format!("{}: sent {text:?}, received {received:?}", target.name)));
    }
    broker.stop()
}

/// The program of a target, with the emulator that runs it.
struct ForeignProgram<'a> {
    runner: &'a Runner,
    program: PathBuf,
    /// The working directory: data, configuration, and wine's drives.
    directory: PathBuf,
}

/// A running broker. Dropping the value ends the broker.
struct Broker<'a> {
    child: Child,
    url: String,
    program: &'a ForeignProgram<'a>,
}

impl ForeignProgram<'_> {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.runner.program);
        command.args(self.runner.arguments).arg(&self.program).args(arguments);
        command.current_dir(&self.directory).stdin(Stdio::null()).stderr(Stdio::inherit());
        command.env("WINEPREFIX", self.directory.join("wine")).env("WINEDEBUG", "-all").env("HOME", &self.directory);
        command
    }

    fn serve(&self) -> Result<Broker<'_>, Failure> {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0", "--set", "auth.anonymous=true"]);
        let line = shown(&command);
        let failed = |why: String| Failure(format!("`{line}`: {why}"));
        let child = command.stdout(Stdio::piped()).spawn().map_err(|error| failed(error.to_string()))?;
        let mut broker = Broker { child, url: String::new(), program: self };
        let output = broker.child.stdout.take().ok_or_else(|| failed("no output".to_owned()))?;
        let mut first = String::new();
        // This read ends even if the broker exits early, because the exit closes the pipe.
        BufReader::new(output).read_line(&mut first).map_err(|error| failed(error.to_string()))?;
        let url = first.trim().strip_prefix("wsmb is listening on ");
        broker.url = url.ok_or_else(|| failed(format!("it said {first:?}")))?.to_owned();
        Ok(broker)
    }
}

/// Runs a client to its end, and returns its output.
fn output(command: &mut Command) -> Result<String, Failure> {
    let line = shown(command);
    eprintln!("$ {line}");
    let output = command.stderr(Stdio::inherit()).output();
    let output = output.map_err(|error| Failure(format!("`{line}` cannot be started: {error}")))?;
    if !output.status.success() {
        return Err(Failure(format!("`{line}` ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Broker<'_> {
    /// Asks the broker to stop, and waits for its end. wine passes no signal on to a program; dropping the value ends a broker under wine.
    fn stop(mut self) -> Result<(), Failure> {
        if self.program.runner.program == "wine" {
            return Ok(());
        }
        run(Command::new("kill").arg(self.child.id().to_string()))?;
        // A broker stops within seconds, or reports why it could not.
        let status = self.child.wait().map_err(|error| Failure(format!("the broker's end is unknown: {error}")))?;
        if status.success() { Ok(()) } else { Err(Failure(format!("the stopped broker ended with {status}"))) }
    }
}

impl Drop for Broker<'_> {
    fn drop(&mut self) {
        if self.program.runner.program == "wine" {
            // The process that was started is wine's, not the broker's. This command ends all programs of this wine prefix only.
            let mut command = Command::new("wineserver");
            let _ = command.arg("-k").env("WINEPREFIX", self.program.directory.join("wine")).status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_target_is_refused_with_the_help() {
        let Err(Failure(text)) = task(&["windows".to_owned(), "amiga".to_owned()]) else { panic!("not refused") };
        assert!(text.starts_with("unknown target \"amiga\"\n") && text.contains("aarch64-apple-darwin"), "{text}");
        for target in &TARGETS {
            assert!(HELP.contains(&format!("  {:<13} {}", target.name, target.triple)), "{}", target.name);
        }
    }

    #[test]
    fn a_missing_tool_is_named_with_its_package() {
        let target = Target { compiler: Some("no-such-compiler"), packages: "gcc-none", ..TARGETS[4] };
        let text = missing(&target).join("\n");
        assert!(text.contains("no-such-compiler, on Debian `apt-get install gcc-none`"), "{text}");
    }
}
