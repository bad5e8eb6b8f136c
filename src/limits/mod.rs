//! Every bound, with its unit, and the relations between them.
//!
//! [`Limits`] holds the bounds that an operator may set (`limits` in `config.json`); the
//! constants here hold for every run.

mod configured;
mod identity;
mod resource_server;

use std::time::Duration;

pub use configured::Limits;
pub use identity::*;
pub use resource_server::*;

/// Arenas of the C library's allocator. Each thread uses one of them, and frees its memory into
/// it.
pub const ALLOCATOR_ARENAS_MAX: usize = 2;
/// Bytes from which on a piece of memory is mapped by itself, so that it goes back to the system
/// when it is freed.
pub const ALLOCATOR_MAPPED_FROM_BYTES: usize = 128 * 1024;
/// Bytes of freed memory that the allocator keeps at the end of an arena.
pub const ALLOCATOR_KEPT_BYTES: usize = 256 * 1024;
/// Bytes of the stacks of ended threads that are kept for new ones.
pub const STACKS_KEPT_BYTES: usize = 1024 * 1024;
/// The time for the rest of a head that is arriving when the process is told to stop. Then the
/// client gets 503.
pub const DRAINED_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// The idle time from which on a drain closes a connection. One that was used more recently stays
/// open, so that the request that its client may be sending is answered, with the note that the
/// connection ends.
pub const DRAINED_IDLE: Duration = Duration::from_millis(500);
/// The time between two looks for connections that a drain may close by now.
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// The time between two looks at whether the process was told to stop, while a head arrives
/// slowly.
pub const HEAD_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// The time for which a pool's thread waits for a connection before it ends, and gives back its
/// stack.
pub const SPARE_THREAD_LIFE: Duration = Duration::from_secs(5);
/// Stack of a pool thread, in bytes. Unoptimised frames are several times larger.
pub const THREAD_STACK_BYTES: usize =
    if cfg!(debug_assertions) { 1024 * 1024 } else { 128 * 1024 };
