//! What a process may do while a request is in flight: end, from any thread; fork; close the library.

mod models;
mod native;

use std::process::Command;

#[test]
fn exit_fork_and_dlclose_may_come_while_work_is_in_flight() {
    let folder = native::folder("endings");
    let model = folder.join("slow.onnx");
    std::fs::write(&model, models::heavy(20_000)).unwrap();
    let program = native::program(&folder, "endings", include_str!("abi/endings.c"));
    for what in ["exit", "exit-elsewhere", "fork", "unload"] {
        native::run(Command::new(&program).arg(what).arg(&model).arg(native::library()));
    }
}
