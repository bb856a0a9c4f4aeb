//! Hooks: programs of the operator under `$VTROOT/vthook`, run at fixed points or by `ExecuteHook`.

use std::{collections::BTreeMap, env, path::PathBuf, process::Stdio, time::Duration};

use tokio::process::Command;

/// Exit status of a hook that was not run because there is none; and of the other ways not to run.
pub const DOES_NOT_EXIST: i32 = -1;
pub const STAT_FAILED: i32 = -2;
pub const CANNOT_GET_EXIT_STATUS: i32 = -3;
pub const INVALID_NAME: i32 = -4;
pub const NO_VTROOT: i32 = -5;
pub const GENERIC_ERROR: i32 = -6;

/// A hook is the operator's program: it may take its time, but not for ever.
const TIME_LIMIT: Duration = Duration::from_secs(600);

/// What a hook left behind.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HookResult {
    /// The program's exit code, or one of the negative codes of this module.
    pub exit_status: i32,
    pub stdout: String,
    pub stderr: String,
}

impl HookResult {
    fn not_run(exit_status: i32, reason: String) -> Self {
        Self { exit_status, stdout: String::new(), stderr: format!("{reason}\n") }
    }

    pub fn is_missing(&self) -> bool {
        self.exit_status == DOES_NOT_EXIST
    }
}

/// Runs `$VTROOT/vthook/<name>` with the parameters and additions to the environment, and waits for it.
pub async fn run(name: &str, parameters: &[String], extra_env: &BTreeMap<String, String>) -> HookResult {
    let path = match find(name) {
        Ok(path) => path,
        Err(result) => return result,
    };
    let command = Command::new(&path).args(parameters).envs(extra_env).stdin(Stdio::null()).kill_on_drop(true).output();
    match tokio::time::timeout(TIME_LIMIT, command).await {
        Err(_) => HookResult::not_run(GENERIC_ERROR, format!("hook {name} ran longer than {} s", TIME_LIMIT.as_secs())),
        Ok(Err(error)) => HookResult::not_run(GENERIC_ERROR, format!("cannot run {}: {error}", path.display())),
        Ok(Ok(output)) => HookResult {
            exit_status: output.status.code().unwrap_or(CANNOT_GET_EXIT_STATUS),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        },
    }
}

/// Runs a hook that need not exist: `None` when it does not.
pub async fn run_optional(name: &str, parameters: &[String], env: &BTreeMap<String, String>) -> Option<HookResult> {
    // Without VTROOT there is no place for hooks: nothing to run, and nothing wrong.
    env::var_os("VTROOT")?;
    let result = run(name, parameters, env).await;
    (!result.is_missing()).then_some(result)
}

fn find(name: &str) -> Result<PathBuf, HookResult> {
    if name.is_empty() || name.contains('/') {
        return Err(HookResult::not_run(INVALID_NAME, "hook cannot contain '/'".to_owned()));
    }
    let Some(root) = env::var_os("VTROOT") else {
        return Err(HookResult::not_run(NO_VTROOT, "VTROOT is not set in the environment".to_owned()));
    };
    let path = PathBuf::from(root).join("vthook").join(name);
    match path.metadata() {
        Ok(_) => Ok(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err(HookResult::not_run(DOES_NOT_EXIST, format!("missing hook {}", path.display())))
        }
        Err(error) => Err(HookResult::not_run(STAT_FAILED, format!("cannot stat hook {}: {error}", path.display()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_name_with_a_slash_is_refused() {
        let result = run("../evil", &[], &BTreeMap::new()).await;
        assert_eq!((result.exit_status, result.stderr.as_str()), (INVALID_NAME, "hook cannot contain '/'\n"));
    }
}
