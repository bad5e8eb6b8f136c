//! A host that starts `trunkline stdio` as its server and speaks by hand, a message a line.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Instant;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::ears::{Say, answer_of};
use super::gateway::{Directory, binary, signal_process};
use super::mcp::{initialize, notification_message, request_message};
use super::script::{MODERN, meta};
use super::{DEADLINE, in_background, wait_for};

/// What came, and whether more can come.
#[derive(Debug, Default)]
struct Heard {
    messages: Mutex<(Vec<Value>, bool)>,
    changed: Condvar,
}

/// The host. Dropping it ends the input and kills what is left.
pub struct Host {
    child: Child,
    input: Arc<Mutex<Option<ChildStdin>>>,
    heard: Arc<Heard>,
    last_id: AtomicU64,
    reading: Option<JoinHandle<()>>,
    stderr: Option<JoinHandle<String>>,
    directory: Directory,
}

impl Host {
    /// A host of a gateway with a configuration of its own.
    pub fn of(config: &Value) -> Host {
        let directory = Directory::new();
        let path = directory.path().join("config.json");
        std::fs::write(&path, config.to_string()).unwrap();
        let path = path.to_str().unwrap().to_owned();
        Host::start(directory, &["--config", &path], &[])
    }

    /// A host of a gateway in front of the one at that URL.
    pub fn before(url: &str, key: &str) -> Host {
        Host::start(Directory::new(), &["--url", url], &[("TRUNKLINE_KEY", key)])
    }

    fn start(directory: Directory, arguments: &[&str], env: &[(&str, &str)]) -> Host {
        let mut command = Command::new(binary());
        command.arg("stdio").args(arguments).envs(env.iter().copied());
        command.current_dir(directory.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = Arc::new(Mutex::new(child.stdin.take()));
        let heard = Arc::new(Heard::default());
        let (output, to, answers) =
            (child.stdout.take().unwrap(), heard.clone(), input.clone());
        let reading = in_background(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                let message: Value = serde_json::from_str(&line).unwrap();
                if message["method"].is_string() && !message["id"].is_null() {
                    let said = match answer_of("alice", &message) {
                        Say::Result(result) => json!({ "result": result }),
                        Say::Error(code, what) => {
                            json!({ "error": { "code": code, "message": what } })
                        }
                        other => panic!("{other:?}"),
                    };
                    let mut answer = said;
                    answer["jsonrpc"] = json!("2.0");
                    answer["id"] = message["id"].clone();
                    write_line(&answers, &answer.to_string());
                }
                to.messages.lock().unwrap().0.push(message);
                to.changed.notify_all();
            }
            to.messages.lock().unwrap().1 = true;
            to.changed.notify_all();
        });
        let errors = child.stderr.take().unwrap();
        let stderr = in_background(move || std::io::read_to_string(errors).unwrap());
        Host {
            child,
            input,
            heard,
            last_id: AtomicU64::new(0),
            reading: Some(reading),
            stderr: Some(stderr),
            directory,
        }
    }

    /// Has it read another configuration.
    pub fn reload(&self, config: &Value) {
        let path = self.directory.path().join("config.json");
        std::fs::write(path, config.to_string()).unwrap();
        signal_process(self.child.id(), Signal::HUP);
    }

    /// Has it open a session of that revision, able to answer everything.
    pub fn opened(self, revision: &str) -> Host {
        let message = initialize(0, revision, &super::ears::all_capabilities());
        self.send(&message);
        let opened = self.wait(|message| message["id"] == 0);
        assert_eq!(opened["result"]["protocolVersion"], revision, "{opened}");
        self.notify("notifications/initialized", &json!({}));
        self
    }

    pub fn send_line(&self, line: &str) {
        write_line(&self.input, line);
    }

    pub fn send(&self, message: &Value) {
        self.send_line(&message.to_string());
    }

    pub fn notify(&self, method: &str, params: &Value) {
        self.send(&notification_message(method, params));
    }

    /// Sends a request of its session, and gives its id.
    pub fn begin(&self, method: &str, params: &Value) -> Value {
        let id = json!(self.last_id.fetch_add(1, Ordering::Relaxed) + 1);
        self.send(&request_message(&id, method, params));
        id
    }

    /// The response to a request of its session.
    #[track_caller]
    pub fn request(&self, method: &str, params: &Value) -> Value {
        self.answer_to(&self.begin(method, params))
    }

    /// Sends a stateless request, and gives its id.
    pub fn begin_stateless(&self, method: &str, params: &Value) -> Value {
        let mut params = params.clone();
        let own = &mut params["_meta"];
        own[meta("protocolVersion")] = json!(MODERN);
        own[meta("clientInfo")] = json!({ "name": "host", "version": "1" });
        own[meta("clientCapabilities")] = super::ears::all_capabilities();
        self.begin(method, &params)
    }

    /// The response to a stateless request.
    #[track_caller]
    pub fn stateless(&self, method: &str, params: &Value) -> Value {
        self.answer_to(&self.begin_stateless(method, params))
    }

    /// Waits for the response of that id.
    #[track_caller]
    pub fn answer_to(&self, id: &Value) -> Value {
        self.wait(|message| message["method"].is_null() && message["id"] == *id)
    }

    /// Waits for the first message in which `pick` finds something.
    #[track_caller]
    pub fn wait(&self, pick: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + DEADLINE;
        let mut messages = self.heard.messages.lock().unwrap();
        loop {
            if let Some(found) = messages.0.iter().find(|message| pick(message)) {
                return found.clone();
            }
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero() && !messages.1, "it did not come: {:#?}", messages.0);
            messages = self.heard.changed.wait_timeout(messages, left).unwrap().0;
        }
    }

    #[track_caller]
    pub fn wait_told(&self, method: &str) -> Value {
        self.wait(|message| message["method"] == method)
    }

    /// Everything that has come so far.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.messages.lock().unwrap().0.clone()
    }

    pub fn end_input(&self) {
        drop(self.input.lock().unwrap().take());
    }

    /// Waits until the gateway has ended, and gives its code and what it wrote besides.
    #[track_caller]
    pub fn wait_for_end(&mut self) -> (Option<i32>, String) {
        let child = &mut self.child;
        let code = wait_for("the gateway ends", || child.try_wait().unwrap()).code();
        let stderr = self.stderr.take().map(|it| it.join().unwrap()).unwrap_or_default();
        (code, stderr)
    }
}

/// What has ended reads no more.
fn write_line(input: &Mutex<Option<ChildStdin>>, line: &str) {
    if let Some(input) = &mut *input.lock().unwrap() {
        writeln!(input, "{line}").ok();
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.end_input();
        drop(self.child.kill());
        drop(self.child.wait());
        if let Some(reading) = self.reading.take() {
            drop(reading.join());
        }
    }
}
