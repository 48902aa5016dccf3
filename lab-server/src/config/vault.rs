//! `[vault]`: where the master key lies, which is never here.

use std::path::Path;

use super::document::Section;
use crate::vault::MasterSource;

/// Reads `[vault]`; its paths are relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> Option<MasterSource> {
    const FORM: &str = "the master key does not stand in this file; say where it lies: master = { file = \"path\" }, \
                        { keyring = \"account\" }, { credential = \"name\" } or { env_file = \"path\" }";
    let mut vault = root.table("vault")?;
    vault.need("master");
    let master = match vault.table_or_other("master") {
        None => None,
        Some(Err(line)) => vault.wrong(line, FORM),
        Some(Ok(master)) => source(master, base),
    };
    vault.finish();
    master
}

fn source(mut source: Section<'_, '_>, base: &Path) -> Option<MasterSource> {
    let line = source.line;
    let file = source.text("file").map(|file| MasterSource::File(base.join(file.value)));
    let env_file = source.text("env_file").map(|file| MasterSource::EnvFile(base.join(file.value)));
    let keyring = source.text("keyring").and_then(|account| match account.value.len() {
        1..=100 => Some(MasterSource::Keyring(account.value)),
        _ => source.wrong(account.line, "keyring must be the name of an account, 1 to 100 letters"),
    });
    let credential = source.text("credential").and_then(|name| {
        let fits = (1..=100).contains(&name.value.len())
            && name.value.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
        if fits && !name.value.starts_with('.') {
            Some(MasterSource::Credential(name.value))
        } else {
            source.wrong(name.line, "credential must be the name of a credential: letters, digits, dots, dashes, underscores")
        }
    });
    let mut found = [file, keyring, credential, env_file].into_iter().flatten();
    let master = match (found.next(), found.next()) {
        (Some(master), None) => Some(master),
        _ => source.wrong(line, "master must have exactly one of file, keyring, credential and env_file"),
    };
    source.finish();
    master
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_key_lies_in_one_place() {
        let read = |master: &str| {
            let text = format!("[vault]\nmaster = {master}\n");
            let (document, table) = super::super::document::Document::parse(&text);
            let mut root = document.root(&table);
            let master = super::read(&mut root, Path::new("/etc/1k4"));
            drop(root);
            (master, document.into_mistakes().into_iter().map(|mistake| mistake.problem).collect::<Vec<_>>())
        };
        for (text, master) in [
            ("{ file = \"m.key\" }", MasterSource::File("/etc/1k4/m.key".into())),
            ("{ env_file = \"/m.env\" }", MasterSource::EnvFile("/m.env".into())),
            ("{ keyring = \"lab\" }", MasterSource::Keyring("lab".into())),
            ("{ credential = \"1k4-master\" }", MasterSource::Credential("1k4-master".into())),
        ] {
            assert_eq!(read(text), (Some(master), vec![]), "{text}");
        }
        let one = "master must have exactly one of file, keyring, credential and env_file";
        for (text, problem) in [
            ("{}", one),
            ("{ file = \"a\", keyring = \"b\" }", one),
            ("\"mk1_CANARY\"", "the master key does not stand in this file"),
            ("{ credential = \"../x\" }", "credential must be"),
            ("{ credential = \"\" }", "credential must be"),
            ("{ keyring = \"\" }", "keyring must be"),
        ] {
            let (master, problems) = read(text);
            assert!(master.is_none() && problems[0].starts_with(problem), "{text}: {problems:?}");
            assert!(problems.iter().all(|problem| !problem.contains("CANARY")));
        }
    }
}
