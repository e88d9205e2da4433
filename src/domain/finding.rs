//! What can be wrong with what is kept, in words for the person who has to act.

use super::conversation::named;

named!(
    /// How rows and files can contradict each other, or themselves.
    Fault {
        /// SQLite cannot read its file, or finds it inconsistent.
        DatabaseDamaged = "database-damaged",
        /// A row speaks of a row that is not there.
        ReferenceBroken = "reference-broken",
        /// Something waits, and no job will do it.
        JobMissing = "job-missing",
        /// The figures of a conversation are not those of its windows.
        CoverageWrong = "coverage-wrong",
        /// An index lacks a memory.
        MemoryNotIndexed = "memory-not-indexed",
        /// An index has an entry of no memory.
        IndexEntryLeft = "index-entry-left",
        /// A recording belongs to no conversation.
        RecordingWithoutRow = "recording-without-row",
        /// A conversation has no recording.
        RecordingMissing = "recording-missing",
        /// The recording of a conversation has another name than its row says.
        RecordingRenamed = "recording-renamed",
        /// A recording ends before its conversation does.
        RecordingShort = "recording-short",
        /// A recording goes on after its conversation has ended.
        RecordingLong = "recording-long",
        /// A recording cannot be read.
        RecordingUnreadable = "recording-unreadable",
        /// A conversation was left open, and nothing records it.
        ConversationOpen = "conversation-open",
        /// Windows overlap, are empty, or reach beyond the audio.
        WindowMisplaced = "window-misplaced",
        /// A cropped recording is not there.
        CropMissing = "crop-missing",
        /// An uploaded file that waits to be recorded is not there.
        UploadMissing = "upload-missing",
        /// A deleted file is still there.
        DeletionUnfinished = "deletion-unfinished",
        /// A file that nothing has a use for.
        FileLeft = "file-left",
        /// A recording that was copied to the bucket is not there any more.
        ObjectMissing = "object-missing",
    }
);

impl Fault {
    /// Whether a repair mends it. The daemon does so by itself too, at its next
    /// start at the latest, but for what only a repair looks at.
    pub fn is_mendable(self) -> bool {
        !matches!(
            self,
            Self::DatabaseDamaged
                | Self::ReferenceBroken
                | Self::RecordingMissing
                | Self::RecordingShort
                | Self::RecordingLong
                | Self::RecordingUnreadable
                | Self::WindowMisplaced
                | Self::UploadMissing
                | Self::ObjectMissing
        )
    }

    /// What to do about it.
    pub fn advice(self) -> &'static str {
        match self {
            Self::DatabaseDamaged => {
                "run `friend-lite check --repair` while the daemon is stopped: it keeps the damaged \
                 file under another name and puts the newest backup in its place; all recordings \
                 are found again"
            }
            Self::ReferenceBroken | Self::WindowMisplaced => {
                "keep a copy of the state directory and report this as a defect; nothing else is \
                 harmed by it"
            }
            Self::RecordingMissing | Self::RecordingShort => {
                "put the file back from a backup (`friend-lite restore`); its transcript is kept \
                 either way"
            }
            Self::RecordingLong => {
                "its audio is kept and can be played; upload the file to have the rest transcribed"
            }
            Self::RecordingUnreadable => {
                "look at the disk and at who owns the file; the audio before the damage can be \
                 played"
            }
            Self::ObjectMissing => {
                "look at who else may delete in the bucket; what is on this disk is copied again \
                 when its room is needed, and the rest comes back with an older version of the \
                 object, where the bucket keeps those"
            }
            Self::UploadMissing => "delete the conversation and upload the file again",
            Self::ConversationOpen => {
                "the next start of the daemon closes it; `friend-lite check --repair` does so now"
            }
            _ => "run `friend-lite check --repair` while the daemon is stopped",
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, serde::Serialize)]
pub struct Finding {
    /// What kind of wrong.
    pub fault: Fault,
    /// The row or file it is about.
    pub subject: String,
    /// In words.
    pub message: String,
}

impl Finding {
    /// `fault` in `subject`, told as `message`.
    pub fn new(fault: Fault, subject: impl Into<String>, message: String) -> Self {
        Self { fault, subject: subject.into(), message }
    }
}
