<?php
// Sends one message and waits until it is safe: stored, or confirmed by a receiver. PHP 8 and nothing else, for cheap hosts.
//   WSMB_USER=shop WSMB_PASSWORD=… php send.php tcp://127.0.0.1:8888 sms '{"receiver":"0812…","message":"Your code is 402913"}'
// Behind a proxy with TLS the first argument is tls://broker.example:443. Succeeds (exit code 0) only if the broker has accepted the message.

[, $broker, $channel, $message] = $argv + [1 => 'tcp://127.0.0.1:8888', 2 => 'sms', 3 => '{"receiver":"081234567890","message":"Your code is 402913"}'];
$message = json_decode($message) ?? $message;
$socket = @stream_socket_client($broker, $number, $text, 10) or fail("cannot reach $broker: $text");
stream_set_timeout($socket, 20);
$host = parse_url($broker, PHP_URL_HOST);
$login = base64_encode(getenv('WSMB_USER') . ':' . getenv('WSMB_PASSWORD'));
fwrite($socket, "GET / HTTP/1.1\r\nHost: $host\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    . 'Sec-WebSocket-Key: ' . base64_encode(random_bytes(16)) . "\r\nSec-WebSocket-Protocol: wsmb.v1\r\nAuthorization: Basic $login\r\n\r\n");
$status = trim((string) fgets($socket));
str_contains($status, ' 101 ') or fail("refused: $status");
while (($line = fgets($socket)) !== false && $line !== "\r\n"); // the rest of the head says nothing new

// An `id` asks for an answer, and makes it harmless to send the same again within two minutes. `ttl`: not delivered later than this.
$command = json_encode(['command' => 'send-message', 'channel' => $channel, 'data' => [$message], 'id' => bin2hex(random_bytes(16)), 'ttl' => 60]);
$length = strlen($command);
$mask = random_bytes(4);
$head = $length < 126 ? pack('CC', 0x81, 0x80 | $length) : pack('CCJ', 0x81, 0xFF, $length);
fwrite($socket, $head . $mask . ($command ^ str_pad('', $length, $mask)));

do { // the connect reply comes first; pings are passed over, as this is over before one has to be answered
    [$kind, $length] = array_values(unpack('C2', take($socket, 2)));
    $text = take($socket, $length === 126 ? unpack('n', take($socket, 2))[1] : $length);
    $answer = $kind === 0x81 ? json_decode($text, true) : [];
} while (($answer['command'] ?? '') === 'connect' || $answer === []);
$answer['response_code'] === '00' or fail("not accepted: {$answer['response_code']} {$answer['response_text']}");
echo $answer['receivers'] > 0 ? "accepted: a receiver has it\n" : "accepted: it waits for a receiver\n";

function take($socket, int $length): string
{
    $bytes = $length ? stream_get_contents($socket, $length) : '';
    return strlen($bytes) === $length ? $bytes : fail('the broker has gone, or takes too long; send it again');
}

function fail(string $sentence): never
{
    fwrite(STDERR, "$sentence\n");
    exit(1);
}
