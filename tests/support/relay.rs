//! A relay before a scripted server, which spoils what passes when it is told to.

use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

use crate::listener::free_port;
use crate::{in_background, wait_for};

/// What happens to a connection on which a request comes that holds the trigger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is read any more.
    Unread,
    /// The request is passed on, and nothing comes back.
    Silent,
    /// The beginning of the answer's head comes back.
    HalfHead,
    /// All of the answer comes back but its last bytes.
    AllButTheEnd,
    /// The answer comes back byte by byte.
    Drips,
    /// An endless stream of events comes back, as fast as it is read.
    Floods,
}

type Spoiled = Option<(&'static str, Fault)>;

/// The relay. Dropping it ends it.
pub struct Relay {
    port: u16,
    shared: Arc<Shared>,
}

struct Shared {
    to: String,
    spoiled: Mutex<Spoiled>,
    is_over: AtomicBool,
    open: Mutex<Vec<TcpStream>>,
}

impl Relay {
    /// A relay to the server at that address.
    pub fn to(address: &str) -> Relay {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared {
            to: address.to_owned(),
            spoiled: Mutex::new(None),
            is_over: AtomicBool::new(false),
            open: Mutex::default(),
        });
        let mine = shared.clone();
        drop(in_background(move || {
            for stream in listener.incoming().flatten() {
                if mine.is_over.load(Ordering::SeqCst) {
                    return;
                }
                mine.relay(stream);
            }
        }));
        Relay { port, shared }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// From now on requests with `trigger` in them are spoiled; no connection is left on which
    /// one could go unseen.
    pub fn spoil(&self, trigger: &'static str, fault: Fault) {
        *self.shared.spoiled.lock().unwrap() = Some((trigger, fault));
        self.cut();
    }

    /// All is well from now on; what was spoiled is broken off.
    pub fn heal(&self) {
        *self.shared.spoiled.lock().unwrap() = None;
        self.cut();
    }

    fn cut(&self) {
        for stream in self.shared.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        self.heal();
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Shared {
    fn relay(self: &Arc<Shared>, client: TcpStream) {
        let Ok(server) = TcpStream::connect(&self.to) else { return };
        let both = [client.try_clone().unwrap(), server.try_clone().unwrap()];
        self.open.lock().unwrap().extend(both);
        let fault = Arc::new(Mutex::new(None));
        let (shared, seen) = (self.clone(), fault.clone());
        let (up, down) = (client.try_clone().unwrap(), server.try_clone().unwrap());
        drop(in_background(move || drop(shared.up(up, down, &seen))));
        let shared = self.clone();
        drop(in_background(move || {
            drop(shared.down(&server, &client, &fault));
            drop((client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both)));
        }));
    }

    fn up(
        &self,
        mut from: TcpStream,
        mut to: TcpStream,
        seen: &Mutex<Option<Fault>>,
    ) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            let n = from.read(&mut piece)?;
            let spoiled = *self.spoiled.lock().unwrap();
            let text = String::from_utf8_lossy(&piece[..n]);
            if let Some((_, fault)) = spoiled.filter(|(trigger, _)| text.contains(trigger)) {
                *seen.lock().unwrap() = Some(fault);
                match fault {
                    Fault::Unread => self.rest(fault),
                    Fault::Floods => self.flood(&from)?,
                    Fault::Silent | Fault::HalfHead | Fault::AllButTheEnd | Fault::Drips => (),
                }
            }
            if n == 0 {
                return to.shutdown(Shutdown::Both);
            }
            to.write_all(&piece[..n])?;
        }
    }

    fn flood(&self, mut to: &TcpStream) -> io::Result<()> {
        to.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")?;
        let events = ": nothing\n\nevent: none\ndata: of MCP's\n\n".repeat(1000);
        while self.is(Fault::Floods) {
            to.write_all(events.as_bytes())?;
        }
        Ok(())
    }

    fn down(
        &self,
        mut from: &TcpStream,
        mut to: &TcpStream,
        seen: &Mutex<Option<Fault>>,
    ) -> io::Result<()> {
        let mut piece = [0; 16 * 1024];
        loop {
            let n = from.read(&mut piece)?;
            if n == 0 {
                return Ok(());
            }
            let fault = *seen.lock().unwrap();
            match fault {
                None => to.write_all(&piece[..n])?,
                Some(fault @ (Fault::Unread | Fault::Silent | Fault::Floods)) => {
                    self.rest(fault)
                }
                Some(fault @ (Fault::HalfHead | Fault::AllButTheEnd)) => {
                    let until = if fault == Fault::HalfHead { 25 } else { n - 10 };
                    to.write_all(&piece[..until])?;
                    self.rest(fault);
                }
                Some(Fault::Drips) => {
                    for byte in &piece[..n] {
                        to.write_all(&[*byte])?;
                        std::thread::park_timeout(Duration::from_millis(50));
                    }
                }
            }
        }
    }

    fn is(&self, fault: Fault) -> bool {
        self.spoiled.lock().unwrap().is_some_and(|(_, it)| it == fault)
    }

    /// Until it is healed.
    fn rest(&self, fault: Fault) {
        while self.is(fault) {
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }
}

/// A port where nobody answers a connection: its backlog is full.
pub struct Unanswered {
    pub port: u16,
    _listener: rustix::fd::OwnedFd,
    _waiting: Vec<rustix::fd::OwnedFd>,
}

impl Unanswered {
    /// At a port of its own.
    pub fn start() -> Unanswered {
        Unanswered::at(free_port())
    }

    /// At that port, once it is free.
    pub fn at(port: u16) -> Unanswered {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let socket = |flags| {
            rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, flags, None)
                .unwrap()
        };
        let listener = wait_for("the port is free", || {
            let listener = socket(SocketFlags::CLOEXEC);
            rustix::net::sockopt::set_socket_reuseaddr(&listener, true).unwrap();
            rustix::net::bind(&listener, &address).ok()?;
            rustix::net::listen(&listener, 0).unwrap();
            Some(listener)
        });
        let waiting = (0..4).map(|_| {
            let stream = socket(SocketFlags::CLOEXEC | SocketFlags::NONBLOCK);
            rustix::net::connect(&stream, &address).ok();
            stream
        });
        Unanswered { port, _waiting: waiting.collect(), _listener: listener }
    }
}
