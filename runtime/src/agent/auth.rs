//! Who may ask what this node serves: the operator, by a ServiceAccount token of audience `isolet`.
//!
//! Each token is reviewed by the API server; who it belongs to is remembered for a minute, by the token's SHA-256, so that
//! long polls cost the API server nothing. Failures are not remembered.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use isolet_crds::report::AUDIENCE;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use kube::Client;
use kube::api::{Api, PostParams};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::Instant;

const REMEMBERED_FOR: Duration = Duration::from_secs(60);
const REMEMBERED: usize = 64;
const MAX_TOKEN_BYTES: usize = 16 << 10;
/// What a stranger without a good token can make this agent ask at once.
const REVIEWS_AT_ONCE: usize = 4;
const REVIEW_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// 401.
    #[error("{0}")]
    Unauthenticated(&'static str),
    /// 403.
    #[error("{user} may not read this; only {expected} may")]
    Forbidden {
        /// Whose token it is.
        user: String,
        /// Who may.
        expected: String,
    },
    /// 503.
    #[error("failed to have the token reviewed: {0}")]
    Unavailable(String),
}

/// Checks tokens.
pub struct Auth {
    client: Client,
    expected: String,
    remembered: Mutex<HashMap<[u8; 32], (String, Instant)>>,
    reviews: Semaphore,
}

impl Auth {
    /// Lets this user in: `system:serviceaccount:NAMESPACE:NAME`.
    pub fn new(client: Client, expected: String) -> Self {
        Self {
            client,
            expected,
            remembered: Mutex::default(),
            reviews: Semaphore::new(REVIEWS_AT_ONCE),
        }
    }

    /// Checks the value of an `Authorization` header.
    pub async fn check(&self, authorization: Option<&str>) -> Result<(), AuthError> {
        let token = authorization
            .and_then(|value| value.strip_prefix("Bearer "))
            .map(str::trim)
            .filter(|token| !token.is_empty() && token.len() <= MAX_TOKEN_BYTES)
            .ok_or(AuthError::Unauthenticated(
                "send a ServiceAccount token of audience isolet as Authorization: Bearer TOKEN",
            ))?;
        let digest: [u8; 32] = Sha256::digest(token).into();
        let user = match self.remembered(&digest) {
            Some(user) => user,
            None => {
                let user = self.review(token).await?;
                self.remember(digest, user.clone());
                user
            }
        };
        if user == self.expected {
            Ok(())
        } else {
            Err(AuthError::Forbidden {
                user,
                expected: self.expected.clone(),
            })
        }
    }

    async fn review(&self, token: &str) -> Result<String, AuthError> {
        let unavailable = |why: String| AuthError::Unavailable(why);
        let _slot = self
            .reviews
            .try_acquire()
            .map_err(|_| unavailable("too many at once; try again".into()))?;
        let review = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![AUDIENCE.to_owned()]),
            },
            ..Default::default()
        };
        let reviews = Api::<TokenReview>::all(self.client.clone());
        let params = PostParams::default();
        let answer = tokio::time::timeout(REVIEW_TIMEOUT, reviews.create(&params, &review)).await;
        let status = match answer {
            Ok(Ok(review)) => review.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(unavailable(error.to_string())),
            Err(_) => return Err(unavailable("the API server did not answer in time".into())),
        };
        // An API server that knows no audiences leaves the list empty: then the token is not proven to be meant for us.
        let for_us = status
            .audiences
            .is_some_and(|audiences| audiences.iter().any(|audience| audience == AUDIENCE));
        match status.user.and_then(|user| user.username) {
            Some(user) if status.authenticated == Some(true) && for_us => Ok(user),
            _ => Err(AuthError::Unauthenticated(
                "the token is not valid, or not of audience isolet",
            )),
        }
    }

    fn remembered(&self, digest: &[u8; 32]) -> Option<String> {
        let remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered
            .get(digest)
            .filter(|(_, until)| *until > Instant::now())
            .map(|(user, _)| user.clone())
    }

    fn remember(&self, digest: [u8; 32], user: String) {
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        remembered.retain(|_, (_, until)| *until > now);
        if remembered.len() < REMEMBERED {
            remembered.insert(digest, (user, now + REMEMBERED_FOR));
        }
    }
}
