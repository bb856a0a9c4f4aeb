//! The `mariadb` command-line programs against our server. Skipped, loudly, where they are not installed.

mod support;

use std::process::Stdio;
use std::time::Duration;

use mysql::server::{AuthServer, ServerConfig, tls_config};
use support::{Running, certificate, start, start_open, until};
use tokio::process::Command;

/// Runs a program; `None` when it is not installed. Output and errors together.
async fn run(program: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(Duration::from_secs(60), output).await.expect("the program ends") {
        Ok(output) => {
            let text = [output.stdout, output.stderr].concat();
            Some((output.status.success(), String::from_utf8_lossy(&text).into_owned()))
        }
        Err(error) => {
            eprintln!("SKIPPED: {program}: {error}");
            None
        }
    }
}

async fn client(running: &Running, unix: bool, arguments: &[&str]) -> Option<(bool, String)> {
    let (port, socket) = (running.port.to_string(), running.socket.display().to_string());
    let place = if unix { vec!["--socket", &socket] } else { vec!["--host=127.0.0.1", "--port", &port] };
    run("mariadb", &[&["--no-defaults"][..], &place, arguments].concat()).await
}

#[tokio::test]
async fn tables_errors_and_several_statements() {
    let running = start_open().await;
    for unix in [false, true] {
        let Some((good, output)) =
            client(&running, unix, &["-u", "cli", "-ppw", "db", "--table", "-e", "echo hi; insert; rows 2 3"]).await
        else {
            return;
        };
        let expected = "+------+\n| echo |\n+------+\n| hi   |\n+------+\n\
                        +------+--------+------+\n| id   | filler | null |\n+------+--------+------+\n\
                        |    0 | xxx    | NULL |\n|    1 | xxx    | NULL |\n+------+--------+------+\n";
        assert!(good && output == expected, "{output}");
        let (good, output) = client(&running, unix, &["-u", "cli", "-e", "fail"]).await.expect("installed");
        assert!(!good && output.contains("ERROR 1146 (42S02) at line 1: Table 'x' doesn't exist"), "{output}");
        let (good, output) =
            client(&running, unix, &["-u", "cli", "-N", "db", "-e", "whoami"]).await.expect("installed");
        assert!(good && output == "cli|userData1|db|false\n", "{output}");
        // `use` goes as COM_INIT_DB and re-reads column names with COM_FIELD_LIST.
        let arguments = ["-u", "cli", "-N", "--auto-rehash", "-e", "use ks; whoami"];
        let (good, output) = client(&running, unix, &arguments).await.expect("installed");
        assert!(good && output.ends_with("cli|userData1|ks|false\n"), "{output}");
        let arguments = ["-u", "cli", "-N", "--quick", "--max-allowed-packet=64M", "-e", "rows 2 17825792"];
        let (good, output) = client(&running, unix, &arguments).await.expect("installed");
        assert!(good && output.len() == 2 * (17_825_792 + 8), "{} bytes", output.len());
    }
    until("every session is closed", || running.server.connection_count() == 0).await;
}

#[tokio::test]
async fn passwords_with_every_method() {
    let dir = tempfile::tempdir().expect("a directory");
    let (cert, key, _) = certificate(dir.path());
    let users = r#"{"u": {"Password": "pw"}, "h": {"MysqlNativePassword": "*2470C0C06DEE42FD1618BB99005ADCA2EC9D1E19"},
        "e": {"Password": ""}}"#;
    let config = ServerConfig {
        tls: Some(tls_config(&cert, &key, None).expect("a TLS set-up")),
        ..ServerConfig::new(AuthServer::static_json(users).expect("users"))
    };
    let running = start(config).await;
    let sha2 = "--default-auth=caching_sha2_password";
    for (arguments, expected) in [
        (vec!["-u", "u", "-ppw"], Ok("u||db|false")),
        (vec!["-u", "u", "-px"], Err("ERROR 1045 (28000): Access denied for user 'u'")),
        (vec!["-u", "u"], Err("ERROR 1045 (28000): Access denied for user 'u'")),
        (vec!["-u", "u", "-ppw", sha2], Ok("u||db|false")),
        (vec!["-u", "u", "-px", sha2], Err("ERROR 1045 (28000): Access denied for user 'u'")),
        // The first time by RSA, then by the fast path; both again over TLS.
        (vec!["-u", "h", "-ppassword", sha2], Ok("h||db|false")),
        (vec!["-u", "h", "-ppassword", sha2], Ok("h||db|false")),
        (vec!["-u", "h", "-pwrong", sha2], Err("ERROR 1045 (28000): Access denied for user 'h'")),
        (vec!["-u", "h", "-ppassword", "--ssl"], Ok("h||db|true")),
        (vec!["-u", "h", "-ppassword", "--ssl", sha2], Ok("h||db|true")),
        // Password and method of an account without one.
        (vec!["-u", "e"], Ok("e||db|false")),
        (vec!["-u", "e", sha2], Ok("e||db|false")),
        (vec!["-u", "e", "-px", sha2], Err("ERROR 1045 (28000): Access denied for user 'e'")),
        // A method that neither side has a password for: switched.
        (vec!["-u", "u", "-ppw", "--default-auth=mysql_clear_password"], Ok("u||db|false")),
    ] {
        // Newer clients take TLS where they can get it.
        let tls = if arguments.contains(&"--ssl") { "--ssl" } else { "--skip-ssl" };
        let all = [&arguments[..], &[tls, "-N", "db", "-e", "whoami"]].concat();
        let Some((good, output)) = client(&running, false, &all).await else { return };
        match expected {
            Ok(text) => assert!(good && output.trim() == text, "{arguments:?}: {output}"),
            Err(text) => assert!(!good && output.contains(text), "{arguments:?}: {output}"),
        }
    }
}

#[tokio::test]
async fn admin_commands_and_an_interrupted_statement() {
    let running = start_open().await;
    let port = running.port.to_string();
    let place = ["--no-defaults", "--host=127.0.0.1", "--port", &port, "-u", "cli"];
    let Some((good, output)) = run("mariadb-admin", &[&place[..], &["ping"]].concat()).await else { return };
    assert!(good && output == "mysqld is alive\n", "{output}");
    let (_, output) = run("mariadb-admin", &[&place[..], &["status"]].concat()).await.expect("installed");
    assert!(output.starts_with("Connections: 1"), "{output}");
    let mut sleeping = Command::new("mariadb")
        .args([&place[..], &["-e", "sleep"]].concat())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("installed");
    until("the statement runs", || running.demo.sleeping.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
    sleeping.kill().await.expect("killed");
    until("the statement is cancelled", || running.demo.cancelled.load(std::sync::atomic::Ordering::SeqCst) == 1).await;
}
