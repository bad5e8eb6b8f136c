//! ureq's transport on our terms: one write a request, and one `poll` that watches the
//! upstream's socket, the client, the call's bell and its deadline together.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, sockopt};
use ureq::Error;
use ureq::unversioned::transport::{
    Buffers, ConnectProxyConnector, ConnectionDetails, Connector, Either, LazyBuffers,
    NextTimeout, Transport,
};

use crate::error::Stage;
use crate::limits::UPSTREAM_BUFFER_BYTES;
use crate::wait::Woken;

use super::in_flight::{InFlight, paused};
use super::tls::Tls;

/// Output held back until the answer is waited for; more is written at once.
const HELD_BYTES_MAX: usize = 32 * 1024;
/// Reads without a look at what else the call waits for, such as its deadline, while a peer sends
/// as fast as it is read.
const UNPOLLED_READS_MAX: u32 = 128;
/// A peer that vanished without a word is noticed after about so long, even on a stream that
/// has no deadline.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);
/// Then it is asked so often, three times.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// Makes the connections of one Agent.
pub(crate) struct SocketConnector {
    pub(crate) watch: Arc<InFlight>,
    pub(crate) tls: Tls,
    pub(crate) connect_timeout: Duration,
    /// Whether connections go through a proxy.
    pub(crate) proxied: bool,
}

impl std::fmt::Debug for SocketConnector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SocketConnector")
    }
}

impl Connector for SocketConnector {
    type Out = Box<dyn Transport>;

    fn connect(
        &self,
        details: &ConnectionDetails<'_>,
        _: Option<()>,
    ) -> Result<Option<Box<dyn Transport>>, Error> {
        let parked = self.watch.take_parked();
        if let Some(inner) = parked {
            // The request went out before the bell rang: what ureq writes now is that again.
            let again = Resumable::new(inner, self.watch.clone(), Output::Swallowed);
            return Ok(Some(Box::new(again)));
        }
        self.watch.set_stage(Stage::Connect);
        // Also for the proxy's word and for securing it.
        let _connecting = self.watch.connecting(self.connect_timeout);
        if self.proxied && details.config.proxy().is_none() {
            // ureq asks for the connection to the proxy itself.
            return Ok(Some(Box::new(self.open(details)?)));
        }
        let tunnel = ConnectProxyConnector::default().connect(details, None::<()>)?;
        let base: Box<dyn Transport> = match tunnel {
            Some(Either::B(tunnel)) => tunnel,
            Some(Either::A(())) | None => Box::new(self.open(details)?),
        };
        if details.needs_tls() {
            self.watch.set_stage(Stage::Tls);
        }
        let Some(secured) = self.tls.secure(details, base)? else { return Ok(None) };
        let outer = Resumable::new(secured, self.watch.clone(), Output::Passed);
        Ok(Some(Box::new(outer)))
    }
}

impl SocketConnector {
    fn open(&self, details: &ConnectionDetails<'_>) -> Result<Socket, Error> {
        let mut left = details.addrs.len();
        let mut failed = None;
        for address in details.addrs.iter() {
            // An address that does not answer leaves time for those behind it.
            let share = if left > 1 { 2 } else { 1 };
            left = left.saturating_sub(1);
            let patience = self.watch.left_to_connect() / share;
            match self.open_one(*address, patience) {
                Ok(stream) => {
                    let config = details.config;
                    return Ok(Socket {
                        stream,
                        watch: self.watch.clone(),
                        buffers: LazyBuffers::new(
                            config.input_buffer_size(),
                            config.output_buffer_size(),
                        ),
                        held: Vec::new(),
                        write_failed: None,
                        unpolled: 0,
                    });
                }
                Err(error) if self.watch.interrupted().is_some() => return Err(error),
                Err(error) => failed = Some(error),
            }
        }
        Err(failed.unwrap_or(Error::ConnectionFailed))
    }

