"""Where the daemon listens: several addresses, Unix sockets, and sockets that somebody else has made and keeps."""
import fcntl
import http.client
import json
import os
import re
import shutil
import signal
import socket
import ssl
import stat
import subprocess
import threading

import pytest

from penstock import BIN, penstock, wait_until

SHOP = {"shop": "name: shop\ntopics: {orders: {}}\njobs: {work: {run: [\"true\"]}}\n"}


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=20)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(20)
        self.sock.connect(self.path)


def ask(connection, method="GET", path="/healthz", body=None, headers=None):
    """(status, body) of one request on a connection of its own."""
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def refuses(*arguments, env=None):
    """What a penstockd says that does not start."""
    finished = subprocess.run([str(BIN / "penstockd"), *map(str, arguments)], capture_output=True, text=True, timeout=60, env=env)
    assert finished.returncode in (1, 2), finished
    return finished.stderr


# ---- several addresses, Unix sockets ----


def test_several_addresses_serve_the_same(start_daemon, tmp_path):
    path = tmp_path / "a.sock"
    daemon = start_daemon(SHOP, args=["--listen", "[::1]:0", "--listen", f"unix:{path}"])
    line = next(line for line in daemon.log.read_text().splitlines() if "is ready" in line)
    second = re.search(r"http://\[::1\]:(\d+)", line)
    assert second and f"unix:{path}" in line, line
    body = json.dumps({"n": 1})
    for connection in (daemon.connect(), http.client.HTTPConnection("::1", int(second[1]), timeout=20), UnixConnection(path)):
        assert ask(connection, "POST", "/v1/topics/orders/events", body, {"Content-Type": "application/json"})[0] == 202
    assert daemon.topic("orders")["events"] == 3
    assert (daemon.data / "listen").read_text() == "%s:%d\n" % daemon.address, "the first address that speaks plain HTTP"


def test_addresses_in_the_settings(tmp_path):
    path = tmp_path / "only.sock"
    settings = tmp_path / "settings.yaml"
    settings.write_text(f"data: {tmp_path}/data\nlisten: 'unix:{path}'\nsocket_mode: '0600'\n")
    process = subprocess.Popen([str(BIN / "penstockd"), "--config", str(settings)], stderr=subprocess.DEVNULL)
    try:
        wait_until(path.exists, "the socket's file")
        wait_until(lambda: ask(UnixConnection(path), path="/readyz")[0] == 200, "/readyz")
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert (tmp_path / "data" / "listen").read_text() == f"unix:{path}\n"
    finally:
        process.terminate()
        assert process.wait(60) == 0
    assert not path.exists()


