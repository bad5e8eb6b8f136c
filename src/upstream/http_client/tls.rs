//! TLS towards a server: with the public authorities, and where the configuration has a
//! `ca_file`, with what is in that file besides; and in which words a certificate is refused.

use std::io::{self, Read as _, Write as _};
use std::path::Path;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WebPkiServerVerifier, verify_server_name};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    CertificateError, ClientConfig, ClientConnection, DigitallySignedStruct, RootCertStore,
    SignatureScheme, StreamOwned,
};
use ureq::Error;
use ureq::tls::{PemItem, parse_pem};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, Either, LazyBuffers, NextTimeout, RustlsConnector,
    Transport, TransportAdapter,
};

/// Secures connections of one server.
#[derive(Debug, Clone)]
pub(crate) enum Tls {
    /// The public authorities alone are trusted. It keeps its settings for all servers.
    Public(Arc<RustlsConnector>),
    /// Those in a file are trusted besides.
    WithFile(Arc<ClientConfig>),
}

impl Tls {
    /// With the certificates of a file, which may be authorities or servers' own.
    ///
    /// # Errors
    /// The file is of no use; the text says why.
    pub(crate) fn with_file(file: &Path) -> Result<Tls, String> {
        let told = |what: &str| format!("ca_file {}: {what}", file.display());
        let text = std::fs::read(file).map_err(|error| told(&error.to_string()))?;
        let certificates: Vec<_> = parse_pem(&text)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(it)) => Some(CertificateDer::from(it.der().to_vec())),
                Ok(_) | Err(_) => None,
            })
            .collect();
        if certificates.is_empty() {
            return Err(told("no certificate in it"));
        }
        configured(certificates).map(Tls::WithFile).map_err(|error| told(&error.to_string()))
    }

    /// Secures a connection.
    ///
    /// # Errors
    /// It fails, or the server's certificate is refused: in words that say what to do.
    pub(crate) fn secure(
        &self,
        details: &ConnectionDetails<'_>,
        base: Box<dyn Transport>,
    ) -> Result<Option<Box<dyn Transport>>, Error> {
        let secured = match self {
            Tls::Public(connector) => connector.connect(details, Some(base)).map(|secured| {
                secured.map(|secured| match secured {
                    Either::A(plain) => plain,
                    Either::B(tls) => tls.boxed(),
                })
            }),
            Tls::WithFile(config) if details.needs_tls() && !base.is_tls() => {
                Secured::new(config, details, base).map(|it| Some(it.boxed()))
            }
            Tls::WithFile(_) => Ok(Some(base)),
        };
        secured.map_err(in_words)
    }
}

fn configured(
    certificates: Vec<CertificateDer<'static>>,
) -> Result<Arc<ClientConfig>, rustls::Error> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    roots.add_parsable_certificates(certificates.iter().cloned());
    let by_authority =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| rustls::Error::General(error.to_string()))?;
    let verifier = Verifier { by_authority, certificates, provider: provider.clone() };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        // It is stricter than the usual one nowhere, and laxer for what the operator has named.
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier))
        .with_no_client_auth();
    Ok(Arc::new(config))
}

/// Admits what an authority has signed, and a certificate that is in the file itself: the usual
/// self-signed one calls itself an authority, which may not be a server's (RFC 5280, 4.2.1.9).
#[derive(Debug)]
struct Verifier {
    by_authority: Arc<WebPkiServerVerifier>,
    certificates: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let by_authority = self.by_authority.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        );
        match by_authority {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::Other(_),
            )) if self.certificates.iter().any(|it| it == end_entity) => {
                verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
                Ok(ServerCertVerified::assertion())
            }
            decided => decided,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, cert, dss, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, cert, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// A connection that is secured.
struct Secured {
    buffers: LazyBuffers,
    stream: StreamOwned<ClientConnection, TransportAdapter>,
}

impl std::fmt::Debug for Secured {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secured")
    }
}

impl Secured {
    fn new(
        config: &Arc<ClientConfig>,
        details: &ConnectionDetails<'_>,
        base: Box<dyn Transport>,
    ) -> Result<Secured, Error> {
        let host = details.uri.host().unwrap_or_default();
        let bare = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(bare)
            .map_err(|_| Error::Tls("the host's name can stand in no certificate"))?;
        let mut connection = ClientConnection::new(config.clone(), name)
            .map_err(|error| Error::Io(io::Error::other(error)))?;
        let mut adapter = TransportAdapter::new(base, details.current_time.clone());
        adapter.set_timeout(details.timeout);
        connection.complete_io(&mut adapter)?;
        let (config, stream) = (details.config, StreamOwned::new(connection, adapter));
        let buffers = LazyBuffers::new(config.input_buffer_size(), config.output_buffer_size());
        Ok(Secured { buffers, stream })
    }
}

