//! The beginning of a session: what kernel and file system agree on, or what a former process had agreed on.

use std::io;

use rustix::io::Errno;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::{
    abi::{self, InHeader, InitIn, InitOut, init},
    device::Device,
};
use crate::{session::Agreement, spec::Passthrough};

/// Bytes that a request may have: the kernel wants room for a write of [`MAX_WRITE`], which never comes.
pub(super) const BUFFER: usize = 16 << 10;
const MAX_WRITE: u32 = 4 << 10;
/// Of one read, in pages of 4 KiB: 1 MiB.
const MAX_PAGES: u16 = 256;
/// Requests that the kernel may have under way by itself (readahead), not counting those that someone waits for.
const BACKGROUND: u16 = 64;
/// Backing files may lie on one layer of a stacking file system (overlayfs) at most.
const STACK_DEPTH: u32 = 2;

/// Each is worth having and none is needed: old kernels go without.
const WANTED: u64 = init::ASYNC_READ
    | init::EXPORT_SUPPORT
    | init::BIG_WRITES
    | init::DO_READDIRPLUS
    | init::READDIRPLUS_AUTO
    | init::ASYNC_DIO
    | init::PARALLEL_DIROPS
    | init::MAX_PAGES
    | init::CACHE_SYMLINKS
    | init::INIT_EXT
    | init::HAS_RESEND;

#[derive(Debug, thiserror::Error)]
pub enum SessionError {
    #[error("cannot read from or write to /dev/fuse: {0}")]
    Device(#[from] io::Error),
    #[error("the file system was unmounted before it was served")]
    Unmounted,
    #[error("the kernel's first request is not INIT but operation {0}: the session belongs to another process")]
    NotInit(u32),
    #[error("the kernel speaks FUSE {major}.{minor}: {}.{} or a later {0}.x is needed", abi::MAJOR, abi::OLDEST_MINOR)]
    Version { major: u32, minor: u32 },
    #[error("the session cannot be taken over: this kernel does not send unanswered requests again (Linux 6.9 does)")]
    NoResend,
}

/// Answers the kernel's INIT.
pub(super) fn greet(device: &Device, passthrough: Passthrough) -> Result<Agreement, SessionError> {
    let mut buffer = vec![0; BUFFER];
    let request = device.receive(&mut buffer)?.ok_or(SessionError::Unmounted)?;
    let (header, body) =
        InHeader::read_from_prefix(request).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
    if header.opcode != abi::op::INIT {
        return Err(SessionError::NotInit(header.opcode));
    }
    let mut asked = InitIn::new_zeroed();
    let len = body.len().min(size_of::<InitIn>());
    asked.as_mut_bytes()[..len].copy_from_slice(&body[..len]);
    match negotiate(&asked, passthrough) {
        Ok((answer, agreement)) => {
            device.answer(header.unique, &[answer.as_bytes()]);
            Ok(agreement)
        }
        Err(error) => {
            device.refuse(header.unique, Errno::PROTO);
            Err(error)
        }
    }
}

/// Goes on where a former process ended.
pub(super) fn resume(device: &Device, agreement: Agreement) -> Result<(), SessionError> {
    if !agreement.resend {
        return Err(SessionError::NoResend);
    }
    Ok(device.resend()?)
}

fn negotiate(asked: &InitIn, passthrough: Passthrough) -> Result<(InitOut, Agreement), SessionError> {
    let InitIn { major, minor, .. } = *asked;
    if major != abi::MAJOR || minor < abi::OLDEST_MINOR {
        return Err(SessionError::Version { major, minor });
    }
    let offered = u64::from(asked.flags) | u64::from(asked.flags2) << 32;
    let wanted = match passthrough {
        Passthrough::Auto => WANTED | init::PASSTHROUGH,
        Passthrough::Off => WANTED,
    };
    let agreed = offered & wanted;
    let has = |flag| agreed & flag != 0;
    let agreement = Agreement { passthrough: has(init::PASSTHROUGH), resend: has(init::HAS_RESEND) };
    let answer = InitOut {
        major: abi::MAJOR,
        minor: minor.min(abi::MINOR),
        max_readahead: asked.max_readahead,
        flags: agreed as u32,
        flags2: (agreed >> 32) as u32,
        max_background: BACKGROUND,
        congestion_threshold: BACKGROUND / 4 * 3,
        max_write: MAX_WRITE,
        time_gran: 1,
        max_pages: if has(init::MAX_PAGES) { MAX_PAGES } else { 0 },
        max_stack_depth: if agreement.passthrough { STACK_DEPTH } else { 0 },
        ..InitOut::default()
    };
    Ok((answer, agreement))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(minor: u32, flags: u64) -> InitIn {
        let (flags, flags2) = (flags as u32, (flags >> 32) as u32);
        InitIn { major: 7, minor, max_readahead: 1 << 17, flags, flags2, unused: [0; 11] }
    }

    #[test]
    fn only_what_the_kernel_offers_and_we_want_is_agreed_on() {
        let (all, agreement) = negotiate(&asked(45, u64::MAX), Passthrough::Auto).unwrap();
        assert_eq!(u64::from(all.flags) | u64::from(all.flags2) << 32, WANTED | init::PASSTHROUGH);
        assert_eq!((all.minor, all.max_pages, all.max_stack_depth), (abi::MINOR, 256, 2));
        assert_eq!(agreement, Agreement { passthrough: true, resend: true });

        let (off, agreement) = negotiate(&asked(45, u64::MAX), Passthrough::Off).unwrap();
        assert_eq!((off.max_stack_depth, agreement.passthrough), (0, false));

        let (old, agreement) = negotiate(&asked(31, init::ASYNC_READ), Passthrough::Auto).unwrap();
        assert_eq!((old.minor, u64::from(old.flags), old.flags2, old.max_pages), (31, init::ASYNC_READ, 0, 0));
        assert_eq!(agreement, Agreement { passthrough: false, resend: false });
    }

    #[test]
    fn a_kernel_of_another_time_is_refused_by_name() {
        for (major, minor) in [(7, 30), (8, 0), (6, 45)] {
            let asked = InitIn { major, ..asked(minor, 0) };
            let error = negotiate(&asked, Passthrough::Auto).unwrap_err().to_string();
            assert!(error.contains(&format!("FUSE {major}.{minor}")) && error.contains("7.31"), "{error}");
        }
    }
}