/// Bytes of the longest host and port that a URL is made of: a name has at most 253 (RFC 1035,
/// section 2.3.4).
pub const HOST_BYTES_MAX: usize = 262;
/// Levels of nesting in one JSON text. A deeper one is refused before it is parsed.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of a JSON text that are read before it is asked if the text is still needed. A text
/// of no more bytes is read without asking.
pub const JSON_PIECE_BYTES: usize = 256 * 1024;
/// Bytes of a client's capabilities, and of its `clientInfo`, in `initialize`. A session keeps
/// the capabilities.
pub const INTRODUCTION_BYTES_MAX: usize = 16 * 1024;
/// Keys of one JSON object that is parsed. Its values stay text, so that this bounds the memory
/// that a text made of keys alone can cost.
pub const JSON_OBJECT_KEYS_MAX: usize = 10_000;
/// Elements of one JSON array that is parsed, for the same reason.
pub const JSON_ARRAY_ELEMENTS_MAX: usize = 100_000;
/// Messages in one JSON-RPC batch (2025-03-26 only).
pub const BATCH_MESSAGES_MAX: usize = 64;
/// Messages in one batch of a server. A larger one is no answer.
pub const UPSTREAM_BATCH_MESSAGES_MAX: usize = 1024;
/// Bytes of the message of a JSON-RPC error. A longer one is cut, with a note.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the `data` of a JSON-RPC error. Larger data is left out, and the error's message says
/// so.
pub const ERROR_DATA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the `serverInfo` of a server, which is kept as long as the server is well and shown
/// in `/status`. Its largest members are left out of a larger one.
pub const SERVER_INFO_BYTES_MAX: usize = 32 * 1024;
/// Bytes of a server's capabilities, which are merged for every session. Of larger ones, the
/// largest are kept without their largest members.
pub const SERVER_CAPABILITIES_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one capability where all together are too large.
pub const SERVER_CAPABILITY_BYTES_MAX: usize = 1024;
/// Bytes of a server's instructions. Longer ones are cut, with a note.
pub const INSTRUCTIONS_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one item of a list: a tool, a prompt, a resource or a template. A larger one is left
/// out and counted.
pub const LISTED_ITEM_BYTES_MAX: usize = 256 * 1024;
/// Bytes of one piece of memory in which items of lists stand side by side, unless one item is
/// larger. It is large enough to be mapped by itself.
pub const PIECE_BYTES: usize = 256 * 1024;
/// Characters of an offered tool name; longer ones are cut and end in a hash.
pub const OFFERED_NAME_CHARS_MAX: usize = 64;
/// Commands waiting for the session thread. Full is a 503.
pub const SESSION_INBOX_COMMANDS_MAX: usize = 1024;
/// Commands that servers' messages outside of calls cause and that wait there: servers must not
/// keep clients out.
pub const SESSION_INBOX_UNASKED_MAX: usize = SESSION_INBOX_COMMANDS_MAX / 2;
/// The time for which an answer of the session thread is awaited. Past it the caller gets 503.
pub const SESSION_REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// The time between two searches of all sessions for the lowest log level that clients want which
/// share a session with one server.
pub const LOG_LEVEL_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The time between two sweeps of the session table.
pub const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Ids of ended sessions that are remembered, so that no restart revives them; the oldest are
/// dropped.
pub const ENDED_IDS_MAX: usize = 65_536;
/// The time for which the end of a session waits until its id is on the disk. Past it, the client
/// is answered without.
pub const ENDED_ID_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines appended to the file of those ids before it is written anew without expired ones.
pub const STATE_ID_LINES_MAX: usize = 2 * ENDED_IDS_MAX;
/// Bytes of one file in `state_dir`. A larger one is neither written nor read.
pub const STATE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Unusable files in `state_dir` that are kept for the operator; the oldest are removed.
pub const STATE_SET_ASIDE_MAX: usize = 8;
/// The time from a change to the write of its file, so that several changes become one write. It
/// is also the least time between two writes of a file, which doubles while the file goes on
/// changing.
pub const STATE_WRITE_DELAY: Duration = Duration::from_millis(250);
/// The longest time between two writes of a file that goes on changing.
pub const STATE_WRITE_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// Tools of one server that are pinned, and items of each other kind; further ones count as
/// changed.
pub const PINNED_TOOLS_MAX: usize = 40_000;
/// Bytes of the file of one server's pins without texts; items beyond it count as changed.
pub const PINS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one item's text that are kept with its pin, to show later changes.
pub const PINNED_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all such texts of one server; further texts are not kept.
pub const PINS_TEXTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of all such texts of all servers together.
pub const ALL_PINS_TEXTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// New items of one list whose names are compared with those of items that have gone, and as many
/// of the latter.
pub const SIMILAR_NAMES_MAX: usize = 64;
/// Reports of supervisors that wait for `trunkline check`.
pub const CHECK_REPORTS_MAX: usize = 256;
/// The time after which `trunkline check` explains why a server may not have answered yet.
pub const CHECK_SLOW_AFTER: Duration = Duration::from_secs(5);
/// Bytes of a file from which a value of the configuration is read.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a server's name in the configuration: files are named after it.
pub const SERVER_NAME_BYTES_MAX: usize = 128;
/// The time between two looks for accepted pins.
pub const PINS_ACCEPTED_INTERVAL: Duration = Duration::from_secs(1);
/// The time before a disk that refused is tried again.
pub const STATE_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// The time for which waiting files may be written at the end of the process; the other files
/// stay as they were. Ids of ended sessions come first, then pins.
pub const STATE_LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(5);
/// The life of a session token from its issue.
pub const SESSION_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of client capabilities that a session token carries; a session with more cannot be
/// revived.
pub const SESSION_TOKEN_CAPABILITIES_BYTES_MAX: usize = 2048;
/// The longest time that any call may wait before its server's own times are known.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Resources that one session may be subscribed to.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1024;
/// The time from the end of a session to the end of its upstream sessions.
pub const ENDED_SESSION_GRACE: Duration = Duration::from_millis(200);
/// The time after a server's first question during a stateless client's call for which further
/// questions are awaited, so that the client gets them together. Each further question begins the
/// wait anew.
pub const QUESTIONS_GATHERED_WITHIN: Duration = Duration::from_millis(60);
/// The most time for that.
pub const QUESTIONS_GATHERED_MAX: Duration = Duration::from_millis(180);
/// Bytes of the notices that wait for a stateless client's request; one that waits alone may be
/// larger.
pub const CALL_NOTICES_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a URI that is looked up among resource templates, and of a template; longer ones
/// match no template, because a match costs their product.
pub const TEMPLATE_BYTES_MAX: usize = 8192;
/// Steps of a look-up of a URI among one server's templates: a step is a template or a byte that
/// is read, a few nanoseconds. Past it, none of the templates covers the URI.
pub const TEMPLATES_STEPS_MAX: usize = 1_000_000;
/// Steps of a look-up over all servers.
pub const LOOK_UP_STEPS_MAX: usize = 8 * TEMPLATES_STEPS_MAX;
/// Steps of looking up all links of one result; further links get the NAME without a look-up.
pub const RESULT_LINKS_STEPS_MAX: usize = LOOK_UP_STEPS_MAX;
/// Steps of looking up the links in all servers' items of one kind; each server has an equal
/// share for its own. Past it links get the NAME without a look-up.
pub const MERGED_LINKS_STEPS_MAX: usize = 4 * LOOK_UP_STEPS_MAX;
/// Links of one result that are looked up, to see if they lead back to their server unchanged;
/// further links get its NAME without a look-up.
pub const LINKS_LOOKED_UP_MAX: usize = 256;
/// Bytes of such a link, or of one in an item of a list; a longer one gets the NAME.
pub const LINK_LOOKED_UP_BYTES_MAX: usize = 2048;
/// Parameters that one tool may want mirrored into headers. With more its definition is invalid.
pub const MIRRORED_PARAMETERS_MAX: usize = 64;
/// The time for the subscriptions to all resources that one `subscriptions/listen` names.
pub const LISTEN_SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(4);
/// Rounds in which one call may need input of a client with a session before the call is given
/// up, and of a stateless client before the next retry costs a further call.
pub const INPUT_ROUNDS_MAX: usize = 32;
/// Input requests of one round.
pub const INPUT_REQUESTS_MAX: usize = 32;
/// Bytes of all input requests of one round, and of one question of a server with sessions to a
/// client: as many as a client may send by default. More is an error that says so.
pub const INPUT_REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of a `requestState` of a server without sessions, which each retry carries. A result
/// with a longer one is invalid.
pub const REQUEST_STATE_BYTES_MAX: usize = 256 * 1024;
/// Used states of stateless clients that are remembered until they expire, since a retry is free
/// once. Past it retries cost calls.
pub const USED_STATES_MAX: usize = 8192;
/// The time before a server that needs nothing but a retry gets it.
pub const INPUT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Requests in flight of a client over standard input and output; each has a thread. More get an
/// error.
pub const STDIO_REQUESTS_MAX: usize = 256;
/// The time for a client that has ended its input to read its last answers.
pub const STDIO_LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(1);
/// The time for which an admin's reload waits for its turn, and then for its result.
pub const RELOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// The time for which `trunkline reload` waits for its answer.
pub const OPERATOR_RELOAD_TIMEOUT: Duration = Duration::from_secs(70);
/// The time for which other commands wait for a running gateway's answer.
pub const OPERATOR_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// The time for which commands wait for a connection to a running gateway.
pub const OPERATOR_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a running gateway's answer.
pub const OPERATOR_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of arguments that `trunkline call` reads from standard input.
pub const CALL_INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Calls in flight in one session. More get an error.
pub const SESSION_CALLS_MAX: usize = 256;
/// Questions of servers that one session has open. More are answered with an error.
pub const QUESTIONS_PER_SESSION_MAX: usize = 32;
/// The time between two looks at the access tokens of open streams: a stream ends at most so much
/// later than its token.
pub const LEASE_CHECK_INTERVAL: Duration = Duration::from_secs(15);
/// Tasks whose principal is remembered. Past it, expired tasks are forgotten, then the oldest of
/// the principal that has most; a forgotten task is unknown to all clients.
pub const TASKS_MAX: usize = 8192;
/// Bytes of the server's own id of a task that is remembered.
pub const TASK_ID_BYTES_MAX: usize = 1024;
/// Streams of one session that are remembered for resuming; the least likely to be missed are
/// forgotten.
pub const RESUMABLE_STREAMS_MAX: usize = 16;
/// GET streams of one session where none can be resumed; the oldest is closed.
pub const SESSION_STREAMS_MAX: usize = RESUMABLE_STREAMS_MAX;
/// The time for which a stream can be resumed after its response was sent.
pub const RESUMABLE_STREAM_LIFE: Duration = Duration::from_secs(300);
/// Bytes of all events kept for resuming, over all sessions. Past it new events are not kept.
pub const EVENT_LOGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The time that a client whose connection broke is asked to wait before it resumes.
pub const STREAM_RETRY: Duration = Duration::from_millis(1000);
/// Servers that reloads have ended and whose calls are awaited; past it, the calls of the
/// oldest ones are cut off.
pub const RETIRING_UPSTREAMS_MAX: usize = 1024;

