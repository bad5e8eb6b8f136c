//! Bounds of sign-in to servers and of sign-in by users.

use std::time::Duration;

use super::{USER_UPSTREAMS_MAX, VIEWS_SHARE_DIVISOR};

/// Bytes of a document of an authorization server, of a resource's metadata, and of an answer of
/// a token endpoint.
pub const OAUTH_DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Bytes of a URL in such a document.
pub const OAUTH_URL_BYTES_MAX: usize = 2048;
/// Bytes of a text in such a document that is neither a URL nor a token: a scope, an algorithm,
/// a description.
pub const OAUTH_TEXT_BYTES_MAX: usize = 1024;
/// Elements of a list in such a document; further ones are not read.
pub const OAUTH_LIST_ELEMENTS_MAX: usize = 256;
/// Bytes of an access token, a refresh token or an assertion. Servers' heads have room for a few
/// kilobytes.
pub const OAUTH_TOKEN_BYTES_MAX: usize = 32 * 1024;
/// Bytes of an authorization code, a state, and a client's id or secret.
pub const OAUTH_CODE_BYTES_MAX: usize = 4096;
/// Scopes of one request or token; further ones are not read.
pub const OAUTH_SCOPES_MAX: usize = 128;
/// Fields of a form or of a callback's query.
pub const OAUTH_FORM_FIELDS_MAX: usize = 64;
/// Authorization servers of one resource that are tried; further ones are not read.
pub const AUTHORIZATION_SERVERS_MAX: usize = 8;
/// Challenges in the `WWW-Authenticate` fields of one answer; further ones are not read.
pub const CHALLENGES_MAX: usize = 16;
/// Parameters of one challenge; further ones are not read.
pub const CHALLENGE_PARAMETERS_MAX: usize = 32;
/// Bytes of the PEM text of a private key.
pub const PRIVATE_KEY_BYTES_MAX: usize = 64 * 1024;
/// The time for which an assertion that authenticates this OAuth client is valid.
pub const CLIENT_ASSERTION_LIFE: Duration = Duration::from_secs(120);
/// The longest time for which an access token is believed to live, whatever `expires_in` says.
pub const ACCESS_TOKEN_LIFE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
const _: () = assert!(OAUTH_TEXT_BYTES_MAX <= OAUTH_URL_BYTES_MAX);
const _: () = assert!(OAUTH_URL_BYTES_MAX < OAUTH_DOCUMENT_BYTES_MAX);
const _: () = assert!(OAUTH_TOKEN_BYTES_MAX < OAUTH_DOCUMENT_BYTES_MAX);
const _: () = assert!(AUTHORIZATION_SERVERS_MAX < OAUTH_LIST_ELEMENTS_MAX);

