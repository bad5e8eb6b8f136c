//! Lists for clients: pages of items, and the states of their servers.

use super::Front;
use super::refusal_text::add_refusal;
use crate::access::policy::Scope;
use crate::error::CallError;
use crate::pipeline::{CallOptions, Health, Item, ItemList, Listing};
use crate::protocol::call::Kind;
use crate::protocol::cursor::{self, Place};
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::raw::{self, Raw, RawObject, push_string};
use crate::protocol::revision::Revision;
use crate::protocol::server_name::ServerName;

pub use crate::protocol::listed_item::UPSTREAMS_META;

/// The result of a list: a page of items, which may be large and is shared, and further members.
#[derive(Debug, Clone, PartialEq)]
pub struct ListPage {
    /// The kind of the list's items.
    pub kind: Kind,
    /// The items, an array's text.
    pub items: Raw,
    /// The result's other members, an object's text.
    pub others: String,
}

impl ListPage {
    /// A page, with the cursor of the next one.
    pub(super) fn new(list: &ItemList, items: Raw, next: Option<&str>) -> ListPage {
        let mut others = RawObject::default();
        if let Some(next) = next {
            others.set("nextCursor", raw::string(next));
        }
        let is_unwell = |it: &&Listing| it.health != Health::Well || it.is_stale;
        let mut unwell: Vec<_> =
            list.servers.iter().filter(is_unwell).map(server_outcome).collect();
        let behind = list.unwell_behind.as_deref();
        let behind = behind.and_then(|text| serde_json::from_str::<Vec<_>>(text).ok());
        unwell.extend(behind.unwrap_or_default());
        if !unwell.is_empty() {
            others.set("_meta", serde_json::json!({ UPSTREAMS_META: unwell }).to_string());
        }
        ListPage { kind: list.kind, items, others: others.to_text() }
    }

    /// The text before and behind the items in the result.
    pub(super) fn around(&self) -> (String, String) {
        let mut before = String::from("{");
        push_string(&mut before, self.kind.list_key());
        before.push(':');
        let after = match self.others.strip_prefix('{') {
            Some("}") | None => "}".to_owned(),
            Some(others) => format!(",{others}"),
        };
        (before, after)
    }
}

/// The reason why there is no page of a list.
#[derive(Debug)]
pub(super) enum NotListed {
    /// The request is invalid.
    Asked(RpcError),
    /// The list cannot be given.
    Call(CallError),
}

/// One page of the items that the scope sees and `shows` admits.
pub(super) fn list_page(
    front: &Front,
    scope: &Scope,
    options: CallOptions<'_>,
    (revision, kind): (Revision, Kind),
    params: Option<&str>,
    shows: impl Fn(&Item) -> bool,
) -> Result<ListPage, NotListed> {
    let mut list = front.pipeline.list(scope, options, kind).map_err(NotListed::Call)?;
    list.items.retain(|item| shows(item));
    let view = view_of(scope, kind);
    let from = match cursor_of(params).map_err(NotListed::Asked)? {
        None => 0,
        Some(cursor) => {
            let place = cursor::open(&front.cursors, &view, &cursor).ok_or_else(|| {
                let what = "The cursor is none of this list.";
                NotListed::Asked(RpcError::new(code::INVALID_PARAMS, what))
            })?;
            list.behind(&place.name, place.position)
        }
    };
    let page = list.page(from, front.limits.page_items);
    let is_last = from + page.len() >= list.items.len();
    let next = if is_last { None } else { page.last() };
    let next = next.map(|last| {
        let name = list.name(last).to_owned();
        let place = Place { name, position: from + page.len() - 1 };
        cursor::seal(&front.cursors, &view, &place)
    });
    let text = front.pipeline.page_text(scope, &list, page, Some(revision));
    let text = text.map_err(NotListed::Call)?;
    Ok(ListPage::new(&list, text, next.as_deref()))
}

/// The cursor of a list request.
pub(super) fn cursor_of(params: Option<&str>) -> Result<Option<String>, RpcError> {
    let wrong = |what: String| RpcError::new(code::INVALID_PARAMS, what);
    let Some(params) = params else { return Ok(None) };
    let fields = RawObject::parse(params)
        .map_err(|error| wrong(format!("The parameters are no acceptable object: {error}.")))?;
    fields.string("cursor").map_err(|_| wrong("\"cursor\" must be a string.".to_owned()))
}

/// The scope of a cursor: one list as one principal sees it at one endpoint.
fn view_of(scope: &Scope, kind: Kind) -> String {
    let whose = scope.principal.id.as_deref().unwrap_or_default();
    let only = scope.only.as_ref().map(ServerName::as_str).unwrap_or_default();
    let narrowed = scope
        .narrowed
        .as_deref()
        .map(|list| list.iter().map(ServerName::as_str).collect::<Vec<_>>().join(","));
    let narrowed = narrowed.as_deref().unwrap_or("*");
    format!("{}|{whose}|{only}|{narrowed}", kind.list_key())
}

/// The state of a server, for lists.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_stands_between_what_is_said_of_it() {
        for (others, whole) in [
            ("{}", r#"{"tools":[1,2]}"#),
            (r#"{"nextCursor":"x"}"#, r#"{"tools":[1,2],"nextCursor":"x"}"#),
        ] {
            let items = Raw::from_valid("[1,2]".to_owned());
            let page = ListPage { kind: Kind::Tool, items, others: others.to_owned() };
            let (before, after) = page.around();
            assert_eq!(format!("{before}{}{after}", page.items.get()), whole);
        }
    }
}
