//! Pure: first contact with a server as values, in both eras: `initialize` and `server/discover`,
//! and their answers.

use crate::error::Stage;
use crate::protocol::call::Outgoing;
use crate::protocol::jsonrpc::{self, RequestId, RpcError, code};
use crate::protocol::legacy::{self, Initialized};
use crate::protocol::method::{Method, notification};
use crate::protocol::modern;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::revision::{Era, Revision};

use super::failure::{Failure, FailureKind, Refusal, cut};

/// The text of `initialize` as the gateway sends it, for a client with these capabilities.
pub(crate) fn initialize(id: u64, capabilities: &str) -> String {
    let params = legacy::initialize_params(Revision::LATEST_LEGACY, capabilities);
    jsonrpc::request(&RequestId::from(id), Method::Initialize.as_str(), Some(&params))
}

/// The text that ends the handshake.
pub(crate) fn initialized() -> String {
    jsonrpc::notification(notification::INITIALIZED, None)
}

/// Reads the answer to `initialize`.
pub(crate) fn read_handshake(outcome: Result<Raw, RpcError>) -> Result<Initialized, Failure> {
    match outcome {
        Ok(result) => legacy::read_initialize_result(result.get()).map_err(|what| {
            Failure::nonsense(format!("its answer to initialize is not acceptable: {what}"))
        }),
        Err(error) => {
            let what =
                format!("it refused initialize: {} ({})", cut(&error.message), error.code);
            let is_other_era = knows_no_initialize(&error);
            let refusal = if is_other_era { Refusal::OtherEra } else { Refusal::Plain };
            Err(Failure::new(FailureKind::Refused(refusal), Stage::Handshake, what))
        }
    }
}

/// Whether only a server without sessions refuses `initialize` so: it does not know the method or
/// the revision, or misses the `_meta` that its own requests have.
fn knows_no_initialize(error: &RpcError) -> bool {
    let names_meta = |words: &str| error.message.contains(words);
    let misses_meta = error.code == code::INVALID_PARAMS
        && ["io.modelcontextprotocol/", "_meta"].into_iter().any(names_meta);
    let codes = [code::METHOD_NOT_FOUND, code::UNSUPPORTED_PROTOCOL_VERSION];
    misses_meta || codes.contains(&error.code)
}

/// `server/discover` as the gateway sends it.
pub(crate) fn discovery() -> Outgoing<'static> {
    Outgoing::own(Method::ServerDiscover, RawObject::default())
}

/// What is assumed of a modern server that does not say what it has.
const ASSUMED: &str = r#"{"tools":{},"prompts":{},"resources":{},"completions":{}}"#;

/// Reads the answer to `server/discover`. Whatever only a modern server says means that it is
/// one (2026-07-28, basic/versioning, Backward Compatibility).
pub(crate) fn read_discovery(outcome: Result<Raw, RpcError>) -> Result<Initialized, Failure> {
    let other_era = |what: String| {
        Failure::new(FailureKind::Refused(Refusal::OtherEra), Stage::Handshake, what)
    };
    let error = match outcome {
        Ok(result) => {
            let read = modern::read_discover_result(result.get());
            return match read {
                Ok(Some(initialized)) => Ok(initialized),
                Ok(None) => Err(other_era(format!(
                    "it does not speak {}",
                    Revision::LATEST_MODERN.as_str()
                ))),
                Err(what) => Err(other_era(format!(
                    "its answer to server/discover is not acceptable: {what}"
                ))),
            };
        }
        Err(error) => error,
    };
    let what = format!("it refused server/discover: {} ({})", cut(&error.message), error.code);
    if !modern::is_modern_error(error.code) {
        return Err(other_era(what));
    }
    if error.code == code::UNSUPPORTED_PROTOCOL_VERSION {
        let supported = supported(&error);
        let lists = |revision: Revision| supported.iter().any(|it| it == revision.as_str());
        if Revision::ALL.into_iter().any(|it| it.era() == Era::Legacy && lists(it)) {
            return Err(other_era(what));
        }
        if !lists(Revision::LATEST_MODERN) {
            return Err(Failure::new(
                FailureKind::Refused(Refusal::Plain),
                Stage::Handshake,
                what,
            ));
        }
    }
    Ok(Initialized {
        revision: Revision::LATEST_MODERN,
        capabilities: Raw::from_valid(ASSUMED.to_owned()),
        server_info: None,
        instructions: None,
        cut: Vec::new(),
    })
}

