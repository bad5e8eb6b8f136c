//! Servers whose credentials are each user's own.

mod headers;
mod isolation;
mod lifetime;
mod told;

use serde_json::{Value, json};

use crate::support::behind::{Behind, Era, Transport};
use crate::support::duplex::{Door, Duplex};
use crate::support::gateway::Gateway;
use crate::support::http::Request;
use crate::support::modern::ModernClient;
use crate::support::wait_for;

/// Servers over HTTP, of both eras.
const OVER_HTTP: [(Era, Transport); 3] = [
    (Era::Legacy, Transport::Http),
    (Era::Legacy, Transport::Sse),
    (Era::Modern, Transport::Http),
];

/// How a client comes.
#[derive(Debug, Clone, Copy)]
enum Via {
    Rest,
    Sse,
    Streamable,
    Modern,
}

const VIAS: [Via; 4] = [Via::Rest, Via::Sse, Via::Streamable, Via::Modern];

/// A client with the headers that it sends with every request.
enum Client {
    Rest(String, Vec<(String, String)>),
    Legacy(Duplex),
    Modern(ModernClient),
}

impl Client {
    fn of(gateway: &Gateway, via: Via, headers: &[(&str, &str)]) -> Client {
        let address = gateway.address();
        let owned = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
        let legacy = |door: Door| {
            let mut client = Duplex::to(gateway, door);
            for (name, value) in headers {
                client = client.header(name, value);
            }
            Client::Legacy(client.open())
        };
        match via {
            Via::Rest => Client::Rest(address.to_owned(), owned.collect()),
            Via::Sse => legacy(Door::Sse),
            Via::Streamable => legacy(Door::Streamable),
            Via::Modern => {
                let mut client = ModernClient::to(gateway);
                for (name, value) in headers {
                    client = client.header(name, value);
                }
                Client::Modern(client)
            }
        }
    }

    /// The message or, over REST, the body that answers a call.
    fn call(&self, tool: &str, arguments: &Value) -> Value {
        let params = json!({ "name": tool, "arguments": arguments });
        match self {
            Client::Rest(address, headers) => {
                let request = Request::post("/mcp/tools/call", &params).headers(headers);
                crate::support::http::exchange(address, &request).json()
            }
            Client::Legacy(client) => client.request("tools/call", &params),
            Client::Modern(client) => client.request("tools/call", &params).message,
        }
    }

    /// The user that the server takes the client for.
    #[track_caller]
    fn whoami(&self, tool: &str) -> String {
        let answer = self.call(tool, &json!({}));
        let result = answer.get("result").unwrap_or(&answer);
        let user = result["structuredContent"]["user"].as_str();
        user.unwrap_or_else(|| panic!("no user: {answer}")).to_owned()
    }

    /// The names of the tools that only one user sees.
    fn own_tools(&self) -> Vec<String> {
        let tools = match self {
            Client::Rest(address, headers) => {
                let request = Request::get("/mcp/tools/list").headers(headers);
                crate::support::http::exchange(address, &request).expect(200).json()["tools"]
                    .clone()
            }
            Client::Legacy(client) => json!(client.list("tools/list", "tools")),
            Client::Modern(client) => json!(client.list("tools/list", "tools")),
        };
        let tools = tools.as_array().unwrap().iter();
        let names = tools.map(|tool| tool["name"].as_str().unwrap().to_owned());
        names.filter(|name| name.contains("of_") || name.contains("more_")).collect()
    }

    /// Lists until something is there that only this user sees.
    #[track_caller]
    fn await_own_tools(&self, tools: &[&str]) {
        wait_for(&format!("{tools:?} are listed"), || {
            (self.own_tools() == tools).then_some(())
        });
    }
}

/// A server that tells its users apart by `X-User`, or by that variable, and what `mcp_servers`
/// says of it.
fn of_users(era: Era, transport: Transport) -> (Behind, Value) {
    let behind = Behind::of(era, transport, "scripted");
    let mut config = behind.config();
    if let Some(script) = behind.script() {
        script.tell_users_by("X-User");
        config["headers"] = json!({ "X-User": "${user.name}" });
    } else {
        config["args"].as_array_mut().unwrap().push(json!("--user-env=X_USER"));
        config["env"] = json!({ "X_USER": "${user.name}" });
    }
    (behind, config)
}

/// Keys of users of these names: `gateway-key-of-NAME`.
fn keys(names: &[&str]) -> Value {
    names.iter().map(|name| json!({ "name": name, "key": key_of(name) })).collect()
}

fn key_of(name: &str) -> String {
    format!("gateway-key-of-{name}")
}

fn bearer(name: &str) -> String {
    format!("Bearer {}", key_of(name))
}
