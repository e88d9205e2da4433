//! Every prompt, in one place, with the version that is kept with each memory.
//!
//! Small models follow examples better than rules, so each prompt is a short
//! rule, two worked examples as earlier turns, and the question. The part that
//! never changes comes first: the engine keeps it and does not read it again.

use serde::Deserialize;
use serde_json::{Value, json};

use crate::base::error::{Context, Kind, Result};
use crate::domain::chat::ChatRole;
use crate::domain::graph::{EntityKind, Sighting, Statement};
use crate::domain::job::Lane;
use crate::domain::memory::MemoryEvent;
use crate::llm::{Generate, Message, Role};

/// Raised with every change to a prompt or schema.
pub const VERSION: &str = "1";

/// Characters of transcript in one prompt: with the fixed part and the longest
/// answer inside 2,048 tokens.
const PART_CHARACTERS: usize = 2_400;

const EXTRACT_RULE: &str = "You pick out of a transcript of speech what is worth remembering.
For each point, first copy the words that were said (quote), say what kind it is, then restate it as one short \
sentence that makes sense on its own (fact). The person talking is \"the speaker\". Keep names, numbers, dates and every \"not\".
Greetings, thanks, weather and chatter are small talk: if there is nothing else, the list is empty.
Never add anything that was not said.";

/// Kinds of points. The last one is there so that the model can say that
/// something is not worth remembering after all.
const KINDS: [&str; 12] = [
    "person",
    "plan",
    "date",
    "place",
    "amount",
    "preference",
    "health",
    "work",
    "task",
    "advice",
    "opinion",
    SMALL_TALK,
];
const SMALL_TALK: &str = "small talk";

const EXTRACT_EXAMPLES: [(&str, &str); 2] = [
    (
        "Hello, how is it going?\nFine, thanks. It is raining again.\nYes, see you.",
        r#"{"points":[]}"#,
    ),
    (
        "Tom, can you call the plumber tomorrow?\nYes. My brother Max moved to Berlin on March 3rd, he loves it there.\n\
         Never sign what you have not read, I always say.",
        r#"{"points":[{"quote":"Tom, can you call the plumber tomorrow?","kind":"task","fact":"Tom is to call the plumber tomorrow."},{"quote":"My brother Max moved to Berlin on March 3rd","kind":"person","fact":"The speaker's brother Max moved to Berlin on March 3rd."},{"quote":"Never sign what you have not read","kind":"advice","fact":"Never sign what you have not read."}]}"#,
    ),
];

const DECIDE_RULE: &str = "You keep a list of memories true and free of repetition. \
Given a new fact and the memories nearest to it, choose what to do:
NONE: a memory already says all of the fact.
UPDATE: the fact replaces one memory, because it says the same thing with more or newer detail.
DELETE: the fact only says that one memory is no longer true.
ADD: anything else; the fact is about something different.";

const DECIDE_EXAMPLES: [(&str, &str); 2] = [
    (
        "Memories:\n0: The speaker works at a bakery.\n1: The speaker lives in Porto.\nFact: The speaker now lives in Braga.",
        r#"{"event":"UPDATE","memory":1}"#,
    ),
    (
        "Memories:\n0: The speaker's dog is called Rex.\nFact: The speaker's cat is called Mia.",
        r#"{"event":"ADD","memory":0}"#,
    ),
];

/// Joins the lines of a transcript into parts that fit one prompt each.
pub fn parts(lines: &[String]) -> Vec<String> {
    let mut parts: Vec<String> = Vec::new();
    for line in lines.iter().filter(|line| !line.is_empty()) {
        match parts.last_mut() {
            Some(part) if part.len() + line.len() < PART_CHARACTERS => {
                part.push('\n');
                part.push_str(line);
            }
            _ => parts.push(line.clone()),
        }
    }
    parts
}

/// Asks for the points worth remembering in one part of a transcript.
pub fn extract(part: &str, lane: Lane) -> Generate {
    let text = |longest: u32| json!({"type": "string", "minLength": 1, "maxLength": longest});
    let schema = json!({
        "type": "object",
        "properties": {"points": {
            "type": "array",
            "maxItems": 8,
            "items": {
                "type": "object",
                "properties": {
                    "quote": text(240),
                    "kind": {"type": "string", "enum": KINDS},
                    "fact": text(200),
                },
                "required": ["quote", "kind", "fact"],
                "additionalProperties": false,
            },
        }},
        "required": ["points"],
        "additionalProperties": false,
    });
    let examples = EXTRACT_EXAMPLES.map(|(said, points)| (format!("Transcript:\n{said}"), points));
    request(EXTRACT_RULE, &examples, format!("Transcript:\n{part}"), schema, 800, lane)
}

