//! Pure: results, questions and notifications of servers, changed for clients of another
//! revision. The differences, and the change for each, are the table in
//! [`super::revision_differences`]. A text that needs no change is not parsed: a search of the
//! text decides.

use serde_json::Value;

use super::jsonrpc::{RpcError, code};
use super::method::notification;
use super::output_schema::{is_of_any_type, without_schema, wrapped_tool, wrapped_value};
use super::raw::{Raw, RawObject, elements, string};
use super::revision::Revision;
use crate::limits::COMPLETION_VALUES_MAX;

/// The type of a tool's structured result, as the tool's definition announces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Output {
    /// An object, or no announcement.
    Object,
    /// Any type: [`is_of_any_type`].
    Any,
    /// Any type, by a schema that cannot be wrapped: clients of revisions in which structured
    /// results are objects are given neither the schema nor the structured result, as for a tool
    /// that announces none.
    Untold,
}

impl Output {
    /// The type that a tool's definition announces.
    pub fn of(tool: &str) -> Output {
        if !is_of_any_type(tool) {
            Output::Object
        } else if wrapped_tool(tool).is_some() {
            Output::Any
        } else {
            Output::Untold
        }
    }

    /// True if a client of that revision is given the tool's definition unchanged.
    pub fn is_as_told(self, client: Revision) -> bool {
        match self {
            Self::Object => true,
            Self::Any | Self::Untold => client.has_any_output(),
        }
    }

    /// A tool's definition for a client of that revision; none if it needs no change.
    pub fn told(self, client: Revision, tool: &str) -> Option<String> {
        match self {
            Self::Object => None,
            Self::Any | Self::Untold if client.has_any_output() => None,
            Self::Any => wrapped_tool(tool).or_else(|| without_schema(tool)),
            Self::Untold => without_schema(tool),
        }
    }
}

/// How a question can be put to a client of another revision.
#[derive(Debug, PartialEq)]
pub enum Fit {
    /// Unchanged.
    AsItIs,
    /// With these parameters in place of its own.
    With(String),
    /// Not at all: the client's revision cannot express it.
    Refused(RpcError),
}

/// The result of a tool's call; none if it needs no change. `output` is asked only where the type
/// matters.
pub fn call_result(
    client: Revision,
    output: impl FnOnce() -> Output,
    result: &Raw,
) -> Option<Raw> {
    let text = result.get();
    let is_structured = !client.has_any_output() && structures(text).next().is_some();
    // Most results are objects and announced as objects.
    let output = is_structured
        .then(output)
        .filter(|output| *output == Output::Any || structures(text).any(|first| first != b'{'));
    let has_others = has_other_content(client, text);
    if output.is_none() && !has_others {
        return None;
    }
    let mut fields = RawObject::parse(text).ok()?;
    let mut is_changed = false;
    if has_others && let Some(content) = fields.get("content").and_then(|it| list(client, it)) {
        fields.set("content", content);
        is_changed = true;
    }
    if let Some(output) = output {
        is_changed |= structure(&mut fields, output);
    }
    is_changed.then(|| result.rewritten(fields.to_text()))
}

/// The first byte of each value in a text that may be a structured result, found without parsing.
fn structures(text: &str) -> impl Iterator<Item = u8> {
    text.split("\"structuredContent\"")
        .skip(1)
        .filter_map(|rest| rest.trim_start().strip_prefix(':')?.trim_start().bytes().next())
}

/// Wraps a structured result that is no object, or that is announced as one of any type.
fn structure(fields: &mut RawObject<'_>, output: Output) -> bool {
    let Some(value) = fields.get("structuredContent") else { return false };
    if output != Output::Any {
        if value.starts_with('{') {
            return false;
        }
        if value == "null" {
            fields.remove("structuredContent");
            return true;
        }
    }
    let value = value.to_owned();
    fields.set("structuredContent", wrapped_value(&value));
    // Clients of these revisions may know no structured results at all.
    if !fields.get("content").is_some_and(|content| content.contains("\"text\"")) {
        with_text(fields, &value);
    }
    true
}

