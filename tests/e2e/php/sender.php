<?php
// sender.php PORT CHANNEL: reads messages from standard input, one JSON value on each line. For each message, connects, reads the
// connect reply, sends one binary frame, and closes the socket.
require __DIR__ . '/client.php';

[, $port, $channel] = $argv;
while (($line = fgets(STDIN)) !== false) {
    $stream = connect((int) $port, '/');
    $reply = json_decode((string) read_message($stream), true);
    if (($reply['response_code'] ?? null) !== '00') {
        fail('the connect reply: ' . json_encode($reply));
    }
    $envelope = ['command' => 'send-message', 'channel' => $channel, 'data' => [json_decode(trim($line))]];
    send_frame($stream, 2, json_encode($envelope));
    unset($stream);
}
