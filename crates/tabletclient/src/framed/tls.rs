//! TLS of a client, from the files of [`TlsOptions`].

use std::{path::Path, sync::Arc};

use rustls::{ClientConfig, RootCertStore, pki_types::ServerName};
use tokio_rustls::TlsConnector;
use vterrors::{Code, Result, VtError};

use crate::grpc::TlsOptions;

/// How to secure a connection to one host.
#[derive(Clone)]
pub(super) struct ClientTls {
    pub connector: TlsConnector,
    pub name: ServerName<'static>,
}

impl ClientTls {
    /// `host` is the name expected in the certificate, unless the options give another.
    pub fn new(options: &TlsOptions, host: &str) -> Result<Self> {
        let name = options.server_name.as_deref().unwrap_or(host).trim_matches(['[', ']']).to_owned();
        let name = ServerName::try_from(name.clone()).map_err(|error| invalid(Path::new(&name), &error))?;
        let mut roots = RootCertStore::empty();
        if let Some(path) = &options.ca {
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| invalid(path, &error))?;
            }
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| invalid(Path::new("protocol versions"), &error))?
            .with_root_certificates(roots);
        let config = match (&options.cert, &options.key) {
            (Some(cert), Some(key)) => {
                let private = rustls_pemfile::private_key(&mut &read(key)?[..])
                    .map_err(|error| invalid(key, &error))?
                    .ok_or_else(|| invalid(key, &"no private key in it"))?;
                builder.with_client_auth_cert(certificates(cert)?, private).map_err(|error| invalid(cert, &error))?
            }
            _ => builder.with_no_client_auth(),
        };
        Ok(Self { connector: TlsConnector::from(Arc::new(config)), name })
    }
}

fn certificates(path: &Path) -> Result<Vec<rustls::pki_types::CertificateDer<'static>>> {
    rustls_pemfile::certs(&mut &read(path)?[..]).collect::<Result<_, _>>().map_err(|error| invalid(path, &error))
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(|error| invalid(path, &error))
}

fn invalid(path: &Path, error: &dyn std::fmt::Display) -> VtError {
    VtError::new(Code::InvalidArgument, format!("TLS: {}: {error}", path.display()))
}
