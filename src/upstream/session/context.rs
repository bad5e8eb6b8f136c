//! What the parts of one session with a server share, and how its supervisor is told of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use crate::budget::Budget;
use crate::config::UpstreamConfig;
use crate::error::HttpRefusal;
use crate::limits::Limits;
use crate::protocol::call::{CallSink, Client, Kind, Notice, Outcome};
use crate::protocol::jsonrpc::RpcError;
use crate::protocol::legacy::Initialized;
use crate::protocol::question::Question;
use crate::protocol::raw::Raw;
use crate::protocol::revision::Era;
use crate::protocol::server_name::ServerName;
use crate::telemetry::Seldom;
use crate::telemetry::redact::Secrets;
use crate::wait::{Interrupted, Wait};

use super::subscriptions::DesiredSubscriptions;
use super::subscriptions::listen_filter::{Subscriptions, offered};
use super::user::User;
use crate::upstream::authorization::ServerAuthorization;
use crate::upstream::failure::{Failure, FailureKind};
use crate::upstream::http_client::redirect::Redirected;
use crate::upstream::status::{Dropped, FailureReport};
use crate::upstream::supervisor::view_readings::ViewReadings;
use crate::upstream::supervisor::views::Views;
use crate::upstream::supervisor::wanted_lists::Readings;
use crate::upstream::{Event, Report, ServerEvents};

/// A session that is open.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    /// Told apart from those before and after it.
    pub(crate) generation: u64,
    pub(crate) initialized: Arc<Initialized>,
}

impl Opened {
    pub(crate) fn is_modern(&self) -> bool {
        self.initialized.revision.era() == Era::Modern
    }

    /// Whether the upstream says that it tells of changes of these lists.
    pub(crate) fn tells_of(&self, kind: Kind) -> bool {
        offered(&self.initialized).0.wants(kind.changed())
    }
}

/// What the parts of one session to an upstream share.
pub(crate) struct SessionContext {
    pub(crate) config: Arc<UpstreamConfig>,
    /// What it was given and must not be told again, although it may say it.
    pub(crate) secrets: Arc<Secrets>,
    pub(crate) limits: Arc<Limits>,
    /// The credentials of its requests, if it wants OAuth.
    pub(crate) authorization: Option<Arc<ServerAuthorization>>,
    /// Where its URL leads, if it has one, for all sessions to it.
    pub(crate) redirected: Arc<Redirected>,
    /// Of all sessions to it.
    pub(crate) dropped: Arc<Dropped>,
    /// Of all bodies and results.
    pub(crate) buffered: Budget,
    /// Its place among the upstreams, for the names of its threads.
    pub(crate) index: usize,
    pub(crate) mailbox: Arc<Mailbox>,
    /// Set when the process must end at once: children get no grace any more.
    pub(crate) hurry: Arc<AtomicBool>,
    /// The generation given last, of all sessions with the server: each has a number of its own.
    pub(crate) generations: Arc<AtomicU64>,
    /// The client whose own session this is, which opens on demand; none for the shared one,
    /// which its supervisor keeps open.
    pub(crate) client: Option<Client>,
    /// The user for whom the upstream was made, where the server's credentials are each user's own.
    pub(crate) user: Option<Arc<User>>,
    /// What a modern upstream is listened to for.
    pub(crate) subscriptions: Arc<Subscriptions>,
    /// Of the shared session, whose supervisor reads the lists.
    lists: Arc<Mailbox>,
    /// The lists that only some clients see.
    pub(crate) views: Arc<Views>,
    pub(crate) server_events: Arc<dyn ServerEvents>,
    /// Lines about how it is, which its callers can make it be.
    pub(crate) told: Arc<Seldom>,
    ids: AtomicU64,
}

impl SessionContext {
    pub(crate) fn new(
        config: Arc<UpstreamConfig>,
        limits: Arc<Limits>,
        buffered: Budget,
        index: usize,
        hurry: Arc<AtomicBool>,
        server_events: Arc<dyn ServerEvents>,
        desired: Arc<DesiredSubscriptions>,
    ) -> std::io::Result<SessionContext> {
        let (mailbox, views) = (Arc::new(Mailbox::new()?), Arc::new(Views::new(limits.views)));
        let secrets = Secrets::new(&config.secrets()).with_guesses(&config.guessed_secrets());
        let secrets = Arc::new(secrets);
        let redirected = Redirected::new(config.name.clone(), secrets.clone());
        Ok(SessionContext {
            config,
            secrets,
            redirected: Arc::new(redirected),
            dropped: Arc::default(),
            authorization: None,
            limits,
            buffered,
            index,
            mailbox: mailbox.clone(),
            hurry,
            generations: Arc::default(),
            client: None,
            user: None,
            subscriptions: Arc::new(Subscriptions::new(desired)),
            lists: mailbox,
            views,
            server_events,
            told: Arc::default(),
            ids: AtomicU64::new(1),
        })
    }

