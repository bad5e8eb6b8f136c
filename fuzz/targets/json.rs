//! JSON that is passed on as text, and the envelopes around it, against `serde_json`'s values.

use std::sync::Arc;

use serde::de::{Deserializer as _, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;

use crate::downstream::posted_message::{Body, read_body};
use crate::limits::{
    BATCH_MESSAGES_MAX, INSTRUCTIONS_BYTES_MAX, JSON_DEPTH_MAX, SERVER_CAPABILITIES_BYTES_MAX,
    SERVER_INFO_BYTES_MAX,
};
use crate::protocol::call::Caller;
use crate::protocol::jsonrpc::{
    Message, RequestId, batch, code, error_response, notification, request, response,
};
use crate::protocol::legacy;
use crate::protocol::listening::Filter;
use crate::protocol::method::Method;
use crate::protocol::modern::{self, Read};
use crate::protocol::quirks::without_nulls;
use crate::protocol::raw::{
    Raw, RawObject, elements, is_deeper_than, on_one_line, push_string, string,
};
use crate::protocol::revision::Revision;
use crate::protocol::scan::{self, NotRead};
use crate::protocol::server_introduction;

fn value(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"))
}

/// The keys of an object as they stand, or nothing if the text is no object.
fn keys(text: &str) -> Option<Vec<String>> {
    struct Keys;
    impl<'de> Visitor<'de> for Keys {
        type Value = Vec<String>;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("an object")
        }
        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Vec<String>, A::Error> {
            let mut keys = Vec::new();
            while let Some((key, _)) = map.next_entry::<String, IgnoredAny>()? {
                keys.push(key);
            }
            Ok(keys)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let keys = reader.deserialize_map(Keys).ok()?;
    reader.end().ok()?;
    Some(keys)
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(values) => 1 + values.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

pub(super) fn raw(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Some((mended, found)) = without_nulls(text) {
        // What was taken out is not there a second time, and the rest is what it was.
        assert!(!found.is_empty() && mended.len() < text.len());
        assert!(serde_json::from_str::<IgnoredAny>(&mended).is_ok(), "{mended:?}");
        assert_eq!(without_nulls(&mended), None, "{mended:?}");
    }
    let quoted = string(text);
    let mut pushed = String::new();
    push_string(&mut pushed, text);
    assert_eq!(value(&quoted), Value::from(text));
    assert_eq!(value(&pushed), Value::from(text));
    if is_deeper_than(text, JSON_DEPTH_MAX) {
        return;
    }
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        assert!(RawObject::parse(text).is_err() || has_wide_number(text), "{text:?}");
        return;
    };
    // A value has lost what stood under a key that stands twice; its own text has not.
    let own = whole.to_string();
    for levels in 0..4 {
        let is_deeper = depth(&whole) > levels;
        assert!(is_deeper_than(text, levels) || !is_deeper, "{levels}: {text:?}");
        assert_eq!(is_deeper_than(&own, levels), is_deeper, "{levels}: {own}");
    }
    let line = on_one_line(text);
    assert!(!line.contains(['\n', '\r']));
    assert_eq!(value(&line), whole);
    match (elements(text), &whole) {
        (Ok(parts), Value::Array(values)) => {
            assert!(parts.iter().map(|part| value(part)).eq(values.iter().cloned()));
        }
        (parts, whole) => assert!(parts.is_err() && !whole.is_array(), "{text:?}"),
    }
    let messages =
        whole.as_array().filter(|it| it.len() <= 3 && it.iter().all(Value::is_object));
    assert_eq!(
        batch(text, 3, &|| true).ok().map(|it| it.len()),
        messages.map(Vec::len),
        "{text:?}"
    );
    scanned(text);
    introduction(text);
    object(text, &whole);
}

/// Large texts are read as small ones are.
fn scanned(text: &str) {
    let read = scan::object(text, &|| true);
    if read != Err(NotRead::TooDeep) {
        assert_eq!(read.ok(), RawObject::parse(text).ok(), "{text:?}");
    }
}

/// Whatever a server says of itself, what is kept is within bounds and of its kind.
fn introduction(text: &str) {
    let said = Some(text);
    let read = server_introduction::read(Revision::LATEST_LEGACY, said, said, said);
    assert!(value(read.capabilities.get()).is_object());
    assert!(read.capabilities.get().len() <= SERVER_CAPABILITIES_BYTES_MAX.max(text.len()));
    let info = read.server_info.unwrap();
    assert!(info.get().len() <= SERVER_INFO_BYTES_MAX);
    assert!(read.instructions.is_none_or(|it| it.len() <= INSTRUCTIONS_BYTES_MAX));
}

/// A number that has a text and no value here.
fn has_wide_number(text: &str) -> bool {
    let error = serde_json::from_str::<Value>(text).unwrap_err().to_string();
    error.contains("number out of range")
        || error.contains("surrogate")
        || error.contains("unexpected end of hex escape")
}

fn object(text: &str, whole: &Value) {
    let keys = keys(text);
    let mut sorted = keys.clone().unwrap_or_default();
    sorted.sort_unstable();
    let is_twice = sorted.windows(2).any(|pair| pair[0] == pair[1]);
    let Ok(mut object) = RawObject::parse(text) else {
        assert!(keys.is_none() || is_twice, "refused: {text:?}");
        return;
    };
    assert!(!is_twice, "a key stands twice: {text:?}");
    assert!(object.iter().map(|(key, _)| key).eq(keys.unwrap_or_default()));
    for (key, text) in object.iter() {
        assert_eq!(value(text), whole[key]);
        assert_eq!(object.string(key).ok().flatten().as_deref(), whole[key].as_str());
    }
    let written = object.to_text();
    assert_eq!(value(&written), *whole);
    assert_eq!(RawObject::parse(&written).unwrap(), object);
    object.set("added", "1");
    assert_eq!(object.get("added"), Some("1"));
    assert_eq!(value(&object.to_text())["added"], 1);
    assert_eq!(object.remove("added").as_deref(), Some("1"));
    assert_eq!(object.get("added"), None);
    let raw = Raw::from_valid(text.to_owned());
    if let Ok(Read::Complete(result)) = modern::read_result(&raw) {
        assert!(value(result.get()).is_object());
    }
    let written = value(&modern::write_result(text, None));
    assert!(
        written["resultType"] == whole["resultType"] || written["resultType"] == "complete"
    );
    assert!(value(modern::without_freshness(&raw).get()).is_object());
    legacy::read_initialize_result(text).ok();
    modern::read_discover_result(text).ok();
}

/// A text that was taken for a message, against its value.
fn message(text: &str, message: &Message<'_>) {
    let Ok(whole) = serde_json::from_str::<Value>(text) else {
        assert!(has_wide_number(text), "{text:?}");
        return;
    };
    assert_eq!(whole["jsonrpc"], "2.0");
    let same_params = |params: &Option<std::borrow::Cow<'_, str>>| match params {
        Some(params) => assert_eq!(value(params), whole["params"]),
        None => assert!(whole.get("params").is_none()),
    };
    let rebuilt = match message {
        Message::Request { id, method, params } => {
            assert_eq!(value(id.as_json()), whole["id"]);
            assert_eq!(whole["method"], method.as_str());
            same_params(params);
            read_params(method, params.as_deref());
            request(id, method, params.as_deref())
        }
        Message::Notification { method, params } => {
            assert!(whole.get("id").is_none());
            assert_eq!(whole["method"], method.as_str());
            same_params(params);
            notification(method, params.as_deref())
        }
        Message::Response { id, outcome } => {
            assert!(whole.get("method").is_none());
            match (id, outcome) {
                (Some(id), Ok(result)) => {
                    assert_eq!(value(id.as_json()), whole["id"]);
                    assert_eq!(value(result), whole["result"]);
                    response(id, result)
                }
                (None, Ok(_)) => panic!("a result without an id: {text:?}"),
                (id, Err(error)) => {
                    assert_eq!(whole["error"]["code"], error.code);
                    assert_eq!(whole["error"]["message"], error.message.as_str());
                    error_response(id.as_ref(), error)
                }
            }
        }
    };
    value(&rebuilt);
    assert_eq!(Message::parse(&rebuilt).as_ref(), Ok(message), "{text:?}");
}

/// What reads parameters takes whatever was let through as such.
fn read_params(method: &str, params: Option<&str>) {
    legacy::read_initialize(params).ok();
    if let Some(method) = Method::parse(method)
        && let Ok(call) = legacy::read_call(Arc::new(Caller::plain()), method, params)
    {
        assert!(call.params.get("_meta").is_none());
        value(&call.params.to_text());
    }
    let declared = modern::declared_version(params);
    if let Ok(envelope) = modern::read_envelope(params) {
        assert!(declared.is_some());
        assert!(envelope.params.get("_meta").is_none());
        value(&envelope.params.to_text());
        assert!(value(envelope.caller.capabilities.get()).is_object());
        if let Ok(filter) = Filter::read(&envelope.params) {
            value(&filter.to_text());
        }
        if let Some(token) = &envelope.progress_token {
            assert!(RequestId::parse(token).is_some());
        }
    }
}

pub(super) fn jsonrpc(data: &[u8]) {
    for revision in [None, Some(Revision::V2025_03_26)] {
        match read_body(data, revision) {
            Ok(Body::One(one)) => message(std::str::from_utf8(data).unwrap(), &one),
            Ok(Body::Batch(messages)) => {
                let parts = elements(std::str::from_utf8(data).unwrap()).unwrap();
                assert!(revision.is_some_and(Revision::allows_batches));
                assert!((1..=BATCH_MESSAGES_MAX).contains(&messages.len()));
                assert_eq!(parts.len(), messages.len());
                for (part, one) in parts.into_iter().zip(&messages) {
                    if let Ok(one) = one {
                        message(part, one);
                    }
                }
            }
            Err(malformed) => {
                value(&error_response(malformed.id.as_ref(), &malformed.error));
                let known = [code::PARSE_ERROR, code::INVALID_REQUEST, code::INVALID_PARAMS];
                assert!(known.contains(&malformed.error.code), "{malformed:?}");
            }
        }
    }
}
