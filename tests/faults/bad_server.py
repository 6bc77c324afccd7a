"""An HTTP server on loopback that misbehaves as it is told, at any moment: what a sink may find at the other end.

modes: ok (takes the event), refuse (nobody listens), slow (accepts and reads, never answers), half_open (answers a part and is
silent), reset (breaks the connection within its answer). Whatever it has answered with 200 is in `taken`.
"""
import socket
import struct
import threading


class BadServer:
    def __init__(self):
        self.mode = "ok"
        self.taken = []    # bodies, in order
        self.met = {}      # mode -> requests that met it
        self._lock = threading.Lock()
        self._held = []    # connections that get no answer
        self._listener = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._listen()

    def behave(self, mode):
        self.mode = mode
        self.met[mode] = 0
        if mode == "refuse":
            self._close_listener()
        elif self._listener is None:
            self._listen()
        with self._lock:
            for connection in self._held:
                reset(connection)
            self._held.clear()

    def close(self):
        self.behave("refuse")

    def _listen(self):
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self.port))
        self._listener.listen(64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _close_listener(self):
        if self._listener:
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
        self._listener = None

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection):
        with connection.makefile("rb") as stream:
            try:
                while self._answer(connection, stream):
                    pass
            except OSError:
                pass

    def _answer(self, connection, stream):
        length = 0
        if not stream.readline():
            return False
        while (line := stream.readline().strip()):
            name, _, value = line.partition(b":")
            length = int(value) if name.lower() == b"content-length" else length
        body = stream.read(length)
        mode = self.mode
        self.met[mode] = self.met.get(mode, 0) + 1
        if mode == "ok":
            self.taken.append(body)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            return True
        if mode in ("half_open", "reset"):
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Le")
        if mode in ("reset", "refuse"):
            reset(connection)
            return False
        with self._lock:
            self._held.append(connection)  # slow, half_open: nothing more comes
        return False


def reset(connection):
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()
