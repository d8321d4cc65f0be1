//! The client against servers that do everything wrong that a server can do.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::connect::{Lookup, system_lookup};
use super::{Config, Error, Fetcher};
use crate::secret::Secret;

const MIB: usize = 1 << 20;
const CAP: u64 = 1 << 30;

/// A request as it came.
#[derive(Debug, Clone)]
struct Asked {
    head: String,
    /// Address that was connected to.
    at: IpAddr,
}

impl Asked {
    fn header(&self, name: &str) -> Option<&str> {
        self.head
            .lines()
            .filter_map(|line| line.split_once(": "))
            .find(|(n, _)| n.eq_ignore_ascii_case(name))
            .map(|(_, v)| v)
    }

    fn range(&self) -> Option<(usize, usize)> {
        let (first, last) = self.header("range")?.strip_prefix("bytes=")?.split_once('-')?;
        Some((first.parse().unwrap(), last.parse().unwrap()))
    }

    fn path(&self) -> &str {
        self.head.split(' ').nth(1).unwrap()
    }
}

/// What a server does.
enum Step {
    Send(Vec<u8>),
    Wait(u64),
    /// Sends that over and over again, after a pause in milliseconds each.
    Repeat(Vec<u8>, u64),
    Close,
    /// Becomes a tunnel to that address.
    Tunnel(SocketAddr),
}

type Script = Arc<dyn Fn(&Asked, usize) -> Vec<Step> + Send + Sync>;

struct Server {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    _task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(script: impl Fn(&Asked, usize) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::start_with(None, script).await
    }

    async fn start_with(
        tls: Option<TlsAcceptor>,
        script: impl Fn(&Asked, usize) -> Vec<Step> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], listener.local_addr().unwrap().port()));
        let asked = Arc::<Mutex<Vec<Asked>>>::default();
        let (script, log): (Script, _) = (Arc::new(script), Arc::clone(&asked));
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (script, log, tls) = (Arc::clone(&script), Arc::clone(&log), tls.clone());
                tokio::spawn(async move {
                    let at = stream.local_addr().unwrap().ip();
                    let _ = match tls {
                        None => serve(stream, at, script, log).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => serve(stream, at, script, log).await,
                            Err(e) => Err(e),
                        },
                    };
                });
            }
        });
        Self { address, asked, _task: AbortOnDropHandle::new(task) }
    }

    fn url(&self, host: &str) -> String {
        format!("http://{host}:{}/image?signature=secret", self.address.port())
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(
    mut stream: S,
    at: IpAddr,
    script: Script,
    log: Arc<Mutex<Vec<Asked>>>,
) -> io::Result<()> {
    loop {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if stream.read(&mut byte).await? == 0 {
                return Ok(());
            }
            head.extend_from_slice(&byte);
        }
        let asked = Asked { head: String::from_utf8(head).unwrap(), at };
        let count = {
            let mut log = log.lock().unwrap();
            log.push(asked.clone());
            log.len()
        };
        for step in script(&asked, count) {
            match step {
                Step::Send(bytes) => stream.write_all(&bytes).await?,
                Step::Wait(ms) => tokio::time::sleep(Duration::from_millis(ms)).await,
                Step::Repeat(bytes, ms) => loop {
                    stream.write_all(&bytes).await?;
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                },
                Step::Close => return stream.shutdown().await,
                Step::Tunnel(to) => {
                    let mut to = tokio::net::TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut stream, &mut to).await?;
                    return Ok(());
                }
            }
        }
    }
}

fn head(text: &str) -> Step {
    Step::Send(format!("HTTP/1.1 {}\r\n\r\n", text.replace('\n', "\r\n")).into_bytes())
}

/// What an honest server says, ranges included.
fn honest(asked: &Asked, data: &[u8], etag: &str) -> Vec<Step> {
    let size = data.len();
    match asked.range() {
        Some((first, _)) if first >= size => {
            vec![head(&format!("416 Range\nContent-Range: bytes */{size}\nContent-Length: 0"))]
        }
        Some((first, last)) => {
            let last = last.min(size - 1);
            let length = last + 1 - first;
            vec![
                head(&format!(
                    "206 Partial Content\nETag: {etag}\nContent-Range: bytes {first}-{last}/{size}\nContent-Length: {length}"
                )),
                Step::Send(data[first..=last].to_vec()),
            ]
        }
        None => vec![head(&format!("200 OK\nETag: {etag}\nContent-Length: {size}")), Step::Send(data.to_vec())],
    }
}

