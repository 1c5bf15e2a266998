//! NARs that come as a test wants them.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};

use crate::{Nar, NarBody, NarPlan, NarSource, PathInfo, StoreError, sequential_nars};

/// A plan and its NARs, for [`Destination::add_all`](crate::Destination::add_all).
pub type Script = (NarPlan, Arc<dyn NarSource>);

/// Objects with the blocks of their bodies, in this order, from a source that messages call "the script".
pub fn script(nars: impl IntoIterator<Item = (PathInfo, Vec<Result<Bytes, StoreError>>)>) -> Script {
    let (infos, bodies): (Vec<_>, Vec<_>) =
        nars.into_iter().map(|(info, body)| (Arc::new(info), NarBody::new(stream::iter(body)))).unzip();
    script_of_bodies(infos, bodies)
}

/// The same with bodies of any kind.
pub fn script_of_bodies(
    infos: impl IntoIterator<Item = Arc<PathInfo>>,
    bodies: impl IntoIterator<Item = NarBody>,
) -> Script {
    let plan: NarPlan = infos.into_iter().collect();
    let nars: Vec<_> = plan.iter().cloned().zip(bodies).map(|(info, body)| Ok(Nar { info, body })).collect();
    (plan, sequential_nars("the script", stream::iter(nars).boxed()))
}
