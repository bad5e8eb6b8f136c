//! Bounds of the verification of access tokens.

use std::time::Duration;

/// Bytes of an access token. A longer one is refused before it is decoded.
pub const ACCESS_TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Bytes of a DPoP proof.
pub const DPOP_PROOF_BYTES_MAX: usize = 4096;
/// Bytes of the header of a token or proof, decoded.
pub const JOSE_HEADER_BYTES_MAX: usize = 4096;
/// Bytes of a document of an issuer's keys.
pub const JWKS_BYTES_MAX: usize = 256 * 1024;
/// Keys of one issuer that are kept; further ones are left out.
pub const JWKS_KEYS_MAX: usize = 64;
/// Bytes of a key id; a key with a longer one is left out, and a token with a longer one is
/// refused.
pub const KEY_ID_BYTES_MAX: usize = 256;
/// Keys that are tried for a token that names none.
pub const KEYS_TRIED_MAX: usize = 4;
/// Bytes of a subject.
pub const SUBJECT_BYTES_MAX: usize = 512;
/// Scopes of one token that are read; a token with more is refused.
pub const TOKEN_SCOPES_MAX: usize = 256;
/// The difference between the clocks of an issuer and the gateway.
pub const TOKEN_LEEWAY: Duration = Duration::from_secs(30);
/// The age up to which a DPoP proof is accepted: the clocks of clients are less well kept than
/// those of issuers.
pub const DPOP_PROOF_AGE_MAX: Duration = Duration::from_secs(60);
/// Bytes of the `jti` of a proof.
pub const DPOP_JTI_BYTES_MAX: usize = 256;
/// Proofs that are remembered until they are too old to be accepted, some 40 bytes each. Past it,
/// the oldest of the key that has most are forgotten, and no more of that age are accepted of it.
pub const DPOP_PROOFS_REMEMBERED_MAX: usize = 262_144;
/// Proofs of one key that are remembered.
pub const DPOP_PROOFS_OF_KEY_MAX: usize = 65_536;
/// Keys whose proofs are remembered. Past it, proofs of further keys are refused, since they could
/// not be told from replays.
pub const DPOP_KEYS_REMEMBERED_MAX: usize = 8192;
/// Accepted tokens that are remembered. Past it, the one that was used longest ago is forgotten,
/// and verified anew when it comes again.
pub const DECISIONS_MAX: usize = 8192;
/// Bytes of the claims of all remembered tokens.
pub const DECISIONS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Remembered tokens of one user, so that one who fetches token after token does not push out
/// those of others.
pub const DECISIONS_PER_USER_MAX: usize = 64;
/// Refused tokens that are remembered, so that one that comes again costs its issuer nothing. They
/// push out each other alone, and no accepted one.
pub const REFUSALS_MAX: usize = 4096;
/// The time for which they are remembered.
pub const REFUSAL_LIFE: Duration = Duration::from_secs(10);
/// Opaque tokens whose issuer is remembered, where several issuers are asked about such. Past it,
/// the one that came first is forgotten.
pub const TOKEN_ISSUERS_MAX: usize = 16_384;
/// The time after which a token that was introspected is asked about again, by the thread
/// `identity`, when it comes again or something is open with it.
pub const INTROSPECTION_FRESH: Duration = Duration::from_secs(20);
/// The time for which the answer of an introspection holds: a request with a revoked token is
/// refused at most so much later, and what is open ends with the next look at its token,
/// [`super::LEASE_CHECK_INTERVAL`] later.
pub const INTROSPECTION_LIFE: Duration = Duration::from_secs(45);
/// The time after which a token ends that was to be introspected again, once its last answer does
/// not hold any more: its issuer, or the threads that ask, are not fast enough.
pub const RECHECK_TIMEOUT: Duration = Duration::from_secs(10);
/// The end of a token that has none, from the present: a time to which every clock can count.
pub const TOKEN_LEASE_MAX: Duration = Duration::from_secs(366 * 24 * 3600);
/// The time for one introspection, and for the wait for its turn.
pub const INTROSPECTION_TIMEOUT: Duration = Duration::from_secs(5);
/// The time for which one request waits for issuers, for keys and introspections together.
pub const ISSUERS_WAIT_TIMEOUT: Duration = Duration::from_secs(13);
/// Introspections at one issuer at once.
pub const INTROSPECTIONS_AT_ONCE_MAX: usize = 8;
/// Requests that wait for introspections at one issuer, with those that are under way.
pub const INTROSPECTIONS_WAITING_MAX: usize = 32;
/// Tokens that wait to be introspected again; further ones are asked about when they come again.
pub const RECHECKS_MAX: usize = 8192;
/// Threads that introspect tokens again.
pub const RECHECKERS_MAX: usize = 4;
/// Requests that wait for issuers, for keys and introspections together.
pub const ISSUERS_WAITERS_MAX: usize = 128;
/// The share of the connections, as 1/N, that may wait for issuers.
pub const ISSUERS_WAITERS_DIVISOR: usize = 8;
/// Requests that wait for the keys of one issuer.
pub const KEY_WAITERS_MAX: usize = 32;
/// The time for which such a request waits.
pub const KEY_WAIT_TIMEOUT: Duration = Duration::from_secs(8);
/// The time for one request of an issuer's metadata or keys; all together take at most
/// [`KEY_WAIT_TIMEOUT`].
pub const KEYS_FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// The least time that a request leaves to a reading of keys for which it waits.
pub const KEYS_READING_TIME_MIN: Duration = Duration::from_secs(1);
/// The time for which an issuer whose keys are somewhere else since a reload may not have been read
/// yet: past it, what its earlier keys have signed ends.
pub const KEYS_AWAITED_TIME: Duration = Duration::from_secs(45);
/// The longest sleep of the thread that reads keys: clocks of suspended machines jump.
pub const KEYS_SLEEP_MAX: Duration = Duration::from_secs(30);
/// The time for which the thread that reads keys sleeps at least, also where something is due.
pub const KEYS_SLEEP_MIN: Duration = Duration::from_millis(500);
/// The least time between two readings of an issuer's keys, whatever tokens come: tokens with
/// made-up key ids must not make the gateway flood the issuer.
pub const KEYS_FETCH_INTERVAL_MIN: Duration = Duration::from_secs(5);
/// The time after which keys are read again, so that keys that were withdrawn end.
pub const KEYS_REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// The time between two writes of keys that have not changed into `state_dir`, at most: their age
/// counts from the last one after a restart.
pub const KEYS_KEPT_INTERVAL: Duration = Duration::from_secs(3600);
/// The longest time between two attempts to read the keys of an issuer that does not answer.
pub const KEYS_RETRY_INTERVAL_MAX: Duration = Duration::from_secs(60);
/// The time after which an issuer's metadata is read again with its keys.
pub const ISSUER_METADATA_LIFE: Duration = Duration::from_secs(3600);
/// Key ids of one issuer that were looked for and not found, and are remembered.
pub const UNKNOWN_KEY_IDS_MAX: usize = 256;
/// The time for which they are remembered: tokens with them are refused at once.
pub const UNKNOWN_KEY_ID_LIFE: Duration = Duration::from_secs(10);
/// Users whose calls per minute are counted; past it, those who called longest ago begin anew.
pub const METERED_USERS_MAX: usize = 16_384;

