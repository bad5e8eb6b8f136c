//! A client's message without its known quirks (`protocol/quirks.rs`): the revision header, and a
//! body. Tolerated quirks are counted once the client is known.

use std::borrow::Cow;

use crate::http::Head;
use crate::limits::{BATCH_MESSAGES_MAX, JSON_DEPTH_MAX};
use crate::protocol::headers;
use crate::protocol::jsonrpc::{Malformed, Message, RpcError, code};
use crate::protocol::method::Method;
use crate::protocol::modern;
use crate::protocol::quirks::{self, Quirk, Tolerance};
use crate::protocol::raw;
use crate::protocol::revision::{Era, Revision};
use crate::session::Session;
use crate::telemetry;

/// A body: one message, or a batch where the revision has batches.
#[derive(Debug, PartialEq)]
pub enum Body<'a> {
    /// One message.
    One(Message<'a>),
    /// Several messages, some of which may be malformed.
    Batch(Vec<Result<Message<'a>, Malformed>>),
}

/// Reads a body.
///
/// # Errors
/// The fault of the body as a whole.
pub fn read_body(body: &[u8], revision: Option<Revision>) -> Result<Body<'_>, Malformed> {
    let refuse = |code, what: &str| Malformed { id: None, error: RpcError::new(code, what) };
    let text = std::str::from_utf8(body)
        .map_err(|_| refuse(code::PARSE_ERROR, "The body is not UTF-8."))?;
    if raw::is_deeper_than(text, JSON_DEPTH_MAX) {
        return Err(refuse(code::INVALID_REQUEST, "The body nests too deep."));
    }
    if !text.trim_start().starts_with('[') {
        return Message::parse(text).map(Body::One);
    }
    let elements = raw::first_elements(text, BATCH_MESSAGES_MAX + 1).map_err(|error| {
        refuse(code::PARSE_ERROR, &format!("The body is no JSON: {error}."))
    })?;
    if !revision.is_some_and(Revision::allows_batches) {
        return Err(refuse(
            code::INVALID_REQUEST,
            "This revision has no batches; send one message a request.",
        ));
    }
    if elements.is_empty() || elements.len() > BATCH_MESSAGES_MAX {
        let what = format!("A batch holds 1 to {BATCH_MESSAGES_MAX} messages.");
        return Err(refuse(code::INVALID_REQUEST, &what));
    }
    Ok(Body::Batch(elements.into_iter().map(Message::parse).collect()))
}

/// A request's revision header and body.
#[derive(Debug)]
pub(super) struct Posted<'a> {
    pub(super) head: &'a Head,
    /// The revision that the header names, if there is one.
    pub(super) version: Option<&'a str>,
    pub(super) body: Cow<'a, [u8]>,
    pub(super) tolerance: Tolerance,
    /// The tolerated quirks that are not counted yet.
    quirks: Vec<Quirk>,
}

impl<'a> Posted<'a> {
    /// A request that has no body, or none that matters here.
    pub(super) fn head(head: &'a Head, tolerance: Tolerance) -> Posted<'a> {
        let repeated = match tolerance {
            Tolerance::Known => repeated_version(head),
            Tolerance::Nothing => None,
        };
        let version =
            repeated.or_else(|| head.headers.get(headers::PROTOCOL_VERSION).map(str::trim));
        let quirks = if repeated.is_some() { vec![Quirk::HeaderRepeated] } else { Vec::new() };
        Posted { head, version, body: Cow::Borrowed(&[]), tolerance, quirks }
    }

    /// A request with its body.
    pub(super) fn read(head: &'a Head, body: &'a [u8], tolerance: Tolerance) -> Posted<'a> {
        let mut posted = Posted::head(head, tolerance);
        let mended = match (tolerance, std::str::from_utf8(body)) {
            (Tolerance::Known, Ok(text)) => quirks::without_nulls(text),
            (Tolerance::Known, Err(_)) | (Tolerance::Nothing, _) => None,
        };
        posted.body = match mended {
            Some((text, nulls)) => {
                posted.quirks.extend(nulls);
                Cow::Owned(text.into_bytes())
            }
            None => Cow::Borrowed(body),
        };
        posted
    }

