//! Conversations with their audio, one after the other.

use std::path::{Component, Path, PathBuf};

use super::past::{self, Found};
use super::people::Owner;
use super::told::Told;
use super::{Fate, Run, Takeover, conversation_id, is_its_own};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::Conversation;
use crate::domain::ids::UserId;
use crate::recording::{Brought, Recordings};
use crate::supervisor::blocking;

/// What a conversation adds to the figures.
#[derive(Clone, Copy)]
struct Share {
    segments: u64,
    /// Files of audio: one or none.
    recordings: u64,
    samples: u64,
}

impl Run<'_> {
    /// Counts a conversation and its words.
    fn count(&mut self, share: Share, fate: Fate) {
        self.tally.conversations.add(fate, 1);
        self.tally.segments.add(fate, share.segments);
    }

    /// Whether all of a conversation has come.
    fn has_come(&self, told: &Told) -> bool {
        let audio = told.audio.is_none() || self.recordings.contains_key(&told.id);
        audio && self.conversations.contains_key(&told.id)
    }

    /// Counts its audio.
    fn count_audio(&mut self, share: Share, fate: Fate) {
        self.tally.recordings.add(fate, share.recordings);
        self.tally.samples.add(fate, share.samples);
    }
}

impl Takeover {
    /// Takes over one conversation.
    pub(super) async fn conversation(&self, told: Told, run: &mut Run<'_>) -> Result<()> {
        run.tally.conversations.source += 1;
        (run.progress)("conversations", run.tally.conversations.source);
        if self.trusting && run.has_come(&told) {
            run.tally.conversations.add(Fate::Before, 1);
            return Ok(());
        }
        let file = match (&run.audio, &told.audio) {
            (Some(dir), Some(path)) => find(dir, path).await?,
            _ => None,
        };
        let samples = match &file {
            Some(file) => self.measured(&told, file, run).await?,
            None => 0,
        };
        let segments = told.segments().len() as u64;
        let share = Share { segments, recordings: u64::from(told.audio.is_some()), samples };
        run.tally.segments.source += share.segments;
        run.tally.recordings.source += share.recordings;
        if told.deleted {
            run.tally.deleted += 1;
            run.tally.samples.source += samples;
            run.count(share, Fate::Left);
            run.count_audio(share, Fate::Left);
            return Ok(());
        }
        let known = run.conversations.contains_key(&told.id);
        match self.store.conversation(&conversation_id(&told)).await? {
            Some(there) => {
                run.tally.samples.source += samples;
                run.count(share, Fate::Before);
                let fate = self.audio_of(&told, &there, file, run).await?;
                run.count_audio(share, fate);
            }
            None if known => {
                run.tally.samples.source += samples;
                run.count(share, Fate::Gone);
                run.count_audio(share, Fate::Gone);
            }
            None => self.add(&told, file, share, run).await?,
        }
        Ok(())
    }

    /// How many samples there are in a file; none where it is no audio, which is told
    /// when it is to be taken.
    async fn measured(&self, told: &Told, file: &Path, run: &mut Run<'_>) -> Result<u64> {
        match Recordings::measure(file.to_owned()).await {
            Err(error) if is_its_own(error.kind()) => {
                if self.dry {
                    run.tally.note("recording", &told.id, error.report());
                }
                Ok(0)
            }
            measured => measured,
        }
    }

    /// Whose a conversation is.
    fn owner(&self, told: &Told, run: &mut Run<'_>) -> std::result::Result<UserId, Fate> {
        let client = told.client_id.as_deref().unwrap_or_default();
        match run.people.owner(told.user.as_deref(), client) {
            Owner::User(user) => Ok(user),
            Owner::Administrator(user) => {
                run.tally.guessed += 1;
                Ok(user)
            }
            Owner::Gone => Err(Fate::Gone),
            Owner::Nobody => {
                let why = "there is no user to give it to";
                run.tally.note("conversation", &told.id, why);
                Err(Fate::Left)
            }
        }
    }

    /// Adds a conversation that is new.
    async fn add(
        &self,
        told: &Told,
        file: Option<PathBuf>,
        mut share: Share,
        run: &mut Run<'_>,
    ) -> Result<()> {
        let owner = match (self.owner(told, run), past::audio_name(told)) {
            (Ok(owner), Ok(_)) => owner,
            (owner, named) => {
                if let Err(why) = named {
                    run.tally.note("conversation", &told.id, why);
                }
                let fate = owner.err().unwrap_or(Fate::Left);
                run.tally.samples.source += share.samples;
                run.count(share, fate);
                run.count_audio(share, fate);
                return Ok(());
            }
        };
        if self.dry {
            run.tally.samples.source += share.samples;
            run.count(share, Fate::Taken);
            let audio = if file.is_some() { Fate::Taken } else { self.missing(told, run) };
            run.count_audio(share, audio);
            return Ok(());
        }
        let sound = self.sound(told, file, run).await?;
        let cropped = match sound.is_some() {
            true => self.cropped(told, run).await?,
            false => None,
        };
        if let Some(sound) = &sound {
            share.samples = sound.samples;
        }
        run.tally.samples.source += share.samples;
        let now = self.clock.now();
        let found = Found { owner: &owner, sound: sound.as_ref(), cropped, now };
        let taken = match past::conversation(told, &found) {
            Ok(past) => self.store.import_conversation(&past).await.map(|new| (past, new)),
            Err(why) => Err(Error::new(Kind::BadInput, why)),
        };
        let (past, new) = match taken {
            Err(error) if is_its_own(error.kind()) => {
                run.tally.note("conversation", &told.id, error.report());
                run.count(share, Fate::Left);
                run.count_audio(share, Fate::Left);
                return Ok(());
            }
            taken => taken?,
        };
        if !new {
            // Somebody else was quicker: what was brought goes by itself.
            run.count(share, Fate::Before);
            run.count_audio(share, Fate::Before);
            return Ok(());
        }
        let id = &past.conversation.id;
        if let Some(sound) = &sound {
            self.recordings.keep_brought(&past.conversation.audio_path).await?;
            self.store.import_audio(id, sound.samples, &[]).await?;
        }
        if let Some(name) = past.crop.as_ref().and_then(|crop| crop.audio_path.as_ref()) {
            self.recordings.keep_brought(name).await?;
        }
        if !self.reads_back(&past.conversation, share.segments, sound.as_ref()).await? {
            run.tally.note("conversation", &told.id, "it does not read back as it was");
            return Ok(());
        }
        run.count(share, Fate::Taken);
        let audio = if sound.is_some() { Fate::Taken } else { Fate::Left };
        run.count_audio(share, audio);
        Ok(())
    }

