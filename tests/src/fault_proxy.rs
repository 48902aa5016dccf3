//! A TCP proxy that a test breaks: what stands between a bridge and its Lab when the network is bad.
//!
//! It copies bytes between whoever connects (the bridge) and one target (the Lab), until it is told not to. It runs on a
//! thread of its own: a paused clock does not touch it.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use crate::backstage::Backstage;
use crate::locked;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Good.
    Pass,
    /// Live connections are reset; new ones are accepted and reset at once.
    Refuse,
    /// Sockets stay, nothing is forwarded; new connections are accepted and met with silence. What was on its way goes on
    /// when this ends, as after a lost route.
    BlackHole,
    /// The connections that live now are frozen for ever; new ones pass.
    HalfOpen,
    /// Every connection carries so much in each direction, and everything arrives so much later.
    Slow {
        /// Bytes per second in each direction.
        bytes_per_second: u32,
        /// One-way delay.
        latency: Duration,
    },
}

/// The way that bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From whoever connected to the target: from the bridge to the Lab.
    Up,
    /// From the target to whoever connected: from the Lab to the bridge.
    Down,
}

/// What the proxy has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traffic {
    /// Connections that live, frozen ones too.
    pub connections: usize,
    /// Connections ever accepted.
    pub accepted: usize,
    /// Connections reset by the proxy.
    pub resets: usize,
    /// Bytes forwarded from whoever connected to the target.
    pub up: u64,
    /// Bytes forwarded from the target to whoever connected.
    pub down: u64,
}

/// A TCP proxy that a test breaks.
#[derive(Debug)]
pub struct FaultProxy {
    shared: Arc<Shared>,
    addr: SocketAddr,
    backstage: Backstage,
}

#[derive(Debug)]
struct Shared {
    orders: watch::Sender<Orders>,
    traffic: watch::Sender<Traffic>,
    /// Bytes that may still pass on a way before everything is reset.
    cut: Mutex<Option<(Way, u64)>>,
}

/// What connections have been told.
#[derive(Debug, Clone, Copy)]
struct Orders {
    fault: Fault,
    target: SocketAddr,
    /// Connections accepted before this one are frozen for ever.
    frozen_before: usize,
    /// Connections accepted before this one are reset.
    reset_before: usize,
    /// How long a connection may be silent.
    idle: Option<Duration>,
}

impl FaultProxy {
    /// A proxy on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be had.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        Self::bind(target).unwrap_or_else(|error| panic!("no fault proxy: {error}"))
    }

    fn bind(target: SocketAddr) -> io::Result<Self> {
        let backstage = Backstage::new(1, "fault-proxy")?;
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let orders = Orders { fault: Fault::Pass, target, frozen_before: 0, reset_before: 0, idle: None };
        let shared =
            Arc::new(Shared { orders: watch::Sender::new(orders), traffic: watch::Sender::default(), cut: Mutex::default() });
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

    /// Changes how the network is, for live connections and new ones.
    pub fn set(&self, fault: Fault) {
        let accepted = self.accepted();
        self.shared.orders.send_modify(|orders| {
            orders.fault = fault;
            match fault {
                Fault::HalfOpen => orders.frozen_before = accepted,
                Fault::Refuse => orders.reset_before = accepted,
                Fault::Pass | Fault::BlackHole | Fault::Slow { .. } => {}
            }
        });
    }

    /// Resets all live connections, with RST, at both ends.
    pub fn cut(&self) {
        let accepted = self.accepted();
        self.shared.orders.send_modify(|orders| orders.reset_before = accepted);
    }

    /// Resets all live connections after exactly so many further bytes on that way: the proxy forwards the last of them and
    /// no more. All of them arrive if the receiver has room; a reset takes back what its window (64 KiB) could not hold.
    pub fn cut_after(&self, way: Way, bytes: u64) {
        *locked(&self.shared.cut) = Some((way, bytes));
        self.shared.cut_if_spent();
    }

    /// Sends new connections elsewhere.
    pub fn retarget(&self, target: SocketAddr) {
        self.shared.orders.send_modify(|orders| orders.target = target);
    }

    /// Resets connections on which nothing passed for so long, as a stateful firewall does; `None`, as at first, never.
    pub fn kill_idle(&self, after: Option<Duration>) {
        self.shared.orders.send_modify(|orders| orders.idle = after);
    }

    /// Connections that live.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.traffic().connections
    }

    /// Bytes forwarded so far: up, down.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let traffic = self.traffic();
        (traffic.up, traffic.down)
    }

    /// What it has done so far.
    #[must_use]
    pub fn traffic(&self) -> Traffic {
        *self.shared.traffic.borrow()
    }

    /// Waits until the traffic is such.
    ///
    /// # Panics
    /// After 10 s, with what the traffic is.
    pub async fn wait_for(&self, until: impl Fn(&Traffic) -> bool) {
        let mut traffic = self.shared.traffic.subscribe();
        let condition = async {
            // An error means that the proxy is gone, which it is not while it is borrowed.
            let _ = traffic.wait_for(|traffic| until(traffic)).await;
        };
        self.backstage.wait(condition, || format!("{:?}", self.traffic())).await;
    }

    fn accepted(&self) -> usize {
        self.traffic().accepted
    }
}

