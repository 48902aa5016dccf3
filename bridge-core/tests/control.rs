//! The control API from the outside: a real bridge, a real socket, an Ollama that answers as the test says.

#![cfg(unix)]
#![expect(clippy::unwrap_used, clippy::expect_used, reason = "a test says what it expects by failing")]

use std::{
    convert::Infallible,
    ffi::OsString,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use bridge_core::{
    bridge::{Bridge, Handle},
    config::{Config, Overrides},
    control::{Claim, ClaimError, Client, ClientError, Follow, LogRing, Models, Pull, Server, claim},
    policy::Policy,
    status::{LinkState, Pause},
};
use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixStream},
    sync::Notify,
};
use tracing_subscriber::layer::SubscriberExt;
use wire::{RelayId, relay::OllamaState};

/// No step of these tests takes a second; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(20);

/// A bridge with its socket, in a directory of its own that goes away with it.
struct Running {
    home: Home,
    bridge: Handle,
    server: Server,
    client: Client,
    socket: PathBuf,
}

impl Running {
    /// With nothing at Ollama's address.
    async fn alone() -> Self {
        let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
        Self::start(&nobody.to_string(), LogRing::new())
    }

    fn start(ollama: &str, logs: LogRing) -> Self {
        let home = Home::new();
        let config = home.config(ollama);
        let claim = claim(&config.paths).unwrap();
        let socket = claim.socket().to_owned();
        let client = Client::new(&config.paths);
        let bridge = Bridge::start(config).unwrap();
        let server = Server::start(claim, bridge.clone(), logs).unwrap();
        Self { home, bridge, server, client, socket }
    }

    async fn stop(self) -> Home {
        tokio::time::timeout(LIMIT, async {
            self.server.shutdown().await;
            self.bridge.shutdown().await;
        })
        .await
        .expect("a shutdown ends");
        self.home
    }
}

struct Home(PathBuf);

