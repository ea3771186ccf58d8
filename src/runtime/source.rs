//! Where a model came from, so that it can be imported once more for another bucket.

use crate::error::{Error, Result, Status, ensure, fail};
use crate::ir::Graph;
use crate::ir::import::{self, ImportOptions};
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A file at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    device: u64,
    inode: u64,
    bytes: u64,
    changed_ns: i128,
}

impl Identity {
    fn of(path: &Path) -> Result<Self> {
        let meta = fs::metadata(path).map_err(|error| {
            let status = if error.kind() == std::io::ErrorKind::NotFound { Status::NotFound } else { Status::Io };
            Error::io(status, format_args!("model {}", path.display()), &error)
        })?;
        let changed_ns = i128::from(meta.mtime()) * 1_000_000_000 + i128::from(meta.mtime_nsec());
        Ok(Identity { device: meta.dev(), inode: meta.ino(), bytes: meta.len(), changed_ns })
    }
}

/// A model's bytes, or the way to them.
#[derive(Debug)]
pub enum Source {
    /// A file, which must stay as it is.
    File {
        /// The path as it was given.
        path: PathBuf,
        /// What the file was when it was loaded.
        identity: Option<Identity>,
    },
    /// Bytes that the library keeps.
    Memory(Bytes),
}

impl Source {
    /// A model file.
    pub fn file(path: &Path) -> Self {
        Source::File { path: path.to_path_buf(), identity: None }
    }

    /// Bytes kept as long as the model.
    pub fn retained_bytes(&self) -> usize {
        match self {
            Source::File { .. } => 0,
            Source::Memory(bytes) => bytes.len(),
        }
    }

    /// Imports the model for the first time.
    pub fn import(&mut self, options: &ImportOptions) -> Result<Graph> {
        match self {
            Source::Memory(bytes) => import::load_bytes(bytes.clone(), options),
            Source::File { path, identity } => {
                // The importer says best what is wrong with a path, so it goes first when there is no identity.
                let before = Identity::of(path);
                let graph = import::load(path, options)?;
                *identity = Some(before?);
                Ok(graph)
            }
        }
    }

    /// Imports the model again. `WrongState` if its file is no longer what it was.
    pub fn import_again(&self, options: &ImportOptions) -> Result<Graph> {
        match self {
            Source::Memory(bytes) => import::load_bytes(bytes.clone(), options),
            Source::File { path, identity } => {
                let is_same = |now: Identity| *identity == Some(now);
                let changed = "has changed since it was loaded; load it as a new model";
                ensure!(is_same(Identity::of(path)?), WrongState, "model {} {changed}", path.display());
                let graph = import::load(path, options)?;
                ensure!(is_same(Identity::of(path)?), WrongState, "model {} {changed}", path.display());
                Ok(graph)
            }
        }
    }
}
