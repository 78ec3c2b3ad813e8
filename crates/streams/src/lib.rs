//! Streams over one connection, as kubectl, API servers, kubelets and container runtimes speak them: SPDY/3.1, the
//! WebSocket protocols, and what carries `exec`, `attach` and `port-forward` over either. Knows nothing of pods or nodes.

mod activity;
pub mod portforward;
pub mod remotecommand;
pub mod spdy;
pub mod switching;
pub mod upgrade;
pub mod websocket;
