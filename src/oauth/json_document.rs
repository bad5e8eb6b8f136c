//! Pure: a JSON object from an authorization server or a resource, read within bounds and without
//! trust.

use std::collections::HashMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::unusable::{Unusable, shown};
use super::web_url::WebUrl;
use crate::limits::{
    OAUTH_DOCUMENT_BYTES_MAX, OAUTH_LIST_ELEMENTS_MAX, OAUTH_TEXT_BYTES_MAX,
    OAUTH_URL_BYTES_MAX,
};

/// A JSON object. A member that is `null` counts as absent (RFC 9728 section 3.2 wants it to be
/// omitted, and servers write it all the same).
#[derive(Clone)]
pub struct JsonDocument(HashMap<String, Value>);

impl JsonDocument {
    /// Reads an object.
    ///
    /// # Errors
    /// If the bytes are over [`OAUTH_DOCUMENT_BYTES_MAX`], no JSON object, or if two of its
    /// members have one name: readers would differ on which of them counts.
    pub fn parse(body: &[u8]) -> Result<JsonDocument, Unusable> {
        if body.len() > OAUTH_DOCUMENT_BYTES_MAX {
            return Err(Unusable::new(format!("it has over {OAUTH_DOCUMENT_BYTES_MAX} bytes")));
        }
        // serde_json bounds the nesting by itself.
        let Members(members) = serde_json::from_slice(body).map_err(|error| {
            let place = format!("line {}, column {}", error.line(), error.column());
            Unusable::new(if error.to_string().starts_with(TWICE) {
                format!("two members have the same name ({place})")
            } else {
                format!("it is no JSON object ({place})")
            })
        })?;
        Ok(JsonDocument(members))
    }

    /// A member, unless it is absent or `null`.
    pub fn value(&self, name: &str) -> Option<&Value> {
        self.0.get(name).filter(|value| !value.is_null())
    }

    /// A member that is a text of at most `bytes_max` bytes, without control characters.
    ///
    /// # Errors
    /// If the member is there and none.
    pub fn text(&self, name: &str, bytes_max: usize) -> Result<Option<&str>, Unusable> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let refuse = |what: &str| Unusable::new(format!("{name} {what}"));
        let text = value.as_str().ok_or_else(|| refuse("is no text"))?;
        if text.len() > bytes_max {
            return Err(refuse(&format!("has over {bytes_max} bytes")));
        }
        if text.contains(char::is_control) {
            return Err(refuse("has a control character"));
        }
        Ok(Some(text))
    }

    /// A member that is a text, which must be there and not be empty.
    ///
    /// # Errors
    /// If it is not.
    pub fn needed_text(&self, name: &str, bytes_max: usize) -> Result<&str, Unusable> {
        match self.text(name, bytes_max)? {
            Some("") => Err(Unusable::new(format!("{name} is empty"))),
            Some(text) => Ok(text),
            None => Err(Unusable::new(format!("it has no {name}"))),
        }
    }

    /// A member that is a URL. An empty text counts as absent.
    ///
    /// # Errors
    /// If the member is there and no URL that [`WebUrl`] takes.
    pub fn url(&self, name: &str) -> Result<Option<WebUrl>, Unusable> {
        match self.text(name, OAUTH_URL_BYTES_MAX)? {
            None | Some("") => Ok(None),
            Some(text) => WebUrl::parse(text).map(Some).map_err(|error| error.at(name)),
        }
    }

    /// A member that is a URL to which secrets may be sent.
    ///
    /// # Errors
    /// If it is there and no such URL, see [`WebUrl::is_secure`].
    pub fn secure_url(&self, name: &str) -> Result<Option<WebUrl>, Unusable> {
        let url = self.url(name)?;
        if let Some(url) = url.as_ref().filter(|url| !url.is_secure()) {
            let what = format!("{name}: {} is not https", shown(url.as_str()));
            return Err(Unusable::new(what));
        }
        Ok(url)
    }

    /// A member that is a list of texts, of which the first
    /// [`OAUTH_LIST_ELEMENTS_MAX`] are read.
    ///
    /// # Errors
    /// If the member is there and no list, or if one of these is no text of at most
    /// [`OAUTH_TEXT_BYTES_MAX`] bytes.
    pub fn texts(&self, name: &str) -> Result<Option<Vec<String>>, Unusable> {
        let Some(value) = self.value(name) else { return Ok(None) };
        let refuse = |what: &str| Unusable::new(format!("{name} {what}"));
        let list = value.as_array().ok_or_else(|| refuse("is no list"))?;
        let text = |value: &Value| {
            let text = value.as_str().filter(|text| {
                text.len() <= OAUTH_TEXT_BYTES_MAX && !text.contains(char::is_control)
            });
            text.map(str::to_owned)
                .ok_or_else(|| refuse("has an element that is no short text"))
        };
        list.iter().take(OAUTH_LIST_ELEMENTS_MAX).map(text).collect::<Result<_, _>>().map(Some)
    }

    /// A member that is `true` or `false`, `false` where it is absent.
    ///
    /// # Errors
    /// If it is something else.
    pub fn flag(&self, name: &str) -> Result<bool, Unusable> {
        match self.value(name) {
            None => Ok(false),
            Some(value) => value
                .as_bool()
                .ok_or_else(|| Unusable::new(format!("{name} is no true or false"))),
        }
    }
}