    /// The same for an upstream that is one user's own.
    pub(crate) fn with_user(self, user: Option<Arc<User>>) -> SessionContext {
        SessionContext { user, ..self }
    }

    /// The same, for requests that carry these credentials.
    pub(crate) fn with_authorization(
        self,
        authorization: Option<Arc<ServerAuthorization>>,
    ) -> SessionContext {
        SessionContext { authorization, ..self }
    }

    /// That of a client's own session to the same upstream.
    pub(crate) fn of_client(&self, client: Client) -> std::io::Result<SessionContext> {
        Ok(SessionContext {
            config: self.config.clone(),
            secrets: self.secrets.clone(),
            redirected: self.redirected.clone(),
            dropped: self.dropped.clone(),
            limits: self.limits.clone(),
            authorization: self.authorization.clone(),
            buffered: self.buffered.clone(),
            index: self.index,
            mailbox: Arc::new(Mailbox::new()?),
            hurry: self.hurry.clone(),
            generations: self.generations.clone(),
            client: Some(client),
            user: self.user.clone(),
            subscriptions: self.subscriptions.clone(),
            lists: self.lists.clone(),
            views: self.views.clone(),
            server_events: self.server_events.clone(),
            told: self.told.clone(),
            ids: AtomicU64::new(1),
        })
    }

    /// What is declared in `initialize`.
    pub(crate) fn capabilities(&self) -> &str {
        self.client.as_ref().map_or("{}", |client| client.capabilities.get())
    }

    /// A list of this kind has changed, on whatever session that was heard: it may be what only
    /// those see who have such a session.
    pub(crate) fn list_changed(&self, kind: Kind) {
        if self.client.is_some() {
            self.mailbox.list_changed(kind);
        }
        self.lists.list_changed(kind);
    }

    /// A report of what this session's supervisor has found.
    pub(crate) fn reported(&self, event: Event) -> Option<Report> {
        match &self.user {
            Some(user) => {
                // The bound on what is read at once is the one on users' upstreams.
                user.report(event, |by| ViewReadings::default().begin(by, &self.mailbox))
            }
            None => Some(Report { config: self.config.clone(), event }),
        }
    }

    /// A failure as it may leave this folder.
    pub(crate) fn scrubbed(&self, failure: Failure) -> Failure {
        let message = self.secrets.scrub_cut(&failure.message).into_owned();
        let refusal = failure.refusal.map(|it| self.scrubbed_refusal(*it));
        Failure { message, refusal, ..failure }
    }

    fn scrubbed_refusal(&self, refusal: HttpRefusal) -> Box<HttpRefusal> {
        let challenge = refusal.www_authenticate;
        let www_authenticate = challenge.map(|it| self.secrets.scrub_cut(&it).into_owned());
        Box::new(HttpRefusal { www_authenticate, ..refusal })
    }

    /// A failure as it is remembered.
    pub(crate) fn report(&self, failure: &Failure) -> FailureReport {
        let message = self.secrets.scrub_cut(&failure.message).into_owned();
        let refusal = failure.refusal.as_deref().cloned();
        let refusal = refusal.map(|it| self.scrubbed_refusal(it));
        FailureReport { stage: failure.stage, message, at: SystemTime::now(), refusal }
    }

    /// A failure as `/status` tells it.
    pub(crate) fn for_operator(&self, failure: &FailureReport) -> FailureReport {
        let message = self.secrets.scrub_for_operator(&failure.message).into_owned();
        FailureReport { message, ..failure.clone() }
    }

    pub(crate) fn name(&self) -> &ServerName {
        &self.config.name
    }

    /// An id that this upstream has not seen.
    pub(crate) fn next_id(&self) -> u64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether this is a session that calls of stateless clients have one by one.
    pub(crate) fn is_exclusive(&self) -> bool {
        self.client.as_ref().is_some_and(|client| client.is_exclusive)
    }

    /// Tells the supervisor that the session of this generation could not be opened: of that
    /// one, because a later one may be open by now.
    pub(crate) fn not_opened(&self, generation: u64, failure: Failure) -> Failure {
        if !matches!(failure.kind, FailureKind::Interrupted(_)) {
            self.mailbox.lost(generation, failure.clone());
        }
        failure
    }

