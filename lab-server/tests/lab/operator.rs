//! The operator's listener: whether the Lab is well, and what it counts, without a word of anybody.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use lab_server::{config, store::Scope};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use crate::client::TestLab;

async fn get(lab: &TestLab, path: &str) -> (StatusCode, String) {
    let tcp = TcpStream::connect(lab.lab.admin_addr.unwrap()).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(tcp)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder().uri(path).header("host", "localhost").body(Full::<Bytes>::default()).unwrap();
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    (parts.status, String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

async fn with_listener() -> TestLab {
    TestLab::with(|config| config.admin = Some("127.0.0.1:0".parse().unwrap())).await
}

#[tokio::test]
async fn a_lab_that_is_well_says_so_and_one_without_a_listener_has_none() {
    let lab = with_listener().await;
    assert_eq!(get(&lab, "/healthz").await, (StatusCode::OK, r#"{"status":"ok"}"#.to_owned()));
    assert_eq!(get(&lab, "/readyz").await, (StatusCode::OK, r#"{"status":"ready"}"#.to_owned()));
    assert_eq!(get(&lab, "/v1/models").await.0, StatusCode::NOT_FOUND);
    // What the operator sees is not on the public listener.
    for path in ["/metrics", "/readyz"] {
        assert_eq!(lab.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    assert_eq!(TestLab::start().await.lab.admin_addr, None);
}

/// A page whose own name was made to mean this machine asks under that name.
#[tokio::test]
async fn a_page_from_elsewhere_learns_nothing() {
    let lab = with_listener().await;
    for (host, status) in [
        ("127.0.0.1:1", "200"),
        ("localhost", "200"),
        ("[::1]:9464", "200"),
        ("evil.example", "404"),
        ("127.0.0.1.evil.example", "404"),
    ] {
        let mut tcp = TcpStream::connect(lab.lab.admin_addr.unwrap()).await.unwrap();
        let head = format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
        tcp.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tcp.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{host}: {answer}");
    }
}

#[tokio::test]
async fn metrics_count_and_name_nobody() {
    let lab = with_listener().await;
    let (user, project, key) = lab.user_with_scopes("ada", &Scope::ALL).await;
    let narrow = lab.key(project, &[Scope::Manage]).await;
    assert_eq!(lab.ask(&key, "GET", "/v1/models", None).await.status, StatusCode::OK);
    let prompt = serde_json::json!({ "model": "CANARY-model", "messages": [{ "role": "user", "content": "CANARY-prompt" }] });
    assert_eq!(lab.ask(&key, "POST", "/v1/chat/completions", Some(prompt.clone())).await.status, StatusCode::NOT_FOUND);
    assert_eq!(lab.ask(&narrow, "POST", "/v1/chat/completions", Some(prompt)).await.status, StatusCode::FORBIDDEN);
    assert_eq!(lab.ask("1k4_live_nothing", "GET", "/v1/models", None).await.status, StatusCode::UNAUTHORIZED);

    let (status, text) = get(&lab, "/metrics").await;
    assert_eq!(status, StatusCode::OK);
    for line in [
        r#"onek4_requests_total{outcome="complete",status_class="2xx"} 1"#,
        r#"onek4_requests_total{outcome="model_not_found",status_class="4xx"} 1"#,
        r#"onek4_refused_total{reason="key_scope"} 1"#,
        r#"onek4_refused_total{reason="invalid_api_key"} 1"#,
        "onek4_in_flight 0",
        "onek4_cost_nano_total 0",
        "onek4_bridges_online 0",
        "# TYPE gen_ai_server_request_duration_seconds histogram",
        r#"gen_ai_server_request_duration_seconds_count{gen_ai_provider_name="none",gen_ai_request_model="none",gen_ai_operation_name="chat"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
    for secret in ["CANARY", "ada", &key[9..21], &user.id.to_string(), &project.to_string(), "req_", "127.0.0.1"] {
        assert!(!text.contains(secret), "{secret}");
    }
}

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn a_lab_that_stops_says_so_until_the_last_request_ends() {
    let mut lab = with_listener().await;
    let (_, _, key) = lab.user_with_scopes("ada", &Scope::ALL).await;
    let mut caller = lab.tls(b"http/1.1").await;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {key}\r\ncontent-length: 9\r\n\r\n{{"
    );
    caller.write_all(head.as_bytes()).await.unwrap();
    caller.flush().await.unwrap();
    timeout(SOON, async { while !get(&lab, "/metrics").await.1.contains("onek4_in_flight 1") {} }).await.unwrap();

    let admin = lab.lab.admin_addr;
    let stopping = tokio::spawn(async move {
        lab.lab.shutdown().await.unwrap();
        lab
    });
    let ready = async || {
        let mut tcp = TcpStream::connect(admin.unwrap()).await.unwrap();
        tcp.write_all(b"GET /readyz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        tokio::io::AsyncReadExt::read_to_string(&mut tcp, &mut answer).await.unwrap();
        answer
    };
    let answer = timeout(SOON, async {
        loop {
            let answer = ready().await;
            if !answer.starts_with("HTTP/1.1 200") {
                return answer;
            }
        }
    });
    let answer = answer.await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains(r#""code":"draining""#), "{answer}");
    drop(caller);
    timeout(SOON, stopping).await.unwrap().unwrap();
    assert!(TcpStream::connect(admin.unwrap()).await.is_err());
}

#[tokio::test]
async fn a_lab_whose_only_provider_is_gone_is_not_ready() {
    let gone = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let file = std::env::temp_dir().join(format!("1k4-operator-{}.toml", wire::RequestId::random()));
    let text = format!(
        "[[providers]]\nname = \"home\"\n[[providers.channels]]\nname = \"home-1\"\nbase_url = \"http://{gone}\"\n\
         [[models]]\nid = \"mine\"\nprovider = \"home\"\nmax_input = 1000\nmax_output = 10\nusd_per_mtok = {{ input = 1, output = 1 }}\n"
    );
    std::fs::write(&file, text).unwrap();
    let overrides = config::Overrides { config: Some(file.clone()), ..config::Overrides::default() };
    let providers = config::Config::load(&overrides).unwrap().providers;
    std::fs::remove_file(&file).unwrap();
    let lab = TestLab::with(|config| {
        config.admin = Some("127.0.0.1:0".parse().unwrap());
        config.providers = providers;
    })
    .await;
    let (_, _, key) = lab.user_with_scopes("ada", &Scope::ALL).await;
    assert_eq!(get(&lab, "/readyz").await.0, StatusCode::OK);
    assert!(get(&lab, "/metrics").await.1.contains(r#"onek4_channel_state{channel="home-1",provider="home",state="ready"} 1"#));
    let body = serde_json::json!({ "model": "mine", "max_tokens": 1, "messages": [{ "role": "user", "content": "hi" }] });
    let unready = async {
        loop {
            let answer = lab.ask(&key, "POST", "/v1/chat/completions", Some(body.clone())).await;
            assert!(answer.status.is_server_error(), "{} {}", answer.status, answer.text());
            let ready = get(&lab, "/readyz").await;
            if ready.0 != StatusCode::OK {
                return ready;
            }
        }
    };
    let (status, text) = timeout(SOON, unready).await.unwrap();
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(text.contains(r#""code":"no_provider""#), "{text}");
    let metrics = get(&lab, "/metrics").await.1;
    assert!(metrics.contains(r#"onek4_channel_state{channel="home-1",provider="home",state="failing"} 1"#), "{metrics}");
    assert!(metrics.contains(r#"gen_ai_request_model="mine""#), "{metrics}");
    // What came to nothing used up nothing.
    assert_eq!(lab.ask(&key, "GET", "/api/account", None).await.json()["free_requests_left"], 20);
}

#[tokio::test]
async fn beyond_this_machine_the_listener_speaks_tls_only() {
    let lab = TestLab::with(|config| config.admin = Some("0.0.0.0:0".parse().unwrap())).await;
    let port = lab.lab.admin_addr.unwrap().port();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    tokio::io::AsyncReadExt::read_to_string(&mut tcp, &mut answer).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request") && !answer.contains("onek4"), "{answer}");
}

#[tokio::test]
async fn the_trial_is_as_long_as_the_operator_says() {
    let lab = TestLab::with(|config| config.free_requests = 3).await;
    let (_, _, key) = lab.user_with_scopes("ada", &Scope::ALL).await;
    assert_eq!(lab.ask(&key, "GET", "/api/account", None).await.json()["free_requests_left"], 3);
}
