//! Pure: at which step contact failed, why that is likely, and what to do about it, for
//! `trunkline check` and for `/status`.

use super::FailureReport;
use crate::config::{HttpTarget, StdioTarget, Target};
use crate::error::{HttpRefusal, Stage};

/// How far first contact comes, in this order. A child has no network, `http` no TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// A child says its first word.
    Start,
    /// Its host has an address.
    Resolve,
    /// It takes the connection.
    Connect,
    /// The connection is secured.
    Tls,
    /// It answers as HTTP should.
    Http,
    /// It takes the credential.
    Credentials,
    /// It speaks a revision that the gateway does.
    Era,
    /// It answers as an MCP server.
    Handshake,
    /// Its lists can be read.
    Lists,
}

impl Step {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Tls => "tls",
            Self::Http => "http",
            Self::Credentials => "credentials",
            Self::Era => "era",
            Self::Handshake => "handshake",
            Self::Lists => "lists",
        }
    }
}

/// What is told of a failure besides its own message.
#[derive(Debug, PartialEq)]
pub struct Advice {
    /// Where it failed.
    pub stage: Step,
    /// The steps before it.
    pub reached: Vec<Step>,
    /// What to do, in a sentence.
    pub to_do: Option<String>,
}

/// What a failure of contact with this server means; `stderr` are the last lines of a child's.
pub fn of(target: &Target, failure: &FailureReport, stderr: &[String]) -> Advice {
    let stage = step(target, failure);
    let order: &[Step] = match target {
        Target::Stdio(_) => &[Step::Start, Step::Era, Step::Handshake, Step::Lists],
        Target::Http(http) if is_secure(http) => &[
            Step::Resolve,
            Step::Connect,
            Step::Tls,
            Step::Http,
            Step::Credentials,
            Step::Era,
            Step::Handshake,
            Step::Lists,
        ],
        Target::Http(_) => &[
            Step::Resolve,
            Step::Connect,
            Step::Http,
            Step::Credentials,
            Step::Era,
            Step::Handshake,
            Step::Lists,
        ],
    };
    // It is read before anything is done.
    let is_unread = failure.message.starts_with("ca_file");
    let before = order.iter().copied().take_while(|step| *step != stage && !is_unread);
    let reached = before.collect();
    let to_do = match target {
        Target::Http(http) => for_http(http, stage, failure),
        Target::Stdio(stdio) => for_child(stdio, stage, failure, stderr),
    };
    Advice { stage, reached, to_do }
}

fn is_secure(http: &HttpTarget) -> bool {
    http.url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://"))
}

fn step(target: &Target, failure: &FailureReport) -> Step {
    let is_http = matches!(target, Target::Http(_));
    match failure.stage {
        Stage::Resolve => Step::Resolve,
        Stage::Spawn => Step::Start,
        Stage::Connect => Step::Connect,
        Stage::Tls => Step::Tls,
        Stage::Authorization => Step::Credentials,
        Stage::List => match failure.refusal.as_deref() {
            Some(refusal) if wants_credential(refusal) => Step::Credentials,
            Some(_) | None => Step::Lists,
        },
        Stage::Handshake
        | Stage::Slot
        | Stage::Send
        | Stage::Answer
        | Stage::Read
        | Stage::Parse => match failure.refusal.as_deref() {
            Some(refusal) if wants_credential(refusal) => Step::Credentials,
            Some(_) => Step::Http,
            None if failure.message.contains("does not speak") => Step::Era,
            None if failure.message.contains("it refused") => Step::Handshake,
            None if is_http && is_of_http(&failure.message) => Step::Http,
            None if is_http => Step::Handshake,
            // It has said nothing yet.
            None => Step::Start,
        },
    }
}

fn wants_credential(refusal: &HttpRefusal) -> bool {
    matches!(refusal.status, 401 | 403 | 407)
}

/// Whether what came was no answer of an MCP server, or none at all.
fn is_of_http(message: &str) -> bool {
    ["neither JSON nor a stream", "no proper HTTP", "it redirects", "connection", "no answer"]
        .into_iter()
        .any(|words| message.contains(words))
}

