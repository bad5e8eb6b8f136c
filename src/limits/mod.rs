//! Every bound, with its unit, and the relations between them.
//!
//! [`Limits`] holds those that an operator may move (`limits` in `config.json`); the constants
//! here hold for every run.

mod configured;

use std::time::Duration;

pub use configured::Limits;

/// Parts that the C library's allocator is divided into. Each thread uses one of them, and keeps
/// in it what it frees.
pub const ALLOCATOR_ARENAS_MAX: usize = 2;
/// Bytes from which on a piece of memory is mapped by itself, so that it goes back to the system
/// when it is freed.
pub const ALLOCATOR_MAPPED_FROM_BYTES: usize = 128 * 1024;
/// Bytes of freed memory that the allocator keeps at the end of such a part.
pub const ALLOCATOR_KEPT_BYTES: usize = 256 * 1024;
/// Bytes of the stacks of ended threads that are kept for new ones.
pub const STACKS_KEPT_BYTES: usize = 1024 * 1024;
/// A head that is arriving when the process is told to stop has so long for its end. Then it is
/// answered with 503.
pub const DRAINED_HEAD_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection that was used so recently stays open in a drain, so that the request that its client
/// may be sending is answered, with word that the connection ends.
pub const DRAINED_IDLE: Duration = Duration::from_millis(500);
/// Between two looks for connections that a drain may close by now.
pub const DRAIN_LOOK_INTERVAL: Duration = Duration::from_millis(50);
/// Between two looks at whether that has come, while a head arrives slowly.
pub const HEAD_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// How long a thread of the pool waits for a connection before it ends, and gives back its stack.
pub const SPARE_THREAD_LIFE: Duration = Duration::from_secs(5);
/// Stack of a pool thread, in bytes. Unoptimised frames are several times larger.
pub const THREAD_STACK_BYTES: usize =
    if cfg!(debug_assertions) { 1024 * 1024 } else { 128 * 1024 };
