//! Everything in the database as rows that another store takes, and back: SQLite
//! makes and reads the JSON itself.

mod statements;

use async_trait::async_trait;
use rusqlite::types::Value as Sql;
use rusqlite::{Connection, Transaction, params};
use serde_json::Value;

use self::statements::statements;
use super::{SqliteStore, rows, sql_limit, vectors};
use crate::base::error::{Context, Kind, Result};
use crate::domain::transcript::Segment;
use crate::store::Upkeep;
use crate::store::transfer::{Row, RowKind, Transfer, lacks, text};

#[async_trait]
impl Transfer for SqliteStore {
    async fn count_rows(&self, of: RowKind) -> Result<u64> {
        let sql = format!("select count(*) from {}", statements(of).table);
        let count = move |db: &Connection| Ok(db.query_row(&sql, [], |row| row.get::<_, i64>(0))?);
        Ok(self.read(count).await?.unsigned_abs())
    }

    async fn rows(&self, of: RowKind, after: Option<&Value>, limit: usize) -> Result<Vec<Row>> {
        let after = after.map(key).transpose()?;
        self.read(move |db| {
            let limits = params![after, sql_limit(limit)];
            let read = rows::all(db, statements(of).read, limits, |row| rows::json(row, "row"));
            let mut read: Vec<Row> = read?;
            if of == RowKind::Windows {
                read.iter_mut().try_for_each(respell)?;
            }
            Ok(read)
        })
        .await
    }

    async fn add_rows(&self, of: RowKind, rows: &[Row]) -> Result<()> {
        let rows = rows.to_vec();
        self.write(move |tx| add(tx, of, &rows)).await
    }

    async fn complete(&self) -> Result<()> {
        self.rebuild().await.map(drop)
    }
}

fn add(tx: &Transaction<'_>, of: RowKind, rows: &[Row]) -> Result<()> {
    if of == RowKind::Embedding {
        return rows.iter().try_for_each(|row| bind(tx, row));
    }
    let rows = rows::to_json(rows)?;
    statements(of).add.iter().try_for_each(|sql| rows::run(tx, sql, [&rows]).map(drop))
}

/// Ties the vectors to the model of that row, which makes their index.
fn bind(tx: &Transaction<'_>, row: &Row) -> Result<()> {
    let width = row.get("width").and_then(Value::as_u64).ok_or_else(|| lacks("width"))?;
    vectors::bind(tx, text(row, "model")?, usize::try_from(width).unwrap_or(usize::MAX))
}

/// The `_id` of a row as SQLite compares it.
fn key(id: &Value) -> Result<Sql> {
    match id {
        Value::String(text) => Ok(Sql::Text(text.clone())),
        Value::Number(number) => number.as_i64().map(Sql::Integer).ok_or_else(|| lacks("_id")),
        _ => Err(lacks("_id")),
    }
}

/// Writes the segments of a window as this program does, whichever wrote them.
fn respell(window: &mut Row) -> Result<()> {
    let segments: Vec<Segment> = serde_json::from_str(text(window, "segments")?)
        .context(Kind::Storage, "the segments of a window cannot be read")?;
    window.insert("segments".to_owned(), Value::String(rows::to_json(&segments)?));
    Ok(())
}
