//! LiteLLM's REST dialect, as a real one answers. `make interop` holds it against one.

use serde_json::{Value, json};

use crate::support::gateway::{Gateway, names_in};
use crate::support::http::{Request, Response};
use crate::support::upstream_http::HttpUpstream;

const LIST: &str = "/mcp-rest/tools/list";
const CALL: &str = "/mcp-rest/tools/call";

fn two_servers(first: &HttpUpstream, second: &HttpUpstream) -> Value {
    json!({ "mcp_servers": {
        "alpha": {
            "url": first.url(), "transport": "http", "description": "The \"first\"", "alias": "one",
        },
        "beta": { "url": second.url(), "transport": "http" },
    }})
}

fn of_server<'a>(list: &'a Value, server: &str) -> Vec<&'a Value> {
    let tools = list["tools"].as_array().expect("a list of tools").iter();
    tools.filter(|tool| tool["mcp_info"]["server_id"] == server).collect()
}

#[track_caller]
fn detail(answer: Response, status: u16) -> Value {
    let body = answer.expect(status).json();
    let detail = body["detail"].clone();
    assert!(detail["error"].is_string() && detail["message"].is_string(), "{body}");
    assert_eq!(body.as_object().map(|body| body.len()), Some(1), "{body}");
    detail
}

#[test]
fn tools_have_bare_names_and_say_whose_they_are() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::with_tools(&["only"]));
    let gateway = Gateway::started(two_servers(&first, &second));
    let list = gateway.get(LIST).expect(200).json();
    let alpha = of_server(&list, "alpha");
    assert!(alpha.iter().any(|tool| tool["name"] == "echo"), "{list}");
    let info = json!({
        "server_name": "alpha", "description": "The \"first\"", "server_id": "alpha", "alias": "one",
    });
    for tool in &alpha {
        assert_eq!(tool["mcp_info"], info);
        assert_eq!(tool["inputSchema"]["type"], "object");
    }
    let beta = of_server(&list, "beta");
    assert_eq!(beta.len(), 1, "{list}");
    assert_eq!(beta[0]["name"], "only");
    let info = json!({ "server_name": "beta", "server_id": "beta", "alias": null });
    assert_eq!(beta[0]["mcp_info"], info);
    assert_eq!(list["error"], Value::Null);
    assert_eq!(list["message"], "Successfully retrieved tools");
    let outcomes = json!({
        "one": { "status": "ok", "tool_count": alpha.len() },
        "beta": { "status": "ok", "tool_count": 1 },
    });
    assert_eq!(list["server_outcomes"], outcomes);
    // Every tool that is listed can be called as it is listed.
    for tool in [alpha[0], beta[0]] {
        let server = &tool["mcp_info"]["server_id"];
        let body = json!({ "server_id": server, "name": tool["name"], "arguments": {} });
        gateway.post(CALL, &body).expect(200);
    }
    // Other doors have their own names for the same tools.
    assert!(gateway.tool_names().contains(&"one-echo".to_owned()));
}

#[test]
fn one_server_is_asked_for_by_id_name_or_alias() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::with_tools(&["only"]));
    let gateway = Gateway::started(two_servers(&first, &second));
    for query in
        ["server_id=beta", "mcp_server_name=beta", "server_id=beta&mcp_server_name=alpha"]
    {
        let list = gateway.get(&format!("{LIST}?{query}")).expect(200).json();
        assert_eq!(names_in(&list), ["only"], "{query}");
        assert!(list.get("server_outcomes").is_none(), "{list}");
        assert_eq!(list["error"], Value::Null);
    }
    for query in ["server_id=one", "mcp_server_name=one"] {
        let list = gateway.get(&format!("{LIST}?{query}")).expect(200).json();
        assert_eq!(of_server(&list, "alpha").len(), names_in(&list).len(), "{query}");
        assert!(names_in(&list).contains(&"echo".to_owned()), "{list}");
    }
    // An empty one asks for none.
    let list = gateway.get(&format!("{LIST}?server_id=")).expect(200).json();
    assert!(list.get("server_outcomes").is_some(), "{list}");
    for query in ["server_id=nobody", "mcp_server_name=nobody"] {
        let detail = detail(gateway.get(&format!("{LIST}?{query}")), 404);
        assert_eq!(detail["error"], "server_not_found");
    }
}

