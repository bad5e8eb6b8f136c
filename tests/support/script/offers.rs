//! What a scripted server offers: tools, prompts, resources and templates, their lists, and what
//! reading, getting and completing them gives.

use serde_json::{Value, json};

use super::{Refusal, Script};

/// A tool with everything that a gateway must pass on untouched: keys in odd order, numbers in
/// odd spellings, fields that nobody knows.
pub const RICH_TOOL: &str = r#"{"x-vendor":{"z":1.50,"a":[1E2,0.10,-0.0]},"outputSchema":{"type":"object","required":["zeta"],"properties":{"zeta":{"type":"number"},"alpha":{"type":"string"}}},"name":"rich","icons":[{"src":"data:image/png;base64,AAAA","mimeType":"image/png","sizes":["48x48"],"theme":"dark"}],"title":"Rich Tool","annotations":{"readOnlyHint":true,"x-unknown":null,"idempotentHint":false},"description":"Ünïcödé \u00e9 \/ slash","inputSchema":{"type":"object","properties":{"zulu":{"type":"integer","maximum":9007199254740993},"alpha":{"type":"number","default":1.0}},"additionalProperties":false},"_meta":{"example.org/tag":"kept"},"execution":{"taskSupport":"forbidden"}}"#;

/// The result of that tool.
pub const RICH_RESULT: &str = r#"{"structuredContent":{"zeta":1.50,"alpha":"a","big":12345678901234567890123,"tiny":1e-7,"exp":1E+2},"x-later-field":{"b":[],"a":{}},"content":[{"type":"text","text":"caf\u00e9 \/ \ud83d\ude00","annotations":{"priority":0.50,"audience":["user"]},"x-extra":[1.0,2.00]},{"type":"resource_link","uri":"file:///a b","name":"n","size":1e3}],"_meta":{"example.org/trace":"t-1","zz":0},"isError":false}"#;

/// The error of the tool `rpc_error`, an object's text.
pub const RPC_ERROR: &str =
    r#"{"code":-32001,"message":"Not today.","data":{"zulu":1.50,"alpha":[null]}}"#;

/// A prompt with fields that nobody knows.
pub const RICH_PROMPT: &str = r#"{"x-vendor":[1.50,{"z":0,"a":1E2}],"title":"Rich \u00e9","arguments":[{"required":false,"name":"topic","x-hint":2.0,"description":"What about"}],"name":"rich","icons":[{"src":"data:image/png;base64,AAAA","sizes":["48x48"]}],"description":"Ünïcödé","_meta":{"example.org/tag":"kept"}}"#;

/// What getting that prompt gives.
pub const RICH_PROMPT_RESULT: &str = r#"{"x-later":{"b":[],"a":1.0},"messages":[{"role":"assistant","content":{"type":"resource","resource":{"uri":"vendor://odd?x=1&y=%20","mimeType":"text/plain","text":"t","x-r":1E2}}},{"role":"user","content":{"type":"image","data":"AAAA","mimeType":"image/png","annotations":{"priority":0.50}}}],"description":"d","_meta":{"zz":0}}"#;

/// A resource that is text.
pub const TEXT_URI: &str = "file:///notes/plain.txt";
/// A resource that is bytes.
pub const BLOB_URI: &str = "file:///pics/dot.png";
/// A resource with an odd URI and fields that nobody knows.
pub const ODD_URI: &str = "vendor://odd?x=1&y=%20#frag+ment";
/// What its bytes are in base64.
pub const BLOB: &str = "iVBORw0KGgoAAAANSUhEUg==";
/// The odd resource in lists.
pub const ODD_RESOURCE: &str = r#"{"size":1e3,"x-vendor":{"z":1.50,"a":null},"annotations":{"audience":["user"],"priority":0.50,"lastModified":"2025-01-12T15:00:58Z","x":[]},"uri":"vendor://odd?x=1&y=%20#frag+ment","title":"Odd \/ one","name":"odd","_meta":{"example.org/tag":"kept"}}"#;
/// What reading it gives: two contents.
pub const ODD_CONTENTS: &str = r#"{"x-later":1.0,"contents":[{"text":"caf\u00e9","uri":"vendor://odd?x=1&y=%20#frag+ment","x-extra":[1E2]},{"blob":"AAAA","mimeType":"application/x-odd","uri":"vendor://odd/part"}],"_meta":{"zz":0.10}}"#;
/// A template; reading `vendor://items/7` gives a text with the 7 in it.
pub const ITEMS_TEMPLATE: &str = "vendor://items/{id}";
/// A template with an odd expression and fields that nobody knows.
pub const RICH_TEMPLATE: &str = r#"{"x-vendor":1.50,"uriTemplate":"file:///logs/{+path}{?from,to}","name":"logs","mimeType":"text/plain","title":"Logs"}"#;

