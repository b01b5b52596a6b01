//! The command line against real database servers, private ones: what a person reads, and where messages are.

#![cfg(target_os = "linux")] // The servers are processes with limits of their own.

#[path = "cli/harness.rs"]
#[allow(dead_code)] // What the other commands need is more than what is needed here.
mod harness;
#[allow(dead_code, unused_imports)] // What the tests of failures need is more than what is needed here.
mod servers;

use std::process::Command;

use harness::{Ended, Running, run, until, wsmb};
use servers::{Database, Kind, Server};

/// As the PHP broker's documentation gives it, with rows that it has left.
const LIVE_TABLE: &str = r#"CREATE TABLE mq_data (
  data_id bigint(20) NOT NULL AUTO_INCREMENT, channel varchar(100) DEFAULT NULL, data longtext,
  created datetime DEFAULT NULL, PRIMARY KEY (data_id), KEY channel (channel)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
INSERT INTO mq_data (channel, data, created) VALUES
('sms', '{"message":"caf\\u00e9 \\ud83d\\ude00"}', '2025-11-22 08:26:40'),
(NULL, '"nowhere"', '2025-11-22 08:26:40'),
('SMS', '"another channel"', '2025-11-22 08:26:41'),
('sms', '"second"', '2025-11-22 08:26:42');"#;

/// A directory, a database, and the password in a file.
struct Place {
    directory: tempfile::TempDir,
    database: Database,
}

impl Place {
    fn new(kind: Kind) -> Self {
        Self::on(Server::shared(kind))
    }

    fn on(server: &Server) -> Self {
        let place = Self { directory: tempfile::tempdir().unwrap(), database: server.database() };
        std::fs::write(place.directory.path().join("db.password"), format!("{}\n", place.database.password)).unwrap();
        place
    }

    fn wsmb(&self, arguments: &[&str]) -> Command {
        let mut command = wsmb(self.directory.path());
        command.args(arguments);
        command
    }

    /// With the database as the configured store.
    fn with_database(&self, arguments: &[&str]) -> Command {
        let mut command = self.wsmb(arguments);
        command.env("WSMB_STORE__URL", self.database.url()).env("WSMB_STORE__PASSWORD_FILE", "db.password");
        command
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> Ended {
        let ended = run(&mut self.with_database(arguments));
        let said = format!("{}{}", ended.stdout, ended.stderr);
        assert!(!said.contains(&self.database.password), "a password is in: {said}");
        ended
    }

    /// A broker on the database, and its address.
    fn serve(&self, more: &[&str]) -> (Running, String) {
        let arguments = [&["serve", "--listen", "127.0.0.1:0", "--set", "auth.anonymous=true"], more].concat();
        listening(&mut self.with_database(&arguments))
    }

    fn send(&self, url: &str, message: &str) {
        run(&mut self.wsmb(&["send", "sms", message, "--url", url])).with(0);
    }

    fn receive(&self, url: &str, number: &str) -> String {
        run(&mut self.wsmb(&["receive", "sms", "--count", number, "--url", url])).with(0).stdout
    }

    fn exported(&self) -> Vec<String> {
        let lines = self.run(&["queue", "export", "sms"]).with(0).stdout;
        lines
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["message"].to_string())
            .collect()
    }

    /// What the shown address of the database is.
    fn shown(&self) -> String {
        self.database.url()
    }
}

#[track_caller]
fn listening(command: &mut Command) -> (Running, String) {
    let mut running = Running::start(command);
    let line = running.stdout.wait_for("wsmb is listening on ");
    let url = line.split_whitespace().last().unwrap().to_owned();
    (running, url)
}

#[track_caller]
fn stop(mut running: Running) {
    running.terminate();
    running.end().with(0);
}

