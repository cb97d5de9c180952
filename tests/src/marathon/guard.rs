//! Basic authentication, as `--http_credentials` switches it on.

use axum::{
    Json,
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Lets a request pass if no credentials are asked for, or if it brings them. `expected` is `user:password`.
pub(super) async fn check(
    State(expected): State<Option<String>>,
    request: Request,
    next: Next,
) -> Response {
    let given = request.headers().get(header::AUTHORIZATION);
    let passes = expected.is_none_or(|expected| {
        given.is_some_and(|given| {
            given.as_bytes() == format!("Basic {}", base64(&expected)).as_bytes()
        })
    });
    if passes {
        return next.run(request).await;
    }
    let ask = [(header::WWW_AUTHENTICATE, "Basic realm=\"Mesosphere\"")];
    let body = Json(json!({"message": "Invalid username or password."}));
    (StatusCode::UNAUTHORIZED, ask, body).into_response()
}

/// RFC 4648, section 4.
fn base64(text: &str) -> String {
    let mut encoded = String::new();
    for chunk in text.as_bytes().chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sextet in 0..4 {
            let index = (bits >> (18 - 6 * sextet) & 63) as usize;
            encoded.push(if sextet <= chunk.len() {
                char::from(ALPHABET[index])
            } else {
                '='
            });
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    #[test]
    fn base64_is_that_of_rfc_4648() {
        for (text, encoded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(super::base64(text), encoded);
        }
    }
}
