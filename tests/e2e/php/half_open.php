<?php
// half_open.php PORT CHANNEL: receives one message, prints it, and then neither reads nor closes, like a receiver that is busy or hangs.
require __DIR__ . '/client.php';

[, $port, $channel] = $argv;
$stream = connect((int) $port, '/');
read_message($stream) ?? fail('no connect reply');
send_frame($stream, 2, json_encode(['command' => 'receive-message', 'channel' => $channel, 'data' => []]));
$message = read_message($stream) ?? fail('the end instead of a message');
echo json_encode(json_decode($message, true)['data'][0]), "\n";
sleep(60);