fn for_http(http: &HttpTarget, stage: Step, failure: &FailureReport) -> Option<String> {
    let message = failure.message.as_str();
    let host = host(&http.url);
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let text = match stage {
        Step::Resolve => format!("is {name:?} spelled right, and known to this machine's DNS?"),
        Step::Connect if http.proxy.is_some() => {
            "the proxy could not be reached, or did not let it through: check proxy".to_owned()
        }
        Step::Connect if message.contains("refused") => format!(
            "nothing listens at {host}: is the server started, and is this its port?{}",
            in_container(name)
        ),
        Step::Connect if message.contains("ca_file") => {
            "ca_file must name a file of certificates in PEM".to_owned()
        }
        Step::Connect => format!(
            "no connection to {host} within connect_timeout_ms: is the address right, and does \
             a firewall stand between?"
        ),
        Step::Tls => return Some(for_tls(http, name, message)),
        Step::Credentials if http.oauth.is_some() => for_sign_in(failure),
        Step::Credentials => return failure.refusal.as_deref().map(|it| credential(http, it)),
        Step::Http => return for_answer(http, failure),
        Step::Era => "it speaks another revision only: is it up to date?".to_owned(),
        Step::Handshake if message.contains("in time") || message.contains("_ms") => {
            "it accepts connections, and does not answer: does it hang? start_timeout_ms says \
             how long it may take"
                .to_owned()
        }
        Step::Handshake => {
            "it answers, but not as an MCP server: is the path right, and is it up to date?"
                .to_owned()
        }
        Step::Lists => LISTS.to_owned(),
        Step::Start => return None,
    };
    Some(text)
}

const LISTS: &str =
    "the handshake went well, but a list cannot be read: its own log may say why";

fn in_container(name: &str) -> &'static str {
    let is_local = matches!(name, "localhost" | "127.0.0.1" | "[::1]");
    if is_local { " (in a container, localhost is the container itself)" } else { "" }
}

fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.split(['/', '?']).next().unwrap_or(rest)
}

fn for_tls(http: &HttpTarget, name: &str, message: &str) -> String {
    let has = |words: &str| message.contains(words);
    if has("CaUsedAsEndEntity") && http.ca_file.is_some() {
        return "its certificate is signed by itself, and is not the one in ca_file: give that \
                certificate (PEM) as ca_file"
            .to_owned();
    }
    if has("UnknownIssuer") || has("CaUsedAsEndEntity") || has("SelfSigned") {
        return "its certificate is signed by itself or by an authority that is not public: give \
                that certificate (PEM) as ca_file"
            .to_owned();
    }
    if has("Expired") || has("certificate expired") {
        return "its certificate has expired: renew it there (or this machine's clock is wrong)"
            .to_owned();
    }
    if has("not valid yet") {
        return "its certificate is not valid yet: this machine's clock is likely wrong"
            .to_owned();
    }
    if has("it names no host") || has("X.509 version 1") {
        return format!(
            "make it anew there: openssl req -x509 … -addext subjectAltName={}",
            alternative_name(name)
        );
    }
    if has("NotValidForName") || has("not valid for name") {
        return format!(
            "its certificate is for another name than {name:?}: write that one in url, or make \
             it anew with -addext subjectAltName={}",
            alternative_name(name)
        );
    }
    if has("in time")
        || has("InvalidMessage")
        || has("InvalidContentType")
        || has("corrupt message")
    {
        return "it does not speak TLS there: http:// instead of https://?".to_owned();
    }
    "the connection could not be secured: is this a port for https?".to_owned()
}

fn alternative_name(host: &str) -> String {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let kind = if bare.parse::<std::net::IpAddr>().is_ok() { "IP" } else { "DNS" };
    format!("{kind}:{bare}")
}

/// What to do where the gateway has no token, or none that the server takes.
fn for_sign_in(failure: &FailureReport) -> String {
    let message = failure.message.as_str();
    let text = if message.contains("trunkline login") {
        "run that command where the gateway runs, or let an admin sign in from the console"
    } else if message.contains("a sign-in is under way") {
        "finish the sign-in in the browser that has its page"
    } else if message.contains("client_id") || message.contains("regist") {
        "register the gateway with the authorization server, and give it that client_id (and \
         client_secret) in \"oauth\""
    } else {
        "the authorization server gives no token: is \"oauth\" right for it, and does it answer?"
    };
    text.to_owned()
}

