//! The catalogue of built-in resources and their strategies. No IO.
