//! What the gateway offers, and to whom it belongs: an immutable snapshot, swapped whole.
//! Lists are served from it and calls are routed by it.

mod clashes;
mod differing;
mod held;
pub mod left_out;
pub mod merge;
pub mod name;
pub mod pages;
pub mod pins;
pub mod refresher;
mod seen;
mod steps;
pub mod store;
pub mod template;
pub mod template_set;
#[cfg(test)]
mod tests;
mod uri;
pub mod views;
mod waiting;
mod withheld;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, RwLockReadGuard};
use std::time::Instant;

use crate::budget::Budget;
use crate::config::Pin;
use crate::error::{HttpRefusal, PinCause, Stage};
use crate::limits::NEAR_NAMES_MAX;
use crate::protocol::call::Kind;
use crate::protocol::for_revision::Output;
use crate::protocol::legacy::Initialized;
use crate::protocol::mirror::Mirror;
use crate::protocol::modern::Freshness;
use crate::protocol::owners::Owners;
use crate::protocol::raw::{Raw, RawObject};
use crate::protocol::server_name::ServerName;
use crate::protocol::view::ViewId;
use crate::sync::RwLock;
use left_out::LeftOut;
use merge::ServerLabel;
use pages::Pages;
use pins::Subject;
use seen::SeenItems;
use template_set::TemplateSet;
use views::Shown;
use waiting::Waiting;
use withheld::Guarded;

/// What it holds.
pub use held::HeldBytes;
/// Who sees what of it.
pub use seen::Sight;
/// What a look-up may cost.
pub use steps::Steps;
/// What people are told of views.
pub use views::ViewsTold;

/// One thing that one server offers.
#[derive(Debug)]
pub struct Item {
    /// What it is.
    pub kind: Kind,
    /// Whose it is.
    pub server: ServerName,
    /// What the server calls it: a name or a URI.
    pub own: String,
    /// What clients call it.
    pub offered: String,
    /// What policies call it.
    pub qualified: String,
    /// Its object under its offered name.
    pub offered_object: Raw,
    /// Its object as its server wrote it.
    pub own_object: Raw,
    /// It has changed since it was pinned, or waits to be: it is not listed, and cannot be used.
    pub is_withheld: bool,
    /// Which parameters a tool wants mirrored into headers, or why it says so wrongly.
    pub mirrors: Result<Vec<Mirror>, String>,
    /// What a tool's structured result is.
    pub output: Output,
    /// What the configuration says of its server.
    pub label: Arc<ServerLabel>,
    /// The same for those who see no other server, where that differs: URIs, and names that are
    /// not prefixed, that need not say whose they are, and so tell of no other server.
    pub alone: Option<Arc<Item>>,
}

impl Item {
    fn is_same(&self, other: &Item) -> bool {
        self.server == other.server
            && self.own == other.own
            && self.is_withheld == other.is_withheld
            && self.own_object == other.own_object
            && self.offered_object == other.offered_object
            && self.label == other.label
    }

    /// Whether its server says that calling it twice does no more than calling it once.
    pub fn is_safe_to_repeat(&self) -> bool {
        let fields = RawObject::parse(self.own_object.get()).ok();
        let annotations = fields.as_ref().and_then(|fields| fields.get("annotations"));
        let hints = annotations.and_then(|hints| RawObject::parse(hints).ok());
        hints.is_some_and(|hints| {
            ["readOnlyHint", "idempotentHint"].iter().any(|it| hints.get(it) == Some("true"))
        })
    }
}

/// How a server is, as far as lists tell.
#[derive(Debug, Clone, PartialEq)]
pub enum Health {
    /// It has not answered yet.
    Connecting,
    /// It has answered and lists.
    Well,
    /// It cannot be used at present; its last lists still stand.
    Failed {
        /// How far the last attempt came.
        stage: Stage,
        /// What was seen.
        message: String,
        /// What a refusal over HTTP says besides.
        refusal: Option<Box<HttpRefusal>>,
    },
}

