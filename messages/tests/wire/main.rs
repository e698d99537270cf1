//! The wire formats, checked from outside: what is accepted, what is refused, what it costs.

mod speed;
