//! Requests that functions make: HTTP/2 to the agent, which decides where they may go.

use std::sync::Arc;

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, Uri};
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;

use super::connections::{Connections, HeldBody, NoConnection};
use crate::control::{EGRESS_ERROR_HEADER, FINAL_URL_HEADER, FUNCTION_HEADER, REDIRECT_HEADER};
use crate::server::body::Body;
use crate::web::host::{HostError, OutboundRequest, Redirect};

/// Headers of ours; functions can neither send nor see them.
const OWN_PREFIX: &str = "isolet-";

/// The way to the agent.
#[derive(Clone, Debug)]
pub struct Egress(Arc<Connections>);

/// What the agent answered for a function.
#[derive(Debug)]
pub(super) struct Fetched {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) url: String,
    pub(super) redirected: bool,
    pub(super) body: HeldBody,
}

impl Egress {
    /// Over the egress socket. `lost` is cancelled when the agent has closed it: there is no other.
    pub fn new(socket: UnixStream, lost: CancellationToken) -> Self {
        Self(Connections::new(socket, lost))
    }

    /// Sends a request in a Function's name and waits for the head of its response.
    pub(super) async fn fetch(
        self,
        uid: String,
        outbound: OutboundRequest,
        body: Body,
    ) -> Result<Fetched, HostError> {
        let url = outbound.url.clone();
        let request = request(&uid, outbound, body)?;
        let failed = |what: &str| HostError::Type(format!("the request failed: {what}"));
        let (mut sender, hold) = self
            .0
            .hold(&uid)
            .await
            .map_err(|NoConnection| failed("no connection to the agent"))?;
        let response = sender
            .send_request(request)
            .await
            .map_err(|_| failed("the connection broke"))?;
        fetched(response.map(|body| HeldBody::new(body, hold)), url)
    }
}

fn request(uid: &str, outbound: OutboundRequest, body: Body) -> Result<Request<Body>, HostError> {
    let refuse = |what: &str| HostError::Type(format!("the request has an invalid {what}"));
    let uri: Uri = outbound.url.parse().map_err(|_| refuse("URL"))?;
    let method = Method::from_bytes(outbound.method.as_bytes()).map_err(|_| refuse("method"))?;
    let mut request = Request::new(body);
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    let headers = request.headers_mut();
    *headers = outbound.headers;
    remove_own(headers);
    headers.remove(http::header::CONTENT_LENGTH);
    let own = |value: &str| HeaderValue::from_str(value).map_err(|_| refuse("header value"));
    headers.insert(FUNCTION_HEADER, own(uid)?);
    let redirect = match outbound.redirect {
        Redirect::Follow => "follow",
        Redirect::Error => "error",
        Redirect::Manual => "manual",
    };
    headers.insert(REDIRECT_HEADER, own(redirect)?);
    Ok(request)
}

fn fetched(response: Response<HeldBody>, requested: String) -> Result<Fetched, HostError> {
    let (mut parts, body) = response.into_parts();
    let text = |name: &str| {
        parts
            .headers
            .get(name)
            .and_then(|value| value.to_str().ok())
    };
    if let Some(problem) = text(EGRESS_ERROR_HEADER) {
        return Err(HostError::Type(percent_decode(problem)));
    }
    let url = text(FINAL_URL_HEADER).map_or_else(|| requested.clone(), str::to_owned);
    Ok(Fetched {
        status: parts.status.as_u16(),
        redirected: url != requested,
        url,
        headers: {
            remove_own(&mut parts.headers);
            parts.headers
        },
        body,
    })
}

/// Removes what agent and worker say to each other.
fn remove_own(headers: &mut HeaderMap) {
    let own: Vec<HeaderName> = headers
        .keys()
        .filter(|name| name.as_str().starts_with(OWN_PREFIX))
        .cloned()
        .collect();
    for name in own {
        headers.remove(name);
    }
}

fn percent_decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%')
            .then(|| text.get(at + 1..at + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(byte));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_cannot_speak_in_anothers_name() {
        let mut headers = HeaderMap::new();
        headers.insert("isolet-function", HeaderValue::from_static("other"));
        headers.insert("x", HeaderValue::from_static("y"));
        let forged = OutboundRequest {
            request: None,
            method: "GET".into(),
            url: "https://example.com/x".into(),
            headers,
            body: crate::web::host::OutgoingBody::Empty,
            redirect: Redirect::Manual,
        };
        let request = request("mine", forged, Body::empty()).expect("valid");
        let names: Vec<_> = request.headers().keys().map(|name| name.as_str()).collect();
        assert_eq!(names, ["x", FUNCTION_HEADER, REDIRECT_HEADER]);
        assert_eq!(request.headers()[FUNCTION_HEADER], "mine");
        assert_eq!(request.headers()[REDIRECT_HEADER], "manual");
    }

    #[test]
    fn percent_escapes_decode_and_broken_ones_stay() {
        assert_eq!(percent_decode("a%20b%C3%A9%2"), "a bé%2");
        assert_eq!(percent_decode("%zz%é"), "%zz%é");
    }
}