    pub(crate) fn thread_name(&self, part: &str) -> String {
        format!("up-{:03}-{part}", self.index % 1000)
    }

    /// # Errors
    /// The result is no object, as every result is (2025-11-25, schema, Result).
    pub(crate) fn outcome(&self, answer: Result<Raw, RpcError>) -> Result<Outcome, Failure> {
        match answer {
            Ok(result) if result.get().starts_with('{') => Ok(Outcome::Complete(result)),
            Ok(_) => Err(Failure::nonsense("its result is no object")),
            Err(error) => Ok(self.refused(error)),
        }
    }

    /// An error that it answered with, as it may leave this folder.
    pub(crate) fn refused(&self, error: RpcError) -> Outcome {
        let message = self.secrets.scrub(&error.message).into_owned();
        let data = error.data.map(|data| self.scrubbed_json(data));
        let error = RpcError { message, data, ..error };
        Outcome::Error { server: self.name().clone(), error }
    }

    /// What it says of itself, as it may leave this folder. Its capabilities are no text.
    pub(crate) fn introduction(&self, said: &Initialized) -> Initialized {
        let instructions = said.instructions.as_deref();
        Initialized {
            server_info: said.server_info.clone().map(|info| self.scrubbed_json(info)),
            instructions: instructions.map(|text| self.secrets.scrub(text).into_owned()),
            ..said.clone()
        }
    }

    fn scrubbed_json(&self, raw: Raw) -> Raw {
        match self.secrets.scrub_json(raw.get()) {
            Some(text) => raw.rewritten(text),
            None => raw,
        }
    }
}

/// How the supervisor is told; each kind of news once, however often it came.
pub(crate) struct Mailbox {
    /// What the supervisor waits on while there is nothing to do.
    pub(crate) idle: Arc<Wait>,
    /// Of the lists that the supervisor reads.
    pub(crate) readings: Readings,
    state: Mutex<Pending>,
}

/// What the supervisor should look at.
#[derive(Debug, Default)]
pub(crate) struct Pending {
    /// Kinds of lists that have changed.
    pub(crate) list_changed: Vec<Kind>,
    /// Kinds of lists in which somebody looked for something in vain.
    pub(crate) list_wanted: Vec<Kind>,
    /// What was read may have changed unheard.
    pub(crate) stale: bool,
    /// A call waits for a session that opens on demand.
    pub(crate) wanted: bool,
    /// There are credentials now, or other ones.
    pub(crate) signed_in: bool,
    /// A call's thread opened a session of this generation.
    pub(crate) opened: Option<u64>,
    /// The session up to this generation is no more, and why.
    pub(crate) lost: Option<(u64, Failure)>,
    /// The session of this generation may be no more, and why.
    pub(crate) doubted: Option<(u64, Failure)>,
    busy: Option<Arc<Wait>>,
    stopped: bool,
}

/// What a request failed of, unless that was an answer of the upstream, be it a refusal.
pub(crate) fn unless_answered(failure: Failure) -> Result<(), Failure> {
    match failure.kind {
        FailureKind::Refused(_) | FailureKind::Nonsense | FailureKind::Overloaded => Ok(()),
        FailureKind::Interrupted(_)
        | FailureKind::SessionGone
        | FailureKind::Broke
        | FailureKind::Unauthorized(_) => Err(failure),
    }
}

/// Longer than any process lives; far enough from what an `Instant` can hold.
pub(crate) const NEVER: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

impl Mailbox {
    pub(crate) fn new() -> std::io::Result<Mailbox> {
        let readings = Readings::default();
        Ok(Mailbox { idle: Wait::plain(NEVER)?, readings, state: Mutex::default() })
    }

