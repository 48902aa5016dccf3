//! The way out of the Lab to addresses that a model or a person names: to the public internet, and nowhere else.
//!
//! What is checked is the address that is connected to, not the name: the client resolves through [`Guarded`], which gives nothing but
//! addresses that are the public's, and there is no second look-up between the check and the connection. Hosts that are written as
//! addresses are never resolved, so they are checked where the URL is read. Redirects are not followed here: whoever follows one comes
//! back with its URL. What an operator listed by host and port is reached through a client of its own, without a guard.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use reqwest::{
    Client, Url,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Pages that are made text of at once: however many agents read pages, the other half of a small machine is left to people.
const READERS: usize = 2;
/// Said by every request; it names no version, so that it tells nobody what to attack.
const USER_AGENT: &str = "1K4-Lab";

/// The way out; clones share its connections.
#[derive(Clone)]
pub struct Reach(Arc<Inner>);

struct Inner {
    /// Connects to public addresses only.
    public: Client,
    /// For what the operator listed.
    listed: Client,
    allow: BTreeSet<HostPort>,
    /// Where this Lab itself is reached.
    own: BTreeSet<HostPort>,
    /// Room for pages that are made text of.
    reading: Arc<Semaphore>,
}

/// A host and a port that an operator lists, such as `wiki.internal:8080`: reached over http as well, whatever its address is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostPort {
    host: String,
    port: u16,
}

/// Why an address is not gone to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreachable {
    /// It is none.
    #[error("this is not a whole address such as https://example.com/page")]
    Malformed,
    /// It is no web address, or not an encrypted one.
    #[error("only https addresses can be fetched")]
    Scheme,
    /// It carries a name or a password.
    #[error("an address with a user or a password in it is not fetched")]
    Credentials,
    /// It names another port than the web's.
    #[error("only the ports 443 and 80 can be reached; the lab's operator can allow others")]
    Port,
    /// It belongs to this machine or to a network that is not public.
    #[error("this address is not on the public internet; the lab's operator can allow it")]
    Private,
    /// It is this Lab's own.
    #[error("this is the lab itself, which agents do not reach from outside; use the tools of the project")]
    Own,
    /// The program has no way of making TLS connections.
    #[error("the lab cannot make connections to other servers; its operator should look at its certificates")]
    Unable,
}

/// A request that may be sent: its URL was checked, and its client checks the address.
pub struct Way {
    /// Sends it.
    pub client: Client,
    /// Where to.
    pub url: Url,
}

impl Reach {
    /// The way out, over the system's resolver. `own` is where this Lab is reached: its people's and its operator's listener are nobody's
    /// to go to from here, by whatever port.
    ///
    /// # Errors
    /// [`Unreachable::Unable`] when the system has no certificates to trust.
    pub fn new(allow: impl IntoIterator<Item = HostPort>, own: impl IntoIterator<Item = HostPort>) -> Result<Self, Unreachable> {
        Self::over(Arc::new(System), allow, own)
    }

    /// The way out, over another resolver.
    ///
    /// # Errors
    /// As [`Reach::new`].
    pub fn over(
        names: Arc<dyn Resolve>,
        allow: impl IntoIterator<Item = HostPort>,
        own: impl IntoIterator<Item = HostPort>,
    ) -> Result<Self, Unreachable> {
        let build = |resolver: Arc<dyn Resolve>| {
            Client::builder()
                .dns_resolver(resolver)
                .redirect(Policy::none())
                .no_proxy()
                .referer(false)
                .retry(reqwest::retry::never())
                .user_agent(USER_AGENT)
                .connect_timeout(CONNECT)
                .build()
                .map_err(|_| Unreachable::Unable)
        };
        let (public, listed) = (build(Arc::new(Guarded(Arc::clone(&names))))?, build(names)?);
        Ok(Self(Arc::new(Inner {
            public,
            listed,
            allow: allow.into_iter().collect(),
            own: own.into_iter().collect(),
            reading: Arc::new(Semaphore::new(READERS)),
        })))
    }

    /// A place to make text of a page; given back when dropped.
    pub(super) async fn reading(&self) -> Option<OwnedSemaphorePermit> {
        // It is never closed.
        Arc::clone(&self.0.reading).acquire_owned().await.ok()
    }

    /// Checks a URL, and gives the client that may be sent there.
    ///
    /// # Errors
    /// [`Unreachable`] says what is wrong with it.
    pub fn to(&self, url: &str) -> Result<Way, Unreachable> {
        // What the parser would quietly remove or turn round is not an address that anybody means.
        if url.len() > 2048 || url.chars().any(|c| c.is_control() || c.is_whitespace() || c == '\\') {
            return Err(Unreachable::Malformed);
        }
        let url = Url::parse(url).map_err(|_| Unreachable::Malformed)?;
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Unreachable::Credentials);
        }
        let (Some(host), Some(port)) = (url.host(), url.port_or_known_default()) else {
            return Err(match url.scheme() {
                "https" | "http" => Unreachable::Malformed,
                _ => Unreachable::Scheme,
            });
        };
        if !matches!(url.scheme(), "https" | "http") {
            return Err(Unreachable::Scheme);
        }
        let named = HostPort { host: bare(&host.to_string()).to_owned(), port };
        // Not even an operator's list opens a listener of the Lab's.
        if self.0.own.contains(&named) {
            return Err(Unreachable::Own);
        }
        if self.0.allow.contains(&named) {
            return Ok(Way { client: self.0.listed.clone(), url });
        }
        if url.scheme() != "https" {
            return Err(Unreachable::Scheme);
        }
        if !matches!(port, 443 | 80) {
            return Err(Unreachable::Port);
        }
        if self.0.own.iter().any(|own| own.host == named.host) {
            return Err(Unreachable::Own);
        }
        let literal = named.host.parse::<IpAddr>();
        if literal.is_ok_and(|address| !is_public(address)) {
            return Err(Unreachable::Private);
        }
        Ok(Way { client: self.0.public.clone(), url })
    }
}

