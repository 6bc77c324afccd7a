"""HTTPS: what is spoken, what is refused, and certificates that change while connections live."""
import json
import os
import re
import shutil
import socket
import ssl
import subprocess

import pytest

from penstock import penstock, wait_until

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
SHOP = {"shop": "name: shop\ntopics: {orders: {}}\njobs: {work: {run: [\"true\"]}}\n"}


def openssl(*arguments):
    finished = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True)
    assert finished.returncode == 0, finished.stderr


def make_certificate(folder, name, days=90, issuer=None):
    """NAME.pem and NAME.key; its own authority, or one of `issuer`'s."""
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", folder / f"{name}.key",
            "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", days,
            *(["-CA", folder / f"{issuer}.pem", "-CAkey", folder / f"{issuer}.key"] if issuer else []),
            "-x509", "-out", folder / f"{name}.pem")
    (folder / f"{name}.key").chmod(0o600)


@pytest.fixture
def secure(start_daemon, tmp_path):
    """A daemon with HTTP and HTTPS; `secure(more)` adds lines to its settings."""
    make_certificate(tmp_path, "first")
    for kind in ("pem", "key"):
        shutil.copy(tmp_path / f"first.{kind}", tmp_path / f"server.{kind}")

    def start(client_ca=None):
        settings = tmp_path / "settings.yaml"
        tls = {"certificate": str(tmp_path / "server.pem"), "key": str(tmp_path / "server.key")}
        if client_ca:
            tls["client_ca"] = str(client_ca)
        settings.write_text(json.dumps({"tls": tls}))
        daemon = start_daemon(SHOP, args=["--listen", "https://127.0.0.1:0", "--config", settings])
        daemon.https = int(re.findall(r"https://127.0.0.1:(\d+)", daemon.log.read_text())[-1])
        daemon.folder_of_files = tmp_path
        return daemon
    return start


def dial(daemon, authority="first", **how):
    """A TLS connection; `how` sets attributes of the context."""
    context = ssl.create_default_context(cafile=str(daemon.folder_of_files / f"{authority}.pem"))
    own = how.pop("own", None)
    if own:
        context.load_cert_chain(daemon.folder_of_files / f"{own}.pem", daemon.folder_of_files / f"{own}.key")
    alpn = how.pop("alpn", None)
    if alpn:
        context.set_alpn_protocols(alpn)
    ciphers = how.pop("ciphers", None)
    if ciphers:
        context.set_ciphers(ciphers)
    session = how.pop("session", None)
    shared = how.pop("context", context)
    for name, value in how.items():
        setattr(shared, name, value)
    plain = socket.create_connection(("127.0.0.1", daemon.https), timeout=20)
    try:
        return shared.wrap_socket(plain, server_hostname="localhost", session=session)
    except Exception:
        plain.close()
        raise