fn with_text(fields: &mut RawObject<'_>, text: &str) {
    let content = fields.get("content").and_then(|content| elements(content).ok());
    let mut content: Vec<String> =
        content.unwrap_or_default().into_iter().map(str::to_owned).collect();
    content.push(text_block(text));
    fields.set("content", format!("[{}]", content.join(",")));
}

fn text_block(text: &str) -> String {
    format!("{{\"type\":\"text\",\"text\":{}}}", string(text))
}

/// The result of a prompt; none if it needs no change.
pub fn prompt_result(client: Revision, result: &Raw) -> Option<Raw> {
    if !has_other_content(client, result.get()) {
        return None;
    }
    let mut fields = RawObject::parse(result.get()).ok()?;
    let mut is_changed = false;
    let messages: Option<Vec<String>> = elements(fields.get("messages")?)
        .ok()?
        .into_iter()
        .map(|message| {
            let mut message = RawObject::parse(message).ok()?;
            if let Some(content) = message.get("content").and_then(|it| block(client, it)) {
                message.set("content", content);
                is_changed = true;
            }
            Some(message.to_text())
        })
        .collect();
    fields.set("messages", format!("[{}]", messages?.join(",")));
    is_changed.then(|| result.rewritten(fields.to_text()))
}

/// The result of a completion; none if it needs no change.
pub fn completion_result(client: Revision, result: &Raw) -> Option<Raw> {
    if !client.bounds_completions() {
        return None;
    }
    let mut fields = RawObject::parse(result.get()).ok()?;
    let mut completion = RawObject::parse(fields.get("completion")?).ok()?;
    let values = elements(completion.get("values")?).ok()?;
    let first = values.get(..COMPLETION_VALUES_MAX)?;
    if first.len() == values.len() {
        return None;
    }
    let first = format!("[{}]", first.join(","));
    completion.set("values", first);
    completion.set("hasMore", "true");
    let completion = completion.to_text();
    fields.set("completion", completion);
    Some(result.rewritten(fields.to_text()))
}

/// True if a text may have content of a kind that the client's revision does not know.
fn has_other_content(client: Revision, text: &str) -> bool {
    !client.has_audio() && text.contains("\"audio\"")
        || !client.has_resource_links() && text.contains("\"resource_link\"")
}

/// A list of content; none if the revision knows each kind in it.
fn list(client: Revision, content: &str) -> Option<String> {
    let all = elements(content).ok()?;
    let mut is_changed = false;
    let mapped = all.into_iter().map(|element| match block(client, element) {
        Some(text) => {
            is_changed = true;
            text
        }
        None => element.to_owned(),
    });
    let mapped: Vec<String> = mapped.collect();
    is_changed.then(|| format!("[{}]", mapped.join(",")))
}

/// A text block in place of content of a kind that the client's revision does not know; none if
/// the revision knows it.
fn block(client: Revision, content: &str) -> Option<String> {
    let fields = RawObject::parse(content).ok()?;
    let text = |key: &str| fields.string(key).ok().flatten();
    let told = match text("type")?.as_str() {
        "audio" if !client.has_audio() => {
            let kind = text("mimeType").unwrap_or_else(|| "audio".to_owned());
            format!("[{kind}: this client's revision of the protocol has no audio]")
        }
        "resource_link" if !client.has_resource_links() => {
            let uri = text("uri")?;
            let name = text("title").or_else(|| text("name"));
            name.map_or_else(|| uri.clone(), |name| format!("{name}: {uri}"))
        }
        _ => return None,
    };
    let mut block = RawObject::parse("{\"type\":\"text\"}").ok()?;
    block.set("text", string(&told));
    for key in ["annotations", "_meta"] {
        if let Some(value) = fields.get(key) {
            block.set(key, value.to_owned());
        }
    }
    Some(block.to_text())
}

