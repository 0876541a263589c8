//! What the HTTP endpoint answers to which request.

use std::time::Duration;

use crate::operation::status::Status;
use crate::operation::{clock, os};
use crate::shell::event_channel::Event;
use crate::shell::http::{Endpoint, host};

const OK: &str = "200 OK";
const UNAVAILABLE: &str = "503 Service Unavailable";

/// How long the event loop may take to answer before it counts as stuck.
const LOOP_ANSWER_TIME: Duration = Duration::from_secs(1);

/// The page for people, with all that it needs.
const PAGE: &str = include_str!("page.html");

/// The page's browser loads nothing from elsewhere, and other sites cannot show the page in a frame. The page's own
/// script makes no HTML of what it reads, so nothing that is shown can become a script.
const PAGE_POLICY: &str = "Content-Security-Policy: default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; \
     img-src data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'\r\n\
     X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\nCache-Control: no-store\r\n";

const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer, while it is made.
pub(super) struct Answer {
    status: &'static str,
    content_type: &'static str,
    /// More lines of the head.
    headers: &'static str,
    body: String,
    is_body_shown: bool,
}

impl Answer {
    fn new(status: &'static str, content_type: &'static str, body: impl Into<String>) -> Self {
        Self { status, content_type, headers: "", body: body.into(), is_body_shown: true }
    }

    /// The answer as it is sent.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let Self { status, content_type, headers, body, is_body_shown } = self;
        let length = body.len();
        let shown = if *is_body_shown { body.as_str() } else { "" };
        format!(
            "HTTP/1.1 {status}\r\n\
             Content-Type: {content_type}\r\n\
             {headers}\
             Content-Length: {length}\r\n\
             Connection: close\r\n\r\n{shown}"
        )
        .into_bytes()
    }
}

impl Endpoint {
    /// The answer to a request with this head.
    pub(super) fn answer(&self, head: &[u8]) -> Answer {
        let line = head.split(|byte| b"\r\n".contains(byte)).next().unwrap_or_default();
        let mut words = line.split(|byte| *byte == b' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
        let answer = match method {
            b"GET" | b"HEAD" => self.answer_to(path, head),
            _ => None,
        };
        let not_found = "there are GET /, /status, /metrics, /healthz and /readyz\n";
        let answer = answer.unwrap_or_else(|| Answer::new("404 Not Found", PLAIN, not_found));
        Answer { is_body_shown: method != b"HEAD", ..answer }
    }

    fn answer_to(&self, path: &[u8], head: &[u8]) -> Option<Answer> {
        let answer = match path {
            b"/" | b"/status" => self.state(path, head),
            b"/metrics" => {
                self.table.record_levels();
                let content_type = "text/plain; version=0.0.4; charset=utf-8";
                Answer::new(OK, content_type, self.metrics.text())
            }
            b"/healthz" => match self.stuck() {
                None => Answer::new(OK, PLAIN, "ok\n"),
                Some(reason) => Answer::new(UNAVAILABLE, PLAIN, format!("{reason}\n")),
            },
            b"/readyz" => match self.unreadiness() {
                None => Answer::new(OK, PLAIN, "ready\n"),
                Some(reason) => Answer::new(UNAVAILABLE, PLAIN, format!("{reason}\n")),
            },
            _ => return None,
        };
        Some(answer)
    }

    /// The page or the status, for requests that name this machine.
    fn state(&self, path: &[u8], head: &[u8]) -> Answer {
        let machine = os::host_name();
        if !host::is_own(head, machine.as_deref()) {
            let name = machine.map(|name| format!(", or {name}")).unwrap_or_default();
            let remedy = format!(
                "This page is only shown under an IP address or localhost{name}, so that no web site can read it through your \
                 browser. From another machine: `ssh -L 8891:127.0.0.1:8891 SERVER`, then http://127.0.0.1:8891/\n"
            );
            return Answer::new("403 Forbidden", PLAIN, remedy);
        }
        if path == b"/" {
            let page = Answer::new(OK, "text/html; charset=utf-8", PAGE);
            return Answer { headers: PAGE_POLICY, ..page };
        }
        let status = Answer::new(OK, "application/json", self.status().json());
        Answer {
            headers: "X-Content-Type-Options: nosniff\r\nCache-Control: no-store\r\n",
            ..status
        }
    }

    fn status(&self) -> Status {
        let now = clock::now();
        self.table.record_levels();
        let not_ready = self.stuck().or_else(|| self.unreadiness());
        Status {
            not_ready: not_ready.map(str::to_owned),
            uptime_seconds: (now - self.started).as_secs_f64(),
            warnings: self.warnings.list(now),
            ..Status::of(&self.metrics)
        }
    }

    /// Why no new player should be sent to this server; `None` if it is ready.
    fn unreadiness(&self) -> Option<&'static str> {
        if self.metrics.is_draining.value() != 0 {
            return Some("draining, the server is about to end");
        }
        (self.relay_ports < 2).then_some("no relay port could be bound")
    }

    /// Why the server does nothing; `None` if its event loop turns.
    fn stuck(&self) -> Option<&'static str> {
        let (answer, answered) = crossbeam_channel::bounded(1);
        let does_turn = self.events.post_within(Event::Ping(answer), LOOP_ANSWER_TIME).is_ok()
            && answered.recv_timeout(LOOP_ANSWER_TIME).is_ok();
        (!does_turn).then_some("the event loop does not answer")
    }
}
