//! One HTTP request: where it goes, and whether it makes sense to try again.

use std::time::Duration;

use ureq::{Agent, http::Uri};

/// Posts JSON to one address.
pub(super) struct Poster {
    url: String,
    agent: Agent,
}

/// Why it was not taken.
pub(super) struct Failure {
    pub(super) reason: String,
    /// Whether it may be taken another time.
    pub(super) again: bool,
}

impl Poster {
    /// `timeout` holds for one attempt, from connecting to the last byte of the answer.
    pub(super) fn new(url: String, timeout: Duration) -> Self {
        Self { url, agent: agent(timeout) }
    }

    /// One attempt.
    pub(super) fn post(&self, body: &str) -> Result<(), Failure> {
        let request = self.agent.post(&self.url).content_type("application/json");
        match request.send(body) {
            Ok(response) => {
                let status = response.status();
                // RFC 9110, section 15.5: what the client did wrong stays wrong, but for "too slow" and "too much".
                let again = status.is_server_error() || matches!(status.as_u16(), 408 | 429);
                if status.is_success() { Ok(()) } else { Err(Failure { reason: format!("answered {status}"), again }) }
            }
            Err(error) => Err(Failure { reason: error.to_string(), again: true }),
        }
    }
}

/// No redirects, which would leave the place that the operator named, and no proxy from the environment.
fn agent(timeout: Duration) -> Agent {
    let config = Agent::config_builder()
        .timeout_global(Some(timeout))
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .user_agent(concat!("sipst/", env!("CARGO_PKG_VERSION")));
    config.build().into()
}

/// What the log calls it: paths and queries of webhooks are often secrets.
pub(super) fn name(url: &str) -> String {
    match url.parse::<Uri>() {
        Ok(uri) => format!("{}://{}", uri.scheme_str().unwrap_or("http"), host_and_port(&uri)),
        Err(_) => "webhook".to_owned(),
    }
}

fn host_and_port(uri: &Uri) -> String {
    let host = uri.host().unwrap_or_default();
    uri.port_u16().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_log_names_a_webhook_without_its_secrets() {
        assert_eq!(name("https://user:pw@hooks.example:8443/services/T0/B0?token=x"), "https://hooks.example:8443");
        assert_eq!(name("http://h/"), "http://h");
    }
}
