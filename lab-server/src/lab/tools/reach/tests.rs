use std::{
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::lab::tools::web::{self, FetchError};

/// Names as a test says: for each look-up of a name the next of its answers, the last one again and again.
#[derive(Default)]
struct Names {
    answers: Vec<(&'static str, Vec<Vec<IpAddr>>)>,
    asked: Mutex<Vec<String>>,
}

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        let mut asked = self.asked.lock().unwrap();
        let before = asked.iter().filter(|known| *known == name.as_str()).count();
        asked.push(name.as_str().to_owned());
        let answers = self.answers.iter().find(|(known, _)| *known == name.as_str()).map(|(_, answers)| answers.clone());
        let found = answers.and_then(|answers| answers.get(before).or(answers.last()).cloned()).unwrap_or_default();
        Box::pin(async move { Ok(Box::new(found.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs) })
    }
}

/// A server on this machine that counts who connects, and answers each request with what it was told.
struct Canary {
    port: u16,
    touched: Arc<AtomicUsize>,
    running: JoinHandle<()>,
}

impl Canary {
    async fn answering(answer: &'static str) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let (port, touched) = (listener.local_addr().unwrap().port(), Arc::<AtomicUsize>::default());
        let counted = Arc::clone(&touched);
        let running = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::SeqCst);
                let mut head = [0; 4096];
                let _ = stream.read(&mut head).await;
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { port, touched, running }
    }

    fn touched(&self) -> usize {
        self.touched.load(Ordering::SeqCst)
    }
}

