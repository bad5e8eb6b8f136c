//! TLS towards servers: whose certificates are trusted, and what is said of one that is not.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use crate::support::gateway::Gateway;
use crate::support::upstream_http::HttpUpstream;
use crate::support::{in_background, wait_for};

pub(crate) fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/tls").join(name)
}

/// Puts TLS with this certificate before a server; gives the URL.
fn secured(upstream: &HttpUpstream, certificate: &str) -> String {
    secured_url(&upstream.url(), certificate)
}

/// Puts TLS with this certificate before what is at a URL; gives the URL of that.
pub(crate) fn secured_url(url: &str, certificate: &str) -> String {
    secured_at("localhost", url, certificate)
}

fn secured_at(host: &str, url: &str, certificate: &str) -> String {
    let chain = CertificateDer::pem_file_iter(fixture(&format!("{certificate}.pem")));
    let chain: Vec<_> = chain.unwrap().map(Result::unwrap).collect();
    // The odd ones are of the same key as the usual one.
    let key = if certificate == "signed" { "signed.key" } else { "self_signed.key" };
    let key = PrivateKeyDer::from_pem_file(fixture(key)).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .unwrap();
    let config = Arc::new(config);
    let listener = TcpListener::bind((host, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let (address, path) = url.strip_prefix("http://").unwrap().split_once('/').unwrap();
    let (address, path) = (address.parse::<SocketAddr>().unwrap(), path.to_owned());
    // It ends with the test's process.
    in_background(move || {
        for client in listener.incoming().map_while(Result::ok) {
            let config = config.clone();
            in_background(move || {
                let connection = ServerConnection::new(config).unwrap();
                pass(
                    StreamOwned::new(connection, client),
                    TcpStream::connect(address).unwrap(),
                );
            });
        }
    });
    format!("https://{host}:{port}/{path}")
}

/// Passes bytes on in both directions until either side ends.
fn pass(mut client: StreamOwned<ServerConnection, TcpStream>, mut server: TcpStream) {
    let tick = Some(Duration::from_millis(2));
    client.sock.set_read_timeout(tick).unwrap();
    server.set_read_timeout(tick).unwrap();
    let mut bytes = vec![0; 16 * 1024];
    loop {
        for to_server in [true, false] {
            let read =
                if to_server { client.read(&mut bytes) } else { server.read(&mut bytes) };
            let written = match read {
                Ok(0) => return,
                Ok(read) if to_server => server.write_all(&bytes[..read]),
                Ok(read) => client.write_all(&bytes[..read]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    Ok(())
                }
                Err(_) => return,
            };
            if written.is_err() {
                return;
            }
        }
    }
}

fn server(url: &str, ca_file: Option<&str>) -> Value {
    let mut server = json!({ "url": url, "transport": "http" });
    if let Some(file) = ca_file {
        server["ca_file"] = json!(fixture(file));
    }
    json!({ "mcp_servers": { "s": server } })
}

#[test]
fn an_authority_and_a_self_signed_certificate_of_ca_file_are_trusted() {
    for (certificate, ca_file) in [
        ("signed", "authority.pem"),
        ("self_signed", "self_signed.pem"),
        ("signed", "signed.pem"),
    ] {
        let upstream = HttpUpstream::start();
        let url = secured(&upstream, certificate);
        // What one file trusts, another does not: a server beside it has no such file.
        let gateway = Gateway::started(server(&url, Some(ca_file)));
        assert_eq!(gateway.call_text("echo", &json!({"message": "m"})), "m", "{ca_file}");
    }
}

#[test]
fn a_certificate_that_is_not_trusted_is_refused_in_words_that_help() {
    let upstream = HttpUpstream::start();
    for (certificate, ca_file, words) in [
        ("signed", None, "nobody whom the gateway trusts has signed it"),
        ("self_signed", None, "ca_file"),
        ("signed", Some("self_signed.pem"), "give the certificate of its authority"),
        // That it is the one of the file makes up for neither.
        ("expired", Some("expired.pem"), "its time is over"),
        (
            "without_name",
            Some("without_name.pem"),
            "must have a subjectAltName (DNS:localhost)",
        ),
    ] {
        let url = secured(&upstream, certificate);
        let gateway = Gateway::with(server(&url, ca_file)).start();
        let told = wait_for("the failure is told", || {
            let status = gateway.status_of("s");
            status["last_failure"]["message"].as_str().map(str::to_owned)
        });
        assert!(told.contains("certificate is refused") && told.contains(words), "{told}");
    }
    // Another name than that of the host.
    let url = secured_at("127.0.0.2", &upstream.url(), "self_signed");
    let gateway = Gateway::with(server(&url, Some("self_signed.pem"))).start();
    let told = wait_for("the failure is told", || {
        gateway.status_of("s")["last_failure"]["message"].as_str().map(str::to_owned)
    });
    assert!(told.contains("subjectAltName"), "{told}");
}
