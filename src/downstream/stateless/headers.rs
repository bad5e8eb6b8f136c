//! Pure: checks of a stateless request's headers against its body (2026-07-28,
//! basic/transports/streamable-http, Request Metadata).

use crate::downstream::posted_message::Posted;
use crate::http::Head;
use crate::protocol::headers::{METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, decode_value};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::method::Method;
use crate::protocol::mirror::Mirror;
use crate::protocol::modern::{self, Envelope, header_mismatch};
use crate::protocol::quirks;
use crate::protocol::raw::RawObject;

/// The envelope of a request whose headers agree with its body; a different revision header may
/// be a known quirk.
pub(super) fn checked<'a>(
    posted: &mut Posted<'_>,
    method: &str,
    params: Option<&'a str>,
) -> Result<Envelope<'a>, RpcError> {
    if let Some(declared) = modern::declared_version(params) {
        let quirk =
            posted.version.and_then(|said| quirks::of_stateless_header(said, &declared));
        if !quirk.is_some_and(|quirk| posted.tolerates(quirk)) {
            compare(posted.version, PROTOCOL_VERSION, &declared)?;
        }
    }
    let envelope = modern::read_envelope(params)?;
    check_method(posted.head, method)?;
    Ok(envelope)
}

/// Checks that the method in the header is the body's.
///
/// # Errors
/// The header is missing, or names another method.
pub(crate) fn check_method(head: &Head, method: &str) -> Result<(), RpcError> {
    compare(head.headers.get(METHOD).map(str::trim), METHOD, method)
}

/// Checks that a header has the body's value.
///
/// # Errors
/// The header is missing, or has another value.
pub(crate) fn compare(value: Option<&str>, name: &str, body: &str) -> Result<(), RpcError> {
    match value {
        Some(value) if value == body => Ok(()),
        Some(value) => Err(header_mismatch(format!(
            "the {name} header says {:?}, the body {:?}",
            cut(value),
            cut(body)
        ))),
        None => Err(header_mismatch(format!("the {name} header is missing"))),
    }
}

/// Checks that the name or URI in the header is the body's.
///
/// # Errors
/// The header is missing, has another value, or is not properly encoded.
pub(crate) fn check_name(
    head: &Head,
    method: Method,
    params: &RawObject<'_>,
) -> Result<(), RpcError> {
    let Some(key) = method.mirrored_name() else { return Ok(()) };
    // A request without the parameter is refused for that elsewhere.
    let Ok(Some(body)) = params.string(key) else { return Ok(()) };
    let value = head.headers.get(NAME).map(str::trim);
    let value =
        value.ok_or_else(|| header_mismatch(format!("the {NAME} header is missing")))?;
    let value = decode_value(value).ok_or_else(|| broken(NAME))?;
    if value == body {
        return Ok(());
    }
    let (value, body) = (cut(&value), cut(&body));
    Err(header_mismatch(format!("the {NAME} header says {value:?}, the body {body:?}")))
}

/// Checks that mirrored parameters of a tool are the same in the headers and in the body.
///
/// # Errors
/// A header is missing, has another value, stands twice, is not properly encoded, or has no value
/// in the body; or the body is ambiguous.
pub(crate) fn check_params(
    head: &Head,
    mirrors: &[Mirror],
    params: &RawObject<'_>,
) -> Result<(), RpcError> {
    let arguments = params.get("arguments").unwrap_or("{}");
    for mirror in mirrors {
        let name = format!("{PARAM_PREFIX}{}", mirror.header);
        if head.headers.get_all(&name).nth(1).is_some() {
            return Err(header_mismatch(format!("the {name} header stands more than once")));
        }
        let in_body = mirror.read(arguments).map_err(|error| {
            header_mismatch(format!("what {name} mirrors cannot be read in the body: {error}"))
        })?;
        match (head.headers.get(&name).map(str::trim), Mirror::text_of(&in_body)) {
            (None, None) => (),
            (None, Some(_)) => {
                return Err(header_mismatch(format!("the {name} header is missing")));
            }
            (Some(_), None) => {
                let what =
                    format!("the {name} header is there, but the body has no such value");
                return Err(header_mismatch(what));
            }
            (Some(value), Some(_)) => {
                let value = decode_value(value).ok_or_else(|| broken(&name))?;
                if !Mirror::agree(&value, &in_body) {
                    let what = format!("the {name} header says another value than the body");
                    return Err(header_mismatch(what));
                }
            }
        }
    }
    Ok(())
}

fn broken(name: &str) -> RpcError {
    header_mismatch(format!("the {name} header is not encoded as it must be"))
}

/// The beginning of a client's text.
fn cut(text: &str) -> String {
    text.chars().take(100).collect()
}
