//! TLS towards a mysqld that is reached over the network, from PEM files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

use super::params::ClientTls;

/// A file that cannot serve as a certificate or key; the text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

impl ClientTls {
    /// `ca` is the authority that signed the server's certificate; `identity` is our own certificate and its key, for
    /// servers that ask for one.
    pub fn from_files(
        ca: &Path,
        identity: Option<(&Path, &Path)>,
        server_name: impl Into<String>,
    ) -> Result<Self, TlsError> {
        let fail = |path: &Path, error: &dyn std::fmt::Display| TlsError(format!("{}: {error}", path.display()));
        let open = |path: &Path| File::open(path).map(BufReader::new).map_err(|error| fail(path, &error));
        let mut roots = RootCertStore::empty();
        for certificate in rustls_pemfile::certs(&mut open(ca)?) {
            let certificate = certificate.map_err(|error| fail(ca, &error))?;
            roots.add(certificate).map_err(|error| fail(ca, &error))?;
        }
        if roots.is_empty() {
            return Err(fail(ca, &"no certificate in it"));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| fail(ca, &error))?
            .with_root_certificates(roots);
        let config = match identity {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => {
                let chain = rustls_pemfile::certs(&mut open(cert)?).collect::<Result<Vec<_>, _>>();
                let private = rustls_pemfile::private_key(&mut open(key)?).map_err(|error| fail(key, &error))?;
                let private = private.ok_or_else(|| fail(key, &"no private key in it"))?;
                builder
                    .with_client_auth_cert(chain.map_err(|error| fail(cert, &error))?, private)
                    .map_err(|error| fail(cert, &error))?
            }
        };
        Ok(Self { config: Arc::new(config), server_name: server_name.into() })
    }
}
