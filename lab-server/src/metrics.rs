//! What an operator's monitoring sees: counts and times, by provider and catalogue model, never by person and never content.
//!
//! The meter hands each record here as it settles it; [`Observed`] stands between the proxy and the meter and counts whom the meter
//! does not let in, of whom there is no record. The names are OpenTelemetry's for generative AI where it has one; what is the Lab's
//! own begins with `onek4_`. Every label comes from a closed list or from the catalogue, so that no caller can make a series.

use std::{
    collections::HashMap,
    fmt::{self, Debug},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use api_proxy::{
    Admitted, Ask, Caller, ChannelState, Endpoint, Name, NotAdmitted, NotReserved, PresentedKey, Record, RecordOutcome,
    Reservation, Surface, Upstream,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, text::encode},
    metrics::{
        counter::Counter,
        family::{Family, MetricConstructor},
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};

use wire::{ProjectId, UserId};

use crate::{
    gateway::Gateway,
    meter::{Load, Meter},
};

/// Upper bounds for whole answers and first bytes, in seconds: what OpenTelemetry advises, and more for answers that are thought over.
const SECONDS: [f64; 16] = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68];
/// Upper bounds for tokens: what OpenTelemetry advises.
const TOKENS: [f64; 12] = [1.0, 4.0, 16.0, 64.0, 256.0, 1_024.0, 4_096.0, 16_384.0, 65_536.0, 262_144.0, 1_048_576.0, 4_194_304.0];

/// All counts of this process.
pub struct Metrics {
    registry: Registry,
    requests: Family<Ending, Counter>,
    refused: Family<Reason, Counter>,
    in_flight: Gauge,
    unwritten: Gauge,
    cost_nano: Counter,
    tokens: Family<TokenLabels, Histogram, Buckets>,
    duration: Family<ModelLabels, Histogram, Buckets>,
    first_token: Family<ModelLabels, Histogram, Buckets>,
    /// What was looked up in these three families before. Labels are texts, which are made once and not for each request.
    found: RwLock<HashMap<(Host, &'static str), Arc<Series>>>,
}

/// Who answered, or was to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Host {
    /// A provider, with one of the catalogue's models.
    Cloud(Name, Option<Arc<str>>),
    /// A workstation. Its models have names of its owner's choosing, so they are all one.
    Local,
    /// Nobody was found.
    Nobody,
}

/// What is observed of one host's answers.
struct Series {
    input: Histogram,
    output: Histogram,
    duration: Histogram,
    first_token: Histogram,
}

