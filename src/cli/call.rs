//! `trunkline call`: one call of a tool. Its result goes to standard output; progress, log
//! messages and questions of the server to standard error.

use std::fs::OpenOptions;
use std::io::{self, BufReader, IsTerminal as _, Read as _, Write as _};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};

use super::client::{Client, Hears, NoAnswer, narrowed};
use super::command::{At, Call, Output};
use super::schema::member;
use super::tools::{is_of, tell_unwell};
use super::{complain, elicit, exit, fail, loaded, print, schema, shown, shown_lines, usage};
use crate::limits::CALL_INPUT_BYTES_MAX;
use crate::protocol::jsonrpc::{RpcError, code};
use crate::protocol::method::Method;

const ELICITATION: &str = "elicitation/create";

pub(super) fn run(call: &Call) -> u8 {
    let (mut config, _) = match loaded(&call.at) {
        Ok(loaded) => loaded,
        Err(code) => return code,
    };
    let owner = config.naming.owners.of(&call.name).cloned();
    let owner = owner.filter(|name| config.upstreams.iter().any(|it| it.name == *name));
    narrowed(&mut config, owner.as_ref());
    let mut terminal = Terminal::open(call);
    let capabilities = match &terminal.keyboard {
        Some(_) => json!({ "elicitation": { "form": {}, "url": {} } }),
        None => json!({}),
    };
    let opened = Client::open(config, &capabilities);
    let code = match opened.and_then(|mut client| made(call, &mut client, &mut terminal)) {
        Ok(code) => code,
        Err(NoAnswer::Interrupted) => fail("call: interrupted; the call was cancelled"),
        Err(NoAnswer::Broken(what)) => fail(&format!("call: {what}")),
    };
    terminal.end();
    code
}

fn made(call: &Call, client: &mut Client, terminal: &mut Terminal) -> Result<u8, NoAnswer> {
    let listed = match client.tools()? {
        Ok(listed) => listed,
        Err(error) => return Ok(fail(&format!("call: {}", shown(&error.message)))),
    };
    if let At::Url(url) = &call.at
        && listed.unwell.iter().any(|it| is_of(url, it) && it["outcome"] == "failed")
    {
        // All that is known of the gateway is why it does not answer.
        tell_unwell("call", &call.at, &listed);
        return Ok(exit::UNAVAILABLE);
    }
    let tool = listed.tools.iter().find(|tool| tool["name"] == call.name.as_str());
    let schema = tool.map_or(&Value::Null, |tool| &tool["inputSchema"]);
    let arguments = match arguments(call, schema) {
        Ok(arguments) => arguments,
        Err(what) => return Ok(usage(&format!("call: {what}"))),
    };
    let problems = schema::problems(schema, &arguments);
    if !problems.is_empty() {
        let each = problems.iter().map(|what| format!("trunkline: call: {}", shown(what)));
        complain(&each.collect::<Vec<_>>().join("\n"));
        return Ok(exit::USAGE);
    }
    let params = json!({
        "name": call.name, "arguments": arguments, "_meta": { "progressToken": "call" },
    });
    let answered = client.request(Method::ToolsCall, &params, terminal)?;
    terminal.end();
    let result = match answered {
        Ok(result) => result,
        Err(error) => {
            let is_unknown = tool.is_none() && error.code == code::INVALID_PARAMS;
            if is_unknown {
                tell_unwell("call", &call.at, &listed);
            }
            complain(&format!("trunkline: call: {}", shown(&error.message)));
            terminal.tell_unasked(&["elicitation"], &error.message);
            return Ok(if is_unknown { exit::UNAVAILABLE } else { exit::FAILED });
        }
    };
    let value: Value = serde_json::from_str(&result).unwrap_or_default();
    let printed = match call.output {
        Output::Json => print(&format!("{result}\n")),
        Output::Text => {
            let told = told(&value, call.save.as_deref());
            // A server's text must not steer a terminal.
            let told = if io::stdout().is_terminal() { shown_lines(&told) } else { told };
            print(&told)
        }
    };
    if value.get("isError") == Some(&Value::Bool(true)) {
        complain("trunkline: call: the tool reports an error");
        terminal.tell_unasked(&["elicitation"], &result);
        return Ok(exit::FAILED);
    }
    // The result may say that the tool could not ask its question.
    terminal.tell_unasked(&[ELICITATION, "not declared elicitation"], &result);
    Ok(printed)
}

