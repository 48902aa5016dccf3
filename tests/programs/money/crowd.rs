//! Clients who ask whatever is on the menu, keep their connections, carry on when the Lab is gone, and remember what they saw.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use journeys::{caller::Caller, programs::PATIENCE};
use tokio::{task::JoinHandle, time::timeout};

use super::menu::{Course, Guest, Patience, course};

/// What a client saw of one request.
#[derive(Debug)]
pub(super) struct Visit {
    pub(super) number: u64,
    /// From here on there was a head.
    pub(super) head: Option<Head>,
    pub(super) end: End,
}

/// The head of an answer, as far as it matters.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) id: String,
    /// The code of an error of the Lab's own.
    pub(super) code: Option<String>,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With the end of the body, as HTTP has it.
    Whole,
    /// The client had enough.
    HungUp,
    /// The connection broke.
    Broken,
}

/// The clients' common book.
pub(super) struct Crowd {
    caller: Caller,
    keys: HashMap<Guest, String>,
    next: AtomicU64,
    total: AtomicU64,
    pub(super) visits: Mutex<Vec<Visit>>,
}

/// A connection with the task that drives it.
struct Line {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Crowd {
    /// Clients of the Lab that `caller` knows. They begin with the request of number `first`.
    pub(super) fn new(caller: Caller, keys: HashMap<Guest, String>, first: u64) -> Arc<Self> {
        Arc::new(Self { caller, keys, next: AtomicU64::new(first), total: AtomicU64::new(first), visits: Mutex::default() })
    }

    /// How many requests were begun.
    pub(super) fn begun(&self) -> u64 {
        self.next.load(Ordering::SeqCst)
    }

    /// Has so many more requests made by so many clients.
    pub(super) fn ask(self: &Arc<Self>, clients: usize, requests: u64) -> Vec<JoinHandle<()>> {
        self.total.fetch_add(requests, Ordering::SeqCst);
        (0..clients).map(|_| tokio::spawn(Arc::clone(self).client())).collect()
    }

    async fn client(self: Arc<Self>) {
        let mut line = None;
        loop {
            let number = self.next.fetch_add(1, Ordering::SeqCst);
            if number >= self.total.load(Ordering::SeqCst) {
                self.next.fetch_sub(1, Ordering::SeqCst);
                return;
            }
            let visit = timeout(2 * PATIENCE, self.visit(number, &mut line)).await;
            let visit = visit.unwrap_or_else(|_| panic!("no end in time: {:?}", course(number)));
            self.visits.lock().unwrap().push(visit);
        }
    }

    async fn visit(&self, number: u64, line: &mut Option<Line>) -> Visit {
        let course = course(number);
        let mut kept = line.take();
        if let Some(line) = &mut kept
            && line.sender.ready().await.is_err()
        {
            kept = None;
        }
        let mut this = match kept {
            Some(line) => line,
            None => self.open().await,
        };
        let mut head = None;
        let request = self.request(&course);
        let going = async {
            let answer = this.sender.send_request(request).await?;
            head = Some(self::head(&answer));
            let mut body = answer.into_body();
            let mut pieces = 0;
            while let Some(frame) = body.frame().await {
                frame?;
                pieces += 1;
                if matches!(course.patience, Patience::Pieces(most) if pieces >= most) {
                    return Ok(End::HungUp);
                }
            }
            Ok::<_, hyper::Error>(End::Whole)
        };
        let end = match course.patience {
            Patience::Millis(millis) => timeout(Duration::from_millis(millis), going).await.unwrap_or(Ok(End::HungUp)),
            Patience::Whole | Patience::Pieces(_) => going.await,
        };
        let end = end.unwrap_or(End::Broken);
        if end == End::Whole {
            *line = Some(this);
        }
        Visit { number, head, end }
    }

    /// A connection, as soon as there is a Lab.
    async fn open(&self) -> Line {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_open().await {
                Ok(line) => return line,
                Err(error) => assert!(Instant::now() < deadline, "no Lab for {PATIENCE:?}: {error}"),
            }
            // It is being started again; there is nothing that could be waited for.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn try_open(&self) -> io::Result<Line> {
        let tls = self.caller.try_connect().await?;
        let (sender, connection) = handshake(TokioIo::new(tls)).await.map_err(io::Error::other)?;
        Ok(Line { sender, driver: tokio::spawn(async move { drop(connection.await) }) })
    }

    fn request(&self, course: &Course) -> Request<Full<Bytes>> {
        let method = if course.body.is_some() { Method::POST } else { Method::GET };
        let mut request = Request::new(Full::from(course.body.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = course.path.parse().expect("a path");
        let headers = request.headers_mut();
        headers.insert(header::HOST, HeaderValue::from_static("localhost"));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(key) = self.keys.get(&course.guest) {
            headers.insert(header::AUTHORIZATION, HeaderValue::try_from(format!("Bearer {key}")).expect("a header"));
        }
        request
    }
}

fn head(answer: &Response<Incoming>) -> Head {
    let text = |name: &str| answer.headers().get(name).map(|value| value.to_str().expect("text").to_owned());
    Head {
        status: answer.status().as_u16(),
        id: text("x-1k4-request-id").expect("every answer of the model API has an id"),
        code: text("x-1k4-error"),
    }
}