/// A histogram's bounds.
#[derive(Clone, Copy)]
struct Buckets(&'static [f64]);

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(self.0.iter().copied())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ending {
    outcome: &'static str,
    status_class: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ModelLabels {
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
    gen_ai_operation_name: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TokenLabels {
    gen_ai_provider_name: String,
    gen_ai_request_model: String,
    gen_ai_operation_name: &'static str,
    gen_ai_token_type: &'static str,
}

impl Metrics {
    /// Everything at nothing. What channels and bridges are like is asked at each look.
    #[must_use]
    pub fn new(upstream: Arc<Upstream>, gateway: Arc<Gateway>) -> Arc<Self> {
        let mut registry = Registry::default();
        let requests = Family::<Ending, Counter>::default();
        registry.register("onek4_requests", "Requests that were let in, by how they ended", requests.clone());
        let refused = Family::<Reason, Counter>::default();
        registry.register("onek4_refused", "Requests whose key was not let in, by reason", refused.clone());
        let (in_flight, unwritten) = (Gauge::default(), Gauge::default());
        registry.register("onek4_in_flight", "Requests that run now", in_flight.clone());
        registry.register(
            "onek4_records_unwritten",
            "Records that are in the journal and not in the database yet",
            unwritten.clone(),
        );
        let cost_nano = Counter::default();
        registry.register("onek4_cost_nano", "What requests cost, in billionths of a credit", cost_nano.clone());
        let tokens = Family::new_with_constructor(Buckets(&TOKENS));
        registry.register("gen_ai_client_token_usage", "Tokens of a request, by type", tokens.clone());
        let duration = Family::new_with_constructor(Buckets(&SECONDS));
        registry.register_with_unit("gen_ai_server_request_duration", "From arrival to end", Unit::Seconds, duration.clone());
        let first_token = Family::new_with_constructor(Buckets(&SECONDS));
        let help = "From arrival to the first byte of the answer";
        registry.register_with_unit("gen_ai_server_time_to_first_token", help, Unit::Seconds, first_token.clone());
        registry.register_collector(Box::new(Live { upstream, gateway }));
        Arc::new(Self {
            registry,
            requests,
            refused,
            in_flight,
            unwritten,
            cost_nano,
            tokens,
            duration,
            first_token,
            found: RwLock::default(),
        })
    }

    /// All of it as OpenMetrics text, with the meter's load of this moment.
    ///
    /// # Errors
    /// Never, as long as memory can be had.
    pub fn text(&self, load: Load) -> Result<String, fmt::Error> {
        let whole = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.in_flight.set(whole(load.running));
        self.unwritten.set(whole(load.unwritten));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }

    /// Counts a request that has ended. It is called on the request's path, and does not wait.
    pub fn observe(&self, record: &Record) {
        let outcome = match record.outcome {
            RecordOutcome::Complete => "complete",
            RecordOutcome::Cancelled => "cancelled",
            // One of the proxy's codes, which are few.
            RecordOutcome::Failed(code) => code,
        };
        self.requests.get_or_create(&Ending { outcome, status_class: status_class(record.status) }).inc();
        self.cost_nano.inc_by(u64::try_from(record.cost_nano).unwrap_or_default());
        let Surface::Model(endpoint) = record.operation else { return };
        let host = match (&record.provider, &record.model) {
            (Some(provider), model) => Host::Cloud(provider.clone(), model.clone()),
            (None, Some(_)) => Host::Local,
            (None, None) => Host::Nobody,
        };
        let series = self.series(host, operation(endpoint));
        for (histogram, tokens) in [(&series.input, record.input_tokens), (&series.output, record.output_tokens)] {
            // Beyond 2^32 tokens a bucket's bound no longer matters.
            tokens.inspect(|tokens| histogram.observe(f64::from(u32::try_from(*tokens).unwrap_or(u32::MAX))));
        }
        let seconds = |millis| Duration::from_millis(millis).as_secs_f64();
        series.duration.observe(seconds(record.latency_ms));
        record.first_byte_ms.inspect(|millis| series.first_token.observe(seconds(*millis)));
    }

    fn series(&self, host: Host, operation: &'static str) -> Arc<Series> {
        let asked = (host, operation);
        let found = self.found.read().unwrap_or_else(PoisonError::into_inner).get(&asked).cloned();
        found.unwrap_or_else(|| {
            let series = Arc::new(self.look_up(&asked.0, operation));
            self.found.write().unwrap_or_else(PoisonError::into_inner).insert(asked, Arc::clone(&series));
            series
        })
    }

    fn look_up(&self, host: &Host, operation: &'static str) -> Series {
        let (provider, model) = match host {
            Host::Cloud(provider, model) => (provider.as_str(), model.as_deref().unwrap_or("none")),
            Host::Local => ("onek4.local", "local"),
            Host::Nobody => ("none", "none"),
        };
        let tokens = |kind| {
            let labels = TokenLabels {
                gen_ai_provider_name: provider.to_owned(),
                gen_ai_request_model: model.to_owned(),
                gen_ai_operation_name: operation,
                gen_ai_token_type: kind,
            };
            self.tokens.get_or_create(&labels).clone()
        };
        let labels = ModelLabels {
            gen_ai_provider_name: provider.to_owned(),
            gen_ai_request_model: model.to_owned(),
            gen_ai_operation_name: operation,
        };
        Series {
            input: tokens("input"),
            output: tokens("output"),
            duration: self.duration.get_or_create(&labels).clone(),
            first_token: self.first_token.get_or_create(&labels).clone(),
        }
    }
}

impl Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("metrics")
    }
}

const fn status_class(status: u16) -> &'static str {
    match status {
        200..=299 => "2xx",
        300..=399 => "3xx",
        400..=499 => "4xx",
        _ => "5xx",
    }
}

