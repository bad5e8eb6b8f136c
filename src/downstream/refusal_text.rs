//! Pure: parts of the texts and bodies of refusals.

use crate::error::{HttpRefusal, RetryAfter};
use crate::limits::FOREIGN_CHARS_MAX;
use crate::telemetry::redact;

/// The text for a foreign `Host` or `Origin`, with the key that admits it. Where a proxy has
/// passed the request on, `public_url` is needed: with `allowed_hosts` alone clients would be
/// told paths that are not the proxy's.
pub(super) fn foreign_message(header: &str, sent: Option<&str>, key: &str) -> String {
    let sent = sent.map(|it| redact::excerpt(it, FOREIGN_CHARS_MAX));
    let is = sent.map_or_else(|| "is missing".to_owned(), |it| format!("{it:?} is foreign"));
    let public = if key == "admin_listen" {
        ""
    } else {
        ". Behind a proxy, set \"public_url\" to the address that clients use, with its path"
    };
    format!(
        "The {header} header {is}: it is none of this gateway's; {key:?} in its configuration \
         admits more{public}."
    )
}

/// A refusal over HTTP as members of an error.
pub(super) fn refusal_members(refusal: &HttpRefusal) -> Vec<(&'static str, serde_json::Value)> {
    let mut members = vec![("upstream_status", refusal.status.into())];
    if let Some(challenge) = &refusal.www_authenticate {
        members.push(("www_authenticate", challenge.as_str().into()));
    }
    match &refusal.retry_after {
        Some(RetryAfter::Seconds(seconds)) => {
            members.push(("retry_after_s", (*seconds).into()))
        }
        Some(RetryAfter::Date(date)) => members.push(("retry_after", date.as_str().into())),
        None => (),
    }
    members
}

/// Adds the members of a refusal over HTTP to the object of a failure.
pub(super) fn add_refusal(failure: &mut serde_json::Value, refusal: Option<&HttpRefusal>) {
    if let (Some(fields), Some(refusal)) = (failure.as_object_mut(), refusal) {
        let members = refusal_members(refusal).into_iter();
        fields.extend(members.map(|(key, value)| (key.to_owned(), value)));
    }
}
