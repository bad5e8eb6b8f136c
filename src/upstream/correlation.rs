//! Pure: what a message from an upstream means, and which waiting call it belongs to.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::limits::{CALL_INBOX_MESSAGES_MAX, JSON_DEPTH_MAX, UPSTREAM_BATCH_MESSAGES_MAX};
use crate::protocol::call::{CallSink, Kind, Notice, Question};
use crate::protocol::from_server::is_understood;
use crate::protocol::jsonrpc::{self, Message, RequestId, RpcError};
use crate::protocol::method::notification;
use crate::protocol::raw::{Keeper, Raw, RawObject, is_deeper_than};

use super::connection::Trouble;

/// One message as far as the gateway cares.
#[derive(Debug, PartialEq)]
pub(super) enum Incoming {
    /// The answer to a request of ours; without an id where the upstream could not read it.
    Answer { id: Option<u64>, outcome: Result<Raw, RpcError> },
    /// How far the call under this id has come.
    Progress { id: u64, params: Raw },
    /// The lists of this kind have changed; [`Kind::Resource`] stands for templates too.
    ListChanged(Kind),
    /// It no longer wants an answer to its request of that id.
    Withdrawn(RequestId),
    /// Any other notification.
    Notice(Notice),
    /// A notification that the specification knows and that is not what its name says.
    Misread { method: String },
    /// A request of the upstream's.
    Ask { id: RequestId, method: String, params: Option<Raw> },
    /// Meant as the answer to a request of ours, and none; the text says why, and quotes nothing
    /// of it.
    Malformed { id: u64, what: String },
    /// No message; the text says why.
    Nonsense(String),
}

/// Reads a text that holds a message, or an array of them (2025-03-26 only, but harmless). Costs
/// a few passes over the text, whatever it holds.
pub(super) fn read(text: &Arc<String>, mut give: impl FnMut(Incoming)) {
    if text.trim_start().starts_with('[') {
        return match jsonrpc::batch(text, UPSTREAM_BATCH_MESSAGES_MAX) {
            Ok(parts) => parts.into_iter().for_each(|part| give(read_one(text, part))),
            Err(what) => give(Incoming::Nonsense(what)),
        };
    }
    if is_deeper_than(text, JSON_DEPTH_MAX) {
        let what = format!("it is nested deeper than {JSON_DEPTH_MAX} levels");
        return give(unreadable(text, what));
    }
    give(read_one(text, text));
}

