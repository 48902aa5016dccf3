//! The part of the configuration that says who may sign in and how: `[sign_in]`, its providers, and `[mail]`.
//!
//! Secrets are named by the place where they lie, as the model providers' are.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
};

use super::{
    document::{At, Section},
    providers::{SecretSource, secret_source},
};
use crate::store::MAIL;

/// Google's issuer.
const GOOGLE: &str = "https://accounts.google.com";
/// GitHub's address, unless another one is named.
const GITHUB: &str = "https://github.com";

/// Who may sign in, and at whose providers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SignIn {
    /// Whether people who have no account get one.
    pub registration: Registration,
    /// Where they may prove who they are.
    pub providers: Vec<PlannedProvider>,
    /// Certificates to trust beside the system's when providers are asked, as PEM.
    pub ca_file: Option<PathBuf>,
}

/// Whether people who have no account get one by signing in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Registration {
    /// Only whom the operator adds.
    #[default]
    Closed,
    /// Everybody whom a provider or a mailbox vouches for.
    Open,
}

/// A provider whose secret has not been fetched yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedProvider {
    /// What it is called in addresses and to people; unique, and never changed: identities are filed under it.
    pub name: String,
    /// How it is spoken to.
    pub kind: ProviderKind,
    /// What it knows this Lab by.
    pub client_id: String,
    /// Where the secret lies that goes with that.
    pub client_secret: SecretSource,
}

/// How a provider is spoken to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProviderKind {
    /// By OpenID Connect.
    Oidc {
        /// Its issuer, without a slash at the end unless it has one.
        issuer: String,
    },
    /// As GitHub is: OAuth, and its own API for addresses.
    Github {
        /// `https://github.com`, or the address of a GitHub Enterprise Server.
        base_url: String,
    },
}

/// How mail is sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mail {
    /// Not at all: files in this folder, for whoever runs a Lab for themselves or develops.
    Outbox(PathBuf),
    /// By a mail server.
    Smtp {
        /// The sender.
        from: String,
        /// Its name.
        host: String,
        /// Its port.
        port: u16,
        /// When TLS begins.
        tls: SmtpTls,
        /// Account and secret, where it asks for them.
        login: Option<(String, SecretSource)>,
        /// Certificates to trust instead of the system's, as PEM.
        ca_file: Option<PathBuf>,
    },
    /// By a service's HTTP API: a POST of `{from, to, subject, text}` as JSON, with the secret as bearer.
    Http {
        /// The sender.
        from: String,
        /// Where.
        url: String,
        /// Where the secret lies.
        secret: SecretSource,
        /// Certificates to trust beside the system's, as PEM.
        ca_file: Option<PathBuf>,
    },
}

/// When TLS begins on a connection to a mail server. There is no way without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SmtpTls {
    /// From the first byte.
    Implicit,
    /// After the server agreed; a server that does not is not used.
    Starttls,
}

/// Reads `[sign_in]` and `[mail]`. Paths are relative to `base`.
pub(super) fn read(root: &mut Section<'_, '_>, base: &Path) -> (SignIn, Option<Mail>) {
    let mut sign_in = SignIn::default();
    if let Some(mut section) = root.table("sign_in") {
        const WORDS: [(&str, Registration); 2] = [("closed", Registration::Closed), ("open", Registration::Open)];
        sign_in.registration = section.word("registration", &WORDS).map(|word| word.value).unwrap_or_default();
        sign_in.ca_file = section.text("ca_file").map(|file| base.join(file.value));
        let mut names = HashSet::new();
        for table in section.tables("providers") {
            sign_in.providers.extend(provider(table, base, &mut names));
        }
        section.finish();
    }
    (sign_in, root.table("mail").and_then(|section| mail(section, base)))
}

#[derive(Clone, Copy)]
enum Kind {
    Google,
    Oidc,
    Github,
}

