//! From nothing to a link, one named step after the other: DNS, TCP (or a proxy's CONNECT), TLS 1.3, WebSocket, hello.
//!
//! Each step has its own limit and all of them together [`CONNECT_LIMIT`], because a half-open path accepts a connection and then
//! says nothing for ever. Each failure is a [`DialError`] that names cause and next step.

mod proxy;

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt};
use http::{HeaderValue, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{client::proxy::matcher::Matcher, rt::TokioIo};
use rustls::{
    ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use rustls_platform_verifier::Verifier;
use serde::{Serialize, de::DeserializeOwned};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{Error as WsError, Message},
};
use wire::{
    DeviceId,
    hello::{Challenge, DEADLINE, LINK_PATH, MAX_MESSAGE, Proof, RefusalCode, SUBPROTOCOL, Verdict},
    pairing::{TOKEN_PATH, TokenError, TokenRequest},
    stream::{LinkStream, websocket_config},
};

use crate::{config::Origin, status::now_ms};

/// All steps together. Shorter than a minute by far: whoever waits for the link waits for this first.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);
const DNS_LIMIT: Duration = Duration::from_secs(5);
const STEP_LIMIT: Duration = Duration::from_secs(10);
/// One address of several. A SYN that was lost is sent again after one second and after three.
const ADDRESS_LIMIT: Duration = Duration::from_secs(4);
/// The answers of the pairing endpoints are a few hundred bytes.
const MAX_ANSWER: usize = 64 << 10;

/// Knows how to reach a Lab: trust and proxies.
#[derive(Clone)]
pub struct Dialer {
    tls: Arc<ClientConfig>,
    proxies: Arc<Matcher>,
}

/// A link whose hello is done.
pub(crate) struct Link {
    pub(crate) stream: LinkStream<TlsStream<TcpStream>>,
    /// The Lab's clock minus ours, in seconds.
    pub(crate) clock_skew_s: i64,
    /// The Lab's address, or the proxy's: where the packets go.
    pub(crate) peer: Option<SocketAddr>,
}

/// A Lab's answer to a `POST`.
struct Reply {
    status: StatusCode,
    date: Option<String>,
    body: Bytes,
}

/// Why there is no link. The text is one sentence with the cause and the next step.
#[derive(Debug, thiserror::Error)]
pub enum DialError {
    /// The extra CA file is not there or not PEM.
    #[error("the CA file {path} cannot be read as PEM certificates; check ca_file in the configuration")]
    CaFile {
        /// Which file.
        path: String,
    },
    /// The operating system's trust store is empty or unreadable.
    #[error("the system's certificate store cannot be read; install the package ca-certificates or set ca_file")]
    NoTrust,
    /// No address for the name.
    #[error("the name {host} cannot be resolved; check the Lab's address and this machine's network")]
    Dns {
        /// Which name.
        host: String,
    },
    /// No TCP connection.
    #[error("no connection to {host}:{port} ({kind}); check that the Lab runs and that no firewall is in the way")]
    Tcp {
        /// To where.
        host: String,
        /// To which port.
        port: u16,
        /// What the operating system said.
        kind: io::ErrorKind,
    },
    /// The proxy wants credentials, or other ones.
    #[error(
        "the proxy {proxy} asks for a user name and password (407); put them into HTTPS_PROXY as http://user:password@host:port"
    )]
    ProxyAuth {
        /// The proxy's host and port.
        proxy: String,
    },
    /// The proxy does not want to.
    #[error("the proxy {proxy} refused to connect to the Lab (status {status}); ask its administrator, or add the Lab to NO_PROXY")]
    ProxyRefused {
        /// The proxy's host and port.
        proxy: String,
        /// What it answered.
        status: u16,
    },
    /// The proxy cannot be reached or does not speak HTTP.
    #[error("the proxy {proxy} cannot be used ({kind}); check HTTPS_PROXY")]
    Proxy {
        /// The proxy's host and port.
        proxy: String,
        /// What went wrong.
        kind: io::ErrorKind,
    },
    /// The certificate is not one that this machine trusts.
    #[error("the Lab's certificate is not trusted ({reason}); if it is your own Lab, give its CA with --ca-file")]
    TlsUntrusted {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// TLS failed otherwise.
    #[error(
        "no TLS 1.3 connection to {host}; something on the way may be answering in the Lab's place (a Wi-Fi sign-in page, a filter)"
    )]
    Tls {
        /// To where.
        host: String,
    },
    /// Something answered that is no Lab: typically a sign-in page.
    #[error(
        "something other than a 1K4 Lab answered at {host} (status {status}); if this network has a sign-in page, sign in first"
    )]
    NotALab {
        /// Where.
        host: String,
        /// What it answered.
        status: u16,
    },
    /// The Lab is there and busy or restarting.
    #[error("the Lab is not available just now (status {status}); it will be tried again")]
    Unavailable {
        /// What it answered.
        status: u16,
    },
    /// A step took too long.
    #[error("the Lab did not answer in time ({step}); check the network, it will be tried again")]
    TimedOut {
        /// Which step.
        step: &'static str,
    },
    /// The Lab calls itself something else than what was dialled.
    #[error("this Lab calls itself {says}; log in with that address")]
    OtherName {
        /// The origin that it names.
        says: String,
    },
    /// The connection broke in the middle of the hello.
    #[error("the connection to the Lab broke while it began; it will be tried again")]
    Broken,
    /// The Lab said no.
    #[error("{}", refusal_sentence(*.code))]
    Refused {
        /// Why.
        code: RefusalCode,
        /// When the Lab would like to be asked again.
        retry_after: Option<Duration>,
    },
}