/// The arguments on the command line: an object, with single properties on top.
fn arguments(call: &Call, schema: &Value) -> Result<Value, String> {
    let mut all = Map::new();
    for word in &call.arguments {
        if word == "-" {
            let mut text = String::new();
            let input = io::stdin().lock().take(CALL_INPUT_BYTES_MAX).read_to_string(&mut text);
            input.map_err(|error| format!("standard input cannot be read: {error}"))?;
            all.extend(object("standard input", &text)?);
        } else if word.trim_start().starts_with('{') {
            all.extend(object("the arguments", word)?);
        } else if let Some((key, text)) =
            word.split_once('=').filter(|(key, _)| !key.is_empty())
        {
            all.insert(key.to_owned(), schema::read_value(schema, key, text));
        } else {
            return Err(format!(
                "{word:?} is neither an object in JSON, nor key=value, nor \"-\""
            ));
        }
    }
    Ok(Value::Object(all))
}

fn object(what: &str, text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(format!("{what}: must be an object in JSON")),
        Err(error) => Err(format!("{what}: no JSON: {error}")),
    }
}

/// A result for people: texts unchanged, and a description of other content.
fn told(result: &Value, save: Option<&Path>) -> String {
    let mut out = String::new();
    for (index, item) in result["content"].as_array().into_iter().flatten().enumerate() {
        let text = |key: &str| item[key].as_str().unwrap_or_default();
        match text("type") {
            "text" => out.push_str(text("text")),
            kind @ ("image" | "audio") => {
                out.push_str(&data(index, kind, text("mimeType"), text("data"), save));
            }
            "resource_link" => out.push_str(&format!("[resource {}]", text("uri"))),
            "resource" => {
                let resource = member(item, "resource");
                let kind = member(resource, "mimeType").as_str().unwrap_or_default();
                match (resource["text"].as_str(), resource["blob"].as_str()) {
                    (Some(text), _) => out.push_str(text),
                    (None, blob) => {
                        out.push_str(&data(
                            index,
                            "resource",
                            kind,
                            blob.unwrap_or_default(),
                            save,
                        ));
                    }
                }
            }
            _ => out.push_str(&item.to_string()),
        }
        if !out.ends_with('\n') {
            out.push('\n');
        }
    }
    // Servers give structured content as text too; where one does not, it is all there is.
    if out.is_empty()
        && let Some(structured) = result.get("structuredContent")
    {
        out = serde_json::to_string_pretty(structured).unwrap_or_default() + "\n";
    }
    out
}

/// The text for an image or another file: where it was saved, or that it was not.
fn data(index: usize, kind: &str, mime: &str, data: &str, save: Option<&Path>) -> String {
    let Ok(bytes) = STANDARD.decode(data) else {
        return format!("[{kind} {mime}, not in base64]");
    };
    let n_bytes = bytes.len();
    let Some(folder) = save else {
        return format!("[{kind} {mime}, {n_bytes} bytes; --save FOLDER keeps it]");
    };
    // The name is chosen here: a server must not choose where the file is written.
    let path = folder.join(format!("{kind}-{}.{}", index + 1, extension(mime)));
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| OpenOptions::new().write(true).create_new(true).open(&path))
        .and_then(|mut file| file.write_all(&bytes));
    match written {
        Ok(()) => path.display().to_string(),
        Err(error) => {
            complain(&format!(
                "trunkline: call: {} cannot be written: {error}",
                path.display()
            ));
            format!("[{kind} {mime}, {n_bytes} bytes, not saved]")
        }
    }
}

fn extension(mime: &str) -> String {
    let name = mime.split_once('/').map_or("", |(_, name)| name);
    let name = name.split(['+', ';']).next().unwrap_or_default();
    let name: String = name.chars().filter(char::is_ascii_alphanumeric).take(16).collect();
    match name.as_str() {
        "" | "octetstream" => "bin".to_owned(),
        "jpeg" => "jpg".to_owned(),
        "plain" => "txt".to_owned(),
        _ => name,
    }
}

