//! An HTTP proxy as companies and hotels have them: it opens tunnels with CONNECT, or wants a password, or answers
//! everybody with its own page.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::backstage::Backstage;

/// Most bytes of a request's head.
const MAX_HEAD: usize = 16 << 10;

/// How the proxy treats who comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Manner {
    /// Opens every tunnel.
    Open,
    /// Opens tunnels for whoever knows these, and answers 407 to all others.
    Basic {
        /// The user's name.
        user: String,
        /// The password.
        password: String,
    },
    /// Opens none: 403.
    Deny,
    /// A captive portal: every connection, whatever it says, gets a redirect to a login page.
    PortalRedirect,
    /// A captive portal: every connection, whatever it says, gets the login page itself.
    PortalPage,
}

/// One attempt to open a tunnel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// `host:port` as asked for.
    pub target: String,
    /// The status that it got.
    pub status: u16,
}

/// An HTTP proxy on a thread of its own.
#[derive(Debug)]
pub struct ConnectProxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    backstage: Backstage,
}

#[derive(Debug)]
struct Shared {
    manner: watch::Sender<Manner>,
    attempts: watch::Sender<Vec<Attempt>>,
}

impl ConnectProxy {
    /// A proxy on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(manner: Manner) -> Self {
        Self::bind(manner).unwrap_or_else(|error| panic!("no CONNECT proxy: {error}"))
    }

    fn bind(manner: Manner) -> io::Result<Self> {
        let backstage = Backstage::new(1, "connect-proxy")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared { manner: watch::Sender::new(manner), attempts: watch::Sender::default() });
        let accepting = shared.clone();
        backstage.spawn(async move {
            match TcpListener::from_std(listener) {
                Ok(listener) => accept(listener, accepting).await,
                // The listener was bound and made non-blocking above, so only a runtime without I/O could refuse it.
                Err(error) => panic!("no listener: {error}"),
            }
        });
        Ok(Self { shared, addr, backstage })
    }

    /// Where it listens.
    #[must_use]
    pub const fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Where it listens, as a proxy's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Changes how it treats who comes next; tunnels that are open stay.
    pub fn set(&self, manner: Manner) {
        self.shared.manner.send_replace(manner);
    }

    /// Every attempt to open a tunnel, the oldest first.
    #[must_use]
    pub fn attempts(&self) -> Vec<Attempt> {
        self.shared.attempts.borrow().clone()
    }

    /// Waits until the attempts are such.
    ///
    /// # Panics
    /// After 10 s, with the attempts.
    pub async fn wait_for(&self, until: impl Fn(&[Attempt]) -> bool) {
        let mut attempts = self.shared.attempts.subscribe();
        let condition = async {
            // An error means that the proxy is gone, which it is not while it is borrowed.
            let _ = attempts.wait_for(|attempts| until(attempts)).await;
        };
        self.backstage.wait(condition, || format!("{:?}", self.attempts())).await;
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(serve(client, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(mut client: TcpStream, shared: Arc<Shared>) {
    let manner = shared.manner.borrow().clone();
    // An error is the client's leaving, and then there is nobody to tell.
    let _ = match manner {
        Manner::PortalRedirect => say(&mut client, "302 Found", "Location: http://portal.example/login\r\n", "").await,
        Manner::PortalPage => {
            say(&mut client, "200 OK", "Content-Type: text/html\r\n", "<html><body>Please log in.</body></html>").await
        }
        Manner::Open | Manner::Basic { .. } | Manner::Deny => tunnel(client, &manner, &shared).await,
    };
}

/// Answers and closes; what the client said is read first, since closing over unread bytes would reset the answer away.
async fn say(client: &mut TcpStream, status: &str, headers: &str, body: &str) -> io::Result<()> {
    let mut hello = [0; 4096];
    if client.read(&mut hello).await? == 0 {
        return Ok(());
    }
    let length = body.len();
    let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}");
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await?;
    while client.read(&mut hello).await? > 0 {}
    Ok(())
}

async fn tunnel(mut client: TcpStream, manner: &Manner, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    let (head, early) = read_head(&mut client).await?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or_default().split(' ');
    let (Some("CONNECT"), Some(target)) = (words.next(), words.next()) else {
        return refuse(&mut client, "405 Method Not Allowed", "").await;
    };
    let attempt = |status| {
        let attempt = Attempt { target: target.to_owned(), status };
        shared.attempts.send_modify(|attempts| attempts.push(attempt));
    };
    match manner {
        Manner::Basic { user, password } if !authorized(lines, user, password) => {
            attempt(407);
            return refuse(&mut client, "407 Proxy Authentication Required", "Proxy-Authenticate: Basic realm=\"proxy\"\r\n").await;
        }
        Manner::Deny => {
            attempt(403);
            return refuse(&mut client, "403 Forbidden", "").await;
        }
        _ => {}
    }
    let Ok(mut server) = TcpStream::connect(target).await else {
        attempt(502);
        return refuse(&mut client, "502 Bad Gateway", "").await;
    };
    server.set_nodelay(true)?;
    attempt(200);
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
    server.write_all(&early).await?;
    copy_bidirectional(&mut client, &mut server).await.map(|_| ())
}

async fn refuse(client: &mut TcpStream, status: &str, headers: &str) -> io::Result<()> {
    let answer = format!("HTTP/1.1 {status}\r\n{headers}Content-Length: 0\r\nConnection: close\r\n\r\n");
    client.write_all(answer.as_bytes()).await?;
    client.shutdown().await
}

/// Whether the headers carry that name and password.
fn authorized<'a>(mut lines: impl Iterator<Item = &'a str>, user: &str, password: &str) -> bool {
    let expected = format!("Basic {}", data_encoding::BASE64.encode(format!("{user}:{password}").as_bytes()));
    lines.any(|line| {
        line.split_once(':')
            .is_some_and(|(name, value)| name.eq_ignore_ascii_case("proxy-authorization") && value.trim() == expected)
    })
}

/// The head of a request, without its empty line, and the bytes that came after it.
async fn read_head(client: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            let early = bytes.split_off(end + 4);
            bytes.truncate(end);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), early));
        }
        if bytes.len() > MAX_HEAD || client.read_buf(&mut bytes).await? == 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
    }
}