impl DialError {
    /// A stable name for programs.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::CaFile { .. } => "ca_file",
            Self::NoTrust => "no_trust_store",
            Self::Dns { .. } => "dns",
            Self::Tcp { .. } => "unreachable",
            Self::ProxyAuth { .. } => "proxy_auth",
            Self::ProxyRefused { .. } => "proxy_refused",
            Self::Proxy { .. } => "proxy",
            Self::TlsUntrusted { .. } => "tls_untrusted",
            Self::Tls { .. } => "tls",
            Self::NotALab { .. } => "not_a_lab",
            Self::Unavailable { .. } => "lab_unavailable",
            Self::TimedOut { .. } => "timed_out",
            Self::OtherName { .. } => "other_name",
            Self::Broken => "broken",
            Self::Refused { code: RefusalCode::Revoked, .. } => "revoked",
            Self::Refused { code: RefusalCode::BadProof, .. } => "bad_proof",
            Self::Refused { code: RefusalCode::UpgradeRequired, .. } => "upgrade_required",
            Self::Refused { code: RefusalCode::Unavailable, .. } => "lab_unavailable",
        }
    }

    /// Whether trying again soon is pointless: the owner has to do something first.
    #[must_use]
    pub const fn is_permanent(&self) -> bool {
        matches!(
            self,
            Self::Refused { code: RefusalCode::Revoked | RefusalCode::BadProof | RefusalCode::UpgradeRequired, .. }
                | Self::OtherName { .. }
        )
    }
}

const fn refusal_sentence(code: RefusalCode) -> &'static str {
    match code {
        RefusalCode::Revoked => "the Lab has revoked this workstation; pair it again with `1k4-bridge login`",
        RefusalCode::BadProof => "the Lab does not accept this workstation's key; pair it again with `1k4-bridge login`",
        RefusalCode::UpgradeRequired => "the Lab no longer speaks with this version of the bridge; update 1k4-bridge",
        RefusalCode::Unavailable => "the Lab takes no links just now; it will be tried again",
    }
}

impl Dialer {
    /// Trusts what the operating system trusts and the certificates in `ca_file`; uses the proxies of environment and system.
    ///
    /// # Errors
    /// When `ca_file` or the system's store cannot be read.
    pub fn new(ca_file: Option<&Path>) -> Result<Self, DialError> {
        Self::with_proxies(ca_file, Matcher::from_system())
    }

