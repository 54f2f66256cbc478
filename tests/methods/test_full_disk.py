"""A disk that fills up under a run: one message, nothing lost, and with room enough it ends as if nothing had been."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.methods.made_runs import shrunken

UNSHARE = ["unshare", "--user", "--map-root-user", "--mount"]
pytestmark = pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="needs `unshare`, and leave to mount a small tmpfs with it",
)
CHANGES = shrunken(stages__finetuning__save_every=1, stages__stage1__save_every=1)

# In a mount namespace of its own: run on a small disk, make room, go on, and keep what is there then.
SCRIPT = """
mkdir "$PLACE/disk" && mount -t tmpfs -o "size=${KILOBYTES}k" tmpfs "$PLACE/disk" || exit 99
"$@" >"$PLACE/out" 2>"$PLACE/err"; echo "$?" >"$PLACE/status"
mount -o remount,size=256m "$PLACE/disk"
"$@" --resume >"$PLACE/out-later" 2>"$PLACE/err-later"; echo "$?" >"$PLACE/status-later"
cp -r "$PLACE/disk/run" "$PLACE/kept"
"""


@pytest.mark.parametrize("kilobytes", [24, 200, 400])
def test_a_full_disk(tmp_path: Path, kilobytes: int) -> None:
    command = [str(Path(sys.executable).parent / "personalign"), "run", "quickstart-scratch"]
    command += ["--out", str(tmp_path / "disk" / "run")]
    command += [part for change in CHANGES for part in ("--set", change)]
    subprocess.run(
        [*UNSHARE, "bash", "-c", SCRIPT, "full-disk", *command],
        check=True,
        env=os.environ | {"PLACE": str(tmp_path), "KILOBYTES": str(kilobytes)},
    )
    errors = (tmp_path / "err").read_text()
    assert (tmp_path / "status").read_text() == "1\n", errors
    assert "no space is left on the disk; make room" in errors
    assert "Traceback" not in errors
    assert (tmp_path / "status-later").read_text() == "0\n", (tmp_path / "err-later").read_text()
    assert "pal_predicted" in json.loads((tmp_path / "kept" / "results.json").read_text())
