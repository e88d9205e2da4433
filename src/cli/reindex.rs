//! `friend-lite reindex`: moves all memories to the configured embedding model.

use std::collections::HashMap;
use std::sync::Arc;

use super::terminal;
use crate::base::error::Result;
use crate::embed::Embedder;
use crate::index::Index;
use crate::store::Store;

/// Memories embedded in one request.
const BATCH: usize = 32;

/// Gives every memory a vector of `embedder`, and has the index `outside` made
/// again of them. Nothing changes until all of them are made; the daemon may run
/// meanwhile, and is to be started again after.
///
/// # Errors
/// `Unavailable` when the model or the index cannot be asked, `Conflict` when
/// memories were added meanwhile: run it again.
pub(super) async fn run(
    store: Arc<dyn Store>,
    embedder: Arc<dyn Embedder>,
    outside: Option<Arc<dyn Index>>,
) -> Result<()> {
    let texts = store.memory_texts().await?;
    let bar = terminal::bar("embedding", texts.len() as u64, "memories");
    let mut vectors: HashMap<String, Vec<f32>> = HashMap::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let made = embedder.embed(batch).await?;
        vectors.extend(batch.iter().cloned().zip(made));
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    let count = vectors.len();
    match vectors.values().next().map(Vec::len) {
        Some(width) => {
            store.replace_embeddings(&embedder.name(), width, vectors).await?;
            if let Some(index) = outside {
                index.renew().await?;
            }
            println!("{count} memories now use {} ({width} wide)", embedder.name());
        }
        None => println!("no memories yet: nothing to do"),
    }
    Ok(())
}
