//! `[assistant]`: which model answers questions about accounts. Without it there is no assistant.

use std::path::Path;

use api_proxy::{BaseUrl, ProviderKind};

use super::{
    document::Section,
    providers::{self, SecretSource},
};

/// Where the assistant's model is: an account of its own, apart from what people ask for.
#[derive(Debug, Clone, PartialEq)]
pub struct Assistant {
    /// Which shape its provider speaks.
    pub kind: ProviderKind,
    /// Where it is.
    pub base: BaseUrl,
    /// Where its secret lies; `None` for a server that asks for none.
    pub secret: Option<SecretSource>,
    /// The model, as its provider calls it.
    pub model: String,
}

/// Reads `[assistant]`; the paths in it are relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> Option<Assistant> {
    let mut section = root.table("assistant")?;
    section.need("kind");
    section.need("model");
    let kind = providers::kind(&mut section);
    let url = providers::url(&mut section, kind);
    let secret = providers::secret(&mut section, base, kind);
    let model = section.text("model");
    let model = model.and_then(|model| match (1..=256).contains(&model.value.len()) {
        true => Some(model.value),
        false => section.wrong(model.line, "model must be the name of a model, 1 to 256 characters"),
    });
    section.finish();
    Some(Assistant { kind: kind?, base: url?, secret: secret?, model: model? })
}
