//! A server's elicitation, put to the user of `trunkline call` on the terminal.

use std::io::{self, BufRead, Write};

use serde_json::{Map, Value, json};

use super::schema::{problems, read_value, types_of};
use super::shown;

/// Asks the user, and returns the result of `elicitation/create`: `cancel` at the end of the
/// input.
///
/// # Errors
/// The terminal cannot be written to.
pub(super) fn ask(
    params: &Value,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<Value> {
    let message = params["message"].as_str().unwrap_or("The server asks for something.");
    writeln!(out, "{}", shown(message))?;
    if params["mode"] == "url" {
        let url = params["url"].as_str().unwrap_or_default();
        writeln!(out, "Open {} in a browser.", shown(url))?;
        return Ok(match line(input, out, "Enter when it is done, \"no\" to decline: ")? {
            None => json!({ "action": "cancel" }),
            Some(answer) if is_no(&answer) => json!({ "action": "decline" }),
            Some(_) => json!({ "action": "accept" }),
        });
    }
    let schema = &params["requestedSchema"];
    let mut content = Map::new();
    for (key, property) in schema["properties"].as_object().into_iter().flatten() {
        match field(schema, key, property, input, out)? {
            Said::Value(value) => drop(content.insert(key.clone(), value)),
            Said::Nothing => (),
            Said::End => return Ok(json!({ "action": "cancel" })),
        }
    }
    let question = "Send it? Enter, or \"no\" to decline: ";
    Ok(match line(input, out, question)? {
        None => json!({ "action": "cancel" }),
        Some(answer) if is_no(&answer) => json!({ "action": "decline" }),
        Some(_) => json!({ "action": "accept", "content": content }),
    })
}

enum Said {
    Value(Value),
    Nothing,
    End,
}

fn field(
    schema: &Value,
    key: &str,
    property: &Value,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> io::Result<Said> {
    let is_required =
        schema["required"].as_array().is_some_and(|all| all.contains(&json!(key)));
    let title = property["title"].as_str().unwrap_or(key);
    if let Some(description) = property["description"].as_str() {
        writeln!(out, "  {}", shown(description))?;
    }
    let question = question(title, property, is_required);
    loop {
        let Some(answer) = line(input, out, &question)? else { return Ok(Said::End) };
        if answer.is_empty() {
            match property.get("default") {
                Some(default) => return Ok(Said::Value(default.clone())),
                None if !is_required => return Ok(Said::Nothing),
                None => {
                    writeln!(out, "  It is needed.")?;
                    continue;
                }
            }
        }
        let value = value_of(schema, key, property, &answer);
        let wrong = problems(property, &value);
        if wrong.is_empty() {
            return Ok(Said::Value(value));
        }
        for what in wrong {
            let what = what.strip_prefix("the arguments: ").unwrap_or(&what);
            writeln!(out, "  It {}.", shown(what))?;
        }
    }
}

fn question(title: &str, property: &Value, is_required: bool) -> String {
    let mut text = format!("  {}", shown(title));
    let kinds = types_of(property);
    if let Some(all) = property["enum"].as_array() {
        let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
        text.push_str(&format!(" ({})", shown(&all.join(", "))));
    } else if kinds == ["boolean"] {
        text.push_str(" (yes, no)");
    } else if !kinds.is_empty() && kinds != ["string"] {
        text.push_str(&format!(" ({})", kinds.join(" or ")));
    }
    match property.get("default") {
        Some(default) => text.push_str(&format!(" [{}]", shown(&default.to_string()))),
        None if !is_required => text.push_str(" [nothing]"),
        None => (),
    }
    text.push_str(": ");
    text
}

fn value_of(schema: &Value, key: &str, property: &Value, answer: &str) -> Value {
    if types_of(property) == ["boolean"] {
        match answer.to_lowercase().as_str() {
            "y" | "yes" | "true" => return Value::Bool(true),
            "n" | "no" | "false" => return Value::Bool(false),
            _ => (),
        }
    }
    if types_of(property) == ["array"] {
        // Several values of a set, separated by commas.
        return answer.split(',').map(|part| Value::String(part.trim().to_owned())).collect();
    }
    read_value(schema, key, answer)
}

fn is_no(answer: &str) -> bool {
    matches!(answer.to_lowercase().as_str(), "n" | "no" | "decline")
}

/// A line without its end; none at the end of the input.
fn line(
    input: &mut dyn BufRead,
    out: &mut dyn Write,
    question: &str,
) -> io::Result<Option<String>> {
    out.write_all(question.as_bytes())?;
    out.flush()?;
    let mut line = String::new();
    match input.read_line(&mut line) {
        Ok(0) | Err(_) => {
            writeln!(out)?;
            Ok(None)
        }
        Ok(_) => Ok(Some(line.trim().to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(params: &Value, typed: &str) -> (Value, String) {
        let mut out = Vec::new();
        let result = ask(params, &mut typed.as_bytes(), &mut out).unwrap();
        (result, String::from_utf8(out).unwrap())
    }

    fn form() -> Value {
        json!({ "message": "Who?\u{1b}[2J", "requestedSchema": {
            "type": "object",
            "properties": {
                "name": { "type": "string", "minLength": 2 },
                "age": { "type": "integer", "default": 7 },
                "sure": { "type": "boolean" },
                "unit": { "type": "string", "enum": ["c", "f"] },
            },
            "required": ["name", "sure"],
        } })
    }

    #[test]
    fn a_form_is_asked_until_it_fits() {
        let (result, told) = answer(&form(), "\nx\nanna\n\nyes\n\n\n");
        let content = json!({ "name": "anna", "age": 7, "sure": true });
        assert_eq!(result, json!({ "action": "accept", "content": content }), "{told}");
        assert!(told.contains("It is needed.") && told.contains("at least 2 characters"));
        assert!(told.contains("(yes, no)") && told.contains("[7]") && told.contains("(c, f)"));
        assert!(!told.contains('\u{1b}'), "{told}");
    }

    #[test]
    fn it_can_be_declined_and_its_end_cancels() {
        assert_eq!(answer(&form(), "anna\n\nno\nf\nno\n").0, json!({ "action": "decline" }));
        assert_eq!(answer(&form(), "anna\n").0, json!({ "action": "cancel" }));
        let url =
            json!({ "mode": "url", "message": "Sign in", "url": "https://example.org/x" });
        let (result, told) = answer(&url, "\n");
        assert_eq!(result, json!({ "action": "accept" }));
        assert!(told.contains("https://example.org/x"));
        assert_eq!(answer(&url, "no\n").0, json!({ "action": "decline" }));
    }
}
