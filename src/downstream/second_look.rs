//! The two looks at a request: at its head, before its body is read, and at the whole, on the same
//! thread. What the first look has found out of an access token is there for the second one: the
//! token's proof is good once, and its text need not be hashed twice.

use std::cell::RefCell;

use super::authentication::Identified;
use crate::http::Head;
use crate::protocol::headers::DPOP;

/// Which of the two looks at a request this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// At its head, before its body is read.
    BeforeBody,
    /// At the whole request.
    Whole,
}

/// A request whose body is awaited, and its sender.
struct Seen {
    facts: String,
    /// The number of the admission that let it in.
    admission: u64,
    sender: Identified,
}

thread_local! {
    /// The request that the first look on this thread has let in, until the second one, or until
    /// the request is aborted.
    static SEEN: RefCell<Option<Seen>> = const { RefCell::new(None) };
}

/// Keeps the sender of a request for the second look at it.
pub(super) fn remember(head: &Head, admission: u64, sender: &Identified) {
    let bytes = facts(head).map(|fact| fact.len() + 1).sum();
    let mut text = String::with_capacity(bytes);
    for fact in facts(head) {
        text.push_str(fact);
        text.push('\n');
    }
    let seen = Seen { facts: text, admission, sender: sender.clone() };
    SEEN.with(|it| *it.borrow_mut() = Some(seen));
}

/// The sender that the first look at this request has found, if that was on this thread and the
/// sender has the same rights by now.
pub(super) fn recall(head: &Head, admission: u64) -> Option<Identified> {
    let seen = SEEN.with(RefCell::take).filter(|seen| is_of(&seen.facts, head))?;
    if seen.admission == admission {
        return Some(seen.sender);
    }
    // A reload has come between the two looks.
    let lease = seen.sender.lease.filter(|lease| lease.is_good())?;
    Some(Identified { principal: lease.present()?, lease: Some(lease) })
}

/// Forgets what the first look has found: the request does not come, and no other one may use its
/// proof.
pub(super) fn forget() {
    SEEN.with(RefCell::take);
}

/// Everything that tells a request with a token from others: no value has the end of a line.
fn facts(head: &Head) -> impl Iterator<Item = &str> {
    let headers = ["host", "authorization"].map(|name| head.headers.get(name));
    let headers = headers.into_iter().map(Option::unwrap_or_default);
    [head.method.as_str(), head.path.as_str()]
        .into_iter()
        .chain(headers)
        .chain(head.headers.get_all(DPOP))
}

fn is_of(text: &str, head: &Head) -> bool {
    let mut left = Some(text);
    for fact in facts(head) {
        let rest = left.and_then(|left| left.strip_prefix(fact));
        left = rest.and_then(|rest| rest.strip_prefix('\n'));
    }
    left == Some("")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Instant;

    use super::*;
    use crate::access::policy::{Lease, Nearness, Principal};
    use crate::http::{Headers, Peer};

    fn head(path: &str, token: &str, proofs: &[&str]) -> Head {
        let mut headers = Headers::default();
        headers.push("Authorization", token);
        proofs.iter().for_each(|proof| headers.push("DPoP", proof));
        let method = "POST".to_owned();
        Head { method, path: path.to_owned(), query: None, headers, peer: Peer::Unix }
    }

    #[test]
    fn a_sender_is_recalled_once_and_for_the_same_request_alone() {
        let sender = Identified::of(Arc::new(Principal::without_key(Nearness::Remote)));
        let seen = head("/mcp", "Bearer a", &["p"]);
        let recalled = |first: &Head, second: &Head| {
            remember(first, 1, &sender);
            let found = recall(second, 1).is_some();
            assert!(recall(first, 1).is_none(), "once is enough");
            found
        };
        assert!(recalled(&seen, &seen));
        for other in [
            head("/mcp/sse", "Bearer a", &["p"]),
            head("/mcp", "Bearer ab", &["p"]),
            head("/mcp", "Bearer", &["p"]),
            head("/mcp", "Bearer a", &["p", "p"]),
            head("/mcp", "Bearer a", &["q"]),
            head("/mcp", "Bearer a", &[]),
        ] {
            assert!(!recalled(&seen, &other), "{other:?}");
            assert!(!recalled(&other, &seen), "{other:?}");
        }
        remember(&seen, 1, &sender);
        forget();
        assert!(recall(&seen, 1).is_none());
        // Whoever has no token is looked at anew after a reload.
        remember(&seen, 1, &sender);
        assert!(recall(&seen, 2).is_none());
    }

    #[derive(Debug)]
    struct Token {
        before: Arc<Principal>,
        after: Option<Arc<Principal>>,
        is_good: bool,
    }

    impl Lease for Token {
        fn principal(&self) -> &Arc<Principal> {
            &self.before
        }

        fn present(&self) -> Option<Arc<Principal>> {
            self.after.clone()
        }

        fn is_good(&self) -> bool {
            self.is_good
        }

        fn ends(&self) -> Instant {
            Instant::now()
        }
    }

    #[test]
    fn a_reload_between_the_two_looks_gives_the_rights_of_then() {
        let (before, after) = (Principal::without_key(Nearness::Local), Nearness::Remote);
        let (before, after) = (Arc::new(before), Arc::new(Principal::without_key(after)));
        let recalled = |after: Option<Arc<Principal>>, is_good| {
            let lease = Token { before: before.clone(), after, is_good };
            let lease: Option<Arc<dyn Lease>> = Some(Arc::new(lease));
            let request = head("/mcp", "Bearer a", &[]);
            remember(&request, 1, &Identified { principal: before.clone(), lease });
            recall(&request, 2).map(|it| it.principal.is_admin)
        };
        assert_eq!(recalled(Some(after.clone()), true), Some(false));
        assert_eq!(recalled(None, true), None);
        assert_eq!(recalled(Some(after), false), None);
    }
}
