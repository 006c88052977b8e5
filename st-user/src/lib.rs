//! The sipst daemon and its command line: everything around the engine that reads clocks, opens sockets and talks to
//! the kernel.
