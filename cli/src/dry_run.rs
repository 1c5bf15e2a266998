//! `--dry-run`: what would happen, on standard output, and nothing else.

use std::{collections::BTreeSet, sync::Arc};

use ncc_copy::Plan;
use ncc_local_store::LocalStoreConfig;
use ncc_store::{Destination, NarStream, Outcome, PathInfo, StoreDir, StoreError, StorePath, ValidityQuery};

use crate::{
    arguments::Arguments,
    progress::{Direction, human_bytes, human_paths, plan_json},
};

/// Says what a plan would do.
pub(crate) fn show(arguments: &Arguments, plan: &Plan, direction: &Direction, store_dir: &StoreDir) {
    if arguments.show.json {
        println!("{}", plan_json(plan, &[], direction, store_dir));
        return;
    }
    let bytes = |infos: &[Arc<PathInfo>]| infos.iter().map(|info| info.nar_size).sum::<u64>();
    let (word, host) = (direction.word(), direction.host());
    let (paths, size) = (human_paths(plan.to_send.len()), human_bytes(plan.bytes_to_send()));
    println!("would copy {paths} ({size}) {word} {host}");
    for info in &plan.to_send {
        println!("{:>12}  {}", human_bytes(info.nar_size), store_dir.full(&info.path));
    }
    let (paths, size) = (human_paths(plan.present.len()), human_bytes(bytes(&plan.present)));
    println!("already there: {paths} ({size})");
    if arguments.how.use_substitutes && !plan.to_send.is_empty() {
        println!("the receiving side would first be asked to substitute these; what it finds is not sent");
    }
}

/// A local store that does not exist yet: it has nothing, and stays so.
pub(crate) struct Nothing {
    config: LocalStoreConfig,
}

impl Nothing {
    pub(crate) fn new(config: LocalStoreConfig) -> Self {
        Self { config }
    }
}

type Answer<'a, T> = std::pin::Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

impl Destination for Nothing {
    fn name(&self) -> &str {
        &self.config.name
    }

    fn store_dir(&self) -> &StoreDir {
        &self.config.store_dir
    }

    fn valid_paths<'a>(&'a self, _: &'a [StorePath], _: ValidityQuery) -> Answer<'a, BTreeSet<StorePath>> {
        Box::pin(std::future::ready(Ok(BTreeSet::new())))
    }

    fn add_many(
        &self,
        _: NarStream,
    ) -> std::pin::Pin<Box<dyn futures_core::Stream<Item = Result<Outcome, StoreError>> + Send>> {
        let refusal = StoreError::Failed {
            store: self.config.name.clone(),
            action: "add paths",
            source: "it does not exist and was only to be looked at".into(),
        };
        Box::pin(futures_util::stream::once(std::future::ready(Err(refusal))))
    }
}
