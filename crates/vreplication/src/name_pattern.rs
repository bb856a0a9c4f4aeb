//! Names of tables as commands and streams give them.

use regex::Regex;
use vterrors::{Code, Result, VtError};

/// A name, or an expression between slashes that any part of a name may match: `/^moving/`.
#[derive(Debug, Clone)]
pub enum NamePattern {
    Name(String),
    Expression(Regex),
}

impl NamePattern {
    /// # Errors
    /// INVALID_ARGUMENT: the expression cannot be compiled.
    pub fn new(text: &str) -> Result<Self> {
        let Some(inside) = text.strip_prefix('/') else { return Ok(Self::Name(text.to_owned())) };
        let inside = inside.strip_suffix('/').unwrap_or(inside);
        match Regex::new(inside) {
            Ok(expression) => Ok(Self::Expression(expression)),
            Err(error) => {
                Err(VtError::new(Code::InvalidArgument, format!("cannot compile regexp {inside} for table: {error}")))
            }
        }
    }

    pub fn matches(&self, name: &str) -> bool {
        match self {
            Self::Name(wanted) => wanted == name,
            Self::Expression(expression) => expression.is_match(name),
        }
    }
}

/// The names that patterns mean among those that are there: names as they are, for expressions what they match.
///
/// # Errors
/// INVALID_ARGUMENT: an expression cannot be compiled.
pub fn resolve_names(patterns: &[String], existing: &[String]) -> Result<Vec<String>> {
    let mut resolved = Vec::new();
    for text in patterns {
        match NamePattern::new(text)? {
            NamePattern::Name(name) => resolved.push(name),
            pattern => resolved.extend(existing.iter().filter(|name| pattern.matches(name)).cloned()),
        }
    }
    resolved.sort_unstable();
    resolved.dedup();
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_become_the_names_that_they_match() {
        let texts = |all: &[&str]| all.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let existing = texts(&["moving1", "moving2", "staying"]);
        let resolved = |patterns: &[&str]| resolve_names(&texts(patterns), &existing);
        assert_eq!(resolved(&["/moving/", "looks", "moving1"]).expect("compiles"), ["looks", "moving1", "moving2"]);
        assert_eq!(resolved(&["/^stay"]).expect("compiles"), ["staying"]);
        assert!(resolved(&["/gone/"]).expect("compiles").is_empty());
        let error = resolved(&["/(/"]).expect_err("no expression").to_string();
        assert!(error.contains("cannot compile regexp ( for table"), "{error}");
    }
}