    fn open_one(&self, address: SocketAddr, patience: Duration) -> Result<TcpStream, Error> {
        let family = match address {
            SocketAddr::V4(_) => AddressFamily::INET,
            SocketAddr::V6(_) => AddressFamily::INET6,
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let system = |errno: Errno| Error::Io(errno.into());
        let socket = rustix::net::socket_with(family, SocketType::STREAM, flags, None)
            .map_err(system)?;
        match rustix::net::connect(&socket, &address) {
            Ok(()) => (),
            Err(Errno::INPROGRESS) => {
                self.connected(socket.as_fd(), patience)?;
                sockopt::socket_error(&socket).map_err(system)?.map_err(system)?;
            }
            Err(errno) => return Err(system(errno)),
        }
        sockopt::set_tcp_nodelay(&socket, true).map_err(system)?;
        sockopt::set_socket_keepalive(&socket, true).map_err(system)?;
        sockopt::set_tcp_keepidle(&socket, KEEPALIVE_AFTER).map_err(system)?;
        sockopt::set_tcp_keepintvl(&socket, KEEPALIVE_INTERVAL).map_err(system)?;
        sockopt::set_tcp_keepcnt(&socket, 3).map_err(system)?;
        Ok(TcpStream::from(socket))
    }

    fn connected(&self, socket: BorrowedFd<'_>, patience: Duration) -> Result<(), Error> {
        let Some(wait) = self.watch.wait() else { return Err(paused()) };
        let until = Instant::now() + patience;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match wait.until(Some((socket, PollFlags::OUT)), Some(left)) {
                Ok(Woken::Ready) => return Ok(()),
                Ok(Woken::Bell) => self.watch.miss_bell(),
                Ok(Woken::Tick) => return Err(Error::Io(ErrorKind::TimedOut.into())),
                Err(reason) => return Err(self.watch.interrupt(reason)),
            }
        }
    }
}

/// A connected socket; non-blocking, and polled through the watch.
struct Socket {
    stream: TcpStream,
    watch: Arc<InFlight>,
    buffers: LazyBuffers,
    held: Vec<u8>,
    /// A peer may answer and close before it has read everything: its answer is read first.
    write_failed: Option<io::Error>,
    /// Reads since the last `poll`, each of which filled the buffer, so that more is likely to
    /// be there already; none after one that did not.
    unpolled: u32,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Socket")
    }
}

impl Socket {
    fn flush(&mut self) -> Result<(), Error> {
        if self.held.is_empty() {
            return Ok(());
        }
        let mut rest = self.held.as_slice();
        let mut failed = None;
        while !rest.is_empty() {
            match (&self.stream).write(rest) {
                Ok(0) => failed = Some(io::Error::from(ErrorKind::WriteZero)),
                Ok(n) => {
                    self.watch.note_sent();
                    rest = rest.get(n..).unwrap_or_default();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.watch.ready(self.stream.as_fd(), PollFlags::OUT)?;
                }
                Err(error) => failed = Some(error),
            }
            if failed.is_some() {
                break;
            }
        }
        self.held.clear();
        self.held.shrink_to(UPSTREAM_BUFFER_BYTES);
        match failed {
            Some(error) if !self.watch.was_sent() => return Err(Error::Io(error)),
            failed => self.write_failed = failed,
        }
        self.watch.note_flushed();
        Ok(())
    }
}

