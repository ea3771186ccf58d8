"""compute-sanitizer over the checks of the step kinds, tool by tool, in a time that is given.

Every tool runs the test program on checks by which every entry is launched, memcheck on a share of all cases besides. What a tool must say at its end is a summary; one
that did not come so far (it hung, the time was up, it was not there for a check) is unfinished, and that is not good. What was done is kept, so that
`--resume` goes on where the time was up.
"""
import json
import os
import pathlib
import re
import signal
import subprocess
import threading
import time

# What a tool answers with if it has found something.
FOUND = 99
# Arguments of the test program by tool. racecheck looks at what threads of one block do in shared memory, and so needs each entry once or twice; it does not
# end with kernels that run beside each other.
TOOLS = {
    "memcheck": ["--cover", "2", "--every"],
    "racecheck": ["--cover", "2", "--skip-groups", "concurrent"],
    "synccheck": ["--cover", "2"],
    # Programs' memory is cleared when it is taken, so that only what is read outside it or of new allocations can be found.
    "initcheck": ["--cover", "1", "--skip-groups", "concurrent"],
}
USUAL = ["memcheck", "racecheck", "synccheck"]
# The end of a tool's output: errors, hazards for racecheck.
SUMMARY = re.compile(r"^=+ (?:ERROR|RACECHECK) SUMMARY: (\d+) (?:errors?|hazards?)")
# What is found, as it is found: a run that is killed has no summary.
FINDING = re.compile(r"^=+ +(?:Error|Warning|Invalid|Race|Barrier|Uninitialized|Program hit|Fatal|Internal|Malloc|Divergent|Missing)")
# What ending takes beyond the checks' time: the check that was begun, the contexts' end, the tool's own report.
GRACE_SECONDS, PROGRESS_SECONDS = 60, 15
# Lines of a tool's findings that are reported; all are in its file.
SHOWN = 40


class Run:
    """What has been read of a tool's output so far."""

    def __init__(self, tool: str, path: pathlib.Path):
        self.tool, self.told = tool, 0.0
        self.at, self.seen, self.failed, self.left_out = None, 0, [], None
        self.entries, self.not_launched, self.errors, self.findings = {}, None, None, []
        # What an earlier run has found stays found: its checks are not done again.
        for line in path.read_text().splitlines() if path.exists() else []:
            if FINDING.match(line):
                self.findings.append(line)
        self.text = path.open("a")

    def line(self, line: str) -> None:
        print(line, file=self.text, flush=True)
        if line.startswith("==="):
            if found := SUMMARY.match(line):
                self.errors = int(found[1])
            elif FINDING.match(line):
                self.findings.append(line)
            return
        try:
            entry = json.loads(line)
        except ValueError:
            return
        if not isinstance(entry, dict):
            return
        if "at" in entry:
            self.seen += 1
            self.at = entry
            self.progress()
        elif entry.get("outcome") == "failed":
            self.failed.append(entry)
        elif entry.get("group") == "entries":
            self.entries, self.not_launched = entry["launched"], entry["not_launched"]
        elif entry.get("group") == "all":
            self.left_out = entry["left_out"]

    def progress(self) -> None:
        if time.monotonic() - self.told > PROGRESS_SECONDS:
            self.told = time.monotonic()
            print(json.dumps({"part": f"sanitizer {self.tool}", "progress": self.at}), flush=True)

    def report(self, status) -> tuple[bool, dict]:
        """Whether all is good, and what was seen."""
        # Without its summary a tool may have seen nothing at all.
        unfinished = [text for text, is_so in (
            (f"the time was up at {self.at}", status == "timeout"),
            ("the tool has printed no summary", self.errors is None),
            ("the test program has not come to its end", self.left_out is None),
            (f"no time for {self.left_out} checks: go on with --resume", bool(self.left_out)),
        ) if is_so]
        skipped = "concurrent" if "concurrent" in TOOLS[self.tool] else ""
        entry = {"checks": self.seen, "errors": self.errors, "failed": len(self.failed), "left_out": self.left_out, "skipped_groups": skipped,
                 "entries": self.entries, "not_launched": self.not_launched, "status": status}
        if unfinished:
            entry["unfinished"] = unfinished
        if self.findings:
            entry["findings"] = [len(self.findings), *self.findings[:SHOWN]]
        is_good = not unfinished and self.errors == 0 and not self.findings and not self.failed and status == 0 and not self.not_launched
        return is_good, entry


def run(tool: str, sanitizer: str, tests: pathlib.Path, every: int, out: pathlib.Path, environment: dict, seconds: float, resume: bool):
    """One tool in so many seconds, its whole output in sanitizer-TOOL.txt. Answers whether it is good, what was seen, and the checks that failed."""
    done, text = out / f"sanitizer-{tool}.done", out / f"sanitizer-{tool}.txt"
    if not resume:
        done.unlink(missing_ok=True)
        text.unlink(missing_ok=True)
    words = [*TOOLS[tool], *([str(every)] if TOOLS[tool][-1] == "--every" else [])]
    checks = max(seconds - GRACE_SECONDS, seconds / 2)
    command = [sanitizer, "--tool", tool, "--error-exitcode", str(FOUND), tests, *words, "--progress", "--budget", str(int(checks)), "--done", done]
    state = Run(tool, text)
    is_late = threading.Event()
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", start_new_session=True) as process:
        def end() -> None:
            is_late.set()
            # The tool runs the program as a child, which would go on without it.
            os.killpg(process.pid, signal.SIGKILL)
        timer = threading.Timer(max(seconds, 1), end)
        timer.start()
        try:
            for line in process.stdout:
                state.line(line.rstrip("\n"))
            status = process.wait()
        finally:
            timer.cancel()
    state.text.close()
    is_good, entry = state.report("timeout" if is_late.is_set() else status)
    return is_good, entry, state.failed
