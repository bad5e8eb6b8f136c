//! The bytes that a connection has received and its thread has not used yet.

use std::io;
use std::time::Instant;

use super::socket::Socket;

/// Bytes of room that a thread always has. They hold an ordinary head with a small body.
const ROOM_BYTES: usize = 8 * 1024;

/// A buffer that a thread keeps from one connection to the next.
#[derive(Debug)]
pub(crate) struct Input {
    room: Vec<u8>,
    start: usize,
    end: usize,
}

impl Input {
    /// An empty buffer.
    pub(crate) fn new() -> Input {
        Input { room: vec![0; ROOM_BYTES], start: 0, end: 0 }
    }

    /// The received bytes that are not used yet.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.room.get(self.start..self.end).unwrap_or(&[])
    }

    /// True if no received bytes are left.
    pub(crate) fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Marks the first `count` bytes as used.
    pub(crate) fn consume(&mut self, count: usize) {
        self.start = self.end.min(self.start + count);
    }

    /// Forgets all bytes, and gives back any room beyond the usual.
    pub(crate) fn reset(&mut self) {
        (self.start, self.end) = (0, 0);
        if self.room.len() > ROOM_BYTES {
            self.room.truncate(ROOM_BYTES);
            self.room.shrink_to_fit();
        }
    }

    /// Puts bytes back that were taken from the socket beyond a body's end.
    pub(crate) fn put_back(&mut self, bytes: &[u8]) {
        let rest = self.bytes();
        let room = [bytes, rest].concat();
        (self.start, self.end) = (0, room.len());
        self.room = room;
        self.room.resize(self.end.max(ROOM_BYTES), 0);
    }

    /// Waits for bytes until the socket's idle timeout. 0 is the client's end.
    pub(crate) fn fill_idle(&mut self, socket: &Socket) -> io::Result<usize> {
        self.fill(|room| socket.recv_idle(room))
    }

    /// Takes the bytes that have arrived. 0 is the client's end.
    pub(crate) fn fill_now(&mut self, socket: &Socket) -> io::Result<usize> {
        self.fill(|room| socket.recv_now(room))
    }

    /// Waits for bytes until `deadline`. 0 is the client's end.
    pub(crate) fn fill_until(
        &mut self,
        socket: &Socket,
        deadline: Instant,
    ) -> io::Result<usize> {
        self.fill(|room| socket.recv_until(room, deadline))
    }

    fn fill(&mut self, recv: impl FnOnce(&mut [u8]) -> io::Result<usize>) -> io::Result<usize> {
        if self.is_empty() {
            self.reset();
        } else if self.end == self.room.len() && self.start > 0 {
            self.room.copy_within(self.start..self.end, 0);
            (self.start, self.end) = (0, self.end - self.start);
        } else if self.end == self.room.len() {
            self.room.resize(self.room.len() * 2, 0);
        }
        let received = recv(self.room.get_mut(self.end..).unwrap_or(&mut []))?;
        self.end = self.room.len().min(self.end + received);
        Ok(received)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn feed(input: &mut Input, bytes: &[u8]) {
        let mut rest = bytes;
        while !rest.is_empty() {
            let fed = input.fill(|room| {
                let count = room.len().min(rest.len());
                assert!(count > 0, "no room");
                room[..count].copy_from_slice(&rest[..count]);
                Ok(count)
            });
            rest = &rest[fed.unwrap()..];
        }
    }

    #[test]
    fn bytes_stay_in_order_while_the_room_grows_moves_and_shrinks() {
        let mut input = Input::new();
        let long: Vec<u8> =
            (0..3 * ROOM_BYTES).map(|i| u8::try_from(i % 251).unwrap()).collect();
        feed(&mut input, &long[..ROOM_BYTES]);
        input.consume(100);
        feed(&mut input, &long[ROOM_BYTES..]);
        assert_eq!(input.bytes(), &long[100..]);
        input.consume(long.len() - 200);
        input.put_back(b"ab");
        assert_eq!(input.bytes(), [b"ab", &long[long.len() - 100..]].concat());
        input.consume(102);
        feed(&mut input, b"next");
        assert_eq!((input.bytes(), input.room.len()), (&b"next"[..], ROOM_BYTES));
    }
}
