//! Parameters that a tool wants mirrored into headers (2026-07-28, basic/transports/
//! streamable-http, Custom Headers from Tool Parameters).

use std::borrow::Cow;

use serde_json::Value;

use super::raw::{RawObject, each_element};
use crate::limits::MIRRORED_PARAMETERS_MAX;

/// The annotation in a property's schema.
const ANNOTATION: &str = "x-mcp-header";
/// The largest magnitude of an integer that may be mirrored: 2^53 - 1.
const SAFE_INTEGER_MAX: i64 = (1 << 53) - 1;

/// One parameter that is mirrored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mirror {
    /// The header's name behind `Mcp-Param-`.
    pub header: String,
    /// The names of properties that lead to the value in the arguments.
    pub path: Vec<String>,
}

/// The annotations of a tool, from its object's text.
///
/// # Errors
/// An annotation breaks the specification's rules, which makes the tool's definition invalid; the
/// text says why.
pub fn annotations(tool: &str) -> Result<Vec<Mirror>, String> {
    // Most tools have no annotation, and a search of the text shows that.
    if !may_hold(tool) {
        return Ok(Vec::new());
    }
    let tool = object(tool)?;
    let mut found = Vec::new();
    if let Some(schema) = tool.get("inputSchema").filter(|text| is_object(text)) {
        let schema = object(schema)?;
        if schema.get(ANNOTATION).is_some() {
            return Err(format!("{ANNOTATION} stands at the root of the schema"));
        }
        walk(&schema, &mut Vec::new(), &mut found)?;
    }
    if found.len() > MIRRORED_PARAMETERS_MAX {
        return Err(format!(
            "{ANNOTATION} stands at more than {MIRRORED_PARAMETERS_MAX} parameters"
        ));
    }
    for (index, mirror) in found.iter().enumerate() {
        let same = |other: &Mirror| other.header.eq_ignore_ascii_case(&mirror.header);
        if found.iter().take(index).any(same) {
            return Err(format!("{ANNOTATION} {:?} stands twice", mirror.header));
        }
    }
    Ok(found)
}

/// True if an annotation may stand in a text, under its name or with characters of it escaped.
fn may_hold(text: &str) -> bool {
    text.contains(ANNOTATION) || text.contains("\\u")
}

fn is_object(text: &str) -> bool {
    text.starts_with('{')
}

/// One level of an object: schemas stay text, since little of a long one is parsed.
fn object(text: &str) -> Result<RawObject<'_>, String> {
    RawObject::parse(text).map_err(|error| error.to_string())
}

/// Collects the annotations of one schema, whose place is reached by `properties` alone.
fn walk(
    schema: &RawObject<'_>,
    path: &mut Vec<String>,
    found: &mut Vec<Mirror>,
) -> Result<(), String> {
    for (keyword, value) in schema.iter() {
        match keyword {
            // A value without an annotation needs no parsing.
            _ if !may_hold(value) => (),
            "properties" if is_object(value) => {
                for (name, property) in object(value)?.iter() {
                    if !is_object(property) {
                        continue;
                    }
                    let property = object(property)?;
                    path.push(name.to_owned());
                    if let Some(header) = property.get(ANNOTATION) {
                        found.push(mirror(header, &property, path)?);
                    }
                    walk(&property, path, found)?;
                    path.pop();
                }
            }
            // Examples and defaults are values, not schemas.
            ANNOTATION | "default" | "examples" | "enum" | "const" => (),
            keyword if has_annotation(value) => {
                return Err(format!("{ANNOTATION} stands below {keyword:?}"));
            }
            _ => (),
        }
    }
    Ok(())
}

/// True if an annotation stands in a value, or the value cannot be searched.
fn has_annotation(value: &str) -> bool {
    if !may_hold(value) {
        return false;
    }
    match value.as_bytes().first() {
        Some(b'{') => RawObject::parse(value).map_or(true, |fields| {
            fields.iter().any(|(key, value)| key == ANNOTATION || has_annotation(value))
        }),
        Some(b'[') => {
            let mut is_found = false;
            let read = each_element(value, &mut |element| is_found |= has_annotation(element));
            is_found || read.is_err()
        }
        Some(_) | None => false,
    }
}