impl HostPort {
    /// Where a web address leads, whatever its path.
    ///
    /// # Errors
    /// [`Unreachable::Malformed`] when it is none.
    pub fn of_url(url: &str) -> Result<Self, Unreachable> {
        let url = Url::parse(url).map_err(|_| Unreachable::Malformed)?;
        let (Some(host), Some(port)) = (url.host_str(), url.port_or_known_default()) else { return Err(Unreachable::Malformed) };
        Ok(Self { host: bare(host).to_owned(), port })
    }
}

impl From<SocketAddr> for HostPort {
    fn from(address: SocketAddr) -> Self {
        Self { host: address.ip().to_string(), port: address.port() }
    }
}

impl std::str::FromStr for HostPort {
    type Err = Unreachable;

    fn from_str(text: &str) -> Result<Self, Unreachable> {
        let (host, port) = text.rsplit_once(':').ok_or(Unreachable::Malformed)?;
        let port = port.parse::<u16>().ok().filter(|port| *port > 0).ok_or(Unreachable::Malformed)?;
        // Written as the URL's parser writes it, so that both are compared as they are meant.
        let url = Url::parse(&format!("https://{host}/")).map_err(|_| Unreachable::Malformed)?;
        let plain = url.path() == "/" && url.query().is_none() && url.fragment().is_none() && url.port().is_none();
        let host = url.host_str().filter(|_| plain && url.username().is_empty()).ok_or(Unreachable::Malformed)?;
        Ok(Self { host: bare(host).to_owned(), port })
    }
}

/// An IPv6 address without its brackets, a name without the dot that ends it.
fn bare(host: &str) -> &str {
    let host = host.trim_end_matches('.');
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// Gives public addresses only, and none at all of a name that has another one: whoever mixes them wants something.
struct Guarded(Arc<dyn Resolve>);

impl Resolve for Guarded {
    fn resolve(&self, name: Name) -> Resolving {
        let resolving = self.0.resolve(name);
        Box::pin(async move {
            let found: Vec<_> = resolving.await?.collect();
            if found.is_empty() || found.iter().any(|address| !is_public(address.ip())) {
                return Err(Unreachable::Private.into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// The operating system's resolver.
struct System;

impl Resolve for System {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            Ok(Box::new(found.collect::<Vec<_>>().into_iter()) as Addrs)
        })
    }
}

/// Whether an address is one of the public internet's: not this machine's, not a private, shared, documentation's or multicast
/// network's, nor one of those in another form.
#[must_use]
pub fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    const CLOSED: [(Ipv4Addr, u32); 15] = [
        (Ipv4Addr::new(0, 0, 0, 0), 8),
        (Ipv4Addr::new(10, 0, 0, 0), 8),
        (Ipv4Addr::new(100, 64, 0, 0), 10),
        (Ipv4Addr::new(127, 0, 0, 0), 8),
        (Ipv4Addr::new(169, 254, 0, 0), 16),
        (Ipv4Addr::new(172, 16, 0, 0), 12),
        (Ipv4Addr::new(192, 0, 0, 0), 24),
        (Ipv4Addr::new(192, 0, 2, 0), 24),
        (Ipv4Addr::new(192, 88, 99, 0), 24),
        (Ipv4Addr::new(192, 168, 0, 0), 16),
        (Ipv4Addr::new(198, 18, 0, 0), 15),
        (Ipv4Addr::new(198, 51, 100, 0), 24),
        (Ipv4Addr::new(203, 0, 113, 0), 24),
        // Multicast and all that is reserved, broadcast too.
        (Ipv4Addr::new(224, 0, 0, 0), 3),
        // Azure answers its machines there, with their secrets, although the address is the public's.
        (Ipv4Addr::new(168, 63, 129, 16), 32),
    ];
    let within = |(network, bits): (Ipv4Addr, u32)| (address.to_bits() ^ network.to_bits()) >> (32 - bits) == 0;
    !CLOSED.into_iter().any(within)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    if let Some(v4) = carried_v4(address) {
        return is_public_v4(v4);
    }
    const CLOSED: [(Ipv6Addr, u32); 4] = [
        // Protocol assignments: Teredo, ORCHID, benchmarking.
        (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
        (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
        // 6to4 leads to an IPv4 address of whoever wrote it; nobody has used it for years.
        (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
        (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
    ];
    let within = |(network, bits): (Ipv6Addr, u32)| (address.to_bits() ^ network.to_bits()) >> (128 - bits) == 0;
    // All that is given out as global unicast; loopback, local, multicast and what has no meaning yet lie outside.
    within((Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3)) && !CLOSED.into_iter().any(within)
}

/// The IPv4 address that is reached by this one: mapped, or through a NAT64 at the well-known prefix.
fn carried_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let nat64 = address.segments()[..6] == [0x64, 0xff9b, 0, 0, 0, 0];
    let low = || Ipv4Addr::from_bits((address.to_bits() & u128::from(u32::MAX)) as u32);
    address.to_ipv4_mapped().or_else(|| nat64.then(low))
}

#[cfg(test)]
mod tests;
