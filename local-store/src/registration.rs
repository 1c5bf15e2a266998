//! Rows of new paths: a batch in one transaction.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use ncc_store::{PathInfo, StoreDir, StorePath};
use rusqlite::{Connection, OptionalExtension as _, params};

use crate::{
    LocalStoreError,
    database::{Cancelled, Database},
};

/// A path whose object lies complete on the disk, under its lock.
#[derive(Debug)]
pub(crate) struct Candidate {
    pub(crate) info: Arc<PathInfo>,
    /// For a derivation: names of its outputs and their paths, where they are known before it is built.
    pub(crate) outputs: Vec<(String, StorePath)>,
}

/// Registers a batch, in its order: a path whose references are not valid and were not registered before it fails.
pub(crate) fn register(
    database: &Database,
    cancelled: Cancelled<'_>,
    store_dir: &StoreDir,
    batch: &[&Candidate],
) -> Result<Vec<Result<(), LocalStoreError>>, LocalStoreError> {
    database.write("register paths", cancelled, |connection| {
        let mut transaction =
            Transaction { connection, database, store_dir, ids: HashMap::new(), now: now() };
        batch.iter().map(|candidate| transaction.register(candidate)).collect()
    })
}

struct Transaction<'a> {
    connection: &'a Connection,
    database: &'a Database,
    store_dir: &'a StoreDir,
    /// Row ids of valid paths, those of this batch included.
    ids: HashMap<StorePath, Option<i64>>,
    now: i64,
}

impl Transaction<'_> {
    /// The error inside is about this path alone.
    fn register(&mut self, candidate: &Candidate) -> Result<Result<(), LocalStoreError>, LocalStoreError> {
        for reference in candidate.info.other_references() {
            if self.id(reference)?.is_none() {
                let (path, reference) = (candidate.info.path.clone(), reference.clone());
                return Ok(Err(LocalStoreError::InvalidReference { path, reference }));
            }
        }
        self.insert(candidate).map(Ok)
    }

    fn id(&mut self, path: &StorePath) -> Result<Option<i64>, LocalStoreError> {
        if let Some(id) = self.ids.get(path) {
            return Ok(*id);
        }
        let id = self
            .connection
            .prepare_cached("select id from ValidPaths where path = ?1")
            .and_then(|mut statement| {
                statement.query_row([self.store_dir.full(path)], |row| row.get(0)).optional()
            })
            .map_err(self.failed())?;
        self.ids.insert(path.clone(), id);
        Ok(id)
    }

    fn insert(&mut self, candidate: &Candidate) -> Result<(), LocalStoreError> {
        let info = &candidate.info;
        let path = self.store_dir.full(&info.path);
        let hash = format!("sha256:{}", info.nar_hash.to_base16());
        let size = i64::try_from(info.nar_size).ok();
        let ultimate = info.ultimate.then_some(1);
        let signatures = joined_signatures(info);
        let claim = info.content_address.map(|claim| claim.to_string());
        let known = self.id(&info.path)?;
        let id = match known {
            // Only somebody who does not heed path locks can have registered it meanwhile. As Nix: what the content
            // is gets replaced, where it came from stays.
            Some(id) => self
                .connection
                .prepare_cached(
                    "update ValidPaths set hash = ?2, narSize = ?3, ultimate = ?4, sigs = ?5, ca = ?6 where id = ?1",
                )
                .and_then(|mut statement| {
                    statement.execute(params![id, hash, size, ultimate, signatures, claim])
                })
                .map(|_| id),
            None => self
                .connection
                .prepare_cached(
                    "insert into ValidPaths (path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca) \
                     values (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )
                .and_then(|mut statement| {
                    let time = if info.registration_time == 0 { self.now } else { info.registration_time };
                    let deriver = info.deriver.as_ref().map(|deriver| self.store_dir.full(deriver));
                    statement.insert(params![path, hash, time, deriver, size, ultimate, signatures, claim])
                }),
        }
        .map_err(self.failed())?;
        self.ids.insert(info.path.clone(), Some(id));
        for (name, output) in &candidate.outputs {
            self.connection
                .prepare_cached(
                    "insert or replace into DerivationOutputs (drv, id, path) values (?1, ?2, ?3)",
                )
                .and_then(|mut statement| statement.execute(params![id, name, self.store_dir.full(output)]))
                .map_err(self.failed())?;
        }
        for reference in &info.references {
            let Some(to) = self.id(reference)? else { continue };
            self.connection
                .prepare_cached("insert or replace into Refs (referrer, reference) values (?1, ?2)")
                .and_then(|mut statement| statement.execute([id, to]))
                .map_err(self.failed())?;
        }
        Ok(())
    }

    fn failed(&self) -> impl Fn(rusqlite::Error) -> LocalStoreError + '_ {
        self.database.failed("register paths")
    }
}

/// As Nix writes them: sorted texts with spaces between, nothing if there are none.
fn joined_signatures(info: &PathInfo) -> Option<String> {
    let mut signatures: Vec<_> = info.signatures.iter().map(ToString::to_string).collect();
    signatures.sort_unstable();
    (!signatures.is_empty()).then(|| signatures.join(" "))
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
