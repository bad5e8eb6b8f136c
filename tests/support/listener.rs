//! A small HTTP server for scripted upstreams: a thread a connection, and the ways in which a
//! server can fail: gone, hanging, back at the same port.

use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Head, Wire};
use super::in_background;

/// A request as it came.
#[derive(Debug)]
pub struct Incoming {
    pub method: String,
    pub target: String,
    pub head: Head,
    pub body: String,
}

impl Incoming {
    /// The path without the query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }
}

/// Whether the connection serves another request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    Keep,
    Close,
}

type Serve = dyn Fn(&Incoming, &mut TcpStream) -> std::io::Result<Next> + Send + Sync;

/// The server. Dropping it ends everything that it holds.
pub struct Listener {
    port: u16,
    shared: Arc<Shared>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

struct Shared {
    serve: Box<Serve>,
    running: AtomicBool,
    n_connections: AtomicUsize,
    n_requests: AtomicUsize,
    hanging: Mutex<bool>,
    changed: Condvar,
    open: Mutex<Vec<TcpStream>>,
}

/// Ports below the range that the system gives to outgoing connections, so that one which is
/// free now is still free when a server comes back to it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Listener {
    /// A server that does not serve yet: connections to its port are refused.
    pub fn absent(
        serve: impl Fn(&Incoming, &mut TcpStream) -> std::io::Result<Next> + Send + Sync + 'static,
    ) -> Listener {
        Listener::absent_at(free_port(), serve)
    }

    /// The same at that port.
    pub fn absent_at(
        port: u16,
        serve: impl Fn(&Incoming, &mut TcpStream) -> std::io::Result<Next> + Send + Sync + 'static,
    ) -> Listener {
        let shared = Arc::new(Shared {
            serve: Box::new(serve),
            running: AtomicBool::new(false),
            n_connections: AtomicUsize::new(0),
            n_requests: AtomicUsize::new(0),
            hanging: Mutex::new(false),
            changed: Condvar::new(),
            open: Mutex::new(Vec::new()),
        });
        Listener { port, shared, accepting: Mutex::new(None) }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// Serves, at the same port as before.
    pub fn start(&self) {
        let listener = super::wait_for("the port is free", || {
            TcpListener::bind(("127.0.0.1", self.port)).ok()
        });
        self.shared.running.store(true, Ordering::SeqCst);
        let shared = self.shared.clone();
        let thread = in_background(move || {
            for stream in listener.incoming().flatten() {
                if !shared.running.load(Ordering::SeqCst) {
                    return;
                }
                shared.n_connections.fetch_add(1, Ordering::SeqCst);
                drop(stream.set_nodelay(true));
                shared.open.lock().unwrap().extend(stream.try_clone());
                let shared = shared.clone();
                drop(in_background(move || shared.serve_connection(stream)));
            }
        });
        *self.accepting.lock().unwrap() = Some(thread);
    }

    /// Breaks every connection off and refuses new ones.
    pub fn stop(&self) {
        self.shared.running.store(false, Ordering::SeqCst);
        if let Some(thread) = self.accepting.lock().unwrap().take() {
            // The accepting thread wakes for a last connection.
            drop(TcpStream::connect(("127.0.0.1", self.port)));
            drop(thread.join());
        }
        self.break_off_connections();
        self.shared.changed.notify_all();
    }

    /// Breaks every connection off; new ones are served.
    pub fn break_off_connections(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// From now on connections are accepted and requests read, but none is answered.
    pub fn hang(&self) {
        *self.shared.hanging.lock().unwrap() = true;
    }

    /// Ends [`Listener::hang`]: what hung is closed without an answer, new requests are served.
    pub fn resume(&self) {
        *self.shared.hanging.lock().unwrap() = false;
        self.shared.changed.notify_all();
    }

    /// Connections accepted so far.
    pub fn n_connections(&self) -> usize {
        self.shared.n_connections.load(Ordering::SeqCst)
    }

    /// Requests read so far, answered or not.
    pub fn n_requests(&self) -> usize {
        self.shared.n_requests.load(Ordering::SeqCst)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn serve_connection(&self, stream: TcpStream) {
        let Ok(mut answers) = stream.try_clone() else { return };
        let mut wire = Wire::new(stream);
        while let Ok(Some(request)) = next_request(&mut wire) {
            self.n_requests.fetch_add(1, Ordering::SeqCst);
            if self.waits_while_hanging() {
                break;
            }
            match (self.serve)(&request, &mut answers) {
                Ok(Next::Keep) => (),
                Ok(Next::Close) | Err(_) => break,
            }
        }
        drop(answers.shutdown(Shutdown::Both));
    }

    /// True if the request came while the server hung: it is never answered.
    fn waits_while_hanging(&self) -> bool {
        let mut hanging = self.hanging.lock().unwrap();
        let hung = *hanging;
        while *hanging && self.running.load(Ordering::SeqCst) {
            let tick = Duration::from_millis(200);
            hanging = self.changed.wait_timeout(hanging, tick).unwrap().0;
        }
        hung
    }
}

fn next_request(wire: &mut Wire) -> std::io::Result<Option<Incoming>> {
    let deadline = Instant::now() + Duration::from_secs(600);
    let Some(head) = wire.head(deadline)? else { return Ok(None) };
    let body = wire.whole(head.request_body(), deadline)?;
    let body = String::from_utf8(body).map_err(std::io::Error::other)?;
    let mut words = head.start_line.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Some(Incoming { method, target, head, body }))
}
