//! What is measured, in which order: everything that takes part in a comparison once, then once more, and so on.

use super::server::Setup;
use super::subject::Subject;

/// Messages on their way on a channel that keeps them, for each sender: so few that confirmations keep up with them. What is ahead of its confirmation
/// by more waits, or goes through the store, which the case `growth-window` measures.
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

/// How much of everything. Times are those of one run, in seconds.
#[derive(Clone, Debug)]
pub struct Extent {
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
    /// Starts of which the median is taken.
    pub starts: u32,
}

impl Extent {
    /// How often what makes up this part is repeated.
    pub fn repetitions_of(&self, part: Part) -> u32 {
        match part {
            Part::Compare | Part::Kept => self.repetitions,
            Part::Growth => self.growth_repetitions,
            Part::Idle => self.idle_repetitions,
        }
    }
}

/// For `docs/measurements.md`: some forty minutes on two cores.
pub const FULL: Extent = Extent {
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

/// To see whether something has changed, and whether all of it still works.
pub const QUICK: Extent = Extent {
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
    /// What is varied.
    pub x: u64,
    pub repetition: u32,
    /// The generator's arguments.
    pub workload: Vec<String>,
    /// Whether it is told the store's file.
    pub looks_at_store: bool,
}

/// A server from its start to its end.
#[derive(Clone, Debug)]
pub struct Scene {
    pub setup: Setup,
    /// Messages that are stored on another channel before the first job.
    pub stored: u64,
    pub jobs: Vec<Job>,
}

/// The workloads of the comparison, and the load generator's words for them.
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

/// Who answers for a send.
pub const CONFIRMING: [Subject; 4] =
    [Subject::EnvelopeKept, Subject::EnvelopeManual, Subject::Mosquitto, Subject::Nats];

const IDLE: [Subject; 5] = [Subject::Topic, Subject::Envelope, Subject::Limit, Subject::Mosquitto, Subject::Nats];

/// Servers that are only started: this broker with its default configuration, and the others.
pub const RESTING: [Subject; 4] = [Subject::EnvelopeKept, Subject::Limit, Subject::Mosquitto, Subject::Nats];

const GROWING: [Subject; 3] = [Subject::Topic, Subject::Envelope, Subject::Limit];

/// What is varied: the case, the generator's words up to the value, the values, and who takes part.
type Line = (&'static str, &'static [&'static str], &'static [u64], &'static [Subject]);

/// The scenes of a part.
pub fn scenes(part: Part, extent: &Extent) -> Vec<Scene> {
    match part {
        Part::Compare => compared(extent),
        Part::Growth => growth(extent),
        Part::Kept => kept(extent),
        Part::Idle => {
            let workload = words(&["idle", "--connections"], extent.connections, &[]);
            in_turns(extent.idle_repetitions, &IDLE, "idle", extent.connections, &workload)
        }
    }
}

fn compared(extent: &Extent) -> Vec<Scene> {
    let each = COMPARED.iter().map(|(case, arguments)| {
        let seconds = if *case == "latency" { extent.latency_seconds } else { extent.seconds };
        let words = arguments.iter().map(|word| (*word).to_owned());
        let workload: Vec<String> = words.chain(timed(seconds, extent.warm_up)).collect();
        in_turns(extent.repetitions, &STREAMS, case, 0, &workload).into_iter().map(|mut scene| {
            if matches!(scene.setup.subject, Subject::TopicKept | Subject::EnvelopeKept) && *case != "latency" {
                scene.jobs.iter_mut().for_each(|job| job.workload.extend(kept_window()));
            }
            scene
        })
    });
    each.flatten().collect()
}

fn kept(extent: &Extent) -> Vec<Scene> {
    let time = timed(extent.seconds, extent.warm_up);
    let confirmed = [vec!["confirmed".to_owned()], time.clone()].concat();
    let mut scenes = in_turns(extent.repetitions, &CONFIRMING, "confirmed", 0, &confirmed);
    let short = timed(extent.growth_seconds, extent.warm_up);
    for stored in std::iter::once(0).chain(extent.backlogs.iter().copied()) {
        let p2p = [vec!["p2p".to_owned()], short.clone(), kept_window()].concat();
        let confirmed = [vec!["confirmed".to_owned()], short.clone()].concat();
        let jobs = (0..extent.growth_repetitions).flat_map(|repetition| {
            [("behind-p2p", &p2p), ("behind-confirmed", &confirmed)].map(|(case, workload)| Job {
                case,
                x: stored,
                repetition,
                workload: workload.clone(),
                looks_at_store: false,
            })
        });
        scenes.push(Scene { setup: setup(Subject::EnvelopeKept, "confirmed"), stored, jobs: jobs.collect() });
    }
    for messages in extent.backlogs {
        let workload = words(&["backlog", "--messages"], *messages, &[]);
        scenes.extend(in_turns(1, &[Subject::EnvelopeKept], "backlog", *messages, &workload));
    }
    scenes
}

fn growth(extent: &Extent) -> Vec<Scene> {
    let time = timed(extent.growth_seconds, extent.warm_up);
    let lines: [Line; 6] = [
        ("growth-window", &["p2p", "--window"], extent.windows, &[Subject::TopicKept, Subject::EnvelopeKept]),
        ("growth-receivers", &["fanout", "--receivers"], extent.receivers, &GROWING),
        ("growth-channels", &["channels", "--channels"], extent.channels, &[Subject::Envelope]),
        ("growth-pairs", &["pairs", "--pairs"], extent.pairs, &GROWING),
        ("growth-connections", &["p2p", "--beside"], extent.beside, &GROWING),
        ("growth-size", &["p2p", "--size"], extent.sizes, &GROWING),
    ];
    let mut scenes = Vec::new();
    for (case, arguments, values, subjects) in lines {
        for repetition in 0..extent.growth_repetitions {
            for value in values {
                let workload = words(arguments, *value, &time);
                scenes.extend(subjects.iter().map(|subject| scene(*subject, case, *value, repetition, &workload)));
            }
        }
    }
    scenes
}

/// A B C D A B C D …
fn in_turns(repetitions: u32, subjects: &[Subject], case: &'static str, x: u64, workload: &[String]) -> Vec<Scene> {
    (0..repetitions)
        .flat_map(|repetition| subjects.iter().map(move |subject| scene(*subject, case, x, repetition, workload)))
        .collect()
}

fn scene(subject: Subject, case: &'static str, x: u64, repetition: u32, workload: &[String]) -> Scene {
    let looks_at_store = case == "backlog";
    let job = Job { case, x, repetition, workload: workload.to_vec(), looks_at_store };
    Scene { setup: setup(subject, case), stored: 0, jobs: vec![job] }
}

fn setup(subject: Subject, case: &str) -> Setup {
    Setup { subject, confirms: case == "confirmed" }
}

/// How long a run is.
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
    fn everybody_has_a_turn_before_anybody_has_a_second() {
        let scenes = scenes(Part::Compare, &QUICK);
        let first: Vec<Subject> = scenes.iter().take(STREAMS.len()).map(|scene| scene.setup.subject).collect();
        assert_eq!(first, STREAMS);
        assert_eq!(scenes[STREAMS.len()].jobs[0].repetition, 1);
        assert_eq!(scenes.len(), COMPARED.len() * STREAMS.len() * 3);
    }

    #[test]
    fn a_standing_backlog_is_made_once_for_all_that_is_measured_beside_it() {
        let scenes = scenes(Part::Kept, &FULL);
        let standing: Vec<&Scene> = scenes.iter().filter(|scene| scene.jobs[0].case == "behind-p2p").collect();
        assert_eq!(
            standing.iter().map(|scene| scene.stored).collect::<Vec<_>>(),
            [0, 1_000, 10_000, 100_000, 1_000_000]
        );
        assert!(standing.iter().all(|scene| scene.jobs.len() == 6));
        let drained = scenes.iter().filter(|scene| scene.jobs[0].looks_at_store);
        assert_eq!(drained.count(), FULL.backlogs.len());
    }

    #[test]
    fn only_sends_that_are_answered_for_need_what_confirms() {
        assert!(scenes(Part::Compare, &FULL).iter().all(|scene| !scene.setup.confirms));
        let nats = scenes(Part::Kept, &FULL).into_iter().find(|scene| scene.setup.subject == Subject::Nats);
        assert!(nats.is_some_and(|scene| scene.setup.confirms));
    }
}
