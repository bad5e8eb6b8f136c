//! Pure: kinds of pinned things.

use crate::protocol::call::Kind;

/// A part of a server's lists or introduction that a model is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// An item of `tools/list`.
    Tool,
    /// An item of `prompts/list`.
    Prompt,
    /// An item of `resources/list`.
    Resource,
    /// An item of `resources/templates/list`.
    Template,
    /// The instructions of `initialize` or `server/discover`; they have no name.
    Instructions,
}

impl Subject {
    /// Every kind.
    pub const ALL: [Subject; 5] =
        [Self::Tool, Self::Prompt, Self::Resource, Self::Template, Self::Instructions];

    /// The subject of an item's kind.
    pub fn of(kind: Kind) -> Subject {
        match kind {
            Kind::Tool => Self::Tool,
            Kind::Prompt => Self::Prompt,
            Kind::Resource => Self::Resource,
            Kind::Template => Self::Template,
        }
    }

    /// The kind of items, if the subject is one.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Tool => Some(Kind::Tool),
            Self::Prompt => Some(Kind::Prompt),
            Self::Resource => Some(Kind::Resource),
            Self::Template => Some(Kind::Template),
            Self::Instructions => None,
        }
    }

    /// The singular, for `/status` and the command line.
    pub fn as_str(self) -> &'static str {
        self.kind().map_or("instructions", Kind::as_str)
    }

    /// The singular with the item's name, for people.
    pub fn named(self, own: &str) -> String {
        match self.kind() {
            Some(kind) => format!("the {} {own:?}", kind.noun()),
            None => "its instructions".to_owned(),
        }
    }
}