/// One item of a list.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    /// What it is asked for by.
    pub(super) name: String,
    /// The item, an object's text.
    pub(super) text: String,
}

/// The lists.
#[derive(Debug, Clone, Default)]
pub(super) struct Offers {
    pub(super) tools: Vec<Offer>,
    prompts: Vec<Offer>,
    resources: Vec<Offer>,
    templates: Vec<Offer>,
}

fn tool(name: &str, properties: &Value) -> Offer {
    let mut item = json!({
        "name": name,
        "description": format!("The scripted tool {name}."),
        "inputSchema": { "type": "object", "properties": properties },
    });
    if name == "long" {
        item["execution"] = json!({ "taskSupport": "optional" });
    }
    Offer { name: name.to_owned(), text: item.to_string() }
}

fn tool_named(name: &str) -> Offer {
    if name == "rich" {
        return Offer { name: name.to_owned(), text: RICH_TOOL.to_owned() };
    }
    tool(name, &json!({}))
}

fn prompt(name: &str) -> Offer {
    let arguments = json!([
        { "name": "name", "description": "Whom to greet", "required": true },
        { "name": "style", "description": "How" },
    ]);
    let item = json!({ "name": name, "description": "Greets", "arguments": arguments });
    Offer { name: name.to_owned(), text: item.to_string() }
}

fn resource(uri: &str, mime_type: &str) -> Offer {
    let item = json!({ "uri": uri, "name": uri, "mimeType": mime_type });
    Offer { name: uri.to_owned(), text: item.to_string() }
}

fn template(uri_template: &str) -> Offer {
    let item = json!({ "uriTemplate": uri_template, "name": uri_template });
    Offer { name: uri_template.to_owned(), text: item.to_string() }
}

pub(super) fn offer(key: &str, name: &str) -> Offer {
    match key {
        "tools" => tool(name, &json!({})),
        "prompts" => prompt(name),
        "resources" => resource(name, "text/plain"),
        _ => template(name),
    }
}

/// Everything that a scripted server has unless it is told otherwise.
pub(super) fn usual() -> Offers {
    let text = |key: &str| json!({ key: { "type": "string" } });
    let mut tools: Vec<Offer> = [
        ("echo", text("message")),
        ("add", json!({ "a": { "type": "number" }, "b": { "type": "number" } })),
        ("slow", text("label")),
        ("big", json!({ "megabytes": { "type": "integer" } })),
        ("add_tool", text("name")),
        ("log", json!({ "messages": { "type": "array" } })),
        ("change", json!({ "kind": { "type": "string" }, "name": { "type": "string" } })),
    ]
    .iter()
    .map(|(name, properties)| tool(name, properties))
    .collect();
    tools.extend(
        [
            "release",
            "fail",
            "mirror",
            "rpc_error",
            "garbage",
            "break_off",
            "rich",
            "ask",
            "ask_sampling",
            "ask_elicitation",
            "ask_roots",
            "ask_twice",
            "whoami",
            "emit",
            "touch",
            "long",
            "count",
        ]
        .map(tool_named),
    );
    let rich_prompt = Offer { name: "rich".to_owned(), text: RICH_PROMPT.to_owned() };
    let odd = Offer { name: ODD_URI.to_owned(), text: ODD_RESOURCE.to_owned() };
    let rich_template = Offer {
        name: "file:///logs/{+path}{?from,to}".to_owned(),
        text: RICH_TEMPLATE.to_owned(),
    };
    Offers {
        tools,
        prompts: vec![prompt("greet"), rich_prompt],
        resources: vec![resource(TEXT_URI, "text/plain"), resource(BLOB_URI, "image/png"), odd],
        templates: vec![template(ITEMS_TEMPLATE), rich_template],
    }
}

/// What a server with all of that declares.
pub(super) fn usual_capabilities() -> Value {
    json!({
        "tools": { "listChanged": true },
        "prompts": { "listChanged": true },
        "resources": { "subscribe": true, "listChanged": true },
        "completions": {},
        "logging": {},
        "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } },
        "experimental": { "vendor.example/echo": { "version": 1 } },
    })
}

impl Offers {
    fn list(&self, key: &str) -> &[Offer] {
        match key {
            "tools" => &self.tools,
            "prompts" => &self.prompts,
            "resources" => &self.resources,
            "resourceTemplates" => &self.templates,
            other => panic!("no list of {other}"),
        }
    }