    /// True if a POST is a stateless request: then its body declares a revision without sessions
    /// (basic/versioning). A request with a session's id belongs to that session if its body
    /// declares no revision, or one with sessions; without tolerance the header decides.
    pub(super) fn is_modern(&self) -> bool {
        let revision = self.version.and_then(Revision::parse);
        let is_modern_head = revision.is_some_and(|revision| revision.era() == Era::Modern);
        let is_unknown = self.version.is_some() && revision.is_none();
        let has_session = self.head.headers.get(headers::SESSION_ID).is_some();
        let is_session_head = has_session && !is_unknown && !is_modern_head;
        let (is_of_session, may_decide) = match self.tolerance {
            Tolerance::Known => (has_session, modern::may_declare_version(&self.body)),
            Tolerance::Nothing => (false, false),
        };
        if is_session_head && !may_decide {
            return false;
        }
        let Ok(Body::One(Message::Request { method, params, .. })) =
            read_body(&self.body, None)
        else {
            return is_modern_head && !is_of_session;
        };
        // A client that names the newest revision in the header and yet begins a session is a
        // client of sessions.
        let begins_session = Method::parse(&method) == Some(Method::Initialize);
        let Some(declared) = modern::declared_version(params.as_deref()) else {
            return is_modern_head && !begins_session && !is_of_session;
        };
        let era = Revision::parse(&declared).map(Revision::era);
        !is_session_head || era == Some(Era::Modern)
    }

    /// Tolerates a quirk; false if none is tolerated.
    pub(super) fn tolerates(&mut self, quirk: Quirk) -> bool {
        match self.tolerance {
            Tolerance::Known => {
                self.quirks.push(quirk);
                true
            }
            Tolerance::Nothing => false,
        }
    }

    /// Counts the tolerated quirks for the client of a session, or for the one that these
    /// parameters or the head name.
    pub(super) fn count(&mut self, session: Option<&Session>, params: Option<&str>) {
        if self.quirks.is_empty() {
            return;
        }
        let known = session.and_then(|session| session.caller()?.client.clone());
        let named = known.or_else(|| modern::client_name(params));
        let agent = || self.head.headers.get("user-agent");
        telemetry::quirks::tolerated(&self.quirks, named.as_deref().or_else(agent));
        self.quirks.clear();
    }
}

/// The value of the revision header where it stands more than once, always with that value.
fn repeated_version(head: &Head) -> Option<&str> {
    quirks::repeated_value(head.headers.get_all(headers::PROTOCOL_VERSION))
}

/// The first header that stands again though it may stand once, and whose repetition is not
/// tolerated.
pub(super) fn repeated(head: &Head, tolerance: Tolerance) -> Option<&'static str> {
    let names = || head.headers.iter().map(|(name, _)| name);
    let field = headers::repeated(names())?;
    let is_tolerated = match tolerance {
        Tolerance::Known => field == headers::PROTOCOL_VERSION,
        Tolerance::Nothing => false,
    };
    if !is_tolerated || repeated_version(head).is_none() {
        return Some(field);
    }
    headers::repeated(names().filter(|name| !name.eq_ignore_ascii_case(field)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_read_in_their_revision_only() {
        let batch = br#" [{"jsonrpc":"2.0","id":1,"method":"ping"},7]"#;
        let read = read_body(batch, Some(Revision::V2025_03_26)).unwrap();
        assert!(matches!(read, Body::Batch(list) if list[0].is_ok() && list[1].is_err()));
        for revision in [None, Some(Revision::V2025_06_18), Some(Revision::V2025_11_25)] {
            let error = read_body(batch, revision).unwrap_err().error;
            assert_eq!(error.code, code::INVALID_REQUEST);
        }
        assert!(read_body(b"[]", Some(Revision::V2025_03_26)).is_err());
    }

    #[test]
    fn nesting_is_bounded_before_it_is_parsed() {
        let deep = "[".repeat(100_000);
        let error = read_body(deep.as_bytes(), None).unwrap_err().error;
        assert_eq!(error.code, code::INVALID_REQUEST);
    }
}
