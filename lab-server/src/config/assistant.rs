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
    let url = providers::url(&mut section, "assistant", kind);
    let secret = providers::secret(&mut section, base, "assistant", kind);
    let model = section.text("model");
    let model = model.and_then(|model| match (1..=256).contains(&model.value.len()) {
        true => Some(model.value),
        false => section.wrong(model.line, "model must be the name of a model, 1 to 256 characters"),
    });
    section.finish();
    Some(Assistant { kind: kind?, base: url?, secret: secret?, model: model? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config;

    fn mistakes(rest: &str) -> Vec<String> {
        let read = config::read(&format!("[assistant]\n{rest}"), Path::new("/etc"));
        read.err().into_iter().flatten().map(|mistake| format!("{}: {}", mistake.line, mistake.problem)).collect()
    }

    #[test]
    fn it_is_read_and_every_mistake_is_named() {
        let read = config::read("", Path::new("")).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        assert_eq!(read.assistant, None);
        let text = "[assistant]\nkind = \"anthropic\"\nmodel = \"claude-haiku-4-5\"\nsecret = { file = \"key\" }\n";
        let read = config::read(text, Path::new("/etc")).unwrap_or_else(|mistakes| panic!("{mistakes:?}"));
        let assistant = read.assistant.unwrap();
        assert_eq!((assistant.kind, assistant.model.as_str()), (ProviderKind::Anthropic, "claude-haiku-4-5"));
        assert_eq!(assistant.secret, Some(SecretSource::File("/etc/key".into())));
        let home = "kind = \"openai-compatible\"\nmodel = \"m\"\n";
        assert_eq!(mistakes(&format!("{home}base_url = \"http://127.0.0.1:1/v1\"\n")), [""; 0]);
        assert_eq!(mistakes(home), ["1: assistant needs base_url: this kind of provider has no address of its own"]);
        let secret = mistakes("kind = \"openai\"\nmodel = \"m\"\n");
        assert!(matches!(&secret[..], [only] if only.starts_with("1: assistant needs secret: ")), "{secret:?}");
        let written = mistakes("kind = \"openai\"\nmodel = \"m\"\nsecret = \"sk-oops\"\n");
        assert!(matches!(&written[..], [only] if only.starts_with("4: a secret does not stand in this file")), "{written:?}");
        let many = mistakes("kind = \"bedrock\"\nmodel = \"\"\nsecret = { env = \"ONEK4_A\" }\nmodels = 1\n");
        assert!(many.iter().any(|line| line.starts_with("2: kind must be one of ")), "{many:?}");
        assert!(many.iter().any(|line| line == "3: model must be the name of a model, 1 to 256 characters"), "{many:?}");
        assert!(many.iter().any(|line| line.starts_with("5: unknown field `models` in assistant")), "{many:?}");
        assert!(mistakes("").iter().any(|line| line == "1: assistant needs kind"));
    }
}
