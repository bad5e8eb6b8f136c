//! Pure: what a server tells on listening streams whose place another one has taken. While both
//! are open it tells most things on both, and what it told before only on the older one; so what
//! comes on an older one is kept until that ends, and told then if no newer one has told it.

use std::collections::HashSet;

use crate::limits::SUPERSEDED_NEWS_MAX;
use crate::protocol::call::{Kind, Notice};
use crate::protocol::raw::RawObject;

use crate::upstream::message::Incoming;

/// What a notification tells of. Told once, it need not be told again: whoever hears it reads
/// anew what it is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Subject {
    List(Kind),
    Resource(String),
}

impl Subject {
    fn of(incoming: &Incoming) -> Option<Subject> {
        match incoming {
            Incoming::ListChanged(kind) => Some(Subject::List(*kind)),
            Incoming::Notice(Notice::ResourceUpdated(params)) => {
                let uri = RawObject::parse(params.get()).ok()?.string("uri").ok()??;
                Some(Subject::Resource(uri))
            }
            Incoming::Notice(_)
            | Incoming::Answer { .. }
            | Incoming::Progress { .. }
            | Incoming::Withdrawn(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. }
            | Incoming::Malformed { .. }
            | Incoming::Nonsense(_) => None,
        }
    }
}

/// The streams, by their numbers.
#[derive(Default)]
pub(crate) struct Superseded {
    streams: HashSet<u64>,
    /// What other streams have told meanwhile; at most [`SUPERSEDED_NEWS_MAX`].
    heard: HashSet<Subject>,
    /// What only these have told; at most [`SUPERSEDED_NEWS_MAX`].
    late: Vec<(u64, Subject, Incoming)>,
}

impl Superseded {
    /// Another stream has taken the place of this one.
    pub(crate) fn enter(&mut self, stream: u64) {
        self.streams.insert(stream);
    }

    /// What came on a stream: given back if it is to be told now.
    pub(crate) fn take(&mut self, stream: u64, incoming: Incoming) -> Option<Incoming> {
        if self.streams.is_empty() {
            return Some(incoming);
        }
        let Some(subject) = Subject::of(&incoming) else { return Some(incoming) };
        if !self.streams.contains(&stream) {
            self.late.retain(|(_, late, _)| *late != subject);
            if self.heard.len() < SUPERSEDED_NEWS_MAX {
                self.heard.insert(subject);
            }
            return Some(incoming);
        }
        if self.heard.contains(&subject) || self.late.iter().any(|(_, it, _)| *it == subject) {
            return None;
        }
        if self.late.len() >= SUPERSEDED_NEWS_MAX {
            return Some(incoming);
        }
        self.late.push((stream, subject, incoming));
        None
    }

    /// A stream has ended: what nobody else has told is to be told now.
    pub(crate) fn leave(&mut self, stream: u64) -> Vec<Incoming> {
        if !self.streams.remove(&stream) {
            return Vec::new();
        }
        let late = std::mem::take(&mut self.late);
        let (ended, rest) = late.into_iter().partition(|(from, ..)| *from == stream);
        self.late = rest;
        if self.streams.is_empty() {
            self.heard.clear();
        }
        let ended: Vec<(u64, Subject, Incoming)> = ended;
        ended.into_iter().map(|(.., incoming)| incoming).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::raw::Raw;

    fn updated(uri: &str) -> Incoming {
        let params = Raw::from_valid(format!(r#"{{"uri":"{uri}"}}"#));
        Incoming::Notice(Notice::ResourceUpdated(params))
    }

    #[test]
    fn what_both_streams_tell_is_told_once() {
        for newer_first in [true, false] {
            let mut superseded = Superseded::default();
            superseded.enter(1);
            let order = if newer_first { [2, 1] } else { [1, 2] };
            let told = order.map(|stream| superseded.take(stream, updated("a:")));
            assert_eq!(told.into_iter().flatten().count(), 1);
            assert!(superseded.leave(1).is_empty());
        }
    }

    #[test]
    fn what_only_the_older_one_tells_is_told_at_its_end() {
        let mut superseded = Superseded::default();
        superseded.enter(1);
        for _ in 0..2 {
            assert_eq!(superseded.take(1, updated("a:")), None);
            assert_eq!(superseded.take(1, Incoming::ListChanged(Kind::Tool)), None);
        }
        let prompts = Incoming::ListChanged(Kind::Prompt);
        assert!(superseded.take(2, prompts).is_some() && superseded.leave(2).is_empty());
        assert_eq!(superseded.leave(1), [updated("a:"), Incoming::ListChanged(Kind::Tool)]);
        // Nothing is left of it.
        assert!(superseded.take(2, updated("a:")).is_some());
        assert!(superseded.heard.is_empty() && superseded.late.is_empty());
    }

    #[test]
    fn what_is_too_much_is_told_at_once() {
        let mut superseded = Superseded::default();
        superseded.enter(1);
        let told = (0..SUPERSEDED_NEWS_MAX + 3)
            .filter(|n| superseded.take(1, updated(&n.to_string())).is_some());
        assert_eq!(told.count(), 3);
    }
}
