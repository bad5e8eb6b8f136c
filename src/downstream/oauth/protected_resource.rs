//! The metadata of the gateway as a protected resource (RFC 9728), one document for each endpoint
//! that takes access tokens.

use crate::downstream::admission::Admission;
use crate::downstream::endpoint::Endpoint;
use crate::downstream::status_codes::{self, Problem};
use crate::downstream::{Front, refuse};
use crate::http::{Head, Responder};
use crate::oauth::resource_metadata::{ResourceMetadata, WELL_KNOWN};
use crate::protocol::headers::JSON;

/// The algorithms of DPoP proofs that are accepted (RFC 9449, sections 5.1 and 7.1).
pub(crate) const PROOF_ALGORITHMS: [&str; 4] = ["ES256", "EdDSA", "RS256", "PS256"];
/// The time for which clients may keep the document, in seconds: a reload changes it.
const CACHE: &str = "max-age=60";

/// Answers with the metadata of the resource at `path`, which is empty for the whole gateway.
pub(crate) fn metadata(front: &Front, path: &str, head: &Head, responder: Responder) {
    let admission = front.admission();
    match document(&admission, path, head) {
        Some(document) => {
            // Browsers' clients read it before anybody has admitted their origin; it says nothing
            // that a 401 does not say.
            let headers = [
                ("Content-Type", JSON),
                ("Cache-Control", CACHE),
                ("Access-Control-Allow-Origin", "*"),
            ];
            // If the client has gone, the answer is not missed.
            responder
                .respond(status_codes::OK, &headers, &[document.to_json().as_bytes()])
                .ok();
        }
        None => refuse(&Problem::unknown_path(), None, responder),
    }
}

/// The document; none where no issuer is configured, or the path is no resource.
fn document(admission: &Admission, path: &str, head: &Head) -> Option<ResourceMetadata> {
    let verifier = admission.verifier.as_ref()?;
    // A proxy may pass the prefix on here, too: RFC 9728, section 3.1 puts it behind the
    // well-known part.
    let own = admission.own_path(path);
    let is_whole = matches!(own, "" | "/");
    if !is_whole && !Endpoint::find(own).is_some_and(is_resource) {
        return None;
    }
    let scopes = verifier.scopes();
    Some(ResourceMetadata {
        resource: format!("{}{}", admission.base_url(head)?, if is_whole { "" } else { own }),
        authorization_servers: verifier.issuers().map(str::to_owned).collect(),
        scopes_supported: (!scopes.is_empty())
            .then(|| scopes.iter().map(|scope| scope.as_ref().to_owned()).collect()),
        resource_name: Some("Trunkline".to_owned()),
        dpop_signing_alg_values_supported: Some(PROOF_ALGORITHMS.map(str::to_owned).to_vec()),
        ..ResourceMetadata::default()
    })
}

/// The URL of the metadata of the resource that a request came to. It stands below the URL of the
/// gateway, so that it is reached through whatever proxy the request came.
pub(crate) fn metadata_url(admission: &Admission, head: &Head) -> Option<String> {
    let own = admission.own_path(&head.path);
    let path = Endpoint::find(own).filter(|it| is_resource(*it)).map_or("", |_| own);
    Some(format!("{}{WELL_KNOWN}{path}", admission.base_url(head)?))
}

/// The endpoints that are protected resources of their own.
fn is_resource(endpoint: Endpoint<'_>) -> bool {
    !endpoint.is_open()
}