def test_a_socket_file_goes_with_its_daemon(start_daemon, tmp_path):
    path = tmp_path / "p.sock"
    daemon = start_daemon(SHOP, args=["--listen", f"unix:{path}"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    daemon.kill9()
    assert path.exists(), "nobody was there to remove it"
    daemon.start()
    assert ask(UnixConnection(path))[0] == 200, "what a dead daemon has left is replaced"
    assert daemon.stop() == 0
    assert not path.exists()
    daemon.start()
    path.unlink()
    path.write_text("somebody else's")
    assert daemon.stop() == 0
    assert path.read_text() == "somebody else's"
    path.unlink()
    daemon.start()


def test_a_living_socket_is_not_taken(start_daemon, tmp_path):
    path = tmp_path / "p.sock"
    daemon = start_daemon(args=["--listen", f"unix:{path}"])
    told = refuses("--data", tmp_path / "other", "--listen", f"unix:{path}")
    assert f"unix:{path}" in told and "another process listens there" in told
    assert ask(UnixConnection(path))[0] == 200
    assert daemon.get("/healthz").status == 200
    taken = tmp_path / "file"
    taken.write_text("no socket")
    told = refuses("--data", tmp_path / "other", "--listen", f"unix:{taken}")
    assert "no socket" in told and taken.read_text() == "no socket"


@pytest.mark.parametrize("address, words", [
    ("unix:relative/path", "unix:/PATH"), ("unix:", "unix:/PATH"), ("unix:/" + "x" * 200, "at most"), ("nowhere", "HOST:PORT"),
    ("ftp://127.0.0.1:1", "HOST:PORT"), ("127.0.0.1:99999", "HOST:PORT"), ("127.0.0.1", "HOST:PORT"),
    ("https://127.0.0.1:0", "certificate"), ("0.0.0.0:0", "network"), ("[::]:0", "network"),
    ("unix:/no/such/folder/p.sock", "its folder /no/such/folder is not there: make it")])
def test_addresses_that_cannot_be(tmp_path, address, words):
    told = refuses("--data", tmp_path / "data", "--listen", address)
    assert words in told and address.removeprefix("https://").split("0.0")[0] in told, told


def test_one_bad_address_of_several_is_enough(tmp_path):
    assert "'nowhere'" in refuses("--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--listen", "nowhere")
    settings = tmp_path / "settings.yaml"
    settings.write_text("listen: []\n")
    assert "listen" in refuses("--config", settings, "--data", tmp_path / "data")
    settings.write_text(f"listen: 'unix:{tmp_path}/p.sock'\nsocket_group: no-such-group\n")
    assert "no-such-group" in refuses("--config", settings, "--data", tmp_path / "data")
    assert not list(tmp_path.glob("p.sock*")), "nothing half made is left"
    settings.write_text("socket_mode: '0777'\n")
    assert "0660" in refuses("--config", settings, "--data", tmp_path / "data")


def test_the_client_speaks_to_a_unix_socket(start_daemon, tmp_path):
    path = tmp_path / "with space.sock"
    daemon = start_daemon(SHOP, args=["--listen", f"unix:{path}"])
    for url in (f"unix:{path}", f"unix://{path}", "http+unix://" + str(path).replace("/", "%2F").replace(" ", "%20")):
        done = penstock("trigger", "shop", "work", "--wait", env={"PENSTOCK_URL": url})
        assert done.returncode == 0, done
    assert len(daemon.runs("shop", "work")) == 3
    gone = penstock("runs", env={"PENSTOCK_URL": f"unix:{tmp_path}/gone.sock"})
    assert gone.returncode == 3 and "gone.sock" in gone.stderr


# ---- inherited sockets ----


class Heir:
    """A penstockd that gets its listening sockets from this test, as systemd hands them over."""

    def __init__(self, folder, sockets, names=None, flags=()):
        self.folder, self.sockets, self.flags = folder, sockets, [str(flag) for flag in flags]
        self.names = names
        self.process = None

    def start(self):
        fds = [one.fileno() for one in self.sockets]
        # systemd's protocol: file descriptors from 3 on, and the process id of who is meant.
        moves = "".join(f"exec {3 + i}<&{fd}; " for i, fd in enumerate(fds))
        script = moves + 'export LISTEN_PID=$$; exec "$@"'
        env = {**os.environ, "LISTEN_FDS": str(len(fds)), **({"LISTEN_FDNAMES": self.names} if self.names else {})}
        self.log = open(self.folder / "heir.log", "a")
        self.process = subprocess.Popen(
            ["bash", "-c", script, "bash", str(BIN / "penstockd"), "--data", str(self.folder / "data"), *self.flags],
            env=env, pass_fds=fds, stderr=self.log, stdout=self.log)
        return self

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        self.process = None
        self.log.close()
        return code


@pytest.fixture
def heir(tmp_path):
    made = []

    def make(sockets, names=None, flags=()):
        made.append(Heir(tmp_path, sockets, names, flags))
        return made[-1]

    yield make
    for one in made:
        if one.process:
            assert one.stop() == 0, (tmp_path / "heir.log").read_text()


def out_of_the_way(one):
    """The same socket, with a number that is none of those that it gets in the end."""
    moved = socket.socket(fileno=fcntl.fcntl(one.fileno(), fcntl.F_DUPFD, 20))
    one.close()
    return moved


def tcp_socket(host="127.0.0.1"):
    one = socket.socket(socket.AF_INET)
    one.bind((host, 0))
    one.listen(4096)
    return out_of_the_way(one)


def unix_socket(path):
    one = socket.socket(socket.AF_UNIX)
    one.bind(str(path))
    one.listen(4096)
    return out_of_the_way(one)


def put_shop(port):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    assert ask(connection, "PUT", "/v1/pipelines/shop", SHOP["shop"], {"Content-Type": "application/yaml"})[0] == 201


def test_inherited_sockets_are_used_instead(heir, tmp_path):
    path = tmp_path / "held.sock"
    tcp, unix = tcp_socket(), unix_socket(path)
    port = tcp.getsockname()[1]
    one = heir([tcp, unix], flags=["--listen", "127.0.0.1:1"]).start()  # nobody may bind port 1: it is not tried
    assert ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), path="/readyz")[0] == 200
    assert ask(UnixConnection(path))[0] == 200
    wait_until((tmp_path / "data" / "listen").exists, "DATA/listen")
    assert (tmp_path / "data" / "listen").read_text() == f"127.0.0.1:{port}\n"
    assert one.stop() == 0
    assert path.exists(), "the file is not the daemon's"
    # Nobody serves, nobody is refused: the next daemon answers.
    waiting = UnixConnection(path)
    waiting.request("GET", "/healthz")
    one.start()
    assert waiting.getresponse().status == 200


