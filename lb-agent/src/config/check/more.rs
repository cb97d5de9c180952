//! Further Marathons, each described in a file of its own.

use std::collections::BTreeMap;

use super::marathon;
use crate::config::{ConfigError, Flags, Marathon, error::Place, keys, parse, sources::Sources};

/// Those besides `first`. Nothing of one holds for another.
pub(in crate::config) fn more_marathons(
    sources: &Sources<'_>,
    first: Option<&Marathon>,
) -> Result<Vec<Marathon>, ConfigError> {
    let mut all = Vec::<Marathon>::new();
    for path in sources.many(&keys::MARATHON_MORE, parse::readable_file)? {
        let (flags, env) = (Flags::default(), BTreeMap::new());
        let of_file = Sources::of_file(&path, &flags, &env)?;
        let is_about_one = |name: &str| {
            let more = name == keys::MARATHON_MORE.name;
            !more && (name == keys::MARATHON.name || name.starts_with("marathon-"))
        };
        if let Some(place) = of_file.stranger(is_about_one) {
            let reason =
                "is not about a Marathon, and a file of --marathon-more is about nothing else";
            return Err(ConfigError::new(place, reason));
        }
        let Some(one) = marathon(&of_file)? else {
            let reason = "names no Marathon; it needs `marathon = \"URL\"`";
            return Err(ConfigError::new(Place::WholeFile(path), reason));
        };
        if first
            .into_iter()
            .chain(&all)
            .any(|other| is_same(&one, other))
        {
            let reason = "its Marathon is read already: an URL or the framework's name is that of another one";
            return Err(ConfigError::new(Place::WholeFile(path), reason));
        }
        all.push(one);
    }
    Ok(all)
}

/// What is told of both would go by one name.
fn is_same(one: &Marathon, other: &Marathon) -> bool {
    let framework = one.framework.is_some() && one.framework == other.framework;
    framework || one.urls.iter().any(|url| other.urls.contains(url))
}
