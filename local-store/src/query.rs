//! What the database says about single paths.

use std::collections::BTreeSet;

use ncc_store::{ContentAddress, NarHash, PathInfo, StoreDir, StorePath};
use rusqlite::{Connection, OptionalExtension as _, Row, types::ValueRef};

use crate::{
    LocalStoreError,
    database::{Cancelled, Database},
    error::ColumnError,
};

/// Reads rows within one transaction, until nobody wants them any more: each look-up asks first.
pub(crate) struct Query<'a> {
    connection: &'a Connection,
    database: &'a Database,
    store_dir: &'a StoreDir,
    cancelled: Cancelled<'a>,
}

/// A row of `ValidPaths`, before anything depends on what it says.
pub(crate) struct PathRow {
    id: i64,
    path: String,
    hash: String,
    registration_time: i64,
    deriver: Option<String>,
    nar_size: Option<i64>,
    ultimate: bool,
    signatures: Option<String>,
    content_address: Option<String>,
}

macro_rules! rows_where {
    ($condition:literal) => {
        concat!(
            "select id, path, hash, registrationTime, deriver, narSize, ultimate, sigs, ca from ValidPaths where ",
            $condition
        )
    };
}

impl<'a> Query<'a> {
    pub(crate) const fn new(
        connection: &'a Connection,
        database: &'a Database,
        store_dir: &'a StoreDir,
        cancelled: Cancelled<'a>,
    ) -> Self {
        Self { connection, database, store_dir, cancelled }
    }

    fn go_on(&self) -> Result<(), LocalStoreError> {
        if (self.cancelled)() {
            return Err(LocalStoreError::Cancelled { path: self.database.path().to_owned() });
        }
        Ok(())
    }

    /// The row id of a valid path.
    pub(crate) fn id(&self, path: &StorePath) -> Result<Option<i64>, LocalStoreError> {
        self.go_on()?;
        let path = self.store_dir.full(path);
        self.connection
            .prepare_cached("select id from ValidPaths where path = ?1")
            .and_then(|mut statement| statement.query_row([path], |row| row.get(0)).optional())
            .map_err(self.database.failed("look up paths"))
    }

    /// Everything about a valid path.
    pub(crate) fn info(&self, path: &StorePath) -> Result<Option<PathInfo>, LocalStoreError> {
        self.go_on()?;
        let full = self.store_dir.full(path);
        let row = self
            .connection
            .prepare_cached(rows_where!("path = ?1"))
            .and_then(|mut statement| statement.query_row([full], read_row).optional())
            .map_err(self.database.failed("read path metadata"))?;
        let Some(row) = row else { return Ok(None) };
        let mut info = self.interpret(&row)?;
        let references: Vec<(i64, Option<String>)> = self
            .connection
            .prepare_cached(
                "select reference, path from Refs left join ValidPaths on id = reference where referrer = ?1",
            )
            .and_then(|mut statement| {
                statement.query_map([row.id], |row| Ok((row.get(0)?, text(row, 1)?)))?.collect()
            })
            .map_err(self.database.failed("read references"))?;
        info.references = references
            .into_iter()
            .map(|(id, text)| {
                let text = text.ok_or_else(|| self.lost(path, id))?;
                self.store_dir.parse(&text).map_err(|error| self.bad(id, &text, "path", error.into()))
            })
            .collect::<Result<Vec<_>, _>>()?
            .into_iter()
            .collect();
        Ok(Some(info))
    }

    /// The row with this id, unless it is gone.
    pub(crate) fn row(&self, id: i64) -> Result<Option<PathRow>, LocalStoreError> {
        self.go_on()?;
        self.connection
            .prepare_cached(rows_where!("id = ?1"))
            .and_then(|mut statement| statement.query_row([id], read_row).optional())
            .map_err(self.database.failed("read path metadata"))
    }

    /// The error of `referrer`, which refers to a row that is gone.
    pub(crate) fn lost(&self, referrer: &StorePath, row: i64) -> LocalStoreError {
        LocalStoreError::LostReference {
            path: referrer.clone(),
            database: self.database.path().to_owned(),
            row,
        }
    }

    /// The row ids of what `id` refers to.
    pub(crate) fn references(&self, id: i64) -> Result<Vec<i64>, LocalStoreError> {
        self.connection
            .prepare_cached("select reference from Refs where referrer = ?1")
            .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
            .map_err(self.database.failed("read references"))
    }

    /// The row ids of those outputs of derivation `id` that are valid.
    pub(crate) fn valid_outputs(&self, id: i64) -> Result<Vec<i64>, LocalStoreError> {
        self.connection
            .prepare_cached(
                "select ValidPaths.id from DerivationOutputs join ValidPaths \
                 on ValidPaths.path = DerivationOutputs.path where drv = ?1",
            )
            .and_then(|mut statement| statement.query_map([id], |row| row.get(0))?.collect())
            .map_err(self.database.failed("read outputs of derivations"))
    }

