//! The settings of the pages over TCP.

use super::{is_set, refuse};
use crate::config::{AdminHttp, ConfigError, keys, parse, sources::Sources};

/// Everything about the pages over TCP; `None`: turned off.
pub(in crate::config) fn admin(sources: &Sources<'_>) -> Result<Option<AdminHttp>, ConfigError> {
    let listen = sources.many_or_none(&keys::ADMIN_LISTEN, parse::admin_listen)?;
    let Some(listen) = listen.filter(|listen| !listen.is_empty()) else {
        return Ok(None);
    };
    let file = |key| sources.one(key, parse::readable_file);
    let (token_file, users_file) = (
        file(&keys::ADMIN_TOKEN_FILE)?,
        file(&keys::ADMIN_USERS_FILE)?,
    );
    let closed = sources.preset(
        &keys::ADMIN_READ_AUTH,
        parse::choice(&[(keys::YES, true), ("no", false)]),
    )?;
    if closed && token_file.is_none() && users_file.is_none() {
        let reason = "needs --admin-token-file or --admin-users-file beside it, or nobody gets in";
        return Err(refuse(sources, &keys::ADMIN_READ_AUTH, reason));
    }
    let certificate = match (file(&keys::ADMIN_TLS_CERT)?, file(&keys::ADMIN_TLS_KEY)?) {
        (None, None) => None,
        (Some(certificate), Some(key)) => Some((certificate, key)),
        (Some(_), None) => {
            let reason = "needs --admin-tls-key beside it";
            return Err(refuse(sources, &keys::ADMIN_TLS_CERT, reason));
        }
        (None, Some(_)) => {
            let reason = "needs --admin-tls-cert beside it";
            return Err(refuse(sources, &keys::ADMIN_TLS_KEY, reason));
        }
    };
    Ok(Some(AdminHttp {
        listen,
        by_default: !is_set(sources, &keys::ADMIN_LISTEN),
        token_file,
        users_file,
        closed,
        health_path: sources.one(&keys::ADMIN_HEALTH_PATH, parse::page)?,
        hosts: sources.many(&keys::ADMIN_HOSTS, parse::word)?,
        certificate,
    }))
}
