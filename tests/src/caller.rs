//! An HTTP client with a key: one TLS connection a request, so that hanging up is dropping the answer; or a [`Line`] for many.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use lab_server::account::session::NewSession;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::world::PATIENCE;

/// Knows where the Lab is, whom to trust and with which key to come.
#[derive(Clone)]
pub struct Caller {
    lab: SocketAddr,
    tls: Arc<ClientConfig>,
    key: Option<String>,
    cookie: Option<String>,
    from: Option<IpAddr>,
}

/// An answer that is still coming. Dropping it hangs up.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    body: Incoming,
    connection: JoinHandle<()>,
}

/// How an answer's body ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyEnd {
    /// As HTTP says a body ends.
    Clean,
    /// The connection broke.
    Broken,
}

impl Caller {
    /// A client of the Lab at `lab`, trusting `ca_pem`.
    ///
    /// # Panics
    /// When the CA is no certificate.
    #[must_use]
    pub fn new(lab: SocketAddr, ca_pem: &str, key: Option<String>) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(ca_pem.as_bytes()) {
            roots.add(certificate.expect("a certificate")).expect("a CA");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { lab, tls: Arc::new(tls), key, cookie: None, from: None }
    }

    /// The same with another key, or none.
    #[must_use]
    pub fn with_key(&self, key: Option<String>) -> Self {
        Self { key, ..self.clone() }
    }

    /// A page of the Lab's in a browser: this session's cookie, and no key.
    #[must_use]
    pub fn with_session(&self, new: &NewSession) -> Self {
        let line = new.cookie();
        let cookie = line.to_str().ok().and_then(|line| line.split(';').next()).map(str::to_owned);
        Self { key: None, cookie, ..self.clone() }
    }

    /// The same at another address of this machine's, as whoever asks more than the Lab lets one address ask.
    #[must_use]
    pub fn at(&self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self.clone() }
    }

    /// The key.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// `POST` with a JSON body; ready when the head of the answer is there.
    ///
    /// # Panics
    /// When there is no HTTP answer.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.post_bytes(path, Bytes::from(body.to_string())).await
    }

    /// `POST` with these bytes.
    ///
    /// # Panics
    /// When there is no HTTP answer.
    pub async fn post_bytes(&self, path: &str, body: Bytes) -> Answer {
        self.send(Method::POST, path, body).await.expect("an HTTP answer")
    }

    /// `GET`.
    ///
    /// # Panics
    /// When there is no HTTP answer.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(Method::GET, path, Bytes::new()).await.expect("an HTTP answer")
    }

    /// The names on `/v1/models`.
    ///
    /// # Panics
    /// When there is no such list.
    pub async fn models(&self) -> Vec<String> {
        let list = self.get("/v1/models").await.json().await;
        let models = list["data"].as_array().cloned().unwrap_or_default();
        models.iter().map(|model| model["id"].as_str().expect("a name").to_owned()).collect()
    }

    /// Any request.
    ///
    /// # Errors
    /// When the connection breaks before there is an answer.
    ///
    /// # Panics
    /// When the Lab cannot be connected to.
    pub async fn send(&self, method: Method, path: &str, body: Bytes) -> hyper::Result<Answer> {
        self.send_with(method, path, &[], body).await
    }

    /// Any request, to a Lab that may be gone.
    ///
    /// # Errors
    /// When it is, or goes before there is an answer.
    ///
    /// # Panics
    /// When a header is none.
    pub async fn try_send(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> io::Result<Answer> {
        let tls = self.try_connect().await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        let connection = AbortOnDrop(Some(tokio::spawn(async move { drop(connection.await) })));
        let answer = sender.send_request(self.request(method, path, headers, body)).await.map_err(io::Error::other)?;
        let (head, body) = answer.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body, connection: connection.release() })
    }

    /// `GET` with these headers.
    ///
    /// # Panics
    /// When there is no HTTP answer.
    pub async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send_with(Method::GET, path, headers, Bytes::new()).await.expect("an HTTP answer")
    }

    /// A TLS connection to the Lab.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        self.try_connect().await.expect("the Lab listens")
    }

    /// The same, of a Lab that may be gone.
    ///
    /// # Errors
    /// When there is none to be had.
    ///
    /// # Panics
    /// Never: `localhost` is a name.
    pub async fn try_connect(&self) -> io::Result<TlsStream<TcpStream>> {
        let tcp = match self.from {
            None => TcpStream::connect(self.lab).await?,
            Some(address) => {
                let socket = TcpSocket::new_v4()?;
                socket.bind(SocketAddr::new(address, 0))?;
                socket.connect(self.lab).await?
            }
        };
        tcp.set_nodelay(true)?;
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await
    }

    /// Any request with these headers beside the key's, or instead of it where they say so.
    ///
    /// # Errors
    /// When the connection breaks before there is an answer.
    ///
    /// # Panics
    /// When the Lab cannot be connected to, or a header is none.
    pub async fn send_with(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> hyper::Result<Answer> {
        let Line { mut sender, connection, caller } = self.line().await;
        let (head, body) = sender.send_request(caller.request(method, path, headers, body)).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body, connection: connection.release() })
    }

    /// A connection for several requests, one after the other.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn line(&self) -> Line {
        let tls = self.connect().await;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await.expect("a connection");
        let connection = AbortOnDrop(Some(tokio::spawn(async move { drop(connection.await) })));
        Line { sender, connection, caller: self.clone() }
    }

    /// Writes these bytes to a connection of their own and gives everything that comes back until the Lab closes it.
    ///
    /// # Panics
    /// When it stays open.
    pub async fn raw(&self, bytes: &[u8]) -> String {
        let mut stream = self.connect().await;
        // The Lab may have said all it has to say before it read everything.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the Lab closes the connection");
        String::from_utf8_lossy(&answer).into_owned()
    }

    fn request(&self, method: Method, path: &str, headers: &[(&str, &str)], body: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            let bearer = HeaderValue::try_from(format!("Bearer {key}")).expect("a header");
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        if let Some(cookie) = &self.cookie {
            request.headers_mut().insert(header::COOKIE, HeaderValue::try_from(cookie).expect("a header"));
            request.headers_mut().insert("sec-fetch-site", HeaderValue::from_static("same-origin"));
        }
        for (name, value) in headers {
            let name = HeaderName::try_from(*name).expect("a header's name");
            request.headers_mut().insert(name, HeaderValue::from_str(value).expect("a header"));
        }
        request
    }
}