impl Shared {
    /// Takes bytes from the allowance before a cut; says how many of them may pass.
    fn spend(&self, way: Way, bytes: usize) -> usize {
        let mut cut = locked(&self.cut);
        let Some((cut_way, left)) = &mut *cut else { return bytes };
        if *cut_way != way {
            return bytes;
        }
        let passing = usize::try_from(*left).unwrap_or(usize::MAX).min(bytes);
        *left -= passing as u64;
        passing
    }

    /// Resets everything if the allowance before a cut is used up.
    fn cut_if_spent(&self) {
        let mut cut = locked(&self.cut);
        if matches!(*cut, Some((_, 0))) {
            *cut = None;
            let accepted = self.traffic.borrow().accepted;
            self.orders.send_modify(|orders| orders.reset_before = accepted);
        }
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    let mut number = 0;
                    shared.traffic.send_modify(|traffic| {
                        number = traffic.accepted;
                        traffic.accepted += 1;
                        traffic.connections += 1;
                    });
                    connections.spawn(carry(client, number, shared.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// One connection, from its acceptance to its end.
async fn carry(client: TcpStream, number: usize, shared: Arc<Shared>) {
    let end = connect_and_copy(client, number, &shared).await;
    shared.traffic.send_modify(|traffic| {
        traffic.connections -= 1;
        traffic.resets += usize::from(end == End::Reset);
    });
}

/// How a connection ended.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// Both ends closed it, or one is not there.
    Closed,
    /// The proxy reset it.
    Reset,
}

async fn connect_and_copy(mut client: TcpStream, number: usize, shared: &Shared) -> End {
    let mut orders = shared.orders.subscribe();
    let target = tokio::select! {
        biased;
        () = told_to_reset(orders.clone(), number) => None,
        // An error means that the proxy is gone.
        target = async {
            let may_dial = orders.wait_for(|orders| may_pass(orders, number)).await;
            may_dial.map(|orders| orders.target).ok()
        } => target,
    };
    let Some(target) = target else {
        reset(&client);
        return End::Reset;
    };
    let Ok(mut server) = TcpStream::connect(target).await else {
        reset(&client);
        return End::Closed;
    };
    // A socket that cannot be told so is closed already, and copying says it.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let last = Mutex::new(Instant::now());
    let end = {
        let ((from_client, to_client), (from_server, to_server)) = (client.split(), server.split());
        let line = |way| Line { way, number, orders: shared.orders.subscribe(), shared, last: &last };
        tokio::select! {
            biased;
            () = told_to_reset(shared.orders.subscribe(), number) => End::Reset,
            () = idle(shared.orders.subscribe(), &last) => End::Reset,
            ends = async { tokio::join!(line(Way::Up).copy(from_client, to_server), line(Way::Down).copy(from_server, to_client)) } => {
                // An end that was reset resets the other one.
                if ends.0.is_err() || ends.1.is_err() { End::Reset } else { End::Closed }
            }
        }
    };
    if end == End::Reset {
        reset(&client);
        reset(&server);
    }
    end
}

/// Whether a connection forwards at this moment.
const fn may_pass(orders: &Orders, number: usize) -> bool {
    number >= orders.frozen_before && !matches!(orders.fault, Fault::BlackHole)
}

/// Waits until a connection is to be reset.
async fn told_to_reset(mut orders: watch::Receiver<Orders>, number: usize) {
    let told = |orders: &Orders| number < orders.reset_before || orders.fault == Fault::Refuse;
    if orders.wait_for(told).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Waits until nothing has passed for as long as the orders allow.
async fn idle(mut orders: watch::Receiver<Orders>, last: &Mutex<Instant>) {
    loop {
        let limit = orders.borrow_and_update().idle;
        let due = async {
            let Some(limit) = limit else { return std::future::pending().await };
            loop {
                let due = *locked(last) + limit;
                if due <= Instant::now() {
                    break;
                }
                sleep_until(due).await;
            }
        };
        tokio::select! {
            () = due => return,
            changed = orders.changed() => if changed.is_err() { std::future::pending::<()>().await },
        }
    }
}

/// Makes the next close of a socket a reset.
fn reset(socket: &TcpStream) {
    // A socket that cannot be told so is closed already.
    let _ = socket.set_zero_linger();
}

/// One way of one connection.
struct Line<'a> {
    way: Way,
    number: usize,
    orders: watch::Receiver<Orders>,
    shared: &'a Shared,
    /// When something last passed, on either way.
    last: &'a Mutex<Instant>,
}

/// Bytes that one way holds while they wait to be due: as much as a socket would.
const MOST_WAITING: usize = 256 << 10;

impl Line<'_> {
    /// Copies until the end of the stream, which it passes on; an error where one of the two was reset.
    async fn copy(mut self, mut from: ReadHalf<'_>, mut to: WriteHalf<'_>) -> io::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        // What was read and is not due yet; `None` is the end.
        let mut waiting: VecDeque<(Instant, Option<Bytes>)> = VecDeque::new();
        let (mut waiting_bytes, mut free_at, mut ended) = (0, Instant::now(), false);
        loop {
            let orders = *self.orders.borrow_and_update();
            if !may_pass(&orders, self.number) {
                if self.orders.changed().await.is_err() {
                    return Ok(());
                }
                continue;
            }
            let room = buffer.len().min(chunk(orders.fault));
            tokio::select! {
                biased;
                // An error means that the proxy is gone.
                changed = self.orders.changed() => if changed.is_err() { return Ok(()) },
                () = sleep_until(waiting.front().map_or_else(Instant::now, |(due, _)| *due)), if !waiting.is_empty() => {
                    let Some((_, bytes)) = waiting.pop_front() else { continue };
                    let Some(bytes) = bytes else {
                        to.shutdown().await?;
                        return Ok(());
                    };
                    waiting_bytes -= bytes.len();
                    self.pass(&mut to, &bytes).await?;
                }
                read = from.read(&mut buffer[..room]), if !ended && waiting_bytes < MOST_WAITING => {
                    let read = read?;
                    ended = read == 0;
                    let bytes = (!ended).then(|| Bytes::copy_from_slice(&buffer[..read]));
                    if let (Fault::Pass | Fault::HalfOpen, Some(bytes), true) = (orders.fault, &bytes, waiting.is_empty()) {
                        self.pass(&mut to, bytes).await?;
                        continue;
                    }
                    waiting_bytes += read;
                    let due = due(orders.fault, read, &mut free_at);
                    waiting.push_back((due, bytes));
                }
            }
        }
    }

    /// Forwards as much as may pass before a cut.
    async fn pass(&self, to: &mut WriteHalf<'_>, bytes: &[u8]) -> io::Result<()> {
        if self.is_reset() {
            std::future::pending::<()>().await;
        }
        let passing = self.shared.spend(self.way, bytes.len());
        // Counted first: whoever has received bytes finds them counted.
        self.shared.traffic.send_modify(|traffic| match self.way {
            Way::Up => traffic.up += passing as u64,
            Way::Down => traffic.down += passing as u64,
        });
        to.write_all(&bytes[..passing]).await?;
        *locked(self.last) = Instant::now();
        self.shared.cut_if_spent();
        if passing < bytes.len() {
            // The rest is lost with the connection.
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    /// Whether this connection is about to be reset: then nothing more passes, though its task may not have heard yet.
    fn is_reset(&self) -> bool {
        self.number < self.orders.borrow().reset_before
    }
}

/// Most bytes that are read at once: of a slow way, what it carries in 20 ms.
fn chunk(fault: Fault) -> usize {
    match fault {
        Fault::Slow { bytes_per_second, .. } => (bytes_per_second as usize / 50).max(1),
        Fault::Pass | Fault::Refuse | Fault::BlackHole | Fault::HalfOpen => usize::MAX,
    }
}

/// When bytes that were read now arrive.
fn due(fault: Fault, bytes: usize, free_at: &mut Instant) -> Instant {
    let now = Instant::now();
    let Fault::Slow { bytes_per_second, latency } = fault else { return now };
    let takes = Duration::from_secs_f64(bytes as f64 / f64::from(bytes_per_second.max(1)));
    *free_at = (*free_at).max(now) + takes;
    *free_at + latency
}