/// Sets of users' own credentials with which servers are reached at once, over all servers. Each
/// has sessions and a supervisor of its own.
pub const USER_UPSTREAMS_MAX: usize = 512;

/// Failures of users' own upstreams at one server that `/status` tells.
pub const USER_FAILURES_TOLD_MAX: usize = 20;

/// The time between two looks for users' own credentials that are no longer used.
pub const USER_UPSTREAMS_SWEEP: Duration = Duration::from_secs(5);
/// The time between two lines that say of one server that it cannot be reached for some user.
pub const UNUSABLE_USER_TOLD_INTERVAL: Duration = Duration::from_secs(60);
/// The time before a configuration that could be applied in part only is applied again.
pub const RELOAD_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// The time for which a running reload may delay a stop.
pub const RELOAD_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for a process that replaces this one to begin to serve.
pub const FOLLOWER_START_TIMEOUT: Duration = Duration::from_secs(60);
/// The time for such a process that does not come to serve to end by itself.
pub const FOLLOWER_END_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which a new process that serves waits to be the service, in the manager's eyes.
pub const FOLLOWED_TIMEOUT: Duration = Duration::from_secs(5);
/// The time between two looks for streams that a replaced process may end.
pub const LEAVE_TICK: Duration = Duration::from_millis(100);
/// The time between two looks at the configuration's file.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Changes that wait for the catalogue thread.
pub const CATALOGUE_INBOX_CHANGES_MAX: usize = 1024;
/// The time for which waiting reports are gathered for one snapshot; the cost of a merge grows
/// with all servers' lists.
pub const CATALOGUE_GATHERED_WITHIN: Duration = Duration::from_millis(250);
/// Pages of one upstream list that are read; a longer list is cut there.
pub const UPSTREAM_LIST_PAGES_MAX: usize = 1000;
/// Lines waiting for the log thread. Full drops lines and counts them.
pub const LOG_QUEUE_LINES_MAX: usize = 4096;
/// Bytes of one log line; longer ones are cut.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// Lines of one kind that others can cause, logged in [`LOG_REPEATS_WITHIN`]; more are counted.
pub const LOG_REPEATS_MAX: usize = 10;
/// The interval of [`LOG_REPEATS_MAX`].
pub const LOG_REPEATS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's id (`X-Request-Id`); a longer one is replaced by the gateway's own.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Characters of one field of an access line.
pub const ACCESS_TEXT_CHARS_MAX: usize = 128;
/// Characters of a failure in an access line.
pub const ACCESS_ERROR_CHARS_MAX: usize = 256;
/// Lines of refused requests of one peer and key, for one reason, in [`REFUSAL_LINES_WITHIN`]; more
/// are counted.
pub const REFUSAL_LINES_ALIKE_MAX: usize = 3;
/// Lines of the log about refusals, of all peers, keys and reasons together.
pub const REFUSAL_LINES_MAX: usize = 50;
/// The interval of [`REFUSAL_LINES_ALIKE_MAX`].
pub const REFUSAL_LINES_WITHIN: Duration = Duration::from_secs(1);
/// Calls and refusals that one watcher of `/status/events` is sent in [`ACTIVITY_WITHIN`]; more
/// are counted.
pub const ACTIVITY_EVENTS_MAX: usize = 200;
/// The interval of [`ACTIVITY_EVENTS_MAX`].
pub const ACTIVITY_WITHIN: Duration = Duration::from_secs(1);
/// Peers, keys and reasons of refused requests that are counted apart at once.
pub const REFUSAL_KINDS_MAX: usize = 256;
/// Series of calls by server, tool and key in the metrics; further ones count as `other`.
pub const TOOL_SERIES_MAX: usize = 1000;
/// Spans that wait for the thread which sends them. Full drops spans and counts them.
pub const OTLP_QUEUE_SPANS_MAX: usize = 2048;
/// Spans that are sent together.
pub const OTLP_BATCH_SPANS_MAX: usize = 512;
/// Connections of `admin_listen` at once: of a scraper and a person or two.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// Names waiting for the resolver thread.
pub const RESOLVER_QUEUE_NAMES_MAX: usize = 256;
/// Names that are resolved at once; each holds a thread while the system resolves it.
pub const RESOLVER_THREADS_MAX: usize = 4;
/// The time for which a resolved name is used before it is resolved anew.
pub const RESOLVER_TTL: Duration = Duration::from_secs(30);
/// Messages waiting to be written to one child.
pub const CHILD_OUTBOX_MESSAGES_MAX: usize = 256;
/// Waiting messages from which on those that are no requests are dropped.
pub const CHILD_OUTBOX_SAID_MAX: usize = CHILD_OUTBOX_MESSAGES_MAX / 2;
/// Bytes of those messages together; one that waits alone may be larger.
pub const CHILD_OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Clients' notifications that wait to be written to one child, besides those messages; more are
/// dropped.
pub const CHILD_OUTBOX_NOTIFICATIONS_MAX: usize = 176;
/// Bytes of those notifications together; one that waits alone may be larger.
pub const CHILD_OUTBOX_NOTIFICATION_BYTES_MAX: usize = 11 * 1024 * 1024;
/// Messages of one call that wait for its thread (shared connections); the oldest notice is
/// dropped.
pub const CALL_INBOX_MESSAGES_MAX: usize = 1024;
/// The time that a child has from the end of its input to SIGTERM, and from there to SIGKILL.
pub const CHILD_GRACE: Duration = Duration::from_secs(2);
/// The shortest wait between two attempts to reach a server.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// The longest wait between two attempts to reach a server.
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest wait that a server can ask for (`Retry-After`, `retry` of an event stream).
pub const BACKOFF_ASKED_MAX: Duration = Duration::from_secs(3600);
/// The shortest wait before a stream is requested again whose server has sent something on it,
/// and a time to wait (`retry`).
pub const STREAM_POLL_MIN: Duration = Duration::from_secs(1);
/// Ended sessions that had answered calls and are opened again without a wait; the number is
/// reset when a session was well for [`BACKOFF_RESET_AFTER`].
pub const SESSION_REOPENINGS_FREE: u32 = 3;
/// The shortest wait between two starts of a child that ends by itself.
pub const CHILD_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// The longest wait between two starts of a child that ends by itself.
pub const CHILD_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// The time after which a child that is well gets the shortest backoff again.
pub const CHILD_BACKOFF_RESET_AFTER: Duration = Duration::from_secs(60);
/// Restarts without a wait, of a child that has answered calls before it ended; the number is
/// reset when the child was well for [`CHILD_BACKOFF_RESET_AFTER`].
pub const CHILD_RESTARTS_FREE: u32 = 8;
/// Failed attempts in a row to use a server before its calls are refused at once.
pub const BREAKER_FAILURES_MAX: u32 = 5;
/// The time from the last failed attempt until a call may try the server, before its supervisor
/// does.
pub const PROBE_BY_CALL_INTERVAL: Duration = Duration::from_secs(1);
/// A call tries a server not before this many times the time that the last attempt took.
pub const PROBE_PAUSE_FACTOR: u32 = 4;
/// The time for a control message (cancellation, end of a session) to be delivered.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
/// The time for which the first call over a client's own session waits for the server's GET
/// stream, on which questions may come.
pub const LISTEN_TIMEOUT: Duration = Duration::from_millis(500);
/// The time for a server's answer to `server/discover`, before silence is taken for the legacy
/// era, or another child gets the other era's request.
pub const ERA_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for the answer of a child whose era was found before; then the other era is tried, in
/// case it has changed.
pub const ERA_RECHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// The time between two looks at whether a child that starts has read its first request.
pub const CHILD_START_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Lines of a child's output before its first answer that are no messages. Past it the child is
/// not taken for a server.
pub const CHILD_START_NONSENSE_LINES_MAX: usize = 10_000;
/// The time from a cancelled call to the end of the session that carried it alone.
pub const SPOILT_SESSION_GRACE: Duration = Duration::from_millis(500);
/// The time without use after which an upstream session for calls of stateless clients ends.
pub const STATELESS_SESSION_IDLE: Duration = Duration::from_secs(60);
/// The time since its last use for which an idle session of a client's own is not ended for a
/// principal that holds as many sessions with the server, or more.
pub const SESSION_SPARED: Duration = Duration::from_secs(10);
/// The least time that a parked call's client has to come back with answers before the call may
/// be ended to make room for another's session.
pub const PARKED_GRACE: Duration = Duration::from_secs(4);
/// The time after the cancellation of a call that wanted log messages for which those of a child
/// are dropped: one that names no call could be of that call.
pub const STRAY_LOG_TIME: Duration = Duration::from_millis(250);
/// The time after a call that was not answered for which its server may still send a message
/// about it on a session that clients share: the server is told of the end, and may heed that
/// late.
pub const UNANSWERED_CALL_TIME: Duration = Duration::from_secs(5);
/// The time by which a server's message on a stream of its own may come after an answer that the
/// server sent later on another stream.
pub const LATE_MESSAGE_TIME: Duration = Duration::from_millis(250);
/// The time since its last call for which a principal may be meant by a server's message outside
/// of calls.
pub const LATELY_TIME: Duration = Duration::from_secs(60);
/// Principals of which the last call is remembered, by server.
pub const CALLERS_REMEMBERED_MAX: usize = 1024;
/// The time for which a replaced stream of a server is still read: messages that were sent
/// before may be on their way.
pub const SUPERSEDED_STREAM_TIME: Duration = Duration::from_secs(1);
/// Replaced streams of one server that are read at once; the oldest is ended sooner.
pub const SUPERSEDED_STREAMS_MAX: usize = 2;
/// Messages on such streams that are kept until it is known if the new stream repeats them.
pub const SUPERSEDED_NEWS_MAX: usize = 256;
/// Shares of a bounded resource: no principal is kept from 1/N by the others, and no principal
/// has more than all but 1/N, where there are not more principals than that.
pub const SHARES_MIN: usize = 4;
/// The time without use after which a session without an open stream does not count any more in
/// the check that one principal alone shares a session with a server.
pub const ABSENT_SESSION_TIME: Duration = Duration::from_secs(60);
/// The time between two sweeps of a server's unused connections.
pub const SLOTS_SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// The time between two checks of a server that is well.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// The least time between two readings of a list whose freshness is over.
pub const LIST_TTL_MIN: Duration = Duration::from_secs(10);
/// The time between two readings of a list because of unknown names that the list does not bring.
pub const UNKNOWN_NAME_RELIST_INTERVAL: Duration = Duration::from_secs(5);
/// The time for which a request for an unknown name waits for a list that is read again.
pub const LIST_REREAD_TIMEOUT: Duration = Duration::from_secs(2);
/// The time after the start for which the first lists of required servers are awaited.
pub const REQUIRED_LISTS_TIMEOUT: Duration = Duration::from_secs(60);
/// The least time for which `trunkline stdio` waits at its start for its servers' first lists.
pub const STDIO_FIRST_LISTS_TIMEOUT: Duration = Duration::from_secs(10);
/// The time after its first answer for which a child's standard error may still be about the
/// first era's request.
pub const ERA_NOISE_TIME: Duration = Duration::from_secs(5);
/// The time for a server that declares no tools to list some all the same.
pub const UNDECLARED_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The share of `limits.connections`, as 1/N, whose requests wait for lists at once. More are
/// answered at once from the present lists.
pub const LIST_WAITERS_DIVISOR: usize = 4;
/// The time between two readings of a list whose upstream announces change after change.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(1);
/// The time for which a list waits for the client's view. The shared list is served where the
/// view does not come in time.
pub const VIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// The time without use after which a view is dropped.
pub const VIEW_IDLE: Duration = Duration::from_secs(1800);
/// The time without use after which a view is not read again when its server's lists may have
/// changed, but only when it is needed again.
pub const VIEW_REREAD_WITHIN: Duration = Duration::from_secs(900);
/// The share of `limits.views`, as 1/N, that one principal may have read at one server, and not
/// less than [`VIEWS_SHARE_MIN`].
pub const VIEWS_SHARE_DIVISOR: usize = 4;
/// The least number of views in that share.
pub const VIEWS_SHARE_MIN: usize = 2;
/// Bytes of the items of one page of a list, as the catalogue has them; a larger item is a page
/// of its own.
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of pages that are kept as text while they are not being sent; those that were not used
/// for longest are dropped.
pub const PAGES_KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// The time since its last use for which a page is kept so.
pub const PAGES_KEPT_TIME: Duration = Duration::from_secs(4);
/// The number of pages that are kept so.
pub const PAGES_KEPT_MAX: usize = 256;
/// Bytes of all items of one list, or of all lists of one view, where
/// `limits.upstream_result_bytes` is not less. The rest is left out and counted.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of the items of one view that differ from the shared ones. The rest is left out and
/// counted.
pub const VIEW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes for which an item of a view counts beside its text: its names, and its places in lists.
pub const VIEW_ITEM_BYTES: usize = 256;
/// Bytes of the items of views, over all servers and views.
pub const VIEWS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Views of one server that are read at once, with those that wait for their place among the
/// others. One principal may have all but one of them.
pub const VIEW_READINGS_MAX: usize = 4;
/// Catalogues that are kept merged for clients with different capabilities. More are merged anew.
pub const VIEW_CATALOGUES_MAX: usize = 128;
/// Items with links that are kept for clients that see only some servers. More are made anew.
pub const SEEN_ITEMS_MAX: usize = 4096;
/// Control messages (cancellations, answers to a server's requests) that wait to be sent to one
/// server; more are dropped.
pub const CONTROL_QUEUE_MESSAGES_MAX: usize = 512;
/// Clients' notifications that wait to be sent to one server; more are dropped.
pub const CONTROL_NOTIFICATIONS_MAX: usize = 704;
/// Messages besides answers that one stream of a server may bring in
/// [`UNASKED_MESSAGES_WITHIN`]. Past it the stream is left unread for the rest of that time.
pub const UNASKED_MESSAGES_MAX: usize = 500;
/// The interval of [`UNASKED_MESSAGES_MAX`].
pub const UNASKED_MESSAGES_WITHIN: Duration = Duration::from_millis(100);
/// The factor on `limits.upstream_event_bytes` past which a child's line is taken for one without
/// end, and the child is ended.
pub const CHILD_LINE_ENDLESS_FACTOR: usize = 4;
/// Characters of the name of a tool or prompt. An item with a longer name is left out.
pub const OWN_NAME_CHARS_MAX: usize = 1024;
/// Levels of a tool's schemas in which keywords that are null are removed; deeper ones pass
/// unchanged.
pub const SCHEMA_LEVELS_MENDED_MAX: usize = 16;
/// Items of one list that cannot be offered and are named in the log and in `/status`; all are
/// counted.
pub const LEFT_OUT_NAMED_MAX: usize = 100;
/// Subscriptions of which a server is told before its supervisor does its other duties.
pub const SUBSCRIPTIONS_A_TURN: usize = 16;
/// Resources of one server that are subscribed to at once.
pub const UPSTREAM_SUBSCRIPTIONS_MAX: usize = 4096;
/// Bytes of the URI of one of them.
pub const SUBSCRIPTION_URI_BYTES_MAX: usize = 8192;
/// Threads, each with its own connection, that send control messages.
pub const CONTROL_LANES_MAX: usize = 2;
/// Bytes of the input buffer and of the output buffer of one upstream connection. A buffer that
/// has become larger is given back while its request waits.
pub const UPSTREAM_BUFFER_BYTES: usize = 16 * 1024;
/// The idle time after which a kept connection is not used again. It is shorter than the time
/// after which common servers close one (5 s), so that both do not happen at the same moment.
pub const UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(4);
/// Bytes of a finished stream's end that are read so that its connection can be used again.
pub const UPSTREAM_DRAIN_BYTES_MAX: usize = 64 * 1024;
/// Redirects that one request to a server follows; one more is an error.
pub const UPSTREAM_REDIRECTS_MAX: usize = 5;
/// The time for which the next call on that connection waits for it; past it there is a new
/// connection.
pub const UPSTREAM_DRAIN_TIMEOUT: Duration = Duration::from_millis(5);
/// The shortest wait before a stream that its server closed is requested again.
pub const STREAM_RESUME_MIN: Duration = Duration::from_millis(100);
/// The longest wait before a call's stream is requested again, unless its server asks for a
/// longer one.
pub const STREAM_RESUME_MAX: Duration = Duration::from_secs(5);
/// The time after which a stream counts as one that its server does not close at once.
pub const STREAM_LASTED: Duration = Duration::from_secs(5);
/// Bytes from which on a server's answer counts against `limits.buffered_bytes`; smaller
/// answers are not counted.
pub const RESULT_BYTES_COUNTED_FROM: usize = 64 * 1024;
/// Ids of sessions of one server that are removed from texts as secrets.
pub const LEARNED_SECRETS_MAX: usize = 256;
/// Bytes of all these ids.
pub const LEARNED_SECRETS_BYTES_MAX: usize = 64 * 1024;
/// Characters of a server's text in an error or a log line.
pub const UPSTREAM_TEXT_CHARS_MAX: usize = 200;
/// Bytes of the report of another gateway, that of `--url`, on servers behind it that are not
/// well.
pub const UNWELL_BEHIND_BYTES_MAX: usize = 256 * 1024;
/// Characters of a server's `WWW-Authenticate` that clients are told.
pub const UPSTREAM_CHALLENGE_CHARS_MAX: usize = 1000;
/// Characters of the message of a server's own JSON-RPC error that REST is told.
pub const UPSTREAM_ERROR_CHARS_MAX: usize = 4000;
/// Bytes of one line of a child's standard error; longer ones are cut.
pub const CHILD_STDERR_LINE_BYTES_MAX: usize = 4096;
/// Lines of a child's standard error that are logged in [`LOG_REPEATS_WITHIN`]; more are counted.
pub const CHILD_STDERR_LINES_LOGGED_MAX: usize = 500;
/// Different lines of a child's standard error that are remembered, so that a child that is
/// started again and again does not log the same each time.
pub const CHILD_STDERR_LINES_KNOWN_MAX: usize = 1000;
/// The time for which the exit of a child that closed its output is awaited, so that it can be
/// named.
pub const CHILD_EXIT_SEEN: Duration = Duration::from_millis(500);
/// The time after which a server that is well gets the shortest backoff again.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);
/// Names of clients that were logged, each for one quirk. Quirks of further clients are counted
/// without a line.
pub const QUIRK_LINES_MAX: usize = 256;
/// Characters of a client's name in such a line.
pub const CLIENT_NAME_CHARS_MAX: usize = 64;
/// Characters of a foreign `Host` or `Origin` that its refusal quotes.
pub const FOREIGN_CHARS_MAX: usize = 100;
/// Refused names that are named in `/status` and in the log; more are counted.
pub const CLASHES_TOLD_MAX: usize = 256;
/// Logged names that are remembered; past it they may be logged again.
pub const CLASHES_REMEMBERED_MAX: usize = 16 * CLASHES_TOLD_MAX;
/// Offered names changed by a reload that the log names; more are counted.
pub const RENAMED_TOLD_MAX: usize = 1000;
/// Changed names on one line.
pub const RENAMED_A_LINE_MAX: usize = 20;
/// Values of one completion, for clients of revisions that have a bound (2026-07-28, schema).
pub const COMPLETION_VALUES_MAX: usize = 100;
/// Bytes of a file that `trunkline import` reads.
pub const IMPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Values of a YAML file, with those of its aliases.
pub const IMPORT_YAML_NODES_MAX: usize = 100_000;
/// Names that are suggested for an unknown one.
pub const NEAR_NAMES_MAX: usize = 3;
/// The share of the pool, as 1/N, that calls which wait for a server never hold.
pub const POOL_RESERVE_DIVISOR: usize = 8;
/// Bytes of the kernel's send buffer per client connection.
pub const SEND_BUFFER_BYTES: usize = 64 * 1024;

