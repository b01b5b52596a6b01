"""Sends a message over TLS and receives it on another connection: PORT VERSION USER PASSWORD. Only the standard library."""
import base64, os, socket, ssl, sys

port, version, user, password = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4]
context = ssl.create_default_context(cafile="cert.pem")
number = ssl.TLSVersion.TLSv1_2 if version == "1.2" else ssl.TLSVersion.TLSv1_3
context.minimum_version = context.maximum_version = number


def connect():
    stream = context.wrap_socket(socket.create_connection(("127.0.0.1", port), 20), server_hostname="localhost")
    login = base64.b64encode(f"{user}:{password}".encode()).decode()
    stream.sendall(
        b"GET /ws?topic=sms HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Authorization: Basic " + login.encode() + b"\r\n\r\n"
    )
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += stream.recv(1)
    assert head.startswith(b"HTTP/1.1 101 "), head
    return stream


def frame(opcode, payload):
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))
    length = bytes([0x80 | len(payload)]) if len(payload) < 126 else b"\xff" + len(payload).to_bytes(8, "big")
    return bytes([0x80 | opcode]) + length + mask + masked


def exactly(stream, count):
    got = b""
    while len(got) < count:
        part = stream.recv(count - len(got))
        assert part, "the connection has ended"
        got += part
    return got


def receive(stream):
    while True:
        first, length = exactly(stream, 2)
        if length == 126:
            length = int.from_bytes(exactly(stream, 2), "big")
        elif length == 127:
            length = int.from_bytes(exactly(stream, 8), "big")
        payload = exactly(stream, length)
        if first & 15 != 9:
            return payload
        stream.sendall(frame(10, payload))


receiver, sender = connect(), connect()
print(receiver.version())
message = b'"' + b"x" * 99_998 + b'"'
sender.sendall(frame(1, message))
assert receive(receiver) == message
print(len(message), "bytes came back")
receiver.sendall(frame(8, (1000).to_bytes(2, "big")))
receive(receiver)
# `recv` returns nothing only if the end was announced; otherwise it raises an error.
context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
assert receiver.recv(1) == b""
print("ended with close_notify")
