use clap::Subcommand;
use penstock_e2e::cluster::{self, ClusterOptions};

#[derive(Subcommand)]
pub(crate) enum Command {
    /// Control plane and nodes; prints the kubeconfig to use.
    Up {
        #[arg(long, default_value_t = 3)]
        nodes: u8,
    },
    /// End all of it, also after an `up` that failed.
    Down,
}

pub(crate) fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Up { nodes } => {
            let options = ClusterOptions { nodes: *nodes, ..ClusterOptions::default() };
            let kubeconfig = tokio::runtime::Runtime::new()?.block_on(cluster::up(options))?;
            println!("export KUBECONFIG={}", kubeconfig.display());
            Ok(())
        }
        Command::Down => cluster::down(),
    }
}
