//! Going through a Dataset's tree. Each directory's owner is asked, so that nobody lists what is listed already.

use penstock_model::{Attr, Entry, Kind, Path};
use penstock_wire::message::Failure;

use crate::{members::Members, metadata::Catalog};

/// Entries asked for at once.
const PAGE: u32 = 8000;

/// Who is shown the files of a tree.
pub(crate) trait Visit: Send {
    fn file(&mut self, path: Path, attr: Attr);

    /// Some have been shown, and the next ones come when this returns: the time for what may have to wait.
    fn pause(&mut self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
}

/// Shows the files of one directory; returns the directories in it.
pub(crate) async fn directory(
    catalog: &Catalog,
    members: &Members,
    directory: &[u8],
    visit: &mut impl Visit,
) -> Result<Vec<Path>, Failure> {
    let (mut below, mut after) = (Vec::new(), None);
    loop {
        let (entries, more) = match members.ask_listing(directory, after.as_deref(), PAGE).await {
            Some(page) => page,
            None => catalog.list(directory, after.as_deref(), PAGE).await?.value,
        };
        after = entries.last().map(Entry::listing_key);
        for Entry { name, attr } in entries {
            let path = if directory.is_empty() { name } else { [directory, b"/", &name].concat() };
            match attr.kind {
                Kind::File => visit.file(path, attr),
                Kind::Directory => below.push(path),
                Kind::Symlink => {}
            }
        }
        visit.pause().await;
        if !more || after.is_none() {
            return Ok(below);
        }
    }
}
