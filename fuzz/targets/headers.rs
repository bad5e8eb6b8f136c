//! Values of headers: the encoding of 2026-07-28, what is mirrored from bodies, `Accept`.

use serde_json::{Value, json};

use super::lines;
use crate::downstream::stateless::headers::{check_method, check_name, check_params, compare};
use crate::http::{Head, Headers, Peer};
use crate::protocol::headers::{
    EVENT_STREAM, JSON, METHOD, NAME, PARAM_PREFIX, PROTOCOL_VERSION, accepts, decode_value,
    encode_value, is_event_stream, is_json,
};
use crate::protocol::method::Method;
use crate::protocol::mirror::{Mirror, annotations};
use crate::protocol::raw::RawObject;

fn head(fields: &[(&str, &str)]) -> Head {
    let headers: Headers = fields.iter().copied().collect();
    Head { method: "POST".into(), path: "/mcp".into(), query: None, headers, peer: Peer::Unix }
}

/// A value survives a header, and stands in it as one may.
fn carried(value: &str) -> String {
    let header = encode_value(value).into_owned();
    assert!(header.bytes().all(|byte| (0x20..=0x7e).contains(&byte)), "{header:?}");
    assert_eq!(header.trim(), header);
    assert!(!header.is_empty());
    assert_eq!(decode_value(&header).as_deref(), Some(value), "{header:?}");
    header
}

fn names(value: &str, other: &str) {
    let method = Method::ToolsCall;
    let body = json!({ "name": value }).to_string();
    let params = RawObject::parse(&body).unwrap();
    let header = carried(value);
    assert_eq!(check_name(&head(&[(NAME, &header)]), method, &params), Ok(()));
    check_name(&head(&[]), method, &params).unwrap_err();
    // Whatever else is let through says the same.
    if check_name(&head(&[(NAME, other)]), method, &params).is_ok() {
        assert_eq!(decode_value(other.trim()).as_deref(), Some(value));
    }
    let is_same = other.trim() == value;
    assert_eq!(check_method(&head(&[(METHOD, other)]), value).is_ok(), is_same);
    assert_eq!(compare(Some(other.trim()), PROTOCOL_VERSION, value).is_ok(), is_same);
}

fn mirrored(tool: &str, arguments: &str) {
    let Ok(mirrors) = annotations(tool) else { return };
    for mirror in &mirrors {
        assert!(!mirror.path.is_empty());
        assert!(mirror.header.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':'));
    }
    let Ok(body) = serde_json::from_str::<Value>(arguments) else { return };
    let body = json!({ "name": "t", "arguments": body }).to_string();
    let params = RawObject::parse(&body).unwrap();
    let arguments = params.get("arguments").unwrap();
    let values: Vec<(String, String)> = mirrors
        .iter()
        .filter_map(|mirror| {
            let value = mirror.read(arguments).ok()?;
            let text = Mirror::text_of(&value)?;
            assert!(Mirror::agree(&text, &value), "{mirror:?} {text:?}");
            let other = format!("{text}x");
            assert!(!Mirror::agree(&other, &value), "{mirror:?} {other:?}");
            Some((format!("{PARAM_PREFIX}{}", mirror.header), carried(&text)))
        })
        .collect();
    let fields: Vec<(&str, &str)> =
        values.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(check_params(&head(&fields), &mirrors, &params), Ok(()));
    // One that is left out is missed.
    if let Some((_, rest)) = fields.split_first() {
        check_params(&head(rest), &mirrors, &params).unwrap_err();
    }
}

pub(super) fn headers(data: &[u8]) {
    let lines = lines(data);
    let [first, rest @ ..] = lines.as_slice() else { return };
    let second = rest.first().copied().unwrap_or_default();
    carried(first);
    names(first, second);
    if let Some(decoded) = decode_value(first) {
        carried(&decoded);
    }
    for kind in [JSON, EVENT_STREAM] {
        assert!(accepts(None, kind));
        let both = format!("{first}, {kind}");
        assert!(!accepts(Some(first), kind) || accepts(Some(&both), kind));
    }
    assert!(!(is_json(first) && is_event_stream(first)));
    mirrored(first, second);
}