    fn lock(&self) -> MutexGuard<'_, Pending> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn list_changed(&self, kind: Kind) {
        self.readings.announced(kind);
        {
            let mut state = self.lock();
            if !state.list_changed.contains(&kind) {
                state.list_changed.push(kind);
            }
        }
        self.idle.bell().ring();
    }

    pub(crate) fn list_wanted(&self, kind: Kind) {
        // It is wanted once before it is read.
        self.lock().list_wanted.push(kind);
        self.idle.bell().ring();
    }

    pub(crate) fn stale(&self) {
        self.lock().stale = true;
        self.idle.bell().ring();
    }

    pub(crate) fn wanted(&self) {
        self.lock().wanted = true;
        self.idle.bell().ring();
    }

    /// There are credentials now, or other ones.
    pub(crate) fn signed_in(&self) {
        self.lock().signed_in = true;
        self.idle.bell().ring();
    }

    pub(crate) fn opened(&self, generation: u64) {
        {
            let mut state = self.lock();
            state.opened = state.opened.max(Some(generation));
        }
        self.idle.bell().ring();
    }

    /// Pending of a session that came before another whose loss is known says nothing.
    pub(crate) fn lost(&self, generation: u64, failure: Failure) {
        {
            let mut state = self.lock();
            if state.lost.as_ref().is_none_or(|(known, _)| *known <= generation) {
                state.lost = Some((generation, failure));
            }
        }
        self.idle.bell().ring();
    }

    /// A stream of this session was refused as one that is gone refuses.
    pub(crate) fn doubted(&self, generation: u64, failure: Failure) {
        self.lock().doubted = Some((generation, failure));
        self.idle.bell().ring();
    }

    /// What has come since the last look.
    pub(crate) fn take(&self) -> Pending {
        let mut state = self.lock();
        Pending {
            list_changed: std::mem::take(&mut state.list_changed),
            list_wanted: std::mem::take(&mut state.list_wanted),
            stale: std::mem::take(&mut state.stale),
            wanted: std::mem::take(&mut state.wanted),
            signed_in: std::mem::take(&mut state.signed_in),
            opened: state.opened.take(),
            lost: state.lost.take(),
            doubted: state.doubted.take(),
            busy: None,
            stopped: state.stopped,
        }
    }

    /// A wait for the supervisor's own I/O, which a stop ends too.
    pub(crate) fn busy(&self, timeout: Duration) -> std::io::Result<Arc<Wait>> {
        let wait = Wait::plain(timeout)?;
        let mut state = self.lock();
        if state.stopped {
            wait.interrupt(Interrupted::Stopping);
        }
        state.busy = Some(wait.clone());
        Ok(wait)
    }

    pub(crate) fn stop(&self) {
        let busy = {
            let mut state = self.lock();
            state.stopped = true;
            state.busy.take()
        };
        self.idle.interrupt(Interrupted::Stopping);
        if let Some(busy) = busy {
            busy.interrupt(Interrupted::Stopping);
        }
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().stopped
    }
}

/// A caller that wants only the answer.
pub(crate) struct NoSink;

impl CallSink for NoSink {
    fn notice(&self, _: Notice) {}
    fn ask(&self, question: Question) {
        question.refuse();
    }
    fn has_client(&self) -> bool {
        false
    }
}

/// The gateway as a caller on a session: what is said besides the answer is for no call.
pub(crate) struct GatewaySink<'a>(pub(crate) &'a SessionContext);

impl CallSink for GatewaySink<'_> {
    fn notice(&self, notice: Notice) {
        if !matches!(notice, Notice::Progress(_)) {
            self.0.notice(notice);
        }
    }

    fn ask(&self, question: Question) {
        self.0.ask(question);
    }

    fn has_client(&self) -> bool {
        false
    }
}

/// The one who opens a session: what is said meanwhile is for no call.
pub(crate) struct Opener<'a>(pub(crate) &'a SessionContext);

impl CallSink for Opener<'_> {
    fn notice(&self, notice: Notice) {
        GatewaySink(self.0).notice(notice);
    }

    // Nothing but `ping` may be asked before the handshake is over (2025-11-25,
    // basic/lifecycle, Initialization).
    fn ask(&self, question: Question) {
        question.refuse();
    }

    fn has_client(&self) -> bool {
        false
    }
}

/// Waits for `time`; a bell does not end it.
///
/// # Errors
/// The wait was interrupted.
pub(crate) fn pause(wait: &Wait, time: Duration) -> Result<(), Interrupted> {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        wait.until(None, Some(left))?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Stage;

    #[test]
    fn late_news_of_an_older_session_does_not_hide_the_newer_one() {
        let mailbox = Mailbox::new().unwrap();
        let failure = |what: &str| Failure::new(FailureKind::Broke, Stage::Read, what);
        mailbox.opened(3);
        mailbox.opened(2);
        mailbox.lost(3, failure("newer"));
        mailbox.lost(2, failure("older"));
        let news = mailbox.take();
        assert_eq!(news.opened, Some(3));
        assert_eq!(news.lost, Some((3, failure("newer"))));
        mailbox.lost(1, failure("first"));
        assert_eq!(mailbox.take().lost, Some((1, failure("first"))));
    }
}
