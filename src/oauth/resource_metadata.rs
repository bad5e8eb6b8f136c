//! Pure: the metadata of a protected resource (RFC 9728): where they are, read, and written for
//! Trunkline itself.

use serde_json::{Map, Value};

use super::json_document::JsonDocument;
use super::unusable::{Unusable, shown};
use super::web_url::WebUrl;
use crate::limits::{AUTHORIZATION_SERVERS_MAX, OAUTH_TEXT_BYTES_MAX, OAUTH_URL_BYTES_MAX};

/// The path under which the metadata of an origin's resources are.
pub const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";

/// The description that a protected resource gives of itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ResourceMetadata {
    /// `resource`: the identifier, as it is written. It is the `resource` parameter of requests
    /// for this resource.
    pub resource: String,
    /// `authorization_servers`: issuers, at most [`AUTHORIZATION_SERVERS_MAX`]. Read ones have been
    /// taken by [`WebUrl`] and are secure; others are left out. Empty where the document names
    /// none.
    pub authorization_servers: Vec<String>,
    /// `scopes_supported`.
    pub scopes_supported: Option<Vec<String>>,
    /// `resource_name`, which is shown to people.
    pub resource_name: Option<String>,
    /// `dpop_bound_access_tokens_required`.
    pub dpop_bound_access_tokens_required: bool,
    /// `dpop_signing_alg_values_supported`.
    pub dpop_signing_alg_values_supported: Option<Vec<String>>,
}

/// Where the metadata of a server are where no challenge says so: at the server's path, then at
/// the root of its origin, in the order of the specification (authorization server discovery,
/// Protected Resource Metadata Discovery Requirements).
pub fn locations(server: &WebUrl) -> Vec<WebUrl> {
    let stripped = server.path().trim_end_matches('/');
    // Official SDKs leave out a slash at the end of the path, RFC 9728 does not.
    let of_sdks = server.with_path(&format!("{WELL_KNOWN}{stripped}"));
    let mut all = vec![location(server), of_sdks, server.with_path(WELL_KNOWN)];
    all.dedup();
    all
}

/// The well-known URL of one resource (RFC 9728 section 3.1).
pub fn location(resource: &WebUrl) -> WebUrl {
    let path = if resource.path() == "/" { "" } else { resource.path() };
    resource.with_path_and_query(&format!("{WELL_KNOWN}{path}"), resource.query())
}

/// The `resource` parameter of a server without metadata: its canonical URI (authorization,
/// Canonical Server URI). A slash that is the whole path is left out, another one stays. The query
/// is left out (RFC 8707, section 2): it may hold a secret of this server's, which an
/// authorization server and a browser have no business to see.
pub fn canonical_resource(server: &WebUrl) -> String {
    let path = if server.path() == "/" { "" } else { server.path() };
    server.with_path(path).as_str().to_owned()
}

impl ResourceMetadata {
    /// Reads the metadata of `server`.
    ///
    /// # Errors
    /// If `resource` is missing or is not this server's, if authorization servers are named and
    /// none of them is usable, or if a member has the wrong type.
    pub fn read(
        document: &JsonDocument,
        server: &WebUrl,
    ) -> Result<ResourceMetadata, Unusable> {
        let resource = document.needed_text("resource", OAUTH_URL_BYTES_MAX)?;
        check_resource(resource, server)?;
        Ok(ResourceMetadata {
            resource: resource.to_owned(),
            authorization_servers: authorization_servers(document)?,
            scopes_supported: document.texts("scopes_supported")?,
            resource_name: document
                .text("resource_name", OAUTH_TEXT_BYTES_MAX)?
                .map(str::to_owned),
            dpop_bound_access_tokens_required: document
                .flag("dpop_bound_access_tokens_required")?,
            dpop_signing_alg_values_supported: document
                .texts("dpop_signing_alg_values_supported")?,
        })
    }

    /// The document.
    pub fn to_json(&self) -> String {
        let mut document = Map::new();
        let mut put = |name: &str, value: Value| document.insert(name.to_owned(), value);
        put("resource", self.resource.clone().into());
        put("authorization_servers", self.authorization_servers.clone().into());
        if let Some(scopes) = &self.scopes_supported {
            put("scopes_supported", scopes.clone().into());
        }
        put("bearer_methods_supported", Value::from(vec!["header"]));
        if let Some(name) = &self.resource_name {
            put("resource_name", name.clone().into());
        }
        if let Some(algorithms) = &self.dpop_signing_alg_values_supported {
            put("dpop_signing_alg_values_supported", algorithms.clone().into());
        }
        if self.dpop_bound_access_tokens_required {
            put("dpop_bound_access_tokens_required", true.into());
        }
        Value::from(document).to_string()
    }
}

