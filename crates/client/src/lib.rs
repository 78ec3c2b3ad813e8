//! How components talk to the API.
