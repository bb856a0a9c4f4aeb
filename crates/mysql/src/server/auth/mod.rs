//! Who may connect.
//!
//! Built: `none` and `static`. The methods of the MySQL protocol are `mysql_native_password` and
//! `caching_sha2_password`, whichever the client begins with.

mod users;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock, RwLock};

use rsa::pkcs8::{EncodePublicKey, LineEnding};

use crate::scramble;
use users::Users;

/// What a successful login yields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Name for table ACLs: `username` of the immediate caller id.
    pub user_data: String,
    pub groups: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// `ldap`, `clientcert`: known to Vitess.
    #[error("-mysql_auth_server_impl={0} is not built into this program; use none or static")]
    NotBuilt(String),
    #[error("no AuthServer name {0} registered; use none or static")]
    Unknown(String),
    #[error("-mysql_auth_server_impl=static needs -mysql_auth_server_static_file or -mysql_auth_server_static_string")]
    NotConfigured,
    #[error("only one of -mysql_auth_server_static_file and -mysql_auth_server_static_string can be given")]
    Both,
    #[error("read {path}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("parse mysql auth server config: {0}")]
    Parse(String),
}

/// The ways to check a login. Clones share users and state.
#[derive(Debug, Clone)]
pub struct AuthServer {
    kind: Kind,
    /// Made when a client asks for it first: it takes a noticeable part of a second.
    rsa: Arc<OnceLock<Option<RsaKey>>>,
}

#[derive(Debug, Clone)]
enum Kind {
    None,
    Static { users: Arc<RwLock<Arc<Users>>>, file: Option<PathBuf> },
}

#[derive(Debug)]
pub(super) struct RsaKey {
    private: rsa::RsaPrivateKey,
    pub public_pem: String,
}

/// A proof a client has sent.
#[derive(Debug, Clone, Copy)]
pub(super) enum Proof<'a> {
    Native { reply: &'a [u8], salt: &'a [u8] },
    Sha2 { reply: &'a [u8], salt: &'a [u8] },
    Clear(&'a [u8]),
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Accept(Identity),
    Deny,
    /// Only the password itself can tell.
    NeedClear,
}

impl AuthServer {
    /// Any user, any password; user data is `userData1`.
    pub fn none() -> Self {
        Self { kind: Kind::None, rsa: Arc::default() }
    }

    fn of_users(users: Users, file: Option<PathBuf>) -> Self {
        Self { kind: Kind::Static { users: Arc::new(RwLock::new(Arc::new(users))), file }, rsa: Arc::default() }
    }

    /// Users from JSON text: name → one entry or a list of {Password, MysqlNativePassword, UserData, SourceHost,
    /// Groups}.
    pub fn static_json(json: &str) -> Result<Self, AuthError> {
        Ok(Self::of_users(Users::parse(json)?, None))
    }

    /// Users from a JSON file; [`AuthServer::reload`] reads it again.
    pub fn static_file(path: &Path) -> Result<Self, AuthError> {
        Ok(Self::of_users(Users::read(path)?, Some(path.to_owned())))
    }

    /// From the flags -mysql_auth_server_impl, -mysql_auth_server_static_file, -mysql_auth_server_static_string.
    pub fn from_flags(implementation: &str, file: &str, string: &str) -> Result<Self, AuthError> {
        match (implementation, file, string) {
            ("none", ..) => Ok(Self::none()),
            ("static", "", "") => Err(AuthError::NotConfigured),
            ("static", file, "") => Self::static_file(Path::new(file)),
            ("static", "", string) => Self::static_json(string),
            ("static", ..) => Err(AuthError::Both),
            ("ldap" | "clientcert", ..) => Err(AuthError::NotBuilt(implementation.into())),
            (other, ..) => Err(AuthError::Unknown(other.into())),
        }
    }

    /// Reads the file again (SIGHUP, or a timer); keeps what it has when the file is bad. Nothing to do without a
    /// file. Open connections stay.
    pub fn reload(&self) -> Result<(), AuthError> {
        if let Kind::Static { users, file: Some(path) } = &self.kind {
            let fresh = Arc::new(Users::read(path)?);
            *users.write().unwrap_or_else(std::sync::PoisonError::into_inner) = fresh;
        }
        Ok(())
    }

    pub(super) fn verify(&self, user: &str, unix_socket: bool, proof: Proof<'_>) -> Verdict {
        match &self.kind {
            Kind::None => Verdict::Accept(Identity { user_data: "userData1".into(), groups: Vec::new() }),
            Kind::Static { users, .. } => {
                let users = users.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
                users.verify(user, unix_socket, proof)
            }
        }
    }

    /// The key pair for passwords over plain TCP. `None` when it could not be made.
    pub(super) fn rsa_key(&self) -> Option<&RsaKey> {
        self.rsa.get_or_init(|| RsaKey::generate().ok()).as_ref()
    }
}

impl RsaKey {
    fn generate() -> Result<Self, Box<dyn std::error::Error>> {
        let private = rsa::RsaPrivateKey::new(&mut rsa::rand_core::OsRng, 2048)?;
        let public_pem = private.to_public_key().to_public_key_pem(LineEnding::LF)?;
        Ok(Self { private, public_pem })
    }

    /// The password in what a client encrypted; `None` when it is not that.
    pub fn password(&self, encrypted: &[u8], salt: &[u8]) -> Option<Vec<u8>> {
        // Blinded: the time it takes says nothing about the key.
        let mut rng = rsa::rand_core::OsRng;
        let masked = self.private.decrypt_blinded(&mut rng, rsa::Oaep::new::<sha1::Sha1>(), encrypted).ok()?;
        let mut clear = scramble::rsa_mask(masked, salt);
        (clear.pop() == Some(0)).then_some(clear)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_built_says_so() {
        for (implementation, text) in [
            ("ldap", "-mysql_auth_server_impl=ldap is not built into this program; use none or static"),
            ("x", "no AuthServer name x registered; use none or static"),
        ] {
            let error = AuthServer::from_flags(implementation, "", "").map(drop).map_err(|e| e.to_string());
            assert_eq!(error, Err(text.into()));
        }
        assert!(matches!(AuthServer::from_flags("static", "", ""), Err(AuthError::NotConfigured)));
        assert!(matches!(AuthServer::from_flags("static", "a", "b"), Err(AuthError::Both)));
        assert!(AuthServer::from_flags("none", "", "").is_ok());
    }

    #[test]
    fn a_bad_file_does_not_replace_good_users() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("users.json");
        let logs_in = |auth: &AuthServer, password: &str| {
            matches!(auth.verify("u", false, Proof::Clear(password.as_bytes())), Verdict::Accept(_))
        };
        std::fs::write(&path, r#"{"u": {"Password": "one"}}"#).expect("write");
        let auth = AuthServer::static_file(&path).expect("users");
        std::fs::write(&path, "{").expect("write");
        assert!(auth.reload().is_err() && logs_in(&auth, "one"));
        std::fs::write(&path, r#"{"u": {"Password": "two"}}"#).expect("write");
        assert!(auth.reload().is_ok() && logs_in(&auth, "two") && !logs_in(&auth, "one"));
    }
}
