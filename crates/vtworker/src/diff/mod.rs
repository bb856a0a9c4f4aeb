//! SplitDiff, VerticalSplitDiff, MultiSplitDiff.

use crate::command::Command;

pub(crate) const COMMANDS: &[Command] = &[];