impl Home {
    fn new() -> Self {
        let path = std::env::temp_dir().join(format!("1k4-control-{}", RelayId::random()));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("config.toml"), "credential_store = \"insecure-file\"\n").unwrap();
        Self(path)
    }

    fn state(&self) -> PathBuf {
        self.0.join("state")
    }

    fn config(&self, ollama: &str) -> Config {
        let overrides = Overrides {
            config_file: Some(self.0.join("config.toml")),
            state_dir: Some(self.state()),
            ollama: Some(ollama.parse().unwrap()),
            ..Overrides::default()
        };
        Config::load(overrides, |_: &str| -> Option<OsString> { None }).unwrap()
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        // What a failed test leaves is not worth a second panic.
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn mode(path: &Path) -> u32 {
    use std::os::unix::fs::PermissionsExt;
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn set_mode(path: &Path, mode: u32) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Sends `request` as it is and returns the status line's number, or `None` when it is hung up on.
async fn raw(socket: &Path, request: &str) -> Option<u16> {
    let mut connection = UnixStream::connect(socket).await.unwrap();
    // A server that has seen enough may close before everything is written.
    let _ = connection.write_all(request.as_bytes()).await;
    let mut answer = Vec::new();
    let _ = tokio::time::timeout(LIMIT, connection.read_to_end(&mut answer)).await.expect("an answer");
    let line = answer.split(|byte| *byte == b'\r').next().unwrap_or_default();
    String::from_utf8_lossy(line).split(' ').nth(1).map(|status| status.parse().unwrap())
}

fn request(line: &str, headers: &str, body: &str) -> String {
    format!("{line} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn the_socket_is_its_owners_alone_and_goes_away() {
    let running = Running::alone().await;
    assert_eq!((mode(&running.socket), mode(&running.home.state())), (0o600, 0o700));
    let socket = running.socket.clone();
    let home = running.stop().await;
    assert!(!socket.exists());
    assert!(matches!(Client::new(&home.config("127.0.0.1:1").paths).status().await, Err(ClientError::NotRunning)));
}

#[tokio::test]
async fn a_directory_that_others_may_write_to_is_not_used() {
    let home = Home::new();
    let config = home.config("127.0.0.1:1");
    fs::create_dir(home.state()).unwrap();
    set_mode(&home.state(), 0o777);
    let claim: Claim = claim(&config.paths).unwrap();
    let bridge = Bridge::start(config).unwrap();
    let refused = Server::start(claim, bridge.clone(), LogRing::new()).err().map(|error| error.kind());
    assert_eq!(refused, Some(io::ErrorKind::PermissionDenied));
    assert_eq!(mode(&home.state()), 0o777, "it is left as it was");
    bridge.shutdown().await;
}

#[tokio::test]
async fn two_bridges_of_one_directory_are_kept_apart() {
    let running = Running::alone().await;
    let again = running.home.config("127.0.0.1:1");
    assert!(matches!(claim(&again.paths), Err(ClaimError::AlreadyRunning)));
    let home = running.stop().await;
    claim(&home.config("127.0.0.1:1").paths).unwrap();
}

#[tokio::test]
async fn a_socket_that_a_dead_bridge_left_is_replaced() {
    let home = Home::new();
    let config = home.config("127.0.0.1:1");
    fs::create_dir(home.state()).unwrap();
    set_mode(&home.state(), 0o755);
    drop(std::os::unix::net::UnixListener::bind(&config.paths.socket).unwrap());
    assert!(config.paths.socket.exists());
    assert!(matches!(Client::new(&config.paths).status().await, Err(ClientError::NotRunning)));

    let client = Client::new(&config.paths);
    let claim = claim(&config.paths).unwrap();
    let bridge = Bridge::start(config).unwrap();
    let server = Server::start(claim, bridge.clone(), LogRing::new()).unwrap();
    assert_eq!(client.status().await.unwrap().link, LinkState::Unpaired);
    assert_eq!(mode(&home.state()), 0o700, "others may not even look in");
    server.shutdown().await;
    bridge.shutdown().await;
}

#[tokio::test]
async fn what_a_browser_would_send_is_refused() {
    let running = Running::alone().await;
    let big = "x".repeat((64 << 10) + 1);
    for (line, headers, body, status) in [
        ("GET /v1/status", "host: 1k4-bridge\r\n", "", Some(200)),
        ("GET /v1/status", "host: 1k4-bridge\r\norigin: https://evil.example\r\n", "", Some(403)),
        ("GET /v1/status", "host: 1k4-bridge\r\norigin: null\r\n", "", Some(403)),
        ("GET /v1/status", "host: 1k4-bridge\r\nreferer: https://evil.example/\r\n", "", Some(403)),
        ("GET /v1/status", "host: localhost\r\n", "", Some(403)),
        ("GET /v1/status", "host: 1k4-bridge.evil.example\r\n", "", Some(403)),
        ("GET /v1/status", "host: 1k4-bridge:80\r\n", "", Some(403)),
        ("GET /v1/status", "", "", Some(403)),
        ("GET /v1/status", "host: 1k4-bridge\r\nhost: evil.example\r\n", "", Some(403)),
        ("GET http://1k4-bridge/v1/status", "host: 1k4-bridge\r\n", "", Some(403)),
        ("GET /", "host: 1k4-bridge\r\n", "", Some(404)),
        ("GET /v1/status/", "host: 1k4-bridge\r\n", "", Some(404)),
        ("GET /v1/../v1/status", "host: 1k4-bridge\r\n", "", Some(404)),
        ("POST /v1/status", "host: 1k4-bridge\r\n", "", Some(404)),
        ("DELETE /v1/relays/x", "host: 1k4-bridge\r\n", "", Some(404)),
        ("POST /v1/pause", "host: 1k4-bridge\r\n", big.as_str(), Some(413)),
        ("POST /v1/pause", "host: 1k4-bridge\r\n", "{\"for\":1}", Some(400)),
        ("POST /v1/models/pull", "host: 1k4-bridge\r\n", "{\"model\":\"../x\"}", Some(400)),
    ] {
        assert_eq!(raw(&running.socket, &request(line, headers, body)).await, status, "{line} {headers:?}");
    }
    assert_eq!(running.client.status().await.unwrap().pause, Pause::Serving, "none of it was done");
    running.stop().await;
}

/// Only root can be somebody else, and only then can this be tried.
#[tokio::test]
async fn another_user_is_hung_up_on() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("not root: the refusal of another user is not shown");
        return;
    }
    let logs = LogRing::new();
    let _logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(logs.layer()));
    let running = Running::start("127.0.0.1:1", logs);
    // The walls in front of it are opened, so that it is the peer's user that is refused.
    for (path, mode) in [(running.home.0.clone(), 0o755), (running.home.state(), 0o755), (running.socket.clone(), 0o666)] {
        set_mode(&path, mode);
    }
    let ask = |uid: u32| {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["--silent", "--max-time", "10", "--unix-socket"]).arg(&running.socket).arg("http://1k4-bridge/v1/status");
        curl.uid(uid).gid(uid).output()
    };
    let own = ask(0).await.expect("curl is there");
    assert!(own.stdout.starts_with(b"{\"version\""), "{own:?}");
    let other = ask(65_534).await.expect("curl is there");
    // It got in touch, as the bridge's own log shows, and got nothing: curl sees a hang-up as one of several failures.
    assert_eq!((other.status.success(), other.stdout.as_slice()), (false, b"".as_slice()), "{other:?}");
    let mut lines = running.client.logs(Follow::No).await.unwrap();
    let mut uids = Vec::new();
    while let Some(line) = lines.next().await.unwrap() {
        if line.message == "another user tried the control socket" {
            uids.push(line.fields["uid"].clone());
        }
    }
    assert_eq!(uids, ["65534"]);
    running.stop().await;
}

