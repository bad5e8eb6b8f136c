//! The user of this system at the other end of a connection.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::BorrowedFd;

use rustix::net::SocketAddrAny;

use crate::limits::CONNECTION_TABLE_BYTES_MAX;

/// The user at the other end of a connection, as the user of this process sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerUser {
    /// The same user, or the one who may do everything here.
    Own,
    /// Another user, or somebody on another machine.
    Another,
    /// The system does not tell.
    Unknown,
}

/// Where Linux lists the connections of this machine (proc(5)).
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The state of an established connection there.
const ESTABLISHED: &str = "01";
/// The user who may do everything.
const ROOT: u32 = 0;

impl PeerUser {
    fn of_id(id: u32) -> PeerUser {
        let own = rustix::process::getuid().as_raw();
        if id == own || id == ROOT { PeerUser::Own } else { PeerUser::Another }
    }
}

/// Finds out whose the other end of an accepted connection is. It reads a list of the system, so
/// it is nothing for a call's path.
pub(crate) fn of(socket: BorrowedFd<'_>) -> PeerUser {
    let address = |it: SocketAddrAny| SocketAddr::try_from(it).ok().map(canonical);
    let peer = rustix::net::getpeername(socket).ok().flatten().and_then(address);
    let here = rustix::net::getsockname(socket).ok().and_then(address);
    let (Some(peer), Some(here)) = (peer, here) else { return of_unix(socket) };
    let mut is_told = false;
    for table in TABLES {
        let Ok(file) = File::open(table) else { continue };
        is_told = true;
        let mut lines = BufReader::new(file.take(CONNECTION_TABLE_BYTES_MAX)).lines();
        let found = lines.find_map(|line| user_in(&line.ok()?, peer, here));
        if let Some(id) = found {
            return PeerUser::of_id(id);
        }
    }
    if is_told { PeerUser::Another } else { PeerUser::Unknown }
}

#[cfg(target_os = "linux")]
fn of_unix(socket: BorrowedFd<'_>) -> PeerUser {
    rustix::net::sockopt::socket_peercred(socket)
        .map_or(PeerUser::Unknown, |credentials| PeerUser::of_id(credentials.uid.as_raw()))
}

#[cfg(not(target_os = "linux"))]
fn of_unix(_: BorrowedFd<'_>) -> PeerUser {
    PeerUser::Unknown
}

/// The user of the connection from `peer` to `here`, if the line is about that end of it and some
/// process holds it: one that nobody holds any more is listed as root's.
fn user_in(line: &str, peer: SocketAddr, here: SocketAddr) -> Option<u32> {
    let mut fields = line.split_whitespace().skip(1);
    let (from, to) = (address_in(fields.next()?)?, address_in(fields.next()?)?);
    if (from, to) != (peer, here) || fields.next()? != ESTABLISHED {
        return None;
    }
    let user = fields.nth(3)?.parse().ok()?;
    let inode = fields.nth(1)?;
    (inode != "0").then_some(user)
}

/// Reads `0100007F:1F90`: words as the processor has them, in hexadecimal digits.
fn address_in(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| {
        let digits = ip.get(at * 8..at * 8 + 8)?;
        u32::from_str_radix(digits, 16).ok().map(u32::to_ne_bytes)
    };
    let ip = match ip.len() {
        8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
        32 => {
            let words = [word(0)?, word(1)?, word(2)?, word(3)?];
            IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(words.concat()).ok()?))
        }
        _ => return None,
    };
    Some(canonical(SocketAddr::new(ip, port)))
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsFd as _;

    #[test]
    #[cfg(target_os = "linux")]
    fn a_connection_of_this_process_is_its_users_until_it_is_closed() {
        for (listens, connects) in [("127.0.0.1:0", "127.0.0.1"), ("[::]:0", "127.0.0.1")] {
            let listener = TcpListener::bind(listens).unwrap();
            let port = listener.local_addr().unwrap().port();
            let client = TcpStream::connect((connects, port)).unwrap();
            let (served, _) = listener.accept().unwrap();
            assert_eq!(of(served.as_fd()), PeerUser::Own, "{listens}");
            drop(client);
            assert_eq!(of(served.as_fd()), PeerUser::Another, "{listens}");
        }
        let (one, _two) = std::os::unix::net::UnixStream::pair().unwrap();
        assert_eq!(of(one.as_fd()), PeerUser::Own);
    }

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_tells_the_user_of_one_end_while_a_process_holds_it() {
        let (peer, here) =
            ("127.0.0.1:40000".parse().unwrap(), "127.0.0.1:8080".parse().unwrap());
        let line = |ends: &str, state: &str, inode: &str| {
            format!(
                "   3: {ends} {state} 00000000:00000000 00:00000000 00000000  1001        0 \
                 {inode} 1 0000000000000000 20 4 30 10 -1"
            )
        };
        let ends = "0100007F:9C40 0100007F:1F90";
        assert_eq!(user_in(&line(ends, "01", "77"), peer, here), Some(1001));
        assert_eq!(user_in(&line(ends, "01", "0"), peer, here), None, "nobody holds it");
        assert_eq!(user_in(&line(ends, "06", "77"), peer, here), None, "it is over");
        let own_end = "0100007F:1F90 0100007F:9C40";
        assert_eq!(user_in(&line(own_end, "01", "77"), peer, here), None);
        let mapped = "0000000000000000FFFF00000100007F";
        let mapped = format!("{mapped}:9C40 {mapped}:1F90");
        assert_eq!(user_in(&line(&mapped, "01", "77"), peer, here), Some(1001));
        for line in ["", "sl local_address rem_address st", "1: x y 01", "1: 01:1 02:2 01"] {
            assert_eq!(user_in(line, peer, here), None, "{line}");
        }
        assert_eq!(PeerUser::of_id(u32::MAX), PeerUser::Another);
    }
}
