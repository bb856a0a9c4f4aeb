//! Who may call: user and password in the metadata `username` and `password`, or the subject of the
//! client's certificate.
//!
//! Error texts and codes are Vitess's: clients and scripts read them.

use std::sync::Arc;

use axum::http::HeaderMap;
use serde::Deserialize;
use tonic::metadata::AsciiMetadataValue;
use tonic::{Request, Status};

use crate::Error;

/// One entry of `-grpc_auth_static_password_file`.
#[derive(Deserialize)]
struct Credential {
    #[serde(rename = "Username")]
    username: String,
    #[serde(rename = "Password")]
    password: String,
}

/// Who may call a server in mode `static`.
#[derive(Clone)]
pub(super) struct StaticAuth(Arc<[Credential]>);

impl StaticAuth {
    /// Reads the file: a JSON array of `{"Username": …, "Password": …}`.
    pub(super) fn read(path: &str) -> Result<Self, Error> {
        const FLAG: &str = "grpc_auth_static_password_file";
        let problem = |problem: String| Error::Flag { flag: FLAG.into(), problem };
        if path.is_empty() {
            return Err(problem("a file is required by -grpc_auth_mode static".into()));
        }
        let entries: Vec<Credential> =
            serde_json::from_slice(&super::read(FLAG, path)?).map_err(|error| problem(format!("{path}: {error}")))?;
        Ok(Self(entries.into()))
    }

    // The status is the answer; it is made once per refused call.
    #[allow(clippy::result_large_err)]
    pub(super) fn check(&self, headers: &HeaderMap) -> Result<(), Status> {
        let get = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        self.check_credentials(get("username").zip(get("password")))
    }

    #[allow(clippy::result_large_err)]
    pub(super) fn check_credentials(&self, credentials: Option<(&str, &str)>) -> Result<(), Status> {
        let Some((username, password)) = credentials else {
            return Err(Status::unauthenticated("username and password must be provided"));
        };
        let known = self.0.iter().any(|entry| {
            // Both are compared in full whatever differs, so that the time does not tell.
            same(&entry.username, username) & same(&entry.password, password)
        });
        if known {
            Ok(())
        } else {
            let text = format!("auth failure: caller {username:?} provided invalid credentials");
            Err(Status::permission_denied(text))
        }
    }
}

/// Compares in a time that depends on the lengths only.
fn same(a: &str, b: &str) -> bool {
    a.len() == b.len() && a.bytes().zip(b.bytes()).fold(0, |difference, (a, b)| difference | (a ^ b)) == 0
}

/// Which certificates may call a server in mode `mtls`.
#[derive(Clone)]
pub(super) struct MtlsAuth(Arc<[String]>);

impl MtlsAuth {
    /// Texts separated by colons, one of which has to occur in the subject.
    pub(super) fn new(substrings: &str) -> Result<Self, Error> {
        let substrings: Arc<[String]> =
            substrings.split(':').filter(|text| !text.is_empty()).map(str::to_owned).collect();
        if substrings.is_empty() {
            let problem = "required by -grpc_auth_mode mtls".into();
            return Err(Error::Flag { flag: "grpc_auth_mtls_allowed_substrings".into(), problem });
        }
        Ok(Self(substrings))
    }

    // The status is the answer; it is made once per refused call.
    #[allow(clippy::result_large_err)]
    pub(super) fn check_subjects(&self, subjects: Option<&[String]>) -> Result<(), Status> {
        let Some(subjects) = subjects else {
            return Err(Status::unauthenticated("not connected via TLS"));
        };
        if subjects.iter().any(|subject| self.0.iter().any(|text| subject.contains(text))) {
            Ok(())
        } else {
            Err(Status::unauthenticated("client certificate not authorized"))
        }
    }
}

/// What a client sends to say who it is; nothing unless `-grpc_auth_static_client_creds` is set.
#[derive(Clone, Default)]
pub struct ClientAuth(Option<Arc<(AsciiMetadataValue, AsciiMetadataValue)>>);

impl std::fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Never the password.
        f.debug_tuple("ClientAuth").field(&self.0.is_some()).finish()
    }
}

impl ClientAuth {
    /// Reads a file of `{"Username": …, "Password": …}`; an empty path is nobody.
    pub(super) fn read(path: &str) -> Result<Self, Error> {
        const FLAG: &str = "grpc_auth_static_client_creds";
        if path.is_empty() {
            return Ok(Self(None));
        }
        let problem = |problem: String| Error::Flag { flag: FLAG.into(), problem: format!("{path}: {problem}") };
        let entry: Credential =
            serde_json::from_slice(&super::read(FLAG, path)?).map_err(|error| problem(error.to_string()))?;
        let ascii = |text: &str| AsciiMetadataValue::try_from(text).map_err(|_| problem("not printable ASCII".into()));
        Ok(Self(Some(Arc::new((ascii(&entry.username)?, ascii(&entry.password)?)))))
    }

    /// Wraps a message into a request that says who calls. Costs nothing when nobody does.
    pub fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(pair) = &self.0 {
            request.metadata_mut().insert("username", pair.0.clone());
            request.metadata_mut().insert("password", pair.1.clone());
        }
        request
    }
}

/// For generated clients away from hot paths: `Client::with_interceptor(channel, auth)`.
impl tonic::service::Interceptor for ClientAuth {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(pair) = &self.0 {
            request.metadata_mut().insert("username", pair.0.clone());
            request.metadata_mut().insert("password", pair.1.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_the_texts_of_vitess() {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("users.json");
        std::fs::write(&path, r#"[{"Username":"vt","Password":"secret"}]"#).expect("written");
        let auth = StaticAuth::read(path.to_str().expect("UTF-8")).expect("valid");
        let headers = |pairs: &[(&'static str, &'static str)]| {
            pairs.iter().map(|&(name, value)| (name.parse().expect("name"), value.parse().expect("value"))).collect()
        };
        let error = auth.check(&headers(&[])).expect_err("nobody");
        assert_eq!(
            (error.code(), error.message()),
            (tonic::Code::Unauthenticated, "username and password must be provided")
        );
        let error = auth.check(&headers(&[("username", "vt"), ("password", "secreT")])).expect_err("wrong");
        assert_eq!(error.code(), tonic::Code::PermissionDenied);
        assert_eq!(error.message(), "auth failure: caller \"vt\" provided invalid credentials");
        auth.check(&headers(&[("username", "vt"), ("password", "secret")])).expect("known");

        let error = StaticAuth::read("").map(|_| ()).expect_err("no file").to_string();
        assert!(error.starts_with("-grpc_auth_static_password_file: "), "{error}");
    }
}
