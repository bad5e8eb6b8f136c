//! The recipes of the page about identity are followed: their configurations, commands and what
//! is seen of them, between scripted authorization servers and servers that want their tokens.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::authorization_server::{AuthorizationServer, Browser};
use crate::support::gateway::{Directory, Gateway, binary};
use crate::support::http::{Request, Response, exchange};
use crate::support::issuer::Issuer;
use crate::support::markdown::{Block, Document, commands};
use crate::support::pages::page;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{left_out, wait_within};

/// The page, whose commands are run here.
pub(super) const PAGE: &str = "identity.md";
/// The address in the page at which clients find the gateway of a team.
const PUBLIC: &str = "https://mcp.example.org";
const IDENTITY_PROVIDER: &str = "https://idp.example.org";
const ONE_BOX: &str = "One sign-in for one box";
const PER_USER: &str = "Each user's own account";
const TEAM: &str = "A team with an identity provider";
const MACHINES: &str = "Machine to machine";
const ALICE_KEY: &str = "tk_alice_0123456789abcdef";

/// The blocks below one heading of the page.
fn recipe(heading: &str) -> Vec<Block> {
    let text = page(PAGE);
    let parts = text.split("\n## ").skip(1);
    let mut found = parts.filter(|part| part.lines().next() == Some(heading));
    let text = found.next().unwrap_or_else(|| panic!("there is no {heading:?}")).to_owned();
    Document { name: format!("docs/{PAGE}, {heading}"), text }.blocks()
}