/// What has become of a server's pins.
#[derive(Debug, Clone, PartialEq)]
pub struct Pinned {
    /// What is done about a change.
    pub pin: Pin,
    /// Tools that are pinned.
    pub n_pinned: usize,
    /// Tools that are not what they were, by what their server calls them, and since when that
    /// is known, in seconds since the epoch.
    pub changed: BTreeMap<String, u64>,
    /// The same of whatever else has pins.
    pub others: BTreeMap<Subject, BTreeMap<String, u64>>,
    /// Items among `changed` and `others` that have no pin to differ from, and the reason why each
    /// has none.
    pub causes: BTreeMap<(Subject, String), PinCause>,
}

impl Pinned {
    /// Why something is withheld.
    pub fn cause(&self, subject: Subject, own: &str) -> PinCause {
        if self.causes.is_empty() {
            return PinCause::Changed;
        }
        let cause = self.causes.get(&(subject, own.to_owned()));
        cause.copied().unwrap_or(PinCause::Changed)
    }

    fn changed(&self, subject: Subject) -> Option<&BTreeMap<String, u64>> {
        if subject == Subject::Tool { Some(&self.changed) } else { self.others.get(&subject) }
    }

    fn changed_mut(&mut self, subject: Subject) -> &mut BTreeMap<String, u64> {
        match subject {
            Subject::Tool => &mut self.changed,
            Subject::Prompt | Subject::Resource | Subject::Template | Subject::Instructions => {
                self.others.entry(subject).or_default()
            }
        }
    }

    /// Whether it must not be used, nor told to clients.
    pub fn withholds(&self, subject: Subject, own: &str) -> bool {
        self.pin.withholds()
            && self.changed(subject).is_some_and(|changed| changed.contains_key(own))
    }
}

/// What the catalogue knows of a server beside its tools.
#[derive(Debug, Clone)]
pub struct Server {
    /// How it is.
    pub health: Health,
    /// Whether it has ever answered.
    pub has_answered: bool,
    /// What it said of itself when it answered last.
    pub initialized: Option<Arc<Initialized>>,
    /// Items of it that are not offered.
    pub left_out: LeftOut,
    /// Its lists that are those of an earlier process: it has not given them anew yet.
    pub stale: HashSet<Kind>,
    /// Its pins, where it has some.
    pub pinned: Option<Pinned>,
    /// What it said of the freshness of its lists, and when they were read.
    pub read: HashMap<Kind, (Freshness, Instant)>,
    /// Since when its lists are waited for, until it has answered or failed.
    pub connecting_since: Instant,
    /// When each list was last asked for, whatever came of it.
    pub asked: HashMap<Kind, Instant>,
}

impl Server {
    /// Whether one of its lists is an old one: of an earlier process, or of before it failed or
    /// was configured anew.
    pub fn is_stale(&self) -> bool {
        !self.stale.is_empty() || (self.has_answered && self.health != Health::Well)
    }

    /// How fresh its list of that kind still is: of its time, only what is left. What is
    /// not known is stale and private.
    pub fn freshness(&self, kind: Kind) -> Freshness {
        let Some((said, read_at)) = self.read.get(&kind) else { return Freshness::UNKNOWN };
        let age = u64::try_from(read_at.elapsed().as_millis()).unwrap_or(u64::MAX);
        Freshness { ttl_ms: said.ttl_ms.saturating_sub(age), ..*said }
    }
}

impl Default for Server {
    fn default() -> Server {
        Server {
            health: Health::Connecting,
            has_answered: false,
            initialized: None,
            left_out: LeftOut::default(),
            stale: HashSet::new(),
            pinned: None,
            read: HashMap::new(),
            connecting_since: Instant::now(),
            asked: HashMap::new(),
        }
    }
}

/// The items of one kind.
#[derive(Debug, Default)]
struct List {
    /// Sorted by offered name.
    items: Vec<Arc<Item>>,
    /// In the order of the configuration, those of one server in that server's own.
    in_order: Vec<Arc<Item>>,
    by_offered: HashMap<String, Arc<Item>>,
    by_own: HashMap<String, Vec<Arc<Item>>>,
    /// Resources that their servers spell otherwise than URIs are, by how they are.
    by_spelling: HashMap<String, Vec<Arc<Item>>>,
    /// Templates by server, in the order of the configuration.
    sets: Vec<(ServerName, Arc<TemplateSet>)>,
    /// Those of the servers of which some template is withheld.
    guarded: Vec<(ServerName, Guarded)>,
}

