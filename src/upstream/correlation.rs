//! Pure: what a message from an upstream means, and which waiting call it belongs to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::CALL_INBOX_MESSAGES_MAX;
use crate::protocol::jsonrpc::{self, Message, RequestId, RpcError, code};
use crate::protocol::method::{Method, notification};
use crate::protocol::raw::{Keeper, Raw, RawObject, elements};

use super::connection::{Trouble, cut};

/// One message as far as the gateway cares.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The answer to a request of ours; without an id where the upstream could not read it.
    Answer { id: Option<u64>, outcome: Result<Raw, RpcError> },
    /// How far the call under this id has come.
    Progress { id: u64, params: Raw },
    /// The list of tools has changed.
    ToolsListChanged,
    /// A request of the upstream's; this is what it is answered.
    Ask { answer: String },
    /// A notification that nobody here wants.
    Other,
    /// No message; the text says why.
    Nonsense(String),
}

/// Reads a text that holds a message, or an array of them (2025-03-26 only, but harmless).
pub(super) fn read(text: &Arc<String>, mut give: impl FnMut(Incoming)) {
    if !text.trim_start().starts_with('[') {
        return give(read_one(text, text));
    }
    match elements(text) {
        Ok(parts) => parts.into_iter().for_each(|part| give(read_one(text, part))),
        Err(error) => give(Incoming::Nonsense(format!("no JSON: {error}"))),
    }
}

/// [`read`], where `keeper` goes with the memory of `text`.
pub(super) fn read_kept(
    text: &Arc<String>,
    keeper: &Option<Keeper>,
    mut give: impl FnMut(Incoming),
) {
    read(text, |mut incoming| {
        if let Incoming::Answer { outcome: Ok(raw), .. }
        | Incoming::Progress { params: raw, .. } = &mut incoming
        {
            raw.keep(keeper);
        }
        give(incoming);
    });
}

fn read_one(buffer: &Arc<String>, text: &str) -> Incoming {
    match Message::parse(text) {
        Ok(Message::Response { id, outcome }) => Incoming::Answer {
            id: id.as_ref().and_then(number),
            outcome: outcome.map(|result| Raw::part_of(buffer, &result)),
        },
        Ok(Message::Request { id, method, .. }) => {
            Incoming::Ask { answer: answer_to(&id, &method) }
        }
        Ok(Message::Notification { method, params }) => match method.as_str() {
            notification::PROGRESS => {
                let token = params.as_deref().and_then(progress_token);
                match (token, params) {
                    (Some(id), Some(params)) => {
                        Incoming::Progress { id, params: Raw::part_of(buffer, &params) }
                    }
                    _ => Incoming::Other,
                }
            }
            notification::TOOLS_LIST_CHANGED => Incoming::ToolsListChanged,
            _ => Incoming::Other,
        },
        Err(malformed) => Incoming::Nonsense(malformed.error.message),
    }
}

/// One of our ids; some servers give a number back as a string.
fn number(id: &RequestId) -> Option<u64> {
    id.as_u64().or_else(|| id.as_json().trim_matches('"').parse().ok())
}

fn progress_token(params: &str) -> Option<u64> {
    let fields = RawObject::parse(params).ok()?;
    number(&RequestId::parse(fields.get("progressToken")?)?)
}

/// What a request of the upstream's is answered: the gateway's own sessions declare no client
/// features, so only `ping` is served.
fn answer_to(id: &RequestId, method: &str) -> String {
    if method == Method::Ping.as_str() {
        return jsonrpc::response(id, "{}");
    }
    let what = format!("The gateway does not serve {:?}.", cut(method));
    jsonrpc::error_response(Some(id), &RpcError::new(code::METHOD_NOT_FOUND, what))
}

/// The id of a response that is too large to be read, from its two ends: it stands near the
/// beginning or near the end, as servers write it.
pub(super) fn id_of_oversized(head: &str, tail: &str) -> Option<u64> {
    let after = |text: &str, at: Option<usize>| -> Option<u64> {
        let rest = text.get(at?..)?.strip_prefix("\"id\"")?.trim_start().strip_prefix(':')?;
        let rest = rest.trim_start();
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        rest.get(..digits)?.parse().ok()
    };
    let result_at = head.find("\"result\"").unwrap_or(head.len());
    let before_result = head.get(..result_at).unwrap_or_default();
    after(before_result, before_result.find("\"id\""))
        .or_else(|| after(tail, tail.rfind("\"id\"")))
}

/// What a waiting call finds in its inbox.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Arrival {
    Progress(Raw),
    Answer(Result<Raw, RpcError>),
    Lost(Trouble),
}

/// The calls that wait for an answer on one link, and whom to wake for each.
#[derive(Debug)]
pub(super) struct Table<W> {
    calls: HashMap<u64, Inbox<W>>,
    lost: Option<Trouble>,
}

#[derive(Debug)]
struct Inbox<W> {
    waker: W,
    arrivals: VecDeque<Arrival>,
}

impl<W> Default for Table<W> {
    fn default() -> Table<W> {
        Table { calls: HashMap::new(), lost: None }
    }
}

impl<W: Clone> Table<W> {
    /// A call begins to wait.
    ///
    /// # Errors
    /// The link is dead already.
    pub(super) fn enter(&mut self, id: u64, waker: W) -> Result<(), Trouble> {
        if let Some(lost) = &self.lost {
            // Whatever was lost before, nothing of this call was sent.
            return Err(Trouble { sent: false, ..lost.clone() });
        }
        self.calls.insert(id, Inbox { waker, arrivals: VecDeque::new() });
        Ok(())
    }

    /// A call no longer waits; what comes for it later is passed over.
    pub(super) fn leave(&mut self, id: u64) {
        self.calls.remove(&id);
    }