/// The user's terminal, on standard error.
struct Terminal {
    /// The input for answers, if there is a terminal.
    keyboard: Option<BufReader<std::fs::File>>,
    is_terminal: bool,
    never_ask: bool,
    /// True if the last line shows progress, which the next line replaces.
    has_open_line: bool,
}

impl Terminal {
    fn open(call: &Call) -> Terminal {
        let is_terminal = io::stderr().is_terminal();
        let may_ask = is_terminal && !call.never_ask;
        let keyboard = may_ask.then(|| std::fs::File::open("/dev/tty").ok()).flatten();
        Terminal {
            keyboard: keyboard.map(BufReader::new),
            is_terminal,
            never_ask: call.never_ask,
            has_open_line: false,
        }
    }

    /// Prints advice where a tool wanted to ask a question, and could not: servers report that in
    /// words of their own, among which only the protocol's `words` are certain.
    fn tell_unasked(&self, words: &[&str], said: &str) {
        let said = said.to_lowercase();
        if self.keyboard.is_some() || !words.iter().any(|word| said.contains(word)) {
            return;
        }
        let why = if self.never_ask {
            "--no-ask is given"
        } else {
            "there is no terminal here: standard error is none"
        };
        complain(&format!(
            "trunkline: call: the tool asks for something, and nobody can be asked: {why}; run it \
             in a terminal, where the answers are typed"
        ));
    }

    fn end(&mut self) {
        if self.has_open_line {
            complain("");
            self.has_open_line = false;
        }
    }
}

impl Hears for Terminal {
    fn progress(&mut self, params: &Value) {
        let message = params["message"].as_str().map(shown).unwrap_or_default();
        let of = params["total"].as_f64().filter(|total| *total > 0.0);
        let progress = params["progress"].as_f64().unwrap_or_default();
        let how_far = match of {
            Some(total) => format!("{:3.0} %", 100.0 * progress / total),
            None => progress.to_string(),
        };
        if self.is_terminal {
            // A terminal that is gone shows nothing.
            write!(io::stderr(), "\r\u{1b}[K{how_far} {message}").ok();
            self.has_open_line = true;
        } else {
            complain(&format!("{how_far} {message}"));
        }
    }

    fn log(&mut self, params: &Value) {
        self.end();
        let level = params["level"].as_str().map(shown).unwrap_or_default();
        let said = match &params["data"] {
            Value::String(text) => text.clone(),
            other @ (Value::Null
            | Value::Bool(_)
            | Value::Number(_)
            | Value::Array(_)
            | Value::Object(_)) => other.to_string(),
        };
        complain(&format!("[{level}] {}", shown(&said)));
    }

    fn ask(&mut self, method: &str, params: &Value) -> Result<Value, RpcError> {
        self.end();
        let Some(keyboard) = self.keyboard.as_mut().filter(|_| method == ELICITATION) else {
            let what = format!("Method not found: {method}");
            return Err(RpcError::new(code::METHOD_NOT_FOUND, what));
        };
        elicit::ask(params, keyboard, &mut io::stderr())
            .map_err(|error| RpcError::new(code::INTERNAL_ERROR, error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_is_told_in_words() {
        let result = json!({ "content": [
            { "type": "text", "text": "one\n" },
            { "type": "text", "text": "two" },
            { "type": "image", "mimeType": "image/png", "data": "AAAA" },
            { "type": "resource_link", "uri": "file:///x" },
            { "type": "resource", "resource": { "uri": "file:///y", "text": "three" } },
        ], "structuredContent": { "a": 1 } });
        assert_eq!(
            told(&result, None),
            "one\ntwo\n[image image/png, 3 bytes; --save FOLDER keeps it]\n[resource file:///x]\n\
             three\n"
        );
        let structured = json!({ "content": [], "structuredContent": { "a": 1 } });
        assert_eq!(told(&structured, None), "{\n  \"a\": 1\n}\n");
        for (mime, expected) in [
            ("image/png", "png"),
            ("image/svg+xml", "svg"),
            ("x/../../etc", "etc"),
            ("", "bin"),
        ] {
            assert_eq!(extension(mime), expected);
        }
    }
}