impl List {
    /// The items come in the order of the configuration.
    fn new(mut items: Vec<Arc<Item>>) -> List {
        let mut list = List::default();
        for item in &items {
            // A withheld one keeps its names, so that no other tool gets them.
            list.by_offered.insert(item.offered.clone(), item.clone());
            list.by_own.entry(item.own.clone()).or_default().push(item.clone());
            if item.kind == Kind::Resource
                && let Cow::Owned(spelled) = template::spelled(&item.own)
                && spelled != item.own
            {
                let items = list.by_spelling.entry(spelled).or_default();
                // Of several of one server, the first is meant.
                if items.last().is_none_or(|last| last.server != item.server) {
                    items.push(item.clone());
                }
            }
        }
        let templates: Vec<&Arc<Item>> =
            items.iter().filter(|item| item.kind == Kind::Template).collect();
        list.sets = templates
            .chunk_by(|a, b| a.server == b.server)
            .filter_map(|of_server| {
                let set = TemplateSet::new(of_server.iter().map(|item| item.own.as_str()));
                Some((of_server.first()?.server.clone(), Arc::new(set)))
            })
            .collect();
        list.guarded = templates
            .chunk_by(|a, b| a.server == b.server)
            .filter_map(|them| Some((them.first()?.server.clone(), Guarded::new(them)?)))
            .collect();
        items.retain(|item| !item.is_withheld);
        list.in_order = items.clone();
        items.sort_by(|a, b| a.offered.cmp(&b.offered));
        List { items, ..list }
    }

    /// Shares those items that are the same in another list.
    fn share(&mut self, other: &List) {
        let share = |item: &mut Arc<Item>| {
            let known = other.by_offered.get(&item.offered);
            if let Some(known) = known.filter(|known| known.is_same(item)) {
                *item = known.clone();
            }
        };
        self.items.iter_mut().for_each(share);
        self.in_order.iter_mut().for_each(share);
        self.by_offered.values_mut().for_each(share);
        self.by_own.values_mut().flatten().for_each(share);
        self.by_spelling.values_mut().flatten().for_each(share);
        for (server, set) in &mut self.sets {
            let known = other.sets.iter().find(|(of, known)| of == server && known == set);
            if let Some((_, known)) = known {
                *set = known.clone();
            }
        }
    }
}

/// The snapshot.
#[derive(Debug, Default)]
pub struct Catalogue {
    tools: List,
    prompts: List,
    resources: List,
    templates: List,
    /// Whose a name is.
    pub owners: Arc<Owners>,
    /// All servers.
    pub servers: BTreeMap<ServerName, Server>,
    /// Their names in the order of the configuration.
    pub order: Vec<ServerName>,
    /// Those that may have resources, as far as is known.
    having_resources: Vec<ServerName>,
    /// What stands between a server's name and an item's.
    pub separator: String,
    /// Names that items would have, and do not.
    pub clashes: Clashes,
    seen: SeenItems,
}

/// Names that are refused, the first in the order of the lists.
#[derive(Debug, Clone, Default)]
pub struct Clashes {
    /// At most [`CLASHES_TOLD_MAX`](crate::limits::CLASHES_TOLD_MAX).
    pub told: Vec<Clash>,
    /// So many more.
    pub n_further: usize,
}

/// A name that is refused to a server, because it is another one's.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Clash {
    /// What has it at its server.
    pub kind: Kind,
    /// To whom it is refused.
    pub server: ServerName,
    /// What that server calls it.
    pub own: String,
    /// The name, with the server's in front where names are prefixed.
    pub name: String,
    /// Whose it is.
    pub owner: ServerName,
    /// What clients call it instead.
    pub offered: String,
}

/// What a name leads to.
#[derive(Debug)]
pub enum Resolution {
    /// One item.
    Found(Arc<Item>),
    /// Several items have this bare name; their offered names.
    Ambiguous(Vec<String>),
    /// None; offered names that are close to it.
    Unknown(Vec<String>),
}

impl Catalogue {
    fn list(&self, kind: Kind) -> &List {
        match kind {
            Kind::Tool => &self.tools,
            Kind::Prompt => &self.prompts,
            Kind::Resource => &self.resources,
            Kind::Template => &self.templates,
        }
    }

