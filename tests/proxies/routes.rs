//! The routes to the broker: directly, and through each proxy. A proxy is a process with its own directory and port, and ends with the test.

use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::PATIENCE;
use crate::broker::{Broker, Setup};
use crate::process;

/// How a client reaches the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Route {
    Direct,
    Nginx,
    /// HAProxy in HTTP mode.
    HaproxyHttp,
    /// HAProxy in TCP mode, which sends a PROXY header of this version.
    HaproxyTcp(u8),
}

impl Route {
    /// All routes with a proxy.
    pub const PROXIES: [Self; 4] = [Self::Nginx, Self::HaproxyHttp, Self::HaproxyTcp(1), Self::HaproxyTcp(2)];

    /// The setup of a broker at the end of this route.
    pub fn setup(self) -> Setup {
        let setup = Setup::default().store("[log]\nlevel = \"debug\"");
        match self {
            Self::Direct => setup,
            Self::Nginx | Self::HaproxyHttp => setup.server("trusted_proxies = [\"127.0.0.1\", \"::1\"]"),
            Self::HaproxyTcp(_) => {
                setup.server("trusted_proxies = [\"127.0.0.1\", \"::1\"]").listener("proxy_protocol = true")
            }
        }
    }
}

/// A running proxy.
pub struct Proxy {
    child: Child,
    address: SocketAddr,
    dir: TempDir,
}

impl Proxy {
    /// Starts the proxy of a route in front of a broker; `None` for [`Route::Direct`].
    #[track_caller]
    pub fn start(route: Route, broker: &Broker) -> Option<Self> {
        Self::start_edited(route, broker, &[])
    }

    /// Like [`Self::start`], with parts of the proxy's configuration replaced.
    #[track_caller]
    pub fn start_edited(route: Route, broker: &Broker, edits: &[(&str, &str)]) -> Option<Self> {
        for _ in 0..10 {
            let address = process::free_address();
            let dir = tempfile::tempdir().expect("a temporary directory");
            let mut command = match route {
                Route::Direct => return None,
                Route::Nginx => nginx(&dir, address, broker, edits),
                Route::HaproxyHttp | Route::HaproxyTcp(_) => haproxy(route, &dir, address, broker, edits),
            };
            command.current_dir(dir.path());
            match process::start(command, &dir.path().join("log"), || TcpStream::connect(address).map(drop)) {
                Ok(child) => return Some(Self { child, address, dir }),
                Err(why) => {
                    // Another process took the port in the meantime.
                    let log = log(&dir);
                    assert!(log.to_lowercase().contains("in use"), "{route:?} {why}:\n{log}");
                }
            }
        }
        panic!("no port is free");
    }

    /// The address that the proxy listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the proxy; the kernel ends its connections.
    pub fn kill(&mut self) {
        process::kill_tree(&mut self.child);
    }

    /// Stops the proxy (SIGTERM), without waiting for its clients.
    pub fn stop(&mut self) {
        process::signal(self.child.id(), libc::SIGTERM);
        let deadline = Instant::now() + PATIENCE;
        while self.child.try_wait().expect("the state of the proxy").is_none() {
            assert!(Instant::now() < deadline, "the proxy does not end:\n{}", log(&self.dir));
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.kill();
    }
}

fn log(dir: &TempDir) -> String {
    let read = |name: &str| std::fs::read_to_string(dir.path().join(name)).unwrap_or_default();
    read("log") + &read("error.log")
}

fn system_directories() -> Vec<PathBuf> {
    ["/usr/sbin", "/usr/local/sbin", "/usr/local/bin"].map(PathBuf::from).to_vec()
}

/// nginx with a small configuration that contains the example of the documentation.
fn nginx(dir: &TempDir, address: SocketAddr, broker: &Broker, edits: &[(&str, &str)]) -> Command {
    let path = dir.path().display();
    let location = example("nginx", "location").replace("127.0.0.1:8888", &broker.address().to_string());
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {path}/{name};\n"))
        .concat();
    let text = format!(
        "daemon off;\nmaster_process off;\npid {path}/pid;\nerror_log {path}/error.log;\nevents {{ worker_connections 256; }}\n\
         http {{\n    access_log off;\n{temporary}    server {{\n        listen {address};\n{location}\n    }}\n}}\n"
    );
    let file = dir.path().join("nginx.conf");
    std::fs::write(&file, edited(text, edits)).expect("the configuration of nginx");
    let mut command = Command::new(process::find(&["nginx"], &system_directories()));
    command.arg("-e").arg(dir.path().join("error.log")).arg("-p").arg(dir.path()).arg("-c").arg(file);
    command
}

/// HAProxy with the example of the documentation, without TLS and with the addresses of the test.
fn haproxy(route: Route, dir: &TempDir, address: SocketAddr, broker: &Broker, edits: &[(&str, &str)]) -> Command {
    let addresses = broker.addresses();
    let text = match route {
        Route::HaproxyTcp(version) => {
            let text = example("haproxy", "mode tcp").replace("127.0.0.1:8889", &addresses[1].to_string());
            if version == 1 { text.replace("send-proxy-v2", "send-proxy") } else { text }
        }
        _ => example("haproxy", "mode http").replace("127.0.0.1:8888", &addresses[0].to_string()),
    };
    let text = edited(text, edits);
    let bind = "bind :443 ssl crt /etc/haproxy/broker.pem";
    assert!(text.contains(bind), "the example has another address:\n{text}");
    let file = dir.path().join("haproxy.cfg");
    std::fs::write(&file, text.replace(bind, &format!("bind {address}"))).expect("the configuration of HAProxy");
    let mut command = Command::new(process::find(&["haproxy"], &system_directories()));
    command.arg("-db").arg("-f").arg(file);
    command
}

#[track_caller]
fn edited(text: String, edits: &[(&str, &str)]) -> String {
    edits.iter().fold(text, |text, (part, instead)| {
        assert!(text.contains(part), "{part} is not in\n{text}");
        text.replace(part, instead)
    })
}

/// The code block of `docs/deploying.md` in this language that contains a text.
#[track_caller]
pub fn example(language: &str, containing: &str) -> String {
    let found = blocks(include_str!("../../docs/deploying.md"), language);
    let block = found.into_iter().find(|block| block.contains(containing));
    block.unwrap_or_else(|| panic!("docs/deploying.md has no block in {language} with {containing:?}"))
}

fn blocks(text: &str, language: &str) -> Vec<String> {
    let begin = format!("```{language}\n");
    text.split(&begin).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

#[test]
fn the_readme_has_the_same_nginx_example() {
    assert_eq!(blocks(include_str!("../../README.md"), "nginx"), [example("nginx", "location")]);
}
