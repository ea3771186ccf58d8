//! Files opened safely and read into owned memory. Never mapped: truncating a mapped file kills the reader.

use crate::error::{Error, Result, Status, ensure, fail};
use crate::limits::{MODEL_BYTES_MAX, MODEL_FILE_BYTES_MAX};
use bytes::Bytes;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fmt::Display;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

/// Opening a FIFO without a writer, or a terminal, must not block or have effects.
const READ: OFlags = OFlags::RDONLY.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);

fn io_error(error: Errno, what: impl Display) -> Error {
    let status = match error {
        Errno::NOENT | Errno::NOTDIR => Status::NotFound,
        Errno::LOOP | Errno::XDEV => Status::ForbiddenPath,
        _ => Status::Io,
    };
    Error::io(status, what, &error.into())
}

/// Size of an open plain file.
fn plain_size(stat: &Stat, what: &str) -> Result<u64> {
    let kind = FileType::from_raw_mode(stat.st_mode);
    ensure!(kind == FileType::RegularFile, ForbiddenPath, "{what} is not a plain file but {}", kind_name(kind));
    Ok(u64::try_from(stat.st_size).unwrap_or(0))
}

fn kind_name(kind: FileType) -> &'static str {
    match kind {
        FileType::Directory => "a directory",
        FileType::Fifo => "a FIFO",
        FileType::CharacterDevice | FileType::BlockDevice => "a device",
        FileType::Socket => "a socket",
        _ => "something else",
    }
}

/// Reads `length` bytes from `offset` on.
fn read_region(mut file: &File, offset: u64, length: usize, what: &str) -> Result<Bytes> {
    let mut data = Vec::new();
    data.try_reserve_exact(length).map_err(|_| fail!(OutOfMemory, "no memory for the {length} bytes of {what}"))?;
    file.seek(SeekFrom::Start(offset))
        .and_then(|_| file.take(length as u64).read_to_end(&mut data))
        .map_err(|error| Error::io(Status::Io, format!("cannot read {what}"), &error))?;
    ensure!(data.len() == length, Io, "{what} became shorter while it was read");
    Ok(data.into())
}

/// Reads a model file. The caller chose the path, so it may lead through symbolic links, but must end at a plain file.
pub fn read_model(path: &Path) -> Result<Bytes> {
    let what = format!("model {}", path.display());
    let file = openat(CWD, path, READ, Mode::empty()).map_err(|error| match error {
        // What opening a socket, or a FIFO or device without its other end, answers.
        Errno::NXIO => fail!(ForbiddenPath, "{what} is not a plain file"),
        error => io_error(error, &what),
    })?;
    let stat = fstat(&file).map_err(|error| io_error(error, &what))?;
    let size = plain_size(&stat, &what)?;
    ensure!(size > 0, Malformed, "{what} is empty");
    ensure!(size <= MODEL_FILE_BYTES_MAX, TooLarge, "{what} has {size} bytes, more than a protobuf message can have");
    read_region(&File::from(file), 0, size as usize, &what)
}

/// What has been read of one external file.
#[derive(Debug)]
struct Regions {
    /// Bytes that may still be read: distinct tensors do not overlap, so together they are no longer than the file.
    left: u64,
    /// Regions by offset and length; tensors may share one.
    read: HashMap<(u64, usize), Bytes>,
}

/// The directory of a model and what was read of the files in it.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    handle: Option<OwnedFd>,
    /// By device and inode.
    files: HashMap<(u64, u64), Regions>,
    /// Bytes read from all files.
    bytes: u64,
}

impl Directory {
    /// The directory that holds the model at `path`.
    pub fn of_model(path: &Path) -> Self {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        Directory { path: parent.to_owned(), handle: None, files: HashMap::new(), bytes: 0 }
    }

