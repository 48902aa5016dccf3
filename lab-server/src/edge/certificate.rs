//! Where the Lab's certificate comes from: files that somebody keeps fresh, or a test CA of the Lab's own.
//!
//! The test CA lives in the data folder (`ca.pem` for clients, `ca.key` for this program alone) and signs one leaf for this machine and
//! for the public address. Both are used again at the next start; the leaf is made anew when it ends soon or the names have changed.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose};
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use serde::{Deserialize, Serialize};

use crate::config::Tls;

const CA_CERT: &str = "ca.pem";
const CA_KEY: &str = "ca.key";
const LEAF_CERT: &str = "leaf.pem";
const LEAF_KEY: &str = "leaf.key";
/// For whom and until when the leaf is; reading it out of the certificate would take a parser for nothing else.
const LEAF_NOTE: &str = "leaf.json";

const DAY: Duration = Duration::from_secs(86_400);
/// A leaf lives no longer than this (SECURITY 4.11).
const LEAF_LIFE: Duration = Duration::from_secs(90 * 86_400);
/// A leaf that ends within this time is replaced at the next start.
const LEAF_MARGIN: Duration = Duration::from_secs(30 * 86_400);
/// Long enough that nobody has to trust a second one on a machine's life.
const CA_LIFE: Duration = Duration::from_secs(3_650 * 86_400);

/// What the edge needs to speak TLS.
#[derive(Debug, Clone)]
pub struct Identity {
    /// TLS 1.3 only, `h2` and `http/1.1`.
    pub tls: Arc<ServerConfig>,
    /// The test CA that clients must be given; `None` when the certificate comes from files.
    pub ca_pem: Option<String>,
}

/// Why there is no certificate to serve with.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read or written.
    #[error("cannot use {}: {source}; check the path and its permissions", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{} holds no valid {what} in PEM form; give another file, or delete the test CA's to have them made again", path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// What was expected.
        what: &'static str,
    },
    /// The certificate and the key are not a pair, or TLS cannot use them.
    #[error("the certificate and the key cannot be used together: {0}; check that they belong to each other")]
    Unusable(#[from] rustls::Error),
    /// Making the test CA failed.
    #[error("cannot make the test certificate: {0}; check that public_url names a valid host")]
    Making(#[from] rcgen::Error),
}

/// Reads the certificate, or makes one in `data_dir` for `host` and this machine's own names.
///
/// # Errors
/// [`CertificateError`] names the file and what to do.
pub fn load(tls: &Tls, data_dir: &Path, host: &str) -> Result<Identity, CertificateError> {
    let (ca_pem, cert, key) = match tls {
        Tls::Files { cert, key } => (None, cert.clone(), key.clone()),
        Tls::OwnCa => {
            let ca_pem = refresh(data_dir, names(host), SystemTime::now())?;
            (Some(ca_pem), data_dir.join(LEAF_CERT), data_dir.join(LEAF_KEY))
        }
    };
    Ok(Identity { tls: Arc::new(server_config(&cert, &key)?), ca_pem })
}

fn server_config(cert: &Path, key: &Path) -> Result<ServerConfig, CertificateError> {
    let chain = CertificateDer::pem_slice_iter(&read(cert)?)
        .collect::<Result<Vec<_>, _>>()
        .ok()
        .filter(|chain| !chain.is_empty())
        .ok_or_else(|| CertificateError::Content { path: cert.to_owned(), what: "certificate" })?;
    let private = PrivateKeyDer::from_pem_slice(&read(key)?)
        .map_err(|_| CertificateError::Content { path: key.to_owned(), what: "private key" })?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, private)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// This machine's names, and the public one.
fn names(host: &str) -> Vec<String> {
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()];
    if !names.iter().any(|name| name == host) {
        names.push(host.to_owned());
    }
    names
}

#[derive(PartialEq, Serialize, Deserialize)]
struct Note {
    names: Vec<String>,
    /// Seconds since 1970.
    not_after: u64,
}

