//! Against a small server on a real socket: what goes over the wire is what is checked.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Instant,
};

use futures_util::{StreamExt, TryStreamExt};
use http::HeaderMap;
use http_body_util::{BodyExt, Full, StreamBody, combinators::BoxBody};
use hyper::{body::Frame, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpListener, sync::mpsc, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;
use wire::relay::OllamaState;

use super::*;
use crate::policy::guard::KnownModel;

type Reply = http::Response<BoxBody<Bytes, io::Error>>;

/// What the server was asked.
#[derive(Debug)]
struct Asked {
    line: String,
    headers: HeaderMap,
    body: Bytes,
}

struct Server {
    address: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    /// One message for each connection that ends.
    closed: mpsc::UnboundedReceiver<()>,
    task: AbortOnDropHandle<()>,
}

impl Server {
    async fn start(reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), reply).await
    }

    async fn start_at(address: SocketAddr, reply: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell_asked, asked) = mpsc::unbounded_channel();
        let (tell_closed, closed) = mpsc::unbounded_channel();
        let reply = Arc::new(reply);
        let task = tokio::spawn(async move {
            // Its connections end with it.
            let mut connections = JoinSet::new();
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                let (reply, tell_asked, tell_closed) = (reply.clone(), tell_asked.clone(), tell_closed.clone());
                connections.spawn(async move {
                    let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                        let (reply, tell_asked) = (reply.clone(), tell_asked.clone());
                        async move {
                            let (head, body) = request.into_parts();
                            let line = format!("{} {} {:?}", head.method, head.uri, head.version);
                            let answer = reply(&line);
                            let body = body.collect().await.unwrap().to_bytes();
                            let _ = tell_asked.send(Asked { line, headers: head.headers, body });
                            Ok::<_, Infallible>(answer)
                        }
                    });
                    // A client that hangs up is part of the tests.
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(socket), service).await;
                    let _ = tell_closed.send(());
                });
            }
        });
        Self { address, asked, closed, task: AbortOnDropHandle::new(task) }
    }

    fn ollama(&self) -> Ollama {
        Ollama::new(self.address.to_string().parse().unwrap())
    }

    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }
}

fn reply(status: u16, body: impl Into<Bytes>) -> Reply {
    let body = Full::new(body.into()).map_err(|never| match never {}).boxed();
    http::Response::builder().status(status).body(body).unwrap()
}

/// An answer whose pieces the test sends, each written for itself.
fn piecewise() -> (mpsc::UnboundedSender<io::Result<Bytes>>, Reply) {
    let (pieces, body) = mpsc::unbounded_channel::<io::Result<Bytes>>();
    let body = futures_util::stream::unfold(body, async |mut body| body.recv().await.map(|piece| (piece, body)));
    (pieces, http::Response::new(BodyExt::boxed(StreamBody::new(body.map_ok(Frame::data)))))
}

/// Answers `/api/version` and nothing else.
async fn answers(version: &'static str) -> Ollama {
    let server = Server::start(move |_| reply(200, version)).await;
    let ollama = server.ollama();
    // The test ends before the server is missed.
    std::mem::forget(server.task);
    ollama
}

fn name(text: &str) -> ModelName {
    text.parse().unwrap()
}

#[tokio::test]
async fn each_operation_has_one_path_and_the_body_is_untouched() {
    let mut server = Server::start(|_| reply(200, "{}")).await;
    let ollama = server.ollama();
    for (operation, path) in [
        (Operation::OllamaChat, "/api/chat"),
        (Operation::OllamaGenerate, "/api/generate"),
        (Operation::OllamaEmbed, "/api/embed"),
        (Operation::OllamaShow, "/api/show"),
        (Operation::OpenaiChat, "/v1/chat/completions"),
        (Operation::OpenaiCompletions, "/v1/completions"),
        (Operation::OpenaiEmbeddings, "/v1/embeddings"),
        (Operation::OpenaiResponses, "/v1/responses"),
        (Operation::AnthropicMessages, "/v1/messages"),
    ] {
        let body = Bytes::from_static(b"{ \"model\" :\t\"m\",\"x\":1.0e5 }\n");
        let response = ollama.open(operation, body.clone()).await.unwrap();
        assert_eq!(response.status(), 200);
        let asked = server.asked().await;
        assert_eq!(asked.line, format!("POST {path} HTTP/1.1"));
        assert_eq!(asked.body, body);
        let mut headers: Vec<_> = asked.headers.iter().map(|(k, v)| format!("{k}: {}", v.to_str().unwrap())).collect();
        headers.sort();
        let host = format!("host: {}", server.address);
        assert_eq!(headers, ["accept: */*", "content-length: 28", "content-type: application/json", host.as_str()]);
    }
}

