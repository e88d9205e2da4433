//! Ogg pages (RFC 3533) as Ogg Opus (RFC 7845) uses them: one logical stream of
//! Opus packets, mono, whose clock counts 48 kHz samples.
//!
//! Pages are written and found one at a time, at known places in a file that
//! may be torn: that is what a recording that must survive a power cut needs,
//! and what the readers of whole files do not offer.

use std::ops::Range;

/// Ticks a second of an Ogg Opus stream's clock, whatever was recorded.
pub const TICKS: u32 = 48_000;
/// The most bytes a page takes.
pub const MAX_PAGE: usize = 27 + 255 + 255 * 255;
/// The most bytes of a packet that fits one page.
pub const MAX_PACKET: usize = 255 * 255 - 1;

/// Bytes before a page's table of lacing values.
const FIXED: usize = 27;
/// What every page begins with, its version included.
const CAPTURE: &[u8; 5] = b"OggS\0";
const BEGINS: u8 = 2;
const ENDS: u8 = 4;

/// A page whose checksum is right.
#[derive(Clone, Copy, Debug)]
pub struct Page<'a> {
    /// The last of the stream.
    pub ends: bool,
    /// Ticks from the start of the stream to the end of this page.
    pub granule: u64,
    /// Which stream it belongs to.
    pub serial: u32,
    /// Its number in the stream.
    pub sequence: u32,
    lacing: &'a [u8],
    body: &'a [u8],
}

impl<'a> Page<'a> {
    /// The page at the start of `bytes`; none when there is no whole one.
    pub fn parse(bytes: &'a [u8]) -> Option<Self> {
        let page = Self::parse_checked(bytes)?;
        let (fixed, rest) = bytes.split_at_checked(FIXED)?;
        let checksum = u32::from_le_bytes(*fixed.get(22..)?.first_chunk()?);
        let whole = rest.get(..page.len() - FIXED)?;
        (checksum == crc([fixed, whole, &[]])).then_some(page)
    }

    /// As [`Page::parse`], for a page whose checksum has been looked at already.
    pub fn parse_checked(bytes: &'a [u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(CAPTURE)?;
        let ([kind], rest) = rest.split_first_chunk()?;
        let (granule, rest) = rest.split_first_chunk()?;
        let (serial, rest) = rest.split_first_chunk()?;
        let (sequence, rest) = rest.split_first_chunk()?;
        let ([_, _, _, _, segments], rest) = rest.split_first_chunk()?;
        let (lacing, rest) = rest.split_at_checked(usize::from(*segments))?;
        let length = lacing.iter().map(|value| usize::from(*value)).sum();
        let (body, _) = rest.split_at_checked(length)?;
        Some(Self {
            ends: kind & ENDS != 0,
            granule: u64::from_le_bytes(*granule),
            serial: u32::from_le_bytes(*serial),
            sequence: u32::from_le_bytes(*sequence),
            lacing,
            body,
        })
    }

    /// The first whole page in `bytes`, with its place.
    pub fn find(bytes: &'a [u8]) -> Option<(usize, Self)> {
        let mut at = 0;
        loop {
            let rest = bytes.get(at..)?;
            at += rest.windows(CAPTURE.len()).position(|five| five == CAPTURE)?;
            if let Some(page) = bytes.get(at..).and_then(Self::parse) {
                return Some((at, page));
            }
            at += 1;
        }
    }

    /// Bytes it takes.
    pub fn len(&self) -> usize {
        FIXED + self.lacing.len() + self.body.len()
    }

    /// Whether it has no packet.
    pub fn is_empty(&self) -> bool {
        self.lacing.is_empty()
    }

    /// Its packets. (No packet of ours goes on in a second page.)
    pub fn packets(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (lacing, body) = (self.lacing, self.body);
        let mut at = 0;
        lacing.chunk_by(|value, _| *value == 255).map_while(move |values| {
            let length: usize = values.iter().map(|value| usize::from(*value)).sum();
            let packet = body.get(at..at + length);
            at += length;
            packet
        })
    }
}

/// A stream that is being written: what the next page continues from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Ticks so far.
    pub granule: u64,
    /// Number of the next page.
    pub sequence: u32,
}

