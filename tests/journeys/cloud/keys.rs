//! Row 3: who has no good key reaches nobody, on every route and in every spelling, and learns nothing.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use api_proxy::{Endpoint, Listing, Surface, surface};
use http::Method;
use journeys::{
    caller::{Line, Whole},
    fake_provider::Totals,
    world::cloud::CloudWorld,
};
use lab_server::{
    account::{
        self,
        api_key::{Environment, NewKey},
    },
    store::KeyTerms,
};
use sha2::{Digest, Sha256};

/// Whose errors look how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Words {
    Openai,
    Anthropic,
    Gemini,
    Ollama,
}

/// Every route of the model API, one path each, those of Azure and Gemini with a name in them.
fn routes() -> Vec<(Method, &'static str, Words)> {
    let post = |path, words| (Method::POST, path, words);
    let get = |path, words| (Method::GET, path, words);
    vec![
        post("/v1/chat/completions", Words::Openai),
        post("/v1/completions", Words::Openai),
        post("/v1/embeddings", Words::Openai),
        post("/v1/responses", Words::Openai),
        post("/v1/images/generations", Words::Openai),
        post("/v1/messages", Words::Anthropic),
        post("/v1/messages/count_tokens", Words::Anthropic),
        post("/v1beta/models/gfake:generateContent", Words::Gemini),
        post("/v1beta/models/gfake:streamGenerateContent", Words::Gemini),
        post("/v1beta/models/gfake:streamGenerateContent?alt=sse", Words::Gemini),
        post("/v1beta/models/gfake:countTokens", Words::Gemini),
        post("/v1beta/models/gfake:embedContent", Words::Gemini),
        post("/v1beta/models/gfake:batchEmbedContents", Words::Gemini),
        post("/v1beta/openai/chat/completions", Words::Openai),
        post("/openai/v1/chat/completions", Words::Openai),
        post("/openai/v1/responses", Words::Openai),
        post("/openai/deployments/wfake/chat/completions?api-version=2024-10-21", Words::Openai),
        post("/openai/deployments/wfake/embeddings?api-version=2024-10-21", Words::Openai),
        post("/api/chat", Words::Ollama),
        post("/api/generate", Words::Ollama),
        post("/api/embed", Words::Ollama),
        post("/api/show", Words::Ollama),
        get("/v1/models", Words::Openai),
        get("/v1/models/ofake", Words::Openai),
        get("/openai/v1/models", Words::Openai),
        get("/v1beta/models", Words::Gemini),
        get("/v1beta/models/gfake", Words::Gemini),
        get("/api/tags", Words::Ollama),
        get("/api/ps", Words::Ollama),
        get("/api/version", Words::Ollama),
    ]
}

#[test]
fn the_table_above_is_whole() {
    let found: HashSet<Surface> = routes()
        .iter()
        .map(|(method, path, _)| {
            let path = path.split('?').next().expect("a path");
            surface(method, path).unwrap_or_else(|| panic!("{method} {path} is no route")).surface
        })
        .collect();
    let listings = [Listing::Models, Listing::Model, Listing::Tags, Listing::Running, Listing::Version];
    let all: HashSet<Surface> =
        Endpoint::ALL.into_iter().map(Surface::Model).chain(listings.into_iter().map(Surface::Listing)).collect();
    assert_eq!(found, all);
}

