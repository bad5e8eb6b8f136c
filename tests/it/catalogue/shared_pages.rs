//! Lists that many ask for and nobody reads: a page is held once, whoever is being given it, and
//! counts against the memory that all bodies and results share.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::support::figures::PAGE_BYTES_MAX;
use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::http::{Connection, Request};
use crate::support::mcp::{McpClient, initialize_message, request_message};
use crate::support::modern::ModernClient;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{DEADLINE, wait_until};

/// Bytes of one tool's definition, and a little more.
const TOOL_BYTES: usize = 15_000;
/// Tools of one server.
const N_TOOLS: usize = 100;
/// All together fit a page.
const LIST_BYTES: usize = N_TOOLS * TOOL_BYTES;
const N_READERS: usize = 40;
/// What the threads of so many connections take in an unoptimised build, and some copies of one
/// page. All copies would be 60 MB.
const GROWTH_BYTES_MAX: u64 = 25 * 1024 * 1024;

const _: () = assert!(LIST_BYTES + N_TOOLS * 200 < PAGE_BYTES_MAX);

/// A server of so many tools.
fn with_tools(n_tools: usize) -> HttpUpstream {
    let upstream = HttpUpstream::start();
    upstream.serve_only_tools(&[]);
    for n in 0..n_tools {
        let name = format!("tool_{n:03}");
        let tool = json!({
            "name": name, "description": "x".repeat(TOOL_BYTES), "inputSchema": { "type": "object" },
        });
        upstream.add_text("tools", &name, &tool.to_string());
    }
    upstream
}

/// A gateway before these servers, with further members of its configuration.
fn before(upstreams: &[(&str, &HttpUpstream)], mut config: Value) -> Gateway {
    for (name, upstream) in upstreams {
        config["mcp_servers"][*name] = json!({ "url": upstream.url(), "transport": "http" });
    }
    // So that only what the program holds is seen, not what the allocator keeps.
    let gateway = Gateway::with(config).env("MALLOC_MMAP_THRESHOLD_", "131072").start();
    gateway.wait_ready();
    gateway
}

