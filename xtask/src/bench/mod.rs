//! `cargo xtask bench`: this broker, a bare relay and other brokers under the same load, in turns; the results are in `docs/measurements.md`.
//!
//! A run that fails is told and counts as failed. Must never write a figure into the documentation that was not measured by a full run, nor
//! leave a server behind.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::{Failure, seconds};

mod build;
mod document;
mod goals;
mod growth;
mod load;
mod machine;
mod plan;
mod plot;
mod results;
mod server;
mod statistics;
mod subject;
mod tables;

use build::Programs;
use plan::{Extent, PARTS, Part, Scene};
use results::{Figures, Results, Run, Section};
use server::{Server, Setup};
use subject::Subject;

pub const HELP: &str = "\
Usage: cargo xtask bench [--quick] [--only compare|growth|kept|idle] [--repetitions N] [--profile NAME] [--render]

Measures the broker, the bare relay of benches/limit, mosquitto and nats-server in turns, and writes docs/measurements.md and docs/measurements
(every run, more tables, the plots). Forty minutes on two cores, on which nothing else should run.

  --quick          fewer and shorter runs, five minutes; writes to target/bench and leaves the documentation alone
  --only PART      one part; what the others came to stays
  --repetitions N  of the comparison and of kept messages, instead of 5 (3 with --quick)
  --profile NAME   the cargo profile of the programs, instead of `release`; writes to target/bench
  --render         measures nothing: makes text and plots of docs/measurements/runs.jsonl again
";

/// The most that `--repetitions` takes: hours.
const REPETITIONS: u32 = 100;

/// How long a server comes to rest before its memory is read.
const REST: Duration = Duration::from_secs(6);

/// What the command line asks for.
#[derive(Debug)]
struct Options {
    quick: bool,
    only: Option<Part>,
    repetitions: Option<u32>,
    profile: String,
    render: bool,
}

impl Options {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let mut options =
            Self { quick: false, only: None, repetitions: None, profile: "release".to_owned(), render: false };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--quick" => options.quick = true,
                "--render" => options.render = true,
                "--profile" => options.profile = value()?.clone(),
                "--only" => {
                    let name = value()?;
                    let part = PARTS.into_iter().find(|part| part.name() == name.as_str());
                    options.only = Some(part.ok_or_else(|| format!("there is no part {name}"))?);
                }
                "--repetitions" => {
                    let number = value()?.parse().ok().filter(|number| (1..=REPETITIONS).contains(number));
                    options.repetitions = Some(number.ok_or_else(|| format!("--repetitions is 1 to {REPETITIONS}"))?);
                }
                _ => return Err(format!("{argument} is not an option of bench")),
            }
        }
        Ok(options)
    }

    /// Whether the figures are fit for the documentation.
    fn is_full(&self) -> bool {
        !self.quick && self.profile == "release"
    }

    fn extent(&self) -> Extent {
        let mut extent = if self.quick { plan::QUICK } else { plan::FULL };
        extent.repetitions = self.repetitions.unwrap_or(extent.repetitions);
        extent
    }

    fn parts(&self) -> Vec<Part> {
        self.only.map_or_else(|| PARTS.to_vec(), |part| vec![part])
    }
}

