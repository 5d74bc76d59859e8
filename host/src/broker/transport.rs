//! From a provider's settings to its way out: reads the certificate files and checks the addresses.

use std::path::Path;
use std::sync::Arc;

use crate::model::time::Clock;
use crate::model::transport::Upstream;
use crate::secrets::SecretReader;
use crate::settings::{AddressBlock, ProviderSettings, SecretSource};
use crate::snapshot::SetupMistake;
use crate::upstream::{HttpUpstream, ProxyRoute, TransportSettings};

/// The way out of one provider.
pub(super) async fn upstream(
    settings: &ProviderSettings,
    secrets: &SecretReader,
    clock: Arc<dyn Clock>,
) -> Result<Arc<dyn Upstream>, Vec<SetupMistake>> {
    let mut mistakes = Vec::new();
    let mut mistake = |message: String, fix: &str| {
        mistakes.push(SetupMistake {
            provider: Some(settings.name.as_str().to_owned()),
            message,
            fix: fix.to_owned(),
            widens: false,
        });
    };
    let mut allow_addresses = Vec::new();
    for entry in &settings.allow_addresses {
        match AddressBlock::parse(entry) {
            Some(block) => allow_addresses.push(block),
            None => mistake(
                format!("allow_addresses: \"{entry}\" is no address and no block"),
                "write 10.1.2.3 or 10.0.0.0/8",
            ),
        }
    }
    let mut transport = TransportSettings {
        allow_addresses,
        insecure_http: settings.insecure_http,
        proxy: ProxyRoute::resolve(settings.proxy.as_ref(), |name| secrets.variable(name)),
        ..TransportSettings::default()
    };
    if let Some(tls) = &settings.tls {
        let readable = "write the file in PEM, readable by this process";
        for (what, path, place) in [
            ("ca", &tls.ca, &mut transport.ca),
            ("cert", &tls.cert, &mut transport.cert),
        ] {
            match pem(secrets, path.as_deref()).await {
                Ok(bytes) => *place = bytes,
                Err(fault) => mistake(format!("tls.{what}: {fault}"), readable),
            }
        }
        if let Some(key) = &tls.key {
            match secrets.read(key).await {
                Ok(key) => transport.key = Some(key),
                Err(fault) => mistake(format!("tls.key: {fault}"), readable),
            }
        }
    }
    if mistakes.is_empty() {
        let made = HttpUpstream::new(&transport, clock);
        made.map(|made| Arc::new(made) as _).map_err(|fault| {
            vec![SetupMistake {
                provider: Some(settings.name.as_str().to_owned()),
                message: format!("{}: {}", fault.setting, fault.message),
                fix: "correct the setting it names".to_owned(),
                widens: false,
            }]
        })
    } else {
        Err(mistakes)
    }
}

async fn pem(secrets: &SecretReader, path: Option<&Path>) -> Result<Option<Vec<u8>>, String> {
    let Some(path) = path else { return Ok(None) };
    let text = secrets.read(&SecretSource::File(path.to_owned())).await;
    text.map(|text| Some(text.expose().as_bytes().to_vec()))
        .map_err(|fault| fault.to_string())
}
