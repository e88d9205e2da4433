//! Checks that a fact says nothing that was not said.
//!
//! A small model now and then completes a story of its own, or repeats its
//! examples. A fact is kept only when its words come from the transcript: all of
//! its numbers, all of its names, and most of the rest, compared by stem.

use std::collections::HashSet;

/// Share of a fact's content words that must be in the transcript.
const MIN_SHARE: f64 = 0.75;

/// Words that carry no content, or that reporting speech adds.
const FUNCTION_WORDS: &[&str] = &[
    "a", "about", "after", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "been", "before", "being", "but", "by", "can", "could", "did", "do", "does", "done", "every",
    "for", "from", "had", "has", "have", "having", "he", "her", "hers", "him", "his", "how", "i",
    "if", "in", "into", "is", "it", "its", "may", "me", "might", "mine", "more", "most", "must",
    "my", "no", "not", "of", "on", "one", "or", "other", "our", "ours", "out", "own", "said",
    "say", "says", "shall", "she", "should", "so", "some", "somebody", "someone", "speaker",
    "speakers", "than", "that", "the", "their", "theirs", "them", "then", "there", "these", "they",
    "this", "those", "to", "too", "up", "us", "user", "was", "we", "were", "what", "when", "where",
    "which", "who", "whose", "why", "will", "with", "would", "you", "your", "yours",
];

/// Words of greetings and chatter: a sentence of these alone is not worth
/// remembering.
const CHATTER: &[&str] = &[
    "bad", "bye", "cheers", "fine", "good", "goodbye", "great", "hello", "hey", "hi", "hmm",
    "know", "later", "like", "mean", "mhm", "morning", "nice", "oh", "okay", "ok", "please",
    "really", "right", "see", "sorry", "sure", "thank", "thanks", "today", "uh", "um", "weather",
    "welcome", "well", "yeah", "yep", "yes",
];

/// Words by which people speak of themselves.
const FIRST_PERSON: &[&str] = &["i", "me", "mine", "my", "our", "us", "we"];

/// Words that turn a statement round.
const NEGATIONS: &[&str] =
    &["cannot", "neither", "never", "no", "nobody", "none", "nor", "not", "nothing", "without"];

/// The words of a transcript, for checking facts against.
pub struct Ground {
    stems: HashSet<String>,
    said: String,
}

impl Ground {
    /// From everything that was said.
    pub fn new(transcript: &str) -> Self {
        Self {
            stems: words(transcript).map(|word| stem(&word.lower)).collect(),
            said: in_order(transcript),
        }
    }

    /// Whether `quote` was said, word for word.
    pub fn contains(&self, quote: &str) -> bool {
        let quote = in_order(quote);
        quote.len() > 2 && self.said.contains(&quote)
    }

    /// Whether each of `parts` was said, word for word, one after the other.
    pub fn contains_in_turn(&self, parts: &[&str]) -> bool {
        let mut rest = self.said.as_str();
        parts.iter().all(|part| {
            let part = in_order(part);
            let found = rest.find(&part).filter(|_| part.len() > 2);
            // The space behind it is the one before what comes next.
            let after = found.and_then(|at| rest.get(at + part.len() - 1..));
            rest = after.unwrap_or_default();
            after.is_some()
        })
    }

    /// Whether `fact` says only what the transcript says. A fact without a
    /// single content word says nothing and is refused.
    pub fn supports(&self, fact: &str) -> bool {
        let mut content = 0_usize;
        let mut found = 0_usize;
        for word in words(fact) {
            let known = self.stems.contains(&stem(&word.lower));
            let is_number = word.lower.chars().any(|c| c.is_ascii_digit());
            let function = FUNCTION_WORDS.contains(&word.lower.as_str());
            if function && !is_number {
                continue;
            }
            if !known && (is_number || word.is_name) {
                return false;
            }
            content += 1;
            found += usize::from(known);
        }
        content > 0 && found as f64 >= MIN_SHARE * content as f64
    }
}

