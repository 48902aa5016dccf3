//! An HTTP client with a key: one TLS connection a request, so that hanging up is dropping the answer.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use serde_json::Value;
use tokio::{net::TcpStream, task::JoinHandle};
use tokio_rustls::{TlsConnector, client::TlsStream};

/// Knows where the Lab is, whom to trust and with which key to come.
#[derive(Clone)]
pub struct Caller {
    lab: SocketAddr,
    tls: Arc<ClientConfig>,
    key: Option<String>,
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
        Self { lab, tls: Arc::new(tls), key }
    }

    /// The same with another key, or none.
    #[must_use]
    pub fn with_key(&self, key: Option<String>) -> Self {
        Self { key, ..self.clone() }
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

    /// `GET` with these headers.
    ///
    /// # Panics
    /// When there is no HTTP answer.
    pub async fn get_with(&self, path: &str, headers: &[(&'static str, &'static str)]) -> Answer {
        self.send_with(Method::GET, path, headers, Bytes::new()).await.expect("an HTTP answer")
    }

    /// A TLS connection to the Lab.
    ///
    /// # Panics
    /// When there is none to be had.
    pub async fn connect(&self) -> TlsStream<TcpStream> {
        let tcp = TcpStream::connect(self.lab).await.expect("the Lab listens");
        tcp.set_nodelay(true).expect("a socket option");
        let name = ServerName::try_from("localhost").expect("a name");
        TlsConnector::from(Arc::clone(&self.tls)).connect(name, tcp).await.expect("TLS")
    }

    async fn send_with(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, &'static str)],
        body: Bytes,
    ) -> hyper::Result<Answer> {
        let tls = self.connect().await;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tls)).await?;
        let connection = tokio::spawn(async move { drop(connection.await) });
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = method;
        *request.uri_mut() = path.parse().expect("a path");
        request.headers_mut().insert(header::HOST, HeaderValue::from_static("localhost"));
        request.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = &self.key {
            let bearer = HeaderValue::try_from(format!("Bearer {key}")).expect("a header");
            request.headers_mut().insert(header::AUTHORIZATION, bearer);
        }
        for (name, value) in headers {
            request.headers_mut().insert(*name, HeaderValue::from_static(value));
        }
        let connection = AbortOnDrop(Some(connection));
        let (head, body) = sender.send_request(request).await?.into_parts();
        Ok(Answer { status: head.status, headers: head.headers, body, connection: connection.release() })
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