#[tokio::test]
async fn pause_and_resume_are_seen_by_who_watches() {
    let running = Running::alone().await;
    let mut watching = running.client.watch().await.unwrap();
    let seen = async |watching: &mut bridge_core::control::Lines<bridge_core::status::Status>, wanted: fn(Pause) -> bool| {
        tokio::time::timeout(LIMIT, async {
            while let Some(status) = watching.next().await.unwrap() {
                if wanted(status.pause) {
                    return status.pause;
                }
            }
            panic!("the watch ended");
        })
        .await
        .expect("the change is seen")
    };
    assert_eq!(seen(&mut watching, |_| true).await, Pause::Serving);
    running.client.pause(None).await.unwrap();
    assert_eq!(seen(&mut watching, |pause| pause != Pause::Serving).await, Pause::Paused { until_ms: None });
    running.client.pause(Some(Duration::from_secs(3600))).await.unwrap();
    let timed = seen(&mut watching, |pause| pause != Pause::Paused { until_ms: None }).await;
    let now = bridge_core::status::now_ms();
    assert!(
        matches!(timed, Pause::Paused { until_ms: Some(until) } if (now + 3_590_000..=now + 3_600_000).contains(&until)),
        "{timed:?}"
    );
    running.client.resume().await.unwrap();
    assert_eq!(seen(&mut watching, |pause| pause == Pause::Serving).await, Pause::Serving);

    // Who watches does not hold up the end, and sees it as an end.
    running.stop().await;
    let end = async { while watching.next().await.unwrap().is_some() {} };
    tokio::time::timeout(LIMIT, end).await.expect("the watch ends");
}

#[tokio::test]
async fn the_policy_is_changed_whole_or_by_model_and_kept() {
    let running = Running::alone().await;
    let client = &running.client;
    assert_eq!(client.policy().await.unwrap(), Policy::default());

    let mut wish = serde_json::to_value(Policy::default()).unwrap();
    wish["max_concurrent"] = 2.into();
    assert_eq!(client.set_policy(&wish).await.unwrap().max_concurrent, 2);
    for (field, value, wanted_status, wanted_code) in
        [("max_concurrent", 0.into(), 422, "invalid_policy"), ("max_concurent", 2.into(), 400, "invalid_body")]
    {
        let mut wrong = wish.clone();
        wrong[field] = value;
        match client.set_policy(&wrong).await {
            Err(ClientError::Refused { status, code, message }) => {
                assert_eq!((status, code.as_str()), (wanted_status, wanted_code));
                assert!(message.contains(field) && !message.contains("column"), "{message}");
            }
            other => panic!("{other:?}"),
        }
    }
    let names = ["a", "b", "c", "d"].map(|name| name.parse().unwrap());
    let denials = futures_util::future::join_all(names.map(|name| client.deny(name))).await;
    assert!(denials.iter().all(Result::is_ok), "{denials:?}");
    let mut denied: Vec<String> = client.policy().await.unwrap().denied.into_iter().map(String::from).collect();
    denied.sort();
    assert_eq!(denied, ["a", "b", "c", "d"], "none of the changes at once was lost");
    assert_eq!(client.allow("a".parse().unwrap()).await.unwrap().denied.len(), 3);

    let home = running.stop().await;
    let kept = home.config("127.0.0.1:1").policy;
    assert_eq!((kept.max_concurrent, kept.denied.len()), (2, 3));
}

