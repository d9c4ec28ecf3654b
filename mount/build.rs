//! Compiles the interface descriptions without `protoc`.

use std::{error::Error, path::Path};

/// Requests that carry secrets: they get no `Debug`, so that no log line can show one.
const SECRET: [&str; 2] = [".csi.v1.NodeStageVolumeRequest", ".csi.v1.NodePublishVolumeRequest"];

fn main() -> Result<(), Box<dyn Error>> {
    let protos = ["proto/csi.proto", "proto/pluginregistration.proto"];
    for proto in protos {
        println!("cargo::rerun-if-changed={}", Path::new(proto).display());
    }
    let descriptors = protox::compile(protos, ["proto"])?;
    tonic_prost_build::configure().skip_debug(SECRET).compile_fds(descriptors)?;
    Ok(())
}