impl Drop for Canary {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

#[test]
fn only_what_is_the_publics_is_public() {
    for open in [
        "8.8.8.8",
        "1.1.1.1",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "172.15.0.1",
        "172.32.0.1",
        "192.0.1.1",
        "192.167.0.1",
        "198.17.0.1",
        "198.20.0.1",
        "223.255.255.255",
        "2606:4700::1111",
        "2a00:1450::1",
        "::ffff:8.8.8.8",
        "64:ff9b::808:808",
        "168.63.129.17",
    ] {
        assert!(is_public(ip(open)), "{open}");
    }
    for closed in [
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "10.255.255.255",
        "100.64.0.1",
        "100.127.255.255",
        "127.0.0.1",
        "127.255.255.254",
        "169.254.169.254",
        "172.16.0.1",
        "172.31.255.255",
        "192.0.0.192",
        "192.0.2.1",
        "192.88.99.1",
        "192.168.1.1",
        "198.18.0.1",
        "198.19.255.255",
        "198.51.100.7",
        "203.0.113.9",
        "224.0.0.1",
        "239.255.255.255",
        "240.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
        "100.100.100.200",
        "::",
        "::1",
        "::7f00:1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "::ffff:0:7f00:1",
        "64:ff9b::7f00:1",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "100::1",
        "2001::1",
        "2001:db8::1",
        "2002:7f00:1::1",
        "2002:808:808::1",
        "3fff::1",
        "4000::1",
        "5f00::1",
        "fc00::1",
        "fd00:ec2::254",
        "fe80::1",
        "fec0::1",
        "ff02::1",
        "ff0e::1",
    ] {
        assert!(!is_public(ip(closed)), "{closed}");
    }
}

/// Nobody but the test's own server listens on the port; whatever reaches it was let through.
#[tokio::test]
async fn no_url_of_the_battery_opens_a_connection() {
    let canary = Canary::answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nsecret").await;
    let port = canary.port;
    let (local, public) = (ip("127.0.0.1"), ip("93.184.215.14"));
    let names = Arc::new(Names {
        answers: vec![
            ("rebinds.test", vec![vec![local]]),
            ("both.test", vec![vec![public, local]]),
            ("mapped.test", vec![vec![ip("::ffff:127.0.0.1")]]),
            ("six.test", vec![vec![ip("::1")]]),
            ("meta.test", vec![vec![ip("169.254.169.254")]]),
            ("ula.test", vec![vec![ip("fd00:ec2::254")]]),
            ("lan.test", vec![vec![ip("192.168.0.10")]]),
            ("localhost", vec![vec![local]]),
            ("nothing.test", vec![vec![]]),
        ],
        ..Names::default()
    });
    let reach = Reach::over(Arc::clone(&names) as Arc<dyn Resolve>, [], []).unwrap();
    let hosts = [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "0x7f.1",
        "127.0.0.1.",
        "0",
        "0.0.0.0",
        "00.00.00.00",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[0:0:0:0:0:ffff:7f00:0001]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[fe80::1]",
        "[fd00::1]",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
        "%31%32%37.0.0.1",
        "rebinds.test",
        "both.test",
        "mapped.test",
        "six.test",
        "meta.test",
        "ula.test",
        "lan.test",
        "nothing.test",
        "169.254.169.254",
        "[::ffff:a9fe:a9fe]",
        "2852039166",
        "0xa9fea9fe",
        "10.0.0.1",
        "192.168.0.1",
        "172.16.0.1",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "168.63.129.16",
    ];
    let mut urls: Vec<String> =
        hosts.iter().flat_map(|host| [format!("https://{host}/"), format!("https://{host}:{port}/")]).collect();
    urls.extend(hosts.iter().map(|host| format!("http://{host}:{port}/")));
    urls.extend(
        [
            "",
            "/",
            "//127.0.0.1/",
            "https://",
            "https:///",
            "https:127.0.0.1",
            "https:/127.0.0.1/",
            "https:\\\\127.0.0.1\\",
            "https://127.0.0.1\\@example.com/",
            "https://example.com@127.0.0.1/",
            "https://user:pass@example.com/",
            "https://@127.0.0.1/",
            "https://example.com:22/",
            "https://example.com:0/",
            "https://example.com:65536/",
            "https://exa mple.com/",
            "https://example.com\t/",
            "https://exam\nple.com/",
            "\u{0}https://example.com/",
            " https://127.0.0.1/",
            "ftp://127.0.0.1/",
            "file:///etc/passwd",
            "gopher://127.0.0.1:6379/_x",
            "data:text/html,x",
            "javascript:alert(1)",
            "unix:/run/x.sock",
            "ws://127.0.0.1/",
            "http://example.com/",
            "HTTPS://127.0.0.1/",
            "https://127.0.0.1#@example.com/",
            "https://127.0.0.1?@x/",
            "https://[::1%25lo]/",
            "https://[::1%lo]/",
            "https://[::1",
            "https://::1/",
            "jar:https://127.0.0.1!/",
            "https://127.0.0.1:443/",
            "https://127.0.0.1:80/",
            "view-source:https://127.0.0.1/",
            "blob:https://127.0.0.1/x",
        ]
        .map(str::to_owned),
    );
    assert!(urls.len() >= 60, "{}", urls.len());
    for url in &urls {
        let fetched = web::fetch(&reach, url).await;
        assert!(matches!(fetched, Err(FetchError::Unreachable(_) | FetchError::Silent)), "{url}");
    }
    assert_eq!(canary.touched(), 0);
}

/// The answer that was checked is the one that is connected to: a name that changes its mind is asked once for each connection.
#[tokio::test]
async fn a_name_is_looked_up_once_for_a_connection() {
    let canary = Canary::answering("").await;
    // Documentation's network, which nobody routes: the connection fails, and must not be tried at the second answer's address.
    let first = ip("192.0.2.1");
    let names = Arc::new(Names { answers: vec![("flips.test", vec![vec![first], vec![ip("127.0.0.1")]])], ..Names::default() });
    let guarded = Guarded(Arc::clone(&names) as Arc<dyn Resolve>);
    assert!(guarded.resolve("flips.test".parse().unwrap()).await.is_err());
    assert!(guarded.resolve("flips.test".parse().unwrap()).await.is_err());
    // The first look-up tells of an address of the public's - one that nobody routes, so that nothing leaves this machine -, the next one
    // of the canary's. The client is sent straight there: the port alone would have kept it from going.
    let names =
        Arc::new(Names { answers: vec![("turns.test", vec![vec![ip("3ffe::1")], vec![ip("127.0.0.1")]])], ..Names::default() });
    let reach = Reach::over(Arc::clone(&names) as Arc<dyn Resolve>, [], []).unwrap();
    let guarded = Guarded(Arc::new(Names { answers: vec![("turns.test", vec![vec![ip("3ffe::1")]])], ..Names::default() }));
    assert!(guarded.resolve("turns.test".parse().unwrap()).await.is_ok(), "the first answer alone is let through");
    for asked in 1..=4 {
        let sent = reach.0.public.get(format!("http://turns.test:{}/", canary.port)).send().await;
        assert!(sent.is_err());
        assert_eq!((names.asked.lock().unwrap().len(), canary.touched()), (asked, 0));
    }
    let names = Arc::new(Names { answers: vec![("flips.test", vec![vec![ip("127.0.0.1")]])], ..Names::default() });
    let listed: HostPort = format!("flips.test:{}", canary.port).parse().unwrap();
    let reach = Reach::over(Arc::clone(&names) as Arc<dyn Resolve>, [listed], []).unwrap();
    let _ = web::fetch(&reach, &format!("http://flips.test:{}/", canary.port)).await;
    assert_eq!((names.asked.lock().unwrap().len(), canary.touched()), (1, 1));
}

#[test]
fn the_lab_itself_is_not_reached() {
    let own = ["lab.example.org:443", "203.0.113.7:8443", "127.0.0.1:9000"].map(|own| own.parse().unwrap());
    let listed = ["127.0.0.1:9000", "127.0.0.1:9001", "lab.example.org:8080"].map(|listed| listed.parse().unwrap());
    let reach = Reach::new(listed, own).unwrap();
    for (url, expected) in [
        ("https://lab.example.org/", Err(Unreachable::Own)),
        ("https://LAB.example.org./api/me", Err(Unreachable::Own)),
        ("https://lab.example.org:80/", Err(Unreachable::Own)),
        ("https://203.0.113.7/", Err(Unreachable::Own)),
        ("http://127.0.0.1:9000/", Err(Unreachable::Own)),
        ("http://127.0.0.1:9001/", Ok(())),
        ("http://lab.example.org:8080/", Ok(())),
        ("https://example.org/", Ok(())),
    ] {
        assert_eq!(reach.to(url).map(|_| ()), expected, "{url}");
    }
}

#[tokio::test]
async fn redirects_are_checked_each_time_and_end() {
    let inside = Canary::answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\nsecret").await;
    for to in [
        format!("http://127.0.0.1:{}/", inside.port),
        format!("//127.0.0.1:{}/", inside.port),
        format!("https://localhost:{}/", inside.port),
        format!("http://[::ffff:127.0.0.1]:{}/", inside.port),
        "http://169.254.169.254/latest/meta-data/".to_owned(),
        "file:///etc/passwd".to_owned(),
    ] {
        let answer = format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let outside = Canary::answering(answer.leak()).await;
        let listed: HostPort = format!("127.0.0.1:{}", outside.port).parse().unwrap();
        let reach = Reach::new([listed], []).unwrap();
        let fetched = web::fetch(&reach, &format!("http://127.0.0.1:{}/", outside.port)).await;
        assert!(matches!(fetched, Err(FetchError::Unreachable(_))), "{to}");
        assert_eq!((outside.touched(), inside.touched()), (1, 0), "{to}");
    }
    let round = Canary::answering("HTTP/1.1 307 Again\r\nlocation: /x\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    let reach = Reach::new([format!("127.0.0.1:{}", round.port).parse().unwrap()], []).unwrap();
    let fetched = web::fetch(&reach, &format!("http://127.0.0.1:{}/", round.port)).await;
    assert_eq!((fetched.err(), round.touched()), (Some(FetchError::Redirects), 6));
}

/// The rules were asked about the first host; the other one is listed as well, and is told of rather than gone to.
#[tokio::test]
async fn another_host_is_another_call() {
    let there = Canary::answering("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 5\r\n\r\nthere").await;
    let to = format!("http://localhost:{}/p", there.port);
    let answer = format!("HTTP/1.1 301 Moved\r\nlocation: {to}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
    let here = Canary::answering(answer.leak()).await;
    let listed = [format!("127.0.0.1:{}", here.port), format!("localhost:{}", there.port)].map(|listed| listed.parse().unwrap());
    let reach = Reach::new(listed, []).unwrap();
    let page = web::fetch(&reach, &format!("http://127.0.0.1:{}/", here.port)).await.ok().unwrap();
    let told = format!("the page has moved to another host, {to}; fetch that address if it is needed");
    assert_eq!((page.status, page.text, here.touched(), there.touched()), (301, told, 1, 0));
    assert_eq!(web::fetch(&reach, &to).await.ok().map(|page| page.text), Some("there".to_owned()));
    for (url, host) in [
        ("https://example.com/a", Some("example.com")),
        ("https://EXAMPLE.com./a", Some("example.com")),
        ("https://example.com.:8443/a", Some("example.com:8443")),
        ("https://example.com:443/", Some("example.com")),
        ("https://[::1]:444/", Some("[::1]:444")),
        ("nothing", None),
    ] {
        assert_eq!(web::host_of(url).as_deref(), host, "{url}");
    }
}

#[tokio::test]
async fn a_page_is_text_and_never_longer_than_is_read() {
    let check = async |answer: String| {
        let server = Canary::answering(answer.leak()).await;
        let reach = Reach::new([format!("127.0.0.1:{}", server.port).parse().unwrap()], []).unwrap();
        web::fetch(&reach, &format!("http://127.0.0.1:{}/", server.port)).await.map(|page| (page.status, page.text, page.cut))
    };
    let answer = |kind: &str, body: &str| {
        format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
    };
    let html =
        "<html><script>bad()</script><h1>T</h1><p>a <a href='https://x.test/?q=secret'>b</a><img src='https://x.test/i'></p>";
    let (status, text, cut) = check(answer("text/html; charset=utf-8", html)).await.unwrap();
    assert_eq!((status, cut), (200, false));
    assert!(text.contains("# T") && text.contains("[b]") && !text.contains("bad()"), "{text}");
    assert_eq!(check(answer("application/json", "{\"a\":1}")).await, Ok((200, "{\"a\":1}".to_owned(), false)));
    assert_eq!(check(answer("image/png", "x")).await, Err(FetchError::NotText));
    assert_eq!(check(answer("", "x")).await, Err(FetchError::NotText));
    let (_, text, cut) = check(answer("text/plain", &"x".repeat(3 << 20))).await.unwrap();
    assert_eq!((text.len(), cut), (2 << 20, true));
    let deep = format!("{}x", "<div></x>".repeat(100_000));
    assert_eq!(check(answer("text/html", &deep)).await.unwrap().1, "x");
}

#[test]
fn what_an_operator_lists_is_a_host_and_a_port() {
    for (text, is) in [
        ("wiki.internal:8080", Some(("wiki.internal", 8080))),
        ("WIKI.internal:1", Some(("wiki.internal", 1))),
        ("[::1]:443", Some(("::1", 443))),
        ("127.1:9", Some(("127.0.0.1", 9))),
        ("wiki.internal", None),
        ("wiki.internal:0", None),
        ("wiki.internal:x", None),
        (":80", None),
        ("a/b:80", None),
        ("u@h:80", None),
        ("https://h:80", None),
    ] {
        let parsed = text.parse::<HostPort>().ok();
        assert_eq!(parsed, is.map(|(host, port)| HostPort { host: host.into(), port }), "{text}");
    }
}