/// A question of a server, in the client's revision.
pub fn question(client: Revision, method: &str, params: Option<&str>) -> Fit {
    let Some(params) = params else { return Fit::AsItIs };
    match method {
        "elicitation/create" => elicitation(client, params),
        "sampling/createMessage" => sampling(client, params),
        _ => Fit::AsItIs,
    }
}

fn elicitation(client: Revision, params: &str) -> Fit {
    let Ok(mut fields) = RawObject::parse(params) else { return Fit::AsItIs };
    let mut is_changed = false;
    for (member, is_known) in
        [("elicitationId", client.has_elicitation_ids()), ("task", client.has_tasks())]
    {
        is_changed |= !is_known && fields.remove(member).is_some();
    }
    if !client.has_choices_and_blocks()
        && let Some(schema) = fields.get("requestedSchema")
    {
        match form(schema) {
            Ok(None) => (),
            Ok(Some(schema)) => {
                fields.set("requestedSchema", schema);
                is_changed = true;
            }
            Err(name) => {
                let what = format!(
                    "The client's revision has no form in which several can be chosen, as \
                     {name:?} wants."
                );
                return Fit::Refused(RpcError::new(code::INVALID_PARAMS, what));
            }
        }
    }
    if is_changed { Fit::With(fields.to_text()) } else { Fit::AsItIs }
}

/// A form's schema as clients before 2025-11-25 know it: titled choices have their titles beside
/// them, and optional properties with several values are left out. None if it needs no change.
///
/// # Errors
/// The name of a property of which several values are required.
fn form(schema: &str) -> Result<Option<String>, String> {
    let Ok(mut whole) = serde_json::from_str::<Value>(schema) else { return Ok(None) };
    let required: Vec<Value> = match whole.get("required") {
        Some(Value::Array(names)) => names.clone(),
        Some(_) | None => Vec::new(),
    };
    let Some(Value::Object(properties)) = whole.get_mut("properties") else { return Ok(None) };
    let is_several = |property: &Value| property["type"] == "array";
    let several = |(name, property): &(&String, &Value)| {
        is_several(property) && required.iter().any(|it| it == name.as_str())
    };
    if let Some((name, _)) = properties.iter().find(several) {
        return Err(name.chars().take(100).collect());
    }
    let n_properties = properties.len();
    properties.retain(|_, property| !is_several(property));
    let mut is_changed = properties.len() < n_properties;
    for property in properties.values_mut() {
        let Some(property) = property.as_object_mut() else { continue };
        let Some(Value::Array(choices)) = property.get("oneOf") else { continue };
        let of = |key: &str| -> Option<Vec<Value>> {
            choices.iter().map(|it| it.get(key).filter(|it| it.is_string()).cloned()).collect()
        };
        if let (Some(values), Some(titles)) = (of("const"), of("title")) {
            property.insert("enum".to_owned(), values.into());
            property.insert("enumNames".to_owned(), titles.into());
            property.remove("oneOf");
            is_changed = true;
        }
    }
    Ok(is_changed.then(|| whole.to_string()))
}

fn sampling(client: Revision, params: &str) -> Fit {
    let Ok(mut fields) = RawObject::parse(params) else { return Fit::AsItIs };
    let mut is_changed = !client.has_tasks() && fields.remove("task").is_some();
    let messages = fields.get("messages").map(elements);
    if let Some(Ok(messages)) = messages {
        let mut all = Vec::with_capacity(messages.len());
        for message in messages {
            match sampling_message(client, message) {
                Ok(None) => all.push(message.to_owned()),
                Ok(Some(texts)) => {
                    is_changed = true;
                    all.extend(texts);
                }
                Err(kind) => {
                    let what = format!("The client's revision has no {kind} in messages.");
                    return Fit::Refused(RpcError::new(code::INVALID_PARAMS, what));
                }
            }
        }
        fields.set("messages", format!("[{}]", all.join(",")));
    }
    if let Some(tools) = fields.get("tools").and_then(|tools| told_tools(client, tools)) {
        fields.set("tools", tools);
        is_changed = true;
    }
    if is_changed { Fit::With(fields.to_text()) } else { Fit::AsItIs }
}

