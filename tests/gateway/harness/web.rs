//! A web server of a test's own: nginx.

use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::http::Client;
use super::{eventually, skip};

/// A web server. What is in `folder` it serves at `/`; at `/whole/` it serves the same, without ranges.
pub(crate) struct Web {
    /// Base URL.
    pub(crate) url: String,
    /// Its port.
    pub(crate) port: u16,
    /// What it serves.
    pub(crate) folder: PathBuf,
    home: PathBuf,
    process: Child,
}

impl Web {
    /// Starts one. Where it is not installed, the test counts as skipped.
    pub(crate) fn start() -> Option<Self> {
        if Command::new("nginx").arg("-v").output().is_err() {
            skip("nginx is not installed");
            return None;
        }
        let home = std::env::temp_dir().join(format!("rockpool-web-{}", uuid::Uuid::new_v4()));
        let folder = home.join("www");
        std::fs::create_dir_all(&folder).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let own = home.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {own}/{kind};\n"))
            .concat();
        let text = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {own}/pid;\nerror_log {own}/error.log;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}server {{\nlisten 127.0.0.1:{port};\nroot {own}/www;\n\
             location /whole/ {{ alias {own}/www/; max_ranges 0; }}\n}}\n}}\n"
        );
        std::fs::write(home.join("nginx.conf"), text).unwrap();
        let process = Command::new("nginx")
            .arg("-c")
            .arg(home.join("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let web = Self { url: format!("http://127.0.0.1:{port}"), port, folder, home, process };
        let anybody = Client::new(&web.url, None);
        eventually("nginx answers", 20, || anybody.try_get("/").is_some());
        Some(web)
    }

    /// Puts a file there, and returns its URL.
    pub(crate) fn put(&self, name: &str, bytes: &[u8]) -> String {
        std::fs::write(self.folder.join(name), bytes).unwrap();
        format!("{}/{name}", self.url)
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        // Its worker goes with it only if it is asked.
        let _ = Command::new("kill").arg(self.process.id().to_string()).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.home);
    }
}
