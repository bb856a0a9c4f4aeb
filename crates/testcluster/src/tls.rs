//! Certificates for a cluster that encrypts everything: one authority, one certificate for servers and clients alike,
//! and the file of users for gRPC.

use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The files. Servers of the cluster answer to `127.0.0.1` and `localhost`.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    pub ca: PathBuf,
    pub cert: PathBuf,
    pub key: PathBuf,
    /// JSON for `-grpc_auth_static_password_file`.
    pub users: PathBuf,
    /// JSON for `-grpc_auth_static_client_creds`.
    pub creds: PathBuf,
}

impl TlsFiles {
    /// Makes them in `dir`.
    pub fn make(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let write = |name: &str, text: &str| -> Result<PathBuf> {
            let path = dir.join(name);
            fs::write(&path, text)?;
            Ok(path)
        };
        let mut authority = rcgen::CertificateParams::new(Vec::new())?;
        authority.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        authority.distinguished_name.push(rcgen::DnType::CommonName, "authority of a test cluster");
        let authority = rcgen::CertifiedIssuer::self_signed(authority, rcgen::KeyPair::generate()?)?;
        let mut server = rcgen::CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        server.distinguished_name.push(rcgen::DnType::CommonName, "a server of a test cluster");
        let key = rcgen::KeyPair::generate()?;
        let certificate = server.signed_by(&key, &authority)?;
        Ok(Self {
            ca: write("ca.pem", &authority.pem())?,
            cert: write("cert.pem", &certificate.pem())?,
            key: write("key.pem", &key.serialize_pem())?,
            users: write("users.json", r#"[{"Username": "cluster", "Password": "secret"}]"#)?,
            creds: write("creds.json", r#"{"Username": "cluster", "Password": "secret"}"#)?,
        })
    }

    /// Flags of a gRPC server: its certificate, clients' certificates and passwords wanted.
    pub fn server_flags(&self) -> Vec<String> {
        vec![
            format!("-grpc_cert={}", self.cert.display()),
            format!("-grpc_key={}", self.key.display()),
            format!("-grpc_ca={}", self.ca.display()),
            "-grpc_auth_mode=static".to_owned(),
            format!("-grpc_auth_static_password_file={}", self.users.display()),
        ]
    }

    /// Flags of a client whose TLS flags begin with `prefix`.
    pub fn client_flags(&self, prefix: &str) -> Vec<String> {
        vec![
            format!("-{prefix}_cert={}", self.cert.display()),
            format!("-{prefix}_key={}", self.key.display()),
            format!("-{prefix}_ca={}", self.ca.display()),
        ]
    }

    /// The password that clients of gRPC servers show.
    pub fn creds_flag(&self) -> String {
        format!("-grpc_auth_static_client_creds={}", self.creds.display())
    }

    /// Flags towards etcd.
    pub fn etcd_flags(&self) -> Vec<String> {
        vec![
            format!("-topo_etcd_tls_cert={}", self.cert.display()),
            format!("-topo_etcd_tls_key={}", self.key.display()),
            format!("-topo_etcd_tls_ca={}", self.ca.display()),
        ]
    }
}
