//! Finds the authorization server of a server: the metadata of the protected resource by the
//! challenge, then at the well-known places; its authorization servers' metadata; and where there
//! is neither, what the first revision with authorization had.

use crate::limits::OAUTH_REQUEST_TIMEOUT;
use crate::oauth::challenge::TokenChallenge;
use crate::oauth::fetch::{Fetch, FetchAnswer, FetchContent, FetchRequest, Reach};
use crate::oauth::json_document::JsonDocument;
use crate::oauth::resource_metadata::{self, ResourceMetadata, canonical_resource};
use crate::oauth::server_metadata::{self, ServerMetadata, is_same_issuer};
use crate::oauth::web_url::WebUrl;
use crate::protocol::revision::Revision;
use crate::secret::Secret;

use super::flow_error::{FlowError, FlowStep, Remedy};

/// A server and its authorization server, as their metadata describe them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Discovered {
    /// The `resource` parameter of requests.
    pub(super) resource: String,
    /// The resource's own metadata, if it has some.
    pub(super) metadata: Option<ResourceMetadata>,
    pub(super) server: ServerMetadata,
}

impl Discovered {
    /// The authorization server's issuer, or the origin of its token endpoint where it has none.
    pub(super) fn with(&self) -> String {
        match (&self.server.issuer, &self.server.token_endpoint) {
            (issuer, _) if !issuer.is_empty() => issuer.clone(),
            (_, Some(endpoint)) => endpoint.origin(),
            (_, None) => String::new(),
        }
    }
}

/// A search for the metadata of a server and its authorization server.
pub(super) struct Discovery<'a> {
    pub(super) fetch: &'a dyn Fetch,
    pub(super) reach: Reach,
    pub(super) server: &'a WebUrl,
    /// Of several authorization servers, this one is asked first: it has issued tokens before.
    pub(super) known_issuer: Option<&'a str>,
    pub(super) others: Others,
}

/// When the next one of several authorization servers is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Others {
    /// Where the one before is of no use.
    AfterRefusal,
    /// Also where the one before is not well, unless it has issued tokens.
    AfterFailure,
}

