//! The runs of a measurement and their order: in a comparison, each subject runs once before the next repetition.

use super::server::Setup;
use super::subject::Subject;

/// `--window` of a sender on a kept channel: small enough that confirmations keep up. With a larger window, messages wait or are stored; the case
/// `growth-window` measures this.
const KEPT_WINDOW: &str = "256";

/// The parts of a measurement, as `--only` names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Compare,
    Growth,
    Kept,
    Idle,
}

pub const PARTS: [Part; 4] = [Part::Compare, Part::Kept, Part::Idle, Part::Growth];

impl Part {
    pub fn name(self) -> &'static str {
        match self {
            Self::Compare => "compare",
            Self::Growth => "growth",
            Self::Kept => "kept",
            Self::Idle => "idle",
        }
    }
}

/// The number and the length of the runs. Times are in seconds, for one run.
#[derive(Clone, Debug)]
pub struct Scale {
    pub repetitions: u32,
    pub growth_repetitions: u32,
    pub idle_repetitions: u32,
    seconds: f64,
    warm_up: f64,
    latency_seconds: f64,
    growth_seconds: f64,
    connections: u64,
    receivers: &'static [u64],
    channels: &'static [u64],
    pairs: &'static [u64],
    beside: &'static [u64],
    sizes: &'static [u64],
    windows: &'static [u64],
    backlogs: &'static [u64],
    /// The number of measured starts of each server.
    pub starts: u32,
}

impl Scale {
    /// Returns the number of repetitions of a part.
    pub fn repetitions_of(&self, part: Part) -> u32 {
        match part {
            Part::Compare | Part::Kept => self.repetitions,
            Part::Growth => self.growth_repetitions,
            Part::Idle => self.idle_repetitions,
        }
    }
}

/// For `docs/measurements.md`: about forty minutes on two cores.
pub const FULL: Scale = Scale {
    repetitions: 5,
    growth_repetitions: 3,
    idle_repetitions: 3,
    seconds: 1.5,
    warm_up: 0.3,
    latency_seconds: 3.0,
    growth_seconds: 1.0,
    connections: 10_000,
    receivers: &[1, 10, 100, 1_000, 10_000],
    channels: &[1, 10, 100, 1_000, 10_000, 100_000],
    pairs: &[1, 10, 100, 1_000, 5_000],
    beside: &[0, 10, 100, 1_000, 5_000, 15_000],
    sizes: &[10, 100, 1_000, 10_000, 100_000, 1_000_000],
    windows: &[16, 64, 256, 1_024, 4_096],
    backlogs: &[1_000, 10_000, 100_000, 1_000_000],
    starts: 7,
};

/// For `--quick`: shows large changes, and whether each measurement works.
pub const QUICK: Scale = Scale {
    repetitions: 3,
    growth_repetitions: 1,
    idle_repetitions: 1,
    seconds: 0.4,
    warm_up: 0.1,
    latency_seconds: 1.0,
    growth_seconds: 0.3,
    connections: 2_000,
    receivers: &[1, 100, 1_000],
    channels: &[1, 100, 10_000],
    pairs: &[1, 100, 1_000],
    beside: &[0, 100, 2_000],
    sizes: &[10, 1_000, 100_000],
    windows: &[64, 4_096],
    backlogs: &[1_000, 100_000],
    starts: 3,
};

/// One run of the load generator.
#[derive(Clone, Debug)]
pub struct Job {
    pub case: &'static str,
    /// The value of the varied quantity; 0 = none.
    pub x: u64,
    pub repetition: u32,
    /// The generator's arguments.
    pub workload: Vec<String>,
    /// Whether the generator gets the path of the store's file.
    pub looks_at_store: bool,
}

/// The jobs that run against one server, from its start to its end.
#[derive(Clone, Debug)]
pub struct Batch {
    pub setup: Setup,
    /// The number of messages that are stored on another channel before the first job.
    pub stored: u64,
    pub jobs: Vec<Job>,
}