    /// The row ids of all valid paths.
    pub(crate) fn all(&self) -> Result<Vec<i64>, LocalStoreError> {
        self.connection
            .prepare_cached("select id from ValidPaths")
            .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect())
            .map_err(self.database.failed("list the valid paths"))
    }

    /// The row ids of the derivations that have `path` as an output.
    pub(crate) fn derivers(&self, path: &StorePath) -> Result<Vec<i64>, LocalStoreError> {
        self.connection
            .prepare_cached("select drv from DerivationOutputs where path = ?1")
            .and_then(|mut statement| {
                statement.query_map([self.store_dir.full(path)], |row| row.get(0))?.collect()
            })
            .map_err(self.database.failed("look up derivations"))
    }

    /// The paths of rows, without those that are gone.
    pub(crate) fn paths(&self, rows: &[i64]) -> Result<BTreeSet<StorePath>, LocalStoreError> {
        let rows = rows.iter().filter_map(|id| self.row(*id).transpose());
        rows.map(|row| row.and_then(|row| self.path(&row))).collect()
    }

    /// The path of a row.
    pub(crate) fn path(&self, row: &PathRow) -> Result<StorePath, LocalStoreError> {
        self.store_dir.parse(&row.path).map_err(|error| self.bad(row.id, &row.path, "path", error.into()))
    }

    /// The metadata in a row, without references. Its size is 0 if the row does not know it.
    pub(crate) fn interpret(&self, row: &PathRow) -> Result<PathInfo, LocalStoreError> {
        let path = self.path(row)?;
        let hash =
            NarHash::parse(&row.hash).map_err(|error| self.bad(row.id, &row.path, "hash", error.into()))?;
        let size = row.nar_size.unwrap_or(0);
        let size = u64::try_from(size)
            .map_err(|_| self.bad(row.id, &row.path, "narSize", ColumnError::Size(size)))?;
        let mut info = PathInfo::new(path, hash, size);
        info.registration_time = row.registration_time;
        info.ultimate = row.ultimate;
        // A deriver says where a path came from and nothing depends on it, so an odd one of an old store is no
        // reason to refuse the path.
        info.deriver = row.deriver.as_deref().filter(|text| !text.is_empty()).and_then(|text| {
            self.store_dir
                .parse(text)
                .inspect_err(|error| tracing::warn!(path = %info.path, %error, "deriver left out"))
                .ok()
        });
        if let Some(signatures) = &row.signatures {
            info.set_signatures(signatures.split_ascii_whitespace());
            // Room for four is made for the first one: 26 MB in a closure of 100,000 paths.
            info.signatures.shrink_to_fit();
        }
        if let Some(claim) = row.content_address.as_deref().filter(|text| !text.is_empty()) {
            let claim: ContentAddress = claim
                .parse()
                .map_err(|error| self.bad(row.id, &row.path, "ca", ColumnError::ContentAddress(error)))?;
            info.content_address = Some(claim);
        }
        Ok(info)
    }

    fn bad(&self, row: i64, path: &str, column: &'static str, source: ColumnError) -> LocalStoreError {
        LocalStoreError::BadRow {
            database: self.database.path().to_owned(),
            row,
            path: path.escape_debug().to_string(),
            column,
            source: Box::new(source),
        }
    }
}

fn read_row(row: &Row<'_>) -> Result<PathRow, rusqlite::Error> {
    Ok(PathRow {
        id: row.get(0)?,
        path: text(row, 1)?.unwrap_or_default(),
        hash: text(row, 2)?.unwrap_or_default(),
        registration_time: integer(row, 3)?.unwrap_or(0),
        deriver: text(row, 4)?,
        nar_size: integer(row, 5)?,
        ultimate: integer(row, 6)?.is_some_and(|flag| flag != 0),
        signatures: text(row, 7)?,
        content_address: text(row, 8)?,
    })
}

/// SQLite keeps whatever is put into a column, and bytes that are no UTF-8 as text: what is odd here is found odd
/// by whoever interprets it, and only if somebody does.
fn text(row: &Row<'_>, column: usize) -> Result<Option<String>, rusqlite::Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
        ValueRef::Integer(number) => Some(number.to_string()),
        ValueRef::Real(number) => Some(number.to_string()),
        ValueRef::Null => None,
    })
}

fn integer(row: &Row<'_>, column: usize) -> Result<Option<i64>, rusqlite::Error> {
    Ok(match row.get_ref(column)? {
        ValueRef::Integer(number) => Some(number),
        _ => None,
    })
}
