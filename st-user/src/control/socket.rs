//! The socket itself: who may reach it is settled before anybody can.

use std::{
    fs, io,
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
        net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
};

use nix::unistd::Group;
use socket2::{Domain, SockAddr, Socket, Type};

use crate::config;

/// For the owner and the group.
const MODE: u32 = 0o660;
/// Where there is no such group.
const OWNER_ONLY: u32 = 0o600;
/// Connections that wait to be taken.
const BACKLOG: i32 = 16;

/// Why there is no control socket.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum SocketError {
    #[error("another sipst listens on {}: give each a `control.socket` of its own", path.display())]
    Busy { path: PathBuf },
    #[error("{} is there and is no socket: take it away, or name another `control.socket`", path.display())]
    InTheWay { path: PathBuf },
    #[error("the control socket {} cannot be made", path.display())]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// A socket in the file system, which goes with this.
#[derive(Debug)]
pub(crate) struct Bound {
    path: PathBuf,
    /// Device and inode.
    made: (u64, u64),
}

impl Bound {
    /// Makes the socket, and whatever directory it lacks. What an earlier run has left there is taken away.
    pub(crate) fn make(path: &Path, group: &str) -> Result<(Self, UnixListener), SocketError> {
        if let Ok(found) = fs::symlink_metadata(path) {
            if !found.file_type().is_socket() {
                return Err(SocketError::InTheWay { path: path.to_owned() });
            }
            if UnixStream::connect(path).is_ok() {
                return Err(SocketError::Busy { path: path.to_owned() });
            }
        }
        let listener = listen(path, group).map_err(|source| SocketError::Make { path: path.to_owned(), source })?;
        let found = fs::symlink_metadata(path).map_err(|source| SocketError::Make { path: path.to_owned(), source })?;
        Ok((Self { path: path.to_owned(), made: (found.dev(), found.ino()) }, listener))
    }
}

impl Drop for Bound {
    fn drop(&mut self) {
        // Another one may stand there by now.
        if fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.made) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Nobody gets in before it listens, and by then it belongs to whom it should.
fn listen(path: &Path, group: &str) -> io::Result<UnixListener> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.bind(&SockAddr::unix(path)?)?;
    let given = match Group::from_name(group) {
        Ok(Some(found)) => chown(path, None, Some(found.gid.as_raw())).map_err(|error| {
            // Without CAP_CHOWN one gives to one's own groups alone.
            format!("its user may not give it to the group ({error}): it has to be in it (`SupplementaryGroups={group}` in the unit)")
        }),
        Ok(None) => Err(format!("there is no such group: `groupadd --system {group}` makes it")),
        Err(error) => Err(format!("the group cannot be looked up ({error})")),
    };
    let mode = given.map_or_else(
        |why| {
            tracing::warn!(group, "only the user that sipst runs as may command it until it is started again: {why}");
            OWNER_ONLY
        },
        |()| MODE,
    );
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// What can be said to whoever may not connect, from who may.
pub(crate) fn who_may(path: &Path) -> String {
    let Ok(found) = fs::metadata(path) else { return "only root and its group may".into() };
    let group = Group::from_gid(found.gid().into()).ok().flatten().map_or(found.gid().to_string(), |group| group.name);
    if found.mode() & 0o060 == 0o060 {
        format!("only its owner and the group `{group}` may: `usermod -aG {group} USER`, then log in anew")
    } else {
        format!(
            "only its owner may, for sipst could give it to no group (its log says why): `groupadd --system {0}`, `usermod -aG {0} \
             USER`, restart sipst, then log in anew",
            super::GROUP
        )
    }
}

impl config::Control {
    /// Makes the socket that this says; `None` where it says none.
    pub(crate) fn bind(&self) -> Result<Option<(Bound, UnixListener)>, SocketError> {
        self.socket.as_deref().map(|path| Bound::make(path, &self.group)).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Self {
            let dir = std::env::temp_dir().join(format!("sipst-socket-{}-{name}", std::process::id()));
            fs::create_dir_all(&dir).unwrap();
            Self(dir)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn it_belongs_to_the_group_alone_and_goes_at_the_end() {
        let dir = Dir::new("group");
        let path = dir.0.join("deeper/sipst.sock");
        let own = Group::from_gid(nix::unistd::getegid()).unwrap().unwrap().name;
        let (bound, listener) = Bound::make(&path, &own).unwrap();
        let found = fs::metadata(&path).unwrap();
        assert_eq!((found.mode() & 0o777, found.gid()), (0o660, nix::unistd::getegid().as_raw()));
        UnixStream::connect(&path).unwrap();
        drop((bound, listener));
        assert!(!path.exists());
    }

    #[test]
    fn without_the_group_it_is_its_owners_alone() {
        let dir = Dir::new("none");
        let path = dir.0.join("sipst.sock");
        let made = Bound::make(&path, "no-such-group-here").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert!(who_may(&path).contains("groupadd --system sipst"), "{}", who_may(&path));
        drop(made);
    }

    #[test]
    fn one_that_was_left_behind_is_replaced_and_one_that_answers_is_not() {
        let dir = Dir::new("left");
        let path = dir.0.join("sipst.sock");
        let (bound, listener) = Bound::make(&path, "no-such-group-here").unwrap();
        assert!(matches!(Bound::make(&path, "x"), Err(SocketError::Busy { .. })));
        // As after kill -9.
        drop(listener);
        std::mem::forget(bound);
        let (bound, listener) = Bound::make(&path, "no-such-group-here").unwrap();
        // What another one has made there meanwhile stays.
        fs::remove_file(&path).unwrap();
        let other = UnixListener::bind(&path).unwrap();
        drop((bound, listener));
        assert!(path.exists());
        drop(other);
        fs::remove_file(&path).unwrap();
        fs::write(&path, "").unwrap();
        assert!(matches!(Bound::make(&path, "x"), Err(SocketError::InTheWay { .. })));
        assert!(path.exists(), "a file of somebody's is left alone");
    }
}
