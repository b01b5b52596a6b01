//! The command line with real database servers.

#![cfg(target_os = "linux")] // The servers use features of Linux.

#[path = "cli/harness.rs"]
#[allow(dead_code)] // The tests of tests/cli need more.
mod harness;
#[allow(dead_code, unused_imports)] // Other tests need more.
mod servers;

use std::process::Command;

use harness::{Ended, Running, run, until, wsmb};
use servers::{Database, Kind, Server};

/// The table in the documentation of the PHP broker, with some rows.
const PHP_TABLE: &str = r#"CREATE TABLE mq_data (
  data_id bigint(20) NOT NULL AUTO_INCREMENT, channel varchar(100) DEFAULT NULL, data longtext,
  created datetime DEFAULT NULL, PRIMARY KEY (data_id), KEY channel (channel)
) ENGINE=InnoDB DEFAULT CHARSET=latin1;
INSERT INTO mq_data (channel, data, created) VALUES
('sms', '{"message":"caf\\u00e9 \\ud83d\\ude00"}', '2025-11-22 08:26:40'),
(NULL, '"nowhere"', '2025-11-22 08:26:40'),
('SMS', '"another channel"', '2025-11-22 08:26:41'),
('sms', '"second"', '2025-11-22 08:26:42');"#;

/// A directory, a database, and a file with the password.
struct Setup {
    directory: tempfile::TempDir,
    database: Database,
}

impl Setup {
    fn new(kind: Kind) -> Self {
        Self::on(Server::shared(kind))
    }

    fn on(server: &Server) -> Self {
        let setup = Self { directory: tempfile::tempdir().unwrap(), database: server.database() };
        std::fs::write(setup.directory.path().join("db.password"), format!("{}\n", setup.database.password)).unwrap();
        setup
    }

    fn wsmb(&self, arguments: &[&str]) -> Command {
        let mut command = wsmb(self.directory.path());
        command.args(arguments);
        command
    }

    /// A command with the database as the configured store.
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

    /// Starts a broker on the database. Returns the broker and its address.
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