/// Appends `packets`, each with its ticks, to `out` as pages of stream `serial`
/// that continue from `mark`; returns where the next continues.
pub fn write_pages<'a>(
    out: &mut Vec<u8>,
    serial: u32,
    mut mark: Mark,
    packets: impl Iterator<Item = (&'a [u8], u64)>,
) -> Mark {
    let (mut lacing, mut body) = (Vec::with_capacity(255), Vec::new());
    let mut put = |lacing: &mut Vec<u8>, body: &mut Vec<u8>, mark: &mut Mark| {
        if !lacing.is_empty() {
            page(out, 0, serial, *mark, lacing, body);
            mark.sequence = mark.sequence.wrapping_add(1);
            lacing.clear();
            body.clear();
        }
    };
    for (packet, ticks) in packets {
        let whole = packet.len() / 255;
        if lacing.len() + whole + 1 > 255 {
            put(&mut lacing, &mut body, &mut mark);
        }
        lacing.extend(std::iter::repeat_n(255, whole));
        lacing.push((packet.len() % 255) as u8);
        body.extend_from_slice(packet);
        mark.granule = mark.granule.saturating_add(ticks);
    }
    put(&mut lacing, &mut body, &mut mark);
    mark
}

/// Makes the last page in `pages` the last of its stream, which is played until
/// `granule`, at most the ticks of its packets.
pub fn end_stream(pages: &mut Vec<u8>, granule: u64) {
    let (mut at, mut last) = (0, None);
    while let Some(page) = pages.get(at..).and_then(Page::parse) {
        last = Some(at);
        at += page.len();
    }
    let Some(at) = last else { return };
    let tail = pages.split_off(at);
    if let Some(old) = Page::parse(&tail) {
        let mark = Mark { granule, sequence: old.sequence };
        page(pages, ENDS, old.serial, mark, old.lacing, old.body);
    }
}

/// What an Opus stream says of itself in its first packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Ticks at the start that are not to be played: the codec's own delay.
    pub pre_skip: u16,
}

impl Head {
    /// Bytes of [`Head::pages`].
    pub const LEN: u64 = (FIXED + 1 + 19 + FIXED + 1 + 27) as u64;

    /// The two pages that a mono stream begins with. `rate` is that of the
    /// source, in Hz, to be told to people.
    pub fn pages(self, serial: u32, rate: u32) -> Vec<u8> {
        let mut head = Vec::with_capacity(19);
        head.extend_from_slice(b"OpusHead\x01\x01");
        head.extend_from_slice(&self.pre_skip.to_le_bytes());
        head.extend_from_slice(&rate.to_le_bytes());
        head.extend_from_slice(&[0, 0, 0]);
        // A vendor of eleven bytes and no comments.
        let tags = b"OpusTags\x0b\0\0\0friend-lite\0\0\0\0";
        let mut out = Vec::with_capacity(Self::LEN as usize);
        page(&mut out, BEGINS, serial, Mark { granule: 0, sequence: 0 }, &[19], &head);
        page(&mut out, 0, serial, Mark { granule: 0, sequence: 1 }, &[27], tags);
        out
    }

    /// Reads the first packet of an Opus stream; none when it is not one, or
    /// has more channels than one decoder plays.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let rest = packet.strip_prefix(b"OpusHead")?;
        let [version, channels, low, high, _, _, _, _, _, _, family, ..] = rest else {
            return None;
        };
        let plain = version & 0xF0 == 0 && matches!(channels, 1 | 2) && *family == 0;
        plain.then_some(Self { pre_skip: u16::from_le_bytes([*low, *high]) })
    }
}

/// Whether a page's first packet is one of the two that describe the stream.
pub fn is_header(packet: &[u8]) -> bool {
    packet.starts_with(b"OpusHead") || packet.starts_with(b"OpusTags")
}

fn page(out: &mut Vec<u8>, kind: u8, serial: u32, mark: Mark, lacing: &[u8], body: &[u8]) {
    let mut fixed = [0; FIXED];
    let fields: [(Range<usize>, &[u8]); 6] = [
        (0..5, CAPTURE),
        (5..6, &[kind]),
        (6..14, &mark.granule.to_le_bytes()),
        (14..18, &serial.to_le_bytes()),
        (18..22, &mark.sequence.to_le_bytes()),
        (26..27, &[lacing.len() as u8]),
    ];
    let mut put = |range: Range<usize>, bytes: &[u8]| {
        if let Some(field) = fixed.get_mut(range) {
            field.copy_from_slice(bytes);
        }
    };
    for (range, bytes) in fields {
        put(range, bytes);
    }
    let checksum = crc([&fixed, lacing, body]);
    if let Some(field) = fixed.get_mut(22..26) {
        field.copy_from_slice(&checksum.to_le_bytes());
    }
    out.extend_from_slice(&fixed);
    out.extend_from_slice(lacing);
    out.extend_from_slice(body);
}

