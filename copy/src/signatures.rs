//! Whether the signatures of the paths to send will do, and those that are added on the way. All of it is decided before anything
//! is sent.

use std::{fmt, sync::Arc};

use ncc_store::{
    ContentMethod, Destination, NarHash, PathInfo, Problem, Side, StoreDir, StoreError, StorePath, Takes,
};

use crate::{Request, Signatures};

/// Adds a signature by each key of the request. What is signed is the metadata; that the content fits it is verified on the way.
pub(crate) fn sign(infos: &mut [Arc<PathInfo>], request: &Request, store_dir: &StoreDir) {
    for key in &*request.sign_with {
        for info in &mut *infos {
            Arc::make_mut(info).sign(store_dir, key);
        }
    }
}

/// Those of `infos` that are not to be sent, each with the reason.
pub(crate) async fn refused(
    infos: &[Arc<PathInfo>],
    request: &Request,
    destination: &dyn Destination,
) -> Result<Vec<(StorePath, StoreError)>, StoreError> {
    let dir = destination.store_dir();
    match &request.signatures {
        _ if infos.is_empty() => Ok(Vec::new()),
        Signatures::Unchecked => Ok(Vec::new()),
        Signatures::SignedBy(keys) => {
            Ok(lacking(infos, dir, Side::Source, "this machine", |info| info.is_signed_by(dir, keys)))
        }
        Signatures::AsDemanded => match destination.takes().await? {
            Takes::Signed => Ok(lacking(infos, dir, Side::Destination, destination.name(), |info| {
                // By which keys is for the destination to say.
                !info.signatures.is_empty()
            })),
            _ => Ok(Vec::new()),
        },
    }
}

/// Those that are neither content-addressed nor signed.
fn lacking(
    infos: &[Arc<PathInfo>],
    store_dir: &StoreDir,
    side: Side,
    store: &str,
    is_signed: impl Fn(&PathInfo) -> bool,
) -> Vec<(StorePath, StoreError)> {
    let store: Arc<str> = store.into();
    let lacks = infos.iter().filter(|info| !is_addressed(info, store_dir) && !is_signed(info));
    let error = |path: &StorePath| {
        let problem = Problem::Unsigned { path: path.clone(), source: None };
        StoreError::new(side, Arc::clone(&store), problem)
    };
    lacks.map(|info| (info.path.clone(), error(&info.path))).collect()
}

/// Whether a content address gives the path, and fits the content as far as the metadata tells. (That of a file is not in them:
/// whoever registers the path compares it.)
fn is_addressed(info: &PathInfo, store_dir: &StoreDir) -> bool {
    info.content_address.is_some_and(|address| {
        let refers_to_itself = info.references.contains(&info.path);
        let is_of_the_nar = address.method() == ContentMethod::Recursive && !refers_to_itself;
        info.content_address_gives_path(store_dir)
            && NarHash::try_from(*address.hash()).map_or(true, |hash| !is_of_the_nar || hash == info.nar_hash)
    })
}

/// Paths that are not taken since they lack a signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unsigned {
    /// Which side does not take them.
    pub side: Side,
    /// How messages call it.
    pub store: String,
    /// The full paths.
    pub paths: Vec<String>,
}

impl Unsigned {
    /// The paths that failed for this reason alone, if any did.
    pub fn among<'a>(errors: impl IntoIterator<Item = &'a StoreError>, store_dir: &StoreDir) -> Option<Self> {
        let mut errors = errors.into_iter().filter(|error| error.is_unsigned()).peekable();
        let first = errors.peek()?;
        let (side, store) = (first.side(), first.store().to_owned());
        let paths = errors.filter_map(StoreError::path).map(|path| store_dir.full(path)).collect();
        Some(Self { side, store, paths })
    }
}

/// The most paths that are named.
const NAMED: usize = 3;

/// How many, and the first few.
impl fmt::Display for Unsigned {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.paths.len();
        let lack = if count == 1 { "path lacks" } else { "paths lack" };
        write!(formatter, "{count} {lack} a signature that {} trusts: ", self.store)?;
        for (index, path) in self.paths.iter().take(NAMED).enumerate() {
            write!(formatter, "{}'{path}'", if index == 0 { "" } else { ", " })?;
        }
        match count.saturating_sub(NAMED) {
            0 => Ok(()),
            more => write!(formatter, " and {more} more"),
        }
    }
}
