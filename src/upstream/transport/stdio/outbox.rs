//! Pure: what waits to be written to a child, in the order in which it came, and whose part of
//! the bounds it takes.

use std::collections::VecDeque;

use crate::fair_shares::Shares;
use crate::limits::{
    CHILD_OUTBOX_BYTES_MAX, CHILD_OUTBOX_MESSAGES_MAX, CHILD_OUTBOX_NOTIFICATION_BYTES_MAX,
    CHILD_OUTBOX_NOTIFICATIONS_MAX, CHILD_OUTBOX_SAID_MAX,
};
use crate::protocol::call::PrincipalId;

/// What a line is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Said {
    /// The request under that id.
    Request(u64),
    /// What the gateway says besides: an answer, a cancellation.
    Message,
    /// What a client tells of its own accord: it takes no place of the others.
    Notification,
}

/// The lines that wait to be written.
pub(crate) struct Outbox {
    lines: VecDeque<Line>,
    /// Bytes of the requests and messages.
    bytes: Shares<PrincipalId>,
    notifications: Shares<PrincipalId>,
    notification_bytes: Shares<PrincipalId>,
    /// The line that was taken out last is not in the pipe yet.
    is_writing: bool,
}

struct Line {
    said: Said,
    text: String,
    charged: Option<PrincipalId>,
    /// What it has taken of the bytes: nothing, if it is larger than those and waits alone.
    n_bytes: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Outbox {
            lines: VecDeque::new(),
            bytes: Shares::new(CHILD_OUTBOX_BYTES_MAX),
            notifications: Shares::new(CHILD_OUTBOX_NOTIFICATIONS_MAX),
            notification_bytes: Shares::new(CHILD_OUTBOX_NOTIFICATION_BYTES_MAX),
            is_writing: false,
        }
    }
}

impl Outbox {
    /// Puts a line behind the others. What is no request takes no more than its part: a child
    /// that asks without end and reads nothing must not keep calls out. False if it has no room.
    pub(crate) fn push(
        &mut self,
        said: Said,
        charged: Option<&PrincipalId>,
        text: String,
    ) -> bool {
        let n_others = self.lines.len().saturating_sub(self.notifications.taken());
        let (is_alone, bytes) = match said {
            Said::Request(_) if n_others >= CHILD_OUTBOX_MESSAGES_MAX => return false,
            Said::Message if n_others >= CHILD_OUTBOX_SAID_MAX => return false,
            Said::Request(_) | Said::Message => (n_others == 0, &mut self.bytes),
            Said::Notification => {
                let is_alone = self.notifications.taken() == 0;
                if self.notifications.may_take_of(charged, 1).is_err() {
                    return false;
                }
                (is_alone, &mut self.notification_bytes)
            }
        };
        let n_bytes = match bytes.take_of(charged, text.len()) {
            Ok(()) => text.len(),
            Err(_) if is_alone => 0,
            Err(_) => return false,
        };
        if said == Said::Notification {
            self.notifications.take_of(charged, 1).ok();
        }
        self.lines.push_back(Line { said, text, charged: charged.cloned(), n_bytes });
        true
    }

    /// The next line to be written.
    pub(crate) fn next(&mut self) -> Option<String> {
        let line = self.remove(0);
        self.is_writing = line.is_some();
        line
    }

    /// Takes a request out that is not needed any more; false if it is too late for that.
    pub(crate) fn take_back(&mut self, id: u64) -> bool {
        let at = self.lines.iter().position(|line| line.said == Said::Request(id));
        at.and_then(|at| self.remove(at)).is_some()
    }

    /// Whether all of it has gone into the pipe.
    pub(crate) fn is_written(&self) -> bool {
        self.lines.is_empty() && !self.is_writing
    }

    /// Lines and bytes that wait.
    pub(crate) fn counts(&self) -> (usize, usize) {
        (self.lines.len(), self.bytes.taken().saturating_add(self.notification_bytes.taken()))
    }

    fn remove(&mut self, at: usize) -> Option<String> {
        let line = self.lines.remove(at)?;
        let charged = line.charged.as_ref();
        match line.said {
            Said::Request(_) | Said::Message => {
                self.bytes.give_back_of(charged, line.n_bytes);
            }
            Said::Notification => {
                self.notifications.give_back_of(charged, 1);
                self.notification_bytes.give_back_of(charged, line.n_bytes);
            }
        }
        Some(line.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::SHARES_MIN;

    fn key(name: &str) -> PrincipalId {
        PrincipalId::Key(name.into())
    }

    fn text(n_bytes: usize) -> String {
        "x".repeat(n_bytes)
    }

    /// How many such lines find room.
    fn fill(
        outbox: &mut Outbox,
        said: Said,
        who: Option<&PrincipalId>,
        n_bytes: usize,
    ) -> usize {
        (0..1000).take_while(|_| outbox.push(said, who, text(n_bytes))).count()
    }

    #[test]
    fn notifications_take_no_place_of_answers_and_each_principal_has_a_part() {
        let mut outbox = Outbox::default();
        let share = CHILD_OUTBOX_NOTIFICATIONS_MAX / SHARES_MIN;
        let (hog, victim) = (key("hog"), key("victim"));
        let n_hog = fill(&mut outbox, Said::Notification, Some(&hog), 10);
        assert_eq!(n_hog, CHILD_OUTBOX_NOTIFICATIONS_MAX - share);
        assert_eq!(fill(&mut outbox, Said::Notification, Some(&victim), 10), share);
        assert_eq!(fill(&mut outbox, Said::Message, None, 10), CHILD_OUTBOX_SAID_MAX);
        assert!(outbox.push(Said::Request(1), Some(&hog), text(10)));
        while outbox.next().is_some() {}
        assert_eq!(outbox.counts(), (0, 0));
        assert!(!outbox.take_back(1));
    }

    #[test]
    fn a_line_that_waits_alone_may_be_large() {
        let mut outbox = Outbox::default();
        let (hog, victim) = (key("hog"), key("victim"));
        let large = CHILD_OUTBOX_BYTES_MAX + 1;
        assert!(outbox.push(Said::Request(1), Some(&hog), text(large)));
        assert!(outbox.push(Said::Request(2), Some(&victim), text(10)));
        assert!(!outbox.push(Said::Request(3), Some(&victim), text(large)));
        let large = CHILD_OUTBOX_NOTIFICATION_BYTES_MAX + 1;
        assert!(outbox.push(Said::Notification, Some(&hog), text(large)));
        assert!(!outbox.push(Said::Notification, Some(&hog), text(large)));
        assert!(outbox.take_back(2) && outbox.take_back(1) && !outbox.is_written());
        assert_eq!(outbox.next().map(|it| it.len()), Some(large));
        assert!(!outbox.is_written());
        assert!(outbox.next().is_none() && outbox.is_written());
    }

    #[test]
    fn large_requests_of_one_leave_room_for_the_others() {
        let mut outbox = Outbox::default();
        let (hog, victim) = (key("hog"), key("victim"));
        let part = CHILD_OUTBOX_BYTES_MAX / 8;
        assert_eq!(fill(&mut outbox, Said::Request(1), Some(&hog), part), 6);
        assert_eq!(fill(&mut outbox, Said::Request(1), Some(&victim), part), 2);
    }
}
