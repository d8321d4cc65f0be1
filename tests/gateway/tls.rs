//! TLS at the API's own address: what is spoken there, and certificates that change while it goes on.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use crate::harness::{Gateway, Options, Token, Wire, eventually, hash, make_certificates, random_bytes, run};

/// A folder with certificates, gone with the test.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("rockpool-tls-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        make_certificates(&path);
        Self(path)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Puts a file of another folder in the place of one here, at once.
    fn replace(&self, name: &str, other: &Path) {
        fs::copy(other, self.file("new")).unwrap();
        fs::rename(self.file("new"), self.file(name)).unwrap();
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A gateway with the certificate of a folder.
fn secured(folder: &Folder) -> Gateway {
    let path = |name: &str| folder.file(name).to_str().unwrap().to_owned();
    let options = Options::default().set("server", "tls_certificate_file", path("server.crt")).set(
        "server",
        "tls_key_file",
        path("server.key"),
    );
    let gateway = Gateway::start_unready(options);
    eventually("it is ready", 30, || curl(&gateway, folder, "/readyz", &[]).is_ok_and(|text| text == "ok"));
    gateway
}

fn curl_command(gateway: &Gateway, ca: &Folder, path: &str, more: &[&str]) -> Command {
    let port = gateway.address.rsplit(':').next().unwrap();
    let mut curl = Command::new("curl");
    curl.args([
        "-sS",
        "--fail-with-body",
        "-m",
        "60",
        "--noproxy",
        "*",
        "--resolve",
        &format!("localhost:{port}:127.0.0.1"),
        "--cacert",
    ])
    .arg(ca.file("ca.pem"))
    .args(["-H", &format!("x-auth-token: {}", Token::Demo.text())])
    .args(more)
    .arg(format!("https://localhost:{port}{path}"));
    curl
}

/// What curl gets of the gateway when it believes the authority of a folder.
fn curl(gateway: &Gateway, ca: &Folder, path: &str, more: &[&str]) -> Result<String, String> {
    run(&mut curl_command(gateway, ca, path, more))
}

#[test]
fn the_address_speaks_tls_and_nothing_else() {
    let folder = Folder::new();
    let gateway = secured(&folder);
    for version in [["--tlsv1.2", "--tls-max", "1.2"], ["--tlsv1.3", "--tls-max", "1.3"]] {
        let text = curl(&gateway, &folder, "/v2/images", &version).unwrap();
        assert!(text.contains("\"images\""), "{version:?}: {text}");
    }
    assert!(curl(&gateway, &folder, "/livez", &["--tlsv1.0", "--tls-max", "1.1"]).is_err(), "TLS 1.1 is no more");
    // Links are for whoever came by TLS.
    let port = gateway.address.rsplit(':').next().unwrap();
    let versions = curl(&gateway, &folder, "/versions", &[]).unwrap();
    assert!(versions.contains(&format!("https://localhost:{port}/v2/")), "{versions}");
    // Data, both ways.
    let bytes = random_bytes(1, 5_000_000);
    fs::write(folder.file("data"), &bytes).unwrap();
    let json = [
        "-X",
        "POST",
        "-H",
        "content-type: application/json",
        "-d",
        r#"{"name": "n", "disk_format": "raw", "container_format": "bare"}"#,
    ];
    let image: serde_json::Value =
        serde_json::from_str(&curl(&gateway, &folder, "/v2/images", &json).unwrap()).unwrap();
    let file = format!("/v2/images/{}/file", image["id"].as_str().unwrap());
    let data = folder.file("data");
    curl(&gateway, &folder, &file, &["-H", "content-type: application/octet-stream", "-T", data.to_str().unwrap()])
        .unwrap();
    let back = folder.file("back");
    curl(&gateway, &folder, &file, &["-o", back.to_str().unwrap()]).unwrap();
    assert!(fs::read(&back).unwrap() == bytes);
    // Whoever believes others does not believe it.
    let other = Folder::new();
    assert!(curl(&gateway, &other, "/livez", &[]).unwrap_err().contains("certificate"));
    // Plain HTTP is told what to do; noise is not answered, and does no harm.
    let mut wire = Wire::connect(&gateway.address);
    wire.send("GET /v2/images HTTP/1.1\r\nhost: x\r\n\r\n");
    let answer = wire.answer();
    assert_eq!(answer.status, 400);
    assert!(answer.text().contains("use https://"), "{}", answer.text());
    for noise in [&b"\x16\x03\x01\xff\xff\x00\x00\x00"[..], b"\x16", b""] {
        Wire::connect(&gateway.address).send(noise);
    }
    assert_eq!(curl(&gateway, &folder, "/livez", &[]).unwrap(), "ok");
    assert!(!gateway.log().contains("panicked"), "{}", gateway.log());
}

/// A download that takes some seconds.
fn slow_download(gateway: &Gateway, ca: &Folder, path: &str, to: &Path) -> Child {
    let mut curl = curl_command(gateway, ca, path, &["--limit-rate", "2M", "-o", to.to_str().unwrap()]);
    curl.stdin(Stdio::null()).spawn().unwrap()
}

#[test]
fn a_new_certificate_is_taken_up_and_connections_go_on() {
    let (folder, next) = (Folder::new(), Folder::new());
    let first_ca = Folder::new();
    fs::copy(folder.file("ca.pem"), first_ca.file("ca.pem")).unwrap();
    let gateway = secured(&folder);
    let plain = gateway.sibling_with(Options::default());
    let bytes = random_bytes(2, 12 << 20);
    let id = plain.client(Token::Demo).active("slow", &bytes);
    let back = folder.file("back");
    let mut download = slow_download(&gateway, &first_ca, &format!("/v2/images/{id}/file"), &back);
    eventually("the download has begun", 10, || fs::metadata(&back).is_ok_and(|file| file.len() > 0));
    folder.replace("server.crt", &next.file("server.crt"));
    folder.replace("server.key", &next.file("server.key"));
    gateway.signal("HUP");
    eventually("the new one is in use", 5, || curl(&gateway, &next, "/livez", &[]).is_ok());
    assert!(curl(&gateway, &first_ca, "/livez", &[]).is_err(), "the old one is served no more");
    assert_eq!(download.try_wait().unwrap(), None, "the download was to take longer than this");
    assert!(download.wait().unwrap().success());
    assert_eq!(hash(&fs::read(&back).unwrap()), hash(&bytes));
    // A key that does not fit is refused, and said once; the pair in use stays.
    let third = Folder::new();
    folder.replace("server.key", &third.file("server.key"));
    let said = |gateway: &Gateway| gateway.log().matches("is not the key of").count();
    eventually("it is said without a signal", 10, || said(&gateway) == 1);
    gateway.signal("HUP");
    curl(&gateway, &next, "/livez", &[]).unwrap();
    fs::write(folder.file("new"), "no certificate").unwrap();
    fs::rename(folder.file("new"), folder.file("server.crt")).unwrap();
    eventually("that is said, too", 10, || gateway.log().contains("holds no certificate"));
    curl(&gateway, &next, "/livez", &[]).unwrap();
    fs::remove_file(folder.file("server.crt")).unwrap();
    gateway.signal("HUP");
    eventually("and that", 10, || gateway.log().contains("cannot be read"));
    curl(&gateway, &next, "/livez", &[]).unwrap();
    // The other half of the third pair arrives: no signal is needed.
    folder.replace("server.crt", &third.file("server.crt"));
    eventually("the third pair is in use", 10, || curl(&gateway, &third, "/livez", &[]).is_ok());
    assert_eq!(said(&gateway), 1, "{}", gateway.log());
    assert!(!gateway.log().contains("PRIVATE KEY"));
}

#[test]
fn a_bad_pair_is_refused_with_a_sentence_before_anything_is_served() {
    let (folder, other) = (Folder::new(), Folder::new());
    let gateway = Gateway::start(Options::default());
    let config = fs::read_to_string(gateway.folder().join("rockpool.toml")).unwrap();
    fs::write(folder.file("empty"), "").unwrap();
    run(Command::new("openssl")
        .args(["rsa", "-aes256", "-passout", "pass:x", "-out"])
        .arg(folder.file("locked.key"))
        .arg("-in")
        .arg({
            let rsa = folder.file("rsa.key");
            run(Command::new("openssl").args(["genrsa", "-out"]).arg(&rsa).arg("2048")).unwrap();
            rsa
        }))
    .unwrap();
    let (certificate, key) = (folder.file("server.crt"), folder.file("server.key"));
    for (certificate, key, words) in [
        (
            Some(&certificate),
            Some(&other.file("server.key")),
            &["tls_key_file", "is not the key of", "tls_certificate_file"][..],
        ),
        (
            Some(&certificate),
            Some(&folder.file("locked.key")),
            &["tls_key_file", "holds no private key", "not encrypted"],
        ),
        (Some(&certificate), Some(&folder.file("empty")), &["tls_key_file", "holds no private key"]),
        (Some(&folder.file("empty")), Some(&key), &["tls_certificate_file", "holds no certificate"]),
        (Some(&key), Some(&key), &["tls_certificate_file", "holds no certificate"]),
        (Some(&folder.file("missing")), Some(&key), &["tls_certificate_file", "missing cannot be read"]),
        (Some(&certificate), None, &["tls_certificate_file is set, but server.tls_key_file is not"]),
        (None, Some(&key), &["tls_key_file is set, but server.tls_certificate_file is not"]),
    ] {
        let mut document: toml::Table = config.parse().unwrap();
        let server = document["server"].as_table_mut().unwrap();
        for (option, path) in [("tls_certificate_file", certificate), ("tls_key_file", key)] {
            if let Some(path) = path {
                server.insert(option.into(), path.to_str().unwrap().into());
            }
        }
        let file = folder.file("rockpool.toml");
        fs::write(&file, document.to_string()).unwrap();
        let output =
            Command::new(env!("CARGO_BIN_EXE_rockpool")).args(["serve", "--config"]).arg(&file).output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{text}");
        for word in words {
            assert!(text.contains(word), "{word:?} is not in {text}");
        }
        assert!(!text.contains("PRIVATE") && !text.contains("panicked"), "{text}");
    }
}