/// Asks what to do about `fact`, given the memories nearest to it.
pub fn decide(fact: &str, known: &[&str], lane: Lane) -> Generate {
    let last = known.len().saturating_sub(1);
    let schema = json!({
        "type": "object",
        "properties": {
            "event": {"type": "string", "enum": ["NONE", "UPDATE", "DELETE", "ADD"]},
            "memory": {"type": "integer", "minimum": 0, "maximum": last},
        },
        "required": ["event", "memory"],
        "additionalProperties": false,
    });
    let mut question = String::from("Memories:");
    for (number, text) in known.iter().enumerate() {
        question.push_str(&format!("\n{number}: {text}"));
    }
    question.push_str(&format!("\nFact: {fact}"));
    let examples = DECIDE_EXAMPLES.map(|(asked, answer)| (asked.to_owned(), answer));
    request(DECIDE_RULE, &examples, question, schema, 48, lane)
}

// The engine's grammar has the keys of an object in alphabetical order: here that
// is the order in which a sentence has them.
const RELATE_RULE: &str = "You list who and what a few sentences speak of, and how they are related.
entities: names of people, places, organizations, events and things, copied from the sentences. \
The person talking is \"speaker\".
relations: two names of one sentence in the order in which it has them (first, second), and the words that stand \
between them and join them (link), copied from it. Leave out what no sentence says.";

