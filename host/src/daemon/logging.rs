//! Where lines and spans go: standard error, pretty or as JSON, and an OTLP collector when one is configured.
//!
//! What is told is decided elsewhere, in [`Event`](crate::model::event::Event)s. Below `INFO` only Keyfob's own lines
//! pass, whatever the filter says: at `TRACE` other crates print bytes that may be somebody's token.

use std::io::{self, IsTerminal};
use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::WithExportConfig;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::{FilterExt, filter_fn};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, fmt};

use super::config::{LogFormat, LogSettings};

/// The variable that says which lines are written: `info,keyfob::refresh=debug`.
pub const FILTER_VARIABLE: &str = "KEYFOB_LOG";
/// Where an OTLP collector takes spans, when the configured URL names no path of its own.
const TRACES_PATH: &str = "/v1/traces";
/// How long the last spans may take at the end.
const FLUSH_WITHIN: Duration = Duration::from_secs(3);
/// How long one batch may take.
const EXPORT_WITHIN: Duration = Duration::from_secs(10);

/// What must be flushed at the end.
#[must_use]
pub struct Logging {
    spans: Option<SdkTracerProvider>,
}

/// Sends batches from the runtime that the exporter's sockets belong to: the SDK exports from a thread of its own.
#[derive(Debug)]
struct OnRuntime {
    runtime: Handle,
    exporter: Arc<opentelemetry_otlp::SpanExporter>,
}

/// Starts to write; `filter` is the value of [`FILTER_VARIABLE`]. Must run inside a tokio runtime.
///
/// # Errors
///
/// What is wrong with the filter or the collector, for an operator.
pub fn start(settings: &LogSettings, filter: Option<&str>) -> Result<Logging, String> {
    let filter = EnvFilter::builder()
        .with_default_directive(LevelFilter::INFO.into())
        .parse(filter.unwrap_or_default())
        .map_err(|error| format!("{FILTER_VARIABLE} is no filter: {error}"))?;
    let lines = fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal());
    // Without a hint of its own it would take the other filter's away, and every span and event would be looked at.
    let filter = filter.and(filter_fn(is_safe).with_max_level_hint(LevelFilter::TRACE));
    let lines: Box<dyn Layer<Registry> + Send + Sync> = match settings.format {
        LogFormat::Pretty => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let spans = settings.otlp.as_deref().map(span_provider).transpose()?;
    // A list, because an absent layer would want every span.
    let mut layers = vec![lines];
    layers.extend(spans.as_ref().map(|provider| {
        let tracer = provider.tracer("keyfob");
        let own = filter_fn(|metadata| is_own(metadata) && *metadata.level() <= Level::DEBUG);
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            .with_filter(own.with_max_level_hint(LevelFilter::DEBUG))
            .boxed()
    }));
    tracing_subscriber::registry()
        .with(layers)
        .try_init()
        .map_err(|error| error.to_string())?;
    Ok(Logging { spans })
}

fn is_own(metadata: &Metadata<'_>) -> bool {
    metadata.target().split("::").next() == Some("keyfob")
}

fn is_safe(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO || is_own(metadata)
}

fn span_provider(collector: &str) -> Result<SdkTracerProvider, String> {
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_endpoint(traces_url(collector))
        .with_timeout(EXPORT_WITHIN)
        .build()
        .map_err(|error| format!("log.otlp: {error}"))?;
    let exporter = OnRuntime {
        runtime: Handle::current(),
        exporter: Arc::new(exporter),
    };
    let resource = Resource::builder().with_service_name("keyfob").build();
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_batch_exporter(exporter)
        .build())
}

/// The collector's URL for spans.
fn traces_url(collector: &str) -> String {
    match url::Url::parse(collector) {
        Ok(mut url) if url.path() == "/" => {
            url.set_path(TRACES_PATH);
            url.into()
        }
        _ => collector.to_owned(),
    }
}

// === impl Logging ===

impl Logging {
    /// Sends the last spans. Blocks for a few seconds at most: call it where blocking is allowed.
    pub fn finish(self) {
        if let Some(spans) = self.spans {
            // A collector that is gone must not turn a clean end into a failure.
            let _ = spans.shutdown_with_timeout(FLUSH_WITHIN);
        }
    }
}

// === impl OnRuntime ===

impl SpanExporter for OnRuntime {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let exporter = self.exporter.clone();
        let sent = self
            .runtime
            .spawn(async move { exporter.export(batch).await });
        sent.await
            .map_err(|error| OTelSdkError::InternalFailure(error.to_string()))?
    }

    fn set_resource(&mut self, resource: &Resource) {
        // Called once, before the first batch: nobody else holds the exporter yet.
        if let Some(exporter) = Arc::get_mut(&mut self.exporter) {
            exporter.set_resource(resource);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_go_to_the_standard_path_unless_one_is_written() {
        assert_eq!(traces_url("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(traces_url("http://c:4318/"), "http://c:4318/v1/traces");
        assert_eq!(traces_url("http://c/otlp/spans"), "http://c/otlp/spans");
    }

    #[test]
    fn a_filter_that_is_none_is_told() {
        let wrong = start(&LogSettings::default(), Some("keyfob=loud"))
            .err()
            .unwrap();
        assert!(wrong.contains(FILTER_VARIABLE), "{wrong}");
    }
}