/// A connection that stays.
pub struct Line {
    sender: SendRequest<Full<Bytes>>,
    connection: AbortOnDrop,
    caller: Caller,
}

/// An answer that was read to its end.
#[derive(Debug, Clone)]
pub struct Whole {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Line {
    /// One request, and its whole answer. A connection that the Lab has closed is opened again, as any client does it.
    ///
    /// # Panics
    /// When there is no whole answer.
    pub async fn ask(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Whole {
        if self.sender.ready().await.is_err() {
            *self = self.caller.line().await;
        }
        let request = self.caller.request(method, path, headers, body.into());
        let (head, body) = self.sender.send_request(request).await.expect("an HTTP answer").into_parts();
        let body = body.collect().await.expect("the whole body").to_bytes();
        Whole { status: head.status, headers: head.headers, body }
    }
}

impl Whole {
    /// A header as text; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[must_use]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Ends the connection of a request that was given up before its answer.
struct AbortOnDrop(Option<JoinHandle<()>>);

impl AbortOnDrop {
    fn release(mut self) -> JoinHandle<()> {
        self.0.take().expect("held until here")
    }
}

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        if let Some(connection) = &self.0 {
            connection.abort();
        }
    }
}

impl Answer {
    /// The next bytes; `None` at the end.
    ///
    /// # Errors
    /// When the connection breaks.
    pub async fn chunk(&mut self) -> hyper::Result<Option<Bytes>> {
        while let Some(frame) = self.body.frame().await {
            if let Ok(data) = frame?.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }

    /// Everything, and how it ended.
    pub async fn read(mut self) -> (Vec<u8>, BodyEnd) {
        let mut whole = Vec::new();
        loop {
            match self.chunk().await {
                Ok(Some(chunk)) => whole.extend_from_slice(&chunk),
                Ok(None) => return (whole, BodyEnd::Clean),
                Err(_) => return (whole, BodyEnd::Broken),
            }
        }
    }

    /// The whole body as text.
    ///
    /// # Panics
    /// When it breaks off or is no text.
    pub async fn text(self) -> String {
        let (body, end) = self.read().await;
        assert_eq!(end, BodyEnd::Clean, "the body broke off");
        String::from_utf8(body).expect("text")
    }

    /// A header as text; empty where there is none.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The whole body as JSON.
    ///
    /// # Panics
    /// When it breaks off or is no JSON.
    pub async fn json(self) -> Value {
        serde_json::from_str(&self.text().await).expect("JSON")
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.connection.abort();
    }
}
