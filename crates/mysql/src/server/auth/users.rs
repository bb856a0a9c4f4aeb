//! The users of `-mysql_auth_server_impl=static`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::OnceLock;

use serde::Deserialize;

use super::{AuthError, Identity, Proof, Verdict};
use crate::scramble;

/// One way for a user to log in.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Entry {
    #[serde(rename = "Password")]
    password: String,
    /// `*` and the double SHA1 in hex, as `SELECT PASSWORD(…)` prints it. Goes before `Password`.
    #[serde(rename = "MysqlNativePassword")]
    mysql_native_password: String,
    #[serde(rename = "UserData")]
    user_data: String,
    /// Empty: from anywhere. `localhost`: only over the unix socket. Nothing else matches anything.
    #[serde(rename = "SourceHost")]
    source_host: String,
    #[serde(rename = "Groups")]
    groups: Vec<String>,
    #[serde(skip)]
    native: Option<[u8; 20]>,
    /// Double SHA256: known from the start with a plain password, else since the first full login.
    #[serde(skip)]
    sha2: OnceLock<[u8; 32]>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Entries {
    Many(Vec<Entry>),
    One(Box<Entry>),
}

/// Every user with the ways to log in.
#[derive(Debug)]
pub(super) struct Users {
    by_name: HashMap<String, Vec<Entry>>,
}

impl Users {
    pub fn read(path: &Path) -> Result<Self, AuthError> {
        let text = std::fs::read_to_string(path).map_err(|source| AuthError::Read { path: path.into(), source })?;
        Self::parse(&text)
    }

    pub fn parse(json: &str) -> Result<Self, AuthError> {
        let parsed: HashMap<String, Entries> =
            serde_json::from_str(json).map_err(|error| AuthError::Parse(error.to_string()))?;
        let mut by_name = HashMap::with_capacity(parsed.len());
        for (name, entries) in parsed {
            let mut entries = match entries {
                Entries::Many(entries) => entries,
                Entries::One(entry) => vec![*entry],
            };
            for entry in &mut entries {
                entry.prepare(&name)?;
            }
            by_name.insert(name, entries);
        }
        Ok(Self { by_name })
    }

    /// Any matching entry lets the user in.
    pub fn verify(&self, user: &str, unix_socket: bool, proof: Proof<'_>) -> Verdict {
        let mut need_clear = false;
        for entry in self.by_name.get(user).into_iter().flatten().filter(|entry| entry.allows(unix_socket)) {
            match entry.matches(proof) {
                Some(true) => {
                    let identity = Identity { user_data: entry.user_data.clone(), groups: entry.groups.clone() };
                    return Verdict::Accept(identity);
                }
                Some(false) => {}
                None => need_clear = true,
            }
        }
        if need_clear { Verdict::NeedClear } else { Verdict::Deny }
    }
}