#[tokio::test]
async fn models_are_listed_pulled_and_removed() {
    let (ollama, seen) = ollama().await;
    let running = Running::start(&ollama, LogRing::new());
    let client = &running.client;
    client.deny("b".parse().unwrap()).await.unwrap();
    let Models { ollama, models } = tokio::time::timeout(LIMIT, async {
        let mut status = running.bridge.status();
        status.wait_for(|status| !status.models.is_empty()).await.unwrap();
        client.models().await.unwrap()
    })
    .await
    .expect("the models are seen");
    assert_eq!(ollama, OllamaState::Running { version: "0.32.15".into() });
    let listed: Vec<_> = models.iter().map(|own| (own.model.name.as_str(), own.local, own.shared, own.loaded)).collect();
    assert_eq!(
        listed,
        [("a:latest", true, true, true), ("b:latest", true, false, false), ("c:cloud", false, false, false)],
        "what runs elsewhere is never shared"
    );

    let mut steps = client.pull("hf.co/owner/new:q4".parse().unwrap()).await.unwrap();
    let mut last = None;
    while let Some(step) = steps.next().await.unwrap() {
        last = Some(step);
    }
    assert_eq!(last, Some(Pull::Done));
    client.remove(&"hf.co/owner/new:q4".parse().unwrap()).await.unwrap();
    client.unload("a".parse().unwrap()).await.unwrap();
    match client.remove(&"missing".parse().unwrap()).await {
        Err(ClientError::Refused { status: 404, code, .. }) => assert_eq!(code, "no_such_model"),
        other => panic!("{other:?}"),
    }
    let mut failed = client.pull("missing".parse().unwrap()).await.unwrap();
    assert!(matches!(failed.next().await.unwrap(), Some(Pull::Failed { .. })));
    assert_eq!(failed.next().await.unwrap(), None);

    // Who hangs up ends the download.
    let mut endless = client.pull("endless".parse().unwrap()).await.unwrap();
    assert!(matches!(endless.next().await.unwrap(), Some(Pull::Progress { total: Some(100), .. })));
    drop(endless);
    tokio::time::timeout(LIMIT, seen.notified()).await.expect("Ollama sees the hang-up");
    running.stop().await;
}

#[tokio::test]
async fn without_ollama_its_verbs_say_so() {
    let running = Running::alone().await;
    match running.client.unload("a".parse().unwrap()).await {
        Err(ClientError::Refused { status, code, .. }) => assert_eq!((status, code.as_str()), (503, "ollama_unavailable")),
        other => panic!("{other:?}"),
    }
    assert_eq!(running.client.models().await.unwrap().models, []);
    running.stop().await;
}

#[tokio::test]
async fn the_log_is_read_and_followed() {
    let logs = LogRing::new();
    let _logging = tracing::subscriber::set_default(tracing_subscriber::registry().with(logs.layer()));
    let running = Running::start("127.0.0.1:1", logs);
    tracing::info!(target: "bridge_core::test", "first");
    tracing::info!(target: "h2::proto", "somebody's words");
    let own = |line: &bridge_core::control::LogLine| line.target == "bridge_core::test";

    let mut kept = running.client.logs(Follow::No).await.unwrap();
    let mut lines = Vec::new();
    while let Some(line) = kept.next().await.unwrap() {
        assert_ne!(line.message, "somebody's words");
        lines.push(line);
    }
    assert_eq!(lines.into_iter().filter(own).map(|line| line.message).collect::<Vec<_>>(), ["first"]);

    let mut following = running.client.logs(Follow::Yes).await.unwrap();
    tracing::warn!(target: "bridge_core::test", "second");
    let mut messages = Vec::new();
    tokio::time::timeout(LIMIT, async {
        while messages.len() < 2 {
            let line = following.next().await.unwrap().expect("it goes on");
            if own(&line) {
                messages.push(line.message);
            }
        }
    })
    .await
    .expect("both lines come");
    assert_eq!(messages, ["first", "second"]);
    running.stop().await;
}

