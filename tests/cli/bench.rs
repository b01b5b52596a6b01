//! `wsmb bench` against the real broker: a short run of every workload, and its report.

use serde_json::Value;

use super::harness::{Broker, run, wsmb};

/// Runs a workload, which must succeed, and returns its report.
#[track_caller]
fn report(broker: &Broker, arguments: &[&str]) -> Value {
    let mut command = broker.client(&["bench"]);
    command.args(arguments).args(["--json", "--warm-up", "0.05"]);
    let stdout = run(&mut command).with(0).stdout;
    let report: Value = serde_json::from_str(&stdout).unwrap();
    for fault in ["lost", "doubled", "reordered"] {
        assert_eq!(report[fault], 0, "{fault}: {stdout}");
    }
    assert_eq!(report["workload"], arguments[0]);
    // The broker runs on this machine as the same user, so its memory can be read.
    if cfg!(target_os = "linux") {
        assert!(report["server_rss_kib"].as_u64().unwrap() > 0, "{stdout}");
        assert!(report["server_unseen"].is_null(), "{stdout}");
    }
    report
}

/// The report of a workload that counts messages.
#[track_caller]
fn counted(broker: &Broker, arguments: &[&str], deliveries: u64) -> Value {
    let report = report(broker, arguments);
    assert_eq!(report["deliveries"], deliveries, "{report}");
    assert!(report["deliveries_per_second"].as_f64().unwrap() > 0.0, "{report}");
    if cfg!(target_os = "linux") {
        // The system updates CPU times rarely, so a few milliseconds of work may not be counted yet.
        let cpu = report["server_cpu_us_per_delivery"].as_f64().unwrap();
        assert!(cpu > 0.0 || (cpu == 0.0 && deliveries < 10_000), "{report}");
    }
    report
}

#[test]
fn streams_are_measured_in_both_dialects() {
    let broker = Broker::start();
    for dialect in ["topic", "envelope"] {
        let common = ["--dialect", dialect, "--window", "200"];
        let with = |arguments: &[&'static str]| [arguments, &common].concat();
        let p2p = counted(&broker, &with(&["p2p", "--messages", "1000"]), 1_000);
        assert_eq!((&p2p["dialect"], &p2p["size"], &p2p["messages"]), (&dialect.into(), &200.into(), &1_000.into()));
        let fanout = counted(&broker, &with(&["fanout", "--receivers", "5", "--messages", "4000"]), 20_000);
        assert_eq!((&fanout["senders"], &fanout["receivers"]), (&1.into(), &5.into()));
        let pairs = counted(&broker, &with(&["pairs", "--pairs", "3", "--messages", "300", "--beside", "2"]), 300);
        assert_eq!((&pairs["senders"], &pairs["receivers"]), (&3.into(), &3.into()));
    }
    let sizes = ["10", "16", "25", "70000"];
    for size in sizes {
        counted(&broker, &["p2p", "--messages", "50", "--size", size, "--dialect", "envelope"], 50);
    }
    let channels = counted(&broker, &["channels", "--channels", "250", "--messages", "1000"], 1_000);
    assert_eq!((&channels["dialect"], &channels["receivers"]), (&"envelope".into(), &3.into()));
    let timed = report(&broker, &["p2p", "--seconds", "0.2", "--window", "100"]);
    assert!(timed["deliveries"].as_u64().unwrap() > 0 && timed["seconds"].as_f64().unwrap() >= 0.1, "{timed}");
}

#[test]
fn confirmed_sends_and_a_backlog_are_measured_and_leave_no_messages() {
    let broker = Broker::start();
    let store = broker.directory.path().join("wsmb-data/wsmb.db").display().to_string();
    for manual in [&[][..], &["--manual-ack"]] {
        counted(&broker, &[&["confirmed", "--messages", "500", "--channel", "mine"], manual].concat(), 500);
        let backlog = [&["backlog", "--messages", "500", "--store", &store], manual].concat();
        let report = counted(&broker, &backlog, 500);
        let phases = report["phases"].as_array().unwrap();
        assert_eq!((&phases[0]["name"], &phases[1]["name"]), (&"store".into(), &"drain".into()));
        for phase in phases {
            assert!(phase["messages_per_second"].as_f64().unwrap() > 0.0, "{report}");
        }
        assert!(report["store_bytes"][0].as_u64().unwrap() > 0, "{report}");
    }
    assert_eq!(broker.waiting("mine"), 0);
    let left = report(&broker, &["backlog", "--messages", "20", "--leave"]);
    assert_eq!(
        (&left["messages"], &left["deliveries"], &left["phases"].as_array().unwrap().len()),
        (&20.into(), &0.into(), &1)
    );
    let file = rusqlite::Connection::open(broker.directory.path().join("wsmb-data/wsmb.db")).unwrap();
    let left: i64 = file.query_row("SELECT count(*) FROM mq_data", [], |row| row.get(0)).unwrap();
    assert_eq!(left, 20);
}

#[test]
fn round_trips_and_idle_connections_are_measured() {
    let broker = Broker::start();
    for dialect in ["topic", "envelope"] {
        let arguments = ["latency", "--rate", "500", "--messages", "200", "--dialect", dialect];
        let latency = &counted(&broker, &arguments, 200)["latency_us"];
        let at = |percentile: &str| latency[percentile].as_f64().unwrap();
        assert!(0.0 < at("p50") && at("p50") <= at("p90") && at("p99") <= at("p999") && at("p999") <= at("max"));
    }
    let idle = report(&broker, &["idle", "--connections", "30"]);
    assert_eq!(idle["receivers"], 30);
    assert_eq!(idle["bytes_per_connection"].is_number(), cfg!(target_os = "linux"));
}

#[test]
fn the_output_for_people_is_a_table_and_errors_are_explained() {
    let broker = Broker::start();
    let table = run(&mut broker.client(&["bench", "p2p", "--messages", "100"])).with(0).stdout;
    assert!(table.starts_with("p2p (topic): messages of 200 bytes, 1 sender, 1 receiver\n"), "{table}");
    assert!(table.contains("  deliveries ") && table.contains(" /s"), "{table}");
    run(&mut broker.client(&["bench", "confirmed", "--dialect", "topic"]))
        .with(2)
        .with_stderr("topic does not confirm sends");
    run(&mut broker.client(&["bench", "p2p", "--size", "9"])).with(2);
    run(&mut broker.client(&["bench", "latency", "--rate", "1", "--messages", "5000"]))
        .with(2)
        .with_stderr("longer than");
    run(broker.client(&["bench", "p2p"]).env("WSMB_USER", "wsmb:wrong")).with(1).with_stderr("401");
    run(broker.client(&["bench", "p2p", "--messages", "5"]).args(["--size", "2000000"])).with(1).with_stderr("1009");
    let directory = tempfile::tempdir().unwrap();
    // No program listens on port 1.
    run(wsmb(directory.path()).args(["bench", "p2p", "--url", "ws://127.0.0.1:1"]))
        .with(1)
        .with_stderr("wsmb serve --set auth.anonymous=true --set store.url=memory:");
}

#[test]
fn a_full_channel_ends_the_measurement_with_the_brokers_error() {
    let broker = Broker::start_with(&["--set", "channel_defaults.max_backlog=100"]);
    run(&mut broker.client(&["bench", "backlog", "--messages", "1000"])).with(1).with_stderr("Full");
}
