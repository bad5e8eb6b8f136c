//! Pure: checks a tool's arguments against its schema, so that a fault is reported with the
//! property's name before the call. Only certain faults are reported: the server judges keywords
//! that are unknown here.

use serde_json::{Map, Value};

/// The depth to which schemas are followed, through `$ref` too.
const DEPTH_MAX: usize = 32;

/// The faults of these arguments, a sentence each without its full stop.
pub(super) fn problems(schema: &Value, arguments: &Value) -> Vec<String> {
    let mut check = Check { root: schema, problems: Vec::new() };
    check.value(schema, arguments, "", 0);
    check.problems
}

/// The value of `key=value` on a command line, of the type that the property's schema names.
pub(super) fn read_value(schema: &Value, key: &str, text: &str) -> Value {
    let check = Check { root: schema, problems: Vec::new() };
    let property = check.resolved(member(&schema["properties"], key), 0);
    let types = types_of(property);
    let parsed: Option<Value> = serde_json::from_str(text).ok();
    let as_text = || Value::String(text.to_owned());
    match parsed {
        // Without a type, a text that is no JSON is taken unchanged.
        Some(value) if types.is_empty() && property.get("enum").is_none() => value,
        Some(value) if types.iter().any(|it| is_of(&value, it)) => value,
        Some(value) if property["enum"].as_array().is_some_and(|all| all.contains(&value)) => {
            value
        }
        Some(_) | None => as_text(),
    }
}

/// A member of an object; null where there is none.
pub(super) fn member<'a>(value: &'a Value, key: &str) -> &'a Value {
    value.get(key).unwrap_or(&Value::Null)
}

struct Check<'a> {
    root: &'a Value,
    problems: Vec<String>,
}

impl<'a> Check<'a> {
    /// The schema to which `$ref` leads, if it stays inside the schema.
    fn resolved(&self, schema: &'a Value, depth: usize) -> &'a Value {
        let Some(reference) = schema["$ref"].as_str() else { return schema };
        let target = reference.strip_prefix('#').and_then(|at| self.root.pointer(at));
        match target {
            Some(target) if depth < DEPTH_MAX => self.resolved(target, depth + 1),
            Some(_) | None => &Value::Null,
        }
    }

    fn tell(&mut self, at: &str, what: &str) {
        let at = if at.is_empty() { "the arguments" } else { at };
        self.problems.push(format!("{at}: {what}"));
    }

    fn value(&mut self, schema: &'a Value, value: &Value, at: &str, depth: usize) {
        if depth > DEPTH_MAX {
            return;
        }
        let schema = self.resolved(schema, depth);
        let types = types_of(schema);
        if !types.is_empty() && !types.iter().any(|it| is_of(value, it)) {
            let is = name_of(value);
            return self.tell(at, &format!("must be {}, and is {is}", types.join(" or ")));
        }
        if let Some(all) = schema["enum"].as_array()
            && !all.contains(value)
        {
            let all: Vec<String> = all.iter().map(Value::to_string).collect();
            self.tell(at, &format!("must be one of {}, and is {value}", all.join(", ")));
        }
        if let Some(only) = schema.get("const").filter(|only| *only != value) {
            self.tell(at, &format!("must be {only}, and is {value}"));
        }
        self.bounds(schema, value, at);
        match value {
            Value::Object(fields) => self.object(schema, fields, at, depth),
            Value::Array(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.value(&schema["items"], item, &format!("{at}[{index}]"), depth + 1);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => (),
        }
        for part in schema["allOf"].as_array().into_iter().flatten() {
            self.value(part, value, at, depth + 1);
        }
        for either in ["anyOf", "oneOf"] {
            if let Some(parts) = schema[either].as_array().filter(|parts| !parts.is_empty()) {
                self.any_of(parts, value, at, depth);
            }
        }
    }

    /// Checks that the value fits one of these schemas; for a single one its faults are reported.
    fn any_of(&mut self, parts: &'a [Value], value: &Value, at: &str, depth: usize) {
        let mut closest: Option<Vec<String>> = None;
        for part in parts {
            let mut check = Check { root: self.root, problems: Vec::new() };
            check.value(part, value, at, depth + 1);
            if check.problems.is_empty() {
                return;
            }
            if closest.as_ref().is_none_or(|least| check.problems.len() < least.len()) {
                closest = Some(check.problems);
            }
        }
        match (parts.len(), closest) {
            (1, Some(problems)) => self.problems.extend(problems),
            (_, Some(problems)) => {
                self.tell(
                    at,
                    &format!("fits none of what it may be ({})", problems.join("; ")),
                );
            }
            (_, None) => (),
        }
    }

    fn bounds(&mut self, schema: &Value, value: &Value, at: &str) {
        if let Some(number) = value.as_f64() {
            let bound = |key: &str| schema[key].as_f64();
            if let Some(least) = bound("minimum").filter(|least| number < *least) {
                self.tell(at, &format!("must be at least {least}, and is {value}"));
            }
            if let Some(most) = bound("maximum").filter(|most| number > *most) {
                self.tell(at, &format!("must be at most {most}, and is {value}"));
            }
            if let Some(least) = bound("exclusiveMinimum").filter(|least| number <= *least) {
                self.tell(at, &format!("must be more than {least}, and is {value}"));
            }
            if let Some(most) = bound("exclusiveMaximum").filter(|most| number >= *most) {
                self.tell(at, &format!("must be less than {most}, and is {value}"));
            }
        }
        let length = match value {
            Value::String(text) => Some((text.chars().count(), "Length", "characters")),
            Value::Array(items) => Some((items.len(), "Items", "items")),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => None,
        };
        let Some((length, key, what)) = length else { return };
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        if let Some(least) = schema[format!("min{key}")].as_u64().filter(|it| length < *it) {
            self.tell(at, &format!("must have at least {least} {what}, and has {length}"));
        }
        if let Some(most) = schema[format!("max{key}")].as_u64().filter(|it| length > *it) {
            self.tell(at, &format!("must have at most {most} {what}, and has {length}"));
        }
    }

    fn object(
        &mut self,
        schema: &'a Value,
        fields: &Map<String, Value>,
        at: &str,
        depth: usize,
    ) {
        let below =
            |key: &str| if at.is_empty() { key.to_owned() } else { format!("{at}.{key}") };
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            if !fields.contains_key(key) {
                let kind = types_of(self.resolved(member(&schema["properties"], key), depth))
                    .join(" or ");
                let kind = if kind.is_empty() { kind } else { format!(" ({kind})") };
                self.tell(&below(key), &format!("is missing{kind}"));
            }
        }
        let known = schema["properties"].as_object();
        let is_closed = schema["additionalProperties"] == Value::Bool(false)
            && schema.get("patternProperties").is_none();
        for (key, value) in fields {
            match known.and_then(|known| known.get(key)) {
                Some(property) => self.value(property, value, &below(key), depth + 1),
                None if is_closed => {
                    let names: Vec<&str> =
                        known.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
                    let there =
                        if names.is_empty() { "none".to_owned() } else { names.join(", ") };
                    self.tell(&below(key), &format!("is not known; there is: {there}"));
                }
                None if schema["additionalProperties"].is_object() => {
                    self.value(&schema["additionalProperties"], value, &below(key), depth + 1);
                }
                None => (),
            }
        }
    }
}

/// The types that a schema names.
pub(super) fn types_of(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_) => Vec::new(),
    }
}

