//! Pure: schemas of a tool's arguments and of its structured result, made valid for lists.

use std::borrow::Cow;

use super::raw::{RawObject, elements, push_string};
use crate::limits::SCHEMA_LEVELS_MENDED_MAX;

/// The result of checking one member's value.
#[derive(Debug, PartialEq)]
pub(super) enum Fit {
    /// The value is valid.
    AsItIs,
    /// This text takes the value's place.
    Mended(String),
    /// The member is left out: no client could use it.
    Dropped,
    /// The item cannot be given; the text says why.
    Unfit(String),
}

/// Keywords whose value is one schema, or a list of them.
const SCHEMAS: [&str; 16] = [
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "contains",
    "contentSchema",
    "else",
    "if",
    "items",
    "not",
    "oneOf",
    "prefixItems",
    "propertyNames",
    "then",
    "unevaluatedItems",
    "unevaluatedProperties",
];

/// Keywords whose value is an object of schemas.
const SCHEMAS_BY_NAME: [&str; 5] =
    ["$defs", "definitions", "dependentSchemas", "patternProperties", "properties"];

/// Further keywords for which null is no value. Null is a value for `default`, `const` and
/// examples, and may be one for an unknown keyword.
const OTHERS: [&str; 34] = [
    "$anchor",
    "$comment",
    "$id",
    "$ref",
    "$schema",
    "contentEncoding",
    "contentMediaType",
    "dependencies",
    "dependentRequired",
    "deprecated",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "format",
    "id",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "pattern",
    "readOnly",
    "required",
    "title",
    "type",
    "uniqueItems",
    "writeOnly",
];

/// A tool's `inputSchema`: the schema of an object.
pub(super) fn input(text: &str) -> Fit {
    let Ok(mut fields) = RawObject::parse(text) else { return Fit::Dropped };
    match fields.get("type") {
        Some("\"object\"") => (),
        // Arguments are an object, whatever other types the schema allows.
        Some(others) if is_object_among(others) => fields.set("type", "\"object\""),
        None | Some("null") => fields.set("type", "\"object\""),
        Some(_) => return Fit::Unfit("is no schema of an object".to_owned()),
    }
    match root(&mut fields) {
        Ok(()) => fit(text, &fields),
        Err(why) => Fit::Unfit(why.to_owned()),
    }
}

/// A tool's `outputSchema`. An unreadable schema is dropped: the tool is of use without it.
pub(super) fn output(text: &str) -> Fit {
    let Ok(mut fields) = RawObject::parse(text) else { return Fit::Dropped };
    match root(&mut fields) {
        Ok(()) => fit(text, &fields),
        Err(_) => Fit::Dropped,
    }
}

fn fit(text: &str, fields: &RawObject<'_>) -> Fit {
    let is_same = RawObject::parse(text).is_ok_and(|before| before == *fields);
    let whole = (!is_same).then(|| fields.to_text());
    match (without_nulls(whole.as_deref().unwrap_or(text), SCHEMA_LEVELS_MENDED_MAX), whole) {
        (Some(text), _) | (None, Some(text)) => Fit::Mended(text),
        (None, None) => Fit::AsItIs,
    }
}

fn is_object_among(types: &str) -> bool {
    elements(types).is_ok_and(|types| types.contains(&"\"object\""))
}

