//! What the check of NARs lets through, seen from a source that hands out what it likes.

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _, future::BoxFuture, stream, stream::BoxStream};
use ncc_copy::{Event, Observer, Request, copy};
use ncc_store::{
    Destination, Nar, NarStream, Outcome, Outputs, PathInfo, Source, StoreDir, StoreError, StorePath,
    ValidityQuery,
    test_util::{Fault, MemoryStore},
};

/// A destination that counts the bytes it is given of each path, and believes all of them.
#[derive(Default)]
struct Counter {
    store_dir: StoreDir,
    bytes: Arc<Mutex<u64>>,
}

impl Destination for Counter {
    fn name(&self) -> &'static str {
        "counter"
    }

    fn store_dir(&self) -> &StoreDir {
        &self.store_dir
    }

    fn valid_paths<'a>(
        &'a self,
        _: &'a [StorePath],
        _: ValidityQuery,
    ) -> BoxFuture<'a, Result<std::collections::BTreeSet<StorePath>, StoreError>> {
        async { Ok(std::collections::BTreeSet::new()) }.boxed()
    }

    fn add_many(&self, nars: NarStream) -> BoxStream<'static, Result<Outcome, StoreError>> {
        let bytes = Arc::clone(&self.bytes);
        nars.then(move |nar| {
            let bytes = Arc::clone(&bytes);
            async move {
                let Nar { info, mut body } = nar?;
                while let Some(block) = body.next().await {
                    *bytes.lock().unwrap() += block?.len() as u64;
                }
                Ok(Outcome::Added(info.path.clone()))
            }
        })
        .boxed()
    }
}

#[tokio::test]
async fn a_wrong_nar_never_arrives_whole_however_large_its_blocks_are() {
    for block_size in [1000, 100 << 10, 256 << 10, (256 << 10) + 1, 700 << 10, 4 << 20] {
        let here = MemoryStore::new("here").with_block_size(block_size);
        let bad = here.add("bad", vec![7; 1 << 20], &[]);
        here.inject(Fault::CorruptContent(bad.clone()));
        let there = Counter::default();
        let error = copy(&here, &there, &Request::new([bad.clone()]), &super::observer()).await.unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains("in here does not match"), "{cause}");
        let arrived = *there.bytes.lock().unwrap();
        let size = here.info(&bad).unwrap().nar_size;
        assert!(arrived < size, "blocks of {block_size}: all {size} bytes of a wrong NAR arrived");
    }
}

/// A source whose NARs come with a block of nothing in front of each of their bytes.
struct Stuttering(MemoryStore);

impl Source for Stuttering {
    fn name(&self) -> &str {
        Source::name(&self.0)
    }

    fn store_dir(&self) -> &StoreDir {
        Source::store_dir(&self.0)
    }

    fn closure<'a>(
        &'a self,
        roots: &'a [StorePath],
        outputs: Outputs,
    ) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        self.0.closure(roots, outputs)
    }

    fn path_infos<'a>(&'a self, paths: &'a [StorePath]) -> BoxFuture<'a, Result<Vec<PathInfo>, StoreError>> {
        self.0.path_infos(paths)
    }

    fn nars(&self, paths: Vec<Arc<PathInfo>>) -> NarStream {
        self.0
            .nars(paths)
            .map(|nar| {
                let Nar { info, body } = nar?;
                let body = body.flat_map(|block| stream::iter([Ok(Bytes::new()), block]));
                Ok(Nar { info, body: body.boxed() })
            })
            .boxed()
    }
}

#[derive(Default)]
struct Names(Mutex<Vec<String>>);

impl Observer for Names {
    fn event(&self, event: Event<'_>) {
        let name = match event {
            Event::Started(_) => "started",
            Event::Sent { bytes: 0, .. } => "nothing",
            Event::Finished(_) => "finished",
            Event::Registered(_) => "registered",
            Event::Failed(..) => "failed",
            _ => return,
        };
        self.0.lock().unwrap().push(name.to_owned());
    }
}

#[tokio::test]
async fn a_path_starts_once_although_its_first_block_is_empty() {
    let here = MemoryStore::new("here");
    let path = here.add("x", "content", &[]);
    let there = MemoryStore::new("there");
    let names = Arc::new(Names::default());
    let observer: Arc<dyn Observer> = Arc::clone(&names) as _;
    copy(&Stuttering(here), &there, &Request::new([path]), &observer).await.unwrap();
    assert_eq!(*names.0.lock().unwrap(), ["started", "finished", "registered"]);
}
