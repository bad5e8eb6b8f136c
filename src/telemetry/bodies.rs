//! Log lines with the beginning of a call's arguments and result, where the configuration asks
//! for them.

use ::log::Level;

use super::{log, request};

/// The body of a call that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// The arguments of the tool.
    Arguments,
    /// The tool's result.
    Result,
}

/// Logs a line with the beginning of a body, and the id of its request.
pub fn tell(tool: &str, of: Body, body: &str) {
    let (id, key) = request::named()
        .map_or_else(Default::default, |(id, key)| (id.as_str().to_owned(), key));
    let (event, verb) = match of {
        Body::Arguments => ("arguments", "is called with"),
        Body::Result => ("result", "gave"),
    };
    let text = || {
        let key = if key.is_empty() { "-" } else { &key };
        format!("{key} {tool} {verb} {body} id={id}")
    };
    log::event(Level::Info, "bodies", text, |fields| {
        fields.text("event", event);
        fields.text("id", &id);
        fields.text_if_any("key", &key);
        fields.text("tool", tool);
        fields.text("body", body);
    });
}
