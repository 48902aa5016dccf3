//! A Lab in a folder of its own, a client that trusts its CA, and people's browsers.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lab_server::{
    Config, Lab,
    account::{create_key, session},
    store::{KeyTerms, MAIL, Scope, Subject, User},
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::{TlsConnector, client::TlsStream};
use wire::{ProjectId, UserId};

pub(crate) struct TestLab {
    pub(crate) lab: Lab,
    pub(crate) dir: PathBuf,
}

/// A person's browser: it keeps cookies and says where its requests come from.
pub(crate) struct Browser {
    /// Who is signed in with it.
    pub(crate) user: UserId,
    /// Their project "Personal".
    pub(crate) project: ProjectId,
    door: Door,
    cookies: Mutex<BTreeMap<String, String>>,
}

/// Where the Lab is, and whom to trust.
#[derive(Clone)]
struct Door {
    addr: SocketAddr,
    ca_pem: String,
    /// Which of this machine's loopback addresses to come from.
    from: Ipv4Addr,
}

pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

impl Door {
    async fn tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![alpn.to_vec()];
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((self.from, 0).into()).unwrap();
        let tcp = socket.connect(self.addr).await.unwrap();
        TlsConnector::from(Arc::new(config)).connect(ServerName::try_from("localhost").unwrap(), tcp).await.unwrap()
    }

    /// One request on a connection of its own.
    async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        let stream = TokioIo::new(self.tls(b"http/1.1").await);
        let (mut sender, connection) = hyper::client::conn::http1::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
        Answer { status: parts.status, headers: parts.headers, body: body.collect().await.unwrap().to_bytes() }
    }
}

impl Browser {
    /// A request as a page of the Lab's sends it.
    pub(crate) async fn ask(&self, method: &str, path: &str, body: Option<serde_json::Value>) -> Answer {
        let bytes = body.map(|body| serde_json::to_vec(&body).unwrap()).unwrap_or_default();
        let request = request(method, path).header("sec-fetch-site", "same-origin").header("content-type", "application/json");
        self.send(request, bytes.into()).await
    }

    /// Any request, with the browser's cookies; what the answer sets is kept.
    pub(crate) async fn send(&self, request: http::request::Builder, body: Bytes) -> Answer {
        let cookies = self.cookies();
        let request = if cookies.is_empty() { request } else { request.header("cookie", cookies) };
        let answer = self.door.send(request.body(body.into()).unwrap()).await;
        answer.headers.get_all("set-cookie").iter().for_each(|line| self.keep(line.to_str().unwrap()));
        answer
    }

    /// What it sends as `cookie`.
    pub(crate) fn cookies(&self) -> String {
        let cookies = self.cookies.lock().unwrap();
        cookies.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// Takes a `set-cookie` as a browser does.
    pub(crate) fn keep(&self, line: &str) {
        let (name, value) = line.split(';').next().unwrap().split_once('=').unwrap();
        let mut cookies = self.cookies.lock().unwrap();
        if line.contains("Max-Age=0") {
            cookies.remove(name);
        } else {
            cookies.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl TestLab {
    pub(crate) async fn start() -> Self {
        Self::with(|_| {}).await
    }

    pub(crate) async fn with(change: impl FnOnce(&mut Config)) -> Self {
        let dir = std::env::temp_dir().join(format!("1k4-lab-{}", wire::RequestId::random()));
        let mut config = Config::in_dir(&dir);
        config.listen.set_port(0);
        change(&mut config);
        Self { lab: Lab::start(config).await.unwrap(), dir }
    }

    /// Somebody with an account and a project "Personal", signed in with a browser.
    pub(crate) async fn sign_in(&self, name: &str) -> Browser {
        let (store, now) = (&self.lab.store, self.lab.clock.now_ms());
        let user = store.add_user(name).await.unwrap().id;
        let project = store.add_project(user, "Personal").await.unwrap().id;
        let subject = Subject { provider: MAIL.into(), subject: format!("{name}@example.com"), email: None };
        store.add_identity(user, &subject, now).await.unwrap();
        self.another_browser(user, project).await
    }

    /// One more browser of somebody's.
    pub(crate) async fn another_browser(&self, user: UserId, project: ProjectId) -> Browser {
        let (store, now) = (&self.lab.store, self.lab.clock.now_ms());
        let identity = store.identities(user).await.unwrap()[0].id;
        let new = session::open(store, user, identity, &session::Browser::of(None), now).await.unwrap();
        let browser = Browser { user, project, door: self.door(), cookies: Mutex::default() };
        browser.keep(new.cookie().to_str().unwrap());
        browser
    }

    /// A browser that nobody is signed in with: its user and project are nobody's.
    pub(crate) fn stranger(&self) -> Browser {
        self.stranger_from(Ipv4Addr::LOCALHOST)
    }

    /// The same at another address of the loopback network.
    pub(crate) fn stranger_from(&self, from: Ipv4Addr) -> Browser {
        let door = Door { from, ..self.door() };
        Browser { user: UserId::random(), project: ProjectId::random(), door, cookies: Mutex::default() }
    }

    fn door(&self) -> Door {
        Door { addr: self.lab.addr, ca_pem: self.lab.ca_pem.clone().unwrap(), from: Ipv4Addr::LOCALHOST }
    }

    pub(crate) async fn tls(&self, alpn: &[u8]) -> TlsStream<TcpStream> {
        self.door().tls(alpn).await
    }

    /// One request on a connection of its own.
    pub(crate) async fn send(&self, request: Request<Full<Bytes>>) -> Answer {
        self.door().send(request).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(request("GET", path).body(Full::default()).unwrap()).await
    }

    pub(crate) async fn post_json(&self, path: &str, body: &impl serde::Serialize) -> Answer {
        let body = serde_json::to_vec(body).unwrap();
        self.send(request("POST", path).header("content-type", "application/json").body(body.into()).unwrap()).await
    }

    /// As a program with this key.
    pub(crate) async fn ask(&self, key: &str, method: &str, path: &str, body: Option<serde_json::Value>) -> Answer {
        let mut request = request(method, path).header("authorization", format!("Bearer {key}"));
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header("content-type", "application/json");
            bytes = serde_json::to_vec(&body).unwrap().into();
        }
        self.send(request.body(bytes.into()).unwrap()).await
    }

    /// A user with a project and a key of these scopes; the key's text.
    pub(crate) async fn user_with_scopes(&self, name: &str, scopes: &[Scope]) -> (User, ProjectId, String) {
        let user = self.lab.store.add_user(name).await.unwrap();
        let project = self.lab.store.add_project(user.id, "default").await.unwrap().id;
        let key = self.key(project, scopes).await;
        (user, project, key)
    }

    /// A key of these scopes.
    pub(crate) async fn key(&self, project: ProjectId, scopes: &[Scope]) -> String {
        let terms = KeyTerms { scopes: scopes.iter().copied().collect(), ..KeyTerms::default() };
        let (key, _) = create_key(&self.lab.store, project, "test", terms).await.unwrap();
        key.reveal().to_owned()
    }

    /// As a browser sends a form of the Lab's own page.
    pub(crate) async fn post_form(&self, path: &str, body: String) -> Answer {
        let request = request("POST", path)
            .header("content-type", "application/x-www-form-urlencoded")
            .header("sec-fetch-site", "same-origin");
        self.send(request.body(body.into()).unwrap()).await
    }
}

pub(crate) fn request(method: &str, path: &str) -> http::request::Builder {
    Request::builder().method(method).uri(path).header("host", "localhost")
}

impl Drop for TestLab {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
