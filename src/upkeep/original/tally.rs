//! What there was, and what became of it: counted, so that it has to add up.

use crate::domain::conversation::seconds;

/// Where something went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It is there now, and reads back as it was told.
    Taken,
    /// It was there before.
    Before,
    /// It had come, and was deleted here since.
    Gone,
    /// It did not come.
    Left,
}

/// The figures of one kind of thing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// How many there are in the source.
    pub source: u64,
    /// How many came now.
    pub taken: u64,
    /// How many were there before.
    pub before: u64,
    /// How many had come, and were deleted here since.
    pub gone: u64,
    /// How many did not come.
    pub left: u64,
}

impl Row {
    /// Counts `many` that went there.
    pub fn add(&mut self, fate: Fate, many: u64) {
        *match fate {
            Fate::Taken => &mut self.taken,
            Fate::Before => &mut self.before,
            Fate::Gone => &mut self.gone,
            Fate::Left => &mut self.left,
        } += many;
    }

    /// Whether each is somewhere.
    pub fn adds_up(&self) -> bool {
        self.source == self.taken + self.before + self.gone + self.left
    }
}

/// Something that did not come, or not whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// What it is: `conversation`, `memory`, ….
    pub what: &'static str,
    /// Its id in the source.
    pub id: String,
    /// Why.
    pub why: String,
}

/// All figures.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// People.
    pub users: Row,
    /// Their devices.
    pub devices: Row,
    /// Conversations.
    pub conversations: Row,
    /// Segments of the transcripts that are shown.
    pub segments: Row,
    /// Files of audio.
    pub recordings: Row,
    /// What is in them, in samples.
    pub samples: Row,
    /// Memories; none where they were not asked for.
    pub memories: Option<Row>,
    /// Talks with the assistant.
    pub chats: Row,
    /// What was said in them.
    pub messages: Row,
    /// Conversations given to an administrator, since nobody knows whose they are.
    pub guessed: u64,
    /// Conversations that were deleted in the source and kept there all the same.
    pub deleted: u64,
    /// What did not come, or not whole.
    pub problems: Vec<Problem>,
}

impl Tally {
    /// Notes that something did not come, or not whole.
    pub(super) fn note(
        &mut self,
        what: &'static str,
        id: impl Into<String>,
        why: impl Into<String>,
    ) {
        self.problems.push(Problem { what, id: id.into(), why: why.into() });
    }

    /// The rows by name; audio is in seconds.
    pub fn rows(&self) -> Vec<(&'static str, Row)> {
        let whole = |samples| seconds(samples).round() as u64;
        let s = self.samples;
        let audio = Row {
            source: whole(s.source),
            taken: whole(s.taken),
            before: whole(s.before),
            gone: whole(s.gone),
            left: whole(s.left),
        };
        let mut rows = vec![
            ("users", self.users),
            ("devices", self.devices),
            ("conversations", self.conversations),
            ("segments", self.segments),
            ("recordings", self.recordings),
            ("seconds of audio", audio),
        ];
        rows.extend(self.memories.map(|memories| ("memories", memories)));
        rows.extend([("chats", self.chats), ("messages", self.messages)]);
        rows
    }

    /// The kinds of things of which some are nowhere.
    pub fn missing(&self) -> Vec<&'static str> {
        let samples = ("seconds of audio", self.samples);
        let rows = self.rows().into_iter().filter(|(name, _)| *name != samples.0);
        let wrong = rows.chain([samples]).filter(|(_, row)| !row.adds_up());
        wrong.map(|(name, _)| name).collect()
    }

    /// Whether all of it is there, and nothing was left out but what was deleted.
    pub fn is_complete(&self) -> bool {
        self.problems.is_empty() && self.missing().is_empty()
    }

    /// How much came now.
    pub fn news(&self) -> u64 {
        let rows = self.rows();
        rows.iter().map(|(_, row)| row.taken).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nowhere_is_seen() {
        let mut tally = Tally { memories: Some(Row::default()), ..Tally::default() };
        tally.conversations.source = 4;
        for fate in [Fate::Taken, Fate::Before, Fate::Gone] {
            tally.conversations.add(fate, 1);
        }
        assert_eq!(tally.missing(), ["conversations"]);
        assert!(!tally.is_complete());
        tally.conversations.add(Fate::Left, 1);
        assert!(tally.is_complete());
        // Less than a second is seen, too.
        tally.samples.source = 100;
        assert_eq!(tally.missing(), ["seconds of audio"]);
        tally.samples.add(Fate::Taken, 100);
        assert!(tally.is_complete());
        tally.note("memory", "m", "it has no text");
        assert!(!tally.is_complete());
        assert_eq!(tally.news(), 1);
    }
}