/// Levels of nesting in one JSON text. Deeper is refused before it is parsed.
pub const JSON_DEPTH_MAX: usize = 128;
/// Bytes of a JSON text that are read before whoever waits for it is asked whether to go on. A text
/// of no more is read without.
pub const JSON_PIECE_BYTES: usize = 256 * 1024;
/// What a client says of itself in `initialize`: its capabilities, and its name, in bytes each.
/// A session keeps the first.
pub const INTRODUCTION_BYTES_MAX: usize = 16 * 1024;
/// Keys of one JSON object that is taken apart. Its values stay text, so that this bounds the
/// memory which a text made of keys alone can cost.
pub const JSON_OBJECT_KEYS_MAX: usize = 10_000;
/// Elements of one JSON array that is taken apart, for the same reason.
pub const JSON_ARRAY_ELEMENTS_MAX: usize = 100_000;
/// Messages in one JSON-RPC batch (2025-03-26 only).
pub const BATCH_MESSAGES_MAX: usize = 64;
/// Messages in one batch of an upstream's. A larger one is no answer.
pub const UPSTREAM_BATCH_MESSAGES_MAX: usize = 1024;
/// Bytes of the message of a JSON-RPC error. A longer one is cut, and says so.
pub const ERROR_MESSAGE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of the `data` of a JSON-RPC error. Larger data is left out, and the error's message says
/// so.
pub const ERROR_DATA_BYTES_MAX: usize = 64 * 1024;
/// Bytes of the `serverInfo` of an upstream, which is kept as long as the upstream is well and
/// shown in `/status`. Its largest members are left out of a larger one.
pub const SERVER_INFO_BYTES_MAX: usize = 32 * 1024;
/// Bytes of an upstream's capabilities, which are merged for every session. Of larger ones, the
/// largest are kept without their largest members.
pub const SERVER_CAPABILITIES_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one of them where they are too large together.
pub const SERVER_CAPABILITY_BYTES_MAX: usize = 1024;
/// Bytes of an upstream's instructions. Longer ones are cut, and say so.
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
/// Of those, what servers say unasked may take so many: it must not keep clients out.
pub const SESSION_INBOX_UNASKED_MAX: usize = SESSION_INBOX_COMMANDS_MAX / 2;
/// How long an answer of the session thread is waited for. Past it the caller gets 503.
pub const SESSION_REPLY_TIMEOUT: Duration = Duration::from_secs(2);
/// Between two looks at all sessions for the lowest level of log messages that any of those wants
/// who share a session with one server.
pub const LOG_LEVEL_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between two sweeps of the session table.
pub const SESSION_SWEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Ids of ended sessions that are remembered, so that no restart revives them; the oldest go.
pub const ENDED_IDS_MAX: usize = 65_536;
/// How long the end of a session waits until its id is on the disk. Past it, it is answered
/// without.
pub const ENDED_ID_WRITE_TIMEOUT: Duration = Duration::from_secs(1);
/// Lines appended to the file of those ids before it is written anew without what has expired.
pub const STATE_ID_LINES_MAX: usize = 2 * ENDED_IDS_MAX;
/// Bytes of one file in `state_dir`. A larger one is neither written nor read.
pub const STATE_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Unusable files in `state_dir` that are kept for somebody to look at; the oldest go.
pub const STATE_SET_ASIDE_MAX: usize = 8;
/// From a change to its file, so that several become one. The least time between two writes of a
/// file, which doubles while it goes on changing.
pub const STATE_WRITE_DELAY: Duration = Duration::from_millis(250);
/// The longest time between two writes of a file that goes on changing.
pub const STATE_WRITE_INTERVAL_MAX: Duration = Duration::from_secs(300);
/// Tools of one server that are pinned, and items of each other kind; further ones count as
/// changed.
pub const PINNED_TOOLS_MAX: usize = 40_000;
/// Bytes of the file of one server's pins without texts; items beyond it count as changed.
pub const PINS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of one item's text that are kept with its pin, so that it can be shown what has changed.
pub const PINNED_TEXT_BYTES_MAX: usize = 64 * 1024;
/// Bytes of all such texts of one server; further ones are not kept.
pub const PINS_TEXTS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// The same of all servers together.
pub const ALL_PINS_TEXTS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// New items of one list whose names are compared with those that have gone, and so many of these.
pub const SIMILAR_NAMES_MAX: usize = 64;
/// What supervisors have to tell to `trunkline check` and has not been heard yet.
pub const CHECK_REPORTS_MAX: usize = 256;
/// From here on `trunkline check` says of a server that has not answered yet why that may be.
pub const CHECK_SLOW_AFTER: Duration = Duration::from_secs(5);
/// Bytes of a file that a value of the configuration is read from.
pub const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;
/// Bytes of a server's name in the configuration: files are named after it.
pub const SERVER_NAME_BYTES_MAX: usize = 128;
/// Between two looks for what somebody has accepted.
pub const PINS_ACCEPTED_INTERVAL: Duration = Duration::from_secs(1);
/// Before a disk that refused is tried again.
pub const STATE_RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// How long files that wait may go on to be written at the end of the process; what is left is as
/// it was. Ids of ended sessions come first, then pins.
pub const STATE_LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(5);
/// Absolute life of a session token.
pub const SESSION_TOKEN_LIFE: Duration = Duration::from_secs(7 * 24 * 3600);
/// Bytes of client capabilities that a session token carries; larger ones are not revivable.
pub const SESSION_TOKEN_CAPABILITIES_BYTES_MAX: usize = 2048;
/// The longest that any call may wait before its upstream's own times are known.
pub const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);
/// Resources that one session may be subscribed to.
pub const SUBSCRIPTIONS_PER_SESSION_MAX: usize = 1024;
/// From the end of a session to the end of what upstreams keep for it.
pub const ENDED_SESSION_GRACE: Duration = Duration::from_millis(200);
/// Sessions that have ended and whose traces at upstreams are being removed, in shares of their
/// principals; more wait in the session table.
pub const ENDED_SESSIONS_QUEUE_MAX: usize = 1024;
/// Those together with sessions that may see less than before.
pub const TIDIED_SESSIONS_MAX: usize = 2 * ENDED_SESSIONS_QUEUE_MAX;
/// Subscriptions of one principal that are taken back before it is another's turn.
pub const TIDIED_SUBSCRIPTIONS_A_TURN: usize = 16;
/// A server that did not answer when a subscription was taken back is not asked again for so long
/// while there is more to do.
pub const TIDY_GIVEN_UP_TIME: Duration = Duration::from_secs(10);
/// How long after a server's first request during a stateless client's call further ones are
/// waited for, so that they are put to the client together. Each that comes meanwhile lets the
/// wait begin anew.
pub const QUESTIONS_GATHERED_WITHIN: Duration = Duration::from_millis(60);
/// How long that takes at most.
pub const QUESTIONS_GATHERED_MAX: Duration = Duration::from_millis(180);
/// Bytes of the notices that wait for a stateless client's request; one that waits alone may be
/// larger.
pub const CALL_NOTICES_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of a URI that is looked for among resource templates, and of a template; for longer ones
/// no template is tried, because trying costs their product.
pub const TEMPLATE_BYTES_MAX: usize = 8192;
/// What looking for a URI among one server's templates may cost, in steps: a step is a template
/// or a byte that is looked at, a few nanoseconds. Past it, none of them covers the URI.
pub const TEMPLATES_STEPS_MAX: usize = 1_000_000;
/// The same over all servers.
pub const LOOK_UP_STEPS_MAX: usize = 8 * TEMPLATES_STEPS_MAX;
/// What looking for all links of one result may cost, in steps; further ones are given the NAME
/// without a look.
pub const RESULT_LINKS_STEPS_MAX: usize = LOOK_UP_STEPS_MAX;
/// What looking for the links in all servers' items of one kind may cost, in steps; each server
/// has an equal share for its own. Past it they are given the NAME without a look.
pub const MERGED_LINKS_STEPS_MAX: usize = 4 * LOOK_UP_STEPS_MAX;
/// Links of one result that are looked up, to see whether they lead back to their server as they
/// are; further ones are given its NAME without a look.
pub const LINKS_LOOKED_UP_MAX: usize = 256;
/// Bytes of such a link, or of one in an item of a list; a longer one is given the NAME.
pub const LINK_LOOKED_UP_BYTES_MAX: usize = 2048;
/// Parameters that one tool may want mirrored into headers. With more its definition is invalid.
pub const MIRRORED_PARAMETERS_MAX: usize = 64;
/// How long all resources that one `subscriptions/listen` names may take to be subscribed to.
pub const LISTEN_SUBSCRIBE_TIMEOUT: Duration = Duration::from_secs(4);
/// Times that one call may want input of a client with a session before it is given up, and of
/// a stateless one before the next retry costs a further call.
pub const INPUT_ROUNDS_MAX: usize = 32;
/// Things that it may want at once.
pub const INPUT_REQUESTS_MAX: usize = 32;
/// Bytes of all that it wants at once, and of one request of a server with sessions to a client:
/// as many as a client may send by default. More is an error that says so.
pub const INPUT_REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of the `requestState` that a server without sessions wants back, which each retry
/// carries. A longer one is no result.
pub const REQUEST_STATE_BYTES_MAX: usize = 256 * 1024;
/// States of stateless clients that have come back and are remembered until they expire, since a
/// retry is free once. Past it retries cost calls.
pub const USED_STATES_MAX: usize = 8192;
/// Before a server that wants nothing but a retry gets it.
pub const INPUT_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Requests in flight of a client over standard input and output; each has a thread. More get an
/// error.
pub const STDIO_REQUESTS_MAX: usize = 256;
/// How long a client that has ended its input may take to read what it is still answered.
pub const STDIO_LAST_WRITES_TIMEOUT: Duration = Duration::from_secs(1);
/// How long an admin who asks for a reload waits for its turn, and then for what came of it.
pub const RELOAD_ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long `trunkline reload` waits for its answer.
pub const OPERATOR_RELOAD_TIMEOUT: Duration = Duration::from_secs(70);
/// How long other commands wait for a running gateway's answer, and to reach it.
pub const OPERATOR_ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// See [`OPERATOR_ANSWER_TIMEOUT`].
pub const OPERATOR_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of such an answer.
pub const OPERATOR_ANSWER_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Bytes of arguments that `trunkline call` reads from standard input.
pub const CALL_INPUT_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Calls in flight in one session. More get an error.
pub const SESSION_CALLS_MAX: usize = 256;
/// Questions of servers that one session has open. More are answered with an error.
pub const QUESTIONS_PER_SESSION_MAX: usize = 32;
/// Tasks whose principal is remembered. Past it what is over goes, then the oldest of whoever
/// has most; a task that is not remembered is unknown to everybody.
pub const TASKS_MAX: usize = 8192;
/// Bytes of a server's id of a task that is remembered.
pub const TASK_ID_BYTES_MAX: usize = 1024;
/// Streams of one session that are remembered for resuming; the least likely to be missed go.
pub const RESUMABLE_STREAMS_MAX: usize = 16;
/// Streams that one session has open by GET where none can be resumed; the oldest goes.
pub const SESSION_STREAMS_MAX: usize = RESUMABLE_STREAMS_MAX;
/// How long a stream whose response was sent can be resumed.
pub const RESUMABLE_STREAM_LIFE: Duration = Duration::from_secs(300);
/// Bytes of all events kept for resuming, over all sessions. Past it new events are not kept.
pub const EVENT_LOGS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a client whose connection broke is asked to wait before it resumes.
pub const STREAM_RETRY: Duration = Duration::from_millis(1000);
/// Upstreams that reloads have ended and whose calls are waited for; past it, the calls of those
/// that wait for longest are cut off.
pub const RETIRING_UPSTREAMS_MAX: usize = 1024;
/// Before a configuration that could be taken over in part only is taken over again.
pub const RELOAD_RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long a reload that is under way may hold up a stop.
pub const RELOAD_STOP_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a process that follows this one may take until it serves.
pub const FOLLOWER_START_TIMEOUT: Duration = Duration::from_secs(60);
/// How long one that does not come to serve may take to end by itself.
pub const FOLLOWER_END_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a process that serves waits to be the service, in the manager's eyes.
pub const FOLLOWED_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks for streams that a process which is followed may end.
pub const LEAVE_TICK: Duration = Duration::from_millis(100);
/// Between two looks at the configuration's file.
pub const WATCH_INTERVAL: Duration = Duration::from_secs(1);
/// Changes waiting for the catalogue thread.
pub const CATALOGUE_INBOX_CHANGES_MAX: usize = 1024;
/// How long reports that wait go on to be gathered for one snapshot; what merging costs grows with
/// all servers' lists.
pub const CATALOGUE_GATHERED_WITHIN: Duration = Duration::from_millis(250);
/// Pages of one upstream list that are walked; a longer one is cut there.
pub const UPSTREAM_LIST_PAGES_MAX: usize = 1000;
/// Lines waiting for the log thread. Full drops lines and counts them.
pub const LOG_QUEUE_LINES_MAX: usize = 4096;
/// Bytes of one log line; longer ones are cut.
pub const LOG_LINE_BYTES_MAX: usize = 4096;
/// Lines of one kind, of what others make happen, that are logged in [`LOG_REPEATS_WITHIN`]; more
/// are counted.
pub const LOG_REPEATS_MAX: usize = 10;
/// See [`LOG_REPEATS_MAX`].
pub const LOG_REPEATS_WITHIN: Duration = Duration::from_secs(10);
/// Bytes of a request's name (`X-Request-Id`); a longer one is replaced by one of our own.
pub const REQUEST_ID_BYTES_MAX: usize = 64;
/// Characters of one field of an access line.
pub const ACCESS_TEXT_CHARS_MAX: usize = 128;
/// Characters of what an access line tells of a failure.
pub const ACCESS_ERROR_CHARS_MAX: usize = 256;
/// Lines of refused requests of one peer and key, for one reason, in [`REFUSAL_LINES_WITHIN`]; more
/// are counted.
pub const REFUSAL_LINES_ALIKE_MAX: usize = 3;
/// The same of all peers, keys and reasons.
pub const REFUSAL_LINES_MAX: usize = 50;
/// See [`REFUSAL_LINES_ALIKE_MAX`].
pub const REFUSAL_LINES_WITHIN: Duration = Duration::from_secs(1);
/// Calls and refusals that one watcher of `/status/events` is told of in [`ACTIVITY_WITHIN`]; more
/// are counted.
pub const ACTIVITY_EVENTS_MAX: usize = 200;
/// See [`ACTIVITY_EVENTS_MAX`].
pub const ACTIVITY_WITHIN: Duration = Duration::from_secs(1);
/// Peers, keys and reasons of refused requests that are told apart at once.
pub const REFUSAL_KINDS_MAX: usize = 256;
/// Series of calls by server, tool and key in the metrics; further ones count as `other`.
pub const TOOL_SERIES_MAX: usize = 1000;
/// Spans that wait for the thread which sends them. Full drops spans and counts them.
pub const OTLP_QUEUE_SPANS_MAX: usize = 2048;
/// Spans that are sent together.
pub const OTLP_BATCH_SPANS_MAX: usize = 512;
/// Connections at once of `admin_listen`: of a scraper and a person or two.
pub const ADMIN_CONNECTIONS_MAX: usize = 16;
/// Names waiting for the resolver thread.
pub const RESOLVER_QUEUE_NAMES_MAX: usize = 256;
/// Names that are resolved at once; each holds a thread while the system is at it.
pub const RESOLVER_THREADS_MAX: usize = 4;
/// How long a resolved name is used before it is resolved anew.
pub const RESOLVER_TTL: Duration = Duration::from_secs(30);
/// Messages waiting to be written to one child.
pub const CHILD_OUTBOX_MESSAGES_MAX: usize = 256;
/// Those that are no requests are dropped once so many wait.
pub const CHILD_OUTBOX_SAID_MAX: usize = CHILD_OUTBOX_MESSAGES_MAX / 2;
/// Bytes of those messages together; one that waits alone may be larger.
pub const CHILD_OUTBOX_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Clients' notifications that wait to be written to one child, besides those messages; more are
/// dropped.
pub const CHILD_OUTBOX_NOTIFICATIONS_MAX: usize = 176;
/// Bytes of those notifications together; one that waits alone may be larger.
pub const CHILD_OUTBOX_NOTIFICATION_BYTES_MAX: usize = 11 * 1024 * 1024;
/// Messages of one call that wait for its thread (shared connections); the oldest notice goes.
pub const CALL_INBOX_MESSAGES_MAX: usize = 1024;
/// How long a child has from the end of its input to SIGTERM, and from there to SIGKILL.
pub const CHILD_GRACE: Duration = Duration::from_secs(2);
/// Shortest and longest wait between two attempts to reach an upstream.
pub const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// See [`BACKOFF_MIN`].
pub const BACKOFF_MAX: Duration = Duration::from_secs(30);
/// The longest wait that a server can ask for (`Retry-After`, `retry` of an event stream).
pub const BACKOFF_ASKED_MAX: Duration = Duration::from_secs(3600);
/// A stream whose server said something on it and how long to wait (`retry`) is asked for again
/// after that, and never sooner than this.
pub const STREAM_POLL_MIN: Duration = Duration::from_secs(1);
/// Sessions that ended after they had answered calls and are opened again without a wait; they
/// come back when one was well for [`BACKOFF_RESET_AFTER`].
pub const SESSION_REOPENINGS_FREE: u32 = 3;
/// Shortest and longest wait between two starts of a child that ends by itself.
pub const CHILD_BACKOFF_MIN: Duration = Duration::from_secs(1);
/// See [`CHILD_BACKOFF_MIN`].
pub const CHILD_BACKOFF_MAX: Duration = Duration::from_secs(300);
/// A child that was well for so long starts again with the shortest backoff.
pub const CHILD_BACKOFF_RESET_AFTER: Duration = Duration::from_secs(60);
/// Restarts without a wait, of a child that has answered calls before it ended; they come back
/// when it was well for [`CHILD_BACKOFF_RESET_AFTER`].
pub const CHILD_RESTARTS_FREE: u32 = 8;
/// Attempts to use an upstream that fail in a row before its calls are refused at once.
pub const BREAKER_FAILURES_MAX: u32 = 5;
/// From the last attempt that failed until a call may see whether the upstream is back, before
/// its supervisor tries again.
pub const PROBE_BY_CALL_INTERVAL: Duration = Duration::from_secs(1);
/// So many times as long as the last attempt took, at least, is waited before a call tries.
pub const PROBE_PAUSE_FACTOR: u32 = 4;
/// How long a control message (cancellation, end of a session) may take to be delivered.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first call over a client's own session waits for the upstream's stream to be
/// there, on which it may be asked something.
pub const LISTEN_TIMEOUT: Duration = Duration::from_millis(500);
/// How long an upstream is asked which era it speaks, before silence is taken for the older
/// one, or another child is asked the other question.
pub const ERA_PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// The same of a child whose era was found before, and is only asked for the other one in case
/// that has changed.
pub const ERA_RECHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// Between two looks at whether a child that starts has read what it was asked.
pub const CHILD_START_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Lines of a child's output that are no messages and may come before its first answer. Past it
/// the child is taken for something else than a server.
pub const CHILD_START_NONSENSE_LINES_MAX: usize = 10_000;
/// From a cancelled call to the end of the session that carried it alone.
pub const SPOILT_SESSION_GRACE: Duration = Duration::from_millis(500);
/// A session with an upstream for calls of stateless clients that is unused for so long ends.
pub const STATELESS_SESSION_IDLE: Duration = Duration::from_secs(60);
/// An idle session of a client's own that was used within this time is not ended for one who holds
/// as many sessions with the server, or more.
pub const SESSION_SPARED: Duration = Duration::from_secs(10);
/// A call whose client has so long to come back with answers, at least, is not ended to make
/// room for another one's session.
pub const PARKED_GRACE: Duration = Duration::from_secs(4);
/// For so long after a call that wanted log messages was cancelled, those of a child are for
/// nobody: one that names no call could be of that one.
pub const STRAY_LOG_TIME: Duration = Duration::from_millis(250);
/// For so long after a call that was not answered its server may still say something about it on
/// a session that clients share: it is told of the end, and may heed that late.
pub const UNANSWERED_CALL_TIME: Duration = Duration::from_secs(5);
/// What a server says on a stream of its own may come so long after the answer that it said later
/// on another one.
pub const LATE_MESSAGE_TIME: Duration = Duration::from_millis(250);
/// Whoever called a server within this time may be meant by what it says outside of calls.
pub const LATELY_TIME: Duration = Duration::from_secs(60);
/// Principals that are remembered for that, by server.
pub const CALLERS_REMEMBERED_MAX: usize = 1024;
/// For so long a stream of an upstream is read on whose place another one has taken: what was
/// said before that may still be on its way.
pub const SUPERSEDED_STREAM_TIME: Duration = Duration::from_secs(1);
/// Streams of one upstream that are read on so at once; the oldest is ended sooner.
pub const SUPERSEDED_STREAMS_MAX: usize = 2;
/// Things told on such streams that are kept until it is known whether others tell them too.
pub const SUPERSEDED_NEWS_MAX: usize = 256;
/// Of a bounded resource no principal is kept from 1/N by the others, and no principal has more
/// than all but 1/N, where there are not more principals than that.
pub const SHARES_MIN: usize = 4;
/// A session without an open stream that is unused for so long counts no longer where it is asked
/// whether one principal alone shares a session with a server.
pub const ABSENT_SESSION_TIME: Duration = Duration::from_secs(60);
/// How often connections to an upstream that no call uses any more are let go.
pub const SLOTS_SWEEP_INTERVAL: Duration = Duration::from_secs(30);
/// Between two looks at an upstream that is well.
pub const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// A list is read again when its time is over, but not sooner than this after the last time.
pub const LIST_TTL_MIN: Duration = Duration::from_secs(10);
/// Between two readings of a list because of names that are not in it, and that none of these
/// brings.
pub const UNKNOWN_NAME_RELIST_INTERVAL: Duration = Duration::from_secs(5);
/// How long a request for an unknown name waits for a list that is read again.
pub const LIST_REREAD_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first lists of servers that are required are waited for after the start.
pub const REQUIRED_LISTS_TIMEOUT: Duration = Duration::from_secs(60);
/// So long at least `trunkline stdio` waits at its start for the first lists of its servers.
pub const STDIO_FIRST_LISTS_TIMEOUT: Duration = Duration::from_secs(10);
/// How long after its first answer a child's standard error may still be about the question that
/// it was asked first.
pub const ERA_NOISE_TIME: Duration = Duration::from_secs(5);
/// How long a server that declares no tools may take to list some all the same.
pub const UNDECLARED_LIST_TIMEOUT: Duration = Duration::from_secs(5);
/// The share of `limits.connections`, as 1/N, whose requests wait for lists at once. More are
/// answered as things stand.
pub const LIST_WAITERS_DIVISOR: usize = 4;
/// Between two readings of a list whose upstream says again and again that it has changed.
pub const RELIST_INTERVAL: Duration = Duration::from_secs(1);
/// How long a list waits for what only the client that asks sees in it. It has what all see where
/// that does not come in time.
pub const VIEW_TIMEOUT: Duration = Duration::from_secs(5);
/// What was read for one kind of clients, and is not asked for so long, is dropped.
pub const VIEW_IDLE: Duration = Duration::from_secs(1800);
/// What was read for one kind of clients, and is not asked for so long, is not read again when its
/// server's lists may have changed: it is when it is wanted again.
pub const VIEW_REREAD_WITHIN: Duration = Duration::from_secs(900);
/// One principal may have so large a part of `limits.views` read
/// at one server: a quarter, and not less than [`VIEWS_SHARE_MIN`].
pub const VIEWS_SHARE_DIVISOR: usize = 4;
/// So many views, however few may be.
pub const VIEWS_SHARE_MIN: usize = 2;
/// Bytes of the items of one page of a list, as the catalogue has them; a larger item is a page
/// of its own.
pub const PAGE_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of pages that are kept as text though nobody is being given them; the ones that were not
/// used for longest go.
pub const PAGES_KEPT_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How long they are kept so, since they were used last.
pub const PAGES_KEPT_TIME: Duration = Duration::from_secs(4);
/// How many they are.
pub const PAGES_KEPT_MAX: usize = 256;
/// Bytes of all items of one list, or of all lists that are read for one kind of clients, where
/// `limits.upstream_result_bytes` is not less. The rest is left out and counted.
pub const LIST_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of those items of one view that are others than what all see. The rest is left out and
/// counted.
pub const VIEW_BYTES_MAX: usize = 4 * 1024 * 1024;
/// What an item of a view counts beside its text, in bytes: its names, and its places in lists.
pub const VIEW_ITEM_BYTES: usize = 256;
/// Bytes of the items of views, over all servers and views.
pub const VIEWS_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Views of one server that are read at once, with those that wait for their place among the
/// others. One principal may have all but one of them.
pub const VIEW_READINGS_MAX: usize = 4;
/// What clients with so many different capabilities see is kept merged. More have it merged anew.
pub const VIEW_CATALOGUES_MAX: usize = 64;
/// Items with links that are kept as those see them who see only some servers. More are made anew.
pub const SEEN_ITEMS_MAX: usize = 4096;
/// Control messages (cancellations, answers to an upstream's requests) that wait to be sent to
/// one upstream; more are dropped.
pub const CONTROL_QUEUE_MESSAGES_MAX: usize = 512;
/// Clients' notifications that wait to be sent to one upstream; more are dropped.
pub const CONTROL_NOTIFICATIONS_MAX: usize = 704;
/// Messages that one stream of an upstream may bring in [`UNASKED_MESSAGES_WITHIN`] besides
/// answers. Past it the stream is left unread for the rest of that time.
pub const UNASKED_MESSAGES_MAX: usize = 500;
/// See [`UNASKED_MESSAGES_MAX`].
pub const UNASKED_MESSAGES_WITHIN: Duration = Duration::from_millis(100);
/// A line from a child that goes on for so many times `limits.upstream_event_bytes` is taken for
/// one without end, and the child is ended.
pub const CHILD_LINE_ENDLESS_FACTOR: usize = 4;
/// Characters of the name of a tool or prompt. One with a longer name is left out.
pub const OWN_NAME_CHARS_MAX: usize = 1024;
/// Levels of schemas in a tool's schemas in which keywords that are null are looked for; deeper
/// ones pass as they are.
pub const SCHEMA_LEVELS_MENDED_MAX: usize = 16;
/// Items of one list that cannot be offered and are named in the log and in `/status`; all are
/// counted.
pub const LEFT_OUT_NAMED_MAX: usize = 100;
/// Resources of one upstream that are subscribed to at once.
pub const UPSTREAM_SUBSCRIPTIONS_MAX: usize = 4096;
/// Bytes of the URI of one of them.
pub const SUBSCRIPTION_URI_BYTES_MAX: usize = 8192;
/// Threads, each with its own connection, that send control messages.
pub const CONTROL_LANES_MAX: usize = 2;
/// Input and output buffer of one upstream connection, in bytes each. What its requests wait in
/// is given back where it has become larger.
pub const UPSTREAM_BUFFER_BYTES: usize = 16 * 1024;
/// A kept connection idle for longer is not used again. Shorter than what common servers wait
/// (5 s) before they close one, so that both do not happen at the same moment.
pub const UPSTREAM_IDLE_MAX: Duration = Duration::from_secs(4);
/// Bytes of a finished stream's end that are read so that its connection can be used again.
pub const UPSTREAM_DRAIN_BYTES_MAX: usize = 64 * 1024;
/// Redirects that one request to an upstream follows; one more is an error.
pub const UPSTREAM_REDIRECTS_MAX: usize = 5;
/// How long the next call on that connection waits for it; past it there is a new connection.
pub const UPSTREAM_DRAIN_TIMEOUT: Duration = Duration::from_millis(5);
/// Shortest wait before a stream that its server closed is asked for again.
pub const STREAM_RESUME_MIN: Duration = Duration::from_millis(100);
/// Longest wait before a call's stream is asked for again, unless its server wants a longer one.
pub const STREAM_RESUME_MAX: Duration = Duration::from_secs(5);
/// A stream that lasts so long is not one that its server closes at once.
pub const STREAM_LASTED: Duration = Duration::from_secs(5);
/// Bytes from which on what an upstream says counts against `limits.buffered_bytes`; smaller
/// answers pass without a look at it.
pub const RESULT_BYTES_COUNTED_FROM: usize = 64 * 1024;
/// Ids of sessions of one upstream that are taken out of what is told.
pub const LEARNED_SECRETS_MAX: usize = 256;
/// Bytes of all of them.
pub const LEARNED_SECRETS_BYTES_MAX: usize = 64 * 1024;
/// Characters of an upstream's text that stand in an error or a log line.
pub const UPSTREAM_TEXT_CHARS_MAX: usize = 200;
/// Bytes of what another gateway, that of `--url`, says of servers behind it that are not well.
pub const UNWELL_BEHIND_BYTES_MAX: usize = 256 * 1024;
/// Characters of a `WWW-Authenticate` of an upstream's that clients are told.
pub const UPSTREAM_CHALLENGE_CHARS_MAX: usize = 1000;
/// Characters of the message of an upstream's own JSON-RPC error that REST is told.
pub const UPSTREAM_ERROR_CHARS_MAX: usize = 4000;
/// Bytes of one line of a child's standard error; longer ones are cut.
pub const CHILD_STDERR_LINE_BYTES_MAX: usize = 4096;
/// Lines of a child's standard error that are logged in [`LOG_REPEATS_WITHIN`]; more are counted.
pub const CHILD_STDERR_LINES_LOGGED_MAX: usize = 500;
/// Different lines of a child's standard error that are remembered, so that a child which is
/// started again and again does not log the same each time.
pub const CHILD_STDERR_LINES_KNOWN_MAX: usize = 1000;
/// How long the exit of a child that closed its output is waited for, so that it can be named.
pub const CHILD_EXIT_SEEN: Duration = Duration::from_millis(500);
/// An upstream that was well for so long starts again with the shortest backoff.
pub const BACKOFF_RESET_AFTER: Duration = Duration::from_secs(30);
/// Names of clients that are remembered for having been told of in the log, each for one quirk.
/// Quirks of further ones are counted without a line.
pub const QUIRK_LINES_MAX: usize = 256;
/// Characters of a client's name in such a line.
pub const CLIENT_NAME_CHARS_MAX: usize = 64;
/// Characters of a foreign `Host` or `Origin` that its refusal quotes.
pub const FOREIGN_CHARS_MAX: usize = 100;
/// Names that are refused to a server and told of, in `/status` and in the log; more are counted.
pub const CLASHES_TOLD_MAX: usize = 256;
/// Of those that were told of in the log, so many are remembered; then they may be told of again.
pub const CLASHES_REMEMBERED_MAX: usize = 16 * CLASHES_TOLD_MAX;
/// Offered names that a reload has changed and the log tells of; more are counted.
pub const RENAMED_TOLD_MAX: usize = 1000;
/// Of those, names of one line.
pub const RENAMED_A_LINE_MAX: usize = 20;
/// Values of one completion, for clients of revisions that have a bound (2026-07-28, schema).
pub const COMPLETION_VALUES_MAX: usize = 100;
/// Bytes of a file that `trunkline import` reads.
pub const IMPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Values of a YAML file, with what its aliases stand for.
pub const IMPORT_YAML_NODES_MAX: usize = 100_000;
/// Names suggested for one that is unknown.
pub const NEAR_NAMES_MAX: usize = 3;
/// The share of the pool, as 1/N, that is never held by calls which wait for an upstream.
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
