//! The published schemas, and what was held against one of them.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::support::script::{MODERN, meta};

/// The variable that names the specification's folder: one folder a revision, each with its
/// `schema.json`.
const FOLDER: &str = "MCP_SPEC_DIR";

/// The revisions that have a schema.
pub(super) const REVISIONS: [&str; 5] =
    ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25", MODERN];

/// A revision's schema.
struct Schema {
    root: Value,
    /// Under which key the definitions stand: the drafts of JSON Schema differ.
    key: &'static str,
    /// The definition of each method's message.
    methods: BTreeMap<String, String>,
    /// The definitions of each error: of the error alone, and of the whole message.
    errors: BTreeMap<i64, String>,
    refusals: BTreeMap<i64, String>,
    /// Made when they are first wanted.
    validators: Mutex<BTreeMap<String, Arc<Validator>>>,
}

/// All of them, and where they came from.
struct Published {
    folder: PathBuf,
    schemas: BTreeMap<&'static str, Schema>,
}

impl Schema {
    fn read(file: &Path) -> Schema {
        let text = std::fs::read_to_string(file)
            .unwrap_or_else(|error| panic!("{FOLDER}: {}: {error}", file.display()));
        let root: Value = serde_json::from_str(&text).unwrap();
        let key = if root.get("$defs").is_some() { "$defs" } else { "definitions" };
        let (mut methods, mut errors, mut refusals) =
            (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (name, definition) in root[key].as_object().unwrap() {
            let properties = &definition["properties"];
            // `ClientNotification` and its like only gather others.
            let is_union = name.starts_with("Client") || name.starts_with("Server");
            if let (Some(method), false) = (properties["method"]["const"].as_str(), is_union) {
                methods.insert(method.to_owned(), name.clone());
            }
            if let Some(code) = properties["code"]["const"].as_i64() {
                errors.insert(code, name.clone());
            }
            for part in properties["error"]["allOf"].as_array().into_iter().flatten() {
                if let Some(code) = part["properties"]["code"]["const"].as_i64() {
                    refusals.insert(code, name.clone());
                }
            }
        }
        Schema { root, key, methods, errors, refusals, validators: Mutex::default() }
    }

    fn has(&self, definition: &str) -> bool {
        self.root[self.key].get(definition).is_some()
    }

    /// The first of these names that is defined: some were renamed.
    fn either(&self, names: [&'static str; 2]) -> &'static str {
        if self.has(names[0]) { names[0] } else { names[1] }
    }

    fn validator(&self, definition: &str) -> Arc<Validator> {
        let mut validators = self.validators.lock().unwrap();
        let made = validators.entry(definition.to_owned()).or_insert_with(|| {
            assert!(self.has(definition), "nothing is called {definition}");
            let mut root = self.root.clone();
            root["$ref"] = json!(format!("#/{}/{definition}", self.key));
            let options = jsonschema::options().should_validate_formats(true);
            Arc::new(options.build(&root).unwrap())
        });
        made.clone()
    }
}

/// The schemas; nothing where nobody says where they are, which is said on standard error.
fn published() -> Option<&'static Published> {
    static PUBLISHED: OnceLock<Option<Published>> = OnceLock::new();
    let read = || {
        let folder = std::env::var_os(FOLDER).filter(|it| !it.is_empty());
        let Some(folder) = folder.map(PathBuf::from) else {
            // Past the capture of the test harness.
            let mut out = std::io::stderr().lock();
            let what = "!!! SKIPPED: schemas: no message is held against the published schemas";
            let why = format!("{FOLDER} does not name the folder of the MCP specification");
            writeln!(out, "{what}, because {why}.").unwrap();
            return None;
        };
        let schema = |name| Schema::read(&folder.join(name).join("schema.json"));
        let schemas = REVISIONS.into_iter().map(|name| (name, schema(name))).collect();
        Some(Published { folder, schemas })
    };
    PUBLISHED.get_or_init(read).as_ref()
}

/// Whether there is anything to hold messages against.
pub(super) fn are_here() -> bool {
    published().is_some()
}

/// The example messages of a revision: the definition, the file's name, the message.
pub(super) fn examples(revision: &str) -> Vec<(String, String, Value)> {
    let files = |folder: &Path| {
        let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
        let mut entries: Vec<PathBuf> = entries.collect();
        entries.sort();
        entries
    };
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    let folder = published().unwrap().folder.join(revision).join("examples");
    let mut examples = Vec::new();
    for definition in files(&folder) {
        for file in files(&definition) {
            let text = std::fs::read_to_string(&file).unwrap();
            let message = serde_json::from_str(&text).unwrap();
            examples.push((name(&definition), name(&file), message));
        }
    }
    examples
}

/// What was held against one revision's schema, and what of it did not hold.
pub(super) struct Checked {
    revision: &'static str,
    schema: &'static Schema,
    seen: BTreeSet<String>,
    violations: Vec<String>,
}

impl Checked {
    pub(super) fn against(revision: &str) -> Checked {
        let (revision, schema) = published().unwrap().schemas.get_key_value(revision).unwrap();
        Checked { revision, schema, seen: BTreeSet::new(), violations: Vec::new() }
    }

    /// A value of that definition.
    pub(super) fn holds(&mut self, definition: &str, value: &Value) {
        let validator = self.schema.validator(definition);
        for error in validator.iter_errors(value) {
            let at = error.instance_path();
            self.violations.push(format!("{definition}: at {at:?}: {error}: {value}"));
        }
    }

    /// A request or notification.
    pub(super) fn message(&mut self, message: &Value) {
        let method = message["method"].as_str().unwrap_or_else(|| panic!("{message}"));
        let is_request = message.get("id").is_some();
        let envelope = if is_request { "JSONRPCRequest" } else { "JSONRPCNotification" };
        self.holds(envelope, message);
        match self.schema.methods.get(method) {
            Some(definition) => {
                let definition = definition.clone();
                self.holds(&definition, message);
            }
            None => self.violations.push(format!("the revision has no {method}: {message}")),
        }
        self.seen.insert(method.to_owned());
        if message["params"].get("inputResponses").is_some() {
            self.seen.insert(format!("{method} again"));
        }
    }

    /// A request of a method that only its client knows.
    pub(super) fn passed_on(&mut self, message: &Value) {
        self.holds("JSONRPCRequest", message);
        if self.schema.has("RequestParams") {
            self.holds("RequestParams", &message["params"]);
        }
    }

    /// A response, whatever was asked.
    pub(super) fn response(&mut self, message: &Value) {
        if let Some(code) = message["error"]["code"].as_i64() {
            self.holds(self.schema.either(["JSONRPCErrorResponse", "JSONRPCError"]), message);
            if let Some(definition) = self.schema.errors.get(&code) {
                self.holds(definition, &message["error"]);
            }
            if let Some(definition) = self.schema.refusals.get(&code) {
                self.holds(definition, message);
            }
            self.seen.insert(format!("error {code}"));
            return;
        }
        self.holds(self.schema.either(["JSONRPCResultResponse", "JSONRPCResponse"]), message);
        self.seen.insert("result".to_owned());
    }

    /// The response to a request of that method.
    pub(super) fn answer(&mut self, method: &str, message: &Value) {
        self.response(message);
        let Some(result) = message.get("result") else { return };
        let request = self.schema.methods.get(method);
        let of_request = request.map(|request| request.replace("Request", "Result"));
        // Most of what only does something answers nothing.
        let own = of_request.filter(|it| self.schema.has(it));
        let own = own.unwrap_or_else(|| "EmptyResult".to_owned());
        let whole = format!("{own}Response");
        if self.schema.has(&whole) {
            self.holds(&whole, message);
        }
        if result["resultType"] != "input_required" {
            self.holds(&own, result);
            self.seen.insert(format!("{method}: {own}"));
            return;
        }
        self.holds("InputRequiredResult", result);
        for request in
            result["inputRequests"].as_object().into_iter().flat_map(|it| it.values())
        {
            let asked = request["method"].as_str().unwrap_or_default();
            let definition = self.schema.methods.get(asked).cloned();
            self.holds(definition.as_deref().unwrap_or("InputRequest"), request);
            self.seen.insert(format!("input {asked}"));
        }
    }

    /// The refusal of a request whose id could not be read: since 2025-03-26 it may have none
    /// (basic/transports, Sending Messages to the Server), which the schemas allow from
    /// 2025-11-25 on.
    pub(super) fn refusal_of_nothing(&mut self, message: &Value) {
        if message.get("id").is_some() {
            self.violations.push(format!("an id out of nowhere: {message}"));
        }
        let mut message = message.clone();
        if self.revision < "2025-11-25" {
            message["id"] = json!(0);
        }
        self.response(&message);
    }

    pub(super) fn n_violations(&self) -> usize {
        self.violations.len()
    }

    /// Fails unless everything held, and there was at least that.
    #[track_caller]
    pub(super) fn done(&self, wanted: &[&str]) {
        let (revision, violations) = (self.revision, self.violations.join("\n\n"));
        assert!(violations.is_empty(), "against {revision}:\n{violations}");
        let missing: Vec<&&str> =
            wanted.iter().filter(|it| !self.seen.contains(**it)).collect();
        assert!(missing.is_empty(), "{revision}: {missing:?} not seen; seen: {:?}", self.seen);
    }
}

/// The revision that a message to a server is written in: it says so, or its session was opened
/// with `spoken`.
pub(super) fn revision_of<'a>(message: &'a Value, spoken: &'a str) -> &'a str {
    let params = &message["params"];
    let own = params["_meta"][meta("protocolVersion")].as_str();
    match message["method"].as_str() {
        Some("initialize") => params["protocolVersion"].as_str().unwrap(),
        _ => own.unwrap_or(spoken),
    }
}
