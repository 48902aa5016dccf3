//! A Lab in the wrong hands: it passes the hello and then asks the bridge for whatever it likes.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::Full;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::{ServerConfig, pki_types::PrivateKeyDer};
use tokio::net::TcpListener;
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use tokio_tungstenite::{
    WebSocketStream, accept_hdr_async_with_config,
    tungstenite::{
        Message,
        handshake::server::{Request as Upgrade, Response as Upgraded},
    },
};
use wire::{
    hello::{Challenge, Proof, SUBPROTOCOL, Verdict},
    relay::CONNECTION_WINDOW,
    stream::{LinkStream, websocket_config},
};

/// A WebSocket to a bridge that has just dialled.
pub type Socket = WebSocketStream<TlsStream<tokio::net::TcpStream>>;

/// Listens as a Lab would, with a certificate that the bridge trusts.
pub struct HostileLab {
    /// The address that the bridge must be paired with.
    pub origin: String,
    /// The CA to trust.
    pub ca_pem: String,
    listener: TcpListener,
    tls: TlsAcceptor,
}

impl HostileLab {
    /// A new one.
    ///
    /// # Panics
    /// When it cannot listen.
    pub async fn start() -> Self {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
        let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).expect("a key");
        let tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], key)
            .expect("a server");
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let origin = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        Self { origin, ca_pem: made.cert.pem(), listener, tls: TlsAcceptor::from(Arc::new(tls)) }
    }

    /// Waits for the bridge and opens the WebSocket.
    ///
    /// # Panics
    /// When it is not a bridge that comes.
    pub async fn accept(&self) -> Socket {
        let (tcp, _) = self.listener.accept().await.expect("a connection");
        tcp.set_nodelay(true).expect("a socket option");
        let tls = self.tls.accept(tcp).await.expect("TLS");
        #[expect(clippy::result_large_err, reason = "the type is tungstenite's")]
        let choose = |_: &Upgrade, mut response: Upgraded| {
            response.headers_mut().insert("sec-websocket-protocol", SUBPROTOCOL.parse().expect("a header"));
            Ok(response)
        };
        accept_hdr_async_with_config(tls, choose, Some(websocket_config())).await.expect("a WebSocket")
    }

    /// Challenges the bridge with this nonce, in this Lab's name, and returns its proof.
    ///
    /// # Panics
    /// When the bridge does not answer with a proof.
    pub async fn challenge(socket: &mut Socket, nonce: [u8; 32], lab: &str) -> Proof {
        say(socket, &Challenge { nonce, lab: lab.to_owned() }).await;
        let Some(Ok(Message::Text(proof))) = socket.next().await else { panic!("a proof") };
        serde_json::from_str(&proof).expect("a proof")
    }

    /// Welcomes the bridge whatever it proved, and takes the reins.
    ///
    /// # Panics
    /// When HTTP/2 does not begin.
    pub async fn take_over(mut socket: Socket) -> SendRequest<Full<Bytes>> {
        say(&mut socket, &Verdict::Welcome { epoch: 1, time: 0 }).await;
        let (requests, connection) = http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .initial_connection_window_size(CONNECTION_WINDOW)
            .handshake(TokioIo::new(LinkStream::new(socket)))
            .await
            .expect("HTTP/2");
        tokio::spawn(async move { drop(connection.await) });
        requests
    }
}

async fn say(socket: &mut Socket, message: &impl serde::Serialize) {
    let text = serde_json::to_string(message).expect("JSON");
    socket.send(Message::text(text)).await.expect("a message");
}
