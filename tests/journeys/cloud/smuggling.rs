//! Row 9: requests that are slow, huge, malformed or two in one are refused, quickly, and no provider ever sees one more than was
//! asked.

use std::time::{Duration, Instant};

use journeys::{
    fake_provider::Totals,
    world::cloud::{CREDITS_NANO, CloudWorld, OPENAI, soon},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{CHAT, chat, question};

const MIB: usize = 1 << 20;
/// What is refused is refused within this, in a debug build on a busy machine.
const QUICKLY: Duration = Duration::from_secs(2);

/// The head of a request to chat, with the key, up to its own further fields.
fn head(world: &CloudWorld, fields: &str) -> String {
    format!(
        "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n{fields}",
        world.key.reveal()
    )
}

/// The statuses of the answers that came back.
fn statuses(answer: &str) -> Vec<u16> {
    let starts = answer.match_indices("HTTP/1.1 ").map(|(at, _)| &answer[at + 9..at + 12]);
    starts.filter_map(|status| status.parse().ok()).collect()
}

/// Writes and reads until the end of the connection, or until nothing has come for a while after something had.
async fn exchange(world: &CloudWorld, bytes: &[u8]) -> String {
    let mut stream = world.caller.connect().await;
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let patience = if answer.is_empty() { Duration::from_secs(15) } else { Duration::from_millis(300) };
        match tokio::time::timeout(patience, stream.read(&mut buffer)).await {
            Ok(Ok(read @ 1..)) => answer.extend_from_slice(&buffer[..read]),
            _ => return String::from_utf8_lossy(&answer).into_owned(),
        }
    }
}