    /// Shares those items that are the same in another one.
    fn sharing(mut self, other: &Catalogue) -> Catalogue {
        self.tools.share(&other.tools);
        self.prompts.share(&other.prompts);
        self.resources.share(&other.resources);
        self.templates.share(&other.templates);
        self
    }

    /// All items of a kind but withheld ones, sorted by offered name.
    pub fn items(&self, kind: Kind) -> &[Arc<Item>] {
        &self.list(kind).items
    }

    /// The same in the order of the configuration, those of one server in that server's own.
    pub fn in_order(&self, kind: Kind) -> &[Arc<Item>] {
        &self.list(kind).in_order
    }

    /// The items that servers call `own`, in the order of the configuration.
    pub fn called(&self, kind: Kind, own: &str) -> &[Arc<Item>] {
        self.list(kind).by_own.get(own).map_or(&[], Vec::as_slice)
    }

    /// The first resource in the order of the configuration, among those that `sees` admits, that
    /// a server lists under a URI, or else under another spelling of it.
    fn listed(&self, uri: &str, sees: impl Fn(&Item) -> bool) -> Option<&Arc<Item>> {
        let seen = |item: &&Arc<Item>| sees(item);
        let called = |uri: &str| self.called(Kind::Resource, uri).iter().find(seen);
        called(uri).or_else(|| {
            let spelled = template::spelled(uri);
            let other = || self.resources.by_spelling.get(&*spelled)?.iter().find(seen);
            called(&spelled).or_else(other)
        })
    }

    /// The item that `asked` means among those that `sees` admits: an offered name first, then
    /// one that belongs to a server, full or bare, at that server alone, then a bare one that
    /// only one server has.
    pub fn resolve(&self, kind: Kind, asked: &str, sees: impl Fn(&Item) -> bool) -> Resolution {
        self.meant(kind, asked, &sees).unwrap_or_else(|| {
            let visible = self.list(kind).items.iter().filter(|item| sees(item));
            let names = visible.map(|item| (self.name_seen(item, &sees), item.own.as_str()));
            Resolution::Unknown(name::near_by_either(asked, names, NEAR_NAMES_MAX))
        })
    }

    /// The same where nobody is to be told which other names are close, which costs a look at
    /// them all.
    pub fn find(
        &self,
        kind: Kind,
        asked: &str,
        sees: impl Fn(&Item) -> bool,
    ) -> Option<Arc<Item>> {
        match self.meant(kind, asked, &sees)? {
            Resolution::Found(item) => Some(item),
            Resolution::Ambiguous(_) | Resolution::Unknown(_) => None,
        }
    }

    /// None where nothing is of that name.
    fn meant(
        &self,
        kind: Kind,
        asked: &str,
        sees: &impl Fn(&Item) -> bool,
    ) -> Option<Resolution> {
        let list = self.list(kind);
        // A name that an item has because of others that are not seen is none.
        let is_seen = |item: &&Arc<Item>| sees(item) && self.name_seen(item, sees) == asked;
        if let Some(item) = list.by_offered.get(asked).filter(is_seen) {
            return Some(Resolution::Found(item.clone()));
        }
        if let Some(owner) = self.owners.of(asked) {
            let called = |own: &str| {
                let mut items = self.called(kind, own).iter();
                items.find(|item| item.server == *owner && sees(item))
            };
            let is_bare = self.owners.other(owner, asked).is_none();
            let bare = || called(asked).filter(|_| is_bare);
            let item = self.owners.rests(owner, asked).find_map(called).or_else(bare);
            return item.map(|item| Resolution::Found(item.clone()));
        }
        let bare: Vec<&Arc<Item>> =
            self.called(kind, asked).iter().filter(|item| sees(item)).collect();
        match bare.as_slice() {
            [one] => Some(Resolution::Found((*one).clone())),
            [] => None,
            [first, ..] if self.name_seen(first, sees) == asked => {
                Some(Resolution::Found((*first).clone()))
            }
            several => {
                let named = |item: &&Arc<Item>| self.name_seen(item, sees).to_owned();
                let mut names: Vec<_> = several.iter().map(named).collect();
                names.sort();
                Some(Resolution::Ambiguous(names))
            }
        }
    }