fn provider(mut section: Section<'_, '_>, base: &Path, names: &mut HashSet<String>) -> Option<PlannedProvider> {
    const KINDS: [(&str, Kind); 3] = [("google", Kind::Google), ("oidc", Kind::Oidc), ("github", Kind::Github)];
    for key in ["name", "kind", "client_id"] {
        section.need(key);
    }
    let name = section.text("name").and_then(|At { line, value }| {
        let fits = (1..=40).contains(&value.len())
            && value.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
        if !fits || value == MAIL {
            return section.wrong(line, "name must be 1 to 40 small letters, digits and dashes, and not `mail`");
        }
        if !names.insert(value.clone()) {
            return section.wrong(line, format_args!("there is another provider {value}; each needs a name of its own"));
        }
        Some(value)
    });
    let kind = section.word("kind", &KINDS).map(|kind| kind.value);
    let client_id = section.text("client_id").and_then(|At { line, value }| {
        let fits = (1..=300).contains(&value.len()) && value.bytes().all(|byte| byte.is_ascii_graphic());
        if fits { Some(value) } else { section.wrong(line, "client_id must be 1 to 300 plain characters") }
    });
    let client_secret = secret_source(&mut section, base, "client_secret", "providers");
    if matches!(kind, Some(Kind::Oidc)) {
        section.need("issuer");
    }
    let issuer = url(&mut section, "issuer");
    let base_url = url(&mut section, "base_url");
    section.finish();
    let kind = match kind? {
        Kind::Google => ProviderKind::Oidc { issuer: GOOGLE.to_owned() },
        Kind::Oidc => ProviderKind::Oidc { issuer: issuer? },
        Kind::Github => {
            ProviderKind::Github { base_url: base_url.unwrap_or_else(|| GITHUB.to_owned()).trim_end_matches('/').to_owned() }
        }
    };
    Some(PlannedProvider { name: name?, kind, client_id: client_id?, client_secret: client_secret? })
}

/// An `https://` address without a query.
fn url(section: &mut Section<'_, '_>, key: &'static str) -> Option<String> {
    let At { line, value } = section.text(key)?;
    let fits = value.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("https") && uri.host().is_some_and(|host| !host.is_empty()) && uri.query().is_none()
    });
    if fits && !value.contains(['@', '#']) {
        Some(value)
    } else {
        section.wrong(line, format_args!("{key} must be an https:// address without a query"))
    }
}

fn mail(mut section: Section<'_, '_>, base: &Path) -> Option<Mail> {
    let line = section.line;
    let outbox = section.text("outbox").map(|folder| base.join(folder.value));
    let (smtp, http) = (section.table("smtp"), section.table("http"));
    if outbox.is_none() {
        section.need("from");
    }
    let from = section.text("from").and_then(|At { line, value }| match value.parse::<lettre::message::Mailbox>() {
        Ok(_) => Some(value),
        Err(_) => section.wrong(line, "from must be an address such as \"lab@example.com\" or \"My Lab <lab@example.com>\""),
    });
    let found = match (outbox, smtp, http) {
        (Some(folder), None, None) => Some(Mail::Outbox(folder)),
        (None, Some(section), None) => smtp_server(section, base, from),
        (None, None, Some(section)) => http_api(section, base, from),
        _ => section.wrong(line, "mail must have exactly one of smtp, http and outbox"),
    };
    section.finish();
    found
}

fn smtp_server(mut section: Section<'_, '_>, base: &Path, from: Option<String>) -> Option<Mail> {
    const TLS: [(&str, SmtpTls); 2] = [("implicit", SmtpTls::Implicit), ("starttls", SmtpTls::Starttls)];
    section.need("host");
    let host = section.text("host").map(|host| host.value);
    let tls = section.word("tls", &TLS).map_or(SmtpTls::Implicit, |tls| tls.value);
    let usual = match tls {
        SmtpTls::Implicit => 465,
        SmtpTls::Starttls => 587,
    };
    let port = section.number("port", 1..=65_535).map_or(Some(usual), |port| u16::try_from(port.value).ok());
    let login = match section.text("username") {
        None => {
            // Known as a setting also where it says nothing.
            section.table("secret");
            None
        }
        Some(username) => Some((username.value, secret_source(&mut section, base, "secret", "smtp")?)),
    };
    let ca_file = section.text("ca_file").map(|file| base.join(file.value));
    section.finish();
    Some(Mail::Smtp { from: from?, host: host?, port: port?, tls, login, ca_file })
}

fn http_api(mut section: Section<'_, '_>, base: &Path, from: Option<String>) -> Option<Mail> {
    section.need("url");
    let url = url(&mut section, "url");
    let secret = secret_source(&mut section, base, "secret", "http");
    let ca_file = section.text("ca_file").map(|file| base.join(file.value));
    section.finish();
    Some(Mail::Http { from: from?, url: url?, secret: secret?, ca_file })
}