fn has_security_headers(answer: &str) -> bool {
    ["strict-transport-security: ", "x-content-type-options: nosniff", "x-frame-options: DENY", "referrer-policy: no-referrer"]
        .iter()
        .all(|header| answer.contains(header))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_request_is_two() {
    let world = CloudWorld::start().await;
    let body = chat("ofake", false).to_string();
    let second = format!("{}content-length: {}\r\n\r\n{body}", head(&world, ""), body.len());
    let chunked = |body: &str| format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
    let length = body.len();
    // Each with a whole second request behind it, as whoever smuggles has it; what may be answered of it, and how many times the
    // provider may have been asked.
    let cases: Vec<(&str, String, &[u16], u64)> = vec![
        // hyper takes the chunks, which RFC 9112 allows, and closes behind them.
        (
            "CL and TE",
            head(&world, &format!("content-length: 4\r\ntransfer-encoding: chunked\r\n\r\n{}", chunked(&body))),
            &[200, 400],
            1,
        ),
        (
            "TE and CL",
            head(&world, &format!("transfer-encoding: chunked\r\ncontent-length: 4\r\n\r\n{}", chunked(&body))),
            &[200, 400],
            1,
        ),
        ("two lengths", head(&world, &format!("content-length: {length}\r\ncontent-length: 4\r\n\r\n{body}")), &[400], 0),
        ("a list of lengths", head(&world, &format!("content-length: {length}, 4\r\n\r\n{body}")), &[400], 0),
        ("a signed length", head(&world, &format!("content-length: +{length}\r\n\r\n{body}")), &[400], 0),
        ("a negative length", head(&world, "content-length: -1\r\n\r\n"), &[400], 0),
        ("a length beyond all", head(&world, "content-length: 99999999999999999999999\r\n\r\n"), &[400], 0),
        ("an unknown coding", head(&world, &format!("transfer-encoding: xchunked\r\n\r\n{}", chunked(&body))), &[400, 501], 0),
        (
            "chunked, then identity",
            head(&world, &format!("transfer-encoding: chunked, identity\r\n\r\n{}", chunked(&body))),
            &[400],
            0,
        ),
        ("an obsolete fold", head(&world, &format!("x-a: b\r\n c\r\ncontent-length: {length}\r\n\r\n{body}")), &[400], 0),
        ("a folded length", head(&world, &format!("content-length:\r\n {length}\r\n\r\n{body}")), &[400], 0),
        ("a bare CR", head(&world, &format!("x-a: b\rcontent-length: 4\r\ncontent-length: {length}\r\n\r\n{body}")), &[400], 0),
        ("a NUL in a value", head(&world, &format!("x-a: b\0\r\ncontent-length: {length}\r\n\r\n{body}")), &[400], 0),
        ("a blank before the colon", head(&world, &format!("content-length : {length}\r\n\r\n{body}")), &[400], 0),
        ("a chunk's length beyond all", head(&world, "transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n"), &[400], 0),
        (
            "a chunk's length wrapping round",
            head(&world, &format!("transfer-encoding: chunked\r\n\r\n1000000000000000{length:x}\r\n{body}")),
            &[400],
            0,
        ),
        (
            "a chunk without its end",
            head(&world, &format!("transfer-encoding: chunked\r\n\r\n2\r\n{body}\r\n0\r\n\r\n")),
            &[400],
            0,
        ),
        (
            "a chunk's length that is none",
            head(&world, &format!("transfer-encoding: chunked\r\n\r\nxyz\r\n{body}\r\n0\r\n\r\n")),
            &[400],
            0,
        ),
        ("no host", format!("POST {CHAT} HTTP/1.1\r\ncontent-length: 0\r\n\r\n"), &[400, 401], 0),
        ("HTTP/0.9", "GET /v1/models\r\n\r\n".to_owned(), &[400], 0),
        ("HTTP/3.7", "GET /v1/models HTTP/3.7\r\n\r\n".to_owned(), &[400], 0),
        ("CONNECT", "CONNECT 127.0.0.1:1 HTTP/1.1\r\nhost: 127.0.0.1:1\r\n\r\n".to_owned(), &[400, 404, 405], 0),
        ("a NUL in the path", "GET /v1/mod\0els HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), &[400], 0),
        ("a blank in the path", "GET /v1/mod els HTTP/1.1\r\nhost: localhost\r\n\r\n".to_owned(), &[400], 0),
    ];
    for (what, first, allowed, asked) in cases {
        let before = world.providers.totals().started;
        let answer = exchange(&world, format!("{first}{second}").as_bytes()).await;
        let (statuses, now) = (statuses(&answer), world.providers.totals().started - before);
        assert!(statuses.first().is_some_and(|status| allowed.contains(status)), "{what}: {answer}");
        // The whole second request may follow only behind one that was whole itself.
        let most = if asked == 1 { 2 } else { u64::from(statuses.len() > 1) };
        assert!(
            now <= most && now >= u64::from(asked == 1 && statuses[0] == 200),
            "{what}: the provider was asked {now} times: {answer}"
        );
        assert!(has_security_headers(&answer), "{what}: {answer}");
        println!("{what}: {statuses:?}, {now} at the provider");
        for seen in world.providers.log() {
            assert_eq!(seen.body, body.as_bytes(), "{what}: nothing but the whole body");
        }
    }
}

/// HTTP allows a lone LF as a line's end, and hyper takes it; either way it is one request.
#[tokio::test(flavor = "multi_thread")]
async fn lines_that_end_with_a_bare_lf_are_one_request_or_none() {
    let world = CloudWorld::start().await;
    let body = chat("ofake", false).to_string();
    let head = head(&world, &format!("content-length: {}\r\nconnection: close\r\n\r\n", body.len())).replace("\r\n", "\n");
    let answer = world.caller.raw(format!("{head}{body}").as_bytes()).await;
    assert!([vec![200], vec![400]].contains(&statuses(&answer)), "{answer}");
    assert!(world.providers.totals().started <= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_targets_reach_what_they_name_or_nothing() {
    let world = CloudWorld::start().await;
    let key = world.key.reveal();
    let ask = async |target: &str, fields: &str| {
        let body = question(OPENAI, "ofake", false).1.to_string();
        let head = format!("POST {target} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\nconnection: close\r\n{fields}");
        world.caller.raw(format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
    };
    // Another's address is never connected to: only the path counts, and it is the Lab's own.
    let answer = ask("http://169.254.169.254/latest/meta-data", "").await;
    assert_eq!(statuses(&answer), [404], "{answer}");
    let answer = ask("http://127.0.0.1:1/v1/chat/completions", "").await;
    assert!([vec![200], vec![400]].contains(&statuses(&answer)), "{answer}");
    let asked = world.providers.totals().started;
    assert!(asked <= 1);
    for target in [
        "/v1/../v1/chat/completions",
        "//v1/chat/completions",
        "/v1//chat/completions",
        "/v1/chat/completions/",
        "/v1/chat%2fcompletions",
        "/v1/chat/completions%00",
        "/V1/chat/completions",
        "/v1beta/models/..%2f..%2fv1%2fx:generateContent",
        "/v1beta/models/../../openai/v1/chat/completions",
        "/v1beta/models/gfake%2f..%2f..:generateContent",
        "/v1beta/models/gfake%00:generateContent",
        "/v1beta/models/gfake%0d%0ax-a:%20b:generateContent",
        "/v1beta/models/%2e%2e:generateContent",
        "/v1beta/models/gfake:generateContent:generateContent",
        "/v1beta/models/gfake:deleteEverything",
        "/openai/deployments/..%2f..%2fmodels/chat/completions",
        "/openai/deployments/wfake%3fx/chat/completions",
    ] {
        let answer = ask(target, "").await;
        assert!([vec![404], vec![400], vec![405]].contains(&statuses(&answer)), "{target}: {answer}");
    }
    assert_eq!(world.providers.totals().started, asked, "nobody was asked");
    // Nobody leaves HTTP/1 by asking for it.
    let upgrade = "connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n";
    let head = format!("POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: {key}\r\n{upgrade}");
    let body = chat("ofake", false).to_string();
    let answer = exchange(&world, format!("{head}content-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await;
    assert_eq!(statuses(&answer), [200], "{answer}");
    assert_eq!(world.providers.totals().started, asked + 1);
    let last = world.last_seen();
    assert!(!last.headers.contains_key("upgrade") && !last.headers.contains_key("http2-settings"), "{:?}", last.headers);
    // What is in a query stays there.
    let path = "/v1beta/models/gfake:generateContent?alt=sse%0d%0a&key=x%20HTTP/1.1&x=%00#y";
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\nx-goog-api-key: x HTTP/1.1\r\nauthorization: Bearer {key}\r\n");
    let answer = world.caller.raw(format!("{head}connection: close\r\ncontent-length: 2\r\n\r\n{{}}").as_bytes()).await;
    assert_eq!(statuses(&answer), [400], "two keys that differ: {answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_too_large_is_431_with_the_headers_of_every_answer() {
    let world = CloudWorld::start().await;
    let many: String = (0..70).map(|number| format!("x-{number}: a\r\n")).collect();
    for (what, fields) in [
        ("64 fields and more", many),
        ("one field of 40 KiB", format!("x-a: {}\r\n", "a".repeat(40 << 10))),
        ("33 KiB of fields", format!("x-a: {}\r\nx-b: {}\r\n", "a".repeat(16 << 10), "b".repeat(17 << 10))),
    ] {
        let at = Instant::now();
        let answer = world.caller.raw(head(&world, &format!("{fields}content-length: 2\r\n\r\n{{}}")).as_bytes()).await;
        assert_eq!(statuses(&answer), [431], "{what}: {answer}");
        assert!(has_security_headers(&answer), "{what}: {answer}");
        assert!(at.elapsed() < QUICKLY, "{what}: {:?}", at.elapsed());
    }
    let long = format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "a".repeat(40 << 10));
    let answer = world.caller.raw(long.as_bytes()).await;
    assert!([vec![414], vec![431]].contains(&statuses(&answer)), "{answer}");
    assert!(has_security_headers(&answer), "{answer}");
    assert_eq!(world.providers.totals(), Totals::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_large_is_refused_before_it_is_read() {
    let world = CloudWorld::start().await;
    // Told in advance: nothing of it needs to come.
    for length in [32 * MIB + 1, 1 << 40] {
        let mut stream = world.caller.connect().await;
        let at = Instant::now();
        stream.write_all(head(&world, &format!("content-length: {length}\r\n\r\n")).as_bytes()).await.expect("a head");
        let mut answer = vec![0; 4096];
        let read = soon("the refusal", stream.read(&mut answer)).await.expect("bytes");
        let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
        assert_eq!(statuses(&answer), [413], "{answer}");
        assert!(answer.contains("x-1k4-error: too_large") && at.elapsed() < QUICKLY, "{:?} {answer}", at.elapsed());
    }
    // In chunks, whose sum nobody knows before.
    let stream = world.caller.connect().await;
    let (mut reading, mut writing) = tokio::io::split(stream);
    let head = head(&world, "transfer-encoding: chunked\r\n\r\n");
    let sending = tokio::spawn(async move {
        let chunk = [format!("{MIB:x}\r\n").into_bytes(), vec![b' '; MIB], b"\r\n".to_vec()].concat();
        let mut sent = 0;
        if writing.write_all(head.as_bytes()).await.is_err() {
            return sent;
        }
        // For ever, if nobody says anything.
        while sent < 1024 && writing.write_all(&chunk).await.is_ok() {
            sent += 1;
        }
        sent
    });
    let mut answer = vec![0; 4096];
    let read = soon("the refusal", reading.read(&mut answer)).await.expect("bytes");
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    assert_eq!(statuses(&answer), [413], "{answer}");
    drop(reading);
    let sent = soon("the sender is stopped", sending).await.expect("a sender");
    println!("of an endless body {sent} MiB were taken");
    assert!(sent < 64, "{sent} MiB were taken");
    assert_eq!(world.providers.totals(), Totals::default());
    let records = world.records(3).await;
    assert!(records.iter().all(|record| (record.status, record.outcome.as_str()) == (413, "too_large")));
    world.spent(CREDITS_NANO, &records).await;
}

/// The one real ten seconds of these tests: a byte a second is too slow, in time and with a word.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_too_slow_is_408() {
    let world = CloudWorld::start().await;
    let (mut reading, mut writing) = tokio::io::split(world.caller.connect().await);
    writing.write_all(head(&world, "content-length: 1000\r\n\r\n{").as_bytes()).await.expect("a head");
    let at = Instant::now();
    let dripping = tokio::spawn(async move {
        while writing.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    });
    let mut answer = vec![0; 4096];
    let read = soon("the refusal", reading.read(&mut answer)).await.expect("bytes");
    let answer = String::from_utf8_lossy(&answer[..read]).into_owned();
    dripping.abort();
    assert_eq!(statuses(&answer), [408], "{answer}");
    assert!(answer.contains("body_timeout"), "{answer}");
    assert!((Duration::from_secs(9)..Duration::from_secs(13)).contains(&at.elapsed()), "{:?}", at.elapsed());
    assert_eq!(world.providers.totals(), Totals::default());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_cannot_be_read_is_400() {
    let world = CloudWorld::start().await;
    let deep = format!("{{\"model\":{}1{}}}", "[".repeat(200_000), "]".repeat(200_000));
    for (body, code) in [
        ("", "invalid_body"),
        ("{", "invalid_body"),
        ("[]", "invalid_body"),
        ("null", "invalid_body"),
        ("{}{}", "invalid_body"),
        ("{\"model\":\"ofake\",}", "invalid_body"),
        ("\u{feff}{\"model\":\"ofake\"}", "invalid_body"),
        ("{\"model\":\"ofake\",\"model\":\"hfake\"}", "duplicate_field"),
        ("{\"model\":\"ofake\",\"mod\\u0065l\":\"hfake\"}", "duplicate_field"),
        ("{\"model\":7}", "invalid_type"),
        ("{\"model\":\"ofake\",\"stream\":\"yes\"}", "invalid_type"),
        ("{\"model\":\"\\ud800\"}", "invalid_body"),
        ("{}", "missing_model"),
        (deep.as_str(), "invalid_type"),
    ] {
        let answer = world.caller.post_bytes(CHAT, body.to_owned().into()).await;
        let shown = &body[..body.len().min(60)];
        assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (400, code), "{shown}");
    }
    let raw = world.caller.post_bytes(CHAT, b"{\"model\":\"\xff\"}".as_slice().into()).await;
    assert_eq!((raw.status.as_u16(), raw.header("x-1k4-error")), (400, "invalid_body"));
    assert_eq!(world.providers.totals(), Totals::default());
}

/// Whoever has no good key makes the Lab read nothing.
#[tokio::test(flavor = "multi_thread")]
async fn bodies_of_those_who_may_not_ask_are_not_kept() {
    const MANY: usize = 100;
    let world = CloudWorld::start().await;
    let piece = bytes::Bytes::from(vec![b' '; MIB]);
    let before = memory();
    let senders: Vec<_> = (0..MANY)
        .map(|_| {
            let (caller, piece) = (world.caller.clone(), piece.clone());
            tokio::spawn(async move {
                let (mut reading, mut writing) = tokio::io::split(caller.connect().await);
                let at = Instant::now();
                let head = format!(
                    "POST {CHAT} HTTP/1.1\r\nhost: localhost\r\nx-api-key: 1k4_live_nobody\r\ncontent-length: {}\r\n\r\n",
                    32 * MIB
                );
                writing.write_all(head.as_bytes()).await.expect("a head");
                let sending = tokio::spawn(async move {
                    let mut sent = 0;
                    while sent < 32 && writing.write_all(&piece).await.is_ok() {
                        sent += 1;
                    }
                    sent
                });
                let mut answer = vec![0; 4096];
                let read = reading.read(&mut answer).await.expect("an answer");
                let took = at.elapsed();
                assert_eq!(statuses(&String::from_utf8_lossy(&answer[..read])), [401]);
                drop(reading);
                (took, soon("the sender ends", sending).await.expect("a sender"))
            })
        })
        .collect();
    let (mut slowest, mut sent) = (Duration::ZERO, 0);
    for sender in senders {
        let (took, pieces) = sender.await.expect("a sender");
        slowest = slowest.max(took);
        sent += pieces;
    }
    let grown = memory().saturating_sub(before);
    println!(
        "{MANY} refused, the slowest after {slowest:?}; {sent} of {} MiB were taken, {} MiB of memory",
        MANY * 32,
        grown >> 20
    );
    // Other tests are this process too; kept, it would be more than three times this.
    assert!(grown < 1 << 30, "{grown}");
    assert!(slowest < Duration::from_secs(10), "{slowest:?}");
    assert_eq!(world.providers.totals(), Totals::default());
}

/// Bytes of this process in memory; 0 where the system does not say so.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap_or_default() << 10
}
