//! Word error rate: substitutions, insertions and deletions over the number of
//! words of the reference.

/// Lower case, letters, digits and apostrophes only. Hyphens part words, and
/// titles are spelled out, as the references have them.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .replace("mr.", "mister")
        .replace('’', "'")
        .split(|c: char| !c.is_alphanumeric() && c != '\'')
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Errors and words of the reference.
pub fn errors(reference: &str, heard: &str) -> (usize, usize) {
    let (reference, heard) = (words(reference), words(heard));
    let mut row: Vec<usize> = (0..=heard.len()).collect();
    for (i, expected) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, word) in heard.iter().enumerate() {
            let substituted = diagonal + usize::from(expected != word);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    (row[heard.len()], reference.len())
}

/// Errors over words of the reference.
pub fn rate(reference: &str, heard: &str) -> f64 {
    let (errors, words) = errors(reference, heard);
    errors as f64 / words.max(1) as f64
}

#[test]
fn counts_each_kind_of_error() {
    assert_eq!(errors("one two three", "One, two; three."), (0, 3));
    assert_eq!(errors("one two three", "one three"), (1, 3));
    assert_eq!(errors("one two three", "one two and three"), (1, 3));
    assert_eq!(errors("one two three", "one ten three"), (1, 3));
    assert_eq!(errors("one", ""), (1, 1));
}
