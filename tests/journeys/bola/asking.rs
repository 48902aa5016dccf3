//! Asking as somebody, and what every answer has to have.

use std::net::{IpAddr, Ipv4Addr};

use http::Method;
use journeys::{
    caller::{Caller, Whole},
    description::{Draft, Operation},
    world::World,
};

use super::people::Person;

/// With which credential somebody asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Role {
    /// Their browser's.
    Session,
    /// A key of theirs that may manage the account.
    Manage,
    /// A key of theirs that may ask models.
    Inference,
    /// None.
    Nobody,
}

impl Role {
    pub(super) const ALL: [Self; 4] = [Self::Session, Self::Manage, Self::Inference, Self::Nobody];
}

/// Headers of a page that is not the Lab's, beside the cookie that the browser adds.
pub(super) const FOREIGN: [(&str, &[(&str, &str)]); 7] = {
    const JSON: (&str, &str) = ("content-type", "application/json");
    const SAME: (&str, &str) = ("sec-fetch-site", "same-origin");
    [
        ("another site", &[("sec-fetch-site", "cross-site"), JSON]),
        ("another host of the site", &[("sec-fetch-site", "same-site"), JSON]),
        ("nowhere, with a foreign origin", &[("sec-fetch-site", "none"), ("origin", "https://elsewhere.example"), JSON]),
        ("a browser that tells nothing", &[JSON]),
        ("an old browser, with a foreign origin", &[("origin", "https://elsewhere.example"), JSON]),
        ("a text", &[SAME, ("content-type", "text/plain")]),
        ("a form", &[SAME, ("content-type", "application/x-www-form-urlencoded")]),
    ]
};

/// What every answer carries (R22, R23, SECURITY 4.11).
const ALWAYS: [(&str, &str); 7] = [
    ("strict-transport-security", "max-age=63072000; includeSubDomains; preload"),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("x-xss-protection", "0"),
    ("referrer-policy", "no-referrer"),
    ("cross-origin-opener-policy", "same-origin"),
    ("cross-origin-resource-policy", "same-origin"),
];

/// Requests that are sent from one address; the Lab lets 300 of them through at once.
const PER_ADDRESS: u32 = 250;

/// Asks, each 250 times from another address of this machine, and looks at what every answer has to have.
pub(super) struct Asking {
    caller: Caller,
    answers: u32,
    mistakes: Vec<String>,
}

impl Asking {
    pub(super) fn of(world: &World) -> Self {
        Self { caller: world.caller.with_key(None), answers: 0, mistakes: Vec::new() }
    }

    /// As that person, with that credential.
    pub(super) async fn ask(&mut self, person: &Person, role: Role, operation: &Operation<'_>, draft: &Draft) -> Whole {
        let credential = person.credential(role);
        let site = [("sec-fetch-site", "same-origin")];
        let headers: Vec<_> = credential.iter().map(|(name, value)| (*name, value.as_str())).chain(site).collect();
        self.send(operation, draft, &headers).await
    }

    /// In that person's browser, with these headers instead of those of the Lab's own pages.
    pub(super) async fn ask_with(
        &mut self,
        person: &Person,
        operation: &Operation<'_>,
        draft: &Draft,
        headers: &[(&str, &str)],
    ) -> Whole {
        let credential = person.credential(Role::Session);
        let headers: Vec<_> =
            credential.iter().map(|(name, value)| (*name, value.as_str())).chain(headers.iter().copied()).collect();
        self.send(operation, draft, &headers).await
    }

    async fn send(&mut self, operation: &Operation<'_>, draft: &Draft, headers: &[(&str, &str)]) -> Whole {
        let kind = draft.body.as_ref().map(|(kind, _)| kind.as_str());
        let mut all: Vec<(&str, &str)> = kind.map(|kind| ("content-type", kind)).into_iter().collect();
        all.extend(draft.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        all.extend(headers);
        let body = draft.body.as_ref().map(|(_, body)| body.clone()).unwrap_or_default();
        self.plain(operation.method.clone(), &draft.path, &all, body).await
    }

    /// Any request.
    pub(super) async fn plain(&mut self, method: Method, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Whole {
        let place = self.answers / PER_ADDRESS + 1;
        let [_, high, middle, low] = place.to_be_bytes();
        self.answers += 1;
        // Only Linux takes all of 127.0.0.0/8 for its own.
        let from = if cfg!(target_os = "linux") { Ipv4Addr::new(127, high, middle, low) } else { Ipv4Addr::LOCALHOST };
        let what = format!("{method} {path}");
        let answer = self.caller.at(IpAddr::V4(from)).line().await.ask(method, path, headers, body).await;
        for (name, value) in ALWAYS {
            if answer.header(name) != value {
                self.mistakes.push(format!("{what}: {name} is {:?} in an answer {}", answer.header(name), answer.status));
            }
        }
        if answer.header("content-security-policy").is_empty() {
            self.mistakes.push(format!("{what}: no content-security-policy in an answer {}", answer.status));
        }
        if answer.header("cache-control").is_empty() && answer.status != 404 {
            self.mistakes.push(format!("{what}: no cache-control in an answer {}", answer.status));
        }
        // Somebody else's server may be away, and there is none at the addresses that this battery makes up.
        let failed = answer.status.is_server_error() && !answer.text().contains("\"code\":\"tool_server\"");
        if failed || answer.status == 429 {
            self.mistakes.push(format!("{what}: {} {}", answer.status, answer.text()));
        }
        answer
    }

    pub(super) fn answers(&self) -> u32 {
        self.answers
    }

    /// What answers lacked.
    pub(super) fn mistakes(&mut self) -> Vec<String> {
        std::mem::take(&mut self.mistakes)
    }
}
