//! `trunkline login`: the sign-in of the gateway at a server, by hand.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use rustix::event::PollFlags;
use serde_json::{Value, json};

use super::command::{At, ComeBack};
use super::loopback::{Loopback, for_answer};
use super::running::{Running, Said, ServedAt, Unanswered};
use super::schema::member;
use super::{complain, exit, fail, print, refused, shown, usage};
use crate::config::{
    Config, Credentials, Grant, Listen, Overrides, UpstreamConfig, nearest_name,
};
use crate::downstream::oauth::answer_page;
use crate::limits::{
    LOOPBACK_HEAD_BYTES_MAX, LOOPBACK_HEAD_TIMEOUT, OPERATOR_ANSWER_TIMEOUT, SIGN_IN_LIFE,
    SIGN_IN_LOOK_INTERVAL, SIGN_IN_STEP_TIMEOUT,
};
use crate::telemetry::timestamp::rfc3339;
use crate::upstream::authorization::{
    Authorizations, BegunSignIn, CALLBACK_PATH, FileMark, FinishedSignIn, Holder, Owner,
    ServerAuthorization, Setup, SignInError, SignInStatus,
};
use crate::wait::{Wait, Woken};

/// Signs in at a server.
pub(super) fn login(path: &Path, server: &str, come_back: ComeBack) -> u8 {
    let known = match Known::load(path, server, come_back) {
        Ok(known) => known,
        Err(code) => return code,
    };
    if let Some(grant) = known.grant().filter(|grant| !grant.wants_person()) {
        complain(&format!(
            "trunkline: login: {server} needs no sign-in: with the grant {:?} the gateway gets \
             its tokens itself",
            grant.as_str()
        ));
        return exit::FINE;
    }
    let done = match come_back {
        ComeBack::Paste => known.by_paste(),
        ComeBack::Browser => known.by_browser(path),
    };
    match done {
        Ok(()) => known.signed_in(),
        Err(what) => fail(&format!("login: {what}")),
    }
}

/// A server with "oauth".
pub(super) struct Server {
    pub(super) config: Config,
    pub(super) server: Arc<UpstreamConfig>,
    pub(super) authorizations: Arc<Authorizations>,
}

/// A server that the gateway signs in at.
struct Known {
    config: Config,
    server: Arc<UpstreamConfig>,
    authorizations: Arc<Authorizations>,
    authorization: Arc<ServerAuthorization>,
}

pub(super) fn told(error: SignInError) -> String {
    shown(&error.to_string())
}

/// A wait for one step with the authorization server.
pub(super) fn step() -> Result<Arc<Wait>, String> {
    Wait::plain(SIGN_IN_STEP_TIMEOUT).map_err(|error| error.to_string())
}

/// A wait for a person.
fn patience() -> Result<Arc<Wait>, String> {
    Wait::plain(SIGN_IN_LIFE).map_err(|error| error.to_string())
}

const TOO_LATE: &str = "nobody has signed in for ten minutes";

impl Server {
    /// Reads the configuration, and finds the server in it.
    ///
    /// # Errors
    /// The exit code; the reason was told.
    pub(super) fn load(
        path: &Path,
        command: &str,
        server: &str,
        come_back: ComeBack,
    ) -> Result<Server, u8> {
        let config = Config::load(path, &Overrides::default())
            .map_err(|problems| refused(path, &problems))?;
        let found = config.upstreams.iter().find(|it| it.name.as_str() == server);
        let Some(found) = found.cloned() else {
            let names = || config.upstreams.iter().map(|it| it.name.as_str());
            let near = nearest_name(server, names());
            let near = near.map(|near| format!("; did you mean {near:?}?"));
            let with = config.upstreams.iter().filter(|it| it.oauth().is_some());
            let with: Vec<&str> = with.map(|it| it.name.as_str()).collect();
            let with = if with.is_empty() { "none".to_owned() } else { with.join(", ") };
            let hint = near.unwrap_or_else(|| format!("; with \"oauth\" there is: {with}"));
            return Err(usage(&format!("{command}: there is no server {server:?}{hint}")));
        };
        if found.oauth().is_none() {
            let what = format!("{command}: the server {server:?} has no \"oauth\": true");
            return Err(usage(&what));
        }
        let browser = std::env::var("BROWSER").ok();
        let mut setup = Setup::of(&config, None, browser);
        // The document names the address of the gateway alone: it is no use where the browser comes
        // back to this command.
        setup.client_document_url =
            setup.client_document_url.filter(|_| come_back == ComeBack::Paste);
        let authorizations = Authorizations::start(setup)
            .map_err(|error| fail(&format!("{command}: {error}")))?;
        Ok(Server { config, server: found, authorizations })
    }

