//! The directory of one mysqld: making it, opening it, removing it.

use std::{
    env, fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use mysql::mycnf::TabletDir;

use crate::{
    config::MyCnf,
    error::{Error, Result},
};

/// Directories that may lie elsewhere: when `$VTDATAROOT/<name>` exists (another disk, say), the tablet's is made there
/// and linked to.
const RELOCATABLE: [&str; 4] = ["data", "innodb", "relay-logs", "bin-logs"];

/// One mysqld's place on disk and what its `my.cnf` says.
#[derive(Debug, Clone)]
pub struct MysqlTablet {
    pub dir: TabletDir,
    pub cnf: MyCnf,
    data_root: PathBuf,
}

/// `$VTDATAROOT`, or `/vt`; absolute.
pub fn data_root() -> PathBuf {
    let root = env::var_os("VTDATAROOT").filter(|root| !root.is_empty()).map_or(PathBuf::from("/vt"), PathBuf::from);
    std::path::absolute(&root).unwrap_or(root)
}

/// The directory of a tablet: by uid, or the one that `-tablet_dir` names (relative to the data root).
pub fn tablet_dir(data_root: &Path, tablet_dir: &str, uid: u32) -> TabletDir {
    if tablet_dir.is_empty() { TabletDir::new(data_root, uid) } else { TabletDir::at(data_root.join(tablet_dir), uid) }
}

impl MysqlTablet {
    /// A tablet that is going to be made.
    pub fn new(data_root: &Path, dir: TabletDir, port: u16, socket: Option<PathBuf>) -> Result<Self> {
        let cnf = MyCnf::for_tablet(&dir, port, socket);
        cnf.check()?;
        Ok(Self { dir, cnf, data_root: data_root.to_owned() })
    }

    /// An existing tablet, as its `my.cnf` describes it.
    pub fn open(data_root: &Path, dir: TabletDir) -> Result<Self> {
        let path = dir.my_cnf();
        if !path.exists() {
            return Err(Error::State(format!("{} does not exist: run init first", path.display())));
        }
        Ok(Self { cnf: MyCnf::read(&path)?, dir, data_root: data_root.to_owned() })
    }

    /// Makes the directories that are missing.
    pub fn create_directories(&self) -> Result<()> {
        make_dir(self.dir.path())?;
        for name in RELOCATABLE {
            self.create_relocatable(name)?;
        }
        for dir in [
            self.dir.data(),
            self.dir.innodb_data(),
            self.dir.innodb_logs(),
            self.dir.relay_logs(),
            self.dir.bin_logs(),
            self.dir.tmp(),
        ] {
            make_dir(&dir)?;
        }
        Ok(())
    }

    fn create_relocatable(&self, name: &str) -> Result<()> {
        let here = self.dir.path().join(name);
        let Some(elsewhere) = self.elsewhere(name) else { return make_dir(&here) };
        make_dir(&elsewhere)?;
        match std::os::unix::fs::symlink(&elsewhere, &here) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(Error::file("link", here)(error)),
            _ => Ok(()),
        }
    }

    fn elsewhere(&self, name: &str) -> Option<PathBuf> {
        let top = self.data_root.join(name);
        top.is_dir().then(|| top.join(self.dir.path().file_name().unwrap_or_default()))
    }

    /// Writes `my.cnf`. mysqld ignores one that everybody may write to.
    pub fn write_config(&self, text: &str) -> Result<()> {
        use io::Write;
        let path = self.dir.my_cnf();
        let temporary = path.with_extension("cnf.new");
        let mut options = fs::OpenOptions::new();
        options.write(true).create(true).truncate(true).mode(0o664);
        options
            .open(&temporary)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(Error::file("write", &temporary))?;
        fs::rename(&temporary, &path).map_err(Error::file("write", path))
    }

    /// Whether a server's data lies here.
    pub fn has_data(&self) -> bool {
        fs::read_dir(&self.cnf.data_dir).is_ok_and(|mut entries| entries.next().is_some())
    }

    /// Removes data and logs but keeps the directory, the error log included.
    pub fn remove_data(&self) -> Result<()> {
        for name in RELOCATABLE.into_iter().chain(["tmp"]) {
            let path = self.dir.path().join(name);
            // Through a link: what it points to goes, and the link itself.
            if let Some(elsewhere) = self.elsewhere(name) {
                remove_tree(&elsewhere)?;
            }
            remove_tree(&path)?;
        }
        self.remove_leftovers();
        Ok(())
    }

    /// Removes everything.
    pub fn remove(&self) -> Result<()> {
        self.remove_data()?;
        remove_tree(self.dir.path())
    }

    /// Files of a mysqld that is gone, which the next one would stumble over.
    pub fn remove_leftovers(&self) {
        let mut lock = self.cnf.socket.clone().into_os_string();
        lock.push(".lock");
        for path in [&self.cnf.socket, &self.cnf.pid_file, &PathBuf::from(lock)] {
            if fs::remove_file(path).is_ok() {
                tracing::info!("removed {}, left over by a mysqld that is gone", path.display());
            }
        }
    }
}

fn make_dir(path: &Path) -> Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o777).create(path).map_err(Error::file("create directory", path))
}

/// Removes a directory and all in it, or a link to one. Missing is fine.
fn remove_tree(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => Err(error),
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
    };
    result.map_err(Error::file("remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_can_lie_on_another_disk() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("data")).unwrap();
        let tablet = MysqlTablet::new(root.path(), tablet_dir(root.path(), "", 7), 3306, None).unwrap();
        tablet.create_directories().unwrap();
        tablet.create_directories().unwrap();
        let elsewhere = root.path().join("data/vt_0000000007");
        assert!(elsewhere.is_dir());
        assert_eq!(fs::read_link(tablet.dir.data()).unwrap(), elsewhere);

        fs::write(tablet.dir.data().join("ibdata1"), "x").unwrap();
        assert!(tablet.has_data());
        tablet.remove().unwrap();
        assert!(!elsewhere.exists() && !tablet.dir.path().exists());
    }

    #[test]
    fn a_missing_tablet_says_what_to_do() {
        let root = tempfile::tempdir().unwrap();
        let error = MysqlTablet::open(root.path(), tablet_dir(root.path(), "here", 7)).unwrap_err().to_string();
        assert!(error.contains("run init first"), "{error}");
    }
}
