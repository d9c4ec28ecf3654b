//! A database that reads Parquet files of real prices.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use penstock_e2e::harness::{Case, Skip, blocking};
use penstock_e2e::pods;
use penstock_testkit::tools;

/// Daily prices of 20 shares from 1990 to 2022 come with `skfolio`.
const PACKAGES: [&str; 2] = ["duckdb==2.0.0", "skfolio==1.12.2"];

/// One file per share, of many row groups.
const CONVERT: &str = r#"
import csv, duckdb, glob, gzip, os, sys
source = glob.glob(os.path.join(sys.argv[1], "**", "sp500_dataset.csv.gz"), recursive=True)[0]
names = next(csv.reader(gzip.open(source, "rt")))
for symbol in names[1:]:
    os.makedirs(f"{sys.argv[2]}/{symbol}")
    duckdb.sql(f"""COPY (SELECT '{symbol}' AS symbol, "{names[0]}" AS day, "{symbol}" AS close FROM read_csv('{source}'))
        TO '{sys.argv[2]}/{symbol}/prices.parquet' (ROW_GROUP_SIZE 2048)""")
"#;

const QUERY: &str = r#"
import duckdb, sys
duckdb.sql("SET threads TO 2")
rows = duckdb.sql(f"""WITH returns AS (
      SELECT symbol, day, close, close / lag(close) OVER (PARTITION BY symbol ORDER BY day) - 1 AS change
      FROM read_parquet('{sys.argv[1]}/*/prices.parquet'))
    SELECT symbol, count(*), min(close), max(close), round(stddev(change), 9), max_by(day, change)
    FROM returns WHERE day BETWEEN '2000-01-01' AND '2020-12-31' GROUP BY symbol ORDER BY symbol""").fetchall()
for row in rows: print(*row)
"#;

pub(crate) async fn duckdb_answers_a_query_over_real_prices(case: &Case<'_>) -> Result<()> {
    case.env.cluster.node_access().map_err(|why| Skip(format!("the pod runs this machine's Python: {why}")))?;
    let (python, packages) = blocking(|| tools::python_packages("python-duckdb-2.0.0-skfolio-1.12.2", &PACKAGES))?;
    let folder = tempfile::tempdir()?;
    let local = folder.path().to_string_lossy().into_owned();
    let run = |script: &str, args: &[&str]| {
        let mut command = Command::new(&python);
        command.args(["-c", script]).args(args).env("PYTHONPATH", &packages);
        blocking(|| tools::output(&mut command))
    };
    run(CONVERT, &[&packages.to_string_lossy(), &local])?;
    let expected = run(QUERY, &[&local])?;
    ensure!(expected.lines().count() == 20, "{expected}");
    let count = blocking(|| upload(case, folder.path()))?;
    println!("    {count} Parquet files");

    case.serve("prices", 2, "64Mi").await?;
    std::fs::write(packages.join("penstock_query.py"), QUERY)?;
    case.apply(&pod(&python, &packages)).await?;
    let finished = pods::finish(&case.env.client(), &case.namespace, "duckdb", Duration::from_mins(2)).await?;
    ensure!(finished.exit_code == 0, "{}", finished.logs);
    ensure!(finished.logs == expected, "through the mount:\n{}\ndirectly:\n{expected}", finished.logs);
    Ok(())
}

fn upload(case: &Case<'_>, folder: &Path) -> Result<usize> {
    case.env.s3.create_bucket(case.bucket())?;
    let mut count = 0;
    for symbol in std::fs::read_dir(folder)? {
        let symbol = symbol?;
        let key = format!("{}/prices.parquet", symbol.file_name().to_str().context("a symbol")?);
        case.env.s3.put_file(case.bucket(), &key, &symbol.path().join("prices.parquet"))?;
        count += 1;
    }
    Ok(count)
}

/// Runs the query with this machine's Python, which a node sees at the same path, in the node's file tree.
fn pod(python: &Path, packages: &Path) -> String {
    format!(
        "{{apiVersion: v1, kind: Pod, metadata: {{name: duckdb}}, spec: {{restartPolicy: Never, containers: [{{name: main, image: '{}',
           command: [chroot, /node, env, HOME=/tmp, 'PYTHONPATH={packages}', '{python}', '{packages}/penstock_query.py', /mnt],
           volumeMounts: [{{name: node, mountPath: /node, readOnly: true}}, {{name: data, mountPath: /node/mnt, readOnly: true}}]}}],
           volumes: [{{name: node, hostPath: {{path: /}}}}, {{name: data, persistentVolumeClaim: {{claimName: prices}}}}]}}}}",
        penstock_e2e::image::toolbox_name(),
        packages = packages.display(),
        python = python.display(),
    )
}
