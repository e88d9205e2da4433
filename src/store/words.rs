//! The words of a person's query.

/// Words of a query that count; the rest of a very long one is left out.
const MOST_WORDS: usize = 64;

/// The words of `query`, each once: nothing of it can be read as the syntax of a
/// search.
pub(super) fn words(query: &str) -> Vec<&str> {
    let mut words: Vec<&str> = Vec::new();
    for word in query.split(is_gap).filter(|word| word.chars().any(char::is_alphanumeric)) {
        if !words.contains(&word) {
            words.push(word);
        }
        if words.len() == MOST_WORDS {
            break;
        }
    }
    words
}

/// Ends a word. An apostrophe does not: "don't" is two tokens side by side.
fn is_gap(c: char) -> bool {
    c.is_whitespace() || c.is_control() || (c.is_ascii_punctuation() && c != '\'')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_of_a_search_is_left_out() {
        assert_eq!(words("milk, eggs"), ["milk", "eggs"]);
        assert_eq!(words("a\" OR text:b*"), ["a", "OR", "text", "b"]);
        assert_eq!(words("-milk milk"), ["milk"]);
        assert!(words(" \0 ?! -- \"\" ").is_empty());
    }
}
