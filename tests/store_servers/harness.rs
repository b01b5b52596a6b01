//! Tests of the harness in `tests/servers`.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use crate::servers::{Kind, Mode, Proxy, Server, noise};

#[test]
fn a_server_keeps_committed_data_through_kills_and_restarts() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.database();
        let rows = |server: &Server| server.sql_in(Some(&database), "SELECT b FROM a ORDER BY b");
        server.sql_in(Some(&database), "CREATE TABLE a (b int); INSERT INTO a VALUES (1), (NULL)");
        let before = rows(&server);
        let mut session = server.session(&database);
        session.run("BEGIN");
        session.run("INSERT INTO a VALUES (2)");
        server.kill_hard();
        assert!(server.try_sql(None, "SELECT 1").is_err(), "{kind:?} answers after its end");
        server.start_again();
        assert_eq!(rows(&server), before, "{kind:?} has uncommitted rows");
        server.restart();
        server.stop();
        server.cont();
        assert_eq!(rows(&server), before);
        let dir = server.dir().to_path_buf();
        drop(server);
        assert!(!dir.exists(), "{} still exists", dir.display());
    }
}

#[test]
fn a_full_disk_refuses_rows_until_it_has_space() {
    for kind in Kind::all() {
        let server = Server::start(kind);
        let database = server.small_database();
        let key = kind.pick("int AUTO_INCREMENT PRIMARY KEY", "serial PRIMARY KEY");
        server.sql_in(Some(&database), &format!("CREATE TABLE a (a {key}, b text)"));
        server.fill_disk();
        let rows = format!("INSERT INTO a (b) VALUES ('{}');", noise(2_000)).repeat(100);
        let said = (0..1_000).find_map(|_| server.try_sql(Some(&database), &rows).err()).expect("a full disk");
        assert!(["1114", "No space left", "File too large"].iter().any(|words| said.contains(words)), "{said}");
        server.make_room();
        server.sql_in(Some(&database), &rows);
    }
}

#[test]
fn the_proxy_stalls_delays_cuts_and_refuses() {
    let echo = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let target = echo.local_addr().expect("its address");
    std::thread::spawn(move || {
        for stream in echo.incoming().flatten() {
            let mut copy = stream.try_clone().expect("the same socket");
            std::thread::spawn(move || std::io::copy(&mut copy, &mut &stream));
        }
    });
    let proxy = Proxy::start(target);
    let connect = || {
        let stream = TcpStream::connect(proxy.address()).expect("the proxy");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
        stream
    };
    let answer = |mut stream: &TcpStream| {
        let mut one = [0];
        stream.read(&mut one).map(|count| count == 1).unwrap_or(false)
    };
    let mut stream = connect();
    stream.write_all(b"a").expect("written");
    stream.set_read_timeout(None).expect("no limit");
    assert!(answer(&stream));

    proxy.set(Mode::Stall);
    stream.write_all(b"b").expect("the connection is still there");
    stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a limit");
    assert!(!answer(&stream), "a byte was passed on");
    proxy.set(Mode::Delay(Duration::from_millis(1)));
    stream.set_read_timeout(None).expect("no limit");
    assert!(answer(&stream), "a stalled byte is lost");

    proxy.cut();
    assert!(!answer(&stream), "the connection is still there");
    proxy.set(Mode::Refuse);
    assert!(TcpStream::connect(proxy.address()).is_err(), "a connection is accepted");
    proxy.set(Mode::Open);
    let mut stream = connect();
    stream.set_read_timeout(None).expect("no limit");
    stream.write_all(b"c").expect("written");
    assert!(answer(&stream));
    assert!(proxy.accepted() >= 2 && proxy.bytes() >= 5, "{} connections, {} bytes", proxy.accepted(), proxy.bytes());
}
