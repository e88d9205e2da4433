//! What the language models make of talk: facts from what was said, nothing
//! from small talk, and never a word that was not spoken.

use std::sync::Arc;
use std::time::Duration;

use friend_lite::domain::job::Lane;
use friend_lite::engine::gate::Gate;
use friend_lite::engine::{self, Settings};
use friend_lite::llm::llama::LlamaEngine;
use friend_lite::pipeline::extract::extract;
use friend_lite::supervisor::Supervisor;

use crate::harness::daemon::{models_dir, program};

const SMALL_TALK: &[&str] = &[
    "Hi, how are you doing today?",
    "I'm good, thanks. And you?",
    "Yeah, not bad. Nice weather.",
    "Yes, it is. Okay, see you later.",
    "Bye.",
];

const TALK: &[&str] = &[
    "Hi Anna, did you hear that my sister Clara is getting married?",
    "Oh wonderful! When is the wedding?",
    "On the fourteenth of June in Lisbon.",
    "Great. I need to book flights then.",
    "And remember I'm allergic to peanuts, so tell the restaurant.",
    "Sure. By the way, I started a new job at Siemens last Monday.",
    "Congratulations! I paid 250 euros for the hotel deposit already.",
];

fn model(file: &str) -> LlamaEngine {
    let settings = Settings {
        program: program(engine::LLAMA),
        model: models_dir().join(file),
        threads: 1,
        nice: 0,
        start_timeout: Duration::from_secs(180),
        idle_timeout: Duration::from_secs(60),
        deadline: Duration::from_secs(600),
    };
    LlamaEngine::new(&settings, 2048, &Gate::new(false), &Supervisor::new())
}

async fn facts(llm: &LlamaEngine, lines: &[&str]) -> Vec<String> {
    let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
    let facts = extract(llm, &lines, Lane::Interactive).await.unwrap();
    for fact in &facts {
        println!("  {fact}");
    }
    facts
}

/// Words of a fact that nobody said, but for those that report speech.
fn invented(fact: &str, lines: &[&str]) -> Vec<String> {
    let words = |text: &str| -> Vec<String> {
        text.to_lowercase()
            .split(|c: char| !c.is_alphanumeric())
            .filter(|word| word.len() > 3)
            .map(|word| word.chars().take(4).collect())
            .collect()
    };
    let said: Vec<String> = lines.iter().flat_map(|line| words(line)).collect();
    words(fact)
        .into_iter()
        .filter(|word| {
            !said.contains(word)
                && !["spea", "will", "that", "their", "thei", "with", "have", "they"]
                    .contains(&word.as_str())
        })
        .collect()
}

#[tokio::test]
async fn the_large_model_finds_the_facts_and_invents_nothing() {
    let llm = Arc::new(model("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf"));
    println!("small talk:");
    assert_eq!(facts(&llm, SMALL_TALK).await, Vec::<String>::new());
    println!("talk:");
    let found = facts(&llm, TALK).await;
    let all = found.join(" ").to_lowercase();
    let expected = ["clara", "lisbon", "peanuts", "siemens", "250"];
    let hits = expected.iter().filter(|word| all.contains(*word)).count();
    assert!(hits >= 3, "{hits} of {expected:?} in {found:?}");
    assert!(
        !all.contains("anna is allergic"),
        "whose words they are is not to be guessed: {found:?}"
    );
    for fact in &found {
        let invented = invented(fact, TALK);
        assert!(invented.len() <= 1, "{fact}: {invented:?}");
    }
}

#[tokio::test]
async fn the_small_model_invents_nothing() {
    let llm = model("qwen2.5-coder-0.5b-instruct-q4_k_m.gguf");
    println!("small talk:");
    assert_eq!(facts(&llm, SMALL_TALK).await, Vec::<String>::new());
    println!("talk:");
    let talk = facts(&llm, TALK).await;
    assert!(!talk.is_empty());
    for fact in &talk {
        let invented = invented(fact, TALK);
        assert!(invented.len() <= 1, "{fact}: {invented:?}");
    }
}
