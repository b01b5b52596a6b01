<?php
// one_frame_sender.php PORT CHANNEL MESSAGE: sends one message on an envelope connection, prints the first frame that it gets, and ends.
require __DIR__ . '/client.php';

[, $port, $channel, $message] = $argv;
$stream = connect((int) $port, '/');
send_frame($stream, 2, json_encode(['command' => 'send-message', 'channel' => $channel, 'data' => [json_decode($message)]]));
[$opcode, $payload] = read_frame($stream) ?? fail('the end instead of a frame');
echo $opcode === 9 ? '' : $payload;
