//! What a redirect makes of a request: Fetch, "HTTP-redirect fetch". Pure.

use http::{HeaderMap, Method, StatusCode, header};
use url::Url;

/// Fetch's bound.
pub const MAX_REDIRECTS: usize = 20;

/// A request about to be sent, without its body.
#[derive(Clone, Debug)]
pub struct Hop {
    /// Method.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Header fields.
    pub headers: HeaderMap,
    /// Whether the body goes with it.
    pub with_body: bool,
}

/// Whether the status is one that Fetch follows.
pub fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

impl Hop {
    /// Changes the request as the response says. `Ok(false)`: there is no Location, so the response itself is the answer.
    pub fn redirect(&mut self, status: StatusCode, headers: &HeaderMap) -> Result<bool, String> {
        let Some(location) = headers.get(header::LOCATION) else {
            return Ok(false);
        };
        let text = String::from_utf8_lossy(location.as_bytes());
        let mut target = self.url.join(&text).map_err(|error| {
            format!(
                "{} redirects to an address that is no URL: {error}",
                origin(&self.url)
            )
        })?;
        if !matches!(target.scheme(), "http" | "https") {
            return Err(format!(
                "{} redirects to a {}: URL; only http: and https: can be fetched",
                origin(&self.url),
                target.scheme()
            ));
        }
        if !target.username().is_empty() || target.password().is_some() {
            return Err(format!(
                "{} redirects to a URL with a user name or password, which fetch refuses",
                origin(&self.url)
            ));
        }
        target.set_fragment(None);
        let to_get = match status.as_u16() {
            301 | 302 => self.method == Method::POST,
            303 => self.method != Method::GET && self.method != Method::HEAD,
            _ => false,
        };
        if to_get {
            self.method = Method::GET;
            self.with_body = false;
            for name in [
                header::CONTENT_ENCODING,
                header::CONTENT_LANGUAGE,
                header::CONTENT_LOCATION,
                header::CONTENT_TYPE,
                header::CONTENT_LENGTH,
            ] {
                self.headers.remove(name);
            }
        }
        if target.origin() != self.url.origin() {
            // What was meant for one server is not another's to know.
            for name in [
                header::AUTHORIZATION,
                header::COOKIE,
                header::PROXY_AUTHORIZATION,
            ] {
                self.headers.remove(name);
            }
        }
        self.url = target;
        Ok(true)
    }
}

fn origin(url: &Url) -> String {
    url.origin().ascii_serialization()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    fn hop(method: Method) -> Hop {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            (header::AUTHORIZATION, "secret"),
            (header::COOKIE, "a=b"),
            (header::CONTENT_TYPE, "text/plain"),
            (header::ACCEPT, "*/*"),
        ] {
            headers.insert(name, HeaderValue::from_static(value));
        }
        Hop {
            method,
            url: Url::parse("https://a.example/x/y?q").unwrap(),
            headers,
            with_body: true,
        }
    }

    fn follow(hop: &mut Hop, status: u16, location: &str) -> Result<bool, String> {
        let mut headers = HeaderMap::new();
        headers.insert(header::LOCATION, HeaderValue::from_str(location).unwrap());
        hop.redirect(StatusCode::from_u16(status).unwrap(), &headers)
    }

    #[test]
    fn methods_change_as_fetch_says() {
        for (status, before, after, with_body) in [
            (301, Method::POST, Method::GET, false),
            (302, Method::POST, Method::GET, false),
            (302, Method::PUT, Method::PUT, true),
            (303, Method::PUT, Method::GET, false),
            (303, Method::HEAD, Method::HEAD, true),
            (307, Method::POST, Method::POST, true),
            (308, Method::DELETE, Method::DELETE, true),
        ] {
            let mut hop = hop(before.clone());
            assert_eq!(follow(&mut hop, status, "z"), Ok(true));
            assert_eq!(
                (&hop.method, hop.with_body),
                (&after, with_body),
                "{status} {before}"
            );
            assert_eq!(hop.headers.contains_key(header::CONTENT_TYPE), with_body);
            assert_eq!(hop.url.as_str(), "https://a.example/x/z");
        }
    }

    #[test]
    fn credentials_stay_with_their_origin() {
        for (location, kept) in [
            ("/same", true),
            ("https://a.example:443/", true),
            ("https://a.example:8443/", false),
            ("http://a.example/", false),
            ("//b.example/", false),
        ] {
            let mut hop = hop(Method::GET);
            follow(&mut hop, 302, location).unwrap();
            assert_eq!(
                hop.headers.contains_key(header::AUTHORIZATION),
                kept,
                "{location}"
            );
            assert_eq!(hop.headers.contains_key(header::COOKIE), kept, "{location}");
            assert!(hop.headers.contains_key(header::ACCEPT));
        }
    }

    #[test]
    fn odd_targets_are_errors() {
        for location in [
            "file:///etc/passwd",
            "data:text/plain,x",
            "http://",
            "https://u:p@b.example/",
        ] {
            assert!(
                follow(&mut hop(Method::GET), 302, location).is_err(),
                "{location}"
            );
        }
        let mut plain = hop(Method::GET);
        assert_eq!(
            plain.redirect(StatusCode::FOUND, &HeaderMap::new()),
            Ok(false)
        );
    }
}
