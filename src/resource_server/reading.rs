//! One reading of an issuer's keys: where its metadata says that they are, or the configuration.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::issuer_metadata::IssuerMetadata;
use crate::config::IntrospectionConfig;
use crate::limits::{ISSUER_METADATA_LIFE, KEYS_FETCH_TIMEOUT};
use crate::oauth::fetch::{Fetch, FetchAnswer, FetchContent, FetchRequest, Reach};
use crate::oauth::jwk::JwkSet;
use crate::oauth::server_metadata::locations;
use crate::oauth::unusable::Unusable;
use crate::oauth::web_url::WebUrl;

/// Metadata, and when they were read.
pub(super) type Known = Option<(Arc<IssuerMetadata>, Instant)>;

/// What is to be read.
pub(super) struct Reading<'a> {
    pub(super) issuer: &'a str,
    /// The URL of the keys, where the configuration has it.
    pub(super) jwks_uri: Option<&'a str>,
    /// The access to the introspection endpoint, where tokens are asked about.
    pub(super) introspection: Option<&'a IntrospectionConfig>,
    /// The metadata that are known.
    pub(super) known: Known,
    /// The time at which the reading must be over.
    pub(super) deadline: Instant,
}

/// The keys that were read.
pub(super) struct Read {
    pub(super) keys: JwkSet,
    /// Their document; none where the issuer has no keys.
    pub(super) document: Option<Vec<u8>>,
}

/// Reads the metadata, where they are needed and too old.
///
/// # Errors
/// There are none to be had; the fault as text.
pub(super) fn read_metadata(
    fetch: &dyn Fetch,
    reading: &Reading<'_>,
    now: Instant,
) -> Result<Known, Unusable> {
    let is_asked_for = reading.introspection.is_some_and(|it| it.endpoint.is_none());
    let is_needed = is_asked_for || reading.jwks_uri.is_none();
    let is_fresh =
        |(_, at): &(_, Instant)| now.saturating_duration_since(*at) < ISSUER_METADATA_LIFE;
    match reading.known.clone().filter(is_fresh) {
        None if is_needed => {
            let issuer = WebUrl::parse(reading.issuer)?;
            Ok(Some((Arc::new(discover(fetch, reading, &issuer)?), now)))
        }
        known => Ok(known),
    }
}

/// Reads the keys, where the configuration or the metadata say that they are.
///
/// # Errors
/// There are none to be had; the fault as text.
pub(super) fn read_keys(
    fetch: &dyn Fetch,
    reading: &Reading<'_>,
    metadata: Option<&IssuerMetadata>,
) -> Result<Read, Unusable> {
    let of_metadata = metadata.and_then(|metadata| metadata.jwks_uri.clone());
    let (url, reach) = match (reading.jwks_uri, of_metadata) {
        // Whoever configures a URL decides where requests go.
        (Some(url), _) => (WebUrl::parse(url)?, Reach::Loopback),
        (None, Some(url)) => {
            let reach = reach_of(&url, &WebUrl::parse(reading.issuer)?);
            (url, reach)
        }
        // It signs no tokens.
        (None, None) if reading.introspection.is_some() => {
            return Ok(Read { keys: JwkSet::default(), document: None });
        }
        (None, None) => return Err(Unusable::new("its metadata have no jwks_uri")),
    };
    let answer = get(fetch, &url, reach, reading.deadline)?;
    let keys =
        JwkSet::parse(&answer.body).map_err(|what| Unusable::new(format!("{url}: {what}")))?;
    Ok(Read { keys, document: Some(answer.body) })
}

fn discover(
    fetch: &dyn Fetch,
    reading: &Reading<'_>,
    issuer: &WebUrl,
) -> Result<IssuerMetadata, Unusable> {
    let mut fault = Unusable::new("it has no metadata");
    for url in locations(issuer) {
        let read = get(fetch, &url, Reach::Loopback, reading.deadline)
            .and_then(|answer| answer.document().map_err(|error| error.at(url.as_str())));
        let read = read.and_then(|document| {
            IssuerMetadata::read(&document, reading.issuer).map_err(|it| it.at(url.as_str()))
        });
        match read {
            Ok(metadata) => return Ok(metadata),
            Err(error) => fault = error,
        }
    }
    Err(fault)
}

/// The addresses to which a URL out of the metadata may lead: any where the issuer itself is, and
/// on other hosts public ones, unless the issuer is on this machine.
pub(super) fn reach_of(url: &WebUrl, issuer: &WebUrl) -> Reach {
    if url.host() == issuer.host() || issuer.is_loopback() {
        Reach::Loopback
    } else {
        Reach::PublicOnly
    }
}

fn get(
    fetch: &dyn Fetch,
    url: &WebUrl,
    reach: Reach,
    deadline: Instant,
) -> Result<FetchAnswer, Unusable> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Unusable::new(format!("{url}: the time is over")));
    }
    let timeout = left.min(KEYS_FETCH_TIMEOUT).max(Duration::from_millis(1));
    let request =
        FetchRequest { url, content: FetchContent::Get, headers: &[], reach, timeout };
    let answer =
        fetch.fetch(&request).map_err(|error| Unusable::new(format!("{url}: {error}")))?;
    if answer.is_success() {
        return Ok(answer);
    }
    Err(Unusable::new(format!("{url} answered {}", answer.status)))
}