impl fmt::Debug for JsonDocument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The values are tokens in many of these documents.
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// How the error of a second member of one name begins.
const TWICE: &str = "a second member";

/// The members of an object, no two of one name.
struct Members(HashMap<String, Value>);

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
        let mut members = HashMap::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            if members.insert(name, value).is_some() {
                return Err(serde::de::Error::custom(TWICE));
            }
        }
        Ok(Members(members))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(json: &str) -> JsonDocument {
        JsonDocument::parse(json.as_bytes()).unwrap()
    }

    fn refusal(json: &str) -> String {
        JsonDocument::parse(json.as_bytes()).unwrap_err().to_string()
    }

    #[test]
    fn an_object_alone_is_a_document() {
        for json in
            ["", "[]", "null", "1", "\"x\"", "{", "{}x", "{\"a\":}", "{a:1}", "\u{feff}{}"]
        {
            assert!(refusal(json).contains("no JSON object"), "{json}");
        }
        assert_eq!(
            refusal(r#"{"a":1,"b":2,"a":1}"#),
            "two members have the same name (line 1, column 19)"
        );
        // The same name, written in another way.
        assert!(refusal(r#"{"a":1,"\u0061":1}"#).contains("the same name"));
        let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(10_000), "]".repeat(10_000));
        assert!(refusal(&deep).contains("no JSON object"));
        let long = format!(r#"{{"a":"{}"}}"#, "x".repeat(OAUTH_DOCUMENT_BYTES_MAX));
        assert!(refusal(&long).contains("it has over"));
        assert!(JsonDocument::parse(b"{\"a\":\"\xff\"}").is_err());
        // Nothing of a document is told.
        assert!(!refusal(r#"{"sekrit":"#).contains("sekrit"));
    }

    #[test]
    fn members_are_read_by_their_types() {
        let all = document(
            r#"{"text":"a","none":null,"number":1,"flag":true,"list":["a","b"],"empty":"",
                "control":"a\nb","url":"https://h/x","http":"http://h/x","odd":["a",1]}"#,
        );
        assert_eq!(all.text("text", 1), Ok(Some("a")));
        assert_eq!(all.text("none", 1), Ok(None));
        assert_eq!(all.text("missing", 1), Ok(None));
        for (name, bytes_max) in [("number", 9), ("list", 9), ("control", 9), ("url", 3)] {
            assert!(all.text(name, bytes_max).is_err(), "{name}");
        }
        assert_eq!(all.needed_text("text", 9), Ok("a"));
        for name in ["none", "missing", "empty", "number"] {
            let error = all.needed_text(name, 9).unwrap_err();
            assert!(error.as_str().contains(name), "{error}");
        }
        assert_eq!(all.flag("flag"), Ok(true));
        assert_eq!(all.flag("none"), Ok(false));
        assert!(all.flag("text").is_err());
        assert_eq!(all.texts("list"), Ok(Some(vec!["a".to_owned(), "b".to_owned()])));
        assert_eq!(all.texts("none"), Ok(None));
        assert!(all.texts("odd").is_err() && all.texts("text").is_err());
        assert_eq!(all.url("empty"), Ok(None));
        assert!(all.url("http").is_ok() && all.secure_url("http").is_err());
        assert_eq!(all.secure_url("url").unwrap().unwrap().as_str(), "https://h/x");
    }

    #[test]
    fn lists_are_bounded() {
        let many = vec!["\"a\""; 50_000].join(",");
        let list = document(&format!(r#"{{"a":[{many}]}}"#)).texts("a").unwrap().unwrap();
        assert_eq!(list.len(), OAUTH_LIST_ELEMENTS_MAX);
        let long = "x".repeat(OAUTH_TEXT_BYTES_MAX + 1);
        assert!(document(&format!(r#"{{"a":["{long}"]}}"#)).texts("a").is_err());
    }
}
