//! A web server of a test's own: a real nginx.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::{eventually, skip};

/// Where Debian has it; a user's PATH may not.
const PROGRAM: &str = "/usr/sbin/nginx";

/// A running nginx on loopback. Dropped, it goes, with its files.
pub(crate) struct Nginx {
    folder: PathBuf,
    port: u16,
    process: Child,
}

impl Nginx {
    /// Starts one with these lines in its only server; `None`, and the test counts as skipped, where there is no nginx.
    pub(crate) fn start(lines: &str) -> Option<Self> {
        if !Path::new(PROGRAM).exists() {
            skip("no nginx");
            return None;
        }
        let folder = std::env::temp_dir().join(format!("rockpool-nginx-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(folder.join("www")).unwrap();
        // A port that was free a moment ago.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let at = folder.display();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|name| format!("{name}_temp_path {at}/{name};\n"))
            .collect();
        // As root it would give its files to another user, who may not read them here.
        let config = format!(
            "daemon off;\nuser root;\nworker_processes 1;\npid {at}/pid;\nerror_log {at}/error.log;\nevents {{}}\n\
             http {{\n{temporary}log_format asked '$status $request_uri $http_range';\naccess_log {at}/access.log asked;\n\
             server {{\nlisten 127.0.0.1:{port};\nroot {at}/www;\n{lines}\n}}\n}}\n"
        );
        std::fs::write(folder.join("nginx.conf"), config).unwrap();
        let process = Command::new(PROGRAM)
            .args(["-p", folder.to_str().unwrap(), "-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let nginx = Self { folder, port, process };
        eventually("nginx answers", 20, || TcpStream::connect(("127.0.0.1", port)).is_ok());
        Some(nginx)
    }

    /// Serves these bytes under that name.
    pub(crate) fn serve(&self, name: &str, bytes: &[u8]) {
        std::fs::File::create(self.folder.join("www").join(name)).unwrap().write_all(bytes).unwrap();
    }

    /// URL of a path.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://localhost:{}/{path}", self.port)
    }

    /// What it was asked, a line each: status, path and range.
    pub(crate) fn asked(&self) -> Vec<String> {
        let log = std::fs::read_to_string(self.folder.join("access.log")).unwrap_or_default();
        log.lines().map(str::to_owned).collect()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // The worker ends with its master only when that ends in order.
        let _ = Command::new("kill").args(["-TERM", &self.process.id().to_string()]).status();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}
