//! Paths that lead where they should not.

use super::wire::{Message, external, graph, model, node, with_weight};
use super::{Case, Model};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use streaminfer::error::Status::{self, ForbiddenPath, Malformed, NotFound};

/// A directory with a file beside it that no model may read; removed when dropped.
pub struct Folder(PathBuf);

impl Folder {
    pub fn new() -> Self {
        let root = std::env::temp_dir().join(format!("streaminfer-hostile-{}", std::process::id()));
        let folder = Folder(root.join("model"));
        fs::create_dir_all(folder.0.join("sub")).unwrap();
        fs::write(root.join("secret"), [0; 64]).unwrap();
        fs::write(folder.0.join("weights"), [0; 64]).unwrap();
        fs::write(folder.0.join("original"), [0; 64]).unwrap();
        fs::hard_link(folder.0.join("original"), folder.0.join("hard")).unwrap();
        symlink(root.join("secret"), folder.0.join("link")).unwrap();
        symlink(&root, folder.0.join("up")).unwrap();
        symlink("/proc/self", folder.0.join("process")).unwrap();
        symlink("loop", folder.0.join("loop")).unwrap();
        assert!(Command::new("mkfifo").arg(folder.0.join("fifo")).status().unwrap().success());
        fs::write(folder.0.join("empty"), []).unwrap();
        folder
    }

    fn write(&self, name: &str, model: &Message) -> PathBuf {
        let path = self.0.join(format!("{}.onnx", name.replace(' ', "-")));
        fs::write(&path, model).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(self.0.parent().unwrap()).unwrap();
    }
}

pub fn cases(folder: &Folder) -> Vec<Case> {
    let model_path = |name, path: PathBuf, status, says| Case { name, model: Model::Path(path), status, says };
    let at = |name, path: &str, status, says| model_path(name, folder.0.join(path), status, says);
    let located = |name, location: &str, status: Status, says| {
        let path = folder.write(name, &with_weight(external("w", 4, &[("location", location)])));
        model_path(name, path, status, says)
    };
    let absolute = folder.0.join("weights");
    let region = |name, offset: &str, length: &str, says| {
        let entries = [("location", "weights"), ("offset", offset), ("length", length)];
        model_path(name, folder.write(name, &with_weight(external("w", 4, &entries))), Malformed, says)
    };
    let overlapping = (0..16).map(|index| {
        external(&format!("w{index}"), 15, &[("location", "weights"), ("offset", ["0", "1", "2", "3"][index % 4])])
    });
    let names: Vec<String> = (0..16).map(|index| format!("w{index}")).collect();
    let operands: Vec<&str> = names.iter().map(String::as_str).collect();
    let overlap = model(graph().all(5, overlapping).put(1, node("Sum", &operands, &["y"])));
    vec![
        at("missing model", "absent.onnx", NotFound, "absent.onnx"),
        at("model is a directory", "sub", ForbiddenPath, "a directory"),
        at("model is a FIFO", "fifo", ForbiddenPath, "a FIFO"),
        at("model is a device", "/dev/zero", ForbiddenPath, "a device"),
        at("model is empty", "empty", Malformed, "empty"),
        at("model is a circle of links", "loop", ForbiddenPath, "loop"),
        located("absolute path", absolute.to_str().unwrap(), ForbiddenPath, "below the model's directory"),
        located("path to proc", "/proc/self/environ", ForbiddenPath, "below the model's directory"),
        located("path up", "../secret", ForbiddenPath, "below the model's directory"),
        located("path down and up", "sub/../../secret", ForbiddenPath, "below the model's directory"),
        located("symbolic link", "link", ForbiddenPath, "symbolic link"),
        located("directory linked", "up/secret", ForbiddenPath, "symbolic link"),
        located("proc linked", "process/environ", ForbiddenPath, "symbolic link"),
        located("hard link", "hard", ForbiddenPath, "hard links"),
        located("fifo for data", "fifo", ForbiddenPath, "a FIFO"),
        located("directory for data", "sub", ForbiddenPath, "a directory"),
        located("no path", "", ForbiddenPath, "names no file"),
        located("zero in path", "weights\0", ForbiddenPath, "names no file"),
        located("absent data", "absent", NotFound, "absent"),
        region("data beyond the end", "60", "16", "wants 16 of them from byte 60"),
        region("offset at the end of the world", "18446744073709551615", "16", "wants 16"),
        region("wrong length", "0", "15", "needs 16"),
        model_path("overlapping tensors", folder.write("overlap", &overlap), Malformed, "overlap"),
    ]
}
