//! The resumable streams of one session, bounded.

use std::sync::{Arc, MutexGuard};
use std::time::Instant;

use super::EncodedEvent;
use super::event_log::{Origin, StreamId};
use super::event_logs::EventLogs;
use super::resumable::{Resumable, random_number};
use crate::limits::RESUMABLE_STREAMS_MAX;
use crate::protocol::call::PrincipalId;
use crate::sync::Mutex;

#[derive(Debug, Default)]
struct List {
    ended: bool,
    /// The streams in the order in which they began or were resumed.
    streams: Vec<Arc<Resumable>>,
}

impl List {
    fn remove(&mut self, stream: &Arc<Resumable>) {
        self.streams.retain(|other| !Arc::ptr_eq(other, stream));
    }

    /// Adds the newest stream. If there are too many, the stream that is least likely to be
    /// missed is forgotten, the oldest of its kind first.
    fn add(&mut self, stream: Arc<Resumable>) {
        while self.streams.len() >= RESUMABLE_STREAMS_MAX {
            let ranked = self.streams.iter().min_by_key(|stream| rank(stream)).cloned();
            let Some(least) = ranked else { break };
            // A call goes on without its stream; a listening client would wait for ever.
            if least.id().origin == Origin::Get {
                least.close();
            }
            self.remove(&least);
        }
        self.streams.push(stream);
    }
}

/// How much a stream would be missed: a complete one least, then a GET whose client has gone,
/// then a call in flight (which merely cannot be resumed then), then a GET with a client.
fn rank(stream: &Resumable) -> u8 {
    match stream.id().origin {
        _ if stream.is_complete() => 0,
        Origin::Get if !stream.has_open_sink() => 1,
        Origin::Post => 2,
        Origin::Get => 3,
    }
}

/// The streams that a session remembers. Locks are taken in this order: the list's, a stream's, a
/// sink's. None of them is held while a socket is written, since sinks only queue.
#[derive(Debug)]
pub struct KeptStreams {
    /// The principal in whose share of all logs the streams count.
    holder: PrincipalId,
    list: Mutex<List>,
}

impl KeptStreams {
    /// No streams yet, for this principal.
    pub(super) fn of(holder: PrincipalId) -> KeptStreams {
        KeptStreams { holder, list: Mutex::default() }
    }

    fn list(&self) -> MutexGuard<'_, List> {
        self.list.lock()
    }

    /// Begins a stream. None if no events are kept; then events have no ids.
    pub fn begin(&self, origin: Origin, logs: &EventLogs) -> Option<Arc<Resumable>> {
        if logs.are_off() {
            return None;
        }
        let id = StreamId { origin, number: random_number().ok()? };
        let stream = Arc::new(match origin {
            Origin::Post => Resumable::answering(id, &self.holder, logs),
            Origin::Get => Resumable::listening(id, &self.holder, logs),
        });
        let mut list = self.list();
        if list.ended {
            stream.close();
        } else {
            list.add(stream.clone());
        }
        Some(stream)
    }

    /// The stream of that id, if it belongs to this session and is remembered.
    pub fn find(&self, id: StreamId) -> Option<Arc<Resumable>> {
        self.list().streams.iter().find(|stream| stream.id() == id).cloned()
    }

    /// Makes a resumed stream the newest. The list may have forgotten it since it was found.
    pub fn renew(&self, stream: &Arc<Resumable>) {
        let mut list = self.list();
        list.remove(stream);
        if list.ended {
            stream.close();
        } else {
            list.add(stream.clone());
        }
    }

    /// Forgets a stream that no client has a use for.
    pub fn forget(&self, stream: &Arc<Resumable>) {
        self.list().remove(stream);
    }

    /// Sends one encoded event on the newest GET stream with a client. If there is none, the
    /// event is kept for the client that resumes the newest. False if there has been no GET
    /// stream.
    pub(super) fn tell(&self, event: &EncodedEvent) -> bool {
        let stream = {
            let list = self.list();
            let listeners =
                || list.streams.iter().rev().filter(|s| s.id().origin == Origin::Get);
            listeners().find(|s| s.has_open_sink()).or_else(|| listeners().next()).cloned()
        };
        stream.map(|stream| stream.push(event, None)).is_some()
    }

    /// Ends the connections of GET streams; the streams are kept.
    pub(super) fn close_listeners(&self) {
        let list = self.list();
        let listeners = list.streams.iter().filter(|s| s.id().origin == Origin::Get);
        listeners.for_each(|stream| stream.close());
    }

    /// True if a client is connected to one of the streams, other than by a POST that is being
    /// answered.
    pub(super) fn any_open(&self) -> bool {
        self.list().streams.iter().any(|stream| stream.has_open_sink())
    }

    /// Forgets streams that have been complete for long.
    pub(super) fn sweep(&self, now: Instant) {
        self.list().streams.retain(|stream| !stream.is_over(now));
    }

    /// Ends all streams with their session.
    pub(super) fn end(&self) {
        let streams = {
            let mut list = self.list();
            list.ended = true;
            std::mem::take(&mut list.streams)
        };
        streams.iter().for_each(|stream| stream.close());
    }
}

