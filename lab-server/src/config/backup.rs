//! `[backup]`: whom copies are encrypted to, where they go, and for how long they stay.

use std::path::{Path, PathBuf};

use age::x25519::Recipient;

use super::document::Section;

/// How long a copy of the data stays unless the file says otherwise, in days.
const KEEP_DAYS: u32 = 30;
/// The longest that a copy of the keystore may stay, in days: so long what was deleted could be brought back by whoever keeps the
/// copy, the age identity, the master key and no list of what was deleted (SECURITY 4.7).
const KEYSTORE_KEEP_DAYS: u32 = 7;

/// How the Lab is copied.
#[derive(Debug, Clone)]
pub struct Backup {
    /// Who can open a copy; never empty.
    pub recipients: Vec<Recipient>,
    /// Folders on disks of different places.
    pub destinations: Vec<PathBuf>,
    /// How long a copy of the data stays, in days.
    pub keep_days: u32,
    /// How long a copy of the keystore stays, in days.
    pub keystore_keep_days: u32,
    /// How often a running Lab makes one; `None` leaves it to whoever calls `1k4-lab backup create`.
    pub every_hours: Option<u32>,
}

/// Reads `[backup]`; its paths are relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> Option<Backup> {
    let mut backup = root.table("backup")?;
    for key in ["recipients", "destinations"] {
        backup.need(key);
    }
    let recipients = backup.texts("recipients").and_then(|list| {
        let mut recipients = Vec::with_capacity(list.value.len());
        for text in &list.value {
            match text.value.parse() {
                Ok(recipient) => recipients.push(recipient),
                // What was written may be an identity, which is a secret.
                Err(_) => return backup.wrong(text.line, "recipients must hold age recipients, such as \"age1…\""),
            }
        }
        if recipients.is_empty() { backup.wrong(list.line, "recipients must name at least one") } else { Some(recipients) }
    });
    let number =
        |section: &mut Section<'_, '_>, key, range| section.number(key, range).and_then(|number| u32::try_from(number.value).ok());
    let single_site = backup.flag("single_site").is_some_and(|flag| flag.value);
    let destinations = backup.texts("destinations").and_then(|list| {
        let mut folders: Vec<PathBuf> = list.value.iter().map(|folder| base.join(&folder.value)).collect();
        folders.sort();
        folders.dedup();
        match (folders.len(), single_site) {
            (2.., _) | (1, true) => Some(folders),
            _ => backup.wrong(
                list.line,
                "destinations must name two folders on disks of different places; or say single_site = true and have one place for all",
            ),
        }
    });
    let keep_days = number(&mut backup, "keep_days", 1..=3_650).unwrap_or(KEEP_DAYS);
    let keystore_keep_days =
        number(&mut backup, "keystore_keep_days", 1..=u64::from(KEYSTORE_KEEP_DAYS)).unwrap_or(KEYSTORE_KEEP_DAYS);
    let every_hours = number(&mut backup, "every_hours", 1..=168);
    backup.finish();
    Some(Backup { recipients: recipients?, destinations: destinations?, keep_days, keystore_keep_days, every_hours })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_go_to_two_places_unless_their_owner_says_otherwise() {
        let recipient = age::x25519::Identity::generate().to_public();
        let read = |rest: &str| {
            let text = format!("[backup]\nrecipients = [\"{recipient}\"]\n{rest}\n");
            let (document, table) = super::super::document::Document::parse(&text);
            let mut root = document.root(&table);
            let backup = super::read(&mut root, Path::new("/srv"));
            drop(root);
            (
                backup.map(|backup| backup.destinations),
                document.into_mistakes().into_iter().map(|mistake| mistake.problem).collect::<Vec<_>>(),
            )
        };
        let (a, b): (PathBuf, PathBuf) = ("/srv/a".into(), "/b".into());
        assert_eq!(read("destinations = [\"a\", \"/b\"]"), (Some(vec![b, a.clone()]), vec![]));
        assert_eq!(read("destinations = [\"a\"]\nsingle_site = true"), (Some(vec![a]), vec![]));
        for (rest, problem) in [
            ("destinations = [\"a\"]", "destinations must name two folders"),
            ("destinations = [\"a\", \"a\"]\nsingle_site = false", "destinations must name two folders"),
            ("destinations = []\nsingle_site = true", "destinations must name two folders"),
            ("", "backup needs destinations"),
            ("destinations = [\"a\", \"b\"]\nkeystore_keep_days = 8", "keystore_keep_days must be a whole number from 1 to 7"),
            ("destinations = [\"a\", \"b\"]\nsingle_site = 1", "single_site must be true or false"),
        ] {
            let (_, problems) = read(rest);
            assert!(problems.len() == 1 && problems[0].starts_with(problem), "{rest}: {problems:?}");
        }
    }
}
