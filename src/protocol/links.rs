//! Pure: links in results and lists: the URIs of resources that a client may go on to read.
//!
//! `resource_link` and embedded resources stand in the content of tools' results and prompts'
//! messages (2025-11-25, server/tools, Resource Links and Embedded Resources); the user interface
//! of a tool in `_meta.ui.resourceUri` (the extension MCP Apps), or flat in
//! `_meta["ui/resourceUri"]` as its first drafts had it and its SDK still writes.
//!
//! Only the links are exchanged: every other byte stays as it is. A search for bytes decides if
//! there are any, so that other results are not parsed. An escape such as `\u0072esource` hides a
//! link from that search; no serializer escapes letters, and the link then stays as its server
//! wrote it, which harms no other server.

use std::ops::Range;

use super::raw::{RawObject, each_element, string};

/// The member of `_meta` that the drafts of MCP Apps had.
const FLAT_UI_KEY: &str = "ui/resourceUri";

/// True if a text may hold a link.
pub fn may_hold(text: &str) -> bool {
    // One search that a processor does well, and the others only where it finds something.
    text.contains("resource")
        && ["\"resource\"", "\"resource_link\"", "esourceUri\""]
            .iter()
            .any(|needle| text.contains(needle))
}

/// True if the item of a list may hold a link.
pub fn may_hold_in_item(text: &str) -> bool {
    text.contains("esourceUri\"")
}

/// True if a client fetches the URI by itself: such a scheme should be used only where the client
/// can (2025-11-25, server/resources, Common URI Schemes).
pub fn is_of_the_web(uri: &str) -> bool {
    begins(uri, "https://") || begins(uri, "http://")
}

/// True if a URI holds the data itself (RFC 2397), so that no server is asked for it.
pub fn is_data(uri: &str) -> bool {
    begins(uri, "data:")
}

fn begins(uri: &str, scheme: &str) -> bool {
    uri.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}

