//! The asking half, for the CLI and the tray: one connection a request.

use std::{collections::VecDeque, io, marker::PhantomData, time::Duration};

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use serde::{Serialize, de::DeserializeOwned};
use wire::{ModelName, RelayId};

#[cfg(unix)]
use super::unix as os;
#[cfg(windows)]
use super::windows as os;
use super::{ActivityList, ErrorBody, HOST, LogLine, Matching, Models, Named, Pause, Pull, claim::find_socket};
use crate::{
    config::Paths,
    policy::{ModelPattern, Policy},
    status::{Activity, Status},
};

/// How long a bridge of this machine may take to begin an answer. Removing a model from a slow disk is the longest of them.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// The largest answer that is held whole: 10,000 lines of activity and more.
const MAX_ANSWER: usize = 16 << 20;

/// Talks to the bridge of one state directory.
#[derive(Debug, Clone)]
pub struct Client {
    paths: Paths,
}

/// Why the bridge did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("the bridge is not running; start it with `1k4-bridge run`, or `1k4-bridge service install` to have it always on")]
    NotRunning,
    /// The socket cannot be used.
    #[error("failed to reach the running bridge: {0}; is it another user's?")]
    Unreachable(io::Error),
    /// The bridge said no.
    #[error("{message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// For programs.
        code: String,
        /// For people.
        message: String,
    },
    /// The answer was not understood.
    #[error("the running bridge gave an answer that this program does not understand; restart the bridge after an update")]
    NotUnderstood,
    /// The answer broke off or did not come.
    #[error("the running bridge stopped answering; `1k4-bridge status` shows whether it is still there")]
    Silent,
}

impl Client {
    /// For the bridge of `paths`. Nothing is dialled yet.
    #[must_use]
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone() }
    }

    /// The state now.
    ///
    /// # Errors
    /// As [`ClientError`] says; so for every other request here.
    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("/v1/status").await
    }

    /// The state now and at each change.
    pub async fn watch(&self) -> Result<Lines<Status>, ClientError> {
        self.lines(Method::GET, "/v1/status/watch", Bytes::new()).await
    }

    /// Takes no more work, for a time or until resumed.
    pub async fn pause(&self, for_: Option<Duration>) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/pause", &Pause { for_s: for_.map(|time| time.as_secs()) }).await
    }

    /// Takes work again.
    pub async fn resume(&self) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/resume", &()).await
    }

    /// Ollama's models.
    pub async fn models(&self) -> Result<Models, ClientError> {
        self.get("/v1/models").await
    }

    /// Downloads a model. Dropping the lines ends the download; what is there is kept.
    pub async fn pull(&self, model: ModelName) -> Result<Lines<Pull>, ClientError> {
        self.lines(Method::POST, "/v1/models/pull", to_body(&Named { model })?).await
    }

    /// Removes a model from disk.
    pub async fn remove(&self, model: &ModelName) -> Result<(), ClientError> {
        self.tell(Method::DELETE, &format!("/v1/models/{model}"), &()).await
    }

    /// Removes a model from memory.
    pub async fn unload(&self, model: ModelName) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/models/unload", &Named { model }).await
    }

    /// The owner's policy.
    pub async fn policy(&self) -> Result<Policy, ClientError> {
        self.get("/v1/policy").await
    }

    /// Replaces the policy; answers with what now holds. Takes JSON, so that a mistake in it is named by the bridge.
    pub async fn set_policy(&self, policy: &serde_json::Value) -> Result<Policy, ClientError> {
        self.ask(Method::PUT, "/v1/policy", to_body(policy)?).await
    }

    /// Shares the models of a pattern.
    pub async fn allow(&self, model: ModelPattern) -> Result<Policy, ClientError> {
        self.ask(Method::POST, "/v1/policy/allow", to_body(&Matching { model })?).await
    }

    /// Shares the models of a pattern no longer.
    pub async fn deny(&self, model: ModelPattern) -> Result<Policy, ClientError> {
        self.ask(Method::POST, "/v1/policy/deny", to_body(&Matching { model })?).await
    }

    /// Finished relays, newest last.
    pub async fn activity(&self) -> Result<Vec<Activity>, ClientError> {
        Ok(self.get::<ActivityList>("/v1/activity").await?.activity)
    }

    /// The log's last lines, and the coming ones when following.
    pub async fn logs(&self, follow: Follow) -> Result<Lines<LogLine>, ClientError> {
        let path = match follow {
            Follow::No => "/v1/logs",
            Follow::Yes => "/v1/logs?follow=1",
        };
        self.lines(Method::GET, path, Bytes::new()).await
    }

    /// Looks at the pairing anew and dials at once.
    pub async fn retry(&self) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/retry", &()).await
    }

    /// Ends one relay.
    pub async fn cancel(&self, relay: RelayId) -> Result<(), ClientError> {
        self.tell(Method::DELETE, &format!("/v1/relays/{relay}"), &()).await
    }

    /// Shuts the bridge down in order.
    pub async fn quit(&self) -> Result<(), ClientError> {
        self.tell(Method::POST, "/v1/quit", &()).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    async fn tell(&self, method: Method, path: &str, body: &impl Serialize) -> Result<(), ClientError> {
        self.send(method, path, to_body(body)?).await.map(drop)
    }

    async fn ask<T: DeserializeOwned>(&self, method: Method, path: &str, body: Bytes) -> Result<T, ClientError> {
        let response = self.send(method, path, body).await?;
        serde_json::from_slice(&whole(response).await?).map_err(|_| ClientError::NotUnderstood)
    }

    async fn lines<T>(&self, method: Method, path: &str, body: Bytes) -> Result<Lines<T>, ClientError> {
        let body = self.send(method, path, body).await?.into_body();
        Ok(Lines { body, rest: BytesMut::new(), ready: VecDeque::new(), of: PhantomData })
    }

    /// Sends one request and returns its answer when it is a good one.
    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, ClientError> {
        let connection = os::connect(&find_socket(&self.paths)).await.map_err(not_running)?;
        let (mut sender, driving) =
            hyper::client::conn::http1::handshake(TokioIo::new(connection)).await.map_err(|_| ClientError::Silent)?;
        // It ends with the connection; how that went is seen by who reads the answer.
        tokio::spawn(async move { driving.await.ok() });
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, HOST)
            .body(Full::new(body))
            .map_err(|_| ClientError::NotUnderstood)?;
        let response = tokio::time::timeout(ANSWER_LIMIT, sender.send_request(request))
            .await
            .map_err(|_| ClientError::Silent)?
            .map_err(|_| ClientError::Silent)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let ErrorBody { error } = serde_json::from_slice(&whole(response).await?).map_err(|_| ClientError::NotUnderstood)?;
        Err(ClientError::Refused { status, code: error.code, message: error.message })
    }
}

