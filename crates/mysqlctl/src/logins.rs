//! How the programs beside a mysqld log in to it: from the `-db_*` flags and the credentials file.
//!
//! Owns: which flags make up one user's connection. A managed mysqld is reached by its socket; `-db_host` or `-db_socket`
//! name one that is managed elsewhere.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use mysql::client::{ClientTls, ConnectParams};
use servenv::Parsed;

use crate::error::{Error, Result};

/// Everything the flags say about logging in.
#[derive(Debug, Clone)]
pub struct LoginFlags<'a> {
    flags: &'a Parsed,
    /// User to passwords, from `-db-credentials-file`.
    passwords: HashMap<String, Vec<String>>,
}

impl<'a> LoginFlags<'a> {
    /// Reads the credentials file, if there is one.
    ///
    /// # Errors
    /// The file cannot be read or is not JSON of user to list of passwords.
    pub fn new(flags: &'a Parsed) -> Result<Self> {
        if flags.str("db-credentials-server") != "file" {
            return Err(Error::Invalid(format!(
                "-db-credentials-server {} is not known; passwords come from a file (file)",
                flags.str("db-credentials-server")
            )));
        }
        let path = flags.str("db-credentials-file");
        let passwords = if path.is_empty() { HashMap::new() } else { read_passwords(Path::new(path))? };
        Ok(Self { flags, passwords })
    }

    /// Whether the flags name a mysqld that somebody else manages.
    pub fn is_unmanaged(&self) -> bool {
        !self.flags.str("db_host").is_empty() || !self.flags.str("db_socket").is_empty()
    }

    /// The connection of a user (`app`, `dba`, …) to the mysqld with this socket, or to the unmanaged one.
    ///
    /// # Errors
    /// The TLS files cannot be used, or the port is none.
    pub fn params(&self, user: &str, socket: Option<&Path>) -> Result<ConnectParams> {
        let (name, password) = self.name_and_password(user);
        let mut params = match socket {
            Some(socket) => ConnectParams::unix(socket, name),
            None => self.unmanaged(name)?,
        };
        params.password = password;
        let charset = self.flags.str("db_charset");
        if !charset.is_empty() {
            charset.clone_into(&mut params.charset);
        }
        if params.socket.is_none() && self.flags.bool(&format!("db_{user}_use_ssl")) {
            params.tls = self.tls(&params.host)?;
        }
        Ok(params)
    }

    fn unmanaged(&self, name: String) -> Result<ConnectParams> {
        let socket = self.flags.str("db_socket");
        if !socket.is_empty() {
            return Ok(ConnectParams::unix(PathBuf::from(socket), name));
        }
        let port = match self.flags.int("db_port") {
            0 => 3306,
            port => u16::try_from(port).map_err(|_| Error::Invalid(format!("-db_port {port} is not a TCP port")))?,
        };
        Ok(ConnectParams::tcp(self.flags.str("db_host"), port, name))
    }

    fn tls(&self, host: &str) -> Result<Option<ClientTls>> {
        let [ca, cert, key, name] =
            ["db_ssl_ca", "db_ssl_cert", "db_ssl_key", "db_server_name"].map(|name| self.flags.str(name));
        if ca.is_empty() {
            return Ok(None);
        }
        let identity = match (cert.is_empty(), key.is_empty()) {
            (true, true) => None,
            (false, false) => Some((Path::new(cert), Path::new(key))),
            _ => return Err(Error::Invalid("-db_ssl_cert and -db_ssl_key go together".to_owned())),
        };
        let name = if name.is_empty() { host } else { name };
        ClientTls::from_files(Path::new(ca), identity, name)
            .map(Some)
            .map_err(|error| Error::Invalid(format!("TLS to MySQL: {error}")))
    }

    /// The name and password of a user. The older spellings count when the newer ones were not given, and the
    /// credentials file has the last word on passwords.
    pub fn name_and_password(&self, user: &str) -> (String, String) {
        let pick = |new: String, old: String| {
            let flag = if !self.flags.is_set(&new) && self.flags.is_set(&old) { old } else { new };
            self.flags.str(&flag).to_owned()
        };
        let name = pick(format!("db_{user}_user"), format!("db-config-{user}-uname"));
        let password = pick(format!("db_{user}_password"), format!("db-config-{user}-pass"));
        match self.passwords.get(&name).and_then(|passwords| passwords.first()) {
            Some(password) => (name, password.clone()),
            None => (name, password),
        }
    }
}

fn read_passwords(path: &Path) -> Result<HashMap<String, Vec<String>>> {
    let text = fs::read_to_string(path).map_err(Error::file("read -db-credentials-file", path))?;
    serde_json::from_str(&text)
        .map_err(|error| Error::Invalid(format!("{}: not JSON of user to list of passwords: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;
    use servenv::Program;

    fn parse(args: &[&str]) -> Parsed {
        Program::Mysqlctl.flag_set().parse(args).unwrap()
    }

    #[test]
    fn a_user_has_its_usual_name_unless_told_otherwise() {
        let flags = parse(&[]);
        let params = LoginFlags::new(&flags).unwrap().params("dba", Some(Path::new("/s"))).unwrap();
        assert_eq!((params.user.as_str(), params.password.as_str()), ("vt_dba", ""));
        let flags = parse(&["-db-config-dba-uname", "old", "-db-config-dba-pass", "secret"]);
        let (name, password) = LoginFlags::new(&flags).unwrap().name_and_password("dba");
        assert_eq!((name.as_str(), password.as_str()), ("old", "secret"));
    }

    #[test]
    fn the_credentials_file_has_the_last_word() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("passwords.json");
        fs::write(&path, r#"{"vt_dba": ["from file", "next"]}"#).unwrap();
        let flags = parse(&["-db-credentials-file", path.to_str().unwrap(), "-db_dba_password", "from flag"]);
        assert_eq!(LoginFlags::new(&flags).unwrap().name_and_password("dba").1, "from file");
        fs::write(&path, "not json").unwrap();
        assert!(LoginFlags::new(&flags).unwrap_err().to_string().contains("passwords.json"));
    }
}
