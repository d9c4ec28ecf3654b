//! Holds what the mounts of a node need to outlive the node plugin; see `penstock_mount::keeper`.

use std::{path::Path, process::ExitCode};

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let [socket] = arguments.as_slice() else {
        eprintln!("usage: penstock-keeper SOCKET");
        return ExitCode::from(2);
    };
    match penstock_mount::keeper::run(Path::new(socket)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", Path::new(socket).display());
            ExitCode::FAILURE
        }
    }
}
