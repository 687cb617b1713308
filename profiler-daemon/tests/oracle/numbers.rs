//! The oracle that knows expressions: gimli looks an address up and computes with made-up
//! registers and memory; a rule is right if it computes the same.

use std::path::Path;

use super::Row;

/// All rows of a file.
pub fn gimli_rows(_path: &Path) -> Option<Vec<Row>> {
    None
}
