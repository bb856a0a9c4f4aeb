//! TLS towards clients, from PEM files.

use std::fs::File;
use std::io::BufReader;
use std::path::Path;
use std::sync::Arc;

use rustls::server::WebPkiClientVerifier;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{InconsistentKeys, RootCertStore, ServerConfig};

/// A file that cannot serve as a certificate or key; the text names it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct TlsError(String);

fn fail(path: &Path) -> impl Fn(&dyn std::fmt::Display) -> TlsError {
    move |error| TlsError(format!("{}: {error}", path.display()))
}

fn open(path: &Path) -> Result<BufReader<File>, TlsError> {
    File::open(path).map(BufReader::new).map_err(|error| fail(path)(&error))
}

/// For [`super::ServerConfig::tls`], from -mysql_server_ssl_cert, _key and _ca. With `ca`, clients have to show a
/// certificate that it has signed.
///
/// # Errors
/// A file cannot be read, holds nothing of its kind, or the key is another certificate's.
pub fn tls_config(cert: &Path, key: &Path, ca: Option<&Path>) -> Result<Arc<ServerConfig>, TlsError> {
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
    if chain.is_empty() {
        return Err(fail(cert)(&"no certificate in it"));
    }
    let private = rustls::crypto::ring::sign::any_supported_type(&private).map_err(|error| fail(key)(&error))?;
    let certified = CertifiedKey::new(chain, private);
    // Certificates of version 1, which tools still make, cannot be looked into; clients judge them.
    if let Err(error @ rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) = certified.keys_match() {
        return Err(fail(key)(&error));
    }
    Ok(Arc::new(builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(certified)))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("empty.pem");
        std::fs::write(&path, "").expect("written");
        let error = tls_config(&path, &path, None).map(drop).map_err(|error| error.to_string());
        assert_eq!(error, Err(format!("{}: no private key in it", path.display())));
        let missing = tls_config(Path::new("/nonexistent.pem"), &path, None);
        assert!(missing.is_err_and(|error| error.to_string().starts_with("/nonexistent")));
    }

    /// Made by `openssl x509 -req` without extensions.
    const VERSION_1: &str = "\
-----BEGIN CERTIFICATE-----
MIIBFTCBvQIUD/V+27DABiw7tDTLg4KHgT2T09gwCgYIKoZIzj0EAwIwDTELMAkG
A1UEAwwCdjEwIBcNMjYxMTI3MDI1NzU2WhgPMjEyNjExMDMwMjU3NTZaMA0xCzAJ
BgNVBAMMAnYxMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEkoRw+34bvyWnavk3
Ug4tLvD4F6pRaHhozNVff4+LbO+yxusbwX625AVTHOj04B7GrlYlQ2UaSQn8RekL
NlRqkzAKBggqhkjOPQQDAgNHADBEAiB44vHK6bBeBNrRUb0BPeAUs/geOY8+1znh
yRxo2kL3fgIgYsQLbuoT/+8vpn/e4nCX5PDWiAKzWveXs7rClvzBiGM=
-----END CERTIFICATE-----
";
    const ITS_KEY: &str = "\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgWPhkbRuOVbso+rVd
uWKtzSCLA7TpcQU4FoAxv60RULqhRANCAASShHD7fhu/Jadq+TdSDi0u8PgXqlFo
eGjM1V9/j4ts77LG6xvBfrbkBVMc6PTgHsauViVDZRpJCfxF6Qs2VGqT
-----END PRIVATE KEY-----
";

    #[test]
    fn a_certificate_of_version_1_serves_and_a_key_of_another_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).expect("written");
            path
        };
        let (cert, key) = (file("cert.pem", VERSION_1), file("key.pem", ITS_KEY));
        tls_config(&cert, &key, None).expect("a TLS set-up");
        assert_eq!(
            tls_config(&key, &key, None).map(drop).expect_err("no certificate").to_string(),
            format!("{}: no certificate in it", key.display())
        );
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let other = file("other.pem", &made.cert.pem());
        let error = tls_config(&other, &key, None).map(drop).expect_err("another's key").to_string();
        assert!(error.starts_with(&key.display().to_string()), "{error}");
    }
}
