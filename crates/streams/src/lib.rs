//! SPDY/3.1 and the Kubernetes WebSocket stream protocols.