#[tokio::test]
async fn statuses_and_redirects_are_ollamas_own() {
    for status in [307, 404, 503] {
        let mut server = Server::start(move |_| {
            let mut answer = reply(status, "server busy");
            answer.headers_mut().insert("location", "http://127.0.0.1:9/api/chat".parse().unwrap());
            answer
        })
        .await;
        let response = server.ollama().open(Operation::OllamaChat, Bytes::new()).await.unwrap();
        assert_eq!(response.status(), status);
        assert_eq!(response.bytes().await.unwrap(), "server busy");
        server.asked().await;
        assert!(server.asked.try_recv().is_err(), "a redirect must not be followed");
    }
}

/// The environment of a process cannot be changed safely, so this one is run again with one that names a proxy.
#[test]
fn a_proxy_of_the_environment_is_not_used() {
    let mut test = std::process::Command::new(std::env::current_exe().unwrap());
    test.args(["--exact", "ollama::tests::asked_directly", "--ignored"]);
    for variable in ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"] {
        // Nothing can listen at port 1 without being root, and nothing does.
        test.env(variable, "http://127.0.0.1:1");
    }
    let output = test.env_remove("NO_PROXY").env_remove("no_proxy").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}

#[tokio::test]
#[ignore = "run by a_proxy_of_the_environment_is_not_used"]
async fn asked_directly() {
    let server = Server::start(|_| reply(200, "{\"status\":\"success\"}\n")).await;
    let ollama = server.ollama();
    assert_eq!(ollama.open(Operation::OllamaChat, Bytes::new()).await.unwrap().status(), 200);
    let told: Vec<_> = ollama.pull(&name("x")).map(|event| event.unwrap().step).collect().await;
    assert_eq!(told, ["success"]);
}

#[tokio::test]
async fn dropping_an_answer_closes_the_connection() {
    let (pieces, answer) = piecewise();
    let answer = Mutex::new(Some(answer));
    let mut server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
    pieces.send(Ok(Bytes::from_static(b"first"))).unwrap();
    let mut response = server.ollama().open(Operation::OllamaChat, Bytes::new()).await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "first");
    let dropped = Instant::now();
    drop(response);
    server.closed.recv().await.unwrap();
    assert!(dropped.elapsed() < Duration::from_millis(100), "{:?}", dropped.elapsed());
}