/// Whether to stay for lines to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// Only what is there.
    No,
    /// Those to come as well.
    Yes,
}

/// An answer that comes line by line. Dropping it hangs up.
pub struct Lines<T> {
    body: Incoming,
    rest: BytesMut,
    ready: VecDeque<Bytes>,
    of: PhantomData<fn() -> T>,
}

impl<T: DeserializeOwned> Lines<T> {
    /// The next one; `None` at the end.
    ///
    /// # Errors
    /// When the bridge goes away in the middle or says something else than expected.
    pub async fn next(&mut self) -> Result<Option<T>, ClientError> {
        loop {
            if let Some(line) = self.ready.pop_front() {
                return serde_json::from_slice(&line).map(Some).map_err(|_| ClientError::NotUnderstood);
            }
            match self.body.frame().await {
                None if self.rest.is_empty() => return Ok(None),
                None | Some(Err(_)) => return Err(ClientError::Silent),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.take(&data)?;
                    }
                }
            }
        }
    }

    fn take(&mut self, data: &[u8]) -> Result<(), ClientError> {
        self.rest.extend_from_slice(data);
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut line = self.rest.split_to(end + 1);
            line.truncate(end);
            self.ready.push_back(line.freeze());
        }
        if self.rest.len() > MAX_ANSWER { Err(ClientError::NotUnderstood) } else { Ok(()) }
    }
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, ClientError> {
    let read = Limited::new(response.into_body(), MAX_ANSWER).collect();
    let body = tokio::time::timeout(ANSWER_LIMIT, read).await.map_err(|_| ClientError::Silent)?;
    Ok(body.map_err(|_| ClientError::Silent)?.to_bytes())
}

fn to_body(value: &impl Serialize) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value).map(Bytes::from).map_err(|_| ClientError::NotUnderstood)
}

fn not_running(error: io::Error) -> ClientError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning,
        _ => ClientError::Unreachable(error),
    }
}
