//! How a letter leaves: by a mail server, by a service's HTTP API, or into a folder for whoever runs a Lab for themselves.

use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use http::header;
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::Mailbox,
    transport::smtp::{
        authentication::Credentials,
        client::{Certificate, Tls, TlsParameters},
    },
};
use zeroize::Zeroizing;

use super::{SignInError, fetch::Fetch};
use crate::{
    config::{
        Origin,
        sign_in::{Mail, SmtpTls},
    },
    providers::ProviderError,
    secret,
    store::{StoreError, make_private_dir},
};

/// How long a mail server may take for each of its answers.
const LIMIT: Duration = Duration::from_secs(10);
/// Letters that nobody took out of the folder are gone after an hour, long after their links are.
const KEPT: Duration = Duration::from_secs(3600);

pub(super) enum Post {
    Outbox(PathBuf),
    Smtp { transport: AsyncSmtpTransport<Tokio1Executor>, from: Mailbox },
    Http { fetch: Fetch, url: String, from: String, secret: Zeroizing<String> },
}

/// A letter. Never printed.
pub(super) struct Letter {
    to: String,
    subject: String,
    text: String,
}

/// Why a letter did not leave. Nothing of the letter.
#[derive(Debug, thiserror::Error)]
pub(super) enum PostError {
    /// The mail server.
    #[error("the mail server did not take it ({0}); check [mail] and its secret")]
    Server(&'static str),
    /// The service.
    #[error("the mail service answered {0}; check [mail] and its secret")]
    Service(u16),
    /// The folder.
    #[error("it cannot be written to the outbox folder ({0}); check the folder and its permissions")]
    Outbox(std::io::ErrorKind),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Letter {
    /// With a link to sign in with.
    pub(super) fn with_link(to: &str, origin: &Origin, link: &str) -> Self {
        Self {
            to: to.to_owned(),
            subject: format!("Sign in to {}", origin.host()),
            text: format!(
                "Open this link to sign in to {origin}:\n\n{link}\n\nIt works once, for 15 minutes, in the browser that asked for it. \
                 In another browser it asks for the code that the first one shows.\n\nIf you did not ask for it, delete this mail; \
                 nobody can sign in without it.\n"
            ),
        }
    }
}

impl Post {
    pub(super) async fn open(mail: &Mail) -> Result<Self, SignInError> {
        let failed = || SignInError::Way { whose: "mail".to_owned() };
        let fetched = async |source| {
            let secret = secret::fetch_text(source).await;
            secret.map_err(|cause| SignInError::Secret { whose: "mail".to_owned(), cause })
        };
        Ok(match mail {
            Mail::Outbox(folder) => Self::Outbox(folder.clone()),
            Mail::Smtp { from, host, port, tls, login, ca_file } => {
                let mut parameters = TlsParameters::builder(host.clone());
                if let Some(file) = ca_file {
                    let pem = std::fs::read(file).map_err(|_| ProviderError::CaFile(file.clone()))?;
                    let certificate = Certificate::from_pem(&pem).map_err(|_| ProviderError::CaFile(file.clone()))?;
                    parameters = parameters.add_root_certificate(certificate);
                }
                let parameters = parameters.build().map_err(|_| failed())?;
                let tls = match tls {
                    SmtpTls::Implicit => Tls::Wrapper(parameters),
                    SmtpTls::Starttls => Tls::Required(parameters),
                };
                let mut transport =
                    AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(host).port(*port).tls(tls).timeout(Some(LIMIT));
                if let Some((username, source)) = login {
                    let secret = fetched(source).await?;
                    transport = transport.credentials(Credentials::new(username.clone(), secret.to_string()));
                }
                Self::Smtp { transport: transport.build(), from: from.parse().map_err(|_| failed())? }
            }
            Mail::Http { from, url, secret, ca_file } => Self::Http {
                fetch: Fetch::new(ca_file.as_ref())?,
                url: url.clone(),
                from: from.clone(),
                secret: fetched(secret).await?,
            },
        })
    }

    /// Sends a letter. A mail server may be slow; nobody waits for this.
    pub(super) async fn send(&self, letter: Letter) -> Result<(), PostError> {
        let Letter { to, subject, text } = letter;
        match self {
            Self::Outbox(folder) => {
                let (folder, letter) = (folder.clone(), format!("To: {to}\nSubject: {subject}\n\n{text}"));
                let written = tokio::task::spawn_blocking(move || write(&folder, &letter)).await;
                let name = written.map_err(|_| std::io::ErrorKind::Other).and_then(|written| written.map_err(|error| error.kind()));
                let name = name.map_err(PostError::Outbox)?;
                tracing::info!(file = name, "a letter lies in the outbox folder; configure [mail] to have letters sent");
                Ok(())
            }
            Self::Smtp { transport, from } => {
                let to = to.parse().map_err(|_| PostError::Server("no address"))?;
                let letter = Message::builder().from(from.clone()).to(to).subject(subject).body(text);
                let letter = letter.map_err(|_| PostError::Server("no letter"))?;
                transport.send(letter).await.map(drop).map_err(|error| {
                    // Its text may repeat the address.
                    PostError::Server(match () {
                        () if error.is_permanent() => "refused for good",
                        () if error.is_transient() => "refused for now",
                        () if error.is_timeout() => "no answer in time",
                        () => "no connection",
                    })
                })
            }
            Self::Http { fetch, url, from, secret } => {
                let body = serde_json::json!({ "from": from, "to": to, "subject": subject, "text": text });
                let request = http::Request::post(url)
                    .header(header::CONTENT_TYPE, "application/json")
                    .header(header::AUTHORIZATION, format!("Bearer {}", secret.as_str()))
                    .body(body.to_string().into_bytes());
                let answer = fetch.ask(request.map_err(|_| PostError::Service(0))?).await.map_err(|_| PostError::Service(0))?;
                if answer.status().is_success() { Ok(()) } else { Err(PostError::Service(answer.status().as_u16())) }
            }
        }
    }

    /// Takes old letters out of the folder.
    pub(super) async fn tidy(&self) {
        let Self::Outbox(folder) = self else { return };
        let folder = folder.clone();
        let tidied = tokio::task::spawn_blocking(move || {
            let now = SystemTime::now();
            // There is none before the first letter.
            for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                let since = file.metadata().and_then(|of| of.modified()).ok().and_then(|at| now.duration_since(at).ok());
                if since.is_some_and(|since| since > KEPT) && file.path().extension().is_some_and(|kind| kind == "txt") {
                    // The next turn tries again.
                    let _ = std::fs::remove_file(file.path());
                }
            }
        });
        // A turn that panicked was reported by the hook.
        let _ = tidied.await;
    }
}

/// Writes a letter that only its owner can read, and gives the file's name.
fn write(folder: &std::path::Path, letter: &str) -> std::io::Result<String> {
    make_private_dir(folder)?;
    let name = format!("{}.txt", wire::RequestId::at(SystemTime::now()));
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(folder.join(&name))?.write_all(letter.as_bytes())?;
    Ok(name)
}