    /// Puts an arrival into its call's inbox; gives whom to wake.
    pub(super) fn deliver(&mut self, id: u64, arrival: Arrival) -> Option<W> {
        let inbox = self.calls.get_mut(&id)?;
        if inbox.arrivals.len() >= CALL_INBOX_MESSAGES_MAX {
            // Progress is about now: the oldest is worth least. An answer comes once, so there
            // is always a notice to let go.
            let oldest =
                inbox.arrivals.iter().position(|a| matches!(a, Arrival::Progress(_)))?;
            inbox.arrivals.remove(oldest);
        }
        inbox.arrivals.push_back(arrival);
        Some(inbox.waker.clone())
    }

    /// The next arrival for a call.
    pub(super) fn take(&mut self, id: u64) -> Option<Arrival> {
        self.calls.get_mut(&id)?.arrivals.pop_front()
    }

    /// The link is dead: everybody who waits is told, and nobody may begin to.
    pub(super) fn lose(&mut self, trouble: &Trouble) -> Vec<W> {
        self.lost.get_or_insert_with(|| trouble.clone());
        self.fail_all(trouble)
    }

    /// Everybody who waits now is told; the link goes on.
    pub(super) fn fail_all(&mut self, trouble: &Trouble) -> Vec<W> {
        let mut wakers = Vec::with_capacity(self.calls.len());
        for inbox in self.calls.values_mut() {
            inbox.arrivals.push_back(Arrival::Lost(trouble.clone()));
            wakers.push(inbox.waker.clone());
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::super::connection::Kind;
    use super::*;
    use crate::error::Stage;

    fn all(text: &str) -> Vec<Incoming> {
        let mut got = Vec::new();
        read(&Arc::new(text.to_owned()), |incoming| got.push(incoming));
        got
    }

    #[test]
    fn messages_are_told_apart() {
        let answer = all(r#"{"jsonrpc":"2.0","id":7,"result":{"a":1}}"#);
        let raw = Raw::from_valid(r#"{"a":1}"#.to_owned());
        assert_eq!(answer, [Incoming::Answer { id: Some(7), outcome: Ok(raw) }]);
        let progress = r#"{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":7,"progress":1}}"#;
        assert!(matches!(all(progress)[..], [Incoming::Progress { id: 7, .. }]));
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}"#;
        assert_eq!(all(changed), [Incoming::ToolsListChanged]);
        assert!(matches!(all("hello")[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn a_batch_is_read_message_by_message() {
        let text = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"x"}]"#;
        assert!(matches!(
            all(text)[..],
            [Incoming::Answer { id: Some(1), .. }, Incoming::Other]
        ));
    }

    #[test]
    fn ping_is_answered_and_nothing_else_is_served() {
        let ping = all(r#"{"jsonrpc":"2.0","id":"p","method":"ping"}"#);
        let expected = r#"{"jsonrpc":"2.0","id":"p","result":{}}"#.to_owned();
        assert_eq!(ping, [Incoming::Ask { answer: expected }]);
        let ask = all(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list"}"#);
        assert!(matches!(&ask[..], [Incoming::Ask { answer }] if answer.contains("-32601")));
    }

    #[test]
    fn late_answers_and_strangers_are_passed_over() {
        let mut table = Table::default();
        table.enter(1, "one").unwrap();
        assert_eq!(table.deliver(2, Arrival::Answer(Ok(raw()))), None);
        assert_eq!(table.deliver(1, Arrival::Answer(Ok(raw()))), Some("one"));
        assert_eq!(table.take(1), Some(Arrival::Answer(Ok(raw()))));
        table.leave(1);
        assert_eq!(table.deliver(1, Arrival::Answer(Ok(raw()))), None);
    }

    #[test]
    fn a_full_inbox_lets_its_oldest_notice_go_and_keeps_the_answer() {
        let mut table = Table::default();
        table.enter(1, ()).unwrap();
        for n in 0..=CALL_INBOX_MESSAGES_MAX {
            let notice = Raw::from_valid(n.to_string());
            table.deliver(1, Arrival::Progress(notice));
        }
        table.deliver(1, Arrival::Answer(Ok(raw())));
        let first = table.take(1);
        assert_eq!(first, Some(Arrival::Progress(Raw::from_valid("2".to_owned()))));
        let mut last = None;
        while let Some(arrival) = table.take(1) {
            last = Some(arrival);
        }
        assert_eq!(last, Some(Arrival::Answer(Ok(raw()))));
    }

    #[test]
    fn a_dead_link_fails_all_at_once_and_takes_nobody_on() {
        let mut table = Table::default();
        table.enter(1, "one").unwrap();
        table.enter(2, "two").unwrap();
        let trouble = Trouble::new(Kind::Broke, Stage::Read, "gone");
        let mut woken = table.lose(&Trouble { sent: true, ..trouble.clone() });
        woken.sort_unstable();
        assert_eq!(woken, ["one", "two"]);
        assert!(matches!(table.take(2), Some(Arrival::Lost(lost)) if lost.sent));
        assert_eq!(table.enter(3, "three"), Err(trouble), "it cannot have been sent");
    }

    #[test]
    fn the_id_of_an_oversized_answer_is_found_at_either_end() {
        let head = r#"{"jsonrpc":"2.0","id": 12,"result":{"content":["#;
        assert_eq!(id_of_oversized(head, "x"), Some(12));
        let head = r#"{"result":{"content":[{"id":5"#;
        assert_eq!(id_of_oversized(head, r#"]},"jsonrpc":"2.0","id":13}"#), Some(13));
        assert_eq!(id_of_oversized("xxxx", "yyyy"), None);
    }

    fn raw() -> Raw {
        Raw::from_valid("{}".to_owned())
    }
}
