//! The loopback port of `trunkline login`, to which a browser comes back (RFC 8252, section 7.3). It
//! reads several connections at once: browsers open some that they do not use, and any process of
//! the machine may.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;

use crate::limits::{
    LOOPBACK_CONNECTIONS_MAX, LOOPBACK_HEAD_BYTES_MAX, LOOPBACK_HEAD_TIMEOUT,
    LOOPBACK_LOOK_INTERVAL,
};
use crate::wait::{Interrupted, Wait};

/// The port, and the connections of which no whole head has come.
pub(super) struct Loopback {
    listener: TcpListener,
    /// The oldest first.
    open: VecDeque<Open>,
}

struct Open {
    stream: TcpStream,
    head: Vec<u8>,
    since: Instant,
}

/// The head of a request, as far as a connection has brought it.
enum Head {
    Whole(String),
    Coming,
    /// The connection is of no use.
    None,
}

impl Loopback {
    /// Listens on the first of these ports that is free, or else on any that is.
    ///
    /// # Errors
    /// The system gives none.
    pub(super) fn bind(ports: &[u16]) -> io::Result<Loopback> {
        let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
        let listener = ports.iter().find_map(|port| bind(*port).ok());
        let listener = listener.map_or_else(|| bind(0), Ok)?;
        listener.set_nonblocking(true)?;
        Ok(Loopback { listener, open: VecDeque::new() })
    }

    /// The address that is listened on.
    ///
    /// # Errors
    /// The system does not tell it.
    pub(super) fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Waits for the next request: its head, and the connection for the answer.
    ///
    /// # Errors
    /// The wait ended first.
    pub(super) fn next(
        &mut self,
        wait: &Arc<Wait>,
    ) -> Result<(TcpStream, String), Interrupted> {
        loop {
            let tick = (!self.open.is_empty()).then_some(LOOPBACK_LOOK_INTERVAL);
            wait.until(Some((self.listener.as_fd(), PollFlags::IN)), tick)?;
            self.accept();
            if let Some(request) = self.whole(Instant::now()) {
                return Ok(request);
            }
        }
    }

    /// Takes the connections that wait. Beyond the bound the oldest one makes room.
    fn accept(&mut self) {
        for _ in 0..LOOPBACK_CONNECTIONS_MAX {
            let Ok((stream, _)) = self.listener.accept() else { return };
            if stream.set_nonblocking(true).is_err() {
                continue;
            }
            if self.open.len() >= LOOPBACK_CONNECTIONS_MAX {
                self.open.pop_front();
            }
            self.open.push_back(Open { stream, head: Vec::new(), since: Instant::now() });
        }
    }

    /// Reads what has come, and takes out the first request that is whole.
    fn whole(&mut self, now: Instant) -> Option<(TcpStream, String)> {
        for _ in 0..self.open.len() {
            let mut open = self.open.pop_front()?;
            match open.read() {
                Head::Whole(head) => return Some((open.stream, head)),
                Head::Coming if now.duration_since(open.since) < LOOPBACK_HEAD_TIMEOUT => {
                    self.open.push_back(open);
                }
                Head::Coming | Head::None => (),
            }
        }
        None
    }
}

impl Open {
    fn read(&mut self) -> Head {
        let mut piece = [0_u8; 1024];
        while u64::try_from(self.head.len()).is_ok_and(|n| n <= LOOPBACK_HEAD_BYTES_MAX) {
            match self.stream.read(&mut piece) {
                Ok(0) => return Head::None,
                Ok(n) => self.head.extend_from_slice(piece.get(..n).unwrap_or_default()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Head::Coming,
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(_) => return Head::None,
            }
            if self.head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8(std::mem::take(&mut self.head));
                return text.map_or(Head::None, Head::Whole);
            }
        }
        Head::None
    }
}

/// Makes a connection wait for the answer to be written, for a time.
///
/// # Errors
/// The system refuses.
pub(super) fn for_answer(stream: &TcpStream, timeout: Duration) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_write_timeout(Some(timeout))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    #[test]
    fn connections_that_say_nothing_delay_nobody() {
        let mut port = Loopback::bind(&[]).unwrap();
        let address = port.address().unwrap();
        let connect = |text: &str| {
            let mut stream = TcpStream::connect(address).unwrap();
            stream.write_all(text.as_bytes()).unwrap();
            stream
        };
        let silent: Vec<_> = (0..6).map(|_| connect("")).collect();
        let _slow = connect("GET /slow HTTP/1.1\r\n");
        let (closed, _asked) = (connect("GET"), connect("GET /a HTTP/1.1\r\nHost: h\r\n\r\n"));
        drop(closed);
        let began = Instant::now();
        let wait = Wait::plain(Duration::from_secs(10)).unwrap();
        let (_, head) = port.next(&wait).unwrap();
        assert!(head.starts_with("GET /a "), "{head}");
        assert!(began.elapsed() < LOOPBACK_HEAD_TIMEOUT);
        // Those that say nothing for long are let go of.
        assert!(port.open.len() > silent.len());
        assert!(port.whole(Instant::now() + LOOPBACK_HEAD_TIMEOUT).is_none());
        assert!(port.open.is_empty());
    }

    #[test]
    fn connections_and_heads_are_bounded() {
        let mut port = Loopback::bind(&[]).unwrap();
        let address = port.address().unwrap();
        let all: Vec<_> = (0..LOOPBACK_CONNECTIONS_MAX + 3)
            .map(|_| TcpStream::connect(address).unwrap())
            .collect();
        let wait = Wait::plain(Duration::from_millis(300)).unwrap();
        assert!(port.next(&wait).is_err());
        assert_eq!(port.open.len(), LOOPBACK_CONNECTIONS_MAX);
        drop(all);
        let mut long = TcpStream::connect(address).unwrap();
        let n = usize::try_from(LOOPBACK_HEAD_BYTES_MAX).unwrap();
        long.write_all(&vec![b'x'; n + 1024]).unwrap();
        let wait = Wait::plain(Duration::from_millis(300)).unwrap();
        assert!(port.next(&wait).is_err());
        assert!(port.open.is_empty());
    }
}