/// Holds `resource` against the server's URL (RFC 9728 section 3.3). As the official SDKs have it,
/// the origin must be the same, and the path the server's or one above it: many servers name
/// their origin.
fn check_resource(resource: &str, server: &WebUrl) -> Result<(), Unusable> {
    let url = WebUrl::parse(resource).map_err(|error| error.at("resource"))?;
    let (above, path) = (url.path().trim_end_matches('/'), server.path().trim_end_matches('/'));
    let rest = path.strip_prefix(above);
    let is_above = rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if url.has_origin_of(server) && is_above {
        return Ok(());
    }
    let server = server.without_query();
    Err(Unusable::new(format!(
        "the metadata are those of the resource {}, not of {server}",
        shown(resource)
    )))
}

fn authorization_servers(document: &JsonDocument) -> Result<Vec<String>, Unusable> {
    let name = "authorization_servers";
    let named = document.texts(name)?.unwrap_or_default();
    let mut usable = Vec::new();
    let mut problem = None;
    for issuer in named {
        match check_issuer(&issuer) {
            Ok(()) if usable.len() < AUTHORIZATION_SERVERS_MAX => usable.push(issuer),
            Ok(()) => (),
            Err(error) => problem = problem.or(Some(error)),
        }
    }
    match problem {
        Some(problem) if usable.is_empty() => Err(problem.at(name)),
        Some(_) | None => Ok(usable),
    }
}

