//! The same walk where a conversation is transcribed at once, when it is closed.

use async_trait::async_trait;

use super::{NumberReader, World, die, fail, read};
use crate::base::error::Result;
use crate::base::planned::Plan;
use crate::domain::transcript::Transcript;
use crate::stt::{HearsWhole, Whole};

#[async_trait]
impl HearsWhole for NumberReader {
    async fn transcribe_whole(&self, whole: &Whole) -> Result<Vec<Transcript>> {
        assert!(whole.windows.len() > 1, "one window needs no company");
        let mut heard = Vec::new();
        for window in &whole.windows {
            heard.push(read(&whole.recordings.read(&whole.file, &window.spans).await?));
        }
        Ok(heard)
    }
}

#[test]
fn nothing_is_lost_or_doubled_of_conversations_that_are_heard_at_once() {
    let undisturbed = Plan::default();
    let world = World::new(true);
    assert_eq!(world.live(&undisturbed, true).len(), 600);
    world.check("undisturbed", &world.on_disk());
    let asked = undisturbed.passed();
    let asked = asked.iter().filter(|(_, what)| *what == "asking the speech engine").count();
    // Before and after: the conversation of two windows, the one of one, and the
    // recording that was found.
    assert_eq!(asked, 6, "{:?}", undisturbed.passed());

    let stride = if cfg!(debug_assertions) { 6 } else { 1 };
    for at in (0..).step_by(stride) {
        let (died, failed) = (die(true, at, None), fail(true, &[at]));
        if died.is_none() || failed.is_none() {
            break;
        }
        fail(true, &[at, at + 1]);
    }
}
