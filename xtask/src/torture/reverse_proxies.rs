//! Private instances of nginx and HAProxy in front of the broker, on free ports, with their files in the run's directory.

use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Mutex;

use crate::process;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Nginx,
    /// HAProxy in HTTP mode.
    Haproxy,
    /// HAProxy in TCP mode, with a PROXY protocol header that names the client.
    HaproxyTcp,
}

/// A running reverse proxy.
pub struct ReverseProxy {
    kind: Kind,
    directory: PathBuf,
    address: SocketAddr,
    child: Mutex<Option<Child>>,
}

impl ReverseProxy {
    /// Starts a reverse proxy in front of `target`, with its files below `directory`.
    ///
    /// # Errors
    /// The program cannot be started, or does not listen in time.
    pub fn start(kind: Kind, directory: &Path, target: SocketAddr) -> Result<Self, String> {
        let address = process::free_address();
        let directory = directory.join(format!("{kind:?}").to_lowercase());
        let proxy = Self { kind, directory, address, child: Mutex::new(None) };
        let text = match kind {
            Kind::Nginx => nginx(address, target),
            Kind::Haproxy => haproxy(address, target, "http", ""),
            Kind::HaproxyTcp => haproxy(address, target, "tcp", " send-proxy-v2"),
        };
        let written = std::fs::create_dir_all(&proxy.directory)
            .and_then(|()| std::fs::write(proxy.directory.join("configuration"), text));
        written.map_err(|error| format!("{}: {error}", proxy.directory.display()))?;
        proxy.launch()?;
        Ok(proxy)
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Kills the program and starts it again.
    ///
    /// # Errors
    /// The program cannot be started, or does not listen in time.
    pub fn restart(&self) -> Result<(), String> {
        self.end();
        self.launch()
    }

    fn end(&self) {
        if let Some(mut child) = process::lock(&self.child).take() {
            process::kill_tree(&mut child);
        }
    }

    fn launch(&self) -> Result<(), String> {
        let (file, log) = (self.directory.join("configuration"), self.directory.join("log"));
        let program = if self.kind == Kind::Nginx { "nginx" } else { "haproxy" };
        let mut command = Command::new(process::find(&[program], &["/usr/sbin", "/usr/local/sbin"].map(PathBuf::from)));
        if self.kind == Kind::Nginx {
            command.arg("-p").arg(&self.directory).args(["-e", "stderr", "-c"]).arg(file);
        } else {
            command.args(["-db", "-f"]).arg(file);
        }
        let child = process::start(command, &log, || TcpStream::connect(self.address).map(drop));
        let child = child.map_err(|why| format!("{:?} {why}; see {}", self.kind, log.display()))?;
        *process::lock(&self.child) = Some(child);
        Ok(())
    }
}

impl Drop for ReverseProxy {
    fn drop(&mut self) {
        self.end();
    }
}

fn nginx(address: SocketAddr, target: SocketAddr) -> String {
    format!(
        "daemon off;\nworker_processes 1;\npid pid;\nevents {{ worker_connections 1024; }}\n\
         http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  fastcgi_temp_path fastcgi;\n  \
         uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  server {{\n    listen {address};\n    location / {{\n      \
         proxy_pass http://{target};\n      proxy_http_version 1.1;\n      proxy_set_header Host $http_host;\n      \
         proxy_set_header Upgrade $http_upgrade;\n      proxy_set_header Connection \"upgrade\";\n      \
         proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;\n      proxy_read_timeout 1h;\n    }}\n  }}\n}}\n"
    )
}

fn haproxy(address: SocketAddr, target: SocketAddr, mode: &str, server: &str) -> String {
    let forward = if mode == "http" { "  option forwardfor\n" } else { "" };
    format!(
        "global\n  maxconn 1024\ndefaults\n  mode {mode}\n{forward}  timeout connect 5s\n  timeout client 1h\n  \
         timeout server 1h\n  timeout tunnel 1h\nfrontend front\n  bind {address}\n  default_backend broker\n\
         backend broker\n  server one {target}{server}\n"
    )
}
