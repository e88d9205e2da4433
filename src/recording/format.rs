//! The two formats of recordings.

/// How the audio of a recording is kept; its file name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// WAV, 16 kHz mono s16le: what came as PCM.
    Wav,
    /// Ogg Opus: what came as Opus packets, as they came; and archived PCM.
    Opus,
}

impl Format {
    /// The format of the recording of that name; none when it is no recording.
    pub fn of(name: &str) -> Option<Self> {
        match name.rsplit_once('.')? {
            (_, "wav") => Some(Self::Wav),
            (_, "opus") => Some(Self::Opus),
            _ => None,
        }
    }

    /// What its file names end in, after the dot.
    pub fn extension(self) -> &'static str {
        match self {
            Self::Wav => "wav",
            Self::Opus => "opus",
        }
    }
}
