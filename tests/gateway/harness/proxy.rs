//! A TCP proxy between a gateway and Postgres, to break the connection in every way there is.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::servers;

#[derive(Default)]
struct State {
    open: Mutex<Vec<TcpStream>>,
    stalled: AtomicBool,
    refusing: AtomicBool,
    stopped: AtomicBool,
    /// Text of a statement after which the next `COMMIT` cuts its connection.
    trigger: Mutex<Option<Trigger>>,
    cuts_at_commit: AtomicUsize,
}

struct Trigger {
    statement: String,
    /// Whether Postgres gets to see the `COMMIT`.
    forward: bool,
}

/// A running proxy. Dropped, it cuts everything and takes no more.
pub(crate) struct Proxy {
    /// `host:port` to connect to.
    pub(crate) address: String,
    state: Arc<State>,
}

impl Proxy {
    /// Starts a proxy to the Postgres of the tests.
    pub(crate) fn start() -> Self {
        let url = servers().postgres;
        let target = url.split_once('@').unwrap().1.split_once('/').unwrap().0.to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let state = Arc::new(State::default());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if shared.stopped.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client
                    && !shared.refusing.load(Ordering::SeqCst)
                    && let Ok(server) = TcpStream::connect(&target)
                {
                    shared.join(client, server);
                }
            }
        });
        Self { address, state }
    }

    /// Cuts every connection; new ones are taken.
    pub(crate) fn cut(&self) {
        for socket in self.state.open.lock().unwrap().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// Lets nothing through any more, in either direction, while every connection stays open; or lets
    /// everything through that has gathered.
    pub(crate) fn stall(&self, stalled: bool) {
        self.state.stalled.store(stalled, Ordering::SeqCst);
    }

    /// Whether new connections are closed at once.
    pub(crate) fn refuse(&self, refusing: bool) {
        self.state.refusing.store(refusing, Ordering::SeqCst);
    }

    /// Cuts the connection that sends the next `COMMIT` after a statement with this text in it: after
    /// Postgres has got the `COMMIT` if `forward`, before that otherwise. Once.
    pub(crate) fn cut_at_commit_after(&self, statement: &str, forward: bool) {
        *self.state.trigger.lock().unwrap() = Some(Trigger { statement: statement.into(), forward });
    }

    /// How often `cut_at_commit_after` has cut.
    pub(crate) fn cuts_at_commit(&self) -> usize {
        self.state.cuts_at_commit.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.state.stopped.store(true, Ordering::SeqCst);
        self.stall(false);
        self.cut();
        // Wakes the acceptor.
        let _ = TcpStream::connect(&self.address);
    }
}

impl State {
    fn join(self: &Arc<Self>, client: TcpStream, server: TcpStream) {
        for socket in [&client, &server] {
            let _ = socket.set_nodelay(true);
            self.open.lock().unwrap().push(socket.try_clone().unwrap());
        }
        let (state, from, to) = (Arc::clone(self), client.try_clone().unwrap(), server.try_clone().unwrap());
        std::thread::spawn(move || state.pass(from, to, true));
        let state = Arc::clone(self);
        std::thread::spawn(move || state.pass(server, client, false));
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream, watched: bool) {
        let mut buffer = vec![0; 64 * 1024];
        let mut armed: Option<bool> = None;
        while let Ok(length) = from.read(&mut buffer) {
            while self.stalled.load(Ordering::SeqCst) {
                std::thread::sleep(Duration::from_millis(5));
            }
            if length == 0 {
                break;
            }
            let bytes = &buffer[..length];
            if watched {
                self.arm(bytes, &mut armed);
                if let Some(forward) = armed
                    && contains(bytes, b"COMMIT")
                {
                    self.cuts_at_commit.fetch_add(1, Ordering::SeqCst);
                    // The answer must not get through: its direction goes first.
                    let _ = from.shutdown(Shutdown::Both);
                    if forward {
                        let _ = to.write_all(bytes);
                        std::thread::sleep(Duration::from_millis(100));
                    }
                    break;
                }
            }
            if to.write_all(bytes).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    fn arm(&self, bytes: &[u8], armed: &mut Option<bool>) {
        let mut trigger = self.trigger.lock().unwrap();
        if trigger.as_ref().is_some_and(|trigger| contains(bytes, trigger.statement.as_bytes())) {
            *armed = trigger.take().map(|trigger| trigger.forward);
        }
    }
}

fn contains(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len()).any(|window| window == text)
}
