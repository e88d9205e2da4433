//! A person's query as an FTS5 expression that is always well formed.

/// Words of a query that count; the rest of a very long one is left out.
const MOST_WORDS: usize = 64;

/// Matches any word of `query`; none when it has no word. Each word is quoted,
/// so nothing in it can be read as FTS5's syntax.
pub(super) fn any_word(query: &str) -> Option<String> {
    let mut words: Vec<String> = Vec::new();
    for word in query.split(is_gap).filter(|word| word.chars().any(char::is_alphanumeric)) {
        let quoted = format!("\"{word}\"");
        if !words.contains(&quoted) {
            words.push(quoted);
        }
        if words.len() == MOST_WORDS {
            break;
        }
    }
    (!words.is_empty()).then(|| words.join(" OR "))
}

/// Ends a word. An apostrophe does not: "don't" is two tokens side by side.
fn is_gap(c: char) -> bool {
    c.is_whitespace() || c.is_control() || (c.is_ascii_punctuation() && c != '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_words_and_drops_the_rest() {
        assert_eq!(any_word("milk, eggs").as_deref(), Some("\"milk\" OR \"eggs\""));
        assert_eq!(
            any_word("a\" OR text:b*").as_deref(),
            Some("\"a\" OR \"OR\" OR \"text\" OR \"b\"")
        );
        assert_eq!(any_word("milk milk").as_deref(), Some("\"milk\""));
        assert_eq!(any_word(" \0 ?! -- \"\" "), None);
    }
}
