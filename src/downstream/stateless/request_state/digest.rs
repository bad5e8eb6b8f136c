//! Pure: a digest of a stateless request's method and parameters, in any order of writing, by
//! which requests are compared.
//!
//! The text is read in one pass: a body made of a million zeros costs no more than its text.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::digest::{Context, Digest, SHA256};
use serde::de::{DeserializeSeed, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};

use crate::limits::JSON_OBJECT_KEYS_MAX;
use crate::protocol::modern::RETRY_MEMBERS;
use crate::protocol::raw::RawObject;

/// The digest, without the parameters that a retry adds.
pub(crate) fn digest(method: &str, params: &RawObject<'_>) -> String {
    let mut context = Context::new(&SHA256);
    context.update(method.as_bytes());
    let mut fields: Vec<_> =
        params.iter().filter(|(key, _)| !RETRY_MEMBERS.contains(key)).collect();
    fields.sort_unstable();
    for (key, text) in fields {
        context.update(key.as_bytes());
        context.update(b"\n");
        let value = of_value(text);
        // A value that is invalid or ambiguous is hashed as its text.
        context.update(value.as_ref().map_or(text.as_bytes(), AsRef::as_ref));
    }
    URL_SAFE_NO_PAD.encode(context.finish())
}

fn of_value(text: &str) -> Option<Digest> {
    let mut context = Context::new(&SHA256);
    let mut reader = serde_json::Deserializer::from_str(text);
    Value(&mut context).deserialize(&mut reader).ok()?;
    Some(context.finish())
}

/// Adds one value. Each begins with a letter for its type, and each text with its length, so that
/// no two values are encoded alike.
struct Value<'c>(&'c mut Context);

impl<'de> DeserializeSeed<'de> for Value<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Value<'_> {
    fn scalar(self, value: impl fmt::Display) {
        self.0.update(format!("v{value};").as_bytes());
    }
}

impl<'de> Visitor<'de> for Value<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.scalar("null");
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        self.scalar(value);
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        // The text has a point, so that it differs from every integer's.
        self.scalar(format_args!("{value:?}"));
        Ok(())
    }

    fn visit_str<E>(self, value: &str) -> Result<(), E> {
        self.0.update(format!("s{};{value}", value.len()).as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.0.update(b"a");
        while seq.next_element_seed(Value(&mut *self.0))?.is_some() {}
        self.0.update(b"e");
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut fields: Vec<(String, Digest)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if fields.len() == JSON_OBJECT_KEYS_MAX {
                return Err(A::Error::custom("an object has too many keys"));
            }
            let mut context = Context::new(&SHA256);
            map.next_value_seed(Value(&mut context))?;
            fields.push((key, context.finish()));
        }
        fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
        if fields.windows(2).any(|pair| matches!(pair, [(a, _), (b, _)] if a == b)) {
            return Err(A::Error::custom("a key stands twice"));
        }
        self.0.update(format!("o{};", fields.len()).as_bytes());
        for (key, value) in fields {
            self.0.update(format!("{};{key}", key.len()).as_bytes());
            self.0.update(value.as_ref());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(method: &str, params: &str) -> String {
        digest(method, &RawObject::parse(params).unwrap())
    }

    #[test]
    fn a_digest_is_of_what_is_asked_however_it_is_written() {
        let one = of("tools/call", r#"{"name":"t","arguments":{"a":1,"b":[2,{"c":3,"d":4}]}}"#);
        let same = of(
            "tools/call",
            r#"{"arguments":{"b":[2, {"d":4,"\u0063":3}],"a":1},"name":"t",
               "requestState":"x","inputResponses":{}}"#,
        );
        assert_eq!(one, same);
        for other in [
            of("prompts/get", r#"{"name":"t","arguments":{"a":1,"b":[2,{"c":3,"d":4}]}}"#),
            of("tools/call", r#"{"name":"u","arguments":{"a":1,"b":[2,{"c":3,"d":4}]}}"#),
            of("tools/call", r#"{"name":"t","arguments":{"a":1,"b":[2,{"c":3,"d":5}]}}"#),
            of("tools/call", r#"{"name":"t","arguments":{"a":"1","b":[2,{"c":3,"d":4}]}}"#),
            of("tools/call", r#"{"name":"t","arguments":{"a":1.0,"b":[2,{"c":3,"d":4}]}}"#),
            of("tools/call", r#"{"name":"t","arguments":{"a":1,"b":[2],"c":3,"d":4}}"#),
            of("tools/call", r#"{"name":"t"}"#),
        ] {
            assert_ne!(one, other);
        }
    }

    #[test]
    fn nested_arrays_are_told_apart() {
        let texts = ["[[1],2]", "[1,[2]]", "[[1,2]]", "[1,2]", "[[],1,2]", "[\"e\"]", "[]"];
        let digests = texts.map(|text| of("m", &format!("{{\"arguments\":{text}}}")));
        for (at, digest) in digests.iter().enumerate() {
            assert!(!digests[..at].contains(digest), "{}", texts[at]);
        }
    }

    #[test]
    fn a_key_that_stands_twice_is_another_request() {
        let once = of("m", r#"{"arguments":{"a":2}}"#);
        assert_ne!(once, of("m", r#"{"arguments":{"a":1,"a":2}}"#));
        assert_ne!(once, of("m", r#"{"arguments":{"a":2,"a":2}}"#));
    }
}