#[cfg(test)]
mod tests {
    use super::super::EventSink;
    use super::super::resumable::tests::{Sink, logs};
    use super::*;
    use crate::limits::RESUMABLE_STREAM_LIFE;

    fn begin(kept: &KeptStreams, origin: Origin) -> Arc<Resumable> {
        kept.begin(origin, &logs(10, 1000)).unwrap()
    }

    fn event(text: &str) -> EncodedEvent {
        EncodedEvent::from(format!("{text}\n"))
    }

    fn listen(kept: &KeptStreams) -> (Arc<Resumable>, Arc<Sink>) {
        let (stream, sink) = (begin(kept, Origin::Get), Arc::new(Sink::default()));
        stream.attach(sink.clone(), b"", 0);
        (stream, sink)
    }

    fn is_kept(kept: &KeptStreams, stream: &Arc<Resumable>) -> bool {
        kept.find(stream.id()).is_some()
    }

    #[test]
    fn a_notice_goes_to_the_newest_live_listener_or_waits_for_the_newest() {
        let kept = KeptStreams::of(PrincipalId::Session("s".into()));
        let _call = begin(&kept, Origin::Post);
        assert!(!kept.tell(&event("nobody")));
        let ((_, first), (newest, second)) = (listen(&kept), listen(&kept));
        assert!(kept.tell(&event("a")));
        second.hang_up();
        assert!(kept.tell(&event("b")));
        first.hang_up();
        assert!(!kept.any_open());
        assert!(kept.tell(&event("c")));
        assert_eq!((first.text(), second.text()), ("b".to_owned(), "a".to_owned()));
        let third = Arc::new(Sink::default());
        kept.renew(&newest);
        newest.attach(third.clone(), b"", 1);
        assert_eq!(third.text(), "c");
        assert!(kept.any_open());
    }

    #[test]
    fn the_bound_costs_the_stream_that_is_missed_least() {
        let kept = KeptStreams::of(PrincipalId::Session("s".into()));
        let (live, sink) = listen(&kept);
        let (gone, gone_sink) = listen(&kept);
        gone_sink.hang_up();
        let calls: Vec<_> =
            (2..RESUMABLE_STREAMS_MAX).map(|_| begin(&kept, Origin::Post)).collect();
        let (early, late) = (&calls[1], &calls[3]);
        late.complete();
        early.complete();
        let kept_ones = |n: usize| {
            (0..n).for_each(|_| _ = begin(&kept, Origin::Post));
            [&live, &gone, &calls[0], early, late].map(|stream| is_kept(&kept, stream))
        };
        assert_eq!(kept_ones(0), [true, true, true, true, true]);
        assert_eq!(kept_ones(1), [true, true, true, false, true]);
        assert_eq!(kept_ones(1), [true, true, true, false, false]);
        assert_eq!(kept_ones(1), [true, false, true, false, false]);
        assert_eq!(kept_ones(1), [true, false, false, false, false]);
        assert!(kept_ones(2 * RESUMABLE_STREAMS_MAX)[0]);
        assert!(sink.is_open());
        (0..RESUMABLE_STREAMS_MAX).for_each(|_| _ = listen(&kept));
        assert!(!is_kept(&kept, &live) && !sink.is_open());
    }

    #[test]
    fn a_complete_stream_is_forgotten_at_its_time_and_not_before() {
        let kept = KeptStreams::of(PrincipalId::Session("s".into()));
        let (done, running) = (begin(&kept, Origin::Post), begin(&kept, Origin::Post));
        let before = Instant::now();
        done.complete();
        let after = Instant::now();
        let almost = RESUMABLE_STREAM_LIFE - std::time::Duration::from_millis(1);
        kept.sweep(before + almost);
        assert!(is_kept(&kept, &done));
        kept.sweep(after + RESUMABLE_STREAM_LIFE);
        assert!(!is_kept(&kept, &done) && is_kept(&kept, &running));
        kept.forget(&running);
        assert!(!is_kept(&kept, &running));
    }

    #[test]
    fn with_the_session_every_stream_ends_and_none_begins() {
        let kept = KeptStreams::of(PrincipalId::Session("s".into()));
        let (stream, sink) = listen(&kept);
        kept.end();
        assert!(!sink.is_open());
        let (late, late_sink) = listen(&kept);
        assert!(!late_sink.is_open() && !is_kept(&kept, &late) && !is_kept(&kept, &stream));
        assert!(!kept.tell(&event("a")));
    }

    #[test]
    fn nothing_begins_where_nothing_is_kept() {
        let kept = KeptStreams::of(PrincipalId::Session("s".into()));
        assert!(kept.begin(Origin::Get, &logs(0, 1)).is_none());
        assert!(kept.begin(Origin::Post, &logs(1, 0)).is_none());
    }
}