/// The cases of the comparison, and the arguments of the load generator.
pub const COMPARED: [(&str, &[&str]); 5] = [
    ("p2p", &["p2p"]),
    ("fanout-100", &["fanout", "--receivers", "100"]),
    ("fanout-1000", &["fanout", "--receivers", "1000"]),
    ("pairs-100", &["pairs", "--pairs", "100"]),
    ("latency", &["latency", "--rate", "1000"]),
];

const STREAMS: [Subject; 7] = [
    Subject::Topic,
    Subject::Envelope,
    Subject::TopicKept,
    Subject::EnvelopeKept,
    Subject::Limit,
    Subject::Mosquitto,
    Subject::Nats,
];

/// The subjects that confirm sends.
pub const CONFIRMING: [Subject; 4] =
    [Subject::EnvelopeKept, Subject::EnvelopeManual, Subject::Mosquitto, Subject::Nats];

const IDLE: [Subject; 5] = [Subject::Topic, Subject::Envelope, Subject::Limit, Subject::Mosquitto, Subject::Nats];

/// The subjects whose idle memory and start are measured: this broker with its default configuration, and the other servers.
pub const STARTED: [Subject; 4] = [Subject::EnvelopeKept, Subject::Limit, Subject::Mosquitto, Subject::Nats];

const GROWING: [Subject; 3] = [Subject::Topic, Subject::Envelope, Subject::Limit];

