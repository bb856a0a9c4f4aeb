//! The query service of one tablet.