    /// As [`Dialer::new`], with these proxies.
    ///
    /// # Errors
    /// When `ca_file` or the system's store cannot be read.
    pub fn with_proxies(ca_file: Option<&Path>, proxies: Matcher) -> Result<Self, DialError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let extra = ca_file.map(read_certificates).transpose()?.unwrap_or_default();
        let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&provider)).map_err(|_| DialError::NoTrust)?;
        let mut tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|_| DialError::NoTrust)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        // A WebSocket begins as HTTP/1.1, and so do the few pairing calls.
        tls.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self { tls: Arc::new(tls), proxies: Arc::new(proxies) })
    }

    /// Opens a link for `device`.
    pub(crate) async fn link(&self, lab: &Origin, device: DeviceId, key: &SigningKey) -> Result<Link, DialError> {
        limited(CONNECT_LIMIT, "connecting", async {
            let stream = self.connect(lab).await?;
            let peer = stream.get_ref().0.peer_addr().ok();
            let mut socket = limited(STEP_LIMIT, "WebSocket", upgrade(lab, stream)).await?;
            let clock_skew_s = limited(DEADLINE, "hello", hello(&mut socket, lab, device, key)).await?;
            Ok(Link { stream: LinkStream::new(socket), clock_skew_s, peer })
        })
        .await
    }

    /// One `POST` with a JSON body to the Lab: the status and the answer's JSON.
    ///
    /// # Errors
    /// When the Lab cannot be reached, or what answers is no Lab.
    pub async fn post_json<A: DeserializeOwned, E: DeserializeOwned>(
        &self,
        lab: &Origin,
        path: &'static str,
        body: &impl Serialize,
    ) -> Result<Result<A, E>, DialError> {
        let Reply { status, body, .. } = self.post(lab, path, body).await?;
        let not_a_lab = || DialError::NotALab { host: lab.host().to_owned(), status: status.as_u16() };
        match status {
            StatusCode::OK => serde_json::from_slice(&body).map(Ok).map_err(|_| not_a_lab()),
            StatusCode::TOO_MANY_REQUESTS | StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE => {
                Err(DialError::Unavailable { status: status.as_u16() })
            }
            _ => serde_json::from_slice(&body).map(Err).map_err(|_| not_a_lab()),
        }
    }

    /// Goes the whole way to the Lab without wanting anything of it, and returns its `Date`: what `doctor` needs to know. The
    /// question is one that only a Lab answers: whether a code that nobody was given has been approved.
    ///
    /// # Errors
    /// When the Lab cannot be reached, or what answers is no Lab.
    pub async fn look(&self, lab: &Origin) -> Result<Option<String>, DialError> {
        let nobodys = TokenRequest { device_code: String::new(), signature: String::new() };
        let Reply { status, date, body } = self.post(lab, TOKEN_PATH, &nobodys).await?;
        match serde_json::from_slice::<TokenError>(&body) {
            Ok(_) => Ok(date),
            Err(_) => Err(DialError::NotALab { host: lab.host().to_owned(), status: status.as_u16() }),
        }
    }

    async fn post(&self, lab: &Origin, path: &'static str, body: &impl Serialize) -> Result<Reply, DialError> {
        limited(CONNECT_LIMIT, "connecting", async {
            let stream = self.connect(lab).await?;
            let (mut sender, connection) =
                hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|_| DialError::Broken)?;
            // Ends with the exchange below, whose failure is what counts.
            tokio::spawn(connection);
            // Our own request types always serialise.
            let body = serde_json::to_vec(body).unwrap_or_default();
            let request = Request::post(path)
                .header(header::HOST, authority(lab))
                .header(header::CONTENT_TYPE, "application/json")
                .body(Full::new(Bytes::from(body)))
                .map_err(|_| DialError::Broken)?;
            let response = sender.send_request(request).await.map_err(|_| DialError::Broken)?;
            let status = response.status();
            let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok()).map(str::to_owned);
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(|_| DialError::Broken)?.to_bytes();
            Ok(Reply { status, date, body })
        })
        .await
    }

    /// A TLS connection to the Lab.
    async fn connect(&self, lab: &Origin) -> Result<TlsStream<TcpStream>, DialError> {
        let through = lab.as_str().parse::<Uri>().ok().and_then(|uri| self.proxies.intercept(&uri));
        let tcp = match through {
            Some(through) => proxy::connect(&through, lab).await?,
            None => tcp(lab.host(), lab.port()).await?,
        };
        limited(STEP_LIMIT, "TLS", self.tls(lab, tcp)).await
    }

    async fn tls(&self, lab: &Origin, tcp: TcpStream) -> Result<TlsStream<TcpStream>, DialError> {
        let tls = || DialError::Tls { host: lab.host().to_owned() };
        let name = ServerName::try_from(lab.host().to_owned()).map_err(|_| tls())?;
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.map_err(|error| match tls_error(&error) {
            Some(rustls::Error::InvalidCertificate(why)) => DialError::TlsUntrusted { reason: certificate_reason(why) },
            _ => tls(),
        })
    }
}

