//! The engine programs' side of the pipe: events from standard input, answers
//! to standard output, one request at a time, until the input ends.

use std::fs::File;
use std::io::{Read, StdinLock, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use bytes::BytesMut;
use tokio_util::codec::{Decoder, Encoder};

use crate::base::error::{Context, Error, Kind, Result};
use crate::wyoming::Codec;
use crate::wyoming::event::{Body, Describe, Event, Failure, Info, Ping, Pong};

/// How much more readily the kernel takes an engine than anything else when
/// memory runs out (-1000 to 1000): a daemon outlives its engines.
const OOM_SCORE: &str = "800";

/// Arguments that every engine program takes.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Options {
    /// Threads of one inference
    #[arg(long, default_value_t = 1)]
    pub threads: u16,
    /// Niceness, 0 to 19
    #[arg(long, default_value_t = 0)]
    pub nice: i32,
    /// Process id of the daemon, whose death ends this program
    #[arg(long)]
    pub parent: Option<u32>,
}

/// Runs an engine program's `main`: logging, and an error as a line and a code.
pub fn run(main: impl FnOnce() -> Result<()>) -> ExitCode {
    crate::base::telemetry::init("warn", false);
    match main() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}", error.report());
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a program does with events of its own.
pub trait Service {
    /// The answer to `describe`.
    fn info(&self) -> Info;

    /// Handles one event. None: no answer yet. What is known before the answer
    /// goes to `tell`.
    ///
    /// # Errors
    /// Sent to the other side as an `error` event.
    fn handle(&mut self, event: Event, tell: &mut Tell<'_>) -> Result<Option<Event>>;
}

/// Sends an event while a request is being handled. Fails when nobody is there
/// any more.
pub type Tell<'a> = dyn FnMut(Event) -> Result<()> + 'a;

/// Standard input and output as a connection.
#[derive(Debug)]
pub struct Pipe {
    input: StdinLock<'static>,
    output: File,
    codec: Codec,
    buffer: BytesMut,
}

impl Pipe {
    /// Makes this process an engine: lower priority, first to go when memory
    /// runs out, ended with its daemon; and takes over standard output, so that
    /// what native code prints there goes to standard error instead.
    ///
    /// # Errors
    /// `Internal` when standard output is closed; `Unavailable` when the daemon
    /// has died already.
    pub fn take_over(options: &Options) -> Result<Self> {
        if let Some(parent) = options.parent {
            outlive_nobody(parent)?;
        }
        if options.nice > 0 {
            let _ = rustix::process::setpriority_process(None, options.nice);
        }
        // Not ours to insist on: a sandbox may hide the file.
        let _ = std::fs::write("/proc/self/oom_score_adj", OOM_SCORE);
        let taken = std::io::stdout().as_fd().try_clone_to_owned();
        let output = taken.context(Kind::Internal, "standard output is closed")?;
        rustix::stdio::dup2_stdout(std::io::stderr())
            .context(Kind::Internal, "cannot redirect standard output")?;
        Ok(Self {
            input: std::io::stdin().lock(),
            output: File::from(output),
            codec: Codec::default(),
            buffer: BytesMut::new(),
        })
    }

    /// Answers requests until the input ends.
    ///
    /// # Errors
    /// When the other side does not speak the protocol or is gone.
    pub fn serve(mut self, service: &mut impl Service) -> Result<()> {
        while let Some(event) = self.receive()? {
            let answer = match event.kind.as_str() {
                Describe::KIND => Some(Event::of(&service.info())),
                Ping::KIND => {
                    let text = event.body::<Ping>().unwrap_or_default().text;
                    Some(Event::of(&Pong { text }))
                }
                _ => match service.handle(event, &mut |event| self.send(event)) {
                    Ok(answer) => answer,
                    Err(error) => Some(Event::of(&Failure::from_error(&error))),
                },
            };
            if let Some(answer) = answer {
                self.send(answer)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<Option<Event>> {
        let mut chunk = [0; 32 << 10];
        loop {
            if let Some(event) = self.codec.decode(&mut self.buffer)? {
                return Ok(Some(event));
            }
            let read = self.input.read(&mut chunk).context(Kind::Internal, "cannot read")?;
            if read == 0 {
                return Ok(self.codec.decode_eof(&mut self.buffer)?);
            }
            self.buffer.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }

    fn send(&mut self, event: Event) -> Result<()> {
        let mut bytes = BytesMut::new();
        self.codec.encode(event, &mut bytes)?;
        self.output.write_all(&bytes).context(Kind::Unavailable, "the daemon is gone")
    }
}

/// Has the kernel kill this process when its daemon dies. The thread that
/// started it is meant, really: the daemon starts engines from threads that
/// live as long as it does.
fn outlive_nobody(parent: u32) -> Result<()> {
    use rustix::process::{Signal, getppid, set_parent_process_death_signal};

    let gone = || Error::new(Kind::Unavailable, "the daemon is gone");
    set_parent_process_death_signal(Some(Signal::KILL))
        .context(Kind::Internal, "cannot follow the daemon")?;
    // It may have died before that took effect.
    let now = getppid().ok_or_else(gone)?.as_raw_nonzero().get();
    if u32::try_from(now).is_ok_and(|now| now == parent) { Ok(()) } else { Err(gone()) }
}
