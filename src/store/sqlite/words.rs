//! A person's query as an FTS5 expression that is always well formed.

use crate::store::words::words;

/// Matches any word of `query`; none when it has no word. Each word is quoted,
/// so nothing in it can be read as FTS5's syntax.
pub(super) fn any_word(query: &str) -> Option<String> {
    let quoted: Vec<String> = words(query).iter().map(|word| format!("\"{word}\"")).collect();
    (!quoted.is_empty()).then(|| quoted.join(" OR "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_words_and_drops_the_rest() {
        assert_eq!(any_word("milk, eggs").as_deref(), Some("\"milk\" OR \"eggs\""));
        assert_eq!(any_word(" \0 ?! -- \"\" "), None);
    }
}
