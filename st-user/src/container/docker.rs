//! What Docker keeps of a container: `/var/lib/docker/containers/ID/config.v2.json`, written anew with each change of its state.

use std::path::{Path, PathBuf};

use super::{Container, Network, below, directories, json};

const CONTAINERS: &str = "var/lib/docker/containers";
const STATE: &str = "config.v2.json";

/// All that run.
pub(super) fn all(root: &Path) -> impl Iterator<Item = Container> {
    directories(&root.join(CONTAINERS)).filter_map(move |directory| read(root, &directory.join(STATE)))
}

/// One, if it runs.
pub(super) fn read(root: &Path, state: &Path) -> Option<Container> {
    if state.file_name()? != STATE {
        return None;
    }
    let value = json(state)?;
    if value["State"]["Running"] != true {
        return None;
    }
    let name = value["Name"].as_str()?.trim_start_matches('/').to_owned();
    let pid = value["State"]["Pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
    // Empty where the network is another container's.
    let file = value["NetworkSettings"]["SandboxKey"].as_str().filter(|path| !path.is_empty());
    let is_host = file.is_some_and(|path| path.ends_with("/netns/default"));
    let network = if is_host {
        Network::Host
    } else {
        let file: Option<PathBuf> = file.map(|path| below(root, path));
        Network::Own { file, pid }
    };
    Some(Container { names: vec![name], network, state: state.to_owned() })
}