/// Checks a schema's root as revisions up to 2025-11-25 demand it: `$schema` is a string,
/// `required` holds names, and each of `properties` is an object.
fn root(fields: &mut RawObject<'_>) -> Result<(), &'static str> {
    if fields.get("$schema").is_some_and(|text| !text.starts_with('"')) {
        fields.remove("$schema");
    }
    let names = fields.get("required").map(|text| {
        let names = elements(text).ok()?;
        let is_name = |text: &&str| text.starts_with('"');
        let kept: Vec<&str> = names.iter().copied().filter(is_name).collect();
        Some((kept.len() < names.len()).then(|| format!("[{}]", kept.join(","))))
    });
    match names {
        Some(None) => drop(fields.remove("required")),
        Some(Some(Some(kept))) => fields.set("required", kept),
        Some(Some(None)) | None => (),
    }
    let Some(text) = fields.get("properties") else { return Ok(()) };
    if is_nothing(text) {
        fields.remove("properties");
        return Ok(());
    }
    let properties = properties(text)?;
    if let Some(properties) = properties {
        fields.set("properties", properties);
    }
    Ok(())
}

/// True for `null` and for an empty array, which some languages write for an object without
/// members.
fn is_nothing(text: &str) -> bool {
    text == "null" || elements(text).is_ok_and(|elements| elements.is_empty())
}

/// The `properties` with objects in place of `true` and `false`, which not every revision allows
/// there; none if there are no such.
fn properties(text: &str) -> Result<Option<String>, &'static str> {
    let properties = RawObject::parse(text)
        .map_err(|_| "has \"properties\" that are no acceptable object")?;
    if properties.iter().all(|(_, schema)| schema.starts_with('{')) {
        return Ok(None);
    }
    let mended = properties.iter().map(|(name, schema)| {
        let schema = match schema {
            "false" => r#"{"not":{}}"#,
            object if object.starts_with('{') => object,
            _ => "{}",
        };
        (name, Cow::Borrowed(schema))
    });
    Ok(Some(object(mended)))
}

/// The text of an object, whose keys are known to differ.
fn object<'a>(fields: impl Iterator<Item = (&'a str, Cow<'a, str>)>) -> String {
    let mut out = "{".to_owned();
    for (n, (key, value)) in fields.enumerate() {
        if n > 0 {
            out.push(',');
        }
        push_string(&mut out, key);
        out.push(':');
        out.push_str(&value);
    }
    out.push('}');
    out
}