fn mirror(header: &str, property: &RawObject<'_>, path: &[String]) -> Result<Mirror, String> {
    let name: String =
        serde_json::from_str(header).map_err(|_| format!("{ANNOTATION} is no string"))?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err(format!("{ANNOTATION} {name:?} is no name of a header"));
    }
    match property.string("type").ok().flatten().as_deref() {
        Some("string" | "integer" | "boolean") => (),
        _ => {
            return Err(format!(
                "{ANNOTATION} {name:?} stands at a parameter that is no string, integer or boolean"
            ));
        }
    }
    Ok(Mirror { header: name, path: path.to_vec() })
}

/// True for a token's characters (RFC 9110, section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

impl Mirror {
    /// Reads the parameter out of the arguments' text; `null` where the parameter is missing, or
    /// has a value that cannot be mirrored. Only the values on its path are parsed.
    ///
    /// # Errors
    /// A key on the path stands twice, so that another reader could see another value, or the
    /// value cannot be read.
    pub fn read(&self, arguments: &str) -> Result<Value, serde_json::Error> {
        let mut text = Cow::Borrowed(arguments);
        for name in &self.path {
            if !text.starts_with('{') {
                return Ok(Value::Null);
            }
            let value = RawObject::parse(&text)?.get(name).map(str::to_owned);
            match value {
                Some(value) => text = Cow::Owned(value),
                None => return Ok(Value::Null),
            }
        }
        if text.starts_with(['{', '[']) { Ok(Value::Null) } else { serde_json::from_str(&text) }
    }

