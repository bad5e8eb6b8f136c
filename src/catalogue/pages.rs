//! Pages of lists as text. A page is rendered once for all clients that see the same items, so
//! that many clients that ask for it, or read it slowly, share one buffer.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, MutexGuard, OnceLock, Weak};
use std::time::Instant;

use super::Item;
use crate::budget::{Budget, Exhausted, Share};
use crate::limits::{PAGES_KEPT_BYTES_MAX, PAGES_KEPT_MAX};
use crate::protocol::call::PrincipalId;
use crate::protocol::raw::{Keeper, Raw, RawObject, on_one_line, string};
use crate::protocol::revision::Revision;
use crate::sync::Mutex;

/// The names with which items are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Names {
    /// Offered names, which all differ.
    Offered,
    /// The servers' own names.
    Own,
    /// The servers' own names, each item with `mcp_info`, which describes the server.
    WithServer,
}

impl Names {
    /// An item's object with that name.
    pub fn object(self, item: &Item) -> &str {
        match self {
            Names::Offered => item.offered_object.get(),
            Names::Own => item.own_object.get(),
            // Links are those for several servers.
            Names::WithServer => item.offered_object.get(),
        }
    }

    /// The most bytes that an item's object takes in a page.
    fn bytes(self, item: &Item) -> usize {
        let beside = match self {
            Names::Offered | Names::Own => 0,
            Names::WithServer => "\"mcp_info\":,".len() + server_info(item).len(),
        };
        self.object(item).len() + beside
    }
}

/// The rendered pages. A page exists while it is being sent; besides, the last used pages are
/// kept for a while, until no snapshot holds their items any more.
#[derive(Debug)]
pub struct Pages {
    budget: Budget,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    known: HashMap<PageKey, Weak<Page>>,
    kept: HashMap<PageKey, Kept>,
    kept_bytes: usize,
    /// The number of uses so far.
    n_uses: u64,
}

/// A page that is kept while it is not being sent.
#[derive(Debug)]
struct Kept {
    _page: Arc<Page>,
    bytes: usize,
    /// The value of [`State::n_uses`] at the last use.
    used: u64,
    used_at: Instant,
}

/// The key of a page: the items in it, and not the clients that see them. So keys with the same
/// rights share a page, and keys with other rights cannot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct PageKey {
    items: Arc<[ByAddress]>,
    names: Names,
    /// The client's revision, where one of the items differs for it.
    told_in: Option<Revision>,
}

/// An item by its address in memory, which no other item has while this value exists.
#[derive(Debug)]
struct ByAddress(Weak<Item>);

impl PartialEq for ByAddress {
    fn eq(&self, other: &ByAddress) -> bool {
        Weak::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for ByAddress {}

impl Hash for ByAddress {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.as_ptr().hash(state);
    }
}

impl PageKey {
    fn new(items: &[Arc<Item>], names: Names, client: Option<Revision>) -> PageKey {
        let is_told = |client: &Revision| items.iter().any(|it| !it.output.is_as_told(*client));
        let items = items.iter().map(|item| ByAddress(Arc::downgrade(item))).collect();
        PageKey { items, names, told_in: client.filter(is_told) }
    }

    /// True if all items are in a snapshot that is still held.
    fn is_current(&self) -> bool {
        self.items.iter().all(|item| item.0.strong_count() > 0)
    }

    fn bytes(&self) -> usize {
        std::mem::size_of_val(&*self.items)
    }
}

/// A page, rendered by the first request for it while the others wait.
#[derive(Debug, Default)]
struct Page {
    text: OnceLock<Arc<String>>,
    in_use: Mutex<Weak<InUse>>,
}

/// A page's share of the budget, which counts once while the page is being sent.
#[derive(Debug)]
struct InUse {
    /// Keeps the page alive, so that requests in the meantime find it.
    _page: Arc<Page>,
    _share: Share,
}

impl Page {
    fn used(self: &Arc<Page>, mut share: Share, bytes: usize) -> Result<Arc<InUse>, Exhausted> {
        let mut in_use = self.in_use.lock();
        if let Some(in_use) = in_use.upgrade() {
            return Ok(in_use);
        }
        share.grow_to(bytes)?;
        let new = Arc::new(InUse { _page: self.clone(), _share: share });
        *in_use = Arc::downgrade(&new);
        Ok(new)
    }
}

impl Pages {
    /// No pages yet; pages that are being sent count against `budget`.
    pub fn new(budget: Budget) -> Pages {
        Pages { budget, state: Mutex::default() }
    }