    /// The credentials of an owner there.
    ///
    /// # Errors
    /// As [`Server::load`].
    pub(super) fn authorization(
        &self,
        command: &str,
        owner: Owner,
    ) -> Result<Arc<ServerAuthorization>, u8> {
        let found = self.authorizations.of(&self.server, owner, Holder::default());
        let found = found.map_err(|what| fail(&format!("{command}: {what}")))?;
        found.ok_or_else(|| fail(&format!("{command}: {} takes no token", self.server.name)))
    }
}

impl Known {
    fn load(path: &Path, server: &str, come_back: ComeBack) -> Result<Known, u8> {
        let found = Server::load(path, "login", server, come_back)?;
        if found.server.credentials == Credentials::PerUser {
            return Err(usage(&format!(
                "login: the server {server:?} has \"credentials\": \"per_user\": each user \
                 signs in with their own browser, when their client first calls it"
            )));
        }
        let authorization = found.authorization("login", Owner::Gateway)?;
        let Server { config, server, authorizations } = found;
        Ok(Known { config, server, authorizations, authorization })
    }

    fn grant(&self) -> Option<&Grant> {
        self.server.oauth().map(|oauth| &oauth.grant)
    }

    /// Says where the tokens are.
    fn signed_in(&self) -> u8 {
        let until = match self.authorization.status() {
            SignInStatus::SignedIn { until: Some(until), .. } => {
                format!(" until {}, and renews that by itself where it may", rfc3339(until))
            }
            SignInStatus::SignedIn { until: None, .. }
            | SignInStatus::Unknown
            | SignInStatus::NeedsSignIn { .. }
            | SignInStatus::UnderWay { .. }
            | SignInStatus::Failing { .. } => String::new(),
        };
        let code = print(&format!("signed in to {}{until}\n", self.server.name));
        if let Some(state_dir) = &self.config.state_dir {
            complain(&format!(
                "The tokens are in {}, where \"trunkline serve\" finds them; a gateway that runs \
                 takes them up by itself.",
                state_dir.display()
            ));
        }
        code
    }

    /// True if the authorization server may know one address only to which a browser comes back:
    /// that of the running gateway.
    fn has_fixed_address(&self) -> bool {
        let oauth = self.server.oauth();
        let is_registered =
            oauth.is_some_and(|it| it.client_id.is_some() || it.client_metadata_url.is_some());
        is_registered || self.config.public_url.is_some()
    }

    fn by_browser(&self, path: &Path) -> Result<(), String> {
        if self.has_fixed_address() {
            match self.through_gateway(path) {
                Ok(()) => return Ok(()),
                Err(NotThrough::Failed(what)) => return Err(what),
                Err(NotThrough::NoGateway(why)) => complain(&format!(
                    "No gateway runs there that browsers could come back to ({why}), so they come \
                     back to this command. Where the authorization server admits only the \
                     gateway's address, start the gateway first, or use --paste."
                )),
            }
        }
        self.on_loopback()
    }

    /// Prints the URL, and opens it where `$BROWSER` is set.
    fn open(&self, url: &str) {
        complain(&format!("Open this page to sign in to {}:\n\n  {url}\n", self.server.name));
        if let Some(Err(what)) = self.authorizations.open_page(url) {
            complain(&format!("trunkline: login: {}", shown(&what)));
        }
    }