    /// What a server announces the structured result of a tool as; `own` is the JSON text of the
    /// server's name for it.
    pub fn output_of(&self, server: &ServerName, own: &str) -> Output {
        let own: String = serde_json::from_str(own).unwrap_or_default();
        let mut items = self.called(Kind::Tool, &own).iter();
        items.find(|item| item.server == *server).map_or(Output::Object, |item| item.output)
    }

    /// The item that one server calls `own`, if `sees` admits it.
    pub fn resolve_own(
        &self,
        kind: Kind,
        server: &ServerName,
        own: &str,
        sees: impl Fn(&Item) -> bool,
    ) -> Resolution {
        let list = self.list(kind);
        let of_server = |item: &&Arc<Item>| item.server == *server && sees(item);
        match list.by_own.get(own).into_iter().flatten().find(of_server) {
            Some(item) => Resolution::Found(item.clone()),
            None => {
                let names = list.items.iter().filter(of_server).map(|item| item.own.as_str());
                Resolution::Unknown(name::near(own, names, NEAR_NAMES_MAX))
            }
        }
    }
}

/// The current snapshot, for everybody who reads it or waits for the next one.
#[derive(Debug, Clone)]
pub struct Shared(Arc<Published>);

#[derive(Debug)]
struct Published {
    current: RwLock<Snapshot>,
    waiting: Waiting,
    pages: Pages,
}

/// What all see, and what some see besides.
#[derive(Debug, Clone, Default)]
struct Snapshot {
    catalogue: Arc<Catalogue>,
    /// None where all see the same.
    shown: Option<Arc<Shown>>,
}

impl Shared {
    /// Nothing is published yet; at most `max_waiting` requests wait for a snapshot at once, and
    /// the pages that clients are being given count against `budget`.
    pub fn new(max_waiting: usize, budget: Budget) -> Shared {
        let (current, waiting) = (RwLock::default(), Waiting::new(max_waiting));
        Shared(Arc::new(Published { current, waiting, pages: Pages::new(budget) }))
    }

    /// Pages of lists as text.
    pub fn pages(&self) -> &Pages {
        &self.0.pages
    }

    /// Those who wait for the next snapshot.
    pub fn waiting(&self) -> &Waiting {
        &self.0.waiting
    }

    fn read(&self) -> RwLockReadGuard<'_, Snapshot> {
        self.0.current.read()
    }

    /// The snapshot as it is now; it stays what it is while it is held.
    pub fn current(&self) -> Arc<Catalogue> {
        self.read().catalogue.clone()
    }

    /// The same as those clients see it that have one of these views of a server, `ids` being
    /// looked up only where somebody sees something else than all do. `is_served` gives of which of
    /// them a server's lists are.
    pub fn seen_by(
        &self,
        ids: impl FnOnce() -> [ViewId; 2],
        is_served: &dyn Fn(&ServerName) -> Option<ViewId>,
    ) -> Arc<Catalogue> {
        let Snapshot { catalogue, shown } = self.read().clone();
        let shown = shown.filter(|shown| shown.is_any_other());
        let seen = shown.and_then(|shown| shown.catalogue(ids(), is_served, &catalogue));
        seen.unwrap_or(catalogue)
    }

    /// Whether a view of a server is old, if it is known; that counts as using it.
    pub fn is_view_old(&self, server: &ServerName, id: ViewId) -> Option<bool> {
        let shown = self.read().shown.clone()?;
        shown.is_old(&(server.clone(), id))
    }

    /// What people are told of the views of a server.
    pub fn views_of(&self, server: &ServerName) -> ViewsTold {
        let shown = self.read().shown.clone();
        shown.map(|shown| shown.told_of(server)).unwrap_or_default()
    }

    /// What some see of it.
    fn shown(&self) -> Option<Arc<Shown>> {
        self.read().shown.clone()
    }

    /// From here on this is the snapshot. Wake those who wait once sessions have been told of it.
    fn publish(&self, catalogue: Arc<Catalogue>, shown: Option<Arc<Shown>>) {
        let snapshot = Snapshot { catalogue, shown };
        *self.0.current.write() = snapshot;
        self.0.pages.forget_former();
    }
}