/// The result of a tool or prompt, or one that holds such a result as tasks do, with the links
/// for which `instead` gives another URI. None if it gives none.
pub fn in_result(
    text: &str,
    instead: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<String> {
    let mut links = Links::of(text, instead);
    links.result(text);
    links.spliced()
}

/// The item of a list with the links for which `instead` gives another URI. None if it gives
/// none.
pub fn in_item(text: &str, instead: &mut dyn FnMut(&str) -> Option<String>) -> Option<String> {
    let mut links = Links::of(text, instead);
    links.meta(RawObject::parse(text).ok()?.get("_meta"));
    links.spliced()
}

/// The result of `resources/read`, with the URIs for which `instead` gives another one. None if
/// it gives none.
pub fn in_contents(
    text: &str,
    instead: &mut dyn FnMut(&str) -> Option<String>,
) -> Option<String> {
    let mut links = Links::of(text, instead);
    let fields = RawObject::parse(text).ok()?;
    each_of(fields.get("contents")?, &mut |part| {
        if let Ok(part) = RawObject::parse(part) {
            links.link(part.get("uri"));
        }
    });
    links.spliced()
}

/// Takes each element of an array; none of anything else.
fn each_of<'a>(text: &'a str, take: &mut dyn FnMut(&'a str)) {
    each_element(text, take).ok();
}

/// The links of one text.
struct Links<'a> {
    whole: &'a str,
    instead: &'a mut dyn FnMut(&str) -> Option<String>,
    /// The replacements, in the order in which they are found.
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Links<'a> {
    fn of(whole: &'a str, instead: &'a mut dyn FnMut(&str) -> Option<String>) -> Links<'a> {
        Links { whole, instead, edits: Vec::new() }
    }

    fn result(&mut self, text: &str) {
        let Ok(fields) = RawObject::parse(text) else { return };
        self.parts(&fields);
        if let Some(Ok(result)) = fields.get("result").map(RawObject::parse) {
            self.parts(&result);
        }
    }

    fn parts(&mut self, fields: &RawObject<'_>) {
        self.meta(fields.get("_meta"));
        self.content(fields.get("content"));
        let Some(messages) = fields.get("messages") else { return };
        each_of(messages, &mut |message| {
            if let Ok(message) = RawObject::parse(message) {
                self.content(message.get("content"));
            }
        });
    }

    /// Takes one content block, or a list of them.
    fn content(&mut self, text: Option<&str>) {
        match text {
            Some(block) if block.starts_with('{') => self.block(block),
            Some(blocks) => each_of(blocks, &mut |block| self.block(block)),
            None => (),
        }
    }

    fn block(&mut self, text: &str) {
        let Ok(block) = RawObject::parse(text) else { return };
        match block.string("type").ok().flatten().as_deref() {
            Some("resource_link") => self.link(block.get("uri")),
            Some("resource") => {
                let resource = block.get("resource").and_then(|it| RawObject::parse(it).ok());
                self.link(resource.as_ref().and_then(|resource| resource.get("uri")));
            }
            Some(_) | None => (),
        }
        self.meta(block.get("_meta"));
    }

    fn meta(&mut self, text: Option<&str>) {
        let Some(text) = text.filter(|text| may_hold_in_item(text)) else { return };
        let Ok(meta) = RawObject::parse(text) else { return };
        self.link(meta.get(FLAT_UI_KEY));
        let ui = meta.get("ui").and_then(|ui| RawObject::parse(ui).ok());
        self.link(ui.as_ref().and_then(|ui| ui.get("resourceUri")));
    }

    /// Notes the URI of this text, which is a part of the whole.
    fn link(&mut self, text: Option<&str>) {
        let Some(text) = text else { return };
        let Ok(uri) = serde_json::from_str::<String>(text) else { return };
        let Some(other) = (self.instead)(&uri) else { return };
        let start = text.as_ptr().addr().wrapping_sub(self.whole.as_ptr().addr());
        let range = start..start.wrapping_add(text.len());
        if self.whole.get(range.clone()).is_some_and(|part| std::ptr::eq(part, text)) {
            self.edits.push((range, string(&other)));
        }
    }

    fn spliced(mut self) -> Option<String> {
        if self.edits.is_empty() {
            return None;
        }
        // The members are looked at in another order than they stand in the text.
        self.edits.sort_by_key(|(range, _)| range.start);
        let longer: usize = self.edits.iter().map(|(_, other)| other.len()).sum();
        let mut out = String::with_capacity(self.whole.len() + longer);
        let mut at = 0;
        for (range, other) in &self.edits {
            out.push_str(self.whole.get(at..range.start)?);
            out.push_str(other);
            at = range.end;
        }
        out.push_str(self.whole.get(at..)?);
        Some(out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn marked(uri: &str) -> Option<String> {
        (!uri.starts_with("here:")).then(|| format!("s+{uri}"))
    }

    fn result(text: &str) -> Option<String> {
        assert!(may_hold(text), "{text}");
        in_result(text, &mut marked)
    }

    #[test]
    fn only_the_links_change() {
        for text in [
            r#"{ "content" : [ {"x":1.50, "type":"resource_link", "uri" :"@a\/\u00e9", "name":"n" } ,{"type":"text","text":"uri"}]}"#,
            r#"{"content":[{"resource":{"text":"t","uri":"@a"},"type":"resource"},{"type":"resource","resource":{"uri":"here:b"}}]}"#,
            r#"{"messages":[{"role":"user","content":{"type":"resource","resource":{"uri":"@a"}}},{"content":[{"type":"resource_link","uri":"@b"}]}]}"#,
            r#"{"content":[{"type":"text","_meta":{"ui":{"resourceUri":"@ui://b"}}}],"_meta":{"a":{},"ui":{ "resourceUri" : "@ui://a"},"ui/resourceUri":"@ui://a"}}"#,
            r#"{"taskId":"t","result":{"content":[{"type":"resource_link","uri":"@a"}]}}"#,
        ] {
            let read = text.replace('@', "");
            let made = result(&read).unwrap();
            let wanted = text.replace("@a\\/\\u00e9", "s+a/\u{e9}").replace('@', "s+");
            assert_eq!(made, wanted);
        }
    }

    #[test]
    fn what_is_no_link_stays() {
        for text in [
            r#"{"content":[{"type":"resource_link","uri":"here:a"}]}"#,
            r#"{"content":[{"type":"text","uri":"a","text":"resource"}],"x":"resource"}"#,
            r#"{"content":[{"type":"resource_link","uri":7},{"type":"resource","resource":"a"},"resource"]}"#,
            r#"{"structuredContent":{"content":[{"type":"resource_link","uri":"a"}]}}"#,
            r#"{"content":[{"type":"resource_link","uri":"a","uri":"b"}]}"#,
            r#"["resource"]"#,
        ] {
            assert_eq!(result(text), None, "{text}");
        }
        for text in [r#"{"content":[{"type":"text","text":"a \"resource\" of it"}]}"#, "{}"] {
            assert!(!may_hold(text), "{text}");
        }
    }

    #[test]
    fn items_and_contents_have_links_of_their_own() {
        let item = r#"{"name":"t","_meta":{"ui":{"resourceUri":"ui://a"}},"uri":"x"}"#;
        let made = in_item(item, &mut marked).unwrap();
        assert_eq!(made, item.replace("ui://a", "s+ui://a"));
        let contents = r#"{"contents":[{"uri":"a","text":"b"},{"uri":"here:"},7],"uri":"c"}"#;
        let made = in_contents(contents, &mut marked).unwrap();
        assert_eq!(made, contents.replace(r#""a""#, r#""s+a""#));
    }
}