const _: () = assert!(OFFERED_NAME_CHARS_MAX > 9);
const _: () = assert!(2 * RELOAD_ANSWER_TIMEOUT.as_secs() < OPERATOR_RELOAD_TIMEOUT.as_secs());
const _: () = assert!(ENDED_ID_WRITE_TIMEOUT.as_millis() < SESSION_REPLY_TIMEOUT.as_millis());
const _: () = assert!(UPSTREAM_DRAIN_BYTES_MAX <= RESULT_BYTES_COUNTED_FROM);
const _: () = assert!(PAGE_BYTES_MAX < PAGES_KEPT_BYTES_MAX);
const _: () =
    assert!(LISTED_ITEM_BYTES_MAX < VIEW_BYTES_MAX && VIEW_BYTES_MAX < LIST_BYTES_MAX);
const _: () = assert!(PIECE_BYTES >= ALLOCATOR_MAPPED_FROM_BYTES);
const _: () = assert!(LIST_BYTES_MAX + VIEW_BYTES_MAX <= VIEWS_BYTES_MAX);
const _: () = assert!(VIEW_READINGS_MAX >= SHARES_MIN);
const _: () = assert!(BACKOFF_MIN.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(CHILD_BACKOFF_MIN.as_millis() < CHILD_BACKOFF_MAX.as_millis());
const _: () = assert!(PROBE_BY_CALL_INTERVAL.as_millis() < BACKOFF_MAX.as_millis());
const _: () = assert!(RELIST_INTERVAL.as_millis() < LIST_REREAD_TIMEOUT.as_millis());
const _: () = assert!(CONTROL_TIMEOUT.as_millis() <= CHILD_GRACE.as_millis());
