//! Pure: what of a server has a pin.

use crate::protocol::call::Kind;

/// Something that a server says of itself and that a model is told.
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
    /// What `initialize` or `server/discover` says of how to use the server; it has no name.
    Instructions,
}

impl Subject {
    /// Every one.
    pub const ALL: [Subject; 5] =
        [Self::Tool, Self::Prompt, Self::Resource, Self::Template, Self::Instructions];

    /// Of an item.
    pub fn of(kind: Kind) -> Subject {
        match kind {
            Kind::Tool => Self::Tool,
            Kind::Prompt => Self::Prompt,
            Kind::Resource => Self::Resource,
            Kind::Template => Self::Template,
        }
    }

    /// The kind of its items, if it is one of items.
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Tool => Some(Kind::Tool),
            Self::Prompt => Some(Kind::Prompt),
            Self::Resource => Some(Kind::Resource),
            Self::Template => Some(Kind::Template),
            Self::Instructions => None,
        }
    }

    /// One of them, for `/status` and the command line.
    pub fn as_str(self) -> &'static str {
        self.kind().map_or("instructions", Kind::as_str)
    }

    /// One of them by its name, for people.
    pub fn named(self, own: &str) -> String {
        match self.kind() {
            Some(kind) => format!("the {} {own:?}", kind.noun()),
            None => "its instructions".to_owned(),
        }
    }
}