/// A case with a varied quantity: its name, the generator's arguments before the value, the values, the subjects.
type VariedCase = (&'static str, &'static [&'static str], &'static [u64], &'static [Subject]);

/// Returns the batches of a part.
pub fn batches(part: Part, scale: &Scale) -> Vec<Batch> {
    match part {
        Part::Compare => compared(scale),
        Part::Growth => growth(scale),
        Part::Kept => kept(scale),
        Part::Idle => {
            let workload = words(&["idle", "--connections"], scale.connections, &[]);
            in_turns(scale.idle_repetitions, &IDLE, "idle", scale.connections, &workload)
        }
    }
}

fn compared(scale: &Scale) -> Vec<Batch> {
    let each = COMPARED.iter().map(|(case, arguments)| {
        let seconds = if *case == "latency" { scale.latency_seconds } else { scale.seconds };
        let words = arguments.iter().map(|word| (*word).to_owned());
        let workload: Vec<String> = words.chain(timed(seconds, scale.warm_up)).collect();
        in_turns(scale.repetitions, &STREAMS, case, 0, &workload).into_iter().map(|mut batch| {
            if matches!(batch.setup.subject, Subject::TopicKept | Subject::EnvelopeKept) && *case != "latency" {
                batch.jobs.iter_mut().for_each(|job| job.workload.extend(kept_window()));
            }
            batch
        })
    });
    each.flatten().collect()
}

fn kept(scale: &Scale) -> Vec<Batch> {
    let time = timed(scale.seconds, scale.warm_up);
    let confirmed = [vec!["confirmed".to_owned()], time.clone()].concat();
    let mut batches = in_turns(scale.repetitions, &CONFIRMING, "confirmed", 0, &confirmed);
    let short = timed(scale.growth_seconds, scale.warm_up);
    for stored in std::iter::once(0).chain(scale.backlogs.iter().copied()) {
        let p2p = [vec!["p2p".to_owned()], short.clone(), kept_window()].concat();
        let confirmed = [vec!["confirmed".to_owned()], short.clone()].concat();
        let jobs = (0..scale.growth_repetitions).flat_map(|repetition| {
            [("behind-p2p", &p2p), ("behind-confirmed", &confirmed)].map(|(case, workload)| Job {
                case,
                x: stored,
                repetition,
                workload: workload.clone(),
                looks_at_store: false,
            })
        });
        batches.push(Batch { setup: setup(Subject::EnvelopeKept, "confirmed"), stored, jobs: jobs.collect() });
    }
    for messages in scale.backlogs {
        let workload = words(&["backlog", "--messages"], *messages, &[]);
        batches.extend(in_turns(1, &[Subject::EnvelopeKept], "backlog", *messages, &workload));
    }
    batches
}

fn growth(scale: &Scale) -> Vec<Batch> {
    let time = timed(scale.growth_seconds, scale.warm_up);
    let cases: [VariedCase; 6] = [
        ("growth-window", &["p2p", "--window"], scale.windows, &[Subject::TopicKept, Subject::EnvelopeKept]),
        ("growth-receivers", &["fanout", "--receivers"], scale.receivers, &GROWING),
        ("growth-channels", &["channels", "--channels"], scale.channels, &[Subject::Envelope]),
        ("growth-pairs", &["pairs", "--pairs"], scale.pairs, &GROWING),
        ("growth-connections", &["p2p", "--beside"], scale.beside, &GROWING),
        ("growth-size", &["p2p", "--size"], scale.sizes, &GROWING),
    ];
    let mut batches = Vec::new();
    for (case, arguments, values, subjects) in cases {
        for repetition in 0..scale.growth_repetitions {
            for value in values {
                let workload = words(arguments, *value, &time);
                batches.extend(subjects.iter().map(|subject| batch(*subject, case, *value, repetition, &workload)));
            }
        }
    }
    batches
}

/// Returns one batch per repetition and subject, in the order A B C A B C.
fn in_turns(repetitions: u32, subjects: &[Subject], case: &'static str, x: u64, workload: &[String]) -> Vec<Batch> {
    (0..repetitions)
        .flat_map(|repetition| subjects.iter().map(move |subject| batch(*subject, case, x, repetition, workload)))
        .collect()
}

fn batch(subject: Subject, case: &'static str, x: u64, repetition: u32, workload: &[String]) -> Batch {
    let looks_at_store = case == "backlog";
    let job = Job { case, x, repetition, workload: workload.to_vec(), looks_at_store };
    Batch { setup: setup(subject, case), stored: 0, jobs: vec![job] }
}

fn setup(subject: Subject, case: &str) -> Setup {
    Setup { subject, confirms: case == "confirmed" }
}

/// Returns the arguments for the length of a run.
fn timed(seconds: f64, warm_up: f64) -> Vec<String> {
    ["--seconds".to_owned(), seconds.to_string(), "--warm-up".to_owned(), warm_up.to_string()].to_vec()
}

fn kept_window() -> Vec<String> {
    ["--window", KEPT_WINDOW].map(str::to_owned).to_vec()
}

fn words(before: &[&str], value: u64, behind: &[String]) -> Vec<String> {
    let before = before.iter().map(|word| (*word).to_owned());
    before.chain([value.to_string()]).chain(behind.iter().cloned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_runs_once_before_the_next_repetition() {
        let batches = batches(Part::Compare, &QUICK);
        let first: Vec<Subject> = batches.iter().take(STREAMS.len()).map(|batch| batch.setup.subject).collect();
        assert_eq!(first, STREAMS);
        assert_eq!(batches[STREAMS.len()].jobs[0].repetition, 1);
        assert_eq!(batches.len(), COMPARED.len() * STREAMS.len() * 3);
    }

    #[test]
    fn a_backlog_is_stored_once_for_all_jobs_beside_it() {
        let batches = batches(Part::Kept, &FULL);
        let standing: Vec<&Batch> = batches.iter().filter(|batch| batch.jobs[0].case == "behind-p2p").collect();
        assert_eq!(
            standing.iter().map(|batch| batch.stored).collect::<Vec<_>>(),
            [0, 1_000, 10_000, 100_000, 1_000_000]
        );
        assert!(standing.iter().all(|batch| batch.jobs.len() == 6));
        let drained = batches.iter().filter(|batch| batch.jobs[0].looks_at_store);
        assert_eq!(drained.count(), FULL.backlogs.len());
    }

    #[test]
    fn only_confirmed_sends_need_a_server_that_confirms() {
        assert!(batches(Part::Compare, &FULL).iter().all(|batch| !batch.setup.confirms));
        let nats = batches(Part::Kept, &FULL).into_iter().find(|batch| batch.setup.subject == Subject::Nats);
        assert!(nats.is_some_and(|batch| batch.setup.confirms));
    }
}