/// Whoever follows a recipe: a gateway with its configuration, and a folder with that file.
struct Reader {
    gateway: Gateway,
    folder: Directory,
    env: Vec<(&'static str, String)>,
    browser: Browser,
    bin: Directory,
}

impl Reader {
    /// With the first configuration of the recipe, in which these texts are replaced.
    fn of(
        blocks: &[Block],
        folder: Directory,
        texts: &[(&str, &str)],
        env: Vec<(&'static str, String)>,
    ) -> Reader {
        let block = blocks.iter().find(|block| block.kind == "json").unwrap();
        let mut text = block.text.clone();
        for (from, to) in texts {
            assert!(text.contains(from), "{}: {from}", block.place);
            text = text.replace(&format!("\"{from}\""), &format!("\"{to}\""));
        }
        for file in ["state", "batch.pem", "assertion.jwt"] {
            let path = folder.path().join(file).display().to_string();
            text = text.replace(&format!("\"{file}\""), &format!("\"{path}\""));
        }
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config["listen"] = json!("127.0.0.1:0");
        let started = Gateway::with(config.clone());
        let set = |it: crate::support::gateway::Builder, (name, value): &(&str, String)| {
            it.env(name, value)
        };
        let gateway = env.iter().fold(started, set).start();
        config["listen"] = json!(gateway.address());
        std::fs::write(folder.path().join("config.json"), config.to_string()).unwrap();
        let bin = Directory::new();
        symlink(binary(), bin.path().join("trunkline")).unwrap();
        // Neither a proxy nor a file of the machine's may have a say.
        let curl = "#!/bin/sh\nPATH=${PATH#*:}\nexec curl -q --silent --show-error --noproxy '*' \
                    --max-time 20 \"$@\"\n";
        let path = bin.path().join("curl");
        std::fs::write(&path, curl).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        Reader { gateway, folder, env, browser: Browser::start(), bin }
    }

    /// Starts a command in the folder, with all that it prints in one stream.
    fn start(&self, command: &str) -> Child {
        let address = format!("http://{}", self.gateway.address());
        let script =
            command.replace("http://localhost:4000", &address).replace(PUBLIC, &address);
        let path = std::env::var("PATH").unwrap();
        let mut shell = Command::new("timeout");
        shell.args(["60", "sh", "-eu", "-c", &format!("exec 2>&1; {script}")]);
        shell.current_dir(self.folder.path()).env_clear();
        shell.env("PATH", format!("{}:{path}", self.bin.path().display()));
        shell.env("HOME", self.folder.path()).env("BROWSER", self.browser.command());
        shell.envs(self.env.iter().map(|(name, value)| (name, value)));
        shell.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap()
    }

    /// What a command prints. Whoever is told to paste an address does so.
    #[track_caller]
    fn run(&self, place: &str, command: &str) -> String {
        let mut child = self.start(command);
        let mut printed = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        if command.ends_with("--paste") {
            let url = loop {
                let from = printed.len();
                assert!(out.read_line(&mut printed).unwrap() > 0, "{place}: {printed}");
                if let Some(url) = printed[from..].strip_prefix("  ") {
                    break url.trim().to_owned();
                }
            };
            writeln!(child.stdin.as_mut().unwrap(), "{}", redirect_of(&url)).unwrap();
        }
        drop(child.stdin.take());
        out.read_to_string(&mut printed).unwrap();
        let status = child.wait().unwrap();
        assert!(status.success(), "{place}: {command}: {status}\n{printed}");
        printed
    }

    /// Follows a recipe: runs its commands, and holds what they print against the block behind
    /// them. `before` is told each command before it is run.
    #[track_caller]
    fn follow(&self, blocks: &[Block], before: impl Fn(&Gateway, &str)) {
        let mut printed = String::new();
        let mut n_ran = 0;
        for Block { place, kind, text } in blocks {
            match kind.as_str() {
                "sh" => {
                    printed.clear();
                    // The gateway runs already.
                    for command in commands(text).iter().filter(|it| *it != "trunkline serve") {
                        before(&self.gateway, command);
                        printed.push_str(&self.run(place, command));
                        n_ran += 1;
                    }
                }
                "text" if !printed.is_empty() => {
                    check_printed(place, text, &printed);
                    printed.clear();
                }
                _ => (),
            }
        }
        assert!(n_ran > 0, "there is no command");
    }
}

/// Holds what was printed against the lines of a block, in which `…` stands for anything. Further
/// lines may stand between them, and servers answer in any order.
#[track_caller]
fn check_printed(place: &str, expected: &str, printed: &str) {
    for line in expected.lines().map(str::trim_end).filter(|line| !line.is_empty()) {
        let mut rest = printed;
        for part in line.split('…').filter(|part| !part.trim().is_empty()) {
            let Some((_, behind)) = rest.split_once(part) else {
                panic!("{place}: {part:?} was not printed, or not there:\n{printed}");
            };
            rest = behind;
        }
    }
}

/// Where the authorization server sends the browser from this page.
fn redirect_of(page: &str) -> String {
    let (address, target) = page.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let answer = exchange(address, &Request::get(&format!("/{target}"))).expect(302);
    answer.header("Location").unwrap().to_owned()
}

/// True if the recipes can be followed on this machine.
fn has(program: &str, argument: &str) -> bool {
    let found = Command::new(program).arg(argument).output().is_ok();
    if !found {
        left_out(module_path!(), &format!("there is no {program} to run the recipes with"));
    }
    found
}

#[test]
fn every_section_with_commands_is_followed() {
    let text = page(PAGE);
    let with_commands: BTreeSet<_> = text
        .split("\n## ")
        .filter(|part| part.contains("```sh"))
        .map(|part| part.lines().next().unwrap())
        .collect();
    assert_eq!(with_commands, BTreeSet::from([ONE_BOX, PER_USER, TEAM, MACHINES]));
}

#[test]
fn one_box_signs_in_and_out() {
    let (auth, upstream) = (AuthorizationServer::start(), HttpUpstream::start());
    auth.protect(&upstream);
    let blocks = recipe(ONE_BOX);
    let texts = [("https://mcp.example.org/mcp", &*upstream.url())];
    let reader = Reader::of(&blocks, Directory::new(), &texts, Vec::new());
    reader.follow(&blocks, |gateway, command| match command {
        "trunkline check" => gateway.wait_until_well(&["github"]),
        "trunkline status" => {
            wait_within(std::time::Duration::from_secs(40), "settled", || {
                let state = gateway.status_of("github")["state"].clone();
                ["needs_sign_in", "ready"].contains(&state.as_str().unwrap()).then_some(())
            })
        }
        _ => (),
    });
    assert_eq!(auth.seen_of("GET /authorize").len(), 2);
    assert!(auth.seen_of("POST /revoke").len() >= 2);
}

/// A form of a page.
fn form(path: &str, body: &str) -> Request {
    let kind = "application/x-www-form-urlencoded";
    Request::new("POST", path).header("Content-Type", kind).body(body)
}

/// A stateless call of a client that can be asked to open a page.
fn asked(reader: &Reader) -> Response {
    let capabilities = json!({ "elicitation": { "url": {} } });
    let meta = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": capabilities,
    });
    let params = json!({ "name": "linear-echo", "arguments": { "text": "x" }, "_meta": meta });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
    let request = Request::post("/mcp", &body)
        .header("Authorization", &format!("Bearer {ALICE_KEY}"))
        .header("Accept", "application/json, text/event-stream")
        .header("MCP-Protocol-Version", "2026-07-28")
        .header("Mcp-Method", "tools/call")
        .header("Mcp-Name", "linear-echo");
    exchange(reader.gateway.address(), &request)
}

