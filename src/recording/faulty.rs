//! A directory in memory that fails when told to, and loses at a crash what was
//! not synced: each write since then is kept, dropped or torn.

use std::collections::BTreeMap;
use std::io::{Error, ErrorKind, Result};
use std::sync::{Arc, Mutex, MutexGuard};

use super::files::{Entry, Files, Handle, Use};

/// What goes wrong next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fault {
    /// A write gets this many of its bytes down, and the disk is full.
    NoSpace(usize),
    /// The same, and the disk is broken.
    Broken(usize),
    /// A sync fails. As on Linux, the next one does not make up for it: what it
    /// left out (as the bits tell) is never written unless it is written again.
    Sync(u64),
}

#[derive(Clone, Debug, Default)]
pub(super) struct Faulty(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    nodes: Vec<Node>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    fault: Option<Fault>,
}

/// A file: as programs see it, as the disk has it, and what is on its way.
#[derive(Debug, Default)]
struct Node {
    seen: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(u64, Vec<u8>),
    Length(u64),
}

impl Change {
    fn apply(&self, bytes: &mut Vec<u8>) {
        match self {
            Self::Length(length) => bytes.resize(*length as usize, 0),
            Self::Write(at, new) => {
                let (at, end) = (*at as usize, *at as usize + new.len());
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[at..end].copy_from_slice(new);
            }
        }
    }

    /// What is left of it when it is cut off halfway.
    fn torn(&self, bits: u64) -> Self {
        match self {
            Self::Length(length) => Self::Length(*length),
            Self::Write(at, new) => {
                Self::Write(*at, new[..bits as usize % (new.len() + 1)].to_vec())
            }
        }
    }
}

impl Node {
    /// Does with each change on its way what the bits say.
    fn settle(&mut self, mut bits: u64) {
        for change in std::mem::take(&mut self.pending) {
            match bits % 3 {
                0 => change.apply(&mut self.durable),
                1 => change.torn(bits / 3).apply(&mut self.durable),
                _ => {}
            }
            bits = bits.wrapping_mul(0x5851_F42D_4C95_7F2D).wrapping_add(1).rotate_left(17);
        }
    }
}

impl Faulty {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The next write or sync that can, fails so.
    pub(super) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    /// Nothing is to fail any more.
    pub(super) fn heal(&self) {
        self.state().fault = None;
    }

    /// The power goes, and comes back.
    pub(super) fn crash(&self, bits: u64) {
        let mut state = self.state();
        state.names = state.durable_names.clone();
        for node in &mut state.nodes {
            node.settle(bits);
            node.seen = node.durable.clone();
        }
    }

    /// The bytes of a file.
    pub(super) fn bytes(&self, name: &str) -> Vec<u8> {
        let state = self.state();
        state.nodes[state.names[name]].seen.clone()
    }
}

impl Files for Faulty {
    fn open(&self, name: &str, purpose: Use) -> Result<Box<dyn Handle>> {
        let mut state = self.state();
        let node = match (state.names.get(name).copied(), purpose) {
            (Some(_), Use::Create) => return Err(ErrorKind::AlreadyExists.into()),
            (Some(node), _) => node,
            (None, Use::Create) => {
                state.nodes.push(Node::default());
                let node = state.nodes.len() - 1;
                state.names.insert(name.into(), node);
                node
            }
            (None, _) => return Err(ErrorKind::NotFound.into()),
        };
        Ok(Box::new(Open { files: self.clone(), node }))
    }

    fn list(&self) -> Result<Vec<Entry>> {
        let state = self.state();
        let entry = |(name, node): (&String, &usize)| Entry {
            name: name.clone(),
            bytes: state.nodes[*node].seen.len() as u64,
            modified: 0,
        };
        Ok(state.names.iter().map(entry).collect())
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        let mut state = self.state();
        let node = state.names.remove(from).ok_or(ErrorKind::NotFound)?;
        state.names.insert(to.into(), node);
        Ok(())
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.state().names.remove(name).map(|_| ()).ok_or(ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> Result<()> {
        let mut state = self.state();
        state.durable_names = state.names.clone();
        Ok(())
    }
}

#[derive(Debug)]
struct Open {
    files: Faulty,
    node: usize,
}

impl Open {
    fn change(&self, change: Change) {
        let node = &mut self.files.state().nodes[self.node];
        change.apply(&mut node.seen);
        node.pending.push(change);
    }
}

impl Handle for Open {
    fn len(&self) -> Result<u64> {
        Ok(self.files.state().nodes[self.node].seen.len() as u64)
    }

    fn read_at(&self, bytes: &mut [u8], at: u64) -> Result<usize> {
        let state = self.files.state();
        let seen = state.nodes[self.node].seen.get(at as usize..).unwrap_or_default();
        let count = seen.len().min(bytes.len());
        bytes[..count].copy_from_slice(&seen[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], at: u64) -> Result<()> {
        let fault = self.files.state().fault.take();
        let (done, error) = match fault {
            Some(Fault::NoSpace(done)) => (done, Some(ErrorKind::StorageFull.into())),
            Some(Fault::Broken(done)) => (done, Some(Error::from_raw_os_error(5))),
            later => {
                self.files.state().fault = later;
                (bytes.len(), None)
            }
        };
        self.change(Change::Write(at, bytes[..done.min(bytes.len())].to_vec()));
        error.map_or(Ok(()), Err)
    }

    fn set_len(&self, bytes: u64) -> Result<()> {
        self.change(Change::Length(bytes));
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        let mut state = self.files.state();
        let fault = state.fault.take();
        let node = &mut state.nodes[self.node];
        if let Some(Fault::Sync(bits)) = fault {
            node.settle(bits);
            return Err(Error::from_raw_os_error(5));
        }
        for change in std::mem::take(&mut node.pending) {
            change.apply(&mut node.durable);
        }
        state.fault = fault;
        Ok(())
    }
}
