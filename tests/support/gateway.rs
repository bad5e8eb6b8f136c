//! The gateway as its users run it: the real binary with a configuration file, on port 0.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::figures::BACKOFF_MAX;
use super::http::{Connection, Request, Response, exchange, try_exchange};
use super::mcp::McpClient;
pub use super::program::{binary, scripted_child};
use super::{DEADLINE, in_background, threads, unique, wait_for, wait_until, wait_within};

/// What the REST list says of an upstream that is well.
pub const OUTCOME_OK: &str = "ok";
/// The `_meta` key under which MCP lists tell of upstreams that are not well.
pub const META_UPSTREAMS: &str = "trunkline/upstreams";

/// How a gateway is to be started.
#[derive(Debug)]
pub struct Builder {
    config: Value,
    env: Vec<(String, String)>,
    args: Vec<String>,
    has_stdin: bool,
    file_blocks_max: Option<u32>,
}

/// A running gateway. Dropping it kills it.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    address: String,
    key: Option<String>,
    config: Value,
    stderr: Arc<Lines>,
    reading: Option<JoinHandle<()>>,
    /// Holds the configuration file, and is where it runs.
    directory: Directory,
}

/// A run that ended by itself.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub stderr: String,
}

/// A directory of its own that goes with the test.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Directory {
        let path = std::env::temp_dir().join(unique("trunkline-it"));
        std::fs::create_dir_all(&path).unwrap();
        Directory(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(&self.0));
    }
}

/// What was written to standard error so far.
#[derive(Debug, Default)]
struct Lines {
    lines: Mutex<(Vec<String>, bool)>,
    changed: Condvar,
    /// The thread that reads them.
    reader: OnceLock<PathBuf>,
}

impl Lines {
    fn read(&self, stream: impl std::io::Read) {
        drop(self.reader.set(threads::own()));
        for line in BufReader::new(stream).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            self.lines.lock().unwrap().0.push(line);
            self.changed.notify_all();
        }
        self.lines.lock().unwrap().1 = true;
        self.changed.notify_all();
    }

    /// The first line in which `pick` finds something; nothing if the stream ends before.
    fn wait_for<T>(&self, limit: Duration, pick: impl Fn(&str) -> Option<T>) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut lines = self.lines.lock().unwrap();
        loop {
            if let Some(found) = lines.0.iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if lines.1 || left.is_zero() {
                return None;
            }
            lines = self.changed.wait_timeout(lines, left).unwrap().0;
        }
    }

    fn text(&self) -> String {
        self.lines.lock().unwrap().0.join("\n")
    }
}

/// The log's thread has written what it had when nothing more comes for so long, and no thread has
/// anything to do.
const QUIET: Duration = Duration::from_millis(50);
/// Of a gateway that always has something to do, it is enough that so often nothing more came.
const QUIETS_MAX: usize = 20;

/// The configuration of a stdio server that runs the scripted child.
pub fn stdio(args: &[&str]) -> Value {
    json!({ "transport": "stdio", "command": scripted_child(), "args": args })
}

impl Builder {
    /// Sets an environment variable of the gateway.
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument of `serve`.
    pub fn arg(mut self, arg: &str) -> Builder {
        self.args.push(arg.to_owned());
        self
    }

    /// Starts it with its standard input closed.
    pub fn without_stdin(mut self) -> Builder {
        self.has_stdin = false;
        self
    }

    /// No file that it writes grows beyond so many of the shell's blocks, as on a full disk.
    pub fn with_file_blocks(mut self, blocks: u32) -> Builder {
        self.file_blocks_max = Some(blocks);
        self
    }

