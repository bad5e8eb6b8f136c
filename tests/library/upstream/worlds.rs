//! One server over each transport, that keeps sessions apart and asks its clients questions.
//!
//! Its tools: `plain` answers; `ask` and `ask_twice` answer with what they were answered;
//! `ask_beside` waits for a subscription, which it leaves open, and asks then (not over
//! Streamable HTTP); `log`
//! says something of every kind before it answers; `late` asks after it has answered, where a
//! stream is shared; `die` answers and ends the session.
//! Every answer tells how the session was opened.

use std::collections::HashMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use trunkline::config::{HttpKind, Secret, StdioTarget, Target, UpstreamConfig};
use trunkline::limits::Limits;

use crate::upstream::rig::*;

pub(crate) const QUESTION: &str =
    r#"{"jsonrpc":"2.0","id":"q1","method":"elicitation/create","params":{"message":"?"}}"#;
const SECOND: &str = r#"{"jsonrpc":"2.0","id":2,"method":"roots/list"}"#;
const LOG: &str = r#"{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"d"}}"#;
const UPDATED: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/resources/updated","params":{"uri":"a:b"}}"#;
const OTHER: &str = r#"{"jsonrpc":"2.0","method":"notifications/other"}"#;
const WITHDRAWN: &str =
    r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":"q1"}}"#;

/// Under this a session keeps that it was asked for a subscription.
const SUBSCRIBED: &str = "subscribed";

/// A transport, and a server behind it.
pub(crate) struct World {
    pub(crate) name: &'static str,
    pub(crate) config: UpstreamConfig,
    pub(crate) server: Option<Server>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    last: AtomicUsize,
    sessions: Mutex<HashMap<String, Session>>,
    changed: Condvar,
}

#[derive(Default)]
struct Session {
    init: String,
    answers: HashMap<String, String>,
    stream: Option<TcpStream>,
    ended: bool,
}

pub(crate) fn worlds() -> [World; 3] {
    [streamable(), older(), child()]
}

impl World {
    pub(crate) fn start(&self) -> Rig {
        Rig::ready_with(self.config.clone(), Limits::default())
    }

    /// How many sessions were ended properly.
    pub(crate) fn ended(&self, rig: &Rig) -> usize {
        match self.name {
            "http" => {
                let seen = self.server.as_ref().unwrap().seen();
                seen.iter().filter(|seen| seen.method == "DELETE").count()
            }
            "sse" => {
                let sessions = self.state.sessions.lock().unwrap();
                sessions.values().filter(|session| session.ended).count()
            }
            _ => {
                let lines = rig.upstream.status().stderr;
                let pids = lines.iter().filter_map(|line| line.strip_prefix("pid "));
                pids.filter(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists())
                    .count()
            }
        }
    }

    /// Whether the server was told this on whatever session.
    pub(crate) fn was_told(&self, rig: &Rig, what: &str) -> bool {
        match &self.server {
            Some(server) => server.seen().iter().any(|seen| seen.body.contains(what)),
            None => rig.upstream.status().stderr.iter().any(|line| line.contains(what)),
        }
    }
}

