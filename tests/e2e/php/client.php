<?php
// A WebSocket client like the scripts on shared hosts: a blocking socket, one read for the head, no library.

const USER = 'app';
const PASSWORD = 'secret';

if (!function_exists('fail')) {
    /** Ends the script with a message, which the test shows. */
    function fail(string $sentence): never
    {
        fwrite(STDERR, $sentence . "\n");
        exit(1);
    }
}

/** Connects and upgrades, or ends the script. */
function connect(int $port, string $target)
{
    return try_connect($port, $target) ?? fail('no broker');
}

/**
 * Connects and upgrades. One read of at most 1,024 bytes must contain the whole head, and nothing after it. Null if no broker
 * listens, it is stopping (503), or the connection ends without an answer.
 */
function try_connect(int $port, string $target)
{
    $stream = @stream_socket_client("tcp://127.0.0.1:$port", $number, $text, 10);
    if ($stream === false) {
        return null;
    }
    stream_set_timeout($stream, 20);
    $key = base64_encode(random_bytes(16));
    $lines = [
        "GET $target HTTP/1.1",
        'Host: 127.0.0.1',
        'pragma: no-cache',
        'Upgrade: WebSocket',
        'Connection: Upgrade',
        "Sec-WebSocket-Key: $key",
        'Sec-WebSocket-Version: 13',
        'Authorization: Basic ' . base64_encode(USER . ':' . PASSWORD),
    ];
    @fwrite($stream, implode("\r\n", $lines) . "\r\n\r\n");
    $head = @fread($stream, 1024);
    if ($head === false || $head === '') {
        return null;
    }
    if (strpos($head, 'HTTP/1.1 503 ') === 0) {
        return null;
    }
    if (strpos($head, ' 101 ') === false) {
        fail('no upgrade: ' . var_export($head, true));
    }
    $accept = base64_encode(sha1($key . '258EAFA5-E914-47DA-95CA-C5AB0DC85B11', true));
    if (strpos($head, "Sec-WebSocket-Accept: $accept") === false) {
        fail("wrong accept: $head");
    }
    if (substr($head, -4) !== "\r\n\r\n") {
        fail('lost after the head: ' . substr($head, strpos($head, "\r\n\r\n") + 4));
    }
    return $stream;
}

/** Sends one masked frame. A length of 65,535 bytes and more is written with 64 bits. */
function send_frame($stream, int $opcode, string $payload): void
{
    $length = strlen($payload);
    $head = chr(0x80 | $opcode);
    if ($length < 126) {
        $head .= chr(0x80 | $length);
    } elseif ($length < 65535) {
        $head .= chr(0x80 | 126) . pack('n', $length);
    } else {
        $head .= chr(0x80 | 127) . pack('J', $length);
    }
    $mask = random_bytes(4);
    fwrite($stream, $head . $mask . ($payload ^ substr(str_repeat($mask, intdiv($length, 4) + 1), 0, $length)));
}

/** Reads exactly `$length` bytes; null at the end of the connection. */
function read_exactly($stream, int $length): ?string
{
    $bytes = '';
    while (strlen($bytes) < $length) {
        $more = fread($stream, $length - strlen($bytes));
        if ($more === false || $more === '') {
            return null;
        }
        $bytes .= $more;
    }
    return $bytes;
}

/**
 * The next frame as [opcode, payload], or null at the end. An incomplete header, an empty frame and a close frame end the script, as
 * they end the real scripts.
 */
function read_frame($stream): ?array
{
    $header = fread($stream, 2);
    if ($header === false || $header === '') {
        return null;
    }
    if (strlen($header) === 1) {
        fail('a frame header in two pieces');
    }
    $opcode = ord($header[0]) & 15;
    $length = ord($header[1]) & 127;
    if ($length === 126) {
        $length = unpack('n', read_exactly($stream, 2))[1];
    } elseif ($length === 127) {
        $length = unpack('J', read_exactly($stream, 8))[1];
    }
    if ($opcode === 8) {
        fail('an uninvited close frame');
    }
    if ($length === 0) {
        fail("an empty frame of opcode $opcode");
    }
    return [$opcode, read_exactly($stream, $length)];
}

/** The next message, or null at the end. Pings are answered with an empty pong, except for a ping with the payload "0". */
function read_message($stream): ?string
{
    while (($frame = read_frame($stream)) !== null) {
        [$opcode, $payload] = $frame;
        if ($opcode !== 9) {
            return $payload;
        }
        if ($payload) {
            send_frame($stream, 10, '');
        }
    }
    return null;
}