/// The page asks for the key of whoever began, here alice, and leads on.
fn sign_in(reader: &Reader, page: &str) {
    let base = format!("http://{}", reader.gateway.address());
    let send = |request: &Request| exchange(reader.gateway.address(), request);
    let path = page.strip_prefix(&base).unwrap();
    send(&form(path, "key=tk_bob_0123456789abcdef")).expect(403);
    let on = send(&form(path, &format!("key={ALICE_KEY}"))).expect(200);
    let cookie = on.header("Set-Cookie").unwrap().split(';').next().unwrap().to_owned();
    let (_, target) = on.text().split_once("content=\"0; url=").unwrap();
    let back = redirect_of(&target.split('"').next().unwrap().replace("&amp;", "&"));
    let back = back.strip_prefix(&base).unwrap();
    send(&Request::get(back)).expect(403);
    send(&Request::get(back).header("Cookie", &cookie)).expect(200);
}

#[test]
fn each_user_is_asked_or_sends_a_header() {
    if !has("curl", "--version") {
        return;
    }
    let (auth, linear, tickets) =
        (AuthorizationServer::start(), HttpUpstream::start(), HttpUpstream::start());
    auth.protect(&linear);
    tickets.require_header("Authorization", "Bearer of-alice-at-tickets");
    let blocks = recipe(PER_USER);
    let texts = [
        ("https://linear.example.org/mcp", &*linear.url()),
        ("https://tickets.example.org/mcp", &*tickets.url()),
    ];
    let env = vec![
        ("ALICE_KEY", ALICE_KEY.to_owned()),
        ("BOB_KEY", "tk_bob_0123456789abcdef".to_owned()),
        ("TICKETS_TOKEN", "of-alice-at-tickets".to_owned()),
    ];
    let reader = Reader::of(&blocks, Directory::new(), &texts, env);
    let call = json!({ "name": "linear-echo", "arguments": { "text": "hello" } });
    let call = Request::post("/mcp/tools/call", &call);
    let send = |request: &Request| exchange(reader.gateway.address(), request);
    let of = |key: &str| send(&call.clone().header("x-api-key", key));
    let is_asked = |key: &str| of(key).json()["error"]["code"] == "needs_sign_in";
    reader.follow(&blocks, |_, command| {
        if command.starts_with("trunkline logout") {
            let told = of(ALICE_KEY).json()["error"]["message"].to_string();
            let (_, url) = told.split_once("open http").unwrap();
            sign_in(&reader, &format!("http{}", url.split(' ').next().unwrap()));
            of(ALICE_KEY).expect(200);
        }
    });
    // The question is as the page shows it.
    wait_within(std::time::Duration::from_secs(10), "alice is signed out", || {
        is_asked(ALICE_KEY).then_some(())
    });

    let shown = blocks.iter().find(|block| block.kind == "json answer").unwrap();
    let shown: Value = serde_json::from_str(&shown.text).unwrap();
    let answer = asked(&reader).message();
    let requests = answer["result"]["inputRequests"].as_object().unwrap();
    let mut question = requests.values().next().unwrap()["params"].clone();
    let url = question["url"].take().as_str().unwrap().to_owned();
    question["url"] = shown["url"].clone();
    assert_eq!(question, shown, "{answer}");
    sign_in(&reader, &url);
    assert_eq!(of(ALICE_KEY).expect(200).json()["content"][0]["text"], "echo");
    assert!(is_asked("tk_bob_0123456789abcdef"), "the other user is asked, too");
}