impl State {
    fn new_id(&self) -> String {
        format!("s{}", self.last.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn with<T>(&self, session: &str, change: impl FnOnce(&mut Session) -> T) -> T {
        let mut sessions = self.sessions.lock().unwrap();
        let changed = change(sessions.entry(session.to_owned()).or_default());
        self.changed.notify_all();
        changed
    }

    /// Waits for the answer to a question.
    fn answer(&self, session: &str, id: &str) -> String {
        let mut sessions = self.sessions.lock().unwrap();
        loop {
            let found = sessions.get_mut(session).and_then(|it| it.answers.remove(id));
            if let Some(answer) = found {
                return answer;
            }
            let (next, late) = self.changed.wait_timeout(sessions, PATIENCE).unwrap();
            assert!(!late.timed_out(), "no answer to {id}");
            sessions = next;
        }
    }

    /// Plays a tool; its result.
    fn play(&self, seen: &Seen, session: &str, say: &mut dyn FnMut(&str)) -> String {
        let init = self.with(session, |session| session.init.clone());
        match seen.tool().as_str() {
            "ask" => {
                say(QUESTION);
                let answer = self.answer(session, "\"q1\"");
                format!(r#"{{"init":{init},"answer":{answer}}}"#)
            }
            "ask_beside" => {
                self.answer(session, SUBSCRIBED);
                say(QUESTION);
                let answer = self.answer(session, "\"q1\"");
                format!(r#"{{"init":{init},"answer":{answer}}}"#)
            }
            "ask_twice" => {
                say(QUESTION);
                say(SECOND);
                let (one, two) = (self.answer(session, "\"q1\""), self.answer(session, "2"));
                format!(r#"{{"init":{init},"answers":[{one},{two}]}}"#)
            }
            "log" => {
                [LOG, UPDATED, OTHER, WITHDRAWN].into_iter().for_each(say);
                format!(r#"{{"init":{init}}}"#)
            }
            _ => format!(r#"{{"init":{init}}}"#),
        }
    }
}

fn is_answer(seen: &Seen) -> bool {
    seen.method == "POST" && seen.rpc().is_empty()
}

fn streamable() -> World {
    let state = Arc::new(State::default());
    let mine = state.clone();
    let server = Server::start(move |seen| {
        let session = seen.session();
        if !session.is_empty() && mine.with(&session, |it| it.ended) {
            return Reply::status(404, "Session not found");
        }
        if is_answer(seen) {
            mine.with(&session, |it| it.answers.insert(seen.id(), seen.body.clone()));
            return Reply::status(202, "");
        }
        match (seen.method.as_str(), seen.rpc().as_str()) {
            (_, "initialize") => {
                let id = mine.new_id();
                mine.with(&id, |session| session.init = seen.body.clone());
                let head = format!("mcp-session-id: {id}\r\n");
                let body = seen.result(INITIALIZED);
                Reply::Body(200, head, "application/json", body)
            }
            (_, "tools/call") => {
                let (state, seen) = (mine.clone(), seen.clone());
                Reply::stream(move |stream| {
                    let result = state.play(&seen, &session, &mut |text| event(stream, text));
                    let dies = seen.tool() == "die";
                    state.with(&session, |session| session.ended |= dies);
                    event(stream, &seen.result(&result));
                })
            }
            _ => well(seen),
        }
    });
    let config = http(server.address, HttpKind::StreamableHttp);
    World { name: "http", config, server: Some(server), state }
}

fn older() -> World {
    let state = Arc::new(State::default());
    let mine = state.clone();
    let server = Server::start(move |seen| {
        if seen.method == "GET" {
            let state = mine.clone();
            return Reply::stream(move |stream| {
                let id = state.new_id();
                let text = format!("event: endpoint\ndata: /messages?session_id={id}\n\n");
                let other = stream.try_clone().unwrap();
                state.with(&id, |session| session.stream = Some(other));
                std::io::Write::write_all(stream, text.as_bytes()).unwrap();
                std::io::Read::read(stream, &mut [0]).ok();
                state.with(&id, |session| session.ended = true);
            });
        }
        let session = seen.path.rsplit('=').next().unwrap_or_default().to_owned();
        if mine.with(&session, |it| it.ended) {
            return Reply::status(404, "Session not found");
        }
        let say = |text: &str| {
            let stream = mine.with(&session, |it| {
                it.stream.as_ref().map(|stream| stream.try_clone().unwrap())
            });
            event(&mut stream.unwrap(), text);
        };
        match seen.rpc().as_str() {
            "" => {
                drop(mine.with(&session, |it| it.answers.insert(seen.id(), seen.body.clone())))
            }
            "initialize" => {
                mine.with(&session, |it| it.init = seen.body.clone());
                say(&seen.result(INITIALIZED));
            }
            "tools/list" => say(&seen.result(r#"{"tools":[{"name":"old"}]}"#)),
            "resources/subscribe" => mine.with(&session, |it| {
                drop(it.answers.insert(SUBSCRIBED.to_owned(), String::new()));
            }),
            "tools/call" => {
                let (state, seen, say) = (mine.clone(), seen.clone(), mine.clone());
                let play = move || {
                    let mut speak = |text: &str| {
                        let mut sessions = say.sessions.lock().unwrap();
                        let stream =
                            sessions.get_mut(&session).and_then(|it| it.stream.as_mut());
                        event(stream.unwrap(), text);
                    };
                    let result = state.play(&seen, &session, &mut speak);
                    speak(&seen.result(&result));
                    if seen.tool() == "late" {
                        speak(QUESTION);
                    }
                    if seen.tool() == "die" {
                        let stream = state.with(&session, |it| it.stream.take()).unwrap();
                        stream.shutdown(std::net::Shutdown::Both).unwrap();
                    }
                };
                trunkline::thread::spawn("test-play", play).unwrap().detach();
            }
            _ => (),
        }
        Reply::status(202, "Accepted")
    });
    let config = http(server.address, HttpKind::HttpSse);
    World { name: "sse", config, server: Some(server), state }
}

fn child() -> World {
    let text = r#"
echo "pid $$" >&2
result() { echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"result\":$1}"; }
while read -r line; do
  rest=${line#*\"id\":}; id=${rest%%[,\}]*}
  case "$line" in
    *'"server/discover"'*)
      echo "{\"jsonrpc\":\"2.0\",\"id\":$id,\"error\":{\"code\":-32601,\"message\":\"no\"}}";;
    *'"initialize"'*) init=$line; result "$INIT";;
    *'"tools/list"'*) result '{"tools":[{"name":"sh"}]}';;
    *'"name":"ask"'*) echo "$QUESTION"; read -r one; result "{\"init\":$init,\"answer\":$one}";;
    *'"name":"ask_beside"'*) echo ask_beside >&2; read -r other; echo "$QUESTION"; read -r one
      result "{\"init\":$init,\"answer\":$one}";;
    *'"name":"ask_twice"'*) echo "$QUESTION"; echo "$SECOND"; read -r one; read -r two
      result "{\"init\":$init,\"answers\":[$one,$two]}";;
    *'"name":"log"'*) echo "$LOG"; echo "$UPDATED"; echo "$OTHER"; echo "$WITHDRAWN"
      result "{\"init\":$init}";;
    *'"name":"late"'*) result "{}"; echo "$QUESTION";;
    *'"name":"die"'*) result "{\"init\":$init}"; exit 4;;
    *'"tools/call"'*) result "{\"init\":$init}";;
    *) echo "$line" >&2;;
  esac
done"#;
    let env = [
        ("INIT", INITIALIZED),
        ("QUESTION", QUESTION),
        ("SECOND", SECOND),
        ("LOG", LOG),
        ("UPDATED", UPDATED),
        ("OTHER", OTHER),
        ("WITHDRAWN", WITHDRAWN),
    ];
    let secret = |(name, value): (&str, &str)| (name.to_owned(), Secret::new(value.to_owned()));
    let config = config(Target::Stdio(StdioTarget {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), text.to_owned()],
        env: env.into_iter().map(secret).collect(),
        cwd: None,
        folder: None,
    }));
    World { name: "stdio", config, server: None, state: Arc::default() }
}
