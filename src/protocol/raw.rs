//! JSON values as text that is passed on without being rebuilt.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashSet;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use serde::de::{Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use crate::limits::{JSON_ARRAY_ELEMENTS_MAX, JSON_OBJECT_KEYS_MAX};

/// One JSON value as text: a range of a shared buffer, so that a large result is never copied
/// on its way through.
#[derive(Clone)]
pub struct Raw {
    buffer: Arc<String>,
    range: Range<usize>,
    /// Is dropped with the last value that shares it.
    keeper: Option<Keeper>,
}

/// The most bytes around a value that are held with it: a message has fewer.
const HELD_AROUND_BYTES_MAX: usize = 4096;

/// A guard that is dropped with the last value it was given to, so that its giver learns of the
/// end.
pub type Keeper = Arc<dyn Any + Send + Sync>;

impl Raw {
    /// Takes a whole text, which must be one valid JSON value.
    pub fn from_valid(text: String) -> Raw {
        let range = 0..text.len();
        Raw { buffer: Arc::new(text), range, keeper: None }
    }

    /// The part of `buffer` that `part` points into; a copy of `part` if it points elsewhere.
    pub fn part_of(buffer: &Arc<String>, part: &str) -> Raw {
        let start = part.as_ptr().addr().wrapping_sub(buffer.as_ptr().addr());
        match buffer.get(start..start.wrapping_add(part.len())) {
            Some(same) if std::ptr::eq(same, part) => {
                let range = start..start + part.len();
                Raw { buffer: buffer.clone(), range, keeper: None }
            }
            _ => Raw::from_valid(part.to_owned()),
        }
    }

    /// Gives the value a keeper, which lives as long as it and its clones.
    pub fn keep(&mut self, keeper: &Option<Keeper>) {
        self.keeper.clone_from(keeper);
    }

    /// The guard that lives as long as this value.
    pub fn keeper(&self) -> Option<&Keeper> {
        self.keeper.as_ref()
    }

    /// A text made of this value and about as large, with the same keeper.
    pub fn rewritten(&self, text: String) -> Raw {
        Raw { keeper: self.keeper.clone(), ..Raw::from_valid(text) }
    }

    /// The value without its keeper, for an owner that counts its bytes otherwise. It is copied
    /// out of a text that is much larger, which would be held with it.
    pub fn without_keeper(&self) -> Raw {
        if self.buffer.len() > self.range.len() + HELD_AROUND_BYTES_MAX {
            return Raw::from_valid(self.get().to_owned());
        }
        Raw { keeper: None, ..self.clone() }
    }

    /// Bytes of the text; 0 where both share one buffer.
    pub fn len_beside(&self, other: &Raw) -> usize {
        if Arc::ptr_eq(&self.buffer, &other.buffer) { 0 } else { self.range.len() }
    }

    /// The piece of memory that is held with the value: its address, and its size in bytes.
    pub fn piece(&self) -> (usize, usize) {
        (Arc::as_ptr(&self.buffer).addr(), self.buffer.len())
    }

    /// The text.
    pub fn get(&self) -> &str {
        self.buffer.get(self.range.clone()).unwrap_or("null")
    }
}

/// True if `text` holds `wanted`, which is compared only where its byte number `rare` stands, an
/// ASCII character that few texts have. For short texts that are searched for each call, where
/// preparing a search costs more than the search.
pub fn holds(text: &str, wanted: &str, rare: usize) -> bool {
    let Some(byte) = wanted.as_bytes().get(rare) else { return false };
    text.match_indices(char::from(*byte)).any(|(at, _)| {
        let from = at.checked_sub(rare);
        from.and_then(|from| text.as_bytes().get(from..from + wanted.len()))
            .is_some_and(|found| found == wanted.as_bytes())
    })
}

impl fmt::Debug for Raw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.get())
    }
}

impl PartialEq for Raw {
    fn eq(&self, other: &Raw) -> bool {
        let is_same = Arc::ptr_eq(&self.buffer, &other.buffer) && self.range == other.range;
        is_same || self.get() == other.get()
    }
}

/// A JSON object whose values are still text. Keeps the order of its keys and all unknown
/// members; refuses a key that stands twice, because two readers could then see two different
/// messages.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct RawObject<'a> {
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
}

