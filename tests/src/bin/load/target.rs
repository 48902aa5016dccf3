//! Where requests go, and the request itself, written once.

use std::{fs, sync::Arc};

use anyhow::{Context, bail};
use rustls::pki_types::{CertificateDer, ServerName, pem::PemObject};
use serde_json::json;
use tokio_rustls::TlsConnector;

/// One way to the model.
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: Option<(TlsConnector, ServerName<'static>)>,
    pub(crate) is_streamed: bool,
    /// Head and body of every request.
    pub(crate) request: Vec<u8>,
}

impl Target {
    /// Reads 'NAME URL [model=M] [key-file=FILE] [ca=FILE]'.
    pub(crate) fn parse(text: &str, model: &str, is_streamed: bool) -> anyhow::Result<Self> {
        let mut words = text.split_whitespace();
        let (Some(name), Some(url)) = (words.next(), words.next()) else { bail!("a name and a URL are expected") };
        let (is_https, rest) = match url.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            _ => bail!("{url} is no http or https URL"),
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        let (host, port) = authority.rsplit_once(':').context("the URL has no port")?;
        let (mut model, mut authorization, mut ca) = (model, String::new(), None);
        for word in words {
            match word.split_once('=') {
                Some(("model", value)) => model = value,
                Some(("key-file", file)) => {
                    let key = fs::read_to_string(file).with_context(|| format!("the key file {file} cannot be read"))?;
                    authorization = format!("authorization: Bearer {}\r\n", key.trim());
                }
                Some(("ca", file)) => ca = Some(file),
                _ => bail!("the word {word} means nothing"),
            }
        }
        let tls = match (is_https, ca) {
            (false, _) => None,
            (true, Some(ca)) => Some((connector(ca)?, ServerName::try_from(host.to_owned())?)),
            (true, None) => bail!("an https target needs ca=FILE"),
        };
        let mut body = json!({"model": model, "messages": [{"role": "user", "content": "lorem ipsum dolor sit amet ".repeat(8)}], "stream": is_streamed});
        if is_streamed {
            body["stream_options"] = json!({"include_usage": true});
        }
        let body = body.to_string();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {authority}\r\nuser-agent: 1k4-load\r\naccept: */*\r\n{authorization}\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        Ok(Self {
            name: name.to_owned(),
            host: host.to_owned(),
            port: port.parse()?,
            tls,
            is_streamed,
            request: request.into_bytes(),
        })
    }
}

fn connector(ca: &str) -> anyhow::Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).with_context(|| format!("the CA file {ca} cannot be read"))? {
        roots.add(certificate?)?;
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions = rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13])?;
    let mut config = versions.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_read_whole_or_refused() {
        let target = Target::parse("direct http://127.0.0.1:80/v1/chat/completions model=x", "y", true).unwrap();
        assert_eq!((target.host.as_str(), target.port), ("127.0.0.1", 80));
        let request = String::from_utf8(target.request).unwrap();
        assert!(request.starts_with("POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1:80\r\n"));
        assert!(request.contains(r#"{"model":"x","#));
        for wrong in ["", "a", "a ftp://b:1/", "a http://b/", "a https://b:1/", "a http://b:1/ what"] {
            assert!(Target::parse(wrong, "y", true).is_err(), "{wrong}");
        }
    }
}