    /// The address of the database as the commands print it.
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
fn import_and_serve_replace_the_php_broker() {
    let setup = Setup::new(Kind::MariaDb);
    let database = &setup.database;
    Server::shared(Kind::MariaDb).sql_in(Some(database), PHP_TABLE);
    let (host, port) = (database.address.ip(), database.address.port());
    let ini = format!(
        "[server]\nport=0\nhost=127.0.0.1\nnumber_of_receiver=1\nkeep_data=true\n\
         [database]\ndriver=mysql\nhost={host}\nport={port}\nname={0}\nprefix=mq_\nusername={0}\npassword=\"{1}\"\nlimit=5\n\
         [credential]\nsource=config\ndata[]=php:{{SHA}}5en6G6MezRroT3XKqkdPOmY/BfQ=\n",
        database.name, database.password
    );
    std::fs::write(setup.directory.path().join("config.ini"), ini).unwrap();

    let imported = run(&mut setup.wsmb(&["import", "config.ini", "-o", "wsmb.toml"])).with(0);
    let imported = imported.with_stderr("wrote wsmb.password: the password of the database").stderr;
    assert!(!imported.contains(&database.password), "{imported}");
    for name in ["wsmb.toml", "wsmb.password"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(setup.directory.path().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
    let toml = std::fs::read_to_string(setup.directory.path().join("wsmb.toml")).unwrap();
    assert!(!toml.contains(&database.password));

    // The import does not accept port 0, so the test gives the address.
    let serve = ["serve", "--config", "wsmb.toml", "--listen", "127.0.0.1:0"];
    let (mut broker, url) = listening(&mut setup.wsmb(&serve));
    broker.stderr.wait_for("has no column expires");
    broker.stderr.wait_for("ALTER TABLE mq_data ADD COLUMN expires");
    let receive = ["receive", "sms", "--count", "2", "--url", &url, "--user", "php:secret"];
    let received = run(&mut setup.wsmb(&receive)).with(0).stdout;
    assert_eq!(received, "{\"message\":\"caf\\u00e9 \\ud83d\\ude00\"}\n\"second\"");
    stop(broker);
    let left = Server::shared(Kind::MariaDb).sql_in(Some(database), "SELECT channel FROM mq_data ORDER BY data_id");
    assert_eq!(left, "NULL\nSMS\n");
}

#[test]
fn the_commands_of_the_readme_store_a_message_in_mariadb() {
    let readme = include_str!("../README.md");
    let section = readme.split("## With MariaDB").nth(1).expect("the section");
    let block = section.split("```sh\n").nth(1).and_then(|rest| rest.split("\n```").next()).expect("its commands");
    let [create, serve, send] = block.lines().collect::<Vec<_>>().try_into().expect("three commands");

    let server = Server::start(Kind::MariaDb);
    server.sql(create.strip_prefix("sudo mariadb -e \"").and_then(|sql| sql.strip_suffix('"')).expect("statements"));
    let directory = tempfile::tempdir().unwrap();
    // The program is not in PATH, and the database server has another port.
    let program = env!("CARGO_BIN_EXE_wsmb");
    let shell = |line: &str| {
        let mut command = Command::new("sh");
        let line = line.replace("wsmb serve", &format!("exec {program} serve --listen 127.0.0.1:0"));
        let line = line.replace("wsmb send", &format!("exec {program} send"));
        let line = line.replace("@127.0.0.1/", &format!("@{}/", server.address()));
        // The first start stores its login here, and `send` uses it.
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

/// Checks the store, on a free port.
const CHECK: [&str; 3] = ["check", "--listen", "127.0.0.1:0"];

#[test]
fn check_describes_the_store_and_changes_nothing() {
    for kind in Kind::all() {
        let setup = Setup::new(kind);
        let check = |more: &[&str]| setup.run(&[&CHECK[..], more].concat());
        let said = check(&[]).with(0).stdout;
        assert!(
            said.contains(&format!("store           {}: does not exist; the first start makes it", setup.shown())),
            "{said}"
        );
        assert!(said.contains("journal         wsmb-data/journal.db, at most 256 MiB"), "{said}");
        assert!(!setup.directory.path().join("wsmb-data").exists());

        let (broker, url) = setup.serve(&[]);
        setup.send(&url, "\"one\"");
        until("the message is in the database", || {
            let server = Server::shared(kind);
            server.sql_in(Some(&setup.database), "SELECT count(*) FROM mq_data") == "1\n"
        });
        let said = check(&[]).with(0).stdout;
        let start =
            format!("store           {}: a broker is running on it (process {} on ", setup.shown(), broker.child.id());
        assert!(said.contains(&start), "{start}\n{said}");
        stop(broker);
        let said = check(&[]).with(0).stdout;
        assert!(said.contains(": no broker is running on it"), "{said}");

        let wrong = run(setup.with_database(&CHECK).env("WSMB_STORE__PASSWORD", "wrong")).with(1).stdout;
        assert!(wrong.contains("error: the database ") && wrong.contains("refuses the broker"), "{wrong}");
    }
}

#[test]
fn check_names_the_missing_columns_of_the_php_table() {
    let setup = Setup::new(Kind::MariaDb);
    Server::shared(Kind::MariaDb).sql_in(Some(&setup.database), PHP_TABLE);
    let said = setup.run(&CHECK).with(0).stdout;
    assert!(said.contains("first start     makes mq_meta next to the table of messages"), "{said}");
    assert!(said.contains("warning: the table mq_data in ") && said.contains(" has no column expires, so "), "{said}");
    assert!(said.contains("warning: to keep these values: ALTER TABLE mq_data ADD COLUMN expires bigint"), "{said}");
    let tables = Server::shared(Kind::MariaDb).sql_in(Some(&setup.database), "SHOW TABLES");
    assert_eq!(tables, "mq_data\n", "the check must not write");
    setup.run(&["queue", "list"]).with(0);
    let columns = [&CHECK[..], &["--config", "columns.toml"]].concat();
    std::fs::write(setup.directory.path().join("columns.toml"), "[store.columns]\nreceiver = \"/receiver\"\n").unwrap();
    let said = setup.run(&columns).with(1).stdout;
    assert!(said.contains("error: the column receiver in the table mq_data of "), "{said}");
}

#[test]
fn an_unreachable_database_is_an_error_unless_the_journal_belongs_to_it() {
    let server = Server::start(Kind::MariaDb);
    let setup = Setup::on(&server);
    let (broker, url) = setup.serve(&[]);
    server.shut_down();
    setup.send(&url, "\"kept here\"");
    let export = ["queue", "export", "--store", "sqlite:wsmb-data/journal.db"];
    setup.run(&export).with(1).with_stderr("is in use by a broker (process ");
    let said = setup.run(&CHECK).with(0).stdout;
    assert!(said.contains("warning: the database ") && said.contains("the broker would start nevertheless"), "{said}");
    let own = setup.run(&["check", "--listen", url.strip_prefix("ws://").unwrap()]).with(0).stdout;
    assert!(own.contains("the broker of this configuration runs (process "), "{own}");
    let fresh = setup.run(&[&CHECK[..], &["--set", "store.journal=other.db"]].concat()).with(1).stdout;
    assert!(fresh.contains("error: the database ") && fresh.contains("can't be reached"), "{fresh}");
    stop(broker);
    setup
        .run(&["queue", "list"])
        .with(1)
        .with_stderr("can't be reached")
        .with_stderr("--store sqlite:wsmb-data/journal.db");
    let here = setup.run(&export).with(0).stdout;
    assert!(here.contains("\"message\":\"kept here\""), "{here}");
    let purge = ["queue", "purge", "sms", "--yes", "--store", "sqlite:wsmb-data/journal.db"];
    setup.run(&purge).with(1).with_stderr("is the journal in front of ");
}

#[test]
fn the_queue_of_a_database_with_its_journal_can_be_listed_and_purged() {
    for kind in Kind::all() {
        for journal in ["wsmb-data/journal.db", ""] {
            let setup = Setup::new(kind);
            let set = format!("store.journal={journal}");
            let (mut broker, url) = setup.serve(&["--set", &set]);
            let queue = |action: &[&str]| setup.run(&[&["queue"], action, &["--set", &set]].concat());
            for text in ["\"one\"", "\"two\"", "\"three\""] {
                setup.send(&url, text);
            }
            run(&mut setup.wsmb(&["send", "sms", "\"later\"", "--delay", "1d", "--url", &url])).with(0);
            queue(&["list"])
                .with(1)
                .with_stderr("is in use by a broker (process ")
                .with_stderr("stop the broker first");
            // After a kill, a message may be in the journal, in the database, or in both.
            broker.kill();
            assert_eq!(setup.exported(), ["\"one\"", "\"two\"", "\"three\"", "\"later\""], "{journal}");
            let list = queue(&["list", "--json"]).with(0).stdout;
            assert!(list.contains("\"messages\":4,"), "{list}");
            let peek = queue(&["peek", "sms", "--count", "2"]).with(0).stdout;
            assert!(
                peek.contains("\"one\"") && peek.contains("\"two\"") && peek.contains("there are more messages"),
                "{peek}"
            );
            let (broker, url) = setup.serve(&["--set", &set]);
            setup.send(&url, "\"four\"");
            stop(broker);
            assert_eq!(queue(&["purge", "sms", "--yes"]).with(0).stdout, "removed 5 messages from sms");
            assert_eq!(queue(&["list"]).with(0).stdout, "no messages are waiting");
        }
    }
}

#[test]
fn removals_that_a_journal_has_not_passed_on_are_not_listed() {
    let server = Server::start(Kind::Postgres);
    let setup = Setup::on(&server);
    let (broker, url) = setup.serve(&[]);
    for text in ["\"one\"", "\"two\"", "\"three\""] {
        setup.send(&url, text);
    }
    until("rows are in the database", || server.sql_in(Some(&setup.database), "SELECT count(*) FROM mq_data") == "3\n");
    let mut receive = Running::start(&mut setup.wsmb(&["receive", "sms", "--count", "3", "--url", &url]));
    assert_eq!(receive.stdout.next(), "\"one\"");
    receive.end().with(0);
    server.shut_down();
    setup.send(&url, "\"four\"");
    stop(broker);
    server.start_again();
    assert_eq!(setup.exported(), ["\"four\""]);
    let list = setup.run(&["queue", "list", "--json"]).with(0).stdout;
    assert!(list.contains("\"messages\":1,"), "{list}");
}

#[test]
fn a_backlog_is_unchanged_after_copies_through_every_kind_of_store() {
    let [mariadb, postgres] = [Kind::MariaDb, Kind::Postgres].map(Setup::new);
    let home = mariadb.directory.path();
    std::fs::write(home.join("pg.password"), &postgres.database.password).unwrap();
    let (broker, url) = mariadb.serve(&[]);
    for number in 1..=50 {
        mariadb.send(&url, &format!("{{\"n\":{number},\"text\":\"é 😀 \\\\\"}}"));
    }
    run(&mut mariadb.wsmb(&["send", "sms", "\"later\"", "--delay", "1d", "--url", &url])).with(0);
    let running = mariadb.run(&["queue", "copy", "--to", "sqlite:b.db"]).with(1);
    running.with_stderr("the source: the store ").with_stderr("is in use by a broker (");
    stop(broker);
    let export = |setup: &Setup| setup.run(&["queue", "export"]).with(0).stdout;
    let before = export(&mariadb);
    assert_eq!(before.lines().count(), 51);

    // From a database with a journal, which holds the delayed message, to another database, to a file, and back.
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
fn dead_letters_in_a_database_return_to_their_channels() {
    for kind in Kind::all() {
        for journal in ["wsmb-data/journal.db", ""] {
            let setup = Setup::new(kind);
            let set = format!("store.journal={journal}");
            let letters = ["channel_defaults.dead_letter=dead", "channel_defaults.max_deliveries=1"];
            let flags = ["--set", &set, "--set", letters[0], "--set", letters[1], "--set", "channel_defaults.ttl=1d"];
            let queue = |action: &[&str]| setup.run(&[&["queue"], action, &flags].concat());
            let (broker, url) = setup.serve(&flags);
            for text in ["\"one\"", "\"two\"", "\"three\""] {
                setup.send(&url, text);
            }
            let receive = ["receive", "sms", "--exec", "exit 1", "--url", &url];
            let mut failing = Running::start(&mut setup.wsmb(&receive));
            for _ in 0..3 {
                failing.stderr.wait_for("exit status 1");
            }
            failing.kill();
            queue(&["requeue", "dead"])
                .with(1)
                .with_stderr("is in use by a broker (process ")
                .with_stderr("stop the broker first");
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
            assert_eq!(server.sql_in(Some(&setup.database), select), "3\n");

            // The name of the channel is too long for the column, so no row is moved.
            let narrow = kind.pick(
                "ALTER TABLE mq_data MODIFY channel varchar(20)",
                "ALTER TABLE mq_data ALTER channel TYPE varchar(20)",
            );
            server.sql_in(Some(&setup.database), narrow);
            let long = queue(&["requeue", "sms", "--to", "a-name-of-more-than-20-characters"]).with(0).stdout;
            let begin =
                "moved no message from \"sms\"; 3 stay: 3 because the store cannot hold them in \"a-name-of-more";
            assert!(long.starts_with(begin), "{long}");

            let (broker, url) = setup.serve(&flags);
            assert_eq!(setup.receive(&url, "3"), "\"one\"\n\"two\"\n\"three\"", "{journal}");
            stop(broker);
            assert_eq!(queue(&["list"]).with(0).stdout, "no messages are waiting");
        }
    }
}
