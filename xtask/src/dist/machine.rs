//! A Debian that runs: systemd is the first process of namespaces of its own, on a host of the laboratory's.
//!
//! Nothing of it outlives this process, however that ends: the first process is killed with it, and all others with that.
//! What has a name beyond, the control group and the files, a shell takes away that waits for the end of a pipe from here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use st_tests::{Host, Process};

/// What the first process does before it becomes systemd.
const BOOT: &str = include_str!("boot.sh");

/// Tells its number outside, enters its control group, and goes on in namespaces that begin there.
const ENTER: &str = r#"read -r pid rest < /proc/self/stat
echo "$pid"
echo 0 > "$2/cgroup.procs"
exec unshare --cgroup sh -ec "$3" boot "$1""#;

/// Waits until nobody holds its input any more, and takes away what is left. `$1`: the control group; `$2`: the files.
const CLEAN_UP: &str = r#"trap '' INT TERM HUP
cat > /dev/null
echo 1 > "$1/cgroup.kill" 2> /dev/null
for try in 1 2 3 4 5 6 7 8 9 10; do
    find "$1" -depth -type d -exec rmdir {} + 2> /dev/null
    test -e "$1" || break
    sleep 0.2
done
rm -rf "$2""#;

/// Where control groups are mounted in the host.
const GROUPS: &str = "/run/groups";

/// How long it may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// A machine that runs until it is dropped.
pub(super) struct Machine<'a> {
    host: &'a Host,
    /// The number of its first process, outside.
    init: String,
    /// Dropped in this order: what runs, then what cleans up.
    _first: Process,
    _cleaner: Cleaner,
}

/// Takes away what a machine leaves, once this is dropped or this process has ended.
struct Cleaner {
    child: Child,
    pipe: Option<ChildStdin>,
}

impl<'a> Machine<'a> {
    /// Starts the Debian at `root` and waits until it is up.
    pub(super) fn boot(host: &'a Host, root: &Path) -> Result<Self> {
        fs::create_dir_all(root.join("run")).with_context(|| format!("cannot use {}", root.display()))?;
        let group = PathBuf::from(GROUPS).join(format!("sipst-dist-{}", std::process::id()));
        host.run("mkdir", &[GROUPS])?;
        host.run("mount", &["-t", "cgroup2", "cgroup2", GROUPS])?;
        host.run("mkdir", &[&group.to_string_lossy()])?;
        let cleaner = Cleaner::start(host, &group, root)?;
        let mut unshare = Command::new("unshare");
        unshare.args(["--mount", "--pid", "--fork", "--kill-child", "--uts", "--ipc", "sh", "-ec", ENTER, "boot"]);
        unshare.arg(root).arg(&group).arg(BOOT);
        let mut first = host.spawn(unshare)?;
        let until = Instant::now() + PATIENCE;
        let init = loop {
            if let Some(init) = first.printed().lines().next() {
                break init.to_owned();
            }
            if let Ok(status) = first.wait(Duration::ZERO) {
                bail!("the Debian does not start ({status}): {}", first.said());
            }
            pause(until, || first.said())?;
        };
        let machine = Self { host, init, _first: first, _cleaner: cleaner };
        // Degraded is up too: not every kernel lets a Debian mount all that it would like to.
        machine.wait("systemctl is-system-running --wait | grep -x -e running -e degraded", PATIENCE)?;
        Ok(machine)
    }

    /// What brings a program into it, as words of a command line.
    pub(super) fn entrance(&self) -> Vec<String> {
        let words = ["nsenter", "--target", &self.init, "--mount", "--pid", "--uts", "--ipc", "--cgroup", "--net"];
        let place = ["--", "env", "-i", "--chdir=/root", "HOME=/root", "LANG=C.UTF-8", "TERM=xterm-256color"];
        let path = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"];
        words.into_iter().chain(place).chain(path).map(str::to_owned).collect()
    }

    /// What a script prints; an error with what it says where it fails.
    pub(super) fn run(&self, script: &str) -> Result<String> {
        let entrance = self.entrance();
        let mut command = Command::new(&entrance[0]);
        command.args(&entrance[1..]).args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", script]).stdin(Stdio::null());
        let output = self.host.enter(move || command.output()).context("cannot run nsenter")?;
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        if !output.status.success() {
            let said = String::from_utf8_lossy(&output.stderr);
            bail!("`{script}` failed ({}): {}\n{}", output.status, said.trim(), printed.trim());
        }
        Ok(printed)
    }

    /// Waits until a script succeeds; then what it prints.
    pub(super) fn wait(&self, script: &str, within: Duration) -> Result<String> {
        let until = Instant::now() + within;
        loop {
            match self.run(script) {
                Ok(printed) => return Ok(printed),
                Err(error) => pause(until, || format!("{error:#}"))?,
            }
        }
    }
}

impl Cleaner {
    fn start(host: &Host, group: &Path, root: &Path) -> Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut shell = Command::new("sh");
        shell.args(["-c", CLEAN_UP, "clean-up"]).arg(group).arg(root);
        // Ctrl-C is for us: it has to outlive that.
        shell.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = host.enter(move || shell.spawn()).context("cannot start a shell")?;
        let pipe = child.stdin.take();
        Ok(Self { child, pipe })
    }
}

impl Drop for Cleaner {
    fn drop(&mut self) {
        self.pipe.take();
        // It says nothing, and takes two seconds at most.
        let _ = self.child.wait();
    }
}

fn pause(until: Instant, why: impl FnOnce() -> String) -> Result<()> {
    if Instant::now() > until {
        bail!("it takes too long: {}", why());
    }
    thread::sleep(Duration::from_millis(50));
    Ok(())
}