/// Makes what is missing, ends soon or is for other names, and gives the CA's certificate.
fn refresh(dir: &Path, names: Vec<String>, now: SystemTime) -> Result<String, CertificateError> {
    let in_dir = |source| CertificateError::File { path: dir.to_owned(), source };
    crate::store::make_private_dir(dir).map_err(in_dir)?;
    let (ca_cert, ca_key) = (dir.join(CA_CERT), dir.join(CA_KEY));
    let exists = ca_cert.exists() && ca_key.exists();
    let signer = if exists {
        let pem = String::from_utf8(read(&ca_key)?).ok();
        let signer = pem.and_then(|pem| KeyPair::from_pem(&pem).ok());
        signer.ok_or_else(|| CertificateError::Content { path: ca_key.clone(), what: "private key" })?
    } else {
        let signer = KeyPair::generate()?;
        write(&ca_key, &signer.serialize_pem(), 0o600)?;
        write(&ca_cert, &ca_params(now).self_signed(&signer)?.pem(), 0o644)?;
        signer
    };
    let note = std::fs::read(dir.join(LEAF_NOTE)).ok().and_then(|bytes| serde_json::from_slice::<Note>(&bytes).ok());
    let fresh = note.is_some_and(|note| note.names == names && note.not_after > seconds(now + LEAF_MARGIN));
    if !exists || !fresh || !dir.join(LEAF_CERT).exists() || !dir.join(LEAF_KEY).exists() {
        let leaf = KeyPair::generate()?;
        let certificate = leaf_params(&names, now)?.signed_by(&leaf, &Issuer::new(ca_params(now), signer))?;
        write(&dir.join(LEAF_KEY), &leaf.serialize_pem(), 0o600)?;
        write(&dir.join(LEAF_CERT), &certificate.pem(), 0o644)?;
        // Last, so that a start that was cut short makes the leaf again.
        let note = Note { names, not_after: seconds(now + LEAF_LIFE - DAY) };
        write(&dir.join(LEAF_NOTE), &serde_json::json!(note).to_string(), 0o644)?;
    }
    String::from_utf8(read(&ca_cert)?).map_err(|_| CertificateError::Content { path: ca_cert, what: "certificate" })
}

/// Name and usages must stay as they are: a leaf that is made later is issued under the same ones.
fn ca_params(now: SystemTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, "1K4 Lab test CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    valid(&mut params, now, CA_LIFE);
    params
}

fn leaf_params(names: &[String], now: SystemTime) -> Result<CertificateParams, CertificateError> {
    let mut params = CertificateParams::new(names)?;
    params.distinguished_name.push(DnType::CommonName, "1K4 Lab");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    params.use_authority_key_identifier_extension = true;
    valid(&mut params, now, LEAF_LIFE);
    Ok(params)
}

/// From a day ago, for clients whose clock is behind.
fn valid(params: &mut CertificateParams, now: SystemTime, life: Duration) {
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(seconds(now - DAY));
    params.not_after = epoch + Duration::from_secs(seconds(now - DAY + life));
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn read(path: &Path) -> Result<Vec<u8>, CertificateError> {
    std::fs::read(path).map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

/// Writes a whole file under another name first: a start that is cut short leaves the old one or none.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CertificateError> {
    let write = || {
        // A name of its own: a draft that an earlier start left behind has its own mode, and may be another file's.
        let draft = path.with_extension(format!("{}.new", wire::RequestId::random()));
        let mut options = std::fs::OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
        #[cfg(not(unix))]
        let _ = mode;
        let mut file = options.open(&draft)?;
        io::Write::write_all(&mut file, text.as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    };
    write().map_err(|source| CertificateError::File { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_stays_and_the_leaf_is_renewed_in_time() {
        let dir = std::env::temp_dir().join(format!("1k4-ca-{}", wire::RequestId::random()));
        let now = SystemTime::now();
        let leaf = || std::fs::read_to_string(dir.join(LEAF_CERT)).unwrap();
        let refresh = |host: &str, now| refresh(&dir, names(host), now).unwrap();
        let ca = refresh("lab.example.com", now);
        let first = leaf();
        assert_eq!(refresh("lab.example.com", now + 58 * DAY), ca);
        assert_eq!(leaf(), first);
        assert_eq!(refresh("lab.example.com", now + 61 * DAY), ca);
        let second = leaf();
        assert_ne!(second, first);
        assert_eq!(refresh("other.example.com", now + 61 * DAY), ca);
        assert_ne!(leaf(), second);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let mode = |name: &str| std::fs::metadata(dir.join(name)).unwrap().permissions().mode() & 0o777;
            assert_eq!([mode(CA_KEY), mode(LEAF_KEY), mode(CA_CERT)], [0o600, 0o600, 0o644]);
        }
        assert!(load(&Tls::OwnCa, &dir, "localhost").is_ok());
        let missing = Tls::Files { cert: dir.join("no.pem"), key: dir.join(LEAF_KEY) };
        assert!(matches!(load(&missing, &dir, "localhost"), Err(CertificateError::File { .. })));
        let wrong = Tls::Files { cert: dir.join(CA_CERT), key: dir.join(LEAF_KEY) };
        assert!(matches!(load(&wrong, &dir, "localhost"), Err(CertificateError::Unusable(_))));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