    /// The array of these items on one line, for a client of that revision, or else as they stand
    /// in the catalogue. Of the clients that are sent the page at once, the first is charged for
    /// it.
    ///
    /// # Errors
    /// The page is not being sent, and the budget has not so many bytes left, or not for that
    /// principal.
    pub fn text(
        &self,
        items: &[Arc<Item>],
        names: Names,
        client: Option<Revision>,
        charged: Option<&PrincipalId>,
    ) -> Result<Raw, Exhausted> {
        let key = PageKey::new(items, names, client);
        let page = self.known(&key);
        let bytes = items.iter().map(|item| names.bytes(item) + 1).sum::<usize>() + 1;
        let in_use: Keeper = page.used(self.budget.share_of(charged.cloned()), bytes)?;
        let text = page.text.get_or_init(|| {
            let mut text = String::with_capacity(bytes + 1);
            render(&mut text, items, names, key.told_in);
            Arc::new(text)
        });
        let mut raw = Raw::part_of(text, text);
        raw.keep(&Some(in_use));
        self.keep(key, &page, text.len());
        Ok(raw)
    }

    /// Forgets pages with items that no snapshot holds any more.
    pub fn forget_former(&self) {
        self.state().forget_former();
    }

    /// Forgets pages that were not requested since `then`.
    pub fn forget_unused_since(&self, then: Instant) {
        let mut state = self.state();
        let unused = state.kept.iter().filter(|(_, kept)| kept.used_at < then);
        let unused: Vec<PageKey> = unused.map(|(key, _)| key.clone()).collect();
        unused.iter().for_each(|key| state.forget(key));
        state.known.retain(|_, page| page.strong_count() > 0);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn known(&self, key: &PageKey) -> Arc<Page> {
        let mut state = self.state();
        if let Some(page) = state.known.get(key).and_then(Weak::upgrade) {
            return page;
        }
        state.forget_former();
        let page = Arc::<Page>::default();
        state.known.insert(key.clone(), Arc::downgrade(&page));
        page
    }

    fn keep(&self, key: PageKey, page: &Arc<Page>, text_bytes: usize) {
        let bytes = text_bytes + key.bytes();
        if bytes > PAGES_KEPT_BYTES_MAX {
            return;
        }
        let mut state = self.state();
        state.n_uses += 1;
        let (used, used_at) = (state.n_uses, Instant::now());
        let kept = Kept { _page: page.clone(), bytes, used, used_at };
        state.kept_bytes += bytes;
        if let Some(before) = state.kept.insert(key, kept) {
            state.kept_bytes -= before.bytes;
        }
        while state.kept_bytes > PAGES_KEPT_BYTES_MAX || state.kept.len() > PAGES_KEPT_MAX {
            let oldest = state.kept.iter().min_by_key(|(_, kept)| kept.used);
            let Some(oldest) = oldest.map(|(key, _)| key.clone()) else { return };
            state.forget(&oldest);
        }
    }
}

impl State {
    fn forget(&mut self, key: &PageKey) {
        if let Some(kept) = self.kept.remove(key) {
            self.kept_bytes -= kept.bytes;
        }
    }

