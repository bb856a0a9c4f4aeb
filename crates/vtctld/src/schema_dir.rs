//! Schema changes from a directory (`-schema_change_controller=local`).
//!
//! `<dir>/<keyspace>/input/*.sql` are applied to their keyspace, the oldest name first, one at a time; a
//! file then moves to `complete/` or `error/`, with a line in `log/` of the same name.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use servenv::Env;
use tokio_util::task::AbortOnDropHandle;
use wrangler::logger::MemorySink;
use wrangler::{Logger, Wrangler, run_command};

use crate::Error;

/// The task that looks into the directory. Dropping it ends it.
pub struct SchemaDir {
    _task: AbortOnDropHandle<()>,
}

impl SchemaDir {
    /// Starts if a controller is chosen.
    pub fn start(env: &Env, wr: &Wrangler) -> Result<Option<Self>, Error> {
        let flags = env.flags();
        let controller = flags.str("schema_change_controller");
        let dir = flags.str("schema_change_dir");
        match controller {
            "" => return Ok(None),
            "local" => {}
            other => {
                return Err(Error::Flag {
                    flag: "schema_change_controller",
                    problem: format!("{other} is not known: only local is"),
                });
            }
        }
        if !Path::new(dir).is_dir() {
            return Err(Error::Flag { flag: "schema_change_dir", problem: format!("{dir:?} is not a directory") });
        }
        let seconds = u64::try_from(flags.int("schema_change_check_interval")).unwrap_or(0).max(1);
        let watcher = Watcher {
            wr: wr.clone(),
            dir: PathBuf::from(dir),
            user: flags.str("schema_change_user").to_owned(),
            slave_timeout: flags.duration("schema_change_slave_timeout"),
        };
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = watcher.look().await {
                    tracing::error!("schema changes in {}: {error}", watcher.dir.display());
                }
                tokio::time::sleep(Duration::from_secs(seconds)).await;
            }
        });
        Ok(Some(Self { _task: AbortOnDropHandle::new(task) }))
    }
}

struct Watcher {
    wr: Wrangler,
    dir: PathBuf,
    user: String,
    slave_timeout: Duration,
}

impl Watcher {
    /// Applies everything that lies in an input directory now.
    async fn look(&self) -> std::io::Result<()> {
        for keyspace in names(&self.dir).await? {
            let root = self.dir.join(&keyspace);
            for file in names(&root.join("input")).await? {
                if file.ends_with(".sql") {
                    self.apply(&keyspace, &root, &file).await?;
                }
            }
        }
        Ok(())
    }

    async fn apply(&self, keyspace: &str, root: &Path, file: &str) -> std::io::Result<()> {
        let input = root.join("input").join(file);
        tracing::info!(keyspace, file, user = self.user, "applying a schema change");
        let sink = Arc::new(MemorySink::default());
        let wr = self.wr.with_logger(Logger::new(sink.clone()));
        let args = [
            "ApplySchema".to_owned(),
            format!("-wait_slave_timeout={}ms", self.slave_timeout.as_millis()),
            "-sql-file".to_owned(),
            input.display().to_string(),
            keyspace.to_owned(),
        ];
        let outcome = run_command(&wr, &args).await;
        let (target, text) = match &outcome {
            Ok(()) => ("complete", "applied\n".to_owned()),
            Err(error) => ("error", format!("{error}\n")),
        };
        for dir in [target, "log"] {
            tokio::fs::create_dir_all(root.join(dir)).await?;
        }
        tokio::fs::write(root.join("log").join(file), format!("{}{text}", sink.text())).await?;
        tokio::fs::rename(&input, root.join(target).join(file)).await
    }
}

/// The sorted names in a directory; none if it does not exist.
async fn names(dir: &Path) -> std::io::Result<Vec<String>> {
    let mut entries = match tokio::fs::read_dir(dir).await {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error),
    };
    let mut names = Vec::new();
    while let Some(entry) = entries.next_entry().await? {
        names.push(entry.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}
