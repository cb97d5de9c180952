//! The statistics page and its other forms, by the rules of HAProxy: the raw target decides.

use axum::{
    extract::{FromRequestParts as _, Request, State},
    http::{Method, StatusCode, Uri},
    response::{IntoResponse, Response},
};

use super::{client::Place, form, pages::send};
use crate::admin::{
    page::{self, Orders},
    server::Admin,
    stats::{
        Sample,
        csv::{self, Wish},
        fields::Front,
        json,
    },
};

/// What a target asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Form {
    /// For people.
    Html,
    /// For tools.
    Csv,
    /// As HAProxy's `show stat json`.
    Json,
}

/// Everything that no route is for.
pub(super) async fn page(State(admin): State<Admin>, request: Request) -> Response {
    let target = raw(request.uri());
    let Some(form) = form_of(&target) else {
        return (StatusCode::NOT_FOUND, NOT_FOUND).into_response();
    };
    match *request.method() {
        Method::GET | Method::HEAD => {}
        Method::POST => return form::act(&admin, &target, request).await,
        _ => return StatusCode::METHOD_NOT_ALLOWED.into_response(),
    }
    let wish = wish_of(&target);
    let (mut parts, _) = request.into_parts();
    let Ok(place) = Place::from_request_parts(&mut parts, &()).await;
    match form {
        Form::Html => {
            let orders = parts.extensions.get::<Orders>().copied();
            page::show(admin, orders, target).await
        }
        Form::Csv => {
            let mut next = 0;
            let piece = move |sample: &Sample, out: &mut String| {
                if next == 0 {
                    csv::header(out);
                }
                let proxy = sample.proxies.get(next);
                next += 1;
                proxy.is_some_and(|proxy| {
                    csv::proxy(Front::of(sample, proxy), &wish, out);
                    true
                })
            };
            send(&admin, place, "text/plain", piece).await
        }
        Form::Json => {
            let (mut next, mut empty) = (0, true);
            let piece = move |sample: &Sample, out: &mut String| {
                if next == 0 {
                    out.push('[');
                }
                let Some(proxy) = sample.proxies.get(next) else {
                    out.push_str("]\n");
                    return false;
                };
                next += 1;
                let mut rows = String::new();
                json::haproxy(Front::of(sample, proxy), &wish, &mut rows);
                if let Some(rows) = rows.strip_suffix(',') {
                    if !empty {
                        out.push(',');
                    }
                    empty = false;
                    out.push_str(rows);
                }
                true
            };
            send(&admin, place, "application/json", piece).await
        }
    }
}

const NOT_FOUND: &str = "no such page; there are / for people, /;csv, /metrics, /v1/metrics/l4lb, /v1/stats, \
                         /v1/events, /v1/history, /v1/status, /v1/openapi.json, /v1/resolve, /v1/flows, /v1/explain, \
                         /v1/trace, /v1/capture, /v1/vips, /healthz, /readyz, and to be posted /v1/drain, \
                         /v1/maintenance, /v1/ready, /v1/weight, /v1/health, /v1/reset, /v1/release, /v1/resync\n";

/// Path and query as they came.
fn raw(uri: &Uri) -> String {
    uri.path_and_query()
        .map_or_else(|| uri.path().to_owned(), ToString::to_string)
}

/// `None`: it is no page of the statistics.
pub(in crate::admin) fn form_of(target: &str) -> Option<Form> {
    if target.contains(";json-schema") {
        return None;
    }
    if target.contains(";json") {
        return Some(Form::Json);
    }
    if target.contains(";csv") {
        return Some(Form::Csv);
    }
    let bare = target.split(';').next().unwrap_or_default();
    let (path, query) = bare.split_once('?').unwrap_or((bare, ""));
    let known = matches!(
        path,
        "/" | "/haproxy" | "/haproxy_stats" | "/stats" | "/haproxy/"
    );
    (known || query == "stats").then_some(Form::Html)
}

/// Which lines a target asks for.
pub(in crate::admin) fn wish_of(target: &str) -> Wish {
    let page::Wish {
        up,
        no_maint,
        scope,
        ..
    } = page::Wish::read(target);
    Wish {
        up,
        no_maint,
        scope,
        ..Wish::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_that_tools_use_is_known() {
        for (target, expected) in [
            ("/", Some(Form::Html)),
            ("/haproxy", Some(Form::Html)),
            ("/haproxy?stats", Some(Form::Html)),
            ("/admin?stats", Some(Form::Html)),
            ("/haproxy?stats;up;norefresh", Some(Form::Html)),
            ("/stats;st=DONE", Some(Form::Html)),
            ("/haproxy?stats;csv", Some(Form::Csv)),
            ("/;csv", Some(Form::Csv)),
            ("/anything/;csv;norefresh", Some(Form::Csv)),
            ("/haproxy?stats;json", Some(Form::Json)),
            ("/haproxy?stats;json-schema", None),
            ("/nothing", None),
            ("/nothing?else", None),
        ] {
            assert_eq!(form_of(target), expected, "{target}");
        }
    }

    #[test]
    fn options_stand_in_any_order() {
        let wish = wish_of("/haproxy?stats;no-maint;csv;scope=a%2Fb;up;unknown");
        assert!(wish.up && wish.no_maint);
        assert_eq!(wish.scope, "a/b");
        assert_eq!(wish_of("/;csv"), Wish::default());
    }
}
