//! Keeps docs/compatibility.md in step with the code: every RPC of `proto/`, every vtctl command and every
//! flag of every program has to stand there, with the state that the code gives it.
//!
//! The lists of flags are written by this test: `UPDATE_COMPATIBILITY=1 cargo test -p testcluster --test
//! compatibility`. Whether a flag works is read from the sources: `-h` says what is meant to work, and a
//! flag whose name appears in none of the sources that read flags for that program cannot.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use servenv::Program;

const WIDTH: usize = 118;

/// A program that is built, and the sources that read its flags.
struct Built {
    program: Program,
    /// Files and directories under `crates/`.
    sources: &'static [&'static str],
    /// Flags that shared code reads for this program without naming them in those sources.
    also_read: &'static [&'static str],
    /// Flags that only parts of those sources read which this program never runs.
    except: &'static [&'static str],
}

const BUILT: [Built; 8] = [
    Built { program: Program::Vtgate, sources: &["vtgate/src", "servenv/src"], also_read: &[], except: &[] },
    Built {
        program: Program::Vttablet,
        sources: &["vttablet/src", "mysqlctl/src/logins.rs", "servenv/src"],
        also_read: &[],
        except: &[],
    },
    Built {
        program: Program::Vtctld,
        sources: &["vtctld/src", "wrangler/src/flags.rs", "servenv/src"],
        also_read: &[],
        except: &[],
    },
    Built {
        program: Program::Vtctl,
        sources: &["vtctl/src", "wrangler/src/flags.rs", "servenv/src/logging", "servenv/src/grpc/client.rs"],
        also_read: &["config_file", "version"],
        except: &[],
    },
    Built {
        program: Program::Vtctlclient,
        sources: &["vtctlclient/src", "servenv/src/logging", "servenv/src/grpc/client.rs"],
        also_read: &["config_file"],
        except: &[],
    },
    Built {
        program: Program::Mysqlctl,
        sources: &["mysqlctl/src", "servenv/src/logging"],
        also_read: &["config_file", "version"],
        // It logs in to its own mysqld, by socket.
        except: &[
            "db_host",
            "db_port",
            "db_socket",
            "db_server_name",
            "db_ssl_ca",
            "db_ssl_cert",
            "db_ssl_key",
            "db_dba_use_ssl",
        ],
    },
    Built {
        program: Program::Vtworker,
        sources: &["vtworker/src", "servenv/src"],
        also_read: &[
            // By the flags that it has in common with vtctld.
            "grpc_auth_static_client_creds",
            "remote_operation_timeout",
            "tablet_grpc_ca",
            "tablet_grpc_cert",
            "tablet_grpc_key",
            "tablet_grpc_server_name",
            "tablet_manager_grpc_ca",
            "tablet_manager_grpc_cert",
            "tablet_manager_grpc_key",
            "tablet_manager_grpc_server_name",
            "topo_etcd_lease_ttl",
            "topo_etcd_tls_ca",
            "topo_etcd_tls_cert",
            "topo_etcd_tls_key",
            "topo_global_root",
            "topo_global_server_address",
            "topo_implementation",
        ],
        except: &[
            "grpc_initial_conn_window_size",
            "grpc_initial_window_size",
            "grpc_keepalive_time",
            "grpc_keepalive_timeout",
        ],
    },
    Built {
        program: Program::Vtworkerclient,
        sources: &["vtworkerclient/src", "vtctlclient/src/lib.rs", "servenv/src/logging", "servenv/src/grpc/client.rs"],
        also_read: &["config_file"],
        except: &[],
    },
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn document() -> String {
    let path = root().join("docs/compatibility.md");
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The text under a heading, up to the next heading of the same or a higher level.
fn section<'a>(document: &'a str, heading: &str) -> &'a str {
    let level = heading.bytes().take_while(|byte| *byte == b'#').count();
    let start = document.find(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let body = &document[start + heading.len() + 2..];
    let mut at = 0;
    for line in body.split_inclusive('\n') {
        let depth = line.bytes().take_while(|byte| *byte == b'#').count();
        if (1..=level).contains(&depth) {
            return &body[..at];
        }
        at += line.len();
    }
    body
}

/// The rows of all tables in a section: the names in backticks of the first cell, and the state in the
/// second.
fn rows(section: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for line in section.lines().filter(|line| line.starts_with('|') && !line.starts_with("| ---")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(names), Some(state)) = (cells.next(), cells.next()) else { continue };
        for name in names.split('`').skip(1).step_by(2) {
            let twice = found.insert(name.to_owned(), state.to_owned());
            assert!(twice.is_none(), "{name} stands in two rows: {line}");
        }
    }
    assert!(!found.is_empty(), "a section without a table: {section}");
    for (name, state) in &found {
        assert!(["works", "partly", "not yet"].contains(&state.as_str()), "{name}: {state:?} is no state");
    }
    found
}

