//! Descriptions for programs: the JSON Schema of the configuration, and OpenAPI of the REST part.

use serde_json::{Value, json};

use crate::config;
use crate::downstream::Front;
use crate::downstream::endpoint::Document;
use crate::downstream::status_codes;
use crate::http::{Head, Responder};
use crate::protocol::headers::JSON;

/// OpenAPI 3.1. The parts that depend on the serving gateway are set for each request.
const OPENAPI: &str = include_str!("openapi.json");
/// JSON Schema's media type (draft 2020-12, Core, 14).
const JSON_SCHEMA: &str = "application/schema+json";

pub(crate) fn document(front: &Front, document: Document, head: &Head, responder: Responder) {
    let (content_type, text) = match document {
        Document::ConfigSchema => (JSON_SCHEMA, compact(config::SCHEMA, |_| ())),
        Document::OpenApi => {
            let admission = front.admission();
            let prefix = admission.prefix_for(head);
            let wants_key = !admission.is_open();
            (JSON, compact(OPENAPI, |all| set_own(all, prefix, wants_key)))
        }
    };
    let headers = [("Content-Type", content_type), ("Cache-Control", "no-cache")];
    // If the client has gone, the answer is not missed.
    responder.respond(status_codes::OK, &headers, &[text.as_bytes()]).ok();
}

/// A document without the spaces that make its file readable.
fn compact(text: &str, set: impl FnOnce(&mut Value)) -> String {
    match serde_json::from_str::<Value>(text) {
        Ok(mut all) => {
            set(&mut all);
            format!("{all}\n")
        }
        Err(_) => text.to_owned(),
    }
}

/// Sets this gateway's values: its version, the path under which a proxy serves it, and if a key
/// is required.
fn set_own(all: &mut Value, prefix: &str, wants_key: bool) {
    if let Some(version) = all.pointer_mut("/info/version") {
        *version = env!("CARGO_PKG_VERSION").into();
    }
    let Some(fields) = all.as_object_mut() else { return };
    let server = if prefix.is_empty() { "/" } else { prefix };
    fields.insert("servers".to_owned(), json!([{ "url": server }]));
    if !wants_key {
        fields.insert("security".to_owned(), json!([]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_document_is_of_the_gateway_that_serves_it() {
        let of = |prefix, wants_key| {
            let text = compact(OPENAPI, |all| set_own(all, prefix, wants_key));
            serde_json::from_str::<Value>(&text).unwrap()
        };
        let (with_keys, without) = (of("/trunk", true), of("", false));
        assert_eq!(with_keys["info"]["version"], env!("CARGO_PKG_VERSION"));
        assert_eq!(with_keys["servers"], json!([{ "url": "/trunk" }]));
        assert_eq!(with_keys["security"].as_array().map(Vec::len), Some(3));
        assert_eq!(
            (&without["servers"], &without["security"]),
            (&json!([{"url":"/"}]), &json!([]))
        );
        // All other parts are as the file has them.
        assert_eq!(with_keys["paths"], without["paths"]);
    }
}
