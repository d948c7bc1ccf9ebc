//! Commands that kubectl itself carries out, on the pod that leads.

use std::io::ErrorKind;
use std::os::unix::process::CommandExt;
use std::process::Command;

use crate::connect::Cluster;
use crate::failure::{Failure, one_line};
use crate::fetch;
use crate::flags::Common;
use crate::picture::LeasePicture;
use crate::protocol::lease::pod_of_holder;

/// Returns the name of the pod that leads, by the Lease.
///
/// # Errors
/// If no pod leads.
pub async fn leader(cluster: &Cluster, name: &str) -> Result<String, Failure> {
    let group = fetch::group(cluster, name).await?;
    let lease = fetch::lease(cluster, group.effective_lease_name()).await?;
    let lease = lease.map(|lease| LeasePicture::of(&lease, crate::connect::now()));
    match lease.as_ref().and_then(LeasePicture::leader) {
        Some(holder) => Ok(pod_of_holder(holder).to_owned()),
        None => Err(Failure::Refused(format!(
            "{}/{name} has no leader now: `kubectl k8sensus status {name} -n {}` shows why",
            cluster.namespace, cluster.namespace
        ))),
    }
}

/// Replaces this process by kubectl with these arguments, and with this plugin's own flags.
pub fn become_kubectl(cluster: &Cluster, common: &Common, arguments: &[String]) -> Failure {
    let error = Command::new("kubectl").args(flags(&cluster.namespace, common)).args(arguments).exec();
    if error.kind() == ErrorKind::NotFound {
        return Failure::Refused("kubectl is not in PATH: install it, or add its folder to PATH".to_owned());
    }
    Failure::Refused(format!("kubectl cannot be started: {}", one_line(&error.to_string())))
}

fn flags(namespace: &str, common: &Common) -> Vec<String> {
    let Common { context, kubeconfig, as_user, as_group, .. } = common;
    let mut flags = vec![format!("--namespace={namespace}")];
    flags.extend(context.as_ref().map(|context| format!("--context={context}")));
    flags.extend(kubeconfig.as_ref().map(|path| format!("--kubeconfig={}", path.display())));
    flags.extend(as_user.as_ref().map(|user| format!("--as={user}")));
    flags.extend(as_group.iter().map(|group| format!("--as-group={group}")));
    flags
}

/// Returns the arguments of `kubectl exec`.
pub fn exec(pod: &str, container: Option<&str>, stdin: bool, tty: bool, command: &[String]) -> Vec<String> {
    let mut arguments = vec!["exec".to_owned(), pod.to_owned()];
    arguments.extend(container.map(|container| format!("--container={container}")));
    arguments.extend(stdin.then(|| "--stdin".to_owned()));
    arguments.extend(tty.then(|| "--tty".to_owned()));
    arguments.push("--".to_owned());
    arguments.extend_from_slice(command);
    arguments
}

/// Returns the arguments of `kubectl port-forward`.
pub fn port_forward(pod: &str, ports: &[String]) -> Vec<String> {
    [&["port-forward".to_owned(), format!("pod/{pod}")], ports].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_of_the_user_comes_after_two_dashes() {
        let command = ["sh".to_owned(), "-c".to_owned(), "id".to_owned()];
        let arguments = exec("kestrel-a", Some("app"), true, false, &command);
        assert_eq!(arguments, ["exec", "kestrel-a", "--container=app", "--stdin", "--", "sh", "-c", "id"]);
    }

    #[test]
    fn own_flags_are_passed_on() {
        let common = Common {
            context: Some("blue".to_owned()),
            kubeconfig: Some("/tmp/config".into()),
            as_user: Some("kestrel".to_owned()),
            as_group: vec!["birds".to_owned()],
            ..Common::default()
        };
        let expected =
            ["--namespace=aviary", "--context=blue", "--kubeconfig=/tmp/config", "--as=kestrel", "--as-group=birds"];
        assert_eq!(flags("aviary", &common), expected);
    }
}