/// Whether `text` names somebody or something, and does not only point at it:
/// `Berlin`, not `there`. The speaker has no other name.
pub fn is_a_name(text: &str) -> bool {
    words(text)
        .any(|word| word.lower == "speaker" || !FUNCTION_WORDS.contains(&word.lower.as_str()))
}

/// Whether `text` denies something.
pub fn is_negated(text: &str) -> bool {
    words(text).any(|word| {
        NEGATIONS.contains(&word.lower.as_str())
            || word.lower.ends_with("n't")
            || word.lower.ends_with("n’t")
    })
}

/// Whether `text` says anything besides greetings and chatter: a sentence with
/// at least two words of content.
pub fn has_content(text: &str) -> bool {
    sentences(text).any(says_something)
}

/// `text` without the sentences that are greetings and chatter alone.
pub fn without_chatter(text: &str) -> String {
    sentences(text)
        .filter(|sentence| says_something(sentence))
        .collect::<String>()
        .trim()
        .to_owned()
}

/// Whether `quote` speaks of the one who says it, while `fact` names somebody
/// whom the quote does not: a model's guess at who was speaking.
pub fn puts_words_in_a_mouth(quote: &str, fact: &str) -> bool {
    let of_self = |word: WordOf| {
        FIRST_PERSON.contains(&word.lower.split(['\'', '’']).next().unwrap_or_default())
    };
    let said: HashSet<String> = words(quote).map(|word| stem(&word.lower)).collect();
    let new_name = |word: WordOf| {
        word.capital
            && !FUNCTION_WORDS.contains(&word.lower.as_str())
            && !said.contains(&stem(&word.lower))
    };
    words(quote).any(of_self) && words(fact).any(new_name)
}

fn says_something(sentence: &str) -> bool {
    let content = |word: &WordOf| {
        let plain = word.lower.split(['\'', '’']).next().unwrap_or_default();
        !FUNCTION_WORDS.contains(&plain) && !CHATTER.contains(&plain)
    };
    words(sentence).filter(content).count() >= 2
}

/// Pieces that end with a full stop, a question mark or an exclamation mark
/// before a space, or with the text.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end =
            rest.match_indices(['.', '!', '?']).map(|(at, mark)| at + mark.len()).find(|end| {
                rest.get(*end..).is_none_or(|after| after.starts_with(char::is_whitespace))
            });
        let (sentence, after) = rest.split_at(end.unwrap_or(rest.len()));
        rest = after;
        Some(sentence)
    })
}

/// The words of `text` between single spaces.
fn in_order(text: &str) -> String {
    words(text).fold(String::from(" "), |joined, word| joined + &word.lower + " ")
}

struct WordOf {
    lower: String,
    capital: bool,
    /// Capitalised inside a sentence: a name, most likely.
    is_name: bool,
}

fn words(text: &str) -> impl Iterator<Item = WordOf> + '_ {
    let mut sentence_start = true;
    text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '/')).filter_map(
        move |raw| {
            let word = raw.trim_matches(|c: char| !c.is_alphanumeric());
            let word = word.strip_suffix("'s").or_else(|| word.strip_suffix("’s")).unwrap_or(word);
            let starts = std::mem::replace(&mut sentence_start, raw.ends_with(['.', '!', '?']));
            if word.is_empty() {
                return None;
            }
            let capital = word.chars().next().is_some_and(char::is_uppercase);
            Some(WordOf { lower: word.to_lowercase(), capital, is_name: capital && !starts })
        },
    )
}

