//! Who may connect.

/// What a successful login yields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// Name for table ACLs: `username` of the immediate caller id.
    pub user_data: String,
    pub groups: Vec<String>,
}

#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// `ldap`, `clientcert`, or a name nobody knows.
    #[error("mysql auth server {0} is not built into this program")]
    NotBuilt(String),
    #[error("{0}")]
    Config(String),
}

/// The ways to check a login. Cheap to clone.
#[derive(Debug, Clone)]
pub struct AuthServer {}

impl AuthServer {
    /// Any user, any password; user data is `userData1`.
    pub fn none() -> Self {
        unimplemented!()
    }
    /// Users from JSON text.
    pub fn static_json(_json: &str) -> Result<Self, AuthError> {
        unimplemented!()
    }
    /// Users from a JSON file; [`AuthServer::reload`] reads it again.
    pub fn static_file(_path: &std::path::Path) -> Result<Self, AuthError> {
        unimplemented!()
    }
    /// From the flags -mysql_auth_server_impl, -mysql_auth_server_static_file, -mysql_auth_server_static_string.
    pub fn from_flags(_implementation: &str, _file: &str, _string: &str) -> Result<Self, AuthError> {
        unimplemented!()
    }
    /// Reads the file again (SIGHUP, or a timer); keeps what it has when the file is bad.
    pub fn reload(&self) -> Result<(), AuthError> {
        unimplemented!()
    }
}