    pub(super) fn list_mut(&mut self, key: &str) -> &mut Vec<Offer> {
        match key {
            "tools" => &mut self.tools,
            "prompts" => &mut self.prompts,
            "resources" => &mut self.resources,
            "resourceTemplates" => &mut self.templates,
            other => panic!("no list of {other}"),
        }
    }

    fn has(&self, key: &str, name: &str) -> bool {
        self.list(key).iter().any(|offer| offer.name == name)
    }
}

/// A page of items' texts under `key`.
pub(super) fn page(key: &str, items: &[&str], page_items: usize, params: &Value) -> String {
    let start: usize =
        params["cursor"].as_str().and_then(|cursor| cursor.parse().ok()).unwrap_or(0);
    let n = if page_items == 0 { items.len() } else { page_items };
    let page: Vec<&str> = items.iter().skip(start).take(n).copied().collect();
    let next = start + page.len();
    let cursor =
        if next < items.len() { format!(",\"nextCursor\":\"{next}\"") } else { String::new() };
    format!("{{\"{key}\":[{}]{cursor}}}", page.join(","))
}

impl super::State {
    /// Whether an item is there for that session, or for what the request declares.
    pub(super) fn shows(&self, peer: &str, name: &str, params: &Value) -> bool {
        if !self.shows_to_user(peer, name) {
            return false;
        }
        let Some((_, needed)) = name.split_once("needs_") else { return true };
        let known = &self.peers.get(peer).map_or(&Value::Null, |peer| &peer.initialize);
        let in_request = &params["_meta"][super::meta("clientCapabilities")];
        let all = ["sampling", "elicitation", "roots"];
        let needed = all.into_iter().find(|name| needed.starts_with(name)).unwrap();
        known["capabilities"].get(needed).is_some() || in_request.get(needed).is_some()
    }
}

impl Script {
    /// Only these tools from now on; each takes anything. Says nothing to anybody.
    pub fn set_tools(&self, names: &[&str]) {
        self.lock().offers.tools = names.iter().map(|name| tool_named(name)).collect();
    }

    /// A server of these tools alone: no other lists, no other capabilities.
    pub fn serve_only_tools(&self, names: &[&str]) {
        let mut state = self.lock();
        let tools = names.iter().map(|name| tool_named(name)).collect();
        state.offers = Offers { tools, ..Offers::default() };
        state.capabilities = json!({ "tools": { "listChanged": true } });
    }

    /// One more tool. Says nothing to anybody.
    pub fn add_tool(&self, name: &str) {
        self.lock().offers.tools.push(tool(name, &json!({})));
    }

    /// One more item in the list of that key, as its text has it. Says nothing to anybody.
    pub fn add_text(&self, key: &str, name: &str, text: &str) {
        let offer = Offer { name: name.to_owned(), text: text.to_owned() };
        self.lock().offers.list_mut(key).push(offer);
    }

    /// That item is not there any more. Says nothing to anybody.
    pub fn remove_text(&self, key: &str, name: &str) {
        self.lock().offers.list_mut(key).retain(|offer| offer.name != name);
    }

    /// The schema of that tool's arguments.
    pub fn schema_of(&self, tool: &str) -> Option<Value> {
        let state = self.lock();
        let offer = state.offers.tools.iter().find(|offer| offer.name == tool)?;
        let tool: Value = serde_json::from_str(&offer.text).unwrap();
        Some(tool["inputSchema"].clone())
    }

    /// Only these prompts, each with the arguments `name` and `style`.
    pub fn set_prompts(&self, names: &[&str]) {
        self.lock().offers.prompts = names.iter().map(|name| prompt(name)).collect();
    }

    /// Only these resources, each a text.
    pub fn set_resources(&self, uris: &[&str]) {
        self.lock().offers.resources =
            uris.iter().map(|uri| resource(uri, "text/plain")).collect();
    }

    /// Only these templates.
    pub fn set_templates(&self, uri_templates: &[&str]) {
        self.lock().offers.templates = uri_templates.iter().map(|uri| template(uri)).collect();
    }

    /// One more item in the list of that key, and word of it on every stream.
    pub fn change(&self, key: &str, name: &str) {
        self.lock().offers.list_mut(key).push(offer(key, name));
        let kind = if key == "resourceTemplates" { "resources" } else { key };
        self.emit(&format!("notifications/{kind}/list_changed"), &json!({}));
    }