/// The schema without keywords that are null, at any depth; none if it has none: a server that
/// writes one null writes others. Nothing else of the schema changes.
fn without_nulls(text: &str, levels: usize) -> Option<String> {
    if levels == 0 || !(text.contains("null") || text.contains("[]")) {
        return None;
    }
    let fields = RawObject::parse(text).ok()?;
    let mut mended: Vec<(&str, Cow<'_, str>)> = Vec::new();
    let mut changed = false;
    for (key, value) in fields.iter() {
        let by_name = SCHEMAS_BY_NAME.contains(&key);
        let of_schemas = SCHEMAS.contains(&key);
        if (value == "null" && (by_name || of_schemas || OTHERS.contains(&key)))
            || (by_name && is_nothing(value))
        {
            changed = true;
            continue;
        }
        let other = if by_name {
            each_by_name(value, levels)
        } else if of_schemas && value.starts_with('[') {
            each(value, levels)
        } else if of_schemas {
            without_nulls(value, levels - 1)
        } else {
            None
        };
        changed |= other.is_some();
        mended.push((key, other.map_or(Cow::Borrowed(value), Cow::Owned)));
    }
    changed.then(|| object(mended.into_iter()))
}

fn each_by_name(text: &str, levels: usize) -> Option<String> {
    let schemas = RawObject::parse(text).ok()?;
    let mut mended: Vec<(&str, Cow<'_, str>)> = Vec::new();
    let mut changed = false;
    for (name, schema) in schemas.iter() {
        let other = match schema {
            "null" => Some("{}".to_owned()),
            schema => without_nulls(schema, levels - 1),
        };
        changed |= other.is_some();
        mended.push((name, other.map_or(Cow::Borrowed(schema), Cow::Owned)));
    }
    changed.then(|| object(mended.into_iter()))
}

fn each(text: &str, levels: usize) -> Option<String> {
    let schemas = elements(text).ok()?;
    let others: Vec<Option<String>> =
        schemas.iter().map(|schema| without_nulls(schema, levels - 1)).collect();
    others.iter().any(Option::is_some).then(|| {
        let each = schemas.iter().zip(&others);
        let each = each.map(|(schema, other)| other.as_deref().unwrap_or(schema));
        format!("[{}]", each.collect::<Vec<_>>().join(","))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_an_object_whatever_else_would_do() {
        for whole in [
            r#"{"type":"object"}"#,
            r#"{ "properties":{"a":{"default":null,"x-y":null}},"type":"object","required":[] }"#,
            r#"{"type":"object","properties":{},"anyOf":[{"const":null},true]}"#,
        ] {
            assert_eq!(input(whole), Fit::AsItIs, "{whole}");
        }
        for (read, mended) in [
            ("{}", r#"{"type":"object"}"#),
            (r#"{"type":null,"a":1.0}"#, r#"{"type":"object","a":1.0}"#),
            (r#"{"type":["null","object"]}"#, r#"{"type":"object"}"#),
            (r#"{"type":"object","properties":null}"#, r#"{"type":"object"}"#),
            (r#"{"type":"object","properties":[],"required":null}"#, r#"{"type":"object"}"#),
            (
                r#"{"type":"object","required":["a",1]}"#,
                r#"{"type":"object","required":["a"]}"#,
            ),
            (r#"{"type":"object","required":true,"$schema":7}"#, r#"{"type":"object"}"#),
            (
                r#"{"type":"object","properties":{"a":null,"b":true,"c":false,"d":"x","e":{}}}"#,
                r#"{"type":"object","properties":{"a":{},"b":{},"c":{"not":{}},"d":{},"e":{}}}"#,
            ),
        ] {
            assert_eq!(input(read), Fit::Mended(mended.to_owned()), "{read}");
        }
        for unfit in [
            r#"{"type":"string"}"#,
            r#"{"type":["null","array"]}"#,
            r#"{"type":7}"#,
            r#"{"type":"object","properties":"a"}"#,
            r#"{"type":"object","properties":["a"]}"#,
        ] {
            assert!(matches!(input(unfit), Fit::Unfit(_)), "{unfit}");
        }
        for none in ["[]", "7", r#""object""#, "true", r#"{"type":"object","type":"object"}"#] {
            assert_eq!(input(none), Fit::Dropped, "{none}");
        }
    }

    #[test]
    fn keywords_that_are_null_go_in_whatever_depth_and_values_that_are_null_stay() {
        let read = r#"{"type":"object","properties":{"a":{"type":"array","description":null,
            "items":{"anyOf":[{"enum":null},{"enum":[null]}],"not":null},"default":null},
            "null":null},"x":{"title":null},"additionalProperties":{"properties":[]}}"#;
        let mended = r#"{"type":"object","properties":{"a":{"type":"array","items":{"anyOf":[{},{"enum":[null]}]},"default":null},"null":{}},"x":{"title":null},"additionalProperties":{}}"#;
        assert_eq!(input(read), Fit::Mended(mended.to_owned()));
        let deep = format!(
            r#"{{"type":"object","not":{}{{"title":null}}{}}}"#,
            r#"{"not":"#.repeat(100),
            "}".repeat(100)
        );
        assert_eq!(input(&deep), Fit::AsItIs);
    }

    #[test]
    fn a_result_s_schema_may_be_any_and_is_dropped_if_it_cannot_be_read() {
        for whole in
            [r#"{"type":"array","items":{}}"#, r#"{"anyOf":[{"type":"string"}]}"#, "{}"]
        {
            assert_eq!(output(whole), Fit::AsItIs, "{whole}");
        }
        let mended = Fit::Mended(r#"{"type":"object"}"#.to_owned());
        assert_eq!(output(r#"{"type":"object","properties":null}"#), mended);
        for none in ["7", "[]", "true", r#"{"properties":7}"#] {
            assert_eq!(output(none), Fit::Dropped, "{none}");
        }
    }
}
