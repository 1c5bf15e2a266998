//! NARs on their way, seen by an observer.

use std::sync::Arc;

use futures_util::{StreamExt as _, future::BoxFuture, stream};
use ncc_store::{NarAccess, NarBody, NarSource, PathInfo, StoreError};

use crate::{Event, Observer};

/// The same NARs, telling an observer what is read of them.
pub(crate) struct Observed {
    pub(crate) nars: Arc<dyn NarSource>,
    pub(crate) observer: Arc<dyn Observer>,
}

impl NarSource for Observed {
    fn store(&self) -> &str {
        self.nars.store()
    }

    fn access(&self) -> NarAccess {
        self.nars.access()
    }

    fn open(&self, info: &Arc<PathInfo>, offset: u64) -> BoxFuture<'static, Result<NarBody, StoreError>> {
        let (opening, observer, info) =
            (self.nars.open(info, offset), Arc::clone(&self.observer), Arc::clone(info));
        Box::pin(async move {
            let body = opening.await?;
            observer.event(Event::Started(&info));
            Ok(body.map_blocks(|blocks| {
                stream::unfold((blocks, observer, info), |(mut blocks, observer, info)| async move {
                    let block = blocks.next().await;
                    match &block {
                        Some(Ok(block)) if !block.is_empty() => {
                            observer.event(Event::Sent { path: &info.path, bytes: block.len() as u64 });
                        }
                        Some(_) => {}
                        None => observer.event(Event::Finished(&info)),
                    }
                    Some((block?, (blocks, observer, info)))
                })
            }))
        })
    }
}
