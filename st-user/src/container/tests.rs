//! Containers found by what runtimes write, in a directory that stands for `/`. The files are as those runtimes have them, but for what is
//! not read.

use std::{fs, os::unix::fs::MetadataExt as _, process, thread, time::Duration};

use super::*;

/// Gone with the test.
struct Root(PathBuf);

impl Root {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sipst-containers-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, path: &str, text: &str) {
        let path = self.0.join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn find(&self, name: &str) -> Result<Network, String> {
        only_one(all(&self.0, name), name).map(|container| container.network)
    }

    fn finder(&self, name: &str) -> Finder {
        Finder { target: Target::Container(name.into()), root: self.0.clone(), last: None }
    }

    fn netns(&self, name: &str) -> Option<PathBuf> {
        Some(self.0.join("var/run").join(name))
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn docker(root: &Root, id: &str, name: &str, running: bool, pid: u32, sandbox: &str) {
    let text = format!(
        r#"{{"StreamConfig":{{}},"State":{{"Running":{running},"Paused":false,"Restarting":false,"OOMKilled":false,
        "RemovalInProgress":false,"Dead":false,"Pid":{pid},"ExitCode":0,"Error":"","StartedAt":"2026-01-07T09:00:00.1Z",
        "FinishedAt":"0001-01-01T00:00:00Z","Health":null}},"ID":"{id}","Created":"2026-01-07T08:59:59.7Z","Managed":false,
        "Path":"/livekit-sip","Args":[],"Config":{{"Hostname":"{id}","Image":"livekit/sip"}},"Image":"sha256:90801a91",
        "NetworkSettings":{{"Bridge":"","SandboxID":"5f1e","SandboxKey":"{sandbox}","Networks":{{"bridge":{{
        "NetworkID":"9b2d","IPAddress":"172.17.0.2"}}}}}},"LogPath":"","Name":"/{name}","Driver":"overlay2","RestartCount":0}}"#
    );
    root.file(&format!("var/lib/docker/containers/{id}/config.v2.json"), &text);
}

fn oci(annotations: &str, network: &str) -> String {
    format!(
        r#"{{"ociVersion":"1.1.0","process":{{"args":["/livekit-sip"],"cwd":"/"}},"root":{{"path":"rootfs"}},"hostname":"sip",
        "annotations":{{{annotations}}},"linux":{{"cgroupsPath":"/kubepods/besteffort/pod1","namespaces":[{{"type":"pid"}},
        {{"type":"ipc"}},{{"type":"mount"}}{network}]}}}}"#
    )
}