#[test]
fn a_team_signs_in_with_its_identity_provider() {
    if !has("curl", "--version") {
        return;
    }
    let issuer = Issuer::start();
    let servers = [HttpUpstream::start(), HttpUpstream::start(), HttpUpstream::start()];
    let [github, docs, deploy] = servers.each_ref().map(HttpUpstream::url);
    let blocks = recipe(TEAM);
    let texts = [
        (IDENTITY_PROVIDER, &*issuer.url()),
        ("https://github.example.org/mcp", &*github),
        ("https://docs.example.org/mcp", &*docs),
        ("http://10.0.0.7:8000/mcp", &*deploy),
    ];
    let mut claims = issuer.claims("dora", 3600);
    claims["aud"] = json!(format!("{PUBLIC}/mcp"));
    claims["groups"] = json!(["dev"]);
    let env = vec![("TOKEN", issuer.sign(&claims))];
    let reader = Reader::of(&blocks, Directory::new(), &texts, env);
    let with = |groups: Value| {
        let mut claims = claims.clone();
        claims["groups"] = groups;
        let token = format!("Bearer {}", issuer.sign(&claims));
        let list = Request::get("/mcp/tools/list").header("Authorization", &token);
        exchange(reader.gateway.address(), &list)
    };
    wait_within(std::time::Duration::from_secs(40), "all servers are well", || {
        let all = with(json!(["ops"])).expect(200).json()["tools"].to_string();
        ["github-", "docs-", "deploy-"].iter().all(|name| all.contains(name)).then_some(())
    });
    reader.follow(&blocks, |_, _| ());
    assert!(!with(json!(["dev"])).expect(200).json().to_string().contains("deploy"));
    with(json!(["others"])).expect(403);
    // The metadata is as the page shows it.
    let shown = blocks.iter().find(|block| block.kind == "json answer").unwrap();
    let shown = shown.text.replace(IDENTITY_PROVIDER, &issuer.url());
    let shown: Value = serde_json::from_str(&shown).unwrap();
    let found = reader.gateway.get("/.well-known/oauth-protected-resource/mcp").expect(200);
    assert_eq!(found.json(), shown);
}

#[test]
fn machines_need_nobody() {
    if !has("curl", "--version") || !has("openssl", "version") {
        return;
    }
    let (auth, issuer) = (AuthorizationServer::start(), Issuer::start());
    let methods = json!(["client_secret_basic", "private_key_jwt", "none"]);
    auth.set_metadata("token_endpoint_auth_methods_supported", methods);
    let servers = [HttpUpstream::start(), HttpUpstream::start(), HttpUpstream::start()];
    let protections = servers.each_ref().map(|server| auth.protect(server));
    let [reports, batch, cluster] = servers.each_ref().map(HttpUpstream::url);
    let blocks = recipe(MACHINES);
    let folder = Directory::new();
    std::fs::write(folder.path().join("assertion.jwt"), "YQ.YQ.YQ\n").unwrap();
    let texts = [
        (IDENTITY_PROVIDER, &*issuer.url()),
        ("https://reports.example.org/mcp", &*reports),
        ("https://batch.example.org/mcp", &*batch),
        ("https://cluster.example.org/mcp", &*cluster),
    ];
    let mut claims = issuer.claims("nightly-report", 3600);
    claims["aud"] = json!(format!("{PUBLIC}/mcp"));
    claims["client_id"] = json!("nightly-report");
    let env = vec![
        ("REPORTS_SECRET", "secret-of-reports".to_owned()),
        ("TOKEN", issuer.sign(&claims)),
    ];
    let reader = Reader::of(&blocks, folder, &texts, env);
    reader.follow(&blocks, |_, _| ());
    assert!(protections.iter().all(|protection| protection.n_admitted() > 0));
    let asked = auth.seen_of("POST /token");
    let any =
        |is: &dyn Fn(&crate::support::authorization_server::Seen) -> bool| asked.iter().any(is);
    assert!(any(&|it| it.authorization.as_deref().is_some_and(|it| it.starts_with("Basic "))));
    assert!(any(
        &|it| !it.field("client_assertion").is_empty() && it.field("scope") == "batch:run"
    ));
    assert!(any(&|it| it.field("assertion") == "YQ.YQ.YQ"));
    assert!(auth.seen_of("GET /authorize").is_empty());
}