/// Threads that ask authorization servers, of all servers.
pub const OAUTH_THREADS_MAX: usize = 32;
/// Threads of [`OAUTH_THREADS_MAX`] that may renew tokens at once. The other threads are for people
/// who sign in: they do not wait behind authorization servers that do not answer.
pub const OAUTH_RENEWALS_MAX: usize = OAUTH_THREADS_MAX - 8;
/// Threads of [`OAUTH_THREADS_MAX`] that renew the tokens of one server at once, and as many that
/// exchange the codes of its sign-ins. A server has more than one thread only while half of all
/// threads have nothing to do.
pub const OAUTH_JOBS_OF_SERVER_MAX: usize = 4;
/// Threads of [`OAUTH_THREADS_MAX`] that begin or end sign-ins at one server at once: the first of
/// several sign-ins registers the client, and the others use that registration.
pub const OAUTH_SIGN_INS_OF_SERVER_MAX: usize = 1;
/// Questions to authorization servers that wait for such a thread. More are refused.
pub const OAUTH_JOBS_WAITING_MAX: usize = 1024;
/// Waiting questions of [`OAUTH_JOBS_WAITING_MAX`] about the tokens of one server, and as many about
/// its sign-ins.
pub const OAUTH_JOBS_WAITING_OF_SERVER_MAX: usize = 256;
/// The time after which such a thread ends that has nothing to do.
pub const OAUTH_THREAD_IDLE: Duration = Duration::from_secs(10);
/// The time for one request to an authorization server.
pub const OAUTH_REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The time for all requests of one renewal, or of one step of a sign-in: discovery, registration and
/// the token request.
pub const OAUTH_JOB_TIME: Duration = Duration::from_secs(45);
/// The time for which it is believed that a server is away which could not be asked how it wants
/// credentials. Requests find out by themselves meanwhile.
pub const SERVER_AWAY_BELIEVED: Duration = Duration::from_secs(10);
/// The time for the rest of an answer after which the request is sent once more, to another place or
/// with another token. Past it there is another connection.
pub const UPSTREAM_SKIP_TIMEOUT: Duration = Duration::from_millis(500);
/// The time for which a server's name that has led far away keeps what the server names from being
/// near. No sign-in lasts longer.
pub const REACH_MEMORY: Duration = SIGN_IN_LIFE;
/// The time for which the metadata of an authorization server are used for renewals before they are
/// read again.
pub const OAUTH_METADATA_LIFE: Duration = Duration::from_secs(600);
/// So long before its end an access token is renewed.
pub const TOKEN_RENEWAL_MARGIN: Duration = Duration::from_secs(60);
/// The part of a short access token's life that is left when it is renewed, as a divisor.
pub const TOKEN_RENEWAL_DIVISOR: u32 = 4;
/// The tries of one request for which another access token is had.
pub const REQUEST_TOKENS_MAX: usize = 3;
/// The sign-ins of a person for which one call waits.
pub const SIGN_INS_OF_CALL_MAX: usize = 3;
/// Sign-ins under way at once; the oldest are forgotten.
pub const SIGN_INS_MAX: usize = 256;
/// Sign-ins under way at once of one owner at one server; the oldest are forgotten.
pub const SIGN_INS_OF_OWNER_MAX: usize = 4;
/// The time after which a sign-in that was begun is forgotten.
pub const SIGN_IN_LIFE: Duration = Duration::from_secs(600);
/// The time for which it is believed that a sign-in is needed before the server is asked again.
pub const NEED_BELIEVED: Duration = Duration::from_secs(30);
/// The time between two looks at a file of credentials for what another process has written.
pub const CREDENTIALS_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The same while the access token is good.
pub const GOOD_CREDENTIALS_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two tries to write credentials that could not be written.
pub const UNSAVED_CREDENTIALS_INTERVAL: Duration = Duration::from_secs(5);
/// The shortest time for which an access token is used, however short its life is said to be. What is
/// over by then is renewed no sooner.
pub const TOKEN_USE_MIN: Duration = Duration::from_secs(2);
/// The shortest life of an access token that is renewed in advance, although no request needs it yet.
pub const TOKEN_RENEWED_LIFE_MIN: Duration = Duration::from_secs(3);
/// The time for which it is believed that a server refuses all access tokens. One more is tried then.
pub const REFUSALS_BELIEVED: Duration = Duration::from_secs(60);
/// A token of another process that the server refuses is renewed once within this time, although
/// the server has refused another one before it.
pub const REFUSALS_PARDON_INTERVAL: Duration = Duration::from_secs(30);
/// The time to wait for a file of credentials that another process renews.
pub const CREDENTIALS_LOCK_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which an end waits for refresh tokens and codes that are being exchanged.
pub const EXCHANGES_PATIENCE: Duration = Duration::from_secs(3);
/// The time between two looks if they are.
pub const EXCHANGES_LOOK_INTERVAL: Duration = Duration::from_millis(10);
/// The time between two tries to lock such a file.
pub const CREDENTIALS_LOCK_INTERVAL: Duration = Duration::from_millis(20);
/// Registrations that are kept of one server; the oldest are forgotten.
pub const REGISTRATIONS_MAX: usize = 16;
/// Sign-ins in a row that have begun on the gateway's pages with one registration, and that nobody
/// has finished, after which the next one registers anew.
pub const PAGES_UNFINISHED_MAX: u32 = 3;
/// The same for `trunkline login`, whose user sees that a sign-in has come to nothing.
pub const LOGINS_UNFINISHED_MAX: u32 = 1;
/// Pages that are opened in a browser for one server within [`BROWSER_WINDOW`].
pub const BROWSER_PAGES_MAX: usize = 6;
/// See [`BROWSER_PAGES_MAX`].
pub const BROWSER_WINDOW: Duration = Duration::from_secs(600);
/// The time for which no page is opened by itself after a sign-in that failed or was not finished.
pub const BROWSER_REST: Duration = Duration::from_secs(60);
/// The longest such time, after several.
pub const BROWSER_REST_MAX: Duration = Duration::from_secs(3600);
/// Programs of `$BROWSER` that run at once.
pub const BROWSERS_MAX: usize = 4;
/// The time in which a program of `$BROWSER` shows that it cannot open the page.
pub const BROWSER_START_TIME: Duration = Duration::from_secs(3);
/// The shortest and the longest pause after an authorization server has failed.
pub const OAUTH_PAUSE_MIN: Duration = Duration::from_secs(1);
/// See [`OAUTH_PAUSE_MIN`].
pub const OAUTH_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Bytes that are read of the system's list of connections.
pub const CONNECTION_TABLE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Marks of browsers that are looked at in one request.
pub const BROWSER_MARKS_MAX: usize = 32;
/// The time that a browser waits for one step of a sign-in: finding the authorization server and
/// registering there, or exchanging the code for tokens.
pub const SIGN_IN_STEP_TIMEOUT: Duration = Duration::from_secs(60);
const _: () = assert!(OAUTH_JOB_TIME.as_secs() < SIGN_IN_STEP_TIMEOUT.as_secs());
const _: () = assert!(OAUTH_REQUEST_TIMEOUT.as_secs() < OAUTH_JOB_TIME.as_secs());
/// Pages of the gateway from which people may sign in, at once; the oldest are forgotten.
pub const SIGN_IN_PAGES_MAX: usize = 256;
/// Such pages of one beginner for one server, and sign-ins that each has begun; the oldest are
/// forgotten.
pub const SIGN_IN_PAGES_OF_BEGINNER_MAX: usize = 4;
/// The time for which such a page is good: as long as the sign-in that it leads to.
pub const SIGN_IN_PAGE_LIFE: Duration = Duration::from_secs(600);
/// Bytes of the head of a request on the loopback port of `trunkline login`, and of a line that is
/// pasted there.
pub const LOOPBACK_HEAD_BYTES_MAX: u64 = 32 * 1024;
/// The time in which such a head comes.
pub const LOOPBACK_HEAD_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections on that port whose head has not come, at once; the oldest make room.
pub const LOOPBACK_CONNECTIONS_MAX: usize = 64;
/// The time between two looks at these connections.
pub const LOOPBACK_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The time between two looks of `trunkline login` at a sign-in that a running gateway leads.
pub const SIGN_IN_LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// Tokens and other secrets of sign-ins, of all servers and users, that are removed from the log.
pub const LOG_SECRETS_MAX: usize = 2048;
/// Bytes of all of them.
pub const LOG_SECRETS_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Tokens with more scopes for which one server has an authorization server asked, or a person, in
/// [`STEP_UP_WINDOW`].
pub const STEP_UPS_MAX: usize = 8;
/// See [`STEP_UPS_MAX`].
pub const STEP_UP_WINDOW: Duration = Duration::from_secs(600);
/// Sets of users' own credentials that one principal has in use at once, where there are several
/// principals: a program that makes credentials up takes no more threads and connections than these
/// need.
pub const USER_UPSTREAMS_OF_PRINCIPAL_MAX: usize = USER_UPSTREAMS_MAX / VIEWS_SHARE_DIVISOR;
