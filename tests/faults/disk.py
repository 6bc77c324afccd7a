"""A disk that a test breaks while penstockd runs, a wall clock that jumps, and a power switch: the hand on disk_faults.c.

    disk = Disk(folder, loses_power=True)
    daemon = Daemon(folder, ..., env=disk.env)     # the daemon's files are those of folder/data
    disk.fail("topics/*", Disk.WRITE, errno.ENOSPC)
    disk.mend()
    disk.jump(3600)                                # seconds; the daemon's wall clock only
    disk.power_off(daemon)                         # kill -9, and what was not synced is gone
    daemon.start()

How far the imitation goes. Files: their bytes as of their last successful fsync or fdatasync; a sync that failed loses what
it should have stored, for good, as on Linux. Names: a file or folder that was made, renamed or removed is so only after an
fsync of its folder, which is stricter than today's file systems are and just what POSIX promises. `arrived="some"`: of what
was not synced, a random choice of blocks did reach the disk, in any order, as disks do. Extended attributes are as they were
at the end, synced or not. Not imitated: single bits that rot, a disk that lies about a sync, writes through mmap (SQLite's
-shm file, which is left out: it is made anew at the next start), and what programs write that the daemon starts (they are not under the layer; their files are empty after a loss of power).
"""
import ctypes
import mmap
import os
import pathlib
import random
import shutil
import subprocess

from penstock import BIN

LAYER = pathlib.Path(os.environ.get("PENSTOCK_DISK_FAULTS", BIN.parent / "lib" / "libdisk_faults.so"))
ALWAYS = 0xFFFFFFFF
BLOCK = 4096


class RuleFields(ctypes.Structure):
    """`struct rule` of disk_faults.c."""
    _fields_ = [("pattern", ctypes.c_char * 104), ("calls", ctypes.c_uint32), ("error", ctypes.c_int32), ("wait_ms", ctypes.c_uint32),
                ("skip", ctypes.c_uint32), ("left", ctypes.c_uint32), ("hits", ctypes.c_uint32)]


class Control(ctypes.Structure):
    """`struct control` of disk_faults.c."""
    _fields_ = [("clock_offset_ns", ctypes.c_int64), ("unused", ctypes.c_int64), ("rules", RuleFields * 8)]


def why_not():
    """Why the layer cannot be used with this build; None: it can."""
    if not LAYER.exists():
        return f"{LAYER} is not built"
    tried = subprocess.run([BIN / "penstockd", "--version"], env={**os.environ, "LD_PRELOAD": str(LAYER)}, capture_output=True, text=True)
    return None if tried.returncode == 0 and not tried.stderr else f"the layer does not fit this build: {tried.stderr[:200]}"


class Disk:
    READ, WRITE, SYNC, CREATE = 1, 2, 4, 8
    KILL = -1  # in the place of an errno: the daemon is killed (-9) right before the call

    def __init__(self, folder, loses_power=False):
        self.root = pathlib.Path(folder) / "data"
        self.platter = pathlib.Path(folder) / "platter" if loses_power else None
        control = pathlib.Path(folder) / "faults"
        control.write_bytes(bytes(ctypes.sizeof(Control)))
        with open(control, "r+b") as file:
            self.control = Control.from_buffer(mmap.mmap(file.fileno(), 0))
        self.env = {"LD_PRELOAD": str(LAYER), "PENSTOCK_FAULTS": str(control), "PENSTOCK_FAULTS_ROOT": str(self.root)}
        if self.platter:
            self.env["PENSTOCK_FAULTS_PLATTER"] = str(self.platter)
            self.settle()

    # ---- faults ----

    def fail(self, pattern, calls, error, skip=0, times=ALWAYS):
        """The next `times` calls of that kind on files whose path below data/ matches, after `skip` of them. The rule, whose
        `hits` counts them."""
        return self._add(pattern, calls, error, 0, skip, times)

    def slow(self, pattern, calls, milliseconds):
        return self._add(pattern, calls, 0, milliseconds, 0, ALWAYS)

    def _add(self, pattern, calls, error, wait_ms, skip, times):
        rule = next(rule for rule in self.control.rules if not rule.pattern)
        rule.calls, rule.error, rule.wait_ms, rule.skip, rule.left, rule.hits = calls, error, wait_ms, skip, times, 0
        rule.pattern = pattern.encode()  # last: it is what makes the rule one
        return rule

    def mend(self):
        for rule in self.control.rules:
            rule.pattern = b""

    def jump(self, seconds):
        self.control.clock_offset_ns += int(seconds * 1e9)

    # ---- power ----

    def power_off(self, daemon, arrived="none", seed=0):
        """kill -9, and the data folder is what the disk holds. The daemon can be started again."""
        daemon.kill9()
        self.mend()
        before = self.root.with_name("lost")
        shutil.rmtree(before, ignore_errors=True)
        self.root.rename(before)
        folders = (self.platter / "names").glob(f"{before.stat().st_ino}-*[0-9]")  # not the draft of one who was killed
        folder = max((found.name for found in folders), key=lambda name: int(name.split("-")[1]), default="none")
        self.root.mkdir()
        self._lay_out(folder, self.root, before, random.Random(seed) if arrived == "some" else None)
        self.settle()

    def _lay_out(self, token, to, before, chance):
        names = self.platter / "names" / token
        for line in names.read_text().splitlines() if names.exists() else []:
            kind, entry, name = line.split(" ", 2)
            if name.endswith("-shm"):
                continue
            if kind == "d":
                (to / name).mkdir()
                self._lay_out(entry, to / name, before / name, chance)
                continue
            stored = self.platter / "data" / entry
            durable = stored.read_bytes() if stored.exists() else b""
            lost = before / name
            same = lost.is_file() and str(lost.stat().st_ino) == entry.split("-")[0]
            if chance and same:
                durable = mixed(durable, lost.read_bytes(), chance)
            (to / name).write_bytes(durable)
            for attribute in os.listxattr(lost) if same else []:
                os.setxattr(to / name, attribute, os.getxattr(lost, attribute))

    def settle(self):
        """Everything that is there now is on the disk. Needed before each start of the daemon; power_off() does it."""
        shutil.rmtree(self.platter, ignore_errors=True)
        (self.platter / "data").mkdir(parents=True)
        (self.platter / "names").mkdir()
        if not self.root.exists():
            return
        for folder, folders, files in os.walk(self.root):
            lines = []
            for name in folders + files:
                path = pathlib.Path(folder) / name
                token = f"{path.lstat().st_ino}-0"
                lines.append(f"{'d' if path.is_dir() else 'f'} {token} {name}\n")
                if path.is_file():
                    shutil.copyfile(path, self.platter / "data" / token)
            (self.platter / "names" / f"{pathlib.Path(folder).stat().st_ino}-0").write_text("".join(lines))


def mixed(durable, written, chance):
    """A file whose blocks are each as they were synced or as they were last written."""
    size = chance.choice([len(durable), len(written)])
    out = bytearray()
    for at in range(0, size, BLOCK):
        old, new = durable[at:at + BLOCK], written[at:at + BLOCK]
        block = new if chance.random() < 0.5 else old
        out += block.ljust(min(BLOCK, size - at), b"\0")[:size - at]
    return bytes(out)