fn network(path: &str) -> String {
    if path.is_empty() { r#",{"type":"network"}"#.into() } else { format!(r#",{{"type":"network","path":"{path}"}}"#) }
}

fn containerd(root: &Root, space: &str, id: &str, pid: u32, config: &str) {
    let bundle = format!("run/containerd/io.containerd.runtime.v2.task/{space}/{id}");
    root.file(&format!("{bundle}/config.json"), config);
    root.file(&format!("{bundle}/init.pid"), &pid.to_string());
}

fn pod(kind: &str, container: &str, pod: &str) -> String {
    let name = if container.is_empty() {
        String::new()
    } else {
        format!(r#""io.kubernetes.cri.container-name":"{container}","#)
    };
    format!(
        r#"{name}"io.kubernetes.cri.container-type":"{kind}","io.kubernetes.cri.sandbox-id":"pause-{pod}",
        "io.kubernetes.cri.sandbox-name":"{pod}","io.kubernetes.cri.sandbox-namespace":"voice""#
    )
}

#[test]
fn dockers_is_the_file_of_its_sandbox_while_it_runs() {
    let root = Root::new("docker");
    docker(&root, "86199ab4", "livekit-sip", true, 12_680, "/var/run/docker/netns/8f3a77c1d2e4");
    docker(&root, "11111111", "livekit-redis", true, 12_700, "/var/run/docker/netns/aaaaaaaaaaaa");
    docker(&root, "22222222", "old-sip", false, 0, "");
    let file = root.netns("docker/netns/8f3a77c1d2e4");
    assert_eq!(root.find("livekit-sip"), Ok(Network::Own { file: file.clone(), pid: Some(12_680) }));
    assert_eq!(root.find("*-sip"), Ok(Network::Own { file, pid: Some(12_680) }));
    assert!(root.find("old-sip").unwrap_err().contains("no container that runs is called old-sip"));
    assert!(root.find("livekit-*").unwrap_err().contains("several containers are called livekit-*"));
}

#[test]
fn one_that_shares_anothers_network_is_found_by_its_process_and_the_hosts_network_is_told() {
    let root = Root::new("shared");
    docker(&root, "86199ab4", "shares", true, process::id(), "");
    docker(&root, "22222222", "host", true, 12_700, "/var/run/docker/netns/default");
    assert_eq!(root.find("shares"), Ok(Network::Own { file: None, pid: Some(process::id()) }));
    let error = root.finder("host").find().unwrap_err();
    assert!(error.contains("has the host's network: use `interfaces`"), "{error}");
    assert!(matches!(root.finder("shares").find(), Ok(Sighted::Process { pid, .. }) if pid == process::id()));
}

#[test]
fn in_kubernetes_it_is_the_pods_file_by_any_of_its_containers_names() {
    let root = Root::new("kubernetes");
    let netns = "/var/run/netns/cni-5b2c5e4d-0000-0000-0000-000000000000";
    containerd(&root, "k8s.io", "pause-sip-0", 900, &oci(&pod("sandbox", "", "sip-0"), &network(netns)));
    let own = oci(&pod("container", "livekit-sip", "sip-0"), &network("/proc/900/ns/net"));
    containerd(&root, "k8s.io", "c1", 950, &own);
    let beside = oci(&pod("container", "metrics", "sip-0"), &network("/proc/900/ns/net"));
    containerd(&root, "k8s.io", "c2", 960, &beside);
    // Docker's containers are containerd's too, without a name there.
    containerd(&root, "moby", "86199ab4", 970, &oci("", &network("")));
    let file = root.netns("netns/cni-5b2c5e4d-0000-0000-0000-000000000000");
    for name in ["livekit-sip", "sip-0/livekit-sip", "voice/sip-0/livekit-sip", "voice/sip-*/livekit-*"] {
        assert_eq!(root.find(name), Ok(Network::Own { file: file.clone(), pid: Some(950) }), "{name}");
    }
    // One pod is one namespace.
    assert!(matches!(root.find("sip-0/*"), Ok(Network::Own { file: found, .. }) if found == file));
    let other = oci(&pod("container", "livekit-sip", "sip-1"), &network("/proc/901/ns/net"));
    containerd(&root, "k8s.io", "c3", 951, &other);
    assert!(root.find("livekit-sip").unwrap_err().contains("say which by a longer name"));
    assert_eq!(
        root.find("sip-1/livekit-sip"),
        Ok(Network::Own { file: Some("/proc/901/ns/net".into()), pid: Some(951) })
    );
    containerd(&root, "k8s.io", "c4", 952, &oci(&pod("container", "node", "host-0"), ""));
    assert_eq!(root.find("host-0/node"), Ok(Network::Host));
}

#[test]
fn nerdctls_and_podmans_are_found_by_their_names() {
    let root = Root::new("podman");
    containerd(&root, "default", "n1", 700, &oci(r#""nerdctl/name":"sip-n","nerdctl/hostname":"n1""#, &network("")));
    assert_eq!(root.find("sip-n"), Ok(Network::Own { file: None, pid: Some(700) }));
    let bundle = "run/containers/storage/overlay-containers/p1/userdata";
    root.file(
        &format!("{bundle}/config.json"),
        &oci(r#""io.container.manager":"libpod""#, &network("/run/netns/netns-1")),
    );
    root.file(&format!("{bundle}/pidfile"), "710");
    root.file(
        "var/lib/containers/storage/overlay-containers/containers.json",
        r#"[{"id":"p0","names":["other"]},{"id":"p1","names":["sip-p"],"image":"9d"}]"#,
    );
    let file = Some(root.0.join("run/netns/netns-1"));
    assert_eq!(root.find("sip-p"), Ok(Network::Own { file, pid: Some(710) }));
    let crio = "run/containers/storage/overlay-containers/o1/userdata";
    let annotations = r#""io.kubernetes.container.name":"sip","io.kubernetes.pod.name":"o-0","io.kubernetes.pod.namespace":"voice",
        "io.kubernetes.cri-o.ContainerType":"container","io.kubernetes.cri-o.SandboxID":"o0""#;
    root.file(&format!("{crio}/config.json"), &oci(annotations, &network("/var/run/netns/o")));
    root.file(&format!("{crio}/pidfile"), "720\n");
    assert_eq!(root.find("voice/o-0/sip"), Ok(Network::Own { file: root.netns("netns/o"), pid: Some(720) }));
}

#[test]
fn one_that_is_started_again_is_another_namespace_and_one_that_is_stopped_none() {
    let root = Root::new("again");
    docker(&root, "86199ab4", "sip", true, process::id(), "");
    let mut finder = root.finder("sip");
    let first = finder.find().unwrap();
    assert_eq!(finder.find(), Ok(first.clone()));
    let mut child = process::Command::new("sleep").arg("60").spawn().unwrap();
    docker(&root, "86199ab4", "sip", true, child.id(), "");
    let second = finder.find().unwrap();
    assert_ne!(first, second);
    child.kill().unwrap();
    // Until the kernel has ended it, which nobody waits for yet.
    let error = std::iter::repeat_with(|| thread::sleep(Duration::from_millis(10)))
        .take(1_000)
        .find_map(|()| finder.find().err())
        .unwrap();
    assert!(error.contains("has ended"), "it is no more than a zombie: {error}");
    child.wait().unwrap();
    assert!(finder.find().unwrap_err().contains("there is no process"));
    docker(&root, "86199ab4", "sip", false, 0, "");
    assert!(finder.find().unwrap_err().contains("no container that runs"));
    // Renamed and made anew under another id.
    docker(&root, "99999999", "sip", true, process::id(), "");
    assert_eq!(finder.find(), Ok(first));
}

#[test]
fn what_no_runtime_writes_is_no_container() {
    let root = Root::new("junk");
    root.file("var/lib/docker/containers/a/config.v2.json", "{\"State\":");
    root.file("var/lib/docker/containers/b/config.v2.json", "[]");
    root.file("run/containerd/io.containerd.runtime.v2.task/k8s.io/c/config.json", "{}");
    root.file("run/containers/storage/overlay-containers/d/userdata/config.json", &oci("", ""));
    let mut long = String::from("{\"Name\":\"/sip\",\"State\":{\"Running\":true,\"Pid\":1}}");
    long.push_str(&" ".repeat(MAX_FILE as usize));
    root.file("var/lib/docker/containers/e/config.v2.json", &long);
    assert!(root.find("*").is_err());
}

#[test]
fn a_file_is_a_namespace_or_it_is_refused() {
    let own = Path::new("/proc/self/ns/net");
    let found = fs::metadata(own).unwrap();
    let mut finder = Target::File(own.into()).finder();
    assert!(matches!(finder.find(), Ok(Sighted::File { identity, .. }) if identity == (found.dev(), found.ino())));
    assert!(Target::File("/etc/hostname".into()).finder().find().unwrap_err().contains("stands for no namespace"));
    assert!(Target::File("/nonexistent".into()).finder().find().is_err());
    let mut by_path = Target::File(format!("/proc/{}/ns/net", process::id()).into()).finder();
    assert!(matches!(by_path.find(), Ok(Sighted::Process { pid, .. }) if pid == process::id()));
}
