//! A client's message without its known quirks (`protocol/quirks.rs`): the revision header, and a
//! body. Tolerated quirks are counted once the client is known.

use std::borrow::Cow;

use super::Front;
use super::legacy::dispatch::{self, Body};
use crate::http::Head;
use crate::protocol::headers;
use crate::protocol::jsonrpc::Message;
use crate::protocol::method::Method;
use crate::protocol::modern;
use crate::protocol::quirks::{self, Quirk, Tolerance};
use crate::protocol::revision::{Era, Revision};
use crate::session::Session;
use crate::telemetry;

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
            dispatch::read_body(&self.body, None)
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

impl Front {
    pub(super) fn tolerance(&self) -> Tolerance {
        self.admission().tolerance
    }
}
