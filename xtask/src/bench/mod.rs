//! `cargo xtask bench`: measures this broker, a bare relay and other brokers under the same load, in turns, and writes `docs/measurements.md`.
//!
//! Failed runs are reported. Must never write a figure of an incomplete measurement into the documentation, and never leave a server running.

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
use plan::{Batch, PARTS, Part, Scale};
use results::{Figures, Results, Run, Section};
use server::{Server, Setup};
use subject::Subject;

pub const HELP: &str = "\
Usage: cargo xtask bench [--quick] [--only compare|growth|kept|idle] [--repetitions N] [--profile NAME] [--render]

Measures the broker, the bare relay of benches/limit, mosquitto and nats-server in turns, and writes docs/measurements.md and docs/measurements
(all runs, more tables, plots). Takes forty minutes on two cores, which should be idle otherwise.

  --quick          fewer and shorter runs, five minutes; writes to target/bench, not to the documentation
  --only PART      measure one part; keep the results of the others
  --repetitions N  repetitions of the parts compare and kept (default: 5; with --quick: 3)
  --profile NAME   the cargo profile of the programs (default: release); writes to target/bench
  --render         do not measure; write the text and the plots again from docs/measurements/runs.jsonl
";

/// The largest value of `--repetitions`, with which a measurement takes hours.
const REPETITIONS: u32 = 100;

/// How long a server is idle before its memory is read.
const IDLE_TIME: Duration = Duration::from_secs(6);

/// The options of the command line.
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
                    options.only = Some(part.ok_or_else(|| format!("unknown part {name:?}"))?);
                }
                "--repetitions" => {
                    let number = value()?.parse().ok().filter(|number| (1..=REPETITIONS).contains(number));
                    options.repetitions = Some(number.ok_or_else(|| format!("--repetitions: 1 to {REPETITIONS}"))?);
                }
                _ => return Err(format!("unknown argument {argument:?}")),
            }
        }
        Ok(options)
    }

    /// Whether the figures may be written to the documentation.
    fn is_full(&self) -> bool {
        !self.quick && self.profile == "release"
    }

    fn scale(&self) -> Scale {
        let mut scale = if self.quick { plan::QUICK } else { plan::FULL };
        scale.repetitions = self.repetitions.unwrap_or(scale.repetitions);
        scale
    }

    fn parts(&self) -> Vec<Part> {
        self.only.map_or_else(|| PARTS.to_vec(), |part| vec![part])
    }
}

/// Runs `cargo xtask bench` with these arguments.
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
            eprintln!("=== {failed} runs failed; the report has the reasons ===");
            ExitCode::FAILURE
        }
        Err(failure) => {
            eprintln!("=== FAILED: {failure} ===");
            ExitCode::FAILURE
        }
    }
}