impl Entry {
    /// Checks the entry and works out its hashes, once.
    fn prepare(&mut self, user: &str) -> Result<(), AuthError> {
        if self.mysql_native_password.is_empty() {
            self.sha2 = OnceLock::from(scramble::sha2_hash(self.password.as_bytes()));
            return Ok(());
        }
        let bad = || AuthError::Parse(format!("user {user}: MysqlNativePassword has to be * and 40 hex digits"));
        let hex = self.mysql_native_password.strip_prefix('*').filter(|hex| hex.len() == 40 && hex.is_ascii());
        let hex = hex.ok_or_else(bad)?;
        let mut hash = [0; 20];
        for (index, byte) in hash.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).map_err(|_| bad())?;
        }
        self.native = Some(hash);
        Ok(())
    }

    fn allows(&self, unix_socket: bool) -> bool {
        self.source_host.is_empty() || (unix_socket && self.source_host == "localhost")
    }

    /// `None` when this proof cannot tell.
    fn matches(&self, proof: Proof<'_>) -> Option<bool> {
        match (proof, &self.native) {
            (Proof::Native { reply: [], .. } | Proof::Sha2 { reply: [], .. }, native) => {
                Some(native.is_none() && self.password.is_empty())
            }
            (Proof::Native { reply, salt }, Some(hash)) => Some(scramble::native_matches(reply, salt, hash)),
            (Proof::Native { reply, salt }, None) => {
                let hash = scramble::native_hash(self.password.as_bytes());
                Some(!self.password.is_empty() && scramble::native_matches(reply, salt, &hash))
            }
            (Proof::Sha2 { .. }, None) if self.password.is_empty() => Some(false),
            (Proof::Sha2 { reply, salt }, _) => self.sha2.get().map(|hash| scramble::sha2_matches(reply, salt, hash)),
            (Proof::Clear(password), Some(hash)) => {
                let good = scramble::passwords_equal(&scramble::native_hash(password), hash);
                if good {
                    // From now on this entry knows the fast path.
                    let _ = self.sha2.set(scramble::sha2_hash(password));
                }
                Some(good)
            }
            (Proof::Clear(password), None) => Some(scramble::passwords_equal(password, self.password.as_bytes())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: &[u8] = b"abcdefghijklmnopqrst";

    fn native(users: &Users, user: &str, password: &str, unix: bool) -> Verdict {
        let reply = scramble::native_reply(password.as_bytes(), SALT);
        users.verify(user, unix, Proof::Native { reply: &reply, salt: SALT })
    }

    fn sha2(users: &Users, user: &str, password: &str) -> Verdict {
        let reply = scramble::sha2_reply(password.as_bytes(), SALT);
        users.verify(user, false, Proof::Sha2 { reply: &reply, salt: SALT })
    }

    fn accepted(user_data: &str, groups: &[&str]) -> Verdict {
        let groups = groups.iter().map(|&group| group.to_owned()).collect();
        Verdict::Accept(Identity { user_data: user_data.into(), groups })
    }

    #[test]
    fn one_entry_or_a_list() {
        let users = Users::parse(
            r#"{"one": {"Password": "p1", "UserData": "d1", "Groups": ["g"]},
                "two": [{"Password": "old"}, {"Password": "new", "UserData": "d2"}],
                "local": {"Password": "p", "SourceHost": "localhost"},
                "open": {"Password": ""}}"#,
        )
        .expect("users");
        assert_eq!(native(&users, "one", "p1", false), accepted("d1", &["g"]));
        assert_eq!(native(&users, "one", "p2", false), Verdict::Deny);
        assert_eq!(native(&users, "two", "new", false), accepted("d2", &[]));
        assert_eq!(native(&users, "two", "old", false), accepted("", &[]));
        assert_eq!(native(&users, "local", "p", false), Verdict::Deny);
        assert_eq!(native(&users, "local", "p", true), accepted("", &[]));
        assert_eq!(native(&users, "open", "", false), accepted("", &[]));
        assert_eq!(native(&users, "open", "x", false), Verdict::Deny);
        assert_eq!(native(&users, "one", "", false), Verdict::Deny);
        assert_eq!(native(&users, "nobody", "", false), Verdict::Deny);
        assert_eq!(sha2(&users, "one", "p1"), accepted("d1", &["g"]));
        assert_eq!(sha2(&users, "open", "x"), Verdict::Deny);
    }

    #[test]
    fn a_hash_serves_sha2_after_one_full_login() {
        let users = Users::parse(
            r#"{"u": {"MysqlNativePassword": "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19", "UserData": "d"}}"#,
        )
        .expect("users");
        assert_eq!(native(&users, "u", "password", false), accepted("d", &[]));
        assert_eq!(sha2(&users, "u", "password"), Verdict::NeedClear);
        assert_eq!(users.verify("u", false, Proof::Clear(b"wrong")), Verdict::Deny);
        assert_eq!(sha2(&users, "u", "password"), Verdict::NeedClear);
        assert_eq!(users.verify("u", false, Proof::Clear(b"password")), accepted("d", &[]));
        assert_eq!(sha2(&users, "u", "password"), accepted("d", &[]));
        assert_eq!(sha2(&users, "u", "other"), Verdict::Deny);
        assert_eq!(native(&users, "u", "", false), Verdict::Deny);
    }

    #[test]
    fn mistakes_in_the_file_are_named() {
        for bad in [r#"{"u": {"Pasword": "x"}}"#, r#"{"u": {"MysqlNativePassword": "2470"}}"#, "[]", ""] {
            assert!(matches!(Users::parse(bad), Err(AuthError::Parse(_))), "{bad}");
        }
    }
}
