//! One catalogue over servers of both eras: one session, and one client without.

use serde_json::{Value, json};

use super::{answers_in, text_of};
use crate::support::behind::{Behind, Era, Transport, params_of};
use crate::support::duplex::{DOORS, Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::modern::ModernClient;
use crate::support::script::TEXT_URI;
use crate::support::wait_until;

const SERVERS: [&str; 2] = ["old", "new"];

struct Mixed {
    old: Behind,
    new: Behind,
    gateway: Gateway,
}

fn over(old: Transport, new: Transport) -> Mixed {
    let old = Behind::of(Era::Legacy, old, "old");
    let new = Behind::of(Era::Modern, new, "new");
    let servers = json!({ "old": old.config(), "new": new.config() });
    Mixed { gateway: Gateway::started(json!({ "mcp_servers": servers })), old, new }
}

fn everywhere(check: impl Fn(&Mixed)) {
    for (old, new) in [
        (Transport::Http, Transport::Http),
        (Transport::Sse, Transport::Stdio),
        (Transport::Stdio, Transport::Http),
    ] {
        check(&over(old, new));
    }
}

impl Mixed {
    fn wait_for_ears(&self) {
        self.new.wait_received("a subscription", |received| {
            (!params_of(received, "subscriptions/listen").is_empty()).then_some(())
        });
        if let Some(script) = self.old.script() {
            wait_until("a stream is open", || script.n_streams() > 0);
        }
    }
}

#[test]
fn both_are_listed_and_called_by_clients_of_both_eras() {
    everywhere(|mixed| {
        let modern = ModernClient::to(&mixed.gateway).named("alice");
        let names = modern.tool_names();
        for door in DOORS {
            let legacy = Duplex::to(&mixed.gateway, door).named("alice").open();
            assert_eq!(legacy.names("tools/list", "tools", "name"), names, "{door:?}");
            for server in SERVERS {
                let echo = format!("{server}-echo");
                assert!(names.contains(&echo), "{names:?}");
                let message = json!({ "message": server });
                assert_eq!(text_of(&legacy.call(&echo, &message)), server);
                assert_eq!(text_of(&modern.call(&echo, &message)), server);
                let greet =
                    json!({ "name": format!("{server}-greet"), "arguments": { "name": "n" } });
                let of_legacy = legacy.result("prompts/get", &greet)["messages"].clone();
                let of_modern = modern.result("prompts/get", &greet)["messages"].clone();
                assert!(of_legacy.to_string().contains(&format!("{server}: ")), "{of_legacy}");
                assert_eq!(of_legacy, of_modern);
                let read = json!({ "uri": format!("{server}+{TEXT_URI}") });
                let text = |result: &Value| result["contents"][0]["text"].clone();
                let wanted = json!(format!("{server} has {TEXT_URI}"));
                assert_eq!(text(&legacy.result("resources/read", &read)), wanted);
                assert_eq!(text(&modern.result("resources/read", &read)), wanted);
            }
        }
    });
}

#[test]
fn both_ask_clients_of_both_eras() {
    everywhere(|mixed| {
        let modern = ModernClient::to(&mixed.gateway).named("alice");
        for door in DOORS {
            let legacy = Duplex::to(&mixed.gateway, door).named("bob").open();
            // All at once, on one session.
            let calls: Vec<_> = SERVERS
                .iter()
                .flat_map(|server| {
                    ["ask_sampling", "ask_elicitation", "ask_roots"]
                        .map(|tool| legacy.begin_call(&format!("{server}-{tool}"), &json!({})))
                })
                .collect();
            for server in SERVERS {
                let run = modern.run_call(&format!("{server}-ask_twice"), &json!({}));
                assert_eq!(answers_in(&run.message).len(), 2, "{server}: {}", run.message);
                assert!(run.message.to_string().contains("model of alice"), "{}", run.message);
            }
            for call in calls {
                let message = call.join().unwrap();
                assert!(answers_in(&message)[0].to_string().contains("bob"), "{message}");
            }
            assert_eq!(legacy.questions().len(), 6, "{door:?}");
        }
    });
}

#[test]
fn both_are_heard_by_clients_of_both_eras() {
    everywhere(|mixed| {
        let modern = ModernClient::to(&mixed.gateway);
        let legacy = Duplex::to(&mixed.gateway, Door::Streamable).open();
        let uris = SERVERS.map(|server| format!("{server}+{TEXT_URI}"));
        let wanted = json!({ "toolsListChanged": true, "resourceSubscriptions": uris });
        let mut listening = modern.listen(&wanted);
        assert_eq!(listening.honoured, wanted);
        for uri in &uris {
            legacy.result("resources/subscribe", &json!({ "uri": uri }));
        }
        mixed.wait_for_ears();
        for (n, server) in SERVERS.iter().enumerate() {
            modern.call(
                &format!("{server}-change"),
                &json!({ "kind": "tools", "name": "fresh" }),
            );
            assert_eq!(listening.next()["method"], "notifications/tools/list_changed");
            legacy.wait_told_times("notifications/tools/list_changed", n + 1);
            assert!(modern.tool_names().contains(&format!("{server}-fresh")), "{server}");
            let touch = format!("{server}-touch");
            wait_until("it is subscribed upstream", || {
                text_of(&modern.call(&touch, &json!({ "uri": TEXT_URI }))) != "0"
            });
            let told = listening.next();
            assert_eq!(told["params"]["uri"], uris[n], "{told}");
            legacy.wait_for("its update", |heard| {
                (heard.tells("notifications/resources/updated")
                    && heard.message["params"]["uri"] == *uris[n])
                    .then_some(())
            });
        }
        legacy.result("logging/setLevel", &json!({ "level": "error" }));
        for server in SERVERS {
            let message = json!({ "level": "error", "data": server });
            let messages = json!({ "messages": [message] });
            let tool = format!("{server}-log");
            legacy.call(&tool, &messages);
            legacy.wait_for("the message", |heard| {
                (heard.message["params"]["data"] == server).then_some(())
            });
            let run = modern.clone().logging("info").run_call(&tool, &messages);
            assert_eq!(run.told("notifications/message"), [message], "{server}");
            let count = json!({ "name": format!("{server}-count"), "_meta": { "progressToken": server } });
            let run = modern.run("tools/call", &count);
            assert_eq!(run.told("notifications/progress").len(), 3, "{server}");
        }
    });
}

#[test]
fn discovery_offers_what_any_of_them_has() {
    everywhere(|mixed| {
        let found = ModernClient::to(&mixed.gateway).result("server/discover", &json!({}));
        for capability in ["tools", "prompts", "resources", "completions", "logging"] {
            assert!(found["capabilities"][capability].is_object(), "{capability}: {found}");
        }
        for (server, era) in [("old", "legacy"), ("new", "modern")] {
            let status = mixed.gateway.status_of(server);
            assert_eq!(status["era"], era, "{status}");
        }
    });
}