/// Every service of `proto/` with its RPCs.
fn services() -> BTreeMap<String, BTreeSet<String>> {
    let mut services: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for entry in fs::read_dir(root().join("proto")).expect("proto/") {
        let text = fs::read_to_string(entry.expect("an entry of proto/").path()).expect("a file of proto/");
        let mut service = None;
        for line in text.lines().map(str::trim) {
            if let Some(name) = line.strip_prefix("service ") {
                service = Some(name.trim_end_matches(['{', ' ']).to_owned());
            } else if let Some((name, _)) = line.strip_prefix("rpc ").and_then(|rest| rest.split_once('(')) {
                let service = service.clone().unwrap_or_else(|| panic!("an RPC outside of a service: {line}"));
                services.entry(service).or_default().insert(name.trim().to_owned());
            }
        }
    }
    services
}

/// The text of a file, or of all Rust files of a directory, without their unit tests.
fn sources(path: &Path) -> String {
    if path.is_dir() {
        let entries = fs::read_dir(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
        paths.sort();
        return paths
            .iter()
            .filter(|path| path.is_dir() || path.extension().is_some_and(|e| e == "rs"))
            // The register of flags names every one of them.
            .filter(|path| !path.ends_with("servenv/src/register"))
            .map(|path| sources(path))
            .collect();
    }
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    text.split("#[cfg(test)]").next().unwrap_or_default().to_owned()
}

/// The string literals of a text that could name a flag, with dashes for underscores.
fn names(text: &str) -> BTreeSet<String> {
    text.split('"')
        .filter(|piece| !piece.is_empty() && piece.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_".contains(&b)))
        .map(|piece| piece.replace('_', "-"))
        .collect()
}

/// Whether the sources read a flag: by its whole name, or in one of the ways they compose names.
fn is_read(flag: &str, text: &str, names: &BTreeSet<String>) -> bool {
    let name = flag.replace('_', "-");
    if names.contains(&name) {
        return true;
    }
    // The query service of vttablet: the common prefix is added.
    if let Some(rest) = name.strip_prefix("queryserver-config-") {
        return text.contains("queryserver-config-{name}") && names.contains(rest);
    }
    // TLS towards others: prefix_ca, prefix_cert, prefix_key, prefix_server_name.
    for suffix in ["-ca", "-cert", "-key", "-server-name"] {
        if let Some(prefix) = name.strip_suffix(suffix).filter(|prefix| prefix.ends_with("-grpc")) {
            return text.contains("{prefix}_{suffix}") && names.contains(prefix);
        }
    }
    // Users of MySQL: name and password of those that are asked for.
    for user in ["app", "appdebug", "allprivs", "dba", "filtered", "repl"] {
        let asked = [format!("params(\"{user}\""), format!("name_and_password(\"{user}\"")];
        let parts = [
            format!("db-{user}-user"),
            format!("db-{user}-password"),
            format!("db-{user}-use-ssl"),
            format!("db-config-{user}-uname"),
            format!("db-config-{user}-pass"),
        ];
        if parts.contains(&name) {
            return asked.iter().any(|call| text.contains(call.as_str()));
        }
    }
    false
}

/// The flags of a program: what `-h` lists as working, and what it lists as without effect.
fn listed(program: Program) -> (Vec<String>, Vec<String>) {
    let usage = program.flag_set().usage();
    let (working, accepted) = usage.split_once("\nAccepted so that").unwrap_or((&usage, ""));
    let working = working.lines().filter_map(|line| line.strip_prefix("  -"));
    let working = working.map(|line| line.split(' ').next().unwrap_or_default().to_owned()).collect();
    let accepted = accepted.split_whitespace().filter_map(|word| word.strip_prefix('-'));
    (working, accepted.map(str::to_owned).collect())
}

fn wrapped(flags: &BTreeSet<String>) -> String {
    let mut out = String::new();
    let mut line = String::new();
    for flag in flags {
        let word = format!("-{flag}");
        if !line.is_empty() && line.len() + word.len() + 1 > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(&word);
    }
    out + &line
}

/// What the document has to say about the flags of a program.
fn flags_text(built: &Built) -> String {
    let text: String = built.sources.iter().map(|path| sources(&root().join("crates").join(path))).collect();
    let names = names(&text);
    let read = |flag: &String| {
        let flag = flag.as_str();
        !built.except.contains(&flag) && (built.also_read.contains(&flag) || is_read(flag, &text, &names))
    };
    let (working, accepted) = listed(built.program);
    assert!(working.len() > 10, "{}: only {} flags in -h", built.program.name(), working.len());
    let (mut works, unread): (BTreeSet<String>, BTreeSet<String>) = working.into_iter().partition(&read);
    let (also, without): (BTreeSet<String>, BTreeSet<String>) = accepted.into_iter().partition(&read);
    works.extend(also);
    let mut out = String::new();
    for (title, flags) in [
        ("Work", works),
        ("Not used so far (shown by `-h`; setting one logs that nothing uses it)", unread),
        ("Accepted without effect (setting one logs a warning)", without),
    ] {
        if !flags.is_empty() {
            out.push_str(&format!("\n{title}: {}\n```text\n{}\n```\n", flags.len(), wrapped(&flags)));
        }
    }
    out
}

#[test]
fn every_rpc_is_listed() {
    let document = document();
    for (service, rpcs) in services() {
        let listed = rows(section(&document, &format!("### {service}")));
        let listed: BTreeSet<&String> = listed.keys().collect();
        let defined: BTreeSet<&String> = rpcs.iter().collect();
        let missing: Vec<_> = defined.difference(&listed).collect();
        assert!(missing.is_empty(), "docs/compatibility.md, {service}: RPCs are missing: {missing:?}");
        let unknown: Vec<_> = listed.difference(&defined).collect();
        assert!(unknown.is_empty(), "docs/compatibility.md, {service}: no such RPCs: {unknown:?}");
    }
}

/// The RPCs of a service that answer UNIMPLEMENTED by name. `None`: no program offers the service.
fn unbuilt_rpcs(service: &str) -> Option<BTreeSet<String>> {
    let read = |path: &str| sources(&root().join("crates").join(path));
    let calls = |text: &str, function: &str| -> BTreeSet<String> {
        let call = format!("{function}(\"");
        text.split(&call).skip(1).filter_map(|rest| rest.split('"').next()).map(str::to_owned).collect()
    };
    match service {
        "Vitess" => Some(calls(&read("vtgate/src/grpc"), "not_built")),
        "TabletManager" => Some(calls(&read("vttablet/src/tabletmanager/rpc.rs"), "not_built")),
        "UpdateStream" => Some(BTreeSet::new()),
        "Query" => {
            let mut unbuilt = calls(&read("tabletclient/src/grpc/server.rs"), "not_here");
            // What the trait answers where the tablet's query service has nothing of its own.
            let (common, own) =
                (read("tabletclient/src/query_service.rs"), read("vttablet/src/queryservice/service.rs"));
            let has_own = |rpc: &str| own.contains(&format!("async fn {}(", method(rpc)));
            unbuilt.extend(calls(&common, "unimplemented").into_iter().filter(|rpc| !has_own(rpc)));
            Some(unbuilt)
        }
        "Vtctl" | "Vtworker" | "Cutover" | "Throttler" => Some(BTreeSet::new()),
        _ => None,
    }
}

/// The name of the trait's method for an RPC: `MessageAck`, `message_ack`; `VStream`, `vstream`.
fn method(rpc: &str) -> String {
    let mut out = String::new();
    for c in rpc.replacen("VStream", "Vstream", 1).chars() {
        if c.is_ascii_uppercase() && !out.is_empty() {
            out.push('_');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

#[test]
fn every_rpc_has_the_state_that_the_code_gives_it() {
    let document = document();
    for service in services().keys() {
        let unbuilt = unbuilt_rpcs(service);
        for (rpc, state) in rows(section(&document, &format!("### {service}"))) {
            let answers = unbuilt.as_ref().is_some_and(|unbuilt| !unbuilt.contains(&rpc));
            assert_eq!(state != "not yet", answers, "docs/compatibility.md: {service}.{rpc} is {state:?}");
        }
    }
}

#[test]
fn every_command_is_listed_with_its_state() {
    let document = document();
    let listed = rows(section(&document, "## Commands of vtctl"));
    let source = sources(&root().join("crates/wrangler/src"));
    let tablet = sources(&root().join("crates/vttablet/src/tabletmanager/rpc.rs"));
    // What answers "… is not built yet", in all or in some cases.
    let calls = [&source, &tablet].into_iter().flat_map(|text| text.split("not_built(\"").skip(1));
    let calls = calls.filter_map(|rest| rest.split('"').next());
    let mut unbuilt: BTreeSet<String> = calls.map(str::to_owned).collect();
    let mut defined = BTreeSet::new();
    for group in wrangler::groups() {
        for command in group.commands() {
            defined.insert(command.name.to_owned());
            if group.name == "Workflows" && source.contains("not_built(name)") {
                unbuilt.insert(command.name.to_owned());
            }
        }
    }
    let missing: Vec<_> = defined.iter().filter(|name| !listed.contains_key(*name)).collect();
    assert!(missing.is_empty(), "docs/compatibility.md: commands are missing: {missing:?}");
    let unknown: Vec<_> = listed.keys().filter(|name| !defined.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/compatibility.md: no such commands: {unknown:?}");
    for (name, state) in &listed {
        if unbuilt.contains(name) {
            assert_ne!(state, "works", "{name} answers that it is not built yet");
        } else {
            assert_ne!(state, "not yet", "{name} no longer answers that it is not built");
        }
    }
}

#[test]
fn every_flag_is_listed_with_its_state() {
    let path = root().join("docs/compatibility.md");
    let before = document();
    let mut after = before.clone();
    for built in &BUILT {
        let name = built.program.name();
        let (start, end) = (format!("<!-- flags of {name} -->\n"), format!("<!-- end of flags of {name} -->"));
        let from = after.find(&start).unwrap_or_else(|| panic!("{} has no {start:?}", path.display())) + start.len();
        let to = after.find(&end).unwrap_or_else(|| panic!("{} has no {end:?}", path.display()));
        after.replace_range(from..to, &flags_text(built));
    }
    if std::env::var_os("UPDATE_COMPATIBILITY").is_some_and(|value| value == "1") {
        fs::write(&path, &after).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        return;
    }
    let differs = before.lines().zip(after.lines()).find(|(old, new)| old != new);
    if let Some((old, new)) = differs {
        panic!(
            "docs/compatibility.md is behind the code; UPDATE_COMPATIBILITY=1 on this test writes it anew.\n\
             it says:   {old}\nshould be: {new}"
        );
    }
    assert_eq!(before, after);
}