impl<'a> RawObject<'a> {
    /// Reads one level of `text`.
    ///
    /// # Errors
    /// `text` is no JSON object, a key stands twice in it, or it has more than
    /// [`JSON_OBJECT_KEYS_MAX`].
    pub fn parse(text: &'a str) -> Result<RawObject<'a>, serde_json::Error> {
        let mut reader = serde_json::Deserializer::from_str(text);
        let object = reader.deserialize_map(Fields)?;
        reader.end()?;
        Ok(object)
    }

    /// The text of a field's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.fields.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_ref())
    }

    /// A field that must be a string, if it is there.
    ///
    /// # Errors
    /// The field is no string.
    pub fn string(&self, key: &str) -> Result<Option<String>, serde_json::Error> {
        self.get(key).map(serde_json::from_str).transpose()
    }

    /// Replaces a field's value where it stands, or adds the field at the end.
    pub fn set(&mut self, key: &'a str, value: impl Into<Cow<'a, str>>) {
        let value = value.into();
        match self.fields.iter_mut().find(|(name, _)| name == key) {
            Some((_, old)) => *old = value,
            None => self.fields.push((Cow::Borrowed(key), value)),
        }
    }

    /// Replaces a field's value, if the field exists.
    pub fn replace(&mut self, key: &str, value: impl Into<Cow<'a, str>>) {
        if let Some((_, old)) = self.fields.iter_mut().find(|(name, _)| name == key) {
            *old = value.into();
        }
    }

    /// Takes a field out; the fields behind it move up.
    pub fn remove(&mut self, key: &str) -> Option<Cow<'a, str>> {
        let at = self.fields.iter().position(|(name, _)| name == key)?;
        Some(self.fields.remove(at).1)
    }

    /// True if there is no field.
    pub fn is_empty(&self) -> bool {
        self.fields.is_empty()
    }

    /// The fields in order.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.fields.iter().map(|(name, value)| (name.as_ref(), value.as_ref()))
    }

    /// Appends the object's text.
    pub fn write(&self, out: &mut String) {
        let size: usize = self.fields.iter().map(|(n, v)| n.len() + v.len() + 4).sum();
        out.reserve(size + 2);
        out.push('{');
        for (index, (name, value)) in self.fields.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            push_string(out, name);
            out.push(':');
            out.push_str(value);
        }
        out.push('}');
    }

    /// The object's text.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&string(text));
    }
}

/// `text` as a JSON string.
pub fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

struct Fields;

/// Bytes of a key that an error names.
const KEY_TOLD_BYTES_MAX: usize = 200;

/// With at most so many fields, a new key is compared with each.
const FEW_FIELDS: usize = 16;

impl<'de> Visitor<'de> for Fields {
    type Value = RawObject<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<RawObject<'de>, A::Error> {
        let mut fields = FieldList::default();
        while let Some(Key(key)) = map.next_key::<Key<'de>>()? {
            let value: &'de RawValue = map.next_value()?;
            fields.add(key, value.get()).map_err(A::Error::custom)?;
        }
        Ok(fields.into_object())
    }
}

/// The fields of an object that is being read.
pub(super) struct FieldList<'a> {
    fields: Vec<(Cow<'a, str>, Cow<'a, str>)>,
    /// The keys, once there are many. Comparing with each key before is quickest for the few that
    /// messages have; an object made to have a hundred thousand must not cost their square.
    many: HashSet<Cow<'a, str>>,
}

impl Default for FieldList<'_> {
    fn default() -> Self {
        FieldList { fields: Vec::with_capacity(8), many: HashSet::new() }
    }
}

impl<'a> FieldList<'a> {
    /// Adds a field.
    ///
    /// # Errors
    /// The key stands twice, or there are too many fields.
    pub(super) fn add(&mut self, key: Cow<'a, str>, value: &'a str) -> Result<(), String> {
        let FieldList { fields, many } = self;
        if fields.len() == JSON_OBJECT_KEYS_MAX {
            return Err("an object has too many keys".to_owned());
        }
        if fields.len() == FEW_FIELDS {
            *many = fields.iter().map(|(name, _)| name.clone()).collect();
        }
        let is_new = if fields.len() < FEW_FIELDS {
            fields.iter().all(|(name, _)| *name != key)
        } else {
            many.insert(key.clone())
        };
        if !is_new {
            let key = start_of(&key, KEY_TOLD_BYTES_MAX);
            return Err(format!("the key {key:?} stands twice"));
        }
        fields.push((key, Cow::Borrowed(value)));
        Ok(())
    }