fn credential(http: &HttpTarget, refusal: &HttpRefusal) -> String {
    let is_given =
        http.headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("authorization"));
    let by_oauth = refusal
        .www_authenticate
        .as_ref()
        .is_some_and(|challenge| challenge.contains("resource_metadata"));
    let what = match (refusal.status, is_given || !http.headers.is_empty()) {
        (407, _) => "the proxy wants a user and a password: proxy: \"http://user:password@…\"",
        (403, _) => {
            "the server knows the credential and does not let it in: which rights has it?"
        }
        (_, true) => {
            "the server refuses the credential in headers: is it whole, and still valid?"
        }
        (_, false) if by_oauth => {
            "this server wants a sign-in: \"oauth\": true (with \"state_dir\"), then trunkline login"
        }
        (_, false) => {
            "this server wants a credential: \"headers\": {\"Authorization\": \"Bearer ${TOKEN}\"}"
        }
    };
    let by_oauth = by_oauth && what.contains("headers");
    let oauth = if by_oauth { " (it says that it takes tokens of OAuth)" } else { "" };
    format!("{what}{oauth}")
}

fn for_answer(http: &HttpTarget, failure: &FailureReport) -> Option<String> {
    let message = failure.message.as_str();
    let lower = message.to_ascii_lowercase();
    let path = "most servers have /mcp, older ones /sse (\"transport\": \"sse\")";
    let status = failure.refusal.as_ref().map(|refusal| refusal.status);
    if lower.contains("https port") || lower.contains("http request to an https") {
        return Some("this is a port for TLS: https:// instead of http://".to_owned());
    }
    if lower.contains("text/html") || lower.contains("<!doctype") || lower.contains("<html") {
        return Some(format!("it answers HTML: is the path right? {path}"));
    }
    if message.contains("it redirects") {
        return Some("give the address that it redirects to as url".to_owned());
    }
    let text = match status {
        // With `auto`, the last of several is told.
        Some(400 | 404 | 405 | 410 | 422) => {
            format!("there seems to be no MCP server at this path: {path}")
        }
        Some(406 | 415) => {
            "it takes another kind of request: is this an MCP server?".to_owned()
        }
        Some(429) => "it is asked too often: try later".to_owned(),
        Some(500..) => "the server itself failed: its own log says why".to_owned(),
        Some(_) => format!("is the path right? {path}"),
        None if message.contains("no proper HTTP") && !is_secure(http) => {
            "is this an HTTP server? If it is one for TLS, write https://".to_owned()
        }
        None if message.contains("closed") || message.contains("reset") => {
            "it ends the connection without an answer: is this its port, and http or https?"
                .to_owned()
        }
        None if message.contains("no answer") => {
            "it accepts the connection and does not answer: does it hang?".to_owned()
        }
        None => format!("is the path right? {path}"),
    };
    Some(text)
}

