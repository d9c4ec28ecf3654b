//! Readers that start together on ten nodes, from one to a hundred: warm cache beside the store read directly.

mod ideal;
mod plot;

use std::path::Path;

use anyhow::ensure;

use self::ideal::{Setup, cut};
use super::{
    bare, blocking, direct,
    figures::{Better, Case, Goal, median},
    fleet::{Fleet, Network},
    load::{self, LARGE, Shape},
    scale::affordable,
    scratch::Scratch,
    source::{self, Bucket, Source},
};
use crate::root;

const BUCKET: &str = "hundred";
const READERS: [usize; 6] = [1, 5, 10, 25, 50, 100];
const WORKERS: [usize; 2] = [5, 10];
const NODES: usize = 10;
/// Mbit/s of a worker's and of a client's link, where the machine carries ten of them.
const LINK: f64 = 400.0;
/// The store's link has the bandwidth of so many workers.
const STORE: u32 = 2;

/// Mean seconds of a reader in each run, for one number of readers.
#[derive(Clone, Debug, Default)]
struct Row {
    readers: usize,
    direct: Vec<f64>,
    /// For each of [`WORKERS`].
    cached: [Vec<f64>; 2],
}

pub(super) async fn run(quick: bool) -> anyhow::Result<Vec<Case>> {
    let (runs, size) = if quick { (1, 64 << 20) } else { (5, 128 << 20) };
    let network = blocking(|| Network::create(NODES, NODES))?;
    let server = source::serve(&network.store).await?;
    let data = Scratch::in_memory()?;
    let file = data.path().join(LARGE);
    let bucket = blocking(|| {
        Shape { large: size, small_files: 0, small: 0 }.write(data.path())?;
        let bucket = Bucket::create(&server, BUCKET)?;
        server.put_file(BUCKET, LARGE, &file)?;
        anyhow::Ok(bucket)
    })?;
    let mut bench = Bench { link: 0, rate: 0.0, network, bucket, size, runs };
    blocking(|| bench.shape(&file))?;
    let mut rows: Vec<Row> = READERS.iter().map(|readers| Row { readers: *readers, ..Row::default() }).collect();
    for row in &mut rows {
        row.direct = blocking(|| bench.direct(row.readers))?;
    }
    for (index, workers) in WORKERS.into_iter().enumerate() {
        bench.cached(workers, &mut rows, index).await?;
    }
    bench.print(&rows);
    let plot = root().join("target/bench/hundred.svg");
    plot::draw(&plot, &bench.curves(&rows))?;
    eprintln!("plot: {}", plot.display());
    Ok(bench.cases(&rows))
}

struct Bench {
    /// Mbit/s.
    link: u32,
    /// Bytes per second of such a link, measured by a bare loop.
    rate: f64,
    network: Network,
    bucket: Bucket,
    size: u64,
    runs: usize,
}

impl Bench {
    fn shape(&mut self, file: &Path) -> anyhow::Result<()> {
        self.link = affordable(&self.network, NODES, LINK, file)?;
        for place in self.network.workers.iter().chain(&self.network.clients) {
            place.shape(Some(self.link))?;
        }
        self.network.store.shape(Some(self.link * STORE))?;
        self.rate = bare::sequential(&self.network.workers[0], &self.network.clients[0], file)? * 1e9;
        eprintln!("one link carries {:.1} MB/s bare", self.rate / 1e6);
        Ok(())
    }

    fn setup(&self, readers: usize, workers: usize) -> Setup {
        let (worker, client, store) = (self.rate, self.rate, self.rate * f64::from(STORE));
        Setup { readers, nodes: NODES, workers, data: self.size as f64, store, worker, client }
    }

    fn direct(&self, readers: usize) -> anyhow::Result<Vec<f64>> {
        let means = (0..self.runs).map(|_| {
            let clients = &self.network.clients;
            let read = |reader: usize| direct::whole(&clients[reader % NODES], &self.bucket, LARGE, self.size);
            Ok(mean(load::together(readers, read)?.iter().map(|(seconds, _)| *seconds)))
        });
        let means = means.collect::<anyhow::Result<Vec<f64>>>()?;
        eprintln!("{readers} readers of the store: {means:.2?} s");
        Ok(means)
    }

    async fn cached(&self, workers: usize, rows: &mut [Row], index: usize) -> anyhow::Result<()> {
        let (places, clients) = (&self.network.workers[..workers], &self.network.clients);
        let mut fleet = Fleet::start(Source::Bucket(&self.bucket), self.size * 5 / 4, places, clients).await?;
        let targets = fleet.mount().await?;
        blocking(|| {
            load::pass(&targets[0].join(LARGE))?;
            for row in rows {
                for _ in 0..self.runs {
                    load::drop_caches()?;
                    let read = load::together(row.readers, |reader| load::pass(&targets[reader % NODES].join(LARGE)))?;
                    ensure!(read.iter().all(|(bytes, _)| *bytes == self.size), "not every reader read all: {read:?}");
                    row.cached[index].push(mean(read.iter().map(|(_, seconds)| *seconds)));
                }
                eprintln!("{} readers, {workers} workers: {:.2?} s", row.readers, row.cached[index]);
            }
            anyhow::Ok(())
        })?;
        fleet.unmount().await
    }

    fn print(&self, rows: &[Row]) {
        println!("mean seconds to read {} MiB; links of {} Mbit/s, the store's {STORE} x", self.size >> 20, self.link);
        println!(
            "{:>8} {:>9} {:>9} {:>8} {:>8} {:>9} {:>9} {:>8} {:>8}",
            "READERS", "STORE", "IDEAL", "WORKERS", "", "CACHE", "IDEAL", "CUT", "IDEAL"
        );
        for row in rows {
            for (workers, cached) in WORKERS.into_iter().zip(&row.cached) {
                let (setup, direct, cached) =
                    (self.setup(row.readers, workers), median(row.direct.clone()), median(cached.clone()));
                println!(
                    "{:>8} {direct:>9.2} {:>9.2} {workers:>8} {:>8} {cached:>9.2} {:>9.2} {:>8.3} {:>8.3}",
                    row.readers,
                    setup.direct(),
                    "",
                    setup.cached(),
                    cut(cached, direct),
                    setup.cut()
                );
            }
        }
    }

    fn curves(&self, rows: &[Row]) -> Vec<plot::Curve> {
        let curve = |name: String, seconds: &dyn Fn(&Row) -> f64| plot::Curve {
            name,
            points: rows.iter().map(|row| (row.readers as f64, seconds(row))).collect(),
        };
        let mut curves = vec![curve("the store directly".into(), &|row| median(row.direct.clone()))];
        for (index, workers) in WORKERS.into_iter().enumerate() {
            curves.push(curve(format!("{workers} workers"), &|row| median(row.cached[index].clone())));
            curves.push(curve(format!("{workers} workers, ideal"), &|row| self.setup(row.readers, workers).cached()));
        }
        curves
    }

    fn cases(&self, rows: &[Row]) -> Vec<Case> {
        let cases = rows.iter().flat_map(|row| {
            WORKERS.into_iter().zip(&row.cached).map(|(workers, cached)| {
                let cuts: Vec<f64> = cached.iter().zip(&row.direct).map(|(c, d)| cut(*c, *d)).collect();
                let goal = Goal { of_limit: Some(0.9), ..Goal::default() };
                let name = format!("hundred-{}-{workers}", row.readers);
                Case::new(name, "cut", Better::Higher, &cuts, goal).limit(&[self.setup(row.readers, workers).cut()])
            })
        });
        cases.collect()
    }
}

fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len() as f64;
    values.sum::<f64>() / count
}