/// The task.
pub fn task(arguments: &[String]) -> ExitCode {
    let options = match Options::parse(arguments) {
        Ok(options) => options,
        Err(misuse) => {
            eprint!("{misuse}\n\n{HELP}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(failed) => {
            eprintln!("=== {failed} runs failed; the report says which, and why ===");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("=== FAILED: {failure} ===");
            ExitCode::FAILURE
        }
    }
}

/// Measures, writes, and returns how many runs failed.
fn run(options: &Options) -> Result<usize, Failure> {
    if !cfg!(target_os = "linux") {
        return Err(Failure("only Linux shows what another process uses, which is what this is about".to_owned()));
    }
    let root = root()?;
    let place = root.join("target/bench");
    std::fs::create_dir_all(&place).map_err(|error| Failure(format!("{} can't be made: {error}", place.display())))?;
    server::clear(&place);
    let target = if options.is_full() { root.join("docs") } else { place.clone() };
    let file = target.join("measurements/runs.jsonl");
    let mut results = Results::read(&file)?;
    if !options.render {
        let began = Instant::now();
        let programs = Programs::get(&options.profile)?;
        let mut stage = Stage { programs, place, extent: options.extent(), done: 0, of: 0 };
        stage.of = options.parts().iter().map(|part| stage.steps(*part)).sum();
        for part in options.parts() {
            let section = stage.play(part, options);
            results.0.insert(part.name().to_owned(), section);
            document::write(&file, &results.to_text())?;
        }
        eprintln!("=== measured in {} ===", seconds(began.elapsed()));
    }
    document::publish(&results, &root.join("docs/measurements.md"), &target)?;
    println!("{}", tables::overview(&results));
    eprintln!("=== written: {} ===", target.join("measurements.md").display());
    Ok(results.failures().count())
}

/// The repository.
fn root() -> Result<PathBuf, Failure> {
    // As cargo says now: a build directory may be shared by several clones.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().map(Path::to_path_buf).ok_or_else(|| Failure("the repository was not found".to_owned()))
}

/// Where scenes are played.
struct Stage {
    programs: Programs,
    place: PathBuf,
    extent: Extent,
    done: usize,
    of: usize,
}

impl Stage {
    /// How many steps a part has, for the person who waits.
    fn steps(&self, part: Part) -> usize {
        let jobs: usize = plan::scenes(part, &self.extent).iter().map(|scene| scene.jobs.len()).sum();
        jobs + if part == Part::Idle { (self.extent.idle_repetitions + self.extent.starts) as usize } else { 0 }
    }

    fn play(&mut self, part: Part, options: &Options) -> Section {
        let mut section = Section { facts: machine::facts(&self.place), runs: Vec::new() };
        section.facts.extend(self.programs.versions());
        section.facts.insert("profile".to_owned(), options.profile.clone());
        section.facts.insert("repetitions".to_owned(), self.extent.repetitions_of(part).to_string());
        if options.quick {
            section.facts.insert("quick".to_owned(), "yes".to_owned());
        }
        if part == Part::Idle {
            section.runs.extend(self.rests());
            section.runs.extend(self.starts());
        }
        for scene in plan::scenes(part, &self.extent) {
            let runs = self.act(&scene);
            section.runs.extend(runs);
        }
        section
    }

    /// Plays a scene; of a program that is missing, nothing is played.
    fn act(&mut self, scene: &Scene) -> Vec<Run> {
        let subject = scene.setup.subject;
        if self.programs.server(subject).is_err() {
            self.done += scene.jobs.len();
            return Vec::new();
        }
        let server = Server::start(scene.setup, &self.programs, &self.place, None).and_then(|server| {
            if scene.stored > 0 {
                eprintln!("{} storing {} messages", self.count(), tables::grouped(scene.stored as f64));
                load::store(&server, scene.stored, &self.programs)?;
            }
            Ok(server)
        });
        let jobs = scene.jobs.iter().map(|job| {
            self.done += 1;
            let outcome = server.as_ref().map_err(Clone::clone).and_then(|server| {
                let mut workload = job.workload.clone();
                if job.looks_at_store {
                    workload.extend(["--store".to_owned(), server.store().display().to_string()]);
                }
                load::measure(server, subject, &workload, &self.programs).map_err(|why| match server.last_words() {
                    log if log.is_empty() => why,
                    log => format!("{why} (the server's last words: {log})"),
                })
            });
            let run = Run { case: job.case.to_owned(), x: job.x, subject, repetition: job.repetition, outcome };
            eprintln!("{} {}", self.count(), told(&run));
            run
        });
        jobs.collect()
    }

    fn count(&self) -> String {
        format!("[{:>3}/{}]", self.done, self.of)
    }

    /// The memory of servers that nobody has connected to but once. They rest together.
    fn rests(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        for repetition in 0..self.extent.idle_repetitions {
            let servers: Vec<(Subject, Result<Server, String>)> = self
                .resting()
                .map(|subject| (subject, Server::start(plain(subject), &self.programs, &self.place, None)))
                .collect();
            std::thread::sleep(REST);
            runs.extend(servers.iter().map(|(subject, server)| {
                let outcome = server
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|server| Ok(server.memory().ok_or("it has ended meanwhile")?));
                Run { case: "rest".to_owned(), x: 0, subject: *subject, repetition, outcome }
            }));
            self.done += 1;
            eprintln!("{} idle servers, memory, {} of {}", self.count(), repetition + 1, self.extent.idle_repetitions);
        }
        runs
    }

    /// How soon servers answer, each in a directory in which it has run before.
    fn starts(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        let subjects: Vec<Subject> = self.resting().collect();
        let mut known: Vec<_> = subjects
            .iter()
            .map(|subject| {
                Server::start(plain(*subject), &self.programs, &self.place, None).map(|server| Some(server.end()))
            })
            .collect();
        for repetition in 0..self.extent.starts {
            for (subject, before) in subjects.iter().zip(&mut known) {
                let outcome = before.as_mut().map_err(|why| why.clone()).and_then(|before| {
                    let server = Server::start(plain(*subject), &self.programs, &self.place, before.take())?;
                    let took = server.took.as_secs_f64() * 1e3;
                    *before = Some(server.end());
                    Ok(Figures::from([("start_ms".to_owned(), took)]))
                });
                runs.push(Run { case: "start".to_owned(), x: 0, subject: *subject, repetition, outcome });
            }
            self.done += 1;
            eprintln!("{} starts, {} of {}", self.count(), repetition + 1, self.extent.starts);
        }
        runs
    }

    /// Whose program is there, of those that are only started.
    fn resting(&self) -> impl Iterator<Item = Subject> {
        plan::RESTING.into_iter().filter(|subject| self.programs.server(*subject).is_ok())
    }
}

