//! The command line and the configuration files of every component.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::component::Component;
use crate::error::{At, Error};
use crate::folder::Folder;
use crate::instance::{Instance, Mode, Node};
use crate::node::is_overlay;
use crate::pki::ADMIN;
use crate::programs::{CNI, PAUSE};

/// The bridge of a node, whose address it advertises so that pods and services can reach the API server.
pub(crate) const BRIDGE: &str = "k8sensus0";
pub(crate) const BRIDGE_ADDRESS: &str = "10.244.0.1";
const POD_NETWORK: &str = "10.244.0.0/24";
pub(crate) const SERVICE_NETWORK: &str = "10.96.0.0/16";
pub(crate) const NODE_NAME: &str = "node0";
pub(crate) const CONTAINERD_SOCKET: &str = "/run/containerd/containerd.sock";
pub(crate) const PAUSE_IMAGE: &str = "localhost/k8sensus-pause:v1";

pub(crate) fn arguments(component: Component, instance: &Instance, folder: &Folder) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.pki(name).display());
    let kubeconfig = || file("kubeconfig", &format!("{component}.kubeconfig"));
    let own = |flag: &str, ending: &str| file(flag, &format!("{component}.{ending}"));
    match component {
        Component::Etcd => {
            let url = |port: u16| format!("https://127.0.0.1:{port}");
            let (client, peer) = (url(instance.ports.etcd), url(instance.ports.etcd_peer));
            vec![
                "--name=default".into(),
                format!("--data-dir={}", folder.etcd().display()),
                format!("--listen-client-urls={client}"),
                format!("--advertise-client-urls={client}"),
                format!("--listen-peer-urls={peer}"),
                format!("--initial-advertise-peer-urls={peer}"),
                format!("--initial-cluster=default={peer}"),
                // Even on loopback: a client that may write to etcd bypasses every rule of the API server.
                "--client-cert-auth".into(),
                file("trusted-ca-file", "ca.crt"),
                own("cert-file", "crt"),
                own("key-file", "key"),
                "--peer-client-cert-auth".into(),
                file("peer-trusted-ca-file", "ca.crt"),
                own("peer-cert-file", "crt"),
                own("peer-key-file", "key"),
                // Data of a local cluster need not survive a power failure, and fsync on slow disks slows tests down.
                "--unsafe-no-fsync".into(),
                "--logger=zap".into(),
                "--log-level=warn".into(),
            ]
        }
        Component::ApiServer => api_server(instance, folder),
        Component::ControllerManager => vec![
            kubeconfig(),
            file("service-account-private-key-file", "service-accounts.key"),
            file("root-ca-file", "ca.crt"),
            "--use-service-account-credentials=true".into(),
            "--leader-elect=false".into(),
            "--secure-port=0".into(),
            // The controller manager creates this folder; the default is below the machine's /usr.
            format!("--flex-volume-plugin-dir={}", folder.config("volume-plugins").display()),
        ],
        Component::Scheduler => vec![kubeconfig(), "--leader-elect=false".into(), "--secure-port=0".into()],
        Component::Containerd => vec![format!("--config={}", folder.config("containerd.toml").display())],
        Component::Kubelet => vec![
            kubeconfig(),
            format!("--config={}", folder.config("kubelet.json").display()),
            format!("--hostname-override={NODE_NAME}"),
            format!("--node-ip={BRIDGE_ADDRESS}"),
            "--v=2".into(),
        ],
        Component::Proxy => vec![
            kubeconfig(),
            format!("--hostname-override={NODE_NAME}"),
            "--proxy-mode=iptables".into(),
            "--cluster-cidr=10.244.0.0/16".into(),
            // These settings belong to the machine; a node in its own namespaces may not change them.
            "--conntrack-max-per-core=0".into(),
            "--oom-score-adj=0".into(),
        ],
    }
}

fn api_server(instance: &Instance, folder: &Folder) -> Vec<String> {
    let file = |flag: &str, name: &str| format!("--{flag}={}", folder.pki(name).display());
    let mut arguments = vec![
        format!("--secure-port={}", instance.ports.api_server),
        format!("--etcd-servers=https://127.0.0.1:{}", instance.ports.etcd),
        file("etcd-cafile", "ca.crt"),
        file("etcd-certfile", "etcd.crt"),
        file("etcd-keyfile", "etcd.key"),
        file("tls-cert-file", "kube-apiserver.crt"),
        file("tls-private-key-file", "kube-apiserver.key"),
        file("client-ca-file", "ca.crt"),
        file("service-account-key-file", "service-accounts.pub"),
        file("service-account-signing-key-file", "service-accounts.key"),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        format!("--service-cluster-ip-range={SERVICE_NETWORK}"),
        "--authorization-mode=Node,RBAC".into(),
        "--allow-privileged=true".into(),
    ];
    match instance.mode {
        Mode::ControlPlane => arguments.extend([
            "--bind-address=127.0.0.1".into(),
            "--advertise-address=127.0.0.1".into(),
            // The service `kubernetes` may not have a loopback address as an endpoint.
            "--endpoint-reconciler-type=none".into(),
        ]),
        Mode::Node => arguments.extend([
            "--bind-address=0.0.0.0".into(),
            format!("--advertise-address={BRIDGE_ADDRESS}"),
            // DNS does not resolve the node's name.
            "--kubelet-preferred-address-types=InternalIP".into(),
            file("kubelet-certificate-authority", "ca.crt"),
            file("kubelet-client-certificate", &format!("{ADMIN}.crt")),
            file("kubelet-client-key", &format!("{ADMIN}.key")),
        ]),
    }
    if instance.audit {
        arguments.push(format!("--audit-policy-file={}", folder.config("audit-policy.json").display()));
        arguments.push(format!("--audit-log-path={}", folder.audit_log().display()));
    }
    arguments.extend(instance.api_server_args.iter().cloned());
    arguments
}

