//! The other end of the control socket.

use std::{
    io::{self, BufRead as _, BufReader, ErrorKind, Write as _},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    protocol::{Answer, Failure, Request},
    socket::who_may,
};

/// How long the daemon may be silent while something is asked of it; reading the configuration anew takes longest.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why nothing came of a request.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub(crate) enum ClientError {
    #[error(
        "no sipst runs here: there is no {}. `systemctl start sipst` or `sipst run` starts one; `--socket` names another place \
         (`control.socket` in its configuration)",
        path.display()
    )]
    NotThere { path: PathBuf },
    #[error("no sipst runs here: {} is left over from one. `systemctl start sipst` or `sipst run` starts one", path.display())]
    LeftOver { path: PathBuf },
    #[error("{} may not be used by you: {}", path.display(), who_may(path))]
    Forbidden { path: PathBuf },
    #[error("{} cannot be reached", path.display())]
    Connect {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("sipst does not answer")]
    Silent(#[source] io::Error),
    #[error("sipst has ended")]
    Ended,
    #[error("sipst says what this version does not understand")]
    Garbled(#[source] serde_json::Error),
    #[error("{0}")]
    Refused(String, Failure),
}

impl ClientError {
    /// One word for it.
    pub(crate) fn word(&self) -> &str {
        match self {
            Self::NotThere { .. } | Self::LeftOver { .. } => "not_running",
            Self::Forbidden { .. } => "forbidden",
            Self::Connect { .. } => "unreachable",
            Self::Silent(_) => "silent",
            Self::Ended => "ending",
            Self::Garbled(_) => "garbled",
            Self::Refused(_, failure) => &failure.word,
        }
    }
}

impl From<Failure> for ClientError {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure.message.clone(), failure)
    }
}

/// A connection.
pub(crate) struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    pub(crate) fn connect(path: &Path) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|source| {
            let path = path.to_owned();
            if source.kind() == ErrorKind::NotFound {
                ClientError::NotThere { path }
            } else if source.kind() == ErrorKind::ConnectionRefused {
                ClientError::LeftOver { path }
            } else if source.kind() == ErrorKind::PermissionDenied {
                ClientError::Forbidden { path }
            } else {
                ClientError::Connect { path, source }
            }
        })?;
        let patience = |stream: &UnixStream| {
            stream.set_read_timeout(Some(PATIENCE)).and_then(|()| stream.set_write_timeout(Some(PATIENCE)))
        };
        patience(&stream).map_err(ClientError::Silent)?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    /// Asks; the answers come by [`Self::next`].
    pub(crate) fn ask(&mut self, request: &Request) -> Result<(), ClientError> {
        let mut line = serde_json::to_vec(request).map_err(ClientError::Garbled)?;
        line.push(b'\n');
        // Where it was turned away at once, it is still told why.
        let _ = self.stream.get_mut().write_all(&line);
        Ok(())
    }

    /// The next answer; `None` at the end, which `done` tells of.
    pub(crate) fn next(&mut self, done: &mut serde_json::Value) -> Result<Option<Answer>, ClientError> {
        let mut line = Vec::new();
        match self.stream.read_until(b'\n', &mut line) {
            Ok(0) => return Err(ClientError::Ended),
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return Err(ClientError::Ended),
            Err(error) => return Err(ClientError::Silent(error)),
        }
        match serde_json::from_slice(&line).map_err(ClientError::Garbled)? {
            Answer::Done(value) => {
                *done = value;
                Ok(None)
            }
            Answer::Error(failure) => Err(failure.into()),
            answer @ (Answer::Session(_) | Answer::Call(_) | Answer::Event(_) | Answer::Lost(_)) => Ok(Some(answer)),
        }
    }

    /// Asks, and hands all answers to `take`. Returns what was said at the end.
    pub(crate) fn all<E: From<ClientError>>(
        &mut self,
        request: &Request,
        mut take: impl FnMut(Answer) -> Result<(), E>,
    ) -> Result<serde_json::Value, E> {
        self.ask(request)?;
        let mut done = serde_json::Value::Null;
        while let Some(answer) = self.next(&mut done)? {
            take(answer)?;
        }
        Ok(done)
    }

    /// From now on the daemon may be silent for as long as it likes, or for this long.
    pub(crate) fn wait(&self, patience: Option<Duration>) -> Result<(), ClientError> {
        self.stream.get_ref().set_read_timeout(patience).map_err(ClientError::Silent)
    }
}