const _: () =
    assert!(INTROSPECTION_LIFE.as_secs() + super::LEASE_CHECK_INTERVAL.as_secs() <= 60);
const _: () =
    assert!(KEYS_AWAITED_TIME.as_secs() + super::LEASE_CHECK_INTERVAL.as_secs() <= 60);
const _: () = assert!(RECHECK_TIMEOUT.as_secs() < super::LEASE_CHECK_INTERVAL.as_secs());
const _: () = assert!(INTROSPECTION_TIMEOUT.as_secs() < RECHECK_TIMEOUT.as_secs());
const _: () = assert!(
    ISSUERS_WAIT_TIMEOUT.as_secs()
        >= KEY_WAIT_TIMEOUT.as_secs() + INTROSPECTION_TIMEOUT.as_secs()
);
const _: () = assert!(2 * INTROSPECTION_FRESH.as_secs() < INTROSPECTION_LIFE.as_secs());
const _: () = assert!(KEYS_FETCH_INTERVAL_MIN.as_secs() < KEY_WAIT_TIMEOUT.as_secs());
const _: () = assert!(INTROSPECTIONS_AT_ONCE_MAX <= INTROSPECTIONS_WAITING_MAX);
const _: () = assert!(DECISIONS_PER_USER_MAX < DECISIONS_MAX);
const _: () = assert!(ACCESS_TOKEN_BYTES_MAX < DECISIONS_BYTES_MAX);
