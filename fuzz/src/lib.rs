//! Properties that hold for any bytes whatever. A fuzzer runs them for minutes (`cargo xtask fuzz`); `cargo test` runs them
//! over the corpus that it left and over a few mutations of each.
//!
//! Each function takes a fuzzer's bytes and panics where its property does not hold.

mod engine;
mod fragments;
mod headers;
mod input;
mod kernel;
mod scanner;
mod stream;

pub use engine::engine;
pub use fragments::fragments;
pub use headers::headers;
pub use kernel::kernel;
pub use scanner::scanner;
pub use stream::stream;

/// A property by its name.
pub type Property = (&'static str, fn(&[u8]));

/// All of them: the names of the fuzz targets and of their corpora.
pub const PROPERTIES: [Property; 6] = [
    ("scanner", scanner),
    ("headers", headers),
    ("kernel", kernel),
    ("engine", engine),
    ("fragments", fragments),
    ("stream", stream),
];