def ask(connection, text=b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"):
    connection.sendall(text)
    received = b""
    while b"\r\n\r\n" not in received:
        piece = connection.recv(65536)
        if not piece:
            return received
        received += piece
    length = re.search(rb"Content-Length: (\d+)", received)
    while length and len(received.split(b"\r\n\r\n", 1)[1]) < int(length[1]):
        received += connection.recv(65536)
    return received


def serial_seen(daemon):
    with socket.create_connection(("127.0.0.1", daemon.https), timeout=20) as plain:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(plain) as connection:
            return connection.getpeercert(True)


def pem(folder, name):
    return ssl.PEM_cert_to_DER_cert((folder / f"{name}.pem").read_text())


def test_requests_over_tls(secure):
    daemon = secure()
    with dial(daemon, alpn=["h2", "http/1.1"]) as connection:
        assert connection.version() == "TLSv1.3" and connection.selected_alpn_protocol() == "http/1.1"
        for _ in range(20):
            assert ask(connection).startswith(b"HTTP/1.1 200")
        # A body larger than many records, in pieces.
        body = json.dumps([{"n": n, "text": "x" * 1000} for n in range(1000)]).encode()
        answer = ask(connection, b"POST /v1/topics/orders/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: %d\r\n\r\n" % len(body) + body)
        assert answer.startswith(b"HTTP/1.1 202")
        page = ask(connection, b"GET /v1/topics/orders/events?limit=1000 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert len(json.loads(page.split(b"\r\n\r\n", 1)[1])["items"]) == 1000
        # Requests sent at once are answered in order.
        one = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(one * 3 + one.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        received = b""
        while piece := connection.recv(65536):
            received += piece
        assert received.count(b"HTTP/1.1 200") == 4, "and the end is said properly, or this would be an error"


def test_streams_over_tls(secure):
    daemon = secure()
    with dial(daemon) as connection:
        connection.sendall(b"GET /v1/topics/orders/events?follow=true&after=0 HTTP/1.1\r\nHost: localhost\r\n"
                           b"Accept: text/event-stream\r\n\r\n")
        received = b""
        for n in range(3):
            daemon.publish("orders", [{"n": n}])
            while b'"n": %d' % n not in received and b'"n":%d' % n not in received:
                received += connection.recv(65536)
    wait_until(lambda: "penstock_http_connections 1\n" in daemon.get("/metrics").text, "its leaving to be noticed")


def websocket_message(connection, buffered):
    """The payload of the next message, put together from its frames; what comes behind it stays in `buffered`."""
    def read(size):
        while len(buffered) < size:
            piece = connection.recv(65536)
            assert piece, "the connection has ended"
            buffered.extend(piece)
        taken = bytes(buffered[:size])
        del buffered[:size]
        return taken
    whole, last = b"", False
    while not last:
        head = read(2)
        last, size = bool(head[0] & 128), head[1] & 127
        whole += read(int.from_bytes(read(2 if size == 126 else 8), "big") if size > 125 else size)
    return whole


def test_websockets_over_tls(secure):
    daemon = secure()
    daemon.put("live", "name: live\ntopics: {ticks: {}}\nflows: {show: {from: {topic: ticks}, to: {subscribers: {name: ticks}}}}\n")
    with dial(daemon) as connection:
        answer = ask(connection, b"GET /v1/streams/ticks HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
                     b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
        head, _, rest = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101")
        buffered = bytearray(rest)
        for size in (10, 1000, 300_000):  # also in many frames and records
            daemon.publish("ticks", [{"text": "x" * size}])
            assert json.loads(websocket_message(connection, buffered)) == {"text": "x" * size}
        connection.sendall(b"\x88\x82\0\0\0\0\x03\xe8")  # close, 1000
        assert websocket_message(connection, buffered)[:2] == b"\x03\xe8"
        assert connection.recv(10) == b"", "with a proper end of TLS"
    with dial(daemon) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("how", [{"maximum_version": ssl.TLSVersion.TLSv1_1, "minimum_version": ssl.TLSVersion.TLSv1_1},
                                 {"maximum_version": ssl.TLSVersion.TLSv1_2, "ciphers": "AES256-SHA256:AES128-SHA:@SECLEVEL=0"}])
def test_weak_clients_are_refused(secure, how):
    daemon = secure()
    with pytest.raises((ssl.SSLError, ConnectionError)):
        dial(daemon, **how)
    with dial(daemon, maximum_version=ssl.TLSVersion.TLSv1_2) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")
        assert "ECDHE" in connection.cipher()[0]


def test_sessions_are_resumed(secure):
    daemon = secure()
    context = ssl.create_default_context(cafile=str(daemon.folder_of_files / "first.pem"))
    with dial(daemon, context=context) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")
        session = connection.session
    with dial(daemon, context=context, session=session) as connection:
        assert connection.session_reused
        assert ask(connection).startswith(b"HTTP/1.1 200")


def test_what_is_no_tls(secure):
    daemon = secure()
    with socket.create_connection(("127.0.0.1", daemon.https), timeout=20) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = plain.recv(4096)
        assert answer.startswith(b"HTTP/1.1 400") and b"https://" in answer
    for noise in (b"\x16\x03\x01\xff\xff", b"\x00" * 500, b"hello\r\n", b"\x80\x2e\x01\x00\x02", b""):
        with socket.create_connection(("127.0.0.1", daemon.https), timeout=20) as plain:
            plain.sendall(noise)
            plain.shutdown(socket.SHUT_WR)
            try:
                while plain.recv(4096):
                    pass
            except ConnectionError:
                pass
    with dial(daemon) as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")


def test_silent_clients_do_not_hold_up_others(secure):
    daemon = secure()
    silent = [socket.create_connection(("127.0.0.1", daemon.https), timeout=30) for _ in range(200)]
    for connection in silent[:100]:
        connection.sendall(b"\x16\x03\x01\x02\x00")  # the begin of a handshake
    for _ in range(5):
        with dial(daemon) as connection:
            assert ask(connection).startswith(b"HTTP/1.1 200")
    for connection in silent:
        assert connection.recv(1) == b"", "cut off by the deadline of a header"
        connection.close()


def test_a_new_certificate_is_taken_on_reload(secure):
    daemon = secure()
    folder = daemon.folder_of_files
    assert serial_seen(daemon) == pem(folder, "first")
    make_certificate(folder, "second")
    with dial(daemon) as before:
        assert ask(before).startswith(b"HTTP/1.1 200")
        for kind in ("pem", "key"):
            shutil.copy(folder / f"second.{kind}", folder / f"server.{kind}")
        assert serial_seen(daemon) == pem(folder, "first"), "files are read when it is told to"
        daemon.reload()
        wait_until(lambda: serial_seen(daemon) == pem(folder, "second"), "the new certificate")
        assert ask(before).startswith(b"HTTP/1.1 200"), "a connection that was there goes on"
    with pytest.raises(ssl.SSLError):
        dial(daemon, "first")
    with dial(daemon, "second") as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("broken", ["no file", "nonsense", "another's key"])
def test_a_broken_certificate_changes_nothing(secure, broken):
    daemon = secure()
    folder = daemon.folder_of_files
    if broken == "no file":
        (folder / "server.pem").unlink()
    elif broken == "nonsense":
        (folder / "server.pem").write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    else:
        make_certificate(folder, "second")
        shutil.copy(folder / "second.key", folder / "server.key")
    daemon.reload()
    wait_until(lambda: "the certificate that was in use stays" in daemon.log.read_text(), "the error in the log")
    assert str(folder / ("server.key" if broken == "another's key" else "server.pem")) in daemon.log_tail()
    assert serial_seen(daemon) == pem(folder, "first")
    entry = wait_until(lambda: reloads(daemon), "the entry in the audit log")[0]
    assert entry["outcome"] == "failed" and "the certificate that was in use stays" in entry["detail"], entry
    for library in ("no start line", "bad base64", "asn1", "PEM lib", "mismatch"):
        assert library not in daemon.log_tail() + entry["detail"], "sentences are ours"


def reloads(daemon):
    """What the audit log says of reloads."""
    with dial(daemon) as connection:
        answer = ask(connection, b"GET /v1/audit HTTP/1.1\r\nHost: localhost\r\n\r\n")
    return [entry for entry in json.loads(answer.partition(b"\r\n\r\n")[2])["items"] if entry["who"] == "signal"]


def test_clients_show_certificates(secure, tmp_path):
    make_certificate(tmp_path, "authority")
    make_certificate(tmp_path, "member", issuer="authority")
    make_certificate(tmp_path, "stranger")
    daemon = secure(client_ca=tmp_path / "authority.pem")
    with dial(daemon, own="member") as connection:
        assert ask(connection).startswith(b"HTTP/1.1 200")
    for own in (None, "stranger"):
        with pytest.raises((ssl.SSLError, ConnectionError)):
            # In TLS 1.3 the refusal comes with the first read.
            with dial(daemon, own=own) as connection:
                assert ask(connection) != b"", "refused without a word"
                raise AssertionError("a stranger was let in")


def test_the_client_speaks_tls(secure, tmp_path):
    daemon = secure()
    url = f"https://localhost:{daemon.https}"
    done = penstock("trigger", "shop", "work", "--wait", "--cacert", tmp_path / "first.pem", "--url", url)
    assert done.returncode == 0, done
    assert penstock("runs", env={"PENSTOCK_URL": url, "PENSTOCK_CACERT": str(tmp_path / "first.pem")}).returncode == 0
    untrusted = penstock("runs", env={"PENSTOCK_URL": url})
    assert untrusted.returncode == 3 and "certificate" in untrusted.stderr
    make_certificate(tmp_path, "other")
    assert penstock("runs", "--cacert", tmp_path / "other.pem", "--url", url).returncode == 3


def test_the_client_shows_its_certificate(secure, tmp_path):
    make_certificate(tmp_path, "authority")
    make_certificate(tmp_path, "member", issuer="authority")
    daemon = secure(client_ca=tmp_path / "authority.pem")
    env = {"PENSTOCK_URL": f"https://localhost:{daemon.https}", "PENSTOCK_CACERT": str(tmp_path / "first.pem")}
    assert penstock("runs", env=env).returncode == 3
    env |= {"PENSTOCK_CERT": str(tmp_path / "member.pem"), "PENSTOCK_KEY": str(tmp_path / "member.key")}
    done = penstock("runs", env=env)
    assert done.returncode == 0, done


def test_warnings_about_files(secure, tmp_path):
    daemon = secure()
    assert "TLS" not in daemon.log.read_text()
    os.chmod(tmp_path / "server.key", 0o644)
    make_certificate(tmp_path, "ending", days=3)
    daemon.reload()
    wait_until(lambda: "everybody on this machine can read the key" in daemon.log.read_text(), "the warning about the key")
    shutil.copy(tmp_path / "ending.pem", tmp_path / "server.pem")
    shutil.copy(tmp_path / "ending.key", tmp_path / "server.key")
    daemon.reload()
    wait_until(lambda: re.search(r"expires in [123] days", daemon.log.read_text()), "the warning about the end")


def test_a_stop_ends_tls_connections(secure):
    daemon = secure()
    with dial(daemon) as idle:
        assert ask(idle).startswith(b"HTTP/1.1 200")
        assert daemon.stop() == 0
        assert idle.recv(10) == b"", "with a proper end, not a broken connection"
    daemon.start()
