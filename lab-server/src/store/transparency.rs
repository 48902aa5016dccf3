//! Everything that a Lab stores, column by column and file by file, each with a sentence: what `/api/transparency` shows.
//!
//! A test holds it against a database and a keystore that were just made. A column that nobody explains here fails it, and so does a
//! sentence about a column that is not there.

use serde::Serialize;
use utoipa::ToSchema;

/// What stands in a column or a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// It can be read by whoever can read the database.
    Plain,
    /// It is encrypted with AES-256-GCM under a key of the person's, the project's, the conversation's or the Lab's.
    Sealed,
    /// It is a hash: what it was made of is stored nowhere.
    Hash,
    /// It is a keyed hash by which something that is sealed is found again.
    BlindIndex,
}

/// A column, and what it is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What stands in it.
    pub form: Form,
    /// One plain sentence.
    pub about: &'static str,
}

/// Where a person finds a table in what they take along, or why it is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Taken {
    /// In this file of the export, where there is such data.
    In(&'static str),
    /// Nowhere, for this reason.
    Not(&'static str),
}

/// A table of the database or of the keystore.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How long a row is kept.
    pub kept: &'static str,
    /// Whether it is in the export of an account.
    pub export: Taken,
    /// Its columns.
    pub columns: &'static [Column],
}

/// A file or folder on the Lab's disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct StoredFile {
    /// What it is called unless the Lab's owner says otherwise.
    pub name: &'static str,
    /// What stands in it.
    pub form: Form,
    /// One plain sentence.
    pub about: &'static str,
    /// How long it is kept.
    pub kept: &'static str,
}

const fn plain(name: &'static str, about: &'static str) -> Column {
    Column { name, form: Form::Plain, about }
}

const fn sealed(name: &'static str, about: &'static str) -> Column {
    Column { name, form: Form::Sealed, about }
}

const fn hash(name: &'static str, about: &'static str) -> Column {
    Column { name, form: Form::Hash, about }
}

const fn blind(name: &'static str, about: &'static str) -> Column {
    Column { name, form: Form::BlindIndex, about }
}

const UNTIL_DELETED: &str = "until its owner deletes it, its project or the account";
const WITH_ACCOUNT: &str = "until the account is deleted";
const SECRET: Taken = Taken::Not("it holds nothing but what lets somebody in, which an export must not");

