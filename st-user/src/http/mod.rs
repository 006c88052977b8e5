//! The address that monitoring asks: a small HTTP server on the daemon's own thread, as tasks. Who asks is answered from what the
//! daemon published, or from a question to its loop: nobody holds that up. GET and HEAD alone, nothing that changes anything.

mod routes;
mod server;
#[cfg(test)]
mod tests;

pub(crate) use routes::{Asked, Body, Reply, Routes, full, text};
pub(crate) use server::{Counts, Server};