    /// Some items that only clients see which declare what they need: one whose name holds
    /// `needs_sampling` is for those that declare sampling.
    pub fn offer_by_capability(&self) {
        for (key, name) in [
            ("tools", "needs_sampling"),
            ("tools", "needs_elicitation"),
            ("tools", "needs_roots"),
            ("prompts", "needs_roots"),
            ("resources", "vendor://needs_sampling/1"),
            ("resourceTemplates", "vendor://needs_elicitation/{id}"),
        ] {
            self.lock().offers.list_mut(key).push(offer(key, name));
        }
    }

    /// The answer to a request for a list, on that session or by what the request declares.
    pub(super) fn list(&self, peer: &str, key: &str, params: &Value) -> String {
        let mut state = self.lock();
        state.seen.n_list += usize::from(key == "tools");
        let shown = |offer: &&Offer| state.shows(peer, &offer.name, params);
        let texts: Vec<&str> =
            state.offers.list(key).iter().filter(shown).map(|it| it.text.as_str()).collect();
        page(key, &texts, state.page_items, params)
    }

    pub(super) fn get_prompt(&self, peer: &str, params: &Value) -> Result<String, Refusal> {
        let state = self.lock();
        let name = params["name"].as_str().unwrap_or_default();
        if !state.offers.has("prompts", name) || !state.shows(peer, name, params) {
            return Err(Refusal::new(-32602, &format!("Unknown prompt: {name}")));
        }
        if name == "rich" {
            return Ok(RICH_PROMPT_RESULT.to_owned());
        }
        if let Some(result) = params["arguments"]["result"].as_str() {
            return Ok(result.to_owned());
        }
        let Some(who) = params["arguments"]["name"].as_str() else {
            return Err(Refusal::new(-32602, "Missing argument: name"));
        };
        let style = params["arguments"]["style"].as_str().unwrap_or("plain");
        let text = format!("{}: {style} greetings, {who}!", state.label_for(peer));
        let message = json!({ "role": "user", "content": { "type": "text", "text": text } });
        Ok(json!({ "description": "Greets", "messages": [message] }).to_string())
    }

    pub(super) fn read_resource(&self, peer: &str, params: &Value) -> Result<String, Refusal> {
        let state = self.lock();
        let uri = params["uri"].as_str().unwrap_or_default();
        if uri == ODD_URI && state.offers.has("resources", uri) {
            return Ok(ODD_CONTENTS.to_owned());
        }
        let contents = if uri == BLOB_URI && state.offers.has("resources", uri) {
            json!({ "uri": uri, "mimeType": "image/png", "blob": BLOB })
        } else if state.shows(peer, uri, params)
            && (state.offers.has("resources", uri) || state.covers(uri))
        {
            let text = format!("{} has {uri}", state.label_for(peer));
            json!({ "uri": uri, "mimeType": "text/plain", "text": text })
        } else {
            let data = json!({ "uri": uri });
            return Err(Refusal::new(-32002, "Resource not found").with_data(data));
        };
        Ok(json!({ "contents": [contents] }).to_string())
    }

    /// The values name everything that the answer depends on.
    pub(super) fn complete(&self, params: &Value) -> Result<String, Refusal> {
        let state = self.lock();
        let reference = &params["ref"];
        let (key, name) = match reference["type"].as_str() {
            Some("ref/prompt") => ("prompts", reference["name"].as_str()),
            _ => ("resourceTemplates", reference["uri"].as_str()),
        };
        let name = name.unwrap_or_default();
        if !state.offers.has(key, name) {
            return Err(Refusal::new(-32602, &format!("Unknown reference: {name}")));
        }
        let argument = &params["argument"];
        let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut values = vec![
            state.label.clone(),
            name.to_owned(),
            format!("{}={}", plain(&argument["name"]), plain(&argument["value"])),
        ];
        for (key, value) in params["context"]["arguments"].as_object().into_iter().flatten() {
            values.push(format!("{key}={}", plain(value)));
        }
        if argument["value"] == "many" {
            values.extend((0..150).map(|n| n.to_string()));
        }
        let total = values.len();
        let completion = json!({ "values": values, "total": total, "hasMore": false });
        Ok(format!("{{\"x-later\":1.50,\"completion\":{completion}}}"))
    }
}

impl super::State {
    /// Whether one of the templates covers the URI: what stands before its first expression is
    /// all that is looked at.
    fn covers(&self, uri: &str) -> bool {
        self.offers.templates.iter().any(|template| {
            let start = template.name.split('{').next().unwrap_or_default();
            uri.len() > start.len() && uri.starts_with(start)
        })
    }
}