/// The revisions that a refusal says are served.
fn supported(error: &RpcError) -> Vec<String> {
    let data = error.data.as_ref().and_then(|data| RawObject::parse(data.get()).ok());
    let list = data.and_then(|data| serde_json::from_str(data.get("supported")?).ok());
    list.unwrap_or_default()
}

/// Whether the server declares a capability.
pub(crate) fn declares(initialized: &Initialized, capability: &str) -> bool {
    crate::protocol::raw::RawObject::parse(initialized.capabilities.get())
        .is_ok_and(|capabilities| capabilities.get(capability).is_some())
}

/// What it says of itself, with tools declared.
pub(crate) fn with_tools(initialized: &Initialized) -> Initialized {
    let mut declared = initialized.clone();
    if let Ok(mut capabilities) = RawObject::parse(initialized.capabilities.get()) {
        capabilities.set("tools", "{}".to_owned());
        declared.capabilities = Raw::from_valid(capabilities.to_text());
    }
    declared
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_handshake_says_why() {
        let error = RpcError::new(-32602, "Unsupported protocol version");
        let failure = read_handshake(Err(error)).unwrap_err();
        assert!(failure.message.contains("Unsupported protocol version"));
        assert!(!failure.refuses_sessions(), "it may be about this client");
        let unknown = RpcError::new(code::METHOD_NOT_FOUND, "no such method");
        assert!(read_handshake(Err(unknown)).unwrap_err().refuses_sessions());
        let raw = Raw::from_valid(r#"{"protocolVersion":"1999-01-01"}"#.to_owned());
        assert!(read_handshake(Ok(raw)).unwrap_err().message.contains("1999-01-01"));
    }

    #[test]
    fn what_server_discover_is_answered_with_tells_the_era() {
        let revision = |outcome| read_discovery(outcome).map(|it| it.revision);
        let result = |versions: &str| {
            let text = format!(r#"{{"supportedVersions":{versions},"capabilities":{{}}}}"#);
            Ok(Raw::from_valid(text))
        };
        let refused = |code: i64, supported: &str| {
            let data = format!(r#"{{"supported":{supported}}}"#);
            Err(RpcError { data: Some(Raw::from_valid(data)), ..RpcError::new(code, "no") })
        };
        let (old, new) = (Revision::LATEST_LEGACY, Revision::LATEST_MODERN);
        let (both, only_old) = (format!("[\"{new}\",\"{old}\"]"), format!("[\"{old}\"]"));
        let unsupported = code::UNSUPPORTED_PROTOCOL_VERSION;
        for modern in [
            result(&both),
            refused(code::HEADER_MISMATCH, "[]"),
            refused(code::MISSING_CLIENT_CAPABILITY, "[]"),
            refused(unsupported, &format!("[\"{new}\"]")),
        ] {
            assert_eq!(revision(modern), Ok(new));
        }
        for legacy in [
            result(&only_old),
            result("7"),
            refused(unsupported, &only_old),
            refused(code::METHOD_NOT_FOUND, "[]"),
            refused(code::INVALID_PARAMS, "[]"),
            refused(code::BAD_REQUEST, "[]"),
        ] {
            let kind = revision(legacy).unwrap_err().kind;
            assert_eq!(kind, FailureKind::Refused(Refusal::OtherEra));
        }
        let neither = revision(refused(unsupported, "[\"2099-01-01\"]")).unwrap_err();
        assert_eq!(neither.kind, FailureKind::Refused(Refusal::Plain));
    }
}