/// Writes the files that the arguments name.
pub(crate) fn write(instance: &Instance, folder: &Folder) -> Result<(), Error> {
    let put = |name: &str, text: String| {
        let path = folder.config(name);
        fs::write(&path, text).at("writing", path)
    };
    let audit = json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived"],
        "rules": [{"level": "Metadata"}],
    });
    put("audit-policy.json", format!("{audit:#}\n"))?;
    let Some(node) = &instance.node else { return Ok(()) };
    put("kubelet.json", kubelet(folder, node))?;
    // The machine's file may link into /run, which is hidden in the node, or name servers that the node cannot reach.
    put("resolv.conf", "options timeout:1 attempts:1\n".into())?;
    put("cni/10-bridge.conflist", network())?;
    put("containerd.toml", containerd(folder, program_folder(instance, CNI.programs[0])))
}

fn kubelet(folder: &Folder, node: &Node) -> String {
    let config = json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "failCgroupV1": false,
        "failSwapOn": false,
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": node.cgroup,
        "cgroupsPerQOS": true,
        "enforceNodeAllocatable": [],
        "containerRuntimeEndpoint": format!("unix://{CONTAINERD_SOCKET}"),
        "authentication": {
            "x509": {"clientCAFile": folder.pki("ca.crt")},
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": folder.pki("kubelet.crt"),
        "tlsPrivateKeyFile": folder.pki("kubelet.key"),
        "clusterDomain": "cluster.local",
        "resolvConf": folder.config("resolv.conf"),
        // The default is below the machine's /usr.
        "volumePluginDir": "/var/lib/kubelet/volume-plugins",
        // A lower value needs CAP_SYS_RESOURCE, and the OOM killer should not prefer the machine's own programs.
        "oomScoreAdj": 0,
        // The kubelet must not react to a full disk: images are imported and cannot be pulled again.
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "0%", "nodefs.available": "0%", "nodefs.inodesFree": "0%", "imagefs.available": "0%",
        },
    });
    format!("{config:#}\n")
}

fn network() -> String {
    let config = json!({
        "cniVersion": "1.0.0",
        "name": "k8sensus-local",
        "plugins": [
            {
                "type": "bridge", "bridge": BRIDGE, "isGateway": true, "ipMasq": true,
                "ipam": {"type": "host-local", "ranges": [[{"subnet": POD_NETWORK}]], "routes": [{"dst": "0.0.0.0/0"}]},
            },
            {"type": "portmap", "capabilities": {"portMappings": true}},
        ],
    });
    format!("{config:#}\n")
}

fn containerd(folder: &Folder, cni_folder: &Path) -> String {
    // An overlay cannot have its upper layer on another overlay.
    let snapshotter = if is_overlay(folder.path()) { "native" } else { "overlayfs" };
    let [cni_folder, cni_config] =
        [cni_folder, &folder.config("cni")].map(|path| format!("{:?}", path.to_string_lossy()));
    format!(
        r#"version = 3
disabled_plugins = ["io.containerd.nri.v1.nri"]
[grpc]
  address = "{CONTAINERD_SOCKET}"
[plugins."io.containerd.internal.v1.opt"]
  path = "/var/lib/containerd/opt"
[plugins."io.containerd.cri.v1.images"]
  snapshotter = "{snapshotter}"
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE_IMAGE}"
[plugins."io.containerd.cri.v1.runtime"]
  # Pods request lower scores, which need CAP_SYS_RESOURCE.
  restrict_oom_score_adj = true
[plugins."io.containerd.cri.v1.runtime".cni]
  bin_dirs = [{cni_folder}]
  conf_dir = {cni_config}
[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
    SystemdCgroup = false
"#
    )
}

/// Returns the folder of a program of this instance.
pub(crate) fn program_folder<'a>(instance: &'a Instance, program: &str) -> &'a Path {
    instance.programs.get(program).and_then(|file| file.parent()).unwrap_or(Path::new("/nonexistent"))
}

/// Returns the file of a program of this instance.
pub(crate) fn program<'a>(instance: &'a Instance, program: &str) -> &'a Path {
    instance.programs.get(program).map_or(Path::new("/nonexistent"), |file| file)
}

pub(crate) fn pause(instance: &Instance) -> &Path {
    program(instance, PAUSE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instance::tests::kestrel;

    #[test]
    fn audit_log_is_optional_and_own_arguments_come_last() {
        let folder = Folder::of("kestrel").unwrap();
        let with = arguments(Component::ApiServer, &kestrel(), &folder);
        assert!(with.iter().any(|argument| argument.starts_with("--audit-log-path=")));
        assert_eq!(with.last().unwrap(), "--v=4");
        let without = arguments(Component::ApiServer, &Instance { audit: false, ..kestrel() }, &folder);
        assert!(!without.iter().any(|argument| argument.contains("audit")));
    }

    #[test]
    fn a_control_plane_listens_on_loopback_only() {
        let instance = Instance { mode: Mode::ControlPlane, node: None, ..kestrel() };
        let folder = Folder::of("kestrel").unwrap();
        for component in instance.components() {
            let arguments = arguments(component, &instance, &folder);
            assert!(!arguments.iter().any(|argument| argument.contains("0.0.0.0")), "{component}: {arguments:?}");
        }
    }
}
