//! What a model says, as it says it.

use std::{collections::VecDeque, future::poll_fn, pin::Pin, time::Duration};

use api_proxy::ProxyBody;
use bytes::Buf;
use http::{HeaderMap, Response};
use http_body::Body;
use http_body_util::BodyExt;
use wire::{Content, RequestId};

use super::{
    Models,
    dialect::{Dialect, Piece, Reader},
    frames::Frames,
    words,
};
use crate::{
    gateway::{Following, Progress},
    lab::prompt::{Delta, ModelError, Payer, Stop, Waiting},
    store::RequestRecord,
};

/// How long a record is waited for that is being counted while the answer is over already.
const COUNTED_WITHIN: Duration = Duration::from_secs(5);
/// How often it is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// Response header of an error: its code.
const ERROR: &str = "x-1k4-error";
/// The most of an error's body that is read.
const LONGEST_ERROR: usize = 64 << 10;

/// A request on its way to the head of its answer.
pub(super) type Asking = Pin<Box<dyn Future<Output = Response<ProxyBody>> + Send>>;

/// What a model says. Dropping it stops the model: a workstation's graphics card is free at once, and a provider is hung up on as on
/// every caller who leaves.
pub struct Answer {
    models: Models,
    payer: Payer,
    model: String,
    request: RequestId,
    dialect: Dialect,
    following: Option<Following>,
    ready: VecDeque<Delta>,
    stage: Stage,
    calls: u32,
    stop: Option<Stop>,
    failed: bool,
    load_ms: Option<u64>,
}

enum Stage {
    Asking(Asking),
    Reading {
        body: Pin<Box<ProxyBody>>,
        frames: Frames,
        reader: Reader,
    },
    /// All of it has come.
    Ending(End),
    Over,
}

/// How the bytes ended.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    /// The body was whole.
    Whole,
    /// It was not, or is not to be read on.
    Broken(&'static str),
    /// It never was an answer.
    Refused(ModelError),
}

impl Answer {
    pub(super) fn new(
        models: Models,
        payer: Payer,
        model: String,
        request: RequestId,
        dialect: Dialect,
        asking: Asking,
        following: Option<Following>,
    ) -> Self {
        Self {
            models,
            payer,
            model,
            request,
            dialect,
            following,
            ready: VecDeque::from([Delta::Waiting(Waiting::Asked)]),
            stage: Stage::Asking(asking),
            calls: 0,
            stop: None,
            failed: false,
            load_ms: None,
        }
    }

    /// Which request it is, as it stands in the account's records.
    #[must_use]
    pub const fn request(&self) -> RequestId {
        self.request
    }

    /// What comes next; `None` after [`Delta::End`] or an error. Giving up in the middle of waiting loses nothing.
    ///
    /// Nothing limits how long a model may be silent: why it is silent is told, and who asked can stop.
    pub async fn next(&mut self) -> Option<Result<Delta, ModelError>> {
        loop {
            if let Some(delta) = self.ready.pop_front() {
                return Some(Ok(delta));
            }
            match &mut self.stage {
                Stage::Asking(asking) => {
                    let response = tokio::select! {
                        biased;
                        response = asking => Some(response),
                        progress = told(&mut self.following) => { self.ready.extend(progress.map(Delta::Waiting)); None }
                    };
                    if let Some(response) = response {
                        self.answered(response).await;
                    }
                }
                Stage::Reading { body, .. } => {
                    let frame = tokio::select! {
                        biased;
                        frame = poll_fn(|cx| body.as_mut().poll_frame(cx)) => Some(frame),
                        progress = told(&mut self.following) => { self.ready.extend(progress.map(Delta::Waiting)); None }
                    };
                    match frame {
                        None => {}
                        Some(Some(Ok(frame))) => {
                            if let Ok(content) = frame.into_data() {
                                self.read(content);
                            }
                        }
                        Some(Some(Err(_))) => self.stage = Stage::Ending(End::Broken("upstream_error")),
                        Some(None) => self.finish(),
                    }
                }
                Stage::Ending(_) => {
                    let record = self.record().await;
                    let Stage::Ending(end) = std::mem::replace(&mut self.stage, Stage::Over) else { return None };
                    self.following = None;
                    return Some(self.end(end, record));
                }
                Stage::Over => return None,
            }
        }
    }

    async fn answered(&mut self, response: Response<ProxyBody>) {
        let (head, body) = response.into_parts();
        if head.status.is_success() {
            let (frames, reader) = (Frames::new(self.dialect.framing()), self.dialect.reader());
            self.stage = Stage::Reading { body: Box::pin(body), frames, reader };
            return;
        }
        let code = code_of(&head.headers).map(str::to_owned);
        let error = match code {
            // The proxy's own word, whose message is ours.
            Some(code) => {
                let own = message_of(body).await;
                words::told(&code, own, self.request)
            }
            None => words::of_host(self.dialect == Dialect::Ollama, head.status, self.request),
        };
        self.stage = Stage::Ending(End::Refused(error));
    }