fn data(length: usize) -> Vec<u8> {
    let mut state = 88_172_645_463_325_252_u64;
    std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[3]
    })
    .take(length)
    .collect()
}

/// A client that may ask 127.0.0.1, in small ranges and with short patience.
fn fetcher(change: impl FnOnce(&mut Config)) -> Fetcher {
    fetcher_with(system_lookup(), |config| {
        config.allowed_hosts = vec!["127.0.0.1".into(), "localhost".into()];
        change(config);
    })
}

fn fetcher_with(lookup: Lookup, change: impl FnOnce(&mut Config)) -> Fetcher {
    let mut config = Config {
        allowed_ports: Vec::new(),
        range_mib: 1,
        idle_timeout_s: 1,
        connect_timeout_s: 5,
        tries_max: 3,
        rate_min_kib_s: 0,
        ..Config::default()
    };
    change(&mut config);
    Fetcher::with_lookup(&config, lookup).unwrap_or_else(|problems| panic!("{problems:?}"))
}

/// Names have these addresses, the next ones each time they are asked for; the last ones stay.
fn lookup(answers: &'static [&'static [&'static str]]) -> Lookup {
    let asked = AtomicUsize::new(0);
    Arc::new(move |_| {
        let turn = asked.fetch_add(1, Ordering::SeqCst).min(answers.len() - 1);
        let addresses = answers[turn].iter().map(|text| text.parse().unwrap()).collect();
        Box::pin(async move { Ok(addresses) })
    })
}

async fn get(fetcher: &Fetcher, url: &str) -> Result<Vec<u8>, Error> {
    let mut fetched = fetcher.open(url, CAP).await?;
    let mut bytes = Vec::new();
    while let Some(piece) = fetched.body.next().await {
        bytes.extend_from_slice(&piece?);
    }
    assert!(fetched.size_bytes.is_none_or(|size| size == bytes.len() as u64));
    Ok(bytes)
}

#[track_caller]
fn fails(outcome: Result<Vec<u8>, Error>, expected: &str) -> Error {
    let Err(error) = outcome else { panic!("it was fetched, and should fail with: {expected}") };
    let text = error.to_string();
    assert!(text.contains(expected), "{text}");
    assert!(!text.contains("secret"), "{text}");
    error
}

#[tokio::test]
async fn ranges_come_side_by_side_and_in_order() {
    let content = Arc::new(data(9 * MIB + 12_345));
    let served = Arc::clone(&content);
    let server = Server::start(move |asked, count| {
        let mut steps = honest(asked, &served, "\"1\"");
        // Later ones overtake earlier ones.
        if count % 3 == 1 {
            steps.insert(1, Step::Wait(60));
        }
        steps
    })
    .await;
    let fetcher = fetcher(|_| {});
    let fetched = fetcher.open(&server.url("127.0.0.1"), CAP).await.unwrap();
    assert_eq!(fetched.size_bytes, Some(content.len() as u64));
    drop(fetched);
    server.asked.lock().unwrap().clear();
    assert!(get(&fetcher, &server.url("127.0.0.1")).await.unwrap() == *content);
    let asked = server.asked();
    assert_eq!(asked.len(), 10);
    for asked in &asked {
        assert_eq!(asked.header("accept-encoding"), Some("identity"), "{}", asked.head);
        assert_eq!(asked.path(), "/image?signature=secret");
        let (first, last) = asked.range().unwrap();
        assert!(last - first < MIB);
        assert_eq!(asked.header("if-range"), (first > 0).then_some("\"1\""), "{}", asked.head);
    }
}

#[tokio::test]
async fn servers_without_ranges_validators_or_data_are_understood() {
    let content = Arc::new(data(2 * MIB));
    for answer in ["no ranges", "no length", "no validator", "no total", "empty", "bad request"] {
        let served = Arc::clone(&content);
        let server = Server::start(move |asked, _| match (answer, asked.range()) {
            ("no ranges", _) => vec![
                head(&format!("200 OK\nETag: \"1\"\nContent-Length: {}", served.len())),
                Step::Send(served.to_vec()),
            ],
            ("no length", _) => vec![head("200 OK"), Step::Send(served.to_vec()), Step::Close],
            ("no validator", Some(_)) => vec![
                head(&format!("206 Partial Content\nContent-Range: bytes 0-1/{}\nContent-Length: 2", served.len())),
                Step::Send(served[..2].to_vec()),
            ],
            ("no total", Some(_)) => vec![
                head("206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-1/*\nContent-Length: 2"),
                Step::Send(served[..2].to_vec()),
            ],
            ("bad request", Some(_)) => vec![head("400 Bad Request\nContent-Length: 0")],
            ("empty", _) => honest(asked, b"", "\"1\""),
            _ => honest(asked, &served, "\"1\""),
        })
        .await;
        let bytes = get(&fetcher(|_| {}), &server.url("127.0.0.1")).await.unwrap();
        assert!(if answer == "empty" { bytes.is_empty() } else { bytes == *content }, "{answer}");
    }
}

#[tokio::test]
async fn a_broken_connection_is_gone_on_with_where_it_was() {
    let content = Arc::new(data(3 * MIB));
    let served = Arc::clone(&content);
    let server = Server::start(move |asked, count| {
        let mut steps = honest(asked, &served, "\"1\"");
        if count % 3 == 2 {
            // In the middle of the data, or before the head.
            if let Some(Step::Send(bytes)) = steps.get_mut(1) {
                bytes.truncate(100_000);
            }
            steps.push(Step::Close);
        } else if count % 5 == 4 {
            steps = vec![Step::Close];
        }
        steps
    })
    .await;
    assert!(get(&fetcher(|config| config.tries_max = 5), &server.url("127.0.0.1")).await.unwrap() == *content);
    let first: Vec<usize> = server.asked().iter().filter_map(|asked| Some(asked.range()?.0)).collect();
    assert!(first.iter().any(|first| first % MIB == 100_000), "{first:?}");

    // One that never gets on is given up, as is one that is silent.
    let server = Server::start(|_, _| vec![Step::Close]).await;
    fails(get(&fetcher(|_| {}), &server.url("127.0.0.1")).await, "gives no answer");
    assert_eq!(server.asked().len(), 3);
    let server = Server::start(|_, _| vec![Step::Wait(60_000)]).await;
    fails(get(&fetcher(|config| config.tries_max = 1), &server.url("127.0.0.1")).await, "was silent for 1 s");
    let server =
        Server::start(|_, _| vec![head("200 OK\nContent-Length: 9"), Step::Send(b"1234".to_vec()), Step::Close]).await;
    fails(get(&fetcher(|_| {}), &server.url("127.0.0.1")).await, "broke off");
}

#[tokio::test]
async fn data_that_changes_is_noticed() {
    for change in ["etag", "size", "no ranges any more"] {
        let (one, two) = (data(3 * MIB), data(3 * MIB + 1));
        let server = Server::start(move |asked, count| match (change, count) {
            (_, 1) => honest(asked, &one, "\"1\""),
            ("etag", _) => honest(asked, &one, "\"2\""),
            ("size", _) => honest(asked, &two, "\"1\""),
            _ => vec![head("200 OK\nETag: \"1\"\nContent-Length: 5"), Step::Send(b"hello".to_vec())],
        })
        .await;
        let error = fails(get(&fetcher(|_| {}), &server.url("127.0.0.1")).await, "changed while it was fetched");
        assert!(!error.is_passing(), "{change}");
    }
}

#[tokio::test]
async fn lies_about_length_and_range_are_refused() {
    for (answer, body, expected) in [
        ("206 Partial Content\nETag: \"1\"\nContent-Range: bytes 5-9/10\nContent-Length: 5", 5, "answers 206"),
        ("206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-9/10\nContent-Length: 20", 20, "answers 206"),
        (
            "206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-99999999/100000000\nContent-Length: 100000000",
            9,
            "answers 206",
        ),
        ("206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-9/10\nTransfer-Encoding: chunked", 0, "broke off"),
        ("200 OK\nContent-Length: 10\nContent-Length: 11", 11, "not HTTP"),
        ("200 OK\nContent-Length: -1", 0, "not HTTP"),
        ("200 OK\nContent-Length: 20", 10, "broke off"),
    ] {
        let server = Server::start(move |_, _| vec![head(answer), Step::Send(vec![b'x'; body]), Step::Close]).await;
        fails(get(&fetcher(|config| config.tries_max = 1), &server.url("127.0.0.1")).await, expected);
    }
    // More in the chunks than the range has, and less.
    for (chunk, expected) in
        [("14\r\nxxxxxxxxxxxxxxxxxxxx\r\n0\r\n\r\n", "more than"), ("2\r\nxx\r\n0\r\n\r\n", "less than")]
    {
        let server = Server::start(move |_, _| {
            vec![
                head("206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-9/10\nTransfer-Encoding: chunked"),
                Step::Send(chunk.into()),
                Step::Close,
            ]
        })
        .await;
        fails(get(&fetcher(|config| config.tries_max = 1), &server.url("127.0.0.1")).await, expected);
    }
}

#[tokio::test]
async fn what_is_too_much_or_too_slow_ends() {
    // Endless, with a length and without.
    let endless = || vec![head("200 OK"), Step::Repeat(vec![0; 65_536], 0)];
    let server = Server::start(move |_, _| endless()).await;
    let mut fetched = fetcher(|_| {}).open(&server.url("127.0.0.1"), 10_000_000).await.unwrap();
    let (mut got, mut end) = (0, None);
    while let Some(piece) = fetched.body.next().await {
        match piece {
            Ok(piece) => got += piece.len(),
            Err(error) => end = Some(error),
        }
    }
    assert!(got <= 10_000_000 && matches!(end, Some(Error::TooLarge(_))), "{got} {end:?}");
    for answer in [
        "200 OK\nContent-Length: 99",
        "206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-0/99\nContent-Length: 1",
    ] {
        let server = Server::start(move |_, _| vec![head(answer)]).await;
        let Err(error) = fetcher(|_| {}).open(&server.url("127.0.0.1"), 98).await else { panic!("{answer}") };
        assert!(matches!(error, Error::TooLarge(_)), "{error}");
    }
    // Bytes that trickle, in one go and in ranges.
    for answer in [
        "200 OK\nContent-Length: 99999",
        "206 Partial Content\nETag: \"1\"\nContent-Range: bytes 0-99998/99999\nContent-Length: 99999",
    ] {
        let server = Server::start(move |_, _| vec![head(answer), Step::Repeat(vec![0; 10], 100)]).await;
        let slow = fetcher(|config| (config.rate_min_kib_s, config.rate_window_s) = (1, 1));
        assert!(matches!(fails(get(&slow, &server.url("127.0.0.1")).await, "slower than 1 KiB/s"), Error::TooSlow(_)));
        let started = Instant::now();
        fails(get(&fetcher(|config| config.deadline_s = 1), &server.url("127.0.0.1")).await, "longer than 1 s");
        assert!(started.elapsed() < Duration::from_secs(4));
    }
    // A reader that is slow itself is no reason to blame the server.
    let content = data(2 * MIB);
    let server = Server::start(move |asked, _| honest(asked, &content, "\"1\"")).await;
    let strict = fetcher(|config| (config.rate_min_kib_s, config.rate_window_s) = (10_000, 1));
    let mut fetched = strict.open(&server.url("127.0.0.1"), CAP).await.unwrap();
    assert!(fetched.body.next().await.unwrap().is_ok());
    tokio::time::sleep(Duration::from_millis(2100)).await;
    while let Some(piece) = fetched.body.next().await {
        piece.unwrap();
    }
}

#[tokio::test]
async fn no_redirect_leads_where_nobody_may_go() {
    let inner = Server::start(|_, _| vec![head("200 OK\nContent-Length: 6"), Step::Send(b"canary".to_vec())]).await;
    let port = inner.address.port();
    for (location, expected) in [
        (format!("http://127.0.0.1:{port}/"), "loopback"),
        (format!("//127.0.0.1:{port}/"), "loopback"),
        (format!("http://2130706433:{port}/"), "encoded"),
        (format!("http://0x7f000001:{port}/"), "encoded"),
        (format!("http://0177.0.0.1:{port}/"), "encoded"),
        (format!("http://[::1]:{port}/"), "loopback"),
        (format!("http://[::ffff:127.0.0.1]:{port}/"), "stands for an IPv4"),
        (format!("http://localhost:{port}/"), "loopback"),
        ("http://169.254.169.254/latest/meta-data/".to_owned(), "link-local"),
        ("file:///etc/passwd".to_owned(), "not allowed"),
        ("gopher://example.org/".to_owned(), "not allowed"),
        ("/again".to_owned(), "more than 5 times"),
    ] {
        let outer =
            Server::start(move |_, _| vec![head(&format!("302 Found\nLocation: {location}\nContent-Length: 0"))]).await;
        // The outer server is at an address that is allowed, the inner one is not.
        let names: Lookup = Arc::new(|name| {
            let address = if name == "localhost" { "127.0.0.1" } else { "127.0.0.2" };
            Box::pin(async move { Ok(vec![address.parse().unwrap()]) })
        });
        let fetcher = fetcher_with(names, |config| config.allowed_networks = vec!["127.0.0.2".into()]);
        let error = fails(get(&fetcher, &outer.url("mirror.example.org")).await, expected);
        assert!(!error.is_passing(), "{error}");
        assert!(outer.asked().len() <= 6);
    }
    assert!(inner.asked().is_empty());
    // And one that may be followed is.
    let content = Arc::new(data(3 * MIB));
    let served = Arc::clone(&content);
    let server = Server::start(move |asked, count| match (asked.path(), count) {
        ("/there", 1..6) => honest(asked, &served, "\"1\""),
        // A signed URL that has ended: the way there is gone again.
        ("/there", 6) => vec![head("403 Forbidden\nContent-Length: 0")],
        ("/there", _) => honest(asked, &served, "\"1\""),
        _ => vec![head("307 Temporary Redirect\nLocation: there\nContent-Length: 0")],
    })
    .await;
    assert!(get(&fetcher(|config| config.connections_max = 1), &server.url("127.0.0.1")).await.unwrap() == *content);
}

#[tokio::test]
async fn names_that_change_their_minds_gain_nothing() {
    let content = Arc::new(data(4 * MIB));
    let served = Arc::clone(&content);
    let server = Server::start(move |asked, _| {
        let mut steps = honest(asked, &served, "\"1\"");
        steps.push(Step::Close);
        steps
    })
    .await;
    let allowed = |config: &mut Config| config.allowed_networks = vec!["127.0.0.2".into()];
    // An allowed address first, then loopback: for the next range there is a new connection, and a new look.
    let changing = fetcher_with(lookup(&[&["127.0.0.2"], &["127.0.0.1"]]), allowed);
    fails(get(&changing, &server.url("mirror.example.org")).await, "loopback");
    // Both at once: only the allowed one is connected to.
    let mixed = fetcher_with(lookup(&[&["127.0.0.1", "::1", "127.0.0.2"]]), allowed);
    assert!(get(&mixed, &server.url("mirror.example.org")).await.unwrap() == *content);
    assert!(server.asked().iter().all(|asked| asked.at == IpAddr::from([127, 0, 0, 2])));
    // Said at once, where it can be.
    let url = server.url("mirror.example.org");
    let refused = fetcher_with(lookup(&[&["127.0.0.1"]]), |_| {}).check(&url).await.unwrap_err().to_string();
    assert!(refused.contains("loopback") && !refused.contains("secret"), "{refused}");
    let unknown = fetcher_with(lookup(&[&[]]), |_| {}).check(&url).await.unwrap_err().to_string();
    assert!(unknown.contains("mirror.example.org has no address"), "{unknown}");
    fails(get(&fetcher_with(lookup(&[&[]]), |_| {}), &url).await, "has no address");
    // The second of two addresses, when nobody is at the first.
    let two = fetcher_with(lookup(&[&["127.0.0.3", "127.0.0.2"]]), |config| {
        config.allowed_networks = vec!["127.0.0.0/8".into()];
    });
    let listener = TcpListener::bind("127.0.0.2:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepted = tokio::spawn(async move { listener.accept().await.unwrap().1 });
    let _ = tokio::time::timeout(Duration::from_secs(3), two.open(&format!("http://mirror:{}/", address.port()), CAP))
        .await;
    assert!(accepted.is_finished());
}

#[tokio::test]
async fn packed_data_large_heads_and_bad_answers_are_refused() {
    let large = format!("200 OK\nContent-Length: 0\nX-Large: {}", "x".repeat(300_000));
    let many = format!("200 OK\nContent-Length: 0{}", "\nX-Many: x".repeat(2000));
    for (answer, expected) in [
        ("200 OK\nContent-Length: 3\nContent-Encoding: gzip", "Content-Encoding gzip"),
        (large.as_str(), "head is too large"),
        (many.as_str(), "head is too large"),
        ("404 Not Found\nContent-Length: 0", "answers 404 Not Found"),
        ("401 Unauthorized\nContent-Length: 0", "answers 401"),
        ("204 No Content", "answers 204"),
        ("304 Not Modified", "answers 304"),
        ("302 Found\nContent-Length: 0", "answers 302"),
    ] {
        let answer = answer.to_owned();
        let server = Server::start(move |_, _| vec![head(&answer), Step::Close]).await;
        let outcome = get(&fetcher(|_| {}), &server.url("127.0.0.1")).await;
        assert!(!fails(outcome, expected).is_passing(), "{expected}");
    }
    let server = Server::start(|_, _| vec![Step::Send(b"SSH-2.0-OpenSSH_9.2\r\n".to_vec()), Step::Close]).await;
    fails(get(&fetcher(|_| {}), &server.url("127.0.0.1")).await, "not HTTP");
    // What passes is waited for.
    let server = Server::start(|asked, count| match count {
        1 => vec![head("503 Busy\nRetry-After: 1\nContent-Length: 0")],
        _ => honest(asked, b"at last", "\"1\""),
    })
    .await;
    let started = Instant::now();
    assert_eq!(get(&fetcher(|_| {}), &server.url("127.0.0.1")).await.unwrap(), b"at last");
    assert!(started.elapsed() >= Duration::from_secs(1));
    // A closed port says no more than a host that is not there.
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    fails(
        get(&fetcher(|config| config.tries_max = 1), &format!("http://{closed}/")).await,
        "The server 127.0.0.1 cannot be reached.",
    );
}

/// Certificates that sign themselves.
mod certificate {
    use std::path::PathBuf;
    use std::sync::Arc;

    use openssl::asn1::Asn1Time;
    use openssl::bn::BigNum;
    use openssl::ec::{EcGroup, EcKey};
    use openssl::hash::MessageDigest;
    use openssl::nid::Nid;
    use openssl::pkey::PKey;
    use openssl::x509::extension::SubjectAlternativeName;
    use openssl::x509::{X509, X509NameBuilder};
    use rustls::ServerConfig;
    use rustls::pki_types::PrivateKeyDer;
    use tokio_rustls::TlsAcceptor;

    /// A file that goes away.
    pub(super) struct Pem(pub(super) PathBuf);

    impl Drop for Pem {
        fn drop(&mut self) {
            let _ = std::fs::remove_file(&self.0);
        }
    }

    /// One for `localhost`, and the file by which it is believed.
    pub(super) fn make() -> (TlsAcceptor, Pem) {
        let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
        let key = PKey::from_ec_key(EcKey::generate(&group).unwrap()).unwrap();
        let mut name = X509NameBuilder::new().unwrap();
        name.append_entry_by_nid(Nid::COMMONNAME, "localhost").unwrap();
        let name = name.build();
        let mut builder = X509::builder().unwrap();
        builder.set_version(2).unwrap();
        builder.set_serial_number(&BigNum::from_u32(1).unwrap().to_asn1_integer().unwrap()).unwrap();
        builder.set_subject_name(&name).unwrap();
        builder.set_issuer_name(&name).unwrap();
        builder.set_pubkey(&key).unwrap();
        builder.set_not_before(&Asn1Time::days_from_now(0).unwrap()).unwrap();
        builder.set_not_after(&Asn1Time::days_from_now(2).unwrap()).unwrap();
        let names = SubjectAlternativeName::new().dns("localhost").build(&builder.x509v3_context(None, None)).unwrap();
        builder.append_extension(names).unwrap();
        builder.sign(&key, MessageDigest::sha256()).unwrap();
        let certificate = builder.build();
        let path = std::env::temp_dir().join(format!("rockpool-fetch-{}.pem", uuid::Uuid::new_v4()));
        std::fs::write(&path, certificate.to_pem().unwrap()).unwrap();
        let key = PrivateKeyDer::try_from(key.private_key_to_pkcs8().unwrap()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.to_der().unwrap().into()], key)
            .unwrap();
        (TlsAcceptor::from(Arc::new(config)), Pem(path))
    }
}

#[tokio::test]
async fn tls_is_verified_against_the_name() {
    let (acceptor, pem) = certificate::make();
    let server = Server::start_with(Some(acceptor), |asked, _| match asked.path() {
        "/down" => vec![head("302 Found\nLocation: http://localhost:1/\nContent-Length: 0")],
        _ => honest(asked, b"over TLS", "\"1\""),
    })
    .await;
    let port = server.address.port();
    let trusting = |allow: bool| {
        fetcher(|config| {
            config.cafile = Some(pem.0.clone());
            config.allow_https_to_http = allow;
            config.tries_max = 1;
        })
    };
    assert_eq!(get(&trusting(false), &format!("https://localhost:{port}/")).await.unwrap(), b"over TLS");
    let stranger =
        fails(get(&trusting(false), &format!("https://127.0.0.1:{port}/")).await, "TLS with 127.0.0.1 failed");
    assert!(!stranger.is_passing(), "{stranger}");
    fails(get(&trusting(false), &format!("https://localhost:{port}/down")).await, "from https to http");
    fails(get(&trusting(true), &format!("https://localhost:{port}/down")).await, "cannot be reached");
    let count = server.asked().len();
    let others = fetcher(|config| config.tries_max = 1);
    assert!(get(&others, &format!("https://localhost:{port}/")).await.is_err());
    assert_eq!(server.asked().len(), count);
}

#[tokio::test]
async fn a_proxy_is_asked_instead() {
    let (acceptor, pem) = certificate::make();
    let secure = Server::start_with(Some(acceptor), |asked, _| honest(asked, b"through a tunnel", "\"1\"")).await;
    let tunnel_to = secure.address;
    let proxy = Server::start(move |asked, _| {
        if asked.head.starts_with("CONNECT denied") {
            vec![head("403 Forbidden\nContent-Length: 0"), Step::Close]
        } else if asked.head.starts_with("CONNECT ") {
            vec![head("200 Connection established"), Step::Tunnel(tunnel_to)]
        } else {
            honest(asked, b"by a proxy", "\"1\"")
        }
    })
    .await;
    // Names that this machine does not know are the proxy's business; those that it knows are looked at.
    let names: Lookup = Arc::new(|name| {
        let known = (name == "inner").then(|| vec!["127.0.0.1".parse().unwrap()]);
        Box::pin(async move { known.ok_or_else(|| io::Error::other("no such name")) })
    });
    let fetcher = fetcher_with(names, |config| {
        config.proxy = Some(Secret::new(format!("http://me:hush@{}", proxy.address)));
        config.cafile = Some(pem.0.clone());
        config.tries_max = 1;
    });
    assert_eq!(get(&fetcher, "http://example.org/a?b").await.unwrap(), b"by a proxy");
    let asked = proxy.asked().remove(0);
    assert_eq!(asked.path(), "http://example.org/a?b");
    assert_eq!(asked.header("proxy-authorization"), Some("Basic bWU6aHVzaA=="));
    assert_eq!(get(&fetcher, "https://localhost/").await.unwrap(), b"through a tunnel");
    let asked = proxy.asked().remove(1);
    assert_eq!((asked.path(), asked.header("proxy-authorization")), ("localhost:443", Some("Basic bWU6aHVzaA==")));
    assert_eq!(secure.asked()[0].header("proxy-authorization"), None);
    fails(get(&fetcher, "https://denied/").await, "it answers 403");
    fails(get(&fetcher, "http://inner/").await, "loopback");
    assert_eq!(fetcher.check("http://example.org/").await, Ok(()));
    assert!(fetcher.check("http://inner/").await.is_err());
    fails(get(&fetcher, "http://127.0.0.1/").await, "loopback");
    assert_eq!(proxy.asked().len(), 3);
}

#[tokio::test]
async fn an_image_of_another_region_comes_with_its_token_and_no_redirect() {
    let content = Arc::new(data(2 * MIB + 5));
    let served = Arc::clone(&content);
    let id: uuid::Uuid = "11111111-2222-4333-8444-555555555555".parse().unwrap();
    let size = content.len();
    let server = Server::start(move |asked, _| {
        if asked.header("x-auth-token") != Some("a-token") {
            return vec![head("401 Unauthorized\nContent-Length: 0")];
        }
        let record = |status: &str| {
            let text = format!(
                r#"{{"status": "{status}", "size": {size}, "disk_format": "qcow2", "container_format": "bare", "os_hash_algo": "sha512",
                "os_hash_value": "ab", "hw_disk_bus": "scsi", "os_distro": "debian", "os_glance_x": "y", "name": "n", "other": "z", "hw_number": 1}}"#
            );
            vec![head(&format!("200 OK\nContent-Length: {}", text.len())), Step::Send(text.into_bytes())]
        };
        let id = "/image/v2/images/11111111-2222-4333-8444-555555555555";
        match asked.path().strip_prefix(id) {
            Some("") => record("active"),
            // Glance on Ceph knows no ranges.
            Some("/file") if asked.range().is_some() => vec![head("400 Bad Request\nContent-Length: 0")],
            Some("/file") => honest(asked, &served, "\"1\""),
            _ if asked.path().starts_with("/queued") => record("queued"),
            _ if asked.path().starts_with("/moved") => vec![head("301 Moved\nLocation: http://example.org/\nContent-Length: 0")],
            _ => vec![head("404 Not Found\nContent-Length: 0")],
        }
    })
    .await;
    // No rule of the operator's lets anybody there.
    let fetcher = fetcher_with(system_lookup(), |_| {});
    let (token, id) = (Secret::new("a-token"), id.into());
    let at = |path: &str| format!("http://{}{path}", server.address);
    let remote = fetcher.remote_image(&at("/image/v2/"), &token, id).await.unwrap();
    assert_eq!((remote.size_bytes, remote.disk_format.as_deref()), (size as u64, Some("qcow2")));
    assert_eq!(remote.hash, Some(("sha512".into(), "ab".into())));
    let properties: Vec<_> = remote.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(properties, ["hw_disk_bus=scsi", "os_distro=debian"]);
    let mut fetched = fetcher.open_remote(&at("/image"), &token, id, size as u64).await.unwrap();
    let mut bytes = Vec::new();
    while let Some(piece) = fetched.body.next().await {
        bytes.extend_from_slice(&piece.unwrap());
    }
    assert!(bytes == *content);
    let failure = |outcome: Result<super::Remote, Error>| outcome.unwrap_err().to_string();
    assert!(failure(fetcher.remote_image(&at("/queued"), &token, id).await).contains("not active"));
    assert!(failure(fetcher.remote_image(&at("/moved"), &token, id).await).contains("not followed"));
    assert!(failure(fetcher.remote_image(&at("/none"), &token, id).await).contains("no such image"));
    assert!(failure(fetcher.remote_image(&at("/image"), &Secret::new("old"), id).await).contains("expired"));
    assert!(fetcher.open_remote(&at("/image"), &token, id, size as u64 + 1).await.is_err());
    assert!(fetcher.open_remote(&at("/image"), &token, id, size as u64 - 1).await.is_err());
}