/// A crude stem: enough to match `moved` with `move` and `flights` with
/// `flight`; equal stems of unlike words do little harm here.
fn stem(word: &str) -> String {
    let mut stem = word;
    if word.is_ascii() {
        for suffix in ["ing", "ied", "ies", "ed", "es", "s", "ly", "e", "y"] {
            if let Some(rest) = stem.strip_suffix(suffix)
                && rest.len() >= 3
            {
                stem = rest;
                break;
            }
        }
        // A doubled last consonant goes with the suffix: `planned`, `plan`.
        let mut letters = stem.chars().rev();
        if let (Some(last), Some(before)) = (letters.next(), letters.next())
            && last == before
            && stem.len() > 3
            && !"aeiouls".contains(last)
        {
            stem = stem.get(..stem.len() - 1).unwrap_or(stem);
        }
        stem = stem.strip_suffix('e').filter(|rest| rest.len() >= 3).unwrap_or(stem);
    }
    stem.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TALK: &str = "Hi Anna, did you hear that my sister Clara is getting married? \
        On the fourteenth of June in Lisbon. I paid 250 euros for the hotel deposit already. \
        My brother-in-law moved and planned flights.";

    #[test]
    fn what_was_said_is_supported() {
        let ground = Ground::new(TALK);
        for fact in [
            "The speaker's sister Clara is getting married.",
            "Clara gets married on the fourteenth of June in Lisbon.",
            "The speaker paid 250 euros for the hotel deposit.",
            "The brother-in-law plans a flight.",
        ] {
            assert!(ground.supports(fact), "{fact}");
        }
    }

    #[test]
    fn words_that_join_others_stand_between_them() {
        let ground = Ground::new("Ann's dog lives in Bern, Ann in Rome.");
        assert!(ground.contains_in_turn(&["ann", "dog", "Bern"]));
        assert!(ground.contains_in_turn(&["Ann", "in", "Rome"]));
        assert!(!ground.contains_in_turn(&["Bern", "lives in", "Ann"]));
        assert!(!ground.contains_in_turn(&["Ann", "Ann", "Ann"]));
        assert!(!ground.contains_in_turn(&["Ann", "", "Bern"]));
    }

    #[test]
    fn what_was_not_said_is_refused() {
        let ground = Ground::new(TALK);
        for fact in [
            "Clara is getting married in Paris.",
            "The speaker paid 300 euros for the hotel deposit.",
            "Her husband works as an engineer near the river.",
            "",
            "He is it.",
            "The speaker's brother Max moved to Berlin.",
        ] {
            assert!(!ground.supports(fact), "{fact}");
        }
    }

    #[test]
    fn a_quote_is_word_for_word() {
        let ground = Ground::new(TALK);
        assert!(ground.contains("I paid 250 euros for the hotel deposit"));
        assert!(ground.contains("sister, Clara is"));
        assert!(!ground.contains("I paid 250 for the hotel"));
        assert!(!ground.contains("ister Clara"));
        assert!(!ground.contains(""));
    }

    #[test]
    fn a_lost_not_is_seen() {
        assert!(is_negated("ask not what your country can do"));
        assert!(is_negated("I don't eat peanuts"));
        assert!(!is_negated("ask what you can do; a knot is noted"));
    }

    #[test]
    fn chatter_has_no_content() {
        for text in
            ["Hi, how are you doing today?", "Thank you.", "Nice weather.", "Okay, see you later."]
        {
            assert!(!has_content(text), "{text}");
        }
        assert!(!has_content("Hi, how are you? I'm good. Not bad. Nice weather. See you later."));
        assert!(has_content("I'm allergic to peanuts."));
        assert_eq!(
            without_chatter("Great. I need to book flights at 3.30 then. Bye!"),
            "I need to book flights at 3.30 then."
        );
    }

    #[test]
    fn who_spoke_is_not_guessed() {
        assert!(puts_words_in_a_mouth(
            "remember I'm allergic to peanuts",
            "Anna is allergic to peanuts."
        ));
        assert!(!puts_words_in_a_mouth(
            "remember I'm allergic to peanuts",
            "The speaker is allergic to peanuts."
        ));
        assert!(!puts_words_in_a_mouth(
            "my sister Clara is getting married",
            "The speaker's sister Clara is getting married."
        ));
        assert!(!puts_words_in_a_mouth(
            "On the fourteenth of June in Lisbon",
            "Clara's wedding is on the fourteenth of June."
        ));
    }

    #[test]
    fn any_text_is_taken() {
        proptest::proptest!(|(said in ".*", fact in ".*")| {
            let ground = Ground::new(&said);
            let _ = (ground.supports(&fact), ground.contains(&fact), is_negated(&fact), has_content(&fact));
            let _ = (without_chatter(&said), puts_words_in_a_mouth(&said, &fact));
        });
    }
}