    /// Whether the store has a conversation as it was given to it, and the disk its
    /// audio.
    async fn reads_back(
        &self,
        given: &Conversation,
        segments: u64,
        sound: Option<&Brought>,
    ) -> Result<bool> {
        let windows = self.store.windows(&given.id).await?;
        let stored: usize = windows.iter().map(|window| window.segments.len()).sum();
        let there = self.store.conversation(&given.id).await?;
        let same = there.is_some_and(|there| there.samples == given.samples);
        let on_disk = match sound {
            Some(sound) => self.recordings.samples(&given.audio_path).await? == sound.samples,
            None => true,
        };
        Ok(same && on_disk && stored as u64 == segments)
    }

    /// Brings the audio of a conversation here, under a name of its own for now.
    async fn sound(
        &self,
        told: &Told,
        file: Option<PathBuf>,
        run: &mut Run<'_>,
    ) -> Result<Option<Brought>> {
        let Some(file) = file else {
            self.missing(told, run);
            return Ok(None);
        };
        let Ok(name) = past::audio_name(told) else { return Ok(None) };
        match self.recordings.bring(file, &name, &self.transcribe).await {
            Ok(sound) => Ok(Some(sound)),
            Err(error) if is_its_own(error.kind()) => {
                run.tally.note("recording", &told.id, error.report());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Notes that the audio of a conversation is not there, if it had some.
    fn missing(&self, told: &Told, run: &mut Run<'_>) -> Fate {
        if let (Some(path), true) = (&told.audio, run.audio.is_some()) {
            let why = format!("{path} is not in the directory of the audio");
            run.tally.note("recording", &told.id, why);
        }
        Fate::Left
    }

    /// Brings the cropped audio of a conversation here likewise; its samples.
    async fn cropped(&self, told: &Told, run: &mut Run<'_>) -> Result<Option<u64>> {
        let (Some(dir), Some(path)) = (&run.audio, &told.cropped) else { return Ok(None) };
        let Some(file) = find(dir, path).await? else { return Ok(None) };
        let name = Recordings::cropped_name(&conversation_id(told));
        match self.recordings.bring(file, &name, &self.transcribe).await {
            Ok(sound) => Ok(Some(sound.samples)),
            Err(error) if is_its_own(error.kind()) => {
                run.tally.note("cropped recording", &told.id, error.report());
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    /// Sees to the audio of a conversation that had come: it may have been left
    /// behind, or an earlier run may have ended before it was there.
    async fn audio_of(
        &self,
        told: &Told,
        there: &Conversation,
        file: Option<PathBuf>,
        run: &mut Run<'_>,
    ) -> Result<Fate> {
        let noted = run.recordings.contains_key(&told.id);
        if !there.has_audio() && noted {
            return Ok(Fate::Gone);
        }
        let name = &there.audio_path;
        if there.has_audio() {
            match self.recordings.playable(name).await {
                Err(error) if error.kind() == Kind::NotFound => {}
                found => {
                    found?;
                    if !noted && !self.dry {
                        self.store.import_audio(&there.id, 0, &[]).await?;
                    }
                    return Ok(Fate::Before);
                }
            }
        }
        let Some(path) = file.filter(|_| past::audio_name(told).as_ref() == Ok(name)) else {
            return Ok(self.missing(told, run));
        };
        if self.dry {
            return Ok(Fate::Taken);
        }
        let Some(sound) = self.sound(told, Some(path), run).await? else {
            return Ok(Fate::Left);
        };
        self.recordings.keep_brought(name).await?;
        self.store.import_audio(&there.id, sound.samples, &sound.windows).await?;
        Ok(Fate::Taken)
    }
}

/// The file that the original knows as `path`, in the directory of its audio: under
/// that path, or under its last part.
async fn find(dir: &Path, path: &str) -> Result<Option<PathBuf>> {
    let normal = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_owned()),
        _ => None,
    };
    let parts: Vec<_> = Path::new(path).components().filter_map(normal).collect();
    let whole: PathBuf = parts.iter().collect();
    let last = parts.last().cloned().unwrap_or_default();
    let candidates = [dir.join(whole), dir.join(&last)];
    let given = !last.is_empty();
    blocking(move || Ok(candidates.into_iter().find(|path| given && path.is_file()))).await
}
