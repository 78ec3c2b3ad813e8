//! A versioned key-value store of bytes.
