//! The name under which other machines reach this one.

use std::{ffi::CStr, net::ToSocketAddrs};

/// The fully qualified name of this machine, as `hostname -f` prints it, provided that it can be used as an address.
///
/// `localhost` is not a name for others, and MariaDB's replication takes it as "by socket": then the machine's own short
/// name is used if it resolves, and the loopback address if nothing does.
pub fn fully_qualified() -> String {
    let short = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    choose(&short, canonical(&short), |name| (name, 0).to_socket_addrs().is_ok_and(|mut found| found.next().is_some()))
}

fn choose(short: &str, canonical: Option<String>, resolves: impl Fn(&str) -> bool) -> String {
    let usable = |name: &str| !name.is_empty() && !name.starts_with("localhost") && resolves(name);
    match canonical {
        Some(name) if usable(&name) => name,
        _ if usable(short) => short.to_owned(),
        _ => {
            tracing::warn!(
                "the host name {short:?} does not resolve: 127.0.0.1 stands for it, which leads here from this machine only"
            );
            "127.0.0.1".to_owned()
        }
    }
}

/// The canonical name the resolver knows for a host name.
fn canonical(host: &str) -> Option<String> {
    let host = std::ffi::CString::new(host).ok()?;
    // SAFETY: an all-zero addrinfo is a valid hint: every field is a number or a null pointer.
    let mut hints: libc::addrinfo = unsafe { std::mem::zeroed() };
    hints.ai_flags = libc::AI_CANONNAME;
    hints.ai_socktype = libc::SOCK_STREAM;
    let mut found: *mut libc::addrinfo = std::ptr::null_mut();
    // SAFETY: `host` and `hints` outlive the call; `found` is written only on success.
    if unsafe { libc::getaddrinfo(host.as_ptr(), std::ptr::null(), &hints, &mut found) } != 0 || found.is_null() {
        return None;
    }
    // SAFETY: getaddrinfo succeeded: `found` points to a list, whose first entry has the name or null.
    let name = unsafe {
        let name = (*found).ai_canonname;
        let text = (!name.is_null()).then(|| CStr::from_ptr(name).to_string_lossy().into_owned());
        libc::freeaddrinfo(found);
        text
    };
    name.map(|name| name.trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_is_never_registered() {
        let all = |_: &str| true;
        assert_eq!(choose("vm", Some("vm.example.com".into()), all), "vm.example.com");
        assert_eq!(choose("vm", Some("localhost".into()), all), "vm");
        assert_eq!(choose("vm", Some("localhost.localdomain".into()), |_| false), "127.0.0.1");
        assert_eq!(choose("localhost", None, all), "127.0.0.1");
    }

    #[test]
    fn this_machine_has_a_name_that_resolves() {
        let name = fully_qualified();
        assert!((name.as_str(), 0).to_socket_addrs().is_ok(), "{name}");
    }
}
