//! The S3 server read without anything of ours: one HTTP request for each file.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
};

use anyhow::{Context, bail};

/// The body of an object that anybody may read.
pub(super) fn open(address: &str, bucket: &str, key: &str) -> anyhow::Result<impl Read + use<>> {
    let mut stream = TcpStream::connect(address)?;
    // Of HTTP/1.0, so that the body ends where the connection does, and comes in no chunks.
    write!(stream, "GET /{bucket}/{key} HTTP/1.0\r\nHost: {address}\r\n\r\n")?;
    let mut lines = BufReader::new(stream);
    let (mut status, mut header) = (String::new(), String::new());
    lines.read_line(&mut status)?;
    if status.split(' ').nth(1) != Some("200") {
        bail!("the S3 server answers {:?} for {key}", status.trim_end());
    }
    while lines.read_line(&mut header).context("the answer's headers")? > "\r\n".len() {
        header.clear();
    }
    Ok(lines)
}