fn resident_bytes(gateway: &Gateway) -> u64 {
    let path = format!("/proc/{}/status", gateway.process_id());
    let status = std::fs::read_to_string(path).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

fn buffered(gateway: &Gateway) -> usize {
    let status = gateway.get("/status").expect(200).json();
    let used = status["limits"]["buffered_bytes"]["used"].as_u64().unwrap();
    usize::try_from(used).unwrap()
}

/// A client whose answer has begun and is not read on.
struct Unread(TcpStream);

impl Unread {
    #[track_caller]
    fn new(gateway: &Gateway, request: &Request) -> Unread {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(&request.to_bytes(gateway.address())).unwrap();
        let mut begin = [0; 12];
        stream.read_exact(&mut begin).unwrap();
        assert_eq!(String::from_utf8_lossy(&begin), "HTTP/1.1 200");
        Unread(stream)
    }
}

impl Unread {
    /// A client over HTTP+SSE that has asked for the list and reads no more of its stream.
    #[track_caller]
    fn sse(gateway: &Gateway) -> Unread {
        let mut stream = TcpStream::connect(gateway.address()).unwrap();
        rustix::net::sockopt::set_socket_recv_buffer_size(&stream, 4096).unwrap();
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        let get = Request::get("/sse").header("Accept", "text/event-stream");
        stream.write_all(&get.to_bytes(gateway.address())).unwrap();
        // Byte by byte, so that nothing is read of what follows.
        let mut read_until = |end: &str| {
            let (mut seen, mut byte) = (String::new(), [0]);
            while !seen.ends_with(end) {
                stream.read_exact(&mut byte).unwrap();
                seen.push(char::from(byte[0]));
            }
            seen
        };
        read_until("data: ");
        let messages = read_until("\n").trim_end().to_owned();
        let post = |message: &str| {
            let request = Request::post_text(&messages, message);
            crate::support::http::exchange(gateway.address(), &request).expect(202);
        };
        post(&initialize_message(1, "2024-11-05").to_string());
        read_until("\"result\"");
        read_until("\n\n");
        post(&list_message(7));
        // It has begun.
        read_until("\"tools\"");
        Unread(stream)
    }
}

/// Many ask and do not read; they share one list. Then all is given back.
#[track_caller]
fn check_shared(gateway: &Gateway, n_readers: usize, request: &dyn Fn(usize) -> Request) {
    // Whatever is made once is there.
    drop(Unread::new(gateway, &request(0)));
    wait_until("nothing is held", || buffered(gateway) == 0);
    let before = resident_bytes(gateway);
    let readers: Vec<Unread> =
        (1..=n_readers).map(|n| Unread::new(gateway, &request(n))).collect();
    let (held, resident) = (buffered(gateway), resident_bytes(gateway));
    assert!((LIST_BYTES..2 * LIST_BYTES).contains(&held), "{held} bytes are counted");
    let grown = resident.saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than {before}");
    let sockets = readers.iter().map(|it| it.0.peer_addr().is_ok()).filter(|it| *it).count();
    assert_eq!(sockets, n_readers);
    drop(readers);
    wait_until("all is given back", || buffered(gateway) == 0);
}

fn list_message(id: usize) -> String {
    request_message(&json!(id), "tools/list", &json!({})).to_string()
}

#[test]
fn rest_lists_that_nobody_reads_are_one_list() {
    let upstream = with_tools(N_TOOLS);
    let gateway = before(&[("s", &upstream)], json!({}));
    for target in ["/mcp/tools/list", "/mcp-rest/tools/list"] {
        check_shared(&gateway, N_READERS, &|_| Request::get(target));
    }
}

#[test]
fn lists_of_sessions_that_nobody_reads_are_one_list() {
    let upstream = with_tools(N_TOOLS);
    let gateway = before(&[("s", &upstream)], json!({}));
    let client = McpClient::open(gateway.address());
    check_shared(&gateway, N_READERS, &|n| client.post_request(&list_message(n)));
}

#[test]
fn lists_of_stateless_clients_that_nobody_reads_are_one_list() {
    let upstream = with_tools(N_TOOLS);
    let gateway = before(&[("s", &upstream)], json!({}));
    let client = ModernClient::to(&gateway);
    check_shared(&gateway, N_READERS, &|_| {
        client.post_request(&client.message(&client.fresh_id(), "tools/list", &json!({})))
    });
}

#[test]
fn lists_on_streams_that_nobody_reads_are_one_list() {
    let _heavy = crate::support::heavy();
    let upstream = with_tools(N_TOOLS);
    let gateway = before(&[("s", &upstream)], json!({}));
    // Whatever is made once is there.
    drop(Unread::sse(&gateway));
    wait_until("nothing is held", || buffered(&gateway) == 0);
    let before = resident_bytes(&gateway);
    let clients: Vec<Unread> = (0..N_READERS).map(|_| Unread::sse(&gateway)).collect();
    wait_until("all wait", || buffered(&gateway) >= LIST_BYTES);
    let (held, grown) = (buffered(&gateway), resident_bytes(&gateway).saturating_sub(before));
    assert!(held < 2 * LIST_BYTES, "{held} bytes are counted");
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than {before}");
    drop(clients);
    wait_until("all is given back", || buffered(&gateway) == 0);
}

#[test]
fn a_batch_of_lists_that_nobody_reads_is_one_list() {
    let _heavy = crate::support::heavy();
    let upstream = with_tools(N_TOOLS);
    let gateway = before(&[("s", &upstream)], json!({}));
    let client = McpClient::new(gateway.address()).speaking("2025-03-26").opened();
    let batch = |n: usize| {
        let messages: Vec<String> = (0..32).map(|id| list_message(100 * n + id)).collect();
        client.post_request(&format!("[{}]", messages.join(",")))
    };
    check_shared(&gateway, 2, &batch);
    // Read, it is all there.
    let mut connection = Connection::open(gateway.address());
    connection.send(&batch(0));
    let mut stream = connection.into_events().expect_open();
    for id in 0..32 {
        let answer = stream.next_message();
        assert_eq!(answer["id"], id);
        assert_eq!(answer["result"]["tools"].as_array().unwrap().len(), N_TOOLS);
    }
    stream.expect_end();
}

#[test]
fn keys_with_the_same_rights_share_and_others_see_their_own() {
    let upstream = with_tools(N_TOOLS);
    let keys = json!({ "api_keys": [
        { "name": "one", "key": "key-of-one-1", "admin": true },
        { "name": "two", "key": "key-of-two-2" },
        { "name": "few", "key": "key-of-few-3", "tools": ["s-tool_00?"] },
    ]});
    let gateway = before(&[("s", &upstream)], keys);
    let list = |key: &str| Request::get("/mcp/tools/list").header("x-api-key", key);
    check_shared(&gateway, 10, &|n| {
        list(if n % 2 == 0 { "key-of-one-1" } else { "key-of-two-2" })
    });
    for (key, n_tools) in [("key-of-one-1", N_TOOLS), ("key-of-few-3", 10)] {
        let list = crate::support::http::exchange(gateway.address(), &list(key)).expect(200);
        assert_eq!(list.json()["tools"].as_array().unwrap().len(), n_tools, "{key}");
        let client = McpClient::new(gateway.address()).with_key(key).opened();
        assert_eq!(client.tool_names().len(), n_tools, "{key}");
    }
}

#[test]
fn a_list_for_which_there_is_no_room_is_refused() {
    let (one, two) = (with_tools(60), with_tools(50));
    let limits = json!({ "limits": {
        "buffered_bytes": 2_000_000, "body_bytes": 100_000, "upstream_result_bytes": 1_400_000,
    }});
    let gateway = before(&[("one", &one), ("two", &two)], limits);
    let get = |target: &str| gateway.get(target);
    let reader = Unread::new(&gateway, &Request::get("/mcp/tools/list"));
    let refused = get("/mcp/tools/list?server=one").expect_error(503);
    assert!(refused.to_string().contains("limits.buffered_bytes"), "{refused}");
    let session = McpClient::new(gateway.address()).at("/mcp/two").opened();
    let message = session.request("tools/list", &json!({}));
    let what = message["error"]["message"].as_str().unwrap();
    assert!(what.contains("limits.buffered_bytes"), "{message}");
    // The one that is being read already costs nothing more.
    get("/mcp/tools/list").expect(200);
    drop(reader);
    wait_until("it is given back", || buffered(&gateway) == 0);
    let list = get("/mcp/tools/list?server=one").expect(200).json();
    assert_eq!(list["tools"].as_array().unwrap().len(), 60);
    assert_eq!(session.tool_names().len(), 50);
}

#[test]
fn pages_are_bounded_by_their_bytes_and_rest_gives_them_all() {
    let n_tools = 2 * PAGE_BYTES_MAX / TOOL_BYTES;
    let upstream = with_tools(n_tools);
    let gateway = before(&[("s", &upstream)], json!({}));
    let client = McpClient::open(gateway.address());
    let page = client.result("tools/list", &json!({}));
    let n_first = page["tools"].as_array().unwrap().len();
    assert!((n_tools / 3..n_tools).contains(&n_first), "{n_first} of {n_tools}");
    assert!(page["nextCursor"].is_string(), "{:?}", page.get("nextCursor"));
    let names = client.tool_names();
    assert_eq!(names.len(), n_tools);
    assert!(names.is_sorted());
    let rest = gateway.get("/mcp/tools/list").expect(200);
    let tools = rest.json()["tools"].as_array().unwrap().clone();
    assert_eq!(tools, client.tools());
}

#[test]
fn of_the_answers_to_a_batch_few_are_held_at_once() {
    let _heavy = crate::support::heavy();
    let upstream = HttpUpstream::start();
    let limits = json!({ "limits": {
        "buffered_bytes": 1_500_000, "body_bytes": 1_000_000, "upstream_result_bytes": 1_400_000,
    }});
    let gateway = before(&[("s", &upstream)], limits);
    let client = McpClient::new(gateway.address()).speaking("2025-03-26").opened();
    // Each is small, and together they are more than there is room for beside the body.
    let text = "x".repeat(15_000);
    let call = |id: usize| {
        let params = json!({ "name": "mirror", "arguments": { "a": text } });
        request_message(&json!(id), "tools/call", &params)
    };
    let mut stream = client.start(&json!((0..60).map(call).collect::<Vec<_>>())).into_events();
    for id in 0..60 {
        let answer = stream.next_message();
        assert_eq!(answer["id"], id);
        assert!(answer["result"].is_object(), "{answer}");
    }
    stream.expect_end();
    wait_until("all is given back", || buffered(&gateway) == 0);
    // What is small together is one array.
    let answers = client.post(&json!([call(1), call(2)]).to_string()).expect(200).json();
    assert_eq!(answers.as_array().unwrap().len(), 2);
}
