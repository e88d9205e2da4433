//! Ogg Opus recordings on disk. Each page carries its own checksum and its time,
//! so that a torn tail is told from audio, and a piece in the middle is found
//! without reading what goes before it.

use std::io;

use super::files::{Files, Handle, Use};
use super::{failed, too_short};
use crate::audio::ogg::{Head, MAX_PAGE, Page, TICKS, is_header};
use crate::audio::opus::{OpusDecoder, packet_samples};
use crate::base::error::{Error, Kind, Result};
use crate::domain::conversation::{SAMPLE_RATE, Span};

/// Ogg ticks a sample.
const STEP: u64 = (TICKS / SAMPLE_RATE) as u64;
/// Bytes read at a time: two of the largest pages.
const BLOCK: usize = 2 * MAX_PAGE;
/// Samples decoded before the first that is wanted, for the codec to find its
/// feet: half a second.
const RUN_UP: u64 = SAMPLE_RATE as u64 / 2;

/// The whole pages of a file from some place on, damage passed over.
struct Pages<'a> {
    file: &'a dyn Handle,
    /// Pages of other streams are no pages of this recording.
    serial: Option<u32>,
    /// Where the next page is looked for.
    at: u64,
    /// What was read last, from where, and whether the file ends there.
    block: Vec<u8>,
    start: u64,
    last: bool,
}

impl<'a> Pages<'a> {
    fn from(file: &'a dyn Handle, at: u64, serial: Option<u32>) -> Self {
        Self { file, serial, at, block: Vec::new(), start: at, last: false }
    }

    /// The next page and its place.
    fn next(&mut self) -> io::Result<Option<(u64, Page<'_>)>> {
        let place = loop {
            let mut rest = self.rest();
            if rest.len() < MAX_PAGE && !self.last {
                self.block.resize(BLOCK, 0);
                let count = self.file.read_at(&mut self.block, self.at)?;
                self.block.truncate(count);
                (self.start, self.last) = (self.at, count < BLOCK);
                rest = self.rest();
            }
            match Page::find(rest) {
                Some((skipped, page)) => {
                    let (place, length) = (self.at + skipped as u64, page.len() as u64);
                    let ours = self.serial.is_none_or(|serial| serial == page.serial);
                    self.at = place + length;
                    if ours {
                        break place;
                    }
                }
                None if self.last => return Ok(None),
                // A page that begins further on may not be whole in this block.
                None => self.at += (rest.len() - MAX_PAGE + 1) as u64,
            }
        };
        let bytes = usize::try_from(place - self.start).ok().and_then(|at| self.block.get(at..));
        Ok(bytes.and_then(Page::parse_checked).map(|page| (place, page)))
    }

    fn rest(&self) -> &[u8] {
        let at = usize::try_from(self.at - self.start).unwrap_or(usize::MAX);
        self.block.get(at..).unwrap_or_default()
    }
}

/// The start of a stream, where there is one.
#[derive(Clone, Copy, Debug)]
struct Start {
    serial: u32,
    head: Option<Head>,
    /// Where its first page is, and where the next begins.
    at: u64,
    end: u64,
}

fn start(file: &dyn Handle) -> io::Result<Option<Start>> {
    let mut pages = Pages::from(file, 0, None);
    Ok(pages.next()?.map(|(at, page)| Start {
        serial: page.serial,
        head: page.packets().next().and_then(Head::parse),
        at,
        end: at + page.len() as u64,
    }))
}

/// Goes to the page in which tick `wanted` is, or a little before it. Returns
/// the place, and the ticks that go before it.
fn seek(file: &dyn Handle, start: Start, wanted: u64) -> io::Result<(u64, u64)> {
    let (mut low, mut high, mut before) = (start.end, file.len()?, 0);
    while high.saturating_sub(low) > BLOCK as u64 {
        let middle = low + (high - low) / 2;
        match Pages::from(file, middle, Some(start.serial)).next()? {
            Some((at, page)) if at < high && page.granule <= wanted => {
                (low, before) = (at + page.len() as u64, page.granule);
            }
            _ => high = middle,
        }
    }
    Ok((low, before))
}

/// Samples in a file.
pub(super) fn samples(file: &dyn Handle) -> io::Result<u64> {
    let Some(start) = start(file)? else { return Ok(0) };
    let (at, mut ticks) = seek(file, start, u64::MAX)?;
    let mut pages = Pages::from(file, at, Some(start.serial));
    while let Some((_, page)) = pages.next()? {
        ticks = page.granule;
    }
    Ok(played(ticks, start.head))
}

/// Samples that are played of `ticks`.
fn played(ticks: u64, head: Option<Head>) -> u64 {
    ticks.saturating_sub(head.map_or(0, |head| head.pre_skip.into())) / STEP
}

