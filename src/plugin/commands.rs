//! The commands.

use clap::CommandFactory;
use clap_complete::Shell;
use serde::Serialize;

use crate::act::{self, Switch};
use crate::connect::{Cluster, connect, now};
use crate::failure::{Access, Failure};
use crate::fetch;
use crate::flags::{Arguments, Command, ListFlags, Output};
use crate::kubectl;
use crate::logs;
use crate::output::{print, print_as, remark};
use crate::picture::{Summary, picture, summaries};
use crate::show;
use crate::step_down::Wait;

/// A list as programs read it, with the name that lists have in Kubernetes.
#[derive(Serialize)]
struct Items<'a> {
    items: &'a [Summary],
}

/// Carries out the command.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let common = &arguments.common;
    if let Command::Completion { shell } = arguments.command {
        return completion(shell);
    }
    let cluster = match (&arguments.command, connect(common).await) {
        (_, Ok(cluster)) => cluster,
        (Command::Version, Err(failure)) => {
            print(&own_version())?;
            return Err(failure);
        }
        (_, Err(failure)) => return Err(failure),
    };
    match arguments.command {
        Command::Status { group: Some(group), list } if !list.all_namespaces => {
            status(&cluster, &group, list.output).await
        }
        Command::Status { group: Some(_), .. } => {
            Err(Failure::Refused("one group is in one namespace: leave out -A, or the group's name".to_owned()))
        }
        Command::Status { group: None, list } | Command::List(list) => self::list(&cluster, list).await,
        Command::History { group, output } => history(&cluster, &group, output).await,
        Command::StepDown { group, wait, timeout, dry_run } => {
            let wait = if wait { Wait::UntilHandled(timeout) } else { Wait::No };
            act::step_down(&cluster, &group, wait, dry_run).await
        }
        Command::Suspend(change) => act::switch(&cluster, &change, Switch::Suspend, true).await,
        Command::Resume(change) => act::switch(&cluster, &change, Switch::Suspend, false).await,
        Command::Pause(change) => act::switch(&cluster, &change, Switch::Paused, true).await,
        Command::Unpause(change) => act::switch(&cluster, &change, Switch::Paused, false).await,
        Command::Restart(change) => act::restart(&cluster, &change).await,
        Command::Logs(flags) => logs::logs(&cluster, &flags).await,
        Command::Exec { target, container, stdin, tty, command } => {
            let pod = kubectl::leader(&cluster, &target.group).await?;
            let arguments = kubectl::exec(&pod, container.as_deref(), stdin, tty, &command);
            Err(kubectl::become_kubectl(&cluster, common, &arguments))
        }
        Command::PortForward { target, ports } => {
            let pod = kubectl::leader(&cluster, &target.group).await?;
            remark(&format!("Forwarding to {pod}, which leads now; this does not follow a later leader."));
            Err(kubectl::become_kubectl(&cluster, common, &kubectl::port_forward(&pod, &ports)))
        }
        Command::Version => version(&cluster).await,
        Command::Completion { shell } => completion(shell),
    }
}

async fn status(cluster: &Cluster, group: &str, output: Option<Output>) -> Result<(), Failure> {
    let picture = picture(&fetch::facts(cluster, group).await?);
    print_as(output, &picture, &[group], |page| show::status(&picture, page))
}

async fn history(cluster: &Cluster, group: &str, output: Option<Output>) -> Result<(), Failure> {
    let picture = picture(&fetch::facts(cluster, group).await?);
    print_as(output, &picture.history, &[group], |page| show::history(&picture, page))
}

async fn list(cluster: &Cluster, flags: ListFlags) -> Result<(), Failure> {
    let all = flags.all_namespaces;
    let (groups, leases) = futures::join!(fetch::groups(cluster, all), fetch::leases(cluster, all));
    let groups = groups?;
    let summaries = summaries(&groups, &leases, now());
    if summaries.is_empty() && matches!(flags.output, None | Some(Output::Wide)) {
        remark(&match all {
            true => "There is no ElectionGroup in this cluster.".to_owned(),
            false => format!("There is no ElectionGroup in namespace {}; `list -A` shows all.", cluster.namespace),
        });
        return Ok(());
    }
    let names: Vec<&str> = summaries.iter().map(|summary| summary.name.as_str()).collect();
    print_as(flags.output, &Items { items: &summaries }, &names, |page| show::list(&summaries, page, all))?;
    if let Err(why) = &leases {
        remark(&format!("Leases are not shown, and leaders are those of the status: {why}"));
    }
    Ok(())
}

fn own_version() -> String {
    format!("kubectl-k8sensus {}\n", env!("CARGO_PKG_VERSION"))
}

async fn version(cluster: &Cluster) -> Result<(), Failure> {
    print(&own_version())?;
    let access = Access { verb: "get", resource: "/version", namespace: None };
    let server = cluster.send(access, cluster.client.apiserver_version()).await?;
    print(&format!("Kubernetes {}\n", server.git_version))?;
    let groups = match fetch::groups(cluster, true).await {
        Err(Failure::Forbidden(..)) => fetch::groups(cluster, false).await?,
        found => found?,
    };
    let versions = groups.iter().filter_map(|group| group.status.as_ref()?.candidate.as_ref()?.version.clone());
    let mut versions: Vec<String> = versions.collect();
    versions.sort();
    versions.dedup();
    let versions = if versions.is_empty() { "none leads now".to_owned() } else { versions.join(", ") };
    print(&format!("Candidates {versions}\n"))
}

fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), "kubectl-k8sensus", &mut script);
    print(&String::from_utf8_lossy(&script))
}