/// Checks that a text can be an issuer: a secure URL without query and fragment (RFC 8414 section
/// 2).
///
/// # Errors
/// Says why it is none.
pub fn check_issuer(issuer: &str) -> Result<(), Unusable> {
    let url = WebUrl::parse(issuer)?;
    let refuse = |what: &str| Err(Unusable::new(format!("{} {what}", shown(issuer))));
    if url.query().is_some() {
        refuse("has a query")
    } else if !url.is_secure() {
        refuse("is not https")
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(text: &str) -> WebUrl {
        WebUrl::parse(text).unwrap()
    }

    fn read(json: &str, server: &str) -> Result<ResourceMetadata, String> {
        let document = JsonDocument::parse(json.as_bytes()).map_err(|it| it.to_string())?;
        ResourceMetadata::read(&document, &url(server)).map_err(|it| it.to_string())
    }

    #[test]
    fn the_places_of_the_metadata_are_those_of_the_specification() {
        for (server, expected) in [
            (
                "https://example.com/public/mcp",
                vec![
                    "https://example.com/.well-known/oauth-protected-resource/public/mcp",
                    "https://example.com/.well-known/oauth-protected-resource",
                ],
            ),
            (
                "https://example.com",
                vec!["https://example.com/.well-known/oauth-protected-resource"],
            ),
            (
                "HTTPS://Example.com:443/",
                vec!["https://example.com/.well-known/oauth-protected-resource"],
            ),
            (
                "http://localhost:8080/mcp/",
                vec![
                    "http://localhost:8080/.well-known/oauth-protected-resource/mcp/",
                    "http://localhost:8080/.well-known/oauth-protected-resource/mcp",
                    "http://localhost:8080/.well-known/oauth-protected-resource",
                ],
            ),
            (
                "https://h/mcp?team=1",
                vec![
                    "https://h/.well-known/oauth-protected-resource/mcp?team=1",
                    "https://h/.well-known/oauth-protected-resource/mcp",
                    "https://h/.well-known/oauth-protected-resource",
                ],
            ),
        ] {
            let places: Vec<_> =
                locations(&url(server)).iter().map(|it| it.as_str().to_owned()).collect();
            assert_eq!(places, expected, "{server}");
        }
    }

    #[test]
    fn the_resource_of_a_server_without_metadata_is_its_canonical_uri() {
        for (server, expected) in [
            ("https://mcp.example.com/mcp", "https://mcp.example.com/mcp"),
            ("https://mcp.example.com/", "https://mcp.example.com"),
            ("HTTPS://MCP.example.com:443", "https://mcp.example.com"),
            ("https://mcp.example.com:8443/a/", "https://mcp.example.com:8443/a/"),
            ("https://h/mcp?api_key=x", "https://h/mcp"),
            ("https://h/?api_key=x", "https://h"),
        ] {
            assert_eq!(canonical_resource(&url(server)), expected);
        }
    }

    #[test]
    fn a_resource_is_this_server_s_or_above_it() {
        let server = "https://h.example/a/mcp";
        for resource in [
            "https://h.example/a/mcp",
            "https://h.example/a/mcp/",
            "https://H.example:443/a",
            "https://h.example",
            "https://h.example/",
        ] {
            let json = format!(r#"{{"resource":"{resource}"}}"#);
            assert_eq!(read(&json, server).unwrap().resource, resource);
        }
        for resource in [
            "https://h.example/a/mcp2",
            "https://h.example/a/mc",
            "https://h.example/b",
            "https://h.example/a/mcp/deeper",
            "http://h.example/a/mcp",
            "https://h.example:444/a/mcp",
            "https://evil.example/a/mcp",
            "https://h.example.evil.example/a/mcp",
            "https://h.example@evil.example/a/mcp",
            "https://h.example/a/mcp#x",
            "https://h.example/a/../b/mcp",
            "h.example/a/mcp",
            "",
        ] {
            let json = format!(r#"{{"resource":"{resource}"}}"#);
            assert!(read(&json, server).is_err(), "{resource}");
        }
        assert!(read("{}", server).is_err());
    }

    #[test]
    fn the_members_are_read_and_hostile_ones_are_refused() {
        let server = "https://h/mcp";
        let json = r#"{"resource":"https://h/mcp","authorization_servers":["http://evil/",
            "https://as.example/tenant","ftp://x","https://u:p@as.example"],
            "scopes_supported":["a","b"],"dpop_bound_access_tokens_required":true,
            "dpop_signing_alg_values_supported":["ES256"],"resource_name":null,"other":{}}"#;
        let metadata = read(json, server).unwrap();
        assert_eq!(metadata.authorization_servers, ["https://as.example/tenant"]);
        assert_eq!(metadata.scopes_supported, Some(vec!["a".to_owned(), "b".to_owned()]));
        assert!(metadata.dpop_bound_access_tokens_required);
        assert_eq!(metadata.resource_name, None);
        for (members, why) in [
            (r#""authorization_servers":["http://as.example"]"#, "is not https"),
            (r#""authorization_servers":["https://as.example?x"]"#, "has a query"),
            (r#""authorization_servers":["https://as.example#x"]"#, "has a fragment"),
            (r#""authorization_servers":["https://u:p@as.example"]"#, "password before"),
            (r#""authorization_servers":"https://as.example""#, "is no list"),
            (r#""authorization_servers":[1]"#, "no short text"),
            (r#""scopes_supported":"a b""#, "is no list"),
            (r#""dpop_bound_access_tokens_required":"yes""#, "is no true or false"),
            (r#""resource":"https://h/mcp""#, "the same name"),
        ] {
            let json = format!(r#"{{"resource":"https://h/mcp",{members}}}"#);
            let error = read(&json, server).unwrap_err();
            assert!(error.contains(why) && !error.contains("u:p"), "{members}: {error}");
        }
        let many = vec![r#""https://as.example""#; 10_000].join(",");
        let json =
            format!(r#"{{"resource":"https://h/mcp","authorization_servers":[{many}]}}"#);
        let n = read(&json, server).unwrap().authorization_servers.len();
        assert_eq!(n, AUTHORIZATION_SERVERS_MAX);
    }

    #[test]
    fn the_written_document_is_read_again() {
        let metadata = ResourceMetadata {
            resource: "https://gateway.example/mcp".to_owned(),
            authorization_servers: vec!["https://idp.example".to_owned()],
            scopes_supported: Some(vec!["mcp".to_owned()]),
            resource_name: Some("Trunkline \"x\"".to_owned()),
            dpop_bound_access_tokens_required: true,
            dpop_signing_alg_values_supported: Some(vec!["ES256".to_owned()]),
        };
        let json = metadata.to_json();
        assert_eq!(read(&json, "https://gateway.example/mcp").unwrap(), metadata);
        assert!(json.contains(r#""bearer_methods_supported":["header"]"#), "{json}");
    }
}