def test_who_comes_over_a_socket_without_a_file_is_written_down_as_that(heir, tmp_path):
    """Its name has no permissions, so nobody is trusted for being there."""
    name = f"\0penstock-test-{os.getpid()}"
    heir([unix_socket(name)]).start()
    wait_until(lambda: "is ready" in (tmp_path / "heir.log").read_text(), "the daemon")
    status, _ = ask(UnixConnection(name), "PUT", "/v1/pipelines/shop", SHOP["shop"], {"Content-Type": "application/yaml"})
    assert status == 201
    entry = json.loads(ask(UnixConnection(name), path="/v1/audit")[1])["items"][0]
    assert (entry["who"], entry["address"]) == ("anyone", "unix"), entry


def test_nobody_is_refused_while_daemons_change(heir):
    """Clients connect anew for each event, and no one tries twice, while the daemon is replaced again and again."""
    tcp = tcp_socket()
    port = tcp.getsockname()[1]
    one = heir([tcp]).start()
    put_shop(port)
    statuses, failures = [], []
    over = threading.Event()

    def send():
        while not over.is_set():
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
                status, _ = ask(connection, "POST", "/v1/topics/orders/events", "{}", {"Content-Type": "application/json"})
                statuses.append(status)
            except Exception as failure:
                failures.append(repr(failure))

    senders = [threading.Thread(target=send) for _ in range(4)]
    for sender in senders:
        sender.start()
    for _ in range(5):
        before = len(statuses)
        wait_until(lambda: len(statuses) > before + 50, "50 events more")
        assert one.stop() == 0
        one.start()
    over.set()
    for sender in senders:
        sender.join(60)
    assert not failures
    # Only a request on a connection that was open at the moment of the stop may be told to come again.
    assert set(statuses) <= {202, 503} and statuses.count(503) <= 5 * len(senders), statuses.count(503)
    stored = json.loads(ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), path="/v1/topics/orders")[1])["events"]
    assert stored == statuses.count(202)


def test_the_sockets_are_not_handed_on(heir):
    """The programs that the daemon starts have none of them, and do not believe that they have."""
    tcp = tcp_socket()
    port = tcp.getsockname()[1]
    heir([tcp]).start()
    pipeline = "name: look\njobs: {look: {run: [sh, -c, 'ls -l /proc/self/fd; env']}}\n"
    asked = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    assert ask(asked, "PUT", "/v1/pipelines/look", pipeline, {"Content-Type": "application/yaml"})[0] == 201
    status, body = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "POST",
                       "/v1/pipelines/look/jobs/look/runs?wait=30s", "{}")
    run = json.loads(body)
    assert (status, run["state"]) == (200, "succeeded")
    _, log = ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), path=f"/v1/runs/{run['id']}/logs")
    assert b"LISTEN_" not in log and b"socket:" not in log, log


def test_what_cannot_be_inherited(tmp_path):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams, tcp_socket("0.0.0.0") as open_to_all:
        datagrams.bind(("127.0.0.1", 0))
        for one, name, words, code in ((datagrams, None, "stream", 2), (open_to_all, None, "network", 1), (open_to_all, "https", "certificate", 2)):
            refused = Heir(tmp_path, [one], name).start()
            assert refused.process.wait(60) == code
            assert words in (tmp_path / "heir.log").read_text()


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_an_inherited_socket_speaks_tls(heir, tmp_path):
    made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=x",
                           "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", tmp_path / "key", "-out", tmp_path / "pem"], capture_output=True)
    assert made.returncode == 0, made
    (tmp_path / "settings.yaml").write_text(f"tls: {{certificate: {tmp_path}/pem, key: {tmp_path}/key}}\n")
    secure, plain = tcp_socket(), tcp_socket()
    one = heir([secure, plain], "https:rest", ["--config", tmp_path / "settings.yaml"]).start()
    trust = ssl.create_default_context(cafile=str(tmp_path / "pem"))
    port = secure.getsockname()[1]
    for again in (False, True):
        if again:
            assert one.stop() == 0
            one.start()
        assert ask(http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust), path="/readyz")[0] == 200
        assert ask(http.client.HTTPConnection("127.0.0.1", plain.getsockname()[1], timeout=60))[0] == 200


@pytest.mark.skipif(not shutil.which("systemd-socket-activate"), reason="systemd-socket-activate is not installed")
def test_systemd_hands_over_its_sockets(tmp_path):
    path = tmp_path / "s.sock"
    process = subprocess.Popen(["systemd-socket-activate", "-l", str(path), str(BIN / "penstockd"), "--data", str(tmp_path / "data")],
                               stderr=subprocess.DEVNULL)

    def served():
        try:
            return ask(UnixConnection(path), path="/readyz")[0] == 200
        except (FileNotFoundError, ConnectionRefusedError):
            return False  # the socket is not there yet

    try:
        wait_until(served, "the daemon that the first connection starts")
    finally:
        process.terminate()
        assert process.wait(60) == 0
