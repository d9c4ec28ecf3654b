//! `penstock local …` as typed.

use std::path::PathBuf;

use anyhow::Context;
use clap::{Args, Subcommand, ValueEnum};
use indicatif::HumanBytes;
use kube::ResourceExt;

use super::fleet::{Fleet, Report, UpOptions};
use crate::{load::succeeded, manifest::Order, progress::Progress};

#[derive(Subcommand)]
pub enum Command {
    /// Start the workers that a manifest asks for, and mount the Dataset. Doing it again mends what died.
    Up {
        /// Manifests: one Dataset, its CacheRuntime and its Secrets.
        #[arg(short, long)]
        file: PathBuf,
        /// Where to mount the Dataset [default: `mnt` in the state folder].
        #[arg(short, long)]
        mount: Option<PathBuf>,
        #[command(flatten)]
        place: Place,
    },
    /// What runs and what it holds.
    Status {
        #[command(flatten)]
        which: Which,
        #[arg(short, long, value_enum, default_value_t = Format::Table)]
        output: Format,
    },
    /// Grow or shrink the cache; a leaving worker hands over what it holds.
    Scale {
        replicas: u32,
        #[command(flatten)]
        which: Which,
    },
    /// Warm part of the Dataset, or evict it, as a DataLoad asks.
    Load {
        /// Manifest of one DataLoad, and of the ConfigMaps that it names.
        #[arg(short, long)]
        file: PathBuf,
        #[command(flatten)]
        place: Place,
    },
    /// Unmount, stop the workers and drop what they hold.
    Down {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Args)]
pub struct Place {
    /// Where local mode keeps its state [default: ~/.local/state/penstock].
    #[arg(long, env = "PENSTOCK_STATE_DIR")]
    state_dir: Option<PathBuf>,
}

#[derive(Args)]
pub struct Which {
    /// `NAMESPACE/NAME`, or the name; may be left out when only one Dataset is up.
    dataset: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Format {
    Table,
    Json,
}

impl Command {
    pub async fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Up { file, mount, place } => {
                let options = UpOptions { file, mount, base: place.base()?, programs: None };
                print_table(&Fleet::up(&options).await?.report().await);
            }
            Self::Status { which, output } => {
                let report = which.fleet()?.report().await;
                match output {
                    Format::Table => print_table(&report),
                    Format::Json => println!("{}", serde_json::to_string_pretty(&report)?),
                }
            }
            Self::Scale { replicas, which } => {
                let mut fleet = which.fleet()?;
                fleet.scale(replicas).await?;
                print_table(&fleet.report().await);
            }
            Self::Load { file, place } => {
                let order = Order::read(&file)?;
                let (dataset, progress) = (order.dataset_id(), Progress::new(&order.load.name_any()));
                let fleet = Fleet::find(&place.base()?, Some(&dataset))?;
                let status = fleet.load(&order, |status| progress.show(status)).await?;
                progress.finish(&status);
                succeeded(&order.load.name_any(), &status)?;
            }
            Self::Down { which } => which.fleet()?.down()?,
        }
        Ok(())
    }
}

impl Place {
    fn base(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = &self.state_dir {
            return Ok(dir.clone());
        }
        let state = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
        let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
        Ok(state
            .or_else(home)
            .context("neither --state-dir nor $HOME is set: say where to keep state")?
            .join("penstock"))
    }
}

impl Which {
    fn fleet(&self) -> anyhow::Result<Fleet> {
        Ok(Fleet::find(&self.place.base()?, self.dataset.as_deref())?)
    }
}

fn print_table(report: &Report) {
    println!(
        "Dataset {}   epoch {}   mounted at {}",
        report.dataset,
        report.epoch,
        report.mount.as_deref().unwrap_or("-")
    );
    println!("{:<28} {:<22} {:>8} {:>12} {:>12} {:>7}", "WORKER", "ADDRESS", "STATE", "CACHED", "CAPACITY", "HITS");
    for worker in &report.workers {
        println!(
            "{:<28} {:<22} {:>8} {:>12} {:>12} {:>7}",
            worker.id,
            worker.addr,
            worker.state,
            HumanBytes(worker.cached_bytes).to_string(),
            HumanBytes(worker.capacity_bytes).to_string(),
            worker.hit_percent.map_or_else(|| "-".into(), |percent| format!("{percent} %")),
        );
        for trouble in &worker.trouble {
            println!("  {trouble}");
        }
    }
}
