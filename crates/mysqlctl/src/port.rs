//! Whether a TCP port is free, and who holds it when it is not.

use std::{fs, io, net::TcpListener};

use crate::error::{Error, Result};

/// Fails with [`Error::PortTaken`] when something listens on the port on any address.
pub fn check_free(port: u16) -> Result<()> {
    // mysqld listens on every address, of both families where there are two.
    for address in ["0.0.0.0", "::"] {
        match TcpListener::bind((address, port)) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(Error::PortTaken { port, holder: holder(port) });
            }
            // No IPv6 on this machine, or a port that needs privileges: mysqld will say.
            Err(_) => {}
        }
    }
    Ok(())
}

/// The process that listens on a port, as `pid 12 (name)`. Only those of other users that we may look into.
fn holder(port: u16) -> Option<String> {
    let inodes: Vec<String> =
        ["/proc/net/tcp", "/proc/net/tcp6"].iter().flat_map(|file| listening_inodes(file, port)).collect();
    for process in fs::read_dir("/proc").ok()?.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())) else { continue };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else { continue };
        let holds = files.flatten().filter_map(|file| fs::read_link(file.path()).ok()).any(|target| {
            let target = target.to_string_lossy();
            inodes.iter().any(|inode| target == format!("socket:[{inode}]"))
        });
        if holds {
            let command = fs::read_to_string(process.path().join("comm")).unwrap_or_default();
            return Some(format!("pid {pid} ({})", command.trim()));
        }
    }
    None
}

/// The sockets in state LISTEN on the port. Columns: sl, local_address, rem_address, st, …, inode is the tenth.
fn listening_inodes(file: &str, port: u16) -> Vec<String> {
    let suffix = format!(":{port:04X}");
    let table = fs::read_to_string(file).unwrap_or_default();
    table
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().collect::<Vec<_>>())
        .filter(|columns| columns.len() > 9 && columns[1].ends_with(&suffix) && columns[3] == "0A")
        .map(|columns| columns[9].to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_names_its_holder() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_free(port).unwrap_err().to_string();
        assert!(error.contains(&format!("port {port} is already in use by pid {}", std::process::id())), "{error}");
        drop(listener);
        check_free(port).unwrap();
    }
}