    /// Has the running gateway lead the browser, which comes back there.
    fn through_gateway(&self, path: &Path) -> Result<(), NotThrough> {
        let found = Running::find(&At::Config(path.to_owned()), ServedAt::MainListener);
        let gateway = found.ok().and_then(|all| all.into_iter().next());
        let gateway = gateway.ok_or_else(|| NotThrough::NoGateway("no address".to_owned()))?;
        let body = json!({ "server": self.server.name.as_str() });
        let ask = |method: &str, path: &str, body: Option<&Value>| {
            gateway.ask_with(method, path, body, OPERATOR_ANSWER_TIMEOUT)
        };
        let said = match ask("POST", "/status/sign-in", Some(&body)) {
            Ok(said) => said,
            Err(Unanswered::Unreached(why)) => return Err(NotThrough::NoGateway(why)),
            Err(what @ Unanswered::Other(_)) => {
                return Err(NotThrough::Failed(what.to_string()));
            }
        };
        let url = member(&said.body, "url").as_str().filter(|_| said.is_fine());
        let Some((url, id)) = url.and_then(|url| Some((url, url.rsplit_once('/')?.1))) else {
            let what = said.refusal();
            return Err(NotThrough::Failed(format!(
                "the gateway at {}: {what}",
                gateway.place()
            )));
        };
        complain(&format!(
            "The gateway at {} leads the sign-in; browsers come back there.",
            gateway.place()
        ));
        let before = self.authorization.file_mark();
        self.open(url);
        let (until, page) = (Instant::now() + SIGN_IN_LIFE, format!("/oauth/sign-in/{id}"));
        while Instant::now() < until {
            std::thread::sleep(SIGN_IN_LOOK_INTERVAL);
            if ask("GET", &page, None).as_ref().is_ok_and(Said::is_not_there) {
                return self.after_page(&before).map_err(NotThrough::Failed);
            }
        }
        Err(NotThrough::Failed(TOO_LATE.to_owned()))
    }

    /// The page of the gateway is gone: most often because it has led to a sign-in. `before`: the
    /// file of credentials as it was before that.
    fn after_page(&self, before: &FileMark) -> Result<(), String> {
        let is_changed = self.authorization.file_mark() != *before;
        match self.authorization.status() {
            SignInStatus::SignedIn { .. } if is_changed => Ok(()),
            SignInStatus::SignedIn { .. } => Err(
                "the gateway has given its page up, and nobody has signed in anew: run the \
                 command again"
                    .to_owned(),
            ),
            SignInStatus::Unknown
            | SignInStatus::NeedsSignIn { .. }
            | SignInStatus::UnderWay { .. }
            | SignInStatus::Failing { .. } => Err(
                "the gateway has given its page up, or keeps its tokens elsewhere because its \
                 configuration is another one"
                    .to_owned(),
            ),
        }
    }

    fn begin(&self, redirect_uri: &str) -> Result<BegunSignIn, String> {
        self.authorization.begin_sign_in(Some(redirect_uri), &step()?).map_err(told)
    }

    /// A free port of this machine: that of an earlier sign-in, whose registration is good for it,
    /// or any. The gateway's own is left to the gateway.
    fn loopback(&self) -> io::Result<Loopback> {
        let own = match &self.config.listen {
            Listen::Tcp(address) => Some(address.port()),
            Listen::Unix(_) => None,
        };
        let mut ports = self.authorization.loopback_ports();
        ports.retain(|port| Some(*port) != own);
        Loopback::bind(&ports)
    }

    /// Has the browser come back to a free port of this machine (RFC 8252, section 7.3).
    fn on_loopback(&self) -> Result<(), String> {
        let refused = |error: io::Error| format!("cannot listen on 127.0.0.1: {error}");
        let mut port = self.loopback().map_err(refused)?;
        let begun = self.begin(&loopback(port.address().map_err(refused)?))?;
        self.open(&begun.url);
        let wait = patience()?;
        loop {
            let (stream, head) = port.next(&wait).map_err(|_| TOO_LATE.to_owned())?;
            match self.answer(stream, &head) {
                // Somebody else's request, or an answer of a sign-in that is none of these.
                None | Some(Err(SignInError::UnknownState)) => (),
                Some(Err(error)) => return Err(told(error)),
                Some(Ok(_)) => return Ok(()),
            }
        }
    }

    /// Answers one request on the loopback port. None if it is not the callback.
    fn answer(
        &self,
        mut stream: TcpStream,
        head: &str,
    ) -> Option<Result<FinishedSignIn, SignInError>> {
        for_answer(&stream, LOOPBACK_HEAD_TIMEOUT).ok()?;
        let query = callback_query(head);
        let finished = query.map(|query| {
            let wait = step().map_err(SignInError::Failed)?;
            self.authorizations.finish_sign_in(query, &wait)
        });
        let page = answer_page(finished.as_ref());
        let text = format!(
            "HTTP/1.1 {} -\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: {}\r\n\
             Cache-Control: no-store\r\nContent-Security-Policy: {}\r\n\
             Referrer-Policy: no-referrer\r\nX-Content-Type-Options: nosniff\r\n\
             Connection: close\r\n\r\n{}",
            page.status,
            page.html.len(),
            page.policy,
            page.html
        );
        // If the browser has gone, the answer is not missed.
        stream.write_all(text.as_bytes()).ok();
        finished
    }