#[tokio::test]
async fn failures_are_told_apart() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let nobody = Ollama::new(free.to_string().parse().unwrap());
    assert_eq!(nobody.version().await, Err(Error::NotRunning));
    assert_eq!(nobody.open(Operation::OllamaChat, Bytes::new()).await.err(), Some(Error::NotRunning));

    let (pieces, answer) = piecewise();
    let answer = Mutex::new(Some(answer));
    let server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
    pieces.send(Ok(Bytes::from_static(b"{\"vers"))).unwrap();
    pieces.send(Err(io::Error::other("cut"))).unwrap();
    assert_eq!(server.ollama().version().await, Err(Error::Lost));

    assert_eq!(answers("<html>hello</html>").await.version().await, Err(Error::NotOllama));
    assert_eq!(answers(r#"{"version":"<script>"}"#).await.version().await, Err(Error::NotOllama));
    assert_eq!(answers(r#"{"version":"0.32.15"}"#).await.version().await.unwrap().to_string(), "0.32.15");

    let server = Server::start(|_| reply(200, vec![b' '; MAX_DOCUMENT + 1])).await;
    assert_eq!(server.ollama().version().await, Err(Error::TooLarge));
    let server = Server::start(|_| reply(500, "no")).await;
    assert_eq!(server.ollama().version().await, Err(Error::Status(500)));
}

#[tokio::test]
async fn a_question_has_a_limit() {
    let (pieces, answer) = piecewise();
    let answer = Mutex::new(Some(answer));
    let mut server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
    let ollama = server.ollama();
    let question = ollama.version();
    tokio::pin!(question);
    tokio::select! {
        answer = &mut question => panic!("{answer:?}"),
        _ = server.asked.recv() => {}
    }
    tokio::time::pause();
    assert_eq!(question.await, Err(Error::TimedOut));
    drop(pieces);
}

#[tokio::test]
async fn models_are_deleted_and_unloaded_by_name() {
    let mut server = Server::start(|_| reply(200, "")).await;
    let ollama = server.ollama();
    ollama.delete(&name("llama3.2")).await.unwrap();
    let asked = server.asked().await;
    assert_eq!((asked.line.as_str(), &asked.body[..]), ("DELETE /api/delete HTTP/1.1", &br#"{"model":"llama3.2:latest"}"#[..]));
    ollama.unload(&name("llama3.2:1b")).await.unwrap();
    let asked = server.asked().await;
    let body = br#"{"model":"llama3.2:1b","keep_alive":0,"stream":false}"#;
    assert_eq!((asked.line.as_str(), &asked.body[..]), ("POST /api/generate HTTP/1.1", &body[..]));

    let server = Server::start(|_| reply(404, r#"{"error":"model 'x' not found"}"#)).await;
    assert_eq!(server.ollama().delete(&name("x")).await, Err(Error::NoSuchModel));
    assert_eq!(server.ollama().unload(&name("x")).await, Err(Error::NoSuchModel));
}

#[tokio::test]
async fn a_download_is_followed_to_its_end() {
    let (pieces, answer) = piecewise();
    let answer = Mutex::new(Some(answer));
    let mut server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
    let mut pull = Box::pin(server.ollama().pull(&name("llama3.2")));
    // Cut in the middle of a line, and several lines in one piece.
    for piece in ["{\"status\":\"pulling man", "ifest\"}\n\n{\"status\":\"verifying\"}\n", "{\"status\":\"success\"}\n"] {
        pieces.send(Ok(Bytes::from_static(piece.as_bytes()))).unwrap();
    }
    let mut steps = Vec::new();
    while let Some(progress) = pull.next().await {
        steps.push(progress.unwrap().step);
    }
    assert_eq!(steps.last().map(String::as_str), Some("success"));
    let asked = server.asked().await;
    let body = br#"{"name":"llama3.2:latest","insecure":false,"stream":true}"#;
    assert_eq!((asked.line.as_str(), &asked.body[..]), ("POST /api/pull HTTP/1.1", &body[..]));
}

#[tokio::test]
async fn a_download_that_is_dropped_is_stopped() {
    let (pieces, answer) = piecewise();
    let answer = Mutex::new(Some(answer));
    let mut server = Server::start(move |_| answer.lock().unwrap().take().unwrap()).await;
    let mut pull = Box::pin(server.ollama().pull(&name("llama3.2")));
    pieces.send(Ok(Bytes::from_static(b"{\"status\":\"pulling manifest\"}\n"))).unwrap();
    assert_eq!(pull.next().await.unwrap().unwrap().step, "pulling manifest");
    drop(pull);
    server.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_download_that_fails_says_how() {
    for (status, body, error) in [
        (200, r#"{"error":"pull model manifest: file does not exist"}"#, Error::NotInRegistry),
        (200, r#"{"status":"pulling manifest"}"#, Error::PullFailed),
        (500, r#"{"error":"write x: no space left on device"}"#, Error::DiskFull),
        (502, "<html>", Error::NotOllama),
    ] {
        let server = Server::start(move |_| reply(status, format!("{body}\n"))).await;
        let told: Vec<_> = server.ollama().pull(&name("x")).collect().await;
        assert_eq!(told.last(), Some(&Err(error)), "{body}");
    }
}

const TAGS: &str = r#"{"models":[
    {"name":"llama3.2:1b","model":"llama3.2:1b","modified_at":"2026-01-02T03:04:05.6+01:00","size":7,"digest":"ab",
     "details":{"family":"llama","context_length":131072},"capabilities":["completion","tools"],"unheard_of":1},
    {"name":"stub:latest","size":384,"details":{},"remote_model":"gpt-oss:120b","remote_host":"https://ollama.com:443"},
    {"name":"gpt-oss:120b-cloud","details":null,"capabilities":null},
    {"name":"not a name"}]}"#;

#[tokio::test]
async fn the_inventory_follows_ollama() {
    let page = Arc::new(Mutex::new(("0.17.0", TAGS, r#"{"models":null}"#)));
    let serve = {
        let page = page.clone();
        move |line: &str| {
            let (version, tags, ps) = *page.lock().unwrap();
            match line.split(' ').nth(1).unwrap() {
                "/api/version" => reply(200, format!("{{\"version\":\"{version}\"}}")),
                "/api/tags" => reply(200, tags),
                "/api/ps" => reply(200, ps),
                "/api/status" => reply(200, r#"{"cloud":{"disabled":true,"source":"env"}}"#),
                other => panic!("asked for {other}"),
            }
        }
    };
    let mut server = Server::start(serve.clone()).await;
    let mut inventory = watch(server.ollama());
    let limit = Duration::from_secs(2);

    let first =
        tokio::time::timeout(limit, inventory.wait_for(|i| i.state != OllamaState::Unknown)).await.unwrap().unwrap().clone();
    assert_eq!(first.state, OllamaState::TooOld { version: "0.17.0".to_owned() });
    assert_eq!(first.cloud_disabled, Some(true));
    assert_eq!(first.loaded, []);
    let models: Vec<_> = first.models.iter().map(|m| (m.model.name.as_str(), m.runs)).collect();
    // Two of one second, in the order of their names.
    let elsewhere = [("gpt-oss:120b-cloud", Runs::Elsewhere), ("stub:latest", Runs::Elsewhere)];
    assert_eq!(models, [&[("llama3.2:1b", Runs::Here)], &elsewhere[..]].concat());
    let llama = &first.models[0].model;
    assert_eq!((llama.size, llama.digest.as_str(), llama.modified_at.as_str()), (7, "ab", "2026-01-02T03:04:05.6+01:00"));
    assert_eq!(llama.details["context_length"], 131_072);
    assert_eq!(llama.capabilities, ["completion", "tools"]);
    for (spelled, known) in [
        ("llama3.2:1b", Some(KnownModel::Local)),
        ("LLAMA3.2:1B", Some(KnownModel::Local)),
        ("registry.ollama.ai/library/llama3.2:1b", Some(KnownModel::Local)),
        ("library/stub", Some(KnownModel::Remote)),
        ("llama3.2", None),
        ("other/llama3.2:1b", None),
    ] {
        assert_eq!(first.known_model(&name(spelled)), known, "{spelled}");
    }

    // Nothing changes: it is looked at three times more and nothing is published.
    for _ in 0..3 {
        while !server.asked().await.line.starts_with("GET /api/ps") {}
    }
    assert!(!inventory.has_changed().unwrap());

    // An upgrade, a model that goes and one that is loaded.
    let ps = r#"{"models":[{"name":"llama3.2:1b","size":9,"size_vram":8,"context_length":4096,"expires_at":"soon"},{"name":"?"}]}"#;
    *page.lock().unwrap() = ("0.17.1", r#"{"models":[]}"#, ps);
    let is_new = |i: &Arc<Inventory>| i.state == OllamaState::Running { version: "0.17.1".to_owned() } && !i.loaded.is_empty();
    let second = tokio::time::timeout(limit, inventory.wait_for(is_new)).await.unwrap().unwrap().clone();
    assert_eq!(second.models, []);
    let loaded: Vec<_> = second.loaded.iter().map(|l| (l.name.as_str(), l.size, l.size_vram, l.context_length)).collect();
    assert_eq!(loaded, [("llama3.2:1b", 9, 8, 4096)]);

    // It stops, and it starts again.
    let address = server.address;
    drop(server);
    let is_gone = |i: &Arc<Inventory>| matches!(i.state, OllamaState::Unreachable { .. });
    let gone = tokio::time::timeout(limit, inventory.wait_for(is_gone)).await.unwrap().unwrap().clone();
    let state = OllamaState::Unreachable { cause: Error::NotRunning.to_string() };
    assert_eq!(*gone, Inventory { state, ..Inventory::default() });
    let mut server = Server::start_at(address, serve).await;
    tokio::time::timeout(limit, inventory.wait_for(is_new)).await.unwrap().unwrap();

    // Nobody watches any more: it stops asking, and lets go of its connections.
    drop(inventory);
    server.closed.recv().await.unwrap();
}

#[tokio::test]
async fn a_list_that_cannot_be_read_leaves_the_last_one() {
    let tags = Arc::new(Mutex::new((200, TAGS)));
    let served = tags.clone();
    let mut server = Server::start(move |line| {
        let (status, tags) = *served.lock().unwrap();
        match line.split(' ').nth(1).unwrap() {
            "/api/version" => reply(200, r#"{"version":"0.32.15"}"#),
            "/api/tags" => reply(status, tags),
            "/api/ps" => reply(200, r#"{"models":[]}"#),
            _ => reply(404, "404 page not found"),
        }
    })
    .await;
    let mut inventory = watch(server.ollama());
    let seen = inventory.wait_for(|i| i.state != OllamaState::Unknown).await.unwrap().clone();
    assert_eq!((seen.models.len(), seen.cloud_disabled), (3, None));
    for broken in [(500, TAGS), (200, "{\"models\":[")] {
        *tags.lock().unwrap() = broken;
        for _ in 0..2 {
            while !server.asked().await.line.starts_with("GET /api/ps") {}
        }
        assert!(!inventory.has_changed().unwrap(), "{broken:?}");
    }
}

#[test]
fn show_is_relayed_without_what_is_the_owners() {
    let body = br#"{"license":"L","modelfile":"FROM /home/ada/x","parameters":"p","template":"t","system":"secret",
        "details":{"family":"llama","parent_model":"/home/ada/.ollama/models/blobs/sha256-ab"},"model_info":{"z":1,"a":2},"capabilities":["completion"],
        "messages":[{"role":"user","content":"c"}],"tensors":[],"modified_at":"now","requires":"0.1"}"#;
    let kept = r#"{"details":{"family":"llama","parent_model":""},"model_info":{"z":1,"a":2},"capabilities":["completion"],"modified_at":"now"}"#;
    assert_eq!(project_show(body).unwrap(), kept);
    assert_eq!(project_show(b"{}").unwrap(), "{}");
    for other in [&b"[]"[..], b"", b"{\"details\":1,\"details\":2}", b"{\"details\":", b"\"text\""] {
        assert_eq!(project_show(other), None);
    }
}

#[test]
fn no_error_quotes_anything() {
    let all = [
        Error::NotRunning,
        Error::Unreachable,
        Error::TimedOut,
        Error::Lost,
        Error::NotOllama,
        Error::TooLarge,
        Error::NoSuchModel,
        Error::Status(418),
        Error::NotInRegistry,
        Error::RegistryUnreachable,
        Error::DiskFull,
        Error::PullFailed,
    ];
    for error in all {
        let text = error.to_string();
        assert!(!text.contains("127.0.0.1") && !text.contains("http:"), "{text}");
        assert!(text.len() > 20 && !text.ends_with('.'), "{text}");
    }
}