/// Measures, writes the results, and returns the number of failed runs.
fn run(options: &Options) -> Result<usize, Failure> {
    if !cfg!(target_os = "linux") {
        return Err(Failure("bench needs Linux, which shows the CPU time and memory of another process".to_owned()));
    }
    let root = root()?;
    let directory = root.join("target/bench");
    std::fs::create_dir_all(&directory)
        .map_err(|error| Failure(format!("{} can't be created: {error}", directory.display())))?;
    server::clear(&directory);
    let target = if options.is_full() { root.join("docs") } else { directory.clone() };
    let file = target.join("measurements/runs.jsonl");
    let mut results = Results::read(&file)?;
    if !options.render {
        let began = Instant::now();
        let programs = Programs::get(&options.profile)?;
        let mut runner = Runner { programs, directory, scale: options.scale(), done: 0, total: 0 };
        runner.total = options.parts().iter().map(|part| runner.steps(*part)).sum();
        for part in options.parts() {
            let section = runner.run_part(part, options);
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

/// Returns the root of the repository.
fn root() -> Result<PathBuf, Failure> {
    // The variable of this run takes precedence, because several clones may share one target directory.
    let here = std::env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into());
    Path::new(&here).parent().map(Path::to_path_buf).ok_or_else(|| Failure("the repository was not found".to_owned()))
}

/// Runs the batches of a measurement and counts them.
struct Runner {
    programs: Programs,
    directory: PathBuf,
    scale: Scale,
    done: usize,
    total: usize,
}

impl Runner {
    /// Returns the number of steps of a part, for the progress display.
    fn steps(&self, part: Part) -> usize {
        let jobs: usize = plan::batches(part, &self.scale).iter().map(|batch| batch.jobs.len()).sum();
        jobs + if part == Part::Idle { (self.scale.idle_repetitions + self.scale.starts) as usize } else { 0 }
    }

    fn run_part(&mut self, part: Part, options: &Options) -> Section {
        let mut section = Section { facts: machine::facts(&self.directory), runs: Vec::new() };
        section.facts.extend(self.programs.versions());
        section.facts.insert("profile".to_owned(), options.profile.clone());
        section.facts.insert("repetitions".to_owned(), self.scale.repetitions_of(part).to_string());
        if options.quick {
            section.facts.insert("quick".to_owned(), "yes".to_owned());
        }
        if part == Part::Idle {
            section.runs.extend(self.measure_idle_memory());
            section.runs.extend(self.measure_starts());
        }
        for batch in plan::batches(part, &self.scale) {
            let runs = self.run_batch(&batch);
            section.runs.extend(runs);
        }
        section
    }

    /// Runs the jobs of a batch. Returns no runs if the program is missing.
    fn run_batch(&mut self, batch: &Batch) -> Vec<Run> {
        let subject = batch.setup.subject;
        if self.programs.server(subject).is_err() {
            self.done += batch.jobs.len();
            return Vec::new();
        }
        let server = Server::start(batch.setup, &self.programs, &self.directory, None).and_then(|server| {
            if batch.stored > 0 {
                eprintln!("{} storing {} messages", self.count(), tables::grouped(batch.stored as f64));
                load::store(&server, batch.stored, &self.programs)?;
            }
            Ok(server)
        });
        let jobs = batch.jobs.iter().map(|job| {
            self.done += 1;
            let outcome = server.as_ref().map_err(Clone::clone).and_then(|server| {
                let mut workload = job.workload.clone();
                if job.looks_at_store {
                    workload.extend(["--store".to_owned(), server.store().display().to_string()]);
                }
                load::measure(server, subject, &workload, &self.programs).map_err(|why| match server.last_log_line() {
                    log if log.is_empty() => why,
                    log => format!("{why} (last log line of the server: {log})"),
                })
            });
            let run = Run { case: job.case.to_owned(), x: job.x, subject, repetition: job.repetition, outcome };
            eprintln!("{} {}", self.count(), run_line(&run));
            run
        });
        jobs.collect()
    }

    fn count(&self) -> String {
        format!("[{:>3}/{}]", self.done, self.total)
    }

    /// Measures the memory of idle servers, which run at the same time. Each has had one connection, the handshake of its start.
    fn measure_idle_memory(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        for repetition in 0..self.scale.idle_repetitions {
            let servers: Vec<(Subject, Result<Server, String>)> = self
                .started_subjects()
                .map(|subject| (subject, Server::start(plain(subject), &self.programs, &self.directory, None)))
                .collect();
            std::thread::sleep(IDLE_TIME);
            runs.extend(servers.iter().map(|(subject, server)| {
                let outcome = server
                    .as_ref()
                    .map_err(Clone::clone)
                    .and_then(|server| Ok(server.memory().ok_or("the server has ended")?));
                Run { case: "rest".to_owned(), x: 0, subject: *subject, repetition, outcome }
            }));
            self.done += 1;
            eprintln!("{} idle servers, memory, {} of {}", self.count(), repetition + 1, self.scale.idle_repetitions);
        }
        runs
    }

    /// Measures the time from the start of a server to its first answer. Each server has run in its directory before.
    fn measure_starts(&mut self) -> Vec<Run> {
        let mut runs = Vec::new();
        let subjects: Vec<Subject> = self.started_subjects().collect();
        let mut known: Vec<_> = subjects
            .iter()
            .map(|subject| {
                Server::start(plain(*subject), &self.programs, &self.directory, None).map(|server| Some(server.end()))
            })
            .collect();
        for repetition in 0..self.scale.starts {
            for (subject, before) in subjects.iter().zip(&mut known) {
                let outcome = before.as_mut().map_err(|why| why.clone()).and_then(|before| {
                    let server = Server::start(plain(*subject), &self.programs, &self.directory, before.take())?;
                    let took = server.start_time.as_secs_f64() * 1e3;
                    *before = Some(server.end());
                    Ok(Figures::from([("start_ms".to_owned(), took)]))
                });
                runs.push(Run { case: "start".to_owned(), x: 0, subject: *subject, repetition, outcome });
            }
            self.done += 1;
            eprintln!("{} starts, {} of {}", self.count(), repetition + 1, self.scale.starts);
        }
        runs
    }

    /// Returns the available subjects whose idle memory and start are measured.
    fn started_subjects(&self) -> impl Iterator<Item = Subject> {
        plan::STARTED.into_iter().filter(|subject| self.programs.server(*subject).is_ok())
    }
}

fn plain(subject: Subject) -> Setup {
    Setup { subject, confirms: false }
}

/// Formats a run as a line of the progress display.
fn run_line(run: &Run) -> String {
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
    fn options_are_parsed_and_invalid_ones_are_refused() {
        let options = parse("--quick --only kept --repetitions 2").unwrap();
        assert_eq!((options.parts(), options.scale().repetitions, options.is_full()), (vec![Part::Kept], 2, false));
        assert!(parse("").unwrap().is_full());
        assert!(!parse("--profile profiling").unwrap().is_full(), "another profile than the release");
        for bad in ["--only", "--only x", "--repetitions 0", "--repetitions x", "fast"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_run_is_formatted_as_one_line() {
        let outcome = Ok(Figures::from([("cpu".to_owned(), 0.125), ("rate".to_owned(), 1_234_567.0)]));
        let run = Run { case: "p2p".to_owned(), x: 0, subject: Subject::Topic, repetition: 0, outcome };
        assert_eq!(run_line(&run), "p2p, topic, 1: 0.125 µs, 1,234,567 /s");
        let run = Run { x: 1_000, outcome: Err("gone".to_owned()), ..run };
        assert_eq!(run_line(&run), "p2p 1,000, topic, 1: FAILED: gone");
    }
}
