//! mysqlctl: one action on the mysqld of one tablet. Here: flags and the choice of the action; the rest is the library.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mysql::{client::ConnectParams, mycnf::TabletDir, replication::Position};
use mysqlctl::{
    Installation, MysqlTablet, config,
    init::{self, InitOptions},
    logins::LoginFlags,
    process,
    tablet::{data_root, tablet_dir},
};
use servenv::{Env, FlagError, FlagSet, Parsed, Program};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ACTIONS: &str = "[flags] <action> [action flags]
The actions:
  init [-wait_time=5m] [-init_db_sql_file=]   make the tablet directory, my.cnf and data, start mysqld, create its users
  init_config                                 only the tablet directory and my.cnf
  reinit_config                               give an existing my.cnf a new server id
  start [-wait_time=5m] [-mysqld_args=a,b]    start mysqld and wait until it answers
  shutdown [-wait_time=5m]                    stop mysqld and wait until it is gone
  teardown [-wait_time=5m] [-force]           stop mysqld and remove the tablet directory
  position equal|at_least <pos1> <pos2>       compare two replication positions
  position append <pos> <gtid>                add a transaction to a position
The directory lies in $VTDATAROOT. mysqld is the one of $VT_MYSQL_ROOT or PATH; files named in $EXTRA_MY_CNF are added
to my.cnf. Run as root, mysqld runs as root too; otherwise as the user who calls.";

const DEFAULT_WAIT: Duration = Duration::from_secs(300);

fn main() -> ExitCode {
    servenv::main(
        Program::Mysqlctl,
        |set| {
            set.synopsis(ACTIONS);
        },
        run,
    )
}

async fn run(env: Env) -> Result<()> {
    let flags = env.flags();
    // The HTTP and gRPC ports of a server: defined for all programs, and this one serves nothing.
    let args = flags.args().to_vec();
    let Some((action, rest)) = args.split_first() else {
        bail!("no action was given: init, init_config, reinit_config, start, shutdown, teardown or position (see -h)");
    };
    let outcome = match action.as_str() {
        "init" => init(flags, rest).await.context("failed init mysql"),
        "init_config" => init_config(flags, rest).await.context("failed to init mysql config"),
        "reinit_config" => reinit_config(flags, rest).await.context("failed to reinit mysql config"),
        "start" => start(flags, rest).await.context("failed start mysql"),
        "shutdown" => shutdown(flags, rest).await.context("failed shutdown mysql"),
        "teardown" => teardown(flags, rest).await.context("failed teardown mysql"),
        "position" => position(rest),
        unknown => bail!("invalid action: {unknown}"),
    };
    flags.warn_without_effect();
    outcome
}

/// The flags of an action. `-h` prints them and ends the program.
fn parse(set: &FlagSet, args: &[String]) -> Result<Parsed> {
    match set.parse(args) {
        Ok(parsed) => match parsed.refuse_args() {
            Ok(()) => Ok(parsed),
            Err(text) => bail!(text),
        },
        Err(FlagError::Help { usage }) => {
            print!("{usage}");
            std::process::exit(0);
        }
        Err(error @ FlagError::Invalid { .. }) => bail!("{error} (see mysqlctl {} -h)", set.name()),
    }
}

fn action_flags(name: &str, define: impl FnOnce(&mut FlagSet)) -> FlagSet {
    let mut set = FlagSet::new(name);
    define(&mut set);
    set
}

fn wait_flag(set: &mut FlagSet) {
    set.duration("wait_time", DEFAULT_WAIT, "how long mysqld may take");
}

/// The tablet that the flags describe, to be made.
fn new_tablet(flags: &Parsed) -> Result<MysqlTablet> {
    let root = data_root();
    let port = u16::try_from(flags.int("mysql_port"))
        .map_err(|_| anyhow::anyhow!("-mysql_port {} is not a TCP port", flags.int("mysql_port")))?;
    let socket = flags.str("mysql_socket");
    let socket = (!socket.is_empty()).then(|| PathBuf::from(socket));
    Ok(MysqlTablet::new(&root, directory(flags, &root)?, port, socket)?)
}

fn existing_tablet(flags: &Parsed) -> Result<MysqlTablet> {
    let root = data_root();
    open(flags, &root, directory(flags, &root)?)
}

fn open(flags: &Parsed, root: &Path, dir: TabletDir) -> Result<MysqlTablet> {
    let tablet = MysqlTablet::open(root, dir)?;
    for (flag, differs, value) in [
        ("mysql_port", flags.int("mysql_port") != i64::from(tablet.cnf.port), tablet.cnf.port.to_string()),
        (
            "mysql_socket",
            Path::new(flags.str("mysql_socket")) != tablet.cnf.socket,
            tablet.cnf.socket.display().to_string(),
        ),
    ] {
        if flags.is_set(flag) && differs {
            tracing::warn!("-{flag} counts for init only; {} says {value}", tablet.dir.my_cnf().display());
        }
    }
    Ok(tablet)
}

