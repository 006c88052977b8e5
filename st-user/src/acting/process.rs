//! Whose a socket is, and a duplicate of it. Both take CAP_SYS_PTRACE where the process is another user's.

use std::{
    fs,
    os::fd::{AsFd as _, OwnedFd, RawFd},
};

use procfs::process::{FDTarget, Process, all_processes};
use rustix::{
    io::Errno,
    process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open},
};
use socket2::Socket;
use tracing::debug;

/// How many descriptors of a process are tried that does not show them.
const MAX_TRIED: u32 = 65_536;

/// How many ancestors of a process are looked at.
const MAX_ANCESTORS: usize = 8;

/// A process: its number comes round again, with another time at which it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct ProcessId {
    pub(super) pid: i32,
    started: u64,
}

/// A socket in the process that has it; where several have, in that with the lowest number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The first of the processes of this program: servers that are several hand sockets to one another.
    pub(super) program: ProcessId,
    /// The one that has it.
    pub(super) process: ProcessId,
    number: RawFd,
}

/// Finds the socket with this inode and cookie, in `first` before all others. `None`: no process has it, or none may be looked into.
pub(super) fn find(inode: u32, cookie: u64, first: Option<ProcessId>) -> Option<Place> {
    let known =
        first.and_then(|first| Process::new(first.pid).ok()).and_then(|process| in_shown(&process, inode).ok()?);
    if let Some(place) = known {
        return Some(place);
    }
    let mut hidden = Vec::new();
    let mut processes: Vec<Process> = all_processes().ok()?.flatten().collect();
    processes.sort_by_key(Process::pid);
    for process in processes {
        match in_shown(&process, inode) {
            Ok(Some(place)) => return Some(place),
            Ok(None) => {}
            Err(()) => hidden.push(process),
        }
    }
    // Without CAP_DAC_READ_SEARCH nobody sees another user's descriptors; with CAP_SYS_PTRACE they can be had by their numbers.
    hidden.iter().find_map(|process| in_hidden(process, cookie))
}

/// The socket among the descriptors that a process shows; an error where it shows none.
fn in_shown(process: &Process, inode: u32) -> Result<Option<Place>, ()> {
    let id = identity(process).ok_or(())?;
    let open = process.fd().map_err(|_| ())?;
    let is_it = |target: &FDTarget| matches!(target, FDTarget::Socket(found) if *found == u64::from(inode));
    let found = open.flatten().find(|descriptor| is_it(&descriptor.target));
    Ok(found.map(|descriptor| Place { program: first_of(process, id), process: id, number: descriptor.fd }))
}

/// The same by trying every number.
fn in_hidden(process: &Process, cookie: u64) -> Option<Place> {
    let id = identity(process)?;
    let status = fs::read_to_string(format!("/proc/{}/status", id.pid)).ok()?;
    let size = status.lines().find_map(|line| line.strip_prefix("FDSize:")?.trim().parse::<u32>().ok())?;
    let handle = pidfd_open(Pid::from_raw(id.pid)?, PidfdFlags::empty()).ok()?;
    for number in 0..size.min(MAX_TRIED) {
        match pidfd_getfd(&handle, number.cast_signed(), PidfdGetfdFlags::empty()) {
            Ok(descriptor) if cookie_of(&descriptor) == Some(cookie) => {
                return Some(Place { program: first_of(process, id), process: id, number: number.cast_signed() });
            }
            Ok(_) | Err(Errno::BADF) => {}
            Err(error) => {
                debug!(pid = id.pid, %error, "its descriptors cannot be duplicated");
                return None;
            }
        }
    }
    None
}

/// A duplicate of a socket, if it is still the one with this cookie. Nobody may keep it: the connection stays open as long as it lives,
/// whatever the server closes.
pub(super) fn duplicate(place: &Place, cookie: u64) -> Option<Socket> {
    let Place { process, number, .. } = place;
    let handle = pidfd_open(Pid::from_raw(process.pid)?, PidfdFlags::empty()).ok()?;
    let descriptor = pidfd_getfd(&handle, *number, PidfdGetfdFlags::empty())
        .inspect_err(|error| debug!(pid = process.pid, %error, "the server's socket cannot be duplicated"))
        .ok()?;
    (cookie_of(&descriptor) == Some(cookie)).then(|| Socket::from(descriptor))
}

fn cookie_of(descriptor: &OwnedFd) -> Option<u64> {
    rustix::net::sockopt::socket_cookie(descriptor.as_fd()).ok()
}

fn identity(process: &Process) -> Option<ProcessId> {
    Some(ProcessId { pid: process.pid(), started: process.stat().ok()?.starttime })
}

/// The furthest of its ancestors that run the same program, one from the other.
fn first_of(process: &Process, id: ProcessId) -> ProcessId {
    let (mut first, Ok(program)) = (id, process.exe()) else { return id };
    let mut parent = process.stat().ok().map(|stat| stat.ppid);
    for _ in 0..MAX_ANCESTORS {
        let Some(next) = parent.and_then(|pid| Process::new(pid).ok()) else { break };
        if next.exe().ok().as_ref() != Some(&program) {
            break;
        }
        let (Some(id), stat) = (identity(&next), next.stat()) else { break };
        (first, parent) = (id, stat.ok().map(|stat| stat.ppid));
    }
    first
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream},
        time::{Duration, Instant},
    };

    use super::*;

    fn ours() -> ProcessId {
        identity(&Process::myself().unwrap()).unwrap()
    }

    #[test]
    fn a_socket_is_found_in_its_process_and_its_duplicate_is_the_same() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let inode = u32::try_from(rustix::fs::fstat(&stream).unwrap().st_ino).unwrap();
        let cookie = rustix::net::sockopt::socket_cookie(&stream).unwrap();
        for first in [None, Some(ours())] {
            let place = find(inode, cookie, first).unwrap();
            assert_eq!(place.process, ours());
            let socket = duplicate(&place, cookie).unwrap();
            assert_eq!(socket.local_addr().unwrap().as_socket(), Some(stream.local_addr().unwrap()));
        }
        let place = in_hidden(&Process::myself().unwrap(), cookie).unwrap();
        assert!(duplicate(&place, cookie).is_some());
        assert!(duplicate(&place, cookie ^ 1 << 60).is_none(), "another socket under that number by now");
        assert_eq!(in_hidden(&Process::myself().unwrap(), cookie ^ 1 << 60), None);
        drop(stream);
        let until = Instant::now() + Duration::from_secs(10);
        while find(inode, cookie, Some(ours())).is_some() {
            assert!(Instant::now() < until);
        }
        assert!(duplicate(&place, cookie).is_none());
    }
}