impl Transport for Socket {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, _: NextTimeout) -> Result<(), Error> {
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        if self.write_failed.is_none() {
            self.held.extend_from_slice(output);
        }
        if self.held.len() > HELD_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    fn await_input(&mut self, _: NextTimeout) -> Result<bool, Error> {
        self.flush()?;
        let impatient = self.watch.is_impatient();
        loop {
            let is_likely = (1..UNPOLLED_READS_MAX).contains(&self.unpolled);
            if !is_likely && !impatient {
                self.watch.ready(self.stream.as_fd(), PollFlags::IN)?;
                self.unpolled = 0;
            }
            let buffer = self.buffers.input_append_buf();
            let room = buffer.len();
            if room == 0 {
                return Err(Error::LargeResponseHeader(room, room));
            }
            match (&self.stream).read(buffer) {
                Ok(0) if self.write_failed.is_some() => {
                    return Err(self.write_failed.take().map_or_else(paused, Error::Io));
                }
                Ok(n) => {
                    self.unpolled = if n == room { self.unpolled + 1 } else { 0 };
                    self.buffers.input_appended(n);
                    return Ok(n > 0);
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => (),
                Err(error) if error.kind() == ErrorKind::WouldBlock && !impatient => {
                    self.unpolled = 0;
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Err(paused()),
                Err(error) => return Err(Error::Io(error)),
            }
        }
    }

    fn is_open(&mut self) -> bool {
        if self.write_failed.is_some() {
            return false;
        }
        let mut byte = [0_u8; 1];
        let seen =
            rustix::net::recv(&self.stream, &mut byte, RecvFlags::PEEK | RecvFlags::DONTWAIT);
        matches!(seen, Err(Errno::WOULDBLOCK))
    }
}

/// What becomes of what ureq writes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Output {
    Passed,
    Swallowed,
}

/// A connection that survives a stop for the bell while the answer's head is waited for. ureq drops
/// it then; it goes to the watch, and the next run of the same request takes it from there.
struct Resumable {
    inner: Option<Box<dyn Transport>>,
    watch: Arc<InFlight>,
    output: Output,
    paused: bool,
    none: LazyBuffers,
}

impl std::fmt::Debug for Resumable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resumable")
    }
}

impl Resumable {
    fn new(inner: Box<dyn Transport>, watch: Arc<InFlight>, output: Output) -> Resumable {
        let none = LazyBuffers::new(1, 1);
        Resumable { inner: Some(inner), watch, output, paused: false, none }
    }
}

impl Transport for Resumable {
    fn buffers(&mut self) -> &mut dyn Buffers {
        match &mut self.inner {
            Some(inner) => inner.buffers(),
            None => &mut self.none,
        }
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        if self.output == Output::Swallowed {
            return Ok(());
        }
        self.watch.set_stage(Stage::Send);
        self.inner
            .as_mut()
            .map_or_else(|| Err(paused()), |inner| inner.transmit_output(amount, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        if self.output == Output::Swallowed {
            self.output = Output::Passed;
            self.watch.set_stage(Stage::Answer);
        }
        let read = self
            .inner
            .as_mut()
            .map_or_else(|| Err(paused()), |inner| inner.await_input(timeout));
        self.paused = read.is_err() && self.watch.is_stopped();
        read
    }

    fn is_open(&mut self) -> bool {
        self.inner.as_mut().is_some_and(|inner| inner.is_open())
    }

    fn is_tls(&self) -> bool {
        self.inner.as_ref().is_some_and(|inner| inner.is_tls())
    }
}

impl Drop for Resumable {
    fn drop(&mut self) {
        if self.paused
            && let Some(inner) = self.inner.take()
        {
            self.watch.park(inner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;
    use crate::wait::{Interrupted, Wait};
    use ureq::Timeout;
    use ureq::unversioned::transport::time::Duration as UreqDuration;

    #[test]
    fn a_peer_that_sends_without_end_does_not_hide_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        stream.set_nonblocking(true).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        peer.write_all(&[b'x'; 64 * 1024]).unwrap();
        let (watch, wait) =
            (Arc::new(InFlight::default()), Wait::plain(Duration::from_secs(5)));
        let wait = wait.unwrap();
        watch.begin(&wait);
        let mut socket = Socket {
            stream,
            watch: watch.clone(),
            buffers: LazyBuffers::new(256, 256),
            held: Vec::new(),
            write_failed: None,
            unpolled: 0,
        };
        let never = NextTimeout {
            after: UreqDuration::NotHappening,
            reason: Timeout::Global,
            per_read: None,
            per_write: None,
        };
        let mut read = || {
            let read = socket.await_input(never);
            let n = socket.buffers().input().len();
            socket.buffers().input_consume(n);
            read.map(|_| n)
        };
        assert_eq!(read().unwrap(), 256);
        wait.set_timeout(Duration::ZERO, Duration::ZERO);
        assert!((0..UNPOLLED_READS_MAX).any(|_| read().is_err()));
        assert_eq!(watch.interrupted(), Some(Interrupted::Deadline));
    }
}
