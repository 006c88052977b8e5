//! What runtimes keep beside an OCI bundle's `config.json` (opencontainers/runtime-spec, `linux.namespaces`):
//!
//! ```text
//! /run/containerd/io.containerd.runtime.v2.task/NAMESPACE/ID/{config.json,init.pid}         containerd: nerdctl, Kubernetes
//! /run/containers/storage/overlay-containers/ID/userdata/{config.json,pidfile}              podman, CRI-O
//! /var/lib/containers/storage/overlay-containers/containers.json                            podman's names
//! ```
//!
//! These are there as long as the container runs.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;

use super::{Container, Network, below, directories, json};

const CONTAINERD: &str = "run/containerd/io.containerd.runtime.v2.task";
const STORAGE: &str = "run/containers/storage/overlay-containers";
const NAMES: &str = "var/lib/containers/storage/overlay-containers/containers.json";
const CONFIG: &str = "config.json";

/// All that run.
pub(super) fn all(root: &Path) -> impl Iterator<Item = Container> {
    let containerd = directories(&root.join(CONTAINERD)).flat_map(|namespace| directories(&namespace));
    let storage = directories(&root.join(STORAGE)).map(|container| container.join("userdata"));
    containerd.chain(storage).filter_map(move |bundle| read(root, &bundle.join(CONFIG)))
}

/// One, if it runs.
pub(super) fn read(root: &Path, state: &Path) -> Option<Container> {
    if state.file_name()? != CONFIG {
        return None;
    }
    let value = json(state)?;
    let bundle = state.parent()?;
    let pid = ["init.pid", "pidfile"].iter().find_map(|name| {
        let text = fs::read_to_string(bundle.join(name)).ok()?;
        text.trim().parse::<u32>().ok()
    })?;
    let names = names(root, &value, bundle);
    if names.is_empty() {
        return None;
    }
    let network = network(root, &value, bundle, pid);
    Some(Container { names, network, state: state.to_owned() })
}

fn annotation<'a>(value: &'a Value, keys: &[&str]) -> Option<&'a str> {
    keys.iter().find_map(|key| value["annotations"][*key].as_str()).filter(|text| !text.is_empty())
}

/// What it may be called by: in Kubernetes `CONTAINER`, `POD/CONTAINER` and `NAMESPACE/POD/CONTAINER`; elsewhere its name. None for the
/// container that only holds a pod's network.
fn names(root: &Path, value: &Value, bundle: &Path) -> Vec<String> {
    let container = annotation(value, &["io.kubernetes.cri.container-name", "io.kubernetes.container.name"]);
    let pod = annotation(value, &["io.kubernetes.cri.sandbox-name", "io.kubernetes.pod.name"]);
    let namespace = annotation(value, &["io.kubernetes.cri.sandbox-namespace", "io.kubernetes.pod.namespace"]);
    let kind = annotation(value, &["io.kubernetes.cri.container-type", "io.kubernetes.cri-o.ContainerType"]);
    if kind == Some("sandbox") {
        return Vec::new();
    }
    if let (Some(container), Some(pod)) = (container, pod) {
        let longest = namespace.map(|namespace| format!("{namespace}/{pod}/{container}"));
        return [container.to_owned(), format!("{pod}/{container}")].into_iter().chain(longest).collect();
    }
    if let Some(name) = annotation(value, &["nerdctl/name"]) {
        return vec![name.to_owned()];
    }
    podman_names(root, bundle)
}

/// The names that podman has for the container with this bundle.
fn podman_names(root: &Path, bundle: &Path) -> Vec<String> {
    let id = bundle.parent().filter(|_| bundle.ends_with("userdata")).and_then(Path::file_name);
    let (Some(id), Some(list)) = (id.and_then(|id| id.to_str()), json(&root.join(NAMES))) else { return Vec::new() };
    let own = list.as_array().into_iter().flatten().find(|one| one["id"] == id);
    let names = own.and_then(|one| one["names"].as_array()).into_iter().flatten();
    names.filter_map(Value::as_str).map(ToOwned::to_owned).collect()
}

fn network(root: &Path, value: &Value, bundle: &Path, pid: u32) -> Network {
    let spaces = value["linux"]["namespaces"].as_array();
    let Some(own) = spaces.into_iter().flatten().find(|space| space["type"] == "network") else { return Network::Host };
    let file = own["path"].as_str().filter(|path| !path.is_empty());
    // A container of a pod's is told the process that holds the network; what that was told is a file that outlives it.
    let held = file.filter(|path| path.starts_with("/proc/")).and_then(|_| sandbox(value, bundle));
    let file = held.as_deref().or(file);
    Network::Own {
        file: file.map(|path| if path.starts_with("/proc/") { path.into() } else { below(root, path) }),
        pid: Some(pid),
    }
}

/// The network file of the container that holds the pod's network.
fn sandbox(value: &Value, bundle: &Path) -> Option<String> {
    let id = annotation(value, &["io.kubernetes.cri.sandbox-id", "io.kubernetes.cri-o.SandboxID"])?;
    let beside: PathBuf = if bundle.ends_with("userdata") {
        bundle.parent()?.parent()?.join(id).join("userdata")
    } else {
        bundle.parent()?.join(id)
    };
    let value = json(&beside.join(CONFIG))?;
    let own = value["linux"]["namespaces"].as_array()?.iter().find(|space| space["type"] == "network")?;
    own["path"].as_str().filter(|path| !path.is_empty()).map(ToOwned::to_owned)
}
