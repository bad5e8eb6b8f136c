//! Twenty users on the same servers, over every transport and of both eras, at once and while the
//! configuration is read again: each sees, hears and uses only its own.

use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};

use super::{key_of, keys, of_users};
use crate::support::behind::{Behind, Era, Transport};
use crate::support::duplex::{DOORS, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::{heavy, wait_for, wait_until};

const N_USERS: usize = 20;
const ROUNDS: usize = 3;

const TOOLS_CHANGED: &str = "notifications/tools/list_changed";
const UPDATED: &str = "notifications/resources/updated";
const MESSAGE: &str = "notifications/message";

/// The servers by name.
const KINDS: [(&str, Era, Transport); 5] = [
    ("http", Era::Legacy, Transport::Http),
    ("old", Era::Legacy, Transport::Sse),
    ("modern", Era::Modern, Transport::Http),
    ("child", Era::Legacy, Transport::Stdio),
    ("mchild", Era::Modern, Transport::Stdio),
];

/// No name is a part of another one, so that a text can be searched for it.
fn names() -> Vec<String> {
    (0..N_USERS).map(|n| format!("u{n:02}u")).collect()
}

/// Fails if a text names another user.
#[track_caller]
fn only_of(user: &str, what: &str, text: &str) {
    for other in names().iter().filter(|other| *other != user) {
        assert!(!text.contains(other.as_str()), "{user} is told of {other}, {what}: {text}");
    }
}

/// One user with a client of each era.
struct User {
    name: String,
    legacy: Duplex,
    modern: ModernClient,
}

impl User {
    fn of(gateway: &Gateway, n: usize, name: &str) -> User {
        let legacy = Duplex::to(gateway, DOORS[n % 2]).key(&key_of(name)).open();
        let modern = ModernClient::to(gateway).key(&key_of(name));
        User { name: name.to_owned(), legacy, modern }
    }

    fn own_tools(&self) -> Vec<String> {
        KINDS.iter().map(|(server, ..)| format!("{server}-of_{}", self.name)).collect()
    }

    /// Lists until every server's is there, and sees nothing of others meanwhile.
    fn await_lists(&self) {
        let own = self.own_tools();
        for era in [Era::Legacy, Era::Modern] {
            wait_for(&format!("{} sees its own", self.name), || {
                let tools = match era {
                    Era::Legacy => self.legacy.list("tools/list", "tools"),
                    Era::Modern => self.modern.list("tools/list", "tools"),
                };
                let text = json!(tools).to_string();
                only_of(&self.name, "in a list", &text);
                own.iter().all(|tool| text.contains(&format!("{tool:?}"))).then_some(())
            });
        }
    }

    fn check(&self, result: &Value) {
        only_of(&self.name, "in a result", &result.to_string());
        assert_eq!(result["structuredContent"]["user"], self.name.as_str(), "{result}");
    }

    /// A round of everything that is answered.
    fn use_all(&self) {
        for (server, ..) in KINDS {
            let (tool, empty) = (format!("{server}-whoami"), json!({}));
            self.check(&self.legacy.call(&tool, &empty));
            self.check(&self.modern.call(&tool, &empty));
            self.modern.call(&format!("{server}-of_{}", self.name), &empty);
        }
        for uri in self.legacy.names("resources/list", "resources", "uri") {
            if uri.contains("user://") {
                let read = self.legacy.result("resources/read", &json!({ "uri": uri }));
                let text = read["contents"][0]["text"].as_str().unwrap_or_default();
                assert!(text.contains(&format!("for {}", self.name)), "{uri}: {read}");
            }
            only_of(&self.name, "in a URI", &uri);
        }
        let prompt =
            json!({ "name": format!("http-of_{}", self.name), "arguments": { "name": "x" } });
        let said = self.modern.result("prompts/get", &prompt).to_string();
        assert!(said.contains(&format!("for {}", self.name)), "{said}");
        let message = json!({ "level": "error", "data": format!("logged by {}", self.name) });
        self.legacy.call("http-log", &json!({ "messages": [message] }));
    }

    /// Begins a task; gives its id.
    fn begin_task(&self) -> String {
        let params = json!({
            "name": "http-long", "arguments": { "finished": false }, "task": { "ttl": 60_000 },
        });
        let result = self.legacy.result("tools/call", &params);
        result["task"]["taskId"].as_str().unwrap().to_owned()
    }
}

fn config(servers: &[(&str, Value)], description: &str) -> Value {
    let mut all = serde_json::Map::new();
    for (name, server) in servers {
        let mut server = server.clone();
        server["description"] = json!(description);
        // Room for the calls of a debug build on a busy machine.
        server["timeout_ms"] = json!(60_000);
        all.insert((*name).to_owned(), server);
    }
    let names = names();
    let names: Vec<&str> =
        ["root"].into_iter().chain(names.iter().map(String::as_str)).collect();
    json!({ "listen": "127.0.0.1:0", "api_keys": keys(&names), "mcp_servers": all })
}

#[test]
fn twenty_users_on_every_kind_of_server_see_only_their_own() {
    let _turn = heavy();
    let behind: Vec<(&str, Behind, Value)> = KINDS
        .map(|(name, era, transport)| {
            let (behind, config) = of_users(era, transport);
            (name, behind, config)
        })
        .into();
    let servers: Vec<(&str, Value)> =
        behind.iter().map(|(name, _, config)| (*name, config.clone())).collect();
    let gateway = Gateway::with(config(&servers, "first")).start();
    let is_over = AtomicBool::new(false);
    let users: Vec<User> = std::thread::scope(|scope| {
        let threads: Vec<_> = names()
            .into_iter()
            .enumerate()
            .map(|(n, name)| {
                let gateway = &gateway;
                scope.spawn(move || {
                    let user = User::of(gateway, n, &name);
                    user.await_lists();
                    for _ in 0..ROUNDS {
                        user.use_all();
                    }
                    user
                })
            })
            .collect();
        let reloading = scope.spawn(|| {
            for description in ["second", "third"] {
                std::thread::park_timeout(std::time::Duration::from_secs(2));
                if !is_over.load(Ordering::Relaxed) {
                    gateway.reload(&config(&servers, description));
                }
            }
        });
        let users = threads.into_iter().map(|it| it.join().unwrap()).collect();
        is_over.store(true, Ordering::Relaxed);
        reloading.join().unwrap();
        users
    });
    tasks_are_their_beginners(&users);
    told_alone(&behind, &users);
    for (name, behind, _) in &behind {
        let Some(script) = behind.script() else { continue };
        assert_eq!(script.mixed(), [], "{name}");
        assert_eq!(script.users().into_iter().collect::<Vec<_>>(), names(), "{name}");
    }
    for user in &users {
        for heard in user.legacy.heard() {
            only_of(&user.name, "by a message", &heard.text);
        }
    }
}

fn tasks_are_their_beginners(users: &[User]) {
    let tasks: Vec<String> = users.iter().map(User::begin_task).collect();
    for (user, own) in users.iter().zip(&tasks) {
        assert_eq!(user.legacy.names("tasks/list", "tasks", "taskId"), [own.as_str()]);
        for other in tasks.iter().filter(|task| *task != own) {
            let refused = user.legacy.refused("tasks/get", &json!({ "taskId": other }));
            assert_eq!(refused["code"], -32602, "{refused}");
        }
    }
}

/// What servers say outside of calls reaches its user, over every transport that is in this
/// process; that it reached nobody else is seen at the end.
fn told_alone(behind: &[(&str, Behind, Value)], users: &[User]) {
    for (server, behind, _) in behind {
        let Some(script) = behind.script() else { continue };
        for user in users.iter().step_by(3) {
            let name = &user.name;
            let mut listening = user.modern.listen(&json!({ "toolsListChanged": true }));
            let before = user.legacy.told(TOOLS_CHANGED).len();
            wait_until("there is a stream to tell", || {
                script.tell_user(name, TOOLS_CHANGED, &json!({})) > 0
            });
            assert!(script.change_for(name, &format!("{server}_{name}")) > 0);
            user.legacy.wait_told_times(TOOLS_CHANGED, before + 1);
            assert_eq!(listening.next()["method"], TOOLS_CHANGED);
            let more = format!("{server}-more_{server}_{name}");
            let listed = || user.legacy.names("tools/list", "tools", "name").contains(&more);
            wait_until("the new tool is listed", listed);
            // The first server's stands there as it is, the others' with their server.
            let bare = format!("user://{name}/notes");
            let marked = format!("{server}+{bare}");
            let uris = user.legacy.names("resources/list", "resources", "uri");
            let uri = if uris.contains(&marked) { marked } else { bare.clone() };
            assert!(uris.contains(&uri) && (uri != bare || *server == "http"), "{uris:?}");
            user.legacy.result("resources/subscribe", &json!({ "uri": uri }));
            let updated = json!({ "uri": bare });
            wait_until(&format!("{name} is told of {uri} by {server}"), || {
                script.tell_user(name, UPDATED, &updated);
                user.legacy.told(UPDATED).iter().any(|it| it["uri"] == uri.as_str())
            });
            if *server != "modern" {
                let data = format!("unasked for {name} by {server}");
                let message = json!({ "level": "error", "data": data });
                wait_until("a message is told", || {
                    script.tell_user(name, MESSAGE, &message);
                    user.legacy.told(MESSAGE).iter().any(|it| it["data"] == data.as_str())
                });
            }
        }
    }
}