    /// Reads `length` bytes at `offset` of a file below this directory.
    pub fn read(&mut self, location: &str, offset: u64, length: usize) -> Result<Bytes> {
        let what = format!("external data '{location}'");
        let file = self.open(location, &what)?;
        let stat = fstat(&file).map_err(|error| io_error(error, &what))?;
        let size = plain_size(&stat, &what)?;
        ensure!(stat.st_nlink == 1, ForbiddenPath, "{what} has {} hard links, which may lead anywhere", stat.st_nlink);
        let inside = offset.checked_add(length as u64).is_some_and(|end| end <= size);
        ensure!(inside, Malformed, "{what} has {size} bytes, and a tensor wants {length} of them from byte {offset}");

        let regions = self
            .files
            .entry((stat.st_dev, stat.st_ino))
            .or_insert_with(|| Regions { left: size, read: HashMap::new() });
        if let Some(data) = regions.read.get(&(offset, length)) {
            return Ok(data.clone());
        }
        ensure!(length as u64 <= regions.left, Malformed, "{what}: tensors overlap");
        regions.left -= length as u64;
        self.bytes = self.bytes.saturating_add(length as u64);
        ensure!(self.bytes <= MODEL_BYTES_MAX, TooLarge, "external data takes more than {MODEL_BYTES_MAX} bytes");
        let data = read_region(&File::from(file), offset, length, &what)?;
        regions.read.insert((offset, length), data.clone());
        Ok(data)
    }

    fn open(&mut self, location: &str, what: &str) -> Result<OwnedFd> {
        let names = plain_components(location, what)?;
        if self.handle.is_none() {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
            let handle = openat(CWD, &self.path, flags, Mode::empty());
            self.handle = Some(handle.map_err(|error| io_error(error, format!("directory {}", self.path.display())))?);
        }
        let handle = self.handle.as_ref().expect("just opened");
        open_beneath(handle, &names)
            .or_else(|error| match error {
                // Kernels before 5.6, and sandboxes that do not know the call.
                Errno::NOSYS | Errno::PERM | Errno::INVAL => open_step_by_step(handle, &names),
                error => Err(error),
            })
            .map_err(|error| match error {
                Errno::LOOP | Errno::XDEV => {
                    fail!(ForbiddenPath, "{what} leads through a symbolic link or out of the model's directory")
                }
                Errno::NXIO => fail!(ForbiddenPath, "{what} is not a plain file"),
                error => io_error(error, what),
            })
    }
}

/// The names along a relative path that stays below where it starts.
fn plain_components<'a>(location: &'a str, what: &str) -> Result<Vec<&'a OsStr>> {
    let mut names = Vec::new();
    for component in Path::new(location).components() {
        match component {
            Component::Normal(name) => names.push(name),
            Component::CurDir => {}
            _ => return Err(fail!(ForbiddenPath, "{what} is not a path below the model's directory")),
        }
    }
    ensure!(!names.is_empty() && !location.contains('\0'), ForbiddenPath, "{what} names no file");
    Ok(names)
}

fn open_beneath(directory: &OwnedFd, names: &[&OsStr]) -> rustix::io::Result<OwnedFd> {
    let path: PathBuf = names.iter().collect();
    openat2(directory, path, READ, Mode::empty(), ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS)
}

