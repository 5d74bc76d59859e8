//! A plugin that was swapped in, as bytes.

use zeroize::Zeroizing;

use super::bytes::{Malformed, Reading, Writing};
use crate::store::KeptPlugin;

/// The layout written here, and the only one there was.
const LAYOUT: u8 = 1;

/// A plugin together with its place.
pub(in crate::store) fn encode_plugin(place: &str, plugin: &KeptPlugin) -> Zeroizing<Vec<u8>> {
    let KeptPlugin {
        instead_of,
        component,
    } = plugin;
    let mut out = Writing::new(LAYOUT);
    out.text(place);
    out.text(instead_of);
    out.length(component.len());
    out.raw(component);
    out.finish()
}

/// What [`encode_plugin`] wrote.
pub(in crate::store) fn decode_plugin(bytes: &[u8]) -> Result<(String, KeptPlugin), Malformed> {
    let (_, mut from) = Reading::new(bytes, LAYOUT)?;
    let place = from.text()?.to_owned();
    let instead_of = from.text()?.to_owned();
    let length = from.length()?;
    let component = from.take(length)?.into();
    from.end()?;
    Ok((
        place,
        KeptPlugin {
            instead_of,
            component,
        },
    ))
}