    fn spawn(self) -> (Gateway, Arc<Lines>) {
        let directory = Directory::new();
        let path = directory.path().join("config.json");
        std::fs::write(&path, serde_json::to_string_pretty(&self.config).unwrap()).unwrap();
        let mut command = match self.file_blocks_max {
            None => Command::new(binary()),
            Some(blocks) => {
                let mut shell = Command::new("sh");
                let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
                shell.args(["-c", &script, "sh", binary()]);
                shell
            }
        };
        command.arg("serve").arg("--config").arg(&path).args(&self.args);
        // Where these are set, the program leaves the allocator alone.
        for name in ["GLIBC_TUNABLES", "MALLOC_ARENA_MAX", "TRUNKLINE_ALLOCATOR_SET"] {
            command.env_remove(name);
        }
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command.current_dir(directory.path());
        command.stdin(if self.has_stdin { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let stderr = Arc::new(Lines::default());
        let stream = child.stderr.take().unwrap();
        let lines = stderr.clone();
        let reading = Some(in_background(move || lines.read(stream)));
        let key = self.config["api_keys"][0]["key"].as_str().map(str::to_owned);
        let gateway = Gateway {
            child,
            address: String::new(),
            key,
            config: self.config,
            stderr: stderr.clone(),
            reading,
            directory,
        };
        (gateway, stderr)
    }

    /// Starts it and waits until it listens.
    #[track_caller]
    pub fn start(self) -> Gateway {
        self.try_start().unwrap_or_else(|ended| panic!("the gateway ended: {ended:?}"))
    }

    /// Starts it and waits until it listens, or has ended.
    pub fn try_start(self) -> Result<Gateway, Ended> {
        let (mut gateway, stderr) = self.spawn();
        let address = stderr.wait_for(DEADLINE, |line| {
            let (_, rest) = line.split_once("listening on http://")?;
            let end = rest.find(|c: char| c.is_whitespace() || c == '"' || c == ',');
            Some(rest[..end.unwrap_or(rest.len())].trim_end_matches('/').to_owned())
        });
        match address {
            Some(address) => {
                gateway.address = address;
                Ok(gateway)
            }
            None => Err(gateway.wait_for_end()),
        }
    }
}

impl Gateway {
    /// A gateway with this configuration; `listen` is filled in where it is missing.
    pub fn with(mut config: Value) -> Builder {
        let object = config.as_object_mut().unwrap();
        object.entry("listen").or_insert_with(|| json!("127.0.0.1:0"));
        Builder {
            config,
            env: Vec::new(),
            args: Vec::new(),
            has_stdin: true,
            file_blocks_max: None,
        }
    }

    /// A gateway in front of one server called `s`, over Streamable HTTP, all of it ready.
    #[track_caller]
    pub fn before(url: &str) -> Gateway {
        Gateway::started(json!({ "mcp_servers": { "s": { "url": url, "transport": "http" } } }))
    }

    /// A gateway with this configuration, all its upstreams ready.
    #[track_caller]
    pub fn started(config: Value) -> Gateway {
        let gateway = Gateway::with(config).start();
        gateway.wait_ready();
        gateway
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Where it runs.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// What it has written to standard error so far. A thread of its own writes there, and may be
    /// a little behind what else is seen of the gateway: a pause in its work is waited for.
    pub fn stderr(&self) -> String {
        let deadline = Instant::now() + DEADLINE;
        let (mut seen, mut n_quiet) = (self.stderr.text(), 0);
        loop {
            std::thread::park_timeout(QUIET);
            let is_idle = threads::are_asleep(self.child.id())
                && self.stderr.reader.get().is_some_and(|reader| threads::is_asleep(reader));
            let now = self.stderr.text();
            n_quiet = if now == seen { n_quiet + 1 } else { 0 };
            let is_all = n_quiet > 0 && is_idle || n_quiet >= QUIETS_MAX;
            if is_all || Instant::now() >= deadline {
                return now;
            }
            seen = now;
        }
    }

    /// Waits until it has nothing to do: what it tells and counts after its answers is told and
    /// counted.
    #[track_caller]
    pub fn wait_idle(&self) {
        wait_until("it has nothing to do", || threads::are_asleep(self.child.id()));
    }

    /// Ends it without a word to it, as a power cut would; gives what it had written.
    pub fn kill(mut self) -> String {
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
        self.stderr.text()
    }

    /// A GET with the first key of the configuration, if there is one.
    #[track_caller]
    pub fn get(&self, target: &str) -> Response {
        exchange(&self.address, &self.with_own_key(Request::get(target)))
    }

    #[track_caller]
    pub fn post(&self, target: &str, body: &Value) -> Response {
        exchange(&self.address, &self.with_own_key(Request::post(target, body)))
    }

    /// Any request as it is.
    #[track_caller]
    pub fn send(&self, request: &Request) -> Response {
        exchange(&self.address, request)
    }

    #[track_caller]
    pub fn connect(&self) -> Connection {
        Connection::open(&self.address)
    }

    fn with_own_key(&self, request: Request) -> Request {
        match &self.key {
            Some(key) => request.header("Authorization", &format!("Bearer {key}")),
            None => request,
        }
    }

    /// REST: calls a tool.
    #[track_caller]
    pub fn call(&self, tool: &str, arguments: &Value) -> Response {
        self.post("/mcp/tools/call", &json!({ "name": tool, "arguments": arguments }))
    }

    /// REST: calls a tool which must succeed; gives the first text of its result.
    #[track_caller]
    pub fn call_text(&self, tool: &str, arguments: &Value) -> String {
        let answer = self.call(tool, arguments).expect(200);
        answer.json()["content"][0]["text"].as_str().unwrap().to_owned()
    }

    /// REST: the list.
    #[track_caller]
    pub fn list(&self) -> Value {
        self.get("/mcp/tools/list").expect(200).json()
    }

    /// REST: the offered names in their order.
    #[track_caller]
    pub fn tool_names(&self) -> Vec<String> {
        names_in(&self.list())
    }

    /// The entry of `/status` about one server, whether the servers stand in an array or in an
    /// object.
    #[track_caller]
    pub fn status_of(&self, server: &str) -> Value {
        let status = self.get("/status").expect(200).json();
        entry_of(&status["upstreams"], server)
            .unwrap_or_else(|| panic!("no upstream {server:?} in {status}"))
    }

    /// A Streamable HTTP client in a session of its own.
    #[track_caller]
    pub fn mcp(&self) -> McpClient {
        match &self.key {
            Some(key) => McpClient::new(&self.address).with_key(key).opened(),
            None => McpClient::open(&self.address),
        }
    }

    /// Waits until every server that is not disabled is well and listed.
    #[track_caller]
    pub fn wait_ready(&self) {
        let servers = self.config.get("mcp_servers").or(self.config.get("mcpServers"));
        let servers: Vec<String> = servers
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
            .filter(|(_, server)| server["disabled"] != json!(true))
            .map(|(name, _)| name.clone())
            .collect();
        self.wait_until_well(&servers.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Waits until these servers are well and listed. One that was away may be tried again as late
    /// as the backoff lets.
    #[track_caller]
    pub fn wait_until_well(&self, servers: &[&str]) {
        self.wait_until_well_within(DEADLINE + BACKOFF_MAX, servers);
    }

    /// The same, for servers of which a debug build has much to read.
    #[track_caller]
    pub fn wait_until_well_within(&self, limit: Duration, servers: &[&str]) {
        let mut last = String::new();
        let deadline = Instant::now() + limit;
        loop {
            let request = self.with_own_key(Request::get("/mcp/tools/list"));
            if let Ok(answer) = try_exchange(&self.address, &request) {
                let list: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                let is_well = |name: &&str| {
                    entry_of(&list["upstreams"], name)
                        .is_some_and(|entry| entry["outcome"] == OUTCOME_OK)
                };
                if servers.iter().all(is_well) {
                    return;
                }
                last = answer.to_string();
            }
            assert!(Instant::now() < deadline, "{servers:?} are not well: {last}");
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }

    /// Waits until this name is offered.
    #[track_caller]
    pub fn wait_for_tool(&self, name: &str) {
        wait_within(DEADLINE + BACKOFF_MAX, &format!("{name} is listed"), || {
            self.tool_names().iter().any(|tool| tool == name).then_some(())
        });
    }

    /// Sends a signal.
    #[track_caller]
    pub fn signal(&self, signal: Signal) {
        kill_process(pid(self.child.id()), signal).unwrap();
    }

    /// Writes another configuration into its file; `listen` stays.
    pub fn write_config(&self, config: &Value) {
        let mut config = config.clone();
        if let Some(object) = config.as_object_mut() {
            object.entry("listen").or_insert_with(|| json!("127.0.0.1:0"));
        }
        self.write_config_text(&config.to_string());
    }

    /// The same with whatever text.
    pub fn write_config_text(&self, text: &str) {
        std::fs::write(self.directory.path().join("config.json"), text).unwrap();
    }

    /// Puts another file in the place of its configuration's.
    pub fn replace_config(&self, config: &Value) {
        let path = self.directory.path().join("config.json");
        let beside = path.with_extension("new");
        let mut config = config.clone();
        config["listen"] = json!("127.0.0.1:0");
        std::fs::write(&beside, config.to_string()).unwrap();
        std::fs::rename(&beside, &path).unwrap();
    }

    /// How often it has read its configuration again, well or not.
    fn n_reloads(&self) -> usize {
        let ends = ["was read again", "the configuration stays as it was"];
        self.stderr().lines().filter(|line| ends.iter().any(|end| line.contains(end))).count()
    }

    /// Waits until it has read its configuration again.
    #[track_caller]
    pub fn wait_for_reload(&self, cause: impl FnOnce()) {
        let before = self.n_reloads();
        cause();
        wait_until("the configuration is read again", || self.n_reloads() > before);
    }

    /// Gives it another configuration and SIGHUP, and waits until it has read that.
    #[track_caller]
    pub fn reload(&self, config: &Value) {
        self.write_config(config);
        self.wait_for_reload(|| self.signal(Signal::HUP));
    }

    /// Waits for the process's end; it must come by itself.
    #[track_caller]
    pub fn wait_for_end(mut self) -> Ended {
        let status = wait_for("the gateway ends", || self.child.try_wait().unwrap());
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
        Ended { code: status.code(), stderr: self.stderr.text() }
    }

    /// SIGTERM, and what came of it.
    #[track_caller]
    pub fn stop(self) -> Ended {
        self.signal(Signal::TERM);
        self.wait_for_end()
    }

    pub fn process_id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever held, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.memory_bytes("VmHWM:")
    }

    /// The memory that it holds now, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.memory_bytes("VmRSS:")
    }

    fn memory_bytes(&self, field: &str) -> u64 {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).unwrap();
        let line = status.lines().find(|line| line.starts_with(field)).unwrap();
        let kilobytes: u64 = line.split_whitespace().nth(1).unwrap().parse().unwrap();
        kilobytes * 1024
    }
}

impl Drop for Gateway {
    #[expect(clippy::print_stderr, reason = "the harness shows it beside the failure")]
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        if std::thread::panicking() {
            eprintln!("--- what the gateway wrote ---\n{}\n---", self.stderr.text());
        }
    }
}

/// The names of the tools in a list, in their order.
pub fn names_in(list: &Value) -> Vec<String> {
    let tools = list["tools"].as_array().unwrap_or_else(|| panic!("no tools in {list}"));
    tools.iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

/// The entry about one server, in an array of entries with `server` or an object by name.
pub fn entry_of(entries: &Value, server: &str) -> Option<Value> {
    if let Some(entries) = entries.as_array() {
        let named = |entry: &&Value| entry["server"] == server || entry["name"] == server;
        return entries.iter().find(named).cloned();
    }
    entries.get(server).cloned()
}

fn pid(id: u32) -> Pid {
    Pid::from_raw(i32::try_from(id).unwrap()).unwrap()
}

/// Sends a signal to any process of the test's own.
pub fn signal_process(id: u32, signal: Signal) {
    kill_process(pid(id), signal).unwrap();
}

/// Whether a process of that id exists and is no zombie.
pub fn is_alive(id: u32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { return false };
    let state = stat.rsplit(')').next().and_then(|rest| rest.split_whitespace().next());
    !matches!(state, None | Some("Z" | "X"))
}
