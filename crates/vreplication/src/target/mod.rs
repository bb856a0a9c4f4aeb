//! The target side: the streams of `_vt.vreplication`, each applied with its position in one transaction.