#[test]
fn two_commands_lead_from_the_php_broker_to_this_one() {
    let place = Place::new(Kind::MariaDb);
    let database = &place.database;
    Server::shared(Kind::MariaDb).sql_in(Some(database), LIVE_TABLE);
    let (host, port) = (database.address.ip(), database.address.port());
    let ini = format!(
        "[server]\nport=0\nhost=127.0.0.1\nnumber_of_receiver=1\nkeep_data=true\n\
         [database]\ndriver=mysql\nhost={host}\nport={port}\nname={0}\nprefix=mq_\nusername={0}\npassword=\"{1}\"\nlimit=5\n\
         [credential]\nsource=config\ndata[]=php:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
        database.name, database.password
    );
    std::fs::write(place.directory.path().join("config.ini"), ini).unwrap();

    let imported = run(&mut place.wsmb(&["import", "config.ini", "-o", "wsmb.toml"])).with(0);
    let imported = imported.complaining("wrote wsmb.password: the password of the database").stderr;
    assert!(!imported.contains(&database.password), "{imported}");
    for name in ["wsmb.toml", "wsmb.password"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(place.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let toml = std::fs::read_to_string(place.directory.path().join("wsmb.toml")).unwrap();
    assert!(!toml.contains(&database.password));

    // Port 0 is none for the import, so the test chooses another.
    let serve = ["serve", "--config", "wsmb.toml", "--listen", "127.0.0.1:0"];
    let (mut broker, url) = listening(&mut place.wsmb(&serve));
    broker.stderr.wait_for("has no column expires");
    broker.stderr.wait_for("ALTER TABLE mq_data ADD COLUMN expires");
    let receive = ["receive", "sms", "--count", "2", "--url", &url, "--user", "php:secret"];
    let received = run(&mut place.wsmb(&receive)).with(0).stdout;
    assert_eq!(received, "{\"message\":\"caf\\u00e9 \\ud83d\\ude00\"}\n\"second\"");
    stop(broker);
    let left = Server::shared(Kind::MariaDb).sql_in(Some(database), "SELECT channel FROM mq_data ORDER BY data_id");
    assert_eq!(left, "NULL\nSMS\n");
}

#[test]
fn the_readme_leads_from_an_empty_mariadb_to_a_kept_message() {
    let readme = include_str!("../README.md");
    let section = readme.split("## With MariaDB").nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("its commands");
    let [create, serve, send] = block.lines().collect::<Vec<_>>().try_into().expect("three commands");

    let server = Server::start(Kind::MariaDb);
    server.sql(create.strip_prefix("sudo mariadb -e \"").and_then(|sql| sql.strip_suffix('"')).expect("statements"));
    let directory = tempfile::tempdir().unwrap();
    // The program is not in the path, and the server has a port of its own.
    let program = env!("CARGO_BIN_EXE_wsmb");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        let line = line.replace("wsmb serve", &format!("exec {program} serve --listen 127.0.0.1:0"));
        let line = line.replace("wsmb send", &format!("exec {program} send"));
        let line = line.replace("@127.0.0.1/", &format!("@{}/", server.address()));
        // Where the first start stores its user, and `send` finds it.
        command.env("XDG_CONFIG_HOME", directory.path().join(".config"));
        command.arg("-c").arg(line).current_dir(directory.path());
        command
    };
    let (broker, url) = listening(&mut shell(serve));
    let send = format!("{send} --url {url}");
    assert_eq!(run(&mut shell(&send)).with(0).stdout, "accepted: stored, no receiver has it yet");
    stop(broker);
    let kept = server.sql("SELECT data FROM broker.mq_data");
    assert_eq!(kept, "{\"receiver\":\"081234567890\",\"message\":\"Your code is 402913\"}\n");
}

/// Looks at the store, and at no port that somebody else may have.
const CHECK: [&str; 3] = ["check", "--listen", "127.0.0.1:0"];

#[test]
fn check_says_in_plain_words_how_it_stands_and_changes_nothing() {
    for kind in Kind::all() {
        let place = Place::new(kind);
        let check = |more: &[&str]| place.run(&[&CHECK[..], more].concat());
        let said = check(&[]).with(0).stdout;
        assert!(
            said.contains(&format!("store           {}: does not exist; the first start makes it", place.shown())),
            "{said}"
        );
        assert!(said.contains("journal         wsmb-data/journal.db, at most 256 MiB"), "{said}");
        assert!(!place.directory.path().join("wsmb-data").exists());

        let (broker, url) = place.serve(&[]);
        place.send(&url, "\"one\"");
        until("the message is in the database", || {
            let server = Server::shared(kind);
            server.sql_in(Some(&place.database), "SELECT count(*) FROM mq_data") == "1\n"
        });
        let said = check(&[]).with(0).stdout;
        let start =
            format!("store           {}: a broker is running on it (process {} on ", place.shown(), broker.child.id());
        assert!(said.contains(&start), "{start}\n{said}");
        stop(broker);
        let said = check(&[]).with(0).stdout;
        assert!(said.contains(": no broker is running on it"), "{said}");

        let wrong = run(place.with_database(&CHECK).env("WSMB_STORE__PASSWORD", "wrong")).with(1).stdout;
        assert!(wrong.contains("error: the database ") && wrong.contains("refuses the broker"), "{wrong}");
    }
}

#[test]
fn check_names_what_a_table_of_four_columns_does_not_keep() {
    let place = Place::new(Kind::MariaDb);
    Server::shared(Kind::MariaDb).sql_in(Some(&place.database), LIVE_TABLE);
    let said = place.run(&CHECK).with(0).stdout;
    assert!(said.contains("first start     makes mq_meta next to the table of messages"), "{said}");
    assert!(said.contains("warning: the table mq_data in ") && said.contains(" has no column expires, so "), "{said}");
    assert!(said.contains("warning: to keep these values: ALTER TABLE mq_data ADD COLUMN expires bigint"), "{said}");
    let tables = Server::shared(Kind::MariaDb).sql_in(Some(&place.database), "SHOW TABLES");
    assert_eq!(tables, "mq_data\n", "check changes nothing");
    place.run(&["queue", "list"]).with(0);
    let columns = [&CHECK[..], &["--config", "columns.toml"]].concat();
    std::fs::write(place.directory.path().join("columns.toml"), "[store.columns]\nreceiver = \"/receiver\"\n").unwrap();
    let said = place.run(&columns).with(1).stdout;
    assert!(said.contains("error: the column receiver in the table mq_data of "), "{said}");
}

#[test]
fn a_database_that_is_away_is_an_error_until_the_journal_knows_it() {
    let server = Server::start(Kind::MariaDb);
    let place = Place::on(&server);
    let (broker, url) = place.serve(&[]);
    server.shut_down();
    place.send(&url, "\"kept here\"");
    let export = ["queue", "export", "--store", "sqlite:wsmb-data/journal.db"];
    place.run(&export).with(1).complaining("is in use by a broker (process ");
    let said = place.run(&CHECK).with(0).stdout;
    assert!(said.contains("warning: the database ") && said.contains("the broker would start nevertheless"), "{said}");
    let own = place.run(&["check", "--listen", url.strip_prefix("ws://").unwrap()]).with(0).stdout;
    assert!(own.contains("the broker of this configuration runs (process "), "{own}");
    let fresh = place.run(&[&CHECK[..], &["--set", "store.journal=other.db"]].concat()).with(1).stdout;
    assert!(fresh.contains("error: the database ") && fresh.contains("can't be reached"), "{fresh}");
    stop(broker);
    place
        .run(&["queue", "list"])
        .with(1)
        .complaining("can't be reached")
        .complaining("--store sqlite:wsmb-data/journal.db");
    let here = place.run(&export).with(0).stdout;
    assert!(here.contains("\"message\":\"kept here\""), "{here}");
    let purge = ["queue", "purge", "sms", "--yes", "--store", "sqlite:wsmb-data/journal.db"];
    place.run(&purge).with(1).complaining("is the journal in front of ");
}

#[test]
fn the_queue_of_a_database_is_seen_whole_and_emptied_once_the_broker_is_stopped() {
    for kind in Kind::all() {
        for journal in ["wsmb-data/journal.db", ""] {
            let place = Place::new(kind);
            let set = format!("store.journal={journal}");
            let (mut broker, url) = place.serve(&["--set", &set]);
            let queue = |action: &[&str]| place.run(&[&["queue"], action, &["--set", &set]].concat());
            for text in ["\"one\"", "\"two\"", "\"three\""] {
                place.send(&url, text);
            }
            run(&mut place.wsmb(&["send", "sms", "\"later\"", "--delay", "1d", "--url", &url])).with(0);
            queue(&["list"])
                .with(1)
                .complaining("is in use by a broker (process ")
                .complaining("stop the broker first");
            // Without an orderly stop they are wherever they were: here, there, or on their way.
            broker.kill();
            assert_eq!(place.exported(), ["\"one\"", "\"two\"", "\"three\"", "\"later\""], "{journal}");
            let list = queue(&["list", "--json"]).with(0).stdout;
            assert!(list.contains("\"messages\":4,"), "{list}");
            let peek = queue(&["peek", "sms", "--count", "2"]).with(0).stdout;
            assert!(
                peek.contains("\"one\"") && peek.contains("\"two\"") && peek.contains("there are more messages"),
                "{peek}"
            );
            let (broker, url) = place.serve(&["--set", &set]);
            place.send(&url, "\"four\"");
            stop(broker);
            assert_eq!(queue(&["purge", "sms", "--yes"]).with(0).stdout, "removed 5 messages from sms");
            assert_eq!(queue(&["list"]).with(0).stdout, "no messages are waiting");
        }
    }
}

#[test]
fn what_a_journal_owes_to_its_database_is_not_shown() {
    let server = Server::start(Kind::Postgres);
    let place = Place::on(&server);
    let (broker, url) = place.serve(&[]);
    for text in ["\"one\"", "\"two\"", "\"three\""] {
        place.send(&url, text);
    }
    until("they are in the database", || server.sql_in(Some(&place.database), "SELECT count(*) FROM mq_data") == "3\n");
    let mut receive = Running::start(&mut place.wsmb(&["receive", "sms", "--count", "3", "--url", &url]));
    assert_eq!(receive.stdout.next(), "\"one\"");
    receive.end().with(0);
    server.shut_down();
    place.send(&url, "\"four\"");
    stop(broker);
    server.start_again();
    assert_eq!(place.exported(), ["\"four\""]);
    let list = place.run(&["queue", "list", "--json"]).with(0).stdout;
    assert!(list.contains("\"messages\":1,"), "{list}");
}

#[test]
fn a_backlog_goes_through_every_kind_of_store_and_is_the_same_at_the_end() {
    let [mariadb, postgres] = [Kind::MariaDb, Kind::Postgres].map(Place::new);
    let home = mariadb.directory.path();
    std::fs::write(home.join("pg.password"), &postgres.database.password).unwrap();
    let (broker, url) = mariadb.serve(&[]);
    for number in 1..=50 {
        mariadb.send(&url, &format!("{{\"n\":{number},\"text\":\"é 😀 \\\\\"}}"));
    }
    run(&mut mariadb.wsmb(&["send", "sms", "\"later\"", "--delay", "1d", "--url", &url])).with(0);
    let running = mariadb.run(&["queue", "copy", "--to", "sqlite:b.db"]).with(1);
    running.complaining("the source: the store ").complaining("is in use by a broker (");
    stop(broker);
    let export = |place: &Place| place.run(&["queue", "export"]).with(0).stdout;
    let before = export(&mariadb);
    assert_eq!(before.lines().count(), 51);

    // From a database with a journal, in which the delayed one waits, to another database, to a file, and back.
    let to = postgres.database.url();
    let copied =
        mariadb.run(&["queue", "copy", "--to", &to, "--to-password-file", "pg.password", "--remove"]).with(0).stdout;
    assert!(copied.starts_with(&format!("copied 51 messages from {} to {to}\n", mariadb.shown())), "{copied}");
    assert_eq!(export(&mariadb), "");
    assert_eq!(export(&postgres), before);
    let mut copy = mariadb.wsmb(&["queue", "copy", "--from", &to, "--to", "sqlite:b.db"]);
    run(copy.env("WSMB_FROM_PASSWORD", &postgres.database.password)).with(0);
    let file = run(&mut mariadb.wsmb(&["queue", "export", "--store", "sqlite:b.db"])).with(0).stdout;
    assert_eq!(file, before);
    let back = mariadb.run(&["queue", "copy", "--from", "sqlite:b.db"]).with(0).stdout;
    assert!(back.contains("their ids are higher by 51 in the destination"), "{back}");
    assert!(back.contains("next: start the broker: its configuration names the destination"), "{back}");
    let (broker, url) = mariadb.serve(&[]);
    let received = mariadb.receive(&url, "50");
    assert_eq!(received.lines().count(), 50);
    assert!(received.starts_with("{\"n\":1,"), "{received}");
    stop(broker);
}

#[test]
fn dead_letters_in_a_database_go_home() {
    for kind in Kind::all() {
        for journal in ["wsmb-data/journal.db", ""] {
            let place = Place::new(kind);
            let set = format!("store.journal={journal}");
            let letters = ["channel_defaults.dead_letter=dead", "channel_defaults.max_deliveries=1"];
            let flags = ["--set", &set, "--set", letters[0], "--set", letters[1], "--set", "channel_defaults.ttl=1d"];
            let queue = |action: &[&str]| place.run(&[&["queue"], action, &flags].concat());
            let (broker, url) = place.serve(&flags);
            for text in ["\"one\"", "\"two\"", "\"three\""] {
                place.send(&url, text);
            }
            let receive = ["receive", "sms", "--exec", "exit 1", "--url", &url];
            let mut failing = Running::start(&mut place.wsmb(&receive));
            for _ in 0..3 {
                failing.stderr.wait_for("exit status 1");
            }
            failing.kill();
            queue(&["requeue", "dead"])
                .with(1)
                .complaining("is in use by a broker (process ")
                .complaining("stop the broker first");
            stop(broker);
            let shown = queue(&["peek", "dead", "--count", "1"]).with(0).stdout;
            assert!(shown.contains(", given up in sms after 1 attempt") && shown.contains("\"one\""), "{shown}");

            let moved = queue(&["requeue", "dead", "--count", "2"]).with(0).stdout;
            let left = "1 message behind them not examined (--count)";
            assert_eq!(moved, format!("moved 2 messages from \"dead\" to \"sms\"; {left}"), "{journal}");
            let moved = queue(&["requeue", "dead"]).with(0).stdout;
            assert_eq!(moved, "moved 1 message from \"dead\" to \"sms\"", "{journal}");
            let select = "SELECT count(*) FROM mq_data WHERE channel = 'sms' AND dead_why IS NULL AND dead_channel IS NULL \
                          AND dead_attempts IS NULL AND dead_reason IS NULL AND expires > 0 AND coalesce(deliveries, 0) = 0";
            let server = Server::shared(kind);
            assert_eq!(server.sql_in(Some(&place.database), select), "3\n");

            // A channel whose name is too long for the column: each row says why it stays.
            let narrow = kind.pick(
                "ALTER TABLE mq_data MODIFY channel varchar(20)",
                "ALTER TABLE mq_data ALTER channel TYPE varchar(20)",
            );
            server.sql_in(Some(&place.database), narrow);
            let long = queue(&["requeue", "sms", "--to", "a-name-of-more-than-20-characters"]).with(0).stdout;
            let begin =
                "moved no message from \"sms\"; 3 stay: 3 because the store cannot hold them in \"a-name-of-more";
            assert!(long.starts_with(begin), "{long}");

            let (broker, url) = place.serve(&flags);
            assert_eq!(place.receive(&url, "3"), "\"one\"\n\"two\"\n\"three\"", "{journal}");
            stop(broker);
            assert_eq!(queue(&["list"]).with(0).stdout, "no messages are waiting");
        }
    }
}
