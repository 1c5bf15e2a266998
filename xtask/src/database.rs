//! Reads Nix's database.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use rusqlite::Connection;

use crate::instance::LabStore;

/// Everything the database says of one path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) hash: String,
    pub(crate) registration_time: i64,
    pub(crate) deriver: Option<String>,
    pub(crate) nar_size: Option<i64>,
    pub(crate) ultimate: Option<i64>,
    pub(crate) sigs: Option<String>,
    pub(crate) ca: Option<String>,
    pub(crate) references: BTreeSet<String>,
    /// Output name to path, of derivations.
    pub(crate) outputs: BTreeMap<String, String>,
}

/// All valid paths. An absent database is an empty store.
pub(crate) fn read(store: &LabStore) -> Result<BTreeMap<String, Row>> {
    let file = store.database();
    if !file.exists() {
        return Ok(BTreeMap::new());
    }
    let context = || format!("cannot read {}", file.display());
    let connection = Connection::open(&file).with_context(context)?;
    connection.busy_timeout(std::time::Duration::from_secs(10))?;
    let mut rows = BTreeMap::new();
    let mut paths = BTreeMap::new();
    let mut statement = connection
        .prepare(
            "select id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca from ValidPaths",
        )
        .with_context(context)?;
    let found = statement.query_map([], |row| {
        Ok((
            row.get::<_, i64>(0)?,
            row.get::<_, String>(1)?,
            Row {
                hash: row.get(2)?,
                registration_time: row.get(3)?,
                deriver: row.get(4)?,
                nar_size: row.get(5)?,
                ultimate: row.get(6)?,
                sigs: row.get(7)?,
                ca: row.get(8)?,
                references: BTreeSet::new(),
                outputs: BTreeMap::new(),
            },
        ))
    })?;
    for item in found {
        let (id, path, row) = item.with_context(context)?;
        paths.insert(id, path.clone());
        rows.insert(path, row);
    }
    // A dangling id would be a broken store: shown as such rather than skipped.
    let name = |id: i64| paths.get(&id).cloned().unwrap_or_else(|| format!("<dangling id {id}>"));
    let mut statement = connection.prepare("select referrer, reference from Refs").with_context(context)?;
    for item in statement.query_map([], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)))? {
        let (referrer, reference) = item.with_context(context)?;
        if let Some(row) = rows.get_mut(&name(referrer)) {
            row.references.insert(name(reference));
        }
    }
    let mut statement =
        connection.prepare("select drv, id, path from DerivationOutputs").with_context(context)?;
    let outputs = statement.query_map([], |row| {
        Ok((row.get::<_, i64>(0)?, row.get::<_, String>(1)?, row.get::<_, String>(2)?))
    })?;
    for item in outputs {
        let (derivation, output, path) = item.with_context(context)?;
        if let Some(row) = rows.get_mut(&name(derivation)) {
            row.outputs.insert(output, path);
        }
    }
    Ok(rows)
}

/// The time of the first path, and one that no path has that was given such a time.
const SETTLED: i64 = 1_500_000_000;
const UNSETTLED: i64 = SETTLED + 100_000_000;

/// Gives every path a registration time of its own, long ago: a copy that keeps it differs from one that says "now", and
/// captures come out the same every time.
pub(crate) fn settle_registration_times(store: &LabStore) -> Result<()> {
    let connection = Connection::open(store.database()).context("cannot open the fixture's database")?;
    // What was settled before keeps its time, also when more has come since: copies of it have been compared, and will be.
    let settled: i64 = connection.query_row(
        "select count(*) from ValidPaths where registrationTime < ?1",
        [UNSETTLED],
        |row| row.get(0),
    )?;
    let mut statement =
        connection.prepare("select path from ValidPaths where registrationTime >= ?1 order by path")?;
    let paths: Vec<String> = statement.query_map([UNSETTLED], |row| row.get(0))?.collect::<Result<_, _>>()?;
    for (number, path) in (settled..).zip(&paths) {
        let time = SETTLED + number;
        connection.execute("update ValidPaths set registrationTime = ?1 where path = ?2", (time, path))?;
    }
    Ok(())
}
