//! Cropped recordings: the speech of a recording in a file of its own, which can
//! be made again at any time.

use std::time::Duration;

use super::track::{Piece, Track};
use super::{Format, MAX_READ, Recordings, check, failed, is_half_written, list, part_of, remove};
use crate::base::clock::Timestamp;
use crate::base::error::Result;
use crate::domain::conversation::Span;
use crate::domain::ids::ConversationId;
use crate::supervisor::blocking;

/// Begins the name of a cropped recording, which is no recording by its name.
const PREFIX: &str = "cropped_";
/// What has not been written to for this long is not being written any more.
const ABANDONED: Duration = Duration::from_secs(3600);

impl Recordings {
    /// The file name of a conversation's cropped recording.
    pub fn cropped_name(id: &ConversationId) -> String {
        format!("{PREFIX}{id}.wav")
    }

    /// Writes `spans` of the recording `source`, one after the other, to the file
    /// `name`, in place of an earlier one: there is a whole file of that name or
    /// none, at any time.
    ///
    /// # Errors
    /// As [`Recordings::read`]; `NoSpace` or `Storage` when it cannot be written.
    pub async fn write_cropped(&self, source: &str, name: &str, spans: &[Span]) -> Result<()> {
        check(name)?;
        let part = part_of(name);
        let mut track = {
            let (part, files) = (part.clone(), self.files.clone());
            blocking(move || {
                remove(files.as_ref(), &part)?;
                Track::create(files.as_ref(), &part, Format::Wav)
            })
            .await?
        };
        for span in spans.iter().flat_map(|span| pieces(*span)) {
            let mut piece = Piece::default();
            piece.add_samples(&self.read(source, &[span]).await?);
            track.add(piece);
            track = blocking(move || track.sync().map(|()| track)).await?;
        }
        let (files, name) = (self.files.clone(), name.to_owned());
        blocking(move || {
            track.finish()?;
            let cannot = |error| failed("cannot create", &name, error);
            files.rename(&part, &name).map_err(cannot)?;
            files.sync_names().map_err(cannot)
        })
        .await
    }

    /// Removes a cropped recording. One that is not there is removed already.
    ///
    /// # Errors
    /// `Storage` when it cannot be removed.
    pub async fn remove_cropped(&self, name: &str) -> Result<()> {
        check(name)?;
        let (files, name) = (self.files.clone(), name.to_owned());
        blocking(move || remove(files.as_ref(), &name)).await
    }

    /// The cropped recordings there are. None counts before it has been left
    /// alone for an hour: its row comes after it.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read.
    pub async fn scan_cropped(&self) -> Result<Vec<String>> {
        self.abandoned(|name| name.starts_with(PREFIX)).await
    }

    /// Files that a crash left half written, which count as the cropped do.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read.
    pub async fn scan_half_written(&self) -> Result<Vec<String>> {
        self.abandoned(is_half_written).await
    }

    /// Removes files that were left half written.
    ///
    /// # Errors
    /// `Storage` when the directory cannot be read, or one cannot be removed.
    pub async fn remove_half_written(&self) -> Result<usize> {
        let (files, names) = (self.files.clone(), self.scan_half_written().await?);
        blocking(move || {
            names.iter().try_for_each(|name| remove(files.as_ref(), name))?;
            Ok(names.len())
        })
        .await
    }

    /// The files whose names fit and that nothing has been written to for long.
    async fn abandoned(&self, fits: fn(&str) -> bool) -> Result<Vec<String>> {
        let (files, now) = (self.files.clone(), self.clock.now());
        blocking(move || {
            let mut found: Vec<String> = list(files.as_ref())?
                .into_iter()
                .filter(|entry| {
                    let modified = Timestamp::from_millis(entry.modified.saturating_mul(1000));
                    fits(&entry.name) && now.since(modified) >= ABANDONED
                })
                .map(|entry| entry.name)
                .collect();
            found.sort();
            Ok(found)
        })
        .await
    }
}

/// A span in pieces that can be read at once.
fn pieces(span: Span) -> impl Iterator<Item = Span> {
    let starts = (span.start..span.end).step_by(usize::try_from(MAX_READ).unwrap_or(usize::MAX));
    starts.map(move |start| Span { start, end: span.end.min(start + MAX_READ) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::clock::Clock;
    use crate::domain::conversation::Conversation;
    use crate::domain::ids::{ClientId, UserId};

    fn conversation() -> Conversation {
        let (id, client_id) = (ConversationId::generate(), ClientId::from_text("1-phone"));
        let started_at = Timestamp::from_millis(1_753_190_000_000);
        let name = Recordings::file_name(started_at, &client_id, &id, Format::Wav);
        let user = UserId::from_text("507f1f77bcf86cd799439011");
        Conversation::begin(id, user, client_id, name, started_at)
    }

    #[tokio::test]
    async fn spans_become_a_file_of_their_own_that_is_no_recording() {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::system();
        let recordings = Recordings::open(dir.path(), Duration::ZERO, clock).unwrap();
        let conversation = conversation();
        let mut recorder = recordings.create(&conversation).await.unwrap();
        let sound: Vec<i16> = (0..2_000_000).map(|n| (n % 30_000) as i16).collect();
        recorder.append(&sound).await.unwrap();
        recorder.close().await;

        let name = Recordings::cropped_name(&conversation.id);
        let spans = [Span { start: 10, end: 1_200_010 }, Span { start: 1_900_000, end: 2_000_000 }];
        // A crash left half of one behind.
        std::fs::write(recordings.dir().join(format!(".{name}.part")), b"half").unwrap();
        for _ in 0..2 {
            recordings.write_cropped(&conversation.audio_path, &name, &spans).await.unwrap();
            let wav = hound::WavReader::open(recordings.dir().join(&name)).unwrap();
            let kept: Vec<i16> = wav.into_samples().map(Result::unwrap).collect();
            assert!(kept.iter().eq(sound[10..1_200_010].iter().chain(&sound[1_900_000..])));
        }
        assert_eq!(Recordings::origin(&name), None, "the sweep must not adopt it");
        assert_eq!(std::fs::read_dir(recordings.dir()).unwrap().count(), 2);
        recordings.remove_cropped(&name).await.unwrap();
        recordings.remove_cropped(&name).await.unwrap();
        assert_eq!(std::fs::read_dir(recordings.dir()).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn what_is_left_alone_for_an_hour_counts() {
        let dir = tempfile::tempdir().unwrap();
        let now = Clock::system().now();
        let at = |later: u64| {
            let clock = Clock::simulated(now.plus(Duration::from_secs(later)));
            Recordings::open(dir.path(), Duration::ZERO, clock).unwrap()
        };
        let name = Recordings::cropped_name(&ConversationId::generate());
        let half = at(0).dir().join(format!(".{name}.part"));
        std::fs::write(at(0).dir().join(&name), b"whole").unwrap();
        std::fs::write(&half, b"half").unwrap();
        assert_eq!(at(60).scan_cropped().await.unwrap(), Vec::<String>::new());
        assert_eq!(at(60).remove_half_written().await.unwrap(), 0);
        assert!(half.exists());
        assert_eq!(at(7_200).scan_cropped().await.unwrap(), [name]);
        assert_eq!(at(7_200).remove_half_written().await.unwrap(), 1);
        assert!(!half.exists());
    }
}
