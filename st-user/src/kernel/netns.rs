//! Another network namespace: entered for a moment, by one thread, to open sockets that stay there and to attach.

use std::{
    fs::File,
    io,
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
};

use rustix::{
    io::Errno,
    thread::{CapabilitySet, LinkNameSpaceType, capabilities, move_into_link_name_space},
};

use super::KernelError;
use crate::container::Sighted;

/// A namespace, held open.
#[derive(Debug)]
pub(crate) struct Namespace {
    there: File,
    /// The one that the thread came from and goes back to.
    own: File,
}

/// Whoever drops it is back where they came from.
struct Visit<'a>(&'a File);

impl Namespace {
    /// Opens what was found. `name` is the group's, for errors.
    pub(crate) fn open(name: &str, sighted: &Sighted) -> Result<Self, KernelError> {
        let failed = |source: io::Error| KernelError::Namespace { name: name.to_owned(), source };
        let path = sighted.path();
        let there = File::open(&path).map_err(|source| {
            let refused = [Some(libc::EACCES), Some(libc::EPERM)].contains(&source.raw_os_error());
            if refused {
                KernelError::NotAllowedIn { name: name.to_owned(), missing: "CAP_SYS_PTRACE" }
            } else {
                failed(source)
            }
        })?;
        if !sighted.is(&there).map_err(failed)? {
            return Err(failed(io::Error::other("another namespace took its place just now")));
        }
        let own = File::open("/proc/thread-self/ns/net").map_err(failed)?;
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        if identity(&there).map_err(failed)? == identity(&own).map_err(failed)? {
            return Err(KernelError::OwnNamespace { name: name.to_owned() });
        }
        Ok(Self { there, own })
    }

    /// Runs it in there, on this thread. The way back is never refused to who came in; where it is all the same, the process ends, for
    /// nothing would be where it belongs.
    pub(crate) fn enter<T>(&self, act: impl FnOnce() -> T) -> io::Result<T> {
        // The kind is said: a service may be allowed this one alone (`RestrictNamespaces=`).
        move_into_link_name_space(self.there.as_fd(), Some(LinkNameSpaceType::Network))?;
        let visit = Visit(&self.own);
        let result = act();
        drop(visit);
        Ok(result)
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        if let Err(error) = move_into_link_name_space(self.0.as_fd(), Some(LinkNameSpaceType::Network)) {
            tracing::error!(%error, "there is no way back into the daemon's own network namespace");
            std::process::abort();
        }
    }
}

/// Whether this thread may enter namespaces.
pub(super) fn may_enter() -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::SYS_ADMIN))
}

/// What a refusal to enter means.
pub(super) fn refused(name: &str, error: io::Error) -> KernelError {
    if error.raw_os_error() == Some(Errno::PERM.raw_os_error()) {
        KernelError::NotAllowedIn { name: name.to_owned(), missing: "CAP_SYS_ADMIN" }
    } else {
        KernelError::Namespace { name: name.to_owned(), source: error }
    }
}