fn is_of(value: &Value, kind: &str) -> bool {
    match kind {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.as_f64().is_some_and(|number| number.fract() == 0.0),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        // An unknown type is for the server to judge.
        _ => true,
    }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schema() -> Value {
        json!({
            "type": "object",
            "properties": {
                "city": { "type": "string", "minLength": 2 },
                "days": { "type": "integer", "minimum": 1, "maximum": 14 },
                "unit": { "enum": ["c", "f"] },
                "at": { "$ref": "#/$defs/point" },
                "tags": { "type": "array", "items": { "type": "string" }, "maxItems": 2 },
                "either": { "anyOf": [{ "type": "string" }, { "type": "null" }] },
            },
            "required": ["city"],
            "additionalProperties": false,
            "$defs": { "point": {
                "type": "object", "properties": { "x": { "type": "number" } }, "required": ["x"],
            } },
        })
    }

    #[test]
    fn what_is_wrong_is_told_with_the_propertys_name() {
        for (arguments, told) in [
            (json!({}), "city: is missing (string)"),
            (json!({ "city": 7 }), "city: must be string, and is number"),
            (json!({ "city": "x" }), "city: must have at least 2 characters, and has 1"),
            (json!({ "city": "xx", "days": 1.5 }), "days: must be integer, and is number"),
            (json!({ "city": "xx", "days": 15 }), "days: must be at most 14, and is 15"),
            (
                json!({ "city": "xx", "unit": "k" }),
                "unit: must be one of \"c\", \"f\", and is \"k\"",
            ),
            (json!({ "city": "xx", "at": {} }), "at.x: is missing (number)"),
            (
                json!({ "city": "xx", "tags": ["a", 1] }),
                "tags[1]: must be string, and is number",
            ),
            (
                json!({ "city": "xx", "tags": ["a", "b", "c"] }),
                "tags: must have at most 2 items, and has 3",
            ),
            (
                json!({ "city": "xx", "cty": 1 }),
                "cty: is not known; there is: city, days, unit, at, tags, either",
            ),
            (
                json!({ "city": "xx", "either": 1 }),
                "either: fits none of what it may be (either: must be string, and is number)",
            ),
            (json!([]), "the arguments: must be object, and is array"),
        ] {
            assert_eq!(problems(&schema(), &arguments), [told], "{arguments}");
        }
        let fine = json!({
            "city": "xx", "days": 3.0, "unit": "f", "at": { "x": 1 }, "tags": [], "either": null,
        });
        assert_eq!(problems(&schema(), &fine), [""; 0]);
        assert_eq!(problems(&json!({ "$ref": "#" }), &fine), [""; 0], "a circle has an end");
    }

    #[test]
    fn a_value_is_read_as_its_property_is() {
        for (key, text, expected) in [
            ("city", "5", json!("5")),
            ("city", "true", json!("true")),
            ("days", "5", json!(5)),
            ("days", "five", json!("five")),
            ("unit", "c", json!("c")),
            ("tags", r#"["a"]"#, json!(["a"])),
            ("at", r#"{"x":1}"#, json!({ "x": 1 })),
            ("unknown", "5", json!(5)),
            ("unknown", "a b", json!("a b")),
        ] {
            assert_eq!(read_value(&schema(), key, text), expected, "{key}={text}");
        }
    }
}
