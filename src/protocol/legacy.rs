//! The legacy wire ↔ the internal model: revisions up to 2025-11-25, which have sessions.

use std::sync::Arc;

use super::call::{Call, Caller};
use super::jsonrpc::{RpcError, code};
use super::method::Method;
use super::raw::{Raw, RawObject, elements, push_string, start_of, string};
use super::revision::Revision;
use super::server_introduction;
use crate::limits::{CLIENT_NAME_CHARS_MAX, INTRODUCTION_BYTES_MAX, UPSTREAM_TEXT_CHARS_MAX};

pub use super::server_introduction::Initialized;

/// A client's `initialize` request.
#[derive(Debug, Clone, PartialEq)]
pub struct Initialize {
    /// The caller that the session remembers; its revision is the negotiated one.
    pub caller: Caller,
}

/// Reads the parameters of `initialize` (2025-11-25, basic/lifecycle, Initialization).
///
/// # Errors
/// A parameter is missing or of the wrong type.
pub fn read_initialize(params: Option<&str>) -> Result<Initialize, RpcError> {
    let wrong = |what: &str| RpcError::new(code::INVALID_PARAMS, what);
    let params = object(params)?;
    let requested = params
        .string("protocolVersion")
        .ok()
        .flatten()
        .ok_or_else(|| wrong("initialize: \"protocolVersion\" must be a string."))?;
    let part = |key: &str| -> Result<Option<Raw>, RpcError> {
        let Some(text) = params.get(key) else { return Ok(None) };
        if text.len() > INTRODUCTION_BYTES_MAX {
            let bound = INTRODUCTION_BYTES_MAX;
            return Err(wrong(&format!("initialize: \"{key}\" has more than {bound} bytes.")));
        }
        RawObject::parse(text).map_err(|error| {
            wrong(&format!("initialize: \"{key}\" must be an object: {error}."))
        })?;
        Ok(Some(Raw::from_valid(text.to_owned())))
    };
    let capabilities = part("capabilities")?
        .ok_or_else(|| wrong("initialize: \"capabilities\" must be an object."))?;
    // The client's identity changes nothing here, so it is only noted.
    let client = part("clientInfo")?.and_then(|info| client_name(info.get()));
    let revision = Revision::negotiate(&requested);
    Ok(Initialize { caller: Caller { revision, capabilities, log_level: None, client } })
}

/// The beginning of the name in an `Implementation`'s text.
pub(super) fn client_name(info: &str) -> Option<Arc<str>> {
    let name = RawObject::parse(info).ok()?.string("name").ok()??;
    Some(name.chars().take(CLIENT_NAME_CHARS_MAX).collect::<String>().into())
}

/// The result of `initialize` as the gateway gives it. `behind` is the introduction of the only
/// server behind an endpoint.
pub fn initialize_result(
    revision: Revision,
    capabilities: &str,
    instructions: Option<&str>,
    behind: Option<&Raw>,
) -> String {
    let info = implementation(revision, behind);
    let mut out = format!(
        "{{\"protocolVersion\":\"{revision}\",\"capabilities\":{capabilities},\
         \"serverInfo\":{info}"
    );
    if let Some(instructions) = instructions {
        out.push_str(",\"instructions\":");
        push_string(&mut out, instructions);
    }
    out.push('}');
    out
}

/// The gateway's `Implementation` for clients of that revision, with the title, icons and the
/// like of the only server behind an endpoint.
pub fn implementation(revision: Revision, behind: Option<&Raw>) -> String {
    let mut info = RawObject::default();
    info.set("name", "\"trunkline\"");
    info.set("version", string(env!("CARGO_PKG_VERSION")));
    let behind = behind.and_then(|behind| RawObject::parse(behind.get()).ok());
    for name in behind.iter().flat_map(|_| revision.shown_of_servers()) {
        let said = behind.as_ref().and_then(|behind| behind.get(name));
        // A member of a wrong type would cost the client the whole answer.
        let is_right = |text: &&str| match *name {
            "icons" => elements(text).is_ok_and(|icons| icons.iter().all(|icon| is_icon(icon))),
            _ => text.starts_with('"'),
        };
        if let Some(text) = said.filter(is_right) {
            info.set(name, text.to_owned());
        }
    }
    info.to_text()
}

fn is_icon(text: &str) -> bool {
    let fields = RawObject::parse(text);
    fields.is_ok_and(|fields| matches!(fields.string("src"), Ok(Some(_))))
}

