//! What only real database servers show: their tables, their locks, their failures. Each test has a database of its own.

#![cfg(target_os = "linux")] // The servers are private processes with limits and mounts of their own.

mod servers;

use std::time::Instant;

use servers::{Certificates, Kind, Mode, Options, Proxy, Server};

#[test]
fn trial() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let begun = Instant::now();
        let small = server.small_database();
        server.sql_in(
            Some(&small),
            &format!(
                "CREATE TABLE a (a {}, b text)",
                kind.pick("int auto_increment primary key", "serial primary key")
            ),
        );
        server.fill_disk();
        loop {
            let said = server.try_sql(Some(&small), &"INSERT INTO a (b) VALUES (repeat('x', 2000));".repeat(100));
            if said.is_err() {
                println!("{said:?}");
                break;
            }
        }
        server.make_room();
        println!("{:?}", server.try_sql(Some(&small), "INSERT INTO a (b) VALUES(repeat('x', 2000))"));
        println!("full {:?}", begun.elapsed());
        let _ = Server::shared(kind).database();
    }
}
