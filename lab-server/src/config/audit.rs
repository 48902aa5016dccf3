//! `[audit]`: where the signed heads of operation logs go beside the database.

use std::path::{Path, PathBuf};

use super::document::Section;

/// Name of the file in the data folder, unless the configuration names another one.
pub(super) const FILE_NAME: &str = "audit-heads.jsonl";

/// Reads `[audit]`; its path is relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> Option<PathBuf> {
    let mut audit = root.table("audit")?;
    audit.need("heads");
    let heads = audit.text("heads").map(|file| base.join(file.value));
    audit.finish();
    heads
}