impl Discovery<'_> {
    /// Finds it.
    ///
    /// # Errors
    /// There is none, one of the two does not answer, or what they say must not be used.
    pub(super) fn run(
        &self,
        challenge: Option<&TokenChallenge>,
    ) -> Result<Discovered, FlowError> {
        let Some(metadata) = self.resource_metadata(challenge)? else {
            return self.without_resource_metadata();
        };
        let mut issuers = metadata.authorization_servers.clone();
        if let Some(known) = self.known_issuer {
            issuers.sort_by_key(|issuer| !is_same_issuer(issuer, known));
        }
        let mut failed = None;
        for issuer in &issuers {
            match self.authorization_server(issuer) {
                Ok(server) => {
                    let resource = metadata.resource.clone();
                    return Ok(Discovered { resource, metadata: Some(metadata), server });
                }
                // It may be well again soon. Another one in its place would not know the refresh
                // tokens and the clients that it has given.
                Err(error) if error.remedy == Remedy::TryLater && self.waits_for(issuer) => {
                    return Err(error);
                }
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        Err(failed.unwrap_or_else(|| {
            self.refused("its metadata name no authorization server".to_owned())
        }))
    }

    fn waits_for(&self, issuer: &str) -> bool {
        let is_known = self.known_issuer.is_some_and(|known| is_same_issuer(issuer, known));
        is_known || self.others == Others::AfterRefusal
    }

    fn refused(&self, what: String) -> FlowError {
        FlowError::new(FlowStep::Discovery, self.server.origin(), what, Remedy::Nothing)
    }

    /// The metadata of the protected resource; none where nothing is at any place.
    fn resource_metadata(
        &self,
        challenge: Option<&TokenChallenge>,
    ) -> Result<Option<ResourceMetadata>, FlowError> {
        let named = challenge.and_then(|it| it.resource_metadata.as_deref());
        let named = named.map(|text| {
            WebUrl::parse(text)
                .map_err(|error| self.refused(format!("resource_metadata: {error}")))
        });
        let named = named.transpose()?;
        let usual = resource_metadata::locations(self.server);
        let usual = usual.into_iter().filter(|it| Some(it) != named.as_ref());
        let places: Vec<WebUrl> = named.iter().cloned().chain(usual).collect();
        for place in places {
            let Some(document) = self.document(&place, &[])? else { continue };
            let read = ResourceMetadata::read(&document, self.server);
            let metadata = read.map_err(|error| {
                // The server's query, which the first of the places has, may hold a secret.
                FlowError::unusable(FlowStep::Discovery, place.without_query().as_str(), error)
            })?;
            return Ok(Some(metadata));
        }
        Ok(None)
    }

    fn authorization_server(&self, issuer: &str) -> Result<ServerMetadata, FlowError> {
        let unusable = |error| FlowError::unusable(FlowStep::Discovery, issuer, error);
        let url = WebUrl::parse(issuer).map_err(unusable)?;
        for place in server_metadata::locations(&url) {
            let Some(document) = self.document(&place, &[])? else { continue };
            return ServerMetadata::read(&document, issuer).map_err(unusable);
        }
        let what = "the authorization server has no metadata at any of the well-known places";
        Err(FlowError::new(FlowStep::Discovery, issuer, what, Remedy::Nothing))
    }

    /// As in 2025-03-26, where the server itself is the authorization server (basic/authorization,
    /// Authorization Base URL and Fallbacks for Servers without Metadata Discovery).
    fn without_resource_metadata(&self) -> Result<Discovered, FlowError> {
        let (metadata, resource) = (None, canonical_resource(self.server));
        let issuer = self.server.origin();
        let unusable = |error| FlowError::unusable(FlowStep::Discovery, &issuer, error);
        let base = WebUrl::parse(&issuer).map_err(unusable)?;
        // A server of that revision may answer by it (Server Metadata Discovery Headers).
        let revision = Secret::new(Revision::V2025_03_26.as_str().to_owned());
        let headers = [("mcp-protocol-version", revision)];
        for place in server_metadata::locations(&base) {
            let Some(document) = self.document(&place, &headers)? else { continue };
            let server = ServerMetadata::read(&document, &issuer).map_err(unusable)?;
            return Ok(Discovered { resource, metadata, server });
        }
        let server = ServerMetadata::fallback(self.server).map_err(unusable)?;
        Ok(Discovered { resource, metadata, server })
    }

    /// The document at a place; none where there is none.
    fn document(
        &self,
        place: &WebUrl,
        headers: &[(&'static str, Secret)],
    ) -> Result<Option<JsonDocument>, FlowError> {
        let with = place.origin();
        let request = FetchRequest {
            url: place,
            content: FetchContent::Get,
            headers,
            reach: self.reach,
            timeout: OAUTH_REQUEST_TIMEOUT,
        };
        let answer = self.fetch.fetch(&request);
        let answer =
            answer.map_err(|error| FlowError::unanswered(FlowStep::Discovery, &with, error))?;
        read(&answer).map_err(|(what, remedy)| {
            let what = format!("{}: {what}", place.path());
            FlowError::new(FlowStep::Discovery, with, what, remedy)
        })
    }
}

/// Reads the answer to the request for a document: none is there where it is refused.
fn read(answer: &FetchAnswer) -> Result<Option<JsonDocument>, (String, Remedy)> {
    if answer.is_unavailable() {
        return Err((format!("status {}", answer.status), Remedy::TryLater));
    }
    if !answer.is_success() {
        return Ok(None);
    }
    match answer.document() {
        Ok(document) => Ok(Some(document)),
        // Many a server answers every path with a page.
        Err(_) if answer.content_type.as_deref().is_some_and(|it| !it.contains("json")) => {
            Ok(None)
        }
        Err(error) => Err((error.to_string(), Remedy::Nothing)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oauth::scripted_fetch::ScriptedFetch;
    use crate::oauth::token::TokenType;

    const SERVER: &str = "https://mcp.example/mcp";

    fn run(fetch: &ScriptedFetch, named: Option<&str>) -> Result<Discovered, FlowError> {
        let server = WebUrl::parse(SERVER).unwrap();
        let challenge = named.map(|url| TokenChallenge {
            resource_metadata: Some(url.to_owned()),
            ..TokenChallenge::new(TokenType::Bearer)
        });
        let reach = Reach::PublicOnly;
        let (known_issuer, others) = (None, Others::AfterFailure);
        let discovery = Discovery { fetch, reach, server: &server, known_issuer, others };
        discovery.run(challenge.as_ref())
    }

    fn lines(fetch: &ScriptedFetch) -> Vec<String> {
        fetch.asked().into_iter().map(|it| it.line).collect()
    }

    fn resource(servers: &str) -> String {
        format!(r#"{{"resource":"{SERVER}","authorization_servers":[{servers}]}}"#)
    }

    fn metadata(issuer: &str) -> String {
        format!(
            r#"{{"issuer":"{issuer}","authorization_endpoint":"{issuer}/authorize",
            "token_endpoint":"{issuer}/token","code_challenge_methods_supported":["S256"]}}"#
        )
    }

    #[test]
    fn the_challenge_says_where_the_metadata_are_and_nothing_else_is_asked() {
        let fetch = ScriptedFetch::default();
        fetch.answer(
            "GET https://mcp.example/there",
            200,
            &resource(r#""https://as.example/t""#),
        );
        let place = "https://as.example/t/.well-known/openid-configuration";
        fetch.answer(&format!("GET {place}"), 200, &metadata("https://as.example/t"));
        let found = run(&fetch, Some("https://mcp.example/there")).unwrap();
        assert_eq!(
            (found.with(), &*found.resource),
            ("https://as.example/t".to_owned(), SERVER)
        );
        assert_eq!(
            lines(&fetch),
            [
                "GET https://mcp.example/there".to_owned(),
                "GET https://as.example/.well-known/oauth-authorization-server/t".to_owned(),
                "GET https://as.example/.well-known/openid-configuration/t".to_owned(),
                format!("GET {place}"),
            ]
        );
    }

    #[test]
    fn the_second_authorization_server_is_asked_where_the_first_is_of_no_use() {
        let fetch = ScriptedFetch::default();
        let well_known = "GET https://mcp.example/.well-known/oauth-protected-resource/mcp";
        fetch.answer(
            well_known,
            200,
            &resource(r#""https://one.example","https://two.example""#),
        );
        let place = |host: &str| {
            format!("GET https://{host}.example/.well-known/oauth-authorization-server")
        };
        fetch.answer(&place("one"), 200, &metadata("https://evil.example"));
        fetch.answer(&place("two"), 200, &metadata("https://two.example"));
        assert_eq!(run(&fetch, None).unwrap().with(), "https://two.example");
    }

    #[test]
    fn what_says_something_else_than_it_should_is_refused_and_nothing_is_guessed_then() {
        let well_known = "GET https://mcp.example/.well-known/oauth-protected-resource/mcp";
        let of_as = "GET https://as.example/.well-known/oauth-authorization-server";
        for (document, of_server, said) in [
            (r#"{"resource":"https://evil.example","authorization_servers":["https://a.b"]}"#.to_owned(), String::new(), "resource"),
            (resource(""), String::new(), "authorization"),
            (resource(r#""https://as.example""#), metadata("https://evil.example"), "issuer"),
            ("[]".to_owned(), String::new(), "JSON"),
        ] {
            let fetch = ScriptedFetch::default();
            fetch.answer(well_known, 200, &document);
            fetch.answer(of_as, 200, &of_server);
            let error = run(&fetch, None).unwrap_err();
            assert!(error.to_string().contains(said), "{error}");
            assert_eq!(error.remedy, Remedy::Nothing, "{error}");
            let asked = lines(&fetch);
            assert!(asked.iter().all(|it| !it.contains("/token")), "{asked:?}");
        }
    }

    #[test]
    fn what_is_told_of_metadata_holds_nothing_of_the_servers_query() {
        let fetch = ScriptedFetch::default();
        let place = "https://mcp.example/.well-known/oauth-protected-resource/mcp?key=hush";
        fetch.answer(&format!("GET {place}"), 200, "[]");
        let server = WebUrl::parse("https://mcp.example/mcp?key=hush").unwrap();
        let reach = Reach::PublicOnly;
        let discovery = Discovery {
            fetch: &fetch,
            reach,
            server: &server,
            known_issuer: None,
            others: Others::AfterRefusal,
        };
        let told = discovery.run(None).unwrap_err().to_string();
        assert!(told.contains("/.well-known/oauth-protected-resource/mcp:"), "{told}");
        assert!(!told.contains("hush"), "{told}");
    }

    #[test]
    fn one_that_is_not_well_is_asked_again_later_and_named() {
        let fetch = ScriptedFetch::default();
        let well_known = "GET https://mcp.example/.well-known/oauth-protected-resource/mcp";
        fetch.answer(well_known, 200, &resource(r#""https://as.example""#));
        let of_as = "GET https://as.example/.well-known/oauth-authorization-server";
        fetch.answer(of_as, 503, "");
        let error = run(&fetch, None).unwrap_err();
        assert_eq!(error.remedy, Remedy::TryLater);
        assert!(error.to_string().starts_with("discovery at https://as.example: "), "{error}");
    }

    #[test]
    fn one_that_is_not_well_is_waited_for_where_no_other_would_do() {
        let well_known = "GET https://mcp.example/.well-known/oauth-protected-resource/mcp";
        let place = |host: &str| {
            format!("GET https://{host}.example/.well-known/oauth-authorization-server")
        };
        let (one, two) = (Some("https://one.example"), Some("https://two.example/"));
        for (known_issuer, others, status, found) in [
            (None, Others::AfterFailure, 503, two),
            (None, Others::AfterRefusal, 503, None),
            (None, Others::AfterRefusal, 404, two),
            (one, Others::AfterFailure, 503, None),
            (Some("https://one.example/"), Others::AfterFailure, 503, None),
            (one, Others::AfterFailure, 404, two),
            (two, Others::AfterRefusal, 503, two),
            (Some("https://gone.example"), Others::AfterFailure, 503, two),
        ] {
            let fetch = ScriptedFetch::default();
            let both = resource(r#""https://one.example","https://two.example""#);
            fetch.answer(well_known, 200, &both);
            fetch.answer(&place("one"), status, "");
            fetch.answer(&place("two"), 200, &metadata("https://two.example/"));
            let server = &WebUrl::parse(SERVER).unwrap();
            let reach = Reach::PublicOnly;
            let discovery = Discovery { fetch: &fetch, reach, server, known_issuer, others };
            let with = discovery.run(None).map(|it| it.with());
            assert_eq!(with.as_deref().ok(), found, "{known_issuer:?} {others:?} {status}");
        }
    }

    #[test]
    fn without_any_metadata_the_server_is_its_own_authorization_server() {
        let fetch = ScriptedFetch::default();
        let found = run(&fetch, None).unwrap();
        assert_eq!(found.metadata, None);
        let token_endpoint = found.server.token_endpoint.unwrap();
        assert_eq!(token_endpoint.as_str(), "https://mcp.example/token");
        let asked = fetch.asked();
        assert_eq!(asked.len(), 4, "{asked:?}");
        let has_revision = |it: &&crate::oauth::scripted_fetch::Asked| !it.headers.is_empty();
        assert_eq!(asked.iter().filter(has_revision).count(), 2);
    }
}