fn directory(flags: &Parsed, root: &Path) -> Result<TabletDir> {
    let uid = u32::try_from(flags.uint("tablet_uid"))
        .map_err(|_| anyhow::anyhow!("-tablet_uid {} is larger than 32 bits", flags.uint("tablet_uid")))?;
    Ok(tablet_dir(root, flags.str("tablet_dir"), uid))
}

fn dba(flags: &Parsed, tablet: &MysqlTablet) -> Result<ConnectParams> {
    Ok(LoginFlags::new(flags)?.params("dba", Some(&tablet.cnf.socket))?)
}

async fn init(flags: &Parsed, args: &[String]) -> Result<()> {
    let set = action_flags("init", |set| {
        wait_flag(set);
        set.string("init_db_sql_file", "", "SQL to run instead of the built-in initialisation");
    });
    let action = parse(&set, args)?;
    let file = action.str("init_db_sql_file");
    let options = InitOptions {
        init_db_sql_file: (!file.is_empty()).then(|| PathBuf::from(file)),
        wait: action.duration("wait_time"),
    };
    let installation = Installation::find()?;
    tracing::info!("using {} ({})", installation.mysqld.display(), installation.version);
    Ok(init::init(&installation, &new_tablet(flags)?, &options).await?)
}

async fn init_config(flags: &Parsed, args: &[String]) -> Result<()> {
    parse(&FlagSet::new("init_config"), args)?;
    let tablet = new_tablet(flags)?;
    tablet.create_directories()?;
    Ok(tablet.write_config(&tablet.cnf.render(Installation::find()?.version).await?)?)
}

async fn reinit_config(flags: &Parsed, args: &[String]) -> Result<()> {
    parse(&FlagSet::new("reinit_config"), args)?;
    let mut tablet = existing_tablet(flags)?;
    tablet.cnf.server_id = config::random_server_id();
    Ok(tablet.write_config(&tablet.cnf.render(Installation::find()?.version).await?)?)
}

async fn start(flags: &Parsed, args: &[String]) -> Result<()> {
    let set = action_flags("start", |set| {
        wait_flag(set);
        set.list("mysqld_args", "", "further arguments of mysqld");
    });
    let action = parse(&set, args)?;
    let root = data_root();
    let dir = directory(flags, &root)?;
    let installation = Installation::find()?;
    if let Some(init_db_sql_file) = init::interrupted(dir.path()) {
        tracing::warn!("the init of {} did not finish: doing it again instead of a start", dir.path().display());
        let options = InitOptions { init_db_sql_file, wait: action.duration("wait_time") };
        return Ok(init::init(&installation, &new_tablet(flags)?, &options).await?);
    }
    let tablet = open(flags, &root, dir)?;
    let login = dba(flags, &tablet)?;
    process::start(&installation, &tablet, &action.list("mysqld_args"), &login, action.duration("wait_time")).await?;
    Ok(())
}

async fn shutdown(flags: &Parsed, args: &[String]) -> Result<()> {
    let action = parse(&action_flags("shutdown", wait_flag), args)?;
    let tablet = existing_tablet(flags)?;
    process::shutdown(&tablet, &dba(flags, &tablet)?, action.duration("wait_time")).await?;
    Ok(())
}

async fn teardown(flags: &Parsed, args: &[String]) -> Result<()> {
    let set = action_flags("teardown", |set| {
        wait_flag(set);
        set.bool("force", false, "remove the directory even if mysqld cannot be stopped");
    });
    let action = parse(&set, args)?;
    let root = data_root();
    let dir = directory(flags, &root)?;
    let force = action.bool("force");
    let tablet = match open(flags, &root, dir) {
        Ok(tablet) => tablet,
        // Half-made: there is a directory, but no my.cnf that tells more.
        Err(error) if force => {
            tracing::warn!("{error}");
            new_tablet(flags)?
        }
        Err(error) => return Err(error),
    };
    let login = dba(flags, &tablet)?;
    match process::shutdown(&tablet, &login, action.duration("wait_time")).await {
        Ok(_) => {}
        Err(error) if force => {
            tracing::error!("{error}: removing its directory all the same");
            process::discard(&tablet).await;
        }
        Err(error) => return Err(error.into()),
    }
    Ok(tablet.remove()?)
}

fn position(args: &[String]) -> Result<()> {
    let [operation, first, second] = args else {
        bail!("not enough arguments for position operation: position {{equal|at_least|append}} <pos1> <pos2|gtid>");
    };
    let mut first: Position = first.parse().with_context(|| format!("cannot read position {first}"))?;
    let decode = || second.parse::<Position>().with_context(|| format!("cannot read position {second}"));
    match operation.as_str() {
        "equal" => println!("{}", first == decode()?),
        "at_least" => println!("{}", first.at_least(&decode()?)),
        "append" => {
            let gtid = second.parse().with_context(|| format!("cannot read GTID {second}"))?;
            first.append(gtid);
            println!("{first}");
        }
        unknown => bail!("invalid position operation: {unknown}: equal, at_least or append"),
    }
    Ok(())
}