    /// The object with all fields.
    pub(super) fn into_object(self) -> RawObject<'a> {
        RawObject { fields: self.fields }
    }
}

struct Key<'a>(Cow<'a, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key<'de>, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

/// The elements of a JSON array, each still text.
///
/// # Errors
/// `text` is no JSON array, or has more than [`JSON_ARRAY_ELEMENTS_MAX`] elements.
pub fn elements(text: &str) -> Result<Vec<&str>, serde_json::Error> {
    let mut elements = Vec::new();
    try_each_element(text, &mut |element| {
        if elements.len() == JSON_ARRAY_ELEMENTS_MAX {
            return Err("an array has too many elements");
        }
        elements.push(element);
        Ok(())
    })?;
    Ok(elements)
}

/// Gives the elements of a JSON array one by one, each still text; none is kept.
///
/// # Errors
/// `text` is no JSON array; the elements before the fault were given.
pub fn each_element<'a>(
    text: &'a str,
    take: &mut dyn FnMut(&'a str),
) -> Result<(), serde_json::Error> {
    try_each_element(text, &mut |element| {
        take(element);
        Ok(())
    })
}

/// As [`each_element`], until `take` refuses an element with a reason; the rest is not read.
///
/// # Errors
/// As [`each_element`], or an element was refused.
pub fn try_each_element<'a>(
    text: &'a str,
    take: &mut dyn FnMut(&'a str) -> Result<(), &'static str>,
) -> Result<(), serde_json::Error> {
    struct Each<'t, 'a>(&'t mut dyn FnMut(&'a str) -> Result<(), &'static str>);
    impl<'de> Visitor<'de> for Each<'_, 'de> {
        type Value = ();
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            while let Some(element) = seq.next_element::<&'de RawValue>()? {
                (self.0)(element.get()).map_err(A::Error::custom)?;
            }
            Ok(())
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    reader.deserialize_seq(Each(take))?;
    reader.end()
}

/// The beginning of `text`, as many whole characters as `bytes_max` bytes hold.
pub fn start_of(text: &str, bytes_max: usize) -> &str {
    let mut end = text.len().min(bytes_max);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}

/// The first elements of a JSON array, at most `most` of them, each still text. The others are
/// read without being kept: an array of a million zeros costs no more than its text.
///
/// # Errors
/// `text` is no JSON array.
pub fn first_elements(text: &str, most: usize) -> Result<Vec<&str>, serde_json::Error> {
    struct First(usize);
    impl<'de> Visitor<'de> for First {
        type Value = Vec<&'de str>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a JSON array")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut elements = Vec::new();
            while elements.len() < self.0 {
                let Some(element) = seq.next_element::<&'de RawValue>()? else {
                    return Ok(elements);
                };
                elements.push(element.get());
            }
            while seq.next_element::<IgnoredAny>()?.is_some() {}
            Ok(elements)
        }
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let elements = reader.deserialize_seq(First(most))?;
    reader.end()?;
    Ok(elements)
}