#[test]
fn calls_name_their_server() {
    let (first, second) = (HttpUpstream::start(), HttpUpstream::start());
    let gateway = Gateway::started(two_servers(&first, &second));
    let call = |server: &str, name: &str| {
        let arguments = json!({ "message": "m" });
        gateway
            .post(CALL, &json!({ "server_id": server, "name": name, "arguments": arguments }))
    };
    let result = call("beta", "echo").expect(200).json();
    assert_eq!(result["content"][0]["text"], "m");
    assert_eq!((first.seen().n_calls("echo"), second.seen().n_calls("echo")), (0, 1));
    call("beta", "beta-echo").expect(200);
    call("one", "echo").expect(200);
    assert_eq!((first.seen().n_calls("echo"), second.seen().n_calls("echo")), (1, 2));
    assert_eq!(detail(call("alpha", "beta-echo"), 404)["error"], "unknown_tool");
    assert_eq!(detail(call("nobody", "echo"), 404)["error"], "server_not_found");
    // Labels for a log are taken, and say nothing about the call.
    let body = json!({ "server_id": "beta", "name": "echo", "metadata": { "tags": ["a"] } });
    gateway.post(CALL, &body).expect(200);
}

#[test]
fn errors_have_a_shape_of_their_own() {
    let upstream = HttpUpstream::start();
    let gateway = Gateway::before(&upstream.url());
    for (body, status, word) in [
        (r#"{"server_id":"s","name":"nothing"}"#, 404, "unknown_tool"),
        (r#"{"server_id":"s","arguments":{}}"#, 400, "missing_parameter"),
        (r#"{"server_id":"nobody","name":"echo"}"#, 404, "server_not_found"),
        (r#"{"server_id":"s","name":"echo","colour":1}"#, 400, "invalid_request"),
        (r#"{"server":"s","name":"echo"}"#, 400, "invalid_request"),
        ("{", 400, "invalid_request"),
    ] {
        let detail = detail(gateway.send(&Request::post_text(CALL, body)), status);
        assert_eq!(detail["error"], word, "{body}");
    }
    assert_eq!(upstream.seen().n_calls("echo"), 0);
}

#[test]
fn a_server_that_is_down_is_an_outcome_of_all_and_an_error_of_one() {
    let (first, absent) = (HttpUpstream::with_tools(&["only"]), HttpUpstream::absent());
    let mut config = two_servers(&first, &absent);
    config["mcp_servers"]["refusing"] = json!({ "url": first.url(), "transport": "http" });
    let refusing = HttpUpstream::start();
    refusing.fail_with(Some(401));
    config["mcp_servers"]["refusing"]["url"] = refusing.url().into();
    let gateway = Gateway::with(config).start();
    gateway.wait_until_well(&["alpha"]);
    let list = gateway.get(LIST).expect(200).json();
    assert_eq!(names_in(&list), ["only"]);
    assert_eq!(list["error"], Value::Null, "some tools are there");
    let outcomes = &list["server_outcomes"];
    assert_eq!(outcomes["one"], json!({ "status": "ok", "tool_count": 1 }));
    assert_eq!(outcomes["beta"], json!({ "status": "unreachable" }));
    assert_eq!(outcomes["refusing"], json!({ "status": "auth_required", "http_status": 401 }));
    let of_beta = detail(gateway.get(&format!("{LIST}?server_id=beta")), 502);
    assert_eq!(
        (&of_beta["error"], &of_beta["server"]),
        (&"unreachable".into(), &"beta".into())
    );
    let of_refusing = detail(gateway.get(&format!("{LIST}?server_id=refusing")), 502);
    assert_eq!(of_refusing["error"], "auth_required");
    let narrowed = Request::get(LIST).header("x-mcp-servers", "beta,refusing");
    let list = gateway.send(&narrowed).expect(200).json();
    assert_eq!((&list["tools"], &list["error"]), (&json!([]), &"partial_failure".into()));
    let message = list["message"].as_str().unwrap();
    assert!(message.contains("beta: unreachable"), "{message}");
    assert!(message.contains("refusing: auth_required"), "{message}");
}
