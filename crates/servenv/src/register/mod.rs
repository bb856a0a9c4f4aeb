//! Flags.
use crate::flags::FlagSet;
/// Programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    Vtgate,
    Vttablet,
    Vtctld,
    Vtctl,
    Vtworker,
    Mysqlctl,
    Mysqlctld,
    Vtctlclient,
    Vtworkerclient,
    Vtexplain,
    Vtcombo,
    Vttestserver,
    Vtbackup,
}
impl Program {
    /// `vtgate`
    pub fn name(self) -> &'static str {
        "vtgate"
    }
    /// Every flag of the program.
    pub fn flag_set(self) -> FlagSet {
        FlagSet::new(self.name())
    }
}