/// True if `text` nests deeper than `levels`. Counts brackets outside of strings only, so it
/// costs one pass and no stack; the parser finds out if the text is JSON.
pub fn is_deeper_than(text: &str, levels: usize) -> bool {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for byte in text.bytes() {
        if in_string {
            match byte {
                _ if escaped => escaped = false,
                b'\\' => escaped = true,
                b'"' => in_string = false,
                _ => (),
            }
            continue;
        }
        match byte {
            b'"' => in_string = true,
            b'[' | b'{' => {
                depth += 1;
                if depth > levels {
                    return true;
                }
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => (),
        }
    }
    false
}

/// `text` with a blank for each line end. In valid JSON line ends stand between values only; a
/// line of stdio and a line of SSE may not hold them.
pub fn on_one_line(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|b| b == b'\n' || b == b'\r') {
        Cow::Owned(text.replace(['\n', '\r'], " "))
    } else {
        Cow::Borrowed(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_by_its_rare_byte() {
        let found = |text: &str| holds(text, "a/b", 1);
        assert!(found("a/b") && found("//a/b") && found("\u{fc}a/bc/"));
        assert!(!found("/b") && !found("a/") && !found("a/c") && !found("") && !found("ab"));
        assert!(!holds("a", "a", 7));
    }

    #[test]
    fn order_and_unknown_fields_survive() {
        let text = r#"{"z":1.50,"a":{"k": [1, 2]},"é\n":null}"#;
        let mut object = RawObject::parse(text).unwrap();
        assert_eq!(object.get("z"), Some("1.50"));
        object.set("a", "7");
        assert_eq!(object.to_text(), r#"{"z":1.50,"a":7,"é\n":null}"#);
    }

    #[test]
    fn a_key_that_stands_twice_is_refused_also_when_written_otherwise() {
        assert!(RawObject::parse(r#"{"a":1,"a":2}"#).is_err());
        assert!(RawObject::parse(r#"{"a":1,"\u0061":2}"#).is_err());
        assert!(RawObject::parse(r#"{"a":1} x"#).is_err());
        assert!(RawObject::parse("[]").is_err());
    }

    #[test]
    fn many_fields_cost_no_more_than_their_number() {
        // One field fewer than allowed, so that the second key is refused for standing twice.
        let last = JSON_OBJECT_KEYS_MAX - 2;
        let fields: Vec<String> = (0..=last).map(|n| format!("\"{n}\":0")).collect();
        let text = format!("{{{}}}", fields.join(","));
        assert!(RawObject::parse(&text).is_ok());
        let twice = format!("{{{},\"{last}\":1}}", fields.join(","));
        assert!(RawObject::parse(&twice).is_err());
        let twice = format!("{{{},\"7\":1}}", fields.join(","));
        assert!(RawObject::parse(&twice).is_err());
    }

    #[test]
    fn a_part_shares_its_buffer() {
        let buffer = Arc::new(r#"{"result":[1,2]}"#.to_owned());
        let object = RawObject::parse(&buffer).unwrap();
        let part = Raw::part_of(&buffer, object.get("result").unwrap());
        assert_eq!(part.get(), "[1,2]");
        assert!(Arc::ptr_eq(&part.buffer, &buffer));
        assert_eq!(Raw::part_of(&buffer, "elsewhere").get(), "elsewhere");
    }

    #[test]
    fn a_keeper_goes_with_the_last_clone() {
        let keeper: Keeper = Arc::new(());
        let mut raw = Raw::from_valid("7".to_owned());
        raw.keep(&Some(keeper.clone()));
        let clone = raw.clone();
        drop(raw);
        assert_eq!(Arc::strong_count(&keeper), 2);
        drop(clone);
        assert_eq!(Arc::strong_count(&keeper), 1);
    }

    #[test]
    fn of_a_long_array_only_the_first_elements_are_kept() {
        assert_eq!(first_elements("[1, {\"a\":[2]} ,3]", 2).unwrap(), ["1", "{\"a\":[2]}"]);
        assert_eq!(first_elements(" [ 1 ] ", 2).unwrap(), ["1"]);
        for wrong in ["[1,2,", "[1,2]]", "[1 2]", "{}", "[1,2,x]"] {
            assert!(first_elements(wrong, 1).is_err(), "{wrong}");
        }
    }

    #[test]
    fn an_object_of_too_many_keys_is_refused() {
        let object = |keys: usize| {
            let fields: Vec<String> = (0..keys).map(|n| format!("\"{n}\":0")).collect();
            format!("{{{}}}", fields.join(","))
        };
        assert!(RawObject::parse(&object(JSON_OBJECT_KEYS_MAX)).is_ok());
        let error = RawObject::parse(&object(JSON_OBJECT_KEYS_MAX + 1)).unwrap_err();
        assert!(error.to_string().contains("too many keys"), "{error}");
    }

    #[test]
    fn an_array_of_too_many_elements_is_refused_where_it_has_one_too_many() {
        let zeros = |n: usize| format!("[{}0", "0,".repeat(n - 1));
        assert!(elements(&format!("{}]", zeros(JSON_ARRAY_ELEMENTS_MAX))).is_ok());
        // The rest is not read: it would be refused for another reason.
        let many = format!("{}, nonsense", zeros(JSON_ARRAY_ELEMENTS_MAX + 1));
        assert!(elements(&many).unwrap_err().to_string().contains("too many elements"));
    }

    #[test]
    fn the_start_of_a_text_ends_between_two_characters() {
        assert_eq!(
            (start_of("aéb", 2), start_of("aéb", 3), start_of("a", 9)),
            ("a", "aé", "a")
        );
    }

    #[test]
    fn depth_counts_brackets_outside_strings() {
        assert!(!is_deeper_than(r#"{"a":"[[[["}"#, 1));
        assert!(is_deeper_than("[[1]]", 1));
        assert!(!is_deeper_than(r#"["\"[", []]"#, 2));
    }
}