/// The checksum of a page, whose own field counts as zero.
fn crc(parts: [&[u8]; 3]) -> u32 {
    let step = |sum: u32, byte: u8| {
        let index = (sum >> 24) as u8 ^ byte;
        (sum << 8) ^ TABLE.get(usize::from(index)).copied().unwrap_or(0)
    };
    let [fixed, lacing, body] = parts;
    let fixed =
        fixed.iter().zip(0..).map(|(byte, at)| if (22..26).contains(&at) { 0 } else { *byte });
    let sum = fixed.fold(0, step);
    let sum = lacing.iter().fold(sum, |sum, byte| step(sum, *byte));
    body.iter().fold(sum, |sum, byte| step(sum, *byte))
}

/// CRC-32 of polynomial 0x04C11DB7, highest bit first, nothing inverted.
const TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut index = 0;
    while index < 256 {
        let mut value = (index as u32) << 24;
        let mut bit = 0;
        while bit < 8 {
            value = (value << 1) ^ if value & 0x8000_0000 != 0 { 0x04C1_1DB7 } else { 0 };
            bit += 1;
        }
        table[index] = value;
        index += 1;
    }
    table
};

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use proptest::prelude::*;

    use super::*;

    const START: Mark = Mark { granule: 0, sequence: 2 };

    fn stream(packets: &[Vec<u8>]) -> Vec<u8> {
        let mut bytes = Head { pre_skip: 312 }.pages(7, 16_000);
        assert_eq!(bytes.len() as u64, Head::LEN);
        let packets = packets.iter().map(|packet| (packet.as_slice(), 960));
        write_pages(&mut bytes, 7, START, packets);
        bytes
    }

    /// Every packet behind the two headers, as this module reads them.
    fn packets(mut bytes: &[u8]) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        while let Some(page) = Page::parse(bytes) {
            found.extend(page.packets().map(<[u8]>::to_vec));
            bytes = &bytes[page.len()..];
        }
        assert!(bytes.is_empty());
        found.split_off(2)
    }

    #[test]
    fn the_head_says_what_it_was_told() {
        let bytes = stream(&[]);
        let page = Page::parse(&bytes).unwrap();
        let head = page.packets().next().unwrap();
        assert!(is_header(head));
        assert_eq!(Head::parse(head), Some(Head { pre_skip: 312 }));
        assert_eq!(Head::parse(b"OpusHead\x01\x06\0\0\0\0\0\0\0\0\x01"), None);
        assert_eq!(Head::parse(b"\x01vorbis"), None);
    }

    #[test]
    fn a_stream_is_ended_in_its_last_page() {
        let mut bytes = stream(&[vec![1; 10]]);
        let before = bytes.len();
        end_stream(&mut bytes, 500);
        assert_eq!(bytes.len(), before);
        let page = Page::parse(&bytes[Head::LEN as usize..]).unwrap();
        assert_eq!((page.ends, page.granule, page.sequence), (true, 500, 2));
        assert_eq!(page.packets().next().unwrap(), [1; 10]);
    }

    proptest! {
        /// The `ogg` crate reads what is written here.
        #[test]
        fn another_reader_gets_the_same_packets(
            lengths in prop::collection::vec(prop_oneof![0usize..600, Just(255), Just(510), Just(MAX_PACKET)], 0..40),
        ) {
            let sent: Vec<Vec<u8>> =
                lengths.iter().zip(0u8..).map(|(length, value)| vec![value; *length]).collect();
            let bytes = stream(&sent);
            prop_assert_eq!(&packets(&bytes), &sent);
            let mut reader = ogg::PacketReader::new(Cursor::new(&bytes));
            let mut read = Vec::new();
            let mut granule = 0;
            while let Some(packet) = reader.read_packet().unwrap() {
                granule = packet.absgp_page();
                read.push(packet.data);
            }
            prop_assert_eq!(read.split_off(2), sent);
            prop_assert_eq!(granule, 960 * lengths.len() as u64);
        }

        #[test]
        fn damage_is_noticed(at in any::<prop::sample::Index>(), bit in 0u8..8) {
            let mut bytes = Vec::new();
            write_pages(&mut bytes, 7, START, [(&[1, 2, 3, 4, 5, 6, 7, 8][..], 960)].into_iter());
            bytes[at.index(36)] ^= 1 << bit;
            prop_assert!(Page::parse(&bytes).is_none());
        }

        #[test]
        fn whatever_comes_is_survived_and_pages_in_it_are_found(
            before in prop::collection::vec(any::<u8>(), 0..80),
            garbage in prop::collection::vec(any::<u8>(), 0..400),
        ) {
            let mut bytes = [before.clone(), b"OggS\0".to_vec()].concat();
            let at = bytes.len();
            write_pages(&mut bytes, 7, START, [(&garbage[..], 960)].into_iter());
            let (found, page) = Page::find(&bytes).unwrap();
            prop_assert_eq!(found, at);
            prop_assert_eq!(page.packets().next().unwrap(), garbage);
        }
    }
}
