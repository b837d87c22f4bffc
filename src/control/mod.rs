//! How a running `watch` is asked: HTTP over a Unix socket, for `er-dev status` and `er-dev sync`, and at an address of
//! this machine where `daemon.listen` names one, for a browser and a monitoring system.
//!
//! | file | job |
//! |---|---|
//! | [`place`] | where sockets lie, who may use them, and which of them have somebody behind them |
//! | [`server`] | the routes, and the loop that is asked for the answers |
//! | `line` | one connection, within its bounds of bytes and time |
//! | `guard` | pure: what is refused at an address, where any page can make a browser ask |
//! | [`feed`] | the last events, for several who listen |
//! | `metrics` | pure: everything in numbers, for a monitoring system |
//! | `page` | the page, `page.html`, and what a browser may do for it |
//! | [`client`] | asks a running `watch` |
//! | [`status`] | pure: the answer, as JSON and as text |
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | how everything stands: [`status::Status`] |
//! | `GET /` | the page |
//! | `GET /versions` | the versions of the routines that nothing is being done for, as `er-dev revisions --json` has them |
//! | `GET /traffic` | API requests in each of the last 300 seconds, the present one last |
//! | `GET /events` | a stream of server-sent events, with the objects of `--format json` |
//! | `GET /healthz` | 200 `ok`, or 503 and why er-dev cannot do its work |
//! | `GET /metrics` | Prometheus' text format |
//! | `POST /sync` | the status, once every edit made before the request has ended |
//! | `POST /flush` | the same, once what waits for its next try is tried |
//! | `POST /pause`, `POST /resume` | the same, once nothing is started any more, or again |
//!
//! An answer other than 200 is `{"error": "..."}`, but for `/healthz` and `/metrics`. Each connection serves one request.
//! Whoever connects can hold up nobody but others who connect: the loop answers without waiting, and never reads from a
//! socket.

pub mod client;
pub mod feed;
mod guard;
mod line;
mod metrics;
mod page;
pub mod place;
pub mod server;
pub mod status;
