//! The OpenAPI document has the paths and methods of the code. That it tells of real answers is
//! tested in `tests/it/downstream/rest`.

use std::collections::BTreeSet;

use serde_json::json;
use trunkline::downstream::endpoint::Endpoint;

use crate::support::gateway::Gateway;
use crate::support::program::root;

/// The paths that `Endpoint::find` knows, as its source has them.
fn paths_in_the_code() -> BTreeSet<String> {
    let source = root().join("src/downstream/endpoint.rs");
    let source = std::fs::read_to_string(source).unwrap();
    let (_, find) = source.split_once("Some(match parts {").unwrap();
    let (find, _) = find.split_once("_ => return None").unwrap();
    let mut paths = BTreeSet::new();
    let mut patterns = find.split("=>").collect::<Vec<_>>();
    patterns.pop();
    for pattern in patterns {
        let (_, pattern) = pattern.rsplit_once("[Some(").unwrap();
        let parts: Vec<&str> = pattern.split('"').skip(1).step_by(2).collect();
        // A server's name stands in the paths of MCP alone.
        if !parts.is_empty() && !pattern.starts_with("server") {
            paths.insert(format!("/{}", parts.join("/")));
        }
    }
    assert!(paths.len() > 10, "{paths:?}");
    paths
}

#[test]
fn the_paths_are_those_of_the_code() {
    let gateway = Gateway::with(json!({ "mcp_servers": {} })).start();
    let document = gateway.get("/openapi.json").expect(200).json();
    let paths = document["paths"].as_object().unwrap();
    for path in paths_in_the_code() {
        // The pages of sign-ins are for browsers; one of them is below its path.
        if path.starts_with("/oauth/") {
            assert!(!paths.contains_key(&path), "{path}");
            continue;
        }
        let endpoint = Endpoint::find(&path).unwrap_or_else(|| panic!("{path} serves nothing"));
        assert_eq!(paths.contains_key(&path), !endpoint.speaks_mcp(), "{path}");
    }
    for (path, operations) in paths {
        let endpoint = Endpoint::find(path).unwrap_or_else(|| panic!("{path} serves nothing"));
        // HEAD is a GET without its body, and OPTIONS is the same on all.
        let served = endpoint.methods().iter().filter(|it| !["HEAD", "OPTIONS"].contains(it));
        let served: BTreeSet<String> = served.map(|it| it.to_ascii_lowercase()).collect();
        let told: BTreeSet<String> = operations.as_object().unwrap().keys().cloned().collect();
        assert_eq!(told, served, "{path}");
        for (method, operation) in operations.as_object().unwrap() {
            let is_open = operation["security"] == json!([]);
            assert_eq!(is_open, endpoint.is_open(), "{method} {path}");
        }
    }
}