/// A TCP connection without Nagle's delay: a token is smaller than a segment.
async fn tcp(host: &str, port: u16) -> Result<TcpStream, DialError> {
    let addresses: Vec<SocketAddr> = limited(DNS_LIMIT, "DNS", async {
        let found = tokio::net::lookup_host((host, port)).await.map_err(|_| DialError::Dns { host: host.to_owned() })?;
        Ok(found.collect())
    })
    .await?;
    let failed = |kind| DialError::Tcp { host: host.to_owned(), port, kind };
    let mut last = DialError::TimedOut { step: "TCP" };
    // One after the other, each with a limit of its own: an address that swallows everything must not hide the next one.
    for address in addresses {
        let connected = limited(ADDRESS_LIMIT, "TCP", async {
            let stream = TcpStream::connect(address).await.map_err(|error| failed(error.kind()))?;
            stream.set_nodelay(true).map_err(|error| failed(error.kind()))?;
            Ok(stream)
        });
        match connected.await {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// HTTP/1.1 to WebSocket.
async fn upgrade(lab: &Origin, stream: TlsStream<TcpStream>) -> Result<WebSocketStream<TlsStream<TcpStream>>, DialError> {
    let request = Request::get(format!("wss://{}{LINK_PATH}", authority(lab)))
        .header(header::HOST, authority(lab))
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, tokio_tungstenite::tungstenite::handshake::client::generate_key())
        .header(header::SEC_WEBSOCKET_PROTOCOL, SUBPROTOCOL)
        .body(())
        .map_err(|_| DialError::Broken)?;
    let not_a_lab = |status: u16| DialError::NotALab { host: lab.host().to_owned(), status };
    match client_async_with_config(request, stream, Some(websocket_config())).await {
        Ok((socket, response)) => {
            let spoken = response.headers().get(header::SEC_WEBSOCKET_PROTOCOL).map(HeaderValue::as_bytes);
            if spoken == Some(SUBPROTOCOL.as_bytes()) { Ok(socket) } else { Err(not_a_lab(101)) }
        }
        Err(WsError::Http(response)) => Err(match response.status().as_u16() {
            426 => DialError::Refused { code: RefusalCode::UpgradeRequired, retry_after: None },
            status @ (429 | 502 | 503 | 504) => DialError::Unavailable { status },
            status => not_a_lab(status),
        }),
        Err(WsError::Io(_) | WsError::ConnectionClosed | WsError::AlreadyClosed) => Err(DialError::Broken),
        Err(_) => Err(not_a_lab(200)),
    }
}

/// Proves who dials. Returns the Lab's clock minus ours, in seconds.
async fn hello(
    socket: &mut WebSocketStream<TlsStream<TcpStream>>,
    lab: &Origin,
    device: DeviceId,
    key: &SigningKey,
) -> Result<i64, DialError> {
    let challenge: Challenge = receive(socket, lab).await?;
    if challenge.lab != lab.as_str() {
        return Err(DialError::OtherName { says: shown(&challenge.lab) });
    }
    let proof = Proof::sign(key, device, lab.as_str(), &challenge, env!("CARGO_PKG_VERSION"));
    // A proof is made of strings and numbers: it always serialises.
    let proof = serde_json::to_string(&proof).unwrap_or_default();
    socket.send(Message::text(proof)).await.map_err(|_| DialError::Broken)?;
    match receive(socket, lab).await? {
        Verdict::Welcome { time, .. } => {
            let here = i64::try_from(now_ms() / 1000).unwrap_or(i64::MAX);
            Ok(i64::try_from(time).unwrap_or(i64::MAX).saturating_sub(here))
        }
        Verdict::Refused { code, retry_after_s } => {
            Err(DialError::Refused { code, retry_after: retry_after_s.map(Duration::from_secs) })
        }
    }
}

async fn receive<M: DeserializeOwned>(socket: &mut WebSocketStream<TlsStream<TcpStream>>, lab: &Origin) -> Result<M, DialError> {
    loop {
        match socket.next().await {
            Some(Ok(Message::Text(text))) if text.len() <= MAX_MESSAGE => {
                return serde_json::from_str(&text).map_err(|_| DialError::NotALab { host: lab.host().to_owned(), status: 101 });
            }
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(_)) => return Err(DialError::NotALab { host: lab.host().to_owned(), status: 101 }),
            Some(Err(_)) | None => return Err(DialError::Broken),
        }
    }
}

async fn limited<T>(limit: Duration, step: &'static str, work: impl Future<Output = Result<T, DialError>>) -> Result<T, DialError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(DialError::TimedOut { step }))
}

/// Host and port as they stand in a `Host` header.
fn authority(lab: &Origin) -> &str {
    lab.as_str().trim_start_matches("https://")
}

/// The other side's text, cut to what a sentence can hold and free of control characters.
fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(120).collect()
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, DialError> {
    let failed = || DialError::CaFile { path: path.display().to_string() };
    let certificates: Vec<_> =
        CertificateDer::pem_file_iter(path).map_err(|_| failed())?.collect::<Result<_, _>>().map_err(|_| failed())?;
    if certificates.is_empty() { Err(failed()) } else { Ok(certificates) }
}

fn tls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

fn certificate_reason(why: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as E;
    match why {
        E::Expired | E::ExpiredContext { .. } => "it has expired, or this machine's clock is wrong",
        E::NotValidYet | E::NotValidYetContext { .. } => "it is not valid yet, or this machine's clock is wrong",
        E::NotValidForName | E::NotValidForNameContext { .. } => "it is for another name",
        E::Revoked => "it was revoked",
        E::UnknownIssuer => "its issuer is unknown",
        _ => "it does not pass the checks",
    }
}
