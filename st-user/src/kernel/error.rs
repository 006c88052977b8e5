//! What can stand between sipst and the kernel, and the cure for it.

use std::{io, path::PathBuf};

use aya::{EbpfError, maps::MapError, programs::ProgramError};

/// How many lines of the verifier's log an error shows.
const VERIFIER_LINES: usize = 8;

/// Why the kernel programs cannot be loaded, attached or taken away.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum KernelError {
    #[error("missing {missing}: run as root, or give the service these capabilities (config/sipst.service does)")]
    Privilege { missing: String },
    #[error("kernel {release} is too old: sipst needs Linux 6.1 or later")]
    TooOld { release: String },
    #[error("this kernel has no BPF system call: it needs CONFIG_BPF_SYSCALL=y")]
    NoBpf,
    #[error(
        "the kernel refused `{what}` though all capabilities are there: in a container, run it privileged or on the host; with kernel lockdown, allow BPF"
    )]
    Forbidden {
        what: String,
        #[source]
        source: io::Error,
    },
    #[error("interface {name} does not exist: there are {there}")]
    NoInterface { name: String, there: String },
    #[error("interface {name} is not Ethernet: sipst attaches to interfaces that carry Ethernet frames")]
    NotEthernet { name: String },
    #[error("no interface is given: name at least one")]
    NoInterfaces,
    #[error(
        "one packet can cross both `{new}` and `{old}`, and calls whose CSeq numbers are rewritten may depend on `{old}`: they would be \
         rewritten twice. Reload again when those calls are over, or restart sipst"
    )]
    StillNeeded { new: String, old: String },
    #[error(
        "`namespaces` needs CAP_SYS_ADMIN, to enter them: install \
         config/namespaces.conf as a drop-in of the service (docs/attaching.md)"
    )]
    NoNamespaces,
    #[error(
        "`tcp: refresh` needs CAP_SYS_PTRACE, to write into the server's connections: install config/tcp.conf as a drop-in of the \
         service (docs/tcp.md)"
    )]
    NoTracing,
    #[error("`namespaces` needs TCX links, which came with Linux 6.6")]
    NamespacesNeedLinks,
    #[error(
        "namespace {name}: {missing} is missing: install config/namespaces.conf as a drop-in of the service (docs/attaching.md)"
    )]
    NotAllowedIn { name: String, missing: &'static str },
    #[error("namespace {name} is the daemon's own: use `interfaces` in the place of `namespaces` for it")]
    OwnNamespace { name: String },
    #[error("namespace {name} cannot be used")]
    Namespace {
        name: String,
        #[source]
        source: io::Error,
    },
    #[error("the interfaces cannot be listed")]
    Interfaces(#[source] io::Error),
    #[error("{} is not on a bpf file system and none can be mounted: run `mount -t bpf bpf /sys/fs/bpf`", path.display())]
    NoBpffs {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot use the pin directory {}: make it and give it to this user, or choose another `pin_dir`", path.display())]
    PinDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("another sipst uses {}: stop it first; one for other interfaces needs a `pin_dir` of its own", path.display())]
    Busy { path: PathBuf },
    #[error("{interface} has the programs of another sipst already: stop that, then `sipst unload --pin-dir {}`", pin_dir.display())]
    Twice { interface: String, pin_dir: PathBuf },
    #[error("{} belongs to another version of sipst: take it away with `unload` of that version, or with `unload --force`", path.display())]
    OtherVersion { path: PathBuf },
    #[error("{} belongs to a newer sipst: run that one, or take it away with its `unload`, or with `unload --force`", path.display())]
    NewerVersion { path: PathBuf },
    #[error("nothing is loaded under {}: run `sipst load`", path.display())]
    NotLoaded { path: PathBuf },
    #[error(
        "{dialogs} dialogs depend on the rewriting of their CSeq numbers: their calls would end badly; `--force` unloads all the same"
    )]
    Shifting { dialogs: usize },
    #[error("the kernel's verifier refused the program {program}; its last words:\n{tail}")]
    Verifier {
        program: String,
        tail: String,
        #[source]
        source: io::Error,
    },
    #[error("the embedded kernel programs lack {name}: build with `cargo xtask build`")]
    Lacks { name: &'static str },
    #[error("the kernel programs cannot be loaded")]
    Load(#[source] EbpfError),
    #[error("the map {name} cannot be used")]
    Map {
        name: &'static str,
        #[source]
        source: MapError,
    },
    #[error("cannot attach to {interface} ({hook}){}", cure(source))]
    Attach {
        interface: String,
        hook: &'static str,
        #[source]
        source: ProgramError,
    },
}

impl KernelError {
    /// What loading the object met with.
    pub(crate) fn load(error: EbpfError) -> Self {
        match errno(&error) {
            Some(libc::ENOSYS) => Self::NoBpf,
            Some(code @ (libc::EPERM | libc::EACCES)) => {
                Self::Forbidden { what: "bpf(BPF_MAP_CREATE)".into(), source: io::Error::from_raw_os_error(code) }
            }
            _ => Self::Load(error),
        }
    }

    /// What loading one program met with.
    pub(crate) fn program(name: &str, error: ProgramError) -> Self {
        let ProgramError::LoadError { io_error, verifier_log } = error else {
            return Self::Load(EbpfError::ProgramError(error));
        };
        let log = verifier_log.to_string();
        if log.trim().is_empty() && io_error.kind() == io::ErrorKind::PermissionDenied {
            return Self::Forbidden { what: "bpf(BPF_PROG_LOAD)".into(), source: io_error };
        }
        tracing::debug!(program = name, log, "verifier");
        Self::Verifier { program: name.into(), tail: tail(&log), source: io_error }
    }
}

/// The error number at the bottom of an error's causes.
pub(crate) fn errno(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(code) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error) {
            return Some(code);
        }
        next = error.source();
    }
    None
}

/// What an attach that failed means.
fn cure(error: &ProgramError) -> &'static str {
    match errno(error) {
        Some(libc::EBUSY) => ": another XDP program is there",
        Some(libc::ERANGE | libc::EOPNOTSUPP | libc::EINVAL | libc::ENOSPC) => {
            ": the driver cannot do it, as it is or at all (MTU, queues, offloads)"
        }
        Some(libc::ENODEV) => ": the interface has just gone",
        _ => "",
    }
}

fn tail(log: &str) -> String {
    let lines: Vec<_> = log.lines().filter(|line| !line.trim().is_empty()).collect();
    lines.get(lines.len().saturating_sub(VERIFIER_LINES)..).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_shown() {
        let log: String = (0..20).map(|n| format!("line {n}\n\n")).collect();
        assert_eq!(tail(&log).lines().count(), VERIFIER_LINES);
        assert!(tail(&log).ends_with("line 19"));
        assert_eq!(tail(""), "");
    }

    #[test]
    fn the_error_number_is_found_under_its_wrappers() {
        let source = io::Error::from_raw_os_error(libc::ENOSYS);
        let error = EbpfError::MapError(MapError::CreateError { name: "RING".into(), io_error: source });
        assert_eq!(errno(&error), Some(libc::ENOSYS));
        assert!(matches!(KernelError::load(error), KernelError::NoBpf));
    }
}
