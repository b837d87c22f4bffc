//! The control socket of a running `watch`: HTTP over a Unix socket, for `er-dev status` and `er-dev sync`.
//!
//! | file | job |
//! |---|---|
//! | [`place`] | where sockets lie, who may use them, and which of them have somebody behind them |
//! | [`server`] | the routes, and the loop that is asked for the answers |
//! | `line` | one connection, within its bounds of bytes and time |
//! | [`client`] | asks a running `watch` |
//! | [`status`] | pure: the answer, as JSON and as text |
//!
//! | request | answer |
//! |---|---|
//! | `GET /status` | how everything stands: [`status::Status`] |
//! | `POST /sync` | the same, once every edit made before the request has ended |
//! | `POST /flush` | the same, once what waits for its next try is tried |
//! | `POST /pause`, `POST /resume` | the same, once nothing is started any more, or again |
//!
//! An answer other than 200 is `{"error": "..."}`. Each connection serves one request. Whoever connects can hold up
//! nobody but others who connect: the loop answers without waiting, and never reads from a socket.

pub mod client;
mod line;
pub mod place;
pub mod server;
pub mod status;
