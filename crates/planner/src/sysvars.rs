//! sysvars