    /// A parameter's value as a header has it before it is encoded. None where there is none, or
    /// a value that cannot be mirrored.
    pub fn text_of(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(text.clone()),
            Value::Bool(flag) => Some(flag.to_string()),
            Value::Number(number) => {
                let integer = number.as_i64().or_else(|| whole(number.as_f64()?))?;
                (integer.abs() <= SAFE_INTEGER_MAX).then(|| integer.to_string())
            }
            Value::Null | Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// True if a header's decoded value equals the parameter's value; numbers are compared as
    /// numbers.
    pub fn agree(header: &str, value: &Value) -> bool {
        let Some(text) = Mirror::text_of(value) else { return false };
        text == header
            || value.is_number()
                && header.trim().parse().ok().and_then(whole).map(|n| n.to_string())
                    == Some(text)
    }
}

/// The integer that a number is, within the safe range.
fn whole(number: f64) -> Option<i64> {
    let integer: i64 = format!("{number:.0}").parse().ok()?;
    (number.fract() == 0.0 && integer.abs() <= SAFE_INTEGER_MAX).then_some(integer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Map, json};

    fn of(schema: &Value) -> Result<Vec<Mirror>, String> {
        annotations(&json!({ "name": "t", "inputSchema": schema }).to_string())
    }

    #[test]
    fn annotations_are_found_along_properties() {
        let found = of(&json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "where": { "type": "object", "properties": {
                "zone": { "type": "integer", "x-mcp-header": "Zone" } } } } }))
        .unwrap();
        let path = |parts: &[&str]| parts.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>();
        assert_eq!(found[0], Mirror { header: "Region".into(), path: path(&["region"]) });
        assert_eq!(found[1], Mirror { header: "Zone".into(), path: path(&["where", "zone"]) });
        let arguments = r#"{ "region": "eu", "where": { "zone": 42 } }"#;
        let [region, zone] = [0, 1].map(|at: usize| found[at].read(arguments).unwrap());
        assert_eq!(Mirror::text_of(&region).as_deref(), Some("eu"));
        assert!(Mirror::agree("42.0", &zone) && Mirror::agree("42", &zone));
        assert!(!Mirror::agree("43", &zone) && !Mirror::agree("us", &region));
        for nothing in [r#"{"region":null}"#, "{}", "7", r#"{"region":{"region":"eu"}}"#] {
            assert_eq!(found[0].read(nothing).unwrap(), Value::Null, "{nothing}");
        }
        assert_eq!(found[1].read(r#"{"where":7}"#).unwrap(), Value::Null);
    }

    #[test]
    fn arguments_that_two_readers_could_read_differently_are_refused() {
        let zone = Mirror { header: "Zone".into(), path: vec!["where".into(), "zone".into()] };
        for ambiguous in [
            r#"{"where":{"zone":1,"zone":2}}"#,
            r#"{"where":{"zone":1},"where":{"zone":2}}"#,
            r#"{"where":{"zone":1e999999}}"#,
        ] {
            assert!(zone.read(ambiguous).is_err(), "{ambiguous}");
        }
        // The server judges values beside the path.
        let beside = r#"{"x":1e999999,"y":{"a":1,"a":2},"where":{"zone":1}}"#;
        assert_eq!(zone.read(beside).unwrap(), json!(1));
    }

    #[test]
    fn what_is_on_no_way_to_an_annotation_is_not_looked_into() {
        let schema = r#"{"$defs":{"x":{"a":1,"a":1e999999}},"properties":{
            "b":{"default":{"x-mcp-header":1,"x-mcp-header":2}},"c":{"enum":[1e999999]},
            "d":{"type":"str\u0069ng","x-mcp-heade\u0072":"D"}}}"#;
        let found = annotations(&format!(r#"{{"name":"t","inputSchema":{schema}}}"#)).unwrap();
        assert_eq!(found, [Mirror { header: "D".into(), path: vec!["d".into()] }]);
        let twice =
            schema.replace("\"$defs\":{\"x\":{", "\"items\":{\"x\":{\"x-mcp-header\":1,");
        let error =
            annotations(&format!(r#"{{"name":"t","inputSchema":{twice}}}"#)).unwrap_err();
        assert!(error.contains("below \"items\""), "{error}");
    }

    #[test]
    fn only_so_many_parameters_are_mirrored() {
        let with = |n: usize| {
            let property = |i: usize| {
                (format!("p{i}"), json!({ "type": "string", "x-mcp-header": format!("H{i}") }))
            };
            of(&json!({ "properties": (0..n).map(property).collect::<Map<_, _>>() }))
        };
        assert_eq!(with(MIRRORED_PARAMETERS_MAX).unwrap().len(), MIRRORED_PARAMETERS_MAX);
        assert!(with(MIRRORED_PARAMETERS_MAX + 1).unwrap_err().contains("more than"));
    }

    #[test]
    fn an_annotation_that_is_wrong_says_why() {
        let property = |property: Value| of(&json!({ "properties": { "a": property } }));
        for (schema, part) in [
            (property(json!({ "type": "string", "x-mcp-header": "" })), "no name"),
            (property(json!({ "type": "string", "x-mcp-header": "a b" })), "no name"),
            (property(json!({ "type": "string", "x-mcp-header": 1 })), "no string"),
            (property(json!({ "type": "number", "x-mcp-header": "A" })), "no string, integer"),
            (
                property(
                    json!({ "type": "array", "items": { "type": "string", "x-mcp-header": "A" } }),
                ),
                "below \"items\"",
            ),
            (
                of(
                    &json!({ "anyOf": [{ "properties": { "a": { "type": "string", "x-mcp-header": "A" } } }] }),
                ),
                "below \"anyOf\"",
            ),
            (
                of(&json!({ "properties": {
                    "a": { "type": "string", "x-mcp-header": "A" },
                    "b": { "type": "string", "x-mcp-header": "a" } } })),
                "twice",
            ),
        ] {
            let error = schema.unwrap_err();
            assert!(error.contains(part), "{error}");
        }
        assert_eq!(
            of(&json!({ "properties": { "a": { "default": { "x-mcp-header": 1 } } } })),
            Ok(vec![])
        );
    }
}