/// Cuts off what follows the last whole page, and writes the header of a file
/// that got no further. Returns its samples.
pub(super) fn repair(files: &dyn Files, name: &str) -> Result<u64> {
    let cannot = |error| failed("cannot repair", name, error);
    let foreign = || Error::new(Kind::BadInput, format!("{name} is not a recording made here"));
    let file = files.open(name, Use::Repair).map_err(cannot)?;
    let length = file.len().map_err(cannot)?;
    let found = match start(file.as_ref()).map_err(cannot)? {
        Some(found) => found,
        // Its making was cut short.
        None if is_blank(file.as_ref()).map_err(cannot)? => {
            Start { serial: rand::random(), head: None, at: Head::LEN, end: Head::LEN }
        }
        None => return Err(foreign()),
    };
    let (mut end, mut ticks) = (found.end, 0);
    let mut pages = Pages::from(file.as_ref(), found.at, Some(found.serial));
    while let Some((at, page)) = pages.next().map_err(cannot)? {
        (end, ticks) = (at + page.len() as u64, page.granule);
    }
    let whole = found.at == 0 && found.head.is_some() && end >= Head::LEN;
    if !whole {
        // Ours has one length: audio begins behind it, or the header got no further.
        let torn = found.at == 0 && found.head.is_some() && end < Head::LEN;
        if !torn && found.at != Head::LEN {
            return Err(foreign());
        }
        let head = found.head.unwrap_or(Head { pre_skip: 0 });
        file.write_at(&head.pages(found.serial, SAMPLE_RATE), 0).map_err(cannot)?;
        end = end.max(Head::LEN);
    }
    if !whole || length != end {
        file.set_len(end).map_err(cannot)?;
    }
    // Always: a process that was killed may have left bytes that no disk has yet.
    file.sync().map_err(cannot)?;
    Ok(played(ticks, found.head))
}

/// Whether a file has nothing in it but zeros, or the beginning of a header.
fn is_blank(file: &dyn Handle) -> io::Result<bool> {
    let (mut block, mut at) = (vec![0; BLOCK], 0);
    loop {
        let count = file.read_at(&mut block, at)?;
        let found = block.get(..count).unwrap_or_default();
        let begun = found.iter().zip(b"OggS").all(|(found, wanted)| found == wanted);
        let torn = at == 0 && count as u64 <= Head::LEN && begun;
        if torn || found.is_empty() {
            return Ok(true);
        }
        if found.iter().any(|byte| *byte != 0) {
            return Ok(false);
        }
        at += count as u64;
    }
}

/// Appends the samples of `span` to `out`: the same as a decoder gives that
/// began at the start, but for what the codec forgets within half a second.
/// Where pages are missing there is silence.
pub(super) fn read(file: &dyn Handle, name: &str, span: Span, out: &mut Vec<i16>) -> Result<()> {
    let cannot = |error| failed("cannot read", name, error);
    let start = start(file).map_err(cannot)?.ok_or_else(|| too_short(name))?;
    let skipped = start.head.map_or(0, |head| u64::from(head.pre_skip)) / STEP;
    // Counted in samples of the decoder from here on.
    let wanted =
        Span { start: span.start.saturating_add(skipped), end: span.end.saturating_add(skipped) };
    let from = wanted.start.saturating_sub(RUN_UP);
    let (at, before) = seek(file, start, from.saturating_mul(STEP)).map_err(cannot)?;
    let mut take = Take { wanted, position: before / STEP, out };
    let mut decoder = OpusDecoder::new()?;
    let mut decoded = Vec::new();
    let mut pages = Pages::from(file, at, Some(start.serial));
    while take.position < wanted.end {
        let Some((_, page)) = pages.next().map_err(cannot)? else { return Err(too_short(name)) };
        let packets = || page.packets().filter(|packet| !is_header(packet));
        let length =
            packets().filter_map(|packet| packet_samples(packet).ok()).sum::<usize>() as u64;
        let end = page.granule / STEP;
        if !page.ends {
            take.silence(end.saturating_sub(length));
        }
        for packet in packets() {
            let Ok(length) = packet_samples(packet) else { continue };
            decoded.clear();
            if take.position + length as u64 > from && decoder.decode(packet, &mut decoded).is_err()
                || decoded.is_empty()
            {
                decoded.resize(length, 0);
            }
            if page.ends {
                let left = usize::try_from(end.saturating_sub(take.position)).unwrap_or(usize::MAX);
                decoded.truncate(left);
            }
            take.push(&decoded);
        }
        if page.ends && take.position < wanted.end {
            return Err(too_short(name));
        }
    }
    Ok(())
}

/// Takes what is wanted out of what comes.
struct Take<'a> {
    wanted: Span,
    /// The sample that comes next.
    position: u64,
    out: &'a mut Vec<i16>,
}

impl Take<'_> {
    fn push(&mut self, samples: &[i16]) {
        let clip = |at: u64| {
            let at = at.saturating_sub(self.position);
            usize::try_from(at).unwrap_or(usize::MAX).min(samples.len())
        };
        let range = clip(self.wanted.start)..clip(self.wanted.end);
        self.out.extend_from_slice(samples.get(range).unwrap_or_default());
        self.position = self.position.saturating_add(samples.len() as u64);
    }

    /// Nothing is there until sample `until`.
    fn silence(&mut self, until: u64) {
        let missing =
            Span { start: self.position.max(self.wanted.start), end: until.min(self.wanted.end) };
        let count = usize::try_from(missing.len()).unwrap_or(0);
        self.out.extend(std::iter::repeat_n(0, count));
        self.position = self.position.max(until);
    }
}

/// The packets of a file, in order.
#[cfg(test)]
pub(super) fn packets(file: &dyn Handle) -> Vec<Vec<u8>> {
    let serial = start(file).unwrap().map(|start| start.serial);
    let mut pages = Pages::from(file, 0, serial);
    let mut found = Vec::new();
    while let Some((_, page)) = pages.next().unwrap() {
        found.extend(page.packets().filter(|packet| !is_header(packet)).map(<[u8]>::to_vec));
    }
    found
}