    /// Reads from standard input where the browser ended.
    fn by_paste(&self) -> Result<(), String> {
        let redirect_uri = match &self.authorizations.setup().redirect_uri {
            Some(uri) => uri.clone(),
            // Nothing listens there; a browser's address line shows it all the same.
            None => {
                let free = self.loopback().and_then(|it| it.address());
                loopback(free.map_err(|error| error.to_string())?)
            }
        };
        let begun = self.begin(&redirect_uri)?;
        complain(&format!(
            "Open this page in any browser to sign in to {}:\n\n  {}\n\nAt the end the browser \
             cannot show a page, or shows that nothing was signed in. Copy its whole address, \
             which begins with {redirect_uri}, and paste it here:",
            self.server.name, begun.url
        ));
        let wait = patience()?;
        let input = io::stdin().as_fd().try_clone_to_owned();
        let mut lines = BufReader::new(File::from(input.map_err(|error| error.to_string())?));
        loop {
            // Several lines may have come at once.
            if lines.buffer().is_empty() {
                match wait.until(Some((lines.get_ref().as_fd(), PollFlags::IN)), None) {
                    Ok(Woken::Ready) => (),
                    Ok(Woken::Bell | Woken::Tick) => continue,
                    Err(_) => return Err(TOO_LATE.to_owned()),
                }
            }
            let mut line = String::new();
            let n_bytes = lines
                .by_ref()
                .take(LOOPBACK_HEAD_BYTES_MAX)
                .read_line(&mut line)
                .map_err(|error| error.to_string())?;
            if n_bytes == 0 {
                return Err("standard input has ended, and nothing was pasted".to_owned());
            }
            let Some(query) = pasted_query(line.trim(), &begun.state) else { continue };
            let finished = self.authorizations.finish_sign_in(&query, &step()?);
            return finished.map(drop).map_err(told);
        }
    }
}

/// Why the running gateway does not lead a sign-in.
enum NotThrough {
    NoGateway(String),
    Failed(String),
}

fn loopback(address: SocketAddr) -> String {
    format!("http://{address}{CALLBACK_PATH}")
}

/// The query of a request for the callback.
fn callback_query(head: &str) -> Option<&str> {
    let mut words = head.lines().next()?.split(' ');
    let (method, target) = (words.next()?, words.next()?);
    let (path, query) = target.split_once('?')?;
    (method == "GET" && path == CALLBACK_PATH).then_some(query)
}

/// The query in a pasted text: a URL, a query, or the code alone. None for an empty line.
fn pasted_query(text: &str, state: &str) -> Option<String> {
    let text = text.trim_matches(['"', '\'', '<', '>', ' ']);
    if text.is_empty() {
        return None;
    }
    let whole = text.split('#').next().unwrap_or(text);
    match whole.split_once('?') {
        Some((_, query)) => Some(query.to_owned()),
        None if whole.contains('=') && whole.contains("state=") => Some(whole.to_owned()),
        None => {
            let mut form = crate::oauth::form::Form::new();
            form.push("code", whole);
            form.push("state", state);
            Some(form.query())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_pasted_is_a_url_a_query_or_a_code() {
        for (text, query) in [
            ("http://127.0.0.1:1/oauth/callback?code=a&state=s", Some("code=a&state=s")),
            (" \"https://h/oauth/callback?code=a&state=s#_=_\" ", Some("code=a&state=s")),
            ("code=a&state=s&iss=i", Some("code=a&state=s&iss=i")),
            ("a/b=", Some("code=a%2Fb%3D&state=mine")),
            ("  ", None),
        ] {
            assert_eq!(pasted_query(text, "mine").as_deref(), query, "{text}");
        }
    }

    #[test]
    fn only_the_callback_is_the_callback() {
        let query = |line: &str| callback_query(line).map(str::to_owned);
        let head = "GET /oauth/callback?code=a&state=b HTTP/1.1\r\nHost: h\r\n\r\n";
        assert_eq!(query(head).as_deref(), Some("code=a&state=b"));
        for other in [
            "",
            "GET /favicon.ico HTTP/1.1",
            "POST /oauth/callback?a HTTP/1.1",
            "GET /oauth/callback",
        ] {
            assert_eq!(query(other), None, "{other}");
        }
    }
}