const RELATE_EXAMPLES: [(&str, &str); 2] = [
    (
        "The speaker's brother Max moved to Berlin on March 3rd.\nMax works for Siemens.",
        r#"{"entities":[{"name":"speaker","type":"person"},{"name":"Max","type":"person"},{"name":"Berlin","type":"place"},{"name":"Siemens","type":"organization"}],"relations":[{"first":"speaker","link":"brother","second":"Max"},{"first":"Max","link":"moved to","second":"Berlin"},{"first":"Max","link":"works for","second":"Siemens"}]}"#,
    ),
    ("Never sign what you have not read.", r#"{"entities":[],"relations":[]}"#),
];

/// Asks for what the sentences `texts` speak of.
pub fn relate(texts: &[&str], lane: Lane) -> Generate {
    let text = |longest: u32| json!({"type": "string", "minLength": 1, "maxLength": longest});
    let list = |most: u32, properties: Value, required: &[&str]| {
        json!({
            "type": "array",
            "maxItems": most,
            "items": {
                "type": "object",
                "properties": properties,
                "required": required,
                "additionalProperties": false,
            },
        })
    };
    let kinds = EntityKind::ALL.map(EntityKind::as_str);
    let entity = json!({"name": text(48), "type": {"type": "string", "enum": kinds}});
    let relation = json!({"first": text(48), "link": text(32), "second": text(48)});
    let schema = json!({
        "type": "object",
        "properties": {
            "entities": list(12, entity, &["name", "type"]),
            "relations": list(8, relation, &["first", "link", "second"]),
        },
        "required": ["entities", "relations"],
        "additionalProperties": false,
    });
    let examples = RELATE_EXAMPLES.map(|(said, answer)| (said.to_owned(), answer));
    request(RELATE_RULE, &examples, texts.join("\n"), schema, 800, lane)
}

/// The entities and relations in an answer to [`relate`].
///
/// # Errors
/// `Internal` when the answer is not of the schema's form.
pub fn read_relations(answer: &str) -> Result<(Vec<Sighting>, Vec<Statement>)> {
    #[derive(Deserialize)]
    struct Related {
        entities: Vec<Named>,
        relations: Vec<Link>,
    }
    #[derive(Deserialize)]
    struct Named {
        name: String,
        r#type: EntityKind,
    }
    #[derive(Deserialize)]
    struct Link {
        first: String,
        link: String,
        second: String,
    }
    let related: Related = serde_json::from_str(answer)
        .context(Kind::Internal, "the language model's answer is not a list of relations")?;
    let sighting = |seen: Named| Sighting { name: seen.name, kind: seen.r#type };
    let statement =
        |said: Link| Statement { subject: said.first, predicate: said.link, object: said.second };
    Ok((
        related.entities.into_iter().map(sighting).collect(),
        related.relations.into_iter().map(statement).collect(),
    ))
}

const CHAT_RULE: &str = "You talk with the person whose memories are listed. \
Answer from these memories and from what was said in this talk, in one to three sentences, as \"you\". \
If they do not hold the answer, say that you do not know. Never make anything up.";

/// Characters of memories, and of earlier messages, in one prompt: about four
/// hundred tokens together, which a small machine reads in seconds.
const MEMORY_CHARACTERS: usize = 700;
const TALK_CHARACTERS: usize = 700;

/// Asks for the answer to the last of the messages `said` so far.
pub fn chat(memories: &[&str], said: &[(ChatRole, &str)], lane: Lane) -> Generate {
    let mut rule = String::from(CHAT_RULE);
    rule.push_str("\nMemories:");
    let mut room = MEMORY_CHARACTERS;
    for memory in memories {
        let Some(left) = room.checked_sub(memory.chars().count()) else { break };
        room = left;
        rule.push_str("\n- ");
        rule.push_str(memory);
    }
    if room == MEMORY_CHARACTERS {
        rule.push_str(" none that fit");
    }
    let mut messages: Vec<Message> = Vec::new();
    let mut room = TALK_CHARACTERS;
    for (place, (role, text)) in said.iter().rev().enumerate() {
        // The question is always whole.
        if place > 0 {
            let Some(left) = room.checked_sub(text.chars().count()) else { break };
            room = left;
        }
        let role = match role {
            ChatRole::User => Role::User,
            ChatRole::Assistant => Role::Assistant,
        };
        messages.push(Message { role, content: (*text).to_owned() });
    }
    messages.push(Message { role: Role::System, content: rule });
    messages.reverse();
    Generate { messages, schema: None, max_tokens: 256, temperature: 0.0, seed: 1, lane }
}

fn request(
    rule: &str,
    examples: &[(String, &str)],
    question: String,
    schema: Value,
    max_tokens: u32,
    lane: Lane,
) -> Generate {
    let message = |role, content: &str| Message { role, content: content.to_owned() };
    let mut messages = vec![message(Role::System, rule)];
    for (asked, answer) in examples {
        messages.push(message(Role::User, asked));
        messages.push(message(Role::Assistant, answer));
    }
    messages.push(message(Role::User, &question));
    Generate { messages, schema: Some(schema), max_tokens, temperature: 0.0, seed: 1, lane }
}

/// Something the model found worth remembering.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Point {
    /// The words it claims were said.
    pub quote: String,
    /// One of the kinds of the schema.
    pub kind: String,
    /// The same as a sentence that makes sense on its own.
    pub fact: String,
}

impl Point {
    /// Whether the model itself calls it small talk.
    pub fn is_small_talk(&self) -> bool {
        self.kind == SMALL_TALK
    }
}

/// The points in an answer to [`extract`].
///
/// # Errors
/// `Internal` when the answer is not of the schema's form.
pub fn read_points(answer: &str) -> Result<Vec<Point>> {
    #[derive(Deserialize)]
    struct Points {
        points: Vec<Point>,
    }
    let points: Points = serde_json::from_str(answer)
        .context(Kind::Internal, "the language model's answer is not a list of points")?;
    Ok(points.points)
}

/// The decision in an answer to [`decide`], and the number of the memory it
/// names.
///
/// # Errors
/// `Internal` when the answer is not of the schema's form.
pub fn read_decision(answer: &str) -> Result<(MemoryEvent, Option<usize>)> {
    #[derive(Deserialize)]
    struct Decision {
        event: MemoryEvent,
        memory: Option<usize>,
    }
    let decision: Decision = serde_json::from_str(answer)
        .context(Kind::Internal, "the language model's answer is not a decision")?;
    Ok((decision.event, decision.memory))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_examples_are_answers_of_the_right_form() {
        for (_, answer) in EXTRACT_EXAMPLES {
            read_points(answer).unwrap();
        }
        for (_, answer) in DECIDE_EXAMPLES {
            read_decision(answer).unwrap();
        }
        for (_, answer) in RELATE_EXAMPLES {
            read_relations(answer).unwrap();
        }
    }

    #[test]
    fn a_long_transcript_is_cut_at_lines() {
        let lines: Vec<String> = (0..200).map(|n| format!("line {n} {}", "x".repeat(40))).collect();
        let parts = parts(&lines);
        assert!(parts.len() > 1);
        assert!(parts.iter().all(|part| part.len() <= PART_CHARACTERS));
        assert_eq!(parts.join("\n"), lines.join("\n"));
    }

    #[test]
    fn a_talk_is_cut_to_what_is_read_in_seconds() {
        let long = "x".repeat(400);
        let said = [
            (ChatRole::User, long.as_str()),
            (ChatRole::Assistant, long.as_str()),
            (ChatRole::User, "Where do I live?"),
        ];
        let prompt = chat(&["You live in Bern.", &long, &long], &said, Lane::Interactive);
        let texts: Vec<&str> = prompt.messages.iter().map(|m| m.content.as_str()).collect();
        assert_eq!(texts.len(), 3, "the first message has no room");
        assert!(texts[0].contains("- You live in Bern.") && texts[0].len() < 1_000);
        assert_eq!((texts[1], texts[2]), (long.as_str(), "Where do I live?"));
        let none = chat(&[], &said, Lane::Interactive);
        assert!(none.messages[0].content.ends_with("none that fit"));
    }
}