/// The tables of the database.
pub const DATABASE: &[Table] = &[
    Table {
        name: "users",
        kept: WITH_ACCOUNT,
        export: Taken::In("account.json"),
        columns: &[
            plain("id", "A random name for the person."),
            blind("name_index", "By which the account is found by its name."),
            sealed("name_sealed", "What people call the account."),
            plain("name_version", "How often the name was changed."),
            plain("created_at", "When the account was opened."),
            plain("requests_per_minute", "How many requests a minute the person may make, if that is limited."),
            plain("tokens_per_minute", "How many tokens a minute the person may use, if that is limited."),
            plain("concurrent", "How many requests of the person may run at once, if that is limited."),
        ],
    },
    Table {
        name: "balances",
        kept: WITH_ACCOUNT,
        export: Taken::In("account.json"),
        columns: &[
            plain("user_id", "Whose credits these are."),
            plain("balance_nano", "How many credits are left."),
            plain("free_requests_left", "How many requests are left for nothing."),
        ],
    },
    Table {
        name: "identities",
        kept: "until its owner removes it or deletes the account",
        export: Taken::In("identities.json"),
        columns: &[
            plain("id", "A random name for this way of signing in."),
            plain("user_id", "Who signs in with it."),
            plain("provider", "Where: Google, GitHub, or by mail."),
            blind("subject_index", "By which the account is found when its owner signs in."),
            sealed("subject_sealed", "What the provider calls the person."),
            sealed("email_sealed", "The address that the provider vouches for."),
            plain("created_at", "When it was added."),
            plain("used_at", "When somebody last signed in with it."),
        ],
    },
    Table {
        name: "sessions",
        kept: "until it is ended, or 7 days after its last use, and never longer than 30 days; then it is swept within five minutes",
        export: Taken::In("sessions.json"),
        columns: &[
            plain("id", "A random name for the session."),
            plain("user_id", "Who is signed in."),
            plain("identity_id", "What they signed in with."),
            plain("began_at", "When they signed in."),
            plain("authenticated_at", "When they last proved who they are."),
            plain("used_at", "When it was last used."),
            sealed("browser_sealed", "What kind of browser it is."),
        ],
    },
    Table {
        name: "session_tokens",
        kept: "as long as its session",
        export: SECRET,
        columns: &[
            hash("token_hash", "By which the browser's cookie is recognised."),
            plain("session_id", "The session that it opens."),
            plain("issued_at", "When the browser got it."),
            plain("replaced_at", "When the browser got the next one."),
        ],
    },
    Table {
        name: "sign_in_attempts",
        kept: "ten minutes, and at most five more until it is swept",
        export: Taken::Not("it belongs to nobody yet"),
        columns: &[
            hash("state_hash", "By which somebody who comes back from a provider is recognised."),
            plain("provider", "Where they are signing in."),
            hash("browser_hash", "By which their browser is recognised."),
            sealed("detail_sealed", "What the provider's answer is checked with."),
            plain("session_id", "The session in which one more way of signing in is being added."),
            plain("expires_at", "Until when it can be used."),
        ],
    },
    Table {
        name: "magic_links",
        kept: "an hour, in which it opens for fifteen minutes and then is counted; an invitation of the Lab's owner a day; and at most \
               twenty minutes more until it is swept",
        export: Taken::Not("it belongs to nobody yet"),
        columns: &[
            hash("token_hash", "By which the link in a mail is recognised."),
            blind("address_index", "By which links to one address are counted."),
            sealed("address_sealed", "The address that the link was sent to."),
            hash("browser_hash", "By which the browser that asked for it is recognised."),
            hash("code_hash", "By which the code that is typed instead is recognised."),
            plain("wrong_codes", "How often a wrong code was typed."),
            plain("session_id", "The session in which an address is being added."),
            plain("created_at", "When it was sent."),
            plain("expires_at", "Until when it can be used."),
        ],
    },
    Table {
        name: "projects",
        kept: "until the account is deleted; of a deleted project nothing that was sealed can be read any more",
        export: Taken::In("projects.json"),
        columns: &[
            plain("id", "A random name for the project."),
            plain("user_id", "Whose it is."),
            blind("name_index", "By which a second project of that name is noticed."),
            sealed("name_sealed", "What its owner calls it."),
            plain("name_version", "How often the name was changed."),
            plain("created_at", "When it was made."),
            plain("exact_usage", "Whether providers are asked for the exact usage of streams."),
            plain("deleted_at", "When it was deleted."),
            plain("requests_per_minute", "How many requests a minute its keys may make, if that is limited."),
            plain("tokens_per_minute", "How many tokens a minute its keys may use, if that is limited."),
            plain("concurrent", "How many requests of its keys may run at once, if that is limited."),
            sealed("instructions_sealed", "What models are told all along in this project."),
            sealed("settings_sealed", "What its agents may do and spend."),
            plain("version", "How often the sealed columns were changed."),
        ],
    },
    Table {
        name: "api_keys",
        kept: WITH_ACCOUNT,
        export: Taken::In("keys.json"),
        columns: &[
            plain("kid", "The key's public name, a part of the key."),
            plain("project_id", "The project that it belongs to."),
            sealed("name_sealed", "What its owner calls it."),
            plain("name_version", "How often the name was changed."),
            plain("salt", "A random value that its hash is made with."),
            hash("hash", "By which the key is recognised; the key itself is stored nowhere."),
            plain("last4", "Its last four characters, to tell it from others."),
            plain("created_at", "When it was made."),
            plain("revoked_at", "When it was ended."),
            plain("environment", "Whether it is for real use or for tests."),
            plain("scopes", "What it may be used for."),
            plain("models", "The models that it may ask, if they are limited."),
            plain("expires_at", "When it ends by itself."),
            plain("replaced_by", "The key that came in its place."),
            plain("spend_day_nano", "What it may cost in a day, if that is limited."),
            plain("spend_month_nano", "What it may cost in a month, if that is limited."),
            plain("spend_total_nano", "What it may cost in all, if that is limited."),
            plain("requests_per_minute", "How many requests a minute it may make, if that is limited."),
            plain("tokens_per_minute", "How many tokens a minute it may use, if that is limited."),
            plain("concurrent", "How many requests of it may run at once, if that is limited."),
            plain("counts_as", "The first of the keys that came in each other's place, whose limits they share."),
        ],
    },
    Table {
        name: "spending",
        kept: "sums of a day for 90 days, other sums as long as the Lab exists; a deleted account's keys name nobody",
        export: Taken::Not("it is summed from requests.jsonl"),
        columns: &[
            plain("kid", "The key that was used."),
            plain("window", "Whether it is the sum of a day, of a month or of all."),
            plain("bucket", "Which day or month."),
            plain("spent_nano", "What was spent."),
        ],
    },
    Table {
        name: "devices",
        kept: WITH_ACCOUNT,
        export: Taken::In("devices.json"),
        columns: &[
            plain("id", "A random name for the workstation."),
            plain("user_id", "Whose it is."),
            blind("name_index", "By which a second workstation of that name is noticed."),
            sealed("name_sealed", "What its owner calls it."),
            plain("name_version", "How often the name was changed."),
            plain("public_key", "By which its signature is recognised; the secret key never leaves it."),
            sealed("hostname_sealed", "What it called itself when it was paired."),
            plain("os", "Its operating system."),
            plain("version", "The version of the bridge on it."),
            plain("created_at", "When it was paired."),
            plain("revoked_at", "When it was removed."),
        ],
    },
    Table {
        name: "pairings",
        kept: "an hour after it can no longer be used; then it is swept within five minutes",
        export: Taken::Not("it belongs to nobody until it becomes a workstation"),
        columns: &[
            hash("device_code_hash", "By which the workstation that waits is recognised."),
            plain("user_code", "The code that its owner types."),
            plain("public_key", "The workstation's public key."),
            sealed("hostname_sealed", "What it calls itself."),
            plain("os", "Its operating system."),
            plain("version", "The version of the bridge on it."),
            sealed("address_sealed", "The network address that it asks from, to be shown to its owner."),
            plain("interval_s", "How often it may ask."),
            plain("expires_at", "Until when the code can be typed."),
            plain("polled_at", "When it last asked."),
            plain("state", "How far the pairing is."),
            plain("user_id", "Who decided."),
            plain("device_id", "The workstation that came of it."),
        ],
    },
    Table {
        name: "requests",
        kept: "90 days; after an account is deleted its random name stands for nobody",
        export: Taken::In("requests.jsonl"),
        columns: &[
            plain("id", "The request's name, as its answer gave it."),
            plain("time", "When it came."),
            plain("model", "The model that was asked."),
            plain("operation", "What kind of request it was."),
            plain("device", "The workstation that answered."),
            plain("provider", "The provider that answered."),
            plain("input_tokens", "How long the prompt was."),
            plain("output_tokens", "How long the answer was."),
            plain("cost_nano", "What it cost."),
            plain("user", "Whose request it was."),
            plain("project", "For which project."),
            plain("key", "Under which key."),
            plain("latency_ms", "How long it took."),
            plain("first_token_ms", "How long it took to begin."),
            plain("stream", "Whether a stream was asked for."),
            plain("status", "The HTTP status of the answer."),
            plain("outcome", "How it ended."),
            plain("estimated", "Whether the tokens were estimated."),
            plain("prices", "The price list that it was priced with."),
        ],
    },
    Table {
        name: "ledger",
        kept: "as long as the Lab exists, as books are; after an account is deleted its random name stands for nobody",
        export: Taken::In("ledger.jsonl"),
        columns: &[
            plain("seq", "The entry's number."),
            plain("time", "When it was made."),
            plain("user_id", "Whose credits changed."),
            plain("kind", "Why they changed."),
            plain("amount_nano", "By how much."),
            plain("idempotency_key", "What makes sure that nothing is entered twice."),
            plain("request", "The request that was charged."),
            plain("project", "The project that it was for."),
            plain("key", "The key that was used."),
        ],
    },
    Table {
        name: "folders",
        kept: UNTIL_DELETED,
        export: Taken::In("folders.json"),
        columns: &[
            plain("id", "A random name for the folder."),
            plain("user_id", "Whose it is."),
            plain("parent_id", "The folder that it lies in."),
            sealed("name_sealed", "What its owner calls it."),
            plain("version", "How often it was changed."),
            plain("created_at", "When it was made."),
        ],
    },
    Table {
        name: "conversations",
        kept: UNTIL_DELETED,
        export: Taken::In("conversations/"),
        columns: &[
            plain("id", "A random name for the conversation."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            plain("folder_id", "The folder that it lies in."),
            sealed("title_sealed", "What its owner calls it."),
            sealed("settings_sealed", "Which model answers, and what it is told all along."),
            plain("leaf_id", "The message up to which it is read."),
            plain("pinned", "Whether it stays on top."),
            plain("archived_at", "When it was put away."),
            plain("version", "How often it was changed."),
            plain("created_at", "When it was begun."),
            plain("updated_at", "When something was last said in it."),
        ],
    },
    Table {
        name: "messages",
        kept: UNTIL_DELETED,
        export: Taken::In("conversations/"),
        columns: &[
            plain("id", "A random name for the message."),
            plain("user_id", "Whose it is."),
            plain("conversation_id", "The conversation that it belongs to."),
            plain("parent_id", "The message that it follows."),
            plain("role", "Whether a person or a model says it."),
            sealed("content_sealed", "What it says."),
            plain("run_id", "The run that made it."),
            plain("version", "How often it was changed."),
            plain("created_at", "When it was said."),
        ],
    },
    Table {
        name: "runs",
        kept: UNTIL_DELETED,
        export: Taken::In("conversations/"),
        columns: &[
            plain("id", "A random name for the run."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it works in."),
            plain("conversation_id", "The conversation that it answers in."),
            plain("message_id", "The message that it makes."),
            plain("kind", "Whether it is a chat's answer or an agent's work."),
            plain("state", "How far it is."),
            sealed("order_sealed", "What was wanted."),
            plain("last_seq", "How much happened in it."),
            plain("cost_nano", "What it cost."),
            plain("created_at", "When it began."),
            plain("ended_at", "When it ended."),
        ],
    },
    Table {
        name: "run_events",
        kept: UNTIL_DELETED,
        export: Taken::In("conversations/"),
        columns: &[
            plain("run_id", "The run that it happened in."),
            plain("first_seq", "The number of the first event in this row."),
            plain("last_seq", "The number of the last."),
            sealed("frames_sealed", "What happened."),
        ],
    },
    Table {
        name: "approvals",
        kept: UNTIL_DELETED,
        export: Taken::Not("what was asked and answered is among the events of runs in conversations/"),
        columns: &[
            plain("id", "A random name for the question."),
            plain("user_id", "Who was asked."),
            plain("run_id", "The run that asked."),
            plain("state", "What was answered."),
            sealed("content_sealed", "What was to be done."),
            plain("asked_at", "When it was asked."),
            plain("decided_at", "When it was answered."),
        ],
    },
    Table {
        name: "blobs",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("id", "A random name for a stored content."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            blind("address_index", "By which the same content is stored once in a project."),
            plain("size", "How long it is."),
            plain("created_at", "When it was stored."),
        ],
    },
    Table {
        name: "files",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("id", "A random name for the file."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            blind("path_index", "By which it is found by its path."),
            sealed("path_sealed", "Its path."),
            plain("version", "How often it was written or renamed."),
            plain("created_at", "When it was first written."),
            plain("updated_at", "When it was last written."),
            plain("deleted_at", "When it was put into the bin."),
        ],
    },
    Table {
        name: "file_versions",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("file_id", "The file."),
            plain("version", "Which of its versions."),
            plain("blob_id", "The content that it had then."),
            plain("size", "How long it was."),
            sealed("detail_sealed", "What kind of file it was, and who wrote it."),
            plain("created_at", "When it was written."),
        ],
    },
    Table {
        name: "tasks",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("id", "A random name for the task."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            plain("state", "How far it is."),
            plain("position", "Where it stands on the board."),
            sealed("content_sealed", "What is to be done, and by whom."),
            plain("version", "How often it was changed."),
            plain("created_at", "When it was added."),
            plain("updated_at", "When it was last changed."),
        ],
    },
    Table {
        name: "rules",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("id", "A random name for the rule."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            sealed("content_sealed", "What agents may or may not do without asking."),
            plain("created_at", "When it was added."),
        ],
    },
    Table {
        name: "tool_servers",
        kept: UNTIL_DELETED,
        export: Taken::In("projects/"),
        columns: &[
            plain("id", "A random name for the tool server."),
            plain("user_id", "Whose it is."),
            plain("project_id", "The project that it belongs to."),
            plain("enabled", "Whether agents may use it."),
            sealed("content_sealed", "Its name, its address and what opens it; the latter is not in the export."),
            plain("version", "How often it was changed."),
            plain("created_at", "When it was added."),
        ],
    },
    Table {
        name: "operations",
        kept: "until the account is deleted; of a deleted project it cannot be read any more",
        export: Taken::In("projects/"),
        columns: &[
            plain("project_id", "The project in which something was done."),
            plain("seq", "The entry's number."),
            plain("time", "When it was done."),
            sealed("entry_sealed", "Who did what, with which arguments, allowed by whom, and what came of it."),
            hash("previous_hash", "The entry before, so that none can be taken out or put in."),
            hash("hash", "This entry, so that it cannot be changed."),
        ],
    },
    Table {
        name: "operation_heads",
        kept: "as long as the entries",
        export: Taken::Not("it holds signatures over the log, which is in the export"),
        columns: &[
            plain("project_id", "The project."),
            plain("seq", "The entry up to which the log is signed."),
            hash("hash", "That entry."),
            plain("signature", "The Lab's signature, so that the log's end cannot be cut off."),
            plain("time", "When it was signed."),
        ],
    },
    Table {
        name: "lab_secrets",
        kept: "as long as the Lab exists",
        export: Taken::Not("it is the Lab's own"),
        columns: &[
            plain("name", "What the secret is for."),
            sealed("value_sealed", "The secret, such as the key that signs operation logs."),
        ],
    },
    Table {
        name: "security_epoch",
        kept: "as long as the Lab exists",
        export: Taken::Not("it is the Lab's own"),
        columns: &[
            plain("id", "Always 1."),
            plain("epoch", "How often something was revoked, so that all of the Lab notices at once."),
        ],
    },
    Table {
        name: "seaql_migrations",
        kept: "as long as the Lab exists",
        export: Taken::Not("it is the Lab's own"),
        columns: &[plain("version", "A version of these tables."), plain("applied_at", "When the Lab began to use it.")],
    },
];

/// The tables of the keystore, a second database.
pub const KEYSTORE: &[Table] = &[
    Table {
        name: "keys",
        kept: "until what it opens is deleted; that is how it is deleted for good",
        export: SECRET,
        columns: &[
            plain("scope", "The random name of the person, project or conversation whose data it opens."),
            plain("generation", "How often it was renewed."),
            plain("owner", "The random name of the person whose data it opens."),
            plain("kek", "Which of the Lab's master keys it is wrapped with."),
            sealed("wrapped", "The key, wrapped with the master key."),
            plain("created_at", "When it was made."),
        ],
    },
    Table {
        name: "tombstones",
        kept: "as long as the Lab exists, so that no backup brings back what was deleted",
        export: Taken::Not("it names what is no longer there"),
        columns: &[
            plain("scope", "The random name of what was deleted."),
            plain("owner", "The random name of the person whose it was."),
            plain("deleted_at", "When it was deleted."),
        ],
    },
    Table {
        name: "wrapping",
        kept: "as long as the Lab exists",
        export: Taken::Not("it is the Lab's own"),
        columns: &[plain("id", "Always 1."), plain("kek", "Which master key wraps new keys.")],
    },
];

/// What lies on the Lab's disk beside its databases.
pub const FILES: &[StoredFile] = &[
    StoredFile {
        name: "lab.sqlite",
        form: Form::Plain,
        about: "The database whose tables are listed above, with its write-ahead log.",
        kept: "as long as the Lab exists; what is deleted in it is overwritten",
    },
    StoredFile {
        name: "keystore.sqlite",
        form: Form::Plain,
        about: "The second database, of wrapped keys, with its write-ahead log.",
        kept: "as long as the Lab exists; what is deleted in it is overwritten",
    },
    StoredFile {
        name: "master.key",
        form: Form::Plain,
        about: "The master key, where the Lab's owner has not put it elsewhere.",
        kept: "as long as the Lab exists",
    },
    StoredFile { name: "blobs/", form: Form::Sealed, about: "The contents of projects' files.", kept: UNTIL_DELETED },
    StoredFile {
        name: "runs/",
        form: Form::Sealed,
        about: "What running answers have said since the database last heard of them.",
        kept: "until it is in the database, which takes less than a second",
    },
    StoredFile {
        name: "journal/",
        form: Form::Plain,
        about: "What requests cost, without any of their content, until it is in the database.",
        kept: "until it is in the database",
    },
    StoredFile {
        name: "audit-heads.jsonl",
        form: Form::Plain,
        about: "Signatures over operation logs: a project's random name, a number, a hash and a time each.",
        kept: "as long as the Lab exists",
    },
    StoredFile {
        name: "1k4-….data.age",
        form: Form::Sealed,
        about: "Backups of the database and the files' contents, encrypted once more, where the Lab's owner has them made.",
        kept: "30 days unless the Lab's owner says otherwise, until the next backup after that; without the keys they open to nobody",
    },
    StoredFile {
        name: "1k4-….keys.age",
        form: Form::Sealed,
        about: "Backups of the keystore, encrypted once more; whoever restores one deletes in it what the list of deletions names.",
        kept: "7 days at most, until the next backup after that",
    },
    StoredFile {
        name: "backup-…/",
        form: Form::Plain,
        about: "A backup in the making: copies of both databases.",
        kept: "until it is made; what a sudden end of the Lab left goes with a backup that is made a day later or more",
    },
    StoredFile {
        name: "outbox/",
        form: Form::Plain,
        about: "Mails with links to sign in with, only where the Lab's owner has them written down instead of sent.",
        kept: "an hour, and at most five minutes more until it is swept",
    },
    StoredFile {
        name: "tombstones",
        form: Form::Plain,
        about: "The random names of what was deleted, beside the backups, so that none of them brings it back.",
        kept: "as long as the Lab exists",
    },
    StoredFile {
        name: "ca.pem, ca.key, leaf.pem, leaf.key",
        form: Form::Plain,
        about: "The Lab's certificate and its key.",
        kept: "until they are renewed",
    },
];

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, path::Path};

    use sea_orm::{ConnectionTrait, Database, Statement};

    use super::{DATABASE, KEYSTORE, Table};
    use crate::store::scratch::Scratch;

    async fn columns_of(file: &Path) -> BTreeSet<(String, String)> {
        let db = Database::connect(format!("sqlite:{}", file.display())).await.unwrap();
        let sql = "SELECT m.name AS t, c.name AS c FROM sqlite_master m JOIN pragma_table_info(m.name) c \
                   WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite_%'";
        let rows = db.query_all_raw(Statement::from_string(db.get_database_backend(), sql)).await.unwrap();
        rows.iter().map(|row| (row.try_get("", "t").unwrap(), row.try_get("", "c").unwrap())).collect()
    }

    fn explained(tables: &[Table]) -> BTreeSet<(String, String)> {
        let columns = tables.iter().flat_map(|table| table.columns.iter().map(|column| (table.name, column.name)));
        columns.map(|(table, column)| (table.to_owned(), column.to_owned())).collect()
    }

    #[tokio::test]
    async fn every_column_has_its_sentence_and_every_sentence_its_column() {
        let scratch = Scratch::new().await;
        for (file, tables) in [("lab.sqlite", DATABASE), ("keystore.sqlite", KEYSTORE)] {
            let (there, said) = (columns_of(&scratch.dir.join(file)).await, explained(tables));
            assert!(there.len() > 10, "{file}");
            let unexplained: Vec<_> = there.difference(&said).collect();
            let invented: Vec<_> = said.difference(&there).collect();
            assert!(unexplained.is_empty() && invented.is_empty(), "{file}: unexplained {unexplained:?}, invented {invented:?}");
            for column in tables.iter().flat_map(|table| table.columns) {
                assert!(column.about.ends_with('.') && column.about.len() > 5, "{}: {:?}", column.name, column.about);
                // What is called sealed is, and what is said to be sealed is called so; the keystore wraps.
                let sealed = column.name.ends_with("_sealed") || column.name == "wrapped";
                assert_eq!(sealed, column.form == super::Form::Sealed, "{}", column.name);
            }
        }
    }
}
