//! Items of lists, and links in results: what is changed in a text that else passes as it is.

use serde_json::Value;

use crate::limits::JSON_DEPTH_MAX;
use crate::protocol::call::Kind;
use crate::protocol::links;
use crate::protocol::listed_item::{self, ListedItem};
use crate::protocol::raw::is_deeper_than;

/// What is listed is an object with a name, and mending it again changes nothing.
fn items(text: &str) {
    for kind in Kind::ALL {
        let Ok(ListedItem { name, mended }) = listed_item::read(kind, text) else { continue };
        let listed = mended.as_deref().unwrap_or(text);
        let again = listed_item::read(kind, listed).unwrap();
        assert_eq!(again, ListedItem { name: name.clone(), mended: None }, "{text}");
        // A number may be beyond what a value can hold.
        let Ok(value) = serde_json::from_str::<Value>(listed) else { continue };
        assert_eq!(value[kind.name_key()], name, "{listed}");
        if kind == Kind::Tool {
            assert_eq!(value["inputSchema"]["type"], "object", "{listed}");
        }
        for key in ["title", "description"] {
            assert!(value.get(key).is_none_or(Value::is_string), "{listed}");
        }
    }
}

type Exchange = fn(&str, &mut dyn FnMut(&str) -> Option<String>) -> Option<String>;

/// What is exchanged is a link, and nothing is exchanged twice.
fn exchanged(text: &str) {
    let mut mark = |uri: &str| (!uri.starts_with("marked+")).then(|| format!("marked+{uri}"));
    let exchanges: [Exchange; 3] = [links::in_result, links::in_item, links::in_contents];
    for exchange in exchanges {
        let Some(made) = exchange(text, &mut mark) else { continue };
        assert!(made.contains("marked+"), "{made}");
        assert!(serde_json::from_str::<&serde_json::value::RawValue>(&made).is_ok(), "{made}");
        assert_eq!(exchange(&made, &mut mark), None, "{made}");
    }
}

pub(super) fn lists(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if !is_deeper_than(text, JSON_DEPTH_MAX) {
        items(text);
        exchanged(text);
    }
}
