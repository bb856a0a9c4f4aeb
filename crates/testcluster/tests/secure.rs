//! A cluster that encrypts and asks for passwords everywhere: etcd, tablets, vtctld, vtgate.

use anyhow::{Result, ensure};
use std::process::Command;
use testcluster::{Cluster, Finished, Flavor, Spec, program};

/// Everything works with certificates and passwords, and nothing without.
#[test]
fn every_connection_is_encrypted_and_known() -> Result<()> {
    let cluster = Cluster::start(Spec::single(Flavor::MariaDb).encrypted())?;
    let tls = cluster.tls.clone().expect("it is encrypted");
    let ca = format!("--ssl-ca={}", tls.ca.display());

    // The client checks the certificate; statements reach mysqld through an encrypted vtgate and vttablet.
    let secure = ["--ssl-verify-server-cert", &ca, "--batch", "--skip-table", "--skip-column-names", "commerce"];
    let sql = "insert into product values ('a', 'b', 3); select price from product; show status like 'nothing'";
    ensure!(cluster.mysql(&secure, sql)?.success()?.stdout == "3\n");
    let per_version = cluster.debug_var(cluster.vtgate_http_port, "MysqlServerConnAccepted")?;
    ensure!(per_version.as_i64() > Some(0), "{per_version}");

    // vtctld to tablet, to topology and to vtgate.
    let tablets = cluster.vtctlclient(&["ListAllTablets", "zone1"])?.success()?.stdout;
    ensure!(tablets.contains("zone1-0000000100 commerce 0 master"), "{tablets}");
    cluster.vtctlclient(&["Ping", "zone1-100"])?.success()?;
    let rows = cluster.vtctlclient(&["ExecuteFetchAsDba", "zone1-100", "select 1"])?.success()?.stdout;
    ensure!(rows.contains('1'), "{rows}");
    cluster.vtctlclient(&["Validate", "-ping-tablets"])?.success()?;

    // Without a certificate, without a password, with a wrong one.
    let ca = format!("-vtctld_grpc_ca={}", tls.ca.display());
    let (cert, key) =
        (format!("-vtctld_grpc_cert={}", tls.cert.display()), format!("-vtctld_grpc_key={}", tls.key.display()));
    let wrong = cluster.dir().join("wrong.json");
    std::fs::write(&wrong, r#"{"Username": "cluster", "Password": "guessed"}"#)?;
    let wrong = format!("-grpc_auth_static_client_creds={}", wrong.display());
    for (flags, told) in [
        (vec![], "closed the connection without an answer; if it wants TLS"),
        (vec![&ca], "closed the connection without an answer; if it wants TLS"),
        (vec![&ca, &cert, &key], "username and password must be provided"),
        (vec![&ca, &cert, &key, &wrong], "invalid credentials"),
    ] {
        let output = Command::new(program("vtctlclient"))
            .args(["-server", &format!("127.0.0.1:{}", cluster.vtctld_grpc_port), "-action_timeout", "3s"])
            .args(&flags)
            .args(["GetKeyspaces"])
            .output()?;
        let refused = Finished::new(format!("{flags:?}"), output);
        ensure!(refused.code == Some(1) && refused.stderr.contains(told), "{refused:?}");
    }
    // A vttablet of its own that comes without certificates does not reach etcd.
    let output = Command::new(program("vtctl"))
        .args(["-topo_implementation", "etcd2", "-topo_global_root", "/vitess/global", "-remote_operation_timeout=2s"])
        .arg(format!("-topo_global_server_address=127.0.0.1:{}", cluster.etcd_port))
        .arg("GetKeyspaces")
        .output()?;
    let refused = Finished::new("vtctl without certificates".into(), output);
    ensure!(refused.code == Some(1), "{refused:?}");
    Ok(())
}