    fn read(&mut self, mut content: Content) {
        let Stage::Reading { frames, reader, .. } = &mut self.stage else { return };
        let bytes = content.copy_to_bytes(content.len());
        let mut pieces = Vec::new();
        let read = frames.read(&bytes, |message| reader.read(message, &mut |piece| pieces.push(piece)));
        pieces.into_iter().for_each(|piece| self.said(piece));
        if read.is_err() {
            // Dropping the body hangs up.
            self.stage = Stage::Ending(End::Broken("answer_too_large"));
        }
    }

    fn finish(&mut self) {
        let Stage::Reading { frames, reader, .. } = &mut self.stage else { return };
        let mut pieces = Vec::new();
        let read = frames.finish(|message| reader.read(message, &mut |piece| pieces.push(piece)));
        reader.finish(&mut |piece| pieces.push(piece));
        pieces.into_iter().for_each(|piece| self.said(piece));
        self.stage = Stage::Ending(if read.is_err() { End::Broken("answer_too_large") } else { End::Whole });
    }

    fn said(&mut self, piece: Piece) {
        match piece {
            Piece::Text(text) => self.ready.push_back(Delta::Text(text)),
            Piece::Reasoning(text) => self.ready.push_back(Delta::Reasoning(text)),
            Piece::Call { id, tool, arguments, echo } => {
                // Not every host names its calls; such a name is unique among all runs, and no longer than every host takes.
                let call = id.unwrap_or_else(|| format!("{}_{}", self.request, self.calls));
                self.calls += 1;
                self.ready.push_back(Delta::ToolCall { call, tool, arguments, echo });
            }
            Piece::Stop(stop) if self.stop != Some(Stop::Refused) => self.stop = Some(stop),
            Piece::Stop(_) => {}
            Piece::Loaded(nanos) => self.load_ms = Some(nanos / 1_000_000),
            Piece::Failed => self.failed = true,
        }
    }

    /// The request's record. It is there when an answer is over, but for one whose tokens are being counted.
    async fn record(&mut self) -> Option<RequestRecord> {
        if matches!(&self.stage, Stage::Ending(End::Refused(error)) if error.request.is_none()) {
            return None;
        }
        let meter = self.models.0.door.meter().clone();
        let (project, request) = (self.payer.project, self.request);
        let look = async move {
            loop {
                match meter.record(project, request).await {
                    Ok(Some(record)) => return Some(record),
                    Ok(None) => tokio::time::sleep(LOOK_EVERY).await,
                    Err(error) => {
                        tracing::error!(%error, "cannot read the record of a request");
                        return None;
                    }
                }
            }
        };
        tokio::time::timeout(COUNTED_WITHIN, look).await.ok().flatten()
    }

    fn end(&self, end: End, record: Option<RequestRecord>) -> Result<Delta, ModelError> {
        let broken = match end {
            End::Refused(error) => return Err(error),
            End::Broken(code) => Some(code),
            End::Whole if self.failed => Some(if self.dialect == Dialect::Ollama { "ollama_error" } else { "provider_error" }),
            End::Whole => None,
        };
        let outcome = record.as_ref().map_or("unavailable", |record| record.outcome.as_str());
        match (broken, outcome) {
            (None, "complete") => {}
            // What the record says of it is nearer to the cause.
            (Some(code), "complete" | "cancelled") => return Err(words::error(code, Some(self.request))),
            (_, code) => return Err(words::error(code, Some(self.request))),
        }
        let Some(record) = record else { return Err(words::error("unavailable", Some(self.request))) };
        let stop = match self.stop.unwrap_or(Stop::Finished) {
            Stop::Finished if self.calls > 0 => Stop::ToolCalls,
            stop => stop,
        };
        let usage = self.models.use_of(self.payer, self.request, &self.model, &record, self.load_ms);
        Ok(Delta::End { stop, usage })
    }
}

/// The next word on why nothing comes. Never ready where nobody tells.
async fn told(following: &mut Option<Following>) -> Option<Waiting> {
    let Some(follow) = following else { return std::future::pending().await };
    if follow.progress().changed().await.is_err() {
        // The relay is over, and says so itself.
        *following = None;
        return None;
    }
    let progress = *follow.progress().borrow_and_update();
    match progress {
        Progress::Asked => Some(Waiting::Asked),
        Progress::Queued(ahead) => Some(Waiting::Queued { ahead }),
        Progress::Loading => Some(Waiting::Loading),
        Progress::Away => Some(Waiting::Away),
        Progress::Answering => None,
    }
}

fn code_of(headers: &HeaderMap) -> Option<&str> {
    headers.get(ERROR)?.to_str().ok()
}

/// The sentence in an error of the proxy's own.
async fn message_of(body: ProxyBody) -> Option<String> {
    let body = http_body_util::Limited::new(body, LONGEST_ERROR).collect().await.ok()?.to_bytes();
    let error = serde_json::from_slice::<serde_json::Value>(&body).ok()?;
    let message = error["error"]["message"].as_str().or_else(|| error["error"].as_str())?;
    Some(message.to_owned())
}
