//! A fleet of simulated bridges, for measuring what an idle link costs the Lab: each holds a real link (TLS, WebSocket, hello,
//! HTTP/2, control stream, PINGs) and has no Ollama behind it.

use std::{convert::Infallible, path::PathBuf, process::ExitCode, sync::Arc};

use anyhow::{Context, anyhow};
use bytes::Bytes;
use clap::Parser;
use ed25519_dalek::SigningKey;
use futures_util::{SinkExt, StreamExt, TryStreamExt, stream};
use http::{Request, Response};
use http_body::Frame;
use http_body_util::StreamBody;
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use journeys::caller::Caller;
use lab_server::{
    Config,
    store::{Enrolment, Store},
};
use tokio_tungstenite::tungstenite::{Message, handshake::client::generate_key};
use wire::{
    DeviceId,
    hello::{Challenge, LINK_PATH, Proof, SUBPROTOCOL, Verdict},
    relay::{BridgeEvent, CONNECTION_WINDOW, PING_EVERY, PING_TIMEOUT, STREAM_WINDOW, Snapshot},
    stream::{LinkStream, websocket_config},
};

/// Handshakes at once: enough to keep two cores busy, few enough to stay within the hello's limit.
const AT_ONCE: usize = 32;

/// Holds so many links to a Lab until it is ended. Prints `linked N` when all are up.
#[derive(Parser)]
struct Args {
    /// The Lab's origin, `https://localhost:PORT`, as bridges sign it.
    #[arg(long)]
    lab: String,
    /// The Lab's CA.
    #[arg(long)]
    ca_file: PathBuf,
    /// The Lab's data folder: the fleet enrols itself, without the ceremony.
    #[arg(long)]
    data_dir: PathBuf,
    /// How many.
    #[arg(long, default_value_t = 5_000)]
    count: usize,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> anyhow::Result<()> {
    let port = args.lab.rsplit(':').next().and_then(|port| port.parse::<u16>().ok()).context("the Lab's origin names no port")?;
    let ca_pem = std::fs::read_to_string(&args.ca_file).context("the CA file")?;
    let caller = Caller::new(([127, 0, 0, 1], port).into(), &ca_pem, None);
    let store = Store::of(&Config::in_dir(args.data_dir)).await.context("the Lab's database")?;
    let owner = store.users().await?.first().context("the Lab has no user")?.id;
    let mut fleet = Vec::with_capacity(args.count);
    for number in 0..args.count {
        let mut seed = [0; 32];
        getrandom::fill(&mut seed).map_err(|_| anyhow!("no randomness"))?;
        let key = SigningKey::from_bytes(&seed);
        let public = key.verifying_key();
        let hostname = format!("fleet-{number}");
        let enrolment = Enrolment { owner, public_key: public.as_bytes(), hostname: &hostname, os: "none", version: "0.0.0" };
        fleet.push((store.enrol_device(&enrolment).await?.id, key));
    }
    let linked = stream::iter(fleet)
        .map(|(device, key)| link(&caller, &args.lab, device, key))
        .buffer_unordered(AT_ONCE)
        .try_fold(0_usize, async |count, ()| Ok(count + 1))
        .await?;
    println!("linked {linked}");
    std::future::pending().await
}

/// Opens one link and leaves it to a task of its own.
async fn link(caller: &Caller, lab: &str, device: DeviceId, key: SigningKey) -> anyhow::Result<()> {
    let tls = caller.connect().await;
    let authority = lab.trim_start_matches("https://");
    let request = Request::get(format!("wss://{authority}{LINK_PATH}"))
        .header("host", authority)
        .header("connection", "Upgrade")
        .header("upgrade", "websocket")
        .header("sec-websocket-version", "13")
        .header("sec-websocket-key", generate_key())
        .header("sec-websocket-protocol", SUBPROTOCOL)
        .body(())?;
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(request, tls, Some(websocket_config())).await?;
    let Some(Ok(Message::Text(challenge))) = socket.next().await else { anyhow::bail!("no challenge") };
    let challenge: Challenge = serde_json::from_str(&challenge)?;
    let proof = Proof::sign(&key, device, lab, &challenge, "0.0.0");
    socket.send(Message::text(serde_json::to_string(&proof)?)).await?;
    let Some(Ok(Message::Text(verdict))) = socket.next().await else { anyhow::bail!("no verdict") };
    anyhow::ensure!(matches!(serde_json::from_str(&verdict)?, Verdict::Welcome { .. }), "not welcome");
    let connection = http2::Builder::new(TokioExecutor::new())
        .timer(TokioTimer::new())
        .initial_connection_window_size(CONNECTION_WINDOW)
        .initial_stream_window_size(STREAM_WINDOW)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_TIMEOUT)
        .serve_connection(TokioIo::new(LinkStream::new(socket)), service_fn(control));
    tokio::spawn(async move {
        if connection.await.is_err() {
            eprintln!("fleet: a link has ended");
        }
    });
    Ok(())
}

/// Answers the control stream with a snapshot and then nothing, for ever.
async fn control(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let snapshot = BridgeEvent::Snapshot(Box::new(Snapshot { name: "fleet".to_owned(), ..Snapshot::default() }));
    let mut line = serde_json::to_vec(&snapshot).unwrap_or_default();
    line.push(b'\n');
    let first = stream::once(async move { Ok(Frame::data(Bytes::from(line))) });
    // The request's body is held so that the stream stays open both ways.
    let rest = stream::once(async move {
        let _held = Arc::new(request.into_body());
        std::future::pending().await
    });
    Ok(Response::new(StreamBody::new(first.chain(rest))))
}
