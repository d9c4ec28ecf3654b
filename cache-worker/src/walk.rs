//! Going through a Dataset's tree. Each directory's owner is asked, so that nobody lists what is listed already.

use penstock_model::{Attr, Entry, Kind, Path};
use penstock_wire::message::Failure;

use crate::{members::Members, metadata::Catalog};

/// Entries asked for at once.
const PAGE: u32 = 8000;

/// Shows the files of one directory to `visit`; returns the directories in it.
pub(crate) async fn directory(
    catalog: &Catalog,
    members: &Members,
    directory: &[u8],
    visit: &mut (dyn FnMut(Path, Attr) + Send),
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
                Kind::File => visit(path, attr),
                Kind::Directory => below.push(path),
                Kind::Symlink => {}
            }
        }
        if !more || after.is_none() {
            return Ok(below);
        }
    }
}