/// Tools that a server offers to the model, for the client's revision; none if they need no
/// change.
fn told_tools(client: Revision, tools: &str) -> Option<String> {
    let mut is_changed = false;
    let mapped = elements(tools).ok()?.into_iter().map(|tool| {
        let told = Output::of(tool).told(client, tool);
        is_changed |= told.is_some();
        told.unwrap_or_else(|| tool.to_owned())
    });
    let mapped: Vec<String> = mapped.collect();
    is_changed.then(|| format!("[{}]", mapped.join(",")))
}

/// A message for sampling, as one or several messages of the client's revision; none if it needs
/// no change.
///
/// # Errors
/// The message holds content that the revision does not have.
fn sampling_message(
    client: Revision,
    message: &str,
) -> Result<Option<Vec<String>>, &'static str> {
    let Ok(mut fields) = RawObject::parse(message) else { return Ok(None) };
    let Some(content) = fields.get("content").map(str::to_owned) else { return Ok(None) };
    let is_list = content.starts_with('[');
    let blocks =
        if is_list { elements(&content).unwrap_or_default() } else { vec![content.as_str()] };
    let mut is_changed = is_list && !client.has_choices_and_blocks();
    let mut mapped = Vec::with_capacity(blocks.len());
    for text in blocks {
        let kind = RawObject::parse(text).ok().and_then(|it| it.string("type").ok().flatten());
        match kind.as_deref() {
            Some("tool_use" | "tool_result") if !client.has_choices_and_blocks() => {
                return Err("use of tools");
            }
            Some("tool_result") if !client.has_any_output() => {
                let wrapped =
                    call_result(client, || Output::Object, &Raw::from_valid(text.to_owned()));
                is_changed |= wrapped.is_some();
                mapped.push(wrapped.map_or_else(|| text.to_owned(), |it| it.get().to_owned()));
            }
            _ => {
                let known = block(client, text);
                is_changed |= known.is_some();
                mapped.push(known.unwrap_or_else(|| text.to_owned()));
            }
        }
    }
    if !is_changed {
        return Ok(None);
    }
    if client.has_choices_and_blocks() {
        let whole = if is_list { format!("[{}]", mapped.join(",")) } else { mapped.concat() };
        fields.set("content", whole);
        return Ok(Some(vec![fields.to_text()]));
    }
    // Each block becomes a message: their order and role stay the same.
    let one = |content: String| {
        let mut fields = fields.clone();
        fields.set("content", content);
        fields.to_text()
    };
    Ok(Some(mapped.into_iter().map(one).collect()))
}

/// Notifications of servers that only some revisions have. Notifications that no revision has are
/// passed to clients of each.
const OF_SOME: [&str; 2] = [notification::ELICITATION_COMPLETE, notification::TASKS_STATUS];

/// True if a client of that revision may be sent a notification of that method.
pub fn hears(client: Revision, method: &str) -> bool {
    match method {
        notification::ELICITATION_COMPLETE => client.has_elicitation_ids(),
        notification::TASKS_STATUS => client.has_tasks(),
        _ => true,
    }
}

/// [`hears`], of a notification's text as the gateway writes it.
pub fn hears_text(client: Revision, message: &str) -> bool {
    let after = message.split_once("\"method\":\"").map_or("", |(_, after)| after);
    let of_some = OF_SOME
        .into_iter()
        .find(|method| after.strip_prefix(method).is_some_and(|rest| rest.starts_with('"')));
    of_some.is_none_or(|method| hears(client, method))
}

#[cfg(test)]
#[path = "for_revision/tests.rs"]
mod tests;