    fn forget_former(&mut self) {
        let former = self.kept.keys().filter(|key| !key.is_current());
        let former: Vec<PageKey> = former.cloned().collect();
        former.iter().for_each(|key| self.forget(key));
        self.known.retain(|_, page| page.strong_count() > 0);
    }
}

fn render(out: &mut String, items: &[Arc<Item>], names: Names, told_in: Option<Revision>) {
    out.push('[');
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let object = names.object(item);
        let told = told_in.and_then(|client| item.output.told(client, object));
        let object = told.as_deref().unwrap_or(object);
        let named = match names {
            Names::Offered | Names::Own => None,
            Names::WithServer => with_server(item, object),
        };
        out.push_str(&on_one_line(named.as_deref().unwrap_or(object)));
    }
    out.push(']');
}

/// An item's object with its own name, and with the server's description.
fn with_server(item: &Item, object: &str) -> Option<String> {
    let mut fields = RawObject::parse(object).ok()?;
    fields.set(item.kind.name_key(), string(&item.own));
    fields.set("mcp_info", server_info(item));
    Some(fields.to_text())
}

/// The server of an item, in LiteLLM's members for it. NAME is the id too.
fn server_info(item: &Item) -> String {
    let mut info = RawObject::default();
    let server = string(item.server.as_str());
    info.set("server_name", server.clone());
    if let Some(description) = &item.label.description {
        info.set("description", string(description));
    }
    info.set("server_id", server);
    info.set("alias", item.label.alias.as_deref().map_or("null".to_owned(), string));
    info.to_text()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalogue::merge::ServerLabel;
    use crate::protocol::call::Kind;
    use crate::protocol::for_revision::Output;
    use crate::protocol::server_name::ServerName;

    const ITEM_BYTES: usize = 1000;

    fn item(name: &str) -> Arc<Item> {
        let object = |name: &str| {
            let text = "x".repeat(ITEM_BYTES);
            Raw::from_valid(format!("{{\"name\":\"{name}\",\n\"description\":\"{text}\"}}"))
        };
        Arc::new(Item {
            kind: Kind::Tool,
            server: ServerName::parse("s").unwrap(),
            own: name.to_owned(),
            offered: format!("s-{name}"),
            qualified: format!("s-{name}"),
            offered_object: object(&format!("s-{name}")),
            own_object: object(name),
            is_withheld: false,
            mirrors: Ok(Vec::new()),
            output: Output::Object,
            label: Arc::new(ServerLabel {
                description: Some("says \"s\"".to_owned()),
                alias: None,
            }),
            alone: None,
        })
    }

    fn items(names: &[&str]) -> Vec<Arc<Item>> {
        names.iter().map(|name| item(name)).collect()
    }

    fn pages(bytes_max: usize) -> Pages {
        Pages::new(Budget::new(bytes_max))
    }

    fn text(pages: &Pages, items: &[Arc<Item>]) -> Raw {
        pages.text(items, Names::Offered, None, None).unwrap()
    }

    fn is_same_memory(a: &Raw, b: &Raw) -> bool {
        std::ptr::eq(a.get(), b.get())
    }

    #[test]
    fn a_page_is_an_array_on_one_line_and_is_rendered_once() {
        let (pages, items) = (pages(1 << 20), items(&["a", "b"]));
        let (one, two) = (text(&pages, &items), text(&pages, &items.clone()));
        assert!(is_same_memory(&one, &two));
        assert!(!one.get().contains('\n'));
        let read: serde_json::Value = serde_json::from_str(one.get()).unwrap();
        assert_eq!((&read[0]["name"], &read[1]["name"]), (&"s-a".into(), &"s-b".into()));
        assert_eq!(text(&pages, &[]).get(), "[]");
    }

    #[test]
    fn other_items_another_order_or_other_names_are_another_page() {
        let (pages, all) = (pages(1 << 20), items(&["a", "b"]));
        let page = text(&pages, &all);
        let turned = [all[1].clone(), all[0].clone()];
        for other in [text(&pages, &all[..1]), text(&pages, &turned)] {
            assert_ne!(page.get(), other.get());
        }
        let own = pages.text(&all, Names::Own, None, None).unwrap();
        assert!(own.get().starts_with("[{\"name\":\"a\""), "{own:?}");
    }

    #[test]
    fn with_its_server_an_item_has_its_own_name() {
        let (pages, all) = (pages(1 << 20), items(&["a"]));
        let page = pages.text(&all, Names::WithServer, None, None).unwrap();
        let read: serde_json::Value = serde_json::from_str(page.get()).unwrap();
        assert_eq!(read[0]["name"], "a");
        let info = serde_json::json!({
            "server_name": "s", "description": "says \"s\"", "server_id": "s", "alias": null,
        });
        assert_eq!(read[0]["mcp_info"], info);
        assert!(pages.budget.taken() >= page.get().len(), "all of it is counted");
    }

    #[test]
    fn revisions_share_where_nothing_is_told_otherwise() {
        let (pages, mut all) = (pages(1 << 20), items(&["a"]));
        let of = |all: &[Arc<Item>], revision| {
            pages.text(all, Names::Offered, Some(revision), None).unwrap()
        };
        let (old, new) = (Revision::V2024_11_05, Revision::LATEST_MODERN);
        assert!(is_same_memory(&of(&all, old), &of(&all, new)));
        let mut any = Arc::into_inner(item("any")).unwrap();
        let object =
            r#"{"name":"any","inputSchema":{"type":"object"},"outputSchema":{"type":"array"}}"#;
        any.offered_object = Raw::from_valid(object.to_owned());
        any.output = Output::of(object);
        all.push(Arc::new(any));
        assert_ne!(of(&all, old).get(), of(&all, new).get());
        assert!(is_same_memory(&of(&all, new), &text(&pages, &all)));
    }

    #[test]
    fn a_page_in_use_counts_once_and_a_kept_one_not() {
        let (pages, items) = (pages(3 * ITEM_BYTES), items(&["a", "b"]));
        let one = text(&pages, &items);
        let taken = pages.budget.taken();
        assert!((one.get().len()..3 * ITEM_BYTES).contains(&taken), "{taken}");
        let many: Vec<Raw> = (0..50).map(|_| text(&pages, &items)).collect();
        assert_eq!(pages.budget.taken(), taken);
        // Another page does not fit, until the first is no longer sent.
        assert_eq!(pages.text(&items[..1], Names::Offered, None, None), Err(Exhausted));
        drop((one, many));
        assert_eq!(pages.budget.taken(), 0);
        assert!(pages.text(&items[..1], Names::Offered, None, None).is_ok());
        assert!(pages.state().kept_bytes > 0);
    }

    #[test]
    fn one_principal_leaves_pages_to_others() {
        let (pages, all) = (pages(8 * ITEM_BYTES), items(&["a"; 8]));
        let of = |who: &str, n: usize| {
            let who = PrincipalId::Key(who.into());
            pages.text(&all[n..=n], Names::Offered, None, Some(&who))
        };
        let held: Vec<_> = (0..8).map_while(|n| of("hog", n).ok()).collect();
        assert!((4..7).contains(&held.len()), "{}", held.len());
        assert_eq!(of("hog", 7), Err(Exhausted));
        assert!(of("victim", 7).is_ok());
        // A page that is being sent already costs no client anything.
        assert!(of("hog", 0).is_ok());
    }

    #[test]
    fn what_is_in_use_is_shared_also_where_it_is_not_kept() {
        let (pages, items) = (pages(1 << 20), items(&["a"]));
        let one = text(&pages, &items);
        let mut state = pages.state();
        let keys: Vec<PageKey> = state.kept.keys().cloned().collect();
        keys.iter().for_each(|key| state.forget(key));
        assert_eq!(state.kept_bytes, 0);
        drop(state);
        assert!(is_same_memory(&one, &text(&pages, &items)));
    }

    #[test]
    fn kept_pages_are_bounded_and_the_one_unused_for_longest_goes() {
        let (pages, all) = (pages(1 << 30), items(&["a"; 2 * PAGES_KEPT_MAX]));
        let first = || text(&pages, &all[..1]);
        first();
        for item in &all[1..] {
            text(&pages, std::slice::from_ref(item));
            // The first page is used again and again.
            first();
        }
        assert_eq!(pages.state().kept.len(), PAGES_KEPT_MAX);
        let keys = |items: &[Arc<Item>]| PageKey::new(items, Names::Offered, None);
        assert!(pages.state().kept.contains_key(&keys(&all[..1])));
        assert!(!pages.state().kept.contains_key(&keys(&all[1..2])));
        // Large pages are bounded by their bytes.
        let many: Vec<Arc<Item>> = (0..1500).map(|_| item("many")).collect();
        for end in 1495..1500 {
            text(&pages, &many[..end]);
            assert!(pages.state().kept_bytes <= PAGES_KEPT_BYTES_MAX);
        }
        pages.forget_former();
        let state = pages.state();
        assert_eq!(state.known.len(), state.kept.len());
    }

    #[test]
    fn pages_end_with_their_items() {
        let (pages, mut all) = (pages(1 << 20), items(&["a", "b"]));
        text(&pages, &all);
        text(&pages, &all[..1]);
        all.pop();
        pages.forget_former();
        let state = pages.state();
        assert_eq!((state.kept.len(), state.known.len()), (1, 1));
        assert!(state.kept_bytes < 2 * ITEM_BYTES, "{}", state.kept_bytes);
    }

    #[test]
    fn what_nobody_asks_for_any_more_is_not_kept() {
        let (pages, all) = (pages(1 << 20), items(&["a", "b"]));
        let before = Instant::now();
        text(&pages, &all[..1]);
        let in_use = text(&pages, &all);
        pages.forget_unused_since(before);
        assert_eq!(pages.state().kept.len(), 2);
        pages.forget_unused_since(Instant::now());
        let state = pages.state();
        assert_eq!((state.kept.len(), state.known.len(), state.kept_bytes), (0, 1, 0));
        drop(state);
        assert!(is_same_memory(&in_use, &text(&pages, &all)));
    }

    #[test]
    fn threads_that_ask_at_once_share_one_rendering() {
        let (pages, items) = (pages(1 << 30), items(&["a"; 500]));
        let all: Vec<Raw> = std::thread::scope(|scope| {
            let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| text(&pages, &items))).collect();
            asked.into_iter().map(|it| it.join().unwrap()).collect()
        });
        assert!(all.iter().all(|it| is_same_memory(it, &all[0])));
    }
}
