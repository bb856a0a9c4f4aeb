//! TLS towards clients, from PEM files.

use std::fs::File;
use std::io::BufReader;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// A file that cannot serve as a certificate or key; the text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

fn fail(path: &str) -> impl Fn(&dyn std::fmt::Display) -> TlsError {
    move |error| TlsError(format!("{path}: {error}"))
}

fn open(path: &str) -> Result<BufReader<File>, TlsError> {
    File::open(path).map(BufReader::new).map_err(|error| fail(path)(&error))
}

/// For [`super::ServerConfig::tls`], from -mysql_server_ssl_cert, _key and _ca. With `ca`, clients have to show a
/// certificate that it has signed.
pub fn tls_config(cert: &str, key: &str, ca: Option<&str>) -> Result<Arc<ServerConfig>, TlsError> {
    let chain =
        rustls_pemfile::certs(&mut open(cert)?).collect::<Result<Vec<_>, _>>().map_err(|error| fail(cert)(&error))?;
    let private = rustls_pemfile::private_key(&mut open(key)?).map_err(|error| fail(key)(&error))?;
    let private = private.ok_or_else(|| fail(key)(&"no private key in it"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| fail(cert)(&error))?;
    let builder = match ca {
        Some(ca) => {
            let mut roots = RootCertStore::empty();
            for certificate in rustls_pemfile::certs(&mut open(ca)?) {
                let certificate = certificate.map_err(|error| fail(ca)(&error))?;
                roots.add(certificate).map_err(|error| fail(ca)(&error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
            builder.with_client_cert_verifier(verifier.map_err(|error| fail(ca)(&error))?)
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain, private).map(Arc::new).map_err(|error| fail(cert)(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("empty.pem").display().to_string();
        std::fs::write(&path, "").expect("written");
        let error = tls_config(&path, &path, None).map(drop).map_err(|error| error.to_string());
        assert_eq!(error, Err(format!("{path}: no private key in it")));
        assert!(tls_config("/nonexistent.pem", &path, None).is_err_and(|e| e.to_string().starts_with("/nonexistent")));
    }
}
