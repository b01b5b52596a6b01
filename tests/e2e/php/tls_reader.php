<?php
// A one-shot reader over TLS: reads one message of a channel and leaves. PORT CHANNEL USER PASSWORD

[, $port, $channel, $user, $password] = $argv;
$context = stream_context_create(['ssl' => ['cafile' => 'cert.pem', 'peer_name' => 'localhost']]);
$stream = stream_socket_client("tls://127.0.0.1:$port", $code, $text, 20, STREAM_CLIENT_CONNECT, $context);
if (!$stream) {
    fwrite(STDERR, "cannot connect: $text\n");
    exit(1);
}
stream_set_timeout($stream, 20);
$key = base64_encode(random_bytes(16));
$login = base64_encode("$user:$password");
fwrite($stream, "GET /ws?topic=$channel HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    . "Sec-WebSocket-Key: $key\r\nSec-WebSocket-Version: 13\r\nAuthorization: Basic $login\r\n\r\n");
$head = fread($stream, 1024);
if (strpos($head, ' 101 ') === false) {
    fwrite(STDERR, "refused: $head\n");
    exit(1);
}
$start = fread($stream, 2);
$length = ord($start[1]) & 127;
if ($length > 125) {
    $bytes = fread($stream, $length === 126 ? 2 : 8);
    $length = unpack($length === 126 ? 'n' : 'J', $bytes)[1];
}
$message = '';
while (strlen($message) < $length) {
    $part = fread($stream, $length - strlen($message));
    if ($part === false || $part === '') {
        fwrite(STDERR, "the connection has ended\n");
        exit(1);
    }
    $message .= $part;
}
echo $message;
// The end of the script closes the connection.
