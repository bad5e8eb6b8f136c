//! Pure: which waiting call a message from an upstream belongs to.

use std::collections::{HashMap, VecDeque};

use crate::limits::CALL_INBOX_MESSAGES_MAX;
use crate::protocol::call::{CallSink, Notice};
use crate::protocol::jsonrpc::{RequestId, RpcError};
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;

use crate::upstream::failure::Failure;

/// What a waiting call finds in its inbox.
#[derive(Debug)]
pub(crate) enum Arrival {
    Notice(Notice),
    Ask(Question),
    Answer(Result<Raw, RpcError>),
    Lost(Failure),
}

/// Whether a call hears more than what bears its own id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interest {
    /// It has a client behind it.
    Open,
    /// Only log messages: of a modern server, of which it wants them.
    Log,
    /// It is the gateway's own.
    Shut,
}

impl Interest {
    /// On a session of the handshake era.
    pub(crate) fn of(sink: &dyn CallSink) -> Interest {
        if sink.has_client() { Interest::Open } else { Interest::Shut }
    }
}

/// The calls that wait for an answer on one channel, and whom to wake for each.
#[derive(Debug)]
pub(crate) struct Table<W> {
    calls: HashMap<u64, Inbox<W>>,
    lost: Option<Failure>,
}

/// One call's place in the table.
#[derive(Debug)]
pub(crate) struct Inbox<W> {
    waker: W,
    interest: Interest,
    arrivals: VecDeque<Arrival>,
    /// The questions that were put to it, as many as an inbox holds.
    asked: VecDeque<RequestId>,
}

impl<W> Inbox<W> {
    /// Whether log messages of the call may still come, because its answer has not.
    pub(crate) fn still_wants_logs(&self) -> bool {
        self.interest == Interest::Log
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
pub(crate) struct Delivered<W> {
    pub(crate) waker: Option<W>,
    pub(crate) left_over: Option<Arrival>,
}

impl<W: Clone> Table<W> {
    /// A call begins to wait.
    ///
    /// # Errors
    /// The channel is dead already.
    pub(crate) fn enter(
        &mut self,
        id: u64,
        waker: W,
        interest: Interest,
    ) -> Result<(), Failure> {
        if let Some(lost) = &self.lost {
            // Whatever was lost before, nothing of this call was sent.
            return Err(Failure { sent: false, ..lost.clone() });
        }
        let (arrivals, asked) = (VecDeque::new(), VecDeque::new());
        self.calls.insert(id, Inbox { waker, interest, arrivals, asked });
        Ok(())
    }

    /// A call no longer waits; what comes for it later is passed over. What is given back must
    /// be dropped where no lock is held.
    pub(crate) fn leave(&mut self, id: u64) -> Option<Inbox<W>> {
        self.calls.remove(&id)
    }

    /// The call for what names none: the one that was asked what is now withdrawn, or the
    /// newest.
    pub(crate) fn whose(&self, arrival: &Arrival) -> Option<u64> {
        // A call whose answer has come hears no more.
        let hears = |inbox: &Inbox<W>| {
            inbox.interest == Interest::Open
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
    pub(crate) fn only_logged(&self) -> Option<u64> {
        let mut logged = self.calls.iter().filter(|(_, inbox)| inbox.interest == Interest::Log);
        let only = logged.next().map(|(id, _)| *id);
        only.filter(|_| logged.next().is_none())
    }

    /// Puts an arrival into its call's inbox.
    pub(crate) fn deliver(&mut self, id: u64, arrival: Arrival) -> Delivered<W> {
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
            inbox.interest = Interest::Shut;
        }
        inbox.arrivals.push_back(arrival);
        Delivered { waker: Some(inbox.waker.clone()), left_over }
    }

    /// The next arrival for a call.
    pub(crate) fn take(&mut self, id: u64) -> Option<Arrival> {
        self.calls.get_mut(&id)?.arrivals.pop_front()
    }

    /// Whether the channel is dead.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.is_some()
    }

    /// The channel is dead: everybody who waits is told, and nobody may begin to.
    pub(crate) fn lose(&mut self, failure: &Failure) -> Vec<W> {
        self.lost.get_or_insert_with(|| failure.clone());
        self.fail_all(failure)
    }

    /// Everybody who waits now is told; the channel goes on.
    pub(crate) fn fail_all(&mut self, failure: &Failure) -> Vec<W> {
        let mut wakers = Vec::with_capacity(self.calls.len());
        for inbox in self.calls.values_mut() {
            inbox.arrivals.push_back(Arrival::Lost(failure.clone()));
            wakers.push(inbox.waker.clone());
        }
        wakers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;
    use crate::protocol::server_name::ServerName;
    use crate::upstream::failure::FailureKind;

    fn is_answer(arrival: Option<Arrival>) -> bool {
        matches!(arrival, Some(Arrival::Answer(Ok(_))))
    }

    #[test]
    fn late_answers_and_strangers_are_passed_over() {
        let mut table = Table::default();
        table.enter(1, "one", Interest::Open).unwrap();
        assert_eq!(table.deliver(2, Arrival::Answer(Ok(raw()))).waker, None);
        assert_eq!(table.deliver(1, Arrival::Answer(Ok(raw()))).waker, Some("one"));
        assert!(is_answer(table.take(1)));
        table.leave(1);
        assert!(is_answer(table.deliver(1, Arrival::Answer(Ok(raw()))).left_over));
    }

    #[test]
    fn of_several_answers_only_the_first_is_kept() {
        let mut table = Table::default();
        table.enter(1, "one", Interest::Open).unwrap();
        assert!(table.deliver(1, Arrival::Answer(Ok(raw()))).left_over.is_none());
        for _ in 0..3 {
            let again = table.deliver(1, Arrival::Answer(Ok(raw())));
            assert!(again.waker.is_none() && is_answer(again.left_over));
        }
        assert!(is_answer(table.take(1)) && table.take(1).is_none());
    }

    fn progress(n: usize) -> Arrival {
        Arrival::Notice(Notice::Progress(Raw::from_valid(n.to_string())))
    }

    #[test]
    fn a_full_inbox_lets_its_oldest_notice_go_and_keeps_the_answer() {
        let mut table = Table::default();
        table.enter(1, (), Interest::Open).unwrap();
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
        let reply = crate::protocol::question::AnswerTo::new(|_| ());
        let (id, method) = (RequestId::from(id), "roots/list".to_owned());
        let (server, is_of_call) = (server(), false);
        Arrival::Ask(Question { server, id, is_of_call, method, params: None, reply })
    }

    #[test]
    fn an_inbox_full_of_questions_takes_an_answer_but_no_further_question() {
        let mut table = Table::default();
        table.enter(1, (), Interest::Open).unwrap();
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
        table.enter(1, (), Interest::Open).unwrap();
        table.deliver(1, question(7));
        table.enter(2, (), Interest::Open).unwrap();
        table.enter(3, (), Interest::Shut).unwrap();
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
        table.enter(1, "one", Interest::Open).unwrap();
        table.enter(2, "two", Interest::Open).unwrap();
        let failure = Failure::new(FailureKind::Broke, Stage::Read, "gone");
        let mut woken = table.lose(&Failure { sent: true, ..failure.clone() });
        woken.sort_unstable();
        assert_eq!(woken, ["one", "two"]);
        assert!(matches!(table.take(2), Some(Arrival::Lost(lost)) if lost.sent));
        let refused = table.enter(3, "three", Interest::Open);
        assert_eq!(refused, Err(failure), "it cannot have been sent");
    }

    fn raw() -> Raw {
        Raw::from_valid("{}".to_owned())
    }
}