/// The parameters of `initialize` as the gateway sends them.
pub fn initialize_params(revision: Revision, capabilities: &str) -> String {
    format!(
        "{{\"protocolVersion\":\"{revision}\",\"capabilities\":{capabilities},\
         \"clientInfo\":{{\"name\":\"trunkline\",\"version\":\"{}\"}}}}",
        env!("CARGO_PKG_VERSION")
    )
}

/// Reads the result of a server's `initialize`.
///
/// # Errors
/// A member is missing or of the wrong type, or the gateway does not speak the revision.
pub fn read_initialize_result(result: &str) -> Result<Initialized, String> {
    let fields = RawObject::parse(result).map_err(|error| format!("no object: {error}"))?;
    let version = fields
        .string("protocolVersion")
        .ok()
        .flatten()
        .ok_or("\"protocolVersion\" is not a string")?;
    let revision = Revision::parse_legacy(&version).ok_or_else(|| {
        let version = start_of(&version, UPSTREAM_TEXT_CHARS_MAX);
        format!("the revision {version:?} is not one that trunkline speaks")
    })?;
    let (capabilities, info) = (fields.get("capabilities"), fields.get("serverInfo"));
    Ok(server_introduction::read(revision, capabilities, info, fields.get("instructions")))
}

/// Reads a legacy request, whose caller is known from its session.
///
/// # Errors
/// The parameters are no object, or `_meta` is none.
pub fn read_call<'a>(
    caller: Arc<Caller>,
    method: Method,
    params: Option<&'a str>,
) -> Result<Call<'a>, RpcError> {
    let mut params = object(params)?;
    let mut progress_token = None;
    let meta = match params.remove("_meta") {
        None => None,
        // The text outlives the call, but the borrow of a `Cow` does not: parse it where it is.
        Some(std::borrow::Cow::Borrowed(text)) => {
            let mut meta = object(Some(text))?;
            progress_token = meta.remove("progressToken").map(std::borrow::Cow::into_owned);
            Some(meta)
        }
        Some(std::borrow::Cow::Owned(_)) => None,
    };
    if progress_token
        .as_deref()
        .is_some_and(|token| super::jsonrpc::RequestId::parse(token).is_none())
    {
        return Err(RpcError::new(
            code::INVALID_PARAMS,
            "\"_meta.progressToken\" must be a string or an integer.",
        ));
    }
    Ok(Call { caller, method, params, meta, progress_token })
}

fn object(params: Option<&str>) -> Result<RawObject<'_>, RpcError> {
    params.map_or_else(
        || Ok(RawObject::default()),
        |text| {
            RawObject::parse(text).map_err(|error| {
                let what = format!("The parameters are no acceptable object: {error}.");
                RpcError::new(code::INVALID_PARAMS, what)
            })
        },
    )
}

/// Gives an error of `resources/read` the code that its clients know: a resource that does not
/// exist has a code of its own (2025-11-25, server/resources, Error Handling), which later
/// revisions have given up (2026-07-28, server/resources, Error Handling).
pub fn as_not_found(error: &mut RpcError) {
    let names_uri = |data: &Raw| {
        RawObject::parse(data.get()).is_ok_and(|fields| fields.get("uri").is_some())
    };
    if error.code == code::INVALID_PARAMS && error.data.as_ref().is_some_and(names_uri) {
        error.code = code::RESOURCE_NOT_FOUND;
    }
}

/// Replaces the token in the parameters of `notifications/progress`.
///
/// # Errors
/// The parameters are no object.
pub fn with_progress_token(params: &str, token: &str) -> Result<String, serde_json::Error> {
    let mut fields = RawObject::parse(params)?;
    fields.set("progressToken", token);
    Ok(fields.to_text())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_keeps_what_it_does_not_know() {
        let params = r#"{"name":"t","task":{"ttl":1},"_meta":{"progressToken":"p","x":1}}"#;
        let call =
            read_call(Arc::new(Caller::plain()), Method::ToolsCall, Some(params)).unwrap();
        assert_eq!(call.params.to_text(), r#"{"name":"t","task":{"ttl":1}}"#);
        assert_eq!(call.meta.unwrap().to_text(), r#"{"x":1}"#);
        assert_eq!(call.progress_token.as_deref(), Some("\"p\""));
    }

    #[test]
    fn initialize_says_what_is_missing() {
        let error = read_initialize(Some(r#"{"capabilities":{}}"#)).unwrap_err();
        assert!(error.message.contains("protocolVersion"), "{error:?}");
        let error = read_initialize(Some(r#"{"protocolVersion":"x"}"#)).unwrap_err();
        assert!(error.message.contains("capabilities"), "{error:?}");
    }
}