/// The headers and the query with which a key can be shown at a path.
fn spellings(path: &str, key: &str) -> Vec<(Vec<(&'static str, String)>, String)> {
    let mut all: Vec<_> = ["x-api-key", "api-key", "x-goog-api-key"]
        .into_iter()
        .map(|name| (vec![(name, key.to_owned())], path.to_owned()))
        .chain([
            (vec![("authorization", format!("Bearer {key}"))], path.to_owned()),
            (vec![("authorization", format!("bearer {key}")), ("x-api-key", key.to_owned())], path.to_owned()),
        ])
        .collect();
    if path.starts_with("/v1beta/models") {
        let mark = if path.contains('?') { '&' } else { '?' };
        all.push((Vec::new(), format!("{path}{mark}key={key}")));
    }
    all
}

async fn ask(line: &mut Line, method: &Method, path: &str, headers: &[(&'static str, String)]) -> Whole {
    let headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    let body = if *method == Method::POST { r#"{"model":"ofake","messages":[]}"# } else { "" };
    line.ask(method.clone(), path, &headers, body).await
}

/// The two paths that OpenAI's, Anthropic's and Google's clients share go by the header that only Google's send.
fn words_of(path: &str, headers: &[(&'static str, String)], words: Words) -> Words {
    let is_shared = path == "/v1/models" || path.starts_with("/v1/models/");
    if is_shared && headers.iter().any(|(name, _)| *name == "x-goog-api-key") { Words::Gemini } else { words }
}

/// What the error says, as the protocol has it.
fn check_words(answer: &Whole, words: Words, status: u16, code: &str, what: &str) {
    assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (status, code), "{what}: {}", answer.text());
    assert_eq!(answer.header("x-1k4-source"), "gateway", "{what}");
    let error = answer.json();
    let kind = if status == 401 { "authentication_error" } else { "invalid_request_error" };
    match words {
        Words::Ollama => assert!(error["error"].is_string(), "{what}: {error}"),
        Words::Openai => {
            assert_eq!((&error["error"]["type"], &error["error"]["code"]), (&kind.into(), &code.into()), "{what}: {error}")
        }
        Words::Anthropic => {
            assert_eq!((&error["type"], &error["error"]["type"]), (&"error".into(), &kind.into()), "{what}: {error}")
        }
        Words::Gemini => {
            assert_eq!(
                (&error["error"]["code"], &error["error"]["details"][0]["reason"]),
                (&status.into(), &code.into()),
                "{what}"
            );
        }
    }
}

/// The answer without what is another in each: the request's id and the time; and without the way to its record, which only those have
/// whose key is good for something.
fn without_ids(answer: &Whole) -> (u16, Vec<(String, String)>, String) {
    let id = answer.header("x-1k4-request-id").to_owned();
    assert!(id.starts_with("req_"), "{id}");
    let headers = answer.headers.iter().filter(|(name, _)| *name != "date" && *name != "x-1k4-receipt");
    let headers = headers.map(|(name, value)| (name.to_string(), value.to_str().expect("text").replace(&id, "ID")));
    (answer.status.as_u16(), headers.collect(), answer.text().replace(&id, "ID"))
}

/// The checksum of a key, as it is published for scanners of secrets.
fn with_checksum(body: &str) -> String {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut rest = crc32fast::hash(body.as_bytes()) as usize;
    let mut digits = [b'0'; 6];
    for digit in digits.iter_mut().rev() {
        *digit = DIGITS[rest % 62];
        rest /= 62;
    }
    format!("{body}{}", String::from_utf8_lossy(&digits))
}

/// What the database keeps of a key's secret, found in its files as a thief would find it.
fn stored_hash(world: &CloudWorld, key: &NewKey) -> String {
    let text = key.reveal();
    let secret = &text.as_bytes()[text.len() - 49..text.len() - 6];
    for file in ["lab.sqlite-wal", "lab.sqlite"] {
        let bytes = std::fs::read(world.dir().join("lab").join(file)).unwrap_or_default();
        // The id stands in the same row, shortly before.
        let kid = key.kid().to_string();
        for at in (0..bytes.len()).filter(|at| bytes[*at..].starts_with(kid.as_bytes())) {
            let row = &bytes[at..bytes.len().min(at + 512)];
            for (salt, hash) in row.windows(48).map(|both| both.split_at(16)) {
                let digest = Sha256::new_with_prefix("1k4-key-v1").chain_update(salt).chain_update(secret).finalize();
                if digest.as_slice() == hash {
                    return data_encoding::HEXLOWER.encode(hash);
                }
            }
        }
    }
    panic!("the key's hash is not where it was looked for")
}

async fn key_that_ended(world: &CloudWorld) -> NewKey {
    let key = world.key(KeyTerms::default()).await;
    world.lab.revocations.revoke_key(key.kid()).await.expect("revoked");
    key
}

async fn expired_key(world: &CloudWorld) -> NewKey {
    world.key(KeyTerms { expires_at: Some(1), ..KeyTerms::default() }).await
}

#[tokio::test(flavor = "multi_thread")]
async fn no_bad_key_opens_any_route_in_any_spelling() {
    let world = CloudWorld::start().await;
    let nobody = world.caller.with_key(None);
    let good = world.key.reveal();
    let mistyped = format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    let hash = stored_hash(&world, &world.key);
    let dressed_hash = with_checksum(&format!("1k4_live_{}_{}", world.key.kid(), &hash[..43]));
    let (revoked, expired) = (key_that_ended(&world).await, expired_key(&world).await);
    let unknown = NewKey::generate(Environment::Live);
    let bad = [
        ("garbage", "sk-proj-abcdefghijklmnopqrstuvwxyz"),
        ("a wrong checksum", mistyped.as_str()),
        ("unknown", unknown.reveal()),
        ("revoked", revoked.reveal()),
        ("expired", expired.reveal()),
        ("the stored hash", hash.as_str()),
        ("the stored hash, dressed up as a key", dressed_hash.as_str()),
    ];
    let mut line = nobody.line().await;
    let mut asked = 0;
    for (method, path, words) in routes() {
        let missing = ask(&mut line, &method, path, &[]).await;
        check_words(&missing, words, 401, "missing_api_key", path);
        assert_eq!(missing.header("www-authenticate"), "Bearer");
        let mut first = HashMap::new();
        for (what, key) in bad {
            for (headers, path) in spellings(path, key) {
                let what = format!("{what} at {method} {path} by {:?}", headers.iter().map(|(name, _)| name).collect::<Vec<_>>());
                let answer = ask(&mut line, &method, &path, &headers).await;
                let words = words_of(&path, &headers, words);
                check_words(&answer, words, 401, "invalid_api_key", &what);
                assert_eq!(answer.header("www-authenticate"), "Bearer");
                let bare = without_ids(&answer);
                assert_eq!(*first.entry(words).or_insert(bare.clone()), bare, "{what}: not the same as the others");
                asked += 1;
            }
        }
        // A good key that is another project's is no better.
        let other = world.lab.store.add_project(world.user, &format!("other {asked}")).await.expect("a project").id.to_string();
        for (mut headers, path) in spellings(path, good) {
            headers.push(("x-1k4-project", other.clone()));
            let answer = ask(&mut line, &method, &path, &headers).await;
            let words = words_of(&path, &headers, words);
            check_words(&answer, words, 401, "invalid_api_key", &path);
            assert_eq!(Some(&without_ids(&answer)), first.get(&words), "another project's at {path}");
            asked += 1;
        }
        // Two that differ are none, whichever of them is good.
        let spelled = spellings(path, good);
        for (headers, path) in &spelled {
            for name in ["x-api-key", "api-key", "x-goog-api-key", "authorization"] {
                if headers.iter().any(|(taken, _)| *taken == name) {
                    continue;
                }
                let second = if name == "authorization" { "Bearer another" } else { "another" };
                let headers: Vec<_> = headers.iter().cloned().chain([(name, second.to_owned())]).collect();
                let answer = ask(&mut line, &method, path, &headers).await;
                check_words(&answer, words_of(path, &headers, words), 400, "ambiguous_api_key", path);
                asked += 1;
            }
        }
    }
    println!("{asked} requests were refused");
    assert_eq!(world.providers.totals(), Totals::default(), "nobody was asked, and nobody connected to");
    assert_eq!(world.spare.totals(), Totals::default());
    // Records and receipts are no way in either.
    for (_, key) in bad {
        let answer = line.ask(Method::GET, "/v1/requests/req_00000000000000000000000000", &[("x-api-key", key)], "").await;
        assert_eq!(answer.status, 401);
    }
    // And the good one opens.
    assert_eq!(world.caller.post("/v1/chat/completions", &super::chat("ofake", false)).await.status, 200);
}

/// An empty query is no key, and only Google's words may have one there.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_in_an_address_is_read_at_googles_paths_only() {
    let world = CloudWorld::start().await;
    let mut line = world.caller.with_key(None).line().await;
    let key = world.key.reveal();
    for path in ["/v1/models", "/v1/chat/completions", "/v1/messages", "/api/tags", "/openai/v1/models", "/v1beta/openai/models"] {
        let method = if path.ends_with('s') && !path.ends_with("completions") && !path.ends_with("messages") {
            Method::GET
        } else {
            Method::POST
        };
        let answer = line.ask(method, &format!("{path}?key={key}"), &[], "").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (401, "missing_api_key"), "{path}");
    }
    let answer = line.ask(Method::GET, &format!("/v1beta/models?key={key}"), &[], "").await;
    assert_eq!(answer.status, 200);
}

/// A key that never was and one that was takes the same time to refuse.
#[tokio::test(flavor = "multi_thread")]
async fn unknown_and_revoked_keys_take_the_same_time() {
    const ROUNDS: usize = 400;
    let world = CloudWorld::start().await;
    let mut line = world.caller.with_key(None).line().await;
    let keys = [NewKey::generate(Environment::Live), key_that_ended(&world).await, expired_key(&world).await];
    let mut took: [Vec<Duration>; 3] = Default::default();
    for round in 0..ROUNDS {
        // In turns, and each in each place, so that whatever else this machine does befalls all of them.
        for turn in 0..keys.len() {
            let which = (round + turn) % keys.len();
            let bearer = format!("Bearer {}", keys[which].reveal());
            let at = Instant::now();
            let answer = line.ask(Method::POST, "/v1/chat/completions", &[("authorization", &bearer)], "{}").await;
            took[which].push(at.elapsed());
            assert_eq!(answer.status, 401);
        }
    }
    let median = |mut times: Vec<Duration>| {
        times.sort_unstable();
        times[times.len() / 2]
    };
    let [unknown, revoked, expired] = took.map(median);
    println!("medians of {ROUNDS}: unknown {unknown:?}, revoked {revoked:?}, expired {expired:?}");
    for other in [revoked, expired] {
        let factor = other.as_secs_f64() / unknown.as_secs_f64();
        assert!((0.67..1.5).contains(&factor), "{factor}");
    }
}

/// What a key may not do it is told, and nobody is asked.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_of_another_scope_opens_no_model() {
    let world = CloudWorld::start().await;
    let terms = KeyTerms { scopes: [lab_server::store::Scope::Usage].into_iter().collect(), ..KeyTerms::default() };
    let (key, _) = account::create_key(&world.lab.store, world.project, "usage", terms).await.expect("a key");
    let mut line = world.caller_with(&key).line().await;
    for (method, path, _) in routes() {
        let answer = line.ask(method, path, &[], "{}").await;
        assert_eq!((answer.status.as_u16(), answer.header("x-1k4-error")), (403, "key_scope"), "{path}");
    }
    assert_eq!(world.providers.totals(), Totals::default());
}
