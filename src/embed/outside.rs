//! What the services that make embeddings have in common.

use std::future::Future;

use crate::base::error::{Kind, Result};
use crate::remote::Fault;

/// Texts in one request.
const BATCH: usize = 64;
/// Characters below which a text is never cut.
const LEAST: usize = 128;

/// The vectors of `texts`, a batch at a time. A batch that is refused is asked
/// for again with its longest texts cut, as far as that goes.
pub(super) async fn batches<F>(
    texts: &[String],
    ask: impl Fn(Vec<String>) -> F,
) -> Result<Vec<Vec<f32>>>
where
    F: Future<Output = Result<Vec<Vec<f32>>>>,
{
    let mut vectors = Vec::with_capacity(texts.len());
    for batch in texts.chunks(BATCH) {
        let mut limit = batch.iter().map(|text| text.chars().count()).max().unwrap_or(0);
        let made = loop {
            // Some servers refuse an empty text.
            let cut = |text: &String| match text.trim() {
                "" => " ".to_owned(),
                _ => text.chars().take(limit).collect(),
            };
            match ask(batch.iter().map(cut).collect()).await {
                Err(error) if error.kind() == Kind::BadInput && limit > LEAST => {
                    limit = (limit / 2).max(LEAST);
                }
                made => break made?,
            }
        };
        vectors.extend(made);
    }
    Ok(vectors)
}

/// `rows` as vectors of unit length, where there is one for each of `texts`.
pub(super) fn checked(
    service: &str,
    mut rows: Vec<Vec<f32>>,
    texts: usize,
) -> Result<Vec<Vec<f32>>, Fault> {
    let odd = || Fault::passing(format!("{service} sent vectors of the wrong size"));
    let width = rows.first().map_or(0, Vec::len);
    if rows.len() != texts || rows.iter().any(|row| row.len() != width || width == 0) {
        return Err(odd());
    }
    for row in &mut rows {
        let length = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
        if !length.is_normal() {
            return Err(odd());
        }
        row.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::error::Error;

    #[test]
    fn vectors_are_of_one_width_and_unit_length() {
        let rows = checked("x", vec![vec![3.0, 4.0], vec![0.0, -2.0]], 2).unwrap();
        assert_eq!(rows, [[0.6, 0.8], [0.0, -1.0]]);
        for odd in [
            vec![vec![1.0]],
            vec![vec![1.0], vec![1.0, 2.0]],
            vec![vec![], vec![]],
            vec![vec![0.0], vec![1.0]],
            vec![vec![f32::NAN], vec![1.0]],
        ] {
            assert!(checked("x", odd, 2).is_err());
        }
        assert!(checked("x", Vec::new(), 0).unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_too_long_is_cut_until_it_fits() {
        let texts = ["x".repeat(1_000), String::new(), "é".repeat(300)];
        let ask = |batch: Vec<String>| async move {
            match batch.iter().any(|text| text.is_empty() || text.chars().count() > 300) {
                true => Err(Error::new(Kind::BadInput, "too long")),
                false => Ok(batch.iter().map(|text| vec![text.chars().count() as f32]).collect()),
            }
        };
        assert_eq!(batches(&texts, ask).await.unwrap(), [[250.0], [1.0], [250.0]]);
        let never = |_| async { Err(Error::new(Kind::BadInput, "no")) };
        assert_eq!(batches(&texts, never).await.unwrap_err().kind(), Kind::BadInput);
    }
}