fn for_child(
    stdio: &StdioTarget,
    stage: Step,
    failure: &FailureReport,
    stderr: &[String],
) -> Option<String> {
    let message = failure.message.as_str();
    let launcher = ["npx", "uvx", "docker", "bunx", "pipx"]
        .into_iter()
        .find(|it| stdio.command == *it || stdio.command.ends_with(&format!("/{it}")));
    if message.contains("not found in PATH") {
        return Some(match launcher {
            Some(launcher) => format!("install what brings {launcher}, or give its whole path"),
            None => "install it, give its whole path, or set PATH in env".to_owned(),
        });
    }
    let says = |words: &str| stderr.iter().any(|line| line.contains(words));
    let loading = ["npm error", "npm ERR!", "No solution found", "Failed to fetch"];
    if loading.into_iter().any(says) {
        return Some(
            "its package could not be loaded: is the name right, and can this machine reach the \
             registry? (Behind a proxy it needs HTTPS_PROXY in env.)"
                .to_owned(),
        );
    }
    if message.contains("is no folder") {
        return Some("cwd is relative to the folder of the configuration".to_owned());
    }
    if message.contains("Permission denied") {
        return Some(
            "it must be executable: chmod +x, or name its interpreter as command".into(),
        );
    }
    if message.contains("what is no message") {
        return Some(
            "its logs belong on standard error: only messages on standard output".into(),
        );
    }
    if message.contains("start_timeout_ms") {
        return Some(match launcher {
            Some(launcher) => format!(
                "a first start with {launcher} loads the package: run it once by hand, or raise \
                 start_timeout_ms"
            ),
            None => "does it wait for something? start_timeout_ms says how long it may".into(),
        });
    }
    if message.contains("there is no such file") || message.contains("first line") {
        return Some("a path is relative to the folder of the configuration".to_owned());
    }
    match stage {
        Step::Handshake => {
            Some("it answers, but not as an MCP server: is it the right program?".to_owned())
        }
        Step::Start => Some(
            "a child has PATH, HOME, LANG, TZ and env, and nothing else of the environment: does \
             it miss a variable? Its last lines are below"
                .to_owned(),
        ),
        Step::Lists => Some(LISTS.to_owned()),
        Step::Era => Some("it speaks another revision only: is it up to date?".to_owned()),
        Step::Resolve | Step::Connect | Step::Tls | Step::Http | Step::Credentials => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::config::{Config, Overrides};

    fn target(text: &str) -> Target {
        let text = format!("{{\"mcp_servers\":{{\"a\":{text}}}}}");
        let config = Config::parse(&text, &|_| None, &Overrides::default()).unwrap();
        config.upstreams[0].target.clone()
    }

    fn failure(stage: Stage, message: &str, status: Option<u16>) -> FailureReport {
        let refusal =
            |status| HttpRefusal { status, www_authenticate: None, retry_after: None };
        let refusal = status.map(|status| Box::new(refusal(status)));
        FailureReport {
            stage,
            message: message.to_owned(),
            at: SystemTime::UNIX_EPOCH,
            refusal,
        }
    }

    #[test]
    fn a_failure_over_http_has_its_step_and_its_likely_cause() {
        let with = |more: &str| target(&format!("{{\"url\":\"https://h:1/mcp\"{more}}}"));
        let (bare, own) = (with(""), with(",\"ca_file\":\"/ca.pem\""));
        let known = with(",\"headers\":{\"X-Key\":\"x\"}");
        use Stage::{Connect, Handshake, List, Resolve, Tls};
        for (target, stage, message, status, step_of, part) in [
            (&bare, Resolve, "the host has no address", None, Step::Resolve, "\"h\""),
            (&bare, Connect, "connection refused", None, Step::Connect, "h:1"),
            (&bare, Connect, "no connection in time", None, Step::Connect, "firewall"),
            (&bare, Connect, "ca_file x: no such file", None, Step::Connect, "PEM"),
            (&bare, Tls, "…: UnknownIssuer", None, Step::Tls, "as ca_file"),
            (&bare, Tls, "…CaUsedAsEndEntity", None, Step::Tls, "as ca_file"),
            (&own, Tls, "…CaUsedAsEndEntity", None, Step::Tls, "not the one in ca_file"),
            (&bare, Tls, "certificate Expired", None, Step::Tls, "expired"),
            (&bare, Tls, "certificate expired: 1", None, Step::Tls, "expired"),
            (&bare, Tls, "…: certificate not valid yet: 1", None, Step::Tls, "clock"),
            (&bare, Tls, "…: it names no host, since", None, Step::Tls, "subjectAltName=DNS:h"),
            (&bare, Tls, "…: it is of X.509 version 1", None, Step::Tls, "make it anew"),
            (&bare, Tls, "…NotValidForName…", None, Step::Tls, "another name than \"h\""),
            (&bare, Handshake, "401", Some(401), Step::Credentials, "wants a credential"),
            (&known, Handshake, "401", Some(401), Step::Credentials, "refuses the credential"),
            (&bare, List, "403", Some(403), Step::Credentials, "which rights"),
            (&bare, Handshake, "404", Some(404), Step::Http, "no MCP server"),
            (&bare, Handshake, "429", Some(429), Step::Http, "too often"),
            (&bare, Handshake, "503", Some(503), Step::Http, "its own log"),
            (&bare, Handshake, "it redirects (status 302) to x", None, Step::Http, "as url"),
            (&bare, Handshake, "it does not speak x", None, Step::Era, "up to date"),
            (&bare, Handshake, "it refused initialize: x", None, Step::Handshake, "MCP server"),
            (&bare, List, "it refused tools/list: x", None, Step::Lists, "a list"),
        ] {
            let failure = failure(stage, message, status);
            let found = step(target, &failure);
            assert_eq!(found, step_of, "{message}");
            let Target::Http(http) = target else { panic!("{target:?}") };
            let told = for_http(http, found, &failure).unwrap();
            assert!(told.contains(part), "{message}: {told}");
        }
    }
}