/// As OpenTelemetry calls it.
const fn operation(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::OpenaiChat | Endpoint::OpenaiResponses | Endpoint::AnthropicMessages | Endpoint::OllamaChat => "chat",
        Endpoint::OpenaiCompletions | Endpoint::OllamaGenerate => "text_completion",
        Endpoint::OpenaiEmbeddings | Endpoint::GeminiEmbed | Endpoint::GeminiBatchEmbed | Endpoint::OllamaEmbed => "embeddings",
        Endpoint::GeminiGenerate | Endpoint::GeminiStreamGenerate => "generate_content",
        Endpoint::OpenaiImages => "generate_image",
        Endpoint::AnthropicCountTokens | Endpoint::GeminiCountTokens => "count_tokens",
        Endpoint::OllamaShow => "show",
    }
}

/// What is asked when somebody looks.
struct Live {
    upstream: Arc<Upstream>,
    gateway: Arc<Gateway>,
}

impl Debug for Live {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("channels and bridges")
    }
}

impl Collector for Live {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let bridges = ConstGauge::new(i64::try_from(self.gateway.linked()).unwrap_or(i64::MAX));
        bridges.encode(encoder.encode_descriptor(
            "onek4_bridges_online",
            "Workstations that are linked",
            None,
            bridges.metric_type(),
        )?)?;
        let channels = self.upstream.health();
        if channels.is_empty() {
            return Ok(());
        }
        let one = ConstGauge::new(1_i64);
        let help = "Channels, by the state in which they are";
        let mut metric = encoder.encode_descriptor("onek4_channel_state", help, None, one.metric_type())?;
        for channel in channels {
            let labels =
                [("channel", channel.channel.as_str()), ("provider", channel.provider.as_str()), ("state", state(channel.state))];
            one.encode(metric.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

/// A channel's state as people read it.
#[must_use]
pub(crate) const fn state(state: ChannelState) -> &'static str {
    match state {
        ChannelState::Ready => "ready",
        ChannelState::Resting => "resting",
        ChannelState::Failing => "failing",
        ChannelState::KeyRefused => "key_refused",
    }
}

/// A meter whose refusals are counted.
pub struct Observed<M> {
    meter: M,
    metrics: Arc<Metrics>,
}

impl<M> Observed<M> {
    /// Counts whom `meter` does not let in.
    pub fn new(meter: M, metrics: Arc<Metrics>) -> Self {
        Self { meter, metrics }
    }
}

impl Observed<Meter> {
    /// Lets a person in, as [`Meter::admit_person`] does.
    ///
    /// # Errors
    /// Why not; counted.
    pub async fn admit_person(&self, user: UserId, project: ProjectId) -> Result<Admitted, NotAdmitted> {
        self.counted(self.meter.admit_person(user, project).await)
    }

    /// The meter itself.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }
}

impl<M> Observed<M> {
    fn counted(&self, admitted: Result<Admitted, NotAdmitted>) -> Result<Admitted, NotAdmitted> {
        admitted.inspect_err(|refusal| {
            self.metrics.refused.get_or_create(&Reason { reason: reason(*refusal) }).inc();
        })
    }
}

impl<M: api_proxy::Meter> api_proxy::Meter for Observed<M> {
    async fn admit(&self, key: PresentedKey<'_>, surface: Surface) -> Result<Admitted, NotAdmitted> {
        self.counted(self.meter.admit(key, surface).await)
    }

    async fn reserve(&self, caller: &Caller, ask: Ask<'_>) -> Result<Reservation, NotReserved> {
        self.meter.reserve(caller, ask).await
    }

    fn settle(&self, record: Record, reservation: Option<Reservation>) {
        self.meter.settle(record, reservation);
    }
}

const fn reason(refusal: NotAdmitted) -> &'static str {
    match refusal {
        NotAdmitted::Missing | NotAdmitted::Malformed | NotAdmitted::Unknown | NotAdmitted::Ambiguous => "invalid_api_key",
        NotAdmitted::Scope => "key_scope",
        NotAdmitted::RateLimited { .. } => "rate_limited",
        NotAdmitted::Unavailable => "unavailable",
    }
}
