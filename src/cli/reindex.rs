//! `friend-lite reindex`: moves all memories to the configured embedding model.

use std::sync::Arc;

use super::terminal;
use crate::base::error::Result;
use crate::domain::ids::MemoryId;
use crate::embed::Embedder;
use crate::store::Store;

/// Memories embedded in one request.
const BATCH: usize = 32;

/// Gives every memory a vector of `embedder`. Nothing changes until all of them
/// are made; the daemon may run meanwhile, and is to be started again after.
///
/// # Errors
/// `Unavailable` when the model cannot be asked, `Conflict` when memories were
/// added meanwhile: run it again.
pub(super) async fn run(store: Arc<dyn Store>, embedder: Arc<dyn Embedder>) -> Result<()> {
    let mut memories = Vec::new();
    for user in store.users().await? {
        memories.extend(store.memories(&user.id, usize::MAX).await?);
    }
    let bar = terminal::bar("embedding", memories.len() as u64, "memories");
    let mut vectors: Vec<(MemoryId, Vec<f32>)> = Vec::with_capacity(memories.len());
    for batch in memories.chunks(BATCH) {
        let texts: Vec<String> = batch.iter().map(|memory| memory.text.clone()).collect();
        let made = embedder.embed(&texts).await?;
        vectors.extend(batch.iter().map(|memory| memory.id.clone()).zip(made));
        bar.inc(batch.len() as u64);
    }
    bar.finish_and_clear();
    match vectors.first() {
        Some((_, vector)) => {
            let width = vector.len();
            store.replace_embeddings(&embedder.name(), width, &vectors).await?;
            println!("{} memories now use {} ({width} wide)", vectors.len(), embedder.name());
        }
        None => println!("no memories yet: nothing to do"),
    }
    Ok(())
}
