//! The command line.

use std::net::SocketAddr;

use clap::{Args as _, CommandFactory, FromArgMatches, Parser};

use crate::{controller::build::Ids, uninstall::UninstallOptions};

/// What the program is asked to do.
#[derive(Clone, Debug)]
pub enum Command {
    /// Look after Datasets: without a subcommand.
    Operate(Args),
    /// Take down what an operator made, before it is removed.
    Uninstall(UninstallOptions),
}

const UNINSTALL: &str = "uninstall";

impl Command {
    /// From the process's command line; ends the process when that is wrong.
    pub fn parse() -> Self {
        Self::try_parse_from(std::env::args_os()).unwrap_or_else(|error| error.exit())
    }

    /// From a command line, the program's name first.
    ///
    /// # Errors
    /// What clap has to say of it, the text of `--help` too.
    pub fn try_parse_from(
        line: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Self, clap::Error> {
        let uninstall = UninstallOptions::augment_args(clap::Command::new(UNINSTALL))
            .about("Take down what the operator made; Datasets and CacheRuntimes stay");
        let matches = Args::command()
            .subcommand(uninstall)
            .args_conflicts_with_subcommands(true)
            .subcommand_negates_reqs(true)
            .try_get_matches_from(line)?;
        match matches.subcommand_matches(UNINSTALL) {
            Some(given) => UninstallOptions::from_arg_matches(given).map(Self::Uninstall),
            None => Args::from_arg_matches(&matches).map(Self::Operate),
        }
    }
}

/// Looks after Datasets and CacheRuntimes.
#[derive(Clone, Debug, Parser)]
#[command(name = "penstock-operator", version)]
pub struct Args {
    /// Image of workers whose CacheRuntime names none.
    #[arg(long, env = "PENSTOCK_WORKER_IMAGE")]
    pub worker_image: String,

    /// Secret that workers pull their image with, in the namespace of each CacheRuntime; may be repeated. A CacheRuntime's
    /// own list wins.
    #[arg(long = "worker-image-pull-secret")]
    pub worker_image_pull_secrets: Vec<String>,

    /// Who gives workers their user and groups: 65532 for all, or the platform, as OpenShift does.
    #[arg(long, value_enum, default_value_t = Ids::Fixed)]
    pub worker_ids: Ids,

    /// How many CacheRuntimes without an image of their own take a new worker image at once. One whose update stopped
    /// counts until it is mended.
    #[arg(long, default_value_t = 3)]
    pub updating_runtimes: usize,

    /// The operator's own namespace, where its Lease is.
    #[arg(long, env = "POD_NAMESPACE", default_value = "penstock-system")]
    pub namespace: String,

    /// Name of the Lease by which one operator of several is chosen.
    #[arg(long, default_value = "penstock-operator")]
    pub lease_name: String,

    /// Where /healthz, /readyz and /metrics are served.
    #[arg(long, default_value = "[::]:8080")]
    pub http_addr: SocketAddr,

    /// Look after this namespace alone; all when absent.
    #[arg(long)]
    pub watch_namespace: Option<String>,

    /// Who this process is in the election; a random name is added, so that a restart is another candidate.
    #[arg(long, env = "POD_NAME", default_value = "penstock-operator")]
    pub identity: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_operates_unless_it_is_told_to_uninstall() {
        let parse = |words: &str| Command::try_parse_from(format!("penstock-operator {words}").split_whitespace());
        let command = parse("--worker-image=w --worker-image-pull-secret=a --worker-image-pull-secret=b").unwrap();
        let Command::Operate(args) = command else { panic!("{command:?}") };
        assert_eq!((args.worker_image_pull_secrets, args.worker_ids), (vec!["a".into(), "b".into()], Ids::Fixed));
        let command = parse("uninstall --namespace=system --watch-namespace=one").unwrap();
        let Command::Uninstall(options) = command else { panic!("{command:?}") };
        assert_eq!((options.namespace.as_str(), options.watch_namespace.as_deref()), ("system", Some("one")));
        assert!(parse("--worker-image=w uninstall").is_err());
    }
}