impl Transport for Secured {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        self.stream.sock.set_timeout(timeout);
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        Ok(self.stream.write_all(output)?)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.stream.sock.set_timeout(timeout);
        let read = self.stream.read(self.buffers.input_append_buf())?;
        self.buffers.input_appended(read);
        Ok(read > 0)
    }

    fn is_open(&mut self) -> bool {
        self.stream.sock.get_mut().is_open()
    }

    fn is_tls(&self) -> bool {
        true
    }
}

/// A refused certificate, with what can be done about it.
fn in_words(error: Error) -> Error {
    let found = if let Error::Io(io) = &error {
        io.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>())
    } else if let Error::Rustls(inner) = &error {
        Some(inner)
    } else {
        None
    };
    let text = if let Some(rustls::Error::InvalidCertificate(why)) = found {
        refused(why)
    } else if let Some(what @ rustls::Error::InvalidMessage(_)) = found {
        format!("{what}; it does not speak TLS there: does it speak http, and not https?")
    } else {
        return error;
    };
    Error::Io(io::Error::new(io::ErrorKind::InvalidData, text))
}

#[expect(clippy::wildcard_enum_match_arm, reason = "an enum of rustls's, which may grow")]
fn refused(why: &CertificateError) -> String {
    let (text, hint) = match why {
        CertificateError::UnknownIssuer => (
            why.to_string(),
            "nobody whom the gateway trusts has signed it: give the certificate of its authority, \
             or a self-signed one itself, as ca_file"
                .to_owned(),
        ),
        CertificateError::Other(inner) => (inner.to_string(), hint_of_other(&inner.to_string())),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            (why.to_string(), "its time is over; is the clock of this machine right?".to_owned())
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            (why.to_string(), "its time has not come; is the clock of this machine right?".to_owned())
        }
        CertificateError::NotValidForName => (
            why.to_string(),
            "it is for another name: the host of url must stand in it as a subjectAltName"
                .to_owned(),
        ),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let wanted = alternative_name(expected);
            let hint = if presented.is_empty() {
                format!(
                    "it names no host, since a common name does not count: it must have a \
                     subjectAltName ({wanted})"
                )
            } else {
                format!(
                    "it is for another name: the host of url must stand in it as a \
                     subjectAltName ({wanted})"
                )
            };
            (why.to_string(), hint)
        }
        _ => (why.to_string(), "it is not usable".to_owned()),
    };
    format!("the server's certificate is refused ({text}): {hint}")
}

/// What can be done about what rustls has no word of its own for.
fn hint_of_other(text: &str) -> String {
    if text.contains("UnsupportedCertVersion") {
        return "it is of X.509 version 1, which cannot name its host: it must be of version 3, \
                with a subjectAltName"
            .to_owned();
    }
    "a self-signed one is trusted where it is given as ca_file".to_owned()
}

/// As openssl takes it.
fn alternative_name(host: &ServerName<'_>) -> String {
    let kind = if matches!(host, ServerName::IpAddress(_)) { "IP" } else { "DNS" };
    format!("{kind}:{}", host.to_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_what_to_do() {
        let [host, address] =
            ["example.org", "192.0.2.1"].map(|it| ServerName::try_from(it).unwrap());
        let name = |expected: &ServerName<'static>, presented: &[&str]| {
            CertificateError::NotValidForNameContext {
                expected: expected.clone(),
                presented: presented.iter().map(|it| (*it).to_owned()).collect(),
            }
        };
        for (why, part) in [
            (CertificateError::UnknownIssuer, "as ca_file"),
            (CertificateError::Expired, "clock"),
            (CertificateError::NotValidYet, "clock"),
            (name(&host, &[]), "it must have a subjectAltName (DNS:example.org)"),
            (name(&address, &["DnsName(\"a\")"]), "for another name: the host of url must"),
            (name(&address, &["DnsName(\"a\")"]), "(IP:192.0.2.1)"),
            (CertificateError::Revoked, "not usable"),
        ] {
            let told = refused(&why);
            assert!(told.contains(part), "{told}");
        }
        assert!(hint_of_other("UnsupportedCertVersion").contains("version 1"));
        assert!(hint_of_other("CaUsedAsEndEntity").contains("ca_file"));
    }
}
