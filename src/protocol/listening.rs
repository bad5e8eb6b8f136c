//! The filter of a `subscriptions/listen` stream, and the messages that begin, mark and end the
//! stream (2026-07-28, basic/patterns/subscriptions).

use super::jsonrpc::{self, RequestId, RpcError, code};
use super::method::notification;
use super::modern::{key, write_result};
use super::raw::{RawObject, first_elements};
use crate::limits::SUBSCRIPTIONS_PER_SESSION_MAX;

/// The notifications that a `subscriptions/listen` request asks for, or is granted
/// (basic/patterns/subscriptions, Notification Filter).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Changes of the list of tools.
    pub tools: bool,
    /// Changes of the list of prompts.
    pub prompts: bool,
    /// Changes of the lists of resources and templates.
    pub resources: bool,
    /// Updates of the resources with these URIs.
    pub uris: Vec<String>,
}

impl Filter {
    /// Reads the `notifications` member of the parameters, or of the acknowledgement's.
    ///
    /// # Errors
    /// The member is missing, or of the wrong type.
    pub fn read(params: &RawObject<'_>) -> Result<Filter, RpcError> {
        let wrong = |what: &str| {
            RpcError::new(code::INVALID_PARAMS, format!("\"params.notifications\" {what}."))
        };
        let text = params.get("notifications").ok_or_else(|| wrong("is missing"))?;
        let fields = RawObject::parse(text).map_err(|_| wrong("must be an object"))?;
        let flag = |key: &str| match fields.get(key) {
            None | Some("null" | "false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(wrong(&format!("has a {key:?} that is neither true nor false"))),
        };
        let uris = match fields.get("resourceSubscriptions") {
            None | Some("null") => Vec::new(),
            Some(text) => first_elements(text, SUBSCRIPTIONS_PER_SESSION_MAX + 1)
                .ok()
                .and_then(|list| {
                    list.into_iter().map(|uri| serde_json::from_str(uri).ok()).collect()
                })
                .ok_or_else(|| {
                    wrong("has a \"resourceSubscriptions\" that is no list of URIs")
                })?,
        };
        Ok(Filter {
            tools: flag("toolsListChanged")?,
            prompts: flag("promptsListChanged")?,
            resources: flag("resourcesListChanged")?,
            uris,
        })
    }

    /// The filter's text, without members that are off.
    pub fn to_text(&self) -> String {
        let mut fields = RawObject::default();
        for (key, wanted) in [
            ("toolsListChanged", self.tools),
            ("promptsListChanged", self.prompts),
            ("resourcesListChanged", self.resources),
        ] {
            if wanted {
                fields.set(key, "true");
            }
        }
        if !self.uris.is_empty() {
            fields.set("resourceSubscriptions", serde_json::json!(self.uris).to_string());
        }
        fields.to_text()
    }

    /// True if the filter has a list's notification of that method.
    pub fn wants(&self, method: &str) -> bool {
        match method {
            notification::TOOLS_LIST_CHANGED => self.tools,
            notification::PROMPTS_LIST_CHANGED => self.prompts,
            notification::RESOURCES_LIST_CHANGED => self.resources,
            _ => false,
        }
    }
}

/// The parameters of a notification that belongs to a `subscriptions/listen` request.
pub fn with_subscription(params: Option<&str>, id: &RequestId) -> String {
    let mut fields = params.and_then(|text| RawObject::parse(text).ok()).unwrap_or_default();
    let meta = fields.get("_meta").and_then(|meta| RawObject::parse(meta).ok());
    let mut meta = meta.unwrap_or_default();
    meta.set(key::SUBSCRIPTION_ID, id.as_json());
    let meta = meta.to_text();
    fields.set("_meta", meta);
    fields.to_text()
}

/// The first notification of a subscription.
pub fn acknowledged(id: &RequestId, filter: &Filter) -> String {
    let params = format!("{{\"notifications\":{}}}", filter.to_text());
    let params = with_subscription(Some(&params), id);
    jsonrpc::notification(notification::SUBSCRIPTIONS_ACKNOWLEDGED, Some(&params))
}

/// The response that ends a subscription gracefully.
pub fn subscription_ended(id: &RequestId) -> String {
    jsonrpc::response(id, &write_result(&with_subscription(None, id), None))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_reads_back_and_keeps_to_what_is_wanted() {
        let text = r#"{"notifications":{"toolsListChanged":true,"promptsListChanged":false,"resourceSubscriptions":["a:b"]}}"#;
        let filter = Filter::read(&RawObject::parse(text).unwrap()).unwrap();
        assert!(filter.tools && !filter.prompts && !filter.resources);
        assert_eq!(
            filter.to_text(),
            r#"{"toolsListChanged":true,"resourceSubscriptions":["a:b"]}"#
        );
        assert!(filter.wants(notification::TOOLS_LIST_CHANGED));
        assert!(!filter.wants(notification::PROMPTS_LIST_CHANGED));
        for bad in
            ["{}", r#"{"notifications":[]}"#, r#"{"notifications":{"toolsListChanged":1}}"#]
        {
            assert!(Filter::read(&RawObject::parse(bad).unwrap()).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_subscription_keeps_the_type_of_its_id() {
        let id = RequestId::parse("\"1\"").unwrap();
        let text = acknowledged(&id, &Filter::default());
        assert!(text.contains(r#""io.modelcontextprotocol/subscriptionId":"1""#), "{text}");
        let number = subscription_ended(&RequestId::from(1));
        assert!(number.contains(r#""io.modelcontextprotocol/subscriptionId":1"#), "{number}");
    }
}
