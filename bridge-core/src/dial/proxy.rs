//! Through a corporate proxy: `CONNECT`, with basic authentication where the proxy's address carries a user.

use http::Uri;
use hyper_util::client::proxy::matcher::Intercept;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{DialError, STEP_LIMIT, limited, tcp};
use crate::config::Origin;

/// A proxy's answer to CONNECT is a status line and a few headers.
const MAX_HEAD: usize = 8 << 10;

/// A TCP connection to the Lab that goes through `proxy`.
pub(super) async fn connect(proxy: &Intercept, lab: &Origin) -> Result<TcpStream, DialError> {
    let shown = shown(proxy.uri());
    let broken = |kind| DialError::Proxy { proxy: shown.clone(), kind };
    if proxy.uri().scheme_str() != Some("http") {
        // TLS to the proxy itself and SOCKS are rare, and a half-built one would be worse than a sentence.
        return Err(broken(std::io::ErrorKind::Unsupported));
    }
    let host = proxy.uri().host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let mut stream = tcp(host, proxy.uri().port_u16().unwrap_or(80)).await.map_err(|error| match error {
        DialError::Tcp { kind, .. } => broken(kind),
        DialError::Dns { .. } => broken(std::io::ErrorKind::NotFound),
        other => other,
    })?;
    let status = limited(STEP_LIMIT, "proxy", async {
        stream.write_all(&request(proxy, lab)).await.map_err(|error| broken(error.kind()))?;
        read_status(&mut stream).await.map_err(|error| broken(error.kind()))
    })
    .await?;
    match status {
        200..=299 => Ok(stream),
        407 => Err(DialError::ProxyAuth { proxy: shown }),
        status => Err(DialError::ProxyRefused { proxy: shown, status }),
    }
}

fn request(proxy: &Intercept, lab: &Origin) -> Vec<u8> {
    let host = lab.host();
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let target = format!("{host}:{}", lab.port());
    let mut request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n").into_bytes();
    if let Some(credentials) = proxy.basic_auth() {
        request.extend_from_slice(b"Proxy-Authorization: ");
        request.extend_from_slice(credentials.as_bytes());
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"\r\n");
    request
}

/// Reads the answer's head byte by byte, so that nothing of what follows is taken: the Lab speaks only when spoken to, but a
/// proxy may be wrong about where its answer ends.
async fn read_status(stream: &mut TcpStream) -> std::io::Result<u16> {
    let mut head = Vec::with_capacity(256);
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() == MAX_HEAD {
            return Err(std::io::ErrorKind::InvalidData.into());
        }
        head.push(stream.read_u8().await?);
    }
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let is_http = words.next().is_some_and(|version| version.starts_with(b"HTTP/1."));
    let status = words.next().and_then(|word| std::str::from_utf8(word).ok()).and_then(|word| word.parse().ok());
    status.filter(|_| is_http).ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Host and port: a proxy's address may hold a password.
fn shown(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}