/// The same without `openat2`: every component is opened by itself, and none may be a link.
fn open_step_by_step(directory: &OwnedFd, names: &[&OsStr]) -> rustix::io::Result<OwnedFd> {
    let (last, parents) = names.split_last().ok_or(Errno::NOENT)?;
    let mut current: Option<OwnedFd> = None;
    for parent in parents {
        let at = current.as_ref().unwrap_or(directory).as_fd();
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let opened = openat(at, *parent, flags, Mode::empty()).map_err(|error| {
            // Linux answers NOTDIR for a link when a directory is asked for.
            let link = error == Errno::NOTDIR && rustix::fs::readlinkat(at, *parent, Vec::new()).is_ok();
            if link { Errno::LOOP } else { error }
        })?;
        current = Some(opened);
    }
    openat(current.as_ref().unwrap_or(directory), *last, READ | OFlags::NOFOLLOW, Mode::empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    /// A directory that is removed when the test ends.
    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("streaminfer-file-{name}-{}", std::process::id()));
            fs::create_dir_all(path.join("model/sub")).unwrap();
            fs::write(path.join("secret"), b"outside").unwrap();
            fs::write(path.join("model/weights"), b"0123456789").unwrap();
            fs::write(path.join("model/sub/deep"), b"deep").unwrap();
            symlink(path.join("secret"), path.join("model/link")).unwrap();
            symlink("sub", path.join("model/linked")).unwrap();
            fs::write(path.join("model/twice"), b"linked").unwrap();
            fs::hard_link(path.join("model/twice"), path.join("model/hard")).unwrap();
            rustix::fs::mknodat(CWD, path.join("model/fifo"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
            Scratch(path)
        }

        fn directory(&self) -> Directory {
            Directory::of_model(&self.0.join("model/m.onnx"))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn regions_are_read_and_checked() {
        let scratch = Scratch::new("regions");
        let mut directory = scratch.directory();
        assert_eq!(directory.read("weights", 2, 3).unwrap(), "234");
        assert_eq!(directory.read("./weights", 2, 3).unwrap(), "234");
        assert_eq!(directory.read("weights", 5, 5).unwrap(), "56789");
        assert_eq!(directory.read("sub/deep", 0, 4).unwrap(), "deep");
        let mut refuse = |offset, length| directory.read("weights", offset, length).unwrap_err();
        assert_eq!(refuse(0, 1 << 50).status, Status::Malformed);
        assert_eq!(refuse(u64::MAX, 2).status, Status::Malformed);
        assert!(refuse(0, 10).message.contains("overlap"));
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let scratch = Scratch::new("outside");
        let mut directory = scratch.directory();
        let absolute = scratch.0.join("secret");
        let paths = [
            "../secret",
            "sub/../../secret",
            "sub/../weights",
            absolute.to_str().unwrap(),
            "/proc/self/environ",
            "link",
            "linked/deep",
            "hard",
            "twice",
            "fifo",
            "sub",
            ".",
            "",
        ];
        for path in paths {
            let error = directory.read(path, 0, 1).unwrap_err();
            assert_eq!(error.status, Status::ForbiddenPath, "{path}: {error}");
        }
        assert_eq!(directory.read("absent", 0, 1).unwrap_err().status, Status::NotFound);
    }

    #[test]
    fn without_openat2_the_same_paths_are_refused() {
        let scratch = Scratch::new("steps");
        let mut directory = scratch.directory();
        directory.read("weights", 0, 1).unwrap();
        let handle = directory.handle.as_ref().unwrap();
        let open = |location| open_step_by_step(handle, &plain_components(location, "test").unwrap()).map(drop);
        assert_eq!(open("weights"), Ok(()));
        assert_eq!(open("sub/deep"), Ok(()));
        assert_eq!(open("link"), Err(Errno::LOOP));
        assert_eq!(open("linked/deep"), Err(Errno::LOOP));
        assert_eq!(open("weights/deep"), Err(Errno::NOTDIR));
    }

    #[test]
    fn a_model_path_must_end_at_a_plain_file() {
        let scratch = Scratch::new("model");
        let at = |name: &str| read_model(&scratch.0.join("model").join(name));
        assert_eq!(at("weights").unwrap(), "0123456789");
        assert_eq!(at("link").unwrap(), "outside");
        assert_eq!(at("hard").unwrap(), "linked");
        assert_eq!(at("fifo").unwrap_err().status, Status::ForbiddenPath);
        assert_eq!(at("sub").unwrap_err().status, Status::ForbiddenPath);
        assert_eq!(at("absent").unwrap_err().status, Status::NotFound);
        assert_eq!(read_model(Path::new("/dev/zero")).unwrap_err().status, Status::ForbiddenPath);
        fs::write(scratch.0.join("model/empty"), b"").unwrap();
        assert_eq!(at("empty").unwrap_err().status, Status::Malformed);
    }
}
