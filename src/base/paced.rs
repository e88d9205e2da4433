//! A socket that is read at a common beat while small pieces come at a steady
//! pace, as from a device that streams live.
//!
//! Such a device sends a frame every 10 to 60 ms, and waking for each costs more
//! than all that is done with it. On the beat a socket is out of the poller, is
//! read once for several frames, and all sockets at the same moment: one timer
//! wakes them all. A sender that is faster, or that falls silent, is waited for
//! as usual.

use std::cell::RefCell;
use std::io::{self, ErrorKind, Read, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

use super::clock::Clock;

/// Time between two reads on the beat: with what a busy machine adds, no frame
/// waits for 100 ms.
pub const BEAT: Duration = Duration::from_millis(60);
/// More bytes than this in one beat are no live stream: 48 kHz stereo makes a
/// fifth of it. Whoever sends faster would have to wait for room in the kernel's
/// buffer.
const BURST: usize = 48 * 1024;
/// Bytes of one read.
const SPACE: usize = 4096;
/// Reads in the time of one second that make a stream live.
const LIVELY: u32 = 8;
/// Beats without a byte after which the socket is waited for as usual: a second.
const SILENT: u32 = 17;

/// Permits the beat on one socket. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Pace(Arc<AtomicBool>);

impl Pace {
    /// From here on the socket is there for a live stream: a delay of a [`BEAT`]
    /// does no harm, and what has arrived counts for more than what cannot be
    /// answered.
    pub fn permit(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn is_permitted(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// A TCP connection that may be paced.
#[derive(Debug)]
pub struct Paced {
    io: Io,
    pace: Pace,
    clock: Clock,
    /// When the present stretch of observation began: a second off the beat, a
    /// beat on it.
    since: Duration,
    /// Reads, or beats without any, in a row.
    count: u32,
    /// Bytes in this stretch.
    bytes: usize,
}

#[derive(Debug)]
enum Io {
    /// In the poller.
    Waited(TcpStream),
    /// On the beat; `rest` runs while there is nothing to read.
    Beaten { stream: std::net::TcpStream, rest: Pin<Box<Sleep>>, resting: bool },
    /// Lost on the way between the two.
    Gone,
}

impl Paced {
    /// A connection that is waited for as usual until `pace` permits more.
    pub fn new(stream: TcpStream, pace: Pace, clock: Clock) -> Self {
        let since = clock.monotonic();
        Self { io: Io::Waited(stream), pace, clock, since, count: 0, bytes: 0 }
    }

    /// Notes a read of `bytes` off the beat; takes the beat up when a second of
    /// them looks live.
    fn observe(&mut self, bytes: usize) -> io::Result<()> {
        let now = self.clock.monotonic();
        self.count += 1;
        self.bytes += bytes;
        if now.saturating_sub(self.since) < Duration::from_secs(1) {
            return Ok(());
        }
        let beats = (1_000 / BEAT.as_millis()) as usize;
        let live = self.count >= LIVELY && self.bytes < BURST * beats;
        self.restart(now);
        if live {
            let Io::Waited(stream) = std::mem::replace(&mut self.io, Io::Gone) else {
                return Ok(());
            };
            let rest = Box::pin(sleep(self.to_next_beat(now)));
            self.io = Io::Beaten { stream: stream.into_std()?, rest, resting: true };
        }
        Ok(())
    }

    fn restart(&mut self, now: Duration) {
        (self.since, self.count, self.bytes) = (now, 0, 0);
    }

    /// The beats of all sockets fall together, on multiples of their distance.
    fn to_next_beat(&self, now: Duration) -> Duration {
        let into = now.as_micros() % BEAT.as_micros();
        BEAT.saturating_sub(Duration::from_micros(u64::try_from(into).unwrap_or(0)))
    }

    /// Leaves the beat.
    fn wait_as_usual(&mut self) -> io::Result<()> {
        let now = self.clock.monotonic();
        self.restart(now);
        self.io = match std::mem::replace(&mut self.io, Io::Gone) {
            Io::Beaten { stream, .. } => Io::Waited(TcpStream::from_std(stream)?),
            other => other,
        };
        Ok(())
    }

    /// Reads on the beat. None: the beat has been left.
    fn read_on_beat(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<Option<()>>> {
        loop {
            let now = self.clock.monotonic();
            let next = self.to_next_beat(now);
            let Io::Beaten { stream, rest, resting } = &mut self.io else {
                return Poll::Ready(Ok(None));
            };
            if *resting {
                ready!(rest.as_mut().poll(cx));
                *resting = false;
                self.bytes = 0;
            }
            let room = buffer.remaining().min(SPACE);
            match read(stream, buffer, room) {
                Ok(count) => {
                    self.count = 0;
                    self.bytes += count;
                    if self.bytes > BURST {
                        self.wait_as_usual()?;
                    } else if count < room {
                        // Drained: what comes now has until the next beat.
                        rest.set(sleep(next));
                        *resting = true;
                    }
                    return Poll::Ready(Ok(Some(())));
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    self.count += 1;
                    if self.count >= SILENT {
                        self.wait_as_usual()?;
                        return Poll::Ready(Ok(None));
                    }
                    rest.set(sleep(next));
                    *resting = true;
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    /// Writes with `direct` on the beat, and with `polled` off it. What the peer of
    /// a stream is not there to hear is taken as written: it may have sent more
    /// than has been read, and the end of that is the end of the connection.
    fn write(
        &mut self,
        cx: &mut Context<'_>,
        length: usize,
        direct: impl FnOnce(&mut std::net::TcpStream) -> io::Result<usize>,
        polled: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        match ready!(self.try_write(cx, direct, polled)) {
            Err(error) if self.pace.is_permitted() && is_gone(&error) => Poll::Ready(Ok(length)),
            done => Poll::Ready(done),
        }
    }

    fn try_write(
        &mut self,
        cx: &mut Context<'_>,
        direct: impl FnOnce(&mut std::net::TcpStream) -> io::Result<usize>,
        polled: impl FnOnce(Pin<&mut TcpStream>, &mut Context<'_>) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        if let Io::Beaten { stream, .. } = &mut self.io {
            match direct(stream) {
                Err(error) if is_not_now(&error) => self.wait_as_usual()?,
                done => return Poll::Ready(done),
            }
        }
        match &mut self.io {
            Io::Waited(stream) => polled(Pin::new(stream), cx),
            _ => Poll::Ready(Err(ErrorKind::NotConnected.into())),
        }
    }
}

/// Reads once, at most `room` bytes, which are no more than [`SPACE`]. By way of space that is used again and
/// again: to clear a whole buffer costs more than to copy the little that comes.
fn read(
    mut stream: &std::net::TcpStream,
    buffer: &mut ReadBuf<'_>,
    room: usize,
) -> io::Result<usize> {
    thread_local! {
        static SCRATCH: RefCell<[u8; SPACE]> = const { RefCell::new([0; SPACE]) };
    }
    SCRATCH.with_borrow_mut(|scratch| {
        let count = stream.read(scratch.get_mut(..room).unwrap_or_default())?;
        buffer.put_slice(scratch.get(..count).unwrap_or_default());
        Ok(count)
    })
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

impl AsyncRead for Paced {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if ready!(self.read_on_beat(cx, buffer))?.is_some() {
            return Poll::Ready(Ok(()));
        }
        let Io::Waited(stream) = &mut self.io else {
            return Poll::Ready(Err(ErrorKind::NotConnected.into()));
        };
        let before = buffer.filled().len();
        ready!(Pin::new(stream).poll_read(cx, buffer))?;
        if self.pace.is_permitted() {
            self.observe(buffer.filled().len() - before)?;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Paced {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.write(
            cx,
            bytes.len(),
            |stream| stream.write(bytes),
            |stream, cx| stream.poll_write(cx, bytes),
        )
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.write(
            cx,
            parts.iter().map(|part| part.len()).sum(),
            |stream| stream.write_vectored(parts),
            |stream, cx| stream.poll_write_vectored(cx, parts),
        )
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.io {
            Io::Waited(stream) => Pin::new(stream).poll_shutdown(cx),
            Io::Beaten { stream, .. } => {
                Poll::Ready(stream.shutdown(std::net::Shutdown::Write).or_else(|error| {
                    if error.kind() == ErrorKind::NotConnected { Ok(()) } else { Err(error) }
                }))
            }
            Io::Gone => Poll::Ready(Ok(())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    use super::*;
    use crate::base::clock::Timestamp;

    const FRAME: usize = 640;
    const EVERY: Duration = Duration::from_millis(20);

    /// The other end of a paced connection.
    struct Other {
        stream: TcpStream,
        /// The paced end once more, to see what has arrived there.
        seen: std::net::TcpStream,
    }

    async fn pair() -> (Paced, Other) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let other = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let stream = listener.accept().await.unwrap().0.into_std().unwrap();
        let other = Other { stream: other, seen: stream.try_clone().unwrap() };
        let pace = Pace::default();
        pace.permit();
        let stream = TcpStream::from_std(stream).unwrap();
        (Paced::new(stream, pace, Clock::of_timers(Timestamp::default())), other)
    }

    impl Other {
        /// Sends a frame, and waits for the kernel to have delivered it: paused
        /// time would run on meanwhile.
        async fn frame(&mut self, number: usize) {
            let before = rustix::io::ioctl_fionread(&self.seen).unwrap();
            self.stream.write_all(&[number as u8; FRAME]).await.unwrap();
            while rustix::io::ioctl_fionread(&self.seen).unwrap() < before + FRAME as u64 {
                std::thread::yield_now();
            }
        }

        /// Sends `count` numbered frames at their pace.
        async fn live(&mut self, count: usize) {
            for number in 0..count {
                tokio::time::sleep(EVERY).await;
                self.frame(number).await;
            }
        }
    }

    impl Paced {
        fn is_on_beat(&self) -> bool {
            matches!(self.io, Io::Beaten { .. })
        }
    }

    /// Reads frames `from..to`; how many reads it took.
    async fn expect(paced: &mut Paced, from: usize, to: usize) -> usize {
        let (mut heard, mut reads) = (vec![0; (to - from) * FRAME], 0);
        let mut filled = 0;
        while filled < heard.len() {
            let count = paced.read(&mut heard[filled..]).await.unwrap();
            assert!(count > 0);
            (filled, reads) = (filled + count, reads + 1);
        }
        let sent: Vec<u8> = (from..to).flat_map(|number| [number as u8; FRAME]).collect();
        assert!(heard == sent, "frames {from} to {to}");
        reads
    }

    #[tokio::test(start_paused = true)]
    async fn a_live_stream_is_read_on_the_beat_and_whole() {
        let (mut paced, mut other) = pair().await;
        let sender = tokio::spawn(async move {
            other.live(200).await;
            // After a pause it is waited for again; then it goes on.
            tokio::time::sleep(Duration::from_secs(3)).await;
            other.live(1).await;
            other
        });
        expect(&mut paced, 0, 60).await;
        assert!(paced.is_on_beat());
        let reads = expect(&mut paced, 60, 180).await;
        assert!((39..=42).contains(&reads), "a read a beat, 40, not {reads}");
        expect(&mut paced, 180, 200).await;
        expect(&mut paced, 0, 1).await;
        assert!(!paced.is_on_beat());
        drop(sender.await.unwrap());
        assert_eq!(paced.read(&mut [0; 16]).await.unwrap(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn no_frame_waits_for_longer_than_a_beat() {
        let (mut paced, mut other) = pair().await;
        let sent = tokio::spawn(async move {
            let mut sent = Vec::new();
            for number in 0..150 {
                tokio::time::sleep(Duration::from_millis(17 + number % 7)).await;
                other.frame(0).await;
                sent.push(Instant::now());
            }
            (sent, other)
        });
        let mut heard = Vec::new();
        let mut buffer = [0; 8 * 1024];
        let mut bytes = 0;
        while heard.len() < 150 {
            bytes += paced.read(&mut buffer).await.unwrap();
            heard.resize(bytes / FRAME, Instant::now());
        }
        assert!(paced.is_on_beat());
        let (sent, _other) = sent.await.unwrap();
        let late = sent.iter().zip(&heard).map(|(sent, heard)| *heard - *sent).max().unwrap();
        assert!(late <= BEAT + Duration::from_millis(2), "{late:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_burst_leaves_the_beat_and_is_whole() {
        let (mut paced, mut other) = pair().await;
        let sender = tokio::spawn(async move {
            other.live(80).await;
            other.stream.write_all(&[9; 1 << 20]).await.unwrap();
            other
        });
        expect(&mut paced, 0, 80).await;
        assert!(paced.is_on_beat());
        let mut burst = vec![0; 1 << 20];
        let began = Instant::now();
        paced.read_exact(&mut burst).await.unwrap();
        assert!(burst.iter().all(|byte| *byte == 9));
        assert!(!paced.is_on_beat());
        assert!(began.elapsed() <= 3 * BEAT, "{:?}", began.elapsed());
        sender.await.unwrap();
    }

    #[tokio::test]
    async fn what_a_peer_sent_is_read_though_it_is_gone() {
        let (mut paced, mut other) = pair().await;
        // With something unread the peer resets the connection when it goes.
        paced.write_all(b"hello").await.unwrap();
        for number in 0..40 {
            other.frame(number).await;
        }
        other.stream.readable().await.unwrap();
        drop(other);
        for _ in 0..10 {
            paced.write_all(b"are you there?").await.unwrap();
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        expect(&mut paced, 0, 40).await;
        assert!(matches!(paced.read(&mut [0; 16]).await, Ok(0) | Err(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn writing_works_on_and_off_the_beat() {
        let (mut paced, mut other) = pair().await;
        paced.write_all(b"off").await.unwrap();
        other.live(80).await;
        expect(&mut paced, 0, 80).await;
        let sender = tokio::spawn(async move {
            other.live(80).await;
            other
        });
        let mut frames = vec![0; 80 * FRAME];
        paced.read_exact(&mut frames).await.unwrap();
        assert!(paced.is_on_beat());
        let mut other = sender.await.unwrap();
        // More than the kernel takes at once.
        let reader = tokio::spawn(async move {
            let mut all = Vec::new();
            other.stream.read_to_end(&mut all).await.unwrap();
            all.len()
        });
        paced.write_all(&vec![5; 8 << 20]).await.unwrap();
        paced.shutdown().await.unwrap();
        drop(paced);
        assert_eq!(reader.await.unwrap(), 3 + (8 << 20));
    }
}
