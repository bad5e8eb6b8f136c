//! What an upstream knows of our secrets and says again: nobody else hears it.

use trunkline::config::{HttpKind, Secret, StdioTarget, Target, UpstreamConfig};
use trunkline::limits::Limits;

use crate::upstream::rig::*;

fn secret(text: &str) -> Secret {
    Secret::new(text.to_owned())
}

fn http_with_secrets(server: &Server) -> UpstreamConfig {
    let mut config = http(server.address, HttpKind::StreamableHttp);
    if let Target::Http(target) = &mut config.target {
        target.url.push_str("?plain=1&key=hush-in-query");
        let token = ("Authorization".to_owned(), secret("Bearer hush-token"));
        target.headers = vec![token, ("X-Key".to_owned(), secret("hush-header"))];
    }
    config
}

fn sh(text: &str) -> UpstreamConfig {
    config(Target::Stdio(StdioTarget {
        command: "sh".to_owned(),
        args: vec!["-c".to_owned(), text.to_owned()],
        env: vec![
            ("TOKEN".to_owned(), secret("hush-in-env")),
            ("LINES_OF_IT".to_owned(), secret("hush-first-line\nhush-second-line")),
        ],
        cwd: None,
        folder: None,
    }))
}

/// Everything that is told of a failure, here and to a caller.
fn told(rig: &Rig) -> String {
    let failure = rig.failure().message;
    let error = rig.call().unwrap_err().to_string();
    let status = rig.upstream.status().last_failure.map(|failure| failure.message);
    format!("{failure}\n{error}\n{status:?}")
}

#[test]
fn a_server_that_repeats_headers_and_query_in_an_error_is_not_quoted() {
    // The last one begins so late that its end is cut off.
    for padding in ["", &"x".repeat(188)] {
        let padding = padding.to_owned();
        let server = Server::start(move |seen| {
            let query = seen.path.rsplit('=').next().unwrap_or_default();
            let (token, key) = (seen.header("authorization"), seen.header("x-key"));
            let message =
                format!("{padding}{} {} {query}", key.unwrap_or(""), token.unwrap_or(""));
            let error = format!(r#"{{"code":-32001,"message":"{message}"}}"#);
            Reply::json(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, seen.id()))
        });
        let rig = Rig::start(http_with_secrets(&server), Limits::default());
        let told = told(&rig);
        assert!(told.contains("it refused initialize"), "{told}");
        assert!(told.contains("[secret]") && !told.contains("hush"), "{told}");
    }
}

#[test]
fn a_server_that_repeats_a_header_elsewhere_is_not_quoted() {
    let server = calls(|seen| {
        let key = seen.header("x-key").unwrap_or_default();
        let reason = format!("x-reason: {key}\r\n");
        let kind = if key == "hush-header" { "text/hush-header" } else { "text/plain" };
        Reply::Body(200, reason, kind, String::new())
    });
    let rig = Rig::ready_with(http_with_secrets(&server), Limits::default());
    let error = rig.call().unwrap_err().to_string();
    assert!(error.contains("text/[secret]"), "{error}");
}

/// Servers decode what they are given, and encode what they say.
#[test]
fn a_server_that_repeats_a_secret_in_another_form_is_not_quoted() {
    // "user:hush/hush+password", its password, that in JSON as PHP writes it, in a URL and in
    // base64; a cookie of several.
    let forms = [
        "dXNlcjpodXNoL2h1c2grcGFzc3dvcmQ=",
        "user:hush/hush+password",
        "hush/hush+password",
        "hush%2Fhush%2Bpassword",
        "aHVzaC9odXNoK3Bhc3N3b3Jk",
        "hush-session-cookie",
    ];
    for form in forms.into_iter().chain([r"hush\\/hush+password"]) {
        let server = Server::start(move |seen| {
            let error = format!(r#"{{"code":-32001,"message":"no: {form}!"}}"#);
            Reply::json(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, seen.id()))
        });
        let mut config = http(server.address, HttpKind::StreamableHttp);
        if let Target::Http(target) = &mut config.target {
            let basic = secret("Basic dXNlcjpodXNoL2h1c2grcGFzc3dvcmQ=");
            let cookies = secret("theme=dark; session=hush-session-cookie; x=y");
            target.headers =
                vec![("Authorization".to_owned(), basic), ("Cookie".to_owned(), cookies)];
        }
        let rig = Rig::start(config, Limits::default());
        let told = told(&rig);
        assert!(told.contains("no: [secret]"), "{form}: {told}");
        assert!(!told.contains(form), "{form}: {told}");
    }
}

#[test]
fn a_child_that_prints_its_environment_is_kept_without_it() {
    let rig = Rig::start(sh("env >&2; sleep 100"), Limits::default());
    let kept = || rig.upstream.status().stderr.join("\n");
    eventually("it is printed", || kept().contains("TOKEN=") && kept().contains("LINES_OF_IT"));
    assert!(kept().contains("TOKEN=[secret]"), "{}", kept());
    assert!(!kept().contains("hush"), "{}", kept());
    rig.upstreams.hurry().store(true, std::sync::atomic::Ordering::SeqCst);
}

#[test]
fn a_child_that_refuses_with_its_environment_is_not_quoted() {
    let text = r#"read -r line; id=${line#*\"id\":}; echo "{\"jsonrpc\":\"2.0\",\"id\":${id%%,*},\"error\":{\"code\":-1,\"message\":\"not with $TOKEN\"}}"; sleep 1"#;
    let rig = Rig::start(sh(text), Limits::default());
    rig.upstreams.hurry().store(true, std::sync::atomic::Ordering::SeqCst);
    let failure = rig.failure().message;
    assert!(failure.contains("not with [secret]"), "{failure}");
}

#[test]
fn a_server_that_repeats_its_path_and_session_id_is_not_quoted() {
    const ID: &str = "0b1c2d3e-veiled";
    let server = Server::start(move |seen| match seen.rpc().as_str() {
        "initialize" => Reply::Body(
            200,
            format!("Mcp-Session-Id: {ID}\r\n"),
            "application/json",
            seen.result(INITIALIZED),
        ),
        "tools/call" => {
            let message = format!("no {} at {}", seen.session(), seen.path);
            let error = format!(r#"{{"code":-32001,"message":"{message}","data":["{ID}"]}}"#);
            Reply::json(format!(r#"{{"jsonrpc":"2.0","id":{},"error":{error}}}"#, seen.id()))
        }
        _ => well(seen),
    });
    let mut config = http(server.address, HttpKind::StreamableHttp);
    if let Target::Http(target) = &mut config.target {
        target.url = target.url.replace("/mcp", "/my-team-name/0b1c2d3e4f5a-veiled/mcp");
    }
    let rig = Rig::ready_with(config, Limits::default());
    let told = format!("{:?}", rig.call());
    assert!(told.contains("no [secret] at /my-team-name/[secret]/mcp"), "{told}");
    assert!(!told.contains("veiled"), "{told}");
}