#[tokio::test]
async fn the_small_verbs_answer() {
    let running = Running::alone().await;
    assert_eq!(running.client.activity().await.unwrap(), []);
    running.client.retry().await.unwrap();
    match running.client.cancel(RelayId::random()).await {
        Err(ClientError::Refused { status, code, .. }) => assert_eq!((status, code.as_str()), (404, "unknown_relay")),
        other => panic!("{other:?}"),
    }
    running.client.quit().await.unwrap();
    tokio::time::timeout(LIMIT, running.server.quit_asked()).await.expect("the wish is heard");
    running.stop().await;
}

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// An Ollama with two models of its own and one that points elsewhere. What it returns beside its address is told when somebody
/// hung up on the pull of `endless`.
async fn ollama() -> (String, std::sync::Arc<Notify>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let hung_up = std::sync::Arc::new(Notify::new());
    let told = hung_up.clone();
    tokio::spawn(async move {
        loop {
            let (connection, _) = listener.accept().await.unwrap();
            let told = told.clone();
            let service = hyper::service::service_fn(move |request| answer(request, told.clone()));
            tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service));
        }
    });
    (address, hung_up)
}

/// Tells when it is dropped.
struct Told(std::sync::Arc<Notify>);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn answer(request: Request<Incoming>, hung_up: std::sync::Arc<Notify>) -> Result<Answer, Infallible> {
    let path = request.uri().path().to_owned();
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let model = || {
        let asked: serde_json::Value = serde_json::from_slice(&body).unwrap();
        // Ollama takes both.
        asked["model"].as_str().or(asked["name"].as_str()).unwrap().to_owned()
    };
    let model_entry =
        |name: &str, remote: &str| format!(r#"{{"name":"{name}","model":"{name}","size":7,"digest":"d","details":{{}}{remote}}}"#);
    Ok(match path.as_str() {
        "/api/version" => text(200, r#"{"version":"0.32.15"}"#),
        "/api/tags" => {
            let remote = r#","remote_host":"https://ollama.com:443","remote_model":"c""#;
            let models = [model_entry("a:latest", ""), model_entry("b:latest", ""), model_entry("c:cloud", remote)];
            text(200, &format!(r#"{{"models":[{}]}}"#, models.join(",")))
        }
        "/api/ps" => text(200, &format!(r#"{{"models":[{}]}}"#, model_entry("a:latest", ""))),
        "/api/generate" => text(200, "{}"),
        "/api/delete" | "/api/pull" if model() == "missing:latest" => text(404, r#"{"error":"model 'missing' not found"}"#),
        "/api/delete" => text(200, ""),
        "/api/pull" => {
            let progress =
                Bytes::from_static(b"{\"status\":\"pulling abc\",\"digest\":\"sha256:abc\",\"total\":100,\"completed\":1}\n");
            let success = Bytes::from_static(b"{\"status\":\"success\"}\n");
            let steps = if model() == "endless:latest" { [Some(progress), None] } else { [Some(progress), Some(success)] };
            let told = (model() == "endless:latest").then(|| Told(hung_up));
            let lines = stream::unfold((steps.into_iter(), told), async |(mut steps, told)| match steps.next()? {
                Some(line) => Some((Ok::<_, Infallible>(Frame::data(line)), (steps, told))),
                None => std::future::pending().await,
            });
            Response::new(StreamBody::new(lines).boxed_unsync())
        }
        _ => text(404, "404 page not found"),
    })
}

fn text(status: u16, body: &str) -> Answer {
    let body = http_body_util::Full::new(Bytes::from(body.to_owned())).boxed_unsync();
    Response::builder().status(status).body(body).unwrap()
}