fn plain(subject: Subject) -> Setup {
    Setup { subject, confirms: false }
}

/// A run, as a line for the person who waits.
fn told(run: &Run) -> String {
    let x = if run.x > 0 { format!(" {}", tables::grouped(run.x as f64)) } else { String::new() };
    let head = format!("{}{x}, {}, {}", run.case, run.subject.key(), run.repetition + 1);
    match &run.outcome {
        Err(why) => format!("{head}: FAILED: {why}"),
        Ok(figures) => {
            let shown =
                [("cpu", "µs"), ("rate", "/s"), ("p50", "µs p50"), ("bytes", "bytes"), ("drain_cpu", "µs drain")];
            let shown = shown.iter().filter_map(|(name, unit)| {
                let value = figures.get(*name).filter(|value| **value > 0.0)?;
                Some(format!("{} {unit}", tables::number(*value)))
            });
            format!("{head}: {}", shown.collect::<Vec<_>>().join(", "))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Options, String> {
        Options::parse(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>())
    }

    #[test]
    fn options_are_read_and_misuse_is_told() {
        let options = parse("--quick --only kept --repetitions 2").unwrap();
        assert_eq!((options.parts(), options.extent().repetitions, options.is_full()), (vec![Part::Kept], 2, false));
        assert!(parse("").unwrap().is_full());
        assert!(!parse("--profile profiling").unwrap().is_full(), "other figures than those of what is shipped");
        for bad in ["--only", "--only x", "--repetitions 0", "--repetitions x", "fast"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_is_told_in_a_line() {
        let outcome = Ok(Figures::from([("cpu".to_owned(), 0.125), ("rate".to_owned(), 1_234_567.0)]));
        let run = Run { case: "p2p".to_owned(), x: 0, subject: Subject::Topic, repetition: 0, outcome };
        assert_eq!(told(&run), "p2p, topic, 1: 0.125 µs, 1,234,567 /s");
        let run = Run { x: 1_000, outcome: Err("gone".to_owned()), ..run };
        assert_eq!(told(&run), "p2p 1,000, topic, 1: FAILED: gone");
    }
}