/// [`read`], where `keeper` goes with the memory of `text`.
pub(super) fn read_kept(
    text: &Arc<String>,
    keeper: &Option<Keeper>,
    mut give: impl FnMut(Incoming),
) {
    read(text, |mut incoming| {
        if let Incoming::Answer { outcome: Ok(raw), .. }
        | Incoming::Progress { params: raw, .. }
        | Incoming::Ask { params: Some(raw), .. }
        | Incoming::Notice(
            Notice::Progress(raw)
            | Notice::Log(raw)
            | Notice::ResourceUpdated(raw)
            | Notice::Other { params: Some(raw), .. },
        ) = &mut incoming
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
        Ok(Message::Request { id, method, params }) => {
            let params = params.map(|params| Raw::part_of(buffer, &params));
            Incoming::Ask { id, method, params }
        }
        Ok(Message::Notification { method, params }) => {
            let params = params.map(|params| Raw::part_of(buffer, &params));
            read_notification(method, params)
        }
        Err(malformed) => match malformed.id.as_ref().and_then(number) {
            // Not a request of the upstream's, whose ids are its own.
            Some(id) if RawObject::parse(text).is_ok_and(|it| it.get("method").is_none()) => {
                Incoming::Malformed { id, what: malformed.error.message }
            }
            _ => unreadable(text, malformed.error.message),
        },
    }
}

/// A text that cannot be read as a message.
fn unreadable(text: &str, what: String) -> Incoming {
    match id_of_unreadable(text) {
        Some(id) => Incoming::Malformed { id, what },
        None => Incoming::Nonsense(what),
    }
}

/// The id of what was meant as a response, and is no JSON or is nested too deep: it stands before
/// the result or the error, or behind it, at the very end.
pub(super) fn id_of_unreadable(text: &str) -> Option<u64> {
    let text = text.trim();
    if !text.starts_with('{') || !text.contains("\"jsonrpc\"") {
        return None;
    }
    let at = ["\"result\"", "\"error\""].into_iter().filter_map(|key| text.find(key)).min()?;
    let head = text.get(..at)?;
    if head.contains("\"method\"") {
        return None;
    }
    let digits = |at: usize| -> Option<(u64, &str)> {
        let rest = text.get(at..)?.strip_prefix("\"id\"")?.trim_start().strip_prefix(':')?;
        let rest = rest.trim_start();
        let n = rest.bytes().take_while(u8::is_ascii_digit).count();
        Some((rest.get(..n)?.parse().ok()?, rest.get(n..)?))
    };
    let before = head.find("\"id\"").and_then(digits);
    let behind = || {
        let last = text.rfind("\"id\"").and_then(digits);
        last.filter(|(_, rest)| rest.split_whitespace().eq(["}"]))
    };
    before.or_else(behind).map(|(id, _)| id)
}

fn read_notification(method: String, params: Option<Raw>) -> Incoming {
    let changed = [Kind::Tool, Kind::Prompt, Kind::Resource];
    if let Some(kind) = changed.into_iter().find(|kind| kind.changed() == method) {
        return Incoming::ListChanged(kind);
    }
    // The commonest one is read once.
    if method == notification::PROGRESS {
        let id = params.as_ref().and_then(|params| progress_token(params.get()));
        return match (id, params) {
            (Some(id), Some(params)) => Incoming::Progress { id, params },
            (_, _) => Incoming::Misread { method },
        };
    }
    if !is_understood(&method, params.as_ref().map(Raw::get)) {
        return Incoming::Misread { method };
    }
    let Some(params) = params else {
        return Incoming::Notice(Notice::Other { method, params: None });
    };
    match method.as_str() {
        notification::MESSAGE => Incoming::Notice(Notice::Log(params)),
        notification::RESOURCES_UPDATED => Incoming::Notice(Notice::ResourceUpdated(params)),
        notification::CANCELLED => match withdrawn(params.get()) {
            Some(id) => Incoming::Withdrawn(id),
            None => Incoming::Misread { method },
        },
        _ => Incoming::Notice(Notice::Other { method, params: Some(params) }),
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

/// The request that the upstream takes back.
fn withdrawn(params: &str) -> Option<RequestId> {
    RequestId::parse(RawObject::parse(params).ok()?.get("requestId")?)
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
#[derive(Debug)]
pub(super) enum Arrival {
    Notice(Notice),
    Ask(Question),
    Answer(Result<Raw, RpcError>),
    Lost(Trouble),
}

/// Whether a call hears more than what bears its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ears {
    /// It has a client behind it.
    Open,
    /// Only log messages: of a modern server, of which it wants them.
    Log,
    /// It is the gateway's own.
    Shut,
}

impl Ears {
    /// On a session of the handshake era.
    pub(super) fn of(sink: &dyn CallSink) -> Ears {
        if sink.has_client() { Ears::Open } else { Ears::Shut }
    }
}

/// The calls that wait for an answer on one link, and whom to wake for each.
#[derive(Debug)]
pub(super) struct Table<W> {
    calls: HashMap<u64, Inbox<W>>,
    lost: Option<Trouble>,
}

/// One call's place in the table.
#[derive(Debug)]
pub(super) struct Inbox<W> {
    waker: W,
    ears: Ears,
    arrivals: VecDeque<Arrival>,
    /// The questions that were put to it, as many as an inbox holds.
    asked: VecDeque<RequestId>,
}

impl<W> Inbox<W> {
    /// Whether log messages of the call may still come, because its answer has not.
    pub(super) fn still_wants_logs(&self) -> bool {
        self.ears == Ears::Log
    }
}

impl<W> Default for Table<W> {
    fn default() -> Table<W> {
        Table { calls: HashMap::new(), lost: None }
    }
}

/// What came of a delivery. What is left over may hold a question, and must be dropped where no
/// lock is held.
#[derive(Debug)]
pub(super) struct Delivered<W> {
    pub(super) waker: Option<W>,
    pub(super) left_over: Option<Arrival>,
}

impl<W: Clone> Table<W> {
    /// A call begins to wait.
    ///
    /// # Errors
    /// The link is dead already.
    pub(super) fn enter(&mut self, id: u64, waker: W, ears: Ears) -> Result<(), Trouble> {
        if let Some(lost) = &self.lost {
            // Whatever was lost before, nothing of this call was sent.
            return Err(Trouble { sent: false, ..lost.clone() });
        }
        let (arrivals, asked) = (VecDeque::new(), VecDeque::new());
        self.calls.insert(id, Inbox { waker, ears, arrivals, asked });
        Ok(())
    }

    /// A call no longer waits; what comes for it later is passed over. What is given back must
    /// be dropped where no lock is held.
    pub(super) fn leave(&mut self, id: u64) -> Option<Inbox<W>> {
        self.calls.remove(&id)
    }

    /// The call for what names none: the one that was asked what is now withdrawn, or the
    /// newest.
    pub(super) fn whose(&self, arrival: &Arrival) -> Option<u64> {
        // A call whose answer has come hears no more.
        let hears = |inbox: &Inbox<W>| {
            inbox.ears == Ears::Open
                && !matches!(inbox.arrivals.back(), Some(Arrival::Answer(_) | Arrival::Lost(_)))
        };
        let open = || self.calls.iter().filter(|(_, inbox)| hears(inbox));
        if let Arrival::Notice(Notice::Withdrawn { id: question, .. }) = arrival
            && let Some((id, _)) = open().find(|(_, inbox)| inbox.asked.contains(question))
        {
            return Some(*id);
        }
        open().map(|(id, _)| *id).max()
    }

    /// The one call that wants log messages, if there is no other.
    pub(super) fn only_logged(&self) -> Option<u64> {
        let mut logged = self.calls.iter().filter(|(_, inbox)| inbox.ears == Ears::Log);
        let only = logged.next().map(|(id, _)| *id);
        only.filter(|_| logged.next().is_none())
    }

    /// Puts an arrival into its call's inbox.
    pub(super) fn deliver(&mut self, id: u64, arrival: Arrival) -> Delivered<W> {
        let Some(inbox) = self.calls.get_mut(&id) else {
            return Delivered { waker: None, left_over: Some(arrival) };
        };
        // Of several answers the first counts, and nothing after it can be told.
        if matches!(inbox.arrivals.back(), Some(Arrival::Answer(_) | Arrival::Lost(_))) {
            return Delivered { waker: None, left_over: Some(arrival) };
        }
        let mut left_over = None;
        if inbox.arrivals.len() >= CALL_INBOX_MESSAGES_MAX {
            // Notices are about now: the oldest is worth least. An answer comes once, so only
            // where an inbox is full of questions there is nothing to let go but another one.
            let notice = |arrival: &Arrival| matches!(arrival, Arrival::Notice(_));
            match inbox.arrivals.iter().position(notice) {
                Some(oldest) => left_over = inbox.arrivals.remove(oldest),
                None if matches!(arrival, Arrival::Ask(_) | Arrival::Notice(_)) => {
                    return Delivered { waker: None, left_over: Some(arrival) };
                }
                None => (),
            }
        }
        if let Arrival::Ask(question) = &arrival {
            if inbox.asked.len() >= CALL_INBOX_MESSAGES_MAX {
                inbox.asked.pop_front();
            }
            inbox.asked.push_back(question.id.clone());
        }
        if matches!(arrival, Arrival::Answer(_) | Arrival::Lost(_)) {
            // Nothing can be said to this call any more.
            inbox.ears = Ears::Shut;
        }
        inbox.arrivals.push_back(arrival);
        Delivered { waker: Some(inbox.waker.clone()), left_over }
    }

    /// The next arrival for a call.
    pub(super) fn take(&mut self, id: u64) -> Option<Arrival> {
        self.calls.get_mut(&id)?.arrivals.pop_front()
    }

    /// Whether the link is dead.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.is_some()
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
    use super::super::connection::Kind as Failing;
    use super::*;
    use crate::error::Stage;
    use crate::protocol::server_name::ServerName;

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
        assert_eq!(all(changed), [Incoming::ListChanged(Kind::Tool)]);
        assert!(matches!(all("hello")[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn a_malformed_answer_is_known_by_its_id() {
        let id = |text: &str| match all(text).remove(0) {
            Incoming::Malformed { id, what } => {
                assert!(!what.contains("secret"), "{what}");
                Some(id)
            }
            Incoming::Nonsense(_) => None,
            Incoming::Answer { .. }
            | Incoming::Progress { .. }
            | Incoming::ListChanged(_)
            | Incoming::Withdrawn(_)
            | Incoming::Notice(_)
            | Incoming::Misread { .. }
            | Incoming::Ask { .. } => panic!("{text}"),
        };
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"error":"secret"}"#,
            r#"{"jsonrpc":"2.0","id":"7","error":"secret"}"#,
            r#"{"jsonrpc":"2.0","id":7,"error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"x":NaN,"y":"secret"}}"#,
            r#"{"jsonrpc":"2.0","result":{"id":9,"y":secret},"id": 7 }"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{"y":"secret"#,
            r#"{"jsonrpc":"2.0","id":7,"result":{},"error":{"code":1,"message":"secret"}}"#,
            r#"{"jsonrpc":"2.0","id":7}"#,
            r#"{"id":7,"result":{}}"#,
            &format!(r#"{{"jsonrpc":"2.0","id":7,"result":{}}}"#, "[".repeat(100_000)),
        ] {
            assert_eq!(id(text), Some(7), "{text:.100}");
        }
        for text in [
            r#"{"jsonrpc":"2.0","id":7,"method":"x","params":[]}"#,
            r#"{"jsonrpc":"2.0","id":7,"method":"x","params":{"result":NaN}}"#,
            r#"{"jsonrpc":"2.0","error":{"code":1}}"#,
            r#"{"jsonrpc":"2.0","result":{"x":NaN,"id":7}}"#,
            r#"{"level":"info","id":7,"msg":"#,
            "Listening on 7",
        ] {
            assert_eq!(id(text), None, "{text}");
        }
    }

    #[test]
    fn a_batch_is_read_message_by_message() {
        let text = r#"[{"jsonrpc":"2.0","id":1,"result":{}},{"jsonrpc":"2.0","method":"x"}]"#;
        assert!(matches!(
            all(text)[..],
            [Incoming::Answer { id: Some(1), .. }, Incoming::Notice(Notice::Other { .. })]
        ));
        assert!(matches!(all("[0,0,0]")[..], [Incoming::Nonsense(_)]));
    }

    #[test]
    fn notifications_are_told_apart() {
        let notice = |method: &str, params: &str| {
            let text = format!(r#"{{"jsonrpc":"2.0","method":"{method}","params":{params}}}"#);
            let first = all(&text).remove(0);
            let Incoming::Notice(notice) = first else { panic!("{first:?}") };
            notice
        };
        assert!(matches!(notice("notifications/message", "{}"), Notice::Log(_)));
        let updated = notice("notifications/resources/updated", r#"{"uri":"a:b"}"#);
        assert!(matches!(updated, Notice::ResourceUpdated(_)));
        let withdrawn = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q"}}"#;
        assert_eq!(all(withdrawn), [Incoming::Withdrawn(RequestId::parse("\"q\"").unwrap())]);
        assert!(matches!(notice("notifications/x", "{}"), Notice::Other { .. }));
        let changed = r#"{"jsonrpc":"2.0","method":"notifications/resources/list_changed"}"#;
        assert_eq!(all(changed), [Incoming::ListChanged(Kind::Resource)]);
    }

    #[test]
    fn a_request_is_kept_as_it_is() {
        let ask = all(r#"{"jsonrpc":"2.0","id":1,"method":"roots/list","params":{"a":1}}"#);
        let params = Some(Raw::from_valid(r#"{"a":1}"#.to_owned()));
        let (id, method) = (RequestId::from(1), "roots/list".to_owned());
        assert_eq!(ask, [Incoming::Ask { id, method, params }]);
    }

    fn is_answer(arrival: Option<Arrival>) -> bool {
        matches!(arrival, Some(Arrival::Answer(Ok(_))))
    }

    #[test]
    fn late_answers_and_strangers_are_passed_over() {
        let mut table = Table::default();
        table.enter(1, "one", Ears::Open).unwrap();
        assert_eq!(table.deliver(2, Arrival::Answer(Ok(raw()))).waker, None);
        assert_eq!(table.deliver(1, Arrival::Answer(Ok(raw()))).waker, Some("one"));
        assert!(is_answer(table.take(1)));
        table.leave(1);
        assert!(is_answer(table.deliver(1, Arrival::Answer(Ok(raw()))).left_over));
    }

    #[test]
    fn of_several_answers_only_the_first_is_kept() {
        let mut table = Table::default();
        table.enter(1, "one", Ears::Open).unwrap();
        assert!(table.deliver(1, Arrival::Answer(Ok(raw()))).left_over.is_none());
        for _ in 0..3 {
            let again = table.deliver(1, Arrival::Answer(Ok(raw())));
            assert!(again.waker.is_none() && is_answer(again.left_over));
        }
        assert!(is_answer(table.take(1)) && table.take(1).is_none());
    }

    #[test]
    fn what_is_nested_too_deep_is_no_message() {
        let deep = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        let answer =
            |n: usize| format!(r#"{{"jsonrpc":"2.0","id":1,"result":{{"x":{}}}}}"#, deep(n));
        assert!(matches!(all(&answer(JSON_DEPTH_MAX - 2))[..], [Incoming::Answer { .. }]));
        assert!(matches!(all(&answer(200_000))[..], [Incoming::Malformed { id: 1, .. }]));
        assert!(matches!(all(&deep(200_000))[..], [Incoming::Nonsense(_)]));
    }

    fn progress(n: usize) -> Arrival {
        Arrival::Notice(Notice::Progress(Raw::from_valid(n.to_string())))
    }

    #[test]
    fn a_full_inbox_lets_its_oldest_notice_go_and_keeps_the_answer() {
        let mut table = Table::default();
        table.enter(1, (), Ears::Open).unwrap();
        for n in 0..=CALL_INBOX_MESSAGES_MAX {
            table.deliver(1, progress(n));
        }
        table.deliver(1, Arrival::Answer(Ok(raw())));
        match table.take(1) {
            Some(Arrival::Notice(Notice::Progress(two))) => assert_eq!(two.get(), "2"),
            other => panic!("{other:?}"),
        }
        let mut last = None;
        while let Some(arrival) = table.take(1) {
            last = Some(arrival);
        }
        assert!(is_answer(last));
    }

    fn server() -> ServerName {
        ServerName::parse("s").unwrap()
    }

    fn question(id: u64) -> Arrival {
        let reply = crate::protocol::call::AnswerTo::new(|_| ());
        let (id, method) = (RequestId::from(id), "roots/list".to_owned());
        let (server, is_of_call) = (server(), false);
        Arrival::Ask(Question { server, id, is_of_call, method, params: None, reply })
    }

    #[test]
    fn an_inbox_full_of_questions_takes_an_answer_but_no_further_question() {
        let mut table = Table::default();
        table.enter(1, (), Ears::Open).unwrap();
        for n in 0..CALL_INBOX_MESSAGES_MAX {
            assert!(table.deliver(1, question(n.try_into().unwrap())).left_over.is_none());
        }
        assert!(table.deliver(1, question(0)).left_over.is_some());
        assert!(table.deliver(1, progress(0)).left_over.is_some());
        assert!(table.deliver(1, Arrival::Answer(Ok(raw()))).left_over.is_none());
    }

    #[test]
    fn what_names_no_call_is_for_the_newest_that_listens() {
        let mut table = Table::default();
        assert_eq!(table.whose(&question(1)), None);
        table.enter(1, (), Ears::Open).unwrap();
        table.deliver(1, question(7));
        table.enter(2, (), Ears::Open).unwrap();
        table.enter(3, (), Ears::Shut).unwrap();
        assert_eq!(table.whose(&question(8)), Some(2));
        let withdrawn = |id: u64| {
            Arrival::Notice(Notice::Withdrawn { server: server(), id: RequestId::from(id) })
        };
        assert_eq!(table.whose(&withdrawn(7)), Some(1));
        assert_eq!(table.whose(&withdrawn(9)), Some(2));
        table.deliver(2, Arrival::Answer(Ok(raw())));
        assert_eq!(table.whose(&question(8)), Some(1));
    }

    #[test]
    fn a_dead_link_fails_all_at_once_and_takes_nobody_on() {
        let mut table = Table::default();
        table.enter(1, "one", Ears::Open).unwrap();
        table.enter(2, "two", Ears::Open).unwrap();
        let trouble = Trouble::new(Failing::Broke, Stage::Read, "gone");
        let mut woken = table.lose(&Trouble { sent: true, ..trouble.clone() });
        woken.sort_unstable();
        assert_eq!(woken, ["one", "two"]);
        assert!(matches!(table.take(2), Some(Arrival::Lost(lost)) if lost.sent));
        let refused = table.enter(3, "three", Ears::Open);
        assert_eq!(refused, Err(trouble), "it cannot have been sent");
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
