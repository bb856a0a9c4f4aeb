//! Names that operators choose — of keyspaces, cells and aliases of cells — as elements of paths.
//!
//! Invariant: a record that this crate creates lies where its name is listed and found again. That is checked where a
//! record is created; what others have created is read and deleted under whatever name it has.

use vterrors::{Code, VtError};

use crate::error::{Result, TopoError};

/// Refuses a name that is no element of a path, or that nobody could type again.
///
/// `what` is what would have the name, with its article: `a cell`.
pub(crate) fn check_name(what: &str, name: &str) -> Result<()> {
    let problem = match name {
        "" => "it is empty",
        "." | ".." => "it means a directory",
        _ if name.contains('/') => "it has a slash",
        _ if name.contains(char::is_control) => "it has a control character",
        _ if name.contains(char::is_whitespace) => "it has a blank",
        _ => return Ok(()),
    };
    Err(TopoError::Other(VtError::new(Code::InvalidArgument, format!("{name:?} is no name of {what}: {problem}"))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_one_element_of_a_path() {
        for name in ["zone1", "us-east_1", "a.b", "日本", "~"] {
            assert_eq!(check_name("a cell", name), Ok(()));
        }
        for (name, text) in [
            ("", r#""" is no name of a cell: it is empty"#),
            ("a/b", r#""a/b" is no name of a cell: it has a slash"#),
            ("..", r#"".." is no name of a cell: it means a directory"#),
            ("a b", r#""a b" is no name of a cell: it has a blank"#),
            ("a\u{a0}", r#""a\u{a0}" is no name of a cell: it has a blank"#),
            ("a\n", r#""a\n" is no name of a cell: it has a control character"#),
            ("\u{7f}", r#""\u{7f}" is no name of a cell: it has a control character"#),
        ] {
            let error = check_name("a cell", name).expect_err(name);
            assert_eq!((error.to_string().as_str(), error.code()), (text, Code::InvalidArgument));
        }
    }
}
