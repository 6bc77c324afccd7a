"""The fixtures of the end-to-end tests, for tests that do worse things to the daemon."""
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))

from fixtures import daemon, start_daemon  # noqa: E402, F401
