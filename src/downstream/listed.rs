//! What is listed, as text: items, and how their servers are.

use std::borrow::Cow;
use std::sync::Arc;

use super::reply::add_refusal;
use crate::pipeline::{Health, Item, ItemList, Listing};
use crate::protocol::raw::push_string;
use crate::protocol::revision::Revision;

/// The key under which lists name servers that are not well.
pub const UPSTREAMS_META: &str = "trunkline/upstreams";

/// The result of a list: one page of it.
pub(super) fn list_result(
    client: Revision,
    list: &ItemList,
    page: &[Arc<Item>],
    next: Option<&str>,
) -> String {
    let size: usize = page.iter().map(|item| list.object(item).len() + 1).sum();
    let mut out = String::with_capacity(size + 64);
    out.push('{');
    push_string(&mut out, list.kind.list_key());
    out.push(':');
    push_each(&mut out, page, |item| shown(client, list, item));
    if let Some(next) = next {
        out.push_str(",\"nextCursor\":");
        push_string(&mut out, next);
    }
    let is_unwell = |it: &&Listing| it.health != Health::Well || it.is_stale;
    let unwell: Vec<_> = list.servers.iter().filter(is_unwell).collect();
    if !unwell.is_empty() {
        out.push_str(",\"_meta\":{");
        push_string(&mut out, UPSTREAMS_META);
        out.push(':');
        let told = unwell.into_iter().map(server_outcome);
        out.push_str(&serde_json::Value::Array(told.collect()).to_string());
        out.push('}');
    }
    out.push('}');
    out
}

/// An item's object as a client of that revision may be given it.
fn shown<'a>(client: Revision, list: &ItemList, item: &'a Item) -> Cow<'a, str> {
    let object = list.object(item);
    item.output.told(client, object).map_or(Cow::Borrowed(object), Cow::Owned)
}

/// Appends items' objects as an array.
pub fn push_items(out: &mut String, list: &ItemList, items: &[Arc<Item>]) {
    push_each(out, items, |item| Cow::Borrowed(list.object(item)));
}

fn push_each<'a>(
    out: &mut String,
    items: &'a [Arc<Item>],
    object: impl Fn(&'a Item) -> Cow<'a, str>,
) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        out.push_str(&object(item));
    }
    out.push(']');
}

/// How a server is, as lists tell it.
pub fn server_outcome(listing: &Listing) -> serde_json::Value {
    let server = listing.server.as_str();
    let mut outcome = match &listing.health {
        Health::Well => serde_json::json!({ "server": server, "outcome": "ok" }),
        Health::Connecting => serde_json::json!({ "server": server, "outcome": "connecting" }),
        Health::Failed { stage, message, refusal } => {
            let mut failed = serde_json::json!({
                "server": server,
                "outcome": "failed",
                "stage": stage.as_str(),
                "message": message,
            });
            add_refusal(&mut failed, refusal.as_deref());
            failed
        }
    };
    if listing.is_stale
        && let Some(fields) = outcome.as_object_mut()
    {
        fields.insert("stale".to_owned(), true.into());
    }
    outcome
}
