//! Pure: structured results of any type, for clients of revisions in which they are objects:
//! schema and value are wrapped alike, `{"result": …}`, as the official SDKs' servers do it.

use serde_json::{Map, Value};

use super::raw::RawObject;

/// The member that holds a wrapped value.
const WRAPPER: &str = "result";
/// The place of the original schema within the wrapping one.
const PLACE: &str = "#/properties/result";

/// Keywords whose value is no schema: a member that looks like a reference is a value there.
const VALUES: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keywords whose value is schemas by name: a member that looks like a keyword is a name there.
const BY_NAME: [&str; 6] = [
    "$defs",
    "definitions",
    "dependencies",
    "dependentSchemas",
    "patternProperties",
    "properties",
];

/// True if a tool's structured result need not be an object: its `outputSchema` has another type,
/// or none.
pub fn is_of_any_type(tool: &str) -> bool {
    // Most tools have an object's schema or none, which the text shows.
    tool.contains("\"outputSchema\"")
        && RawObject::parse(tool).is_ok_and(|tool| {
            tool.get("outputSchema").is_some_and(|schema| {
                RawObject::parse(schema)
                    .is_ok_and(|schema| schema.get("type") != Some("\"object\""))
            })
        })
}

/// A tool's definition without its `outputSchema`; none if it cannot be read.
pub fn without_schema(tool: &str) -> Option<String> {
    let mut fields = RawObject::parse(tool).ok()?;
    fields.remove("outputSchema");
    Some(fields.to_text())
}

/// A tool's definition with its `outputSchema` wrapped as an object's; none if it cannot be read,
/// or holds a number that is out of range.
pub fn wrapped_tool(tool: &str) -> Option<String> {
    let mut fields = RawObject::parse(tool).ok()?;
    let schema: Map<String, Value> = serde_json::from_str(fields.get("outputSchema")?).ok()?;
    let wrapped = wrapped_schema(schema).to_string();
    fields.set("outputSchema", wrapped);
    Some(fields.to_text())
}

/// A structured result that satisfies the wrapped schema.
pub fn wrapped_value(value: &str) -> String {
    format!("{{\"{WRAPPER}\":{value}}}")
}

fn wrapped_schema(mut schema: Map<String, Value>) -> Value {
    let mut whole = Map::new();
    // The dialect is that of the whole document.
    if let Some(dialect) = schema.get("$schema").filter(|it| it.is_string()) {
        whole.insert("$schema".to_owned(), dialect.clone());
    }
    moved(&mut schema);
    whole.insert("type".to_owned(), "object".into());
    whole.insert("properties".to_owned(), serde_json::json!({ WRAPPER: schema }));
    whole.insert("required".to_owned(), serde_json::json!([WRAPPER]));
    Value::Object(whole)
}

/// Changes references into the schema's own document so that they lead to its new place. Below an
/// `$id` references start from there, as before (JSON Schema 2020-12, core, 8.2.1).
fn moved(schema: &mut Map<String, Value>) {
    let has_base = |id: &Value| !id.as_str().is_some_and(|id| id.starts_with('#'));
    if schema.get("$id").is_some_and(has_base) {
        return;
    }
    // `$recursiveRef` leads to the document's root, which is another schema now.
    if schema.get("$recursiveRef").and_then(Value::as_str) == Some("#") {
        schema.remove("$recursiveRef");
        schema.entry("$ref").or_insert_with(|| "#".into());
    }
    for (keyword, value) in schema {
        let keyword = keyword.as_str();
        if keyword == "$ref" || keyword == "$dynamicRef" {
            if let Some(rest) = value.as_str().and_then(|text| text.strip_prefix('#'))
                && (rest.is_empty() || rest.starts_with('/'))
            {
                *value = format!("{PLACE}{rest}").into();
            }
        } else if BY_NAME.contains(&keyword) {
            if let Value::Object(named) = value {
                named.values_mut().for_each(moved_in);
            }
        } else if !VALUES.contains(&keyword) {
            moved_in(value);
        }
    }
}

fn moved_in(value: &mut Value) {
    match value {
        Value::Object(schema) => moved(schema),
        Value::Array(schemas) => schemas.iter_mut().for_each(moved_in),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wrapped(schema: Value) -> Value {
        let tool = json!({ "name": "t", "inputSchema": {}, "outputSchema": schema, "x": 1 });
        let text = wrapped_tool(&tool.to_string()).unwrap();
        let tool: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(tool["x"], 1);
        tool["outputSchema"].clone()
    }

    #[test]
    fn only_what_is_no_object_is_of_any_type() {
        let tool = |schema: Value| json!({ "name": "t", "outputSchema": schema }).to_string();
        for schema in [
            json!({ "type": "array" }),
            json!({ "type": "string" }),
            json!({ "type": ["object", "null"] }),
            json!({ "anyOf": [{ "type": "object" }, { "type": "string" }] }),
            json!({}),
        ] {
            assert!(is_of_any_type(&tool(schema.clone())), "{schema}");
        }
        assert!(!is_of_any_type(&tool(json!({ "type": "object" }))));
        assert!(!is_of_any_type(&tool(json!(true))));
        assert!(!is_of_any_type(r#"{"name":"outputSchema"}"#));
    }

    #[test]
    fn the_schema_stands_below_one_member() {
        let schema = json!({ "type": "array", "items": { "type": "integer" } });
        assert_eq!(
            wrapped(schema.clone()),
            json!({ "type": "object", "properties": { "result": schema }, "required": ["result"] })
        );
        assert_eq!(wrapped_value("[1]"), r#"{"result":[1]}"#);
    }

    #[test]
    fn references_lead_to_where_they_led() {
        let out = wrapped(json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "array",
            "items": { "$ref": "#/$defs/node" },
            "$defs": {
                "node": { "anyOf": [{ "$ref": "#" }, { "$ref": "other.json#/x" }, { "$ref": "#name" }] },
                "$ref": { "type": "string", "default": { "$ref": "#/value" } },
                "apart": { "$id": "https://example.org/a", "items": { "$ref": "#/b" } },
            },
        }));
        assert_eq!(out["$schema"], "https://json-schema.org/draft/2020-12/schema");
        let result = &out["properties"]["result"];
        assert_eq!(result["items"]["$ref"], "#/properties/result/$defs/node");
        let any = &result["$defs"]["node"]["anyOf"];
        assert_eq!(any[0]["$ref"], "#/properties/result");
        assert_eq!(any[1]["$ref"], "other.json#/x");
        assert_eq!(any[2]["$ref"], "#name");
        assert_eq!(result["$defs"]["$ref"]["default"]["$ref"], "#/value");
        assert_eq!(result["$defs"]["apart"]["items"]["$ref"], "#/b");
        let recursive = wrapped(json!({ "type": "array", "items": { "$recursiveRef": "#" } }));
        assert_eq!(recursive["properties"]["result"]["items"]["$ref"], "#/properties/result");
        let based = json!({ "$id": "https://example.org/b", "items": { "$ref": "#/c" } });
        assert_eq!(wrapped(based.clone())["properties"]["result"], based);
    }
}
