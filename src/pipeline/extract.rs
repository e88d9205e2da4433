//! The facts of a transcript, each one borne out by what was said.

use super::grounding::{Ground, has_content, is_negated, puts_words_in_a_mouth, without_chatter};
use super::prompts::{self, Point};
use crate::base::error::Result;
use crate::domain::job::Lane;
use crate::llm::LanguageModel;

/// What is worth remembering of the `lines` of a transcript. Small talk gives
/// nothing.
///
/// # Errors
/// What the language model returns.
pub async fn extract(llm: &dyn LanguageModel, lines: &[String], lane: Lane) -> Result<Vec<String>> {
    let mut facts: Vec<String> = Vec::new();
    for part in prompts::parts(lines) {
        let ground = Ground::new(&part);
        if !has_content(&part) {
            continue;
        }
        let answer = llm.generate(prompts::extract(&part, lane)).await?;
        for point in prompts::read_points(&answer)? {
            match grounded(&ground, &point) {
                Some(fact) if !facts.contains(&fact) => facts.push(fact),
                Some(_) => {}
                None => tracing::debug!("left out a point that the transcript does not bear out"),
            }
        }
    }
    Ok(facts)
}

/// What a point says that was said: the model's sentence where it holds, else
/// the speaker's own words. None when it is chatter, or was never said.
fn grounded(ground: &Ground, point: &Point) -> Option<String> {
    if point.is_small_talk() || !has_content(&point.quote) || !ground.contains(&point.quote) {
        return None;
    }
    let same_sense = is_negated(&point.fact) == is_negated(&point.quote)
        && !puts_words_in_a_mouth(&point.quote, &point.fact);
    if same_sense && has_content(&point.fact) && ground.supports(&point.fact) {
        return Some(point.fact.trim().to_owned());
    }
    Some(as_sentence(&point.quote))
}

/// A quote without its chatter, a capital in front and a full stop behind.
fn as_sentence(quote: &str) -> String {
    let said = without_chatter(quote);
    let trimmed = said.trim_end_matches([',', ';', ':', '-']);
    let mut letters = trimmed.chars();
    let mut sentence: String = letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default();
    if !sentence.ends_with(['.', '!', '?']) {
        sentence.push('.');
    }
    sentence
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_kept_only_as_far_as_it_was_said() {
        let ground = Ground::new(
            "And so, my fellow Americans, ask not what your country can do for you. Hello there.",
        );
        let point = |quote: &str, kind: &str, fact: &str| Point {
            quote: quote.into(),
            kind: kind.into(),
            fact: fact.into(),
        };
        // The model dropped the "not": the speaker's own words stand instead.
        let turned = point(
            "ask not what your country can do for you,",
            "advice",
            "Ask what your country can do for you.",
        );
        assert_eq!(
            grounded(&ground, &turned).unwrap(),
            "Ask not what your country can do for you."
        );
        let kept = point(
            "ask not what your country can do",
            "advice",
            "Americans ask not what their country can do.",
        );
        assert_eq!(
            grounded(&ground, &kept).unwrap(),
            "Americans ask not what their country can do."
        );
        let made_up = point("my brother Max moved to Berlin", "person", "Max moved to Berlin.");
        assert_eq!(grounded(&ground, &made_up), None);
        assert_eq!(grounded(&ground, &point("Hello there", "person", "Hello.")), None);
        assert_eq!(
            grounded(&ground, &point("my fellow Americans", "small talk", "Americans.")),
            None
        );
    }
}
